"""How many calls go to a server at once, and how many a minute."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.models.limiter import Limiter, Slot


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def free(limiter: Limiter) -> int:
    """How many calls may start at once now."""
    calls = [asyncio.create_task(limiter.enter(1)) for _ in range(limiter.limit + 1)]
    await settle()
    started = sum(call.done() for call in calls)
    for call in calls:
        call.cancel()
    for ended in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(ended, Slot):
            ended.leave()
    return started


def test_calls_beyond_the_concurrency_wait_in_order_of_arrival() -> None:
    async def act() -> None:
        limiter = Limiter(2)
        order: list[int] = []

        async def call(k: int) -> None:
            slot = await limiter.enter(1)
            order.append(k)
            await asyncio.sleep(0.001)
            slot.leave(answered=True)

        await asyncio.gather(*(call(k) for k in range(20)))
        assert order == list(range(20))
        assert await free(limiter) == 2

    asyncio.run(act())


def test_calls_that_were_refused_together_halve_the_concurrency_once() -> None:
    async def act() -> None:
        limiter = Limiter(32)
        slots = [await limiter.enter(1) for _ in range(32)]
        for slot in slots:
            limiter.rejected(slot, None)
            slot.leave()
        assert limiter.limit == 16
        late = await limiter.enter(1)
        limiter.rejected(late, None)
        assert limiter.limit == 8

    asyncio.run(act())


def test_concurrency_never_falls_below_one_and_grows_back_to_its_ceiling() -> None:
    async def act() -> None:
        limiter = Limiter(4)
        for _ in range(10):
            slot = await limiter.enter(1)
            limiter.rejected(slot, None)
            slot.leave()
        assert limiter.limit == 1
        for _ in range(40):
            (await limiter.enter(1)).leave(answered=True)
        assert limiter.limit == 4

    asyncio.run(act())


def test_nobody_enters_before_the_time_that_the_server_asked_for() -> None:
    async def act() -> None:
        limiter = Limiter(4)
        slot = await limiter.enter(1)
        limiter.rejected(slot, 0.2)
        slot.leave()
        started = time.monotonic()
        (await limiter.enter(1)).leave()
        assert 0.18 <= time.monotonic() - started < 2.0

    asyncio.run(act())


def test_tokens_per_minute_are_kept_by_what_calls_really_use() -> None:
    async def act() -> None:
        limiter = Limiter(100, tokens_per_minute=60_000)  # 1000 a second, 10000 at once
        started = time.monotonic()
        (await limiter.enter(10_000)).leave(answered=True, tokens=9_900)
        (await limiter.enter(400)).leave(answered=True, tokens=400)
        assert 0.25 <= time.monotonic() - started < 2.0, "100 were given back, 300 had to come"

    asyncio.run(act())


def test_a_call_larger_than_the_bucket_gets_its_turn() -> None:
    async def act() -> None:
        limiter = Limiter(1, tokens_per_minute=600)
        slot = await asyncio.wait_for(limiter.enter(100_000), 1)
        slot.leave(answered=True, tokens=0)

    asyncio.run(act())


def test_a_cancelled_wait_lets_the_next_one_in() -> None:
    async def act() -> None:
        limiter = Limiter(1)
        slot = await limiter.enter(1)
        waiting = [asyncio.create_task(limiter.enter(1)) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        slot.leave(answered=True)
        waiting[1].cancel()  # it has its turn already, and has not run since
        await settle()
        (await asyncio.wait_for(waiting[2], 1)).leave()
        assert await free(limiter) == 1

    asyncio.run(act())


@given(st.lists(st.sampled_from(["enter", "leave", "reject", "cancel"]), max_size=60), st.integers(1, 5))
def test_whatever_happens_no_slot_is_lost_and_the_limit_holds(steps: list[str], concurrency: int) -> None:
    async def act() -> None:
        limiter = Limiter(concurrency)
        tasks: list[asyncio.Task[Slot]] = []
        for step in steps:
            open_ones = [t for t in tasks if t.done() and not t.cancelled() and t.result().open]
            if step == "enter":
                tasks.append(asyncio.create_task(limiter.enter(1)))
            elif step == "leave" and open_ones:
                open_ones[0].result().leave(answered=True)
            elif step == "reject" and open_ones:
                limiter.rejected(open_ones[0].result(), None)
            elif step == "cancel" and tasks:
                tasks[-1].cancel()
            if step != "cancel":
                await settle()
            assert sum(t.done() and not t.cancelled() and t.result().open for t in tasks) <= concurrency
        await settle()
        for _ in tasks:
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result().leave(answered=True)
            await settle()
        assert all(task.done() for task in tasks), "everybody got a turn, or went away"
        assert await free(limiter) == limiter.limit

    asyncio.run(act())


def test_leaving_twice_gives_one_slot_back() -> None:
    async def act() -> None:
        limiter = Limiter(2)
        slot = await limiter.enter(1)
        await limiter.enter(1)
        slot.leave()
        slot.leave()
        assert await free(limiter) == 1

    asyncio.run(act())


def test_time_that_passes_refills_no_more_than_the_bucket_holds() -> None:
    async def act() -> None:
        limiter = Limiter(1000, requests_per_minute=60)
        limiter._requests._at -= 3600.0  # an hour passes
        entered = [asyncio.create_task(limiter.enter(1)) for _ in range(30)]
        await settle()
        assert sum(task.done() for task in entered) == 10
        for task in entered:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entered[-1]

    asyncio.run(act())


def test_another_ceiling_holds_at_once_unless_the_server_has_refused_calls() -> None:
    async def act() -> None:
        limiter = Limiter(2)
        held = [await limiter.enter(1) for _ in range(2)]
        third = asyncio.create_task(limiter.enter(1))
        await asyncio.sleep(0)
        assert not third.done()
        limiter.allow(64)
        await third
        assert limiter.limit == 64
        limiter.rejected(held[0], None)
        limiter.allow(128)
        assert limiter.limit == 32, "a 429 holds until answers come"
        limiter.allow(8)
        assert limiter.limit == 8

    asyncio.run(act())
