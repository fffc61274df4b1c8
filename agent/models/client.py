"""The client of model servers, whatever their wire: retries, concurrency, usage. The only place that charges.

Every answered call is written to the trace (`Replied`, with its charge) before anybody sees the answer, and every
failed one that may have reached the model is charged too (`Charged`). Callers must not write these events themselves.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from agent.config import CONTEXT, Alias, prices_of
from agent.models.connections import Connections
from agent.models.failures import Failure
from agent.models.limiter import Slot
from agent.models.usage import Bill
from agent.models.wires.base import Wire, Wish
from agent.secrets import masker
from harness.money.budget import BudgetKeeper, Hold
from harness.money.ledger import PROVIDER, bound, price
from harness.records import Budget, Charge, Json, Purpose, Usage
from harness.trace import Asked, Charged, Event, InfrastructureFailed, Replied
from tasks.errors import BudgetExceeded, CallRefused, ContextTooLong, EndpointFailed, ReplyUnreadable, ToolsRefused

OUTPUT_BOUND = 8192
"""Output tokens that a call is sent with under a cap on money or tokens, and reserves; doubled for each cut answer."""
LEAST_OUTPUT = 256
MOST_CHANGES = 12
"""Of a request, because of what a server refuses in it, before the refusal is believed."""
OTHER_SEEDS = 2
"""Tried where a server cannot read what its own model wrote."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a failing server is borne with, per call. Times in seconds.

    `tries` bounds failures other than 429 (being told to wait is no failure), `allowance` the whole time spent
    retrying. Waits grow from `first` to `longest`, with full jitter, unless the server says how long."""

    tries: int = 8
    allowance: float = 900.0
    first: float = 0.5
    longest: float = 30.0


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
        EndpointFailed where the alias's key, or a package that its API needs, is missing."""
        self.alias = alias
        self.connections = connections
        connections.wire(alias)
        self._limiter = connections.limiter(alias)
        self._meter = connections.meters[alias.base_url]
        self._record = record
        self._keeper = keeper or BudgetKeeper(Budget())
        self._patience = patience or Patience()
        self.prices = prices_of(alias)
        self.mask = masker([alias.key_env] if alias.key_env else [])
        self._density = 0.4  # tokens per character of the request; conservative until the server has told
        self._cut_at = 0  # tokens of the longest answer that was cut

    @property
    def wire(self) -> Wire:
        """How the alias is spoken to now."""
        return self.connections.wire(self.alias)

    @property
    def context(self) -> int:
        """Tokens that the model bears, as known by now."""
        return self._known_context or CONTEXT

    @property
    def takes_tools(self) -> bool:
        """Whether the server takes tools for this model, as known by now."""
        return self.wire.dialect.tools

    @property
    def _known_context(self) -> int | None:
        return min((n for n in (self.alias.context, self.wire.dialect.context) if n), default=None)

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
        output: int | None = None,
    ) -> Replied:
        """One charged call; its `Replied` event is written when this returns. `key`: its name within the run. `longer`:
        how many answers of this conversation were cut so far; each doubles the limit on the answer's length, as far as
        the budget goes. `output`: a limit in place of the usual one.

        Raises BudgetExceeded before a call that would pass a cap; CallRefused (ContextTooLong, ReplyUnreadable,
        ToolsRefused) where the server does not take this call, and EndpointFailed where it takes none, or keeps
        failing."""
        call = _Call(purpose, attempt, key, messages, tools, seed, temperature, longer, output)
        started = time.monotonic()

        def seconds() -> float:
            return time.monotonic() - started

        retrying = AsyncRetrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, _Failed) and self._goes_on(call, error, seconds())
            ),
            wait=lambda state: self._wait(_failed_of(state), call.tries),
            before_sleep=lambda state: self._note(_failed_of(state), call),
            sleep=lambda wait: self._sleep(wait, attempt),
            reraise=True,
        )
        try:
            return await retrying(self._try, call)
        except _Failed as failed:
            raise self.explained(failed.failure, call.tries, seconds()) from failed.__cause__

    async def _try(self, call: _Call) -> Replied:
        call.tries += 1
        try:
            return await self._once(call)
        except _Failed as failed:
            failed.again = self._changes(call, failed)
            call.failures += not (failed.failure.rate_limited or failed.again)
            raise

    def _request(self, wire: Wire, call: _Call) -> Json:
        """The request as it is made by what is known now."""
        output = call.output or self._output(wire, call)
        wish = Wish(output=output) if call.bare else Wish(call.seed, call.temperature, output)
        return wire.request(call.messages, call.tools, wish)

    def _output(self, wire: Wire, call: _Call) -> int | None:
        """The limit on the answer's length: under a cap what is reserved is sent, too."""
        if not call.longer and not self._keeper.capped(call.attempt):
            return None
        wanted = max(OUTPUT_BOUND << min(call.longer, 8), 2 * self._cut_at if call.longer else 0)
        bounds = [wanted, wire.dialect.most_output or wanted]
        if self._known_context:
            size = sum(len(str(m.get("content"))) for m in call.messages)
            bounds.append(max(LEAST_OUTPUT, self._known_context - int(size * self._density) - LEAST_OUTPUT))
        return min(bounds)

    async def _once(self, call: _Call) -> Replied:
        wire = self.wire
        call.request = self._request(wire, call)
        size = wire.characters(call.request)
        tokens_in = int(size * self._density) + 1
        async with self._keeper.in_time(call.attempt):
            slot = await self._limiter.enter(tokens_in)
        try:
            hold = await self._reserve(wire, call, tokens_in)
            try:
                reply = await self._post(wire, call, slot, hold)
            finally:
                hold.release()
        finally:
            slot.leave(tokens=0)
        if call.bare:  # what a server refused without naming it
            wire.dialect.left_out.update({"seed", "temperature"})
        usage = reply.charge.usage
        if tokens := usage.input + usage.cache_read + usage.cache_write:
            self._density = 1.1 * tokens / size
        return reply

    async def _reserve(self, wire: Wire, call: _Call, tokens_in: int) -> Hold:
        """A reservation for the call; its answer's raised limit is lowered again where the budget has no room for
        it."""
        while True:
            tokens_out = wire.output_tokens(call.request) or OUTPUT_BOUND
            usd = bound(self.prices, tokens_in, tokens_out)
            try:
                return await self._keeper.reserve(call.attempt, usd, tokens_in + tokens_out)
            except BudgetExceeded:
                if not call.longer:
                    raise
                call.longer -= 1
                call.request = self._request(wire, call)

    async def _post(self, wire: Wire, call: _Call, slot: Slot, hold: Hold) -> Replied:
        """The call itself. Whatever happens, `hold` and `slot` get what really was used."""
        asked = Asked(attempt=call.attempt, key=call.key, purpose=call.purpose, model=self.alias.alias)
        self._record(asked)
        mark, started = self._meter.start(), time.monotonic()
        response: Any = None
        try:
            try:
                async with asyncio.timeout(self.alias.timeout):
                    response = await wire.send(call.request)
                message = wire.message(response)
            finally:
                took = time.monotonic() - started, self._meter.stop(mark)
        except asyncio.CancelledError:
            self._charge(call, hold, (None, None), took, answered=False)
            raise
        except Exception as error:
            failure = wire.failure(error)
            if failure is None:
                raise
            if failure.reached:
                self._charge(call, hold, wire.bill(response), took, answered=False)
                slot.leave()
            else:
                self._record(replace(asked, reached=False))
            if failure.rate_limited:
                self._limiter.rejected(slot, None if self._asks_too_much(failure) else failure.retry_after)
            raise _Failed(failure, wire) from error
        bill = wire.bill(response)
        charge = self._charge(call, hold, bill, took, answered=True)
        cut = wire.cut(response)
        if cut:
            self._cut_at = max(self._cut_at, charge.usage.output + charge.usage.reasoning)
        written = self._record(Replied(attempt=call.attempt, key=call.key, message=message, charge=charge, cut=cut))
        assert isinstance(written, Replied), "an event stays what it is"
        slot.leave(answered=True, tokens=bill[0].total if bill[0] else None)
        return written

    def _charge(self, call: _Call, hold: Hold, bill: Bill, took: tuple[float, float], *, answered: bool) -> Charge:
        """Settles the reservation; an unanswered call is written here, an answered one with its reply. `took`: seconds,
        and of them those that the GPU was this call's."""
        (usage, reported), (seconds, share) = bill, took
        usd, source = price(self.prices, usage, share)
        if usd is None and reported is not None:
            usd, source = reported, PROVIDER
        charge = Charge(
            attempt=call.attempt,
            purpose=call.purpose,
            model=self.alias.alias,
            usage=usage or Usage(),
            usd=usd,
            price_source=source,
            seconds=seconds,
            answered=answered,
            reported_usd=reported,
        )
        hold.settle(charge)
        if not answered:
            self._record(Charged(attempt=call.attempt, key=call.key, charge=charge))
        return charge

    def _changes(self, call: _Call, failed: _Failed) -> bool:
        """Whether the next try is another request, because of what this refusal (or one of another call) taught."""
        failure, wire = failed.failure, failed.wire
        if call.changes >= MOST_CHANGES or failure.status == 401 or failure.rate_limited or failure.out_of_money:
            return False
        call.changes += 1
        if failure.unparsed:
            call.seed = (call.seed or 0) + 1
            call.garbled += 1
            return call.garbled <= OTHER_SEEDS
        elsewhere = failure.responses or (failure.status == 404 and "model" not in failure.said.lower())
        if elsewhere and wire.name == "chat" and self.alias.wire is None:
            if self.wire is wire:
                self.connections.move(self.alias, "responses")
                failed.learnt = "it is spoken to by the Responses API"
            return True
        if self._request(wire, call) != call.request:  # another call has learnt it meanwhile
            return True
        failed.learnt = wire.learn(failure, call.request)
        if failure.no_tools and not wire.dialect.tools:
            return False
        if self._request(wire, call) != call.request:
            return True
        if call.bare or not failure.of_request or failure.status == 500:
            return False
        call.bare = True  # what it refuses it does not name: perhaps it is what Troop varies
        call.bare = self._request(wire, call) != call.request
        return call.bare

    def _asks_too_much(self, failure: Failure) -> bool:
        return (failure.retry_after or 0.0) > self.alias.longest_wait

    def _goes_on(self, call: _Call, failed: _Failed, seconds: float) -> bool:
        """Whether another try may help, and there is patience for it after so many seconds."""
        helps = failed.again or (failed.failure.retry and not self._asks_too_much(failed.failure))
        in_time = seconds + (failed.failure.retry_after or 0.0) < self._patience.allowance
        return helps and in_time and call.failures < self._patience.tries

    async def _sleep(self, seconds: float, attempt: int | None) -> None:
        async with self._keeper.in_time(attempt):
            await asyncio.sleep(seconds)

    def _wait(self, failed: _Failed, tries: int) -> float:
        told = failed.failure.retry_after
        if failed.again:
            return 0.0
        if told is not None:  # a little later than told, and not all together
            return told + random.uniform(0, min(1.0, 0.25 * told))
        return random.uniform(0, min(self._patience.longest, self._patience.first * 2.0 ** min(tries, 16)))

    def _note(self, failed: _Failed, call: _Call) -> None:
        failure = failed.failure
        if failed.again and not failed.learnt:
            return
        wait = f"; it asks to wait {failure.retry_after:.3g} s" if failure.retry_after and not failed.again else ""
        more = f"; from now on {failed.learnt}" if failed.learnt else wait
        detail = self.mask(f"{self.alias.alias}: {failure.what}: {failure.detail}{more}")
        self._record(InfrastructureFailed(attempt=call.attempt, what="model", detail=detail, retried=True))

    def explained(self, failure: Failure, tries: int = 1, seconds: float = 0.0) -> EndpointFailed:
        """What a call came to that failed for good, as a sentence for a person; no secret stands in it."""
        alias, server = self.alias, urlsplit(self.alias.base_url).netloc
        said = self.mask(failure.detail).rstrip(".")
        if failure.too_long:
            return ContextTooLong(f"The conversation does not fit {alias.alias} at {server}: {said}")
        if failure.unparsed:
            return ReplyUnreadable(f"The model server {server} could not read its model's tool call: {said}")
        if failure.no_tools:
            return ToolsRefused(f"The model server {server} takes no tools for {alias.name}: {said}")
        if self._asks_too_much(failure):
            return CallRefused(
                f"The model server {server} asks to wait {failure.retry_after:.3g} s, longer than the "
                f"{alias.longest_wait:g} s that the alias allows (longest_wait): {said}"
            )
        if failure.retry and tries > 1:
            return EndpointFailed(
                f"The model server {server} kept failing ({tries} tries in {seconds:.0f} s), the last time with "
                f"{failure.what}: {said}. Is it up, and is base_url {alias.base_url} right?"
            )
        if failure.what in ("connection", "timeout"):
            return EndpointFailed(
                f"The model server {server} cannot be reached ({said}): is it up, and is base_url right?"
            )
        if failure.status in (401, 403) and not failure.filtered:
            key = f"the key in {alias.key_env}" if alias.key_env else "a call without a key (set key_env in an alias)"
            return EndpointFailed(f"The model server {server} refused {key} ({failure.status}: {said}).")
        if failure.status == 404:
            return EndpointFailed(
                f"The model server {server} knows no model {alias.name!r} at {alias.base_url} (404: {said}): "
                "check the name, and that the URL ends in /v1 or as the server's manual says."
            )
        sampled = [name for name in alias.sampling if name in failure.said]
        hint = f" The alias's sampling sends {', '.join(sampled)}: take that out." if sampled else ""
        of_call = failure.status in (400, 403, 413, 422) and not failure.out_of_money
        kind = CallRefused if of_call else EndpointFailed
        return kind(f"The model server {server} refused the call for {alias.alias} ({failure.what}: {said}).{hint}")


@dataclass(slots=True)
class _Call:
    """What a call is for and says, and how it went so far. `failures`: tries that failed (429s not counted); `changes`:
    of the request, by what was learnt; `garbled`: answers that the server could not read; `bare`: without seed and
    temperature."""

    purpose: Purpose
    attempt: int | None
    key: str
    messages: Sequence[Json]
    tools: Sequence[Json]
    seed: int | None
    temperature: float | None
    longer: int
    output: int | None
    request: Json = field(default_factory=dict)
    tries: int = 0
    failures: int = 0
    changes: int = 0
    garbled: int = 0
    bare: bool = False


class _Failed(Exception):
    """One try failed. `again`: the next one is another request; `learnt`: in words, what it does otherwise."""

    def __init__(self, failure: Failure, wire: Wire) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.wire = wire
        self.again = False
        self.learnt = ""


def _failed_of(state: RetryCallState) -> _Failed:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, _Failed)
    return error
