"""Taking a patch out of a sandbox, and putting one in: the harness does it, not the attempt.

git runs inside the sandbox, but on Troop's own bare copy of the base (`/opt/troop/base.git`) with a private index and
object directory. So nothing that the attempt did to its own `.git` matters: commits, branches, configuration, hooks,
attributes, or its removal; and nothing that it wrote is ever executed on the host.

One limit: in docker an attempt is root of its own system and can replace git, the shell or that copy of the base. (With
bubblewrap all three but the copy are read-only.) Programs are therefore called from the system's directories first, but
what comes out remains a claim: a patch counts for what it does in a fresh sandbox (`harness.evidence.verify`).

What a patch holds: every changed or deleted file of the base, and every new file that is not junk (junk.gitignore), a
new git-ignored one if it is source (`SOURCE`). What set-up did is left out: `mark_setup` remembers it before the first
attempt. Renames are written as deletion and addition, which every tool can apply. Submodules stay as they are, except
where the attempt removes one together with its entry in .gitmodules.
"""

import asyncio
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.patches.text import LOOSELY
from harness.records import Exec
from harness.sandbox.base import TROOPDIR, WORKDIR, Sandbox
from tasks.errors import Explained, PatchNotTaken, SetupFailed
from tasks.say import Say

# A new file that the repository ignores is taken only if its name says that it is source.
SOURCE = frozenset({
    ".py", ".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".js", ".mjs",
    ".ts", ".tsx", ".jsx", ".css", ".html", ".j2", ".jinja", ".mako", ".tmpl", ".in", ".sh", ".sql", ".toml", ".yaml",
    ".yml", ".json", ".ini", ".cfg", ".conf", ".md", ".rst", ".txt", ".csv", ".tsv", ".xml", ".po", ".proto",
    ".g4", ".lark", ".ebnf",
})  # fmt: skip  # by kind
_OUTPUT_DIRECTORIES = ("build", "_build", "dist", "out", "target", "site", "tmp", "temp", "logs", "env", "venv")

# What all files of a patch may hold together; beyond it the largest (core dumps, downloads, models) are left out.
CONTENT_BYTES = 8_000_000
# Of any answer from inside: deletions of the base come on top of the above.
_OUTPUT_BYTES = 32_000_000
_SECONDS = 300.0

_BASE_GONE, _GIT_MISSING = 71, 72

_HERE = Path(__file__).parent
_TAKING = (_HERE / "taking.sh").read_text("utf-8").replace("@TROOPDIR@", TROOPDIR).replace("@WORKDIR@", WORKDIR)
_TAKING = _TAKING.replace("@JUNK@", (_HERE / "junk.gitignore").read_text("utf-8"))


@dataclass(frozen=True, slots=True)
class _Changed:
    path: bytes
    before: int
    after: int
    oid: bytes


@dataclass(frozen=True, slots=True)
class _Look:
    """What differs from the base (or from the state after set-up) in the working tree. Paths as git lists them."""

    changed: tuple[_Changed, ...]
    new: tuple[bytes, ...]
    not_ignored: frozenset[bytes]
    special: frozenset[bytes]
    made_by_setup: frozenset[bytes]


async def mark_setup(sandbox: Sandbox) -> None:
    """Remember the tree as set-up leaves it: call it once, before the environment is frozen.

    Files that set-up made are then in no patch, and files of the base that it changed count as they are now, so that a
    patch applies in a fresh sandbox of the same environment. Raises SetupFailed where git is missing or cannot read it.
    """
    with Explained("what set-up did cannot be remembered", PatchNotTaken, kind=SetupFailed):
        look = await _look(sandbox)
        deletions, changed, _ = _staging(look, ())
        await _script(sandbox, *_staged(deletions, changed, "mark"))
        await _script(sandbox, 'cat > "$GIT_DIR/setup.made"', stdin=_records(sorted(look.new)))


async def hide_setup(sandbox: Sandbox) -> None:
    """Have the sandbox's own git pass over the files that set-up made, as the patch does. Raises SandboxFailed."""
    made = f"{TROOPDIR}/base.git/setup.made"
    script = rf"""if test -s {made} && test -d .git; then
mkdir -p .git/info && tr '\0' '\n' < {made} | sed 's/[][*?\\ ]/\\&/g; s|^|/|' >> .git/info/exclude
fi"""
    await sandbox.exec(["/bin/sh", "-c", script], timeout=_SECONDS)


