"""A patch as data: which files, how much, whether two are the same, and what about one should make a reader wary.

Everything here is read from the text of the diff; taking, applying and restoring are in `harness.patches.extract`.
"""

import hashlib
import io
import re
import tokenize
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from harness.patches.paths import hides_from, is_prose, is_test
from harness.patches.text import FileChange, Hunk, parse

LARGE_LINES = 400
LARGE_FILES = 20
LARGE_BYTES = 200_000

_SIZE = 16  # hex digits of a fingerprint: 64 bits, among hundreds of candidates
_KEPT = 128  # patches whose fingerprint and flags are kept: they are asked for again whenever an attempt ends


@dataclass(frozen=True)
class Patch:
    """A diff against the base. `diff`: text decoded with "surrogateescape", as `take_patch` gives it. `flags`: the
    words of flags.toml that hold of it."""

    diff: str

    @cached_property
    def changes(self) -> tuple[FileChange, ...]:
        """One per file of the diff, with its hunks."""
        return parse(self.diff)

    @cached_property
    def files(self) -> tuple[FileChange, ...]:
        """One per file, with its hunks; one that was moved unchanged is one "renamed", no deletion and addition."""
        gone = {c.blob_before: c for c in self.changes if c.kind == "deleted" and c.blob_before and not c.binary}
        out: list[FileChange] = []
        moved: set[int] = set()
        for change in self.changes:
            source = gone.pop(change.blob_after, None) if change.kind == "added" and change.blob_after else None
            if source is not None and source.path != change.path:
                moved.add(id(source))
                change = replace(change, kind="renamed", old_path=source.path, hunks=())
            out.append(change)
        return tuple(c for c in out if id(c) not in moved)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """All paths that the patch touches, the old names of renamed files too; sorted, each once."""
        return tuple(sorted({p for c in self.changes for p in (c.path, c.old_path) if p is not None}))

    @cached_property
    def source_files(self) -> tuple[str, ...]:
        """What is neither a test nor prose (*.md, *.rst, and whatever is below doc or docs)."""
        return tuple(path for path in self.paths if not is_test(path) and not is_prose(path))

    @cached_property
    def changes_code(self) -> bool:
        """Whether more than tests, prose, and the comments, blank lines and spacing of Python changes, as far as the
        text of the diff tells: where a docstring may be meant, code counts as changed."""
        return any(map(_changes_code, self._of_source))

    @cached_property
    def added_lines(self) -> int:
        return sum(c.added for c in self.files)

    @cached_property
    def removed_lines(self) -> int:
        return sum(c.removed for c in self.files)

    @property
    def changed_lines(self) -> int:
        return self.added_lines + self.removed_lines

    @cached_property
    def touched_lines(self) -> Mapping[str, frozenset[int]]:
        """By path on the base: line numbers there (from 1) that are removed, or that new lines follow (0: the top)."""
        out: dict[str, set[int]] = {}
        for change in self.changes:
            lines = out.setdefault(change.old_path or change.path, set())
            for hunk in change.hunks:
                lines |= {at if sign == "-" else at - 1 for at, sign, _ in hunk.numbered() if sign != " "}
        return {path: frozenset(lines) for path, lines in out.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Equal for patches that make the same change to the code; "" for no change.

        The amount of context, the order of files, and in Python blank lines, comments and spacing within a line do not
        count. Tests and prose count only in a patch that has nothing else: the attempts that agree on a fix seldom
        agree on the words of its test. All fingerprints that are compared must come from one base."""
        return _fingerprint(self.diff)

    @cached_property
    def flags(self) -> tuple[str, ...]:
        return _flags(self.diff)

    def hides(self, base: Collection[str]) -> str:
        """The first new file that Python would load in place of what runs the tests: in the top folder, or one that the
        base has and that is no package there. Empty: none. `base`: the paths of the base."""
        for change in (c for c in self.changes if c.kind in ("added", "renamed")):
            folder = hides_from(change.path + ".py" * (change.mode_after == "120000"))
            known = folder is not None and any(path.startswith(f"{folder}/") for path in base)
            if folder == "." or (known and f"{folder}/__init__.py" not in base):
                return change.path
        return ""

    @property
    def _of_source(self) -> list[FileChange]:
        source = set(self.source_files)
        return [c for c in self.changes if c.path in source or c.old_path in source]


# Fingerprints


@lru_cache(maxsize=_KEPT)
def _fingerprint(diff: str) -> str:
    patch = Patch(diff)
    parts = ((_identity(change), _text_blocks(change)) for change in patch._of_source or patch.changes)
    text = "\n".join(sorted(map(repr, parts)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_SIZE] if text else ""


def _identity(change: FileChange) -> tuple[object, ...]:
    mode = change.mode_after if change.mode_after != change.mode_before else None
    return change.path, change.old_path, change.kind, mode


def _text_blocks(change: FileChange) -> object:
    """The change as (line of the base, removed, added) blocks, normalised as far as the text alone allows."""
    if change.binary:
        return change.blob_after or change.binary_text
    python = change.path.endswith((".py", ".pyi"))
    blocks = [block for hunk in change.hunks for block in _blocks(hunk, python and not _has_long_string(hunk))]
    # Nothing but comments and blank lines, or so it seems: then these are the change.
    return blocks or [block for hunk in change.hunks for block in _blocks(hunk, False)]


def _changes_code(change: FileChange) -> bool:
    if change.kind != "modified" or change.binary or not change.path.endswith((".py", ".pyi")):
        return True
    if any(map(_has_long_string, change.hunks)):
        return True
    return any(removed != added for hunk in change.hunks for _, removed, added in _blocks(hunk, True))


def _has_long_string(hunk: Hunk) -> bool:
    """Where a long string may begin or end, a # or a blank line may be content."""
    return any('"""' in text or "'''" in text for _, text in hunk.lines)


def _blocks(hunk: Hunk, python: bool) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    removed: list[str] = []
    added: list[str] = []
    anchor = None
    above = hunk.start - 1 if hunk.lines else 0
    for at, sign, text in [*hunk.numbered(), (0, " ", "end")]:
        plain = _normalised(text) if python else text.rstrip("\r")
        if sign == " ":
            if (removed or added) and (plain or not python or at == 0):
                yield (anchor if anchor is not None else -above - 1, tuple(removed), tuple(added))
                removed, added, anchor = [], [], None
            above = at if plain or not python else above
        elif plain or not python:
            if sign == "-":
                anchor = at if anchor is None else anchor
            (removed if sign == "-" else added).append(plain)


def _normalised(line: str) -> str:
    """A line of Python as indentation and tokens, comments gone; the line itself where it is no row of tokens."""
    tokens: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline):
            if token.type == tokenize.ERRORTOKEN:
                return line.rstrip()
            if token.type not in _LAYOUT:
                tokens.append(token.string)
    except tokenize.TokenError as error:
        # An open bracket at the end of the line is no reason for doubt; an open string is.
        if "multi-line statement" not in str(error):
            return line.rstrip()
    except SyntaxError:
        return line.rstrip()
    indentation = line[: len(line) - len(line.lstrip())]
    return indentation + " ".join(tokens) if tokens else ""


