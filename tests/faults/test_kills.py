"""A hundred SIGKILLs at random moments, in bubblewrap and in docker: of solving, evaluating and grading. One run is
killed again and again until it comes to its end, and then it is what it would have been, with nothing left over.

The table stands in pytest's summary. Ten times as many, by command:

    TROOP_LONG=1 python -m pytest -m long tests/faults/test_kills.py
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from harness import trace
from harness.cache import cache_root
from harness.sandbox.base import Provider
from harness.sandbox.docker.daemon import connect
from tests.conftest import KILLED
from tests.faults.test_eval_stopped import slow
from tests.faults.test_grade_killed import PATCHES, Work, work
from tests.faults.test_resume import slow_script
from tests.faults.test_sandbox_leftovers import groups_of, running
from tests.support.calculator import make_repository
from tests.support.command_line import TROOP
from tests.support.model_server import Answer, Request, serving
from tests.support.programs import make_checkout
from tests.support.waiting import wait_for

__all__ = ["work"]  # the fixture

pytestmark = [pytest.mark.network, pytest.mark.slow]

LONG = pytest.mark.skipif(os.environ.get("TROOP_LONG") != "1", reason="an hour: TROOP_LONG=1 runs it")
TIMES = [1, pytest.param(10, marks=[pytest.mark.long, pytest.mark.timeout(7200), LONG])]
ROWS: list[str] = []
DICE = random.Random(9)
LOOKING = threading.Lock()
AT_ONCE = 2
"""Runs that are killed side by side: each waits most of its time, and they are killed in what the others leave."""


@dataclass
class Killed:
    """Runs of one kind that were killed `kills` times in all. `seconds`: the shortest that a whole one took, which the
    moments are drawn from. `stages`: what the trace's last line was then."""

    kind: str
    seconds: float = 300.0
    kills: int = 0
    runs: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def row(self) -> str:
        at = ", ".join(f"{name} {count}" for name, count in self.stages.most_common(5))
        return f"{self.kind:<18} {self.kills:>5} {self.runs:>5} {time.monotonic() - self.began:>7.0f}  {at}"


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test adds to the table goes with its report, whichever process it runs in."""
    before = len(ROWS)
    yield
    request.node.user_properties.extend((KILLED, row) for row in ROWS[before:])


def quick_script(request: Request) -> Answer:
    """As `slow_script`, with a moment to be killed in at each step."""
    return replace(slow_script(request), delay=0.05)


def killed_at_random(killed: Killed, wanted: int, most: int, one: Callable[[int, int], None]) -> None:
    """Have runs killed, `AT_ONCE` at a time, until there were `wanted` kills. `one` kills the run of a number so many
    times, `most` at most, and looks at what it came to."""
    numbers, row = itertools.count(), len(ROWS)

    def some() -> None:
        while (left := wanted - killed.kills) > 0:
            assert killed.runs < wanted, "they end before they are killed"
            one(next(numbers), min(most, max(2, left // AT_ONCE)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(some) for _ in range(AT_ONCE)]:
            done.result()
    ROWS.insert(row, killed.row())


def undisturbed(killed: Killed, command: Sequence[str], folder: Path) -> str:
    """What it answers where nobody kills it."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    killed.seconds = min(killed.seconds, time.monotonic() - began)
    return done.stdout


