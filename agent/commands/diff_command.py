"""`troop diff [RUN] C1 C2`: two candidates side by side, and what differs when tests and the issue's code run."""

import argparse
from collections.abc import Iterable
from itertools import zip_longest

from rich.table import Table
from rich.text import Text

from agent.choice.case import Known
from agent.commands.progress import Progress
from agent.commands.show_command import opened
from harness import trace
from harness.choosing.found import digest
from harness.choosing.probing import Seen
from harness.records import Candidate, Json
from harness.views.picture import table
from harness.views.report_view import patch_lines
from harness.views.words import printable


def execute(known: argparse.Namespace) -> int:
    """Show the two patches, and where what was run on both came out differently."""
    _, events, (one, other) = opened(known, 2)
    differing = [*_tests(one, other), *_probes(events, one, other)]
    progress = Progress(quiet=True, json=known.json)
    if not known.json:
        beside = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, expand=True)
        for each in (one, other):
            attempts = ", ".join(map(str, each.attempts[:6]))
            beside.add_column(f"{each.id} (attempt {attempts})", ratio=1, overflow="fold")
        for lines in zip_longest(patch_lines(one.patch), patch_lines(other.patch)):
            beside.add_row(*lines)
        outcomes = table("what was run", one.id, other.id)
        for row in differing:
            outcomes.add_row(*(Text(printable(row[key])) for key in ("what", "first", "second")))
        same = "Tests and the issue's code do the same on both, as far as they were run."
        progress.show(beside, "", outcomes if differing else same)
    progress.document({"candidates": {each.id: each.patch for each in (one, other)}, "differing": differing})
    return 0


def _tests(one: Candidate, other: Candidate) -> Iterable[Json]:
    """The tests that do not end the same on both, with what a failing one said."""
    for kind in ("given", "witness", "regression"):
        for test in sorted({test for each in (one, other) for test in getattr(each.evidence, kind, ())}):
            first, second = (getattr(each.evidence, kind, {}).get(test, "not run") for each in (one, other))
            if first != second:
                said = [_last_line(each, test) for each in (one, other)]
                told = [": ".join(filter(None, (first, said[0]))), ": ".join(filter(None, (second, said[1])))]
                yield {"what": f"{kind} {test}", "first": told[0], "second": told[1]}


def _last_line(candidate: Candidate, test: str) -> str:
    said = candidate.evidence.said if candidate.evidence else None
    return (said or {}).get(test, "").strip().rpartition("\n")[2]


def _probes(events: list[trace.Event], one: Candidate, other: Candidate) -> Iterable[Json]:
    """The steps of the issue's code that do not show the same on both."""
    known = Known.of(events, ())
    ours, theirs = (known.steps.get(digest(each.patch), {}) for each in (one, other))
    for probe in sorted(ours.keys() & theirs.keys()):
        for step, (first, second) in enumerate(zip(ours[probe], theirs[probe], strict=False)):
            if first != second:
                text = [*known.sources.get(probe, ()), *[probe] * (step + 1)][step]
                yield {"what": f"the issue's code: {text}", "first": _seen(first), "second": _seen(second)}


def _seen(step: Seen) -> str:
    return f"{step.error}: {step.message}" if step.error else step.out or "nothing"
