"""A task's repository, ready to be put into sandboxes: the base commit and nothing newer.

`open_workspace` finds the objects (see `harness.repository.sources`), cuts the history at the base and keeps the result
in the cache by commit: a bare git directory whose one pack holds the base commit, its trees and its blobs. Every tree
that a sandbox gets is made from that directory, so what is not in it cannot leak.
"""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from tarfile import DIRTYPE

from harness.repository import hostgit, sources
from harness.repository.hostgit import Blobs, GitFailed, git, lines
from harness.repository.treetar import Entry, TreeTar, index_file
from harness.room import writing
from harness.sandbox.base import TROOPDIR, WORKDIR
from tasks.errors import InputError, SourceUnavailable
from tasks.places import made_whole
from tasks.say import Say
from tasks.task import Repository

BRANCH = "main"
_LAYOUT = "1"  # part of the cache path: another layout never reads this one's directories


def sweep_scratch(cache: Path) -> list[str]:
    """Remove what killed processes left in the cache over six hours ago (half-made clones, downloads); names each."""
    removed = [*sources.sweep(cache / "tmp"), *sources.sweep(cache / "downloads", "*/.*")]
    return [f"what a killed process left at {path}" for path in removed]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The base of a task. `git_dir`: bare, on the host, holding the base commit only; never written to again.

    `date`: of the base commit, with its time zone. `described`: the nearest tag as `git describe --tags --long` tells
    it ("" without one), for build backends that read a version from tags. `notes`: what the user should know. `top`: a
    checkout of the user's, for what its submodules hold (None: there is none)."""

    base_commit: str
    tree: str
    date: datetime
    git_dir: Path
    notes: tuple[str, ...] = ()
    described: str = ""
    top: Path | None = None

    def files(self) -> list[str]:
        """All paths of the base, in git's order; submodules left out. Undecodable bytes are surrogate-escaped."""
        return [entry.path for entry in self._entries() if not entry.is_submodule]

    def read(self, path: str) -> bytes:
        """A file's bytes (a symlink's target). Raises FileNotFoundError."""
        found = next((e for e in self._entries(path) if e.path == path and not e.is_submodule), None)
        if found is None:
            raise FileNotFoundError(f"{path} is not in the base commit {self.base_commit[:12]}")
        with Blobs(self.git_dir) as blobs:
            return next(blobs.read([found.oid]))

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The bytes of many files at once, by path; what is not in the base is left out."""
        wanted = set(paths)
        entries = [entry for entry in self._entries() if entry.path in wanted and not entry.is_submodule]
        with Blobs(self.git_dir) as blobs:
            return dict(zip((e.path for e in entries), blobs.read(e.oid for e in entries), strict=True))

    def submodules(self) -> dict[str, Path | None]:
        """By path: the objects of the user's checkout of it, None where that has none or not the commit asked for."""
        return {entry.path: self._objects_of(entry) for entry in self._entries() if entry.is_submodule}

    def _objects_of(self, entry: Entry) -> Path | None:
        place = self.top / entry.path if self.top else None
        if place is None or not (place / ".git").exists():
            return None
        try:
            objects = lines(git("rev-parse", "--path-format=absolute", "--git-path", "objects", cwd=place))[0]
            git("cat-file", "-e", f"{entry.oid}^{{tree}}", cwd=place)
        except GitFailed:
            return None
        return Path(objects)

    def archive(self) -> bytes:
        """An uncompressed tar to be unpacked at "/": the tree with an ordinary `.git`, and Troop's bare copy. Its bytes
        are those of the commit: no end-of-line conversion, no filter; the same commit gives the same archive. What the
        user's checkout has of submodules is there as plain files.

        Times: every file of the tree has the commit's, the indexes are younger, so git trusts what they say."""
        time = min(max(int(self.date.timestamp()), 315_619_200), 2**32 - 86_400)
        top, troop, entries, sizes = WORKDIR.lstrip("/"), TROOPDIR.lstrip("/"), self._entries(), list[int]()
        tar = TreeTar(time, there=troop.rpartition("/")[0])
        tar.add(top, kind=DIRTYPE)
        with Blobs(self.git_dir) as blobs:
            contents = blobs.read(e.oid for e in entries if not e.is_submodule)
            for entry in entries:
                content = b"" if entry.is_submodule else next(contents)
                sizes.append(len(content))
                tar.add_entry(top, entry, content)
                if entry.is_submodule and (objects := self._objects_of(entry)):
                    _add_submodule(tar, f"{top}/{entry.path}", objects, entry.oid)
        index = index_file(entries, sizes, time=time)
        self._add_git(tar, f"{top}/.git", self._ordinary_config(), index)
        self._add_git(tar, f"{troop}/base.git", (self.git_dir / "config").read_bytes(), index)
        return tar.whole()

    def _entries(self, *paths: str) -> list[Entry]:
        listed = git("--literal-pathspecs", "ls-tree", "-rz", "--full-tree", "HEAD", *paths, git_dir=self.git_dir)
        return [Entry.parse(line) for line in listed.split(b"\0") if line]

    def _ordinary_config(self) -> bytes:
        """The attempt's own repository, with an identity, so that its commits do not fail for want of one."""
        config = hostgit.bare_config(sha256=len(self.base_commit) == 64, bare=False)
        return (config + "[user]\n\tname = Troop\n\temail = troop@localhost\n").encode()

    def _add_git(self, tar: TreeTar, place: str, config: bytes, index: bytes) -> None:
        """A git directory. Its raw attributes hold for the attempt's own git as well, so that a `git checkout` there
        gives back the very bytes that the patch is taken against."""
        for path in sorted(self.git_dir.rglob("*")):
            name = str(path.relative_to(self.git_dir))
            if path.is_dir():
                tar.add(f"{place}/{name}", kind=DIRTYPE)
            elif name != "config":
                tar.add(f"{place}/{name}", path.read_bytes())
        for name, content in (("config", config), ("index", index)):
            # Ten seconds younger than the files: entries that are as young as the index would all be read again.
            tar.add(f"{place}/{name}", content, later=10)


