"""How far images are made ahead of an evaluation that minds the disk, and how they go when they are done with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from harness.parallel import apart
from harness.sandbox.docker.daemon import connect
from harness.swebench import names
from harness.swebench.names import INSTANCE
from harness.swebench.store import BUILD_SECONDS, SOLVE, StoredImage, doomed, kept_images, remove
from tasks.errors import SandboxFailed, words_of
from tasks.say import Say
from tasks.swebench import Row


class Ahead:
    """Has images wait until they fit: all that are made for the evaluation take `most` bytes at most, if any one of
    them fits alone. What is there already is neither counted nor removed. Made blocking; to be ended."""

    def __init__(self, most: float, say: Say) -> None:
        self._client, self._most, self._say = connect(timeout=600), most, say
        self._before = {image.id for image in kept_images(self._client)}
        self._made: set[str] = set()
        self._named: dict[str, set[str]] = {}  # the rows that name an image
        self._open: set[str] = set()
        self._making = 0
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def making(self, row: Row) -> AsyncIterator[None]:
        """Within: the image is made. It is waited until it fits, or nothing is left that could make room for it."""
        async with self._turn:
            while not await apart(self._fits):
                if not self._open:
                    await apart(self._remove, 0.0)
                    break
                await self._changed.wait()
                self._changed.clear()
            self._made.add(row.instance_id)
            if row.image:
                self._named.setdefault(names.as_listed(row.image), set()).add(row.instance_id)
            self._open.add(row.instance_id)
            self._making += 1
        try:
            yield
        finally:
            self._making -= 1
            self._changed.set()

    async def leave(self, id: str) -> None:
        """The instance needs its image no more."""
        if id in self._open:
            self._open.remove(id)
            await apart(self._remove, BUILD_SECONDS)
            self._changed.set()

    async def end(self) -> None:
        """None is made or needed any more."""
        self._open.clear()
        with contextlib.closing(self._client):
            await apart(self._remove, 0.0)

    def _fits(self) -> bool:
        """Whether one more does beside those that are there and being made, each as large as the largest so far."""
        try:
            kept = self._kept()
        except SandboxFailed as error:  # it is gone on with one by one, as far as can be known
            self._say(f"how full the disk is cannot be told: {error}")
            return False
        adds = {image.id: image.adds for image in kept}
        sizes = [image.adds + adds.get(image.parent, 0) for image in kept if image.kind in (INSTANCE, "published")]
        taken = sum(adds[id] for id in adds.keys() - self._before)
        return taken + (self._making + 1) * max(sizes, default=self._most) <= self._most

    def _remove(self, age: float) -> None:
        """Images that are needed no more, also such as could not go before, environments set up on these first, and
        layers of that age (seconds) that none stands on."""
        try:
            kept = [image for image in self._kept() if image.id not in self._before]
        except Exception as error:  # a daemon that cannot say it now: the evaluation goes on
            self._say(f"images stay: {words_of(error)}")
            return
        named = {id.lower() for id in self._made - self._open}
        own = {image.id for image in kept if image.instance.lower() in named}
        gone = [image for image in kept if image.kind == SOLVE and image.parent in own]
        for image in gone + doomed(kept, instances=named, older_than=None, everything=False, young=age):
            if why := remove(self._client, image):
                self._say(f"{image.name} stays: {why}")

    def _kept(self) -> list[StoredImage]:
        named = {name: min(ids & self._open or ids) for name, ids in self._named.items()}
        return kept_images(self._client, named)
