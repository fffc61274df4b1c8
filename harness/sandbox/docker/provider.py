"""Sandboxes in containers: Docker, or Podman through its Docker-compatible socket (DOCKER_HOST).

One container per sandbox, one attached process in it: the shim (harness/inside/shim.py), which runs all commands; a
`docker exec` per command would cost tens of milliseconds. The shim is the container's init itself (it is PID 1, reaps
what commands orphan, and cannot be killed from inside), so docker's `--init` would only put one more process in
between.

When the harness dies, its attachment ends, with it the shim's input, with it the shim, and the daemon removes the
container: what `clean` finds are the few that never started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from harness.parallel import apart
from harness.sandbox.base import ENVDIR, WORKDIR, Finding, Sandbox, SandboxSpec
from harness.sandbox.client import (
    DISK_UNLIMITED,
    FILE_BYTES,
    HOME,
    INSIDE,
    LAUNCH,
    SETUP_FILE_BYTES,
    ShimSandbox,
    base_env,
)
from harness.sandbox.docker import owner
from harness.sandbox.docker.containers import (
    ENVIRONMENT_LABEL,
    NAME_LABEL,
    OWNER_LABEL,
    RUN_LABEL,
    container_name,
    explained,
    obituary,
    remove_container,
    remove_image,
    sweep,
)
from harness.sandbox.docker.daemon import COMMIT_SECONDS, Attachment, attach, connect, connect_and_ask
from harness.sandbox.docker.files import (
    SETUP_BIN,
    SETUP_CERTIFICATES,
    SetupKit,
    archive,
    inside_files,
    inside_fingerprint,
    setup_kit,
)
from harness.sandbox.docker.findings import findings as docker_findings
from harness.sandbox.docker.findings import missing_limits
from harness.sandbox.docker.image import DEFAULT_IMAGE, ensure_image, find
from tasks.errors import InputError, SandboxFailed
from tasks.say import Say

_INSIDE = "troop.inside"

# What package managers need to unpack and configure as root; nothing of it is left while a model drives.
_SETUP_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")

# Any image's Python will do for the shim, and there may be several: the system's own is the least likely to be changed.
_FIND_PYTHON = """
for p in /usr/bin/python3 python3 python /opt/miniconda3/bin/python; do
  p=$(command -v "$p") || continue
  case $(readlink -f "$p") in
    *python3.[6-9] | *python3.[1-9][0-9]) ;;  # the name tells, which is sooner known than asked
    *) "$p" -c 'import sys; sys.exit(sys.version_info < (3, 6))' || continue ;;
  esac
  exec "$p" "$@"
