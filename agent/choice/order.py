"""From attempts to the one candidate: ranking, and what decided.

First of all a candidate is acceptable or not (applies, given tests pass, no regression). Then counts what was shown by
running something (`harness.evidence.shown`): whoever leaves the issue's own code as it was stands behind whoever
changes it as asked; then the votes of all tests. Of what these leave equal the order comes from the ranker
(`weighed`), or by the rules from agreement among attempts. The judge's opinion decides among those that then stand
first and lie close together; what is still equal, the smaller change. All of it is pure; the judge's opinion comes in
as `points`.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.evidence.shown import Shown, backed, left_as_was, of_evidence, splits, votes
from harness.evidence.strength import STRENGTHS, Strength, strength_of
from harness.patches.patch import Patch
from harness.records import Candidate, Evidence, Ranked, Ranker, Selection
from harness.views.words import METHOD_WORDS, STRENGTH_WORDS
from tasks.errors import InputError

JUDGED_AT_MOST = 4
"""Candidates that a judge compares pairwise; more would cost more than it tells."""

NEAR = 0.1
"""Candidates whose probabilities lie this close to the first one's are for the judge to tell apart: the ranker's
reliability (docs/selection.md) bears no finer difference."""

PARTS_KEPT = 6
"""Features that are named for each candidate."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """The ranker's word on a candidate: the probability that it is right, and what each feature adds to its score.
    `behaviour`: what is the same for candidates on which the issue's own code does the same."""

    probability: float
    parts: Mapping[str, float] = field(default_factory=dict)
    behaviour: Hashable = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of candidates beside their own evidence. By their id, `weighed`: the ranker's word (None: the rules
    order); `objections`: why one is not acceptable (None: as `why_not` says). `shown`: what tests showed (None: the
    given and witness tests, as the evidence has them). `calibrated_on`: what the ranker's probability was calibrated
    on, in words, where there were no other `kinds` of evidence ("given", "witness", "regression", "judge"); where there
    are others now, or nothing is said, nobody is told a number."""

    weighed: Mapping[str, Weighed] | None = None
    shown: Sequence[Shown] | None = None
    objections: Mapping[str, str] | None = None
    calibrated_on: str | None = None
    kinds: frozenset[str] = frozenset()

    def with_shown(self, rows: Sequence[Shown]) -> "Findings":
        """The same, with what further tests showed."""
        return replace(self, shown=(*(self.shown or ()), *rows)) if rows else self


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate's place by each kind of evidence; larger is better but for `left` (steps of the issue's code that it
    leaves as they were). `why_not`: empty for an acceptable candidate. `votes`: of all tests; `backed`: without those
    that only their authors' own patches pass. `weighed` None: by the rules. `judge`: its points, of those that stand
    first and close together. `rows`: the tests, with its outcomes."""

    candidate: Candidate
    why_not: str
    left: int
    backed: float
    votes: float
    weighed: Weighed | None
    agreement: int
    size: int
    rows: tuple[tuple[Shown, str], ...]
    judge: float = 0.0

    @property
    def probability(self) -> float:
        return self.weighed.probability if self.weighed else 0.0

    @property
    def tests(self) -> tuple[bool, int, float]:
        """What running something showed of it."""
        return (not self.why_not, -self.left, self.backed)

    @property
    def key(self) -> tuple[bool, int, float, float, float, int, int]:
        return (*self.tests, self.votes, self.probability, self.agreement, -self.size)

    @property
    def strength(self) -> Strength:
        """How far it is shown to be right; a test that asserts a guess says nothing here."""
        telling = [o for row, o in self.rows if row.kind == "judge" or (row.kind == "witness" and row.weight == 1)]
        return strength_of(self.evidence, self.candidate.attempts, telling)

    @property
    def evidence(self) -> Evidence:
        return self.candidate.evidence or Evidence(False, False)

    def close_to(self, best: "Standing") -> bool:
        """Whether nothing but the judge, or the size, tells it apart from the one that stands first."""
        if self.why_not or self.tests != best.tests:
            return False
        return best.probability - self.probability <= NEAR if self.weighed else self.agreement == best.agreement


