"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(
    condition: Callable[[], object], seconds: float = 120.0, otherwise: str = "it did not happen in time"
) -> None:
    """Return once the condition holds; the test fails, saying `otherwise`, where that takes longer than `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)
