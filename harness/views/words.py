"""Words for people: what an event amounts to in a line, and text that no terminal is harmed by."""

from __future__ import annotations

import re

from harness import trace

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Without escape sequences, control characters and what no terminal can show; tabs as spaces."""
    plain = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _CONTROLS.sub("�", plain.replace("\r", "\n")).expandtabs(4)


def judge_words(event: trace.JudgeTested | trace.Judged | trace.JudgeStopped) -> str:
    """What the judge did, in one line."""
    if isinstance(event, trace.JudgeTested):
        told = ", ".join(f"{each.on} {each.outcome}" for each in event.told)
        return f"judge's test: {'; '.join(filter(None, (told, event.useless)))}"
    if isinstance(event, trace.JudgeStopped):
        return f"judge stopped before {event.before}: {event.reason}"
    return f"judge on {event.first} and {event.second}: {event.winner or 'a tie'}"
