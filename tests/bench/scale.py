"""Checks the sizing formula of docs/scale.md against the scheduler itself: 75,000 attempts with simulated models.

    .venv/bin/python -m tests.bench.scale [--instances 300 --attempts 250 --nodes 32 --places 32 --cores 16]

What is real: the lanes and slots of an evaluation (`harness.suites.slots`), the places on nodes (`agent.run.places`), the
limit on calls (`agent.models.limiter`), the budgets over runs and calls (`harness.money.budget`). What is simulated: the
model (a wait), a turn's command (its CPU seconds, shared among the cores of a node), a set-up, a verification. Time is
virtual: the event loop jumps to its next timer. Exits with 1 where simulation and formula differ by more than 10 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import selectors
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field

from agent.models.limiter import Limiter
from agent.run.places import Places
from harness.money.budget import BudgetKeeper, SharedBudget
from harness.parallel import in_parallel
from harness.records import Budget, Charge, Usage
from harness.suites.slots import Slots

TOLERANCE = 0.10
SIGMA = 0.6


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop that never waits: where all tasks do, its clock jumps to the next timer."""

    def __init__(self) -> None:
        loop = self
        self.now = 0.0

        class Jump(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                loop.now += timeout or 0.0
                return super().select(0)

        super().__init__(Jump())

    def time(self) -> float:
        return self.now


@dataclass(frozen=True)
class Load:
    """What is to be done and with what. `turns` of an attempt before the cap of `most`. Seconds are means; `cpu`: of a turn, `verify`: of one candidate, all CPU; tokens of a
    call, USD a million."""

    instances: int
    attempts: int
    nodes: int
    places: int
    cores: int
    turns: float = 20.0
    most: int = 50
    latency: float = 8.0
    cpu: float = 1.0
    setup: float = 90.0
    candidates: int = 25
    verify: float = 20.0
    tokens_in: int = 12_000
    tokens_out: int = 300
    cached: float = 0.8
    usd_in: float = 0.28
    usd_cached: float = 0.028
    usd_out: float = 0.42
    environment_gb: float = 1.5

    @property
    def width(self) -> int:
        return self.nodes * self.places

    @property
    def mean_turns(self) -> float:
        """Of an attempt, the cap counted in (the mean of a log-normal distribution that is cut at the cap)."""
        normal, centre = statistics.NormalDist(), math.log(self.turns) - SIGMA**2 / 2
        beyond = (math.log(self.most) - centre) / SIGMA
        return self.turns * normal.cdf(beyond - SIGMA) + self.most * (1 - normal.cdf(beyond))

    @property
    def usd_of_call(self) -> float:
        given = self.tokens_in * ((1 - self.cached) * self.usd_in + self.cached * self.usd_cached)
        return (given + self.tokens_out * self.usd_out) / 1e6


@dataclass
class Sizes:
    """What comes of a load, by formula or by simulation. `copies`: nodes that get an environment, in the mean."""

    hours: float
    requests_per_second: float
    calls_at_once: float
    cores_busy: float
    usd: float
    copies: float


def formula(load: Load) -> Sizes:
    """docs/scale.md, "The formula"."""
    total = load.instances * load.attempts
    turns = load.mean_turns
    alone, longest = turns * (load.latency + load.cpu), load.most * (load.latency + load.cpu)
    work = total * turns * load.cpu + load.instances * load.candidates * load.verify
    copies, share = min(load.nodes, load.attempts), min(1.0, load.attempts / load.width)
    waits = load.setup**2 / (2 * alone) if load.setup < alone else load.setup - alone / 2
    held = total * alone + load.instances * (load.candidates * load.verify + copies * load.places * share * waits)
    seconds = max(held / load.width, work / (load.nodes * load.cores)) + longest - alone / 2
    calls = total * turns
    return Sizes(
        hours=seconds / 3600,
        requests_per_second=calls / seconds,
        calls_at_once=calls * load.latency / seconds,
        cores_busy=work / seconds,
        usd=calls * load.usd_of_call,
        copies=copies,
    )


@dataclass
class Simulation:
    """One evaluation under a load."""

    load: Load
    seed: int = 0
    places: Places[int] = field(default_factory=Places[int])
    calls: int = 0
    calling: float = 0.0
    busy: float = 0.0
    ended: int = 0

    def __post_init__(self) -> None:
        load = self.load
        self.chance = random.Random(self.seed)
        self.slots = Slots(load.width)
        self.limiter = Limiter(load.width)
        self.cores = [asyncio.Semaphore(load.cores) for _ in range(load.nodes)]
        self.ready: dict[tuple[int, str], asyncio.Task[None]] = {}
        self.copies: dict[str, set[int]] = defaultdict(set)
        names = [f"instance-{number}" for number in range(load.instances)]
        cap = 2 * load.instances * load.attempts * load.turns * load.usd_of_call
        self.shared = SharedBudget(Budget(usd=cap), names, clock=self.clock)
        for node in range(load.nodes):
            self.places.add(node, load.places)

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def whole(self) -> Sizes:
        """All instances, begun as an evaluation begins them: one more where there will be places free."""
        load, runs = self.load, []
        for order in range(load.instances):
            await self.slots.hungry()
            runs.append(asyncio.ensure_future(self.instance(order)))
            await asyncio.sleep(0)
        await asyncio.gather(*runs)
        seconds = self.clock()
        assert self.ended == load.instances * load.attempts, "an attempt was lost"
        assert all(state.free == load.places for state in self.places.workers.values()), "a place was lost"
        spent = sum(share.scope.spent["usd"] for share in self.shared.shares.values())
        copies = sum(map(len, self.copies.values())) / load.instances
        return Sizes(seconds / 3600, self.calls / seconds, self.calling / seconds, self.busy / seconds, spent, copies)

    async def instance(self, order: int) -> None:
        name, load = f"instance-{order}", self.load
        keeper = BudgetKeeper(Budget(), clock=self.clock, share=self.shared.share(name))
        lane = self.slots.lane(order, load.attempts)

        async def one(index: int) -> None:
            async with lane:
                await self.on_node(name, lambda node: self.attempt(keeper, index, node))
            self.ended += 1

        await in_parallel(one(index) for index in range(load.attempts))
        lane.close()
        await in_parallel(self.on_node(name, self.verification) for _ in range(load.candidates))
        self.shared.finish(name)

    async def on_node(self, name: str, job: object) -> None:
        node = await self.places.take(name)
        try:
            key = node, name
            if key not in self.ready:
                self.ready[key] = asyncio.ensure_future(asyncio.sleep(self.drawn(self.load.setup)))
                self.copies[name].add(node)
            await self.ready[key]
            assert callable(job)
            await job(node)
        finally:
            self.places.leave(node)

    async def attempt(self, keeper: BudgetKeeper, index: int, node: int) -> None:
        load = self.load
        for _ in range(min(load.most, max(1, round(self.drawn(load.turns))))):
            hold = await keeper.reserve(index, load.usd_of_call, load.tokens_in + load.tokens_out)
            slot = await self.limiter.enter(load.tokens_in)
            latency = self.drawn(load.latency)
            await asyncio.sleep(latency)
            slot.leave(answered=True)
            usage = Usage(input=load.tokens_in, output=load.tokens_out)
            hold.settle(Charge(index, "act", "simulated", usage, load.usd_of_call, "simulated", latency))
            self.calls += 1
            self.calling += latency
            await self.compute(node, load.cpu)

    async def verification(self, node: int) -> None:
        await self.compute(node, self.load.verify)

    async def compute(self, node: int, seconds: float) -> None:
        drawn = self.drawn(seconds)
        async with self.cores[node]:
            await asyncio.sleep(drawn)
        self.busy += drawn

    def drawn(self, mean: float) -> float:
        """Of a log-normal distribution of that mean, as turns and latencies have it."""
        return mean * math.exp(self.chance.gauss(-(SIGMA**2) / 2, SIGMA))


async def simulated(load: Load) -> Sizes:
    return await Simulation(load).whole()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("instances", 300), ("attempts", 250), ("nodes", 32), ("places", 32), ("cores", 8)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--turns", type=float, default=20.0)
    load = Load(**vars(parser.parse_args()))
    began, expected = time.perf_counter(), formula(load)
    loop = VirtualTime()
    found = loop.run_until_complete(simulated(load))
    loop.close()
    took = time.perf_counter() - began
    rows, worst = {}, 0.0
    for what, value in vars(expected).items():
        differs = getattr(found, what) / value - 1
        worst = max(worst, abs(differs))
        rows[what] = {
            "formula": round(value, 3),
            "simulated": round(getattr(found, what), 3),
            "differs": f"{differs:+.1%}",
        }
    print(json.dumps({"attempts": load.instances * load.attempts, "wall_seconds": round(took, 1), **rows}, indent=1))
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
