"""The client of OpenAI-compatible servers: retries, concurrency, usage. The only place that charges.

Every answered call is written to the trace (`Replied`, with its charge) before anybody sees the answer, and every
failed one that may have reached the model is charged too (`Charged`). Callers must not write these events themselves.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.config import Alias, is_loopback, prices_of
from agent.models.failures import Failure
from agent.models.limiter import Limiter, Slot
from agent.models.wires.base import Wire
from agent.secrets import masker
from harness.money.budget import BudgetKeeper, Hold
from harness.money.ledger import GpuMeter, bound, price
from harness.records import Budget, Charge, Json, Purpose, Usage
from harness.trace import Charged, Event, InfrastructureFailed, Replied
from tasks.errors import ContextTooLong, EndpointFailed

if TYPE_CHECKING:
    import httpx2
    from tenacity import RetryCallState

OUTPUT_BOUND = 8192
"""Output tokens reserved for a call whose alias sets no max_tokens; a longer answer is that call's own overrun."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer. `message`: the assistant message as the server sent it; `cut`: it was ended at the limit of its
    length."""

    message: Json
    charge: Charge
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a failing server is borne with, per call. Times in seconds.

    `tries` bounds failures other than 429 (being told to wait is no failure), `allowance` the whole time spent
    retrying. Waits grow from `first` to `longest`, with full jitter, unless the server says how long.
    """

    tries: int = 8
    allowance: float = 900.0
    first: float = 0.5
    longest: float = 30.0


