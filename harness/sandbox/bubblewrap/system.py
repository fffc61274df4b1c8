"""What a bubblewrap sandbox sees of this machine: a list of system paths, read-only, and nothing else.

Never a home directory, a socket, /run, /var, /sys, or the whole of /etc. Accounts and names are made up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.sandbox.base import HOME, TROOPDIR

USER_ID = 1000

_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Where Nix and Guix keep what /usr holds elsewhere.
_STORES = ("/nix/store", "/gnu/store", "/run/current-system/sw")
# No key, no account, no host's configuration of a program that may hold a secret.
_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "timezone", "mime.types", "magic"),
    *("protocols", "services", "ethertypes", "debian_version", "os-release", "lsb-release", "fonts", "xml", "sgml"),
    *("ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "crypto-policies"),
    *("pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf", "pki/ca-trust/extracted", "python3", "python3.11"),
    *("perl", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk"),
)

# To the kernel, the sandbox of a harness that root started is root's: without capabilities, but the owner of these.
# What may not be written (settings of the whole machine), and what may not even be read.
_PROC_KEPT = ("/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/driver", "/proc/mtrr")
_PROC_HIDDEN = (
    *("/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kmsg", "/proc/kallsyms", "/proc/modules"),
    *("/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup", "/proc/vmallocinfo", "/proc/timer_list"),
    *("/proc/sched_debug", "/proc/latency_stats", "/proc/acpi", "/proc/asound", "/proc/scsi", "/proc/iomem"),
    *("/proc/slabinfo", "/proc/ioports"),
)

CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""The environment in which the tools that build a sandbox, and its first process, start: nothing of the harness's."""

ETC_FILES = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\ntroop:x:{USER_ID}:{USER_ID}:troop:{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\ntroop:x:{USER_ID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "host.conf": "multi on\n",
}
"""Made up for every sandbox, by name below /etc."""


def system_mounts(etc: Path, *, network: bool) -> list[str]:
    """bubblewrap's arguments for the system paths. `etc`: the folder with `ETC_FILES`."""
    return [*_programs(), *_etc(etc, network), *_devices()]


def _programs() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _LINKED:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for store in _STORES:
        if Path(store).is_dir():
            yield from ("--ro-bind", os.path.realpath(store), store)


def _etc(made_up: Path, network: bool) -> Iterator[str]:
    for name in _ETC:
        path = Path("/etc", name)
        if path.is_symlink() and path.exists():
            # What it points to may not be visible inside; the content is what counts.
            yield from ("--ro-bind", str(path.resolve()), str(path))
        elif path.exists():
            yield from ("--ro-bind", str(path), str(path))
    for name in ETC_FILES:
        shared = network and name == "hosts"  # an index inside a company may be known by the hosts file alone
        yield from ("--ro-bind", f"/etc/{name}" if shared else str(made_up / name), f"/etc/{name}")
    resolver = Path("/etc/resolv.conf")
    if network and resolver.exists():
        yield from ("--ro-bind", str(resolver.resolve()), str(resolver))


def _devices() -> Iterator[str]:
    yield from ("--proc", "/proc", "--dev", "/dev")
    for path in map(Path, _PROC_KEPT):
        if path.exists():
            yield from ("--ro-bind", str(path), str(path))
    for path in map(Path, _PROC_HIDDEN):
        if path.is_dir():
            yield from ("--tmpfs", str(path), "--remount-ro", str(path))
        elif path.exists():
            yield from ("--ro-bind", "/dev/null", str(path))
    yield from ("--dir", "/run", "--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--dir", "/opt", "--dir", TROOPDIR)
