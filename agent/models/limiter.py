"""How many calls a model's server gets at once, and how many a minute.

Concurrency adapts to what the server bears (additive increase, multiplicative decrease, as TCP does): it is halved by a
429, once for all calls that were in flight together, and grows by one for each round of answered calls, up to its
ceiling: the alias's `concurrency`, else as many as attempts go on at a time. Rates are token buckets that hold ten
seconds' worth. Waiting calls are served in order of arrival.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

BURST_SECONDS = 10.0


class _Bucket:
    """A rate per minute (None: any). A request larger than the bucket is admitted when it is full, and leaves a
    debt."""

    def __init__(self, per_minute: float | None) -> None:
        self._rate = (per_minute or 0.0) / 60
        self._size = max(1.0, self._rate * BURST_SECONDS)
        self._level = self._size
        self._at = time.monotonic()

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is admitted; 0 means now."""
        now = time.monotonic()
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        missing = min(amount, self._size) - self._level
        # A hair's breadth is waved through: the timer that wakes us may fire that much early.
        return missing / self._rate if self._rate and missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        self._level -= amount


@dataclass(slots=True, eq=False)
class Slot:
    """The right to make one call; `leave` gives it back. `epoch`: the limiter's cuts at the time of entry."""

    limiter: "Limiter"
    tokens: int
    epoch: int
    open: bool = True

    def leave(self, *, answered: bool = False, tokens: int | None = None) -> None:
        """The call is over. `tokens`: what it really used (None: unknown, the estimate stands). Can be called again."""
        if self.open:
            self.open = False
            self.limiter._left(self, answered, tokens)


class Limiter:
    """Admits calls to one alias. Belongs to one event loop; safe against cancellation at every await."""

    def __init__(
        self, concurrency: int, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.ceiling = concurrency
        self._limit = float(concurrency)
        self._in_flight = 0
        self._epoch = 0
        self._paused_until = 0.0
        self._requests = _Bucket(requests_per_minute)
        self._tokens = _Bucket(tokens_per_minute)
        self._turn = asyncio.Lock()  # whose it is waits for `_changed`; all others wait for it, in order
        self._changed = asyncio.Event()

    @property
    def limit(self) -> int:
        """Calls allowed at once now."""
        return int(self._limit)

    def allow(self, ceiling: int) -> None:
        """So many calls at once at most from now on (also: fewer), and so many now unless a 429 has cut them."""
        self._limit = float(ceiling) if self._limit >= self.ceiling else min(self._limit, ceiling)
        self.ceiling = ceiling
        self._changed.set()

    async def enter(self, tokens: int) -> Slot:
        """Waits for a turn. `tokens`: how many the call will use, estimated."""
        async with self._turn:
            while (delay := self._delay(tokens)) != 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._changed.wait()
            self._in_flight += 1
            self._requests.take(1)
            self._tokens.take(tokens)
            return Slot(self, tokens, self._epoch)

    def rejected(self, slot: Slot, retry_after: float | None) -> None:
        """The server said 429: fewer calls at once, and none before `retry_after` seconds have passed."""
        if slot.epoch == self._epoch:
            self._epoch += 1
            self._limit = max(1.0, self._limit / 2)
        if retry_after:
            self._paused_until = max(self._paused_until, time.monotonic() + retry_after)

    def _left(self, slot: Slot, answered: bool, tokens: int | None) -> None:
        self._in_flight -= 1
        if answered:
            self._limit = min(float(self.ceiling), self._limit + 1 / self._limit)
        if tokens is not None:
            self._tokens.take(tokens - slot.tokens)
        self._changed.set()

    def _delay(self, tokens: int) -> float | None:
        """Seconds until a call may start; None: when another one has ended."""
        if self._in_flight >= self.limit:
            return None
        paused = self._paused_until - time.monotonic()
        return max(0.0, paused, self._requests.wait(1), self._tokens.wait(tokens))
