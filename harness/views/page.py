"""A run as one page of HTML that needs nothing else, and as Markdown: what the templates in `page/` are given.

Whatever is shown may be anybody's words: templates escape it, and the script puts what it is given in as text only.
What unfolds is made by the script from a block of JSON when it is unfolded.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import trace
from harness.evidence.verify import witness_name
from harness.money.ledger import Ledger, money
from harness.patches.patch import Patch
from harness.records import Json
from harness.views import words
from harness.views.replay_frames import content, frames
from harness.views.report import latest_verified, solve_report
from harness.views.report_view import LEDGER, cost, ledger_notes, ledger_rows, verdict, why
from tasks.task import title_of

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "page"
ROOM = 2_000_000
"""Bytes of JSON that a page's script is given at most; the more there is, the shorter each text is cut."""
CUTS = (50_000, 8_000, 2_000, 600, 200)
"""Characters of a text that are kept, the first that fits; where none does, tools and tests have a line each."""
COLUMNS, TESTS = 12, 200
"""Of the evidence matrix: candidates, the best first, and tests of each kind."""
MARKS = frozenset("\\`*_[]<>#+-!|&~@:$\"'")
"""What may mean something in Markdown or HTML."""
_TONES = {"green": "good", "red": "bad", "yellow": "warn", "dim": "dim"}


def filled(template: str, data: Json | None = None, *, live: bool = False, **told: Any) -> str:
    """The template with what it is told. `data`: for the script. `live`: the page asks where it came from for news."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    plain = json.dumps(trace.mask_strings(data or {}, words.harmless), separators=(",", ":"))
    block = plain.translate({ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&"})
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'"
    policy += f"; style-src {_digest(style)}; script-src {_digest(script)}" + "; connect-src 'self'" * live
    page = _templates().get_template(template)
    return page.render(style=style, script=script, policy=policy, block=block, live=live, **told)


def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    def plain(text: str) -> Markup:
        """One line of Markdown in which no mark means anything."""
        return Markup("".join(f"&#{ord(c)};" if c in MARKS else c for c in words.printable(text)))

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # What is marked as safe is a string of another type, and stays as it is.
        finalize=lambda value: words.harmless(value) if type(value) is str else value,
    )
    made.filters.update(counted=words.counted, elapsed=words.elapsed_short, tokens=words.tokens_short, plain=plain)
    made.filters.update(line=words.printable, evidence=words.evidence_words, judge=words.judge_words)
    made.filters.update(patch=Patch, money=money, status=words.end_words)
    made.filters["flag"] = lambda flag: words.FLAG_WORDS.get(flag, flag)
    return made


def _digest(text: str) -> str:
    """A source of a content-security policy: this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def run_page(events: Sequence[trace.Event], *, only: int | None = None, whole: str = "", **more: Any) -> str:
    """The page of a run, finished or not; of one attempt alone, with all that it holds, where `only` says so.

    `whole`: where the page of an attempt alone is, with {} for its number. `more`: `back`, from there that of the run;
    `home`, that of all runs (left out where there is none); `live`, whether the page follows a run that goes on."""
    told = _told(events)
    said = {each.candidate: dict(each.evidence.said or {}) for each in told["verified"]}
    base = next((e.baseline for e in events if isinstance(e, trace.Prepared) and e.baseline), None)
    wrote = {witness_name(e.witness): e.witness for e in events if isinstance(e, trace.WitnessRecorded)}
    said["base"] = {**(base.failures if base else {}), **{name: each.failure for name, each in wrote.items()}}
    tests = {test for row in told["tests"].values() for test in row}
    data = {
        "attempts": {str(each): _timeline(of_it, each) for each, of_it in _by_attempt(events, only).items()},
        "patches": {each.candidate: told["patches"][each.attempts[0]] for each in told["verified"]},
        "said": {on: {test: word for test, word in of.items() if test in tests} for on, of in said.items()},
        "texts": {name: each.text for name, each in wrote.items() if name in tests},
        "whole": whole if only is None else "",
    }
    shown = data if only is not None else _fitting(data)
    return filled("run.html", shown, only=only, cut=shown != data, whole=whole, **told, **more)


