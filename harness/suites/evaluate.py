"""Many instances through a solver, graded.

The solver is given, so that nothing here knows how an attempt is made; grading data stays on this side of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.parallel import in_parallel, task_group
from harness.records import Json, Verdict
from harness.scaling.metrics import Sampled
from harness.suites.slots import Lane, Slots
from harness.suites.suite import Bench, Ready, Submission
from tasks.errors import EnvironmentFailed, words_of
from tasks.task import Task

Grades = Literal["all", "selected", "none"]
"""What is graded of an instance: every distinct candidate, the selected one, nothing."""

OUTAGES = 3
"""Instances that fail in a row by an outage until the evaluation is stopped."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solver came to for one task. `report`: its report.json.

    `patches`: of each attempt that gave a sample ("": it changed nothing). `candidates`: patch by candidate id.
    `samples`: the candidate of each sample, in the order of attempts (None: no patch). `known`: verdicts from before.
    `note` keeps a verdict. `spans`: when processes worked on it, in seconds since the epoch. `failure`: why it came to
    no end ("" if it did; what it cost all the same is in the report), and whether that would befall any instance
    (`outage`)."""

    report: Json
    patches: Mapping[int, str]
    candidates: Mapping[str, str]
    samples: tuple[str | None, ...]
    selected: str | None
    known: Mapping[str, Verdict] = field(default_factory=dict)
    note: Callable[[str, Verdict], None] = lambda candidate, verdict: None
    spans: tuple[tuple[float, float], ...] = ()
    failure: str = ""
    outage: bool = False


Solver = Callable[[Task, Lane], Awaitable[Solved]]
"""Solves one task, its attempts taking their places by the lane; sees no grading data."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One instance's end. `verdicts`: by candidate id; `failure`: why it could not be solved or graded ("" if it was).
    `unsolved`: what the solver left behind where it came to no end."""

    id: str
    solved: Solved | None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    failure: str = ""
    unsolved: Solved | None = None

    def left_to_grade(self, grades: Grades) -> tuple[str, ...]:
        """The candidates that still want a verdict."""
        if self.solved is None or grades == "none":
            return ()
        wanted = [c for c in self.solved.candidates if grades == "all" or c == self.solved.selected]
        return tuple(c for c in wanted if c not in self.verdicts)

    @property
    def resolved(self) -> bool | None:
        """Whether the selected patch is right; None where nobody knows."""
        if self.solved is None:
            return None
        if self.solved.selected is None:
            return False
        verdict = self.verdicts.get(self.solved.selected)
        return None if verdict is None else verdict.resolved

    @property
    def sampled(self) -> Sampled | None:
        """Samples and right ones; None where a candidate has no verdict, or nothing was solved."""
        return self.first(None)

    def first(self, most: int | None) -> Sampled | None:
        """The same of so many first samples at most."""
        if self.solved is None or self.left_to_grade("all"):
            return None
        right = {c for c, v in self.verdicts.items() if v.resolved}
        samples = self.solved.samples[:most]
        return Sampled(len(samples), sum(sample in right for sample in samples), self.solved.selected in right)


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How an evaluation is done. `attempts`: of each instance, for what is prepared ahead; `at_once`: instances in work
    at a time at most (None: as many as keep the slots full). `checks` bounds gradings."""

    slots: Slots
    checks: asyncio.Semaphore
    attempts: int
    grades: Grades = "all"
    at_once: int | None = None


async def evaluate(
    ids: Sequence[str],
    bench: Bench,
    solver: Solver,
    plan: EvaluationPlan,
    on_ready: Callable[[Ready], None],
    on_ended: Callable[[Outcome], None],
) -> None:
    """Solve and grade the instances, those that are ready first. `on_ready` is told of each that can be worked on, or
    cannot be, `on_ended` of each that has come to its end.

    Another instance is begun when fewer attempts are to come than there are places for. One whose environment or
    grading fails is an outcome, not an end. Raises EnvironmentFailed where several in a row fail by what is no
    instance's own: a model server or a daemon that is gone."""
    outages = 0
    places = asyncio.Semaphore(plan.at_once or len(ids) or 1)

    async def one(ready: Ready, lane: Lane) -> None:
        nonlocal outages
        try:
            outcome = await _one(ready, bench, solver, lane, plan)
        finally:
            lane.close()
            places.release()
        on_ended(outcome)
        await bench.leave(ready.id)
        outages = outages + 1 if outcome.unsolved and outcome.unsolved.outage else 0
        if outages == OUTAGES:
            raise EnvironmentFailed(
                f"{OUTAGES} instances in a row failed for reasons outside of them, the last one so: {outcome.failure} "
                "The evaluation is stopped; the same command goes on with it"
            )

    async with task_group() as group:
        order = 0
        async for ready in bench.ready(ids):
            on_ready(ready)
            await places.acquire()
            await plan.slots.hungry()
            group.create_task(one(ready, plan.slots.lane(order, plan.attempts if ready.task else 0)))
            order += 1


async def _one(ready: Ready, bench: Bench, solver: Solver, lane: Lane, plan: EvaluationPlan) -> Outcome:
    """Solved, with the verdicts that are still wanted; where one cannot be had, with those there are."""
    if ready.task is None:
        return Outcome(ready.id, None, failure=ready.failure)
    try:
        solved = await solver(ready.task, lane)
    except Exception as error:  # a defect costs the instance, not the others
        return Outcome(ready.id, None, failure=words_of(error))
    lane.close()
    if solved.failure:
        return Outcome(ready.id, None, failure=solved.failure, unsolved=solved)
    outcome = Outcome(ready.id, solved, dict(solved.known))
    verdicts, failures = dict(solved.known), list[str]()

    async def grade(candidate: str) -> None:
        run, base = solved.report["run"], solved.report["base_commit"]
        submission = Submission(candidate, solved.candidates[candidate], run, base)
        async with plan.checks:
            try:
                verdicts[candidate] = await bench.grade(outcome.id, submission)
            except Exception as error:
                failures.append(f"{candidate} could not be graded: {words_of(error)}")
                return
        try:
            solved.note(candidate, verdicts[candidate])
        except Exception as error:
            failures.append(f"the verdict on {candidate} could not be kept: {words_of(error)}")

    await in_parallel(grade(candidate) for candidate in outcome.left_to_grade(plan.grades))
    return Outcome(outcome.id, solved, verdicts, failures[0] if failures else "")
