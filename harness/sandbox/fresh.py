"""Work in a fresh sandbox: one that dies is replaced, within an allowance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from tasks.errors import SandboxFailed

T = TypeVar("T")


async def in_fresh_sandbox(
    provider: Provider, spec: SandboxSpec, work: Callable[[Sandbox], Awaitable[T]], retries: int
) -> T:
    """Do `work` in a new sandbox, in another one as often as one dies within `retries`. Raises SandboxFailed after
    that."""
    return await in_one_opened(lambda: provider.create(spec), work, retries)


async def in_one_opened(
    opened: Callable[[], Awaitable[Sandbox]], work: Callable[[Sandbox], Awaitable[T]], retries: int
) -> T:
    """Do `work` in a sandbox that `opened` makes, in another one as often as one dies within `retries`. Raises
    SandboxFailed after that."""
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
    sandbox = await provider.create(spec)
    try:
        await sandbox.exec(["true"], timeout=60)
    finally:
        await sandbox.close()
