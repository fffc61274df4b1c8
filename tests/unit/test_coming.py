"""A sandbox that is worked with while it is still being made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.sandbox.fresh import Coming
from tasks.errors import SandboxFailed


class Made:
    """A sandbox that notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def exec(self, command: str, *, timeout: float = 1.0) -> str:
        self.done.append(command)
        return f"{command} within {timeout:g}"

    async def close(self) -> None:
        self.done.append("closed")


def test_its_methods_wait_for_it_and_others_go_on_meanwhile() -> None:
    made = Made()

    async def whole() -> None:
        there = asyncio.Event()

        async def making() -> Any:
            await there.wait()
            return made

        coming = Coming(making())
        first = asyncio.ensure_future(coming.exec("one", timeout=2))
        await asyncio.sleep(0)
        assert not first.done() and not made.done
        there.set()
        assert await first == "one within 2" and await coming.exec("two") == "two within 1"
        await coming.close()

    asyncio.run(whole())
    assert made.done == ["one", "two", "closed"]


def test_what_keeps_it_from_being_made_is_raised_at_each_use_and_not_at_its_end() -> None:
    async def fails() -> Any:
        raise SandboxFailed("no room")

    async def whole() -> None:
        coming = Coming(fails())
        for _ in range(2):
            with pytest.raises(SandboxFailed, match="no room"):
                await coming.exec("x")
        await coming.close()

    asyncio.run(whole())


def test_its_making_ends_with_it_and_a_use_that_is_broken_off_leaves_it() -> None:
    ends: list[str] = []

    async def making() -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("given up")
            raise

    async def whole() -> None:
        coming = Coming(making())
        use = asyncio.ensure_future(coming.exec("x"))
        await asyncio.sleep(0)
        use.cancel()
        await asyncio.sleep(0)
        assert use.cancelled() and not ends, "whoever stops waiting for it does not end it"
        await coming.close()

    asyncio.run(whole())
    assert ends == ["given up"]