def run_markdown(events: Sequence[trace.Event]) -> str:
    """The run for a job's summary: verdict, patch, evidence, cost."""
    return filled("run.md", **_told(events))


def pull_request_body(events: Sequence[trace.Event], candidate: str, *, fixes: str, cost: bool) -> str:
    """The text of a pull request with a candidate's patch. `fixes`: the number of its issue, "" for none; `cost`:
    whether it says what the run cost."""
    told = _told(events)
    mine = next((each for each in told["verified"] if each.candidate == candidate), None)
    settings = getattr(events[0], "settings", {})
    return filled("pull.md", **told, mine=mine, settings=settings, fixes=fixes, with_cost=cost)


def _told(events: Sequence[trace.Event]) -> Json:
    """What the templates of a run are told."""
    report, ledger = solve_report(events), Ledger.of(events)
    ranked = {row["candidate"]: row for row in report["ranking"]}
    best_first = sorted(latest_verified(events), key=lambda e: [*ranked, e.candidate].index(e.candidate))
    chosen = next((e for e in best_first if e.candidate == (report["selected"] or {}).get("candidate")), None)
    statement = str(getattr(events[0], "task", {}).get("statement", ""))
    found = [each.evidence for each in best_first[:COLUMNS]]
    tests = {kind: {test for each in found for test in getattr(each, kind)} for kind in ("given", "witness", "broken")}
    return {
        "report": report,
        "title": title_of(statement) or report["task"],
        "statement": statement,
        "verdict": verdict(report).plain,
        "why": [line.plain for line in why(report, events)],
        "cost": cost(report, ledger).plain,
        "verified": best_first,
        "columns": best_first[:COLUMNS],
        "tests": {kind: sorted(names)[:TESTS] for kind, names in tests.items()},
        "chosen": chosen,
        "ranked": ranked,
        "patches": {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)},
        "judge_tests": list({e.path: e for e in events if isinstance(e, trace.JudgeTested)}.values()),
        "judged": [e for e in events if e.kind.startswith("judge") and not isinstance(e, trace.JudgeTested)],
        "figures": LEDGER,
        "ledger": ledger,
        "ledger_rows": ledger_rows(ledger),
        "ledger_notes": ledger_notes(ledger),
    }


def _by_attempt(events: Sequence[trace.Event], only: int | None) -> dict[int, list[trace.Event]]:
    """The events of each attempt with those of the run, in order."""
    there = {event.attempt for event in events if event.attempt is not None and only in (None, event.attempt)}
    return {each: [event for event in events if event.attempt in (None, each)] for each in sorted(there)}


def _timeline(events: Sequence[trace.Event], attempt: int) -> list[list[Any]]:
    """What happened, in order: kind of event, turn, heading, its tone, and parts of text, tone and language."""
    found = []
    for frame in frames(events, attempt):
        heading, parts = content(frame)
        told = [[part.text, _tone(part.style), part.lexer] for part in parts]
        line = "  ".join(filter(None, (heading.first, *heading.more)))
        found.append([frame.event.kind, getattr(frame.event, "turn", None), line, _tone(heading.style), told])
    return found


def _tone(style: str) -> str:
    return next((tone for colour, tone in _TONES.items() if colour in style), "")


def _fitting(data: Json) -> Json:
    """The data with long texts cut so that all of it fits on a page."""
    for most in CUTS:
        shorter: Json = trace.mask_strings(data, partial(_shortened, most=most))
        if len(json.dumps(shorter)) <= ROOM:
            return shorter
    lines = {
        name: [[*item[:4], item[4][:1] if item[0] == "tests-ran" else []] for item in items if item[0] not in _PLENTY]
        for name, items in shorter["attempts"].items()
    }
    return {**shorter, "attempts": lines}


_PLENTY = ("decided", "turn-ended")
"""What is left out first of a page that has no room."""


def _shortened(text: str, most: int) -> str:
    """The beginning and the end of a long text, and between them how much is left out."""
    if len(text) <= most + 40:
        return text
    return f"{text[: 2 * most // 3]}\n… {len(text) - most} characters left out …\n{text[-(most // 3) :]}"
