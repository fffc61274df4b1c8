"""The strict server itself: a careful client gets through on every row, and what the real servers refuse is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.support.dialect_model import Json
from tests.support.dialects import BY_NAME, DIALECTS, ONE_CONVERSATION, Dialect, DialectServer
from tests.support.model_server import on_thread

RESULT = "def total, passed, Entry, Ren, names.txt"
"""A tool's result that shows what every step wants to see."""
HEADERS = {"Authorization": "Bearer key", "x-api-key": "key", "anthropic-version": "2023-06-01"}
NAMES = ("read", "edit", "create", "run", "test", "submit")
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}
CALLS = {"role": "assistant", "content": "Step 1: I read.", "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "abcdefghi", "content": "x"}
USER = {"role": "user", "content": "x"}
PLAN = {"role": "user", "content": "Mend total. A plan first. No tool calls in this message."}
SOLVABLE = [row for row in DIALECTS if row.wanted.solved]
ENDS = ("submit", "finish")


@pytest.fixture(scope="module")
def server() -> Iterator[DialectServer]:
    with on_thread(DialectServer()) as listening:
        yield listening


HTTP = httpx2.Client(trust_env=False, verify=False, headers=HEADERS)


class Client:
    """Asks one row; an answer that cannot be used is asked for again, with another seed where one is sent."""

    def __init__(self, server: DialectServer, name: str, path: str) -> None:
        self.row = BY_NAME[name]
        self.url = f"{server.base(name)}{path}"
        self.memory = server.memory[name]
        self.seen = len(self.memory.refused)
        self.ill = len(self.memory.mind.bad)

    def post(self, body: Json) -> httpx2.Response:
        return HTTP.post(self.url, json={"model": self.row.model, **body})

    def ask(self, body: Json, read: Callable[[httpx2.Response], Json | None]) -> Json:
        for seed in range(40):
            answer = self.post({**body, "seed": seed} if "unparsed" in self.row.name else body)
            found = read(answer) if answer.status_code == 200 else None
            if found is not None:
                return found
            assert answer.status_code in (200, 429, 500, 529), answer.text
            time.sleep(0.1 if answer.status_code == 429 else 0.0)
        raise AssertionError(f"no answer to be used: {answer.text}")


def whole(answer: httpx2.Response) -> Json | None:
    """The message of a chat answer, streamed or not; None for one that is odd or cut."""
    if answer.headers["content-type"] == "text/event-stream":
        return streamed(answer.text)
    try:
        choice = answer.json()["choices"][0]
        message = choice["message"]
        calls = message.get("tool_calls") or []
        if choice["finish_reason"] == "length" or not all(isinstance(call, dict) for call in calls):
            return None
    except (KeyError, TypeError, AttributeError):
        return None
    return message if isinstance(message.get("content"), (str, list, type(None))) else None


def streamed(text: str) -> Json:
    """The message of a stream's chunks; it ends with its usage."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] > 0 and not chunks[-1]["choices"]
    message: Json = {"role": "assistant", "content": ""}
    for chunk in chunks[:-1]:
        delta = chunk["choices"][0]["delta"]
        for name in ("content", "reasoning_content"):
            message[name] = message.get(name, "") + delta.get(name, "")
        for call in delta.get("tool_calls") or []:
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append({**call, "function": dict(call["function"])})
                del calls[-1]["index"]
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message


def sent_back(message: Json) -> Json:
    """The message as a careful client sends it: as it came, but for what no server reads."""
    back = {k: v for k, v in message.items() if v is not None or k == "content"}
    content = back.get("content")
    if isinstance(content, str):
        back["content"] = content.encode("utf-8", "replace").decode()
    for number, call in enumerate(back.get("tool_calls") or []):
        call["id"] = call.get("id") or f"made{len(json.dumps(back)):04}{number}"
        given = call["function"]["arguments"]
        while isinstance(given, str):
            given = json.loads(given, strict=False)
        call["function"]["arguments"] = json.dumps(given)
    return back


def drive_chat(client: Client) -> list[str]:
    """A whole conversation; the names of the tools called."""
    extra: Json = {"stream": True, "stream_options": {"include_usage": True}} if "stream" in client.row.name else {}
    extra |= {"max_tokens": 4096} if "length" in client.row.name else {}
    plan = client.ask({"messages": [PLAN], **extra}, whole)
    messages = [PLAN, sent_back(plan), {"role": "user", "content": "Go on."}]
    tools: Json = {} if client.row.text or client.row.name == "loose-in-content" else {"tools": TOOLS}
    called: list[str] = []
    for _ in range(14):
        message = sent_back(client.ask({"messages": messages, **tools, **extra}, whole))
        calls = message.get("tool_calls") or []
        called += [call["function"]["name"].partition("<")[0] for call in calls]
        written = re.findall(r'"name": "(\w+)"', str(message["content"])) if not calls else []
        called += written[:1]
        messages.append(message)
        results = [{"role": "tool", "tool_call_id": call["id"], "content": RESULT} for call in calls]
        messages += results or [{"role": "user", "content": RESULT}]
        if called and called[-1] in ENDS:
            break
    return called


CHAT = [row for row in SOLVABLE if row.endpoint == "chat" and row not in ONE_CONVERSATION]


@pytest.mark.parametrize("row", CHAT, ids=lambda row: row.name)
def test_a_careful_client_gets_through(row: Dialect, server: DialectServer) -> None:
    client = Client(server, row.name, "/chat/completions")
    called = drive_chat(client)
    assert called[-1] in ENDS and any(name in called for name in ("edit", "str_replace"))
    assert len(client.memory.mind.bad) == client.ill


@pytest.mark.parametrize("row", ONE_CONVERSATION, ids=lambda row: row.name)
def test_the_first_conversation_is_refused_and_the_second_not(row: Dialect, server: DialectServer) -> None:
    client = Client(server, row.name, "/chat/completions")
    first = client.ask({"messages": [PLAN]}, whole)
    refused = client.post({"messages": [PLAN, first, USER], "tools": TOOLS})
    assert refused.status_code in (400, 413, 429)
    assert drive_chat(client)[-1] == "submit"


def drive_messages(client: Client, *, change: Callable[[list[Json]], Any] = lambda blocks: None) -> list[str]:
    """The same on Anthropic Messages. `change`: what is done to the blocks before they are sent back."""
    tools = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
    marked = [{"type": "text", "text": "You mend bugs.", "cache_control": {"type": "ephemeral"}}]
    room = 20_000 if "length" in client.row.name else 4096
    body = {"max_tokens": room, "system": marked, **client.row.alias.get("sampling", {})}
    plan = client.ask({**body, "messages": [PLAN]}, lambda answer: answer.json())
    messages = [PLAN, {"role": "assistant", "content": plan["content"]}, {"role": "user", "content": "Go on."}]
    called: list[str] = []
    while not called or called[-1] != "submit":
        blocks = client.ask({**body, "tools": tools, "messages": messages}, lambda answer: answer.json())["content"]
        uses = [block for block in blocks if block["type"] == "tool_use"]
        called += [use["name"] for use in uses]
        results = [{"type": "tool_result", "tool_use_id": use["id"], "content": RESULT} for use in uses]
        change(blocks)
        messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    return called


@pytest.mark.parametrize("row", [row for row in SOLVABLE if row.endpoint == "messages"], ids=lambda row: row.name)
def test_a_careful_client_gets_through_on_messages(row: Dialect, server: DialectServer) -> None:
    client = Client(server, row.name, "/v1/messages")
    assert drive_messages(client)[-3:] == ["edit", "test", "submit"]
    assert client.memory.markers == 1 and len(client.memory.mind.bad) == client.ill


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda blocks: blocks.pop(0), "Expected `thinking` or `redacted_thinking`, but found `text`"),
        (lambda blocks: blocks.append(blocks.pop(0)), "Expected `thinking`"),
        (lambda blocks: blocks[0].update(thinking="else"), "cannot be modified"),
        (lambda blocks: blocks[0].update(signature="else"), "Invalid `signature` in `thinking` block"),
        (lambda blocks: blocks[0].pop("signature"), "signature: Field required"),
        (lambda blocks: blocks[-1].update(input="{}"), "Input should be a valid dictionary"),
        (lambda blocks: blocks[-1].update(id="else"), "`tool_use` ids were found without `tool_result`"),
        (lambda blocks: blocks[1].update(text=" "), "text content blocks must be non-empty"),
        (lambda blocks: [block.update(MARK) for block in blocks[1:]], "A maximum of 4 blocks with cache_control"),
    ],
)
def test_messages_that_anthropic_refuses(
    change: Callable[[list[Json]], Any], words: str, server: DialectServer
) -> None:
    client = Client(server, "anthropic-thinking", "/v1/messages")
    with pytest.raises(AssertionError, match=words):
        drive_messages(client, change=change)


def drive_responses(client: Client, *, change: Callable[[list[Json]], Any] = lambda items: None) -> list[str]:
    """The same on Responses."""
    tools = [{"type": "function", "name": name, "parameters": SCHEMA} for name in NAMES]
    body = {"store": False, "include": ["reasoning.encrypted_content"]}
    items: list[Json] = [PLAN]
    plan = client.ask({**body, "input": items}, lambda answer: answer.json())
    items += [*plan["output"], {"role": "user", "content": "Go on."}]
    called: list[str] = []
    while not called or called[-1] != "submit":
        output = client.ask({**body, "input": items, "tools": tools}, lambda answer: answer.json())["output"]
        calls = [item for item in output if item["type"] == "function_call"]
        called += [call["name"] for call in calls]
        results = [{"type": "function_call_output", "call_id": c["call_id"], "output": RESULT} for c in calls]
        change(output)
        items += [*output, *results]
    return called


@pytest.mark.parametrize("row", [row for row in SOLVABLE if row.endpoint == "responses"], ids=lambda row: row.name)
def test_a_careful_client_gets_through_on_responses(row: Dialect, server: DialectServer) -> None:
    client = Client(server, row.name, "/responses")
    assert drive_responses(client)[-3:] == ["edit", "test", "submit"]
    assert len(client.memory.mind.bad) == client.ill
    chat = httpx2.post(
        f"{server.base(row.name)}/chat/completions", json={"messages": [PLAN], "tools": TOOLS}, trust_env=False
    )
    assert chat.status_code in (400, 404) and ("responses" in chat.text or "not a chat model" in chat.text)


def _without_reasoning(items: list[Json]) -> None:
    items[:] = [item for item in items if item["type"] != "reasoning"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_reasoning, "without its required 'reasoning' item"),
        (lambda items: items[0].pop("encrypted_content"), "Items are not persisted when `store` is set to false"),
        (lambda items: items[0].update(encrypted_content="else"), "could not be verified"),
        (lambda items: items[-1].update(call_id="call_else"), "No tool call found for function call output"),
        (lambda items: items.pop(1), "without its required following item"),
    ],
)
def test_items_that_responses_refuses(change: Callable[[list[Json]], Any], words: str, server: DialectServer) -> None:
    client = Client(server, "responses-400", "/responses")
    with pytest.raises(AssertionError, match=words):
        drive_responses(client, change=change)


def test_a_reply_that_needs_more_room_is_cut_before_its_call(server: DialectServer) -> None:
    history = [USER, {"role": "assistant", "content": "Step 1: I read."}, {"role": "user", "content": RESULT}]
    tools = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
    messages = Client(server, "length-anthropic", "/v1/messages")
    for room, end, kinds in [(4096, "max_tokens", ["text"]), (20_000, "tool_use", ["text", "tool_use"])]:
        said = messages.post({"max_tokens": room, "tools": tools, "messages": history}).json()
        assert said["stop_reason"] == end and [block["type"] for block in said["content"]] == kinds
    responses = Client(server, "length-responses", "/responses")
    body = {"input": history, "tools": [{"type": "function", "name": name} for name in NAMES], "store": False}
    said = responses.post({**body, "max_output_tokens": 4096}).json()
    assert said["status"] == "incomplete" and said["incomplete_details"] == {"reason": "max_output_tokens"}
    assert responses.post(body).json()["output"][-1]["name"] == "edit"


@pytest.mark.parametrize(
    ("name", "body", "status", "words"),
    [
        ("plain", {"messages": []}, 400, "empty array"),
        ("plain", {"messages": [{"role": "robot", "content": "x"}]}, 400, "Invalid value: 'robot'"),
        ("plain", {"messages": [USER, ANSWERED]}, 400, "must be a response to a preceeding message"),
        ("plain", {"messages": [USER, CALLS, USER]}, 400, "did not have response messages: abcdefghi"),
        ("plain", {"messages": [USER, CALLS]}, 400, "did not have response messages"),
        ("plain", {"messages": [USER, {"role": "assistant", "content": None}]}, 400, "expected a string, got null"),
        ("plain", {"messages": [USER], "enable_thinking": True}, 400, "Unknown parameter: 'enable_thinking'"),
        ("plain", {"messages": [{**USER, "content": "\ud800"}]}, 400, "could not parse the JSON body"),
        ("openai-reasoning", {"messages": [USER], "max_tokens": 9}, 400, "Use 'max_completion_tokens' instead"),
        ("openai-reasoning", {"messages": [USER], "temperature": 0}, 400, r"Only the default \(1\) value is supported"),
        ("temperature-deprecated", {"messages": [USER], "temperature": 1}, 400, "deprecated for this model"),
        ("kimi", {"messages": [USER], "temperature": 0.6}, 400, "only 1 is allowed for this model"),
        ("kimi", {"messages": [USER, CALLS, ANSWERED]}, 400, "reasoning_content is missing"),
        ("deepseek-thinking", {"messages": [USER, CALLS, ANSWERED]}, 400, "at message index 1"),
        ("deepseek-v4", {"messages": [USER, {"role": "assistant", "content": "y"}, USER]}, 400, "must be passed back"),
        ("gemini-3", {"messages": [USER, CALLS, ANSWERED]}, 400, "missing a thought_signature in functionCall"),
        (
            "gemini-3",
            {
                "messages": [USER],
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "undo", "parameters": {"type": "object", "properties": {}}},
                    }
                ],
            },
            400,
            r"declarations\[0\].parameters.properties: should be non-empty for OBJECT type",
        ),
        ("mistral", {"messages": [USER, CALLS, ANSWERED, USER]}, 400, '"code": "3230"'),
        ("mistral", {"messages": [{**USER, "reasoning_content": "x"}]}, 422, "Extra inputs are not permitted"),
        ("mistral", {"messages": [USER], "seed": 1}, 422, "extra_forbidden"),
        ("llamacpp-roles", {"messages": [USER, USER]}, 500, "roles must alternate"),
        ("llamacpp-roles", {"messages": [USER, CALLS, ANSWERED, USER]}, 500, "roles must alternate"),
        (
            "llamacpp-no-system",
            {"messages": [{"role": "system", "content": "x"}, USER]},
            500,
            "System role not supported",
        ),
        ("ollama-no-tools", {"messages": [USER], "tools": TOOLS}, 400, "does not support tools"),
        ("vllm-no-tools", {"messages": [USER], "tools": TOOLS}, 400, "--enable-auto-tool-choice"),
        ("stream-demanded", {"messages": [USER]}, 400, "must be set to false for non-streaming calls"),
        ("overflow-llamacpp", {"messages": [{**USER, "content": "x" * 30_000}]}, 500, "Context size has been exceeded"),
        ("overflow-vllm-new", {"messages": [USER], "max_tokens": 8192}, 400, "is too large: 8192"),
        ("openrouter-claude", {"messages": [USER, CALLS, ANSWERED]}, 400, "Expected `thinking`"),
        ("retry-after-inf", {"messages": [USER]}, 429, "Rate limit"),
        (
            "loose-raw-newline",
            {
                "messages": [
                    USER,
                    {**CALLS, "tool_calls": [{**CALL, "function": {"name": "read", "arguments": '{"a": "\n"}'}}]},
                    ANSWERED,
                ]
            },
            400,
            "control character",
        ),
    ],
)
def test_what_the_real_servers_refuse(name: str, body: Json, status: int, words: str, server: DialectServer) -> None:
    client = Client(server, name, "/chat/completions")
    raw = json.dumps({"model": "m", **body}).encode()
    answer = HTTP.post(client.url, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    client_words = answer.text.replace('\\"', '"')
    assert re.search(words, client_words), client_words
    assert len(client.memory.refused) == client.seen + 1