def objections(candidates: Sequence[Candidate]) -> dict[str, str]:
    """By candidate why it cannot be selected, empty if it can. A test speaks against none if it may hold what the issue
    wants to be otherwise: all break it which could be selected otherwise, found by two attempts or more; or all do that
    the tests of two other attempts or more pass on (what no candidate passes left out), while every candidate that
    breaks nothing fails each of these."""
    able = _but_for_tests(candidates)
    excused = _broken_by_all(able) if sum(len(c.attempts) for c in able) > 1 else frozenset()
    authors = {c.id: _authors(c, {r.name for r in of_evidence(able) if "passed" in r.outcomes.values()}) for c in able}
    passed = {c.id: {author for author, all_pass in authors[c.id].items() if all_pass} - {*c.attempts} for c in able}
    if not any(passed[c.id] for c in able if not why_not(c, excused)):
        every = {author for of in authors.values() for author in of}
        excused |= _broken_by_all([c for c in able if len(passed[c.id]) > 1 and passed[c.id] >= every - {*c.attempts}])
    return {c.id: why_not(c, excused) for c in candidates}


def only_break_tests(candidates: Sequence[Candidate]) -> bool:
    """Whether none can be selected, and two or more for nothing but tests that they break: further tests may tell
    whether these hold what the issue wants to be otherwise."""
    return len(_but_for_tests(candidates)) > 1 and all(objections(candidates).values())


def _but_for_tests(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.evidence is not None and not why_not(c, c.evidence.broken)]


def _broken_by_all(candidates: Sequence[Candidate]) -> frozenset[str]:
    every = [frozenset(c.evidence.broken) for c in candidates if c.evidence]
    return frozenset.intersection(*every) if every else frozenset()


def _authors(candidate: Candidate, telling: Collection[str]) -> dict[int, bool]:
    """By the attempt that wrote witness tests, whether all of them that are `telling` pass on the candidate."""
    found: dict[int, bool] = {}
    for row in of_evidence([candidate]):
        for author in row.authors if row.name in telling else ():
            found[author] = found.get(author, True) and row.outcomes[candidate.id] == "passed"
    return found


def why_not(candidate: Candidate, excused: Collection[str] = ()) -> str:
    """Why a verified candidate cannot be selected, as a phrase; empty if it can. `excused`: tests that it may break."""
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
    if broken := [test for test in evidence.broken if test not in excused]:
        return f"breaks {broken[0]}{f' and {len(broken) - 1} more' * (len(broken) > 1)}"
    patch = Patch(candidate.patch)
    if not patch.source_files:
        return "changes nothing but tests"
    return "" if patch.changes_code else "changes nothing but comments and layout"


def standings(
    candidates: Sequence[Candidate], found: Findings, points: Mapping[str, float] | None = None
) -> list[Standing]:
    """All candidates, best first. `points`: the judge's, by their id."""
    rows = of_evidence(candidates) if found.shown is None else found.shown
    against = objections(candidates) if found.objections is None else found.objections
    acceptable = {c.id: c.attempts for c in candidates if not against[c.id]}
    left, voted = left_as_was(rows, acceptable), votes(rows, acceptable)
    others = votes([row for row in rows if backed(row, acceptable)], acceptable)
    placed = [
        Standing(
            candidate=c,
            why_not=against[c.id],
            left=left.get(c.id, 0),
            backed=others.get(c.id, 0.0),
            votes=voted.get(c.id, 0.0),
            weighed=found.weighed[c.id] if found.weighed is not None else None,
            agreement=len(c.attempts),
            size=Patch(c.patch).changed_lines,
            rows=tuple((row, row.outcomes[c.id]) for row in rows if c.id in row.outcomes),
        )
        for c in candidates
    ]
    order = sorted(placed, key=lambda s: s.key, reverse=True)
    judged = [replace(s, judge=(points or {}).get(s.candidate.id, 0.0)) for s in _finalists(order)]
    if not any(s.judge for s in judged):
        return order
    first = {s.candidate.id for s in judged}
    return [*sorted(judged, key=lambda s: -s.judge), *(s for s in order if s.candidate.id not in first)]


def _finalists(order: Sequence[Standing]) -> Sequence[Standing]:
    """Those that stand first and close together, `JUDGED_AT_MOST`: first one of each behaviour, then the others."""
    close = [s for s in order if s.close_to(order[0])]
    did = [(s.weighed and s.weighed.behaviour, [outcome == "passed" for _, outcome in s.rows]) for s in close]
    turn = [did[:place].count(behaviour) for place, behaviour in enumerate(did)]
    places = sorted(range(len(close)), key=turn.__getitem__)[:JUDGED_AT_MOST]
    return [close[place] for place in sorted(places)] if len(close) > 1 else []


def undecided(
    candidates: Sequence[Candidate], found: Findings = Findings(), threshold: float | str = 0.0
) -> list[Candidate]:
    """The judge's work: the acceptable candidates (2 or more) that stand first, too close, none below the threshold."""
    close = [s.candidate for s in _finalists(standings(candidates, found)) if not _too_little(s, threshold)]
    return close if len(close) > 1 else []


