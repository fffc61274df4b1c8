"""The result of a run for a person: patch, evidence, ledger, and what to type next. Pure: events to renderables."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from harness import trace
from harness.money.ledger import RUN, Ledger, Line, money
from harness.records import Json
from harness.views.live import status_style
from harness.views.picture import table
from harness.views.replay_frames import judge_frames, render
from harness.views.report import last_selection, latest_verified, solve_report
from harness.views.words import (
    FLAG_WORDS,
    LOST_WORDS,
    clean,
    counted,
    elapsed_short,
    end_words,
    evidence_words,
    listed,
    reasons,
    tokens_short,
    tries,
    verdict_words,
    whose,
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
ROWS = 32
"""Attempts that get a line each; report.json has all."""
NAMED = 5
"""Broken tests that are named for each candidate."""

_LINE: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}


def solve_view(events: Sequence[trace.Event], directory: Path, *, short: bool = False) -> list[RenderableType]:
    """What `troop solve` and `troop report` print, in order, on one screen; works on an unfinished run too.
    `directory`: the run directory, for the commands. `short`: only the verdict, the patch's path, the cost."""
    report = solve_report(events)
    if short:
        patch = [Text(f"patch: {directory / 'selected.patch'}", overflow="fold")] if report["selected"] else []
        return [verdict(report), *patch, cost(report, Ledger.of(events))]
    started = events[0]
    assert isinstance(started, trace.RunStarted), "trace.read checks it"
    title = title_of(str(started.task.get("statement", ""))) or report["task"]
    above: list[RenderableType] = [Text(clean(title), "bold", **_LINE), verdict(report)]
    below: list[RenderableType] = [*why(report, events), *_others(report)]
    below += [cost(report, Ledger.of(events)), *_failures(report), Text(), *_commands(report, directory)]
    attempt = report["selected"] and report["selected"]["attempt"]
    if attempt is None:
        return [*above, *below]
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    room = max(SCREEN - len(above) - len(below) - SPARE, LEAST_OF_PATCH)
    return [*above, Text(), *patch_lines(patches[attempt], room), Text(), *below]


def verbose_view(events: Sequence[trace.Event], directory: Path) -> list[RenderableType]:
    """All of it: the screen of `solve_view`, attempts, the evidence on every candidate, the ledger."""
    report, ledger, verified = solve_report(events), Ledger.of(events), latest_verified(events)
    limits = [Text(f"not in force: {clean(limit)}", "yellow") for limit in report["missing_limits"]]
    view = [*solve_view(events, directory), Text(), *limits, _attempts(report, ledger)]
    if verified:
        view += [Text(), _matrix(report, verified)]
    view += [render(frame) for frame in judge_frames(events)]
    if ledger.total.calls + ledger.total.unanswered:
        view += [Text(), _ledger(ledger)]
    return view


def verdict(report: Json) -> Text:
    """What came of it, in words, and what the hidden tests say of it where there are some."""
    ended, graded = report["status"], report["graded"]
    colour = {"selected": "green", "none": "yellow", "running": "cyan"}.get(ended, "red")
    said = verdict_words(report)
    words = Text.assemble((said[:1].upper() + said[1:], f"bold {colour}"), **_LINE)
    words.append(f" · {tries(report)} in {elapsed_short(report['seconds'])}")
    if graded is not None:
        solves = "resolves the task" if graded["resolved"] else f"does not resolve it: {clean(graded['reason'])}"
        style = "bold green" if graded["resolved"] else "bold red"
        words.append(f" · hidden tests: {graded['candidate']} {solves}", style)
    return words


def why(report: Json, events: Sequence[trace.Event]) -> list[Text]:
    """Why the selected patch, and what speaks against it; or why there is none."""
    selection = last_selection(events)
    if report["selected"] is None or report["selected"]["attempt"] is None:
        return [Text(clean(selection.rationale), overflow="fold")] if selection else []
    for_it, against = reasons(report)
    given = report["attempts"][0]["name"] and whose(report, report["selected"]["candidate"])
    lines = [Text.assemble(("from: ", "dim"), given, overflow="fold")] if given else []
    lines.append(Text.assemble(("why: ", "dim"), for_it, overflow="fold"))
    return lines + ([Text.assemble(("but: ", "yellow"), clean(against), overflow="fold")] if against else [])


def _others(report: Json) -> list[RenderableType]:
    """One line for each other candidate: why it lost."""
    chosen = report["selected"] and report["selected"]["candidate"]
    rest = [row for row in report["ranking"] if row["candidate"] != chosen]
    lost = LOST_WORDS.get((report["selected"] or {}).get("method", ""), "less speaks for it")
    lines: list[RenderableType] = []
    for place, row in enumerate(rest[:OTHERS]):
        # What decided was between the first two.
        why = f"breaks nothing, but {lost}" if row["acceptable"] and not place else clean(row["why"])
        lines.append(Text.assemble((f"{row['candidate']} ({whose(report, row['candidate'])}): ", "dim"), why, **_LINE))
    if len(rest) > OTHERS:
        lines.append(Text(f"… and {counted(len(rest) - OTHERS, 'further candidate')}: --verbose", "dim"))
    return lines


