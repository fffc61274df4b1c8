"""Evidence on a patch that needs no execution: does it apply and parse, does it use names that nothing defines, what
does it touch, and how is that related to the issue's text. Pure but for reading the base's files."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from harness.choosing.statement import Statement, names_file
from harness.code.facts import identifiers, normal_form, parsed, touched, undefined_names
from harness.patches.patch import SCRATCH, Patch
from harness.patches.paths import is_prose, is_test
from harness.patches.text import FileChange
from harness.repository.base_tree import BaseTree, Patched

MOST_FILES = 500
"""Of a patch with more files only the diff's text tells: nothing is parsed."""


@dataclass(frozen=True, slots=True)
class StaticFacts:
    """What can be told of one patch without running it.

    `applies`: "clean", "fuzzy", "no", or "unknown" where there was no tree of the base. `code`: the digest of the
    source files in normal form (of the diff's text where there was no tree): equal for the same code but for layout,
    comments, docstrings and local names. `places`: what it touches, "path::qualified.name" ("path" alone for module
    level or an unknown place). `unparsed`: files that parsed on the base and no longer do. `undefined`: names that are
    looked up and that nothing defines, new ones only. `unseen`: new identifiers that occur nowhere else in the touched
    files. `flags`: of `harness.patches.patch`. `strays`: new source files that belong to no package; they count neither
    in `code` nor in `places` and `files`."""

    applies: str
    code: str
    places: tuple[str, ...]
    files: tuple[str, ...]
    unparsed: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    no_code: bool = False
    named_files: float = 0.0
    frame_places: float = 0.0
    reason: str = ""


def look(patch_text: str, statement: Statement, tree: BaseTree | None) -> StaticFacts:
    """The facts about one patch; without `tree` those that the diff's text alone tells."""
    patch = Patch(patch_text)
    strays = stray_files(patch, tree)
    source = source_without(patch, strays)
    close = len(patch.changes) <= MOST_FILES
    applied = tree.patched(patch_text, contents=close) if tree is not None else Patched("unknown", {})
    if tree is not None and (hidden := patch.hides(tree.files())):
        applied = replace(applied, applies="no", reason=f"{hidden} would be loaded in place of what runs the tests")
    patched = applied if close else Patched("unknown", {})
    known = patched.applies in ("clean", "fuzzy")
    places = _places([c for c in patch.changes if c.path in source], patched)
    python = [(path, *patched.files.get(path, (None, None))) for path in source if path.endswith(".py") and known]
    parts = [(path, before, after) for path, before, after in python if after is not None]
    undefined = (undefined_names(after) - undefined_names(before) for _, before, after in parts)
    return StaticFacts(
        applies=applied.applies,
        code=_code(patched, source) if known else _text_digest(patch_text, strays),
        places=places,
        files=tuple(source),
        unparsed=tuple(p for p, old, new in parts if parsed(new) is None and (old is None or parsed(old) is not None)),
        undefined=tuple(sorted(set[str]().union(*undefined))),
        unseen=_unseen(patched, source) if known else (),
        flags=patch.flags,
        strays=strays,
        no_code=not source or (known and not places),
        named_files=max((names_file(statement, p) for p in source), default=0.0),
        frame_places=_frame_places(places, statement),
        reason=applied.reason,
    )


def _unseen(patched: Patched, source: list[str]) -> tuple[str, ...]:
    """Identifiers that the patch brings in, which the touched files did not know and it does not define itself."""
    before_all: set[str] = set()
    after_all: set[str] = set()
    defined: set[str] = set()
    for path in source:
        before, after = (parsed(data) for data in patched.files.get(path, (None, None)))
        before_all |= identifiers(before) if before else set()
        if after is not None:
            after_all |= identifiers(after)
            defined |= identifiers(after, bound=True)
    return tuple(sorted(after_all - before_all - defined))


def _text_digest(patch_text: str, strays: Sequence[str]) -> str:
    """The fingerprint of the diff without its stray files: the code as far as the text alone tells."""
    pieces = re.split(r"(?m)^(?=diff --git )", patch_text)
    without = frozenset(strays)
    kept = [piece for piece in pieces if piece.split("\n", 1)[0].rpartition(" b/")[2] not in without]
    return Patch("".join(kept)).fingerprint or Patch(patch_text).fingerprint


def _code(patched: Patched, source: list[str]) -> str:
    """The digest of the patched source in normal form; by its text for what has none."""
    parts = []
    for path in source or sorted(patched.files):
        before, after = patched.files.get(path, (None, None))
        tree = parsed(after) if path.endswith(".py") else None
        form = normal_form(tree) if tree is not None else None
        if form is not None:
            old = parsed(before)
            parts.append(f"{path} {form if old is None or normal_form(old) != form else ''}")
        else:
            parts.append(f"{path} {hashlib.sha256(after or b'').hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _places(changes: Sequence[FileChange], patched: Patched) -> tuple[str, ...]:
    found: set[str] = set()
    for change in changes:
        before, after = patched.files.get(change.path, (None, None))
        tree_before, tree_after = parsed(before), parsed(after)
        whole = tree_after is not None and (tree_before is not None or before is None)
        scopes = touched(tree_before, tree_after) if whole else None
        if scopes is not None:
            found |= {f"{change.path}::{name}" if name else change.path for name in scopes}
        elif whole or patched.applies == "unknown" or not change.path.endswith(".py"):
            found |= {_heading(change.path, hunk.section) for hunk in change.hunks}
    return tuple(sorted(found))


def _heading(path: str, section: str) -> str:
    match = re.match(r"\s*(?:async\s+)?(?:def|class)\s+(\w+)", section)
    return f"{path}::{match[1]}" if match else path


def stray_files(patch: Patch, tree: BaseTree | None) -> tuple[str, ...]:
    """New files that are no tests and no prose and belong to no package: at the top, named like a scratch file, or,
    with the base at hand, in a directory that it does not have."""
    folders = {str(PurePosixPath(p).parent) for p in tree.files()} if tree is not None else None
    new = [c.path for c in patch.files if c.kind == "added" and not is_test(c.path) and not is_prose(c.path)]
    return tuple(p for p in new if _is_stray(p, folders))


def _is_stray(path: str, folders: set[str] | None) -> bool:
    pure = PurePosixPath(path)
    elsewhere = folders is not None and str(pure.parent) not in folders and str(pure.parent.parent) not in folders
    return len(pure.parts) == 1 or elsewhere or SCRATCH.match(pure.name) is not None


def source_without(patch: Patch, strays: Sequence[str]) -> list[str]:
    """What the patch is about: its source files without the stray ones, or all where there is nothing else."""
    source = [p for p in patch.source_files if not is_prose(p)]
    without = frozenset(strays)
    return [p for p in source if p not in without] or source


def _frame_places(places: tuple[str, ...], statement: Statement) -> float:
    """1.0 for touching the innermost function of a traceback, less the further out; 0.0 for none of its functions."""
    named = {(path, name.rpartition(".")[2]) for path, _, name in (place.partition("::") for place in places)}
    for number, frame in reversed(list(enumerate(statement.frames, 1))):
        same = (path for path, name in named if name == frame.function)
        if any(path.endswith(frame.path) or frame.path.endswith(path) for path in same):
            return number / len(statement.frames)
    return 0.0
