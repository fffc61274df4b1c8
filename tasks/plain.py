"""JSON and TOML that others wrote: whatever is wrong with a text, its depth too, is a ValueError."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any, TypeVar

Text = TypeVar("Text", str, bytes, str | bytes)
T = TypeVar("T")


def json_of(text: str | bytes) -> Any:
    """The value of a JSON document. Raises ValueError."""
    return _read(json.loads, text)


def toml_of(text: str) -> dict[str, Any]:
    """The table of a TOML document. Raises ValueError."""
    return _read(tomllib.loads, text)


def _read(loads: Callable[[Text], T], text: Text) -> T:
    try:
        return loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
