"""Docker environments in a real image registry on this machine: what one machine set up, another pulls."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox.base import SandboxSpec
from harness.sandbox.docker.daemon import connect
from harness.sandbox.docker.provider import DockerProvider
from tasks.errors import SandboxFailed
from tests.support.waiting import wait_for

pytestmark = pytest.mark.docker

PROGRAM = shutil.which("docker-registry") or shutil.which("registry")
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of an empty registry (Debian's docker-registry)."""
    if PROGRAM is None:
        pytest.skip("no docker-registry is installed (apt-get install docker-registry)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    process = subprocess.Popen([PROGRAM, "serve", str(config)], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"http://{address}/v2/", timeout=5).status == 200)
        return False

    try:
        wait_for(answers)
        yield address
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def machine(name: str, registry: str) -> Iterator[DockerProvider]:
    """A provider whose environments no other one sees, as on a machine of its own."""
    provider = DockerProvider(environments=f"troop-test-{name}")
    provider.registry = registry
    try:
        yield provider
    finally:
        with contextlib.closing(connect()) as client, contextlib.suppress(Exception):
            client.api.remove_image(f"troop-test-{name}:{KEY}")


def test_an_environment_that_one_machine_froze_is_pulled_by_another(registry: str) -> None:
    async def whole(one: DockerProvider, other: DockerProvider) -> tuple[bool, str]:
        first = not await other.has(KEY)
        sandbox = await one.create(SandboxSpec("run", "setup"))
        await sandbox.write("/opt/mark", b"made by one")
        await one.freeze(sandbox, KEY)
        assert await other.has(KEY), "it is in the registry"
        sandbox = await other.create(SandboxSpec("run", "attempt", environment=KEY))
        told = (await sandbox.read("/opt/mark")).decode()
        await sandbox.close()
        await one.close()
        await other.close()
        return first, told

    with machine("one", f"{registry}/team") as one, machine("other", f"{registry}/team") as other:
        assert asyncio.run(whole(one, other)) == (True, "made by one")
        with contextlib.closing(connect()) as client:
            assert not [tag for image in client.images.list() for tag in image.tags if tag.startswith(registry)]


def test_one_that_was_there_before_is_pushed_when_it_is_found(registry: str) -> None:
    async def whole(one: DockerProvider, other: DockerProvider) -> bool:
        one.registry = None
        await one.freeze(await one.create(SandboxSpec("run", "setup")), KEY)
        one.registry = f"{registry}/team"
        assert not await other.has(KEY) and await one.has(KEY)
        found = await other.has(KEY)
        await one.close()
        await other.close()
        return found

    with machine("one", f"{registry}/team") as one, machine("other", f"{registry}/team") as other:
        assert asyncio.run(whole(one, other))


def test_a_registry_that_does_not_answer_is_named(tmp_path: Path) -> None:
    async def whole(one: DockerProvider) -> None:
        try:
            await one.has(KEY)
        finally:
            await one.close()

    with machine("one", "127.0.0.1:1/team") as one, pytest.raises(SandboxFailed, match=r"127\.0\.0\.1:1"):
        asyncio.run(whole(one))
