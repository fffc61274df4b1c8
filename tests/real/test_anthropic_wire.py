"""The Anthropic wire against a strict HTTP server on this machine."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from agent.config import Alias, Config, resolve_model
from agent.models.client import ModelClient, Patience
from agent.models.connections import Connections
from harness.money.budget import BudgetKeeper
from harness.records import Budget, Usage
from harness.trace import Charged, Event, InfrastructureFailed, Replied
from tasks.errors import CallRefused, ContextTooLong, EndpointFailed
from tests.support.messages_server import (
    USAGE,
    Answer,
    Asked,
    MessagesServer,
    call,
    error,
    events,
    marks,
    redacted,
    refused,
    says,
    serving,
    text,
    thinking,
)

Json = dict[str, Any]
QUICK = Patience(tries=4, allowance=5.0, first=0.001, longest=0.01)
ASK: list[Json] = [{"role": "system", "content": "Mend it."}, {"role": "user", "content": "What is wrong?"}]
TOOLS: list[Json] = [
    {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": parameters}}
    for name, parameters in (("read", {"type": "object", "properties": {"path": {"type": "string"}}}), ("submit", {}))
]
THINK: Json = {"thinking": {"type": "enabled", "budget_tokens": 4000}}
OK = says(text("fine"))


class Used:
    """A client on a server, with the events that it wrote."""

    def __init__(self, server: MessagesServer, keeper: BudgetKeeper | None, alias: Json) -> None:
        self.events: list[Event] = []
        self.connections = Connections()
        given = {"alias": "claude", "base_url": server.url, "name": "claude-test", "wire": "anthropic", **alias}
        self.client = ModelClient(Alias(**given), self.connections, record=self._record, keeper=keeper, patience=QUICK)

    def _record(self, event: Event) -> Event:
        self.events.append(event)
        return event

    async def ask(self, messages: Sequence[Json] = ASK, tools: Sequence[Json] = (), **more: Any) -> Replied:
        key = f"0/{len(self.events)}"
        return await self.client.complete(messages, tools, purpose="act", attempt=0, key=key, **more)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def use(
    script: Sequence[Answer] | Callable[[Asked], Answer],
    act: Callable[[Used, MessagesServer], Awaitable[None]],
    *,
    keeper: BudgetKeeper | None = None,
    **alias: Any,
) -> None:
    async def whole(server: MessagesServer) -> None:
        used = Used(server, keeper, alias)
        try:
            await act(used, server)
        finally:
            await used.connections.aclose()

    with serving(script) as server:
        asyncio.run(whole(server))


def results(message: Json, words: str = "a line of output") -> list[Json]:
    return [{"role": "tool", "tool_call_id": c["id"], "content": words} for c in message.get("tool_calls", ())]


async def converse(used: Used, turns: int) -> list[Json]:
    """A conversation of so many turns, with tools, as an attempt has it."""
    chat = [*ASK, {"role": "assistant", "content": "I look, then mend."}, {"role": "user", "content": "Go on."}]
    for _ in range(turns):
        reply = await used.ask(chat, TOOLS, temperature=0.7, seed=3)
        message = json.loads(json.dumps(reply.message))  # as it comes out of a trace
        chat += [message, *(results(message) or [{"role": "user", "content": "There was no call."}])]
        if len(chat) == 7:
            chat.append({"role": "user", "content": "Two turns are left."})
    return chat


TURNS = [
    says(
        thinking("Où? “calc.py” \n\t✓"), text("\n\n"), text("I read it."), call("read", 1, path="a\nü"), call("read", 2)
    ),
    says(redacted("EuYBCkQ"), thinking(""), call("read", 3, path="b", rows=[1, 2.5, None, {"z": 1, "a": 2}])),
    says(text("No call."), thinking("So what"), text("And this.")),
    says(call("submit", 4)),
    says(text("Done.")),
]


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_and_calls_are_sent_back_as_they_were_received(stream: bool) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        chat = await converse(used, 5)
        assert server.refusals == []
        last = server.asked[-1].body["messages"]
        first, *others = (turn.body["content"] for turn in TURNS[:4])
        assert [m["content"] for m in last[1::2]] == [
            [text("I look, then mend.")],
            [block for block in first if block != text("\n\n")],  # the API gives such, and refuses them
            *others,
        ]
        for block in (*TURNS[0].body["content"][:1], *TURNS[1].body["content"][:2]):
            assert json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode() in server.asked[-1].raw
        message = chat[4]
        assert message["reasoning_content"] == "Où? “calc.py” \n\t✓"
        assert [c["id"] for c in message["tool_calls"]] == ["toolu_0001", "toolu_0002"]
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"path": "a\nü"}
        assert message["tool_calls"][1]["function"] == {"name": "read", "arguments": "{}"}
        assert "seed" not in server.asked[0].body

    use(TURNS, act, sampling={"thinking": {"type": "adaptive"}}, stream=stream)


def test_results_come_first_in_one_turn_and_reminders_after_them() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        await converse(used, 2)
        turn = server.asked[1].body["messages"][-1]["content"]
        assert [(b["type"], b.get("tool_use_id")) for b in turn] == [
            ("tool_result", "toolu_0001"),
            ("tool_result", "toolu_0002"),
            ("text", None),
        ]

    use(TURNS, act)


def test_each_turn_finds_in_the_cache_what_the_one_before_has_stored() -> None:
    def prefixes(body: Json) -> list[str]:
        """What each mark ends, tools first, as the API reads a request."""
        found, so_far = [], ""
        blocks = [*body["tools"], *body["system"], *(b for m in body["messages"] for b in m["content"])]
        for block in blocks:
            so_far += json.dumps({k: v for k, v in block.items() if k != "cache_control"})
            if "cache_control" in block:
                assert block["cache_control"] == {"type": "ephemeral"}
                found.append(so_far)
        return found

    async def act(used: Used, server: MessagesServer) -> None:
        chat = await converse(used, 5)
        stored = [prefixes(asked.body) for asked in server.asked]
        assert [marks(asked.body) for asked in server.asked] == [4] * 5
        for before, after in itertools.pairwise(stored):
            assert before[0] == after[0]
            assert before[1] == after[1]
            assert before[-1] in after
        assert "cache_control" not in json.dumps(chat), "marks are set on copies"

    use(TURNS, act)


def test_a_conversation_of_another_server_is_converted() -> None:
    def asked(name: Any, arguments: Any) -> Json:
        return {"id": name, "type": "function", "function": {"name": "read", "arguments": arguments}}

    async def act(used: Used, server: MessagesServer) -> None:
        chat: list[Json] = [
            {"role": "system", "content": "One."},
            {"role": "system", "content": ""},
            {"role": "system", "content": "Two."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "text", "text": " "}]},
            {"role": "user", "content": "here."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [asked("call.1", '{"path": "a"}'), asked("call:1", "[]")],
            },
            {"role": "tool", "tool_call_id": "call.1", "content": ""},
            {"role": "tool", "tool_call_id": "call:1", "content": "two"},
            {
                "role": "assistant",
                "content": "Again.",
                "native": {"wire": "responses", "output": []},
                "tool_calls": [asked("call.1", "{not json"), asked("", {"path": "c"})],
            },
            {"role": "tool", "tool_call_id": "call.1", "content": "three"},
            {"role": "tool", "tool_call_id": "", "content": "four"},
            {"role": "assistant", "content": " \n", "reasoning_content": "hm"},
            {"role": "user", "content": "Go on."},
        ]
        await used.ask(chat, TOOLS)
        assert server.refusals == []
        body = server.asked[0].body
        assert [b["text"] for b in body["system"]] == ["One.", "Two."]
        assert [m["role"] for m in body["messages"]] == ["user", "assistant"] * 3 + ["user"]
        uses = [b for m in body["messages"] for b in m["content"] if b["type"] == "tool_use"]
        assert [(b["id"], b["input"]) for b in uses] == [
            ("call_1", {"path": "a"}),
            ("call_1_2", {}),
            ("call_1_3", {}),
            ("call", {"path": "c"}),
        ]
        answers = [b for m in body["messages"] for b in m["content"] if b["type"] == "tool_result"]
        assert [(b["tool_use_id"], b["content"]) for b in answers] == [
            ("call_1", "(nothing)"),
            ("call_1_2", "two"),
            ("call_1_3", "three"),
            ("call", "four"),
        ]

    use([OK], act)


def test_calls_whose_thoughts_are_gone_are_gone_on_from_without_thinking() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        reply = await used.ask(tools=TOOLS)
        changed = {k: v for k, v in reply.message.items() if k != "native"}
        chat = [*ASK, changed, *results(changed)]
        await used.ask(chat, TOOLS)
        await used.ask([*chat, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Go on."}], TOOLS)
        kinds = [asked.body["thinking"]["type"] for asked in server.asked]
        assert (kinds, server.refusals) == (["enabled", "disabled", "enabled"], [])

    use(TURNS, act, sampling=THINK)


def test_a_model_that_thinks_unasked_is_stopped_where_its_thoughts_are_gone() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        server.thinks = "enabled"
        reply = await used.ask(tools=TOOLS)
        changed = {k: v for k, v in reply.message.items() if k != "native"}
        for message in (changed, changed, reply.message):
            await used.ask([*ASK, message, *results(message)], TOOLS)
        asked = [each.body.get("thinking") for each in server.asked]
        assert asked == [None, {"type": "disabled"}, {"type": "disabled"}, None]
        assert len(server.refusals) == 1

    use(TURNS, act)


@pytest.mark.parametrize("spoilt", ["text", "whole"])
def test_thoughts_that_the_server_does_not_know_are_not_sent_again(spoilt: str) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        reply = await used.ask(tools=TOOLS)
        reply.message["native"]["content"][0] = thinking("x") | {"signature": "another's"}
        chat = [*ASK, reply.message, *results(reply.message)]
        await used.ask(chat, TOOLS)
        await used.ask(chat, TOOLS)
        assert len(server.refusals) == 1
        assert "Invalid `signature`" in server.refusals[0]
        (note,) = used.of(InfrastructureFailed)
        assert "thoughts are not sent back" in note.detail
        assert b"another's" not in server.asked[-1].raw

    use(TURNS, act, sampling=THINK if spoilt == "whole" else {})


@pytest.mark.parametrize(
    ("sampling", "given", "sent"),
    [
        ({}, {}, {"max_tokens": 8192}),
        ({}, {"output": 1, "temperature": 1.4, "seed": 5}, {"max_tokens": 1, "temperature": 1.0}),
        ({}, {"temperature": 0.0}, {"max_tokens": 8192, "temperature": 0.0}),
        ({"max_tokens": 500, "top_p": 0.9}, {"output": 100}, {"max_tokens": 500, "top_p": 0.9}),
        (THINK, {"temperature": 0.3}, {"max_tokens": 12192, **THINK}),
        (THINK, {"output": 2000}, {"max_tokens": 6000, **THINK}),
        ({"thinking": {"type": "disabled"}}, {"temperature": 0.5}, {"thinking": {"type": "disabled"}, "temperature": 0.5, "max_tokens": 8192}),
        ({"temperature": False}, {"temperature": 0.5}, {"max_tokens": 8192}),
    ],
)  # fmt: skip
def test_parameters(sampling: Json, given: Json, sent: Json) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask(**given)
        body = server.asked[0].body
        assert {k: v for k, v in body.items() if k not in ("model", "messages", "system")} == sent
        assert server.refusals == []
        assert used.client.wire.output_tokens(body) == sent["max_tokens"]

    use([OK], act, sampling=sampling)


REFUSED_TEMPERATURE = [
    "temperature is deprecated for this model.",
    "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. Please consult our documentation "
    "at https://docs.claude.com/en/docs/extended-thinking#max-tokens-and-context-window-size",
]


@pytest.mark.parametrize("words", REFUSED_TEMPERATURE)
def test_a_temperature_that_the_model_refuses_is_left_out_from_then_on(words: str) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask(temperature=0.7)
        await used.ask(temperature=0.7)
        assert ["temperature" in asked.body for asked in server.asked] == [True, False, False]
        (note,) = used.of(InfrastructureFailed)
        assert "temperature left out" in note.detail

    use(lambda asked: refused(words) if "temperature" in asked.body else OK, act)


def test_a_temperature_of_the_users_that_the_model_refuses_is_an_error() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        with pytest.raises(CallRefused, match="sampling sends temperature"):
            await used.ask(temperature=0.7)

    use([refused(REFUSED_TEMPERATURE[0])], act, sampling={"temperature": 0.2})


def test_the_longest_answer_is_learnt_from_a_refusal() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.body["max_tokens"] > 4096:
            return refused(
                f"max_tokens: {asked.body['max_tokens']} > 4096, which is the maximum allowed number of output tokens"
                " for claude-3-opus-20240229"
            )
        return OK

    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask()
        await used.ask(longer=2)
        assert [asked.body["max_tokens"] for asked in server.asked] == [8192, 4096, 4096]

    use(answer, act)


def test_calls_that_are_refused_together_learn_the_same() -> None:
    together = threading.Barrier(4)

    def answer(asked: Asked) -> Answer:
        if asked.body["max_tokens"] <= 4096:
            return OK
        together.wait(10)
        return refused("max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens")

    async def act(used: Used, server: MessagesServer) -> None:
        await asyncio.gather(*(used.ask() for _ in range(4)))
        assert [asked.body["max_tokens"] for asked in server.asked] == [8192] * 4 + [4096] * 4
        assert ["at most 4096" in event.detail for event in used.of(InfrastructureFailed)] == [True]
        assert used.client.wire.dialect.left_out == set()

    use(answer, act)


def test_marks_of_the_cache_that_a_server_refuses_are_left_out() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask(tools=TOOLS)
        await used.ask(tools=TOOLS)
        assert [marks(asked.body) for asked in server.asked] == [3, 0, 0]

    use(
        lambda asked: refused("system.0.cache_control: Extra inputs are not permitted") if marks(asked.body) else OK,
        act,
    )


@pytest.mark.parametrize(
    ("refusal", "context"),
    [
        (refused("prompt is too long: 210000 tokens > 200000 maximum"), 200_000),
        (refused("input length and `max_tokens` exceed context limit: 199950 + 8192 > 200000, decrease input length or `max_tokens` and try again"), 200_000),
        (error(413, "request_too_large", "Request exceeds the maximum size"), None),
    ],
)  # fmt: skip
def test_a_conversation_that_does_not_fit_is_told_apart(refusal: Answer, context: int | None) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        with pytest.raises(ContextTooLong):
            await used.ask()
        assert used.client.wire.dialect.context == context

    use([refusal], act)


def test_an_answer_is_given_the_room_that_the_conversation_leaves() -> None:
    """The server refuses by what it counted and what was asked for together."""

    def answer(asked: Asked) -> Answer:
        tokens, limit = len(asked.body["messages"][0]["content"][0]["text"]) // 2, asked.body["max_tokens"]
        if tokens + limit > 20_000:
            return refused(f"input length and `max_tokens` exceed context limit: {tokens} + {limit} > 20000, decrease")
        return OK

    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask([{"role": "user", "content": "x" * 30_000}])
        await used.ask([{"role": "user", "content": "x" * 32_000}])
        limits = [asked.body["max_tokens"] for asked in server.asked]
        assert limits[0] == 8192
        assert 4500 <= limits[1] <= 5000
        assert 3500 <= limits[2] <= 4000
        assert len(limits) == 3
        with pytest.raises(ContextTooLong):
            await used.ask([{"role": "user", "content": "x" * 40_000}])

    use(answer, act)


@pytest.mark.parametrize(
    ("failure", "charged"),
    [
        (error(529, "overloaded_error", "Overloaded"), 0),
        (error(500, "api_error", "Internal server error"), 1),
        (error(429, "rate_limit_error", "Number of request tokens has exceeded your rate limit", retry_after="0.01"), 0),
        (Answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), 0),
        (Answer("<html>gateway</html>", headers={"Content-Type": "text/html"}), 1),
        (Answer("{not json"), 1),
    ],
    ids=["529", "500", "429", "200-error", "html", "garbage"],
)  # fmt: skip
def test_the_worlds_failures_are_retried(failure: Answer, charged: int) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        assert (await used.ask()).message["content"] == "fine"
        assert [event.retried for event in used.of(InfrastructureFailed)] == [True]
        assert [event.charge.usd for event in used.of(Charged)] == [None] * charged

    use([failure, OK], act, usd_per_mtok_input=1.0, usd_per_mtok_output=2.0)


STREAM = list(events(TURNS[0].body))
OVERLOADED: Json = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        ([*STREAM[:9], OVERLOADED], "Overloaded"),
        ([OVERLOADED], "Overloaded"),
        (STREAM[:9], "ended before the answer did"),
        ([], "ended before the answer did"),
    ],
)
def test_a_stream_that_breaks_off_is_retried_and_charged(sent: list[Json], what: str) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        assert (await used.ask()).message["content"] == "fine"
        (note,) = used.of(InfrastructureFailed)
        assert what in note.detail
        assert len(used.of(Charged)) == 1

    use([Answer({}, events=sent), OK], act, stream=True)


@pytest.mark.parametrize(
    "answer",
    [
        *TURNS,
        says(text("half"), call("read", 1), stop="max_tokens"),
        says(stop="refusal", stop_details={"type": "refusal", "explanation": "No."}),
    ],
)
def test_a_streamed_answer_is_what_it_is_when_not_streamed(answer: Answer) -> None:
    got: list[Replied] = []

    async def act(used: Used, server: MessagesServer) -> None:
        got.append(await used.ask())
        assert ("stream" in server.asked[0].body) == (len(got) == 2)

    use([answer], act)
    use([answer], act, stream=True)
    whole, streamed = got
    assert streamed.message == whole.message
    assert json.dumps(streamed.message) == json.dumps(whole.message)
    assert streamed.cut == whole.cut
    assert streamed.charge.usage == whole.charge.usage


def test_a_call_that_the_limit_cut_in_a_stream_has_no_arguments() -> None:
    sent = list(events(says(call("read", 1, path="a" * 40), stop="max_tokens").body))
    del sent[6:-3]

    async def act(used: Used, server: MessagesServer) -> None:
        reply = await used.ask()
        assert reply.cut
        assert reply.message["tool_calls"][0]["function"] == {"name": "read", "arguments": "{}"}
        assert reply.message["native"]["content"] == [call("read", 1)]

    use([Answer({}, events=sent)], act, stream=True)


def test_a_server_that_wants_to_stream_gets_its_way() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        assert (await used.ask()).message["content"] == "fine"
        assert [asked.body.get("stream") for asked in server.asked] == [None, True]

    words = "Streaming is required for operations that may take longer than 10 minutes"
    use(lambda asked: OK if asked.body.get("stream") else refused(words), act)


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (says(text("half of"), stop="max_tokens"), "half of"),
        (says(text("half of"), stop="model_context_window_exceeded"), "half of"),
        (says(thinking("I think and think"), stop="max_tokens"), None),
        (says({"type": "thinking", "thinking": "and think", "signature": ""}, stop="max_tokens"), None),
        (says(stop="max_tokens"), None),
    ],
)
def test_a_cut_answer_is_said_and_the_conversation_goes_on(answer: Answer, content: str | None) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        reply = await used.ask()
        assert (reply.cut, reply.message["content"]) == (True, content)
        chat = [*ASK, reply.message, {"role": "user", "content": "You were cut."}]
        assert not (await used.ask(chat, longer=1)).cut
        assert server.refusals == []
        assert server.asked[1].body["messages"][1]["content"] == [text(content or "(nothing)")]
        assert server.asked[1].body["max_tokens"] == 16384 + 4000

    use([answer, OK], act, sampling=THINK)


def test_a_refusal_of_the_model_is_an_answer() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        reply = await used.ask()
        assert reply.message == {"role": "assistant", "content": "(The model refused to answer: Not this.)"}
        assert not reply.cut
        await used.ask([*ASK, reply.message, {"role": "user", "content": "Go on."}])
        assert server.refusals == []

    use([says(stop="refusal", stop_details={"type": "refusal", "explanation": "Not this."}), OK], act)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        7,
        {},
        {"content": None},
        {"content": "text"},
        {"content": {"type": "text"}},
        {"content": ["text", 3]},
        {"error": "text"},
        {"error": {"type": 3}},
        {"content": None, "usage": []},
    ],
)
def test_odd_json_is_an_unusable_answer(body: Any) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        assert (await used.ask()).message["content"] == "fine"
        (lost,) = used.of(Charged)
        assert (lost.charge.usd, lost.charge.answered) == (None, False)

    use([Answer(json.dumps(body)), OK], act, usd_per_mtok_input=1.0, usd_per_mtok_output=2.0)


@pytest.mark.parametrize(
    "blocks",
    [
        [{"type": "text"}, {"type": "text", "text": 3}],
        [{"type": "tool_use"}],
        [{"type": "tool_use", "id": 3, "name": ["read"], "input": "{}"}],
        [{"type": "tool_use", "id": "toolu_1", "name": "read", "input": [1]}],
        [{"type": "tool_use", "id": "a b", "name": "read", "input": None}, None],
        [{"type": "thinking"}, {"type": "thinking", "thinking": 3}],
        [{}],
        [text("half \ud800 a pair")],
    ],
)
@pytest.mark.parametrize("usage", [{}, {"input_tokens": None}, "text", {"input_tokens": 5, "output_tokens": 2.0}])
def test_odd_blocks_crash_nothing_and_do_not_spoil_the_conversation(blocks: list[Any], usage: Any) -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        reply = await used.ask()
        known = isinstance(usage, dict) and len(usage) == 2
        assert reply.charge.usage == (Usage(input=5, output=2) if known else Usage())
        assert (reply.charge.usd is None) == (not known)
        json.dumps(reply.message, ensure_ascii=False).encode()
        chat = [*ASK, reply.message, *results(reply.message), {"role": "user", "content": "Go on."}]
        await used.ask(chat)
        assert server.refusals == []

    odd = {"content": blocks, "stop_reason": "end_turn", "usage": usage}
    use([Answer(odd), OK], act, usd_per_mtok_input=1.0, usd_per_mtok_output=2.0)


def test_usage_is_told_in_disjoint_parts() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        charge = (await used.ask()).charge
        assert charge.usage == Usage(input=100, cache_read=50, cache_write=30, output=13, reasoning=7)
        assert charge.usd == pytest.approx((100 + 50 * 0.1 + 30 * 1.25 + 20 * 5) / 1e6)

    usage = {**USAGE, "output_tokens_details": {"thinking_tokens": 7}}
    prices = {"input": 1.0, "cache_read": 0.1, "cache_write": 1.25, "output": 5.0}
    alias: Json = {f"usd_per_mtok_{k}": v for k, v in prices.items()}
    use([says(text("x"), usage=usage)], act, **alias)


def test_what_a_cap_reserves_is_what_is_sent() -> None:
    keeper = BudgetKeeper(Budget(usd=0.02))

    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask(longer=3)
        assert server.asked[0].body["max_tokens"] == 16384

    use([OK], act, keeper=keeper, usd_per_mtok_input=1.0, usd_per_mtok_output=1.0)


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (error(401, "authentication_error", "invalid x-api-key"), "refused the key in MY_KEY .401: invalid x-api-key"),
        (error(403, "permission_error", "not allowed to use this model"), "refused the key in MY_KEY .403: not allowed"),
        (error(404, "not_found_error", "model: claude-test"), "knows no model 'claude-test'"),
        (refused("tools.0.name: odd"), "refused the call for claude .400: tools.0.name: odd"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(refusal: Answer, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "opensesame-1234")

    async def act(used: Used, server: MessagesServer) -> None:
        with pytest.raises(EndpointFailed, match=sentence):
            await used.ask()
        assert len(server.asked) == 1

    use([refusal], act, key_env="MY_KEY")


def test_keys_and_headers_of_the_environment_go_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-for-others")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "not-for-others")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Private: not-for-others\nAuthorization: Bearer not-for-others")

    async def act(used: Used, server: MessagesServer) -> None:
        await used.ask()
        headers = server.asked[0].headers
        assert "not-for-others" not in str(headers)
        assert "authorization" not in headers
        assert "x-api-key" not in headers

    use([OK], act)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_variable_of_every_client_points_elsewhere(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "opensesame-1234")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Gateway: mine")
    with serving([OK]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url + ending)
        alias = resolve_model("anthropic/claude-test", Config())
        assert (alias.wire, alias.price_name) == ("anthropic", None)

        async def act() -> Replied:
            connections = Connections()
            try:
                client = ModelClient(alias, connections, record=lambda event: event, patience=QUICK)
                return await client.complete(ASK, purpose="act", attempt=0, key="0/1")
            finally:
                await connections.aclose()

        assert asyncio.run(act()).message["content"] == "fine"
        headers = server.asked[0].headers
        assert "opensesame-1234" in (headers.get("x-api-key") or headers["authorization"])
        assert headers["x-gateway"] == "mine"
        assert server.asked[0].body["model"] == "claude-test"


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "anthropic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anthropic", None)
    alias = Alias("claude", "http://127.0.0.1:9", "claude-test", wire="anthropic")
    with pytest.raises(EndpointFailed, match=r"pip install 'anthropic"):
        ModelClient(alias, Connections(), record=lambda event: event)


def test_the_models_are_listed_with_what_they_bear() -> None:
    async def act(used: Used, server: MessagesServer) -> None:
        server.listed[0]["max_tokens"] = 2000
        (model,) = await used.client.wire.models()
        assert (model["id"], model["max_input_tokens"]) == ("claude-test", 200_000)
        await used.ask()
        assert server.asked[0].body["max_tokens"] == 2000

    use([OK], act)
