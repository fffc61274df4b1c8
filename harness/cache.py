"""Where Troop keeps what can be had again, and the one way to write a file whole or not at all."""

import contextlib
import json
import os
import secrets
from pathlib import Path

from harness.records import Json
from harness.room import writing
from tasks.places import expanded


def cache_root() -> Path:
    """Where Troop keeps what can be had again: $TROOP_CACHE, else $XDG_CACHE_HOME/troop, else ~/.cache/troop."""
    if named := os.environ.get("TROOP_CACHE"):
        return expanded(named).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return expanded(xdg).absolute() / "troop"
    return Path.home() / ".cache" / "troop"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; undecodable bytes of a patch (surrogates) come out as they came in.

    Folders above it are made. Raises DiskFull or OSError, and leaves what was there before."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}")
        try:
            part.write_bytes(text.encode("utf-8", "surrogateescape"))
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def write_json(path: Path, data: Json, *, indent: int | None = 1) -> None:
    """Write a JSON document whole or not at all, as `write_text` does."""
    write_text(path, json.dumps(data, indent=indent) + "\n")


def read_json(path: Path) -> Json | None:
    """A kept JSON object; None where there is none, or an unreadable one, which is then made again."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
