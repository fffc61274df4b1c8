"""What a person sees while a run goes on: a table of attempts on a terminal, plain lines or JSON elsewhere.

`Board` folds events and keys into rows, stages and wishes, `board_view` draws it, `line_of` says one event in one line;
all three without effects. A `View` listens, and a `Screen` is where it is seen.
"""

import asyncio
import contextlib
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from statistics import mean
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleDimensions, ConsoleRenderable, Group, RenderableType, RenderHook
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from harness import trace
from harness.money.ledger import Line, add_charge, money
from harness.records import ENDED_WELL, NO_SAMPLE, Budget, Evidence, Json, TestReport
from harness.views import words
from harness.views.keyboard import is_ours, keyboard
from harness.views.picture import table
from harness.views.words import counted, elapsed_short, end_words, evidence_words, judge_words, printable, tokens_short
from tasks.say import WARNING

if TYPE_CHECKING:
    from rich.live import Live

REFRESH_PER_SECOND = 4
HEARTBEAT = 30.0
"""Seconds after which lines say how the run stands, again and again."""
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_EXIT = re.compile(r"\(exit code (-?\d+)\)\s*\Z")
LONG_PATH = 30
WIDE = 100
"""Columns from which models are shown, where there are several."""

_BAD = frozenset({"infrastructure", "crashed", "malformed"})
_NEWS = (trace.Verified, trace.SamplingStopped, trace.BudgetReached, trace.Selected, *trace.JUDGING)
_STAGES: dict[type[trace.Event], str] = {trace.Prepared: "attempts", trace.RunReopened: "attempts"}
_STAGES |= {trace.Probed: "probing", **dict.fromkeys(trace.JUDGING, "judging")}


@dataclass(slots=True)
class AttemptRow:
    """One attempt. `state`: what it does, or did last, and `result`, what came of that; once it has `ended`, its status
    and its last test run (`tests`). Times in seconds since the epoch."""

    attempt: int
    started: float
    model: str = ""
    state: str = "planning"
    result: str = ""
    turn: int = 0
    tests: str = ""
    cost: Line = field(default_factory=Line)
    ended: float | None = None
    calls: list[Json] = field(default_factory=list)


