"""A patch of 20,000 junk files costs seconds, in which everything else goes on."""

from __future__ import annotations

import ast
import asyncio
import os
import tempfile
import time
from pathlib import Path

import pytest

from agent import solve, solve_async
from harness import trace
from harness.repository.base_tree import open_tree
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, settings, task
from tests.support.model_server import serving
from tests.support.repositories import git
from tests.support.runs import events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

FILES = 20_000
ONCES, LAG_SHARE = 8, 0.25
JUNK = f"""
import os
for n in range({FILES}):
    os.makedirs(f"junk/p{{n // 100}}", exist_ok=True)
    with open(f"junk/p{{n // 100}}/f{{n}}.py", "w") as file:
        file.write(f"def f{{n}}(a):\\n    return g(a) + {{n}}\\n")
"""


def once(folder: Path) -> float:
    """Seconds that this machine takes now to write, add, diff and parse such files once: what the bound is measured by."""
    folder.mkdir()
    git(folder, "init", "-q")
    began = time.monotonic()
    for n in range(FILES):
        file = folder / f"junk/p{n // 100}/f{n}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def f{n}(a):\n    return g(a) + {n}\n")
        ast.parse(file.read_text())
    git(folder, "add", "--all")
    git(folder, "diff", "--cached")
    return time.monotonic() - began


def cpu_seconds() -> float:
    """Of this process and of all that has ended below it, sandboxes included."""
    return sum(os.times()[:4])


def test_twenty_thousand_junk_files_cost_seconds_and_block_nothing(
    request: pytest.FixtureRequest, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files in memory: how long a disk takes for them depends on what others have just removed from it.
    memory = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    request.addfinalizer(memory.cleanup)
    monkeypatch.setenv("TROOP_CACHE", memory.name)
    lag, spent = 0.0, dict[str, float]()
    write = trace.Trace.write

    def noted(log: trace.Trace, event: trace.Event) -> trace.Event:
        spent[event.kind] = cpu_seconds()
        return write(log, event)

    async def tick() -> None:
        nonlocal lag
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            lag = max(lag, time.monotonic() - began - 0.01)

    async def play(url: str) -> None:
        ticking = asyncio.create_task(tick())
        done = await solve_async(task(repository), settings(url, tmp_path / "runs"))
        ticking.cancel()
        assert done.exit_code == 0 and done.patch is not None

    with serving([PLAN, RIGHT, SUBMIT]) as server:  # then all is set up and imported
        solve(task(repository), settings(server.url, tmp_path / "before"))
    with serving([PLAN, RIGHT, call("run", command=f"python3 -c '{JUNK}'"), SUBMIT]) as server:
        monkeypatch.setattr(trace.Trace, "write", noted)
        asyncio.run(play(server.url))
    (run,) = (tmp_path / "runs").iterdir()
    (ended,) = (e for e in events(run) if isinstance(e, trace.AttemptEnded))
    assert ended.patch.count("\ndiff --git ") == FILES
    times = {event.kind: event.at for event in events(run)}
    seconds, cpu = (at["selected"] - at["turn-ended"] for at in (times, spent))
    unit = once(Path(memory.name) / "once")
    print(f"{seconds:.1f} s from the last turn to the choice, {cpu:.1f} s of CPU, lag {lag:.2f} s, once {unit:.1f} s")
    # On a machine that does other things as well, what it would take alone.
    assert min(seconds, cpu) < ONCES * unit and lag < LAG_SHARE * seconds


def test_the_files_of_a_patch_are_read_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    for number in range(30):
        (origin / f"f{number}.py").write_text(f"x = {number}\n")
    git(origin, "add", "--all")
    git(origin, "commit", "-qm", "base")
    for number in range(30):
        (origin / f"f{number}.py").write_text(f"x = {number} + 1\n")
    (origin / "f0.py").unlink()
    patch = git(origin, "diff", "HEAD")
    asked: list[str] = []
    with open_tree(origin, git(origin, "rev-parse", "HEAD").strip()) as tree:
        real = tree._git

        def noted(*words: str, stdin: str = "") -> bytes:
            asked.append(words[0])
            return real(*words, stdin=stdin)

        monkeypatch.setattr(tree, "_git", noted)
        files = tree.patched(patch).files
    assert files["f0.py"] == (b"x = 0\n", None) and files["f7.py"] == (b"x = 7\n", b"x = 7 + 1\n") and len(files) == 30
    assert len(asked) == 3, "none of it is asked file by file"
