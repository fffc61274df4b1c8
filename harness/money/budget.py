"""Budgets: caps that calls reserve from before they are made, so that concurrent attempts cannot pass them together.

A `BudgetKeeper` keeps the caps of one run. Many runs under one cap have a `SharedBudget` above their keepers: each of
them may spend up to the same level, the height at which the cap is all spent if every unfinished run came to it. So no
run takes what others still wait for, what a finished one left over raises the level for the rest, and together they
cannot pass the cap. Where something else says which run is to spend (adaptive sampling), each may spend whatever the
others have not (`fair` False).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from harness.records import Budget, Charge
from tasks.errors import BudgetExceeded

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
    usd: float = 0.0
    tokens: int = 0
    held_usd: float = 0.0
    held_tokens: int = 0
    holds: int = 0


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
            share.join(self._serve)

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
        if share is not None:
            keeper._tell()
        return keeper

    def _usd_cap(self) -> tuple[float | None, str]:
        """The cap on the run's USD as it stands now, and what it is, in words."""
        return _lower(self.budget.usd, self._share.usd if self._share else None)

    def _tokens_cap(self) -> tuple[float | None, str]:
        return _lower(self.budget.tokens, self._share.tokens if self._share else None)

    def capped(self, attempt: int | None) -> bool:
        """Whether any cap on money or tokens holds for a call of the attempt (None: of the judge)."""
        caps = (self._usd_cap()[0], self._tokens_cap()[0], self._own_cap(attempt)[0])
        return any(cap is not None for cap in caps)

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
        if self._share is not None and (shared := self._share.seconds_left) is not None:
            caps.append((shared[0], "run", shared[1]))
        started = None if attempt is None else self._attempt_started.get(attempt)
        if started is not None and self.budget.attempt_seconds is not None:
            caps.append((started + self.budget.attempt_seconds - now, "attempt", self.budget.attempt_seconds))
        return caps

    def check(self, attempt: int | None = None) -> None:
        """Raises BudgetExceeded where a cap is reached already: time, or money or tokens spent to the last."""
        self._check_time(attempt)
        run = self._run
        usd, which = self._usd_cap()
        if usd is not None and run.usd >= usd:
            raise _exceeded("usd", "run", f"${run.usd:.4f} of ${usd:.4f} is spent{which}")
        tokens, which = self._tokens_cap()
        if tokens is not None and run.tokens >= tokens:
            raise _exceeded("tokens", "run", f"{run.tokens} of {tokens:.0f} tokens are used{which}")
        own, whose = self._own_cap(attempt)
        if own is not None and (spent := self._scope(attempt).usd) >= own:
            raise _exceeded("usd", whose, f"${spent:.4f} of ${own:.4f} is spent")

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

    def _check_time(self, attempt: int | None) -> None:
        for left, scope, cap in self._deadlines(attempt):
            if left <= 0:
                raise _time_up(scope, cap)

    def _check_fit(self, attempt: int | None, usd: float, tokens: int) -> None:
        """Raises BudgetExceeded where the call does not fit even if every other call in flight came for free."""
        run = self._run
        cap, which = self._usd_cap()
        if cap is not None and run.usd + usd > cap:
            raise _exceeded("usd", "run", f"{_spent(run.usd, cap, usd)}{which}")
        cap, which = self._tokens_cap()
        if cap is not None and run.tokens + tokens > cap:
            said = f"{run.tokens} of {cap:.0f} tokens are used and the next call may use {tokens}"
            raise _exceeded("tokens", "run", f"{said}{which}")
        own, whose = self._own_cap(attempt)
        if own is not None and (spent := self._scope(attempt).usd) + usd > own:
            raise _exceeded("usd", whose, _spent(spent, own, usd))

    def _fits(self, attempt: int | None, usd: float, tokens: int) -> bool:
        run = self._run
        elsewhere_usd, elsewhere_tokens = self._share.held_elsewhere if self._share else (0.0, 0.0)
        cap, _ = self._usd_cap()
        if cap is not None and run.usd + run.held_usd + elsewhere_usd + usd > cap:
            return False
        cap, _ = self._tokens_cap()
        if cap is not None and run.tokens + run.held_tokens + elsewhere_tokens + tokens > cap:
            return False
        own, _ = self._own_cap(attempt)
        scope = self._scope(attempt)
        return own is None or scope.usd + scope.held_usd + usd <= own

    def _grant(self, attempt: int | None, usd: float, tokens: int) -> Hold:
        for scope in self._scopes(attempt):
            scope.held_usd += usd
            scope.held_tokens += tokens
            scope.holds += 1
        self._tell()
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
        self._tell()
        self._serve()

    def _tell(self) -> None:
        if self._share is not None:
            self._share.note(self._run.usd, self._run.tokens, self._run.held_usd, self._run.held_tokens)

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

    def _own_cap(self, attempt: int | None) -> tuple[float | None, str]:
        """The cap on the USD of an attempt, or (None) of the judge, and whose it is."""
        return (self.budget.judge_usd, "judge") if attempt is None else (self.budget.attempt_usd, "attempt")

    def _scope(self, attempt: int | None) -> _Scope:
        return self._own.setdefault(attempt, _Scope())

    def _scopes(self, attempt: int | None) -> tuple[_Scope, ...]:
        return (self._run, self._scope(attempt))


