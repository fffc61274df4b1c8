"""The one way to do many things at the same time: the first error ends the rest and is raised as itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup that raises its first error, not a group of them; all its tasks have ended by then."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def in_parallel(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at the same time; what each gave, in order."""
    async with task_group() as group:
        begun = [group.create_task(each) for each in work]
    return [task.result() for task in begun]
