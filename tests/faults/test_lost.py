"""What is lost or damaged between two runs: files of a kept environment, the mark of a sandbox, the end of a call."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path

import pytest

from agent import solve
from agent.diagnosis import sweep
from harness import trace
from harness.cache import cache_root
from harness.money.ledger import Ledger
from harness.sandbox.base import Provider, SandboxSpec
from harness.sandbox.bubblewrap import cgroup
from tests.faults.test_resume import run_directory, start
from tests.support.calculator import PLAN, RIGHT, SUBMIT, make_repository, settings, task
from tests.support.command_line import troop
from tests.support.model_server import Answer, Request, serving
from tests.support.runs import events
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.network]


def environment_of(directory: Path) -> str:
    (prepared,) = [e for e in events(directory) if isinstance(e, trace.Prepared)]
    return prepared.environment


@pytest.mark.bubblewrap
@pytest.mark.parametrize("gone", ["testbed/calc.py", "env/bin", "troop"])
def test_an_environment_that_lost_files_is_noticed_and_set_up_again(tmp_path: Path, gone: str) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        first = solve(task(repository), settings(server.url, tmp_path / "runs"))
        place = cache_root() / "environments" / environment_of(first.directory) / gone
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
        more = ("--model", f"{server.url}#scripted", "-n", "1", "--out", tmp_path / "more", "--sandbox", "bubblewrap")
        heard = troop("solve", repository, "--issue-text", "total is wrong", *more)
    assert heard.returncode == 0, heard.stderr
    said = " ".join(heard.stderr.split())
    assert "the environment that is kept for this is damaged (" in said
    if gone == "troop":
        assert "bwrap: Can't find source path" in said, "the words of what could not make the sandbox"
    assert place.exists()


@pytest.mark.docker
def test_an_image_of_an_environment_that_lost_files_is_noticed_and_made_again(tmp_path: Path, docker: Provider) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        first = solve(task(repository), settings(server.url, tmp_path / "runs", sandbox="docker"))
        key = environment_of(first.directory)

        async def lose() -> None:
            box = await docker.create(SandboxSpec("lost", "lost", key))
            await box.exec("rm calc.py")
            await docker.remove(key)
            await docker.freeze(box, key)

        asyncio.run(lose())
        again = solve(task(repository), settings(server.url, tmp_path / "more", sandbox="docker"))
    assert again.exit_code == 0 and again.patch is not None and "calc.py" in again.patch
    assert environment_of(again.directory) == key


def slow(request: Request) -> Answer:
    answer = [PLAN, RIGHT, SUBMIT][request.turn]
    return Answer(text=answer.text, tool_calls=answer.tool_calls, delay=30.0 if request.turn == 1 else 0.0)


@pytest.mark.bubblewrap
def test_a_call_that_was_under_way_at_a_kill_stands_in_the_ledger_as_unknown(tmp_path: Path) -> None:
    repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
    asked: list[Request] = []

    def once_slow(request: Request) -> Answer:
        asked.append(request)
        first = len([r for r in asked if r.turn == 1]) == 1
        return slow(request) if first else [PLAN, RIGHT, SUBMIT, SUBMIT][request.turn]

    with serving(once_slow) as server:
        harness = start(repository, out, server.url, attempts=1)
        wait_for(lambda: any(request.turn == 1 for request in asked))
        harness.send_signal(signal.SIGKILL)
        harness.communicate()
        directory = run_directory(out)
        seen = json.loads(troop("report", directory, "--json").stdout)
        killed = Ledger.of(events(directory)).total
        assert (killed.calls, killed.unanswered, killed.exact) == (1, 1, False)
        assert json.dumps(seen).count('"exact": false') >= 1
        done = troop("resume", directory, "--json")
        assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)["cost"]
    assert (cost["calls"], cost["unanswered"], cost["exact"]) == (4, 1, False), "submit asked back once"
    assert sum(row["unanswered"] for row in cost["by_attempt"].values()) == 1


@pytest.mark.bubblewrap
def test_clean_finds_control_groups_whose_mark_is_gone_and_leaves_those_of_the_living(
    bubblewrap: Provider, cache: Path
) -> None:
    places = cgroup.hierarchies()
    if not places:
        pytest.skip("no control group can be made here")

    async def look() -> tuple[list[str], bool, str]:
        living = await bubblewrap.create(SandboxSpec("living", "box"))
        try:
            (folder,) = (cache / "sandboxes").glob("living-box-*")
            (folder / "owner.json").rename(folder / "lost.json")  # its mark is not to be relied on
            for place in places:
                (place.folder / "killed-box-0123abcd").mkdir(parents=True)
                (place.folder / "somebody-else-s").mkdir()
            removed = await sweep()
            return removed, (await living.exec(["true"])).exit_code == 0, folder.name
        finally:
            (folder / "lost.json").rename(folder / "owner.json")
            await living.close()
            for place in places:
                (place.folder / "somebody-else-s").rmdir()

    removed, lives, folder_name = asyncio.run(look())
    stray = [line for line in removed if "control group" in line and "killed-box-0123abcd" in line]
    assert len(stray) == len(places) and lives
    assert not [line for line in removed if folder_name in line or "somebody" in line]
    assert not any((place.folder / "killed-box-0123abcd").exists() for place in places)
