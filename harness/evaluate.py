"""Many instances through a solver, graded: what a suite's run came to.

The solver is a protocol, so that nothing here knows how an attempt is made; grading data stays on this side of it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.metrics import Sampled, coverage, interval, mean_at_1, recovery
from harness.records import Json, Verdict
from tasks.errors import TroopError
from tasks.task import Grading, Instance, Task


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solver came to for one task. `candidates`: patch by candidate id. `samples`: the candidate of each attempt
    that gave a sample (None: no patch). `report`: its report.json. `grade`: gives the hidden tests' word on a candidate.
    """

    report: Json
    candidates: dict[str, str]
    samples: tuple[str | None, ...]
    selected: str | None
    grade: Callable[[str, Grading], Awaitable[Verdict]]


class Solver(Protocol):
    """Solves one task; sees no grading data."""

    async def __call__(self, task: Task) -> Solved: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One instance's end. `verdicts`: by candidate id; `failure`: why it could not be solved or graded ("" if it was)."""

    id: str
    solved: Solved | None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    failure: str = ""

    @property
    def sampled(self) -> Sampled:
        """Samples and right ones; an instance that failed has none."""
        if self.solved is None:
            return Sampled(0, 0, False)
        right = {c for c, v in self.verdicts.items() if v.resolved}
        return Sampled(
            n=len(self.solved.samples),
            correct=sum(sample in right for sample in self.solved.samples),
            selected=self.solved.selected in right,
        )


async def evaluate(
    instances: Sequence[Instance],
    solver: Solver,
    *,
    at_once: int,
    grade: bool = True,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Solve and grade all instances, `at_once` at a time; an instance whose environment fails is an outcome, not an end.

    `tell` hears of each outcome as it comes. The result is in the order of the instances.
    """
    places = asyncio.Semaphore(at_once)

    async def one(instance: Instance) -> Outcome:
        async with places:
            outcome = await _one(instance, solver, grade=grade)
        tell(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(instance)) for instance in instances]
    return [task.result() for task in tasks]


async def _one(instance: Instance, solver: Solver, *, grade: bool) -> Outcome:
    try:
        solved = await solver(instance.task)
        verdicts: dict[str, Verdict] = {}
        if grade and instance.grading is not None:
            for candidate in solved.candidates:
                verdicts[candidate] = await solved.grade(candidate, instance.grading)
        return Outcome(instance.task.id, solved, verdicts)
    except TroopError as error:
        return Outcome(instance.task.id, None, failure=str(error))


def suite_report(outcomes: Sequence[Outcome]) -> Json:
    """report.json of an evaluation: per task the solver's report and the verdicts, and the measures over all.

    `coverage` has a row for each k up to the smallest number of samples of an instance that was solved at all; the
    intervals are 95 %, bootstrapped by instance.
    """
    done = [o for o in outcomes if o.solved is not None]
    sampled = [o.sampled for o in done]
    rows = []
    for k in range(1, min((s.n for s in sampled), default=0) + 1):
        bounds = interval(sampled, functools.partial(coverage, k=k))
        rows.append(
            {"k": k, "pass_at_k": coverage(sampled, k), "low": bounds and bounds[0], "high": bounds and bounds[1]}
        )
    selected = sum(s.selected for s in sampled)
    spent = [o.solved.report["cost"]["usd"] for o in done if o.solved is not None]
    usd = None if any(each is None for each in spent) else sum(spent)
    return {
        "schema": 1,
        "instances": len(outcomes),
        "failed": [{"id": o.id, "reason": o.failure} for o in outcomes if o.failure],
        "mean_at_1": mean_at_1(sampled),
        "coverage": rows,
        "selected": selected,
        "oracle": sum(s.correct > 0 for s in sampled),
        "recovery": recovery(sampled),
        "usd": usd,
        "usd_per_solved": None if usd is None or not selected else usd / selected,
        "tasks": [_task_row(o) for o in outcomes],
    }


def _task_row(outcome: Outcome) -> Json:
    sampled = outcome.sampled
    return {
        "id": outcome.id,
        "samples": sampled.n,
        "correct": sampled.correct,
        "selected": outcome.solved.selected if outcome.solved else None,
        "resolved": sampled.selected,
        "verdicts": {c: {"resolved": v.resolved, "reason": v.reason} for c, v in outcome.verdicts.items()},
        "failure": outcome.failure,
        "report": outcome.solved.report if outcome.solved else None,
    }
