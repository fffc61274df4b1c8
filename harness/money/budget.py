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
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from harness.records import Budget, Charge
from tasks.errors import BudgetExceeded, InputError

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
    """A reservation: `usd` and `tokens` are held for `attempt` from when it is granted until it is settled or
    released."""

    keeper: BudgetKeeper
    attempt: int | None
    usd: float
    tokens: int

    def settle(self, charge: Charge) -> None:
        """The call was answered, or may have reached the model: its charge takes the place of the reservation.

        A charge with no known price counts, for the caps only, as the reserved amount; unknown tokens likewise."""
        usd = self.usd if charge.usd is None else charge.usd
        self.keeper._close(self, usd, charge.usage.total or self.tokens)

    def release(self) -> None:
        """The call cost nothing (it never reached the model). Does nothing after `settle`."""
        self.keeper._close(self, 0.0, 0)


@dataclass(slots=True)
class _Scope:
    """What is spent, and the reservations of calls under way."""

    spent: dict[Limit, float] = field(default_factory=lambda: {"usd": 0.0, "tokens": 0})
    holds: list[Hold] = field(default_factory=list)

    def held(self, limit: Limit) -> float:
        return sum(hold.usd if limit == "usd" else hold.tokens for hold in self.holds)

    def spend(self, usd: float, tokens: int) -> None:
        self.spent["usd"] += usd
        self.spent["tokens"] += tokens


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


class BudgetKeeper:
    """Keeps the caps of one run: USD, tokens and wall seconds of the run, USD and wall seconds of each attempt, USD of
    the judge, whose calls belong to no attempt (None).

    A reservation that does not fit beside what is spent raises BudgetExceeded. One that would fit if the calls in
    flight turned out cheaper than reserved waits for them, in order of arrival."""

    def __init__(
        self,
        budget: Budget,
        charges: Iterable[Charge] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        elapsed: float = 0.0,
        share: Share | None = None,
    ) -> None:
        """`charges`, `elapsed`: what the run was charged, and the seconds that it took, before it was resumed. A charge
        of unknown price counts as the dearest known one of its model so far. `share`: of a budget over many runs."""
        self.budget = budget
        self._share = share or SharedBudget(Budget()).share("")
        self._clock = clock
        self._started = clock() - elapsed
        self._attempt_started: dict[int, float] = {}
        self._run = _Scope()
        self._own = defaultdict[int | None, _Scope](_Scope)
        self._turn = asyncio.Lock()  # whose it is waits for `_changed`; all others wait for it, in order
        self._changed = asyncio.Event()
        self._share.scope, self._share.serve = self._run, self._changed.set
        dearest: dict[str, float] = {}
        for charge in charges:
            if charge.usd is not None:
                dearest[charge.model] = max(charge.usd, dearest.get(charge.model, 0.0))
            usd = dearest.get(charge.model, 0.0) if charge.usd is None else charge.usd
            for scope in self._scopes(charge.attempt):
                scope.spend(usd, charge.usage.total)

    def _caps(self, attempt: int | None) -> tuple[_Cap, ...]:
        """The caps on money and tokens for a call of the attempt, or (None) of the judge."""
        judge = attempt is None
        most, own = self.budget.judge_usd if judge else self.budget.attempt_usd, self._own[attempt]
        last = _Cap("usd", "judge" if judge else "attempt", _most(most), own.spent["usd"], own.held("usd"))
        return (self._run_cap("usd"), self._run_cap("tokens"), last)

    def _run_cap(self, limit: Limit) -> _Cap:
        most, level, why = _most(getattr(self.budget, limit)), self._share.whole.level(limit, self._share), ""
        held = self._run.held(limit) + sum(each.scope.held(limit) for each in self._share.rivals)
        if level < most:
            most, why = level, " (its share of what the whole evaluation has)"
        return _Cap(limit, "run", most, self._run.spent[limit], held, why)

    def change(self, budget: Budget) -> None:
        """Other caps hold from now on, also for calls that wait. Raises InputError for one that cannot be kept."""
        _check_caps(budget, self.budget, [self._run])
        self.budget = budget
        self._changed.set()

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
            raise _exceeded("seconds", scope, f"its {cap:g} s are up") from None

    def _deadlines(self, attempt: int | None) -> list[tuple[float, str, float]]:
        """(seconds left, scope, cap) of each wall-time cap."""
        now, caps = self._clock(), []
        if self.budget.seconds is not None:
            caps.append((self._started + self.budget.seconds - now, "run", self.budget.seconds))
        if (shared := self._share.whole.seconds_left) is not None:
            caps.append((shared[0], "run", shared[1]))
        started = None if attempt is None else self._attempt_started.get(attempt)
        if started is not None and self.budget.attempt_seconds is not None:
            caps.append((started + self.budget.attempt_seconds - now, "attempt", self.budget.attempt_seconds))
        return caps

    def check(self, attempt: int | None = None) -> None:
        """Raises BudgetExceeded where a cap is reached already: time, or money or tokens spent to the last."""
        for left, scope, most in self._deadlines(attempt):
            if left <= 0:
                raise _exceeded("seconds", scope, f"its {most:g} s are up")
        for cap in self._caps(attempt):
            if cap.spent >= cap.most:
                raise cap.exceeded()

    async def reserve(self, attempt: int | None, usd: float | None, tokens: int) -> Hold:
        """Holds the upper bound of a call's cost (`usd` None: no known price, nothing held) until it is settled.

        Waits while only other calls in flight stand in the way. Raises BudgetExceeded when it cannot fit, or when the
        time is up, also while waiting."""
        hold = Hold(self, attempt, usd or 0.0, tokens)
        self.check(attempt)
        self._fits(hold)  # what can never fit does not wait
        async with self.in_time(attempt), self._turn:
            while not self._fits(hold):
                self._changed.clear()
                await self._changed.wait()
            for scope in self._scopes(attempt):
                scope.holds.append(hold)
        return hold

    def _fits(self, hold: Hold) -> bool:
        """Whether the call fits beside those in flight. Raises BudgetExceeded where it would not even if every other
        one came for free."""
        caps = self._caps(hold.attempt)
        for cap in caps:
            asked = getattr(hold, cap.limit)
            if cap.spent + asked > cap.most:
                raise cap.exceeded(asked)
        return all(cap.spent + cap.held + getattr(hold, cap.limit) <= cap.most for cap in caps)

    def _close(self, hold: Hold, usd: float, tokens: int) -> None:
        if hold not in self._run.holds:
            return
        for scope in self._scopes(hold.attempt):
            scope.holds.remove(hold)
            scope.spend(usd, tokens)
        for other in self._share.rivals:
            other.serve()
        self._changed.set()

    def _scopes(self, attempt: int | None) -> tuple[_Scope, ...]:
        return (self._run, self._own[attempt])


