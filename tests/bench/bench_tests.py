"""What a short test run costs in a sandbox: cold (`harness.testing.run.run_tests`) and warm
(`harness.testing.warm.WarmTests`), by turns.

    .venv/bin/python -m tests.bench.bench_tests [--rounds 3] [--backend bubblewrap docker]

Wall time as the harness sees it, and CPU time that the sandbox's processes used (theirs, not the harness's), in ms a
run; medians. The selection is one test that takes no time; the waiting process has been started before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from harness.records import TestReport
from harness.sandbox.base import Sandbox, SandboxSpec
from harness.sandbox.choice import BACKENDS
from harness.testing.run import run_tests
from harness.testing.warm import WarmTests
from tests.support.environments import COMMAND, freeze, remove_made
from tests.support.repositories import make_repository, make_task

FILES = {"test_small.py": "def test_small():\n    assert 1 + 1 == 2\n\n\ndef test_other():\n    pass\n"}
IDS = ["test_small.py::test_small"]

Run = Callable[[], Awaitable[TestReport]]


async def used(sandbox: Sandbox) -> float:
    """CPU time in ms of every process of the sandbox so far, ended children included."""
    ticks = await sandbox.exec("cat /proc/[0-9]*/stat", cwd="/")
    total = 0
    for line in ticks.output.splitlines():
        fields = line.rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total * 1000 / os.sysconf("SC_CLK_TCK")


async def measured(sandbox: Sandbox, run: Run) -> tuple[float, float]:
    """Wall and CPU time of ten runs, a run."""
    before, walls = await used(sandbox), []
    for _ in range(10):
        began = time.perf_counter()
        report = await run()
        walls.append(1000 * (time.perf_counter() - began))
        assert report.green, report
    return statistics.median(walls), (await used(sandbox) - before) / 10


async def compare(backend: str, cache: Path, tree: Path, rounds: int) -> None:
    provider = BACKENDS[backend].open(cache, None)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(provider.close)
        built = await freeze(provider, make_task(tree))
        sandbox = await provider.create(SandboxSpec(run="bench", name="tests", environment=built.key))
        stack.push_async_callback(sandbox.close)
        warm = WarmTests(sandbox)
        ways: dict[str, Run] = {
            "cold": lambda: run_tests(sandbox, COMMAND, IDS, timeout=60),
            "warm": lambda: warm.run(COMMAND, IDS, timeout=60),
        }
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for run in ways.values():
            await run()
        for _ in range(rounds):
            for way, run in ways.items():
                found[way].append(await measured(sandbox, run))
        for way, rows in found.items():
            wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{backend:<12}{way:<6}{wall:>8.1f} ms wall{cpu:>8.1f} ms CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3, help="of ten runs each way")
    parser.add_argument("--backend", nargs="+", default=["bubblewrap", "docker"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TROOP_CACHE"] = folder
        tree = make_repository(Path(folder, "tree"), FILES, date="2024-01-01T00:00:00+0000")
        try:
            for backend in options.backend:
                asyncio.run(compare(backend, Path(folder), tree, options.rounds))
        finally:
            remove_made()


if __name__ == "__main__":
    main()
