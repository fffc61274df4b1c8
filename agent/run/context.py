"""What one run holds: the outer graph's runtime context."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from agent.attempt.notebook import Notebook, notebooks
from agent.choice.candidates import candidates_of
from agent.run.worth import Sampling
from agent.run_files import RunFiles
from harness import trace
from harness.environments.base_run import Baseline
from harness.environments.environment import TEST_SECONDS, Built, CleanRoom
from harness.evidence.near import NEAR_SECONDS
from harness.evidence.strength import STRENGTHS
from harness.evidence.unchanged import UnchangedCode
from harness.money.budget import BudgetKeeper
from harness.records import NO_SAMPLE, WRITERS_FROM, Attempt, Candidate, Evidence, Selection, WitnessTest
from harness.repository.workspace import Workspace
from harness.sandbox.base import Provider
from tasks.errors import BudgetExceeded, CallRefused, EndpointFailed
from tasks.task import Task

if TYPE_CHECKING:
    from agent.config import Settings
    from agent.models.client import ModelClient


REFUSALS = 3
"""Attempts in a row that end with a refused call until a model counts as broken."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A job: to find the evidence on a candidate by these regression and witness tests; each gets `test_seconds`."""

    candidate: Candidate
    regression: Sequence[str]
    witnesses: Sequence[WitnessTest]
    test_seconds: float


class Executor(Protocol):
    """On which machine the jobs of a run are done; nothing else in `agent` knows. What a job finds out it writes to the
    trace of the run, which has one writer: the process that drives the run."""

    async def attempt(self, run: Run, index: int) -> None:
        """One attempt to its end, in a new sandbox as often as one dies within the allowance; its end stands in the
        trace then. One that is stopped ends as it stands."""
        ...

    async def verify(self, run: Run, job: Verification) -> Evidence:
        """The evidence on a candidate. Raises SandboxFailed where no sandbox works."""
        ...


