"""Work in a fresh sandbox: one that dies is replaced, within an allowance; one that is being made is worked with."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from tasks.errors import SandboxFailed

T = TypeVar("T")
Opened = Callable[[str], Awaitable[Sandbox]]
"""Makes a fresh sandbox that holds the base, by a name for it. Raises SandboxFailed."""


async def in_one_opened(
    opened: Callable[[], Awaitable[Sandbox]], work: Callable[[Sandbox], Awaitable[T]], retries: int
) -> T:
    """Do `work` in a sandbox that `opened` makes, in a new one where one dies, `retries` times. Raises
    SandboxFailed."""
    while True:
        try:
            sandbox = await opened()
            try:
                return await work(sandbox)
            finally:
                await sandbox.close()
        except SandboxFailed:
            if retries <= 0:
                raise
            retries -= 1


async def probe(provider: Provider, spec: SandboxSpec) -> None:
    """Raises SandboxFailed where no sandbox works at all, so that nobody is blamed for one that died."""
    await in_one_opened(lambda: provider.create(spec), lambda sandbox: sandbox.exec(["true"], timeout=60), 0)


class Coming:
    """A sandbox that is being made, as a `Sandbox` whose methods wait until it is there; what keeps it from being made
    they raise. Closing it ends its making, too."""

    def __init__(self, making: Coroutine[Any, Any, Sandbox]) -> None:
        self._making = asyncio.ensure_future(making)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def once_there(*given: Any, **more: Any) -> Any:
            sandbox = await asyncio.shield(self._making)
            return await getattr(sandbox, name)(*given, **more)

        return once_there

    async def close(self) -> None:
        """As of a sandbox."""
        self._making.cancel()  # of no effect where it is made
        await asyncio.wait([self._making])
        if not self._making.cancelled() and self._making.exception() is None:
            await self._making.result().close()
