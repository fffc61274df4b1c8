"""Work that a signal ends in good order, and that says how to go on."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from harness.room import MAKE_ROOM, writing
from tasks.errors import DiskFull

T = TypeVar("T")


def interruptible(work: Coroutine[Any, Any, T], how_to_go_on: str, give_back: Callable[[], object] = lambda: None) -> T:
    """`asyncio.run`, with SIGTERM and SIGHUP stopping the work as SIGINT does: by cancelling it, then raising
    KeyboardInterrupt. What started with SIGHUP ignored (nohup) goes on without its terminal. Raises DiskFull, which
    says how to go on. `give_back`: leaves the terminal as it was.

    A second signal ends the process there and then: a person is never stuck behind a thread that has work to finish.
    Nothing is lost by that, since every line of a trace is whole on disk before anything acts on it."""
    said = f"interrupted; {how_to_go_on}"

    async def whole() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "asyncio.run makes one"

        def leave() -> None:
            give_back()
            sys.stderr.write(f"\ntroop: {said}\n")
            sys.stderr.flush()
            os._exit(130)

        def stop() -> None:
            task.cancel()
            for number in stopping:
                loop.add_signal_handler(number, leave)

        for number in stopping:
            loop.add_signal_handler(number, stop)
        return await work

    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    stopping = (signal.SIGINT, signal.SIGTERM, *hung_up)
    try:
        with writing(Path.cwd()):
            return asyncio.run(whole())
    except DiskFull as error:
        raise DiskFull(f"{str(error).removesuffix(MAKE_ROOM)}{MAKE_ROOM}, then {how_to_go_on}") from error
    except asyncio.CancelledError:
        raise KeyboardInterrupt(said) from None
