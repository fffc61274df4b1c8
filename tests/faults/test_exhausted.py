"""An attempt that leaves its sandbox exhausted keeps its patch, and nothing of it lives on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent import solve
from harness import trace
from harness.sandbox.base import Limits, Provider
from tasks.errors import EnvironmentFailed
from tests.faults.test_resume import kill_sandbox_of, run_directory
from tests.faults.test_sandbox_leftovers import running
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, make_repository, settings, task
from tests.support.model_server import Answer, serving
from tests.support.runs import events

pytestmark = pytest.mark.network

LIMITS = Limits(memory_mb=300, processes=60)
MARK = str(200_000 + os.getpid())
FIX = "-    for value in values[1:]:\n+    for value in values:\n"

# By what is used up, the command that does it.
WAYS = {
    "memory, by files in memory": "head -c 400M /dev/zero > /dev/shm/fill; head -c 290M /dev/zero > /tmp/fill",
    "memory, by a process": f"setsid python3 -c 'x = bytearray(280_000_000); import time; time.sleep({MARK})' & sleep 1",
    "processes, by a bomb": "bomb() { bomb | bomb & }; bomb; sleep 1",
    "processes, by sleepers": f"for n in $(seq 100); do setsid sleep {MARK} & done; true",
    "the tree, by its mode": "chmod -R 000 .",
    "the top of the tree, by its mode": "mkdir -p new && echo x = 1 > new/file.py; chmod 000 new .",
    "/tmp": "rm -rf /tmp; chmod 000 /tmp; true",
    "the base": "rm -rf /opt/troop/base.git; true",
    "git": "rm -f $(command -v git); true",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_patch_of_an_exhausted_sandbox_is_kept(provider: Provider, tmp_path: Path, way: str) -> None:
    script: list[Answer] = [PLAN, RIGHT, call("run", command=WAYS[way]), SUBMIT]
    with serving(script) as server:
        how = settings(server.url, tmp_path / "runs", sandbox=provider.name, limits=LIMITS, command_timeout=20.0)
        done = solve(task(make_repository(tmp_path / "calculator")), how)
    (ended,) = (e for e in events(done.directory) if isinstance(e, trace.AttemptEnded))
    assert FIX in ended.patch, ended.detail
    assert ended.status == "submitted" and done.exit_code == 0, ended.detail
    assert ("new/file.py" in ended.patch) == ("new/file.py" in WAYS[way])
    assert not running(MARK), "a process outlives its attempt"


@pytest.mark.bubblewrap
def test_an_attempt_whose_sandboxes_keep_dying_keeps_the_patch_of_its_last_turn(tmp_path: Path) -> None:
    def strike(event: trace.Event) -> None:
        if isinstance(event, trace.Decided) and event.turn == 2:
            kill_sandbox_of(os.getpid())

    with serving([PLAN, RIGHT, call("run", command="sleep 5"), SUBMIT]) as server:
        how = settings(server.url, tmp_path / "runs", infrastructure_retries=1)
        with pytest.raises(EnvironmentFailed, match="the sandbox"):  # the only attempt, and no sample
            solve(task(make_repository(tmp_path / "calculator")), how, listener=strike)
    assert FIX in (run_directory(tmp_path / "runs") / "attempts/00/patch.diff").read_text()