def cost(report: Json, ledger: Ledger) -> Text:
    """What it cost, in one line."""
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
            Text(end_words(row["status"]), status_style(row["status"])),
            str(row["turns"]),
            "-" if row["seconds"] is None else elapsed_short(row["seconds"]),
            tokens_short(sum(row["usage"].values())),
            money(ledger.by_attempt.get(str(row["index"]), Line())),
            row["candidate"] or "-",
            Text(clean(row["name"] or row["model"].rpartition("#")[2])),
        )
    more = len(report["attempts"]) - ROWS
    return Group(shown, *([Text(f"… and {counted(more, 'more attempt')} in report.json", "dim")] if more > 0 else []))


def _matrix(report: Json, verified: Sequence[trace.Verified]) -> RenderableType:
    """Of each candidate, best first: what it keeps working, what it mends, and why it stands where it does."""
    why = {row["candidate"]: row["why"] for row in report["ranking"]}
    flags = {each["id"]: [FLAG_WORDS.get(flag, flag) for flag in each["flags"]] for each in report["candidates"]}
    lines = []
    for event in sorted(verified, key=lambda e: [*why, e.candidate].index(e.candidate)):
        broken = f"broken: {listed(event.evidence.broken, NAMED)}" if event.evidence.broken else ""
        said = [evidence_words(event.evidence), broken, why.get(event.candidate, ""), *flags[event.candidate]]
        named = f"{event.candidate} ({whose(report, event.candidate, 6)}): "
        lines.append(Text.assemble((named, "bold"), clean("; ".join(filter(None, said))), overflow="fold"))
    return Group(Rule("Evidence", align="left", style="dim"), *lines)


def patch_lines(diff: str, room: int | None = None) -> list[Text]:
    """The patch in colours without its index lines, as far as `room` lines go."""
    lines = [line for line in clean(diff).rstrip("\n").split("\n") if not line.startswith(("index ", "diff --git "))]
    styles = {"+": "green", "-": "red", "@": "cyan"}
    shown = [Text(line, styles.get(line[:1], ""), overflow="fold") for line in lines[:room]]
    if len(lines) > len(shown):
        shown.append(Text(f"… {counted(len(lines) - len(shown), 'more line')} in selected.patch", "dim italic"))
    return shown


LEDGER = ("calls", "no answer", "no price", "input", "cached", "output", "reasoning", "cost")
"""Columns of the ledger. "no answer": retries that may have reached the model; of the input what is "cached" was read
from the provider's cache."""
_PURPOSES = {"plan": "planning", "act": "working", "judge": "judging", "contact": "first contact"}


def _ledger(ledger: Ledger) -> RenderableType:
    """By purpose, model and attempt."""
    shown = table("…", *(f">{name}" for name in LEDGER), gap=1)
    *rows, total = ledger_rows(ledger)
    for row in rows:
        shown.add_row(*row)
    shown.add_section()
    shown.add_row(*total, style="bold")
    return Group(Rule("Ledger", align="left", style="dim"), shown, Text("; ".join(ledger_notes(ledger)), "dim"))


def ledger_rows(ledger: Ledger) -> list[tuple[str, ...]]:
    """What calls were for, which model, which of the dearest attempts, in all: label and the columns of `LEDGER`."""
    dearest = sorted(ledger.by_attempt, key=lambda key: (key != RUN, ledger.by_attempt[key].known_usd), reverse=True)
    by_attempt = {key: line for key, line in ledger.by_attempt.items() if key == RUN or key in dearest[:ROWS]}
    rows = []
    for name, lines in (("purpose", ledger.by_purpose), ("model", ledger.by_model), ("attempt", by_attempt)):
        for key, line in lines.items():
            label = _PURPOSES.get(key, key) if name == "purpose" else f"{name} {clean(key).rpartition('#')[2]}"
            label = "the run's own" if name == "attempt" and key == RUN else label
            rows.append(_ledger_cells(label, line))
    return [*rows, _ledger_cells("total", ledger.total)]


def ledger_notes(ledger: Ledger) -> list[str]:
    """What is to be known of the ledger's figures."""
    hidden = sum(key != RUN for key in ledger.by_attempt) - ROWS
    said = [f"the {ROWS} dearest attempts of {hidden + ROWS}"] if hidden > 0 else []
    said.append("prices: " + ", ".join(f"{source} ({counted(n, 'call')})" for source, n in ledger.sources.items()))
    if (told := ledger.total.reported_usd) is not None:
        said.append(f"providers say ${told:.4f} where these prices come to ${ledger.total.reported_as:.4f}")
    if not ledger.total.exact:
        said.append("the price of some calls is unknown, so the sum is a lower bound")
    return said


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


def _commands(report: Json, directory: Path) -> list[RenderableType]:
    """What to type next."""
    where = shlex.quote(_short(directory))
    lines = []
    if report["selected"] is not None:
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
