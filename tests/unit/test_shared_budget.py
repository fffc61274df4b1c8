"""One budget over many runs: shares, what a finished run leaves, and that calls at the same time cannot pass the
cap."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.money.budget import BudgetKeeper, SharedBudget
from harness.records import Budget, Charge, Usage
from tasks.errors import BudgetExceeded


def charge(usd: float | None, tokens: int = 0) -> Charge:
    return Charge(0, "act", "m", Usage(output=tokens), usd, "alias", 1.0)


async def spend(keeper: BudgetKeeper, usd: float) -> None:
    hold = await keeper.reserve(0, usd, 1)
    hold.settle(charge(usd, 1))


def test_each_run_may_spend_its_part_and_no_more_while_others_wait() -> None:
    async def whole() -> None:
        shared = SharedBudget(Budget(usd=3.0), ["a", "b", "c"])
        a = BudgetKeeper(Budget(), share=shared.share("a"))
        await spend(a, 0.9)
        with pytest.raises(
            BudgetExceeded, match=r"\$0\.9000 of \$1\.0000 is spent and the next call may cost \$0\.2000 \(its share"
        ) as refused:
            await spend(a, 0.2)
        assert (refused.value.scope, refused.value.limit) == ("run", "usd")

    asyncio.run(whole())


def test_what_a_finished_run_left_over_raises_the_others_share() -> None:
    async def whole() -> None:
        shared = SharedBudget(Budget(usd=3.0), ["a", "b", "c"])
        a, b = (BudgetKeeper(Budget(), share=shared.share(name)) for name in "ab")
        await spend(a, 0.5)
        shared.finish("a")
        assert shared.level("usd") == pytest.approx(1.25)
        await spend(b, 1.2)
        shared.finish("b")
        assert shared.level("usd") == pytest.approx(1.3)

    asyncio.run(whole())


def test_a_run_that_had_spent_more_than_its_part_takes_nothing_from_the_others() -> None:
    shared = SharedBudget(Budget(usd=4.0), ["a", "b", "c"])
    shared.note("a", 2.0, 0)
    assert shared.level("usd") == pytest.approx(1.0)


def test_a_cap_that_is_spent_leaves_nobody_anything() -> None:
    shared = SharedBudget(Budget(usd=1.0), ["a", "b"])
    shared.note("a", 1.5, 0)
    shared.finish("a")
    assert shared.level("usd") == 0.0
    with pytest.raises(BudgetExceeded):
        BudgetKeeper(Budget(), share=shared.share("b")).check()


def test_the_runs_own_cap_holds_where_it_is_lower() -> None:
    shared = SharedBudget(Budget(usd=10.0), ["a"])
    keeper = BudgetKeeper(Budget(usd=0.5), share=shared.share("a"))
    with pytest.raises(
        BudgetExceeded,
        match=r"\$0\.0000 of \$0\.5000 is spent and the next call may cost \$0\.6000 \(more: --max-usd\)",
    ):
        asyncio.run(spend(keeper, 0.6))


def test_tokens_are_shared_like_money() -> None:
    shared = SharedBudget(Budget(tokens=100), ["a", "b"])
    keeper = BudgetKeeper(Budget(), share=shared.share("a"))
    with pytest.raises(BudgetExceeded, match="0 of 50 tokens are used and the next call may use 51"):
        asyncio.run(keeper.reserve(0, None, 51))


def test_the_time_of_the_whole_ends_every_run() -> None:
    now = [0.0]
    shared = SharedBudget(Budget(seconds=60.0), ["a"], clock=lambda: now[0])
    keeper = BudgetKeeper(Budget(), share=shared.share("a"))
    keeper.check()
    now[0] = 61.0
    with pytest.raises(BudgetExceeded, match="60 s are up"):
        keeper.check()


def test_a_resumed_run_counts_what_it_spent_before() -> None:
    shared = SharedBudget(Budget(usd=2.0), ["a", "b"])
    BudgetKeeper(Budget(), [charge(1.5)], share=shared.share("a"))
    assert shared.level("usd") == pytest.approx(0.5)


@given(spent=st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=8), cap=st.floats(0.1, 30))
def test_if_every_unfinished_run_rises_to_the_level_the_cap_is_just_spent(
    spent: list[tuple[float, bool]], cap: float
) -> None:
    shared = SharedBudget(Budget(usd=cap), [str(n) for n in range(len(spent))])
    for number, (usd, finished) in enumerate(spent):
        shared.note(str(number), usd, 0)
        if finished:
            shared.finish(str(number))
    level = shared.level("usd")
    unfinished = [usd for usd, finished in spent if not finished]
    left = cap - sum(usd for usd, finished in spent if finished)
    if unfinished and sum(unfinished) < left:
        assert sum(max(usd, level) for usd in unfinished) == pytest.approx(left)
    elif unfinished:
        assert all(usd >= level for usd in unfinished) or level == 0.0


def test_many_runs_with_calls_at_the_same_time_never_pass_the_cap() -> None:
    async def whole() -> float:
        rng = random.Random(4)
        spent = 0.0
        shared = SharedBudget(Budget(usd=1.0), [str(n) for n in range(12)])

        async def one(name: str) -> None:
            keeper = BudgetKeeper(Budget(), share=shared.share(name))

            async def calls() -> None:
                nonlocal spent
                while True:
                    try:
                        hold = await keeper.reserve(0, 0.02, 1)
                    except BudgetExceeded:
                        return
                    await asyncio.sleep(rng.random() / 500)
                    usd = 0.02 * rng.random()
                    hold.settle(charge(usd, 1))
                    spent += usd
                    assert spent <= 1.0 + 1e-9

            await asyncio.gather(*(calls() for _ in range(4)))
            shared.finish(name)

        await asyncio.gather(*(one(str(n)) for n in range(12)))
        return spent

    assert 0.7 < asyncio.run(whole()) <= 1.0 + 1e-9


def test_where_it_is_not_shared_fairly_one_run_may_spend_what_no_other_has() -> None:
    async def whole() -> None:
        shared = SharedBudget(Budget(usd=3.0), ["a", "b", "c"], fair=False)
        a, b = (BudgetKeeper(Budget(), share=shared.share(name)) for name in "ab")
        await spend(a, 2.5)
        await spend(b, 0.4)
        for keeper in (a, b):
            with pytest.raises(BudgetExceeded):
                await spend(keeper, 0.2)
        await spend(a, 0.1)

    asyncio.run(whole())


def test_a_call_waits_for_what_another_run_holds_and_goes_on_when_it_is_free() -> None:
    async def whole() -> None:
        shared = SharedBudget(Budget(usd=1.0), ["a", "b"], fair=False)
        a, b = (BudgetKeeper(Budget(), share=shared.share(name)) for name in "ab")
        held = await a.reserve(0, 0.8, 1)
        waiting = asyncio.create_task(b.reserve(0, 0.5, 1))
        await asyncio.sleep(0)
        assert not waiting.done(), "together they might pass the cap"
        held.settle(charge(0.1, 1))
        (await asyncio.wait_for(waiting, 1)).settle(charge(0.5, 1))
        held = await a.reserve(0, 0.3, 1)
        waiting = asyncio.create_task(b.reserve(0, 0.2, 1))
        await asyncio.sleep(0)
        held.settle(charge(0.3, 1))
        with pytest.raises(BudgetExceeded):
            await asyncio.wait_for(waiting, 1)

    asyncio.run(whole())


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 0.5), st.floats(0.0, 1.0)), max_size=30))
def test_runs_that_spend_unfairly_cannot_pass_the_cap_together(calls: list[tuple[int, float, float]]) -> None:
    async def whole() -> None:
        shared = SharedBudget(Budget(usd=1.0), map(str, range(4)), fair=False)
        keepers = [BudgetKeeper(Budget(), share=shared.share(str(n))) for n in range(4)]
        spent = []

        async def one(run: int, most: float, part: float) -> None:
            try:
                hold = await keepers[run].reserve(0, most, 1)
            except BudgetExceeded:
                return
            await asyncio.sleep(0)
            hold.settle(charge(most * part, 1))
            spent.append(most * part)

        await asyncio.wait_for(asyncio.gather(*(one(*call) for call in calls)), 5)
        assert sum(spent) <= 1.0 + 1e-9

    asyncio.run(whole())
