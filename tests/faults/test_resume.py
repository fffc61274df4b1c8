"""Runs that are stopped: Ctrl-C, kill -9, a sandbox that dies. Nothing finished is lost, nothing answered is paid
twice."""

from __future__ import annotations

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent import assemble, resume, solve
from harness import trace
from harness.cache import cache_root
from tasks.errors import EndpointFailed, RunLocked, SandboxFailed, SourceUnavailable
from tests.support.calculator import PLAN, RIGHT, SUBMIT, WRONG, call, make_repository, settings, task
from tests.support.command_line import TROOP
from tests.support.model_server import Answer, Request, error, serving
from tests.support.repositories import git
from tests.support.runs import events
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

STEPS = 8


def slow_script(request: Request) -> Answer:
    """The right edit first, then many small steps, each of which leaves a file behind; slow enough to be killed
    within."""
    turn = request.turn
    if turn < 2:
        return [PLAN, RIGHT][turn]
    if turn < STEPS:
        return Answer(tool_calls=call("run", command=f"echo {turn} >> log.txt").tool_calls, delay=0.15)
    return SUBMIT


def start(repository: Path, out: Path, url: str, attempts: int = 2, *more: str) -> subprocess.Popen[bytes]:
    command = [*TROOP, "solve", str(repository), "--issue-text", "total is wrong", "--json"]
    command += ["--model", f"{url}#scripted", "-n", str(attempts), "--out", str(out), "--sandbox", "bubblewrap", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_directory(out: Path) -> Path:
    (directory,) = out.iterdir()
    return directory


def turns(out: Path) -> int:
    files = list(out.glob("*/trace.jsonl"))
    return files[0].read_text().count('"turn-ended"') if files else 0


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_killed_run_goes_on_and_pays_for_no_answer_twice(tmp_path: Path, after: int) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    with serving(slow_script) as server:
        harness = start(repository, out, server.url)
        wait_for(lambda: turns(out) >= after)
        harness.send_signal(signal.SIGKILL)
        harness.communicate()
        directory = run_directory(out)
        answered = {e.key for e in events(directory) if isinstance(e, trace.Replied)}
        asked_before = len(server.requests)
        done = resume(str(directory))
        asked_after = [(r.body["seed"], r.turn) for r in server.requests[asked_before:]]
    assert done.exit_code == 0 and done.patch is not None
    replied = [e.key for e in events(directory) if isinstance(e, trace.Replied)]
    assert max(collections.Counter(replied).values()) == 1
    seeds = {e.seed: e.attempt for e in events(directory) if isinstance(e, trace.AttemptStarted)}
    names = {f"{seeds[seed]}/{turn or 'plan'}" for seed, turn in asked_after}
    assert not names & answered, "an answered call was asked again"
    # Every step left its line exactly once: the tree was put back to the last finished turn before going on.
    log = "".join(f"+{turn}\n" for turn in range(2, STEPS))
    patches = [e.patch for e in events(directory) if isinstance(e, trace.AttemptEnded)]
    assert len(patches) == 2 and all(log in patch for patch in patches)


def test_ctrl_c_stops_in_order_and_says_how_to_go_on(tmp_path: Path) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    with serving(slow_script) as server:
        harness = start(repository, out, server.url)
        wait_for(lambda: turns(out) >= 2)
        harness.send_signal(signal.SIGINT)
        said, complained = harness.communicate(timeout=30)
        directory = run_directory(out)
        assert harness.returncode == 130
        assert f"troop resume {directory}" in complained.decode()
        assert b"Traceback" not in complained
        assert json.loads(said)["exit_code"] == 130
        assert json.loads((directory / "run.json").read_text())["status"] == "interrupted"
        assert resume(str(directory)).exit_code == 0


STUBBORN = """
import asyncio, sys, time
from agent.commands.conclude import interruptible

async def work():
    print("at work", flush=True)
    await asyncio.to_thread(time.sleep, 60)

try:
    interruptible(work(), "go on so")
except KeyboardInterrupt as error:
    sys.exit(str(error))
"""


def test_a_person_who_interrupts_twice_is_let_go_at_once() -> None:
    """A thread that cannot be cancelled would keep the process for a minute; one signal waits for it, two do not."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"at work\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1.5)
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"interrupted; go on so" in complained and b"Traceback" not in complained


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        first = solve(task(repository), settings(server.url, tmp_path / "runs"))
        asked = len(server.requests)
        again = resume(str(first.directory))
        assert len(server.requests) == asked
    assert again.patch == first.patch and again.exit_code == 0


def kill_after(harness: subprocess.Popen[bytes], out: Path, finished_turns: int) -> Path:
    wait_for(lambda: turns(out) >= finished_turns)
    harness.send_signal(signal.SIGKILL)
    harness.communicate()
    return run_directory(out)


def test_a_resumed_run_keeps_its_base_and_needs_no_checkpoints(tmp_path: Path) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    with serving(slow_script) as server:
        directory = kill_after(start(repository, out, server.url, attempts=1), out, 2)
        (repository / "calc.py").write_text("def total(values):\n    return sum(values)\n")
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "newer")
        for ending in ("", "-wal", "-shm"):
            (directory / f"checkpoints.sqlite{ending}").write_bytes(b"no database at all" * 1000)
        done = resume(str(directory))
    (prepared,) = [e for e in events(directory) if isinstance(e, trace.Prepared)]
    assert done.report["base_commit"] == prepared.base_commit
    assert done.exit_code == 0 and done.patch is not None and "-    for value in values[1:]:" in done.patch


def test_uncommitted_changes_that_a_run_began_with_are_its_base_after_they_have_changed(tmp_path: Path) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    source = (repository / "calc.py").read_text()
    (repository / "calc.py").write_text(source.replace("result = 0\n", "result = 0  # mine\n"))
    with serving(slow_script) as server:
        harness = start(repository, out, server.url, 1, "--include-uncommitted")
        directory = kill_after(harness, out, 2)
        (repository / "calc.py").write_text("gone = True\n")
        done = resume(str(directory))
        assert done.exit_code == 0 and done.patch is not None and "# mine" in done.patch
        (repository / "calc.py").write_text(source.replace("result = 0\n", "result = 0  # mine again\n"))
        lost = out.parent / "lost"
        harness = start(repository, lost, server.url, 1, "--include-uncommitted")
        directory = kill_after(harness, lost, 1)
        (repository / "calc.py").write_text("gone = 'again'\n")
        (base,) = [e.base_commit for e in events(directory) if isinstance(e, trace.Prepared)]
        shutil.rmtree(cache_root() / "bases-1" / base)
        with pytest.raises(SourceUnavailable, match=f"the commit {base[:12]} that this run began with"):
            resume(str(directory))


def test_results_lost_with_the_process_are_written_again(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        first = solve(task(repository), settings(server.url, tmp_path / "runs"))
    names = ("selected.patch", "predictions.jsonl", "report.json")
    kept = [(first.directory / name).read_bytes() for name in names]
    for name in names:
        (first.directory / name).unlink()
    assert resume(str(first.directory)).patch == first.patch
    assert [(first.directory / name).read_bytes() for name in names] == kept


@pytest.mark.parametrize("left", [b"", b'{"kind":"run-sta'])
def test_a_run_killed_within_its_first_line_is_begun_by_a_resume(tmp_path: Path, left: bytes) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        files, _, _ = assemble.start(task(repository), settings(server.url, tmp_path / "runs"))
        files.trace_file.write_bytes(left)
        done = resume(str(files.directory))
    assert done.exit_code == 0
    assert isinstance(events(done.directory)[0], trace.RunStarted)


def test_a_server_that_fails_loses_nothing_that_was_paid_for(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    down = True

    def failing(request: Request) -> Answer:
        if down and request.turn == 3:
            return error(401, "Incorrect API key")
        return slow_script(request)

    with serving(failing) as server:
        with pytest.raises(EndpointFailed, match="Incorrect API key"):
            solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
        directory = run_directory(tmp_path / "runs")
        ended = [e for e in events(directory) if isinstance(e, trace.AttemptEnded)]
        assert {e.status for e in ended} == {"infrastructure"} and len(ended[0].patch) > 100
        assert "for value in values:" in (directory / "attempts" / "00" / "patch.diff").read_text()
        down = False
        done = resume(str(directory))
    assert done.exit_code == 0
    assert [row["status"] for row in done.report["attempts"]] == ["submitted", "submitted"]
    replied = [e.key for e in events(directory) if isinstance(e, trace.Replied)]
    assert max(collections.Counter(replied).values()) == 1, "an answer was paid for twice"
    log = "".join(f"+{turn}\n" for turn in range(2, STEPS))
    assert done.patch is not None and log in done.patch, "they went on from their last finished turn"


def test_a_server_that_fails_ends_its_own_attempts_only(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")

    def failing(request: Request) -> Answer:
        return error(401, "Incorrect API key") if request.turn == 2 else [PLAN, RIGHT][request.turn]

    with serving(failing) as one, serving([PLAN, WRONG, SUBMIT]) as other:
        models = (f"{one.url}#scripted", f"{other.url}#scripted")
        done = solve(task(repository), settings(one.url, tmp_path / "runs", models=models, attempts=4, concurrency=1))
    assert [row["status"] for row in done.report["attempts"]] == ["infrastructure", "submitted", "submitted"]
    assert [row["index"] for row in done.report["attempts"]] == [0, 1, 3], "no more is asked of a server that refuses"
    assert done.report["selected"]["attempt"] == 0, "the patch made before the server failed counts"


def test_tests_that_take_the_sandbox_down_speak_against_the_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_repository(tmp_path / "calculator")

    async def dying(*given: object, **named: object) -> None:
        raise SandboxFailed("the sandbox died")

    with serving([PLAN, RIGHT, SUBMIT]) as server:
        monkeypatch.setattr("agent.run.executor.verify", dying)
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
        assert done.exit_code == 1
        assert "its tests take the sandbox down" in done.report["candidates"][0]["evidence"]["reason"]
        monkeypatch.setattr("agent.run.executor.probe", dying)
        with pytest.raises(SandboxFailed):  # where no sandbox works, the candidate is not to blame
            solve(task(repository), settings(server.url, tmp_path / "again"))


def test_a_second_process_on_one_run_is_refused_by_name(tmp_path: Path) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    with serving(slow_script) as server:
        harness = start(repository, out, server.url)
        wait_for(lambda: turns(out) >= 1)
        with pytest.raises(RunLocked, match=str(harness.pid)):
            resume(str(run_directory(out)))
        harness.send_signal(signal.SIGINT)
        harness.communicate(timeout=30)


def test_a_sandbox_that_dies_is_replaced_and_is_no_failed_sample(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    killed: list[int] = []

    def strike(event: trace.Event) -> None:
        if isinstance(event, trace.TurnEnded) and event.turn == 3 and not killed:
            killed.append(kill_sandbox_of(os.getpid()))

    with serving(slow_script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"), listener=strike)
    assert killed
    assert done.exit_code == 0
    assert done.report["infrastructure"] == {"retries": 1, "failures": []}
    replied = [e.key for e in events(done.directory) if isinstance(e, trace.Replied)]
    assert max(collections.Counter(replied).values()) == 1


def kill_sandbox_of(harness: int) -> int:
    """kill -9 the sandbox process that this process started; its pid."""
    children = Path(f"/proc/{harness}/task/{harness}/children").read_text().split()
    sandboxes = [int(c) for c in children if b"bwrap" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert sandboxes, "no sandbox is running"
    os.kill(sandboxes[0], signal.SIGKILL)
    return sandboxes[0]
