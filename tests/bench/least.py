"""The least that a turn can take with the packages that Troop is built on: what each takes alone, in ms.

    .venv/bin/python -m tests.bench.least --latency 0 0.1 2

One call of 24 kB to the stub of bench_overhead.py, less its latency, over a bare socket, by httpx2, and by openai's client on
that (each holds what stands left of it), in medians; and one step of a LangGraph that does nothing but wait as long. What
runs after a pause takes longer than what runs at once: memory and processor have done something else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict
from urllib.parse import urlsplit

import httpx2
import openai
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from tests.bench.bench_overhead import stub

REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 4000}] * 6}).encode()
CALLS = 25


class Count(TypedDict):
    left: int


async def bare(url: str) -> Callable[[], Awaitable[object]]:
    """A call over a socket that was opened before."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(REQUEST)}\r\n\r\n"
    )

    async def call() -> object:
        writer.write(head.encode() + REQUEST)
        fields = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(field.split(b":")[1]) for field in fields if field.startswith(b"content-length"))
        return json.loads(await reader.readexactly(length))

    return call


async def timed(call: Callable[[], Awaitable[object]], latency: float, calls: int) -> float:
    """Median ms of a call, less the latency."""
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        took.append(1000 * (time.perf_counter() - began - latency))
    return statistics.median(took)


async def step(latency: float, calls: int) -> float:
    """Mean ms of a step of a graph with one node, less what its waiting takes without a graph."""

    async def wait(state: Count) -> Command[str]:
        await asyncio.sleep(latency)
        left = state["left"] - 1
        return Command(update={"left": left}, goto="wait" if left else END)

    graph: StateGraph[Count, None, Count, Count] = StateGraph(Count)
    graph.add_node("wait", wait, destinations=("wait", END))
    graph.add_edge(START, "wait")
    compiled = graph.compile()
    await compiled.ainvoke({"left": 1})
    began = time.perf_counter()
    await compiled.ainvoke({"left": calls}, {"recursion_limit": 10_000})
    stepped = time.perf_counter()
    for _ in range(calls):
        await asyncio.sleep(latency)
    return 1000 * (2 * stepped - began - time.perf_counter()) / calls


async def measured(url: str, latency: float) -> list[float]:
    calls = CALLS if latency < 1 else 8
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as pool:
        client = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, http_client=pool)
        options: Any = {}
        kinds = {
            "bare": await bare(url),
            "httpx2": lambda: pool.post(f"{url}/chat/completions", content=REQUEST),
            "openai": lambda: client.post("/chat/completions", cast_to=object, content=REQUEST, options=options),
        }
        return [*[await timed(call, latency, calls) for call in kinds.values()], await step(latency, calls)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.1])
    options = parser.parse_args()
    gc.freeze()
    print("".join(f"{name:>12}" for name in ("latency", "socket", "httpx2", "openai", "langgraph")))
    for latency in options.latency:
        with stub(latency) as url:
            found = asyncio.run(measured(url, latency))
        print(f"{latency:12.2f}" + "".join(f"{value:12.1f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
