"""The result of a run for a person: patch, evidence, ledger, and what to type next. Pure: events to renderables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from harness import trace
from harness.money.ledger import RUN, Ledger, Line, money
from harness.patches.patch import Patch
from harness.records import Evidence, Json, Selection
from harness.repository.apply import Applied
from harness.views.live import status_style
from harness.views.picture import table
from harness.views.replay_frames import judge_frames, render
from harness.views.report import latest_verified, solve_report
from harness.views.words import (
    ATTEMPT_WORDS,
    FLAG_WORDS,
    METHOD_WORDS,
    STATUS_WORDS,
    STRENGTH_WORDS,
    clean,
    counted,
    elapsed_short,
    tokens_short,
)
from tasks.task import title_of

SCREEN = 40
"""Lines that a report takes at most, at 80 columns."""
LEAST_OF_PATCH = 8
"""Lines of the selected patch that are shown at the least; the file has all."""
SPARE = 6
"""Of these: empty ones, and what one long line takes more at 80 columns."""
OTHERS = 5
"""Candidates that were not selected, of which a line says why."""
WITNESSES = 12
"""Witness tests that get a column of their own in the matrix."""
ROWS = 32
"""Attempts that get a line each; report.json has all."""
NAMED = 5
"""Broken tests that are named for each candidate."""

_LINE: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
_PASSED, _FAILED, _MISSING = Text("✓", "green"), Text("✗", "red"), Text("·", "dim")


def solve_view(
    events: Sequence[trace.Event], directory: Path, *, applied: Applied | None = None
) -> list[RenderableType]:
    """What `troop solve` and `troop report` print, in order, on one screen; works on an unfinished run too.

    `directory`: the run directory, for the commands. `applied`: where `--apply` put the patch.
    """
    report, verified = solve_report(events), latest_verified(events)
    selection = next((e.selection for e in reversed(events) if isinstance(e, trace.Selected)), None)
    chosen = next((e for e in verified if selection and e.candidate == selection.candidate), None)
    started = events[0]
    assert isinstance(started, trace.RunStarted), "trace.read checks it"
    title = title_of(str(started.task.get("statement", ""))) or report["task"]
    above: list[RenderableType] = [Text(clean(title), "bold", **_LINE), _verdict(report)]
    below: list[RenderableType] = [*_why(report, chosen, selection), *_others(report, chosen)]
    below += [_cost(report, Ledger.of(events)), *_failures(report), Text(), *_commands(report, directory, applied)]
    if chosen is None:
        return [*above, *below]
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    room = max(SCREEN - len(above) - len(below) - SPARE, LEAST_OF_PATCH)
    return [*above, Text(), *_patch(patches[chosen.attempts[0]], room), Text(), *below]


def verbose_view(events: Sequence[trace.Event], directory: Path) -> list[RenderableType]:
    """All of it: the screen of `solve_view`, attempts, the evidence on every candidate, the ledger."""
    report, ledger, verified = solve_report(events), Ledger.of(events), latest_verified(events)
    selection = next((e.selection for e in reversed(events) if isinstance(e, trace.Selected)), None)
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    limits = [Text(f"not in force: {clean(limit)}", "yellow") for limit in report["missing_limits"]]
    view = [*solve_view(events, directory), Text(), *limits, _attempts(report, ledger)]
    if verified:
        view += [Text(), _matrix(verified, selection, patches)]
    view += [render(frame) for frame in judge_frames(events)]
    if ledger.total.calls + ledger.total.unanswered:
        view += [Text(), _ledger(ledger)]
    return view


def _verdict(report: Json) -> Text:
    """What came of it, in words, and what the hidden tests say of it where there are some."""
    ended, selected, graded = report["status"], report["selected"], report["graded"]
    colour = {"selected": "green", "none": "yellow", "running": "cyan"}.get(ended, "red")
    said = STRENGTH_WORDS[selected["strength"]] if selected else STATUS_WORDS.get(str(ended), str(ended))
    words = Text.assemble((said[:1].upper() + said[1:], f"bold {colour}"), **_LINE)
    words.append(f" · {counted(len(report['attempts']), 'attempt')} in {elapsed_short(report['seconds'])}")
    if graded is not None:
        solves = "resolves the task" if graded["resolved"] else f"does not resolve it: {clean(graded['reason'])}"
        style = "bold green" if graded["resolved"] else "bold red"
        words.append(f" · hidden tests: {graded['candidate']} {solves}", style)
    return words


def _why(report: Json, chosen: trace.Verified | None, selection: Selection | None) -> list[RenderableType]:
    """Why the selected patch: what was run and shown; then what speaks against it or was not checked."""
    if selection is None:
        return []
    if chosen is None:
        return [Text(clean(selection.rationale), overflow="fold")]
    evidence, shown = chosen.evidence, []
    flags = next(each["flags"] for each in report["candidates"] if each["id"] == chosen.candidate)
    lacking = [FLAG_WORDS.get(flag, flag) for flag in flags]
    for outcomes, one, many in (
        (evidence.given, "failing test that was given", "failing tests that were given"),
        (evidence.witness, "test written for the issue", "tests written for the issue"),
        (evidence.regression, "test that passed before", "tests that passed before"),
    ):
        passed, count = sum(outcome == "passed" for outcome in outcomes.values()), len(outcomes)
        if passed:
            shown.append(f"{passed} of " * (passed < count) + f"{count} {one if count == 1 else many}")
        if passed < count:
            lacking.append(f"fails {count - passed} {one if count - passed == 1 else many}")
    if not evidence.given and not evidence.witness:
        lacking.append("no test shows the issue")
    if not evidence.regression:
        lacking.append("nothing that passed before was run")
    agreed = f"{len(chosen.attempts)} of {counted(len(report['attempts']), 'attempt')} came to it"
    why = f"passes {', '.join(shown)}; {agreed}" if shown else agreed
    decided = METHOD_WORDS.get(selection.method, "")
    lines: list[RenderableType] = [Text.assemble(("why: ", "dim"), f"{why}. {decided}".strip(), overflow="fold")]
    if lacking:
        lines.append(Text.assemble(("but: ", "yellow"), clean("; ".join(lacking)), overflow="fold"))
    return lines


def _others(report: Json, chosen: trace.Verified | None) -> list[RenderableType]:
    """One line for each other candidate: why it lost."""
    rest = [row for row in report["ranking"] if chosen is None or row["candidate"] != chosen.candidate]
    attempts = {each["id"]: each["attempts"] for each in report["candidates"]}
    lines: list[RenderableType] = []
    for row in rest[:OTHERS]:
        whose = f"{row['candidate']} (attempt {_listed(list(map(str, attempts.get(row['candidate'], ()))), 3)}): "
        why = clean(row["why"]) if not row["acceptable"] else "breaks nothing, but less speaks for it"
        lines.append(Text.assemble((whose, "dim"), why, **_LINE))
    if len(rest) > OTHERS:
        lines.append(Text(f"… and {counted(len(rest) - OTHERS, 'further candidate')}: --verbose", "dim"))
    return lines


def _cost(report: Json, ledger: Ledger) -> RenderableType:
    total, retries = ledger.total, report["infrastructure"]["retries"]
    if total.calls + total.unanswered:
        said = f"{money(total)} for {counted(total.calls, 'call')}, {tokens_short(total.usage.total)} tokens"
        said += "" if total.exact else " (at least: some prices are unknown)"
    else:
        said = "nothing, no model was asked"
    said += f"; {counted(retries, 'retry')} for reasons outside of the attempts" if retries else ""
    stopped = f"; {clean(report['sampling']['words'])}" if report["sampling"] else ""
    return Text.assemble(("cost: ", "dim"), said + stopped, overflow="fold")


def _attempts(report: Json, ledger: Ledger) -> RenderableType:
    shown = table(">attempt", "status", ">turns", ">time", ">tokens", ">cost", "candidate", "model…", gap=1)
    for row in report["attempts"][:ROWS]:
        shown.add_row(
            str(row["index"]),
            Text(ATTEMPT_WORDS.get(row["status"], row["status"]), status_style(row["status"])),
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
        said.append(", ".join(FLAG_WORDS.get(flag, flag) for flag in patch.flags))
    return [Text(f"{event.candidate}: {clean('; '.join(said))}", "yellow")] if said else []


def _patch(diff: str, room: int) -> list[RenderableType]:
    """The patch without its index lines, as far as `room` lines go."""
    lines = [line for line in clean(diff).rstrip("\n").split("\n") if not line.startswith(("index ", "diff --git "))]
    styles = {"+": "green", "-": "red", "@": "cyan"}
    shown: list[RenderableType] = [Text(line, styles.get(line[:1], ""), overflow="fold") for line in lines[:room]]
    if len(lines) > room:
        shown.append(Text(f"… {counted(len(lines) - room, 'more line')} in selected.patch", "dim italic"))
    return shown


def _ledger(ledger: Ledger) -> RenderableType:
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


def _failures(report: Json) -> list[RenderableType]:
    failures = report["infrastructure"]["failures"]
    lines: list[RenderableType] = [Text(clean(f"failed: {f['what']}: {f['detail']}"), "red") for f in failures[:NAMED]]
    if len(failures) > NAMED:
        lines.append(Text(f"… and {len(failures) - NAMED} more failures in report.json", "red"))
    return lines


def _commands(report: Json, directory: Path, applied: Applied | None) -> list[RenderableType]:
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
    lines.append(("all of it", f"troop report {where} --verbose"))
    return [Text.assemble((f"{word}: ", "dim"), (what, "bold"), overflow="fold", no_wrap=True) for word, what in lines]


def _short(directory: Path) -> str:
    """Relative where that is shorter to type."""
    near = os.path.relpath(directory)
    return near if len(near) < len(str(directory)) and not near.startswith("..") else str(directory)


def _listed(items: Sequence[str], most: int) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
