"""Places for jobs on many machines: which worker gets the next one.

A job goes where its environment is, or is being made, as long as there is a place free; else to the worker with most
places free, which then gets the environment too. None waits behind one that no free worker can do.
"""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)


@dataclass(slots=True)
class State:
    """A worker's free places, and the environments that it has and that it cannot have, by key."""

    free: int
    has: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)


class Places(Generic[W]):
    """The places of all workers. Belongs to one event loop. `workers`: those that get jobs."""

    def __init__(self) -> None:
        self.workers: dict[W, State] = {}
        self._changed = asyncio.Event()

    def add(self, worker: W, places: int) -> None:
        """A worker is there, with so many places."""
        self.workers[worker] = State(places)
        self._changed.set()

    async def take(self, environment: str) -> W:
        """A place for a job in this environment; waits for one."""
        while not (able := [(w, s) for w, s in self.workers.items() if s.free and environment not in s.unfit]):
            self._changed.clear()
            await self._changed.wait()
        worker, state = max(able, key=lambda found: (environment in found[1].has, found[1].free))
        state.free -= 1
        state.has.add(environment)
        return worker

    def leave(self, worker: W) -> None:
        """The job is over; its place is free."""
        if worker in self.workers:
            self.workers[worker].free += 1
            self._changed.set()

    def refuse(self, worker: W, environment: str) -> bool:
        """The worker cannot have the environment. Whether another one may."""
        if worker in self.workers:
            self.workers[worker].unfit.add(environment)
        return any(environment not in state.unfit for state in self.workers.values())
