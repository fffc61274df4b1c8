"""Repair without a model: localisation in a real sandbox, and a planted bug mended from end to end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import solve
from agent.attempt.policy import Decision, TurnRecord, View
from agent.repair.localise import Line, localise
from agent.repair.policy import RepairPolicy, SharedWork
from harness import trace
from harness.records import TestReport
from harness.sandbox.base import Provider, Sandbox
from harness.testing.run import run_tests
from harness.trace import Replied
from tasks.task import GivenTest, Task
from tests.support.calculator import make_repository, settings, task
from tests.support.environments import COMMAND, in_sandbox
from tests.support.replies import ran

FAILING = "tests/test_issue.py::test_first_counts"
ENDLESS = "from calc import largest\n\n\ndef test_ends():\n    while largest([1]):\n        pass\n"


@pytest.fixture
def given(tmp_path: Path) -> Task:
    return task(make_repository(tmp_path / "calculator"), failing_test=True)


def localised(provider: Provider, given: Task, command: str = COMMAND) -> tuple[tuple[Line, ...], str]:
    async def work(sandbox: Sandbox) -> tuple[tuple[Line, ...], str]:
        baseline = await run_tests(sandbox, COMMAND, timeout=60)
        return await localise(sandbox, command, [FAILING], baseline, timeout=60)

    return in_sandbox(provider, given, work)


def test_the_lines_that_the_failing_test_runs_are_suspected(provider: Provider, given: Task) -> None:
    lines, how = localised(provider, given)
    assert lines[0][:2] == ("calc.py", 7), "the body of the loop: no passing test reaches it"
    assert {line[:2] for line in lines} == {("calc.py", n) for n in (5, 6, 7, 8)}
    assert lines[0][2] == 1.0 > lines[1][2] > 0
    assert "1 failing and 2 passing tests" in how


@pytest.mark.bubblewrap
def test_a_test_that_never_ends_still_says_where_it_was(bubblewrap: Provider, given: Task) -> None:
    assert given.failing_test is not None
    endless = replace(given, failing_test=GivenTest((FAILING,), (("tests/test_issue.py", ENDLESS),)))

    async def work(sandbox: Sandbox) -> tuple[tuple[Line, ...], str]:
        return await localise(sandbox, COMMAND, ["tests/test_issue.py::test_ends"], None, timeout=120)

    lines, _ = in_sandbox(bubblewrap, endless, work)
    assert [line[:2] for line in lines] == [("calc.py", 12)]


@pytest.mark.bubblewrap
def test_a_command_that_is_no_pytest_leaves_what_its_output_names(bubblewrap: Provider, given: Task) -> None:
    script = "python -c 'from calc import largest; largest(3)'"
    lines, how = localised(bubblewrap, given, script)
    assert [line[:2] for line in lines] == [("calc.py", 12)]
    assert "no line was recorded" in how


async def _no_model(*asked: Any, **more: Any) -> Replied:
    raise AssertionError("repair asks no model")


def view(sandbox: Sandbox, given: Task, baseline: TestReport, plan: trace.Planned, history: list[TurnRecord]) -> View:
    prepared = trace.Prepared(
        base_commit="c", environment="e", backend="bubblewrap", test_command=COMMAND, baseline=baseline
    )
    left = 30 - len(history)
    return View(
        task=given,
        prepared=prepared,
        index=1,
        seed=7,
        sandbox=sandbox,
        ask=_no_model,
        plan=plan,
        history=history,
        turns_left=left,
    )


@pytest.mark.bubblewrap
def test_a_resumed_attempt_goes_on_with_the_same_mutants(bubblewrap: Provider, given: Task) -> None:
    async def work(sandbox: Sandbox) -> tuple[list[Decision], Decision]:
        baseline = await run_tests(sandbox, COMMAND, timeout=60)
        policy = RepairPolicy(attempts=4, bench=SharedWork())
        plan = await policy.plan(view(sandbox, given, baseline, trace.Planned(text=""), []))
        history: list[TurnRecord] = []
        for turn in range(1, 6):
            decision = await policy.decide(view(sandbox, given, baseline, plan, history))
            edited = tuple(ran(c.id, c.name, "") for c in decision.calls)
            history.append(TurnRecord(turn, decision, edited, baseline))
        anew = RepairPolicy(attempts=4, bench=SharedWork())
        return [r.decision for r in history], await anew.decide(view(sandbox, given, baseline, plan, history[:4]))

    decisions, again = in_sandbox(bubblewrap, given, work)
    assert again == decisions[4]
    assert len({d.text + repr(d.calls) for d in decisions}) == 5
    assert [c.name for c in decisions[0].calls] == ["edit", "test"]
    assert [c.name for c in decisions[1].calls] == ["undo", "edit", "test"]
    assert decisions[0].calls[-1].arguments == {"ids": [FAILING], "then_all": True}


def test_without_a_failing_test_there_is_nothing_to_repair(given: Task) -> None:
    baseline = TestReport({FAILING: "passed"}, 0, False, True, 1.0)
    untouched: Any = None
    for without in (replace(given, failing_test=None), given):
        looked = view(untouched, without, baseline, trace.Planned(text=""), [])
        assert asyncio.run(RepairPolicy().plan(looked)).stop == "no-failing-test"


@pytest.mark.bubblewrap
@pytest.mark.network
def test_mends_a_planted_bug_and_leaves_nothing_behind_where_it_does_not(given: Task, tmp_path: Path) -> None:
    done = solve(given, settings("", tmp_path / "runs", attempts=2, turns=40, models=("repair",), concurrency=2))
    assert done.exit_code == 0 and done.patch is not None
    changed = [line for line in done.patch.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) <= 3, "a small bug has a small fix"
    assert done.report["cost"]["usd"] == 0
    statuses = {row["status"] for row in done.report["attempts"]}
    assert "tests-passed" in statuses <= {"tests-passed", "turn-limit", "interrupted"}
    assert all(row["candidate"] is None for row in done.report["attempts"] if row["status"] == "turn-limit")
