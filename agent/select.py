"""From attempts to the one candidate: grouping, ranking by rules, and what decided.

The rules, in this order: acceptable at all (applies, given tests pass, no regression), then witness evidence, then agreement
among attempts, then the judge, then the smaller change. All of it is pure; the judge's word comes in as `points`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.patch import Patch
from harness.records import Attempt, Candidate, Ranked, Selection

JUDGED_AT_MOST = 4
"""Candidates that a judge compares pairwise; more would cost more than it tells."""


def group(attempts: Sequence[Attempt]) -> tuple[Candidate, ...]:
    """The distinct patches of finished attempts, in order of attempt index, empty ones left out.

    Patches with the same fingerprint (same code but for formatting) are one candidate; the first one's text stands for it.
    """
    found: dict[str, Candidate] = {}
    for attempt in sorted(attempts, key=lambda a: a.index):
        if not attempt.patch:
            continue
        patch = Patch(attempt.patch)
        before = found.get(patch.fingerprint)
        if before is None:
            found[patch.fingerprint] = Candidate(f"c{len(found) + 1}", attempt.patch, (attempt.index,), patch.flags)
        else:
            together = (*before.attempts, attempt.index)
            found[patch.fingerprint] = Candidate(before.id, before.patch, together, before.flags)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate's place by each rule; larger is better. `why_not`: empty for an acceptable candidate."""

    candidate: Candidate
    why_not: str
    witness: float
    agreement: int
    judge: float
    size: int

    @property
    def key(self) -> tuple[bool, float, int, float, int]:
        return (not self.why_not, self.witness, self.agreement, self.judge, -self.size)


def why_not(candidate: Candidate) -> str:
    """Why a verified candidate cannot be selected, as a phrase; empty if it can."""
    evidence = candidate.evidence
    if evidence is None:
        return "not verified"
    if not evidence.applies:
        return f"does not apply: {evidence.reason}"
    if not evidence.valid:
        return evidence.reason or "its tests did not run"
    failing = [t for t, o in evidence.given.items() if o != "passed"]
    if failing:
        return f"the given test still fails: {failing[0]}"
    if evidence.broken:
        more = f" and {len(evidence.broken) - 1} more" if len(evidence.broken) > 1 else ""
        return f"breaks {evidence.broken[0]}{more}"
    patch = Patch(candidate.patch)
    if not patch.source_files:
        return "changes nothing but tests"
    if not patch.changes_code:
        return "changes nothing but comments and layout"
    return ""


def witness_share(candidate: Candidate) -> float:
    """The share of witness tests (those that fail on the base) that pass on the candidate; 0.0 without any."""
    tests = candidate.evidence.witness if candidate.evidence else {}
    return sum(outcome == "passed" for outcome in tests.values()) / len(tests) if tests else 0.0


def standings(candidates: Sequence[Candidate], points: Mapping[str, float] | None = None) -> list[Standing]:
    """All candidates, best first. `points`: the judge's, by candidate id."""
    judged = points or {}
    placed = [
        Standing(
            candidate=c,
            why_not=why_not(c),
            witness=witness_share(c),
            agreement=len(c.attempts),
            judge=judged.get(c.id, 0.0),
            size=Patch(c.patch).changed_lines,
        )
        for c in candidates
    ]
    return sorted(placed, key=lambda s: s.key, reverse=True)


def undecided(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The acceptable candidates at the top that tests and agreement cannot tell apart: the judge's work (2 or more)."""
    order = standings(candidates)
    if not order or order[0].why_not:
        return []
    top = [s.candidate for s in order if s.key[:3] == order[0].key[:3]]
    return top[:JUDGED_AT_MOST] if len(top) > 1 else []


def select(candidates: Sequence[Candidate], attempts: int, points: Mapping[str, float] | None = None) -> Selection:
    """Choose. `attempts`: how many attempts gave a sample (with or without a patch)."""
    order = standings(candidates, points)
    ranking = tuple(Ranked(s.candidate.id, not s.why_not, s.why_not or _in_words(s)) for s in order)
    if not order:
        return Selection(None, "none", 0.0, (), "No attempt ended with a patch.")
    best = order[0]
    if best.why_not:
        rationale = f"No candidate is acceptable; the best runner-up is {best.candidate.id}: {best.why_not}."
        return Selection(None, "none", 0.0, ranking, rationale)
    method = _decided_by(order)
    rationale = f"{best.candidate.id}: {_in_words(best)}. {_METHOD_WORDS[method]}"
    return Selection(best.candidate.id, method, _confidence(best, attempts), ranking, rationale)


_METHOD_WORDS = {
    "only-candidate": "It is the only candidate.",
    "given": "No other candidate makes the given test pass.",
    "regression": "The other candidates break tests or are not acceptable.",
    "witness": "It passes more of the witness tests than the others.",
    "agreement": "More attempts arrived at it than at any other.",
    "judge": "The judge preferred it among candidates that the tests could not tell apart.",
    "size": "It is the smallest of the candidates that nothing else could tell apart.",
    "first": "Nothing told it apart from others; it was found first.",
}


def _decided_by(order: Sequence[Standing]) -> str:
    if len(order) == 1:
        return "only-candidate"
    best, second = order[0], order[1]
    if second.why_not:
        return "given" if all(s.why_not.startswith("the given test") for s in order[1:]) else "regression"
    if best.witness != second.witness:
        return "witness"
    if best.agreement != second.agreement:
        return "agreement"
    if best.judge != second.judge:
        return "judge"
    return "size" if best.size != second.size else "first"


def _in_words(standing: Standing) -> str:
    evidence = standing.candidate.evidence
    parts = []
    if evidence is not None and evidence.given:
        parts.append("the given test passes")
    if evidence is not None and evidence.regression:
        parts.append(f"{len(evidence.regression)} regression tests pass")
    if evidence is not None and evidence.witness:
        passed = sum(o == "passed" for o in evidence.witness.values())
        parts.append(f"{passed} of {len(evidence.witness)} witness tests pass")
    count = standing.agreement
    parts.append(f"found by {count} attempt{'s' if count > 1 else ''}")
    parts.append(f"{standing.size} changed line{'s' if standing.size != 1 else ''}")
    return ", ".join(parts)


def _confidence(best: Standing, attempts: int) -> float:
    """A rule of thumb in 0..1, not a calibrated probability: given tests, witness tests, regression tests, agreement."""
    evidence = best.candidate.evidence
    score = 0.25
    if evidence is not None:
        score += 0.3 * bool(evidence.given) + 0.1 * bool(evidence.regression)
    score += 0.2 * best.witness + 0.15 * (best.agreement / max(1, attempts))
    return round(min(score, 0.95), 2)
