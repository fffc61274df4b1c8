"""A small file system of its own, to be filled: what a full disk does to whoever writes to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """An ext4 file system mounted at `place`."""

    place: Path

    @property
    def left(self) -> int:
        """Bytes that can still be written."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize

    def fill(self, left: int) -> None:
        """Leave `left` bytes, as near as blocks allow; whoever writes at the same time may take them first."""
        with (self.place / "filling").open("ab") as file:
            for step in (1 << 24, 1 << 20, 1 << 16, 1 << 12):
                with contextlib.suppress(OSError):
                    while self.left >= left + step:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)

    def empty(self) -> None:
        """Make room again."""
        (self.place / "filling").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A new one, made in `folder`; the test is skipped where nothing can be mounted."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    make = ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image))
    mount = ("mount", "-o", "loop", str(image), str(place))
    for command in (make, mount):
        try:
            subprocess.run(command, capture_output=True, check=True, text=True)
        except FileNotFoundError as error:
            pytest.skip(f"no small disk can be made: {error}")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no small disk can be made: {error.stderr.strip()}")
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(("umount", "--lazy", str(place)), check=False)
        image.unlink()
