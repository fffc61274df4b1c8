"""What waits for another's lock keeps nothing else from a thread."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.cache import cache_root
from harness.lock import held
from harness.parallel import apart
from harness.sandbox.base import Limits
from harness.sandbox.choice import BACKENDS
from harness.suites.instances import InstanceSuite
from harness.suites.suite import Means, Submission
from tasks.errors import SourceUnavailable
from tasks.instance import Grading, Instance
from tasks.task import Repository, Task

THREADS, CLONES = 2, 5
"""Of the shared pool; and gradings that wait, more of them."""


@contextlib.contextmanager
def taken(path: Path) -> Iterator[None]:
    """Within: another has the lock file, as another process would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def shared_pool_answers(while_waiting: list[asyncio.Task[object]]) -> None:
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in while_waiting)
    async with asyncio.timeout(2):
        assert await asyncio.to_thread(lambda: 1) == 1


def test_clones_that_wait_for_a_lock_leave_the_shared_pool_to_others(tmp_path: Path) -> None:
    """Gradings of a repository whose mirror somebody else is making."""
    url = (tmp_path / "none").as_uri()
    task = Task("one", Repository("url", url, "a" * 40), "")
    suite = InstanceSuite("suite", (Instance(task, Grading()),))
    mirror = cache_root() / "mirrors" / f"none-{hashlib.sha256(url.encode()).hexdigest()[:12]}.lock"

    async def whole() -> list[object]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        means = Means(BACKENDS["bubblewrap"].open(tmp_path, None), Limits(), 60.0, 2, lambda line: None)
        async with suite.at_work(means) as bench:
            gradings: list[asyncio.Task[object]] = []
            with taken(mirror):
                for number in range(CLONES):
                    submission = Submission(f"c{number}", "", "run", "a" * 40)
                    gradings.append(asyncio.create_task(bench.grade("one", submission)))
                await shared_pool_answers(gradings)
            return await asyncio.gather(*gradings, return_exceptions=True)

    ends = asyncio.run(whole())
    assert [type(end) for end in ends] == [SourceUnavailable] * CLONES, "there is no such repository"


def test_a_thread_apart_gives_what_it_came_to_and_is_waited_for(tmp_path: Path) -> None:
    def hold() -> str:
        with held(tmp_path / "lock"):
            return "had"

    async def whole() -> str:
        with taken(tmp_path / "lock"):
            waiting = asyncio.create_task(apart(hold))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.sleep(0.1)
            assert not waiting.done(), "its thread is still at work"
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(ZeroDivisionError):
            await apart(lambda: 1 // 0)
        return await apart(hold)

    began = time.monotonic()
    assert asyncio.run(whole()) == "had" and time.monotonic() - began < 5
