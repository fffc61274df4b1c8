"""The wire to the Responses API against a strict server on this machine, which refuses what OpenAI's refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from agent.models.client import ModelClient
from agent.models.usage import responses_bill
from harness.records import Usage
from harness.trace import Charged, InfrastructureFailed, Replied, to_json
from tasks.errors import CallRefused, ContextTooLong, EndpointFailed
from tests.real.test_model_client import ASK, QUICK, Used, recording, use
from tests.support.model_server import Answer, ModelServer, Request, error

Json = dict[str, Any]

WIRE: Json = {"wire": "responses"}
TOOLS: list[Json] = [
    {"type": "function", "function": {"name": "run", "description": "Runs it.", "parameters": {"type": "object"}}}
]
START: list[Json] = [{"role": "system", "content": "You mend code."}, {"role": "user", "content": "Mend it."}]
PARAMETERS = frozenset(
    (
        "model",
        "input",
        "instructions",
        "tools",
        "temperature",
        "max_output_tokens",
        "stream",
        "store",
        "include",
        "reasoning",
        "text",
        "top_p",
    )
)
USAGE: Json = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 130,
}
EXTRA: Json = {"logprobs": [], "annotations": []}


def said(text: str, name: str = "msg_0", **more: Any) -> Json:
    """A message of the model, as OpenAI sends it."""
    part = {"type": "output_text", "text": text, **EXTRA}
    return {"id": name, "type": "message", "status": "completed", "content": [part], "role": "assistant", **more}


def thought(turn: int, **more: Any) -> Json:
    summary = [{"type": "summary_text", "text": f"Thought {turn}."}]
    return {"id": f"rs_{turn}", "type": "reasoning", "encrypted_content": f"gAAA{turn}", "summary": summary, **more}


def called(turn: int, number: int = 0) -> Json:
    arguments = json.dumps({"command": f"ls {turn}"})
    call = f"call_{turn}_{number}"
    item = {"id": f"fc_{turn}_{number}", "type": "function_call", "status": "completed", "arguments": arguments}
    return {**item, "call_id": call, "name": "run"}


def response(*output: Any, **more: Any) -> Answer:
    return Answer(raw=json.dumps(body_of(*output, **more)))


def body_of(*output: Any, **more: Any) -> Json:
    head = {"id": "resp_1", "object": "response", "status": "completed", "error": None, "incomplete_details": None}
    return {**head, "output": list(output), "usage": USAGE, **more}


def result_of(call: Json, text: str = "a.py") -> Json:
    return {"role": "tool", "tool_call_id": call["id"], "content": text}


class Strict:
    """OpenAI's server of a reasoning model: Responses only, no temperature, nothing persisted, strict pairs. `turn`
    gives the items of the answer by how many results a request holds."""

    def __init__(self, turn: Callable[[int], Sequence[Json]], *refusals: Callable[[Json], Answer | None]) -> None:
        self.turn = turn
        self.refusals = refusals
        self.issued: dict[str, str] = {}
        self.refused: list[str] = []
        self.chat = error(404, "This model is only supported in v1/responses and not in v1/chat/completions.")

    def __call__(self, request: Request) -> Answer:
        if not request.path.endswith("/responses"):
            return self.chat
        body = request.body
        wrong = self._of_parameters(body) or self._of_items(body["input"])
        wrong = wrong or next(filter(None, (refusal(body) for refusal in self.refusals)), None)
        if wrong:
            self.refused.append(json.loads(str(wrong.raw))["error"]["message"])
            return wrong
        done = sum(item.get("type") == "function_call_output" for item in body["input"])
        items = self.turn(done)
        self.issued |= {item["id"]: json.dumps(item) for item in items}
        return response(*items)

    def _of_parameters(self, body: Json) -> Answer | None:
        for name in body.keys() - PARAMETERS:
            return error(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if "temperature" in body:
            text = "Unsupported parameter: 'temperature' is not supported with this model."
            return error(400, text, param="temperature", code="unsupported_parameter")
        if body.get("store") is not False or body.get("include") != ["reasoning.encrypted_content"]:
            return error(400, "This organisation must not store anything.")
        if any(tool.get("name") != "run" or tool.get("strict") is not False for tool in body.get("tools", [])):
            return error(400, "Missing required parameter: 'tools[0].name'.", param="tools[0].name")
        return None

    def _of_items(self, items: Sequence[Json]) -> Answer | None:
        open_calls: list[str] = []
        for at, item in enumerate(items):
            kind = item.get("type", "message")
            identity = item.get("id")
            if kind == "reasoning":
                follows = items[at + 1] if at + 1 < len(items) else {}
                if follows.get("type") not in ("reasoning", "function_call", "message"):
                    text = f"Item '{identity}' of type 'reasoning' was provided without its required following item."
                    return error(400, text, param="input")
                if not item.get("encrypted_content"):
                    text = f"Item with id '{identity}' not found. Items are not persisted when `store` is set to false."
                    return error(404, text, param="input")
            if kind == "function_call":
                open_calls.append(item["call_id"])
            if kind == "function_call_output":
                if item["call_id"] not in open_calls:
                    return error(400, f"No tool call found for function call output with call_id {item['call_id']}.")
                open_calls.remove(item["call_id"])
            if identity in self.issued and json.dumps(item) != self.issued[identity]:
                return error(400, f"Item '{identity}' is not what was sent.")
        if open_calls:
            return error(400, f"No tool output found for function call {open_calls[0]}.", param="input")
        return None


def test_what_the_model_thought_is_carried_from_turn_to_turn_as_it_came() -> None:
    turns = [
        [thought(0), said("I look."), called(0)],
        [thought(1), called(1), called(1, 1)],
        [thought(2), said("Done.", "msg_2", phase="final_answer")],
    ]
    strict = Strict(lambda done: turns[{0: 0, 1: 1, 3: 2}[done]])

    async def act(used: Used, server: ModelServer) -> None:
        chat, replies = list(START), []
        for _ in turns:
            reply = await used.ask(chat, tools=TOOLS, seed=3, temperature=0.7)
            replies.append(reply)
            chat += [reply.message, *(result_of(call) for call in reply.message.get("tool_calls", ()))]
        first, second, last = (reply.message for reply in replies)
        assert (first["content"], first["reasoning_content"]) == ("I look.", "Thought 0.")
        function = {"name": "run", "arguments": '{"command": "ls 0"}'}
        assert first["tool_calls"] == [{"id": "call_0_0", "type": "function", "function": function}]
        assert [call["id"] for call in second["tool_calls"]] == ["call_1_0", "call_1_1"]
        assert second["content"] is None
        assert last["content"] == "Done."
        assert replies[0].charge.usage == Usage(input=40, cache_read=60, output=10, reasoning=20)
        assert strict.refused == ["Unsupported parameter: 'temperature' is not supported with this model."]
        bodies = [request.body for request in server.requests[1:]]
        assert all(body["instructions"] == "You mend code." for body in bodies)
        inputs = [body["input"] for body in bodies]
        assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(inputs))
        assert inputs[2][1:4] == turns[0]
        assert inputs[2][4] == {"type": "function_call_output", "call_id": "call_0_0", "output": "a.py"}

    use(strict, act, **WIRE)


def test_a_resumed_conversation_sends_the_same_bytes() -> None:
    strict = Strict(lambda done: [thought(done), called(done)] if done < 2 else [said("Done.")])

    async def act(used: Used, server: ModelServer) -> None:
        chat = list(START)
        for _ in range(2):
            reply = await used.ask(chat, tools=TOOLS)
            chat += [reply.message, result_of(reply.message["tool_calls"][0])]
        await used.ask(chat, tools=TOOLS)
        resumed = Used(server, wire="responses")
        lines = [json.dumps(to_json(event)) for event in used.of(Replied)]
        first, second, _ = (json.loads(line)["message"] for line in lines)
        await resumed.ask([*START, first, chat[3], second, chat[5]], tools=TOOLS)
        await resumed.connections.aclose()
        assert server.requests[-1].raw == server.requests[-2].raw

    use(strict, act, **WIRE)


TO_RESPONSES = [
    error(
        400,
        "Function tools with reasoning_effort are not supported for gpt-x in /v1/chat/completions. To use function tools,"
        " use /v1/responses or set reasoning_effort to 'none'.",
        param="reasoning_effort",
    ),
    error(404, "This model is only supported in v1/responses and not in v1/chat/completions.", param="model"),
    error(404, "This is not a chat model and thus not supported in the v1/chat/completions endpoint.", param="model"),
    Answer(status=404, raw='{"detail": "Not Found"}'),
]


@pytest.mark.parametrize("refusal", TO_RESPONSES)
def test_an_alias_moves_to_the_responses_api_by_itself_once_for_all_clients(refusal: Answer) -> None:
    strict = Strict(lambda done: [thought(done), called(done)])
    strict.chat = refusal

    async def act(used: Used, server: ModelServer) -> None:
        older = [{"role": "assistant", "content": "My plan.", "reasoning_content": "Hm."}, ASK[0]]
        reply = await used.ask([*START, *older], tools=TOOLS)
        assert reply.message["tool_calls"][0]["function"]["name"] == "run"
        other = ModelClient(used.client.alias, used.connections, record=recording(used.events), patience=QUICK)
        await other.complete(START, TOOLS, purpose="act", attempt=1, key="1/1")
        paths = [request.path.rpartition("/")[2] for request in server.requests]
        assert paths == ["completions", "responses", "responses"]
        (said_once,) = used.of(InfrastructureFailed)
        assert said_once.detail.endswith("from now on it is spoken to by the Responses API")
        plan = server.requests[1].body["input"][1]
        assert plan["content"] == [{"type": "output_text", "text": "My plan.", "annotations": []}]
        assert (plan["role"], plan["type"], plan["status"]) == ("assistant", "message", "completed")

    use(strict, act)


def test_a_cut_answer_says_so_and_its_thoughts_alone_are_not_sent_back() -> None:
    cut = body_of(thought(0), status="incomplete", incomplete_details={"reason": "max_output_tokens"})

    async def act(used: Used, server: ModelServer) -> None:
        strict.turn = lambda done: [said("Shorter.")]
        first = await used.ask(START, output=1)
        assert first.cut
        assert first.message["content"] is None
        assert first.charge.usage.reasoning == 20
        second = await used.ask([*START, first.message, ASK[0]])
        assert not second.cut
        assert [item.get("role") for item in server.requests[1].body["input"]] == ["user", "user"]
        assert server.requests[0].body["max_output_tokens"] == 16, "the API takes no less"

    strict = Strict(lambda done: [])
    use(lambda asked: strict(asked) if asked.number else Answer(raw=json.dumps(cut)), act, **WIRE)


def test_an_answer_that_a_filter_ended_is_an_answer() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        assert not reply.cut
        assert reply.message["content"] == "So far."

    use([response(said("So far."), status="incomplete", incomplete_details={"reason": "content_filter"})], act, **WIRE)


QUEUED = {"status": "queued", "output": []}


@pytest.mark.parametrize(
    "raw",
    [
        *("[]", '"text"', "3", "null", "no JSON", '{"output": "text"}', '{"output": {"type": "message"}}', "{}"),
        '{"choices": [{"message": {"content": "x"}}], "usage": {"input_tokens": "9"}}',
        '{"output": null, "usage": []}',
        json.dumps(QUEUED),
        '{"status": "failed", "error": {"code": "odd", "message": "It broke."}, "output": []}',
    ],
)
def test_json_that_is_no_answer_is_charged_as_unknown_and_ends_no_run(raw: str) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(EndpointFailed, match="kept failing"):
            await used.ask()
        assert len(used.of(Charged)) == 4
        assert all(event.charge.usd is None for event in used.of(Charged))

    use([Answer(raw=raw)], act, **WIRE)


@pytest.mark.parametrize(
    ("output", "content", "calls"),
    [
        (["x", None, 7, []], None, 0),
        ([{"type": "message", "content": "plain"}], "plain", 0),
        ([{"type": "message", "content": [{"type": "refusal", "refusal": "No."}, "x", {"text": 3}]}], "No.", 0),
        ([{"type": "message", "content": {"text": "x"}}, {"type": "strange"}, {}], None, 0),
        ([{"type": "function_call"}], None, 1),
        ([{"type": "reasoning", "summary": "s", "content": None}, said("half \ud800 pair")], "half \ufffd pair", 0),
    ],
)
def test_odd_items_are_an_answer_that_can_be_sent_back(output: list[Any], content: str | None, calls: int) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask()
        assert reply.message["content"] == content
        assert len(reply.message.get("tool_calls", ())) == calls
        await used.ask([*ASK, reply.message, ASK[0]])
        sent = server.requests[1].body["input"]
        assert all(isinstance(item, dict) and None not in item.values() for item in sent)

    use([response(*output, status="incomplete", incomplete_details={"reason": ["odd"]})], act, **WIRE)


def events(*more: Json, whole: Json | None) -> Answer:
    head = [{"type": "response.created", "response": {"status": "in_progress", "error": None}}, *more]
    last = [] if whole is None else [{"type": f"response.{whole['status']}", "response": whole}]
    lines = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in [*head, *last])
    return Answer(raw=lines, headers={"Content-Type": "text/event-stream"})


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "only the items' own events hold them"])
def test_a_streamed_answer_is_what_it_is_unstreamed(whole: bool) -> None:
    items = [thought(0), said("I look."), called(0)]
    deltas: list[Json] = [{"type": "response.output_text.delta", "delta": "I "}, {"type": ["odd"], "response": {}}]
    done = [{"type": "response.output_item.done", "item": item} for item in items]

    def script(request: Request) -> Answer:
        if request.body.get("stream"):
            return events(*deltas, *done, whole=body_of(*items if whole else ()))
        return response(*items)

    async def act(used: Used, server: ModelServer) -> None:
        streamed = await used.ask()
        plain = Used(server, wire="responses")
        unstreamed = await plain.ask()
        await plain.connections.aclose()
        assert server.requests[0].body["stream"] is True
        assert streamed.message == unstreamed.message
        assert streamed.charge.usage == unstreamed.charge.usage == responses_bill({"usage": USAGE})[0]

    use(script, act, stream=True, **WIRE)


def failed(code: str, message: str) -> Json:
    return body_of(status="failed", error={"code": code, "message": message}, usage=None)


TOO_LONG = "Your input exceeds the context window of this model. Please adjust your input and try again."


@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [
        (events(whole=failed("server_error", "It broke.")), EndpointFailed, 4),
        (events(whole=failed("context_length_exceeded", TOO_LONG)), ContextTooLong, 1),
        (
            events({"type": "error", "code": "context_length_exceeded", "message": TOO_LONG}, whole=None),
            ContextTooLong,
            1,
        ),
        (
            events({"type": "error", "error": {"code": "server_error", "message": "It broke."}}, whole=None),
            EndpointFailed,
            4,
        ),
        (events(whole=failed("invalid_prompt", "Limited for safety reasons.")), CallRefused, 1),
        (events(whole=failed("insufficient_quota", "Pay first.")), EndpointFailed, 1),
        (events(whole=None), EndpointFailed, 4),
        (error(400, TOO_LONG, code="context_length_exceeded", param="input"), ContextTooLong, 1),
        (error(401, "Incorrect API key provided."), EndpointFailed, 1),
        (error(404, "The model `x` does not exist.", code="model_not_found"), EndpointFailed, 1),
    ],
)
def test_a_failure_is_explained_and_tried_again_only_where_that_helps(
    answer: Answer, kind: type[Exception], asked: int
) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        with pytest.raises(EndpointFailed) as raised:
            await used.ask()
        assert type(raised.value) is kind
        assert len(server.requests) == asked

    use([answer], act, stream=True, **WIRE)


def test_a_turn_that_another_api_answered_or_that_was_changed_goes_as_new_items() -> None:
    strict = Strict(lambda done: [said("Done.")])
    function = {"name": "run", "arguments": "{}"}
    malformed = {
        "role": "assistant",
        "content": "I run.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "call_9", "type": "function", "function": function, "extra_content": {"x": 1}}],
    }
    foreign = {"role": "assistant", "content": "Hi.", "native": {"wire": "anthropic", "items": [{"type": "thinking"}]}}

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask([*START, malformed, result_of({"id": "call_9"}, "b.py"), foreign, ASK[0]])
        _, text, call, output, other, last = server.requests[0].body["input"]
        assert text["content"][0]["text"] == "I run."
        assert call == {"type": "function_call", "call_id": "call_9", **function}
        assert output == {"type": "function_call_output", "call_id": "call_9", "output": "b.py"}
        assert other["content"][0]["text"] == "Hi."
        assert last == ASK[0]
        assert text["id"] != other["id"]

    use(strict, act, **WIRE)


def test_reasoning_without_its_encrypted_content_is_left_out_where_it_is_not_found() -> None:
    bare = [{k: v for k, v in thought(0).items() if k != "encrypted_content"}, called(0)]
    strict = Strict(lambda done: [said("Done.")] if done else bare)

    async def act(used: Used, server: ModelServer) -> None:
        first = await used.ask(START, tools=TOOLS)
        chat = [*START, first.message, result_of(first.message["tool_calls"][0])]
        await used.ask(chat, tools=TOOLS)
        await used.ask(chat, tools=TOOLS)
        assert len(strict.refused) == 1
        assert len(server.requests) == 4
        kinds = [item.get("type") for item in server.requests[-1].body["input"]]
        assert kinds == [None, "function_call", "function_call_output"]
        assert "store" in server.requests[-1].body
        assert not any("id" in item for item in server.requests[-1].body["input"])
        (note,) = used.of(InfrastructureFailed)
        assert note.detail.endswith("from now on its items are sent back without their ids")

    use(strict, act, **WIRE)


def test_reasoning_that_cannot_be_decrypted_is_left_out_and_new_reasoning_is_carried_on() -> None:
    strict = Strict(lambda done: [thought(done), called(done)], lambda body: foreign(body["input"]))

    def foreign(items: Sequence[Json]) -> Answer | None:
        if not any(item.get("encrypted_content") == "other key" for item in items):
            return None
        text = "The encrypted content gAAA could not be verified. Reason: It could not be decrypted or parsed."
        return error(400, text, code="invalid_encrypted_content")

    async def act(used: Used, server: ModelServer) -> None:
        items = [thought(9, encrypted_content="other key"), called(9)]
        calls = [{"id": "call_9_0", "type": "function", "function": {"name": "run", "arguments": "{}"}}]
        old = {
            "role": "assistant",
            "content": None,
            "tool_calls": calls,
            "native": {"wire": "responses", "items": items},
        }
        chat = [*START, old, result_of(calls[0])]
        reply = await used.ask(chat, tools=TOOLS)
        await used.ask([*chat, reply.message, result_of(reply.message["tool_calls"][0])], tools=TOOLS)
        assert len(strict.refused) == 1
        sent = server.requests[-1].body["input"]
        assert [item.get("id") for item in sent] == [None, None, None, "rs_1", "fc_1_0", None]

    use(strict, act, **WIRE)


def test_an_open_server_without_encrypted_content_works() -> None:
    """As vLLM: messages of the model must have an id and a status, thoughts are open, nulls stand in them."""
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Open."}]},
        {**said("I look."), "phase": None},
        called(0),
    ]
    items[0] |= {"encrypted_content": None, "status": None}

    def script(request: Request) -> Answer:
        body = request.body
        if "include" in body:
            return error(400, "Encrypted content is not supported with this model.", param="include")
        for item in body["input"]:
            if item.get("role") == "assistant" and not (item.get("id") and item.get("status")):
                return error(422, "Field required: body.input.id, body.input.status")
            if item.get("type") == "reasoning" and not item.get("id"):
                return error(422, "Field required: body.input.id")
        return response(*items)

    async def act(used: Used, server: ModelServer) -> None:
        plan = [{"role": "assistant", "content": "My plan."}, ASK[0]]
        reply = await used.ask([*START, *plan], tools=TOOLS)
        assert reply.message["reasoning_content"] == "Open."
        await used.ask([*START, *plan, reply.message, result_of(reply.message["tool_calls"][0])], tools=TOOLS)
        assert len(server.requests) == 3
        sent = server.requests[-1].body["input"]
        assert sent[3:5] == [{k: v for k, v in item.items() if v is not None} for item in items[:2]]
        assert sent[5] == items[2]

    use(script, act, **WIRE)


def refusing(name: str, text: str) -> Callable[[Request], Answer]:
    """Refuses requests that hold a parameter, or an item with such a field."""

    def script(request: Request) -> Answer:
        body = request.body
        if name in body or any(name in item for item in body["input"]):
            return error(400, text, param=None)
        return response(said("Done.", phase="final", status="completed"))

    return script


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reasoning", "Unsupported parameter: 'reasoning.summary' is not supported with this model."),
        ("reasoning", "Your organization must be verified to generate reasoning summaries."),
        ("include", "Encrypted content is not supported with this model."),
        ("store", "Unknown parameter: 'store'."),
        ("max_output_tokens", "Unsupported parameter: max_output_tokens"),
        ("instructions", "`instructions` is not a known field"),
        ("phase", "Unknown parameter: 'input[1].phase'."),
        ("status", "Unknown parameter: 'input[1].status'."),
        ("id", "Invalid 'input[1].id': 'msg_0'. Expected an ID that begins with 'xyz'."),
    ],
)
def test_what_a_server_refuses_is_left_out_from_then_on(name: str, text: str) -> None:
    async def act(used: Used, server: ModelServer) -> None:
        first = await used.ask(START, output=500)
        more = [*START, first.message, ASK[0]]
        await used.ask(more, output=500)
        await used.ask(more, output=500)
        assert len(server.requests) == 4, "refused once"
        last = server.requests[-1].body
        assert {"instructions", "store", "include", "reasoning", "max_output_tokens"} - {name} <= last.keys()
        assert last["input"][-2]["content"][0]["text"] == "Done."
        assert (START[0] in last["input"]) == (name == "instructions")
        assert len(used.of(InfrastructureFailed)) == 1

    use(refusing(name, text), act, **WIRE)


def test_a_server_that_takes_no_system_message_in_any_form_gets_it_from_the_user() -> None:
    def script(request: Request) -> Answer:
        body = request.body
        if "instructions" in body:
            return error(400, "Argument not supported: instructions")
        if any(item.get("role") == "system" for item in body["input"]):
            return error(400, "The system role is not supported by this model.")
        return response(said("x"))

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(START)
        assert server.requests[-1].body["input"] == [{"role": "user", "content": "You mend code.\n\nMend it."}]
        assert len(server.requests) == 3

    use(script, act, **WIRE)


def test_reasoning_items_that_are_refused_by_their_place_are_left_out() -> None:
    def script(request: Request) -> Answer:
        items = request.body["input"]
        if any(item.get("type") == "reasoning" for item in items):
            return error(400, "Invalid 'input[1].content': array too long. Expected at most 0, got 1 instead.")
        return response(thought(0, content=[{"type": "reasoning_text", "text": "x"}]), said("Done."))

    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask(START)
        await used.ask([*START, reply.message, ASK[0]])
        assert [item.get("type") for item in server.requests[-1].body["input"]] == [None, "message", None]

    use(script, act, **WIRE)


def test_a_server_that_takes_one_call_at_a_time_gets_each_with_its_result() -> None:
    def script(request: Request) -> Answer:
        kinds = [item.get("type") for item in request.body["input"]]
        if ("function_call", "function_call") in pairwise(kinds):
            return error(400, "This model only supports single tool-calls at once!")
        return response(thought(0), called(0), called(0, 1))

    async def act(used: Used, server: ModelServer) -> None:
        reply = await used.ask(START, tools=TOOLS)
        results = [result_of(call, f"result {call['id']}") for call in reply.message["tool_calls"]]
        await used.ask([*START, reply.message, *results], tools=TOOLS)
        sent = server.requests[-1].body["input"]
        calls = [item.get("call_id") for item in sent]
        assert calls == [None, None, "call_0_0", "call_0_0", "call_0_1", "call_0_1"]

    use(script, act, **WIRE)


def test_parameters_of_the_alias_win_and_have_their_names_here() -> None:
    async def act(used: Used, server: ModelServer) -> None:
        await used.ask(START, temperature=0.7, seed=3, output=500)
        body = server.requests[0].body
        assert body["max_output_tokens"] == 4000
        assert body["reasoning"] == {"summary": "auto", "effort": "high"}
        assert body["text"] == {"verbosity": "low"}
        assert body["temperature"] == 0.2
        assert body["store"] is False
        assert not {"include", "seed", "max_tokens", "reasoning_effort", "verbosity", "tools", "stream"} & body.keys()

    sampling = {"max_tokens": 4000, "reasoning_effort": "high", "verbosity": "low", "temperature": 0.2}
    use([response(said("x"))], act, sampling={**sampling, "include": False}, **WIRE)


def test_the_effort_that_the_user_asks_for_stays_where_summaries_are_refused() -> None:
    def script(request: Request) -> Answer:
        if "summary" in request.body["reasoning"]:
            return error(400, "Your organization must be verified to generate reasoning summaries.")
        return response(said("x"))

    async def act(used: Used, server: ModelServer) -> None:
        await used.ask()
        assert server.requests[-1].body["reasoning"] == {"effort": "low"}

    use(script, act, sampling={"reasoning": {"effort": "low"}}, **WIRE)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(input=40, cache_read=60, output=10, reasoning=20)),
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": None}, Usage(input=10, output=5)),
        ({"input_tokens": 10.0, "output_tokens": None, "total_tokens": 14}, Usage(input=10, output=4)),
        ({"input_tokens": 10, "output_tokens": 5, "total_tokens": 25}, Usage(input=10, output=15)),
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 99}}, Usage(0, 10, 0, 5)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
            },
            Usage(5, 2, 3, 5),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(input=10, output=5)),
        ({"input_tokens": "10", "output_tokens": 5}, None),
        ({"input_tokens": 10, "output_tokens": "5"}, None),
        ({"input_tokens": True, "output_tokens": -1}, None),
        ({}, None),
        ([], None),
        ("text", None),
        (None, None),
    ],
)
def test_usage_comes_in_disjoint_parts(usage: Any, expected: Usage | None) -> None:
    assert responses_bill({"usage": usage}) == (expected, None)


def test_what_a_provider_says_it_costs_is_told() -> None:
    assert responses_bill({"usage": {**USAGE, "cost": 0.25}})[1] == 0.25


def test_thirty_two_conversations_move_once() -> None:
    strict = Strict(lambda done: [thought(done), called(done)])

    async def act(used: Used, server: ModelServer) -> None:
        await asyncio.gather(*(used.ask(START, tools=TOOLS, attempt=at, temperature=0.5) for at in range(32)))
        notes = [event.detail.partition("from now on ")[2] for event in used.of(InfrastructureFailed)]
        assert notes.count("it is spoken to by the Responses API") == 1
        await used.ask(START, tools=TOOLS, temperature=0.5)
        assert server.requests[-1].path.endswith("/responses")
        assert "temperature" not in server.requests[-1].body

    use(strict, act)
