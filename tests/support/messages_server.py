"""A real HTTP server of the Messages API, which refuses what Anthropic's refuses and says what its script says.

Thinking is signed: a block that comes back in any other form than it was given out is refused.

    python -m tests.support.messages_server

prints the base URL and answers everything with a greeting until it is killed (benchmarks).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

USAGE: Json = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 50,
    "output_tokens": 20,
    "service_tier": "standard",
}
_PARAMETERS = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "stream", "thinking", "output_config"),
        *("temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier"),
    }
)
_FIELDS = {
    "text": {"text", "citations"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "tool_use": {"id", "name", "input", "caller"},
    "tool_result": {"tool_use_id", "content", "is_error"},
}
_LINK = "Please consult our documentation at https://docs.claude.com/en/docs/extended-thinking#max-tokens-and-context-window-size"


@dataclass(frozen=True)
class Asked:
    """A request as it came; `number` counts all that were not refused by the rules."""

    number: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Json:
        parsed: Json = json.loads(self.raw)
        return parsed


@dataclass(frozen=True)
class Answer:
    """`body`: JSON, or the text itself; `events`: of a stream, in place of those that the body comes to."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Json] | None = None


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def thinking(words: str) -> Json:
    return {"type": "thinking", "thinking": words, "signature": signature(words)}


def redacted(data: str) -> Json:
    return {"type": "redacted_thinking", "data": f"{data}.{signature(data)}"}


def call(name: str, number: int, **given: Any) -> Json:
    return {"type": "tool_use", "id": f"toolu_{number:04}", "name": name, "input": given}


def says(*blocks: Json, stop: str | None = None, usage: Json | None = None, **more: Any) -> Answer:
    """An answer of these blocks."""
    called = any(block.get("type") == "tool_use" for block in blocks)
    body = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": list(blocks),
        "stop_reason": stop or ("tool_use" if called else "end_turn"),
        "stop_sequence": None,
        "usage": USAGE if usage is None else usage,
    }
    return Answer({**body, **more})


def error(status: int, kind: str, words: str, **headers: str) -> Answer:
    return Answer({"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_1"}, status, headers)


def refused(words: str) -> Answer:
    return error(400, "invalid_request_error", words)


def signature(words: str) -> str:
    return hashlib.sha256(b"ours" + words.encode()).hexdigest()


class MessagesServer:
    """`asked`: all requests that the rules let through; `refusals`: what was said to the others. `thinks`: the type of
    thinking of a request that names none."""

    def __init__(self, script: Callable[[Asked], Answer] | Sequence[Answer], *, keep: bool = True) -> None:
        """`keep` False: requests are not recorded (benchmarks)."""
        self.thinks = "disabled"
        self.keep = keep
        self.script = script
        self.asked: list[Asked] = []
        self.refusals: list[str] = []
        self.url = ""
        self.listed: list[Json] = [
            {"type": "model", "id": "claude-test", "display_name": "Test", "max_input_tokens": 200_000}
        ]

    def answer(self, headers: Mapping[str, str], raw: bytes) -> Answer:
        body = json.loads(raw)
        if headers.get("anthropic-version") is None:
            return refused("anthropic-version: header is required")
        if words := next(broken_rules(body, self.thinks), None):
            self.refusals.append(words)
            return refused(words)
        asked = Asked(len(self.asked), headers, raw)
        if self.keep:
            self.asked.append(asked)
        if callable(self.script):
            return self.script(asked)
        return self.script[min(asked.number, len(self.script) - 1)]


