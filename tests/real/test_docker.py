"""What is docker's own, beyond what every sandbox does (test_sandbox_conformance.py)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
import warnings
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from harness.sandbox.base import INSIDE, Limits, SandboxSpec
from harness.sandbox.choice import choose_provider
from harness.sandbox.client import DISK_UNLIMITED
from harness.sandbox.docker.containers import owner_lives, owner_mark, remove_container, seems_used
from harness.sandbox.docker.daemon import Attachment, attach, connect
from harness.sandbox.docker.image import DEFAULT_IMAGE, ensure_image
from harness.sandbox.docker.provider import DockerProvider, DockerSandbox
from tasks.errors import InputError, SandboxFailed
from tests.support.docker_proxy import proxied
from tests.support.waiting import wait_for

T = TypeVar("T")
RUN = f"test-docker-{os.getpid()}"
ENVIRONMENT = f"test-{os.getpid()}"
BASE_SCRIPT = Path(__file__).parents[2] / "harness" / "sandbox" / "base_image.sh"


def spec(name: str = "attempt-01", **rest: Any) -> SandboxSpec:
    return SandboxSpec(RUN, name, **rest)


async def start(docker: DockerProvider, **rest: Any) -> DockerSandbox:
    sandbox = await docker.create(spec(**rest))
    assert isinstance(sandbox, DockerSandbox)
    return sandbox


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(120):
            return await work

    return asyncio.run(bounded())


@pytest.fixture
def daemon() -> Iterator[Any]:
    """The daemon itself, to look at containers from outside."""
    client = connect()
    yield client
    client.close()


def containers(daemon: Any, run: str = RUN) -> list[str]:
    rows = daemon.api.containers(all=True, filters={"label": f"troop.run={run}"})
    return sorted(row["Labels"]["troop.name"] for row in rows)


# ---- a container and its confinement


@pytest.mark.docker
def test_a_container_has_no_capability_no_network_no_mount_and_the_limits_asked_for(
    docker: DockerProvider, daemon: Any
) -> None:
    async def look() -> tuple[Any, str, tuple[str, ...]]:
        limits = Limits(memory_mb=512, cpus=64, processes=77)
        sandbox = await start(docker, limits=limits)
        try:
            status = await sandbox.exec("grep -E '^(Cap|NoNewPrivs)' /proc/self/status; cat /proc/net/dev")
            return daemon.api.inspect_container(sandbox.container), status.output, sandbox.missing_limits
        finally:
            await sandbox.close()

    seen, status, missing = run(look())
    host = seen["HostConfig"]
    assert re.findall(r"Cap(?:Prm|Eff|Bnd|Amb):\s*(\w+)", status) == ["0" * 16] * 4
    assert re.search(r"NoNewPrivs:\s*1", status)
    assert "eth" not in status
    assert seen["Mounts"] == []
    assert not host["Privileged"]
    assert host["NetworkMode"] == "none"
    assert (host["Memory"], host["MemorySwap"]) == (512 << 20, 512 << 20)
    assert host["PidsLimit"] == 77
    assert host["CpuQuota"] / host["CpuPeriod"] == 64
    assert missing == (DISK_UNLIMITED,)


@pytest.mark.docker
def test_a_container_says_whose_it_is_and_keeps_no_log(docker: DockerProvider, daemon: Any) -> None:
    async def look() -> Any:
        sandbox = await start(docker)
        try:
            return daemon.api.inspect_container(sandbox.container)
        finally:
            await sandbox.close()

    seen = run(look())
    labels = seen["Config"]["Labels"]
    assert (labels["troop.run"], labels["troop.name"]) == (RUN, "attempt-01")
    assert owner_lives(labels["troop.owner"])
    assert seen["HostConfig"]["LogConfig"]["Type"] == "none"
    assert RUN in seen["Name"]


@pytest.mark.docker
def test_many_sandboxes_are_made_at_a_time_and_none_stays(docker: DockerProvider, daemon: Any) -> None:
    async def many() -> list[str]:
        sandboxes = await asyncio.gather(*(start(docker, name=f"attempt-{n:02}") for n in range(8)))
        outputs = await asyncio.gather(*(s.exec(f"echo {n} > mine; cat mine") for n, s in enumerate(sandboxes)))
        await asyncio.gather(*(s.close() for s in sandboxes))
        return [o.output.strip() for o in outputs]

    assert run(many()) == [str(n) for n in range(8)]
    assert containers(daemon) == []


@pytest.mark.docker
def test_variables_of_an_image_hold_for_commands_and_the_environment_goes_first_on_path(
    docker: DockerProvider, daemon: Any
) -> None:
    image = _image(daemon, 'ENV FLAVOUR=vanilla PATH="/opt/special/bin:$PATH"')
    try:

        async def look() -> str:
            sandbox = await start(docker, image=image)
            try:
                return (await sandbox.exec('echo "$FLAVOUR $PATH"')).output
            finally:
                await sandbox.close()

        flavour, path = run(look()).split()
    finally:
        daemon.api.remove_image(image, force=True)
    assert flavour == "vanilla"
    assert path.startswith("/opt/env/bin:/opt/special/bin:")


@pytest.mark.docker
def test_an_image_with_an_entrypoint_and_a_health_check_of_its_own_works(docker: DockerProvider, daemon: Any) -> None:
    image = _image(daemon, 'ENTRYPOINT ["/bin/false"]\nCMD ["x"]\nHEALTHCHECK CMD /bin/false\nUSER nobody')
    try:

        async def look() -> str:
            sandbox = await start(docker, image=image)
            try:
                return (await sandbox.exec("id -un; pwd")).output
            finally:
                await sandbox.close()

        assert run(look()).split() == ["root", "/testbed"]
    finally:
        daemon.api.remove_image(image, force=True)


def _image(daemon: Any, lines: str) -> str:
    name = f"troop-test:{os.getpid()}"
    daemon.images.build(
        fileobj=io.BytesIO(f"FROM {DEFAULT_IMAGE}\n{lines}\n".encode()), tag=name, rm=True, forcerm=True
    )
    return name


@pytest.mark.docker
def test_closing_the_provider_removes_a_container_whose_event_loop_has_ended(daemon: Any) -> None:
    docker = DockerProvider()
    run(start(docker))
    run(docker.close())
    run(docker.close())
    assert containers(daemon) == []


# ---- what can go wrong


@pytest.mark.docker
@pytest.mark.parametrize("lost", ["/usr/bin/python3* /usr/bin/python", "/usr/bin/git"])
def test_an_image_that_lacks_python_or_git_gets_this_machine_s(docker: DockerProvider, daemon: Any, lost: str) -> None:
    image = _image(daemon, f"RUN rm -f {lost}")
    try:

        async def look() -> str:
            sandbox = await docker.create(spec(image=image))
            try:
                done = await sandbox.exec(
                    "git init -q a && cd a && touch b && git add b && git -c user.name=x -c user.email=y commit -qm z"
                    " && python3 -c 'import json, ssl, sqlite3; print(json.dumps([1]))'",
                    merge=True,
                )
                return done.output
            finally:
                await sandbox.close()

        assert run(look()) == "[1]\n"
    finally:
        daemon.api.remove_image(image, force=True)
    assert containers(daemon) == []


@pytest.mark.docker
@pytest.mark.parametrize("name", ["localhost:1/no/such-image:1", "Not A Name"])
def test_an_image_that_cannot_be_had_is_the_users_mistake(docker: DockerProvider, name: str) -> None:
    with pytest.raises(InputError, match=re.escape(name)):
        run(docker.create(spec(image=name)))


@pytest.mark.docker
def test_a_name_for_an_environment_that_docker_cannot_take_is_refused(docker: DockerProvider) -> None:
    with pytest.raises(InputError, match="cannot name an environment"):
        run(docker.has("../x"))


@pytest.mark.docker
def test_a_container_removed_from_outside_is_a_failure_of_the_sandbox(docker: DockerProvider, daemon: Any) -> None:
    async def lose() -> None:
        sandbox = await start(docker)
        sleeping = asyncio.create_task(sandbox.exec("sleep 60"))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(daemon.api.remove_container, sandbox.container, force=True)
        with pytest.raises(SandboxFailed, match=r"attempt-01 is gone: its container ended with exit code 137"):
            await sleeping
        with pytest.raises(SandboxFailed):
            await sandbox.exec("true")
        await sandbox.close()
        await sandbox.close()

    run(lose())


@pytest.mark.docker
def test_a_creation_that_is_cancelled_leaves_no_container(docker: DockerProvider, daemon: Any) -> None:
    async def cancelled_after(delay: float) -> bool:
        making = asyncio.create_task(docker.create(spec()))
        await asyncio.sleep(delay)
        if not making.cancel():  # a fast machine has made it by then
            await making.result().close()
            return False
        with pytest.raises(asyncio.CancelledError):
            await making
        return True

    async def cancel() -> list[bool]:
        await docker.findings()  # connected
        return [await cancelled_after(delay) for delay in (0.0, 0.005, 0.02, 0.04, 0.08, 0.2)]

    assert run(cancel())[:3] == [True, True, True]
    assert containers(daemon) == []


def test_a_missing_daemon_is_one_sentence_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    docker = DockerProvider()

    async def ask() -> None:
        with pytest.raises(SandboxFailed, match=r"no Docker daemon answers at .*none\.sock") as caught:
            await docker.create(spec())
        assert "\n" not in str(caught.value)
        assert "DOCKER_HOST" in str(caught.value)
        findings = await docker.findings()
        assert [(f.name, f.ok) for f in findings] == [("docker", False)]
        assert findings[0].fix
        await docker.close()

    run(ask())


def test_a_daemon_behind_ssh_is_refused_with_the_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    with pytest.raises(SandboxFailed, match="forward the daemon's socket"):
        connect()


@pytest.mark.docker
def test_without_default_image_and_registry_the_commands_to_type_are_named(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness.sandbox.docker.image as images

    for constant in ("DEFAULT_IMAGE", "LOCAL_BASE", "REGISTRY_BASE"):
        monkeypatch.setattr(images, constant, f"localhost:1/troop-none-{constant.lower()}")
    with pytest.raises(SandboxFailed, match=r"base_image\.sh troop-base:bookworm && docker build"):
        ensure_image(daemon, images.DEFAULT_IMAGE, lambda _line: None)


@pytest.mark.docker
def test_findings_name_the_daemon_its_limits_and_the_image(docker: DockerProvider) -> None:
    found = {f.name: f for f in run(docker.findings())}
    assert {"docker", "docker limits", "docker image"} <= set(found)
    assert all(f.ok or f.fix for f in found.values())
    assert found["docker"].ok
    assert found["docker image"].ok
    missing = {f.name: f for f in run(DockerProvider(image="troop-none").findings())}["docker image"]
    assert (missing.ok, missing.fix) == (False, "make image")


@pytest.mark.docker
def test_a_proxy_of_the_users_docker_configuration_or_of_the_image_reaches_no_sandbox(
    daemon: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = "http://me:hunter2@proxy.invalid:3128"
    proxies = {"default": {"httpProxy": proxy, "httpsProxy": proxy}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    image = _image(daemon, f"ENV HTTP_PROXY={proxy} https_proxy={proxy} FLAVOUR=vanilla")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    async def look() -> tuple[str, list[str], str]:
        docker = DockerProvider()
        plain, of_image = await start(docker), await start(docker, image=image)
        try:
            configured = daemon.api.inspect_container(plain.container)["Config"]["Env"]
            return (await plain.exec("env")).output, configured, (await of_image.exec("env")).output
        finally:
            await docker.close()

    try:
        seen, configured, of_image = run(look())
    finally:
        daemon.api.remove_image(image, force=True)
    assert "hunter2" not in seen and "hunter2" not in " ".join(configured)
    assert "hunter2" not in of_image and "FLAVOUR=vanilla" in of_image


# ---- a daemon that accepts and never answers


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The socket of such a daemon, which DOCKER_HOST names; it is given up after half a second."""
    place = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(50)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
        monkeypatch.setattr("harness.sandbox.docker.daemon.ANSWER_SECONDS", 0.5)
        monkeypatch.setattr("harness.sandbox.docker.daemon.ATTACH_SECONDS", 0.5)
        yield place


