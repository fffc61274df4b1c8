"""Values put into a TOML file that somebody wrote: comments and all else of it stay as they are."""

import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from harness.cache import write_text
from tasks.errors import InputError


def put(path: Path, values: Mapping[str, Any]) -> None:
    """Write the values into the file, whole or not at all; it is made where there is none. Raises InputError for a file
    that is not TOML; then it is as it was."""
    try:
        text = path.read_bytes().decode() if path.exists() else ""
        document = tomlkit.parse(text)
        _merge(document, values)
        new = tomlkit.dumps(document)
        tomllib.loads(new)
    except (OSError, ValueError, TOMLKitError) as error:
        raise InputError(
            f"{path} cannot be changed as TOML, so nothing was written ({error}). Put into it:\n{as_toml(values)}"
        ) from error
    mode = path.stat().st_mode if path.exists() else None
    write_text(path.resolve(), new)  # a link stays one
    if mode is not None:
        path.chmod(mode & 0o777)


def as_toml(values: Mapping[str, Any]) -> str:
    """The text of a file that says these values."""
    document = tomlkit.document()
    _merge(document, values)
    return tomlkit.dumps(document)


def _merge(table: MutableMapping[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if not isinstance(value, Mapping):
            if isinstance(value, bool) or table.get(key) != value:
                table[key] = value
        else:
            if not isinstance(table.get(key), MutableMapping):
                table[key] = tomlkit.table(is_super_table=all(isinstance(v, Mapping) for v in value.values()))
            _merge(table[key], value)
