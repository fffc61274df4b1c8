"""What a bubblewrap sandbox sees of this machine: a list of system paths, read-only, and nothing else.

Never a home directory, a socket, /run, /var, /sys, or the whole of /etc. Accounts and names are made up.
"""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

from harness.sandbox.base import HOME, TROOPDIR

USER_ID = 1000

_SEEN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))

CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""The environment in which the tools that build a sandbox, and its first process, start: nothing of the harness's."""

ETC_FILES = {name: text.format(user=USER_ID, home=HOME) for name, text in _SEEN["made_up"].items()}
"""Made up for every sandbox, by name below /etc."""


def system_mounts(etc: Path, *, network: bool) -> list[str]:
    """bubblewrap's arguments for the system paths. `etc`: the folder with `ETC_FILES`."""
    return [*_programs(), *_etc(etc, network), *_devices()]


def _programs() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _SEEN["linked"]:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for store in _SEEN["stores"]:
        if Path(store).is_dir():
            yield from ("--ro-bind", os.path.realpath(store), store)


def _etc(made_up: Path, network: bool) -> Iterator[str]:
    for name in (*_SEEN["etc"], *(("resolv.conf",) if network else ())):
        path = Path("/etc", name)
        if path.exists():
            # What a link points to may not be visible inside; the content is what counts.
            yield from ("--ro-bind", str(path.resolve()), str(path))
    for name in ETC_FILES:
        shared = network and name == "hosts"  # an index inside a company may be known by the hosts file alone
        yield from ("--ro-bind", f"/etc/{name}" if shared else str(made_up / name), f"/etc/{name}")


def _devices() -> Iterator[str]:
    yield from ("--proc", "/proc", "--dev", "/dev")
    for path in map(Path, _SEEN["proc"]["kept"]):
        if path.exists():
            yield from ("--ro-bind", str(path), str(path))
    for path in map(Path, _SEEN["proc"]["hidden"]):
        if path.is_dir():
            yield from ("--tmpfs", str(path), "--remount-ro", str(path))
        elif path.exists():
            yield from ("--ro-bind", "/dev/null", str(path))
    yield from ("--dir", "/run", "--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--dir", "/opt", "--dir", TROOPDIR)
