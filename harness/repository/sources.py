"""Where a repository's objects come from: the user's repository, a mirror in the cache, or an unpacked release.

Each way ends in a `Source`: an object directory and a commit in it, nothing more. What lies around that commit (other
refs, later commits) is cut away by `harness.repository.workspace`.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.lock import held
from harness.outputs import is_output
from harness.repository import hostgit
from harness.repository.hostgit import GitFailed, git, lines
from tasks.errors import InputError, SourceUnavailable
from tasks.package import unpack
from tasks.places import expanded
from tasks.say import Say
from tasks.task import Repository

_NAMES_A_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_PACKAGE_EPOCH = 946684800  # 2000-01-01: the date of a release whose archive tells none
FETCH_SECONDS = 3600.0
LEFT_OVER_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Source:
    """A commit and the object directory that holds it. `described`: `git describe --tags --long`, "" without a tag.
    `top`: the user's checkout, where there is one."""

    objects: Path
    commit: str
    described: str = ""
    notes: tuple[str, ...] = ()
    top: Path | None = None


@contextlib.contextmanager
def opened(repository: Repository, cache: Path, say: Say) -> Iterator[Source]:
    """The source of a repository; what it needs for a while only is removed at the end of the context."""
    ways = {"path": _from_path, "url": _from_url, "package": _from_package}
    (cache / "tmp").mkdir(parents=True, exist_ok=True)
    sweep(cache / "tmp")
    with tempfile.TemporaryDirectory(dir=cache / "tmp", prefix="source-") as scratch:
        yield ways[repository.kind](repository, cache, Path(scratch), say)