def test_the_doctor_does_not_wait_for_a_silent_daemon(silent: str) -> None:
    began = time.monotonic()
    (finding,) = run(DockerProvider().findings())
    assert not finding.ok and silent in finding.detail and "timed out" in finding.detail
    assert time.monotonic() - began < 10


@pytest.mark.bubblewrap
def test_with_a_silent_daemon_the_backend_is_bubblewrap(silent: str, tmp_path: Path) -> None:
    async def choose() -> str:
        provider = await choose_provider("auto", image=None, cache=tmp_path)
        await provider.close()
        return provider.name

    began = time.monotonic()
    assert run(choose()) == "bubblewrap"
    assert time.monotonic() - began < 20


def test_attaching_to_a_silent_daemon_ends_in_words(silent: str) -> None:
    client = SimpleNamespace(api=SimpleNamespace(api_version="1.41"))
    with pytest.raises(SandboxFailed, match=r"the daemon does not answer within 0\.5 s"):
        run(attach(client, "0123456789abcdef"))


# ---- a daemon that dies


@pytest.mark.docker
def test_whoever_waits_for_a_command_hears_at_once_that_the_daemon_is_gone(tmp_path: Path) -> None:
    async def cut() -> tuple[list[object], float]:
        async with proxied(tmp_path / "docker.sock") as proxy:
            docker = DockerProvider()
            sandbox = await start(docker)
            waiting = [asyncio.create_task(sandbox.exec("sleep 600", timeout=600)) for _ in range(3)]
            await sandbox.exec("true")
            began = time.monotonic()
            proxy.cut()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            took = time.monotonic() - began
            with pytest.raises(SandboxFailed, match="is gone"):
                await sandbox.exec("true")
            await sandbox.close()
            await docker.close()
            return list(ends), took

    ends, took = run(cut())
    assert took < 5
    for end in ends:
        assert isinstance(end, SandboxFailed) and "the daemon does not answer" in str(end)
    wait_for(lambda: not containers_of_this_run(), otherwise="the container outlives its connection")


