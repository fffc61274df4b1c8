"""An evaluation whose process is killed: the same command goes on, whatever it was doing, and pays and grades nothing
twice."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness import trace
from tests.support.calculator import PLAN, SUBMIT
from tests.support.command_line import TROOP
from tests.support.model_server import Answer, Request, serving
from tests.support.programs import PROGRAMS, RIGHT, WRONG, make_checkout, script
from tests.support.runs import SEEDS, events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


def slow(request: Request) -> Answer:
    def say(program: str, attempt: int) -> list[Answer]:
        return [PLAN, RIGHT[program] if attempt % 2 else WRONG[program], SUBMIT]

    return replace(script(SEEDS, say)(request), delay=0.2)


def traces(out: Path) -> dict[str, list[trace.Event]]:
    return {name: events(out / f"quixbugs-{name}") for name in PROGRAMS}


def count(out: Path, kind: str) -> int:
    return sum(file.read_text().count(f'"kind":"{kind}"') for file in out.glob("*/trace.jsonl"))


@pytest.mark.parametrize("kind", ["prepared", "replied", "attempt-ended", "verified", "graded"])
def test_a_killed_evaluation_goes_on(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "runs" / "eval-quixbugs"
    command = [*TROOP, "eval", "quixbugs", "--source", str(make_checkout(tmp_path / "checkout"))]
    command += ["--sandbox", "bubblewrap", "--judge-model", "none", "-n", "4", "--json"]
    with serving(slow) as server:
        command += ["--model", f"{server.url}#scripted"]
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path)
        end = time.monotonic() + 120
        while count(out, kind) < 2:
            assert time.monotonic() < end and killed.poll() is None, killed.communicate()
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        answered = {name: {e.key for e in found if isinstance(e, trace.Replied)} for name, found in traces(out).items()}
        before = len(server.requests)
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        for request in server.requests[before:]:
            name = next(name for name in PROGRAMS if f"{name}.py" in request.raw.decode())
            key = f"{SEEDS[int(request.body['seed'])]}/{request.turn or 'plan'}"
            assert key not in answered[name], "an answered call was asked again"
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["selected"], report["oracle"], report["statuses"]) == (2, 2, {"submitted": 8})
    for found in traces(out).values():
        graded = collections.Counter(e.candidate for e in found if isinstance(e, trace.Graded))
        assert set(graded.values()) == {1} and sorted(graded) == ["c1", "c2"]
        replied = collections.Counter(e.key for e in found if isinstance(e, trace.Replied))
        assert set(replied.values()) == {1}
