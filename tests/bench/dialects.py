"""The dialects of today's model servers: how `troop solve` and mini-swe-agent (litellm) end on each, in one run.

    python -m venv /tmp/mini && /tmp/mini/bin/pip install mini-swe-agent
    .venv/bin/python -m tests.bench.dialects --mini /tmp/mini/bin/python

Each row of `tests.support.dialects` is asked by two attempts of each. A "+" is as wanted: solved, or where the row wants a
sentence instead of a solution, that sentence in time. Both see a server of the same rows, each its own. What
a row does to arguments that mini-swe-agent's one tool does not have (numbers, arrays), or to the form of Troop's text
protocol, mini-swe-agent does not meet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.command_line import TROOP, troop
from tests.support.dialect_model import ISSUE, make_repository
from tests.support.dialect_runs import complaints, outcome, words, write_alias
from tests.support.dialects import BY_NAME, DIALECTS, Dialect, DialectServer
from tests.support.model_server import on_thread

ATTEMPTS = 2
MINI_AT_ONCE = 8
"""Rows of mini-swe-agent at a time; most of its time it waits before it tries again."""
SLACK = 30
"""Seconds beyond a row's own bound after which a process is ended."""

Json = dict[str, Any]


def ours(row: Dialect, server: DialectServer, repository: Path, scratch: Path) -> Json:
    """How Troop ends on the row."""
    place = scratch / f"troop-{row.name}"
    place.mkdir()
    environment = write_alias(row, server.base(row.name), place)
    environment = {**environment, "TROOP_CACHE": str(scratch / "cache")}
    command = words(row, repository, ATTEMPTS)
    began = time.perf_counter()
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    kept |= {"PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CONFIG_HOME": str(place / "none"), **environment}
    try:
        done = subprocess.run(
            [*TROOP, *command],
            capture_output=True,
            text=True,
            cwd=place,
            env=kept,
            timeout=row.wanted.seconds + SLACK,
            check=False,
        )
    except subprocess.TimeoutExpired:
        seconds = time.perf_counter() - began
        return {"as_wanted": False, "end": "did not end", "seconds": seconds, "short": ["it did not end"]}
    ended = outcome(done.returncode, done.stdout, done.stderr, time.perf_counter() - began)
    short = complaints(row, ended, server.memory[row.name])
    last = ended.text.strip().splitlines()[-1:] if not ended.solved else []
    return {"as_wanted": not short, "end": ended.end, "seconds": ended.seconds, "short": short, "said": last}


def theirs(python: str, rows: list[Dialect], server: DialectServer, repository: Path, scratch: Path) -> dict[str, Json]:
    """How mini-swe-agent ends on the rows, by name; it is as wanted where one of its attempts mends the bug, or, where
    there is nothing to be mended, where it ends by an error in time."""
    told = []
    for row in rows:
        place = scratch / f"mini-{row.name}"
        place.mkdir()
        kwargs = {"api_base": server.base(row.name), "api_key": "key-of-the-test", **row.alias.get("sampling", {})}
        told.append(
            {
                "name": row.name,
                "model": f"{row.litellm}/{row.model}",
                "kwargs": kwargs,
                "text": row.text,
                "attempts": ATTEMPTS,
                "repository": str(repository),
                "scratch": str(place),
                "issue": ISSUE,
                "seconds": row.wanted.seconds + SLACK,
            }
        )
    command = [python, str(Path(__file__).with_name("mini_dialects.py"))]
    given = json.dumps({"at_once": MINI_AT_ONCE, "rows": told})
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=scratch, check=False)
    if done.returncode != 0:
        sys.exit(f"mini-swe-agent failed:\n{done.stderr[-3000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    return {line["name"]: _their_end(BY_NAME[line["name"]], line["ends"], line["seconds"]) for line in lines}


def _their_end(row: Dialect, ends: list[Json], seconds: float) -> Json:
    solved = any(end["solved"] for end in ends)
    clean = not row.wanted.solved and not solved and seconds <= row.wanted.seconds
    names = " ".join(sorted({end["end"] for end in ends}))
    said = [end["said"] for end in ends]
    return {"as_wanted": solved or clean, "end": "solved" if solved else names, "seconds": seconds, "said": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mini", metavar="PYTHON", help="a Python with mini-swe-agent installed")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows, or rows whose names begin so")
    parser.add_argument("--at-once", type=int, default=3, help="rows at a time (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go (dialects.json in a new place)")
    options = parser.parse_args()
    rows = [row for row in DIALECTS if not options.only or row.name.startswith(tuple(options.only))]
    scratch = Path(tempfile.mkdtemp(prefix="troop-dialects-"))
    repository = make_repository(scratch / "calculator")
    results = run(rows, options.mini, repository, scratch, options.at_once)
    show(results)
    file = options.json or scratch / "dialects.json"
    file.write_text(json.dumps(results, indent=1), encoding="utf-8")
    for who in ("troop", "mini"):
        those = [result[who] for result in results if who in result]
        if those:
            print(f"{who}: {sum(each['as_wanted'] for each in those)} of {len(those)} as wanted")
    behind = [r["name"] for r in results if "mini" in r and r["mini"]["as_wanted"] and not r["troop"]["as_wanted"]]
    print(f"as wanted by mini-swe-agent alone: {', '.join(behind) or 'none'}")
    print(file)


def run(rows: list[Dialect], mini: str | None, repository: Path, scratch: Path, at_once: int) -> list[Json]:
    """The results of all rows."""
    warm(repository, scratch)
    with on_thread(DialectServer()) as server, ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(lambda row: ours(row, server, repository, scratch), rows))
    (scratch / "troop.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    others: dict[str, Json] = {}
    if mini:
        with on_thread(DialectServer()) as server:
            others = theirs(mini, rows, server, repository, scratch)
    found: list[Json] = []
    for row, result in zip(rows, results, strict=True):
        both = {"troop": result} | ({"mini": others[row.name]} if row.name in others else {})
        found.append({"name": row.name, "like": row.like, **both})
    return found


def show(results: list[Json]) -> None:
    """The table of cases and outcomes."""
    print(f"{'case':24} {'troop':>34} {'s':>6}  {'mini-swe-agent':>34} {'s':>6}")
    for result in results:
        both = [result[who] for who in ("troop", "mini") if who in result]
        cells = [f"{each['end'][:32]} {'+' if each['as_wanted'] else '-':>1}" for each in both]
        shown = [f"{cell:>34} {each['seconds']:6.1f}" for cell, each in zip(cells, both, strict=True)]
        print(f"{result['name']:24} {'  '.join(shown)}")


def warm(repository: Path, scratch: Path) -> None:
    """Sets the environment up, which is no part of a row's time."""
    with on_thread(DialectServer()) as server:
        row = BY_NAME["plain"]
        environment = write_alias(row, server.base(row.name), scratch)
        done = troop(*words(row, repository, 1), cwd=scratch, **environment, TROOP_CACHE=str(scratch / "cache"))
    if done.returncode != 0:
        sys.exit(f"the plain row cannot be solved here:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
