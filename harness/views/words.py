"""Words for people: what an event amounts to in a line, and text that no terminal is harmed by."""

from __future__ import annotations

import re

from harness import trace
from harness.records import Json

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Without escape sequences, control characters and what no terminal can show; tabs as spaces."""
    plain = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _CONTROLS.sub("�", plain.replace("\r", "\n")).expandtabs(4)


def printable(text: str) -> str:
    """One line without escape sequences: names and reasons may be a model's words."""
    return " ".join(clean(text).split())


def counted(number: int, word: str) -> str:
    """`1 attempt`, `2 attempts`; of a word that ends in -y: `1 retry`, `2 retries`."""
    if number == 1:
        return f"1 {word}"
    return f"{number} {word[:-1]}ies" if word.endswith("y") else f"{number} {word}s"


def tokens_short(tokens: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens >= size:
            return f"{tokens / size:.1f}{unit}"
    return str(tokens) if tokens else "-"


def elapsed_short(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 60}:{whole % 60:02}"


def judge_words(event: trace.JudgeTested | trace.Judged | trace.JudgeStopped) -> str:
    """What the judge did, in one line."""
    if isinstance(event, trace.JudgeTested):
        told = ", ".join(f"{each.on} {each.outcome}" for each in event.told)
        return f"judge's test: {'; '.join(filter(None, (told, event.useless)))}"
    if isinstance(event, trace.JudgeStopped):
        return f"judge stopped before {event.before}: {event.reason}"
    return f"judge on {event.first} and {event.second}: {event.winner or 'a tie'}"


def evidence_words(report: Json) -> list[str]:
    """What speaks for the selected patch of a report, in lines of numbers: nothing that an issue or a model wrote."""
    chosen = report["selected"]["candidate"]
    evidence = next(each["evidence"] for each in report["candidates"] if each["id"] == chosen)
    confidence = f"{report['selected']['confidence']:.2f}"
    made = f"attempts: {len(report['attempts'])}, distinct patches: {len(report['candidates'])}"
    words = [f"Selected by Troop with confidence {confidence}; {made}."]
    if guarded := evidence["regression"]["run"]:
        broken = len(evidence["regression"]["broken"])
        words.append(f"Tests that passed before and were run again: {guarded - broken} of {guarded} pass.")
    for what, outcomes in (
        ("Failing tests that were given", evidence["given"]),
        ("Tests written for the issue", evidence["witness"]),
    ):
        if outcomes:
            words.append(f"{what}: {sum(o == 'passed' for o in outcomes.values())} of {len(outcomes)} pass.")
    return words
