"""Who a sandbox belongs to: the mark of a harness process, which tells later whether that process still lives.

A process id alone comes back; with its start time, the boot and the pid namespace it names one process for good.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def me() -> str:
    """The mark of this process."""
    pid = os.getpid()
    return f"{_here()}/{pid}/{_started(pid)}"


def is_alive(mark: str, *, running: bool = True) -> bool:
    """Whether the process of that mark lives. Of a process on another machine (a shared daemon), in another container
    or before a reboot nothing is known: then what the sandbox itself does (`running`) is taken for its life."""
    here, _, rest = mark.rpartition("/")[0].rpartition("/")
    started = mark.rpartition("/")[2]
    if here != _here() or not rest.isdigit():
        return running
    return _started(int(rest)) == started


@cache
def _here() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """Start time in clock ticks since the boot; empty for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
