"""Which backend a run gets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.sandbox.base import Finding, Provider
from tasks.errors import InputError, SandboxFailed
from tasks.say import Say

INSTALL = (
    "no sandbox works here: install bubblewrap (Debian: apt-get install bubblewrap) or start a Docker daemon; "
    "`troop doctor` says what is missing"
)


async def choose_provider(
    wanted: Literal["auto", "docker", "bubblewrap"],
    *,
    image: str | None,
    cache: Path,
    say: Say | None = None,
) -> Provider:
    """The provider of the named backend; "auto": docker where a daemon answers and has an image for the task (the task's
    own, or Troop's), else bubblewrap, else docker if it can build the image. `say` hears of its slow steps (pulling and
    building images).

    Raises SandboxFailed, saying what to install, where there is none; InputError for an image without docker.
    """
    if wanted == "bubblewrap":
        if image is not None:
            raise InputError(f"the task asks for the image {image}, and bubblewrap has no images: use --sandbox docker")
        return await _insist(_bubblewrap(cache))
    docker = _docker(say)
    if wanted == "docker" or image is not None:
        return await _insist(docker)
    daemon = await docker.findings()
    if all(finding.ok for finding in daemon if finding.name in ("docker", "docker image")):
        return docker
    bubblewrap = _bubblewrap(cache)
    if _works(await bubblewrap.findings()):
        await docker.close()
        return bubblewrap
    await bubblewrap.close()
    if not _works(daemon):
        await docker.close()
        raise SandboxFailed(INSTALL)
    return docker


def _docker(say: Say | None) -> Provider:
    from harness.sandbox.docker.provider import DockerProvider

    return DockerProvider(say=say)


def _bubblewrap(cache: Path) -> Provider:
    from harness.sandbox.bubblewrap.provider import BubblewrapProvider

    return BubblewrapProvider(cache)


def _works(findings: list[Finding]) -> bool:
    """Whether the backend can be used at all: its first finding says that."""
    return findings[0].ok


async def _insist(provider: Provider) -> Provider:
    findings = await provider.findings()
    if not _works(findings):
        await provider.close()
        raise SandboxFailed(f"{findings[0].detail} ({findings[0].fix})" if findings[0].fix else findings[0].detail)
    return provider
