"""Environments in an image registry, so that what one machine has set up others need not."""

from __future__ import annotations

import contextlib
from typing import Any

from harness.sandbox.docker.daemon import COMMIT_SECONDS, connect
from tasks.errors import SandboxFailed


def push(image: str, remote: str, tag: str) -> None:
    """Blocking: put the daemon's `image` into the registry as `remote`:`tag`; layers that it has are not sent. Raises
    SandboxFailed where it refuses."""
    with _patient() as client:
        client.images.get(image).tag(remote, tag)
        try:
            for line in client.images.push(remote, tag, stream=True, decode=True):
                if said := line.get("error"):
                    raise SandboxFailed(f"the registry refuses {remote}:{tag}: {said}")
        finally:
            client.api.remove_image(f"{remote}:{tag}", noprune=True)


def pull(image: str, remote: str, tag: str) -> bool:
    """Blocking: get `remote`:`tag` from the registry as the daemon's `image`; whether it was there."""
    import docker.errors

    with _patient() as client:
        try:
            client.images.pull(remote, tag)
        except docker.errors.NotFound:
            return False
        client.images.get(f"{remote}:{tag}").tag(*image.rsplit(":", 1))
        client.api.remove_image(f"{remote}:{tag}", noprune=True)
        return True


def _patient() -> contextlib.closing[Any]:
    return contextlib.closing(connect(connections=1, timeout=COMMIT_SECONDS))
