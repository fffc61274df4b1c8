"""Values put into a TOML file that somebody wrote: only the lines of these values change, all else stays byte for byte.

Lines are looked at one at a time, which a file may be too clever for (tables written inline, texts over many lines that
look like tables). So what comes of it is read again, and refused unless it says what was wanted and nothing else.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cache import write_text
from tasks.errors import InputError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
Table = tuple[str, ...]


def put(path: Path, values: Mapping[str, Any]) -> None:
    """Write the values into the file, whole or not at all; it is made where there is none. Raises InputError for a file
    that is not TOML, or too clever; then it is as it was."""
    try:
        text = path.read_bytes().decode() if path.exists() else ""
        before = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as TOML, so nothing was written ({error})") from error
    new = with_values(text, values)
    if _parsed(new) != _merged(before, values):
        raise InputError(
            f"{path} is written in a way that Troop does not change, so nothing was written. Put into it:\n"
            + as_toml(values)
        )
    mode = path.stat().st_mode if path.exists() else None
    write_text(path.resolve(), new)  # a link stays one
    if mode is not None:
        path.chmod(mode & 0o777)


def as_toml(values: Mapping[str, Any]) -> str:
    """The text of a file that says these values."""
    return with_values("", values)


def with_values(text: str, values: Mapping[str, Any], table: Table = ()) -> str:
    """The text with the values in `table`; tables among them become, or stay, tables of their own."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    line_end = "\r\n" if "\r\n" in text else "\n"
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if lines and not lines[-1].endswith("\n") and values:
        lines[-1] += line_end
    if plain and _span(lines, table) is None:
        near = _span(lines, table[:-1]) if table[:-1] else None
        at = _end_of_content(lines, *near) if near else len(lines)
        header = f"[{'.'.join(map(_key, table))}]{line_end}"
        lines[at:at] = [line_end, header] if at else [header]
    for key, value in plain.items():
        start, end = _span(lines, table) or (0, 0)
        at = next((n for n in range(start, end) if (_parsed(lines[n]) or {}).keys() == {key}), -1)
        if at >= 0:
            lines[at] = _replaced(lines[at], key, value)
            continue
        at = _end_of_content(lines, start, end)
        gap = [line_end] if not table and at < len(lines) and lines[at].strip() else []
        lines[at:at] = [f"{_key(key)} = {_value(value)}{line_end}", *gap]
    text = "".join(lines)
    for key, value in values.items():
        if isinstance(value, Mapping):
            text = with_values(text, value, (*table, key))
    return text


def _span(lines: list[str], table: Table) -> tuple[int, int] | None:
    """From the line after the table's header to that before the next one's; None where it has no header."""
    headers = [(n, path) for n, line in enumerate(lines) if (path := _header(line))]
    start = next((n + 1 for n, path in headers if path == table), None) if table else 0
    return None if start is None else (start, next((n for n, _ in headers if n >= start), len(lines)))


def _header(line: str) -> Table:
    """The table that begins with this line; empty for none."""
    tree: Any = _parsed(line) if line.lstrip().startswith("[") else None
    path: list[str] = []
    while isinstance(tree, dict) and tree:
        (key, tree), *_ = tree.items()
        path.append(key)
    return tuple(path)


def _end_of_content(lines: list[str], start: int, end: int) -> int:
    """Behind the last line that says something: what follows belongs to the next table, as a comment above it does."""
    said = [n for n in range(start, end) if lines[n].strip() and not lines[n].lstrip().startswith("#")]
    return said[-1] + 1 if said else start


def _replaced(line: str, key: str, value: Any) -> str:
    """The line with another value; a comment behind it stays."""
    had = _parsed(line) or {}
    if had[key] == value and type(had[key]) is type(value):
        return line
    body = line.rstrip("\r\n")
    marks = (found.start() for found in re.finditer(r"\s*#", body))
    comment = next((at for at in marks if _parsed(body[:at]) == had), len(body.rstrip()))
    return f"{body[: body.index('=')].rstrip()} = {_value(value)}{body[comment:]}{line[len(body) :]}"


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _merged(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for key, value in values.items():
        had = merged.get(key, {})
        merged[key] = _merged(had, value) if isinstance(value, Mapping) and isinstance(had, Mapping) else value
    return merged


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
