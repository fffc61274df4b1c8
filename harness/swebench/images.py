"""The image of every instance: found, pulled, or built.

    images = await ensure_images(rows, source=Source(mirrors=Path("mirrors")), tell=start_grading)

`tell` hears of each image as it becomes ready, those that are here already first, so that work on them can begin.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness.cache import cache_root
from harness.memory import give_memory_back
from harness.parallel import apart, in_parallel
from harness.repository.workspace import Workspace, open_workspace
from harness.sandbox.docker.daemon import connect
from harness.sandbox.docker.image import ensure_image, find
from harness.sandbox.docker.provider import DockerProvider
from harness.swebench import names
from harness.swebench.container import Containers
from harness.swebench.layers import Layers
from harness.swebench.names import ImageRef
from harness.swebench.official import Spec, spec_of
from harness.swebench.recipe import RECIPE_VERSION, Recipe, recipe_of
from harness.swebench.steps import Log
from tasks.errors import InputError, words_of
from tasks.say import Say
from tasks.swebench import Row, repository_of

RUN = "images"
"""The label of the sandboxes in which images are built."""

Pull = Literal["auto", "always", "never"]
Making = Callable[[Row], AbstractAsyncContextManager[object]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where images are had from. `mirrors`: a directory of clones (see `repository_of`). `pull`: published images are
    taken where a registry gives them ("auto", asked once), insisted on ("always") or not asked for ("never"). `bases`:
    base images by Python version. `rebuild`: images built here are made again."""

    mirrors: Path | None = None
    pull: Pull = "auto"
    bases: Mapping[str, str] = field(default_factory=dict)
    rebuild: bool = False


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What became of an instance's image. `image` None: there is none, `failure` says why. `seconds`: of work."""

    row: Row
    image: ImageRef | None
    seconds: float = 0.0
    failure: str = ""


class Here:
    """The machines that images are made on and gradings run on: this one. `width`: of either at a time, None where
    whoever asks decides."""

    width: int | None = None

    async def images(self, rows: Sequence[Row], *, source: Source, **how: Any) -> list[ImageOutcome]:
        """As `ensure_images`."""
        return await ensure_images(rows, source=source, **how)

    def containers(self, source: Source | None, run: str, network: bool) -> Containers:
        """Those of a run. `source`: of images that another machine lacks (None: it makes none)."""
        return Containers(run, network=network)


def find_image(client: Any, row: Row) -> ImageRef | None:
    """The image that a row is graded in, if the daemon has any. Blocking. `client`: a `docker.DockerClient`."""
    for name, origin in names.names_of(row):
        found = find(client, name)
        if found is not None:
            return ImageRef(name, found.id, origin, found.labels or {})
    return None


async def ensure_images(
    rows: Sequence[Row],
    *,
    source: Source,
    workers: int = 2,
    say: Say = lambda line: None,
    tell: Callable[[ImageOutcome], None] = lambda prepared: None,
    making: Making = contextlib.nullcontext,
) -> list[ImageOutcome]:
    """Find, pull or build the image of every row; what became of each, in the order of `rows`.

    `workers` images are made at a time. `tell`: in the event loop. `making`: within it an image is made.

    Raises SandboxFailed where no daemon answers, InputError for wrong `mirrors`. A build that fails is an answer."""
    if source.mirrors is not None and not source.mirrors.is_dir():
        raise InputError(f"--mirrors {source.mirrors} is not a directory")
    give_memory_back()
    provider = DockerProvider(say=say)
    with contextlib.closing(await asyncio.to_thread(connect)) as client:
        layers = Layers(provider, client, source.bases, cache_root(), RUN, source.rebuild)
        try:
            for left in await provider.clean():
                say(f"removed {left}, which a killed process left")
            return await _Work(client, layers, source, say, tell, making).all(rows, workers)
        finally:
            await provider.close()