def _add_submodule(tar: TreeTar, place: str, objects: Path, commit: str) -> None:
    """The files of a submodule's commit; submodules of its own stay empty."""
    with tempfile.TemporaryDirectory(prefix="troop-") as scratch:
        reader = Path(scratch) / "reader.git"
        hostgit.plant(reader, commit, borrows=objects)
        listed = git("ls-tree", "-rz", "--full-tree", commit, git_dir=reader)
        with Blobs(reader) as blobs:
            for entry in map(Entry.parse, filter(None, listed.split(b"\0"))):
                tar.add_entry(place, entry, b"" if entry.is_submodule else next(blobs.read([entry.oid])))


def open_workspace(repository: Repository, cache: Path, *, say: Say = lambda line: None) -> Workspace:
    """The workspace of a repository at its base. Clones, fetches or unpacks only what the cache does not hold.

    `say` gets one line for each step that may take long. Raises InputError (no such repository, ref or package; access
    refused) and SourceUnavailable (the network fails; another time it may not)."""
    with writing(cache), sources.opened(repository, cache, say) as source:
        place = cache / f"bases-{_LAYOUT}" / source.commit
        if not place.is_dir():
            _cut(source, place, cache)
    return replace(_kept(source.commit, place, source.notes, source.described), top=source.top)


def reopen_workspace(repository: Repository, commit: str, cache: Path, *, say: Say = lambda line: None) -> Workspace:
    """The workspace that a run began with, at that very `commit`, wherever the repository has moved since.

    Raises SourceUnavailable where neither the repository nor the cache holds the commit any more."""
    pinned = replace(repository, base=None if repository.kind == "package" else commit, include_uncommitted=False)
    reason = ""
    try:
        found = open_workspace(pinned, cache, say=say)
        if found.base_commit == commit:
            return found
    except InputError as error:
        reason = f" ({error})"
    # Uncommitted changes that were taken in are a commit of Troop's own, which only the cache holds.
    place = cache / f"bases-{_LAYOUT}" / commit
    if not place.is_dir():
        raise SourceUnavailable(
            f"the commit {commit[:12]} that this run began with is neither in {repository.location} nor in the cache "
            f"{cache} any more{reason}: begin a new run"
        )
    return _kept(commit, place, (), _described_by_parent(pinned, place / "base.git", cache))


