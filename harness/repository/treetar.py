"""A tree of a commit as a tar archive and as a git index: no git writes it, so that nothing converts its bytes."""

import hashlib
import io
import os
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from tarfile import DIRTYPE, REGTYPE, SYMTYPE
from typing import Self


@dataclass(frozen=True, slots=True)
class Entry:
    """A path of a commit's tree. `mode` is git's: 0o100644, 0o100755, 0o120000 (symlink), 0o160000 (submodule)."""

    path: str
    mode: int
    oid: str

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """From a line of `git ls-tree -z`: "<mode> <type> <oid>\\t<path>"."""
        facts, _, path = line.partition(b"\t")
        mode, _, oid = facts.split(b" ")
        return cls(os.fsdecode(path), int(mode, 8), oid.decode("ascii"))

    @property
    def is_submodule(self) -> bool:
        return self.mode == 0o160000

    @property
    def kind(self) -> bytes:
        """What it is in a tar archive."""
        return DIRTYPE if self.is_submodule else SYMTYPE if self.mode == 0o120000 else REGTYPE


class TreeTar:
    """An archive in GNU format, whose names may have any bytes and any length. Its members have the time `time`, and
    the folders that they lie in are made, but for those that are `there`."""

    def __init__(self, time: int, there: str) -> None:
        self._time = time
        self._made = {there}
        self._out = io.BytesIO()
        self._tar = tarfile.TarFile(mode="w", fileobj=self._out, format=tarfile.GNU_FORMAT, encoding="utf-8")

    def add(self, path: str, content: bytes = b"", mode: int = 0o644, kind: bytes = REGTYPE, later: int = 0) -> None:
        """Add a member, by so many seconds younger than others; of a symlink `content` is its target."""
        parts = path.split("/")
        for folder in ("/".join(parts[:n]) for n in range(1, len(parts))):
            if folder not in self._made:
                self.add(folder, kind=DIRTYPE)
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.mtime = kind, mode, self._time + later
        if kind == SYMTYPE:
            info.mode, info.linkname, content = 0o777, os.fsdecode(content), b""
        elif kind == DIRTYPE:
            info.mode = 0o755
            self._made.add(path)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def add_entry(self, top: str, entry: Entry, content: bytes) -> None:
        """Add an entry of a tree, below the folder `top`."""
        self.add(f"{top}/{entry.path}", content, 0o755 if entry.mode & 0o100 else 0o644, entry.kind)

    def whole(self) -> bytes:
        """The archive, ended."""
        self._tar.close()
        return self._out.getvalue()


def index_file(entries: Sequence[Entry], sizes: Sequence[int], *, time: int) -> bytes:
    """A git index, version 2 (Documentation/gitformat-index), of a tree whose files all were modified at `time`.

    Together with `core.checkStat = minimal` it lets git take unchanged files for unchanged without reading them."""
    hashed = hashlib.sha256 if entries and len(entries[0].oid) == 64 else hashlib.sha1
    out = [struct.pack(">4sII", b"DIRC", 2, len(entries))]
    for entry, size in sorted(zip(entries, sizes, strict=True), key=lambda pair: os.fsencode(pair[0].path)):
        name = os.fsencode(entry.path)
        seconds = 0 if entry.is_submodule else time
        body = struct.pack(">10I", 0, 0, seconds, 0, 0, 0, entry.mode, 0, 0, size & 0xFFFFFFFF)
        body += bytes.fromhex(entry.oid) + struct.pack(">H", min(len(name), 0xFFF)) + name
        out.append(body + b"\0" * (8 - len(body) % 8))
    content = b"".join(out)
    return content + hashed(content).digest()
