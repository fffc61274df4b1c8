"""What an attempt costs before its first turn and while it waits: start on the critical path, memory of many at once.

    .venv/bin/python -m tests.bench.bench_attempts --sandbox bubblewrap --at-once 128
    .venv/bin/python -m tests.bench.bench_attempts --sandbox docker --at-once 128

Start: from asking for a sandbox of the task's environment to the end of a first command in it, one at a time. Memory:
the fall of MemAvailable over `--at-once` sandboxes that have each run a command, divided by their number (harness
included).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from harness.cache import cache_root
from harness.environments.environment import build
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from harness.sandbox.choice import choose_provider
from tests.support.calculator import make_repository, task


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", choices=("bubblewrap", "docker"), default="bubblewrap")
    parser.add_argument("--at-once", type=int, default=128)
    parser.add_argument("--starts", type=int, default=15)
    options = parser.parse_args()
    provider = await choose_provider(options.sandbox, image=None, cache=cache_root())
    with tempfile.TemporaryDirectory() as scratch:
        work = task(make_repository(Path(scratch) / "calculator"))
        built = await build(provider, open_workspace(work.repository, cache_root()), work, run="bench")
    starts = [await started(provider, built.key, number) for number in range(options.starts)]
    print(f"{options.sandbox}: start, median of {len(starts)}: {1000 * statistics.median(starts):.0f} ms")
    await many(provider, built.key, options.at_once, options.sandbox)
    await provider.close()


async def started(provider: Provider, environment: str, number: int) -> float:
    """Seconds from asking for a sandbox to the end of its first command."""
    began = time.perf_counter()
    sandbox = await made(provider, environment, number)
    seconds = time.perf_counter() - began
    await sandbox.close()
    return seconds


async def made(provider: Provider, environment: str, number: int) -> Sandbox:
    """A sandbox that has run one command."""
    sandbox = await provider.create(SandboxSpec(run="bench", name=f"attempt-{number}", environment=environment))
    await sandbox.exec("true")
    return sandbox


async def many(provider: Provider, environment: str, count: int, name: str) -> None:
    """Make `count` sandboxes, print what each takes, end them."""
    before, began = available(), time.perf_counter()
    sandboxes = await asyncio.gather(*(made(provider, environment, number) for number in range(count)))
    seconds, taken = time.perf_counter() - began, before - available()
    print(f"{name}: {count} at once: made in {seconds:.1f} s, {taken / count:.1f} MB each")
    await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))


def available() -> float:
    """MemAvailable in MB."""
    line = next(row for row in Path("/proc/meminfo").read_text().splitlines() if row.startswith("MemAvailable"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    asyncio.run(main())