def containers_of_this_run() -> list[str]:
    with contextlib.closing(connect()) as client:
        return containers(client)


@pytest.mark.docker
def test_a_container_that_cannot_start_leaves_no_connection(daemon: Any) -> None:
    """An image with nothing in it: there is no shell to start."""
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    name = f"troop-test-empty-{os.getpid()}"
    daemon.api.import_image_from_data(empty.getvalue(), repository=name)

    async def fail() -> None:
        docker = DockerProvider()
        for _ in range(3):
            with pytest.raises(SandboxFailed, match="cannot start a container"):
                await docker.create(spec(image=name))
        await docker.close()

    try:
        assert connections_left_by(fail()) == []
    finally:
        daemon.images.remove(name, force=True)
    assert containers(daemon) == []


@pytest.mark.docker
def test_a_sandbox_that_is_being_made_when_the_daemon_dies_leaves_no_connection(tmp_path: Path, daemon: Any) -> None:
    async def die() -> None:
        async with proxied(tmp_path / "docker.sock") as proxy:
            docker = DockerProvider()
            for seconds in (0.0, 0.1, 0.2, 0.3):
                assert (await docker.findings())[0].ok
                making = asyncio.create_task(start(docker))
                await asyncio.sleep(seconds)
                proxy.cut()
                with contextlib.suppress(SandboxFailed):  # unless it was quicker
                    await (await making).close()
                await proxy.open()
            await docker.close()

    assert connections_left_by(die()) == []
    for row in daemon.api.containers(all=True, filters={"label": f"troop.run={RUN}"}):
        remove_container(daemon, row["Id"])  # made and never started: for `clean` to find, once we are gone


