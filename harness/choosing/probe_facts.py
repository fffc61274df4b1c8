"""How the steps of a probe behaved, in a form that two runs of the same code agree on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

KEPT_CHARS = 2000

_VOLATILE = (
    (re.compile(r"0x[0-9a-fA-F]{4,}"), "0x…"),
    (re.compile(r"/tmp/[\w./-]*"), "/tmp/…"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:s|ms|seconds?|sec)\b"), "… s"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?"), "<date>"),
    (re.compile(r"\bline \d+"), "line …"),
    (re.compile(r"(\.py):\d+"), r"\1:…"),
    (re.compile(r"=+"), "="),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One step. `out`: what it printed or displayed; `error`: the exception's name, "" for none, "TooSlow" where it did
    not end; `message`: the exception's; `views`: other texts of the value."""

    out: str
    error: str = ""
    message: str = ""
    views: tuple[tuple[str, str], ...] = ()


def seen(raw: Mapping[str, object]) -> Seen:
    """A step from the line that the sandbox wrote; anything not as it should be counts as empty text."""
    views = raw.get("views")
    pairs = views.items() if isinstance(views, Mapping) else ()
    return Seen(
        out=steady(_text(raw, "out")),
        error=_text(raw, "error")[:100],
        message=steady(_text(raw, "message")),
        views=tuple(sorted((str(name)[:60], steady(str(text))) for name, text in pairs)),
    )


def steady(text: str) -> str:
    """The text without what differs from run to run: addresses, times, temporary places, line numbers."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    plain = "\n".join(line.rstrip() for line in text.split("\n")).strip()
    return plain if len(plain) <= KEPT_CHARS else plain[:KEPT_CHARS] + "…"


def _text(raw: Mapping[str, object], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""
