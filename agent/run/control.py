"""Caps and concurrency of what goes on already, changed from outside: `troop ctl` leaves a wish in its directory, and
the process that works there takes it away once it holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from agent.config import Settings
from harness.trace import CapsChanged, record

WISH = "ctl.json"
LOOK_SECONDS = 0.5


def changed(settings: Settings, wish: CapsChanged) -> Settings:
    """The settings as they are wished for."""
    caps = {name: cap for name in ("usd", "tokens") if (cap := getattr(wish, name)) is not None}
    concurrency = wish.concurrency or settings.concurrency
    return replace(settings, budget=replace(settings.budget, **caps), concurrency=concurrency)


@contextlib.asynccontextmanager
async def listening(directory: Path, heed: Callable[[CapsChanged], None]) -> AsyncIterator[None]:
    """Within: wishes that are left in the directory are heeded, but for damaged ones and those left before."""
    place = directory / WISH
    place.unlink(missing_ok=True)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if place.exists():
                with contextlib.suppress(OSError, ValueError, TypeError):
                    heed(record(CapsChanged, json.loads(place.read_bytes())))
                    place.unlink(missing_ok=True)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
