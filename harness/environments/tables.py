"""Settings files as tables, whatever stands in them."""

import configparser
import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

Table = Mapping[str, Any]
Ini = Mapping[str, Mapping[str, str]]


def toml_of(text: str) -> dict[str, Any]:
    """What does not parse holds nothing."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def json_of(text: str) -> dict[str, Any]:
    """What does not parse holds nothing."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def ini_of(text: str) -> dict[str, dict[str, str]]:
    """Its sections; what does not parse has none."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {section: dict(parser[section]) for section in parser.sections()}


def table_of(table: Table, name: str) -> dict[str, Any]:
    """The table of that dotted name; an empty one where there is something else, or nothing."""
    value: Any = table
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, dict) else {}


def strings_of(value: object) -> list[str]:
    """The texts of a list."""
    return [v for v in value if isinstance(v, str)] if isinstance(value, (list, tuple)) else []


def words_of(command: str) -> list[str]:
    """The words of a shell command; none where a quote is not closed."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def lines_of(text: str) -> list[str]:
    """The lines that say something, without comments."""
    stripped = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line]
