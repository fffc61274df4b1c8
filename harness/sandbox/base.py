"""The sandbox protocol: one place for a command to run, and one way to make such places.

The backends (harness/sandbox/choice.py) implement it, and all pass tests/real/test_sandbox_conformance.py. Inside every
sandbox the paths are the same: the repository at `WORKDIR`, the Python environment (if Troop built one) at `ENVDIR`,
what Troop puts there at `TROOPDIR` (`base.git`: the base commit, for taking the patch; `inside/`: what runs within).
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.records import Exec, FileState, Tree

WORKDIR = "/testbed"
ENVDIR = "/opt/env"
TROOPDIR = "/opt/troop"
INSIDE = TROOPDIR + "/inside"
RUST = TROOPDIR + "/rust"
HOME = "/tmp/home"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sandbox may use. `memory_mb`: all its processes together. `processes`: at one time. `output_bytes`: kept
    of each stream of a command, cut in the middle."""

    memory_mb: int = 4096
    cpus: float = 2.0
    processes: int = 512
    output_bytes: int = 200_000


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox to be made.

    `run`, `name`: who it belongs to (labels; `name` such as "attempt-03" or "verify-c1"). `environment`: key of a
    frozen environment, None for a bare one (then `image` may name the Docker image to start from, and `python` the
    interpreter version). `network`: True only for set-up."""

    run: str
    name: str
    environment: str | None = None
    image: str | None = None
    python: str | None = None
    network: bool = False
    limits: Limits = field(default_factory=Limits)


def name_unlike_others(run: str, name: str) -> str:
    """A name for what a sandbox has on this machine that nothing else has, and that tells a person whose it is."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{run}-{name}").strip("-.")[:60]
    return f"{words or 'sandbox'}-{secrets.token_hex(4)}"


class Sandbox(Protocol):
    """One running sandbox. All methods raise `SandboxFailed` when the sandbox itself is gone."""

    @property
    def missing_limits(self) -> tuple[str, ...]:
        """Limits that are not in force here, a short sentence each. The disk as a whole is always among them."""

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        cwd: str = WORKDIR,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 120.0,
        output_bytes: int | None = None,
        merge: bool = False,
    ) -> Exec:
        """Run a command (a string goes to `bash -c`, or `sh -c` without bash; a sequence is executed as it is).

        `timeout` in seconds: then the command's whole process tree is killed inside and `Exec.timed_out` is True.
        `merge`: stderr goes into stdout, in order. Returns when the command's main process has ended, though processes
        that it left in the background still hold its output open."""

    async def read(self, path: str, *, limit: int = 50_000_000) -> bytes:
        """A file's bytes (path absolute or relative to WORKDIR). Raises OSError as the system inside would (nothing
        there, a directory, a device, no permission, too long a name, …); ValueError if larger than `limit`."""

    async def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Write a whole file, making parent directories; `mode` None keeps an existing file's mode (new: 0o644). Raises
        OSError as `read` does, or where there is no space left: then the file may hold a part."""

    async def upload(self, archive: bytes) -> None:
        """Unpack an uncompressed tar archive at "/", modes and symlinks kept, owner: who runs the commands."""

    async def quiet(self) -> None:
        """Kill every process that runs inside, also what commands left in the background."""

    async def snapshot(self) -> Tree:
        """What changed below WORKDIR since the last snapshot (the first: since the sandbox was made from its
        environment), `.git`, caches and byte code left out. Costs a stat per file; meant for every turn. Of very many
        changes (20,000) the rest is only counted, in `left_out`."""

    async def restore(self, files: Sequence[FileState]) -> None:
        """Lay file states over WORKDIR (None data: delete); the next snapshot counts from here."""

    async def close(self) -> None:
        """End all processes and remove all that the sandbox had. Idempotent; never raises for one that is gone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `troop doctor`: `ok` False comes with `fix`, what to type or do."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class Provider(Protocol):
    """A backend: makes sandboxes and keeps environments (frozen sandboxes) by key. `registry`: HOST/PREFIX in an image
    registry that it shares them by, where they are images; None for not."""

    name: str
    registry: str | None

    @property
    def storage(self) -> Path | None:
        """Where sandboxes and environments lie on this machine; None where that is not known (yet)."""

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox, running. Raises SandboxFailed (cannot be made), DiskFull (no room for one) or InputError
        (unknown image)."""

    async def has(self, environment: str) -> bool:
        """Whether an environment of that key was frozen here before."""

    async def freeze(self, sandbox: Sandbox, environment: str) -> None:
        """Keep the sandbox's present state (WORKDIR, ENVDIR, TROOPDIR; docker: the whole file system) as `environment`
        and close the sandbox. Atomic: a crash leaves no half-made environment."""

    async def remove(self, environment: str) -> None: ...

    async def findings(self) -> list[Finding]:
        """What works here, for `troop doctor`."""

    async def clean(self, run: str | None = None) -> list[str]:
        """Remove what dead harness processes left (containers, mounts, cgroups, trees); names what was removed.
        With `run`: whatever belongs to that run. Never touches sandboxes of a living process."""

    async def close(self) -> None: ...
