"""Adaptive sampling: further attempts only while they are worth their price.

`harness.scaling.adaptive` has the rule; here it meets runs. Each task's `TaskState` is read from its trace: which
candidates are acceptable, how many attempts agree on each, whether tests that show the issue pass. So candidates are
verified as attempts end, and an attempt keeps its place until its candidate is. When a place is free, the task whose
next attempt promises most for a dollar has it; attempts under way count as if they had failed, times the chance that
none of them is right.

A task is left for good (`trace.SamplingStopped`) when its best candidate is very likely right (decisive), when hardly
any of the next attempts would be (hopeless), or when another attempt is expected to add less than it costs (not worth
it). What an attempt costs is what its calls did; where that has no price, an hour of it counts as a dollar.
"""

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.attempt.notebook import notebooks
from agent.choice.candidates import candidates_of, fates
from agent.choice.order import objections
from harness import trace
from harness.money.ledger import Ledger
from harness.records import NO_SAMPLE
from harness.scaling import adaptive
from harness.scaling.adaptive import Beliefs, Group, TaskState

if TYPE_CHECKING:
    from tasks.task import Task

USD_PER_HOUR = 1.0
"""Of an attempt whose calls have no price."""
FIRST = 0.01
"""Before any attempt has ended, one is taken to cost this share of what a solved task is worth."""
FEWEST_TASKS = 5
"""From so many tasks with attempts on, the prior is fitted to them; a task alone would only be counted twice."""

APART = 50.0
"""Scatter of `repair`: its attempts try different changes, so their agreement says nothing."""


def beliefs_for(task: "Task", models: Sequence[str]) -> Beliefs:
    """What is believed of a task's attempts before any of them: see `harness.scaling.adaptive`."""
    found = Beliefs()
    if task.failing_test is not None:
        # A wrong attempt seldom passes a test that shows the issue: as learnt from `repair` on QuixBugs.
        found = replace(found, fails=0.94, right=(0.01, 0.99), wrong=(0.02, 0.98))
    if set(models) == {"repair"}:
        found = replace(found, scatter_right=APART, scatter_wrong=APART)
    return found


def state_of(events: Sequence[trace.Event]) -> TaskState:
    """What the trace of a task's run says of it. Attempts that the world ended are none; those whose candidate has no
    evidence yet are left out."""
    made = [n for n in notebooks(fates(events)) if not n.writes_tests]
    ended = [n.ended for n in made if n.ended is not None and n.ended.status not in NO_SAMPLE]
    indices = {end.attempt for end in ended}
    costs = Ledger.of(events).to_json()["by_attempt"]
    candidates = candidates_of(events)
    against = objections(candidates)
    groups, agreed, unknown = list[Group](), set[int | None](), set[int | None]()
    for candidate in candidates:
        evidence = candidate.evidence
        if evidence is None:
            unknown.update(candidate.attempts)
        elif not against[candidate.id] and (found := len(indices & set(candidate.attempts))):
            # Of level 1 where there are tests that show the issue and all pass.
            shown = [*evidence.given.values(), *evidence.witness.values()]
            level = int(bool(shown) and set(shown) == {"passed"})
            groups.append(Group(found, level))
            agreed.update(candidate.attempts)
    usd = sum(_cost(costs.get(str(end.attempt), {}), end.seconds) for end in ended if end.attempt not in unknown)
    return TaskState(tuple(groups), len(indices - agreed - unknown), usd)


def _cost(charged: Mapping[str, object], seconds: float) -> float:
    usd = charged.get("usd")
    return float(usd) if isinstance(usd, (int, float)) and charged.get("calls") else seconds / 3600 * USD_PER_HOUR


