"""What a person sees while an evaluation goes on: instances, attempts, solved so far, money, how long it will still
take.

`SuiteBoard` folds what happens, `suite_board_view` draws it, both without effects. A `SuiteView` listens.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness import trace
from harness.money.ledger import Line, add_charge, money
from harness.suites.evaluate import Outcome
from harness.suites.suite import Ready
from harness.views.live import Board, Screen, fitted, line_of
from harness.views.picture import table
from harness.views.words import counted, elapsed_short, printable, tokens_short

NEWS = 3
"""Ended instances that are told of below the table."""


@dataclass(slots=True)
class SuiteBoard:
    """All that the view shows. `attempts`: of each instance. `cap`: USD of the whole evaluation, None for none. `said`:
    the newest line of progress.

    `before`: of each instance the attempts that had ended before this process; they count, but say nothing about its
    pace."""

    suite: str
    instances: int
    attempts: int
    cap: float | None = None
    started: float = 0.0
    works: dict[str, Board] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    cost: Line = field(default_factory=Line)
    ended: int = 0
    before: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    lost: int = 0
    news: list[str] = field(default_factory=list)
    said: str = ""

    def take_over(self, id: str, outcome: Outcome | None, attempts: int, cost: Line) -> None:
        """What an earlier process did: attempts that had ended, their cost, and the outcome if there is one."""
        if outcome is not None:
            self.outcomes[id] = outcome
        self.before[id] = attempts
        self.ended += attempts
        parts = ("usage", "known_usd", "calls", "unanswered", "unpriced", "seconds")
        self.cost = replace(self.cost, **{part: getattr(self.cost, part) + getattr(cost, part) for part in parts})

    def begin(self, ready: Ready, now: float) -> None:
        """An instance can be worked on, or cannot be."""
        if ready.task is not None:
            self.works.setdefault(ready.id, Board(task=ready.id, started=now))

    def add(self, id: str, event: trace.Event) -> None:
        """The next event of an instance's trace."""
        work = self.works.setdefault(id, Board(task=id, started=event.at))
        self.ended -= len(work.done)
        work.add(event)
        self.ended += len(work.done)
        if isinstance(event, (trace.Replied, trace.Charged)):
            self.cost = add_charge(self.cost, event.charge)
        elif isinstance(event, trace.InfrastructureFailed):
            self.retries += event.retried
        elif isinstance(event, trace.AttemptEnded):
            self.lost += event.status == "infrastructure"
        elif isinstance(event, trace.Selected):
            work.stage = "grading"

    def end(self, outcome: Outcome) -> None:
        """An instance has come to its end."""
        self.works.pop(outcome.id, None)
        self.outcomes[outcome.id] = outcome
        self.news.append(outcome_line(outcome))

    def seconds_left(self, now: float) -> float | None:
        """By the pace of this process; None before it has ended an attempt."""
        here = self.ended - sum(self.before.values())
        if here < 1 or not self.started:
            return None
        made = [len(o.solved.report["attempts"]) if o.solved else 0 for o in self.outcomes.values()]
        lost = self.attempts * len(made) - sum(made)
        left = max(0, self.instances * self.attempts - self.ended - lost)
        return (now - self.started) / here * left


def outcome_line(outcome: Outcome) -> str:
    """An instance's end in one line."""
    if outcome.solved is None:
        return f"{outcome.id}: failed: {outcome.failure.splitlines()[0]}"
    word = {True: "resolved", False: "not resolved", None: "selected, not graded"}[outcome.resolved]
    if outcome.solved.selected is None:
        word = "nothing selected"
    sampled = outcome.sampled
    made = counted(len(outcome.solved.samples), "attempt")
    right = f"{sampled.correct} of {sampled.n} attempts right" if sampled else made
    failure = f"; {outcome.failure.splitlines()[0]}" if outcome.failure else ""
    return f"{outcome.id}: {word} ({right}, {counted(len(outcome.solved.candidates), 'candidate')}){failure}"


