"""The backends that there are, and which one a run gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.base import Finding, Provider
from tasks.errors import InputError, SandboxFailed
from tasks.say import Say

INSTALL = (
    "no sandbox works here: install bubblewrap (Debian: apt-get install bubblewrap) or start a Docker daemon; "
    "`troop doctor` says what is missing"
)


def _docker(cache: Path, say: Say | None) -> Provider:
    from harness.sandbox.docker.provider import DockerProvider

    return DockerProvider(say=say)


def _bubblewrap(cache: Path, say: Say | None) -> Provider:
    from harness.sandbox.bubblewrap.provider import BubblewrapProvider

    return BubblewrapProvider(cache)


@dataclass(frozen=True, slots=True)
class Backend:
    """A kind of sandbox. `open` makes its provider, given the cache and who hears of slow steps. `images`: whether it
    starts from images. `at_once`: the findings that are good where it can be used without making anything first."""

    open: Callable[[Path, Say | None], Provider]
    images: bool
    at_once: tuple[str, ...]


BACKENDS: Mapping[str, Backend] = {
    "docker": Backend(_docker, images=True, at_once=("docker", "docker image")),
    "bubblewrap": Backend(_bubblewrap, images=False, at_once=("bubblewrap",)),
}
"""By the name that --sandbox takes; "auto" prefers the first."""

AUTO = "auto"


def sandbox_names() -> tuple[str, ...]:
    """The values of --sandbox: "auto" and the names of the backends."""
    return (AUTO, *BACKENDS)


def without_images(wanted: str) -> bool:
    """Whether a backend was named that has no images."""
    return wanted in BACKENDS and not BACKENDS[wanted].images


async def choose_provider(wanted: str, *, image: str | None, cache: Path, say: Say | None = None) -> Provider:
    """The provider of the named backend; "auto": the first that can be used at once and has an image for the task (the
    task's own, or Troop's) if it needs one, else the first that can be used at all. `say`: of slow steps.

    Raises SandboxFailed, saying what to install, where there is none; InputError for an image where it can have none.
    """
    if wanted == AUTO:
        able = [backend for backend in BACKENDS.values() if backend.images or image is None]
        return await (_insist(able[0].open(cache, say)) if len(able) == 1 else _first_that_works(able, cache, say))
    backend = BACKENDS[wanted]
    if image is not None and without_images(wanted):
        raise InputError(f"the task asks for the image {image}, and {wanted} has no images: use {with_images()}")
    return await _insist(backend.open(cache, say))


def with_images() -> str:
    """What to type for a backend that has images."""
    return " or ".join(f"--sandbox {name}" for name, backend in BACKENDS.items() if backend.images)


async def _first_that_works(backends: list[Backend], cache: Path, say: Say | None) -> Provider:
    """The first that can be used at once, else the first that works at all; the others are closed."""
    able: list[Provider] = []
    idle: list[Provider] = []
    for backend in backends:
        provider = backend.open(cache, say)
        findings = await provider.findings()
        (able if _works(findings) else idle).append(provider)
        if all(finding.ok for finding in findings if finding.name in backend.at_once):
            able.insert(0, able.pop())
            break
    for provider in (*idle, *able[1:]):
        await provider.close()
    if not able:
        raise SandboxFailed(INSTALL)
    return able[0]


def _works(findings: list[Finding]) -> bool:
    """Whether the backend can be used at all: its first finding says that."""
    return findings[0].ok


async def _insist(provider: Provider) -> Provider:
    findings = await provider.findings()
    if not _works(findings):
        await provider.close()
        raise SandboxFailed(f"{findings[0].detail} ({findings[0].fix})" if findings[0].fix else findings[0].detail)
    return provider