@dataclass(slots=True)
class Run:
    """What the nodes of one run work with: the outer graph's runtime context.

    `clients`: by model name (none for `repair`); `judge`: the judge's client, None for no judge. `slots` bounds the
    attempts at a time, of all runs that share it; it may be entered many times at once. `checks` bounds
    verifications likewise. `sampling`: what decides on further attempts, None where all are made. `workspace`:
    opens it, at the given commit or (None) at what the task's base means now. `events`: the whole trace so far.
    `broken`: by model, why no more attempts are made with it; `refusals`: by model, how many attempts in a row
    ended because the server refused a call of theirs. `verifying`: held while evidence is gathered; `shown`:
    whether each witness test, by path and text, fails on the base. `busy`: a block in which the run does, outside
    of its attempts, what the words say. `at_work`: what works on attempts; `stopped`: those that a person broke
    off. `shipped`: what an executor on other machines has sent of the run."""

    task: Task
    settings: Settings
    files: RunFiles
    workspace: Callable[[str | None], Workspace]
    provider: Provider
    executor: Executor
    log: trace.Trace
    events: list[trace.Event]
    keeper: BudgetKeeper
    clients: dict[str, ModelClient]
    judge: ModelClient | None
    slots: AbstractAsyncContextManager[object]
    say: Callable[[str], None]
    checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 2))
    sampling: Sampling | None = None
    verifying: asyncio.Lock = field(default_factory=asyncio.Lock)
    shown: dict[tuple[str, str], bool] = field(default_factory=dict)
    base: Workspace | None = None
    busy: Callable[[str], AbstractContextManager[object]] = nullcontext
    at_work: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    built: Built | None = None
    bare: UnchangedCode | None = None
    broken: dict[str, EndpointFailed] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    shipped: asyncio.Future[Any] | None = None

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def environment(self) -> Built:
        assert self.built is not None, "prepare comes first"
        return self.built

    def write(self, event: trace.Event) -> trace.Event:
        """Append to the trace; the event as it was written. `events` follows by listening."""
        return self.log.write(event)

    @property
    def over(self) -> trace.BudgetReached | None:
        """The cap of the whole run that was reached, by this process or an earlier one, since it was last reopened."""
        return next((e for e in trace.since_reopened(self.events) if isinstance(e, trace.BudgetReached)), None)

    def end_by(self, error: BudgetExceeded) -> None:
        """Note that a cap is reached; one of the whole run lets no further attempt start."""
        if error.scope == "run" and self.over is None:
            self.write(trace.BudgetReached(limit=error.limit, detail=str(error)))

    def check_budget(self) -> None:
        """Note whether a cap of the whole run is reached by now."""
        try:
            self.keeper.check()
        except BudgetExceeded as error:
            self.end_by(error)

    def model_of(self, index: int) -> str:
        """The model of an attempt: attempts rotate over the run's models."""
        return self.settings.models[index % len(self.settings.models)]

    def may_begin(self, index: int) -> bool:
        """Whether the attempt may be made: no cap of the run is reached, no candidate is good enough for it, and its
        model's server is there."""
        self.check_budget()
        return self.over is None and not self.enough and self.model_of(index) not in self.broken

    async def attempt(self, index: int) -> None:
        """The attempt in a place of its own, if it may begin then."""
        async with self.slots:
            if self.may_begin(index):
                await self.executor.attempt(self, index)

    @property
    def enough(self) -> str:
        """Why what there is suffices: how good a candidate is, where the run was to go on for that, or that a person
        said so; else empty."""
        stopped = (e.why for e in trace.since_reopened(self.events) if isinstance(e, trace.SamplingStopped))
        return next((why for why in stopped if why in (*STRENGTHS, trace.BY_HAND)), "")

    def stop(self, attempt: int | None) -> None:
        """A person breaks off an attempt, which ends as it stands; None: all of them, and no further one begins."""
        if attempt is not None:
            self.stopped.add(attempt)
        elif not self.enough:
            self.write(trace.SamplingStopped(why=trace.BY_HAND, attempts=len(self.samples())))
        for index, task in self.at_work.items():
            if self.is_stopped(index):
                task.cancel()

    def is_stopped(self, attempt: int) -> bool:
        """Whether a person has broken the attempt off."""
        return attempt in self.stopped or self.enough == trace.BY_HAND

    def was_stopped(self, attempt: int) -> bool:
        """Whether it is by a person, and not with the whole run, that work on the attempt was cancelled just now."""
        own = asyncio.current_task()
        return own is not None and not own.cancelling() and self.is_stopped(attempt)

    def refused(self, model: str, error: EndpointFailed) -> None:
        """Note that an attempt ended because its model's server failed. A call refused is that conversation's trouble,
        unless several in a row are; else no more attempts are made with the model."""
        self.refusals[model] = self.refusals.get(model, 0) + 1
        if not isinstance(error, CallRefused) or self.refusals[model] >= REFUSALS:
            self.broken.setdefault(model, error)

    def room(self, test_seconds: float = TEST_SECONDS) -> CleanRoom:
        """The clean room of the run's environment. `test_seconds`: of one test."""
        return CleanRoom(
            self.provider,
            self.environment,
            self.name,
            self.settings.test_timeout,
            test_seconds,
            self.settings.limits,
            self.settings.infrastructure_retries,
        )

    def unchanged(self) -> UnchangedCode:
        """The unchanged code for all attempts, which share what is found out about it."""
        if self.bare is None:
            assert self.base is not None, "prepare comes first"
            known = Baseline(self.prepared().baseline, self.prepared().flaky)
            room = replace(self.room(), timeout=self.settings.command_timeout)
            self.bare = UnchangedCode(room, self.base, known, min(self.settings.verify_seconds, NEAR_SECONDS))
        return self.bare

    def prepared(self) -> trace.Prepared:
        return next(e for e in self.events if isinstance(e, trace.Prepared))

    def notebook(self, index: int) -> Notebook:
        return Notebook.of(index, self.events)

    def finished(self) -> list[Attempt]:
        """The attempts that have ended, by index."""
        return [n.attempt() for n in notebooks(self.events) if n.ended is not None]

    def samples(self) -> list[Attempt]:
        """Those that count: neither ended by the world nor broken off, nor made to write tests."""
        return [a for a in self.finished() if a.status not in NO_SAMPLE and a.index < WRITERS_FROM]

    def selection(self) -> Selection | None:
        """The choice, if it is made; one from before the run was reopened is made again."""
        return next((e.selection for e in trace.since_reopened(self.events) if isinstance(e, trace.Selected)), None)

    def candidates(self) -> tuple[Candidate, ...]:
        """The distinct candidates with the evidence that the trace holds on them."""
        return candidates_of(self.events)
