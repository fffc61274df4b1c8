"""Objects in a JSON file, each with its place: one a line, a list of them, or an object of them by instance id."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.errors import Explained, InputError

Entries = Iterator[tuple[str, Mapping[str, Any]]]
"""(where it is, in words; its fields) of each object."""


def read_text(path: Path, what: str, *, errors: str = "strict", other: str = "no UTF-8 text") -> str:
    """The text of a file in UTF-8, compressed by gzip or not. Raises InputError: `what` cannot be read (a file that is
    not there), or in which line there is what `other` names."""
    with Explained(f"cannot read {what} {path}", OSError, EOFError, zlib.error):
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    try:
        return content.decode("utf-8", errors).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: this is {other} (byte {error.start})") from error


def entries(path: Path, text: str, *, whole: str, each: str) -> Entries:
    """The objects of a file's text. `whole`, `each`: what the file and one of its objects must be, for the complaints
    ("hold rows: ...", "a row must be ..."). Raises InputError, naming the place, while it is read."""
    # Not splitlines(): a text may hold other ends of line than JSON lines do.
    if path.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson")) or _is_lines(text):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                place = f"{path}, line {number}"
                with Explained(f"{place}: this is not JSON", ValueError, RecursionError):
                    content = json.loads(line)
                yield place, _object(place, content, each)
        return
    yield from _of_document(path, text, whole, each)


def _of_document(path: Path, text: str, whole: str, each: str) -> Entries:
    with Explained(f"{path} is not JSON", ValueError, RecursionError):
        content = json.loads(text) if text.strip() else []
    if isinstance(content, dict) and "instance_id" in content:
        content = [content]
    if isinstance(content, dict):
        for name, fields in content.items():
            place = f"{path}, entry {name!r}"
            yield place, {"instance_id": name, **_object(place, fields, each)}
    elif isinstance(content, list):
        for number, fields in enumerate(content, 1):
            place = f"{path}, entry {number}"
            yield place, _object(place, fields, each)
    else:
        raise InputError(f"{path} must {whole}")


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    words = {type(None): "null", bool: "a truth value", int: "a whole number", float: "a number", str: "text"}
    words |= {list: "a list", dict: "an object"}
    return words.get(type(value), "something else")


def text_of(place: str, fields: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    """The text of a field, "" where it is not `needed` and not there (or null). Raises InputError."""
    value = fields.get(name)
    if value is None:
        if needed:
            raise InputError(f"{place}: the field {name} is missing")
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: the field {name} must be text, not {kind(value)}")
    return value


def _is_lines(text: str) -> bool:
    """Whether a text holds one JSON object a line: its first line is an object by itself, and not its last."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest.strip())
    except (ValueError, RecursionError):
        return False


def _object(place: str, fields: Any, each: str) -> Mapping[str, Any]:
    if not isinstance(fields, dict):
        raise InputError(f"{place}: {each}, not {kind(fields)}")
    with Explained(f"{place}: it holds half of a surrogate pair, which is no text", UnicodeEncodeError):
        "".join(map(str, (*fields, *fields.values()))).encode("utf-8", "surrogateescape")
    return fields
