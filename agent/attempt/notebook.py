"""What an attempt knows, as the fold of its own events in the trace.

The attempt writes an event and adds it here; a resume adds the same events again. So what a policy sees never depends
on whether the process was restarted in between.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import cast

from agent.attempt.policy import Decision, ToolCall, TurnRecord
from agent.attempt.tools import kind_of, place_of
from harness import trace
from harness.records import WRITERS_FROM, Attempt, AttemptStatus, FileState, TestReport, WitnessTest

_TIMES = re.compile(r"\b\d+(?:\.\d+)? ?m?s\b")


@dataclass(slots=True)
class Notebook:
    """The memory of one attempt.

    `tree`: changed files at the end of the last finished turn, by path. `marks`: a hash of that after each turn.
    `replies`: answered model calls by key; they are never asked again. `failures`: sandboxes that died so far.
    `seconds`: of its plan and its finished turns, so time in which no process ran is none of it; `idle`: seconds since
    its start in which nothing worked on it."""

    index: int
    started: trace.AttemptStarted | None = None
    ended: trace.AttemptEnded | None = None
    plan: trace.Planned | None = None
    history: list[TurnRecord] = field(default_factory=list)
    replies: dict[str, trace.Replied] = field(default_factory=dict)
    tree: dict[str, FileState] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)
    witnesses: list[WitnessTest] = field(default_factory=list)
    failures: int = 0
    seconds: float = 0.0
    idle: float = 0.0
    last_report: TestReport | None = None
    _turn: TurnRecord | None = None
    _changes: list[tuple[FileState, ...]] = field(default_factory=list)
    _loose: list[FileState] = field(default_factory=list)
    _loose_witnesses: list[WitnessTest] = field(default_factory=list)

    @classmethod
    def of(cls, index: int, events: Iterable[trace.Event]) -> "Notebook":
        """The notebook of attempt `index` after the given events (those of other attempts are passed over)."""
        found = notebooks(event for event in events if event.attempt in (index, None))
        return found[0] if found else cls(index)

    def reopen(self, statuses: Collection[str] = ("infrastructure",)) -> None:
        """A new process goes on with the run: what ended with one of these statuses goes on, with a fresh allowance."""
        self.failures = 0
        if self.ended is not None and self.ended.status in statuses:
            self.ended = None

    def add(self, event: trace.Event) -> None:
        """Take in the next event of this attempt. What belongs to a turn counts once the turn has ended."""
        match event:
            case trace.AttemptStarted():
                self.started = event
            case trace.AttemptEnded():
                self.ended = event
            case trace.Planned():
                self.plan = event
                self.seconds += event.seconds
            case trace.Replied():
                self.replies[event.key.partition("/")[2]] = event
            case trace.Decided():
                self._begin(event)
            case trace.ToolRan() if self._turn:
                self._turn = replace(self._turn, results=(*self._turn.results, event))
            case trace.TestsRan() if self._turn:
                self._turn = replace(self._turn, report=event.report)
            case trace.TreeChanged():
                self._loose.extend(event.tree.files)
            case trace.WitnessRecorded():
                self._loose_witnesses.append(event.witness)
            case trace.InfrastructureFailed() if event.what == "sandbox":
                self.failures += 1
            case trace.TurnEnded() if self._turn:
                self.seconds += event.seconds
                self._finish_turn(self._turn)

    def _begin(self, event: trace.Decided) -> None:
        calls = tuple(ToolCall(c["id"], c["name"], c["arguments"]) for c in event.calls)
        stop = cast("AttemptStatus", event.stop) if event.stop else None
        self._turn = TurnRecord(event.turn, Decision(event.text, calls, event.error, stop, event.thoughts), ())
        self._loose.clear()
        self._loose_witnesses.clear()

    def _finish_turn(self, turn: TurnRecord) -> None:
        self.history.append(turn)
        self.last_report = turn.report or self.last_report
        for file in self._loose:
            self.tree[file.path] = file
        self.witnesses[:] = self.recorded
        self._changes.append(tuple(self._loose))
        self.marks.append(hash(frozenset(self.tree.values())))
        self._turn = None

    @property
    def writes_tests(self) -> bool:
        """Whether the attempt is to write tests and nothing else."""
        return self.index >= WRITERS_FROM

    @property
    def recorded(self) -> list[WitnessTest]:
        """The witness tests, those of the turn under way too; of each file the last."""
        of_turn = {witness.path: witness for witness in self._loose_witnesses}
        return [*(w for w in self.witnesses if w.path not in of_turn), *of_turn.values()]

    def undo(self) -> dict[str, bytes | str | None]:
        """What `tools.Toolbox.undo` held at the end of the last finished turn, by path.

        A value is the content before the edits (None: no such file), or the string "base" for the base commit's
        content."""
        undo: dict[str, bytes | str | None] = {}
        now: dict[str, bytes | str | None] = {}
        for record, changed in zip(self.history, self._changes, strict=True):
            fresh = True
            for call, result in zip(record.decision.calls, record.results, strict=False):
                if result.ok and call.name == "undo":
                    now.update(undo)
                    undo = {}
                elif result.ok and kind_of(call.name) == "edits":
                    if fresh:
                        undo, fresh = {}, False
                    path = place_of(call.arguments["path"])
                    undo.setdefault(path, now.get(path, "base"))
            now.update({file.path: file.data for file in changed})
        return undo

    def attempt(self) -> Attempt:
        """The finished attempt as a record. Raises ValueError while it has not ended."""
        if self.ended is None or self.started is None:
            raise ValueError(f"attempt {self.index} has not ended")
        return Attempt(
            index=self.index,
            seed=self.started.seed,
            model=self.started.model,
            status=cast("AttemptStatus", self.ended.status),
            patch=self.ended.patch,
            witness_tests=tuple(self.witnesses),
            report=self.last_report,
            turns=self.ended.turns,
            seconds=self.ended.seconds,
            detail=self.ended.detail,
        )


def gist(record: TurnRecord) -> tuple[object, ...]:
    """What a turn asked and got, without the times that differ between two runs of the same command."""
    asked = tuple((call.name, repr(call.arguments)) for call in record.decision.calls)
    got = tuple(_TIMES.sub("", result.result) for result in record.results if kind_of(result.name) != "tests")
    outcomes = tuple(sorted(record.report.outcomes.items())) if record.report else ()
    return asked, got, outcomes


def notebooks(events: Iterable[trace.Event]) -> list[Notebook]:
    """The notebooks of all attempts, by index. A resume reopens what the world ended, until candidates are verified:
    from then on the attempts are what they are, unless the run itself is reopened."""
    found: dict[int, Notebook] = {}
    verifying = capped = False
    last = 0.0
    for event in events:
        if event.attempt is not None:
            found.setdefault(event.attempt, Notebook(event.attempt)).add(event)
        match event:
            case trace.Verified(early=False):
                verifying = True
            case trace.BudgetReached():
                capped = True
            case trace.RunResumed() | trace.RunReopened():
                reopened = isinstance(event, trace.RunReopened)
                statuses = ("infrastructure", "budget") if capped and reopened else ("infrastructure",)
                for notebook in found.values():
                    notebook.idle += event.at - last
                    if reopened or not verifying:
                        notebook.reopen(statuses)
                if reopened:
                    verifying = capped = False
        last = event.at
    return [found[index] for index in sorted(found)]
