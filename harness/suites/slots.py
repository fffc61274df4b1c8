"""Places for the attempts of many runs: how many go on at a time, and whose turn it is.

Each run has a lane; a free place goes to the earliest lane that waits. So the attempts of one run are near each other
in time (its prompts are still in the server's caches), and the next run's attempts fill the places that its last ones
leave. Lanes that say what a place is worth to them (`urgency`) come in the order of that.
"""

import asyncio
import itertools
from collections.abc import Callable


class Slots:
    """`places` attempts at a time, over all lanes."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._waiting: list[_Waiting] = []
        self._arrivals = itertools.count()
        self._lanes: set[Lane] = set()
        self._changed = asyncio.Event()

    def lane(self, order: int, expected: int) -> "Lane":
        """A lane; the lowest `order` goes first. `expected`: attempts that will come by it."""
        lane = Lane(self, order, expected)
        self._lanes.add(lane)
        return lane

    @property
    def demand(self) -> int:
        """Attempts that are expected and have not begun."""
        return sum(lane.expected for lane in self._lanes)

    def resize(self, places: int) -> None:
        """So many at a time from now on. Attempts that go on are left to their end, though they be more."""
        more, self.places = places - self.places, places
        self._leave(more)

    async def hungry(self) -> None:
        """Wait until fewer attempts are to come than there are places, so that another run had better be prepared."""
        while self.demand >= self.places:
            self._changed.clear()
            await self._changed.wait()

    def _leave(self, places: int = 1) -> None:
        self._free += places
        while self._free > 0 and self._waiting:
            first = min(self._waiting, key=lambda each: (-each[0].urgency(), each[0].order, each[1]))
            self._waiting.remove(first)
            granted = first[2]
            if not granted.done():
                self._free -= 1
                granted.set_result(None)
        self._changed.set()


class Lane:
    """One run's way to the places: a context in which an attempt has one; it may be entered many times at once."""

    def __init__(self, slots: Slots, order: int, expected: int) -> None:
        self.order = order
        self.expected = expected
        self.urgency: Callable[[], float] = lambda: 0.0
        self._slots = slots

    async def __aenter__(self) -> None:
        slots = self._slots
        if slots._free > 0 and not slots._waiting:
            slots._free -= 1
        else:
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            slots._waiting.append((self, next(slots._arrivals), granted))
            try:
                await granted
            except asyncio.CancelledError:
                if granted.done() and not granted.cancelled():
                    slots._leave()
                raise
        self.expect(max(0, self.expected - 1))

    async def __aexit__(self, *error: object) -> None:
        self._slots._leave()

    def expect(self, attempts: int) -> None:
        """How many attempts will come by it after all."""
        self.expected = attempts
        self._slots._changed.set()

    def close(self) -> None:
        """The run expects nothing any more."""
        self._slots._lanes.discard(self)
        self._slots._changed.set()


_Waiting = tuple[Lane, int, asyncio.Future[None]]
"""A lane that waits for a place, when it came, and what is set when it gets one."""