def suite_board_view(board: SuiteBoard, now: float, height: int) -> Group:
    """The board in at most `height` lines and 80 columns."""
    news = board.news[-NEWS:]
    head = [fitted(line, "bold" if not place else "") for place, line in enumerate(summary_lines(board, now))]
    room = max(1, height - len(head) - len(news) - 4)
    works = sorted(board.works.values(), key=lambda work: work.started)
    parts: list[RenderableType] = [*head]
    if works:
        headings = ("instance…", "state…", ">ended", ">active", ">cost", ">time")
        instances = table(*headings, gap=1, widths=(32, 10, 7, 6, 9, 7))
        for work in works[:room]:
            instances.add_row(
                Text(printable(work.task)),
                work.stage,
                f"{board.before.get(work.task, 0) + len(work.done)}/{board.attempts}",
                str(len(work.active) or "-"),
                money(work.cost),
                elapsed_short(now - work.started),
            )
        parts.append(instances)
    if len(works) > room:
        parts.append(Text(f"… and {counted(len(works) - room, 'more instance')} in work", style="dim"))
    said = [fitted(board.said, "dim")] if board.said else []
    return Group(*parts, *(fitted(line) for line in news), *said)


def summary_lines(board: SuiteBoard, now: float) -> Sequence[str]:
    """How the evaluation stands, in three lines."""
    solved = sum(outcome.resolved is True for outcome in board.outcomes.values())
    failures = sum(bool(outcome.failure) for outcome in board.outcomes.values())
    failed = f", {failures} failed" if failures else ""
    cap = f" of ${board.cap:g}" if board.cap is not None else ""
    left = board.seconds_left(now)
    active = sum(len(work.active) for work in board.works.values())
    waiting = board.instances - len(board.outcomes) - len(board.works)
    return (
        f"{board.suite}: {len(board.outcomes)}/{board.instances} instances ended, {solved} solved{failed}",
        f"attempts {board.ended}/{board.instances * board.attempts} ended, {active} active; "
        f"{tokens_short(board.cost.usage.total)} tokens, {money(board.cost)}{cap}",
        f"{waiting} waiting; infrastructure: {counted(board.retries, 'retry')}, {board.lost} lost; "
        f"{elapsed_short(now - board.started) if board.started else '-'}, "
        f"{'about ' + elapsed_short(left) + ' left' if left is not None else 'time left unknown yet'}",
    )


class SuiteView:
    """What shows an evaluation while it goes on: where nothing is drawn, a line for each instance that is prepared or
    ends, each attempt that ends, and each failure of the world."""

    def __init__(self, board: SuiteBoard, console: Console | None = None, *, json: bool = False) -> None:
        """`console`: where the board is drawn, or lines (`json`: JSON objects) are written; None: nothing is shown."""
        self.board = board
        self.screen = Screen(console, lambda size: suite_board_view(board, time.time(), size.height), json=json)
        board.started = time.time()

    def ready(self, ready: Ready) -> None:
        """An instance can be worked on, or cannot be."""
        with self.screen.lock:
            self.board.begin(ready, time.time())
        self.screen.appear()

    def see(self, id: str, event: trace.Event) -> None:
        """The next event of an instance's trace."""
        with self.screen.lock:
            self.board.add(id, event)
        if isinstance(event, _TOLD):
            line = line_of(event, self.board.works[id])
            self.screen.tell(f"{id}: {line}", kind=event.kind, instance=id, attempt=event.attempt)

    def ended(self, outcome: Outcome) -> None:
        """An instance has come to its end."""
        with self.screen.lock:
            self.board.end(outcome)
        stands = summary_lines(self.board, time.time())[:2]
        for line in (outcome_line(outcome), *(f"  {line}" for line in stands)):
            self.screen.tell(line)

    def say(self, line: str) -> None:
        """What is done for one instance takes the place of the line before; anything else is a line above the board."""
        with self.screen.lock:
            about_one = line.partition(":")[0] in self.board.works
            self.board.said = line if about_one else self.board.said
        (self.screen.tell if about_one else self.screen.say)(line)


_TOLD = (trace.Prepared, trace.AttemptEnded, trace.InfrastructureFailed, trace.BudgetReached, trace.SamplingStopped)