@dataclass(slots=True)
class _Work:
    client: Any
    layers: Layers
    source: Source
    say: Say
    tell: Callable[[ImageOutcome], None]
    making: Making
    registry: str = ""
    """Why no registry is asked any more; "" while one may be."""
    reached: bool = False
    """Whether a registry has answered."""
    first: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def all(self, rows: Sequence[Row], workers: int) -> list[ImageOutcome]:
        done: dict[str, ImageOutcome] = {}
        missing: list[Row] = []
        for row in rows:
            found = None if self.source.rebuild else await asyncio.to_thread(_find_current, self.client, row)
            if found is None:
                missing.append(row)
            else:
                done[row.instance_id] = ImageOutcome(row, found)
                self.tell(done[row.instance_id])
        # Rows that share layers next to each other.
        waiting = iter(sorted(missing, key=lambda row: (row.repo, row.version, row.instance_id)))

        async def worker() -> None:
            for row in waiting:
                async with self.making(row):
                    prepared = await self._one(row)
                done[row.instance_id] = prepared
                self.tell(prepared)

        await in_parallel(worker() for _ in range(max(1, min(workers, len(missing)))))
        return [done[row.instance_id] for row in rows]

    async def _one(self, row: Row) -> ImageOutcome:
        began, image, why = time.monotonic(), None, ""
        try:
            image = await self._pulled(row) or await self._built(row)
        except Exception as error:  # whatever befalls one instance, the others get their images
            why = words_of(error)
        return ImageOutcome(row, image, round(time.monotonic() - began, 1), why)

    # ---- pulled

    async def _pulled(self, row: Row) -> ImageRef | None:
        """The image that the row names, or the published one, from a registry; None where it is to be built."""
        if (self.source.rebuild or self.source.pull == "never") and not row.image:
            return None
        name = row.image or names.image_name(row.instance_id, names.PUBLISHED_NAMESPACE)
        must = self.source.pull == "always" or bool(row.image)
        # While it is not known whether there is a registry, one asks for all.
        async with contextlib.nullcontext() if self.reached else self.first:
            if self.registry and not must:
                return None
            self.say(f"{row.instance_id}: pulling {name}")
            refusal = await apart(_pull, self.client, name)
            self.reached = self.reached or not refusal or _is_unknown(refusal)
        if not refusal:
            return await asyncio.to_thread(find_image, self.client, row)
        if must:
            raise InputError(f"{row.instance_id}: the image {name} is neither here nor to be pulled: {refusal}")
        if not _is_unknown(refusal):
            self.registry = refusal
            self.say(f"no registry gives published images ({refusal}), so images are built here")
        return None

    # ---- built

    async def _built(self, row: Row) -> ImageRef | None:
        log = Log(cache_root() / "images" / "logs" / f"{row.instance_id}.log", row.instance_id, self.say)
        # Here rather than in a thread: its first call imports the official package.
        recipe, tree = await apart(_recipe, row, spec_of(row), self.source.mirrors, self.say)
        async with self.layers.turn(f"instance-{row.instance_id}", log):
            name = names.image_name(row.instance_id)
            found = await asyncio.to_thread(find, self.client, name)
            same = found is not None and (found.labels or {}).get(names.RECIPE) == recipe.fingerprint
            if not same or self.source.rebuild:
                await self.layers.instance(recipe, tree, log)
        return await asyncio.to_thread(find_image, self.client, row)


def _recipe(row: Row, spec: Spec, mirrors: Path | None, say: Say) -> tuple[Recipe, Workspace]:
    repository = repository_of(row, mirrors)
    tree = open_workspace(repository, cache_root(), say=say)
    at_setup = replace(repository, base=row.environment_setup_commit)
    setup = partial(open_workspace, at_setup, cache_root(), say=say)
    return recipe_of(row, spec, tree, setup), tree


def _find_current(client: Any, row: Row) -> ImageRef | None:
    """The image that is here for a row, None where there is none, or where an earlier Troop built it in another way."""
    found = find_image(client, row)
    if found and found.origin == "built" and not found.labels.get(names.RECIPE, "").startswith(f"{RECIPE_VERSION}-"):
        return None
    return found


def _pull(client: Any, name: str) -> str:
    """Blocking; why the image cannot be had, "" when it is here."""
    try:
        ensure_image(client, name, lambda line: None)
    except InputError as error:
        why = getattr(error.__cause__, "explanation", None) or error.__cause__ or error
        return " ".join(str(why).split())[-300:]
    return ""


def _is_unknown(refusal: str) -> bool:
    """Whether a registry answered that it has no such image, rather than not answered."""
    return any(words in refusal.lower() for words in ("not found", "manifest unknown", "does not exist"))