def _too_little(standing: Standing, threshold: float | str) -> str:
    """Why it may not be selected for want of a probability, or of a strength; empty where it may."""
    if isinstance(threshold, str):
        weak = STRENGTHS.index(standing.strength) > STRENGTHS.index(threshold)
        return f"is {STRENGTH_WORDS[standing.strength]}, which is less than {threshold}" if weak else ""
    if standing.weighed is None or standing.probability >= threshold:
        return ""
    return f"has a probability of being right, {standing.probability:.2f}, that is below {threshold:g}"


def check_threshold(threshold: float | str, ranker: Ranker) -> None:
    """Raises InputError for a number where the rules order, which have none."""
    if threshold and not isinstance(threshold, str) and ranker == "rules":
        raise InputError(
            "--threshold with a number is for the ranker's probability, but the order here is by the rules (as it is"
            " for repair alone): say likely, strong or proved, or --ranker evidence"
        )


def select(
    candidates: Sequence[Candidate],
    found: Findings = Findings(),
    points: Mapping[str, float] | None = None,
    threshold: float | str = 0.0,
) -> Selection:
    """Choose. `points`: the judge's. `threshold`: the least probability, by the ranker, or the least strength as a
    word."""
    order = standings(candidates, found, points)
    ranker: Ranker = "rules" if found.weighed is None else "evidence"
    on = found.calibrated_on if _at_hand(order) <= found.kinds else None
    ranking = tuple(_ranked(s, on is not None) for s in order)
    if not order:
        return Selection(None, "none", None, (), "No attempt ended with a patch.", ranker)
    best = order[0]
    said = f"No candidate is acceptable; the best runner-up is {best.candidate.id}: {best.why_not}."
    if not best.why_not:
        too_little = _too_little(best, threshold)
        said = f"The first one, {best.candidate.id}, {too_little}." if too_little else ""
    if said:
        return Selection(None, "none", None, ranking, said, ranker)
    method = _decided_by(order)
    rationale = f"{best.candidate.id}: {_in_words(best, on is not None)}. {METHOD_WORDS[method]}"
    number = round(best.probability, 3) if on is not None else None
    return Selection(best.candidate.id, method, number, ranking, rationale, ranker, best.strength, on)


def _at_hand(order: Sequence[Standing]) -> set[str]:
    """The kinds of evidence that this choice has."""
    kinds: set[str] = {row.kind for s in order for row, _ in s.rows if row.kind != "probe"}
    kinds |= {"judge"} if any(s.judge for s in order) else set()
    return kinds | ({"regression"} if any(s.evidence.regression for s in order) else set())


def _ranked(standing: Standing, calibrated: bool) -> Ranked:
    why = standing.why_not or _in_words(standing, calibrated)
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
    if best.left == second.left and best.backed != second.backed:
        both = (best.candidate.id, second.candidate.id)
        apart = {row.kind for row, _ in best.rows if splits({i: row.outcomes[i] for i in both if i in row.outcomes})}
        return "judge-test" if apart == {"judge"} else "witness"
    differs = {
        "probe": best.left != second.left,
        "judge": best.judge != second.judge,
        "witness": best.votes != second.votes,
        "probability": best.probability != second.probability,
        "agreement": best.agreement != second.agreement,
        "size": best.size != second.size,
    }
    return next((what for what, it_does in differs.items() if it_does), "first")


def _in_words(standing: Standing, calibrated: bool) -> str:
    evidence, parts = standing.evidence, []
    if standing.weighed is not None and calibrated:
        named = ", ".join(f"{name} {value:+.2f}" for name, value in list(standing.weighed.parts.items())[:3])
        parts.append(f"P(right) {standing.probability:.2f}{f' ({named})' * bool(named)}")
    if evidence.given:
        parts.append("the given test passes")
    if evidence.regression:
        parts.append(f"{len(evidence.regression) - len(evidence.broken)} regression tests pass")
    if evidence.broken:
        parts.append(f"breaks {evidence.broken[0]}, as every patch does that may be right")
    for kind, what in (("witness", "witness tests"), ("judge", "tests of the judge")):
        outcomes = [outcome for row, outcome in standing.rows if row.kind == kind]
        if outcomes:
            parts.append(f"{outcomes.count('passed')} of {len(outcomes)} {what} pass")
    if standing.left:
        parts.append("it leaves the issue's own code as it was")
    count = standing.agreement
    parts.append(f"found by {count} attempt{'s' if count > 1 else ''}")
    parts.append(f"{standing.size} changed line{'s' if standing.size != 1 else ''}")
    return ", ".join(parts)