def packed(workspace: Workspace) -> bytes:
    """The workspace's base as bytes, for another machine's cache."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(workspace.git_dir.parent, arcname=".")
    return out.getvalue()


def unpacked(content: bytes | None, commit: str, described: str, cache: Path) -> Workspace | None:
    """The workspace of which `content` was packed; with None only where the cache has it already."""
    place = cache / f"bases-{_LAYOUT}" / commit
    if content is not None:
        with writing(cache), tarfile.open(fileobj=io.BytesIO(content)) as archive:
            with made_whole(place, cache / "tmp") as made:
                archive.extractall(made, filter="data")
    return _kept(commit, place, (), described) if place.is_dir() else None


def _described_by_parent(repository: Repository, git_dir: Path, cache: Path) -> str:
    headers = lines(git("cat-file", "commit", "HEAD", git_dir=git_dir).partition(b"\n\n")[0])
    parent = next((line.split()[1] for line in headers if line.startswith("parent ")), None)
    try:
        return open_workspace(replace(repository, base=parent), cache).described if parent else ""
    except InputError:  # it is not in the repository any more, so no tag leads to it
        return ""


def _kept(commit: str, place: Path, notes: tuple[str, ...], described: str) -> Workspace:
    facts = json.loads((place / "facts.json").read_text())
    date = datetime.fromtimestamp(facts["time"], timezone(timedelta(minutes=facts["zone"])))
    return Workspace(commit, facts["tree"], date, place / "base.git", notes, described)


def _cut(source: sources.Source, place: Path, cache: Path) -> None:
    """Make `place`/base.git: one pack with the base's commit, trees and blobs, one branch, and a mark that the history
    ends here. Built aside and moved into place, so nothing is left half made and none collides."""
    with made_whole(place, cache / "tmp") as made:
        # Read through a directory of ours: neither refs nor settings of the source come along.
        reader, bare = made.with_name("reader.git"), made / "base.git"
        hostgit.plant(reader, source.commit, borrows=source.objects)
        hostgit.plant(bare, source.commit)
        try:
            ask = partial(git, git_dir=reader)
            objects = ask("rev-list", "--objects", "--no-walk", "--no-object-names", source.commit)
            ask("pack-objects", "--quiet", "--window=0", str(bare / "objects/pack/pack"), stdin=objects)
        except GitFailed as error:
            raise InputError(
                f"the repository lacks objects of its commit {source.commit[:12]} (a partial clone, or a damaged one): "
                "run `git fetch --refetch` and `git fsck` in it"
            ) from error
        commit = git("cat-file", "commit", source.commit, git_dir=bare)
        if b"\nparent " in commit.partition(b"\n\n")[0]:
            (bare / "shallow").write_text(source.commit + "\n")
        (bare / "HEAD").write_text(f"ref: refs/heads/{BRANCH}\n")
        (bare / "refs/heads" / BRANCH).write_text(source.commit + "\n")
        for empty in ("objects/info", "refs/tags"):
            shutil.rmtree(bare / empty)
        (made / "facts.json").write_text(json.dumps(_facts(commit)))


def _facts(commit: bytes) -> dict[str, str | int]:
    headers = lines(commit.partition(b"\n\n")[0])
    tree = next(line.split()[1] for line in headers if line.startswith("tree "))
    *_, seconds, zone = next(line for line in headers if line.startswith("committer ")).split()
    sign = -1 if zone.startswith("-") else 1
    minutes = sign * (int(zone[-4:-2]) * 60 + int(zone[-2:]))
    return {"tree": tree, "time": int(seconds), "zone": minutes}
