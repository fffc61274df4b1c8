"""Places for jobs on many machines: which worker gets the next one.

A job goes where its environment is, or is being made, as long as there is a place free; else to the worker with most
places free, which then gets the environment too. Jobs are served in order of arrival, but none waits behind one that
no free worker can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)


@dataclass(slots=True)
class _State:
    """A worker's free places, and the environments that it has and that it cannot have, by key."""

    free: int
    has: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)


class Places(Generic[W]):
    """The places of all workers. Belongs to one event loop."""

    def __init__(self) -> None:
        self._workers: dict[W, _State] = {}
        self._waiting: list[tuple[str, asyncio.Future[W]]] = []

    def __contains__(self, worker: W) -> bool:
        return worker in self._workers

    def __iter__(self) -> Iterator[W]:
        return iter(list(self._workers))

    def __len__(self) -> int:
        return len(self._workers)

    def add(self, worker: W, places: int) -> None:
        """A worker is there, with so many places."""
        self._workers[worker] = _State(places)
        self._serve()

    def remove(self, worker: W) -> None:
        """The worker gets no more jobs."""
        self._workers.pop(worker, None)

    async def take(self, environment: str) -> W:
        """A place for a job in this environment; waits for one."""
        granted: asyncio.Future[W] = asyncio.get_running_loop().create_future()
        self._waiting.append((environment, granted))
        self._serve()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.leave(granted.result())
            raise

    def leave(self, worker: W) -> None:
        """The job is over; its place is free."""
        if worker in self._workers:
            self._workers[worker].free += 1
            self._serve()

    def refuse(self, worker: W, environment: str) -> bool:
        """The worker cannot have the environment. Whether another one may."""
        if worker in self._workers:
            self._workers[worker].unfit.add(environment)
        return any(environment not in state.unfit for state in self._workers.values())

    def _serve(self) -> None:
        for waiting in list(self._waiting):
            environment, granted = waiting
            able = [w for w, state in self._workers.items() if state.free and environment not in state.unfit]
            if granted.done():
                self._waiting.remove(waiting)
            elif able:
                states = self._workers
                best = max(able, key=lambda w: (environment in states[w].has, states[w].free))
                states[best].free -= 1
                states[best].has.add(environment)
                self._waiting.remove(waiting)
                granted.set_result(best)
