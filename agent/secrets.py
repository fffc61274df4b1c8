"""Masking: what looks like a secret is replaced by `***` before anything is written.

Two kinds. Values of this process's environment whose variable's name says that they are secret: replaced wherever they
occur, also as JSON or a URL would write them. And shapes that are credentials whatever their source: vendor key
prefixes, bearer tokens, passwords in URLs. The shapes are strict on purpose: traces hold source code, and
`http://user:pass@host` in somebody's test is no secret but part of a patch.

A masker runs on every line of a trace, and lines can be megabytes: each search is for a fixed substring first, and only
a line with a find is looked into.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.places import expanded, is_there

MASK = "***"
SHORTEST = 8

_OF_TESTS = frozenset({"ids", "flaky", "selection"})
_TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _shape(expression: str) -> re.Pattern[str]:
    for name, part in _TABLES["parts"].items():
        expression = expression.replace(f"<{name}>", part)
    return re.compile(expression)


_SHAPES = [(hint, _shape(expression)) for hint, expression in _TABLES["shapes"].items()]


def masker(extra_names: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """A function that masks text. `extra_names`: variables to be treated as secret whatever their name
    (`Alias.key_env`).

    The environment (default: this process's) is read once, here."""
    needles = _needles(extra_names, environ)

    def mask(text: str) -> str:
        if any(needle in text for needle in needles) or any(
            hint in text and shape.search(text) for hint, shape in _SHAPES
        ):
            return _masked(text, needles)
        return text

    return mask


def known_masker(extra_names: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """As `masker`, for secret values of the environment only, whatever a text looks like: for text that is carried
    out."""
    needles = _needles(extra_names, environ)

    return partial(_without, needles=needles)


def _without(text: str, needles: Sequence[str]) -> str:
    for needle in needles:
        text = text.replace(needle, MASK)
    return text


def _needles(extra_names: Iterable[str], environ: Mapping[str, str] | None) -> list[str]:
    """The secret values in all forms, the longest first."""
    env = os.environ if environ is None else environ
    extra = set(extra_names)
    values = {v for name, v in env.items() if (name in extra or _says_secret(name)) and _can_be_secret(v)}
    return sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)


def mask(text: str) -> str:
    """Masks by this process's environment as it was at the first call."""
    return _default()(text)


_default = lru_cache(masker)


def _masked(text: str, needles: Sequence[str]) -> str:
    """JSON is masked string by string and stays JSON: a secret may begin with letters that an escape ends with, or a
    quote."""
    if text[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except ValueError:
            pass
        else:
            masked = _masked_json(value, needles)
            return text if masked == value else json.dumps(masked, ensure_ascii=True, separators=(",", ":"))
    text = _without(text, needles)
    for hint, shape in _SHAPES:
        if hint in text:
            text = shape.sub(lambda found: (found.groupdict().get("kept") or "") + MASK, text)
    return text


def _masked_json(value: Any, needles: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _masked(value, needles)
    if isinstance(value, list):
        return [_masked_json(each, needles) for each in value]
    if isinstance(value, dict):
        return {_without(key, needles): _masked_field(key, each, needles) for key, each in value.items()}
    return value


def _masked_field(key: str, value: Any, needles: Sequence[str]) -> Any:
    """The names of tests are compared with later on, and many hold a made-up password in a URL: there, as in keys, only
    known secrets are masked."""
    if key in _OF_TESTS and isinstance(value, list):
        return [_without(each, needles) if isinstance(each, str) else _masked_json(each, needles) for each in value]
    return MASK if key.lower() == "authorization" else _masked_json(value, needles)


def _says_secret(name: str) -> bool:
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return name not in _TABLES["known"] and any(word in words for word in _TABLES["words"])


def _can_be_secret(value: str) -> bool:
    if len(value) < SHORTEST:
        return False
    # A path to a key file is no secret, and masking it would hide what an error message is about.
    return not (value.startswith(("/", "~")) and is_there(expanded(value)))


def _forms(value: str) -> set[str]:
    """The value as it stands, within JSON, within JSON within JSON (a tool call's arguments), and within a URL."""
    forms = {value, quote(value, safe="")}
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        forms |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    return forms
