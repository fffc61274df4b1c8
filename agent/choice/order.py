"""From attempts to the one candidate: grouping, ranking, and what decided.

First of all a candidate is acceptable or not (applies, given tests pass, no regression), then witness evidence counts.
Of what these leave equal the order comes from the ranker (`weighed`), or by the rules from agreement among attempts.
The judge decides among those that then stand first and lie close together; what is still equal, the smaller change. All
of it is pure; the judge's word comes in as `points`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.patches.patch import Patch
from harness.records import Candidate, Ranked, Ranker, Selection
from harness.views.words import METHOD_WORDS

JUDGED_AT_MOST = 4
"""Candidates that a judge compares pairwise; more would cost more than it tells."""

NEAR = 0.1
"""Candidates whose probabilities lie this close to the first one's are for the judge to tell apart: the ranker's
reliability (docs/selection.md) bears no finer difference."""

PARTS_KEPT = 6
"""Features that are named for each candidate."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """The ranker's word on a candidate: the probability that it is right, and what each feature adds to its score."""

    probability: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate's place by each kind of evidence; larger is better. `why_not`: empty for an acceptable candidate.
    `weighed` None: by the rules. `judge`: its points, of those that stand first and close together."""

    candidate: Candidate
    why_not: str
    witness: float
    weighed: Weighed | None
    agreement: int
    size: int
    judge: float = 0.0

    @property
    def probability(self) -> float:
        return self.weighed.probability if self.weighed else 0.0

    @property
    def key(self) -> tuple[bool, float, float, int, int]:
        return (not self.why_not, self.witness, self.probability, self.agreement, -self.size)

    def close_to(self, best: Standing) -> bool:
        """Whether nothing but the judge, or the size, tells it apart from the one that stands first."""
        if self.why_not or best.why_not or self.witness != best.witness:
            return False
        return best.probability - self.probability <= NEAR if self.weighed else self.agreement == best.agreement


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


def standings(
    candidates: Sequence[Candidate],
    points: Mapping[str, float] | None = None,
    weighed: Mapping[str, Weighed] | None = None,
) -> list[Standing]:
    """All candidates, best first. By their id, `points`: the judge's; `weighed`: the ranker's word (None: by rules)."""
    placed = [
        Standing(
            candidate=c,
            why_not=why_not(c),
            witness=witness_share(c),
            weighed=weighed[c.id] if weighed is not None else None,
            agreement=len(c.attempts),
            size=Patch(c.patch).changed_lines,
        )
        for c in candidates
    ]
    order = sorted(placed, key=lambda s: s.key, reverse=True)
    first = _finalists(order)
    judged = [replace(s, judge=(points or {}).get(s.candidate.id, 0.0)) for s in first]
    return [*sorted(judged, key=lambda s: -s.judge), *order[len(first) :]]


def _finalists(order: Sequence[Standing]) -> Sequence[Standing]:
    close = [s for s in order if s.close_to(order[0])]
    return close[:JUDGED_AT_MOST] if len(close) > 1 else []


def undecided(
    candidates: Sequence[Candidate], weighed: Mapping[str, Weighed] | None = None, threshold: float = 0.0
) -> list[Candidate]:
    """The judge's work: the acceptable candidates (2 or more) that stand first, too close, none below the threshold."""
    first = _finalists(standings(candidates, None, weighed))
    close = [s.candidate for s in first if s.probability >= threshold]
    return close if len(close) > 1 else []


def select(
    candidates: Sequence[Candidate],
    attempts: int,
    points: Mapping[str, float] | None = None,
    weighed: Mapping[str, Weighed] | None = None,
    threshold: float = 0.0,
) -> Selection:
    """Choose. `attempts`: how many attempts gave a sample (with or without a patch). `threshold`: the least
    probability, by the ranker."""
    order = standings(candidates, points, weighed)
    ranker: Ranker = "rules" if weighed is None else "evidence"
    ranking = tuple(map(_ranked, order))
    if not order:
        return Selection(None, "none", 0.0, (), "No attempt ended with a patch.", ranker)
    best = order[0]
    if best.why_not:
        rationale = f"No candidate is acceptable; the best runner-up is {best.candidate.id}: {best.why_not}."
        return Selection(None, "none", 0.0, ranking, rationale, ranker)
    if best.weighed is not None and best.probability < threshold:
        rationale = f"The first one's probability of being right, {best.probability:.2f}, is below {threshold:g}."
        return Selection(None, "none", 0.0, ranking, rationale, ranker)
    method = _decided_by(order)
    rationale = f"{best.candidate.id}: {_in_words(best)}. {METHOD_WORDS[method]}"
    confidence = round(best.probability, 3) if best.weighed is not None else _confidence(best, attempts)
    return Selection(best.candidate.id, method, confidence, ranking, rationale, ranker)


def _ranked(standing: Standing) -> Ranked:
    why = standing.why_not or _in_words(standing)
    if standing.weighed is None:
        return Ranked(standing.candidate.id, not standing.why_not, why)
    parts = {name: round(value, 3) for name, value in list(standing.weighed.parts.items())[:PARTS_KEPT]}
    return Ranked(standing.candidate.id, not standing.why_not, why, round(standing.probability, 4), parts)


def _decided_by(order: Sequence[Standing]) -> str:
    if len(order) == 1:
        return "only-candidate"
    best, second = order[0], order[1]
    if second.why_not:
        return "given" if all(s.why_not.startswith("the given test") for s in order[1:]) else "regression"
    if best.witness != second.witness:
        return "witness"
    if best.judge != second.judge:
        return "judge"
    if best.probability != second.probability:
        return "probability"
    if best.agreement != second.agreement:
        return "agreement"
    return "size" if best.size != second.size else "first"


def _in_words(standing: Standing) -> str:
    evidence = standing.candidate.evidence
    parts = []
    if standing.weighed is not None:
        named = ", ".join(f"{name} {value:+.2f}" for name, value in list(standing.weighed.parts.items())[:3])
        parts.append(f"P(right) {standing.probability:.2f}{f' ({named})' * bool(named)}")
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
    """A rule of thumb in 0..1, no calibrated probability: given, witness and regression tests, agreement."""
    evidence = best.candidate.evidence
    score = 0.25
    if evidence is not None:
        score += 0.3 * bool(evidence.given) + 0.1 * bool(evidence.regression)
    score += 0.2 * best.witness + 0.15 * (best.agreement / max(1, attempts))
    return round(min(score, 0.95), 2)
