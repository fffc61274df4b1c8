"""What a run came to, folded from its trace: `report.json`."""

from collections.abc import Iterable, Sequence

from harness import trace
from harness.environments.summary import environment_json
from harness.evidence.strength import strength_of
from harness.money.ledger import Ledger
from harness.patches.patch import Patch
from harness.records import WRITERS_FROM, Evidence, Json, Selection

REPORT_SCHEMA = 1


def solve_report(events: Sequence[trace.Event]) -> Json:
    """The report of a solve, in the shape of docs/design.md; works on an unfinished trace too.

    USD are None where a price is unknown (`cost.exact` is then false); times in seconds."""
    started = events[0]
    assert isinstance(started, trace.RunStarted), "trace.read checks it"
    ledger = Ledger.of(events).to_json()
    begun = (e for e in events if isinstance(e, trace.AttemptStarted))
    verified = latest_verified(events)
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    return {
        "schema": REPORT_SCHEMA,
        "run": started.run,
        "task": started.task["id"],
        "base_commit": next((e.base_commit for e in events if isinstance(e, trace.Prepared)), None),
        "models": list(started.settings.get("models") or dict.fromkeys(e.model for e in begun)),
        "status": run_status(events),
        "attempts": _attempts(events, verified, ledger),
        "candidates": [
            {
                "id": v.candidate,
                "attempts": list(v.attempts),
                "files": [file.path for file in patch.files],
                "evidence": evidence_json(v.evidence),
                "flags": list(patch.flags),
            }
            for v in verified
            for patch in [Patch(patches[v.attempts[0]])]
        ],
        "selected": _selected(events, verified),
        "ranking": _ranking(events),
        "judge": judge_report(events),
        "sampling": _sampling(events),
        "graded": _graded(events),
        "cost": ledger,
        "infrastructure": _infrastructure(events),
        "environment": next((environment_json(e) for e in events if isinstance(e, trace.Prepared)), None),
        "missing_limits": [limit for e in events if isinstance(e, trace.Prepared) for limit in e.missing_limits],
        "seconds": round(active_seconds(events), 3),
    }


def latest_verified(events: Iterable[trace.Event]) -> list[trace.Verified]:
    """The evidence that holds on each candidate: a resumed run may have verified one again, with more witness tests.
    What was found out before one of the candidate's attempts went on and ended anew no longer holds."""
    found: dict[str, trace.Verified] = {}
    for event in events:
        if isinstance(event, trace.Verified):
            found.pop(event.candidate, None)
            found[event.candidate] = event
        elif isinstance(event, trace.AttemptEnded):
            found = {name: e for name, e in found.items() if event.attempt not in e.attempts}
    return sorted(found.values(), key=lambda e: (len(e.candidate), e.candidate))


def run_status(events: Sequence[trace.Event]) -> str:
    """The status of the last `RunEnded`; "running" where there is none since the last resume."""
    telling = (trace.RunEnded, trace.RunResumed, trace.RunReopened)
    last = next((event for event in reversed(events) if isinstance(event, telling)), None)
    return last.status if isinstance(last, trace.RunEnded) else "running"


def active_seconds(events: Sequence[trace.Event]) -> float:
    """Wall time that processes worked on the run: from each start or resume to the last event before the next."""
    return sum(end - begin for begin, end in active_spans(events))


def active_spans(events: Sequence[trace.Event]) -> list[tuple[float, float]]:
    """When processes worked on the run: (begin, end) of each, in seconds since the epoch; grading is none of it."""
    spans: list[tuple[float, float]] = []
    begin = last = events[0].at
    for event in events:
        if isinstance(event, trace.Graded):
            continue
        if isinstance(event, (trace.RunResumed, trace.RunReopened)):
            spans.append((begin, last))
            begin = event.at
        last = event.at
    return [*spans, (begin, last)]


def evidence_json(evidence: Evidence) -> Json:
    """Counts and the names that matter; the full matrix stays in the trace."""
    return {
        **_fields(evidence, "applies valid clean"),
        "regression": {"run": len(evidence.regression), "broken": list(evidence.broken)},
        "given": dict(evidence.given),
        "witness": dict(evidence.witness),
        "reason": evidence.reason,
        "seconds": round(evidence.seconds, 3),
    }


def _attempts(events: Sequence[trace.Event], verified: Sequence[trace.Verified], ledger: Json) -> list[Json]:
    candidate = {index: v.candidate for v in verified for index in v.attempts}
    ended = _ended(events)
    masked = {e.attempt for e in events if e.masked}
    turns = {event.attempt: event.turn for event in events if isinstance(event, trace.TurnEnded)}
    rows = []
    started = (e for e in events if isinstance(e, trace.AttemptStarted) and (e.attempt or 0) < WRITERS_FROM)
    for start in started:
        index, end = start.attempt, ended.get(start.attempt)
        cost = ledger["by_attempt"].get(str(index), {})
        rows.append(
            {
                "index": index,
                **_fields(start, "model name seed"),
                "status": end.status if end else "running",
                "turns": turns.get(index, 0),
                "seconds": round(end.seconds, 3) if end else None,
                "usd": cost.get("usd", 0.0),
                "usage": cost.get("usage", {}),
                "candidate": candidate.get(index or 0),
                "flags": [*(end.flags if end else ()), *(["masked"] if index in masked else [])],
                "detail": end.detail if end else "",
            }
        )
    return sorted(rows, key=lambda row: row["index"])


