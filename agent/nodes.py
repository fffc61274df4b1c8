"""Gradings, and images of SWE-bench, on the nodes of a Ray cluster: each is a task of Ray's that takes one `sandbox`.

A node needs docker. It has an image by its id, or from the registry, or makes one by the same recipe. What verdicts
follow from the tests' output, what is remembered and what is tried again stay with the driver.
"""

import asyncio
import contextlib
import platform
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import IO, Any, TypeVar, cast

from agent.run.cluster import PLACES, SANDBOX, joined
from harness.parallel import in_parallel
from harness.sandbox.docker.daemon import connect
from harness.sandbox.docker.image import find, share
from harness.swebench import names
from harness.swebench.container import Containers, Ran
from harness.swebench.images import Here, ImageOutcome, Source, ensure_images
from harness.swebench.names import ImageRef
from harness.swebench.official import Rules
from tasks.errors import EnvironmentFailed, InputError, SandboxFailed, words_of
from tasks.swebench import Row

T = TypeVar("T")


class Nodes(Here):
    """The cluster's nodes; `registry`: HOST/PREFIX that they share images by, None for not. Raises as `joined`."""

    def __init__(self, registry: str | None) -> None:
        self._ray, self.registry = joined(), registry
        self.width = int(self._ray.cluster_resources().get(SANDBOX, 0)) or PLACES
        self._hired = self._ray.remote(num_cpus=1, resources={SANDBOX: 1})(_on_node)

    async def do(self, work: Callable[..., Awaitable[T]], *given: Any) -> T:
        """What `work` gives on some node; on another one if that dies. Raises what it raises, SandboxFailed where nodes
        keep dying."""
        task = self._hired.remote(work, *given)
        try:
            told = await task
        except self._ray.exceptions.RayError as error:
            raise SandboxFailed(f"the nodes that had it are lost: {type(error).__name__}") from error
        except asyncio.CancelledError:
            self._ray.cancel(task)
            raise
        if isinstance(told, Exception):
            raise told
        return cast("T", told)

    async def images(self, rows: Sequence[Row], *, source: Source, **how: Any) -> list[ImageOutcome]:
        """As `ensure_images`, each on some node, as many at a time as these have places for."""

        async def one(row: Row) -> ImageOutcome:
            try:
                made, node = await self.do(_made, row, source, self.registry)
                how["say"](f"{row.instance_id}: {'its image is' if made.image else 'there is no image'} on {node}")
            except Exception as error:  # whatever befalls one instance, the others get their images
                made = ImageOutcome(row, None, failure=words_of(error))
            how["tell"](made)
            return made

        return await in_parallel(map(one, rows))

    def containers(self, source: Source | None, run: str, network: bool) -> Containers:
        """Those of a run, on the nodes."""
        return NodeContainers(self, source, run, network=network)


class NodeContainers(Containers):
    """Containers on the nodes."""

    def __init__(self, nodes: Nodes, source: Source | None, run: str, *, network: bool = False) -> None:
        super().__init__(run, network=network)
        self._nodes, self._source, self._given = nodes, source, (run, network)
        self._offered: dict[str, asyncio.Future[None]] = {}

    async def run(
        self, row: Row, image: ImageRef, patch: bytes, script: bytes, log: IO[bytes], timeout: float, rules: Rules = "5"
    ) -> Ran:
        where = row, image, self._source, (registry := self._nodes.registry)
        offered = self._offered.get(image.id)
        if registry and (offered is None or (offered.done() and offered.exception())):
            offered = asyncio.ensure_future(asyncio.to_thread(_offer, row, image, registry))
            self._offered[image.id] = offered
        if offered is not None:
            await asyncio.shield(offered)
        ran, output = await self._nodes.do(_ran, *where, *self._given, patch, script, timeout, rules)
        log.write(zlib.decompress(output))
        return ran


def _on_node(work: Callable[..., Any], *given: Any) -> Any:
    """What it gives; an error as a value, so that it arrives as it is."""
    try:
        return asyncio.run(work(*given))
    except Exception as error:
        here = f"{platform.node()}: {words_of(error)}"
        return error if isinstance(error, InputError) else SandboxFailed(here)  # another node may be well


async def _made(row: Row, source: Source, registry: str | None) -> tuple[ImageOutcome, str]:
    """The image, which the registry has as well then; and where it is."""
    made = (await ensure_images([row], source=source, workers=1))[0]
    if made.image and registry:
        await asyncio.to_thread(_offer, row, made.image, registry)
    return made, platform.node()


async def _ran(
    row: Row, image: ImageRef, source: Source | None, registry: str | None, run: str, network: bool, *rest: Any
) -> tuple[Ran, bytes]:
    """How it went, and the output, compressed. `rest`: as in `Containers.run`, without the log."""
    here = image
    if not await asyncio.to_thread(lambda: _has(image) or (registry is not None and _share(row, image, registry))):
        if source is None:
            raise SandboxFailed(f"the image {image.name} is not there")
        made = (await ensure_images([row], source=source, workers=1))[0]
        recipe = image.labels.get(names.RECIPE)
        if made.image is None or (made.image.id != image.id and recipe != made.image.labels.get(names.RECIPE, "")):
            raise SandboxFailed(made.failure or f"the image {made.image and made.image.name} here is another one")
        here = made.image
    patch, script, *how = rest
    containers = Containers(run, network=network)
    try:
        with tempfile.TemporaryFile() as log:
            ran = await containers.run(row, here, patch, script, log, *how)
            log.seek(0)
            return ran, zlib.compress(log.read(), 1)
    finally:
        await containers.close()


def _offer(row: Row, image: ImageRef, registry: str) -> None:
    """Blocking: have it in the registry, if this machine has it."""
    with contextlib.suppress(EnvironmentFailed):  # a driver needs no daemon
        if _has(image):
            _share(row, image, registry)


def _has(image: ImageRef) -> bool:
    with contextlib.closing(connect()) as client:
        return find(client, image.id) is not None


def _share(row: Row, image: ImageRef, registry: str) -> bool:
    name = names.repository_name(row.instance_id)
    return share(f"{name}:latest", f"{registry}/{name}", image.id.removeprefix("sha256:")[:32], id=image.id)
