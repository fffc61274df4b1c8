"""A choice to be made: one issue, its candidates, and where they can be tried out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness import trace
from harness.evidence.near import Opened
from harness.records import Candidate
from harness.repository.base_tree import BaseTree
from tasks.say import Say


@dataclass(frozen=True, slots=True)
class Ground:
    """Where candidates are tried out: the base's files, and fresh sandboxes that hold it.

    `command`: runs the repository's tests; None for the usual one. `slots` bounds the sandboxes at a time.
    """

    tree: BaseTree
    opened: Opened
    command: str | None
    slots: asyncio.Semaphore


@dataclass(frozen=True, slots=True)
class Case:
    """What a choice works with.

    `ground` None: nothing can be run. `events`: the trace so far, so that nothing is asked, run or written again; it
    follows what is written. `write` gives the event back as it was written, without secrets: a resume would go on from
    the same.
    """

    statement: str
    candidates: Sequence[Candidate]
    ground: Ground | None
    events: Sequence[trace.Event]
    write: Callable[[trace.Event], trace.Event]
    say: Say

    def write_once(self, event: trace.Event) -> None:
        """Write what an earlier process has not written already."""
        if not any(trace.same(event, known) for known in self.events):
            self.write(event)