_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


# Flags


@lru_cache(maxsize=_KEPT)
def _flags(diff: str) -> tuple[str, ...]:
    patch = Patch(diff)
    patterns = {name: flag.get("paths", ()) for name, flag in _WORDS.items()}
    named = {name for name, of in patterns.items() if any(re.fullmatch(each, p) for each in of for p in patch.paths)}
    return tuple(name for name in patterns if name in named or (name in _FLAGS and _FLAGS[name](patch)))


_WORDS = tomllib.loads(Path(__file__).with_name("flags.toml").read_text("utf-8"))


_SECTIONS = re.compile(r"\[tool[.:](pytest|tox|coverage|hypothesis)|\b(addopts|testpaths|python_files|xfail_strict)\b")


def _test_config(patch: Patch) -> bool:
    shared = [c for c in patch.changes if PurePosixPath(c.path).name in ("pyproject.toml", "setup.cfg")]
    return any(_SECTIONS.search(text) for c in shared for hunk in c.hunks for text in hunk.around())


_BREAKPOINT = re.compile(r"^\s*(breakpoint\(|import\s+i?pdb\b|from\s+i?pdb\b)|\bi?pdb\.set_trace\(")
_PRINT = re.compile(r"^\s*p?print\s*\(")


def _debugging(patch: Patch) -> bool:
    """A breakpoint, or more prints than there were."""
    code = [c for c in patch.changes if c.path.endswith(".py") and not is_test(c.path)]
    lines = [line for change in code for hunk in change.hunks for line in hunk.lines]
    prints = Counter(sign for sign, text in lines if _PRINT.match(text))
    return prints["+"] > prints["-"] or any(sign == "+" and _BREAKPOINT.search(text) for sign, text in lines)


_TOOL = r"\b(_?pytest|unittest|pluggy|troop_\w+)\b"
_TEST_AWARE = re.compile(
    rf"^\s*(import|from)\b[^#]*{_TOOL}|\b(modules|import_module|__import__)\b.*{_TOOL}|{_TOOL}.*\bmodules\b"
    r"|\b(PYTEST|TROOP)_[A-Z]+"
)


def _test_aware(patch: Patch) -> bool:
    """A test tool's own files, where the base has them, may name it."""
    code = [c for c in patch.changes if c.path.endswith(".py") and not is_test(c.path)]
    hunks = [hunk for c in code if c.kind == "added" or not re.search(_TOOL, c.path) for hunk in c.hunks]
    signs = Counter(sign for hunk in hunks for sign, text in hunk.lines if _TEST_AWARE.search(text))
    return signs["+"] > signs["-"]


SCRATCH = re.compile(
    r"(reproduc|repro[_.\d]|scratch|debug_|tmp|temp_|demo[_.]|try_|check_fix|verify_|test_fix|fix_)", re.IGNORECASE
)


def _outside_package(patch: Patch) -> bool:
    new = [PurePosixPath(c.path) for c in patch.files if c.kind == "added" and c.path.endswith(".py")]
    return any((len(p.parts) == 1 and not is_test(str(p))) or SCRATCH.match(p.name) for p in new)


def _has_mode(patch: Patch, mode: str) -> bool:
    return any(mode in (c.mode_before, c.mode_after) for c in patch.changes)


_FLAGS: Mapping[str, Callable[[Patch], bool]] = {
    "edits-tests": lambda p: any(c.kind != "added" and is_test(c.old_path or c.path) for c in p.files),
    "adds-tests": lambda p: any(c.kind == "added" and is_test(c.path) for c in p.files),
    "test-config": _test_config,
    "binary": lambda p: any(c.binary for c in p.changes),
    "debugging": _debugging,
    "test-aware": _test_aware,
    "large": lambda p: p.changed_lines > LARGE_LINES or len(p.files) > LARGE_FILES or len(p.diff) > LARGE_BYTES,
    "outside-package": _outside_package,
    "symlink": lambda p: _has_mode(p, "120000"),
    "submodule": lambda p: _has_mode(p, "160000"),
    "mode-change": lambda p: any(
        c.kind == "mode" or (c.mode_before and c.mode_after and c.mode_before != c.mode_after) for c in p.changes
    ),
}