def kill_until_done(killed: Killed, again: Callable[[], Sequence[str]], folder: Path, most: int) -> str:
    """Start, kill, start again; after `most` kills of this run it may end. What it answers."""
    kills = 0
    while True:
        began = time.monotonic()
        process = subprocess.Popen(
            again(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            # Most moments lie before the run begins to work; it is killed there, too, but less often.
            wait = DICE.uniform(0.1, 1.0) * killed.seconds if kills < most else 300.0
            said, complained = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            assert kills < most, "it comes to no end"
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            killed.kills += 1
            killed.stages[last_line(folder)] += 1
            continue
        killed.runs += 1
        killed.seconds = killed.seconds if kills else min(killed.seconds, time.monotonic() - began)
        assert process.returncode == 0 and "Traceback" not in complained, complained
        return said


def last_line(folder: Path) -> str:
    traces = sorted(folder.rglob("trace.jsonl"), key=lambda path: path.stat().st_mtime)
    whole = traces[-1].read_bytes().split(b"\n")[:-1] if traces else []
    verdicts = len(list(folder.rglob("grading/*/*/verdict.json"))) % PATCHES
    return str(json.loads(whole[-1])["kind"]) if whole else f"{verdicts} verdicts" if verdicts else "nothing yet"


def check_trace(directory: Path, attempts: int) -> None:
    """Every attempt ended once, every answered call was paid once, and what is not known is said not to be."""
    found = list(trace.read(directory / "trace.jsonl"))
    assert Counter(e.attempt for e in found if isinstance(e, trace.AttemptEnded)) == Counter(range(attempts))
    replied = Counter(e.key for e in found if isinstance(e, trace.Replied))
    assert max(replied.values()) == 1, replied
    lost = [e for e in found if isinstance(e, trace.Charged)]
    cost = json.loads((directory / "report.json").read_text())["cost"]
    assert (cost["calls"], cost["unanswered"]) == (len(replied), len(lost))
    assert sum(row["calls"] + row["unanswered"] for row in cost["by_attempt"].values()) == len(replied) + len(lost)


def check_nothing_left(provider: Provider, names: Collection[str]) -> None:
    """No process, container, control group or sandbox of these runs, once what the dead left is cleaned away."""
    for name in names:
        wait_for(partial(none, running, f"/sandboxes/{name}"), 20, f"processes of {name} outlive it")
        with LOOKING:  # other tests may have left some of that name, whose mark is gone
            asyncio.run(provider.clean())
        wait_for(partial(none, groups_of, name), 10, f"control groups of {name} are left")
        left = containers_of if provider.name == "docker" else folders_of
        wait_for(partial(cleaned, provider, left, name), 90, f"sandboxes of {name} are left")


def none(found: Callable[[str], Sequence[object]], name: str) -> bool:
    return not found(name)


def cleaned(provider: Provider, found: Callable[[str], Sequence[object]], name: str) -> bool:
    """Cleaned again where some are left: another Troop may be cleaning the same folder just now, and one whose maker was
    killed before it could mark it is known as nobody's only after a minute."""
    if found(name):
        with LOOKING:
            asyncio.run(provider.clean())
    return not found(name)


def folders_of(run: str) -> list[object]:
    folder = cache_root() / "sandboxes"
    return [path for path in folder.iterdir() if run in path.name] if folder.is_dir() else []


def containers_of(run: str) -> list[object]:
    with contextlib.closing(connect()) as client:
        rows: list[object] = client.api.containers(all=True, filters={"label": f"troop.run={run}"})
    return rows


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("bubblewrap", "docker")]
)
def test_a_solve_killed_at_random_moments(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str, times: int
) -> None:
    provider: Provider = request.getfixturevalue(backend)
    repository, killed = make_repository(tmp_path / "calculator"), Killed(f"solve, {backend}")
    with serving(quick_script) as server:
        begin = [*TROOP, "solve", str(repository), "--issue-text", "total is wrong", "--json", "--quiet", "-n", "2"]
        begin += ["--model", f"{server.url}#scripted", "--sandbox", backend, "--judge-model", "none"]
        undisturbed(killed, [*begin, "--out", "first"], tmp_path)  # sets up the environment
        right = json.loads(undisturbed(killed, [*begin, "--out", "second"], tmp_path))["selected"]

        def one(number: int, most: int) -> None:
            folder = tmp_path / f"killed-{number}"
            folder.mkdir()

            def again() -> Sequence[str]:
                begun = [path.parent for path in folder.glob("runs/*/run.json")]
                return [*TROOP, "resume", str(begun[-1]), "--json"] if begun else [*begin, "--out", "runs"]

            chosen = json.loads(kill_until_done(killed, again, folder, most))["selected"]
            assert (chosen["candidate"], chosen["method"]) == (right["candidate"], right["method"])
            directory = max(folder.glob("runs/*/report.json")).parent
            check_trace(directory, 2)
            check_nothing_left(provider, [directory.name])

        killed_at_random(killed, {"bubblewrap": 40, "docker": 25}[backend] * times, 10, one)


@pytest.mark.bubblewrap
@pytest.mark.parametrize("times", TIMES)
def test_an_evaluation_killed_at_random_moments(bubblewrap: Provider, tmp_path: Path, times: int) -> None:
    killed, source = Killed("eval, bubblewrap"), make_checkout(tmp_path / "checkout")
    with serving(slow) as server:
        command = [*TROOP, "eval", "quixbugs", "--source", str(source), "--sandbox", "bubblewrap", "--json", "--quiet"]
        command += ["--judge-model", "none", "-n", "4", "--model", f"{server.url}#scripted", "--out"]
        undisturbed(killed, [*command, "first"], tmp_path)
        said = json.loads(undisturbed(killed, [*command, "second"], tmp_path))
        right = [said[name] for name in ("selected", "oracle", "statuses", "mean_at_1")]

        def one(number: int, most: int) -> None:
            folder = tmp_path / f"killed-{number}"
            folder.mkdir()
            report = json.loads(kill_until_done(killed, lambda: [*command, "runs"], folder, most))
            assert [report[name] for name in ("selected", "oracle", "statuses", "mean_at_1")] == right
            for found in folder.rglob("trace.jsonl"):
                check_trace(found.parent, 4)

        killed_at_random(killed, 20 * times, 7, one)
    check_nothing_left(bubblewrap, {found.parent.name for found in tmp_path.rglob("trace.jsonl")})


@pytest.mark.docker
@pytest.mark.parametrize("times", TIMES)
def test_a_grading_killed_at_random_moments(work: Work, tmp_path: Path, times: int) -> None:
    killed = Killed("grade, docker")
    undisturbed(killed, ["env", f"TROOP_CACHE={work.cache}", *work.command], tmp_path)

    def one(number: int, most: int) -> None:
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        here = replace(work, out=folder / "out", cache=folder / "cache")
        words = [str(here.out) if word == str(work.out) else word for word in work.command]
        command = ["env", f"TROOP_CACHE={here.cache}", *words]
        report = json.loads(kill_until_done(killed, lambda: command, folder, most))
        assert [row["outcome"] for row in report["predictions"]] == ["resolved"] * PATCHES
        assert here.remembered() == PATCHES

    killed_at_random(killed, 15 * times, 8, one)
    wait_for(lambda: not work.containers(), 20, "containers are left")