async def take_patch(sandbox: Sandbox, *, exclude: Collection[str] = (), say: Say = lambda sentence: None) -> str:
    """The diff of the working tree against the base, "" if nothing changed; decoded with "surrogateescape".

    `exclude`: paths (or directories) that are left as they are on the base. `say` hears of files that are left out for
    their size (`CONTENT_BYTES`). Raises PatchNotTaken where the sandbox answers, but what the attempt did there (to
    git, Troop's copy of the base, memory, time) leaves none to be had; SandboxFailed where it is gone."""
    look = await _look(sandbox)
    left_alone = {os.fsencode(path.rstrip("/")) for path in exclude}
    deletions, changed, new = await asyncio.to_thread(_staging, look, left_alone)
    too_much = await _too_much(sandbox, changed, new)
    if too_much:
        say(_left_out(too_much))
    taken = [path for path in (*changed, *new) if path not in too_much]
    if not deletions and not taken:
        return ""
    done = await _script(sandbox, *_staged(deletions, taken, "difference"))
    return done.stdout.decode("utf-8", "surrogateescape")


def _staged(deletions: bytes, taken: Sequence[bytes], function: str) -> tuple[str, bytes]:
    """(a script that does what the function of taking.sh does with these changes, its standard input)."""
    return f"{function} {len(deletions)}", deletions + _records(taken)


async def _too_much(sandbox: Sandbox, changed: Sequence[bytes], new: Sequence[bytes]) -> dict[bytes, int]:
    """What must stay out, with sizes in bytes: the largest new files, then changed ones, until the rest fits."""
    paths = (*changed, *new)
    if not paths:
        return {}
    done = await _script(sandbox, "sizes", stdin=_records(paths))
    sizes: dict[bytes, int] = {}
    at = 0
    for path in paths:
        # Names may hold line ends, so a row is only known by the path that it must name.
        space = done.stdout.find(b" ", at)
        size = done.stdout[at:space] if space >= 0 else b""
        if size.isdigit() and done.stdout.startswith(path + b"\n", space + 1):
            sizes[path] = int(size)
            at = space + 1 + len(path) + 1
    total = sum(sizes.values())
    out: dict[bytes, int] = {}
    for group in (new, changed):
        for path in sorted(sizes.keys() & set(group), key=lambda p: (-sizes[p], p)):
            if total <= CONTENT_BYTES:
                return out
            out[path] = sizes[path]
            total -= sizes[path]
    return out


def _left_out(files: dict[bytes, int]) -> str:
    shown = [f"{os.fsdecode(path)} ({size / 1e6:.1f} MB)" for path, size in list(files.items())[:3]]
    more = [f"{len(files) - len(shown)} more"] if len(files) > len(shown) else []
    listed = ", ".join(shown + more).encode("utf-8", "replace").decode("utf-8")
    return f"left out, because a patch holds at most {CONTENT_BYTES // 1_000_000} MB of files: {listed}"


def _records(paths: Sequence[bytes]) -> bytes:
    return b"".join(path + b"\0" for path in paths)


async def apply_patch(sandbox: Sandbox, diff: str) -> str | None:
    """Apply a diff to the working tree, all of it or nothing; one of other tools may lack context. None: applied; else
    why not, in git's words.

    Raises SandboxFailed where the sandbox is gone; a patch that takes too much time or memory is a reason."""
    if not diff.strip():
        return None
    # Other tools' diffs may have lost their last line end, which git takes for damage.
    content = (diff if diff.endswith("\n") else diff + "\n").encode("utf-8", "surrogateescape")
    try:
        done = await _script(sandbox, f"lay {' '.join(LOOSELY)}", stdin=content, may_fail=True)
    except PatchNotTaken as error:
        return str(error)
    if done.exit_code == 0:
        return None
    said = [line.removeprefix("error: ").removeprefix("fatal: ") for line in done.output.splitlines() if line.strip()]
    return "; ".join(said[:3]) or f"git apply ended with {done.exit_code}"


async def restore_paths(sandbox: Sandbox, paths: Sequence[str]) -> str | None:
    """Put files, or whole directories, back as they were before the attempt: content, mode and type. Files there that
    neither the base nor set-up made are removed, junk apart. None: done; else why not: then nothing that is measured
    there counts. Raises SandboxFailed where the sandbox is gone."""
    wanted = {os.fsencode(path.rstrip("/")): None for path in paths if path.strip("/.")}
    if not wanted:
        return None
    try:
        look = await _look(sandbox)
        removed = _records([p for p in look.new if _below(p, wanted) and p not in look.made_by_setup])
        await _script(sandbox, f"put_back {len(removed)}", stdin=removed + _records(tuple(wanted)))
    except PatchNotTaken as error:
        return f"files cannot be put back as on the base: {error}"
    return None


async def _look(sandbox: Sandbox) -> _Look:
    done = await _script(sandbox, "look")
    try:
        raw, new, not_ignored, special, made = _sections(done.stdout)
        changed = tuple(_raw_change(facts, path) for facts, path in zip(raw[::2], raw[1::2], strict=True))
        found = await _with_nested(sandbox, new, frozenset(made))
    except ValueError as error:
        raise PatchNotTaken("what git in the sandbox says of the working tree makes no sense") from error
    # What lies in a nested repository is ignored by nobody's rules but its own.
    kept = frozenset(not_ignored) | (frozenset(found) - frozenset(new))
    return _Look(changed, found, kept, frozenset(p.removeprefix(b"./") for p in special), frozenset(made))


