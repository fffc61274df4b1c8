"""The Docker images that sandboxes start from: find one, pull one, or build the default one from the Dockerfile.

`python -m harness.sandbox.docker.image` builds the default image, also on a machine that reaches no image registry
(there the base is made by base_image.sh out of Debian packages, as root).
"""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from harness.sandbox.docker.containers import explained
from tasks.errors import InputError, SandboxFailed
from tasks.say import Say

DEFAULT_IMAGE = "troop-sandbox"
REGISTRY_BASE = "debian:bookworm-slim"
LOCAL_BASE = "troop-base:bookworm"
BY_HAND = (
    f"harness/sandbox/base_image.sh {LOCAL_BASE} && docker build --network host --build-arg BASE={LOCAL_BASE} -t"
    f" {DEFAULT_IMAGE} - < Dockerfile"
)


_HERE = Path(__file__).parents[1]
BASE_SCRIPT = _HERE / "base_image.sh"
_DOCKERFILE_LABEL = "troop.dockerfile"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_one_at_a_time = threading.Lock()


def ensure_image(client: Any, image: str, say: Say) -> None:
    """Make sure that the daemon has `image`: there, pulled, or (the default image) built. Blocking; minutes at worst.

    Raises InputError for an image neither there nor to be pulled, SandboxFailed if the default one cannot be built."""
    with _one_at_a_time:
        if find(client, image) is not None:
            return
        if image == DEFAULT_IMAGE:
            build_default_image(client, say=say)
        else:
            say(f"pulling the image {image}")
            _pull(client, image)


def find(client: Any, image: str) -> Any | None:
    """The daemon's image of that name, or None. Raises SandboxFailed where the daemon does not answer."""
    import docker.errors

    def look() -> Any | None:
        try:
            return client.images.get(image)
        except docker.errors.ImageNotFound:
            return None
        except docker.errors.APIError as error:
            if error.status_code == 400:
                raise InputError(f"'{image}' is not the name of a Docker image: {error.explanation}") from error
            raise

    return explained("look for an image", look)


def is_current(image: Any) -> bool:
    """Whether the default image was built from the Dockerfile as it is now, or by hand."""
    built_from = (image.labels or {}).get(_DOCKERFILE_LABEL)
    return built_from is None or built_from == _fingerprint(_dockerfile())


def build_default_image(client: Any, *, say: Say, may_bootstrap: bool = False) -> None:
    """Build `troop-sandbox`. With `may_bootstrap`, a base that no registry gives is made by base_image.sh (needs root).

    Raises SandboxFailed with what to type."""
    import docker.errors

    base, dockerfile = _base(client, say, may_bootstrap), _dockerfile()
    say(f"building the image {DEFAULT_IMAGE} on {base}; this is done once")
    # Docker knows these arguments by itself and keeps them out of the image and of its history.
    arguments = {name: os.environ[name] for name in _PROXIES if os.environ.get(name)}
    try:
        client.images.build(
            fileobj=io.BytesIO(dockerfile),
            tag=DEFAULT_IMAGE,
            buildargs={"BASE": base, **arguments},
            # The host's network is known to reach the package archive (a bridge may lack name resolution).
            network_mode="host",
            labels={_DOCKERFILE_LABEL: _fingerprint(dockerfile)},
            rm=True,
            forcerm=True,
        )
    except docker.errors.BuildError as error:
        end = "".join(str(line.get("stream", "")) for line in error.build_log)[-800:]
        raise SandboxFailed(
            f"building {DEFAULT_IMAGE} on {base} failed: {error.msg}; the end of its log: {end}"
        ) from error
    except docker.errors.APIError as error:
        raise SandboxFailed(f"building {DEFAULT_IMAGE} on {base} failed: {error.explanation}") from error


def _base(client: Any, say: Say, may_bootstrap: bool) -> str:
    for base in (LOCAL_BASE, REGISTRY_BASE):
        if find(client, base) is not None:
            return base
    try:
        say(f"pulling {REGISTRY_BASE}")
        _pull(client, REGISTRY_BASE)
        return REGISTRY_BASE
    except InputError as error:
        if not may_bootstrap:
            raise SandboxFailed(
                f"the sandbox image {DEFAULT_IMAGE} is not there and its base cannot be pulled ({error}); "
                f"build both from Debian packages, as root, in Troop's source tree: {BY_HAND}"
            ) from error
    say(f"no image registry is reached: making {LOCAL_BASE} from Debian packages")
    done = subprocess.run([str(BASE_SCRIPT), LOCAL_BASE], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxFailed(f"no base for {DEFAULT_IMAGE} can be had: {done.stderr.strip()[-600:]}")
    return LOCAL_BASE


def _pull(client: Any, image: str) -> None:
    import docker.errors

    try:
        # Without a tag docker-py asks for `latest`, as the docker command does.
        client.images.pull(image)
    except docker.errors.APIError as error:
        raise InputError(f"the Docker image '{image}' is neither here nor to be pulled: {error.explanation}") from error


def share(image: str, remote: str, tag: str, id: str = "") -> bool:
    """Blocking: whether daemon and registry both have the environment now, as `image` and as `remote`:`tag`; where one
    of them lacks it, it gets it from the other. `id`: of the one that is meant, whatever else bears that name. Raises
    SandboxFailed where that is refused."""
    import docker.errors

    from harness.sandbox.docker.daemon import COMMIT_SECONDS, connect

    with contextlib.closing(connect(connections=1, timeout=COMMIT_SECONDS)) as client:
        if (there := find(client, id or image)) is not None:
            there.tag(remote, tag)
            for line in client.images.push(remote, tag, stream=True, decode=True):
                if said := line.get("error"):
                    raise SandboxFailed(f"the registry refuses {remote}:{tag}: {said}")
        else:
            try:
                client.images.pull(remote, tag).tag(*image.rsplit(":", 1))
            except docker.errors.NotFound:
                return False
        client.api.remove_image(f"{remote}:{tag}", noprune=True)
        return True


def _dockerfile() -> bytes:
    for folder in (_HERE, _HERE.parent.parent):
        path = folder / "Dockerfile"
        if path.exists():
            return path.read_bytes()
    raise SandboxFailed(f"the Dockerfile of {DEFAULT_IMAGE} is not part of this installation: use Troop's source tree")


def _fingerprint(dockerfile: bytes) -> str:
    return hashlib.sha256(dockerfile).hexdigest()[:16]


def main() -> int:
    """Build the default image unless it is there and current; say on stderr what goes on."""
    from harness.sandbox.docker.daemon import connect
    from tasks.errors import TroopError

    say = partial(print, file=sys.stderr, flush=True)
    try:
        with contextlib.closing(connect()) as client:
            image = find(client, DEFAULT_IMAGE)
            if image is not None and is_current(image):
                say(f"{DEFAULT_IMAGE} is there")
            else:
                build_default_image(client, say=say, may_bootstrap=True)
    except TroopError as error:
        say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