done
echo 'its image has no Python 3.6 or newer, which a sandbox needs: choose another image' >&2
exit 127
"""

# Ends whatever set-up left running, then removes what was there for the set-up only, and what nobody should inherit.
_TIDY = (
    f"kill -9 -1; rm -rf {INSIDE} {SETUP_BIN} {SETUP_CERTIFICATES} {HOME} /tmp/* /tmp/.[!.]* /root/.cache; mkdir -p"
    f" {HOME}"
)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Image:
    """What creating a container needs to know of its image. `inside`: fingerprint of the modules that are in it
    already."""

    id: str
    env: Mapping[str, str]
    inside: str


class DockerSandbox(ShimSandbox):
    """A sandbox that knows its container, and the event loop that its connection belongs to."""

    container: str = ""
    loop: asyncio.AbstractEventLoop


class DockerProvider:
    """The docker backend. Nothing is asked of the daemon before the first call.

    `image`: for a spec that names neither image nor environment. `setup_network`: the docker network of a sandbox with
    `network=True`: "bridge", or "host" on a machine whose bridge does not reach the package index. Without this
    argument TROOP_SETUP_NETWORK says which; else it is "bridge", unless an index or a proxy listens on this machine's
    loopback. `say` hears of slow steps: pulling and building images.

    `environments`: the image name that frozen environments are tags of (without it TROOP_DOCKER_ENVIRONMENTS, else
    "troop-env").

    `SandboxSpec.python` chooses nothing here: an image has the Pythons that it has, and set-up brings others.
    """

    def __init__(
        self,
        *,
        image: str = DEFAULT_IMAGE,
        setup_network: str | None = None,
        environments: str | None = None,
        say: Say | None = None,
        threads: int = 16,
    ) -> None:
        self._image = image
        self._setup_network = setup_network or os.environ.get("TROOP_SETUP_NETWORK", "")
        if self._setup_network not in ("", "bridge", "host"):
            raise InputError(f"TROOP_SETUP_NETWORK is '{self._setup_network}': give bridge or host")
        self._environments = environments or os.environ.get("TROOP_DOCKER_ENVIRONMENTS") or "troop-env"
        self._say: Say = say or (lambda _line: None)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="docker")
        self._client: Any = None
        self._info: Mapping[str, Any] = {}
        self._connecting: asyncio.Lock | None = None
        self._images: dict[str, _Image] = {}
        self._open: set[DockerSandbox] = set()

    @property
    def name(self) -> str:
        return "docker"

    # ---- sandboxes

    async def create(self, spec: SandboxSpec) -> Sandbox:
        client = await self._connected()
        image = await self._image_of(spec)
        label = container_name(spec.run, spec.name)
        began = time.time()
        kit = await self._setup_kit() if spec.network else None
        making = asyncio.ensure_future(self._call("make a container", self._make, client, label, image, spec, kit))
        attachment = None
        try:
            container = await asyncio.shield(making)
            attachment = await attach(client, container)
            await self._call("start a container", client.api.start, container)
            sandbox = self._sandbox(spec, client, container, attachment, image, kit, began)
        except BaseException:
            if attachment is not None:
                attachment.stdin.transport.abort()
            await asyncio.shield(self._discard(client, label, making))
            raise
        try:
            await sandbox.start()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def _setup_kit(self) -> SetupKit:
        kit = await self._call("read the package index settings", setup_kit)
        for note in kit.notes:
            self._say(note)
        return kit

    def _make(self, client: Any, label: str, image: _Image, spec: SandboxSpec, kit: SetupKit | None) -> str:
        """Blocking: a container that is ready to be started; its id."""
        api = client.api
        made = api.create_container(
            image.id,
            entrypoint=["/bin/sh", "-c", _FIND_PYTHON, "troop", *LAUNCH],
            name=label,
            hostname="sandbox",
            user="0:0",
            working_dir=WORKDIR,
            stdin_open=True,
            # Passes on to the images that are made of it: nothing in them is worth a goodbye.
            stop_signal="SIGKILL",
            # The user's docker configuration may name a proxy with a password in it.
            use_config_proxy=False,
            labels={RUN_LABEL: spec.run, NAME_LABEL: spec.name, OWNER_LABEL: owner.me()},
            healthcheck={"test": ["NONE"]},
            host_config=self._host_config(api, spec, kit),
        )
        container = str(made["Id"])
        files = {} if image.inside == inside_fingerprint() else dict(inside_files())
        if kit is not None:
            files |= kit.files
        if files:
            api.put_archive(container, "/", archive(files, (HOME, WORKDIR)))
        return container

    def _host_config(self, api: Any, spec: SandboxSpec, kit: SetupKit | None) -> Any:
        limits = spec.limits
        return api.create_host_config(
            network_mode="none" if kit is None else self._network(kit),
            cap_drop=["ALL"],
            cap_add=[] if kit is None else list(_SETUP_CAPABILITIES),
            binds=[] if kit is None else [f"{place}:{place}:ro" for place in kit.places],
            security_opt=["no-new-privileges"],
            pids_limit=limits.processes,
            mem_limit=f"{limits.memory_mb}m",
            memswap_limit=f"{limits.memory_mb}m",
            # A quota may exceed the machine's CPUs; docker refuses that for `nano_cpus`.
            cpu_period=100_000,
            cpu_quota=max(1000, round(limits.cpus * 100_000)),
            shm_size="256m",
            # The protocol runs over the output streams: a log driver would write all of it to disk.
            log_config={"Type": "none", "Config": {}},
            auto_remove=True,
        )

    def _network(self, kit: SetupKit) -> str:
        return self._setup_network or ("host" if kit.loopback else "bridge")

    def _sandbox(
        self,
        spec: SandboxSpec,
        client: Any,
        container: str,
        attachment: Attachment,
        image: _Image,
        kit: SetupKit | None,
        began: float,
    ) -> DockerSandbox:
        async def release() -> None:
            attachment.stdin.transport.abort()
            self._open.discard(sandbox)
            await self._remove(client, container)

        async def diagnose() -> str:
            return attachment.stderr or await self._call("say why", obituary, client, container, began)

        env = {**image.env, **base_env({} if kit is None else kit.env)}
        if "PATH" in image.env:
            env["PATH"] = f"{ENVDIR}/bin:" + image.env["PATH"].removeprefix(f"{ENVDIR}/bin:")
        sandbox = DockerSandbox(
            spec.name,
            attachment.stdout,
            attachment.stdin,
            limits=spec.limits,
            env={**env, **spec.env},
            release=release,
            diagnose=diagnose,
            missing_limits=(*missing_limits(self._info), DISK_UNLIMITED),
            rlimits={"FSIZE": FILE_BYTES if kit is None else SETUP_FILE_BYTES},
        )
        sandbox.container = container
        sandbox.loop = asyncio.get_running_loop()
        self._open.add(sandbox)
        return sandbox

    async def _discard(self, client: Any, label: str, making: asyncio.Future[str]) -> None:
        """After a failure or a cancellation: wait for the container that is being made, and remove it."""
        await asyncio.wait([making])
        if not making.cancelled() and making.exception() is None:
            await self._remove(client, label)

    async def _remove(self, client: Any, container: str) -> None:
        with contextlib.suppress(SandboxFailed):  # a daemon that is gone took the container with it
            await self._call("remove a container", remove_container, client, container)

    async def _image_of(self, spec: SandboxSpec) -> _Image:
        if spec.environment is not None:
            name = self._tag(spec.environment)
            if name not in self._images and not await self.has(spec.environment):
                raise SandboxFailed(
                    f"the environment {spec.environment} is not among docker's images: prepare it again"
                )
        else:
            name = spec.image or self._image
            if name not in self._images:
                await apart(explained, "get the image", ensure_image, self._client, name, self._say)
        if name not in self._images:
            found = await self._call("look at an image", find, self._client, name)
            self._images[name] = _describe(found)
        return self._images[name]

    # ---- environments

    async def has(self, environment: str) -> bool:
        client = await self._connected()
        return await self._call("look for an environment", find, client, self._tag(environment)) is not None

    async def freeze(self, sandbox: Sandbox, environment: str) -> None:
        self._tag(environment)  # for its InputError
        await self.keep(sandbox, self._environments, environment, {ENVIRONMENT_LABEL: environment})

    async def keep(
        self, sandbox: Sandbox, repository: str, tag: str, labels: Mapping[str, str], changes: Sequence[str] = ()
    ) -> None:
        """Make the image `repository`:`tag` of the sandbox's whole file system and close the sandbox. Atomic.

        What set-up only had for a while (index settings, certificates, caches, scratch files) is not in it. `changes`:
        further Dockerfile lines for its configuration.
        """
        if not isinstance(sandbox, DockerSandbox):
            raise InputError(f"the environment {tag} can only be frozen from a docker sandbox")
        try:
            tidied = await sandbox.exec(_TIDY, cwd="/", timeout=300)
            if tidied.exit_code != 0:
                raise SandboxFailed(f"the environment cannot be tidied before it is kept: {tidied.output[-300:]}")
            await sandbox.upload(archive(inside_files()))
            # Labels pass on from container to image to container: whose this one was must not.
            every = {**labels, _INSIDE: inside_fingerprint(), RUN_LABEL: "", NAME_LABEL: "", OWNER_LABEL: ""}
            lines = [f"LABEL {key}={json.dumps(value)}" for key, value in every.items()]
            await self._call("commit a container", self._commit, sandbox.container, repository, tag, [*lines, *changes])
        finally:
            await sandbox.close()
            self._images.pop(f"{repository}:{tag}", None)

    def _commit(self, container: str, repository: str, tag: str, changes: list[str]) -> None:
        """Blocking, for minutes where an environment is large: with a patience of its own."""
        with contextlib.closing(connect(connections=1, timeout=COMMIT_SECONDS)) as patient:
            patient.api.commit(container, repository, tag, changes=changes)

    async def remove(self, environment: str) -> None:
        client = await self._connected()
        self._images.pop(self._tag(environment), None)
        await self._call("remove an environment", remove_image, client, self._tag(environment))

    # ---- the machine

    async def findings(self) -> list[Finding]:
        try:
            client = await self._connected()
            image = await self._call("look at an image", find, client, self._image)
        except SandboxFailed as error:
            return [Finding("docker", False, str(error), "apt-get install docker.io, then: systemctl start docker")]
        return docker_findings(self._info, client.api.api_version, self._image, image)

    async def clean(self, run: str | None = None) -> list[str]:
        client = await self._connected()
        return await self._call("look for containers", sweep, client, run)

    async def close(self) -> None:
        """Closes the sandboxes that are still open, too."""
        if self._client is not None:
            client = self._client
            await asyncio.gather(*(self._end(client, sandbox) for sandbox in list(self._open)))
            self._client = None
            client.close()
        await asyncio.to_thread(self._pool.shutdown)

    async def _end(self, client: Any, sandbox: DockerSandbox) -> None:
        if sandbox.loop is asyncio.get_running_loop():
            await sandbox.close()
        else:  # its event loop ended without closing it: there is only a container left to remove
            self._open.discard(sandbox)
            await self._remove(client, sandbox.container)

    def _tag(self, environment: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", environment):
            raise InputError(
                f"'{environment}' cannot name an environment: letters, digits, '_', '.' and '-', at most 128"
            )
        return f"{self._environments}:{environment}"

    # ---- calls

    async def _connected(self) -> Any:
        if self._client is None:
            if self._connecting is None:
                self._connecting = asyncio.Lock()
            async with self._connecting:
                if self._client is None:
                    self._client, self._info = await self._call("connect", connect_and_ask)
        return self._client

    async def _call(self, what: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A blocking call to the daemon in a thread. Raises SandboxFailed for whatever the daemon or the way to it
        refuses."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(explained, what, function, *args, **kwargs))


def _describe(image: Any) -> _Image:
    config = image.attrs.get("Config") or {}
    pairs = (line.partition("=") for line in config.get("Env") or ())
    # A proxy is of no use without a network, and its address may hold a password.
    env = {name: value for name, _, value in pairs if not name.lower().endswith("_proxy")}
    return _Image(image.id, env, (config.get("Labels") or {}).get(_INSIDE, ""))
