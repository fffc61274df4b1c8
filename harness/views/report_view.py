"""The result of a run for a person: patch, evidence, ledger, and what to type next. Pure: events to renderables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from harness import trace
from harness.money.ledger import RUN, Ledger, Line, money
from harness.patches.patch import Patch
from harness.records import Evidence, Json, Selection
from harness.repository.apply import Applied
from harness.views.live import status_style
from harness.views.picture import table
from harness.views.report import latest_verified, solve_report
from harness.views.words import clean, counted, elapsed_short, tokens_short

PATCH_LINES = 200
"""Lines of the selected patch that are shown; the file has all."""
WITNESSES = 12
"""Witness tests that get a column of their own in the matrix."""
ROWS = 32
"""Attempts that get a line each; report.json has all."""
NAMED = 5
"""Broken tests that are named for each candidate."""

_PASSED, _FAILED, _MISSING = Text("✓", "green"), Text("✗", "red"), Text("·", "dim")


def solve_view(
    events: Sequence[trace.Event], directory: Path, *, applied: Applied | None = None
) -> list[RenderableType]:
    """What `troop solve` and `troop report` print, in order; works on an unfinished run too.

    `directory`: the run directory, for the commands. `applied`: where `--apply` put the patch.
    """
    report, ledger = solve_report(events), Ledger.of(events)
    selection = next((e.selection for e in reversed(events) if isinstance(e, trace.Selected)), None)
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    verified = latest_verified(events)
    view: list[RenderableType] = [_heading(report), _attempts(report, ledger)]
    if verified:
        view += [Text(), _matrix(verified, selection, patches)]
    if selection is not None:
        view += [Text(), *_choice(selection, verified, patches)]
    if report["graded"] is not None:
        view.append(_grade(report["graded"]))
    if ledger.total.calls + ledger.total.unanswered:
        view += [Text(), _ledger(ledger, report["infrastructure"])]
    elif report["infrastructure"]["retries"]:
        view.append(Text(f"retries for reasons outside of the attempts: {report['infrastructure']['retries']}"))
    view += [_failures(report), Text(), _commands(report, directory, applied)]
    return view


def _heading(report: Json) -> RenderableType:
    ended = {"selected": "green", "none": "yellow", "running": "cyan"}.get(report["status"], "red")
    title = Text.assemble((clean(report["task"]), "bold"), ": ", (report["status"], f"bold {ended}"))
    title.append(f", {counted(len(report['attempts']), 'attempt')} in {elapsed_short(report['seconds'])}")
    missing = [Text(f"not in force: {clean(limit)}", "yellow") for limit in report["missing_limits"]]
    stopped = [Text(clean(report["sampling"]["words"]), "dim")] if report["sampling"] else []
    return Group(title, *stopped, *missing)


def _attempts(report: Json, ledger: Ledger) -> RenderableType:
    shown = table(">attempt", "status", ">turns", ">time", ">tokens", ">cost", "candidate", "model…", gap=1)
    for row in report["attempts"][:ROWS]:
        shown.add_row(
            str(row["index"]),
            Text(row["status"], status_style(row["status"])),
            str(row["turns"]),
            "-" if row["seconds"] is None else elapsed_short(row["seconds"]),
            tokens_short(sum(row["usage"].values())),
            money(ledger.by_attempt.get(str(row["index"]), Line())),
            row["candidate"] or "-",
            Text(clean(row["model"]).rpartition("#")[2]),
        )
    more = len(report["attempts"]) - ROWS
    return Group(shown, *([Text(f"… and {counted(more, 'more attempt')} in report.json", "dim")] if more > 0 else []))


def _matrix(
    verified: Sequence[trace.Verified], selection: Selection | None, patches: Mapping[int | None, str]
) -> RenderableType:
    """One row for each candidate, best first: what it keeps working, what it mends, and why it stands where it does."""
    ranks = {ranked.candidate: place for place, ranked in enumerate(selection.ranking)} if selection else {}
    why = {ranked.candidate: ranked for ranked in selection.ranking} if selection else {}
    witnesses = sorted({name for event in verified for name in event.evidence.witness})
    shown = table("", "candidate", "attempts", ">lines", "regression", "given", "witness", "why", gap=1)
    notes: list[RenderableType] = []
    for event in sorted(verified, key=lambda e: ranks.get(e.candidate, len(ranks))):
        chosen = selection is not None and selection.candidate == event.candidate
        ranked = why.get(event.candidate)
        patch = Patch(patches.get(event.attempts[0], ""))
        shown.add_row(
            Text("→" if chosen else " ", "bold green"),
            Text(event.candidate, "bold green" if chosen else ""),
            _listed([str(a) for a in event.attempts], 6),
            f"+{patch.added_lines} −{patch.removed_lines}",
            _regression(event.evidence),
            _outcomes(event.evidence.given, sorted(event.evidence.given)),
            _outcomes(event.evidence.witness, witnesses),
            Text(clean(ranked.why) if ranked else "", "" if ranked and ranked.acceptable else "red"),
        )
        notes += _notes(event, patch)
    if witnesses:
        names = "  ".join(f"{number} {clean(name)}" for number, name in enumerate(witnesses[:WITNESSES], 1))
        notes.insert(0, Text(f"witness tests, in order: {names}", "dim"))
    return Group(Rule("Evidence", align="left", style="dim"), shown, *notes)


def _regression(evidence: Evidence) -> Text:
    if not evidence.applies:
        return Text("does not apply", "red")
    if not evidence.valid:
        return Text("invalid", "red")
    if evidence.broken:
        return Text(f"{len(evidence.broken)} of {len(evidence.regression)} broken", "red")
    return Text(f"{len(evidence.regression)} pass", "green") if evidence.regression else Text("none run", "dim")


def _outcomes(outcomes: Mapping[str, str], names: Sequence[str]) -> Text:
    """A mark for each test, or their number where they are many."""
    if not names:
        return Text("-", "dim")
    passed = sum(outcomes.get(name) == "passed" for name in names)
    if len(names) > WITNESSES:
        return Text(f"{passed}/{len(names)}", "green" if passed == len(names) else "yellow")
    marks = [_MISSING if n not in outcomes else _PASSED if outcomes[n] == "passed" else _FAILED for n in names]
    return Text.assemble(*marks)


def _notes(event: trace.Verified, patch: Patch) -> list[RenderableType]:
    """What does not fit into the row: names of broken tests, the reason of an invalid run, flags."""
    said = []
    if event.evidence.reason:
        said.append(event.evidence.reason)
    if event.evidence.broken and event.evidence.valid:
        said.append("breaks " + _listed(list(event.evidence.broken), NAMED))
    if patch.flags:
        said.append("flags: " + ", ".join(patch.flags))
    return [Text(f"{event.candidate}: {clean('; '.join(said))}", "yellow")] if said else []


def _choice(
    selection: Selection, verified: Sequence[trace.Verified], patches: Mapping[int | None, str]
) -> list[RenderableType]:
    event = next((e for e in verified if e.candidate == selection.candidate), None)
    if event is None:
        words = Text.assemble(("Nothing was selected. ", "bold yellow"), clean(selection.rationale))
        if selection.ranking:
            best = selection.ranking[0]
            words.append(f" The best runner-up is {best.candidate}: {clean(best.why)}.")
        return [words]
    sure = "P(right)" if selection.ranker == "evidence" else "confidence"
    title = f"Selected: {event.candidate} of attempt {event.attempts[0]}, by {selection.method}, {sure}"
    title += f" {selection.confidence:.2f}"
    return [
        Rule(Text(title, "bold green"), align="left", style="green"),
        Text(clean(selection.rationale)),
        *_patch(patches.get(event.attempts[0], "")),
    ]


def _patch(diff: str) -> list[RenderableType]:
    lines = clean(diff).rstrip("\n").split("\n")
    text = "\n".join(lines[:PATCH_LINES])
    shown: list[RenderableType] = [
        Padding(Syntax(text, "diff", theme="ansi_dark", background_color="default", word_wrap=True), (1, 0))
    ]
    if len(lines) > PATCH_LINES:
        shown.append(Text(f"… {len(lines) - PATCH_LINES} more lines in selected.patch", "dim italic"))
    return shown


def _grade(graded: Json) -> RenderableType:
    if graded["resolved"]:
        return Text(f"Hidden tests: {graded['candidate']} resolves the task.", "bold green")
    return Text(f"Hidden tests: {graded['candidate']} does not resolve the task: {clean(graded['reason'])}", "bold red")


def _ledger(ledger: Ledger, infrastructure: Json) -> RenderableType:
    """By purpose, model and attempt. `cached` of the input was read from the provider's cache; `lost`: retries that may
    have reached the model; `unknown`: calls without a known price."""
    figures = (">calls", ">lost", ">unknown", ">input", ">cached", ">output", ">thought", ">cost")
    shown = table("…", *figures, gap=1)
    dearest = sorted(ledger.by_attempt, key=lambda key: (key != RUN, ledger.by_attempt[key].known_usd), reverse=True)
    by_attempt = {key: line for key, line in ledger.by_attempt.items() if key == RUN or key in dearest[:ROWS]}
    for name, lines in (("purpose", ledger.by_purpose), ("model", ledger.by_model), ("attempt", by_attempt)):
        for key, line in lines.items():
            label = "the run's own" if name == "attempt" and key == RUN else f"{name} {clean(key).rpartition('#')[2]}"
            shown.add_row(*_ledger_cells(label, line))
        shown.add_section()
    shown.add_row(*_ledger_cells("total", ledger.total), style="bold")
    hidden = len(ledger.by_attempt) - len(by_attempt)
    said = [f"the {ROWS} dearest attempts of {len(ledger.by_attempt)}"] if hidden else []
    said.append("prices: " + ", ".join(f"{source} ({counted(n, 'call')})" for source, n in ledger.sources.items()))
    if (told := ledger.total.reported_usd) is not None:
        said.append(f"providers say ${told:.4f} where these prices come to ${ledger.total.reported_as:.4f}")
    if not ledger.total.exact:
        said.append("the price of some calls is unknown, so the sum is a lower bound")
    if infrastructure["retries"]:
        said.append(f"{counted(infrastructure['retries'], 'retry')} for reasons outside of the attempts")
    return Group(Rule("Ledger", align="left", style="dim"), shown, Text("; ".join(said), "dim"))


def _ledger_cells(label: str, line: Line) -> tuple[str, ...]:
    usage = line.usage
    return (
        label,
        str(line.calls),
        str(line.unanswered or "-"),
        str(line.unpriced or "-"),
        tokens_short(usage.input + usage.cache_read + usage.cache_write),
        tokens_short(usage.cache_read),
        tokens_short(usage.output),
        tokens_short(usage.reasoning),
        money(line),
    )


def _failures(report: Json) -> RenderableType:
    failures = report["infrastructure"]["failures"]
    lines = [Text(clean(f"failed: {f['what']}: {f['detail']}"), "red") for f in failures[:NAMED]]
    if len(failures) > NAMED:
        lines.append(Text(f"… and {len(failures) - NAMED} more failures in report.json", "red"))
    return Group(*lines)


def _commands(report: Json, directory: Path, applied: Applied | None) -> RenderableType:
    """What to type next."""
    where = shlex.quote(_short(directory))
    lines = []
    if applied is not None:
        lines.append((f"the patch {'is' if applied.new else 'was already'} on the branch", applied.branch))
    elif report["selected"] is not None:
        lines.append(("apply", f"git apply {shlex.quote(str(directory / 'selected.patch'))}"))
    if report["attempts"]:
        attempt = report["selected"]["attempt"] if report["selected"] else report["attempts"][0]["index"]
        lines.append(("replay", f"troop replay {where} --attempt {attempt}"))
    if report["status"] in ("running", "interrupted", "failed"):
        lines.append(("go on", f"troop resume {where}"))
    lines.append(("all of it", f"{_short(directory)}/report.json"))
    return Group(*(Text.assemble((f"{word}: ", "dim"), (what, "bold"), overflow="fold") for word, what in lines))


def _short(directory: Path) -> str:
    """Relative where that is shorter to type."""
    near = os.path.relpath(directory)
    return near if len(near) < len(str(directory)) and not near.startswith("..") else str(directory)


def _listed(items: Sequence[str], most: int) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
