"""A real OpenAI-compatible HTTP server that says what its script says.

In a test, `with serving(script) as server:` runs it on a thread and `server.url` is the base URL. On its own
(benchmarks):

    python -m tests.support.model_server --port 0 --script FILE --latency 0.1

prints `http://127.0.0.1:PORT/v1` and serves until it is killed. FILE is a JSON list of answers, or of conversations:

    [{"text": "..."}, {"tool_calls": [{"name": "run", "arguments": {"command": "ls"}}]}]
    [{"when": "text in the request", "turns": [...]}, {"turns": [...]}]

Turn k of a conversation answers a request that holds k assistant messages (the last turn answers all later ones), so
the server keeps no state and every attempt gets the same script. The conversation is the first whose `when` occurs in
the request. A request to `/responses` gets the same answer in the form of that API. GET `/spent` says how many answers it
gave and how many seconds it had the requests, its latency included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A chat request as it came. `number` counts from 0 over all requests; `turn`: assistant messages in it."""

    number: int
    path: str
    headers: Mapping[str, str]
    raw: bytes
    at: float

    @property
    def body(self) -> Json:
        parsed: Json = json.loads(self.raw)
        return parsed

    @property
    def turn(self) -> int:
        # Within a message's text the quotes are escaped, so this counts keys only; parsing would cost ten times as
        # much.
        return self.raw.count(b'"role":"assistant"') + self.raw.count(b'"role": "assistant"')


@dataclass(frozen=True)
class Answer:
    """One reply. `tool_calls`: {"name", "arguments"} each. `usage` None: counted roughly from the sizes; {}: left out.

    `message`: extra fields of the message. `status`, `headers`, `raw`: another response altogether. `delay`: seconds
    before the answer; `drip`: seconds over which the body is spread. `drop`: close the connection "at-once", after the
    "headers", or in the midst of the "body".
    """

    text: str | None = None
    tool_calls: Sequence[Json] = ()
    usage: Json | None = None
    finish_reason: str | None = None
    message: Json = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | str | None = None
    delay: float = 0.0
    drip: float = 0.0
    drop: str = ""


