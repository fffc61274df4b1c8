"""One process at a time on a run: a lock that its holder's death releases, whatever the death."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from tasks.errors import EnvironmentFailed, RunLocked

_NAME = ".lock"


class RunLock:
    """Holds a run's directory for this process; a context manager.

    The lock is the kernel's (flock), so it is gone with the process, kill -9 included; the file's text only tells others
    who holds it. Raises RunLocked, naming the holder, and EnvironmentFailed where the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file: IO[str] | None = None

    def __enter__(self) -> RunLock:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = (self.directory / _NAME).open("a+")
        except OSError as error:
            raise EnvironmentFailed(f"the run directory {self.directory} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = _told(file.read())
            file.close()
            raise RunLocked(
                f"the run {self.directory.name} in {self.directory.parent} is being worked on by {holder}: "
                "wait for it, or stop that process"
            ) from error
        except OSError as error:
            file.close()
            raise EnvironmentFailed(f"{self.directory} is on a file system without locks: {error.strerror}") from error
        file.seek(0)
        file.truncate()
        file.write(
            json.dumps(
                {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
            )
        )
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The file stays: removing it would let two processes lock two files of one name.
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
            self._file.close()
            self._file = None


def _told(text: str) -> str:
    try:
        told = json.loads(text)
        since = datetime.fromisoformat(told["since"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"process {told['pid']} on {told['host']} since {since}"
    except (ValueError, KeyError, TypeError):  # it has locked and not written yet
        return "another process"
