"""Words for people: what an event amounts to in a line, and text that no terminal is harmed by."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from harness import trace
from harness.records import Evidence, Json

_TABLES: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
METHOD_WORDS, STATUS_WORDS, ATTEMPT_WORDS, FLAG_WORDS, STRENGTH_WORDS, LOST_WORDS, GRADE_WORDS, KEY_WORDS = (
    _TABLES.values()
)
"""Internal names as people read them: by method, run status, attempt status, flag of a patch, strength; what lost;
outcome of a grading; keys."""

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Without escape sequences, control characters and what no terminal can show; tabs as spaces."""
    return harmless(text).expandtabs(4)


def harmless(text: str) -> str:
    """Without escape sequences, control characters and what is no text; tabs stay."""
    return _CONTROLS.sub("�", _ESCAPES.sub("", text.replace("\r\n", "\n")).replace("\r", "\n"))


def verdict_words(report: Json) -> str:
    """What came of a run, by its report."""
    if report["selected"]:
        return STRENGTH_WORDS[report["selected"]["strength"]]
    return STATUS_WORDS.get(str(report["status"]), str(report["status"]))


def end_words(status: str) -> str:
    """How an attempt ended, by its status; what is none is given back."""
    return ATTEMPT_WORDS.get(status, status)


def printable(text: str) -> str:
    """One line without escape sequences: names and reasons may be a model's words."""
    return " ".join(clean(text).split())


def counted(number: int, word: str) -> str:
    """`1 attempt`, `2 attempts`; of a word that ends in -y: `1 retry`, `2 retries`."""
    if number == 1:
        return f"1 {word}"
    return f"{number} {word[:-1]}ies" if word.endswith("y") else f"{number} {word}s"


def listed(items: Sequence[str], most: int) -> str:
    """The first of these, and how many more there are."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


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


def evidence_words(evidence: Evidence) -> str:
    """Whether a candidate applies, breaks tests, and how many given and witness tests pass, in a few words."""
    if not evidence.applies:
        return evidence.reason or "does not apply"
    if not evidence.valid:
        return f"nothing can be concluded: {evidence.reason}"
    parts = [f"breaks {counted(len(evidence.broken), 'test')}" if evidence.broken else "regression tests pass"]
    for word, outcomes in (("given", evidence.given), ("witness", evidence.witness)):
        if outcomes:
            parts.append(f"{sum(o == 'passed' for o in outcomes.values())}/{len(outcomes)} {word} tests pass")
    return ", ".join(parts)


NO_CURE = ", none solves the issue"


def judge_words(event: trace.JudgeTested | trace.Judged | trace.JudgeSaid | trace.JudgeStopped) -> str:
    """What the judge did, in one line."""
    if isinstance(event, trace.JudgeTested):
        told = ", ".join(f"{each.on} {each.outcome}" for each in event.told)
        return f"judge's test: {'; '.join(filter(None, (told, event.useless)))}"
    if isinstance(event, trace.JudgeStopped):
        return f"judge stopped before {event.before}: {event.reason}"
    if isinstance(event, trace.JudgeSaid):
        return f"judge on {event.candidate}: {event.points:g} points{NO_CURE * event.neither}"
    none = f"neither{NO_CURE}" if event.neither else "a tie"
    return f"judge on {event.first} and {event.second}: {event.winner or none}"


def tries(report: Json) -> str:
    """How many attempts a run made, or patches it was given."""
    number = len(report["attempts"])
    return f"{number} patch{'es' * (number != 1)}" if _given(report) else counted(number, "attempt")


def whose(report: Json, candidate: str, most: int = 3) -> str:
    """Where a candidate is from: its attempts, or the names of what was handed in; `most` of them, the rest counted."""
    attempts = next((each["attempts"] for each in report["candidates"] if each["id"] == candidate), ())
    names = _given(report)
    return "attempt " * (not names) + listed([names.get(each, str(each)) for each in attempts], most)


def _given(report: Json) -> dict[int, str]:
    """The names of patches that were handed in, by attempt."""
    return {row["index"]: printable(row["name"]) for row in report["attempts"] if row.get("name")}


def reasons(report: Json) -> tuple[str, str]:
    """(why the selected patch of a report, what speaks against it or was not checked), in words and numbers: nothing
    that an issue or a model wrote."""
    row = next(each for each in report["candidates"] if each["id"] == report["selected"]["candidate"])
    evidence, regression, shown = row["evidence"], row["evidence"]["regression"], []
    run = regression["run"]
    lacking = [FLAG_WORDS.get(flag, flag) for flag in row["flags"]]
    for passed, count, one, many in (
        (*_passed(evidence["given"]), "failing test that was given", "failing tests that were given"),
        (*_passed(evidence["witness"]), "test written for the issue", "tests written for the issue"),
        (run - len(regression["broken"]), run, "test that passed before", "tests that passed before"),
    ):
        if passed:
            shown.append(f"{passed} of " * (passed < count) + f"{count} {one if count == 1 else many}")
        if passed < count:
            lacking.append(f"fails {count - passed} {one if count - passed == 1 else many}")
    if not evidence["given"] and not evidence["witness"]:
        lacking.append("no test shows the issue")
    if regression["broken"]:
        lacking.append("which every attempt's patch fails: the issue may want otherwise")
    if not run:
        lacking.append("nothing that passed before was run")
    agreed = f"{len(row['attempts'])} of {tries(report)} came to it"
    reason = f"passes {', '.join(shown)}; {agreed}" if shown else agreed
    return f"{reason}. {METHOD_WORDS.get(report['selected']['method'], '')}".strip(), "; ".join(lacking)


def _passed(outcomes: Json) -> tuple[int, int]:
    return sum(outcome == "passed" for outcome in outcomes.values()), len(outcomes)
