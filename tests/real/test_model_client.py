"""The model client against a real HTTP server on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email.utils
import json
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from agent.config import Alias
from agent.models.client import ModelClient, Patience
from agent.models.connections import CA_VARIABLES, Connections
from agent.models.contact import greet
from harness.money.budget import BudgetKeeper
from harness.money.ledger import Ledger, charges
from harness.records import Budget, Usage
from harness.trace import Charged, Event, InfrastructureFailed, Replied
from tasks.errors import BudgetExceeded, CallRefused, ContextTooLong, EndpointFailed, ReplyUnreadable, ToolsRefused
from tests.support.model_server import Answer, ModelServer, Request, context_too_long, error, serving, too_many

ASK = [{"role": "user", "content": "What is wrong?"}]
QUICK = Patience(tries=4, allowance=5.0, first=0.001, longest=0.01)
PRICED: dict[str, Any] = {"usd_per_mtok_input": 1.0, "usd_per_mtok_output": 2.0}


def recording(events: list[Event]) -> Callable[[Event], Event]:
    """Notes each event and gives it back as it is."""

    def record(event: Event) -> Event:
        events.append(event)
        return event

    return record


class Used:
    """A client on a server, with the events that it wrote."""

    def __init__(self, server: ModelServer, keeper: BudgetKeeper | None = None, **alias: Any) -> None:
        self.events: list[Event] = []
        self.connections = Connections()
        base = Alias(alias="local", base_url=server.url, name="scripted")
        patience = alias.pop("patience", QUICK)
        self.client = ModelClient(
            dataclasses.replace(base, **alias),
            self.connections,
            record=recording(self.events),
            keeper=keeper,
            patience=patience,
        )
        self._key = 0

    async def ask(self, messages: Sequence[dict[str, Any]] = ASK, *, attempt: int = 0, **more: Any) -> Replied:
        self._key += 1
        return await self.client.complete(
            messages, purpose="act", attempt=attempt, key=f"{attempt}/{self._key}", **more
        )

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def use(
    script: Sequence[Answer] | Callable[[Request], Answer],
    act: Callable[[Used, ModelServer], Awaitable[None]],
    *,
    keeper: Callable[[], BudgetKeeper] | None = None,
    **alias: Any,
) -> None:
    async def whole(server: ModelServer) -> None:
        used = Used(server, keeper() if keeper else None, **alias)
        try:
            await act(used, server)
        finally:
            await used.connections.aclose()

    with serving(script) as server:
        asyncio.run(whole(server))


def then(*answers: Answer) -> Callable[[Request], Answer]:
    """The answers in the order of the requests; the last stays."""
    return lambda request: answers[min(request.number, len(answers) - 1)]


OK = Answer(text="fine")


def test_an_answer_is_written_with_its_charge_before_the_caller_sees_it() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask(tools=[{"type": "function", "function": {"name": "run", "parameters": {}}}], seed=7)
        (replied,) = used.of(Replied)
        assert replied.message == reply.message
        assert replied.charge == reply.charge
        assert replied.key == "0/1"
        assert reply.message["tool_calls"][0]["function"] == {"name": "run", "arguments": '{"command": "ls"}'}
        sent = server.requests[0].body
        assert sent["seed"] == 7
        assert sent["tools"][0]["function"]["name"] == "run"

    use([Answer(tool_calls=[{"name": "run", "arguments": {"command": "ls"}}])], act)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 80},
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(input=20, cache_read=80, output=20, reasoning=30),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            },
            Usage(input=36, cache_read=64, output=5),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 30},
            },
            Usage(input=20, cache_read=50, cache_write=30, output=5),
        ),
        (
            {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 30},
            Usage(input=10, cache_read=50, cache_write=30, output=5),
        ),
        ({"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(input=12, output=3)),
    ],
    ids=["openai", "deepseek", "openrouter", "anthropic", "plain"],
)
def test_usage_is_told_in_disjoint_parts(reported: dict[str, Any], expected: Usage) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        assert reply.charge.usage == expected

    use([Answer(text="x", usage=reported)], act)


def test_a_server_that_tells_no_usage_leaves_the_price_unknown() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        assert reply.charge.usage == Usage()
        assert reply.charge.usd is None
        assert reply.charge.price_source == "unknown"

    use([Answer(text="x", usage={})], act, **PRICED)


def test_a_local_gpu_has_a_price_without_usage() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        charge = (await used.ask()).charge
        assert charge.price_source == "gpu-hour"
        assert charge.usd == pytest.approx(2.0 * charge.seconds / 3600, rel=0.05)

    use([Answer(text="x", usage={}, delay=0.1)], act, usd_per_gpu_hour=2.0)


def test_calls_at_once_share_the_gpus_time() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        started = time.monotonic()
        await asyncio.gather(*(used.ask() for _ in range(8)))
        busy = time.monotonic() - started
        cost = Ledger.of(used.events).total.known_usd
        assert 2.0 * 0.2 / 3600 <= cost <= 2.0 * busy / 3600

    use([Answer(text="x", delay=0.2)], act, usd_per_gpu_hour=2.0)


@pytest.mark.parametrize(
    ("failure", "charged"),
    [
        (too_many(), 0),
        (error(503, "overloaded"), 0),
        (error(500, "internal error"), 1),
        (Answer(raw="{not json"), 1),
        (Answer(raw="<html>gateway</html>", headers={"Content-Type": "text/html"}), 1),
        (Answer(raw='{"choices": []}'), 1),
        (Answer(raw='{"error": {"code": 503, "message": "no capacity"}}'), 0),
        (Answer(drop="at-once"), 1),
        (Answer(drop="headers", text="x"), 1),
        (Answer(drop="body", text="x"), 1),
    ],
    ids=["429", "503", "500", "garbage", "html", "no-choice", "200-error", "reset", "cut-headers", "cut-body"],
)
def test_the_worlds_failures_are_retried_recorded_and_charged_where_the_model_may_have_worked(
    failure: Answer, charged: int
) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        assert reply.message["content"] == "fine"
        assert len(server.requests) == 3
        noted = used.of(InfrastructureFailed)
        assert [event.retried for event in noted] == [True, True]
        retries = used.of(Charged)
        assert len(retries) == 2 * charged
        assert all(event.charge.usd is None and not event.charge.answered for event in retries)
        assert len(used.of(Replied)) == 1

    use(then(failure, failure, OK), act, **PRICED)


def test_an_unusable_answer_is_charged_by_its_usage() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await used.ask()
        (lost,) = used.of(Charged)
        assert lost.charge.usage == Usage(input=1000, output=10)
        assert lost.charge.usd == pytest.approx(1020e-6)

    empty = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 10}}
    use(then(Answer(raw=json.dumps(empty)), OK), act, **PRICED)


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured(form: str) -> None:
    def answer(request: Request) -> Answer:
        if request.number:
            return OK
        date = email.utils.formatdate(time.time() + 1.6, usegmt=True)
        headers = {
            "seconds": {"Retry-After": "0.6"},
            "date": {"Retry-After": date},
            "milliseconds": {"Retry-After-Ms": "600"},
        }
        return error(429, "slow down", headers=headers[form])

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask()
        first, second = server.requests
        assert 0.55 <= second.at - first.at <= 3.0

    use(answer, act)


@pytest.mark.parametrize("wait", [3600, "100000", "inf", "1e300", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_longer_wait_than_allowed_fails_this_call_at_once_and_holds_up_no_other(wait: float | str) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(CallRefused, match=r"asks to wait .* longer than the 60 s .*longest_wait"):
            await used.ask()
        assert len(server.requests) == 1
        assert (await asyncio.wait_for(used.ask(), 2.0)).message["content"] == "done"

    use(lambda request: Answer("done") if request.number else too_many(wait), act)


@pytest.mark.parametrize("wait", [0, -5, "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_what_is_no_wait_means_the_usual_backoff(wait: float | str) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        assert (await used.ask()).message["content"] == "done"
        assert server.requests[-1].at - server.requests[0].at > 0.3

    slow = Patience(tries=3, allowance=20.0, first=0.5, longest=0.5)
    use(lambda request: Answer("done") if request.number > 8 else too_many(wait), act, patience=slow)


def test_a_server_that_keeps_failing_is_given_up_with_one_sentence() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(EndpointFailed, match=r"kept failing \(4 tries .* 500: broken") as caught:
            await used.ask()
        assert "\n" not in str(caught.value)
        assert len(server.requests) == QUICK.tries
        assert len(used.of(Charged)) == QUICK.tries
        assert len(used.of(InfrastructureFailed)) == QUICK.tries - 1

    use([error(500, "broken")], act)


def test_being_rate_limited_does_not_count_as_failing() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        assert (await used.ask()).message["content"] == "fine"

    use(then(*[too_many()] * (QUICK.tries * 2), OK), act)


def test_nobody_listening_is_retried_and_then_named() -> None:
    async def whole() -> None:
        connections = Connections()
        alias = Alias(alias="gone", base_url="http://127.0.0.1:9/v1", name="x")
        events: list[Event] = []
        client = ModelClient(alias, connections, record=recording(events), patience=QUICK)
        with pytest.raises(EndpointFailed, match=r"127\.0\.0\.1:9 kept failing .*[^.]\. Is it up"):
            await client.complete(ASK, purpose="act", attempt=0, key="0/1")
        await connections.aclose()
        assert not [event for event in events if isinstance(event, Charged)]

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (error(401, "Incorrect API key provided"), "refused a call without a key .*401: Incorrect"),
        (error(404, "The model does not exist", code="model_not_found"), "knows no model 'scripted'"),
        (error(400, "bad tool schema"), "refused the call .*400: bad tool schema"),
        (error(429, "You exceeded your quota", code="insufficient_quota"), "refused the call .*exceeded your quota"),
    ],
)
def test_a_refusal_is_not_retried(refusal: Answer, sentence: str) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(EndpointFailed, match=sentence):
            await used.ask()
        assert len(server.requests) == 1
        assert list(charges(used.events)) == [], "it did not reach the model"

    use([refusal], act)


@pytest.mark.parametrize(
    "refusal",
    [
        context_too_long(),
        error(400, "the request exceeds the available context size, try increasing it"),
        error(400, "prompt is too long: 210000 tokens > 200000 maximum"),
        Answer(raw='{"error": {"code": 400, "message": "maximum context length is 32768 tokens"}}'),
    ],
    ids=["openai", "llama.cpp", "anthropic", "openrouter"],
)
def test_a_conversation_that_does_not_fit_is_told_apart(refusal: Answer) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(ContextTooLong):
            await used.ask()
        assert len(server.requests) == 1

    use([refusal], act)


def test_a_slow_body_runs_into_the_time_limit() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        assert reply.message["content"] == "fine"
        (note,) = used.of(InfrastructureFailed)
        assert "timeout" in note.detail
        assert len(used.of(Charged)) == 1

    use(then(Answer(text="slow", drip=3.0), OK), act, timeout=0.4)


def test_a_parameter_of_ours_that_the_server_refuses_is_left_out() -> None:
    def answer(request: Request) -> Answer:
        if "temperature" in request.body:
            return error(
                400, "Unsupported value: 'temperature' must be 1", code="unsupported_value", param="temperature"
            )
        return OK

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(temperature=0.7)
        await used.ask(temperature=0.8)
        assert ["temperature" in request.body for request in server.requests] == [True, False, False]

    use(answer, act)


def test_the_aliass_sampling_wins_over_what_varies_by_attempt() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(temperature=0.7, seed=3)
        sent = server.requests[0].body
        assert (sent["temperature"], sent["top_p"]) == (0.2, 0.9)
        assert "seed" not in sent

    use([OK], act, sampling={"temperature": 0.2, "top_p": 0.9, "seed": False})


def test_a_parameter_of_the_user_that_the_server_refuses_is_an_error() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(EndpointFailed, match="top_p"):
            await used.ask()

    use([error(400, "Unsupported parameter: top_p", param="top_p")], act, sampling={"top_p": 0.5})


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_KEY_OF_MINE", "opensesame-1234")

    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(EndpointFailed, match="PRIVATE_KEY_OF_MINE") as caught:
            await used.ask()
        assert server.requests[0].headers["authorization"] == "Bearer opensesame-1234"
        assert "opensesame" not in str(caught.value)

    use([error(401, "wrong key opensesame-1234")], act, key_env="PRIVATE_KEY_OF_MINE")


def test_no_key_is_sent_where_none_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-others")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask()
        headers = server.requests[0].headers
        assert "authorization" not in headers
        assert "openai-organization" not in headers

    use([OK], act)


def test_a_missing_key_is_named_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(EndpointFailed, match="SOME_KEY"):
        ModelClient(
            Alias("a", "http://127.0.0.1:9/v1", "m", key_env="SOME_KEY"), Connections(), record=lambda event: event
        )


def test_many_attempts_share_connections() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        for _ in range(5):
            await asyncio.gather(*(used.ask(attempt=k) for k in range(8)))
        assert len(server.requests) == 40
        assert server.connections <= 8

    use([OK], act)


def test_the_concurrency_of_the_alias_is_kept() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await asyncio.gather(*(used.ask(attempt=k) for k in range(128)))
        assert server.peak == 16

    use([Answer(text="x", delay=0.02)], act, concurrency=16)


def test_concurrency_adapts_to_a_server_that_bears_less() -> None:
    """The server takes four at once; the client must find that out and get all its work done with few refusals."""
    server_of: list[ModelServer] = []
    fine = Answer(text="x", delay=0.05)
    limits: list[int] = []

    def answer(request: Request) -> Answer:
        return too_many() if server_of[0].open_now > 4 else fine

    async def act(used: Used, server: ModelServer) -> None:
        server_of.append(server)
        limiter = used.connections.limiter(used.client.alias)

        async def ask(k: int) -> None:
            await used.ask(attempt=k)
            limits.append(limiter.limit)

        await asyncio.gather(*(ask(k) for k in range(60)))
        assert len(used.of(Replied)) == 60
        assert min(limits) <= 8
        # Without adapting, 32 at once against 4 refuse seven calls in eight, over and over.
        assert len(used.of(InfrastructureFailed)) < 120

    use(answer, act, concurrency=32, patience=Patience(tries=4, allowance=30, first=0.01, longest=0.05))


def test_requests_per_minute_are_kept() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        started = time.monotonic()
        await asyncio.gather(*(used.ask() for _ in range(104)))
        # A hundred at once (ten seconds' worth), then ten a second.
        assert 0.3 <= time.monotonic() - started <= 3.0

    use([OK], act, requests_per_minute=600, concurrency=200)


def test_concurrent_calls_never_pass_the_money_cap() -> None:
    """32 attempts ask at once for far more than the cap bears."""
    keeper = BudgetKeeper(Budget(usd=0.0100))

    async def act(used: Used, server: ModelServer) -> None:
        async def attempt(k: int) -> str:
            try:
                for _ in range(10):
                    await used.ask(attempt=k)
            except BudgetExceeded as refusal:
                return refusal.limit
            return "done"

        ends = await asyncio.gather(*(attempt(k) for k in range(32)))
        spent = Ledger.of(used.events).total.known_usd
        assert spent <= 0.0100
        assert spent > 0.0090, "the cap should be used, not shied away from"
        assert set(ends) == {"usd"}
        (await keeper.reserve(None, 0.0100 - spent - 1e-9, 1)).release()
        with pytest.raises(BudgetExceeded):
            await keeper.reserve(None, 0.0100 - spent + 1e-9, 1)

    usage = {"prompt_tokens": 20, "completion_tokens": 40}
    answers = [Answer(text="x", usage=usage, delay=0.005)]
    use(answers, act, keeper=lambda: keeper, sampling={"max_tokens": 50}, **PRICED)


def test_a_cancelled_call_gives_everything_back_and_is_charged() -> None:
    keeper = BudgetKeeper(Budget(usd=1.0))

    async def act(used: Used, server: ModelServer) -> None:
        calls = [asyncio.create_task(used.ask()) for _ in range(6)]
        await asyncio.sleep(0.2)
        for call in calls:
            call.cancel()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        assert len(server.requests) == 2
        assert len(used.of(Charged)) == 2, "the two that were under way may have reached the model"
        slow[0] = OK
        await asyncio.wait_for(used.ask(), 5)

    slow = [Answer(text="x", delay=30)]
    use(lambda request: slow[0], act, keeper=lambda: keeper, concurrency=2, **PRICED)


def test_a_cap_on_time_ends_the_waiting_of_a_retry() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        started = time.monotonic()
        with pytest.raises(BudgetExceeded) as caught:
            await used.ask()
        assert caught.value.limit == "seconds"
        assert time.monotonic() - started < 2.0

    use([too_many(4)], act, keeper=lambda: BudgetKeeper(Budget(seconds=0.3)))


def test_null_fields_of_an_answer_are_not_sent_back() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        first = await used.ask()
        assert first.message["refusal"] is None
        assert first.message["reasoning_content"] == "hm"
        await used.ask([*ASK, first.message, {"role": "user", "content": "go on"}])
        sent = server.requests[1].body["messages"][1]
        assert sent == {"role": "assistant", "content": "x", "reasoning_content": "hm"}

    use([Answer(text="x", message={"refusal": None, "reasoning_content": "hm"})], act)


def body(**fields: Any) -> Answer:
    """An answer of HTTP 200 whose body is an odd one."""
    whole = {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
    return Answer(raw=json.dumps({**whole, **fields}))


@pytest.mark.parametrize(
    "choices", [{}, [], [None], ["x"], [{}], [{"message": "fine"}], [{"message": ["fine"]}], "fine", None, 3]
)
def test_an_odd_answer_is_unusable_and_charged_as_unknown(choices: Any) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        assert (await used.ask()).message["content"] == "fine"
        (lost,) = used.of(Charged)
        assert lost.charge.usd is None and not lost.charge.answered

    use(then(body(choices=choices), OK), act, **PRICED)


@pytest.mark.parametrize(
    "usage",
    [
        "12 tokens",
        [1, 2],
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "12", "completion_tokens": "3"},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": 12},
        {},
    ],
)
def test_usage_that_is_no_number_is_unknown_never_free(usage: Any) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        charge = (await used.ask()).charge
        assert charge.usd is None and charge.price_source == "unknown"

    use([body(usage=usage)], act, **PRICED)


def test_thinking_that_is_counted_outside_of_the_output_is_paid_for() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        usage = (await used.ask()).charge.usage
        assert (usage.input, usage.output + usage.reasoning) == (10, 90)

    use([body(usage={"prompt_tokens": 10.0, "completion_tokens": 20, "total_tokens": 100})], act, **PRICED)


def test_a_providers_own_price_is_kept_beside_ours_and_holds_where_there_is_none() -> None:
    told = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "cost": 0.75}

    async def priced(used: Used, server: ModelServer) -> None:
        charge = (await used.ask()).charge
        assert (charge.usd, charge.price_source, charge.reported_usd) == (1.0, "alias", 0.75)
        total = Ledger.fold([charge, charge]).total
        assert (total.reported_usd, total.reported_as) == (1.5, 2.0)

    async def unpriced(used: Used, server: ModelServer) -> None:
        charge = (await used.ask()).charge
        assert (charge.usd, charge.price_source) == (0.75, "provider")

    use([body(usage=told)], priced, **PRICED)
    use([body(usage=told)], unpriced)


def test_under_a_cap_what_is_reserved_is_sent_and_a_cut_answer_doubles_it() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        assert (await used.ask()).cut
        await used.ask(longer=1)
        await used.ask(longer=9)
        limits = [request.body["max_tokens"] for request in server.requests]
        assert limits[:2] == [8192, 16384] and limits[2] <= 500_000  # no more than the budget has room for

    answer = Answer("cut of", finish_reason="length")
    use([answer], act, keeper=lambda: BudgetKeeper(Budget(usd=1.0)), **PRICED)


def test_many_calls_at_once_do_not_pass_the_cap_however_long_the_answers() -> None:
    def answer(request: Request) -> Answer:
        usage = {"prompt_tokens": 10, "completion_tokens": request.body.get("max_tokens", 100_000)}
        return Answer("long", usage=usage, finish_reason="length", delay=0.05)

    spent: list[float] = []

    async def act(used: Used, server: ModelServer) -> None:
        async def one(attempt: int) -> None:
            with contextlib.suppress(BudgetExceeded):
                for _ in range(20):
                    await used.ask(attempt=attempt)

        await asyncio.gather(*(one(n) for n in range(32)))
        spent.append(sum(e.charge.usd or 0.0 for e in used.of(Replied)))

    use(answer, act, keeper=lambda: BudgetKeeper(Budget(usd=1.0)), usd_per_mtok_input=1.0, usd_per_mtok_output=10.0)
    assert 0.5 < spent[0] <= 1.0


def test_the_limit_after_a_cut_answer_is_twice_as_long_as_that_was() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await used.ask()
        await used.ask(longer=1)
        assert [r.body.get("max_tokens") for r in server.requests] == [None, 80_000]

    use([Answer("cut", finish_reason="length", usage={"prompt_tokens": 5, "completion_tokens": 40_000})], act)


def test_without_a_cap_no_limit_is_sent_until_an_answer_was_cut() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await used.ask()
        await used.ask(longer=1)
        assert [r.body.get("max_tokens") for r in server.requests] == [None, 16384]

    use([OK], act)


def test_what_a_server_refuses_is_found_out_once_for_all_calls() -> None:
    def answer(request: Request) -> Answer:
        if "temperature" in request.body:
            return error(400, "invalid temperature: only 1 is allowed for this model")
        return OK

    async def act(used: Used, server: ModelServer) -> None:
        await asyncio.gather(*(used.ask(attempt=n, temperature=0.0, seed=n) for n in range(8)))
        await used.ask(temperature=0.7, seed=9)
        said = [e.detail for e in used.of(InfrastructureFailed)]
        assert len(said) == 1 and "from now on temperature left out" in said[0]
        assert sum("temperature" in r.body for r in server.requests) <= 8
        assert "temperature" not in server.requests[-1].body and server.requests[-1].body["seed"] == 9

    use(answer, act)


def test_a_refusal_that_names_nothing_is_tried_without_what_troop_adds() -> None:
    def answer(request: Request) -> Answer:
        return OK if not request.body.keys() & {"temperature", "seed"} else error(400, "Bad request")

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(temperature=0.7, seed=9)
        await used.ask(temperature=0.7, seed=9)
        assert len(server.requests) == 3

    use(answer, act)


def test_a_refused_conversation_is_that_calls_failure() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(CallRefused, match="content policy"):
            await used.ask(temperature=0.7)
        assert len(server.requests) == 1

    use([error(400, "Your request was rejected by the content policy", code="content_filter")], act)


def test_another_seed_is_tried_where_the_server_cannot_read_its_models_call() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(ReplyUnreadable):
            await used.ask(seed=7)
        assert [r.body["seed"] for r in server.requests] == [7, 8, 9]
        assert len(used.of(Charged)) == 3

    use([error(500, "error parsing tool call: raw='{', err=unexpected end of JSON input")], act)


def test_a_server_that_takes_no_tools_is_told_apart_and_remembered() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        tools = [{"type": "function", "function": {"name": "run", "parameters": {}}}]
        with pytest.raises(ToolsRefused):
            await used.ask(tools=tools)
        assert not used.client.takes_tools

    use([error(400, "small:1b does not support tools")], act)


def sse(*chunks: Any) -> Answer:
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return Answer(raw=text, headers={"Content-Type": "text/event-stream"})


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def test_a_server_that_only_streams_is_read_as_one_that_does_not() -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "run", "arguments": '{"comm'}}
    chunks = [
        delta(role="assistant", content=""),
        delta(reasoning_content="I "),
        delta(reasoning_content="think."),
        delta(tool_calls=[{**call, "extra_content": {"google": {"thought_signature": "s"}}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": 'and": "ls"}'}}]),
        delta("tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    ]

    def answer(request: Request) -> Answer:
        wanted = "parameter.enable_thinking must be set to false for non-streaming calls"
        return sse(*chunks) if request.body.get("stream") else error(400, wanted)

    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        (made,) = reply.message["tool_calls"]
        assert made["function"] == {"name": "run", "arguments": '{"command": "ls"}'}
        assert made["extra_content"] == {"google": {"thought_signature": "s"}}
        assert reply.message["reasoning_content"] == "I think."
        assert reply.charge.usage == Usage(input=7, output=3)
        assert server.requests[-1].body["stream_options"] == {"include_usage": True}

    use(answer, act)


def test_an_error_in_the_midst_of_a_stream_is_tried_again() -> None:
    broken = sse(delta(content="fi"), {"error": {"message": "overloaded", "code": 503}})

    async def act(used: Used, server: ModelServer) -> None:
        assert (await used.ask()).message["content"] == "fine"

    use(then(broken, sse(delta(content="fine"), delta("stop"))), act, stream=True)


def test_half_a_character_from_a_server_is_made_sendable() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        message = (await used.ask()).message
        await used.ask([*ASK, message, *ASK])
        assert "\ufffd" in server.requests[-1].body["messages"][1]["content"]

    use([Answer(raw='{"choices": [{"message": {"role": "assistant", "content": "half \\ud83d"}}]}')], act)


def test_claude_behind_another_provider_gets_marks_for_its_cache() -> None:
    turns = [{"role": "system", "content": "S"}, *ASK, {"role": "assistant", "content": "A"}, *ASK]

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(turns)
        chat = server.requests[0].body["messages"]
        assert [isinstance(m["content"], list) and "cache_control" in m["content"][0] for m in chat] == [1, 1, 0, 1]

    use([OK], act, name="anthropic/claude-sonnet-4.5")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(401, "Incorrect API key provided"), "refused a call without a key"),
        (error(403, "not allowed"), "refused a call without a key"),
        (error(404, "No such model", code="model_not_found"), "knows no model 'another'.* It has: scripted"),
    ],
)
def test_first_contact_says_at_once_what_will_not_work(answer: Answer, said: str) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        for _ in range(2):  # asked once for all who share the connections
            with pytest.raises(EndpointFailed, match=said):
                await greet(used.client, lambda line: None)
        assert len(server.requests) == 1

    use([answer], act, name="another")


def test_first_contact_needs_no_paid_call_where_the_server_lists_the_model() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        said: list[str] = []
        await greet(used.client, said.append)
        assert not server.requests and "lists the model in 0." in said[0]

    use([OK], act)


def test_a_server_that_is_not_there_is_known_at_once() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        away = dataclasses.replace(used.client.alias, alias="away", base_url="http://127.0.0.1:9/v1")
        client = ModelClient(away, used.connections, record=recording(used.events))
        began = time.monotonic()
        with pytest.raises(EndpointFailed, match=r"127\.0\.0\.1:9 cannot be reached"):
            await greet(client, lambda line: None)
        assert time.monotonic() - began < 2.0 and not used.events

    use([OK], act)


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_a_certificate_variable_that_names_nothing_is_said(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    with pytest.raises(EndpointFailed, match=f"{variable} names /nowhere/ca.pem"):
        Connections().wire(Alias(alias="x", base_url="https://127.0.0.1:9/v1", name="x"))


def test_a_limit_that_the_user_does_not_want_is_never_sent() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(longer=1)
        assert "max_tokens" not in server.requests[0].body

    use([OK], act, sampling={"max_tokens": False})


@pytest.mark.parametrize("variable", CA_VARIABLES[2:])
def test_a_certificate_of_ones_own_is_trusted_where_a_variable_names_it(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    files = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate))
    subprocess.run([*made, *files], check=True, capture_output=True)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    async def listed() -> list[Any]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                body = b'{"data": [{"id": "m"}]}'
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        connections = Connections()
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            return list(await connections.wire(Alias(alias="x", base_url=url, name="m")).models())
        finally:
            await connections.aclose()
            server.close()

    with pytest.raises(openai.APIConnectionError):
        asyncio.run(listed())
    monkeypatch.setenv(variable, str(certificate))
    assert asyncio.run(listed()) == [{"id": "m"}]
