"""Places for attempts of many runs: whose turn it is, and when another run is to be prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from harness.suites.slots import Lane, Slots


async def attempts(
    lane: Lane, name: str, count: int, order: list[str], hold: Callable[[], asyncio.Future[None]]
) -> None:
    async def one() -> None:
        async with lane:
            order.append(name)
            await hold()

    await asyncio.gather(*(one() for _ in range(count)))


def test_the_attempts_of_an_earlier_run_come_first_and_are_never_more_than_the_places() -> None:
    async def whole() -> list[str]:
        slots, order, gates = Slots(2), list[str](), list[asyncio.Future[None]]()

        def hold() -> asyncio.Future[None]:
            gates.append(asyncio.get_running_loop().create_future())
            return gates[-1]

        late = asyncio.create_task(attempts(slots.lane(5, 3), "late", 3, order, hold))
        await asyncio.sleep(0)
        early = asyncio.create_task(attempts(slots.lane(1, 3), "early", 3, order, hold))
        await asyncio.sleep(0.01)
        assert order == ["late", "late"] and slots._free == 0, "who came first had the free places"
        while not (early.done() and late.done()):
            gates.pop(0).set_result(None)
            await asyncio.sleep(0.01)
            assert slots._free >= 0
        return order

    assert asyncio.run(whole()) == ["late", "late", "early", "early", "early", "late"]


def test_another_run_is_wanted_when_fewer_attempts_are_to_come_than_there_are_places() -> None:
    async def whole() -> None:
        slots = Slots(3)
        await asyncio.wait_for(slots.hungry(), 1)
        lane = slots.lane(0, 4)
        waiting = asyncio.create_task(slots.hungry())
        await asyncio.sleep(0.01)
        assert not waiting.done() and slots.demand == 4
        async with lane:
            await asyncio.sleep(0.01)
            assert not waiting.done()
            async with lane:
                await asyncio.wait_for(waiting, 1)
        slots.lane(1, 9)
        lane.close()
        assert slots.demand == 9

    asyncio.run(whole())


def test_one_that_gives_up_waiting_leaves_its_place_to_the_next() -> None:
    async def whole() -> None:
        slots = Slots(1)
        lane = slots.lane(0, 3)
        entered = asyncio.Event()

        async def enter() -> None:
            async with lane:
                entered.set()

        async with lane:
            given_up, patient = asyncio.create_task(enter()), asyncio.create_task(enter())
            await asyncio.sleep(0.01)
            given_up.cancel()
            await asyncio.sleep(0.01)
        await asyncio.wait_for(patient, 1)
        assert entered.is_set() and slots._free == slots.places

    asyncio.run(whole())


def test_a_free_place_goes_to_the_lane_that_wants_it_most_just_then() -> None:
    async def whole() -> list[str]:
        slots, order = Slots(1), list[str]()
        wants = {"a": 1.0, "b": 2.0}

        async def one(name: str, lane: Lane) -> None:
            async with lane:
                order.append(name)
                wants["c"] = 5.0
                await asyncio.sleep(0)

        lanes = {name: slots.lane(n, 1) for n, name in enumerate("abc")}
        wants["c"] = 0.0
        for name, lane in lanes.items():
            lane.urgency = partial(wants.__getitem__, name)
        await asyncio.gather(one("a", lanes["a"]), *(one(name, lanes[name]) for name in ("a", "b", "c")))
        return order

    assert asyncio.run(whole()) == ["a", "c", "b", "a"]
