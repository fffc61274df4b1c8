"""What one model call costs the client's process in processor time, by length of the conversation.

    python -m tests.bench.bench_client [--messages 2 50 200] [--calls 30] [--wire responses]

Compares the typed `create` of the wire's package (`openai` or `anthropic`), its `post` with the typed response, and Troop's
`ModelClient` (which posts, and adds budget, limiter, charge and event), all against a server in a process of its own.
The column "request" is the part of that in which the wire makes the request and measures it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agent.config import Alias
from agent.models.client import OUTPUT_BOUND, ModelClient
from agent.models.connections import Connections
from agent.models.wires.base import Wish
from harness.money.budget import BudgetKeeper
from harness.records import Budget
from tests.support.messages_server import thinking

Json = dict[str, Any]

TOOLS: list[Json] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "What this tool does, in about as many words as it takes. " * 4,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}},
        },
    }
    for name in ("read", "search", "edit", "create", "insert", "run", "test", "submit")
]


def conversation(length: int, wire: str = "chat") -> list[Json]:
    """`length` messages: a prompt, then turns of a tool call and an observation of 1.2 kB. On the other wires
    the model's messages hold what they were there, with 1 kB of reasoning each."""
    messages: list[Json] = [{"role": "system", "content": "s" * 3000}, {"role": "user", "content": "u" * 3000}]
    while len(messages) < length:
        call = f"call_{len(messages)}"
        function = {"name": "run", "arguments": json.dumps({"command": "python -m pytest -q tests/test_it.py"})}
        messages.append(
            {
                "role": "assistant",
                "content": "Next I look at the parser. " * 6,
                "tool_calls": [{"id": call, "type": "function", "function": function}],
            }
        )
        if wire == "responses":
            summary = [{"type": "summary_text", "text": "The parser may be wrong."}]
            thought = {"type": "reasoning", "id": f"rs_{call}", "encrypted_content": "g" * 1000, "summary": summary}
            asked = {"type": "function_call", "id": f"fc_{call}", "call_id": call, "status": "completed", **function}
            text = [{"type": "output_text", "text": messages[-1]["content"], "annotations": [], "logprobs": []}]
            said = {"type": "message", "id": f"msg_{call}", "status": "completed", "role": "assistant", "content": text}
            messages[-1]["native"] = {"wire": wire, "items": [thought, said, asked]}
        if wire == "anthropic":
            said = {"type": "text", "text": messages[-1]["content"]}
            asked = {"type": "tool_use", "id": call, "name": "run", "input": json.loads(function["arguments"])}
            messages[-1]["native"] = {
                "wire": wire,
                "content": [thinking("The parser may be wrong. " * 40), said, asked],
            }
        messages.append({"role": "tool", "tool_call_id": call, "content": "a line of output\n" * 70})
    return messages[:length]


async def milliseconds(call: Callable[[], Awaitable[Any]], calls: int) -> float:
    """Median processor time of a call in this process."""
    for _ in range(3):
        await call()
    times = []
    for _ in range(calls):
        started = time.process_time()
        await call()
        times.append(time.process_time() - started)
    return 1000 * statistics.median(times)


def package_calls(
    wire: str, url: str, request: Json
) -> tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]:
    """The package's own typed call with that request, and its post."""
    if wire == "anthropic":
        from anthropic import AsyncAnthropic
        from anthropic.types import Message

        claude = AsyncAnthropic(api_key="none", base_url=url, max_retries=0)
        return (
            lambda: claude.messages.create(**request),
            lambda: claude.post("/v1/messages", cast_to=Message, body=request),
        )
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

    package = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)
    if wire == "responses":
        from openai.types.responses import Response

        return (
            lambda: package.responses.create(**request),
            lambda: package.post("/responses", cast_to=Response, body=request),
        )
    return (
        lambda: package.chat.completions.create(**request),
        lambda: package.post("/chat/completions", cast_to=ChatCompletion, body=request),
    )


async def measure(wire: str, url: str, lengths: list[int], calls: int) -> None:
    alias = Alias("bench", url, "scripted", wire=wire, usd_per_mtok_input=1.0, usd_per_mtok_output=2.0)
    connections = Connections()
    client = ModelClient(alias, connections, record=lambda event: event, keeper=BudgetKeeper(Budget(usd=1e6)))
    heads = f"{'messages':>8} {'kB':>6} {'create':>10} {'post':>10} {'ModelClient':>12} {'request':>8}"
    print(f"{heads}   (median CPU ms of {calls} calls)")
    for length in lengths:
        messages: Any = conversation(length, wire)
        body = client.wire.request(messages, TOOLS, Wish())

        async def ours(messages: Any = messages) -> None:
            await client.complete(messages, TOOLS, purpose="act", attempt=0, key="0/1", seed=1, temperature=0.5)

        async def request(messages: Any = messages) -> None:
            made = client.wire.request(messages, TOOLS, Wish(1, 0.5, OUTPUT_BOUND))
            client.wire.characters(made)

        row = [await milliseconds(each, calls) for each in (*package_calls(wire, url, body), ours, request)]
        size = len(json.dumps(body)) / 1000
        print(f"{length:>8} {size:>6.0f} {row[0]:>10.2f} {row[1]:>10.2f} {row[2]:>12.2f} {row[3]:>8.2f}")
    await connections.aclose()


SERVERS = {
    "chat": "tests.support.model_server",
    "responses": "tests.support.model_server",
    "anthropic": "tests.support.messages_server",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="the client's own processor time per model call")
    parser.add_argument("--messages", type=int, nargs="+", default=[2, 50, 200])
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--wire", choices=SERVERS, default="chat")
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-m", SERVERS[options.wire]], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        asyncio.run(measure(options.wire, server.stdout.readline().strip(), options.messages, options.calls))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
