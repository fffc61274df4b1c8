"""Room on the disk: what a file system's refusal looks like, and how much it has left.

Whoever writes does it within `writing`, and whoever believes what ran on a file system asks `lacking` afterwards: a
full, failing or read-only disk is never taken for anybody's own fault.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import REFUSALS, DiskFull, EnvironmentFailed, SandboxFailed

_WORDS = tuple(os.strerror(number).lower() for number in REFUSALS)
LOW, ENOUGH = 16 << 20, 200 << 20
"""Bytes left where sandboxes lie: with less than LOW what commands say is not believed, since they may have found the
disk full; with less than ENOUGH no sandbox is made."""
MAKE_ROOM = "; make room"


def refused(said: str) -> bool:
    """Whether an error's or a program's words are a file system's that takes (or gives) nothing more."""
    return any(word in said.lower() for word in _WORDS)


def sandbox_failure(said: str) -> EnvironmentFailed:
    """What is to be raised where no sandbox can be had, by the words that say why."""
    return (DiskFull if refused(said) else SandboxFailed)(said)


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Within: such a refusal is raised as DiskFull, which says where."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        said = f"the file system takes no more at {error.filename or place}: {error.strerror}{MAKE_ROOM}"
        raise DiskFull(said) from error


def lacking(place: Path | None, least: int = LOW) -> str:
    """In words, that less than `least` bytes (or no files, or nothing) can still be written at `place`, which need not
    be there yet; empty where they can, or that is not known (None)."""
    if place is None:
        return ""
    found = os.statvfs(next(each for each in (place, *place.parents) if each.exists()))
    closed = found.f_flag & os.ST_RDONLY or (found.f_files and not found.f_favail)
    free = 0 if closed else found.f_bavail * found.f_frsize
    size = f"{free >> 20} MB" if free >> 20 else f"{free >> 10} kB"
    return "" if free >= least else f"the file system of {place} has {size} left"


def check(place: Path | None, least: int = ENOUGH) -> None:
    """Raises DiskFull where less than `least` bytes are left at `place`."""
    if why := lacking(place, least):
        raise DiskFull(f"{why}, too little to go on with{MAKE_ROOM}")