def _sections(output: bytes) -> list[list[bytes]]:
    """Lists of NUL-terminated records, each list ended by an empty record."""
    sections: list[list[bytes]] = [[]]
    for record in output.split(b"\0")[:-1]:
        if record:
            sections[-1].append(record)
        else:
            sections.append([])
    return sections[:-1]


def _raw_change(facts: bytes, path: bytes) -> _Changed:
    """One record of `diff-files --raw`: ":<mode> <mode> <oid> <oid> <status>", path."""
    before, after, oid, *_ = facts.lstrip(b":").split(b" ")
    return _Changed(path, int(before, 8), int(after, 8), oid)


async def _with_nested(sandbox: Sandbox, new: list[bytes], made: frozenset[bytes]) -> tuple[bytes, ...]:
    """The new files, with those inside of repositories that were made within the tree ("name/" in git's listing)."""
    files = [p for p in new if not p.endswith(b"/") or p in made]
    nested = [p for p in new if p.endswith(b"/") and p not in made]
    for _ in range(_NESTED_DEPTH):
        if not nested:
            break
        done = await _script(sandbox, "look_within", stdin=_records(nested))
        deeper: list[bytes] = []
        for top, listed in zip(nested, _sections(done.stdout), strict=True):
            inside = [top + p for p in listed]
            files += [p for p in inside if not p.endswith(b"/")]
            deeper += [p for p in inside if p.endswith(b"/")]
        nested = deeper
    return tuple(files)


_SUBMODULE = 0o160000
_NESTED_DEPTH = 50  # repositories within repositories that are looked into


def _staging(look: _Look, exclude: Collection[bytes]) -> tuple[bytes, list[bytes], list[bytes]]:
    """What goes into a patch: (deletions, as `update-index --index-info` wants them; changed paths; new ones)."""
    modules_changed = any(c.path == b".gitmodules" for c in look.changed)
    deletions: list[bytes] = []
    changed: list[bytes] = []
    for change in look.changed:
        if _below(change.path, exclude):
            continue
        if change.before == _SUBMODULE and (change.after == _SUBMODULE or (change.after == 0 and not modules_changed)):
            continue
        # A file that became a pipe, a socket or a repository of its own is gone as far as a patch can tell.
        if change.after in (0, _SUBMODULE) or change.path in look.special:
            deletions.append(b"0 " + b"0" * len(change.oid) + b"\t" + change.path + b"\0")
        else:
            changed.append(change.path)
    environments = {p.removesuffix(b"/pyvenv.cfg") for p in look.new if p.endswith(b"/pyvenv.cfg")}
    other, left_out = look.made_by_setup | look.special, environments.union(exclude)
    new = [p for p in look.new if p not in other and not _below(p, left_out)]
    return b"".join(deletions), changed, [p for p in new if p in look.not_ignored or _is_source(p)]


def _is_source(path: bytes) -> bool:
    pure = PurePosixPath(os.fsdecode(path))
    return pure.suffix.lower() in SOURCE and set(_OUTPUT_DIRECTORIES).isdisjoint(pure.parts[:-1])


def _below(path: bytes, tops: Collection[bytes]) -> bool:
    parts = path.split(b"/")
    return any(b"/".join(parts[:n]) in tops for n in range(1, len(parts) + 1))


async def _script(sandbox: Sandbox, script: str, stdin: bytes = b"", *, may_fail: bool = False) -> Exec:
    """Raises PatchNotTaken for whatever goes wrong in a sandbox that still answers."""
    # Not the default shell: the attempt may have left something for bash to read at its start, or a `sh` on the PATH.
    try:
        command = ["/bin/sh", "-c", _TAKING + script]
        done = await sandbox.exec(command, cwd="/", stdin=stdin, timeout=_SECONDS, output_bytes=_OUTPUT_BYTES)
    except OSError as error:
        raise PatchNotTaken(f"no program can be started in the sandbox any more: {error.strerror or error}") from error
    if done.exit_code == _BASE_GONE:
        raise PatchNotTaken(f"the base commit that Troop keeps at {TROOPDIR} is gone from the sandbox")
    if done.exit_code == _GIT_MISSING:
        raise PatchNotTaken("git is missing in the sandbox (the image must have it: patches are taken with it)")
    if done.timed_out:
        raise PatchNotTaken(f"git needed more than {_SECONDS:.0f} s for the working tree")
    if done.truncated:
        raise PatchNotTaken(f"the patch, or the list of what changed, is larger than {_OUTPUT_BYTES // 1_000_000} MB")
    if done.exit_code != 0 and not may_fail:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        killed, ending = done.exit_code in (137, -9), f"exit code {done.exit_code}"
        said = said or ["it was killed, most likely for want of memory" if killed else ending]
        raise PatchNotTaken(f"git could not look at the working tree: {said[-1]}")
    return done