class Connections:
    """What all clients share: one pool of connections per base URL, one limiter per alias, one GPU meter per server.

    Belongs to one event loop; `close` it at the end.
    """

    def __init__(self) -> None:
        self._pools: dict[str, httpx2.AsyncClient] = {}
        self._wires: dict[str, Wire] = {}
        self._limiters: dict[str, Limiter] = {}
        self._meters: dict[str, GpuMeter] = {}

    def wire(self, alias: Alias) -> Wire:
        """How the alias is spoken to. Raises EndpointFailed where its key is missing."""
        from agent.models.wires.chat import ChatWire

        if alias.alias not in self._wires:
            self._wires[alias.alias] = ChatWire(alias, self._pool(alias.base_url))
        return self._wires[alias.alias]

    def limiter(self, alias: Alias) -> Limiter:
        if alias.alias not in self._limiters:
            self._limiters[alias.alias] = Limiter(
                alias.concurrency,
                requests_per_minute=alias.requests_per_minute,
                tokens_per_minute=alias.tokens_per_minute,
            )
        return self._limiters[alias.alias]

    def meter(self, alias: Alias) -> GpuMeter:
        return self._meters.setdefault(alias.base_url, GpuMeter())

    def _pool(self, base_url: str) -> httpx2.AsyncClient:
        import httpx2

        if base_url not in self._pools:
            # Local servers (uvicorn) close idle connections after 5 s; being first avoids writing into a closing one.
            expiry = 30.0 if base_url.startswith("https:") else 4.0
            self._pools[base_url] = httpx2.AsyncClient(
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=expiry),
                trust_env=not is_loopback(base_url),
            )
        return self._pools[base_url]

    async def close(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        self._wires.clear()
        for pool in pools:
            await pool.aclose()


class ModelClient:
    """Calls one alias for one run."""

    def __init__(
        self,
        alias: Alias,
        connections: Connections,
        *,
        record: Callable[[Event], Event],
        keeper: BudgetKeeper | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`record` takes the events and gives them back as they were written, normally `Trace.write`. Raises
        EndpointFailed where the alias's key is missing."""
        self.alias = alias
        self._wire = connections.wire(alias)
        self._limiter = connections.limiter(alias)
        self._meter = connections.meter(alias)
        self._record = record
        self._keeper = keeper or BudgetKeeper(Budget())
        self._patience = patience or Patience()
        self._prices = prices_of(alias)
        self._mask = masker([alias.key_env] if alias.key_env else [])
        self._refused: set[str] = set()
        self._density = 0.4  # tokens per character of the request; conservative until the server has told

    @property
    def context(self) -> int:
        """Tokens that the model bears, as known by now."""
        return self.alias.context

    @property
    def takes_tools(self) -> bool:
        """Whether the server takes tools for this model, as known by now."""
        return self.alias.tools

    async def complete(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json] = (),
        *,
        purpose: Purpose,
        attempt: int | None,
        key: str,
        seed: int | None = None,
        temperature: float | None = None,
        longer: int = 0,
    ) -> Reply:
        """One charged call; its `Replied` event is written when this returns. `key`: its name within the run. `longer`:
        how many answers of this conversation were cut so far; each doubles the limit on the answer's length.

        Raises BudgetExceeded before a call that would pass a cap, ContextTooLong where the conversation does not fit,
        and EndpointFailed where the server refuses or keeps failing.
        """
        call = _Call(purpose, attempt, key)
        while True:
            request = self._wire.request(messages, tools, seed=seed, temperature=temperature, refused=self._refused)
            try:
                return await self._persist(request, call)
            except _Failed as failed:
                refused = failed.failure.refused_parameter(self._wire.optional(request))
                if refused is None:
                    raise self._explained(failed.failure, failed.tries, failed.seconds) from failed.__cause__
                self._refused.add(refused)

    async def _persist(self, request: Json, call: _Call) -> Reply:
        """Tries until an answer comes or patience ends; raises `_Failed` then."""
        from tenacity import AsyncRetrying, retry_if_exception

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, _Failed) and error.failure.retry),
            wait=self._wait,
            stop=self._out_of_patience,
            before_sleep=lambda state: self._note_retry(state, call),
            sleep=lambda seconds: self._sleep(seconds, call.attempt),
            reraise=True,
        )
        started = time.monotonic()
        tries = 0

        async def attempt_once() -> Reply:
            nonlocal tries
            tries += 1
            try:
                return await self._once(request, call)
            except _Failed as failed:
                call.failures += not failed.failure.rate_limited
                failed.tries, failed.seconds, failed.call = tries, time.monotonic() - started, call
                raise

        return await retrying(attempt_once)

    async def _once(self, request: Json, call: _Call) -> Reply:
        size = self._wire.characters(request)
        tokens_in = int(size * self._density) + 1
        tokens_out = self._wire.output_tokens(request) or OUTPUT_BOUND
        async with self._keeper.in_time(call.attempt):
            slot = await self._limiter.enter(tokens_in)
        try:
            hold = await self._keeper.reserve(
                call.attempt, bound(self._prices, tokens_in, tokens_out), tokens_in + tokens_out
            )
            try:
                reply = await self._post(request, call, slot, hold)
            finally:
                hold.release()
        finally:
            slot.leave(tokens=0)
        usage = reply.charge.usage
        if tokens := usage.input + usage.cache_read + usage.cache_write:
            self._density = 1.1 * tokens / size
        return reply

    async def _post(self, request: Json, call: _Call, slot: Slot, hold: Hold) -> Reply:
        """The call itself. Whatever happens, `hold` and `slot` get what really was used."""
        mark, started = self._meter.start(), time.monotonic()
        response: Any = None
        try:
            async with asyncio.timeout(self.alias.timeout):
                response = await self._wire.send(request)
            message = self._wire.message(response)
        except asyncio.CancelledError:
            self._charge(call, hold, None, time.monotonic() - started, self._meter.stop(mark), answered=False)
            raise
        except Exception as error:
            seconds, share = time.monotonic() - started, self._meter.stop(mark)
            failure = self._wire.failure(error)
            if failure is None:
                raise
            if failure.reached:
                self._charge(call, hold, self._wire.usage(response), seconds, share, answered=False)
                slot.leave()
            if failure.rate_limited:
                self._limiter.rejected(slot, failure.retry_after)
            raise _Failed(failure) from error
        seconds, share = time.monotonic() - started, self._meter.stop(mark)
        usage = self._wire.usage(response)
        charge = self._charge(call, hold, usage, seconds, share, answered=True)
        written = self._record(Replied(attempt=call.attempt, key=call.key, message=message, charge=charge))
        assert isinstance(written, Replied), "an event stays what it is"
        slot.leave(answered=True, tokens=usage.total if usage else None)
        return Reply(written.message, charge)

    def _charge(
        self, call: _Call, hold: Hold, usage: Usage | None, seconds: float, share: float, *, answered: bool
    ) -> Charge:
        """Settles the reservation; an unanswered call is written here, an answered one with its reply."""
        usd, source = price(self._prices, usage, share)
        charge = Charge(
            attempt=call.attempt,
            purpose=call.purpose,
            model=self.alias.alias,
            usage=usage or Usage(),
            usd=usd,
            price_source=source,
            seconds=seconds,
            answered=answered,
        )
        hold.settle(charge)
        if not answered:
            self._record(Charged(attempt=call.attempt, key=call.key, charge=charge))
        return charge

    def _wait(self, state: RetryCallState) -> float:
        failure, patience = _failure_of(state), self._patience
        if failure.retry_after is not None:
            # A little later than told, and not all together.
            return failure.retry_after + random.uniform(0, min(1.0, 0.25 * failure.retry_after))
        return random.uniform(0, min(patience.longest, patience.first * 2.0 ** min(state.attempt_number, 16)))

    def _out_of_patience(self, state: RetryCallState) -> bool:
        failed = _failed_of(state)
        if failed.call is not None and failed.call.failures >= self._patience.tries:
            return True
        return failed.seconds + (failed.failure.retry_after or 0.0) >= self._patience.allowance

    async def _sleep(self, seconds: float, attempt: int | None) -> None:
        """Never past a cap on time: the next reservation then says that the time is up."""
        left = self._keeper.seconds_left(attempt)
        await asyncio.sleep(seconds if left is None else max(0.0, min(seconds, left)))

    def _note_retry(self, state: RetryCallState, call: _Call) -> None:
        failure = _failure_of(state)
        detail = self._mask(f"{self.alias.alias}: {failure.what}: {failure.detail}")
        self._record(InfrastructureFailed(attempt=call.attempt, what="model", detail=detail, retried=True))

    def _explained(self, failure: Failure, tries: int, seconds: float) -> EndpointFailed:
        alias, server = self.alias, urlsplit(self.alias.base_url).netloc
        said = self._mask(failure.detail)
        if failure.too_long:
            return ContextTooLong(f"The conversation no longer fits {alias.alias} at {server}: {said}")
        if failure.retry:
            return EndpointFailed(
                f"The model server {server} kept failing ({tries} tries in {seconds:.0f} s), the last time with "
                f"{failure.what}: {said}. Is it up, and is base_url {alias.base_url} right?"
            )
        if failure.status in (401, 403):
            key = f"the key in {alias.key_env}" if alias.key_env else "a call without a key (set key_env in an alias)"
            return EndpointFailed(f"The model server {server} refused {key} ({failure.status}: {said}).")
        if failure.status == 404:
            return EndpointFailed(
                f"The model server {server} knows no model {alias.name!r} at {alias.base_url} (404: {said}): "
                "check the name, and that the URL ends in /v1 or as the server's manual says."
            )
        return EndpointFailed(f"The model server {server} refused the call for {alias.alias} ({failure.what}: {said}).")


@dataclass(slots=True)
class _Call:
    """What a call is for, and how often it has failed (429s not counted)."""

    purpose: Purpose
    attempt: int | None
    key: str
    failures: int = 0


class _Failed(Exception):
    """One try failed; carries what tenacity's callbacks and the final sentence need."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.tries = 1
        self.seconds = 0.0
        self.call: _Call | None = None


def _failed_of(state: RetryCallState) -> _Failed:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, _Failed)
    return error


def _failure_of(state: RetryCallState) -> Failure:
    return _failed_of(state).failure
