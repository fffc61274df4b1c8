"""An environment with pytest in it, made without the network: the packages of the running Python are put into a
sandbox."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.metadata
import io
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from harness.environments.environment import Built
from harness.patches.extract import mark_setup
from harness.records import FileState
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from tasks.task import Task
from tests.support.repositories import opened

PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
COMMAND = "python -m pytest -q"

MADE: set[tuple[str, str]] = set()
"""(backend, key) of each environment that was frozen."""

T = TypeVar("T")


@functools.cache
def _packages(place: str) -> bytes:
    """A tar archive of pytest and what it needs, all of it pure Python, to lie in `place`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in PACKAGES:
            for file in importlib.metadata.files(name) or ():
                path = Path(str(file.locate()))
                if path.is_file() and ".." not in file.parts and "__pycache__" not in file.parts:
                    archive.add(path, arcname=f"{place}/{file}")
    return out.getvalue()


async def put_pytest(sandbox: Sandbox) -> None:
    """Make /opt/env with pytest in it."""
    done = await sandbox.exec(
        "python3 -m venv --without-pip /opt/env && ls -d /opt/env/lib/python3*/site-packages", cwd="/"
    )
    assert done.exit_code == 0, done.output
    await sandbox.upload(_packages(done.output.strip()))
    done = await sandbox.exec("/opt/env/bin/python -m compileall -q /opt/env/lib", cwd="/")
    assert done.exit_code == 0, done.output


async def freeze(provider: Provider, task: Task, *, command: str | None = COMMAND) -> Built:
    """The task's environment as `harness.environments.environment.build` would make it, but for where pytest comes
    from."""
    workspace = await opened(task)
    given = task.failing_test.files if task.failing_test else ()
    key = hashlib.sha256(repr((workspace.base_commit, given)).encode()).hexdigest()[:32]
    if not await provider.has(key):
        sandbox = await provider.create(SandboxSpec(run="tests", name="setup", network=True))
        try:
            await sandbox.upload(workspace.archive())
            await sandbox.restore([FileState(path, text.encode()) for path, text in given])
            await put_pytest(sandbox)
            await mark_setup(sandbox)
            await provider.freeze(sandbox, key)
            MADE.add((provider.name, key))
        finally:
            await sandbox.close()
    return Built(key=key, image=None, python="3", test_command=command)


def in_sandbox(provider: Provider, task: Task, work: Callable[[Sandbox], Awaitable[T]]) -> T:
    """Do `work` in a fresh offline sandbox of the task's environment."""

    async def scenario() -> T:
        built = await freeze(provider, task)
        sandbox = await provider.create(SandboxSpec(run="tests", name="work", environment=built.key))
        try:
            return await work(sandbox)
        finally:
            await sandbox.close()

    return asyncio.run(scenario())


def remove_made() -> None:
    """Remove the images that this session's environments left with Docker (bubblewrap's go with the session's
    cache)."""

    async def remove(keys: list[str]) -> None:
        from harness.sandbox.docker.provider import DockerProvider

        provider = DockerProvider()
        for key in keys:
            await provider.remove(key)
        await provider.close()

    keys = [key for backend, key in MADE if backend == "docker"]
    if keys:
        asyncio.run(remove(keys))
    MADE.clear()
