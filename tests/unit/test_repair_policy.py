"""What the repair policy decides, without a sandbox: what an interrupt, a single turn and a last turn do to it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from agent.attempt.policy import Decision, ToolCall, TurnRecord, View
from agent.repair.mutate import Mutant, mutants
from agent.repair.mutation.source import Stopped
from agent.repair.policy import RepairPolicy, SharedWork, compiling, in_thread
from harness import trace
from harness.records import Exec, Json, TestReport
from harness.sandbox.base import TROOPDIR
from tasks.task import GivenTest, Repository, Task
from tests.support.replies import ran

CODE = "def add(a, b):\n    return a - b\n"
RED = TestReport({"test_add.py::test_add": "failed"}, 1, False, True, 0.1)
GREEN = TestReport({"test_add.py::test_add": "passed"}, 0, False, True, 0.1)


def large_program() -> tuple[dict[str, str], dict[tuple[str, int], float]]:
    """A program whose mutants take several seconds."""
    functions = (
        f"def f{n}(a, b):\n    c = a[b] + {n}\n    if c < b and a:\n        return c\n    return a\n"
        for n in range(300)
    )
    return {"a.py": "".join(functions)}, {("a.py", line): 1.0 for line in range(1, 1_501)}


def test_an_interrupted_search_ends_within_a_second() -> None:
    """Also the process: asyncio waits for its threads."""
    texts, suspicion = large_program()
    ends: list[str] = []

    def search(stop: threading.Event) -> list[Mutant]:
        try:
            return mutants(texts, suspicion, stop=stop)
        except Stopped:
            ends.append("stopped")
            raise

    async def interrupted() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(search), 0.3)

    began = time.monotonic()
    asyncio.run(interrupted())
    assert ends == ["stopped"]
    assert time.monotonic() - began < 1.3


def test_the_event_loop_goes_on_while_mutants_are_made() -> None:
    texts, suspicion = large_program()

    async def longest_pause() -> float:
        making = asyncio.create_task(in_thread(lambda stop: mutants(texts, suspicion, stop=stop)))
        pauses = []
        for _ in range(20):
            began = time.monotonic()
            await asyncio.sleep(0.01)
            pauses.append(time.monotonic() - began)
        assert not making.done()
        making.cancel()
        return max(pauses)

    assert asyncio.run(longest_pause()) < 1


def test_mutants_that_do_not_compile_take_no_turn() -> None:
    def mutant(new: str) -> Mutant:
        return Mutant("a.py", 2, "    return a - b", new, "donor", 1.0)

    good, bad, better = mutant("    return a"), mutant("    break"), mutant("    return b")
    assert compiling([bad, good, bad, better], {"a.py": CODE}, threading.Event()) == [good, better]


class _Base:
    """A sandbox that only shows the files of the base."""

    async def exec(self, command: Any, **more: Any) -> Exec:
        shown = {f"git --git-dir={TROOPDIR}/base.git show HEAD:add.py": CODE}.get(command, "add.py\0")
        return Exec(shown.encode(), b"", 0, False, 0.0)


async def _never(*asked: Any, **more: Any) -> Any:
    raise AssertionError("a decision of repair asks no model")


def decided(turns: int, *reports: TestReport) -> Decision:
    """The decision after turns that each made an edit and got a report, of so many turns altogether."""
    data: Json = {"failing": ["test_add.py::test_add"], "lines": [["add.py", 2, 1.0]], "how": "given"}
    given = Task("add", Repository("path", "calculator"), "", failing_test=GivenTest(("test_add.py::test_add",), ()))
    prepared = trace.Prepared(
        base_commit="c", environment="e", backend="bubblewrap", test_command="pytest", baseline=RED
    )
    made = Decision("", (ToolCall("edit", "edit", {}), ToolCall("test", "test", {})))
    results = (ran("edit", "edit", ""), ran("test", "test", ""))
    history = [TurnRecord(at + 1, made, results, report) for at, report in enumerate(reports)]
    sandbox: Any = _Base()
    view = View(
        task=given,
        prepared=prepared,
        index=0,
        seed=1,
        sandbox=sandbox,
        ask=_never,
        plan=trace.Planned(text="", data=data),
        history=history,
        turns_left=turns - len(history),
    )
    return asyncio.run(RepairPolicy(attempts=2, bench=SharedWork()).decide(view))


def test_every_turn_puts_the_last_mutant_back_and_tries_another() -> None:
    assert [c.name for c in decided(5).calls] == ["edit", "test"]
    assert [c.name for c in decided(5, RED).calls] == ["undo", "edit", "test"]


def test_the_last_turn_only_puts_back() -> None:
    last = decided(3, RED, RED)
    assert [c.name for c in last.calls] == ["undo"]
    assert last.stop == "turn-limit"


def test_a_single_turn_tries_a_mutant_which_counts_only_if_its_tests_pass() -> None:
    assert [c.name for c in decided(1).calls] == ["edit", "test"]
    assert RepairPolicy.only_green


def test_a_green_mutant_is_kept() -> None:
    kept = decided(5, RED, GREEN)
    assert kept.calls == () and kept.stop == "tests-passed"