@dataclass(slots=True)
class _Member:
    usd: float = 0.0
    tokens: float = 0.0
    held_usd: float = 0.0
    held_tokens: float = 0.0
    finished: bool = False
    serve: Callable[[], None] | None = None


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
        self._members = {name: _Member() for name in runs}

    def note(self, run: str, usd: float, tokens: float, held_usd: float = 0.0, held_tokens: float = 0.0) -> None:
        """What the run has spent by now, and what it holds for calls under way. Calls of other runs that wait for that
        go on."""
        member = self._member(run)
        freed = held_usd < member.held_usd or held_tokens < member.held_tokens
        member.usd, member.tokens = usd, tokens
        member.held_usd, member.held_tokens = held_usd, held_tokens
        if freed and not self.fair:
            for other in self._members.values():
                if other is not member and other.serve is not None:
                    other.serve()

    def join(self, run: str, serve: Callable[[], None]) -> None:
        """`serve` is called where room for the run's waiting calls may have come."""
        self._member(run).serve = serve

    def finish(self, run: str) -> None:
        """The run needs no more: what it left is for the others."""
        member = self._member(run)
        member.finished, member.serve = True, None

    def share(self, run: str) -> Share:
        """The run's part, for its keeper; it counts as unfinished from now on."""
        self._member(run).finished = False
        return Share(self, run)

    def usd_level(self, run: str = "") -> float | None:
        """USD that the run may have spent in all, as it stands now; None without a cap."""
        return self._level(run, self.budget.usd, lambda member: member.usd)

    def tokens_level(self, run: str = "") -> float | None:
        return self._level(run, self.budget.tokens, lambda member: member.tokens)

    def held_elsewhere(self, run: str) -> tuple[float, float]:
        """(USD, tokens) that other runs hold; nothing where each has a level of its own."""
        others = [] if self.fair else [m for name, m in self._members.items() if name != run]
        return sum(m.held_usd for m in others), sum(m.held_tokens for m in others)

    def seconds_left(self) -> tuple[float, float] | None:
        """(seconds until the wall-time cap, the cap); None without one."""
        seconds = self.budget.seconds
        return None if seconds is None else (self._started + seconds - self._clock(), seconds)

    def _level(self, run: str, cap: float | None, spent: Callable[[_Member], float]) -> float | None:
        """The height L with: the sum over unfinished runs of max(spent, L) is what finished ones left of the cap; where
        it is not shared fairly, what all other runs have left."""
        if cap is None:
            return None
        if not self.fair:
            return cap - sum(spent(m) for name, m in self._members.items() if name != run)
        left = cap - sum(spent(m) for m in self._members.values() if m.finished)
        unfinished = sorted((spent(m) for m in self._members.values() if not m.finished), reverse=True)
        for place, amount in enumerate(unfinished):
            level = left / (len(unfinished) - place)
            if amount < level:
                return level
            left -= amount
        return max(left, 0.0) if not unfinished else 0.0

    def _member(self, run: str) -> _Member:
        return self._members.setdefault(run, _Member())


@dataclass(frozen=True, slots=True)
class Share:
    """One run's part in a `SharedBudget`: caps that move with what the others do."""

    whole: SharedBudget
    run: str

    @property
    def usd(self) -> float | None:
        return self.whole.usd_level(self.run)

    @property
    def tokens(self) -> float | None:
        return self.whole.tokens_level(self.run)

    @property
    def held_elsewhere(self) -> tuple[float, float]:
        return self.whole.held_elsewhere(self.run)

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        return self.whole.seconds_left()

    def join(self, serve: Callable[[], None]) -> None:
        self.whole.join(self.run, serve)

    def note(self, usd: float, tokens: float, held_usd: float = 0.0, held_tokens: float = 0.0) -> None:
        """What the run has spent by now, and what it holds."""
        self.whole.note(self.run, usd, tokens, held_usd, held_tokens)


def _lower(own: float | None, share: float | None) -> tuple[float | None, str]:
    if share is None or (own is not None and own <= share):
        return own, ""
    return share, " (its share of what the whole evaluation has)"


def _time_up(scope: str, cap: float) -> BudgetExceeded:
    return _exceeded("seconds", scope, f"its {cap:g} s are up")


def _spent(spent: float, cap: float, next_call: float) -> str:
    return f"${spent:.4f} of ${cap:.4f} is spent and the next call may cost ${next_call:.4f}"


def _exceeded(limit: str, scope: str, what: str) -> BudgetExceeded:
    option = OPTIONS.get((scope, limit), "")
    more = f" (more: {option})" if option else ""
    return BudgetExceeded(f"The budget of the {scope} is reached: {what}{more}.", limit=limit, scope=scope)
