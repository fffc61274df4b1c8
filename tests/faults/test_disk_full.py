"""A disk that gets full, at the start or at any moment: the run stops in one sentence (exit code 4), holds nothing
against the model, and goes on once there is room."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.run_files import RunFiles
from harness import trace
from harness.cache import cache_root
from harness.repository.workspace import open_workspace
from harness.room import sandbox_failure, writing
from tasks.errors import DiskFull
from tasks.task import Repository
from tests.faults.test_eval_stopped import slow
from tests.faults.test_grade_killed import PATCHES, Work, work
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, make_repository
from tests.support.command_line import TROOP, troop
from tests.support.model_server import Answer, Request, serving
from tests.support.programs import make_checkout
from tests.support.runs import events
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.waiting import wait_for

__all__ = ["work"]  # the fixture

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

STEPS = 8
ATTEMPTS = 2


def script(request: Request) -> Answer:
    """The right edit, then steps that write files and print a page, so that every turn makes the trace grow."""
    turn = request.turn
    if turn < 2:
        return [PLAN, RIGHT][turn]
    if turn < STEPS:
        command = f"head -c 6000 /dev/urandom | base64 | tee step-{turn}.txt"
        return Answer(tool_calls=call("run", command=command).tool_calls, delay=0.03)
    return SUBMIT


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, 16) as made:
        yield made


def begin(tmp_path: Path, out: Path, url: str, **env: str) -> subprocess.Popen[str]:
    repository = tmp_path / "calculator"
    if not repository.exists():
        make_repository(repository)
    command = [*TROOP, "solve", str(repository), "--issue-text", "total is wrong", "--json", "--model"]
    command += [f"{url}#scripted", "-n", str(ATTEMPTS), "--out", str(out), "--sandbox", "bubblewrap"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
    )


def check_stopped(code: int, said: str, complained: str, out: Path) -> None:
    """One sentence that says how to go on, exit code 4, and no attempt that ended otherwise than it would have."""
    assert code == 4, complained
    (sentence,) = [line for line in complained.splitlines() if line.startswith("troop: ")]
    assert "make room" in sentence, sentence
    assert "Traceback" not in complained
    assert json.loads(said) == {"error": sentence.removeprefix("troop: "), "exit_code": 4}
    for directory in out.glob("*/"):
        if (directory / "trace.jsonl").exists():
            assert f"go on with: troop resume {directory}" in sentence
            check_harmless(directory)


def check_harmless(directory: Path) -> None:
    found = list(trace.read(directory / "trace.jsonl", may_be_empty=True))
    ends = {e.status for e in found if isinstance(e, trace.AttemptEnded)}
    assert ends <= {"submitted"}, ends
    assert not any("No space left" in e.result for e in found if isinstance(e, trace.ToolRan))


def check_whole(directory: Path) -> None:
    """The run came to its end as if nothing had been: every attempt once, every call paid once."""
    found = events(directory)
    ends = [(e.attempt, e.status) for e in found if isinstance(e, trace.AttemptEnded)]
    assert sorted(ends, key=str) == [(index, "submitted") for index in range(ATTEMPTS)]
    replied = Counter(e.key for e in found if isinstance(e, trace.Replied))
    assert replied.keys() >= {f"{index}/plan" for index in range(ATTEMPTS)}
    report = json.loads((directory / "report.json").read_text())
    assert report["status"] == "selected" and RunFiles(directory).selected_patch.exists()


def go_on(out: Path) -> None:
    (directory,) = out.glob("*/")
    done = troop("resume", directory, "--json")
    assert done.returncode == 0, done.stderr
    check_whole(directory)


@pytest.mark.parametrize("kilobytes", [300, 120, 60, 20])
def test_a_disk_that_is_nearly_full_at_the_start_stops_the_run_or_lets_it_end(
    tmp_path: Path, disk: SmallDisk, kilobytes: int
) -> None:
    out = disk.place / "runs"
    disk.fill(kilobytes << 10)
    with serving(script) as server:
        process = begin(tmp_path, out, server.url)
        said, complained = process.communicate(timeout=120)
        check_stopped(process.returncode, said, complained, out)
        asked = len(server.requests)
        disk.empty()
        if kilobytes < 128:
            assert not asked, "too little for any run: it is refused before it costs anything"
            assert not list(out.glob("*/"))
        else:
            go_on(out)


def test_a_disk_that_gets_full_while_a_run_goes_on_stops_it_and_a_resume_goes_on(
    tmp_path: Path, disk: SmallDisk
) -> None:
    """At a random moment, with a random rest; again and again, each time in another run."""
    dice, stopped = random.Random(11), 0
    for number in range(6):
        out = disk.place / f"runs-{number}"
        with serving(script) as server:
            process = begin(tmp_path, out, server.url)
            turns, rest = dice.randrange(0, ATTEMPTS * STEPS), dice.randrange(0, 60 << 10)
            while process.poll() is None and count(out, "turn-ended") < turns:
                time.sleep(0.005)
            disk.fill(rest)
            said, complained = process.communicate(timeout=120)
            if process.returncode:
                check_stopped(process.returncode, said, complained, out)
                stopped += 1
            disk.empty()
            go_on(out)
        subprocess.run(["rm", "-rf", str(out)], check=True)
    assert stopped >= 3


def test_an_evaluation_stops_the_same_way_and_the_same_command_goes_on(tmp_path: Path, disk: SmallDisk) -> None:
    out = disk.place / "runs"
    with serving(slow) as server:
        command = [*TROOP, "eval", "quixbugs", "--source", str(make_checkout(tmp_path / "checkout")), "-n", "4"]
        command += ["--sandbox", "bubblewrap", "--judge-model", "none", "--json", "--out", str(out)]
        command += ["--model", f"{server.url}#scripted"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(out.glob("*/*/selected.patch")) and not count(out / "*", "decided"):
            time.sleep(0.01)
        disk.fill(0)
        _, complained = process.communicate(timeout=240)
        assert process.returncode == 4 and "Traceback" not in complained, complained
        assert "make room" in complained.splitlines()[-1]
        for directory in out.glob("*/*/"):
            check_harmless(directory)
        disk.empty()
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["selected"], report["oracle"], report["statuses"]) == (2, 2, {"submitted": 8})


@pytest.mark.docker
def test_a_grading_stops_the_same_way_and_holds_nothing_against_a_patch(work: Work, disk: SmallDisk) -> None:
    place = disk.place
    command = [str(place / "out") if word == str(work.out) else word for word in work.command]
    work = replace(work, out=place / "out", cache=place / "cache", command=tuple(command))
    process = work.start()
    wait_for(lambda: work.is_grading(1))
    disk.fill(0)
    _, complained = process.communicate(timeout=240)
    assert process.returncode == 4 and "Traceback" not in complained, complained
    assert "make room, then the same command goes on where it stopped" in complained
    assert not work.containers()
    disk.empty()
    said, complained = work.start().communicate(timeout=240)
    rows = json.loads(said)["predictions"]
    assert [row["outcome"] for row in rows] == ["resolved"] * PATCHES, complained


def test_a_clone_that_finds_no_room_blames_the_disk_and_not_the_repository(tmp_path: Path, disk: SmallDisk) -> None:
    repository = Repository("path", str(make_repository(tmp_path / "calculator")))
    disk.fill(8 << 10)
    with pytest.raises(DiskFull):
        open_workspace(repository, disk.place / "cache")
    disk.empty()
    assert open_workspace(repository, disk.place / "cache").files()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_whatever_way_a_file_system_refuses_it_is_the_disk(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull, match="make room"), writing(tmp_path):
        raise OSError(number, os.strerror(number))
    assert isinstance(sandbox_failure(f"cp: error writing 'x': {os.strerror(number)}"), DiskFull)
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "nothing").read_bytes()


def count(out: Path, kind: str) -> int:
    files = out.parent.glob(f"{out.name}/*/trace.jsonl")
    return sum(file.read_text().count(f'"kind":"{kind}"') for file in files)


def test_a_full_disk_below_the_sandboxes_is_no_attempts_fault(tmp_path: Path) -> None:
    """Environments and sandboxes lie on the small disk. With little left it says so, with too little it does not
    begin, and what commands do while it is full counts for nothing."""
    with small_disk(tmp_path, 700) as disk, serving(script) as server:
        out, cache = tmp_path / "runs", disk.place / "cache"
        done = begin(tmp_path, out, server.url, TROOP_CACHE=str(cache))
        _, complained = done.communicate(timeout=300)
        assert done.returncode == 0, complained
        assert f"the file system of {cache} has" in complained and "may want" in complained
        dice = random.Random(7)
        for number in range(3):
            out = tmp_path / f"runs-{number}"
            process = begin(tmp_path, out, server.url, TROOP_CACHE=str(cache))
            turns = dice.randrange(2, ATTEMPTS * STEPS - 4)
            while process.poll() is None and count(out, "turn-ended") < turns:
                time.sleep(0.005)
            disk.fill(0)
            said, complained = process.communicate(timeout=120)
            check_stopped(process.returncode, said, complained, out)
            (directory,) = out.glob("*/")
            still_full = troop("resume", directory, "--json", TROOP_CACHE=str(cache))
            check_stopped(still_full.returncode, still_full.stdout, still_full.stderr, out)
            disk.empty()
            done_again = troop("resume", directory, "--json", TROOP_CACHE=str(cache))
            assert done_again.returncode == 0, done_again.stderr
            check_whole(directory)
        assert cache_root() != cache
