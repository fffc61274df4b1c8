"""A choice to be made: one issue, its candidates, and where they can be tried out."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness import trace
from harness.choosing.found import Steps
from harness.choosing.probing import Seen
from harness.evidence.shown import Shown
from harness.evidence.verify import witness_name
from harness.records import Candidate, WitnessTest
from harness.repository.base_tree import BaseTree
from harness.sandbox.fresh import Opened
from tasks.say import Say


@dataclass(frozen=True, slots=True)
class Ground:
    """Where candidates are tried out: the base's files, and fresh sandboxes that hold it.

    `command`: runs the repository's tests; None for the usual one. `slots` bounds the sandboxes at a time."""

    tree: BaseTree
    opened: Opened
    command: str | None
    slots: asyncio.Semaphore


@dataclass(frozen=True, slots=True)
class Known:
    """What was run, for people and judges to read. `witnesses`: the text of attempts' tests, by their name in the
    evidence. `steps`: what the issue's own code does, by the patch's digest ("": without any), `sources` its text."""

    witnesses: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, Steps] = field(default_factory=dict)
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[trace.Event], witnesses: Iterable[WitnessTest]) -> "Known":
        """What a run's trace holds."""
        probed = [e for e in events if isinstance(e, trace.Probed) and not e.note]
        steps = {e.patch: trace.record(dict[str, tuple[Seen, ...]], e.shown) for e in probed}
        texts = {witness_name(w): w.text for w in witnesses}
        return cls(texts, steps, next((e.sources for e in probed if not e.patch), {}))


@dataclass(frozen=True, slots=True)
class Case:
    """What a choice works with.

    `finalists`: the candidates that still stand first and too close together, with further rows of tests.
    `ground` None: nothing can be run. `events`: the trace so far, so that nothing is asked, run or written again; it
    follows what is written. `write` gives the event back as it was written, without secrets: a resume would go on from
    the same."""

    statement: str
    candidates: Sequence[Candidate]
    ground: Ground | None
    events: Sequence[trace.Event]
    write: Callable[[trace.Event], trace.Event]
    say: Say
    finalists: Callable[[Sequence[Shown]], Sequence[Candidate]] = lambda rows: ()
    known: Known = Known()

    def write_once(self, event: trace.Event) -> None:
        """Write what an earlier process has not written already."""
        if not any(trace.same(event, known) for known in self.events):
            self.write(event)