@contextlib.contextmanager
def serving(script: Callable[[Asked], Answer] | Sequence[Answer], *, keep: bool = True) -> Iterator[MessagesServer]:
    """The server on threads of its own; stopped at the end of the block."""
    server = MessagesServer(script, keep=keep)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/messages":
                return self._send(error(404, "not_found_error", "Not Found"))
            answer = server.answer({k.lower(): v for k, v in self.headers.items()}, raw)
            if answer.status == 200 and json.loads(raw).get("stream"):
                return self._stream(answer.events if answer.events is not None else events(answer.body))
            return self._send(answer)

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/v1/models"
            listing = Answer({"data": server.listed, "has_more": False})
            self._send(listing if found else error(404, "not_found_error", "Not Found"))

        def _send(self, answer: Answer) -> None:
            body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def _stream(self, sent: Iterable[Json]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in sent:
                self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(10)


def events(body: Json) -> Iterator[Json]:
    """The events that the API streams for this response."""
    usage = body["usage"]
    start = {**body, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(body["content"]):
        at = {"index": index}
        empty = {"text": "", "thinking": "", "signature": "", "input": {}}
        first = {name: empty.get(name, value) for name, value in block.items()}
        yield {"type": "content_block_start", **at, "content_block": first}
        deltas = {
            "text": [("text_delta", "text", block.get("text"))],
            "thinking": [
                ("thinking_delta", "thinking", block.get("thinking")),
                ("signature_delta", "signature", block.get("signature")),
            ],
            "tool_use": [
                ("input_json_delta", "partial_json", json.dumps(block["input"]) if block.get("input") else "")
            ],
        }
        for kind, name, whole in deltas.get(block["type"], []):
            for piece in [whole[n : n + 7] for n in range(0, len(whole), 7)] or [""]:
                yield {"type": "content_block_delta", **at, "delta": {"type": kind, name: piece}}
        yield {"type": "content_block_stop", **at}
    ending = {"stop_reason": body["stop_reason"], "stop_sequence": body["stop_sequence"]}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def marks(body: Json) -> int:
    """How many marks of the prompt cache a request holds."""
    return json.dumps(body).count('"cache_control"')


def broken_rules(body: Json, unasked: str = "disabled") -> Iterator[str]:
    """What the API would refuse about the request, in its words; `unasked`: how the model thinks if it says nothing."""
    for name in body.keys() - _PARAMETERS:
        yield f"{name}: Extra inputs are not permitted"
    if not isinstance(body.get("max_tokens"), int):
        yield "max_tokens: Field required"
    elif body["max_tokens"] < 1:
        yield "max_tokens: Input should be greater than or equal to 1"
    if not 0 <= body.get("temperature", 1) <= 1:
        yield "temperature: range: 0..1"
    if marks(body) > 4:
        yield f"A maximum of 4 blocks with cache_control may be provided. Found {marks(body)}."
    thinks = body.get("thinking", {}).get("type")
    if thinks == "enabled" and not 1024 <= body["thinking"]["budget_tokens"] < body["max_tokens"]:
        yield f"`max_tokens` must be greater than `thinking.budget_tokens`. {_LINK}"
    if thinks in ("enabled", "adaptive") and body.get("temperature", 1) != 1:
        yield f"`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. {_LINK}"
    yield from _broken_tools(body.get("tools", []))
    for n, block in enumerate(body.get("system", [])):
        yield from _broken_block(f"system.{n}", block, {"text"})
    yield from _broken_messages(body["messages"], must_think=(thinks or unasked) == "enabled")


def _broken_tools(tools: Sequence[Json]) -> Iterator[str]:
    for n, tool in enumerate(tools):
        if tool.keys() - {"name", "description", "input_schema", "cache_control"}:
            yield f"tools.{n}: Extra inputs are not permitted"
        if not re.fullmatch("[a-zA-Z0-9_-]{1,128}", tool["name"]):
            yield f"tools.{n}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if tool["input_schema"].get("type") != "object":
            yield f"tools.{n}.input_schema.type: Field required"


def _broken_messages(messages: Sequence[Json], *, must_think: bool) -> Iterator[str]:
    seen: set[str] = set()
    open_calls: list[str] = []
    for n, message in enumerate(messages):
        at, role, blocks = f"messages.{n}", message["role"], message["content"]
        if message.keys() != {"role", "content"}:
            yield f"{at}: Extra inputs are not permitted"
        if role != ("assistant" if n % 2 else "user"):
            yield 'messages: roles must alternate between "user" and "assistant", beginning with "user"'
        if not blocks:
            yield f"{at}: all messages must have non-empty content"
            continue
        kinds = [block.get("type") for block in blocks]
        answered = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
        if missing := [name for name in open_calls if name not in answered]:
            yield (
                f"messages.{n - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        if unknown := [name for name in answered if name not in open_calls]:
            yield f"{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(unknown)}."
        if len(answered) != len(set(answered)):
            yield f"{at}: each tool_use must have a single result"
        if answered and kinds[: len(answered)] != ["tool_result"] * len(answered):
            yield f"{at}: tool_result blocks must come first"
        allowed = {"text", "tool_result"} if role == "user" else set(_FIELDS) - {"tool_result"}
        for k, block in enumerate(blocks):
            yield from _broken_block(f"{at}.content.{k}", block, allowed)
        open_calls = [block["id"] for block in blocks if block.get("type") == "tool_use"]
        if len(open_calls) != len(set(open_calls)) or seen & set(open_calls):
            yield f"{at}: `tool_use` ids must be unique"
        seen |= set(open_calls)
        if kinds[-1] in ("thinking", "redacted_thinking"):
            yield f"{at}: The final block in an assistant message cannot be `thinking`."
        if must_think and n == len(messages) - 2 and open_calls and kinds[0] not in ("thinking", "redacted_thinking"):
            yield (
                f"{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kinds[0]}`. When "
                "`thinking` is enabled, a final `assistant` message must start with a thinking block."
            )
    if messages[-1]["role"] != "user":
        yield "This model does not support assistant message prefill. The conversation must end with a user message."


def _broken_block(at: str, block: Json, allowed: set[str]) -> Iterator[str]:
    kind = str(block.get("type"))
    if kind not in allowed:
        yield f"{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        return
    if more := block.keys() - _FIELDS[kind] - {"type", "cache_control"}:
        yield f"{at}.{kind}.{min(more)}: Extra inputs are not permitted"
    if kind == "text" and not block["text"].strip():
        yield "messages: text content blocks must contain non-whitespace text"
    if kind in ("thinking", "redacted_thinking") and "cache_control" in block:
        yield f"{at}.{kind}.cache_control: Extra inputs are not permitted"
    if kind == "thinking" and block.get("signature") != signature(block["thinking"]):
        yield f"{at}: Invalid `signature` in `thinking` block"
    if kind == "redacted_thinking" and block["data"].partition(".")[2] != signature(block["data"].partition(".")[0]):
        yield f"{at}: Invalid `data` in `redacted_thinking` block"
    if kind == "tool_use" and not re.fullmatch("[a-zA-Z0-9_-]+", block["id"]):
        yield f"{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if kind == "tool_use" and not re.fullmatch("[a-zA-Z0-9_-]+", block["name"]):
        yield f"{at}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,200}}$'"
    if kind == "tool_use" and not isinstance(block["input"], dict):
        yield f"{at}.tool_use.input: Input should be a valid dictionary"
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for part in block["content"]:
            yield from _broken_block(at, part, {"text"})


if __name__ == "__main__":
    with serving([says(text("Hello."))], keep=False) as forever:
        print(forever.url, flush=True)
        threading.Event().wait()
