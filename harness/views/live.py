"""What a person sees while a run goes on: a table of attempts on a terminal, plain lines elsewhere.

`Board` folds events into rows and stages, `board_view` draws it, `line_of` says one event in one line; all three
without effects. A `View` listens, and a `Screen` is where it is seen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness import trace
from harness.money.ledger import Line, add_charge, money
from harness.records import ENDED_WELL, Budget, Evidence, TestReport
from harness.views.picture import table
from harness.views.words import counted, elapsed_short, end_words, judge_words, printable, tokens_short
from tasks.say import WARNING

if TYPE_CHECKING:
    from rich.live import Live

REFRESH_PER_SECOND = 4

_BAD = frozenset({"infrastructure", "crashed", "malformed"})
_NEWS = (trace.Verified, trace.SamplingStopped, trace.Selected, *trace.JUDGING)
_STAGES: dict[type[trace.Event], str] = {trace.Prepared: "attempts", trace.RunReopened: "attempts"}
_STAGES |= {trace.Probed: "probing", **dict.fromkeys(trace.JUDGING, "judging")}


@dataclass(slots=True)
class AttemptRow:
    """One attempt. `state`: what it does now, or its status once `ended`; times in seconds since the epoch."""

    attempt: int
    model: str
    started: float
    state: str = "planning"
    turn: int = 0
    tests: str = ""
    cost: Line = field(default_factory=Line)
    ended: float | None = None
    calls: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Board:
    """All that the view shows, folded from events one by one.

    `planned`: attempts of the run. `news`: what became of candidates, newest last. `retries`: the world's failures so
    far.
    """

    planned: int = 0
    task: str = ""
    started: float = 0.0
    stage: str = "preparing"
    rows: dict[int, AttemptRow] = field(default_factory=dict)
    cost: Line = field(default_factory=Line)
    news: list[str] = field(default_factory=list)
    retries: int = 0
    evidence: dict[str, tuple[tuple[int, ...], Evidence]] = field(default_factory=dict)
    told_before: bool = False

    def add(self, event: trace.Event) -> None:
        """Take in the next event."""
        if isinstance(event, (trace.Replied, trace.Charged)):
            self.cost = add_charge(self.cost, event.charge)
        if event.attempt is not None:
            self._add_to_attempt(event, event.attempt)
            return
        if isinstance(event, trace.RunStarted):
            self.task, self.started = str(event.task.get("id", "")), event.at
            self.planned = int(event.settings.get("budget", {}).get("attempts", Budget().attempts))
        elif isinstance(event, trace.RunReopened):
            self.planned = event.attempts
        elif isinstance(event, trace.Verified):
            now = (event.attempts, event.evidence)
            self.told_before = self.evidence.get(event.candidate) == now
            self.evidence[event.candidate] = now
        elif isinstance(event, trace.InfrastructureFailed):
            self.retries += 1
        self.stage = stage_of(event, self.stage)
        if isinstance(event, _NEWS) and (line := line_of(event, self)):
            self.news.append(line)

    def _add_to_attempt(self, event: trace.Event, attempt: int) -> None:
        if isinstance(event, trace.AttemptStarted):
            self.rows[attempt] = AttemptRow(attempt, event.model, event.at)
            return
        row = self.rows.get(attempt)
        if row is None:
            return
        row.ended = None  # one that goes on after its end
        if isinstance(event, (trace.Replied, trace.Charged)):
            row.cost = add_charge(row.cost, event.charge)
        elif isinstance(event, trace.Decided):
            row.turn = event.turn
            row.calls = [str(call.get("name", "")) for call in event.calls]
            row.state = row.calls[0] if row.calls else "malformed reply" if event.error else "thinking"
        elif isinstance(event, trace.ToolRan):
            row.calls = row.calls[1:]
            row.state = row.calls[0] if row.calls else "thinking"
        elif isinstance(event, trace.TestsRan):
            row.tests = tests_short(event.report)
        elif isinstance(event, (trace.Planned, trace.TurnEnded)):
            row.state = "thinking"
        elif isinstance(event, trace.InfrastructureFailed):
            self.retries += 1
            row.state = f"retry: {event.what}" if event.retried else "failed"
        elif isinstance(event, trace.AttemptEnded):
            row.state, row.ended, row.turn = event.status, event.at, event.turns or row.turn

    @property
    def active(self) -> list[AttemptRow]:
        return [row for row in self.rows.values() if row.ended is None]

    @property
    def done(self) -> list[AttemptRow]:
        """Ended attempts, the newest first."""
        ended = [row for row in self.rows.values() if row.ended is not None]
        return sorted(ended, key=lambda row: row.ended or 0.0, reverse=True)


def stage_of(event: trace.Event, before: str) -> str:
    """What a run does after the event. `before`: what it did until then."""
    if isinstance(event, trace.Verified):
        return before if event.early else "verifying"
    if isinstance(event, trace.Selected):
        return "nothing selected" if event.selection.candidate is None else "selected"
    return _STAGES.get(type(event), before)


def tests_short(report: TestReport) -> str:
    """A test run in a few characters: passed/run, or why it says nothing."""
    if report.timed_out:
        return "time out"
    if not report.valid:
        return "invalid"
    run = len(report.passed) + len(report.failed)
    return f"{len(report.passed)}/{run}"


def board_view(board: Board, *, now: float, height: int) -> RenderableType:
    """The board in at most `height` lines and 80 columns: active attempts, then the newest ended; the rest counted."""
    news = board.news[-3:]
    room = max(1, height - len(news) - 5)  # two lines of summary, the heading, one for what is hidden, one spare
    active, done = board.active, board.done
    shown = active[:room]
    shown += done[: room - len(shown)]
    parts: list[RenderableType] = list(_summary(board, now))
    if shown:
        headings = (">#", "state…", ">turn", ">tests…", ">tokens", ">cost", ">time", "model…")
        attempts = table(*headings, gap=1, widths=(3, 18, 4, 9, 7, 9, 6, 14))
        for row in sorted(shown, key=lambda row: (row.ended is not None, row.attempt)):
            attempts.add_row(*_cells(row, now), style="dim" if row.ended is not None else "")
        parts.append(attempts)
    if hidden := len(active) + len(done) - len(shown):
        waiting = len(active) - sum(row.ended is None for row in shown)
        said = f"… and {counted(hidden, 'more attempt')}: {waiting} active, {hidden - waiting} ended"
        parts.append(Text(said, style="dim"))
    parts += [fitted(line) for line in news]
    return Group(*parts)


def status_style(status: str) -> str:
    """The colour of how an attempt ended."""
    return "green" if status in ENDED_WELL else "red" if status in _BAD else "yellow"


def _summary(board: Board, now: float) -> Iterable[Text]:
    counts = Counter(row.state for row in board.done)
    begun = f"attempts {len(board.done)}/{board.planned} ended, {len(board.active)} active"
    spent = f"{tokens_short(board.cost.usage.total)} tokens, {money(board.cost)}"
    elapsed = elapsed_short(now - board.started) if board.started else "-"
    retries = f", {counted(board.retries, 'retry')}" if board.retries else ""
    yield fitted(f"{board.task}: {board.stage}", style="bold")
    most = ", ".join(f"{n} {end_words(status)}" for status, n in counts.most_common(3))
    ends = f" ({most})" if most else ""
    yield fitted(f"{begun}{ends}; {spent}{retries}; {elapsed}")


def _cells(row: AttemptRow, now: float) -> tuple[str | Text, ...]:
    return (
        str(row.attempt),
        Text(printable(end_words(row.state)), style="" if row.ended is None else status_style(row.state)),
        str(row.turn or "-"),
        row.tests or "-",
        tokens_short(row.cost.usage.total),
        money(row.cost),
        elapsed_short((row.ended or now) - row.started),
        Text(row.model.rpartition("#")[2]),
    )


def fitted(line: str, style: str = "") -> Text:
    """One line that is cut where the terminal ends."""
    return Text(printable(line), style=style, no_wrap=True, overflow="ellipsis")


def line_of(event: trace.Event, board: Board) -> str | None:
    """The event in one plain line, None where it is not worth one. `board` has taken the event in already."""
    row = board.rows.get(event.attempt) if event.attempt is not None else None
    if isinstance(event, trace.AttemptStarted):
        return f"attempt {event.attempt}: started, {event.model}, seed {event.seed}"
    if isinstance(event, trace.TurnEnded) and row is not None:
        tests = f", tests {row.tests}" if row.tests else ""
        spent = f", {tokens_short(row.cost.usage.total)} tokens, {money(row.cost)}" if row.cost.calls else ""
        return f"attempt {event.attempt}: turn {event.turn}, {event.seconds:.1f} s{tests}{spent}"
    if isinstance(event, trace.AttemptEnded):
        detail = f" ({event.detail})" if event.detail else ""
        took = f"{counted(event.turns, 'turn')}, {event.seconds:.1f} s"
        return f"attempt {event.attempt}: {end_words(event.status)}{detail}, {took}"
    if isinstance(event, trace.CapsChanged):
        return event.words
    if isinstance(event, trace.InfrastructureFailed):
        who = "run" if event.attempt is None else f"attempt {event.attempt}"
        return f"{who}: {event.what} failed, {'trying again' if event.retried else 'given up'}: {event.detail}"
    if isinstance(event, trace.Prepared):
        return f"prepared on {event.backend} in {event.seconds:.1f} s" + (f"; {event.note}" if event.note else "")
    if isinstance(event, trace.Verified):
        who = f"candidate {event.candidate} ({counted(len(event.attempts), 'attempt')})"
        return None if board.told_before else f"{who}: {evidence_words(event.evidence)}"
    if isinstance(event, trace.JUDGING):
        return judge_words(event)
    if isinstance(event, trace.SamplingStopped):
        return event.words
    if not isinstance(event, trace.Selected):
        return None
    chosen, selection = event.selection.candidate, event.selection
    return f"selected {selection.rationale}" if chosen else f"nothing selected: {selection.rationale}"


def evidence_words(evidence: Evidence) -> str:
    """Whether a candidate applies, breaks tests, and how many given and witness tests pass, in a few words."""
    if not evidence.applies:
        return "does not apply"
    if not evidence.valid:
        return f"nothing can be concluded: {evidence.reason}"
    parts = [f"breaks {counted(len(evidence.broken), 'test')}" if evidence.broken else "regression tests pass"]
    for word, outcomes in (("given", evidence.given), ("witness", evidence.witness)):
        if outcomes:
            parts.append(f"{sum(o == 'passed' for o in outcomes.values())}/{len(outcomes)} {word} tests pass")
    return ", ".join(parts)


class Screen:
    """Where a view is seen. Where `drawn`, what `draw` gives for a number of lines is kept up to date in place, and the
    terminal given back at the end; elsewhere lines are written, each one at once and without what could harm a terminal
    (those that are indented stay so); without a console nothing is. `lock`: held while what is drawn changes, as rich
    draws in a thread."""

    def __init__(
        self, console: Console | None, draw: Callable[[int], RenderableType], *, transient: bool = False
    ) -> None:
        """`transient`: nothing of what is drawn stays on the screen."""
        self.lock = threading.Lock()
        self.drawn = console is not None and console.is_terminal and not console.is_dumb_terminal
        self._console = console or Console(quiet=True)
        self._draw = draw
        self._transient = transient
        self._live: Live | None = None

    def __rich__(self) -> RenderableType:
        with self.lock:
            return self._draw(self._console.height)

    def tell(self, line: str) -> None:
        """What happened, in a line for where nothing is drawn."""
        if not self.drawn:
            self._console.print(Text(f"{'  ' if line.startswith('  ') else ''}{printable(line)}"), soft_wrap=True)

    def say(self, line: str) -> None:
        """A line of progress: where something is drawn, above it."""
        if self.drawn:
            self._console.print(Text(printable(line), "bold" if line.startswith(WARNING) else ""), soft_wrap=True)
        else:
            self.tell(line)

    def appear(self) -> None:
        """From now on what is drawn is on the screen, if it was not before."""
        if self.drawn and self._live is None:
            from rich.live import Live

            times = REFRESH_PER_SECOND
            self._live = Live(self, console=self._console, refresh_per_second=times, transient=self._transient)
            self._live.start()

    def stop(self) -> None:
        """Nothing more comes; what was drawn last stays on the screen. Can be called again."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()


class View:
    """What shows a run while it goes on: listens to the trace, and to lines of progress."""

    def __init__(self, console: Console | None = None) -> None:
        """`console`: where the board is drawn, or lines are written; None: nothing is shown."""
        self._board = Board()
        self.screen = Screen(console, lambda height: board_view(self._board, now=time.time(), height=height))

    def see(self, event: trace.Event) -> None:
        """The next event of the trace; the first one makes the board appear."""
        self.catch_up([event])
        if line := line_of(event, self._board):
            self.screen.tell(line)
        self.screen.appear()

    def catch_up(self, events: Iterable[trace.Event]) -> None:
        """What happened before this process went on with the run."""
        with self.screen.lock:
            for event in events:
                self._board.add(event)

    def say(self, line: str) -> None:
        """A line of progress that is no event."""
        self.screen.say(line)

    def stop(self) -> None:
        """Nothing more comes. Can be called again."""
        self.screen.stop()
