"""Looking at finished runs: their events, and which attempt a request came from."""

from __future__ import annotations

from pathlib import Path

from agent.run.executor import seed_of
from harness import trace

SEEDS = {seed_of(0, index): index for index in range(16)}
"""The number of an attempt by the seed that its requests carry, where the run's seed is 0."""


def events(directory: Path) -> list[trace.Event]:
    """The trace of the run in `directory`."""
    return list(trace.read(directory / "trace.jsonl"))