@dataclass(slots=True)
class Board:
    """All that the view shows, folded from events one by one.

    `planned`: attempts of the run, as far as is known now. `cap`: in USD. `baseline`: tests that pass on
    the base. `busy`: what is done outside of attempts, and since when. `news`: what became of candidates, newest last.
    `retries`: the world's failures so far. `question`: what a person at the keyboard is asked ("stop", "finish", or
    nothing; None: there is none), `typed` the answer so far."""

    planned: int = 0
    cap: float | None = None
    baseline: frozenset[str] = frozenset()
    busy: list[tuple[str, float]] = field(default_factory=list)
    question: str | None = None
    typed: str = ""
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
        self.retries += isinstance(event, trace.InfrastructureFailed)
        if isinstance(event, (trace.Replied, trace.Charged)):
            self.cost = add_charge(self.cost, event.charge)
        if event.attempt is not None:
            self.stage = "attempts"
            self._add_to_attempt(event, self.rows.setdefault(event.attempt, AttemptRow(event.attempt, event.at)))
            return
        if isinstance(event, trace.RunStarted):
            self.task, self.started = str(event.task.get("id", "")), event.at
            budget = event.settings.get("budget", {})
            self.planned, self.cap = int(budget.get("attempts", Budget().attempts)), budget.get("usd")
        elif isinstance(event, trace.RunReopened):
            self.planned = event.attempts
        elif isinstance(event, trace.CapsChanged):
            self.cap = self.cap if event.usd is None else event.usd
        elif isinstance(event, (trace.SamplingStopped, trace.BudgetReached)):
            self.planned = len(self.rows)
        elif isinstance(event, trace.Prepared) and event.baseline:
            self.baseline = event.baseline.passed
        elif isinstance(event, trace.Verified):
            now = (event.attempts, event.evidence)
            self.told_before = self.evidence.get(event.candidate) == now
            self.evidence[event.candidate] = now
            self.stage = self.stage if event.early else "verifying"
        elif isinstance(event, trace.Selected):
            self.stage = "selected" if event.selection.candidate else "nothing selected"
        self.stage = _STAGES.get(type(event), self.stage)
        if isinstance(event, _NEWS) and (line := line_of(event, self)):
            self.news.append(line)

    def _add_to_attempt(self, event: trace.Event, row: AttemptRow) -> None:
        row.ended = None  # one that goes on after its end
        if isinstance(event, (trace.Replied, trace.Charged)):
            row.cost = add_charge(row.cost, event.charge)
        elif isinstance(event, trace.AttemptStarted):
            row.model = event.name or event.model
        elif isinstance(event, trace.Decided):
            row.turn, row.calls, row.result = event.turn, list(event.calls), ""
            row.state = "answered unusably" if event.error else call_words(row.calls[0]) if row.calls else "thinking"
        elif isinstance(event, trace.ToolRan) and row.calls:
            row.state, row.result = call_words(row.calls.pop(0)), result_words(event)
        elif isinstance(event, trace.TestsRan):
            row.tests = tests_words(event.report, self.baseline)
            row.state, row.result, row.calls = "test", row.tests, []
        elif isinstance(event, trace.Planned):
            row.state = "planned"
        elif isinstance(event, trace.InfrastructureFailed):
            row.state, row.result = f"the {event.what} failed", "trying again" if event.retried else "given up"
        elif isinstance(event, trace.AttemptEnded):
            row.state, row.result, row.ended = event.status, row.tests, event.at
            row.turn = event.turns or row.turn

    @property
    def active(self) -> list[AttemptRow]:
        return [row for row in self.rows.values() if row.ended is None]

    @property
    def done(self) -> list[AttemptRow]:
        """Ended attempts, the newest first."""
        ended = [row for row in self.rows.values() if row.ended is not None]
        return sorted(ended, key=lambda row: row.ended or 0.0, reverse=True)

    def seconds_left(self, now: float) -> float:
        """Until the attempts have ended, by how long those took that have; 0 where that is not to be known."""
        took = [row.ended - row.started for row in self.done if row.ended and row.state not in NO_SAMPLE]
        active = self.active
        if not took or not active:
            return 0.0
        work = [max(0.0, mean(took) - (now - row.started)) for row in active]
        return (sum(work) + mean(took) * max(0, self.planned - len(self.rows))) / len(active)

    def press(self, key: str, stop: Callable[[int | None], object]) -> None:
        """A key was pressed; `stop` is told which attempt is to be stopped, or None for all."""
        question, self.question = self.question, ""
        if question == "finish" and key == "y":
            stop(None)
        elif question == "stop" and key == "enter" and self.typed in [str(row.attempt) for row in self.active]:
            stop(int(self.typed))
        elif question == "stop" and (key == "backspace" or key.isdecimal()):
            self.question, self.typed = question, self.typed[:-1] if key == "backspace" else self.typed + key
        elif not question and self.active:
            self.question, self.typed = {"s": "stop", "f": "finish"}.get(key, ""), ""


def tests_words(report: TestReport, baseline: frozenset[str]) -> str:
    """A test run in a few words. `baseline`: tests that pass on the base."""
    if report.timed_out:
        return "ran out of time"
    if not report.valid:
        return "could not run"
    new = len(report.failed & baseline)
    old = len(report.failed) - new
    said = [f"{len(report.passed)} pass", f"{counted(new, 'new failure')}" * bool(new), f"{old} fail" * bool(old)]
    return ", ".join(filter(None, said))


def call_words(call: Json) -> str:
    """A tool call in a few words: its name, and on what."""
    arguments = call.get("arguments") or {}
    path = str(arguments.get("path") or "")
    path = path if len(path) <= LONG_PATH else f"…{path[1 - LONG_PATH :]}"
    return printable(f"{call.get('name', '')} {path or arguments.get('command') or arguments.get('pattern') or ''}")


def result_words(event: trace.ToolRan) -> str:
    """What came of a tool call, in a few words, where there is something to say."""
    if not event.ok:
        return "asked back" if event.name == "submit" else "failed"
    if event.diff:
        lines = event.diff.splitlines()
        more, less = (sum(each[:1] == sign and each[:3] != 3 * sign for each in lines) for sign in "+-")
        return f"+{more} −{less}"
    failed = _EXIT.search(event.result)
    return f"exit code {failed[1]}" if failed and failed[1] != "0" else ""


