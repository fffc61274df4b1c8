"""Work in a fresh sandbox: one that dies is replaced, within an allowance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

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