class Sampling:
    """What is known of all tasks whose runs share it, and what it says of the next attempt of each."""

    def __init__(self, per_solve: float) -> None:
        """`per_solve`: what a solved task is worth, in USD."""
        self.per_solve = per_solve
        self._states: dict[str, TaskState] = {}
        self._believed: dict[str, Beliefs] = {}
        self._fitted: dict[Beliefs, Beliefs] = {}
        self.under_way = defaultdict[str, int](int)
        """By task: how many of its attempts are."""
        self._owed = defaultdict[str, int](int)
        self._fit_at = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.listeners: dict[str, Callable[[], None]] = {}
        """By task: called whenever anything has changed."""

    def join(self, id: str, beliefs: Beliefs, state: TaskState) -> None:
        """Attempts of the task may be made, or were, and tell of the others. `beliefs`: before anything was known."""
        self._believed[id] = beliefs
        self.update(id, state)

    def update(self, id: str, state: TaskState) -> None:
        """What is known of the task now."""
        self._states[id] = state
        self._learn()
        self._tell()

    @contextlib.contextmanager
    def pending(self, id: str, state: Callable[[], TaskState]) -> Iterator[None]:
        """A block in which an attempt of the task is under way; `state` says what is known of the task after it."""
        self.under_way[id] += 1
        self._tell()
        try:
            yield
        finally:
            self.under_way[id] -= 1
            self.update(id, state())

    def outlook(self, id: str) -> trace.SamplingStopped:
        """What another attempt of the task promises now, as the trace has it if that ends the sampling. `why`: start
        one ("go"), see first what those under way give ("wait"), or why to stop."""
        state, beliefs, pending = self._states[id], self._beliefs(id), self.under_way[id]
        usd = max(adaptive.price(state, self.mean_usd), 1e-9)
        why: str = adaptive.standing(state, beliefs)
        more = adaptive.gain_beside(state, beliefs, pending)
        if why == "open":
            why = "go" if more * self.per_solve >= usd else "wait" if pending else "not worth it"
        return trace.SamplingStopped(
            why=why,
            attempts=state.attempts,
            worth=adaptive.worth(state, beliefs),
            hope=adaptive.hope(state, beliefs),
            gain=more,
            usd=usd,
            per_solve=self.per_solve,
        )

    def test_first(self, id: str, *, instead: bool) -> bool:
        """Whether one more witness test is worth its price, that of an attempt, and, where it may be made `instead` of
        another attempt, promises more. Not while any is under way, which may tell the candidates apart."""
        state, beliefs, outlook = self._states[id], self._beliefs(id), self.outlook(id)
        promised = 0.0 if self.under_way[id] else adaptive.told(state, beliefs)
        return promised * self.per_solve >= outlook.usd and (not instead or promised > outlook.gain)

    def urgency(self, id: str) -> float:
        """The expected gain for a dollar of the task's next attempt; 0 where none is to be begun now. What an earlier
        process began is paid for in part, and goes first."""
        if self._owed[id]:
            return math.inf
        outlook = self.outlook(id) if id in self._states else None
        return outlook.gain / outlook.usd if outlook and outlook.why == "go" else 0.0

    def eager(self, id: str) -> bool:
        """Whether the task's next attempt promises at least as much as the first one of a task that nothing is known
        of."""
        if id not in self._states:
            return True
        fresh = adaptive.gain(TaskState(), self._beliefs(id)) / max(self.mean_usd, 1e-9)
        return self.urgency(id) >= fresh * (1 - 1e-9)

    @contextlib.asynccontextmanager
    async def first_of_all(self, id: str, places: AbstractAsyncContextManager[object]) -> AsyncIterator[None]:
        """A place for an attempt of the task that has begun already."""
        async with contextlib.AsyncExitStack() as stack:
            self._owed[id] += 1
            try:
                await stack.enter_async_context(places)
            finally:
                self._owed[id] -= 1
            yield

    @property
    def mean_usd(self) -> float:
        """What an attempt cost on average so far, over all tasks."""
        attempts = sum(state.attempts for state in self._states.values())
        usd = sum(state.usd for state in self._states.values())
        return usd / attempts if attempts else FIRST * self.per_solve

    def _beliefs(self, id: str) -> Beliefs:
        return self._fitted.get(self._believed[id], self._believed[id])

    def _learn(self) -> None:
        """Fit what was believed at first of tasks of one kind to them all, whenever twice as many attempts are
        known."""
        seen = sum(state.attempts for state in self._states.values())
        if not seen or seen < self._fit_at:
            return
        kinds: dict[Beliefs, list[TaskState]] = {}
        for id, state in self._states.items():
            if state.attempts:
                kinds.setdefault(self._believed[id], []).append(state)
        for believed, states in kinds.items():
            if len(states) >= FEWEST_TASKS:
                self._fitted[believed] = adaptive.fit_prior(states, believed)
                self._fit_at = 2 * seen

    def change(self) -> asyncio.Future[None]:
        """Done when anything has changed."""
        changed = asyncio.get_running_loop().create_future()
        self._waiting.append(changed)
        return changed

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)
        for listener in list(self.listeners.values()):
            listener()