def board_view(board: Board, now: float, width: int = 80, height: int = 24) -> Group:
    """The board in at most `height` lines: what is done outside of attempts, active attempts, then the newest ended;
    the rest counted."""
    news = board.news[-3:]
    # two lines of summary, the heading, one for what is hidden, one for the keys, one spare
    room = max(1, height - len(news) - len(board.busy) - 6)
    active, done = board.active, board.done
    shown = active[:room]
    shown += done[: room - len(shown)]
    spin = SPINNER[int(now * REFRESH_PER_SECOND) % len(SPINNER)]
    left = board.seconds_left(now)
    ends = [f"{n} {end_words(status)}" for status, n in Counter(row.state for row in done).most_common(3)]
    said = [board.stage, *([f"about {elapsed_short(left)} left"] if left else []), *ends]
    begun = f"{len(done)}/{board.planned or len(board.rows)} attempts ended, {len(active)} active"
    spent = f"{tokens_short(board.cost.usage.total)} tokens, {money(board.cost)}"
    cap = f" of ${board.cap:g}" if board.cap is not None else ""
    retries = f", {counted(board.retries, 'retry')}" if board.retries else ""
    elapsed = elapsed_short(now - board.started) if board.started else "-"
    parts: list[RenderableType] = [fitted(f"{board.task}: {', '.join(said)}", "bold")]
    parts.append(fitted(f"{elapsed}; {begun}; {spent}{cap}{retries}"))
    parts += [fitted(f"{spin} {what}, {elapsed_short(now - since)}", "cyan") for what, since in board.busy]
    if shown:
        parts.append(_attempts(board, shown, now, width, spin))
    if hidden := len(active) + len(done) - len(shown):
        waiting = len(active) - sum(row.ended is None for row in shown)
        more = f"… and {counted(hidden, 'more attempt')}: {waiting} active, {hidden - waiting} ended"
        parts.append(Text(more, style="dim"))
    parts += [fitted(line) for line in news]
    if board.question is not None and active:
        which = ", ".join(str(row.attempt) for row in active)
        told = words.KEY_WORDS[board.question or "run"]
        told = told.format(which=which, typed=board.typed, all=counted(len(active), "attempt"))
        parts.append(fitted(told, "bold" if board.question else "dim"))
    return Group(*parts)


def status_style(status: str) -> str:
    """The colour of how an attempt ended."""
    return "green" if status in ENDED_WELL else "red" if status in _BAD else "yellow"


def _attempts(board: Board, shown: Iterable[AttemptRow], now: float, width: int, spin: str) -> Table:
    columns = 8 if width >= WIDE else 7
    headings = (">#", "last action…", "patch", ">turn", ">tokens", ">cost", ">time", "model…")
    widths = (5, max(20, width - 46 - 21 * (columns - 7)), 5, 4, 7, 9, 6, 20)
    attempts = table(*headings[:columns], gap=1, widths=widths[:columns])
    for row in sorted(shown, key=lambda row: (row.ended is not None, row.attempt)):
        action = Text(end_words(row.state) if row.ended else row.state, status_style(row.state) if row.ended else "")
        action.truncate(max(8, widths[1] - len(row.result) - 1), overflow="ellipsis")
        cells = (
            f"{'' if row.ended else spin} {row.attempt}",
            Text.assemble(action, f"{':' * (row.ended is not None)} {row.result}" if row.result else ""),
            next((name for name, (found_by, _) in board.evidence.items() if row.attempt in found_by), "-"),
            str(row.turn or "-"),
            tokens_short(row.cost.usage.total),
            money(row.cost),
            elapsed_short((row.ended or now) - row.started),
            Text(row.model.rpartition("#")[2]),
        )
        attempts.add_row(*cells[:columns], style="dim" if row.ended is not None else "")
    return attempts


def fitted(line: str, style: str = "") -> Text:
    """One line that is cut where the terminal ends."""
    return Text(printable(line), style=style, no_wrap=True, overflow="ellipsis")


def line_of(event: trace.Event, board: Board) -> str | None:
    """The event in one plain line, None where it is not worth one. `board` has taken the event in already."""
    row = board.rows.get(event.attempt) if event.attempt is not None else None
    if isinstance(event, trace.AttemptEnded):
        detail = f" ({event.detail})" if event.detail else ""
        took = f"{counted(event.turns, 'turn')}, {event.seconds:.1f} s"
        tests = f", tests: {row.tests}" if row and row.tests else ""
        spent = f", {tokens_short(row.cost.usage.total)} tokens, {money(row.cost)}" if row and row.cost.calls else ""
        return f"attempt {event.attempt}: {end_words(event.status)}{detail}, {took}{spent}{tests}"
    if isinstance(event, (trace.CapsChanged, trace.SamplingStopped)):
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
    if isinstance(event, trace.BudgetReached):
        return event.detail
    if not isinstance(event, trace.Selected):
        return None
    chosen, selection = event.selection.candidate, event.selection
    return f"selected {selection.rationale}" if chosen else f"nothing selected: {selection.rationale}"


