"""Verdicts that were reached before, by all that they depend on: image, patch, evaluation script, hidden tests, rules.

An entry is a directory that appears whole or not at all, so a process may be killed at any moment and several may write
at the same time: the first entry of a key stays. Turns keep several processes from working on the same key.
"""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.cache import read_json
from harness.records import Json

_VERDICT, _LOG = "verdict.json", "test_output.txt.gz"


def key_of(*parts: str | bytes) -> str:
    """One name for all that a verdict depends on."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class Memo:
    """Entries under the directory `root`; half-made ones under `scratch`, on the same file system, may be swept."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self._scratch = scratch

    def scratch(self) -> Path:
        """A new empty directory, to be filled and kept, or removed."""
        place = self._scratch / f"grading-{os.getpid()}-{secrets.token_hex(6)}"
        place.mkdir(parents=True)
        return place

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[bool]:
        """Within: True where no other process (or other part of this one) works on the key, nor will meanwhile. A turn
        ends with its holder, whatever the holder's end."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        path = self._scratch / f"grading-{key[:32]}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:  # who has opened the file by now works beside the next one: no harm but the time
                path.unlink(missing_ok=True)

    def look_up(self, key: str) -> Json | None:
        """The verdict of that key, None where there is none that can be read."""
        return read_json(self._place(key) / _VERDICT)

    def keep(self, key: str, verdict: Json, log: Path, *, again: bool = False) -> None:
        """Keep a verdict with the file `log`, which is moved out of its scratch directory; that directory goes.

        `again`: it takes the place of an older entry."""
        made = self.scratch()
        with log.open("rb") as plain, gzip.open(made / _LOG, "wb", compresslevel=1) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        (made / _VERDICT).write_text(json.dumps(verdict), "utf-8")
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        old = self._scratch / f"{made.name}-old"
        if again or self.look_up(key) is None:  # the second: an entry that cannot be read is none
            with contextlib.suppress(OSError):
                place.rename(old)
        with contextlib.suppress(OSError):  # another process was sooner: its entry stays
            made.rename(place)
        for left in (made, old, log.parent):
            shutil.rmtree(left, ignore_errors=True)

    def copy_log(self, key: str, to: Path) -> None:
        """Unpack the output of the tests to a file. Raises OSError where it is gone."""
        with gzip.open(self._place(key) / _LOG, "rb") as packed, to.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / key
