"""What many attempts at once cost: overhead and CPU per turn, memory, descriptors, the event loop's lag, trace bytes.

    .venv/bin/python -m tests.bench.bench_load --at-once 1 8 32 64 128 250 --latency 0.1 2 5 --sandbox docker
    .venv/bin/python -m tests.bench.bench_load --soak 500 --at-once 64 --sandbox bubblewrap

One JSON line for each figure. Overhead is wall time after an attempt's first turn, less the model's latency and the
commands' own time; of it the stub's own lateness (it sleeps too long and shares the processors) is `server_late_ms`;
start: what passes before the first question is asked, and from the first decision until its command (`true`) has run.
`--soak N`: N attempts in rounds of `--at-once`, with what the process holds after each round, which must not grow. The
peer beside it in one run: tests/bench/bench_overhead.py. Figures of a busy machine say how it was busy (`load`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from agent.assemble import go, start
from harness import trace
from harness.records import Budget
from tests.bench.bench_overhead import TURNS, overheads, stub
from tests.support.calculator import make_repository, settings, task


def held() -> dict[str, float]:
    """What this process and the machine hold: MB, descriptors, threads, containers (of all Troops here)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", "label=troop.run"], capture_output=True, text=True)
    return {
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": threading.active_count(),
        "containers": len(listed.stdout.split()),
    }


def spent(url: str) -> tuple[float, int]:
    """Seconds that the stub had requests so far, and how many."""
    with urllib.request.urlopen(f"{url}/spent", timeout=10) as told:
        found = json.load(told)
    return float(found["seconds"]), int(found["answers"])


async def lags(into: list[float]) -> None:
    """How late the event loop wakes what sleeps 10 ms, in ms, until it is cancelled."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        into.append(1000 * (time.perf_counter() - began) - 10)


def measure(url: str, repository: Path, out: Path, sandbox: str, latency: float, at_once: int) -> dict[str, Any]:
    """One run of so many attempts."""
    budget = Budget(attempts=at_once, turns=TURNS + 5)
    wanted = settings(url, out, sandbox=sandbox, budget=budget, concurrency=at_once, judge_model="none")
    files, _, _ = start(task(repository), wanted)
    late: list[float] = []
    used: list[float] = []  # CPU seconds of this process when the first attempt was planned, and at each turn's end

    def see(event: trace.Event) -> None:
        if isinstance(event, trace.TurnEnded) or (isinstance(event, trace.Planned) and not used):
            now = resource.getrusage(resource.RUSAGE_SELF)
            used.append(now.ru_utime + now.ru_stime)

    async def whole() -> None:
        watching = asyncio.create_task(lags(late))
        await go(files, listeners=[see])
        watching.cancel()

    before, began = spent(url), time.monotonic()
    asyncio.run(whole())
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    events = list(trace.read(files.trace_file))
    asked = [e for e in events if isinstance(e, trace.Asked) and e.purpose == "plan"]
    begun = {e.attempt: e.at for e in events if isinstance(e, trace.AttemptStarted)}
    first = {e.attempt: e for e in reversed(events) if isinstance(e, trace.ToolRan)}
    decided = {e.attempt: e.at for e in reversed(events) if isinstance(e, trace.Decided)}
    starts = [e.at - begun[e.attempt] + first[e.attempt].at - decided[e.attempt] for e in asked]
    turns = [e for e in events if isinstance(e, trace.TurnEnded)]
    overhead = sorted(overheads(turns, latency).values())
    said = sum(len(json.dumps(e.message)) for e in events if isinstance(e, trace.Replied))
    said += sum(len(e.result) for e in events if isinstance(e, trace.ToolRan))
    cpu = used[-1] - used[0]
    late_by, answers = (after - first for first, after in zip(before, spent(url), strict=True))
    return {
        "sandbox": sandbox,
        "latency": latency,
        "at_once": at_once,
        "completed": sum(isinstance(e, trace.AttemptEnded) and e.status == "submitted" for e in events),
        "overhead_ms_median": round(statistics.median(overhead), 1),
        "overhead_ms_p95": round(overhead[int(0.95 * (len(overhead) - 1))], 1),
        "server_late_ms": round(1000 * (late_by / max(1, answers) - latency), 1),
        "start_ms_median": round(1000 * statistics.median(starts), 1),
        "cpu_ms_per_turn": round(1000 * cpu / max(1, len(turns)), 2),
        "lag_ms_p99": round(sorted(late)[int(0.99 * (len(late) - 1))], 1),
        "trace_bytes_per_turn": round(files.trace_file.stat().st_size / max(1, len(turns))),
        "message_bytes_per_turn": round(said / max(1, len(turns))),
        "peak_rss_mb": round(after.ru_maxrss / 1024, 1),
        "wall_s": round(wall, 1),
        "load": round(os.getloadavg()[0], 1),
        **held(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", choices=("bubblewrap", "docker"), default="bubblewrap")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.1])
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="N attempts in rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        repository = make_repository(Path(scratch) / "calculator")
        for latency in options.latency:
            for at_once in options.at_once:
                rounds = max(1, -(-options.soak // at_once))
                with stub(latency) as url:
                    for number in range(rounds):
                        out = Path(scratch) / "runs"
                        found = measure(url, repository, out, options.sandbox, latency, at_once)
                        print(json.dumps({**({"round": number} if options.soak else {}), **found}), flush=True)


if __name__ == "__main__":
    main()
