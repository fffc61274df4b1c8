"""Sandboxes in containers: Docker, or Podman through its Docker-compatible socket (DOCKER_HOST).

One container per sandbox, one attached process in it: the shim (harness/inside/shim.py), which runs all commands; a
`docker exec` per command would cost tens of milliseconds. The shim is the container's init itself (PID 1, reaps what
commands orphan, cannot be killed from inside): docker's `--init` would only be one process more.

When the harness dies, its attachment ends, with it the shim's input, with it the shim, and the daemon removes the
container: what `clean` finds are the few that never started.
"""

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.parallel import apart
from harness.room import check
from harness.sandbox.base import ENVDIR, HOME, WORKDIR, Finding, Sandbox, SandboxSpec, name_unlike_others
from harness.sandbox.client import LAUNCH, ShimSandbox, file_limit, variables
from harness.sandbox.docker import containers
from harness.sandbox.docker.bundle import HOST, LACKING, bundle
from harness.sandbox.docker.containers import explained, make_container
from harness.sandbox.docker.daemon import COMMIT_SECONDS, Daemon, connect
from harness.sandbox.docker.files import TIDY, SetupKit, archive, inside_files, inside_fingerprint, setup_kit
from harness.sandbox.docker.findings import findings as docker_findings
from harness.sandbox.docker.findings import missing_limits
from harness.sandbox.docker.image import DEFAULT_IMAGE, ensure_image, find, share
from tasks.errors import InputError, SandboxFailed
from tasks.say import Say

_INSIDE = "troop.inside"

# What package managers need to unpack and configure as root; nothing of it is left while a model drives.
_SETUP_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")

_FIND_PYTHON = Path(__file__).with_name("find_python.sh").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class _Image:
    """What a container needs to know of its image. `inside`: fingerprint of the modules that are in it already."""

    id: str
    env: Mapping[str, str]
    inside: str


@dataclass(eq=False, kw_only=True)
class DockerSandbox(ShimSandbox):
    """A sandbox that knows its container, and the event loop that its connection belongs to."""

    container: str
    loop: asyncio.AbstractEventLoop