def connections_left_by(work: Coroutine[Any, Any, None]) -> list[str]:
    """The attached streams that it leaves for the garbage collector to close, as Python warns of them."""

    async def whole() -> None:
        await work
        await asyncio.sleep(0.1)  # transports close in the loop's next rounds

    gc.collect()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        run(whole())
        gc.collect()
    return [str(each.message) for each in warned if "unclosed transport" in str(each.message)]


# ---- nothing stays behind

HARNESS = """
import asyncio, sys, time
from harness.sandbox.base import SandboxSpec
from harness.sandbox.docker.provider import DockerProvider

async def main():
    docker = DockerProvider()
    {stop}
    sandbox = await docker.create(SandboxSpec("{run}", "attempt-07"))
    await sandbox.exec("setsid sleep 1000 & echo started")
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
STOP_BEFORE_START = """
    client = await docker.daemon.connected()
    client.api.start = lambda _container: (print("ready", flush=True), time.sleep(600))
"""


def _killed_harness(run_id: str, stop: str) -> None:
    code = HARNESS.format(run=run_id, stop=textwrap.dedent(stop).strip().replace("\n", "\n    ") or "pass")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)


@pytest.mark.docker
def test_the_container_of_a_killed_harness_ends_and_goes_by_itself(daemon: Any) -> None:
    run_id = f"{RUN}-killed"
    _killed_harness(run_id, "")
    wait_for(lambda: containers(daemon, run_id) == [])


@pytest.mark.docker
def test_clean_removes_what_a_dead_harness_never_started_and_nothing_of_a_living_one(
    docker: DockerProvider, daemon: Any
) -> None:
    run_id = f"{RUN}-unstarted"
    _killed_harness(run_id, STOP_BEFORE_START)
    assert containers(daemon, run_id) == ["attempt-07"]

    async def clean() -> tuple[list[str], list[str], str]:
        sandbox = await start(docker)
        try:
            removed = await docker.clean()
            return removed, await docker.clean(RUN), (await sandbox.exec("echo alive")).output
        finally:
            await sandbox.close()

    removed, mine, output = run(clean())
    assert [line for line in removed if run_id in line]
    assert mine == []
    assert output == "alive\n"
    assert containers(daemon, run_id) == []


def test_an_owner_is_known_by_more_than_its_number() -> None:
    mark = owner_mark()
    here, pid, _ = mark.rsplit("/", 2)
    assert owner_lives(mark)
    assert not owner_lives(f"{here}/{pid}/1"), "another process got the number"
    assert not owner_lives(f"{here}/999999999/1")
    assert owner_lives(f"another-boot/1/{pid}/1", running=True), "of another machine only the sandbox tells"
    assert not owner_lives(f"another-boot/1/{pid}/1", running=False)


@pytest.mark.parametrize(
    ("state", "age", "used"),
    [("running", 1e6, True), ("created", 5, True), ("created", 601, False), ("exited", 5, False)],
)
def test_a_strangers_container_is_in_use_while_it_runs_or_is_being_made(state: str, age: float, used: bool) -> None:
    assert seems_used({"State": state, "Created": 1000.0}, 1000.0 + age) is used


# ---- environments


@pytest.mark.docker
def test_a_frozen_environment_keeps_what_set_up_made_and_nothing_that_set_up_needed(
    docker: DockerProvider, daemon: Any
) -> None:
    async def freeze() -> tuple[str, str]:
        setup = await start(docker, name="setup", network=True)
        assert (await setup.exec("/opt/troop/bin/uv --version")).exit_code == 0
        made = await setup.exec(
            "echo kept > kept; mkdir -p /opt/env/bin; echo made > /opt/env/made; echo 'raise SystemExit' >"
            f" {INSIDE}/json.py; echo broken > {INSIDE}/shim.py; echo junk > /tmp/junk; (setsid sh -c 'while :; do date"
            " > /tmp/alive; sleep 0.01; done' &) ; cat kept"
        )
        assert made.output == "kept\n"
        await docker.freeze(setup, ENVIRONMENT)
        sandbox = await start(docker, environment=ENVIRONMENT)
        try:
            seen = await sandbox.exec(f"cat kept /opt/env/made; ls /opt/troop {INSIDE} /tmp; env")
            return seen.output, (await sandbox.exec("ls -d /proc/[0-9]* | wc -l")).output
        finally:
            await sandbox.close()

    try:
        seen, processes = run(freeze())
        assert run(docker.has(ENVIRONMENT))
        image = daemon.images.get(f"{os.environ['TROOP_DOCKER_ENVIRONMENTS']}:{ENVIRONMENT}")
    finally:
        run(docker.remove(ENVIRONMENT))
    assert seen.startswith("kept\nmade\n")
    for gone in ("json.py", "junk", "alive", "bin\n", "INDEX", "cert"):
        assert gone not in seen.replace("/bin\n", "")
    assert int(processes) <= 6, "nothing of set-up's processes is in an image"
    settings = " ".join(image.attrs["Config"]["Env"])
    assert not re.search(r"(?i)index|cert|proxy|token", settings)
    assert not run(docker.has(ENVIRONMENT))
    run(docker.remove(ENVIRONMENT))


@pytest.mark.docker
def test_an_environment_that_is_gone_says_so(docker: DockerProvider) -> None:
    with pytest.raises(SandboxFailed, match="the environment never-frozen is not among docker's images"):
        run(docker.create(spec(environment="never-frozen")))


@pytest.mark.docker
@pytest.mark.network
def test_set_up_reaches_the_package_index_and_attempts_do_not(docker: DockerProvider) -> None:
    async def install() -> tuple[int, str, int]:
        setup = await start(docker, name="setup", network=True)
        try:
            done = await setup.exec(
                "uv=/opt/troop/bin/uv; $uv venv -q /opt/env && $uv pip install -q --python /opt/env/bin/python"
                " iniconfig && python -m venv /tmp/v && /tmp/v/bin/pip install -q iniconfig",
                timeout=100,
            )
        finally:
            await setup.close()
        sandbox = await start(docker)
        try:
            offline = await sandbox.exec(
                "python3 -m venv /tmp/v && timeout 20 /tmp/v/bin/pip install --retries 0 iniconfig"
            )
        finally:
            await sandbox.close()
        return done.exit_code, done.output, offline.exit_code

    installed, output, offline = run(install())
    assert installed == 0, output
    assert offline != 0


# ---- the ways to the daemon


@pytest.mark.docker
def test_a_daemon_over_tcp_works_by_docker_host(monkeypatch: pytest.MonkeyPatch, daemon: Any) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection("/var/run/docker.sock")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer), return_exceptions=True)

    async def over_tcp() -> str:
        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
        docker = DockerProvider()
        sandbox = await start(docker)
        try:
            return (await sandbox.exec("head -c 300000 /dev/zero | tr '\\0' x", output_bytes=400_000)).output
        finally:
            await sandbox.close()
            await docker.close()
            server.close()

    if os.environ.get("DOCKER_HOST"):
        pytest.skip("DOCKER_HOST names another daemon than the local socket's")
    assert run(over_tcp()) == "x" * 300_000


@pytest.mark.parametrize("step", [1, 3, 7, 8, 9, 64, 10_000])
def test_the_two_streams_are_told_apart_however_the_bytes_arrive(step: int) -> None:
    def frame(stream: int, payload: bytes) -> bytes:
        return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload

    answer = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    wire = answer + frame(1, b"one") + frame(2, b"oops ") + frame(1, b"") + frame(1, b"two" * 50) + frame(2, b"again")

    async def feed() -> tuple[bytes, str]:
        loop = asyncio.get_running_loop()
        attachment = Attachment(loop)
        for at in range(0, len(wire), step):
            attachment.data_received(wire[at : at + step])
        attachment.stdout.feed_eof()
        return await attachment.stdout.read(), attachment.stderr

    assert asyncio.run(feed()) == (b"one" + b"two" * 50, "oops again")


def test_a_daemon_that_refuses_to_attach_is_quoted() -> None:
    async def feed() -> None:
        attachment = Attachment(asyncio.get_running_loop())
        attachment.data_received(b"HTTP/1.1 404 Not Found\r\n\r\n" + b'{"message":"No such container"}')
        await attachment._opened

    with pytest.raises(OSError, match=r"404 Not Found .*No such container"):
        asyncio.run(feed())


# ---- the base image


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt here")
def test_the_base_comes_from_debians_own_archive_whatever_else_apt_knows(tmp_path: Path) -> None:
    for folder in ("etc/apt.conf.d", "etc/sources.list.d", "lists/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/sources.list.d/a.list").write_text("deb [trusted=yes] https://third.example/apt bookworm main\n")
    (tmp_path / "etc/sources.list.d/b.sources").write_text(
        "Types: deb\nURIs: http://one.example/debian\nSuites: bookworm\nComponents: main contrib\nTrusted: yes\n"
    )
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for archive, origin in (("third.example_apt", "Third"), ("one.example_debian", "Debian")):
        start = f"{tmp_path}/lists/{archive}_dists_bookworm_"
        Path(start + "Release").write_text(f"Origin: {origin}\nLabel: {origin}\nCodename: bookworm\nComponents: main\n")
        Path(start + f"main_binary-{architecture}_Packages").touch()
    settings = tmp_path / "apt.conf"
    settings.write_text(f'Dir::Etc "{tmp_path}/etc"; Dir::State::lists "{tmp_path}/lists";\n')
    done = subprocess.run(
        [str(BASE_SCRIPT), "--mirror"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "APT_CONFIG": str(settings)},
    )
    assert done.stdout.strip() == "http://one.example/debian/"
