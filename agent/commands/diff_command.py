"""`troop diff [RUN] C1 C2`: two candidates side by side, and what differs when tests and the issue's code run."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from agent.commands.progress import Progress
from agent.commands.show_command import candidates_of, opened
from harness import trace
from harness.choosing.evidence_store import digest
from harness.choosing.probe_facts import Seen
from harness.records import Candidate, Json
from harness.views.picture import table
from harness.views.words import clean, printable
from tasks.errors import InputError

EXAMPLES = """examples:
  troop diff                  # the two that stand first in the latest run
  troop diff c1 c3
  troop diff runs/RUN c1 c2 --json
"""
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of diff."""
    parser.add_argument("words", nargs="*", metavar="RUN C1 C2", help="the latest run, and the two that stand first")


def execute(known: argparse.Namespace) -> int:
    """Show the two patches, and where what was run on both came out differently."""
    files, events, names = opened(known, most=2)
    candidates = candidates_of(events)
    selection = next((e.selection for e in reversed(events) if isinstance(e, trace.Selected)), None)
    order = [each.candidate for each in selection.ranking] if selection else []
    names += [name for name in (*order, *candidates) if name in candidates and name not in names][: 2 - len(names)]
    if len(set(names)) < 2:
        raise InputError(f"two candidates are wanted, and {files.name} has {', '.join(candidates) or 'none yet'}")
    one, other = (candidates[name] for name in names)
    differing = [*_tests(one, other), *_probes(events, one, other)]
    progress = Progress(quiet=True, json=known.json)
    if not known.json:
        outcomes = table("what was run", *names)
        for row in differing:
            outcomes.add_row(*(Text(printable(row[key])) for key in ("what", "first", "second")))
        same = Text("Tests and the issue's code do the same on both, as far as they were run.", "dim")
        progress.show(_beside(one, other), Text(), outcomes if differing else same)
    progress.document({"candidates": {each.id: each.patch for each in (one, other)}, "differing": differing})
    return 0


def _beside(one: Candidate, other: Candidate) -> Table:
    """The patches in two columns, line by line."""
    shown = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    for each in (one, other):
        attempts = ", ".join(map(str, each.attempts[:6]))
        shown.add_column(Text(f"{each.id} (attempt {attempts})", "bold"), ratio=1, overflow="fold")
    for lines in itertools.zip_longest(_lines(one.patch), _lines(other.patch), fillvalue=""):
        shown.add_row(*(Text(line, _STYLES.get(line[:1], "")) for line in lines))
    return shown


def _lines(patch: str) -> list[str]:
    return [line for line in clean(patch).splitlines() if not line.startswith(("index ", "diff --git "))]


def _tests(one: Candidate, other: Candidate) -> Iterable[Json]:
    """The tests that do not end the same on both, with what a failing one said."""
    for kind in ("given", "witness", "regression"):
        ours, theirs = (dict(getattr(each.evidence, kind)) for each in (one, other))
        for test in sorted(ours | theirs):
            ends = [_told(each, test, of_it) for each, of_it in ((one, ours), (other, theirs))]
            if ours.get(test) != theirs.get(test):
                yield {"what": f"{kind} {test}", "first": ends[0], "second": ends[1]}


def _told(candidate: Candidate, test: str, outcomes: dict[str, str]) -> str:
    said = candidate.evidence.said.get(test, "").strip() if candidate.evidence else ""
    return f"{outcomes.get(test, 'not run')}{': ' + said.splitlines()[-1] if said else ''}"


def _probes(events: list[trace.Event], one: Candidate, other: Candidate) -> Iterable[Json]:
    """The steps of the issue's code that do not show the same on both."""
    probed = [e for e in events if isinstance(e, trace.Probed)]
    shown = {e.patch: trace.record(dict[str, tuple[Seen, ...]], e.shown) for e in probed}
    sources = next((e.sources for e in probed if not e.patch), {})
    ours, theirs = (shown.get(digest(each.patch), {}) for each in (one, other))
    for probe in sorted(ours.keys() & theirs.keys()):
        for step, (first, second) in enumerate(zip(ours[probe], theirs[probe], strict=False)):
            if first.behaviour != second.behaviour:
                text = [*sources.get(probe, ()), *[probe] * (step + 1)][step]
                yield {"what": f"the issue's code: {text}", "first": _seen(first), "second": _seen(second)}


def _seen(step: Seen) -> str:
    return f"{step.error}: {step.message}" if step.error else step.out or "nothing"
