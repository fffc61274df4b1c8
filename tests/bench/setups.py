"""Which repositories are set up right without a flag: `python -m tests.bench.setups --repositories DIR [NAME…]`.

Each bare git repository NAME.git in DIR is set up and its tests are run once, offline; the table says right, poor or
failed, in how many seconds, the line that a user sees, and what a maintainer would type (tests/data/setups.toml).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import tomllib
from pathlib import Path

from harness.cache import cache_root
from harness.environments.base_run import baseline
from harness.environments.environment import CleanRoom, build
from harness.environments.summary import environment_json, offline, summary_line, trouble
from harness.records import Json
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Provider
from harness.sandbox.choice import choose_provider, sandbox_names
from harness.trace import Prepared
from tasks.errors import TroopError
from tasks.task import Environment, Repository, Task

MAINTAINERS = tomllib.loads((Path(__file__).parents[1] / "data/setups.toml").read_text(encoding="utf-8"))
RIGHT = 0.95
"""The share of tests that ran and pass, offline, from which on an environment is right; those that say themselves that
they want the network, or a server, are left out."""


async def set_up(provider: Provider, place: Path, timeout: float, test_timeout: float) -> Json:
    """One row of the table."""
    name = place.name.removesuffix(".git")
    typed = MAINTAINERS.get(name, {})
    environment = Environment(directory=typed.get("directory", ""))
    task = Task(name, Repository("path", str(place)), "How is it set up?", environment)
    row: Json = {"name": name, "maintainer": typed.get("typed", ""), "directory": environment.directory}
    said: list[str] = []
    began = time.monotonic()
    try:
        workspace = await asyncio.to_thread(open_workspace, task.repository, cache_root())
        built = await build(provider, workspace, task, run="setups", setup_timeout=timeout, say=said.append)
        row["setup_seconds"] = round(time.monotonic() - began)
        room = CleanRoom(provider, built, "setups", timeout=test_timeout)
        found = await baseline(room, task, runs=1, say=said.append)
        prepared = Prepared(
            base_commit=workspace.base_commit,
            environment=built.key,
            backend=provider.name,
            test_command=built.test_command,
            baseline=found.report,
            python=built.python,
            install=built.install,
            fell_back_from=built.fell_back_from,
            notes=(*built.notes, *([found.note] if found.note else [])),
        )
        wrong, _ = trouble(found.report)
        row |= {"line": summary_line(prepared), "environment": environment_json(prepared), "trouble": wrong}
        counts = row["environment"]["baseline"] or {}
        ran = sum(counts.get(kind, 0) for kind in ("passed", "failed", "error"))
        excused = typed.get("fails", 0) + (offline(found.report) if found.report else 0)
        whole = bool(counts) and counts["passed"] >= RIGHT * (ran - excused)
        row["verdict"] = "right" if whole and not wrong else "poor"
        row["failures"] = dict(list(found.report.failures.items())[:40]) if found.report else {}
    except TroopError as error:
        row |= {"verdict": "failed", "line": str(error)[:3000]}
    return {**row, "seconds": round(time.monotonic() - began), "said": said}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=Path, required=True)
    parser.add_argument("--sandbox", choices=sandbox_names(), default="auto")
    parser.add_argument("--timeout", type=float, default=900, help="seconds of one set-up")
    parser.add_argument("--test-timeout", type=float, default=600)
    parser.add_argument("--json", type=Path, help="the rows are kept here, one file for all; given again it goes on")
    parser.add_argument("names", nargs="*")
    known = parser.parse_args()
    kept: dict[str, Json] = json.loads(known.json.read_text()) if known.json and known.json.exists() else {}
    provider = await choose_provider(known.sandbox, image=None, cache=cache_root())
    try:
        for name in known.names or sorted(path.name.removesuffix(".git") for path in known.repositories.glob("*.git")):
            place = known.repositories / f"{name}.git"
            kept[name] = row = await set_up(provider, place, known.timeout, known.test_timeout)
            print(
                f"{name:<24} {row['verdict']:<7} {row['seconds']:>5} s  {row['line'].partition(chr(10))[0]}", flush=True
            )
            if known.json:
                known.json.write_text(json.dumps(kept, indent=1))
    finally:
        await provider.close()
    print("\n| repository | set up | seconds | what Troop says | a maintainer types |\n| --- | --- | --- | --- | --- |")
    for name, row in kept.items():
        line = row["line"].partition("\n")[0].replace("|", "\\|")
        print(f"| {name} | {row['verdict']} | {row['seconds']} | {line} | {row['maintainer']} |")
    verdicts = [row["verdict"] for row in kept.values()]
    print(", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("right", "poor", "failed")))


if __name__ == "__main__":
    asyncio.run(main())