class DockerProvider:
    """The docker backend. Nothing is asked of the daemon before the first call.

    `image`: for a spec that names neither image nor environment. `say` hears of pulling and building images.
    TROOP_SETUP_NETWORK names the docker network of a sandbox with `network=True`: "host" on a machine whose bridge does
    not reach the package index, else "bridge"; without it "host" only for an index or a proxy on this machine's
    loopback.

    `environments`: the image whose tags frozen environments are (else TROOP_DOCKER_ENVIRONMENTS, or "troop-env").

    `SandboxSpec.python` chooses nothing here: an image has the Pythons that it has, and set-up brings others."""

    name = "docker"

    def __init__(self, *, image: str = DEFAULT_IMAGE, environments: str | None = None, say: Say | None = None) -> None:
        self.daemon = Daemon()
        self._image = image
        self._setup_network = os.environ.get("TROOP_SETUP_NETWORK", "")
        if self._setup_network not in ("", "bridge", "host"):
            raise InputError(f"TROOP_SETUP_NETWORK is '{self._setup_network}': give bridge or host")
        self._environments = environments or os.environ.get("TROOP_DOCKER_ENVIRONMENTS") or "troop-env"
        self._say: Say = say or (lambda _line: None)
        self.registry: str | None = None
        self._shared: set[str] = set()
        self._images: dict[str, _Image] = {}
        self._lacking: set[str] = set()
        self._open: set[DockerSandbox] = set()

    @property
    def storage(self) -> Path | None:
        return self.daemon.storage

    # ---- sandboxes

    async def create(self, spec: SandboxSpec) -> Sandbox:
        await self.daemon.connected()
        check(self.storage)
        image = await self._image_of(spec)
        label = f"troop-{name_unlike_others(spec.run, spec.name)}"
        began = time.time()
        kit = await self._setup_kit() if spec.network else None
        container, attachment = await self.daemon.started(label, self._make, image, spec, kit)

        async def release() -> None:
            attachment.stdin.transport.abort()
            self._open.discard(sandbox)
            await self.daemon.remove(container)

        async def diagnose() -> str:
            return attachment.stderr or await self.daemon.ask("say why", containers.obituary, container, began)

        env = {**image.env, **variables("always"), **({} if kit is None else kit.env)}
        if "PATH" in image.env:
            env["PATH"] = f"{ENVDIR}/bin:" + image.env["PATH"].removeprefix(f"{ENVDIR}/bin:")
        env["PATH"] += f":{HOST}/bin"
        sandbox = DockerSandbox(
            name=spec.name,
            reader=attachment.stdout,
            writer=attachment.stdin,
            limits=spec.limits,
            env=env,
            release=release,
            diagnose=diagnose,
            missing_limits=missing_limits(self.daemon.info),
            rlimits={"FSIZE": file_limit(network=kit is not None)},
            storage=self.storage,
            container=container,
            loop=asyncio.get_running_loop(),
        )
        self._open.add(sandbox)
        try:
            await sandbox.start()
        except SandboxFailed as error:
            if LACKING not in str(error) or image.id in self._lacking:
                raise
            self._say("the image lacks python3 or git, so this machine's are put into its containers")
            self._lacking.add(image.id)
            return await self.create(spec)
        return sandbox

    async def _setup_kit(self) -> SetupKit:
        kit = await self.daemon.call("read the package index settings", setup_kit)
        for note in kit.notes:
            self._say(note)
        return kit

    def _make(self, client: Any, label: str, image: _Image, spec: SandboxSpec, kit: SetupKit | None) -> str:
        """Blocking: a container that is ready to be started; its id."""
        memory = f"{spec.limits.memory_mb}m"
        reached = self._setup_network or ("host" if kit is not None and kit.loopback else "bridge")
        host = {
            "network_mode": "none" if kit is None else reached,
            "cap_drop": ["ALL"],
            "cap_add": [] if kit is None else list(_SETUP_CAPABILITIES),
            "binds": [] if kit is None else [f"{place}:{place}:ro" for place in kit.places],
            "security_opt": ["no-new-privileges"],
            **{"pids_limit": spec.limits.processes, "mem_limit": memory, "memswap_limit": memory, "shm_size": "256m"},
            # A quota may exceed the machine's CPUs; docker refuses that for `nano_cpus`.
            **{"cpu_period": 100_000, "cpu_quota": max(1000, round(spec.limits.cpus * 100_000))},
        }
        entry = ["/bin/sh", "-c", _FIND_PYTHON, "troop", *LAUNCH]
        # The signal passes on to the images that are made of it: nothing in them is worth a goodbye.
        place = {"hostname": "sandbox", "working_dir": WORKDIR, "stop_signal": "SIGKILL"}
        container = make_container(client, image.id, label, spec.run, spec.name, host, entrypoint=entry, **place)
        files = ({} if image.inside == inside_fingerprint() else inside_files()) | ({} if kit is None else kit.files)
        if image.id in self._lacking:
            client.api.put_archive(container, "/", bundle())
        if files:
            client.api.put_archive(container, "/", archive(files, (HOME, WORKDIR)))
        return container

    async def _image_of(self, spec: SandboxSpec) -> _Image:
        name = (spec.image or self._image) if spec.environment is None else self._tag(spec.environment)
        if name not in self._images:
            if spec.environment is None:
                client = await self.daemon.connected()
                await apart(explained, "get the image", ensure_image, client, name, self._say)
            elif not await self.has(spec.environment):
                what = f"the environment {spec.environment} is not among docker's images"
                raise SandboxFailed(f"{what}: prepare it again")
            self._images[name] = _describe(await self.daemon.ask("look at an image", find, name))
        return self._images[name]

    # ---- environments

    async def has(self, environment: str) -> bool:
        tag = self._tag(environment)
        if self.registry is not None and tag not in self._shared:
            remote = f"{self.registry}/troop-env"
            if await apart(explained, "share an environment", share, tag, remote, environment):
                self._shared.add(tag)
        return await self.daemon.ask("look for an environment", find, tag) is not None

    async def freeze(self, sandbox: Sandbox, environment: str) -> None:
        self._tag(environment)  # for its InputError
        await self.keep(sandbox, self._environments, environment, {containers.ENVIRONMENT_LABEL: environment})
        await self.has(environment)

    async def keep(
        self, sandbox: Sandbox, repository: str, tag: str, labels: Mapping[str, str], changes: Sequence[str] = ()
    ) -> None:
        """Make the image `repository`:`tag` of the sandbox's whole file system and close the sandbox. Atomic.

        What set-up only had for a while (index settings, certificates, caches, scratch files) is not in it. `changes`:
        further Dockerfile lines for its configuration."""
        if not isinstance(sandbox, DockerSandbox):
            raise InputError(f"the environment {tag} can only be frozen from a docker sandbox")
        try:
            tidied = await sandbox.exec(TIDY, cwd="/", timeout=300)
            if tidied.exit_code != 0:
                raise SandboxFailed(f"the environment cannot be tidied before it is kept: {tidied.output[-300:]}")
            await sandbox.upload(archive(inside_files()))
            # Labels pass on from container to image to container: whose this one was must not.
            own = dict.fromkeys((containers.RUN_LABEL, containers.NAME_LABEL, containers.OWNER_LABEL), "")
            every = {**labels, _INSIDE: inside_fingerprint(), **own}
            lines = [*(f"LABEL {key}={json.dumps(value)}" for key, value in every.items()), *changes]
            await self.daemon.call("commit a container", self._commit, sandbox.container, repository, tag, lines)
        finally:
            await sandbox.close()
            self._images.pop(f"{repository}:{tag}", None)

    def _commit(self, container: str, repository: str, tag: str, changes: list[str]) -> None:
        """Blocking, for minutes where an environment is large: with a patience of its own."""
        with contextlib.closing(connect(connections=1, timeout=COMMIT_SECONDS)) as patient:
            patient.api.commit(container, repository, tag, changes=changes)

    async def remove(self, environment: str) -> None:
        self._images.pop(self._tag(environment), None)
        self._shared.add(self._tag(environment))
        await self.daemon.ask("remove an environment", containers.remove_image, self._tag(environment))

    # ---- the machine

    async def findings(self) -> list[Finding]:
        try:
            client = await self.daemon.connected()
            image = await self.daemon.ask("look at an image", find, self._image)
        except SandboxFailed as error:
            return [Finding("docker", False, str(error), "apt-get install docker.io, then: systemctl start docker")]
        return docker_findings(self.daemon.info, client.api.api_version, self._image, image)

    async def clean(self, run: str | None = None) -> list[str]:
        return await self.daemon.ask("look for containers", containers.sweep, run)

    async def close(self) -> None:
        """Closes the sandboxes that are still open, too."""
        await asyncio.gather(*map(self._end, list(self._open)))
        await self.daemon.close()

    async def _end(self, sandbox: DockerSandbox) -> None:
        if sandbox.loop is asyncio.get_running_loop():
            await sandbox.close()
        else:  # its event loop ended without closing it: there is only a container left to remove
            self._open.discard(sandbox)
            await self.daemon.remove(sandbox.container)

    def _tag(self, environment: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", environment):
            raise InputError(f"'{environment}' cannot name an environment: letters, digits, '_', '.', '-', at most 128")
        return f"{self._environments}:{environment}"


def _describe(image: Any) -> _Image:
    config = image.attrs.get("Config") or {}
    pairs = (line.partition("=") for line in config.get("Env") or ())
    # A proxy is of no use without a network, and its address may hold a password.
    env = {name: value for name, _, value in pairs if not name.lower().endswith("_proxy")}
    return _Image(image.id, env, (config.get("Labels") or {}).get(_INSIDE, ""))
