"""What Troop puts into a container: its own modules always, and for a set-up what it needs to install packages."""

import io
import ipaddress
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from harness.sandbox.base import HOME, INSIDE, TROOPDIR
from harness.sandbox.client import inside_modules
from harness.sandbox.index import index_settings, uv_binary

SETUP_BIN = f"{TROOPDIR}/bin"
SETUP_CERTIFICATES = f"{TROOPDIR}/certificates.pem"

Files = dict[str, tuple[bytes, int]]
"""Content and mode by absolute path."""


# Ends whatever set-up left running, then removes what was there for the set-up only, and what nobody should inherit.
_FOR_SETUP = f"{INSIDE} {SETUP_BIN} {SETUP_CERTIFICATES} {HOME} /tmp/* /tmp/.[!.]* /root/.cache"
TIDY = f"kill -9 -1; rm -rf {_FOR_SETUP}; mkdir -p {HOME}"


def inside_files() -> Files:
    """Troop's own modules, where the shim is started from."""
    return {f"{INSIDE}/{name}": (content, 0o644) for name, content in inside_modules().items()}


@cache
def inside_fingerprint() -> str:
    return sha256(repr(sorted(inside_files().items())).encode()).hexdigest()[:16]


def archive(files: Mapping[str, tuple[bytes, int]], directories: Iterable[str] = ()) -> bytes:
    """A tar archive of files and empty directories by absolute path, to be unpacked at "/"; all of them root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in directories:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class SetupKit:
    """What a set-up container gets beyond an ordinary one; freezing takes all of it out again.

    `places`: package folders and files of this machine, mounted read-only at the same place. `loopback`: an index or a
    proxy listens on this machine's loopback, which only the host's network reaches. `notes`: what was left out."""

    env: Mapping[str, str]
    files: Files
    places: tuple[Path, ...]
    loopback: bool
    notes: tuple[str, ...]


def setup_kit() -> SetupKit:
    """uv, this machine's package index settings, and its CA bundle (as a copy: certificates are no secret)."""
    settings = index_settings()
    files: Files = {f"{SETUP_BIN}/uv": (uv_binary().read_bytes(), 0o755)}
    env = dict(settings.env)
    if settings.certificates is not None:
        files[SETUP_CERTIFICATES] = (settings.certificates.read_bytes(), 0o644)
        bundle = str(settings.certificates)
        env = {name: SETUP_CERTIFICATES if value == bundle else value for name, value in env.items()}
    loopback = any(_on_loopback(url) for value in env.values() for url in value.replace(",", " ").split())
    linked = tuple(path for path in settings.files if path != settings.certificates)
    return SetupKit(env, files, settings.folders + linked, loopback, settings.notes)


def _on_loopback(url: str) -> bool:
    host = (urlsplit(url).hostname or "") if "://" in url else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
