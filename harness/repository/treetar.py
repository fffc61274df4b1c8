"""A tree of a commit as tar members and as a git index: bytes written by hand, so that nothing converts them."""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "symlink", "directory"]

_TYPES = {"file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "directory": tarfile.DIRTYPE}


@dataclass(frozen=True, slots=True)
class Entry:
    """A path of a commit's tree. `mode` is git's: 0o100644, 0o100755, 0o120000 (symlink), 0o160000 (submodule)."""

    path: str
    mode: int
    oid: str

    @classmethod
    def parse(cls, line: bytes) -> Entry:
        """From a line of `git ls-tree -z`: "<mode> <type> <oid>\\t<path>"."""
        facts, _, path = line.partition(b"\t")
        mode, _, oid = facts.split(b" ")
        return cls(os.fsdecode(path), int(mode, 8), oid.decode("ascii"))

    @property
    def is_submodule(self) -> bool:
        return self.mode == 0o160000

    @property
    def kind(self) -> Kind:
        return "directory" if self.is_submodule else "symlink" if self.mode == 0o120000 else "file"

    @property
    def tar_mode(self) -> int:
        return 0o755 if self.is_submodule or self.mode & 0o100 else 0o644


def tar_member(path: str, content: bytes, *, mode: int, time: int, kind: Kind) -> bytes:
    """Header and padded content of one member, in GNU format: names may have any bytes and any length."""
    info = tarfile.TarInfo(path)
    info.type = _TYPES[kind]
    info.mode = 0o777 if kind == "symlink" else mode
    info.mtime = time
    if kind == "symlink":
        info.linkname = os.fsdecode(content)
        content = b""
    info.size = len(content)
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE)


def tar_trailer(size: int) -> bytes:
    """What ends an archive that is `size` bytes long so far."""
    return b"\0" * (tarfile.BLOCKSIZE * 2 + -(size + tarfile.BLOCKSIZE * 2) % tarfile.RECORDSIZE)


def index_file(entries: Sequence[Entry], sizes: Sequence[int], *, time: int) -> bytes:
    """A git index, version 2 (Documentation/gitformat-index), of a tree whose files all were modified at `time`.

    Together with `core.checkStat = minimal` it lets git take unchanged files for unchanged without reading them.
    """
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