class SharedBudget:
    """Caps on USD, tokens and wall seconds over many runs, known by name; see the module's docstring.

    The seconds begin when this is made. A run is unfinished until `finish` says otherwise."""

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
        self.shares = defaultdict[str, Share](lambda: Share(self), {name: Share(self) for name in runs})

    def note(self, run: str, usd: float, tokens: int) -> None:
        """What the run has spent by now, where no keeper tells."""
        self.shares[run].scope = _Scope({"usd": usd, "tokens": tokens})

    def finish(self, run: str) -> None:
        """The run needs no more: what it left is for the others."""
        share = self.shares[run]
        share.finished, share.serve = True, lambda: None

    def share(self, run: str) -> Share:
        """The run's part, for its keeper; it counts as unfinished from now on."""
        share = self.shares[run]
        share.finished = False
        return share

    def change(self, budget: Budget) -> None:
        """Other caps hold from now on, also for calls that wait. Raises InputError for one that cannot be kept."""
        _check_caps(budget, self.budget, [share.scope for share in self.shares.values()])
        self.budget = budget
        for share in self.shares.values():
            share.serve()

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        """(seconds until the wall-time cap, the cap); None without one."""
        seconds = self.budget.seconds
        return None if seconds is None else (self._started + seconds - self._clock(), seconds)

    def level(self, limit: Limit, share: Share | None = None) -> float:
        """USD or tokens that the run of the share may have spent in all, as it stands now; infinite without a cap.

        It is the height L with: the sum over unfinished runs of max(spent, L) is what finished ones left of the cap;
        where it is not shared fairly, what all other runs have left."""
        cap, shares = _most(getattr(self.budget, limit)), self.shares.values()
        if not self.fair or cap == math.inf:
            return cap - sum(each.scope.spent[limit] for each in shares if each is not share)
        left = cap - sum(each.scope.spent[limit] for each in shares if each.finished)
        unfinished = sorted((each.scope.spent[limit] for each in shares if not each.finished), reverse=True)
        for place, amount in enumerate(unfinished):
            level = left / (len(unfinished) - place)
            if amount < level:
                return level
            left -= amount
        return max(left, 0.0) if not unfinished else 0.0


@dataclass(slots=True, eq=False)
class Share:
    """One run's part in a `SharedBudget`: what it has spent and holds, and caps that move with what the others do.
    `serve` is called where room for the run's waiting calls may have come."""

    whole: SharedBudget
    scope: _Scope = field(default_factory=_Scope)
    finished: bool = False
    serve: Callable[[], None] = lambda: None

    @property
    def rivals(self) -> list[Share]:
        """The parts of the other runs that what this one holds is held from; none where each has its own level."""
        return [] if self.whole.fair else [each for each in self.whole.shares.values() if each is not self]


def _check_caps(wished: Budget, now: Budget, scopes: list[_Scope]) -> None:
    limits: tuple[Limit, ...] = ("usd", "tokens")
    for limit in limits:
        cap, gone = getattr(wished, limit), sum(scope.spent[limit] + scope.held(limit) for scope in scopes)
        if cap is not None and cap != getattr(now, limit) and cap < gone:
            said = f"{OPTIONS['run', limit]} {cap:.10g} is below what is spent and held for calls under way"
            raise InputError(f"{said}, {gone:.10g}: nothing is changed")


def _most(cap: float | None) -> float:
    return math.inf if cap is None else cap


def _exceeded(limit: str, scope: str, what: str) -> BudgetExceeded:
    option = OPTIONS.get((scope, limit), "")
    more = f" (more: {option})" if option else ""
    return BudgetExceeded(f"The budget of the {scope} is reached: {what}{more}.", limit=limit, scope=scope)
