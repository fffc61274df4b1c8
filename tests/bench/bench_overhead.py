"""Overhead per turn: Troop against mini-swe-agent, on the same model stub and the same docker image, in the same run.

    python -m venv /tmp/mini && /tmp/mini/bin/pip install mini-swe-agent mcp
    .venv/bin/python -m tests.bench.bench_overhead --mini /tmp/mini/bin/python

Every turn the model asks for the command `true`; 20 turns an attempt. Overhead is wall time less the model's latency
and less the command's own time (for mini-swe-agent the command's own time, about a millisecond, is left in: it does not
measure it). It is counted from the end of the first turn, for until then Troop may still be starting its container, which
mini-swe-agent has done before; what a start takes, bench_load.py tells.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent import solve
from harness import trace
from harness.records import Budget
from tests.support.calculator import make_repository, settings, task

TURNS = 20


@contextmanager
def stub(latency: float) -> Iterator[str]:
    """The scripted server in a process of its own; its base URL."""
    ours: list[dict[str, object]] = [{"text": "Say true."}]
    # A command of its own for each turn, or Troop's stuck detection would end the attempt.
    ours += [{"tool_calls": [{"name": "run", "arguments": {"command": f"true {n}"}}]} for n in range(TURNS)]
    ours.append({"tool_calls": [{"name": "submit", "arguments": {}}]})
    mini = [{"tool_calls": [{"name": "bash", "arguments": {"command": f"true {n}"}}]} for n in range(TURNS)]
    mini.append(
        {"tool_calls": [{"name": "bash", "arguments": {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}}]}
    )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as script:
        json.dump([{"when": "mini: say true", "turns": mini}, {"turns": ours}], script)
        script.flush()
        command = [sys.executable, "-m", "tests.support.model_server", "--port", "0"]
        command += ["--script", script.name, "--latency", str(latency)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            server.wait()


def troop(url: str, repository: Path, out: Path, latency: float, at_once: int) -> tuple[list[float], str]:
    """Overhead of each attempt in ms a turn, and the environment's image."""
    budget = Budget(attempts=at_once, turns=TURNS + 5)
    done = solve(task(repository), settings(url, out, sandbox="docker", budget=budget, concurrency=at_once))
    events = list(trace.read(done.directory / "trace.jsonl"))
    turns = [e for e in events if isinstance(e, trace.TurnEnded)]
    prepared = next(e for e in events if isinstance(e, trace.Prepared))
    return [*overheads(turns, latency).values()], f"troop-env:{prepared.environment}"


def overheads(turns: Sequence[trace.TurnEnded], latency: float) -> dict[int | None, float]:
    """By attempt its overhead in ms a turn, from the end of its first."""
    began = {e.attempt: e.at for e in turns if e.turn == 1}
    ended = {e.attempt: e for e in turns}
    commands = dict.fromkeys(began, 0.0)
    for event in turns:
        commands[event.attempt] += event.command_seconds if event.turn > 1 else 0.0
    spent = {a: (last.at - began[a] - commands[a]) / (last.turn - 1) for a, last in ended.items()}
    return {a: 1000 * (seconds - latency) for a, seconds in spent.items()}


def mini(python: str, url: str, image: str, latency: float, at_once: int) -> list[float]:
    """The same for mini-swe-agent."""
    runner = Path(__file__).with_name("mini_runner.py")
    command = [python, str(runner), url, image, str(TURNS), str(latency), str(at_once)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"mini-swe-agent failed:\n{done.stderr[-3000:]}")
    overheads: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return overheads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mini", metavar="PYTHON", help="a Python with mini-swe-agent installed")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.1])
    options = parser.parse_args()
    print(f"{'latency':>8} {'at once':>8} {'troop ms/turn':>14} {'mini ms/turn':>13} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as scratch:
        repository = make_repository(Path(scratch) / "calculator")
        for latency in options.latency:
            for at_once in options.at_once:
                with stub(latency) as url:
                    ours, image = troop(url, repository, Path(scratch) / "runs", latency, at_once)
                    theirs = mini(options.mini, url, image, latency, at_once) if options.mini else []
                mine = statistics.median(ours)
                other = statistics.median(theirs) if theirs else float("nan")
                print(f"{latency:8.2f} {at_once:8} {mine:14.1f} {other:13.1f} {mine / other:6.2f}", flush=True)


if __name__ == "__main__":
    main()
