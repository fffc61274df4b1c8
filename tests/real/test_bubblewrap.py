"""What is bubblewrap's own: copies where there are no overlays, ordinary users, closing, missing limits."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.sandbox import cgroup
from harness.sandbox.base import Limits, SandboxSpec
from harness.sandbox.bubblewrap import BubblewrapProvider
from harness.sandbox.launch import Copying
from tasks.errors import InputError, SandboxFailed

pytestmark = pytest.mark.bubblewrap


class NoOverlay(Copying):
    """A kernel that refuses every overlay."""

    def _try(self, folder: Path, options: str) -> str:
        return "no overlays here"


def test_without_overlays_each_sandbox_gets_a_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        ground = await provider._known_ground()
        provider._ground = replace(ground, copying=NoOverlay(tmp_path))
        base = await provider.create(SandboxSpec("copy", "setup"))
        await base.exec("echo base > f; ln -s f l; chmod 750 f")
        await provider.freeze(base, "key")
        one, two = [await provider.create(SandboxSpec("copy", f"box-{n}", environment="key")) for n in range(2)]
        assert (await one.snapshot()).files == ()
        await one.exec("echo one > f")
        assert (await two.exec("cat f; readlink l; stat -c %a f")).stdout == b"base\nf\n750\n"
        await provider.freeze(one, "second")
        three = await provider.create(SandboxSpec("copy", "box", environment="second"))
        assert await three.read("f") == b"one\n"
        finding = next(f for f in await provider.findings() if f.name == "copy-on-write")
        assert not finding.ok and "no overlays here" in finding.detail
        await provider.close()
        assert not list((tmp_path / "sandboxes").iterdir())

    asyncio.run(scenario())


def test_limits_that_cannot_be_had_are_named_and_the_rest_holds_per_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "hierarchies", lambda: ())

    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        sandbox = await provider.create(SandboxSpec("limits", "box", limits=Limits(memory_mb=200)))
        words = " ".join(sandbox.missing_limits)
        assert "memory is limited for each process only" in words and "CPU time is not limited" in words
        hog = await sandbox.exec("python3 -c 'x = bytes([1]) * 400_000_000'")
        assert hog.exit_code != 0 and b"MemoryError" in hog.stderr
        assert not all(finding.ok for finding in await provider.findings())
        await provider.close()

    asyncio.run(scenario())


def test_closing_the_provider_closes_its_sandboxes_and_leaves_no_folder_or_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        sandbox = await provider.create(SandboxSpec("closing", "box"))
        await provider.close()
        with pytest.raises(SandboxFailed, match="closed"):
            await sandbox.exec("true")

    asyncio.run(scenario())
    assert not list((tmp_path / "sandboxes").iterdir())
    assert not [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name.startswith("closing-box")]


def test_a_sandbox_whose_first_process_dies_says_so_to_who_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        sandbox = await provider.create(SandboxSpec("dying", "box"))
        waiting = asyncio.ensure_future(sandbox.exec("sleep 60"))
        await asyncio.sleep(0.2)
        await sandbox.halt()
        with pytest.raises(SandboxFailed, match="box is gone"):
            await waiting
        await provider.close()

    asyncio.run(scenario())


def test_an_image_is_refused_and_so_is_a_bad_key(tmp_path: Path) -> None:
    provider = BubblewrapProvider(tmp_path)
    with pytest.raises(InputError, match="no images"):
        asyncio.run(provider.create(SandboxSpec("image", "box", image="debian")))
    with pytest.raises(InputError, match="key of an environment"):
        asyncio.run(provider.has("../key"))


ORDINARY = """
import asyncio, sys
from pathlib import Path
from harness.sandbox.base import SandboxSpec
from harness.sandbox.bubblewrap import BubblewrapProvider

async def main():
    provider = BubblewrapProvider(Path(sys.argv[1]))
    base = await provider.create(SandboxSpec("user", "setup"))
    await base.exec("echo base > f; mkdir -m 0 closed")
    await provider.freeze(base, "key")
    box = await provider.create(SandboxSpec("user", "box", environment="key"))
    print((await box.exec("id -u; cat f; rmdir closed; mkdir -m 0 shut; echo own > f; cat f")).output)
    await box.close()
    await provider.remove("key")
    print([p.name for name in ("sandboxes", "environments") for p in (Path(sys.argv[1]) / name).iterdir()])

asyncio.run(main())
"""


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become an ordinary user; as one, every test here is this test"
)
def test_an_ordinary_user_has_sandboxes_too(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    place = Path("/tmp") / f"troop-ordinary-{os.getpid()}"
    place.mkdir()
    os.chown(place, 65534, 65534)
    become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3"]
    usable = subprocess.run(
        [*become, "-c", "import sys, harness.records; assert sys.version_info >= (3, 11)"], cwd=root
    )
    try:
        if usable.returncode != 0:
            pytest.skip("an ordinary user cannot read this checkout, or has no Python 3.11")
        done = subprocess.run([*become, "-c", ORDINARY, str(place)], cwd=root, capture_output=True, text=True)
        assert done.stdout.split() == ["1000", "base", "own", "[]"], done.stderr
    finally:
        subprocess.run(["rm", "-rf", str(place)], check=True)
