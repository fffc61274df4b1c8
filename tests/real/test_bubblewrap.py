"""What is bubblewrap's own: copies where there are no overlays, ordinary users, closing, missing limits."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.sandbox.base import Limits, SandboxSpec
from harness.sandbox.bubblewrap import cgroup
from harness.sandbox.bubblewrap import provider as bubblewrap_provider
from harness.sandbox.bubblewrap.launch import Copying, Launched, copy_tree, remove_tree
from harness.sandbox.bubblewrap.provider import KEPT, PYTHONS, BubblewrapProvider
from tasks.errors import DiskFull, InputError, SandboxFailed

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
        assert isinstance(sandbox, bubblewrap_provider.BubblewrapSandbox)
        await sandbox.halt()
        with pytest.raises(SandboxFailed, match="box is gone"):
            await waiting
        await provider.close()

    asyncio.run(scenario())


def test_what_attempts_made_is_out_of_reach_for_other_users(tmp_path: Path) -> None:
    """A program that says to run as its owner would run as the user of the harness."""

    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        for name in ("sandboxes", "environments"):
            (tmp_path / name).mkdir(mode=0o755)
        sandbox = await provider.create(SandboxSpec("private", "box"))
        await sandbox.exec("cp /bin/true tool; chmod 4755 tool")
        await provider.freeze(sandbox, "key")
        assert (tmp_path / "environments/key/testbed/tool").stat().st_mode & 0o7777 == 0o4755
        for name in ("sandboxes", "environments"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
        box = await provider.create(SandboxSpec("private", "box", environment="key"))
        assert (await box.exec("./tool")).exit_code == 0
        await provider.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("stage", ["copying", "launching", "greeting"])
def test_a_creation_that_is_cancelled_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Without control groups, which would end whatever is in them."""
    monkeypatch.setattr(cgroup, "hierarchies", lambda: ())
    started: list[Launched] = []
    copies: list[str] = []

    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        ground = await provider._known_ground()
        provider._ground = replace(ground, copying=NoOverlay(tmp_path))
        await provider.freeze(await provider.create(SandboxSpec("cancel", "setup")), "key")
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow_copy(source: Path, target: Path) -> None:
            loop.call_soon_threadsafe(reached.set)
            copies.append("begun")
            time.sleep(0.3)
            copy_tree(source, target)
            copies.append("done")

        async def stuck(*_args: object, **_kwargs: object) -> None:
            reached.set()
            await asyncio.sleep(60)

        class Seen(Launched):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                started.append(self)

        monkeypatch.setattr(bubblewrap_provider, "Launched", Seen)
        if stage == "copying":
            monkeypatch.setattr(bubblewrap_provider, "copy_tree", slow_copy)
        elif stage == "launching":
            monkeypatch.setattr(asyncio, "open_unix_connection", stuck)
        else:
            monkeypatch.setattr(bubblewrap_provider.BubblewrapSandbox, "_ask", stuck)
        making = asyncio.ensure_future(provider.create(SandboxSpec("cancel", "box", environment="key")))
        await asyncio.wait_for(reached.wait(), 20)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert copies == ["begun", "done"] * (len(copies) // 2), "nobody writes to it any more"
        assert not list((tmp_path / "sandboxes").iterdir())
        for launched in started:
            assert await launched.ended(0) is not None
        await provider.close()

    asyncio.run(scenario())
    assert len(started) == (0 if stage == "copying" else 1)


def test_the_last_closed_sandboxes_are_removed_when_there_is_time_or_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making many files is slow where many have just been removed, so nobody waits for either."""

    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        if (await provider._known_ground()).copying.options is None:
            pytest.skip("trees are copied here, and whole copies are not kept")
        await provider.freeze(await provider.create(SandboxSpec("kept", "setup")), "key")
        boxes = tmp_path / "sandboxes"
        assert not list(boxes.iterdir()), "what set-up leaves is large"
        for number in range(KEPT + 2):
            box = await provider.create(SandboxSpec("kept", f"box-{number}", environment="key"))
            await box.close()
        assert sorted(path.name[:10] for path in boxes.iterdir()) == [f"kept-box-{n}" for n in range(2, KEPT + 2)]
        assert not [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name.startswith("kept-box")]
        assert await BubblewrapProvider(tmp_path).clean("kept") == [], "they have an owner"
        monkeypatch.setattr(bubblewrap_provider, "lacking", lambda *_: "no room")
        last = await provider.create(SandboxSpec("kept", "last", environment="key"))
        assert [path.name[:9] for path in boxes.iterdir()] == ["kept-last"]
        await last.close()
        await provider.close()
        assert not list(boxes.iterdir())

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_removed_keeps_no_other_and_nobody_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: Path) -> None:
        if "stubborn" in path.name:
            raise OSError(f"cannot remove {path}: it does not want to")
        remove_tree(path)

    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        monkeypatch.setattr(bubblewrap_provider, "remove_tree", refusing)
        for name in ("stubborn", "yielding"):
            await (await provider.create(SandboxSpec("left", name))).close()
        (left,) = (tmp_path / "sandboxes").iterdir()
        other = tmp_path / "sandboxes/other"
        other.mkdir()
        (other / "owner.json").write_text('{"run": "left", "name": "other", "groups": []}')
        lines = await provider.clean("left")
        assert sorted("does not want to" in line for line in lines) == [False, True]
        assert list((tmp_path / "sandboxes").iterdir()) == [left]
        monkeypatch.setattr(bubblewrap_provider, "remove_tree", remove_tree)
        assert len(await provider.clean("left")) == 1
        assert not list((tmp_path / "sandboxes").iterdir())

    asyncio.run(scenario())


def test_removing_follows_no_link_and_takes_what_is_not_there_for_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree/closed/in").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    (tmp_path / "tree/closed").chmod(0)
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    provider = BubblewrapProvider(tmp_path / "file/cache")
    with pytest.raises(SandboxFailed, match="set TROOP_CACHE to a directory"):
        asyncio.run(provider.create(SandboxSpec("cache", "box")))
    (finding,) = asyncio.run(provider.findings())
    assert not finding.ok and "TROOP_CACHE" in finding.fix and "file/cache" in finding.detail
    assert not any(str(tmp_path) in line for line in asyncio.run(provider.clean()))


def test_no_sandbox_is_made_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BubblewrapProvider(tmp_path)
    assert asyncio.run(provider.findings())[0].ok
    left = SimpleNamespace(f_flag=0, f_files=0, f_favail=0, f_bavail=100 << 8, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: left)
    with pytest.raises(DiskFull, match="has 100 MB left, too little to go on with; make room"):
        asyncio.run(provider.create(SandboxSpec("full", "box")))
    assert not list((tmp_path / "sandboxes").iterdir())


@pytest.mark.parametrize(("release", "limited"), [("5.10.0-21-amd64", False), ("5.14.0", True), ("6.1-rc1", True)])
def test_processes_are_limited_by_user_only_where_the_kernel_counts_by_namespace(
    monkeypatch: pytest.MonkeyPatch, release: str, limited: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    missing, rlimits = bubblewrap_provider._without_group(cgroup.Group((), {"pids": "none here"}), Limits(processes=10))
    assert ("NPROC" in rlimits) == limited
    assert any("number of processes" in sentence for sentence in missing) != limited


def test_every_file_system_in_memory_has_a_size(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider = BubblewrapProvider(tmp_path)
        sandbox = await provider.create(SandboxSpec("tmpfs", "box", limits=Limits(memory_mb=300)))
        mounts = (await sandbox.exec("cat /proc/self/mounts")).output
        writable = [line for line in mounts.splitlines() if " tmpfs " in line and " rw," in line]
        assert {line.split()[1] for line in writable} >= {"/tmp", "/dev/shm"}
        assert not [line for line in writable if "size=" not in line]
        assert (await sandbox.exec("echo x > /dev/null; echo x > /dev/shm/f; echo x > /dev/f")).exit_code == 1
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
from harness.sandbox.bubblewrap.provider import PYTHONS, BubblewrapProvider

async def main():
    provider = BubblewrapProvider(Path(sys.argv[1]))
    base = await provider.create(SandboxSpec("user", "setup"))
    await base.exec("echo base > f; mkdir -m 0 closed")
    await provider.freeze(base, "key")
    box = await provider.create(SandboxSpec("user", "box", environment="key"))
    print((await box.exec("id -u; cat f; rmdir closed; mkdir -m 0 shut; echo own > f; cat f")).output)
    await provider.close()
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


def test_a_file_that_finds_no_room_is_not_there_by_half(bubblewrap: BubblewrapProvider) -> None:
    async def scenario() -> None:
        sandbox = await bubblewrap.create(SandboxSpec("full", "box"))
        try:
            with pytest.raises(OSError, match="No space left"):  # a file system in memory, of a megabyte
                await sandbox.write(f"{PYTHONS}/half", b"x" * (2 << 20))
            assert b"half" not in (await sandbox.exec(["ls", "-A", PYTHONS])).stdout
            assert b".troop" not in (await sandbox.exec(["ls", "-A", PYTHONS])).stdout
        finally:
            await sandbox.close()

    asyncio.run(scenario())


def test_a_sandbox_that_was_given_up_and_finds_no_room_is_quiet(
    bubblewrap: BubblewrapProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []

    def late(place: Path) -> None:
        time.sleep(0.3)
        raise DiskFull("there is no room")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await (await bubblewrap.create(SandboxSpec("given-up", "first"))).close()
        monkeypatch.setattr(bubblewrap_provider, "check", late)
        making = asyncio.ensure_future(bubblewrap.create(SandboxSpec("given-up", "box")))
        await asyncio.sleep(0.1)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        del making
        gc.collect()

    asyncio.run(scenario())
    assert not complaints