Draw = Callable[[ConsoleDimensions], Group]


class Screen(RenderHook):
    """Where a view is seen. Where `drawn`, what `draw` gives for a terminal's size is kept up to date in place, and the
    terminal given back at the end; elsewhere lines are written, each one at once and without what could harm a terminal
    (those that are indented stay so), and every now and then the lines that would be drawn first; without a console
    nothing is. `lock`: held while what is drawn changes, as rich draws in a thread."""

    def __init__(self, console: Console | None, draw: Draw, *, json: bool = False, transient: bool = False) -> None:
        """`json`: lines are JSON objects. `transient`: nothing of what is drawn stays on the screen."""
        self.lock = threading.Lock()
        self.drawn = console is not None and console.is_terminal and not console.is_dumb_terminal and not json
        self._console = console or Console(quiet=True)
        self._draw = draw
        self.json = json and console is not None
        self._transient = transient
        self._live: Live | None = None
        self._beating = console is None or self.drawn
        self._over = threading.Event()

    def __rich__(self) -> Group:
        with self.lock:
            return self._draw(self._console.size)

    def tell(self, line: str, **more: object) -> None:
        """What happened, in a line for where nothing is drawn. `more`: of it, for JSON."""
        if self.json:
            self._console.file.write(json.dumps({"at": round(time.time(), 3), "text": printable(line), **more}) + "\n")
            self._console.file.flush()
        elif not self.drawn:
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
            self._console.push_render_hook(self)
        elif not self._beating:
            self._beating = True
            threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            first = takewhile(lambda part: isinstance(part, Text), self.__rich__().renderables)
            self.tell("; ".join(str(line).strip(f"{SPINNER} ") for line in first))

    def stop(self) -> None:
        """Nothing more comes; what was drawn last stays on the screen. Can be called again."""
        self._over.set()
        live, self._live = self._live, None
        if live is not None:
            self._console.pop_render_hook()
            live.stop()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is drawn anew at a time, marked so that the terminal shows it at once."""
        begin, end = (Segments([Segment(f"\x1b[?2026{way}", None, [])]) for way in "hl")
        return [begin, *renderables, end]


class View:
    """What shows a run while it goes on, and hears what a person wants of it: listens to the trace, to lines of
    progress, and to keys."""

    def __init__(self, console: Console | None = None, *, json: bool = False) -> None:
        """`console`: where the board is drawn, or lines (`json`: JSON objects) are written; None: nothing is shown."""
        self._board = Board()
        self._terminal = contextlib.ExitStack()
        self.screen = Screen(console, lambda size: board_view(self._board, time.time(), *size), json=json)

    def see(self, event: trace.Event) -> None:
        """The next event of the trace; the first one makes the board appear."""
        self.catch_up([event])
        board = self._board
        if line := line_of(event, board):
            so_far = {"ended": len(board.done), "active": len(board.active), "planned": board.planned}
            spent = {"tokens": board.cost.usage.total, "usd": board.cost.usd, "max_usd": board.cap}
            self.screen.tell(line, kind=event.kind, attempt=event.attempt, **so_far, **spent)
        self.screen.appear()

    def catch_up(self, events: Iterable[trace.Event]) -> None:
        """What happened before this process went on with the run."""
        with self.screen.lock:
            for event in events:
                self._board.add(event)

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """A block in which the run does, outside of its attempts, what the words say."""
        doing = (what, time.time())
        self._board.busy.append(doing)
        try:
            yield
        finally:
            self._board.busy.remove(doing)

    def attend(self, stop: Callable[[int | None], object]) -> None:
        """The run goes on from here, in a running loop; who has a keyboard steers it (`stop`: see `Board.press`)."""
        self.screen.appear()
        if self.screen.drawn and sys.stdin.isatty() and is_ours(sys.stdin.fileno()):
            pressed, self._board.question = self._terminal.enter_context(keyboard(sys.stdin.fileno())), ""
            asyncio.get_running_loop().add_reader(sys.stdin, self._hear, pressed, stop)

    def _hear(self, pressed: Callable[[], list[str]], stop: Callable[[int | None], object]) -> None:
        for key in pressed():
            if key == "gone":
                asyncio.get_running_loop().remove_reader(sys.stdin)
            self._board.press(key, stop)

    def say(self, line: str) -> None:
        """A line of progress that is no event."""
        self.screen.say(line)

    def stop(self) -> None:
        """Nothing more comes, and no key is heard any more. Can be called again."""
        self._board.question = None
        self.screen.stop()
        self._terminal.close()
