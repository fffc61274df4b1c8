"""From the attempts of a run to its candidates: distinct patches, each with its attempts and its evidence."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from agent.attempt.notebook import notebooks
from harness import trace
from harness.patches.patch import Patch
from harness.records import Attempt, Candidate


def group(attempts: Sequence[Attempt]) -> tuple[Candidate, ...]:
    """The distinct patches of finished attempts, in order of attempt index, empty ones left out.

    Patches with the same fingerprint (same code but for formatting) are one candidate; the first one's text stands for
    it."""
    found: dict[str, Candidate] = {}
    for attempt in sorted(attempts, key=lambda a: a.index):
        if not attempt.patch:
            continue
        patch = Patch(attempt.patch)
        before = found.get(patch.fingerprint) or Candidate(f"c{len(found) + 1}", attempt.patch, (), patch.flags)
        found[patch.fingerprint] = replace(before, attempts=(*before.attempts, attempt.index))
    return tuple(found.values())


_FATES = (
    trace.AttemptStarted,
    trace.AttemptEnded,
    trace.Verified,
    trace.BudgetReached,
    trace.RunResumed,
    trace.RunReopened,
)


def fates(events: Iterable[trace.Event]) -> list[trace.Event]:
    """The events that say which attempts have ended, and how: a small part of them, so that folding it costs little."""
    return [event for event in events if isinstance(event, _FATES)]


def candidates_of(events: Sequence[trace.Event]) -> tuple[Candidate, ...]:
    """The distinct patches of the attempts that have ended, with the evidence that the trace holds on them.

    A candidate keeps its id when the run is reopened, or once there is evidence on it, whatever comes to stand before
    it then."""
    events = fates(events)
    evidence = {e.candidate: e.evidence for e in events if isinstance(e, trace.Verified)}
    ids: dict[str, str] = {}
    patches: dict[int | None, str] = {}

    def name(upto: int) -> tuple[Candidate, ...]:
        named = group([n.attempt() for n in notebooks(events[:upto]) if n.ended is not None])
        for candidate in named:
            ids.setdefault(Patch(candidate.patch).fingerprint, f"c{len(ids) + 1}")
        return named

    for place, event in enumerate(events):
        if isinstance(event, trace.AttemptEnded):
            patches[event.attempt] = event.patch
        elif isinstance(event, trace.Verified) and event.early:
            ids.setdefault(Patch(patches[event.attempts[0]]).fingerprint, event.candidate)
        elif isinstance(event, trace.RunReopened):
            name(place)
    found = name(len(events))
    named = [replace(candidate, id=ids[Patch(candidate.patch).fingerprint]) for candidate in found]
    return tuple(replace(candidate, evidence=evidence.get(candidate.id)) for candidate in named)