def error(status: int, message: str, *, code: str | None = None, param: str | None = None, **rest: Any) -> Answer:
    """An error response in OpenAI's form; `rest` goes to `Answer` (headers, delay)."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Answer(status=status, raw=json.dumps(body), **rest)


def too_many(retry_after: float | str | None = None) -> Answer:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return error(429, "Rate limit reached", code="rate_limit_exceeded", headers=headers)


def context_too_long() -> Answer:
    text = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
    return error(400, text, code="context_length_exceeded", param="messages")


Script = Callable[[Request], Answer] | Sequence[Answer]


class ModelServer:
    """The server; `requests` holds all chat requests, `open_now` counts those being answered, `peak` the most at
    once."""

    ROUTES: tuple[str, ...] = ("/chat/completions", "/responses")
    """How the paths end that are asked by POST; all others are not found."""

    def __init__(self, script: Script, *, latency: float = 0.0, model: str = "scripted", keep: bool = True) -> None:
        """`latency`: seconds added to every answer. `keep` False: requests are not recorded (benchmarks)."""
        self.answer = script if callable(script) else _by_turn(script)
        self.latency = latency
        self.model = model
        self.keep = keep
        self.requests: list[Request] = []
        self.connections = 0
        self.peak = 0
        self.url = ""
        self.open_now = 0
        self.spent = 0.0
        self._count = 0
        self._bodies: dict[tuple[int, str], tuple[Answer, bytes, bytes]] = {}
        self._connected: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[ModelServer]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=512, limit=1 << 20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for task in self._connected:
                task.cancel()
            await asyncio.gather(*self._connected, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server is being stopped
        finally:
            self._connected.discard(task)
            writer.close()

    def models(self, path: str, headers: Mapping[str, str]) -> Answer:
        """What a GET of /models is answered with; `raw` is set."""
        return Answer(raw=json.dumps({"object": "list", "data": [{"id": self.model, "object": "model"}]}))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is to be closed."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET" and path.endswith("/spent"):
            told = json.dumps({"seconds": self.spent, "answers": self._count})
            writer.write(_response(200, {}, told.encode()))
            return True
        if method == "GET" and path.endswith("/models"):
            listed = self.models(path, headers)
            writer.write(_response(listed.status, listed.headers, self._raw(listed)))
            return True
        if method != "POST" or not path.endswith(self.ROUTES):
            writer.write(_response(404, {}, b'{"error": {"message": "no such path"}}'))
            return True
        request = Request(self._count, path, headers, raw, time.time())
        self._count += 1
        if self.keep:
            self.requests.append(request)
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        began = time.monotonic()
        try:
            return await self._reply(request, writer)
        finally:
            self.open_now -= 1
            self.spent += time.monotonic() - began

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        answer = self.answer(request)
        if wait := self.latency + answer.delay:
            await asyncio.sleep(wait)
        if answer.drop == "at-once":
            writer.transport.abort()
            return False
        response = _response(answer.status, answer.headers, self._body(answer, request))
        if answer.drop:
            keep = response.index(b"\r\n\r\n") + 4 if answer.drop == "headers" else len(response) - 10
            writer.write(response[:keep])
            await writer.drain()
            return False
        for piece in _pieces(response, answer.drip):
            if answer.drip:
                await asyncio.sleep(answer.drip / 10)
            writer.write(piece)
        await writer.drain()
        return True

    @staticmethod
    def _raw(answer: Answer) -> bytes:
        assert answer.raw is not None
        return answer.raw.encode() if isinstance(answer.raw, str) else answer.raw

    def _body(self, answer: Answer, request: Request) -> bytes:
        if answer.raw is not None:
            return self._raw(answer)
        # Encoded once per answer: only the usage differs between requests.
        elsewhere = request.path.endswith("/responses")
        if (id(answer), request.path) not in self._bodies:
            body = _response_object(answer, self.model) if elsewhere else _completion(answer, self.model)
            before, after = json.dumps(body).encode().split(b'"@usage"')
            self._bodies[id(answer), request.path] = (answer, before, after)
        _, before, after = self._bodies[id(answer), request.path]
        size = len(answer.text or "") + sum(len(str(call)) for call in answer.tool_calls)
        usage = answer.usage
        if usage is None:
            prompt, out = len(request.raw) // 4, size // 4 + 1
            names = ("input_tokens", "output_tokens") if elsewhere else ("prompt_tokens", "completion_tokens")
            usage = {names[0]: prompt, names[1]: out, "total_tokens": prompt + out}
        return before + (json.dumps(usage).encode() if usage else b"null") + after


def _completion(answer: Answer, model: str) -> Json:
    message: Json = {"role": "assistant", "content": answer.text, **answer.message}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": _function(call)}
            for number, call in enumerate(answer.tool_calls)
        ]
    finish = answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": "@usage",
    }


def _response_object(answer: Answer, model: str) -> Json:
    output: list[Json] = []
    if answer.text is not None:
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        output.append({"id": "msg_0", "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    for number, call in enumerate(answer.tool_calls):
        item = {"id": f"fc_{number}", "type": "function_call", "status": "completed", "call_id": f"call_{number}"}
        output.append(item | _function(call))
    return {
        "id": "resp_scripted",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": model,
        "status": "completed",
        "output": output,
        "usage": "@usage",
    }


def _function(call: Json) -> Json:
    given = call["arguments"]
    return {"name": call["name"], "arguments": given if isinstance(given, str) else json.dumps(given)}


def _response(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    fields = {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}
    head = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode("latin-1") + body


def _pieces(response: bytes, drip: float) -> Iterator[bytes]:
    step = max(1, len(response) // 10 + 1) if drip else len(response)
    for start in range(0, len(response), step):
        yield response[start : start + step]


def _by_turn(turns: Sequence[Answer]) -> Callable[[Request], Answer]:
    return lambda request: turns[min(request.turn, len(turns) - 1)]


def read_script(text: str) -> Callable[[Request], Answer]:
    """A script from JSON (see the module's docstring). Raises ValueError or TypeError for one that makes no sense."""
    entries: list[Json] = json.loads(text)
    if not entries:
        raise ValueError("the script is empty")
    if "turns" not in entries[0]:
        return _by_turn([Answer(**entry) for entry in entries])
    conversations = [
        (json.dumps(entry.get("when", ""))[1:-1].encode(), _by_turn([Answer(**turn) for turn in entry["turns"]]))
        for entry in entries
    ]

    def answer(request: Request) -> Answer:
        for when, turns in conversations:
            if when in request.raw:
                return turns(request)
        return error(400, "the script has no conversation for this request")

    return answer


@contextlib.contextmanager
def serving(script: Script, *, latency: float = 0.0, keep: bool = True) -> Iterator[ModelServer]:
    """The server on a thread of its own; stopped at the end of the block."""
    with on_thread(ModelServer(script, latency=latency, keep=keep)) as server:
        yield server


AServer = TypeVar("AServer", bound=ModelServer)


@contextlib.contextmanager
def on_thread(server: AServer) -> Iterator[AServer]:
    """The given server listens on a thread of its own; stopped at the end of the block."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def live() -> None:
        async with server.listening():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()), name="model-server", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the model server did not start")
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def _serve(options: argparse.Namespace) -> None:
    script = read_script(options.script.read_text(encoding="utf-8")) if options.script else [Answer(text="Hello.")]
    server = ModelServer(script, latency=options.latency, keep=False)
    async with server.listening(options.port):
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="a scripted OpenAI-compatible server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path, help="JSON file; without one, every answer is a greeting")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every answer")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
