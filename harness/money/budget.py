"""Budgets: caps that calls reserve from before they are made, so that concurrent attempts cannot pass them together.

A `BudgetKeeper` keeps the caps of one run. Many runs under one cap have a `SharedBudget` above their keepers: each of
them may spend up to the same level, the height at which the cap is all spent if every unfinished run came to it. So no
run takes what others still wait for, what a finished one left over raises the level for the rest, and together they
cannot pass the cap. Where something else says which run is to spend (adaptive sampling), each may spend whatever the
others have not (`fair` False).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from harness.records import Budget, Charge
from tasks.errors import BudgetExceeded

Limit = Literal["usd", "tokens"]

OPTIONS = {
    ("run", "usd"): "--max-usd",
    ("run", "tokens"): "--max-tokens",
    ("run", "seconds"): "--timeout",
    ("attempt", "usd"): "--max-attempt-usd",
    ("attempt", "seconds"): "--attempt-timeout",
    ("judge", "usd"): "--max-judge-usd",
}
"""What the user gives to raise a cap, by its scope and limit."""


@dataclass(slots=True, eq=False)
class Hold:
    """A reservation: `usd` and `tokens` are held for `attempt` until it is settled or released."""

    keeper: BudgetKeeper
    attempt: int | None
    usd: float
    tokens: int
    open: bool = True

    def settle(self, charge: Charge) -> None:
        """The call was answered, or may have reached the model: its charge takes the place of the reservation.

        A charge with no known price counts, for the caps only, as the reserved amount; unknown tokens likewise.
        """
        if not self.open:
            return
        usd = self.usd if charge.usd is None else charge.usd
        tokens = charge.usage.total or self.tokens
        self.keeper._close(self, usd, tokens)

    def release(self) -> None:
        """The call cost nothing (it never reached the model). Does nothing after `settle`."""
        if self.open:
            self.keeper._close(self, 0.0, 0)


@dataclass(slots=True)
class _Scope:
    """What is spent, and what is held for calls under way."""

    usd: float = 0.0
    tokens: int = 0
    held_usd: float = 0.0
    held_tokens: int = 0
    holds: int = 0


@dataclass(frozen=True, slots=True)
class _Cap:
    """A cap on money or tokens as it stands now (`most`: infinite where there is none). `why`: what it is, in words."""

    limit: Limit
    scope: str
    most: float
    spent: float
    held: float
    why: str = ""

    def exceeded(self, asked: float | None = None) -> BudgetExceeded:
        """The error where all is spent, or where what is left is less than the next call may take (`asked`)."""
        if self.limit == "usd":
            said, more = f"${self.spent:.4f} of ${self.most:.4f} is spent", f"cost ${asked or 0:.4f}"
        else:
            said, more = f"{self.spent} of {self.most:.0f} tokens are used", f"use {asked}"
        said += "" if asked is None else f" and the next call may {more}"
        return _exceeded(self.limit, self.scope, said + self.why)


@dataclass(slots=True, eq=False)
class _Waiter:
    attempt: int | None
    usd: float
    tokens: int
    granted: asyncio.Future[Hold] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BudgetKeeper:
    """Keeps the caps of one run: USD, tokens and wall seconds of the run, USD and wall seconds of each attempt, USD of
    the judge, whose calls belong to no attempt (None).

    A reservation that does not fit beside what is spent raises BudgetExceeded. One that would fit if the calls in
    flight turned out cheaper than reserved waits for them, in order of arrival.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        clock: Callable[[], float] = time.monotonic,
        elapsed: float = 0.0,
        share: Share | None = None,
    ) -> None:
        """`elapsed`: seconds that the run took before it was resumed. `share`: of a budget over many runs."""
        self.budget = budget
        self._share = share
        self._clock = clock
        self._started = clock() - elapsed
        self._attempt_started: dict[int, float] = {}
        self._run = _Scope()
        self._own: dict[int | None, _Scope] = {}
        self._waiters: deque[_Waiter] = deque()
        if share is not None:
            share.join(self._run, self._serve)

    @classmethod
    def from_charges(
        cls, budget: Budget, charges: Iterable[Charge], *, elapsed: float = 0.0, share: Share | None = None
    ) -> BudgetKeeper:
        """The keeper of a resumed run. A charge of unknown price counts as the dearest known one of its model so
        far."""
        keeper = cls(budget, elapsed=elapsed, share=share)
        dearest: dict[str, float] = {}
        for charge in charges:
            if charge.usd is not None:
                dearest[charge.model] = max(charge.usd, dearest.get(charge.model, 0.0))
            usd = dearest.get(charge.model, 0.0) if charge.usd is None else charge.usd
            for scope in keeper._scopes(charge.attempt):
                scope.usd += usd
                scope.tokens += charge.usage.total
        return keeper

    def _caps(self, attempt: int | None) -> tuple[_Cap, ...]:
        """The caps on money and tokens for a call of the attempt, or (None) of the judge."""
        budget, share, run, own = self.budget, self._share, self._run, self._scope(attempt)
        whole = (share.level("usd"), share.level("tokens")) if share else (math.inf, math.inf)
        beside = (share.held_elsewhere("usd"), share.held_elsewhere("tokens")) if share else (0, 0)
        usd, why_usd = _lower(_most(budget.usd), whole[0])
        tokens, why_tokens = _lower(_most(budget.tokens), whole[1])
        most, scope = (budget.judge_usd, "judge") if attempt is None else (budget.attempt_usd, "attempt")
        return (
            _Cap("usd", "run", usd, run.usd, run.held_usd + beside[0], why_usd),
            _Cap("tokens", "run", tokens, run.tokens, run.held_tokens + beside[1], why_tokens),
            _Cap("usd", scope, _most(most), own.usd, own.held_usd),
        )

    def capped(self, attempt: int | None) -> bool:
        """Whether any cap on money or tokens holds for a call of the attempt (None: of the judge)."""
        return any(cap.most < math.inf for cap in self._caps(attempt))

    def start_attempt(self, attempt: int, *, elapsed: float = 0.0) -> None:
        """The attempt's clock starts; `elapsed`: seconds that it took before a resume."""
        self._attempt_started[attempt] = self._clock() - elapsed

    def seconds_left(self, attempt: int | None = None) -> float | None:
        """Until the nearest wall-time cap of the run and of the attempt; None without one. May be negative."""
        return min((left for left, _, _ in self._deadlines(attempt)), default=None)

    @asynccontextmanager
    async def in_time(self, attempt: int | None = None) -> AsyncIterator[None]:
        """A block that a cap on wall time interrupts, with BudgetExceeded."""
        deadlines = self._deadlines(attempt)
        if not deadlines:
            yield
            return
        left, scope, cap = min(deadlines)
        try:
            async with asyncio.timeout(left) as timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise _time_up(scope, cap) from None

    def _deadlines(self, attempt: int | None) -> list[tuple[float, str, float]]:
        """(seconds left, scope, cap) of each wall-time cap."""
        now, caps = self._clock(), []
        if self.budget.seconds is not None:
            caps.append((self._started + self.budget.seconds - now, "run", self.budget.seconds))
        if self._share is not None and (shared := self._share.whole.seconds_left) is not None:
            caps.append((shared[0], "run", shared[1]))
        started = None if attempt is None else self._attempt_started.get(attempt)
        if started is not None and self.budget.attempt_seconds is not None:
            caps.append((started + self.budget.attempt_seconds - now, "attempt", self.budget.attempt_seconds))
        return caps

    def check(self, attempt: int | None = None) -> None:
        """Raises BudgetExceeded where a cap is reached already: time, or money or tokens spent to the last."""
        for left, scope, most in self._deadlines(attempt):
            if left <= 0:
                raise _time_up(scope, most)
        for cap in self._caps(attempt):
            if cap.spent >= cap.most:
                raise cap.exceeded()

    async def reserve(self, attempt: int | None, usd: float | None, tokens: int) -> Hold:
        """Holds the upper bound of a call's cost (`usd` None: no known price, nothing held) until it is settled.

        Waits while only other calls in flight stand in the way. Raises BudgetExceeded when it cannot fit, or when the
        time is up, also while waiting.
        """
        asked = usd or 0.0
        self.check(attempt)
        self._check_fit(attempt, asked, tokens)
        if not self._waiters and self._fits(attempt, asked, tokens):
            return self._grant(attempt, asked, tokens)
        waiter = _Waiter(attempt, asked, tokens)
        self._waiters.append(waiter)
        try:
            async with self.in_time(attempt):
                return await waiter.granted
        except (BudgetExceeded, asyncio.CancelledError):
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
            waiter.granted.result().release()
        self._serve()

    def _check_fit(self, attempt: int | None, usd: float, tokens: int) -> None:
        """Raises BudgetExceeded where the call does not fit even if every other call in flight came for free."""
        asked = {"usd": usd, "tokens": tokens}
        for cap in self._caps(attempt):
            if cap.spent + asked[cap.limit] > cap.most:
                raise cap.exceeded(asked[cap.limit])

    def _fits(self, attempt: int | None, usd: float, tokens: int) -> bool:
        asked = {"usd": usd, "tokens": tokens}
        return all(cap.spent + cap.held + asked[cap.limit] <= cap.most for cap in self._caps(attempt))

    def _grant(self, attempt: int | None, usd: float, tokens: int) -> Hold:
        for scope in self._scopes(attempt):
            scope.held_usd += usd
            scope.held_tokens += tokens
            scope.holds += 1
        return Hold(self, attempt, usd, tokens)

    def _close(self, hold: Hold, usd: float, tokens: int) -> None:
        hold.open = False
        for scope in self._scopes(hold.attempt):
            scope.holds -= 1
            # Set to zero with the last one, so that rounding errors of many additions never block a reservation.
            scope.held_usd = scope.held_usd - hold.usd if scope.holds else 0.0
            scope.held_tokens -= hold.tokens
            scope.usd += usd
            scope.tokens += tokens
        if self._share is not None:
            self._share.freed()
        self._serve()

    def _serve(self) -> None:
        """Grants waiters in order, refuses those that can no longer fit, and stops at the first that must wait on."""
        while self._waiters:
            waiter = self._waiters[0]
            try:
                self._check_fit(waiter.attempt, waiter.usd, waiter.tokens)
            except BudgetExceeded as refusal:
                self._waiters.popleft()
                if not waiter.granted.done():
                    waiter.granted.set_exception(refusal)
                continue
            if not self._fits(waiter.attempt, waiter.usd, waiter.tokens):
                return
            self._waiters.popleft()
            if not waiter.granted.done():
                waiter.granted.set_result(self._grant(waiter.attempt, waiter.usd, waiter.tokens))

    def _scope(self, attempt: int | None) -> _Scope:
        return self._own.setdefault(attempt, _Scope())

    def _scopes(self, attempt: int | None) -> tuple[_Scope, ...]:
        return (self._run, self._scope(attempt))


