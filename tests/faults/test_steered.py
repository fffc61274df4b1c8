"""A person at the keyboard of a running solve: one attempt is stopped, all are, and the terminal is given back however
it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import resume
from harness import trace
from harness.views.report import solve_report
from tests.faults.test_resume import run_directory
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, make_repository
from tests.support.command_line import TROOP, troop
from tests.support.model_server import Answer, ModelServer, Request, serving
from tests.support.runs import events
from tests.support.terminal import Terminal
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


def endless(request: Request) -> Answer:
    """The right edit, then an answer that no attempt lives to see; the second attempt submits."""
    second = request.body["seed"] == 7919
    script = [PLAN, RIGHT, SUBMIT] if second else [PLAN, RIGHT, call("run", command="echo long > long.txt")]
    late = not second and request.turn >= len(script)
    return Answer(text="", delay=600.0) if late else script[min(request.turn, 2)]


def ended(out: Path) -> list[trace.AttemptEnded]:
    return [e for e in events(run_directory(out)) if isinstance(e, trace.AttemptEnded)]


def turns(out: Path) -> int:
    files = list(out.glob("*/trace.jsonl"))
    return files[0].read_text().count('"turn-ended"') if files else 0


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving(endless) as found:
        yield found


Solve = Callable[..., Terminal]


@pytest.fixture
def solve(tmp_path: Path, server: ModelServer) -> Iterator[Solve]:
    """Starts a solve of two attempts on a terminal, of which one has ended and one waits for its model."""
    started: list[Terminal] = []
    repository = make_repository(tmp_path / "calculator")

    def start(*more: str) -> Terminal:
        command = [*TROOP, "solve", str(repository), "--issue-text", "total is wrong", "--judge", "none", *more]
        command += ["--model", f"{server.url}#scripted", "-n", "2", "--out", str(tmp_path / "runs")]
        screen = Terminal([*command, "--sandbox", "bubblewrap"], XDG_CONFIG_HOME="/nonexistent")
        started.append(screen)
        screen.expect("setting up", 60)
        screen.expect("s: stop an attempt", 120)
        screen.expect("1 finished", 60)
        wait_for(lambda: turns(tmp_path / "runs") >= 5)
        return screen

    yield start
    for each in started:
        each.close()


def test_s_stops_one_attempt_whose_patch_is_kept_as_it_stands(solve: Solve, tmp_path: Path) -> None:
    screen = solve()
    assert not screen.restored()
    screen.press(b"s0")
    screen.expect("stop which attempt (0)? 0_")
    screen.press(b"\r")
    assert screen.finished(60) == 0
    assert screen.restored()
    last = ended(tmp_path / "runs")[-1]
    assert (last.attempt, last.status, last.detail, last.turns) == (0, "interrupted", "by hand", 2)
    assert "long.txt" in last.patch and "for value in values:" in last.patch, "as it stood"
    report = json.loads((run_directory(tmp_path / "runs") / "report.json").read_text())
    assert report["sampling"] is None
    assert sorted(a for each in report["candidates"] for a in each["attempts"]) == [0, 1]


def test_f_finishes_with_what_there_is(solve: Solve, tmp_path: Path) -> None:
    screen = solve()
    screen.press(b"f")
    screen.expect("break off 1 attempt and finish with what there is? (y/n)")
    screen.press(b"n")
    screen.expect("s: stop an attempt")
    screen.press(b"fy")
    screen.expect("finished by hand after 1 attempt, with what there was", 60)
    assert screen.finished(60) == 0
    assert screen.restored()
    found = events(run_directory(tmp_path / "runs"))
    (stopped,) = (e for e in found if isinstance(e, trace.SamplingStopped))
    assert stopped.why == trace.BY_HAND and [e.status for e in ended(tmp_path / "runs")] == ["submitted", "interrupted"]
    assert solve_report(found)["status"] == "selected"


def test_what_was_stopped_stays_so_on_a_resume_and_nothing_begins_after_finishing(solve: Solve, tmp_path: Path) -> None:
    screen = solve("--concurrency", "2")
    screen.process.kill()
    screen.finished()
    directory = run_directory(tmp_path / "runs")
    log = trace.Trace(directory / "trace.jsonl")
    log.write(trace.SamplingStopped(why=trace.BY_HAND, attempts=1))
    log.close()
    done = resume(str(directory))
    assert done.status == "selected" and done.report["selected"]["attempt"] == 1
    statuses = {each["index"]: (each["status"], each["detail"]) for each in done.report["attempts"]}
    assert statuses == {0: ("interrupted", "by hand"), 1: ("submitted", "")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_terminal_back_and_says_how_to_go_on(
    solve: Solve, tmp_path: Path, number: signal.Signals
) -> None:
    screen = solve()
    screen.press(b"s")
    screen.expect("stop which attempt")
    screen.signal(number)
    screen.expect("interrupted; go on with: troop resume", 60)
    assert screen.finished(60) == 130
    assert screen.restored()
    assert [e.attempt for e in ended(tmp_path / "runs")] == [1], "what was under way goes on later"


def test_quiet_says_verdict_patch_and_cost(tmp_path: Path, server: ModelServer) -> None:
    out, repository = tmp_path / "runs", make_repository(tmp_path / "calculator")
    options = ["--issue-text", "total is wrong", "--model", f"{server.url}#scripted", "-n", "1", "--judge", "none"]
    options += ["--sandbox", "bubblewrap", "--seed", "0"]
    with serving(lambda request: [PLAN, RIGHT, SUBMIT][min(request.turn, 2)]) as quick:
        options[3] = f"{quick.url}#scripted"
        done = troop("solve", repository, *options, "--out", out, "--quiet")
        assert done.returncode == 0, done.stderr
        verdict, patch, cost = done.stdout.splitlines()
        assert verdict.startswith("A guess · 1 attempt in") and cost.startswith("cost: ")
        assert patch == f"patch: {run_directory(out) / 'selected.patch'}" and Path(patch[7:]).is_file()
        assert done.stderr == ""
        logged = troop("solve", repository, *options, "--out", tmp_path / "more", "--log", "json")
        kinds = [json.loads(line).get("kind") for line in logged.stderr.splitlines()]
        assert {"prepared", "attempt-ended", "verified", "selected"} <= set(kinds)
