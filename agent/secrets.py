"""Masking: what looks like a secret is replaced by `***` before anything is written.

Two kinds. Values of this process's environment whose variable's name says that they are secret: replaced wherever they
occur, also as JSON or a URL would write them. And shapes that are credentials whatever their source: vendor key prefixes,
bearer tokens, passwords in URLs. The shapes are strict on purpose: traces hold source code, and `http://user:pass@host` in
somebody's test is no secret but part of a patch.

A masker runs on every line of a trace, and lines can be megabytes: each search is for a fixed substring first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

MASK = "***"
SHORTEST = 8

_SECRET_WORDS = frozenset(
    {"KEY", "KEYS", "APIKEY", "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASS", "PASSPHRASE"}
    | {"PWD", "CREDENTIAL", "CREDENTIALS", "AUTH", "PAT"}
)
_NOT_SECRET = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "GPG_KEY"})

# No character class below can match a quote or a backslash, so that masking a line of JSON leaves JSON.
_UNQUOTED = r"[^\s\"'\\<>]"
_MIXED = r"(?=[^\s\"'\\<>@/]*[0-9])(?=[^\s\"'\\<>@/]*[A-Za-z])"
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("sk-", re.compile(r"\bsk-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{20,}")),
    ("ghp_", re.compile(r"\bghp_[A-Za-z0-9]{30,}")),
    ("gho_", re.compile(r"\bgho_[A-Za-z0-9]{30,}")),
    ("ghs_", re.compile(r"\bghs_[A-Za-z0-9]{30,}")),
    ("ghu_", re.compile(r"\bghu_[A-Za-z0-9]{30,}")),
    ("github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{30,}")),
    ("glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}")),
    ("gsk_", re.compile(r"\bgsk_[A-Za-z0-9]{30,}")),
    ("xox", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{20,}")),
    ("AKIA", re.compile(r"\bAKIA[A-Z0-9]{16}\b")),
    ("AIza", re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    ("earer ", re.compile(rf"(?<=[Bb]earer ){_MIXED}{_UNQUOTED}{{16,}}")),
    (
        "uthorization",
        re.compile(rf"(?P<kept>uthorization[\"'\\]*\s*[:=]\s*[\"'\\]*(?:[Bb]asic|[Tt]oken)\s+){_UNQUOTED}{{12,}}"),
    ),
    ("://", re.compile(rf"(?<=://)(?P<kept>[^\s\"'\\<>@/:]*:){_MIXED}[^\s\"'\\<>@/]{{12,}}(?=@)")),
)


def masker(extra_names: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """A function that masks text. `extra_names`: variables to be treated as secret whatever their name (`Alias.key_env`).

    The environment (default: this process's) is read once, here.
    """
    env = os.environ if environ is None else environ
    extra = set(extra_names)
    values = {v for name, v in env.items() if (name in extra or _says_secret(name)) and _can_be_secret(v)}
    needles = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)

    def mask(text: str) -> str:
        for needle in needles:
            if needle in text:
                text = text.replace(needle, MASK)
        for hint, shape in _SHAPES:
            if hint in text:
                text = shape.sub(_masked, text)
        return text

    return mask


def mask(text: str) -> str:
    """Masks by this process's environment as it was at the first call."""
    return _default()(text)


@lru_cache(maxsize=1)
def _default() -> Callable[[str], str]:
    return masker()


def _masked(found: re.Match[str]) -> str:
    return (found.groupdict().get("kept") or "") + MASK


def _says_secret(name: str) -> bool:
    return name not in _NOT_SECRET and not _SECRET_WORDS.isdisjoint(re.split(r"[^A-Z0-9]+", name.upper()))


def _can_be_secret(value: str) -> bool:
    if len(value) < SHORTEST:
        return False
    # A path to a key file is no secret, and masking it would hide what an error message is about.
    return not (value.startswith(("/", "~")) and Path(value).expanduser().exists())


def _forms(value: str) -> set[str]:
    """The value as it stands, within JSON, within JSON within JSON (a tool call's arguments), and within a URL."""
    forms = {value, quote(value, safe="")}
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        forms |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    return forms
