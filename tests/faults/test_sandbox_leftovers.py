"""A harness that is killed leaves nothing running, and nothing lying about after `clean`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.sandbox.base import Provider
from tests.support.waiting import wait_for

HARNESS = """
import asyncio, sys
from pathlib import Path
from harness.sandbox.base import Limits, Provider, SandboxSpec

def provider() -> Provider:
    if sys.argv[1] == "docker":
        from harness.sandbox.docker.provider import DockerProvider
        return DockerProvider()
    from harness.sandbox.bubblewrap.provider import BubblewrapProvider
    return BubblewrapProvider()

async def main():
    made = provider()
    run, stage = sys.argv[2], sys.argv[3]
    if stage == "creating":
        print("ready", flush=True)
        while True:
            sandbox = await made.create(SandboxSpec(run, "box"))
            await sandbox.close()
    base = await made.create(SandboxSpec(run, "setup", limits=Limits(memory_mb=300)))
    await base.exec("echo x > f")
    await made.freeze(base, sys.argv[4])
    boxes = [await made.create(SandboxSpec(run, f"box-{n}", environment=sys.argv[4])) for n in range(2)]
    for box in boxes:
        await box.exec(f"echo y > g; setsid sleep {sys.argv[5]} &")
    print("ready", flush=True)
    await asyncio.gather(*(box.exec(f"sleep {sys.argv[5]}") for box in boxes))

asyncio.run(main())
"""


def start_harness(backend: str, run: str, stage: str, key: str = "none", seconds: str = "0") -> subprocess.Popen[str]:
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, backend, run, stage, key, seconds], stdout=subprocess.PIPE, text=True
    )
    assert harness.stdout is not None
    if harness.stdout.readline() != "ready\n":
        harness.kill()
        pytest.fail(f"the harness did not start: status {harness.wait()}")
    return harness


def running(command: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and command in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                found.append(int(folder.name))
        except OSError:  # it ended while we looked
            continue
    return found


def groups_of(run: str) -> list[Path]:
    return [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if run in Path(folder).name]


def test_a_killed_harness_leaves_no_process_and_clean_removes_the_rest(provider: Provider, cache: Path) -> None:
    run, key = f"killed-{os.urandom(4).hex()}", f"killed-{os.urandom(4).hex()}"
    seconds = str(100_000 + os.getpid())
    harness = start_harness(provider.name, run, "running", key, seconds)
    assert running(f"sleep {seconds}")
    assert asyncio.run(provider.clean(run)) == [], "the owner lives"
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    wait_for(lambda: not running(f"sleep {seconds}"), 10, "processes outlive the harness")
    removed = asyncio.run(provider.clean(run))
    assert asyncio.run(provider.clean(run)) == []
    assert not groups_of(run)
    assert run not in Path("/proc/self/mounts").read_text()
    if provider.name == "bubblewrap":
        assert len(removed) == 2 and all(run in line for line in removed)
        assert not [path for path in (cache / "sandboxes").iterdir() if run in path.name]
    assert asyncio.run(provider.has(key)), "what was frozen stays"
    asyncio.run(provider.remove(key))


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.11])
def test_a_harness_killed_while_it_makes_sandboxes_leaves_none(provider: Provider, cache: Path, delay: float) -> None:
    run = f"making-{os.urandom(4).hex()}"
    harness = start_harness(provider.name, run, "creating")
    time.sleep(delay)
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    wait_for(lambda: not running(f"/{run}-box"), 10, "processes outlive the harness")
    asyncio.run(provider.clean(run))
    wait_for(lambda: not groups_of(run), 5)
    if provider.name == "bubblewrap":
        assert not [path for path in (cache / "sandboxes").iterdir() if run in path.name]


def test_a_half_made_environment_is_no_environment(bubblewrap: Provider, cache: Path) -> None:
    """What a harness killed in the middle of freezing leaves lies in its sandbox's folder, where `clean` removes it."""
    run, key = f"half-{os.urandom(4).hex()}", f"half-{os.urandom(4).hex()}"
    left = cache / "sandboxes" / f"{run}-setup"
    (left / "frozen/testbed").mkdir(parents=True)
    (left / "frozen/testbed").chmod(0)
    mark = {"run": run, "name": "setup", "groups": []}
    (left / "owner.json").write_text(json.dumps(mark))
    assert not asyncio.run(bubblewrap.has(key))
    assert len(asyncio.run(bubblewrap.clean(run))) == 1
    assert not left.exists()