def sweep(directory: Path, pattern: str = "*") -> list[Path]:
    """Remove what processes that were killed left here; the paths. By age, since a cache may be shared between
    machines: nothing that is still in use is so old, as a fetch ends after `FETCH_SECONDS`."""
    removed = []
    for left in sorted(directory.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > LEFT_OVER_SECONDS:
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()
                removed.append(left)
    return removed


# The user's repository


def _from_path(repository: Repository, cache: Path, scratch: Path, say: Say) -> Source:
    place = expanded(repository.location)
    top, git_dir, common = _look_at(place)
    notes: tuple[str, ...] = ()
    if top is not None and place.resolve() != top.resolve():
        notes = (f"{place} lies within the repository {top}: the whole repository is used",)
    head = _resolve(git_dir, "HEAD")
    if head is None and repository.base is None:
        raise InputError(f"{place} has no commits yet: commit something first (git add -A && git commit)")
    commit = _resolve(git_dir, repository.base) if repository.base else head
    if commit is None:
        raise InputError(
            f"{place} has no branch, tag or commit {repository.base!r}: name one of its own with --base, or leave"
            " it out"
        )
    clean = Source(common / "objects", commit, _describe(git_dir, commit), notes, top)
    if top is None:
        return clean
    dirty = _Dirty(top, git_dir, common, head or commit, scratch)
    changed, untracked = dirty.paths()
    if not changed and not untracked:
        return clean
    counts = ((len(changed), "changed"), (len(untracked), "untracked"))
    count = " and ".join(f"{number} {what}" for number, what in counts if number)
    count += " file" if len(changed) + len(untracked) == 1 else " files"
    if not repository.include_uncommitted:
        left_out = f"uncommitted changes are left out: {count} (--include-uncommitted takes them in)"
        return replace(clean, notes=(*notes, left_out))
    if commit != head:
        raise InputError(
            f"--include-uncommitted needs the checked-out commit as base, but {repository.base!r} is another one: leave"
            " one of the two out"
        )
    notes = (*notes, f"uncommitted changes are taken in: {count}")
    return replace(clean, objects=dirty.objects, commit=dirty.commit(), notes=notes)


def _look_at(place: Path) -> tuple[Path | None, Path, Path]:
    """Of a repository of the user's: (its top, None for a bare one; its git directory; what its work trees share)."""
    if not place.exists():
        raise InputError(f"there is no directory {place}")
    if not place.is_dir():
        raise InputError(f"{place} is a file: name the directory of a git repository")
    asked = "--is-bare-repository --is-inside-work-tree --absolute-git-dir --git-common-dir"
    try:
        bare, inside, git_dir, common = lines(git("rev-parse", *asked.split(), cwd=place))
        top = lines(git("rev-parse", "--show-toplevel", cwd=place))[0] if inside == "true" else None
    except GitFailed as error:
        if "not a git repository" in error.stderr:
            hint = "git init && git add -A && git commit makes it one"
            raise InputError(f"{place} is not a git repository: {hint}") from error
        raise InputError(f"{place} cannot be read as a git repository: {_last_line(error.stderr)}") from error
    if bare == "false" and top is None:
        raise InputError(f"{place} is the inside of a git directory: name the repository's own directory")
    return Path(top) if top else None, Path(git_dir), (place / common).resolve()


class _Dirty:
    """The user's working tree against its last commit, read through a git directory of ours with a copy of the index:
    no configuration of the user's (filters, fsmonitor) and no hook comes into play, and nothing is written."""

    def __init__(self, top: Path, git_dir: Path, common: Path, head: str, scratch: Path) -> None:
        self._top, self._head = top, head
        self._unstaged: list[bytes] = []
        self._results: list[bytes] = []
        self._git_dir = scratch / "dirty.git"
        self.objects = self._git_dir / "objects"
        hostgit.plant(self._git_dir, head, config=_working_tree_config(git_dir), borrows=common / "objects")
        (self._git_dir / "info/attributes").write_text("")
        for name in ("attributes", "exclude"):
            if (common / "info" / name).is_file():
                shutil.copyfile(common / "info" / name, self._git_dir / "info" / name)
        for index in [git_dir / "index", *git_dir.glob("sharedindex.*")]:
            if index.is_file():
                # The index's own time tells git which entries may be stale, so it is copied too.
                shutil.copy2(index, self._git_dir / index.name)

    def _git(self, *arguments: str, stdin: bytes = b"", variables: dict[str, str] | None = None) -> bytes:
        more = {"GIT_WORK_TREE": str(self._top)} | (variables or {})
        return git(*arguments, git_dir=self._git_dir, cwd=self._top, variables=more, stdin=stdin)

    def paths(self) -> tuple[list[bytes], list[bytes]]:
        """(changed since the last commit, staged or not; untracked and not ignored). Submodules are not looked into.

        What lies in a directory of Troop's results and is in no commit is neither: an attempt must not see others."""
        try:
            options = "--porcelain -z --no-renames --untracked-files=all --ignore-submodules=all"
            output = self._git("status", *options.split())
        except GitFailed as error:
            raise InputError(f"the state of {self._top} cannot be read: {_last_line(error.stderr)}") from error
        entries = [e for e in output.split(b"\0") if e]
        new = [e[3:] for e in entries if e.startswith(b"??") or b"A" in e[:2]]
        self._results = self._within_results(new)
        left_out = set(self._results)
        entries = [e for e in entries if e[3:] not in left_out]
        untracked = [e[3:] for e in entries if e.startswith(b"??")]
        # What is staged and unchanged since is in the copy of the index already.
        self._unstaged = [e[3:] for e in entries if e[1:2] != b" "]
        return [e[3:] for e in entries if not e.startswith(b"??")], untracked

    def commit(self) -> str:
        """A commit of the whole tree as it stands, on top of the last one; the same tree gives the same id."""
        if self._git("ls-files", "--unmerged"):
            raise InputError(f"{self._top} is in the middle of a merge: finish or abort it first")
        # Not `git add`: that would look into submodules with their own configuration.
        entries = [p for p in self._unstaged if not p.endswith(b"/")]
        paths = [p for p in entries if not (self._top / os.fsdecode(p) / ".git").exists()]
        self._git("update-index", "-z", "--add", "--remove", "--replace", "--stdin", stdin=b"\0".join(paths) + b"\0")
        self._git("update-index", "-z", "--force-remove", "--stdin", stdin=b"".join(p + b"\0" for p in self._results))
        tree = lines(self._git("write-tree"))[0]
        date = lines(git("show", "-s", "--format=%cI", self._head, git_dir=self._git_dir))[0]
        variables = hostgit.IDENTITY | {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        arguments = ["commit-tree", tree, "-p", self._head, "-m", "Uncommitted changes"]
        return lines(self._git(*arguments, variables=variables))[0]

    def _within_results(self, paths: list[bytes]) -> list[bytes]:
        """Those that lie in a directory of Troop's results, at any depth; the repository itself is none."""
        above = {path: Path(os.fsdecode(path)).parents[:-1] for path in paths}
        folders = {folder for parents in above.values() for folder in parents}
        results = {folder for folder in folders if is_output(self._top / folder)}
        return [path for path in paths if not results.isdisjoint(above[path])]


def _working_tree_config(git_dir: Path) -> str:
    """Those settings that say which files count and how they map to content, and nothing that names a program: of the
    repository's own, and the user's list of files to ignore everywhere."""
    kept = ("core.filemode", "core.autocrlf", "core.eol", "core.symlinks", "core.ignorecase", "core.precomposeunicode")
    try:
        output = git("config", "--local", "--no-includes", "--list", "-z", git_dir=git_dir)
    except GitFailed as error:
        raise InputError(f"the settings of {git_dir} cannot be read: {_last_line(error.stderr)}") from error
    excludes = hostgit.user_setting("core.excludesFile", "--path")
    config = f"\texcludesFile = {json.dumps(excludes, ensure_ascii=False)}\n" if excludes else ""
    config = config if excludes.isprintable() else ""
    for entry in output.decode("utf-8", "surrogateescape").split("\0"):
        key, _, value = entry.partition("\n")
        if key in kept and value.isalnum():
            config += f"\t{key.removeprefix('core.')} = {value}\n"
    return f"[core]\n{config}"


# A repository by URL


def _from_url(repository: Repository, cache: Path, scratch: Path, say: Say) -> Source:
    location = repository.location
    if location.startswith("-"):
        raise InputError(f"{location!r} is not the URL of a git repository")
    clean, _ = hostgit.network_environment(location)
    mirror = cache / "mirrors" / (_readable(clean) + "-" + hashlib.sha256(clean.encode()).hexdigest()[:12] + ".git")
    base = repository.base
    notes: tuple[str, ...] = ()
    with held(mirror.with_suffix(".lock")):
        here = base if mirror.exists() else None
        if here and not _NAMES_A_COMMIT.fullmatch(here) and _resolve(mirror, f"refs/heads/{here}"):
            here = None  # what a branch means today only the server knows
        commit = _resolve(mirror, here) if here else None
        if commit is None:
            notes = _bring(mirror, location, scratch, say)
            commit = _resolve(mirror, base or "refs/troop/head") or _fetch_by_name(mirror, location, base)
        if commit is None:
            raise InputError(f"{clean} has no branch, tag or commit {base!r}: check the spelling of --base")
        return Source(mirror / "objects", commit, described=_describe(mirror, commit), notes=notes)


def _bring(mirror: Path, location: str, scratch: Path, say: Say) -> tuple[str, ...]:
    """Clone, or fetch what is new; a mirror that cannot be refreshed is used as it is, with a note."""
    everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/troop/head"]
    shown = hostgit.without_secrets(location, location)
    if not mirror.exists():
        say(f"cloning {shown}")
        hostgit.plant(scratch / "mirror.git", "ref: refs/heads/main")
        _fetch(scratch / "mirror.git", location, everything)
        (scratch / "mirror.git").rename(mirror)
        return ()
    say(f"fetching what is new in {shown}")
    try:
        _fetch(mirror, location, everything, "--prune")
    except SourceUnavailable as error:
        age = (time.time() - (mirror / "HEAD").stat().st_mtime) / 86400
        return (f"{error}; the copy in the cache is used, {age:.1f} days old",)
    (mirror / "HEAD").touch()
    return ()


def _fetch_by_name(mirror: Path, location: str, base: str | None) -> str | None:
    """A commit or ref that no branch or tag leads to (a pull request's), asked for by name."""
    if base is None or not (_NAMES_A_COMMIT.fullmatch(base) or base.startswith("refs/")):
        return None
    kept = f"refs/troop/{base}"
    with contextlib.suppress(InputError):  # the server does not have it or does not give it: the same to us
        _fetch(mirror, location, [f"+{base}:{kept}"])
    return _resolve(mirror, kept)


def _fetch(mirror: Path, location: str, refspecs: list[str], *options: str) -> None:
    """`git fetch` through GitPython. Raises InputError (not there, not allowed) or SourceUnavailable (not now)."""
    import git as gitpython

    url, variables = hostgit.network_environment(location)
    # GitPython lays `env` over the surrounding variables, so those that must not be there are taken away by name.
    unwanted = sorted(name for name in os.environ if name.startswith("GIT_") and name not in variables)
    unset = ["env", *(part for name in unwanted for part in ("-u", name))] if unwanted else []
    fetch = ["fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head"]
    command = [*unset, "git", f"--git-dir={mirror}", *fetch, *options, "--", url, *refspecs]
    try:
        gitpython.Git(mirror).execute(
            command, env=variables, kill_after_timeout=FETCH_SECONDS, strip_newline_in_stdout=False
        )
    except gitpython.GitCommandNotFound as error:
        raise SourceUnavailable(hostgit.NO_GIT) from error
    except gitpython.GitCommandError as error:
        said = hostgit.without_secrets(str(error.stderr), location)
        # `from None`: the original carries the command line and the raw message.
        raise _explained(url, said) from None


_SAYINGS = tomllib.loads((Path(__file__).parent / "sayings.toml").read_text("utf-8"))["saying"]


def _explained(url: str, said: str) -> InputError | SourceUnavailable:
    found = next(saying for saying in _SAYINGS if re.search(saying["git"], said.lower()))
    kind = SourceUnavailable if found["later"] else InputError
    return kind(found["words"].format(url=url, line=_last_line(said)))


def _readable(url: str) -> str:
    name = url.rstrip("/").removesuffix(".git").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60] or "repository"


# A released package


def _from_package(repository: Repository, cache: Path, scratch: Path, say: Say) -> Source:
    """The release as one commit without a parent; its date is that of the newest file, where the archive tells one."""
    key = hashlib.sha256(repository.location.strip().lower().encode()).hexdigest()[:16]
    store = cache / "packages" / f"{_readable(repository.location)}-{key}.git"
    with held(store.with_suffix(".lock")):
        if not store.exists():
            tree = scratch / "tree"
            said = unpack(repository.location, tree, cache=cache / "downloads", say=say)
            planted = scratch / "package.git"
            hostgit.plant(planted, "ref: refs/heads/main")
            commit = _commit_directory(planted, tree, repository.location)
            (planted / "troop.json").write_text(json.dumps({"commit": commit, "said": said}))
            planted.rename(store)
        kept = json.loads((store / "troop.json").read_text())
        return Source(store / "objects", kept["commit"], notes=(kept["said"],))


def _commit_directory(git_dir: Path, tree: Path, name: str) -> str:
    """Commit a directory, every file of it as it is (ignored or not)."""
    files = [p for p in tree.rglob("*") if p.is_file() or p.is_symlink()]
    newest = int(max((p.lstat().st_mtime for p in files), default=0))
    # Zip archives give up no usable times: what was written a moment ago says nothing about the release.
    date = newest if _PACKAGE_EPOCH < newest < time.time() - 86400 else _PACKAGE_EPOCH
    variables = {"GIT_WORK_TREE": str(tree)}
    git("add", "--all", "--force", ".", git_dir=git_dir, cwd=tree, variables=variables)
    written = lines(git("write-tree", git_dir=git_dir))[0]
    dates = {"GIT_AUTHOR_DATE": f"@{date} +0000", "GIT_COMMITTER_DATE": f"@{date} +0000"}
    arguments = ["commit-tree", written, "-m", name]
    return lines(git(*arguments, git_dir=git_dir, variables=hostgit.IDENTITY | dates))[0]


# Shared


def _resolve(git_dir: Path, ref: str) -> str | None:
    """The commit that a ref means in that git directory, or None."""
    odd = not ref or ref.startswith("-") or "\0" in ref
    return None if odd else _told(git_dir, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")


def _describe(git_dir: Path, commit: str) -> str:
    return _told(git_dir, "describe", "--tags", "--long", commit) or ""  # no tag may lead there


def _told(git_dir: Path, *question: str) -> str | None:
    with contextlib.suppress(GitFailed):
        return lines(git(*question, git_dir=git_dir))[0]
    return None


def _last_line(text: str) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip().strip("'")]
    fatal = [line for line in said if "fatal:" in line or "error:" in line]
    line = (fatal or said or ["git gave no reason"])[-1]
    return line.split("stderr: '")[-1].removeprefix("fatal: ").removeprefix("error: ").rstrip("'. ")
