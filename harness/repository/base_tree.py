"""The files of a base commit, and what a patch makes of them, without a working tree and without executing anything.

git runs in a directory of ours that only borrows the repository's objects: no hooks, no filters, no configuration of
the repository. The patch goes on an index, never on files.
"""

import contextlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.patches.patch import Patch
from harness.patches.text import LOOSELY
from harness.repository.hostgit import Blobs, GitFailed, git, plant
from tasks.errors import InputError

_WAYS: tuple[tuple[str, tuple[str, ...]], ...] = (("clean", ()), ("fuzzy", LOOSELY))


@dataclass(frozen=True, slots=True)
class Patched:
    """What a patch does to the base. `applies`: "clean", "fuzzy" (only with less context) or "no", with its `reason`.
    `files`: by path, the content before and after; None where there is no such file."""

    applies: str
    files: Mapping[str, tuple[bytes | None, bytes | None]]
    reason: str = ""


class BaseTree:
    """The tree of one commit; made by `open_tree`. Several threads may ask it."""

    def __init__(self, git_dir: Path, commit: str, blobs: Blobs) -> None:
        self._git_dir, self.base_commit, self._blobs = git_dir, commit, blobs
        self._lock = threading.RLock()
        self._git("read-tree", commit)

    def read(self, path: str) -> bytes | None:
        """A file of the base, None where there is none."""
        return self._blob(f"{self.base_commit}:{path}")

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Files of the base by path; what is not there is left out."""
        return {path: text for path in paths if (text := self.read(path)) is not None}

    def files(self) -> list[str]:
        """All files of the base."""
        return [p.decode("utf-8", "surrogateescape") for p in self._git("ls-files", "-z").split(b"\0") if p]

    def patched(self, patch: str, *, contents: bool = True) -> Patched:
        """Put the patch on the base's index, read what it changed, and put the index back. Without `contents` it is
        only seen whether it applies, which writes nothing."""
        text = patch if patch.endswith("\n") else patch + "\n"
        reason = ""
        only = () if contents else ("--check",)
        for word, options in _WAYS:
            with self._lock:
                try:
                    self._git("apply", "--cached", *only, "--whitespace=nowarn", *options, "-", stdin=text)
                    return Patched(word, {} if only else self._changed(patch))
                except GitFailed as error:
                    reason = reason or error.stderr.split("\n")[0]
                finally:
                    self._git("read-tree", self.base_commit)
        return Patched("no", {}, reason)

    def _changed(self, patch: str) -> dict[str, tuple[bytes | None, bytes | None]]:
        told = self._git("diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", self.base_commit, "--")
        records = told.decode("utf-8", "surrogateescape").split("\0")
        oids = {path: facts.split(" ")[2:4] for facts, path in zip(records[::2], records[1::2], strict=False)}
        names = {path: oids.get(path) or [f"{self.base_commit}:{path}"] * 2 for path in Patch(patch).paths}
        return {path: (self._blob(before), self._blob(after)) for path, (before, after) in names.items()}

    def _blob(self, name: str) -> bytes | None:
        try:
            with self._lock:
                return next(self._blobs.read([name]))
        except (GitFailed, ValueError):
            return None

    def _git(self, *arguments: str, stdin: str = "") -> bytes:
        return git(*arguments, git_dir=self._git_dir, stdin=stdin.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def open_tree(repository: Path, commit: str) -> Iterator[BaseTree]:
    """The tree of `commit` in `repository` (a bare clone or a .git directory). Raises InputError if it is missing."""
    objects = repository / ".git" / "objects" if (repository / ".git").is_dir() else repository / "objects"
    with tempfile.TemporaryDirectory(prefix="troop-base-") as scratch:
        place = Path(scratch) / "git"
        plant(place, commit, borrows=objects)
        try:
            git("cat-file", "-e", f"{commit}^{{commit}}", git_dir=place)
        except GitFailed as error:
            what = f"{repository} has no commit {commit[:12]}"
            raise InputError(f"{what}; fetch it there, or name another mirror") from error
        with Blobs(place) as blobs:
            yield BaseTree(place, commit, blobs)
