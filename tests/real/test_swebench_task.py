"""The task of a SWE-bench row in an image that is laid out like the published ones: the base and nothing newer is in
its tree, what was built there survives, and its tests run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cache import cache_root
from harness.environments.environment import build
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Sandbox, SandboxSpec
from harness.sandbox.docker.provider import DockerProvider
from harness.suites.swebench import task_in_image
from harness.testing.run import run_tests
from tasks.swebench import Row, repository_of
from tests.support.repositories import git, make_repository
from tests.support.rows import bare_row

pytestmark = [pytest.mark.docker, pytest.mark.network]

FILES = {
    "lines/__init__.py": "from lines._version import version\nfrom lines.core import parse\n",
    "lines/core.py": "def parse(line):\n    return line.split('=')\n",
    "tests/test_core.py": (
        "from lines import parse, version\n\n\ndef test_parse():\n    assert parse('a=1') == ['a', '1'] and version\n"
    ),
    ".gitignore": "_version.py\n*.so\n",
}
IMAGE = "test-images"

# A published image: an environment where conda would have it, an editable install, a generated version, a built
# extension, and a clone whose history goes on after the base.
LAID_OUT = """
set -e
python3 -m venv /opt/miniconda3/envs/testbed
echo /testbed > $(echo /opt/miniconda3/envs/testbed/lib/python3*/site-packages)/lines.pth
rm -rf /opt/env
cd /testbed
git config user.email a@example.org && git config user.name A
echo 'version = "1.2"' > lines/_version.py
echo built > lines/fast.so
mkdir lines.egg-info && echo 'Name: lines' > lines.egg-info/PKG-INFO
echo 'FUTURE = 1' > lines/future.py
echo '# repaired' >> lines/core.py
git add lines && git commit -q -m 'The repair'
git tag v2
"""


@pytest.fixture
def row(tmp_path: Path) -> Row:
    place = make_repository(tmp_path / "mirrors" / "acme__lines", FILES, date="2024-02-02T00:00:00+0000")
    return bare_row(base_commit=git(place, "rev-parse", "HEAD"))


@pytest.fixture
def provider() -> Iterator[DockerProvider]:
    made = DockerProvider(environments=IMAGE)
    yield made
    asyncio.run(made.close())


async def laid_out(provider: DockerProvider, row: Row, mirrors: Path) -> str:
    """The name of an image made by LAID_OUT."""
    workspace = await asyncio.to_thread(open_workspace, repository_of(row, mirrors), cache_root())
    sandbox = await provider.create(SandboxSpec(run="tests", name="image", network=True))
    try:
        await sandbox.upload(workspace.archive())
        done = await sandbox.exec(LAID_OUT, merge=True)
        assert done.exit_code == 0, done.output
        await provider.freeze(sandbox, "published")
    finally:
        await sandbox.close()
    return f"{IMAGE}:published"


def test_a_published_image_becomes_an_environment_of_the_base(
    docker: object, provider: DockerProvider, row: Row, tmp_path: Path
) -> None:
    async def scenario() -> None:
        image = await laid_out(provider, row, tmp_path / "mirrors")
        task = task_in_image(row, repository_of(row, tmp_path / "mirrors"), image)
        workspace = await asyncio.to_thread(open_workspace, task.repository, cache_root())
        built = await build(provider, workspace, task, run="tests")
        try:
            sandbox = await provider.create(SandboxSpec(run="tests", name="work", environment=built.key))
            try:
                await _looks_right(sandbox, row, built.test_command or "")
            finally:
                await sandbox.close()
        finally:
            await provider.remove(built.key)
            await provider.remove("published")

    asyncio.run(scenario())


async def _looks_right(sandbox: Sandbox, row: Row, command: str) -> None:
    async def said(command: str) -> str:
        done = await sandbox.exec(command, merge=True)
        return done.output.strip()

    assert await said("git rev-list --all") == row.base_commit, "no commit but the base"
    assert await said("git tag; git reflog --all") == ""
    assert await said("git grep -c repaired HEAD; grep -c repaired lines/core.py") == "0"
    assert await said("git status --short --untracked-files=no") == ""
    assert await said("ls lines/future.py 2>&1 | grep -c 'No such file'") == "1", "what was committed after the base"
    assert (
        await said("cat lines/_version.py lines/fast.so lines.egg-info/PKG-INFO")
        == 'version = "1.2"\nbuilt\nName: lines'
    )
    assert await said("readlink -f $(command -v python)") != "", "the image's own environment"
    assert await said("python -c 'import sys; print(sys.prefix)'") in ("/opt/env", "/opt/miniconda3/envs/testbed")
    report = await run_tests(sandbox, command, timeout=60)
    assert report.valid and report.passed == {"tests/test_core.py::test_parse"}, report.reason + report.output
