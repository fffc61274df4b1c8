"""The one way to do many things at the same time (the first error ends the rest and is raised as itself), and a thread
for what waits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
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


async def apart(function: Callable[..., T], *args: Any) -> T:
    """Await a blocking function that may wait long (a lock, a clone, a download), in a thread of its own, so
    that it takes no place in the pool that all else shares. Cancelled, it ends when the thread has."""
    pool = ThreadPoolExecutor(1)
    under_way = asyncio.get_running_loop().run_in_executor(pool, partial(function, *args))
    pool.shutdown(wait=False)
    try:
        return await asyncio.shield(under_way)
    except asyncio.CancelledError:
        await asyncio.wait([under_way])
        raise


async def in_parallel(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at the same time; what each gave, in order."""
    async with task_group() as group:
        begun = [group.create_task(each) for each in work]
    return [task.result() for task in begun]
