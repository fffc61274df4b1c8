"""Caps and concurrency of what goes on already, changed from outside: `troop ctl` leaves a wish in its directory, and
the process that works there puts its answer in the wish's place."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from agent.config import Settings
from harness.cache import write_json
from harness.lock import held, run_lock
from harness.trace import CapsChanged, public, record
from tasks.errors import DiskFull, EnvironmentFailed, InputError, RunLocked, TroopError

LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
_WISH = "ctl.json"
_REFUSAL = "refusal"  # the answer's field: why the wish is refused, "" where it holds now


def changed(settings: Settings, wish: CapsChanged) -> Settings:
    """The settings as they are wished for."""
    caps = {name: cap for name in ("usd", "tokens") if (cap := getattr(wish, name)) is not None}
    concurrency = wish.concurrency or settings.concurrency
    return replace(settings, budget=replace(settings.budget, **caps), concurrency=concurrency)


@contextlib.asynccontextmanager
async def listening(directory: Path, heed: Callable[[CapsChanged], None]) -> AsyncIterator[None]:
    """Within: wishes that are left in the directory are heeded. `heed` raises a TroopError for one that cannot be."""
    place = directory / _WISH

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (wish := _wish(place)) is None:
                continue
            refusal = ""
            try:
                heed(wish)
            except TroopError as error:
                refusal = str(error)
            with contextlib.suppress(OSError, DiskFull):  # whoever asked hears that there was no answer
                write_json(place, {_REFUSAL: refusal})

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def _wish(place: Path) -> CapsChanged | None:
    """What is wished for and not answered; None where there is nothing, or nothing that can be read."""
    try:
        wish = json.loads(place.read_bytes())
        return None if _REFUSAL in wish else record(CapsChanged, wish)
    except (OSError, ValueError, TypeError):
        return None


def ask(directory: Path, wish: CapsChanged) -> None:
    """Have the process that works in the directory heed the wish. Blocking. Raises InputError where none works there
    or it refuses, EnvironmentFailed where it does not answer."""
    place, until = directory / _WISH, time.monotonic() + PATIENCE_SECONDS
    with held(directory / ".ctl.lock"):
        write_json(place, public(wish))
        try:
            while True:
                free = False  # looked at before the answer, which a process may leave as the last that it does
                with contextlib.suppress(RunLocked), run_lock(directory):
                    free = True
                if (refusal := json.loads(place.read_bytes()).get(_REFUSAL)) is not None:
                    break
                if free:
                    raise InputError(f"{directory} is not being worked on: only what goes on now can be changed")
                if time.monotonic() > until:
                    why = f"took no notice for {PATIENCE_SECONDS:g} s"
                    raise EnvironmentFailed(f"the process that works on {directory} {why}: try again")
                time.sleep(0.1)
        finally:
            place.unlink(missing_ok=True)
    if refusal:
        raise InputError(refusal)
