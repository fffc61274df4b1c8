"""How an evaluation goes over its instances: who is begun when, what a failure costs, what is graded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from harness.records import Verdict
from harness.suites.evaluate import OUTAGES, EvaluationPlan, Grades, Outcome, Solved, evaluate
from harness.suites.slots import Lane, Slots
from harness.suites.suite import Ready, Submission
from tasks.errors import EndpointFailed, EnvironmentFailed, SandboxFailed
from tasks.task import Repository, Task

Solve = Callable[[str, Lane], Awaitable[Solved]]


def task(id: str) -> Task:
    return Task(id, Repository("path", "/r"), "s")


def solved(*candidates: str, selected: str | None = "c1", failure: str = "", outage: bool = False) -> Solved:
    return Solved(
        report={"run": "r", "base_commit": "b"},
        patches={},
        candidates={c: f"patch {c}" for c in candidates},
        samples=candidates,
        selected=selected,
        failure=failure,
        outage=outage,
    )


@dataclass
class Bench:
    """Instances that are ready at once, but for those whose image has to be waited for; grading says what it is
    told."""

    slow: Sequence[str] = ()
    without: Sequence[str] = ()
    verdict: Callable[[str], Verdict] = lambda candidate: Verdict(candidate == "c1", {}, {})
    submissions: list[Submission] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    async def leave(self, id: str) -> None:
        self.left.append(id)

    async def ready(self, ids: Sequence[str]) -> AsyncIterator[Ready]:
        for id in sorted(ids, key=lambda id: id in self.slow):
            if id in self.slow:
                await asyncio.sleep(0.25)
            yield Ready(id, None, "no image") if id in self.without else Ready(id, task(id))

    async def grade(self, id: str, submission: Submission) -> Verdict:
        self.submissions.append(submission)
        await asyncio.sleep(0)
        return self.verdict(submission.name)


def evaluated(
    ids: Sequence[str], bench: Bench, solve: Solve, *, places: int = 4, attempts: int = 2, grades: Grades = "all"
) -> tuple[dict[str, Outcome], list[str]]:
    async def whole() -> tuple[dict[str, Outcome], list[str]]:
        outcomes: dict[str, Outcome] = {}
        heard: list[str] = []

        def ended(outcome: Outcome) -> None:
            outcomes[outcome.id] = outcome
            heard.append(f"ended {outcome.id}")

        async def solver(task: Task, lane: Lane) -> Solved:
            return await solve(task.id, lane)

        plan = EvaluationPlan(Slots(places), asyncio.Semaphore(2), attempts, grades)
        await evaluate(ids, bench, solver, plan, lambda ready: heard.append(f"ready {ready.id}"), ended)
        return outcomes, heard

    return asyncio.run(whole())


async def attempts_of(lane: Lane, count: int, seconds: float = 0.0) -> None:
    async def one() -> None:
        async with lane:
            await asyncio.sleep(seconds)

    await asyncio.gather(*(one() for _ in range(count)))


def test_work_begins_on_what_is_ready_while_images_are_still_made() -> None:
    async def solve(id: str, lane: Lane) -> Solved:
        await attempts_of(lane, 2)
        return solved("c1")

    outcomes, heard = evaluated(["late", "a", "b"], Bench(slow=["late"]), solve)
    assert heard.index("ended a") < heard.index("ready late") and set(outcomes) == {"late", "a", "b"}


def test_no_more_instances_are_begun_than_fill_the_places() -> None:
    begun: list[str] = []
    most = 0

    async def solve(id: str, lane: Lane) -> Solved:
        nonlocal most
        begun.append(id)
        waiting = lane._slots.demand
        most = max(most, waiting)
        await attempts_of(lane, 4, 0.002)
        return solved("c1")

    outcomes, _ = evaluated([str(n) for n in range(12)], Bench(), solve, places=4, attempts=4)
    assert begun == [str(n) for n in range(12)] and len(outcomes) == 12
    assert most <= 4 + 4 - 1, "a second instance is prepared when the first one's attempts have their places"


def test_each_distinct_candidate_is_graded_or_only_the_selected_one_or_none() -> None:
    async def solve(id: str, lane: Lane) -> Solved:
        return solved("c1", "c2", "c2", selected="c2")

    wanted_of: dict[Grades, list[str]] = {"all": ["c1", "c2"], "selected": ["c2"], "none": []}
    for grades, wanted in wanted_of.items():
        bench = Bench()
        outcomes, _ = evaluated(["a"], bench, solve, grades=grades)
        assert [s.name for s in bench.submissions] == wanted
        assert outcomes["a"].resolved is (False if wanted else None)
    assert bench.submissions == []


def test_a_grading_that_cannot_be_had_is_no_verdict() -> None:
    def verdict(candidate: str) -> Verdict:
        if candidate == "c2":
            raise SandboxFailed("the daemon is gone")
        return Verdict(True, {}, {})

    async def solve(id: str, lane: Lane) -> Solved:
        return solved("c1", "c2")

    outcomes, _ = evaluated(["a"], Bench(verdict=verdict), solve)
    assert outcomes["a"].resolved is True and outcomes["a"].sampled is None
    assert outcomes["a"].failure == "c2 could not be graded: the daemon is gone"


def test_an_instance_without_an_environment_or_with_a_defect_costs_only_itself() -> None:
    async def solve(id: str, lane: Lane) -> Solved:
        if id == "broken":
            raise ValueError("a defect")
        return solved("c1")

    outcomes, _ = evaluated(["a", "none", "broken", "b"], Bench(without=["none"]), solve)
    failures = [outcomes[id].failure for id in ("a", "none", "broken", "b")]
    assert failures[:2] == ["", "no image"] and failures[3] == ""
    assert re.fullmatch(r"ValueError: a defect \(test_evaluate\.py:\d+\)", failures[2]), "and where it comes from"


def test_a_defect_in_a_grading_costs_one_verdict_of_one_instance() -> None:
    def verdict(candidate: str) -> Verdict:
        if candidate == "c2":
            raise IndexError("list index out of range")
        return Verdict(True, {}, {})

    async def solve(id: str, lane: Lane) -> Solved:
        return solved("c1", "c2") if id == "a" else solved("c1")

    outcomes, _ = evaluated(["a", "b"], Bench(verdict=verdict), solve)
    assert outcomes["a"].verdicts.keys() == {"c1"} and outcomes["b"].verdicts.keys() == {"c1"}
    assert "c2 could not be graded: IndexError: list index out of range" in outcomes["a"].failure
    assert outcomes["b"].failure == ""


def test_a_verdict_that_cannot_be_kept_is_told_and_costs_nothing_else() -> None:
    def refuse(candidate: str, verdict: Verdict) -> None:
        raise EnvironmentFailed("cannot write the trace")

    async def solve(id: str, lane: Lane) -> Solved:
        return replace(solved("c1"), note=refuse) if id == "a" else solved("c1")

    outcomes, _ = evaluated(["a", "b"], Bench(), solve)
    assert outcomes["a"].failure == "the verdict on c1 could not be kept: cannot write the trace"
    assert outcomes["a"].resolved is True and outcomes["b"].failure == ""


def test_an_outage_stops_the_evaluation_instead_of_failing_instance_after_instance() -> None:
    begun: list[str] = []

    async def solve(id: str, lane: Lane) -> Solved:
        begun.append(id)
        await attempts_of(lane, 1, 0.001)
        return solved(failure=str(EndpointFailed("the server is away.")), selected=None, outage=True)

    with pytest.raises(EnvironmentFailed, match=r"3 instances in a row failed .* the server is away\. .* same command"):
        evaluated([str(n) for n in range(50)], Bench(), solve, places=1, attempts=1)
    assert len(begun) <= OUTAGES + 2


def test_one_that_is_solved_in_between_shows_that_it_is_no_outage() -> None:
    async def solve(id: str, lane: Lane) -> Solved:
        await attempts_of(lane, 1)
        return solved("c1") if int(id) % 3 == 0 else solved(failure="x", selected=None, outage=True)

    outcomes, _ = evaluated([str(n) for n in range(12)], Bench(), solve, places=1, attempts=1)
    assert len(outcomes) == 12


def test_an_instance_is_left_once_all_of_it_is_graded_or_has_failed() -> None:
    async def solve(id: str, lane: Lane) -> Solved:
        assert id not in bench.left
        if id == "b":
            raise ValueError("a defect")
        return solved("c1", "c2")

    bench = Bench(without=["c"], verdict=lambda candidate: Verdict(not bench.left.count("a"), {}, {}))
    outcomes, _ = evaluated(["a", "b", "c"], bench, solve)
    assert sorted(bench.left) == ["a", "b", "c"]
    assert all(verdict.resolved for verdict in outcomes["a"].verdicts.values()) and len(outcomes["a"].verdicts) == 2