def _ended(events: Iterable[trace.Event]) -> dict[int | None, trace.AttemptEnded]:
    """The ends that hold, by attempt: what the world ended goes on after a resume, until candidates are verified, and
    when the run is reopened, which what a cap of the run ended does as well."""
    ended: dict[int | None, trace.AttemptEnded] = {}
    verifying = capped = False
    for event in events:
        if isinstance(event, trace.AttemptEnded):
            ended[event.attempt] = event
        elif isinstance(event, trace.BudgetReached):
            capped = True
        elif isinstance(event, trace.Verified) and not event.early:
            verifying = True
        elif isinstance(event, trace.RunReopened) or (isinstance(event, trace.RunResumed) and not verifying):
            again = {"infrastructure"}
            if isinstance(event, trace.RunReopened):
                again |= {"budget"} if capped else set()
                verifying = capped = False
            ended = {index: e for index, e in ended.items() if e.status not in again}
    return ended


def last_selection(events: Sequence[trace.Event]) -> Selection | None:
    """The selection that holds, if one was made."""
    return next((e.selection for e in reversed(events) if isinstance(e, trace.Selected)), None)


def _selected(events: Sequence[trace.Event], verified: Sequence[trace.Verified]) -> Json | None:
    selection = last_selection(events)
    if selection is None or selection.candidate is None:
        return None
    chosen = next((v for v in verified if v.candidate == selection.candidate), None)
    return {
        "candidate": selection.candidate,
        "attempt": chosen.attempts[0] if chosen else None,
        **_fields(selection, "method ranker confidence calibrated_on rationale"),
        **({} if selection.calibrated_on is not None else {"confidence": None}),
        "strength": selection.strength or (strength_of(chosen.evidence, chosen.attempts) if chosen else "guess"),
    }


def _ranking(events: Sequence[trace.Event]) -> list[Json]:
    """The order, best first; where the ranker made it `parts`, and its number: a `score` that is no `probability` where
    it was not calibrated under the conditions of this run."""
    selection = last_selection(events)
    number = "score" if selection is None or selection.calibrated_on is None else "probability"
    return [
        {
            **_fields(r, "candidate acceptable why"),
            **({} if r.probability is None else {number: r.probability, "parts": dict(r.parts)}),
        }
        for r in (selection.ranking if selection else ())
    ]


def judge_report(events: Sequence[trace.Event]) -> Json | None:
    """The judge's tests (`test`: the last), its comparisons, what it said of single candidates, and what stopped it
    before it was done; None where it was not asked."""
    said = [e for e in events if isinstance(e, trace.JUDGING) or _stopped_judge(e)]
    if not said:
        return None
    tests = [
        {**_fields(e, "path text useless"), "outcomes": {told.on: told.outcome for told in e.told}}
        for e in said
        if isinstance(e, trace.JudgeTested)
    ]
    return {
        "test": tests[-1] if tests else None,
        "tests": tests,
        "comparisons": [_fields(e, "first second winner reason neither") for e in said if isinstance(e, trace.Judged)],
        "said": [_fields(e, "candidate points reason neither") for e in said if isinstance(e, trace.JudgeSaid)],
        "stopped": _stopped_judge(said[-1]),
    }


def _fields(record: object, names: str) -> Json:
    return {name: getattr(record, name) for name in names.split()}


def _stopped_judge(event: trace.Event) -> str:
    """Why the judge was asked no more, if the event says so."""
    if isinstance(event, trace.InfrastructureFailed) and event.what == "judge":
        return event.detail
    return event.reason if isinstance(event, trace.JudgeStopped) else ""


def _sampling(events: Sequence[trace.Event]) -> Json | None:
    """Why adaptive sampling made no more attempts, with the numbers; None where it did not stop."""
    stopped = [e for e in trace.since_reopened(events) if isinstance(e, trace.SamplingStopped)]
    if not stopped:
        return None
    return {"stopped": stopped[-1].why, **_fields(stopped[-1], "attempts worth hope gain usd per_solve words")}


def _graded(events: Sequence[trace.Event]) -> Json | None:
    """The hidden tests' word on the selected candidate; where that has none, on the one that was graded last."""
    last = last_selection(events)
    graded = [e for e in events if isinstance(e, trace.Graded)]
    words = [e for e in graded if last and e.candidate == last.candidate] or graded
    return _fields(words[-1], "candidate resolved reason") if words else None


def _infrastructure(events: Sequence[trace.Event]) -> Json:
    failures = [e for e in events if isinstance(e, trace.InfrastructureFailed)]
    return {
        "retries": sum(e.retried for e in failures),
        "failures": [_fields(e, "attempt what detail") for e in failures if not e.retried],
    }