class SharedBudget:
    """Caps on USD, tokens and wall seconds over many runs, known by name; see the module's docstring.

    The seconds begin when this is made. A run is unfinished until `finish` says otherwise.
    """

    def __init__(
        self,
        budget: Budget,
        runs: Iterable[str] = (),
        *,
        fair: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self.fair = fair
        self._clock = clock
        self._started = clock()
        self.shares = {name: Share(self) for name in runs}

    def note(self, run: str, usd: float, tokens: int) -> None:
        """What the run has spent by now, where no keeper tells."""
        self._share(run).spent = _Scope(usd, tokens)

    def finish(self, run: str) -> None:
        """The run needs no more: what it left is for the others."""
        share = self._share(run)
        share.finished, share.serve = True, None

    def share(self, run: str) -> Share:
        """The run's part, for its keeper; it counts as unfinished from now on."""
        share = self._share(run)
        share.finished = False
        return share

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        """(seconds until the wall-time cap, the cap); None without one."""
        seconds = self.budget.seconds
        return None if seconds is None else (self._started + seconds - self._clock(), seconds)

    def level(self, limit: Limit, share: Share | None = None) -> float:
        """USD or tokens that the run of the share may have spent in all, as it stands now; infinite without a cap.

        It is the height L with: the sum over unfinished runs of max(spent, L) is what finished ones left of the cap;
        where it is not shared fairly, what all other runs have left.
        """
        cap, shares = _most(getattr(self.budget, limit)), self.shares.values()
        if not self.fair or cap == math.inf:
            return cap - sum(each.used(limit) for each in shares if each is not share)
        left = cap - sum(each.used(limit) for each in shares if each.finished)
        unfinished = sorted((each.used(limit) for each in shares if not each.finished), reverse=True)
        for place, amount in enumerate(unfinished):
            level = left / (len(unfinished) - place)
            if amount < level:
                return level
            left -= amount
        return max(left, 0.0) if not unfinished else 0.0

    def _share(self, run: str) -> Share:
        return self.shares.setdefault(run, Share(self))


@dataclass(slots=True, eq=False)
class Share:
    """One run's part in a `SharedBudget`: what it has spent and holds, and caps that move with what the others do.
    `serve` is called where room for the run's waiting calls may have come."""

    whole: SharedBudget
    spent: _Scope = field(default_factory=_Scope)
    finished: bool = False
    serve: Callable[[], None] | None = None

    def join(self, spent: _Scope, serve: Callable[[], None]) -> None:
        """A keeper tells from now on what the run spends and holds."""
        self.spent, self.serve = spent, serve

    def used(self, limit: Limit) -> float:
        """USD or tokens that the run has spent."""
        return self.spent.usd if limit == "usd" else self.spent.tokens

    def level(self, limit: Limit) -> float:
        """USD or tokens that the run may have spent in all, as it stands now; infinite without a cap."""
        return self.whole.level(limit, self)

    def held_elsewhere(self, limit: Limit) -> float:
        """USD or tokens that other runs hold; nothing where each has a level of its own."""
        others = [] if self.whole.fair else [each.spent for each in self.whole.shares.values() if each is not self]
        return sum(each.held_usd if limit == "usd" else each.held_tokens for each in others)

    def freed(self) -> None:
        """A call of the run has ended: those of other runs that wait for what it held go on."""
        for other in () if self.whole.fair else self.whole.shares.values():
            if other is not self and other.serve is not None:
                other.serve()


def _most(cap: float | None) -> float:
    return math.inf if cap is None else cap


def _lower(own: float, share: float) -> tuple[float, str]:
    return (own, "") if own <= share else (share, " (its share of what the whole evaluation has)")


def _time_up(scope: str, cap: float) -> BudgetExceeded:
    return _exceeded("seconds", scope, f"its {cap:g} s are up")


def _exceeded(limit: str, scope: str, what: str) -> BudgetExceeded:
    option = OPTIONS.get((scope, limit), "")
    more = f" (more: {option})" if option else ""
    return BudgetExceeded(f"The budget of the {scope} is reached: {what}{more}.", limit=limit, scope=scope)
