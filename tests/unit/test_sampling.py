"""What adaptive sampling knows of each task, and what it says of the next attempt."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from agent.commands.options import add_options, settings_of
from agent.run.worth import Sampling, beliefs_for, state_of
from harness import trace
from harness.records import Charge, Evidence, Usage
from harness.scaling.adaptive import Beliefs, Group, Prior, TaskState
from harness.suites.slots import Slots
from tasks.errors import InputError
from tasks.task import GivenTest, Repository, Task

DIFF = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-x = 0\n+x = {}\n"
TASK = Task("t", Repository("path", "/r"), "x is wrong")
CLEAN = Evidence(True, True, {"test_a": "passed"})
SHOWN = Evidence(True, True, {"test_a": "passed"}, witness={"0:test_w.py": "passed"})
BREAKS = Evidence(True, True, {"test_a": "failed"}, witness={"0:test_w.py": "passed"})


def attempt(index: int, value: int | None, *, usd: float | None = None, status: str = "submitted") -> list[trace.Event]:
    found: list[trace.Event] = [trace.AttemptStarted(attempt=index, seed=index, model="m")]
    if usd is not None:
        charge = Charge(index, "act", "m", Usage(output=9), usd, "alias", 1.0)
        found.append(trace.Replied(attempt=index, key=f"{index}/1", message={}, charge=charge))
    patch = "" if value is None else DIFF.format(value)
    return [*found, trace.AttemptEnded(attempt=index, status=status, patch=patch, seconds=36.0)]


def verified(candidate: str, attempts: tuple[int, ...], evidence: Evidence) -> trace.Event:
    return trace.Verified(candidate=candidate, attempts=attempts, key=candidate, evidence=evidence, early=True)


def test_a_state_counts_who_agrees_on_what_is_acceptable_and_how_far_tests_show_it() -> None:
    events = [
        *attempt(1, 7, usd=0.2),
        verified("c1", (1,), SHOWN),
        *attempt(0, 8, usd=0.1),
        verified("c2", (0,), CLEAN),
        *attempt(2, 7, usd=0.3),
        *attempt(3, 9, usd=0.4),
        verified("c3", (3,), BREAKS),
        *attempt(4, None, usd=0.5),
        *attempt(5, None, usd=9.0, status="infrastructure"),
        *attempt(6, 10, usd=9.0),
    ]
    state = state_of(events)
    assert sorted(state.groups) == [Group(1, 0), Group(2, 1)]
    assert state.failed == 2, "what breaks a test, and what gave nothing; not what the world ended"
    assert state.usd == pytest.approx(1.5), "what has no evidence yet is still under way"


def test_without_a_price_an_hour_counts_as_a_dollar() -> None:
    assert state_of(attempt(0, None)).usd == pytest.approx(0.01)
    assert state_of(attempt(0, None, usd=0.0)).usd == 0.0, "a call that was free was free"


def test_grading_changes_nothing() -> None:
    events = [*attempt(0, 7), verified("c1", (0,), CLEAN)]
    assert state_of([*events, trace.Graded(candidate="c1", resolved=False)]) == state_of(events)


def test_a_given_test_makes_a_wrong_candidate_seldom() -> None:
    given = beliefs_for(Task("t", TASK.repository, "", failing_test=GivenTest(("test_b",))), ["m"])
    assert given.fails > beliefs_for(TASK, ["m"]).fails
    assert beliefs_for(TASK, ["repair"]).scatter_right > 10


def sampling(states: dict[str, TaskState], worth: float = 10.0, beliefs: Beliefs | None = None) -> Sampling:
    found = Sampling(worth)
    for id, state in states.items():
        found.join(id, beliefs or Beliefs(), state)
    return found


def test_agreement_on_shown_fixes_is_decisive_and_many_failures_are_hopeless() -> None:
    found = sampling(
        {
            "a": TaskState((Group(4, 1),), usd=0.4),
            "b": TaskState(failed=300, usd=3.0),
            "c": TaskState(failed=2, usd=0.2),
        }
    )
    assert [found.outlook(id).why for id in "abc"] == ["decisive", "hopeless", "go"]
    assert found.urgency("c") > found.urgency("a") == found.urgency("b") == 0.0


def test_what_costs_more_than_it_is_expected_to_bring_is_not_begun() -> None:
    state = TaskState(failed=3, usd=3.0)
    assert sampling({"a": state}, worth=100.0).outlook("a").why == "go"
    outlook = sampling({"a": state}, worth=1.0).outlook("a")
    assert outlook.why == "not worth it" and outlook.gain * 1.0 < outlook.usd


def test_where_candidates_tie_a_further_test_comes_before_a_further_attempt() -> None:
    def test_first(state: TaskState) -> bool:
        return sampling({"a": state}).test_first("a", instead=True)

    tied = TaskState((Group(2, 0), Group(2, 0)), usd=0.4)
    assert test_first(tied)
    assert not test_first(replace(tied, usd=40.0)), "it costs more than it brings"
    few = sampling({"a": TaskState((Group(1, 0), Group(1, 0)), usd=0.2)})
    assert not few.test_first("a", instead=True), "another attempt promises more"
    assert few.test_first("a", instead=False), "where there are no more attempts to make"
    assert not test_first(TaskState((Group(2, 0),), usd=0.2)), "there is nothing to tell apart"
    assert not test_first(TaskState(failed=3, usd=0.3))
    assert not test_first(TaskState((Group(3, 1), Group(1, 0)), usd=0.4)), "the first is far ahead"
    found = sampling({"tied": tied})
    with found.pending("tied", lambda: tied):
        assert not found.test_first("tied", instead=True), "what is under way may tell them apart"


def test_what_breaks_the_same_test_as_all_others_is_acceptable_once_there_are_two() -> None:
    one = [*attempt(0, 7), verified("c1", (0,), BREAKS)]
    assert state_of(one).groups == ()
    two = [*one, *attempt(1, 8), verified("c2", (1,), BREAKS)]
    assert state_of(two).groups == (Group(1, 1), Group(1, 1)) and state_of(two).failed == 0


PROOF = Beliefs(prior=Prior.beta(0.5, 1.5), fails=0.99, right=(1.0,), wrong=(1.0,))
"""Only right attempts are acceptable, nearly."""


def test_where_evidence_proves_the_next_attempt_goes_to_the_unsolved_task_with_fewest_failures() -> None:
    states = {"solved": TaskState((Group(1, 0),), usd=1.0)} | {
        str(n): TaskState(failed=n, usd=float(n)) for n in (4, 1, 9)
    }
    found = sampling(states, worth=1000.0, beliefs=PROOF)
    assert max(states, key=found.urgency) == "1"


def test_of_equal_tasks_the_cheaper_has_the_next_attempt() -> None:
    found = sampling({"dear": TaskState(failed=3, usd=9.0), "cheap": TaskState(failed=3, usd=1.0)}, worth=1000.0)
    assert found.urgency("cheap") > found.urgency("dear") > 0.0


@contextlib.contextmanager
def under_way(found: Sampling, id: str, many: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(found.pending(id, lambda: TaskState()))
        yield


def test_attempts_under_way_may_have_to_be_waited_for() -> None:
    found = sampling({"a": TaskState()})
    assert found.outlook("a").why == "go"
    with under_way(found, "a", 40):
        assert found.outlook("a").why == "wait", "the fortieth promises next to nothing before the others are seen"
    assert found.outlook("a").why == "go"


def test_an_instance_that_promises_less_than_a_new_one_does_not_keep_it_waiting() -> None:
    found = sampling({"a": TaskState(), "b": TaskState(failed=4, usd=0.4)})
    assert found.eager("a") and not found.eager("b")
    assert found.eager("one that is being prepared")


def test_the_prior_is_fitted_again_whenever_twice_as_many_attempts_are_known() -> None:
    found = sampling({str(n): TaskState(failed=2, usd=0.2) for n in range(4)})
    before = found.outlook("0").hope
    found.join("4", Beliefs(), TaskState(failed=2, usd=0.2))
    first = found.outlook("0").hope
    assert first < before, "five tasks on which nothing worked say something of each"
    found.update("4", TaskState(failed=6, usd=0.6))
    assert found.outlook("0").hope == first, "14 attempts are less than twice 10"
    found.update("3", TaskState(failed=8, usd=0.8))
    assert found.outlook("0").hope < first


def test_a_task_that_joins_later_is_believed_of_as_the_others_are() -> None:
    found = sampling({str(n): TaskState(failed=3, usd=0.3) for n in range(8)})
    found.join("late", Beliefs(), TaskState())
    fitted = found.outlook("late")
    assert fitted.hope < sampling({"late": TaskState()}).outlook("late").hope
    found.join("other", beliefs_for(TASK, ["repair"]), TaskState())
    alone = sampling({})
    alone.join("other", beliefs_for(TASK, ["repair"]), TaskState())
    assert found.outlook("other").hope == alone.outlook("other").hope, "of another kind"


def test_whoever_waits_hears_of_changes() -> None:
    async def whole() -> None:
        found = sampling({"a": TaskState()})
        heard: list[str] = []
        found.listeners["a"] = lambda: heard.append("a")
        change = found.change()
        found.update("a", TaskState(failed=1, usd=0.1))
        await asyncio.wait_for(change, 1)
        del found.listeners["a"]
        found.update("a", TaskState(failed=2, usd=0.2))
        assert heard == ["a"]

    asyncio.run(whole())


def test_what_was_begun_before_comes_before_all_else() -> None:
    async def whole() -> list[str]:
        found, order = sampling({"a": TaskState(failed=300, usd=3.0), "b": TaskState()}), list[str]()
        slots = Slots(1)
        lanes = {id: slots.lane(n, 1) for n, id in enumerate("xba")}
        for id in "ab":
            lanes[id].urgency = partial(found.urgency, id)

        async def one(id: str) -> None:
            async with found.first_of_all(id, lanes[id]) if id == "a" else lanes[id]:
                order.append(id)
                await asyncio.sleep(0)

        await asyncio.gather(*map(one, "xba"))
        return order

    assert asyncio.run(whole()) == ["x", "a", "b"]


def test_a_worth_without_adaptive_sampling_is_refused() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, "tries", "caps", "choice", "progress")
    with pytest.raises(InputError, match="--worth says when --adaptive stops"):
        settings_of(parser.parse_args(["--worth", "3"]))
    settings = settings_of(parser.parse_args(["--adaptive", "--worth", "3"]))
    assert settings.adaptive and settings.worth == 3.0
    assert settings_of(parser.parse_args(["--adaptive"])).worth == 10.0
