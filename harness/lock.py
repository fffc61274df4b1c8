"""One process at a time on a run, a file, or anything else with a lock file: a lock that its holder's death
releases."""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from harness.outputs import make_output
from harness.room import writing
from tasks.errors import EnvironmentFailed, RunLocked

_NAME = ".lock"
_POLL_SECONDS = 0.2


@contextlib.contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Within: a run's directory is held for this process.

    The lock is the kernel's (flock), so it is gone with the process, kill -9 included; the file's text only tells
    others who holds it. Raises RunLocked, naming the holder, DiskFull, and EnvironmentFailed where the directory
    cannot be written."""
    try:
        with writing(directory):
            make_output(directory)
            file = (directory / _NAME).open("a+")
    except OSError as error:
        raise EnvironmentFailed(f"the run directory {directory} cannot be used: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunLocked(
                f"the run {directory.name} in {directory.parent} is being worked on by {_told(file.read())}: "
                "wait for it, or stop that process"
            ) from error
        except OSError as error:
            raise EnvironmentFailed(f"{directory} is on a file system without locks: {error.strerror}") from error
        since = datetime.now(UTC).isoformat("T", "seconds")
        told = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        file.truncate(0)
        with contextlib.suppress(OSError):  # only for others to read: the lock holds without
            os.write(file.fileno(), told.encode())
        try:
            yield
        finally:
            file.truncate(0)  # it stays: removing it would let two processes lock two files of one name


@contextlib.contextmanager
def locked(file: IO[Any]) -> Iterator[None]:
    """Within: an exclusive lock on an open file, waited for, blocking."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (made if missing), waited for, blocking: in an event loop, call what does this
    `apart`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file, locked(file):
        yield


@contextlib.asynccontextmanager
async def turn(place: Path, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock file `place` (made if missing), waited for without blocking the event loop; the kernel frees a dead
    process's. `waiting` is called once if another holds it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("ab") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                await asyncio.sleep(_POLL_SECONDS)
        yield


def _told(text: str) -> str:
    try:
        told = json.loads(text)
        since = datetime.fromisoformat(told["since"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"process {told['pid']} on {told['host']} since {since}"
    except (ValueError, KeyError, TypeError):  # it has locked and not written yet
        return "another process"
