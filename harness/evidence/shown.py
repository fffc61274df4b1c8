"""What was shown of candidates by running something: one row a test, with its outcome on each candidate, and what all
rows say together.

A row is a test that does not pass on the base: the failing test given with the issue, a witness test of an attempt, a
test of the judge, a step of the issue's own code of which the text says what it should do. Rows count before anything
that is only estimated or judged.

Witness tests may be wrong themselves, so how much each counts is estimated together with which candidates are right, by
expectation-maximisation as Dawid and Skene (1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm") do for observers that nobody can check: a test weighs the more, the more independent attempts' right-looking
candidates pass it and the fewer of the others (the dual agreement of CodeT, Chen et al. 2022, arXiv 2207.10397).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.records import Candidate, Told

Kind = Literal["given", "witness", "judge", "probe"]

OWN = 0.25
"""What a witness counts for a candidate to which nobody but the author of the witness came; another's counts 1."""
RIGHT, WRONG = (4.0, 1.0), (2.0, 4.0)
"""What is believed of a test before it ran: on how many right and on how many wrong candidates it (passed, failed)."""
ROUNDS = 100
"""Of the estimation at most."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One test. `name` is its own within its kind. `outcomes`: by candidate id "passed", or how it did not ("failed",
    "error", "missing"); of a candidate without an outcome nothing is known. `authors`: the attempts that wrote it.
    `weight`: 1, or less for a test that has less to say."""

    kind: Kind
    name: str
    outcomes: Mapping[str, str]
    authors: tuple[int, ...] = ()
    weight: float = 1.0


def of_evidence(candidates: Sequence[Candidate], weights: Mapping[str, float] | None = None) -> tuple[Shown, ...]:
    """The rows of the given test and of the witness tests, as the verification found them. `weights`: of witness tests
    by their name in the evidence, where it is not 1. A witness that ran nowhere is none."""
    known = {c.id: c.evidence for c in candidates if c.evidence is not None and c.evidence.applies}
    given = {name: None for evidence in known.values() for name in evidence.given}
    witness = {name: None for evidence in known.values() for name in evidence.witness}
    rows = [Shown("given", name, {i: e.given.get(name, "missing") for i, e in known.items()}) for name in given]
    for name in witness:
        outcomes = {i: e.witness[name] for i, e in known.items() if name in e.witness}
        if {"passed", "failed"}.intersection(outcomes.values()):
            author = name.partition(":")[0]  # as in "2:tests/test_x.py"
            authors = (int(author),) if author.isdecimal() else ()
            rows.append(Shown("witness", name, outcomes, authors, (weights or {}).get(name, 1.0)))
    return tuple(rows)


def of_judge(name: str, told: Sequence[Told]) -> tuple[Shown, ...]:
    """The rows of a test that the judge wrote: those of its tests that fail on the base and tell candidates apart; none
    where a run of it was unsteady, or the base passes it or cannot even load it. The rows of one file weigh
    as much as one test. `told`: what it showed on "base" and on each candidate, each run twice."""
    base = next((each for each in told if each.on == "base"), None)
    if base is None or base.outcome != "failed" or any(each.outcome == "unsteady" for each in told):
        return ()
    on = {each.on: each for each in told if each is not base}
    parts = [test for test, outcome in base.tests.items() if outcome in ("failed", "error")]
    found = {f"{name}/{test}": {i: each.tests.get(test, each.outcome) for i, each in on.items()} for test in parts}
    if not found:
        found = {name: {i: each.outcome for i, each in on.items()}}
    telling = {row: outcomes for row, outcomes in found.items() if splits(outcomes)}
    return tuple(Shown("judge", row, outcomes, (), 1 / len(telling)) for row, outcomes in telling.items())


def splits(outcomes: Mapping[str, str]) -> bool:
    """Whether some candidates pass and others do not."""
    return len({outcome == "passed" for outcome in outcomes.values()}) > 1


def left_as_was(rows: Iterable[Shown], among: Iterable[str]) -> dict[str, int]:
    """By candidate, on how many steps of the issue's own code it does what the base did while another of them does what
    the issue asks for."""
    count = dict.fromkeys(among, 0)
    for row in rows:
        here = {i: outcome for i, outcome in row.outcomes.items() if i in count}
        if row.kind == "probe" and splits(here):
            for i, outcome in here.items():
                count[i] += outcome != "passed"
    return count


def backed(row: Shown, attempts: Mapping[str, Sequence[int]]) -> bool:
    """Whether a candidate passes it to which somebody else came than who wrote it: else it is a word for oneself."""
    return any(set(attempts.get(i, ())).difference(row.authors) for i, o in row.outcomes.items() if o == "passed")


def votes(rows: Iterable[Shown], attempts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """By candidate the logarithm of the odds that it is right, as all tests say together; 0 where they say nothing.

    `attempts`: the candidates (of acceptable ones only: others have no vote) and the attempts that came to each. Equal
    outcomes give equal odds; and whoever passes all that another passes, and more, never has less."""
    table = [row for row in rows if splits({i: o for i, o in row.outcomes.items() if i in attempts})]
    passes = [{i: o == "passed" for i, o in row.outcomes.items() if i in attempts} for row in table]
    # How independent of the test a candidate is, times the attempts that came to it: repeats share their mistakes.
    shares = [{i: len(set(row.authors).intersection(of)) / len(of) for i, of in attempts.items()} for row in table]
    free = [{i: (1 - (1 - OWN) * own) * len(attempts[i]) ** 0.5 for i, own in row.items()} for row in shares]
    right = dict.fromkeys(attempts, 0.5)
    odds = dict.fromkeys(attempts, 0.0)
    for _ in range(ROUNDS if table else 0):
        before, odds = odds, dict.fromkeys(attempts, 0.0)
        for row, passed, weights in zip(table, passes, free, strict=True):
            for_it, against = _worth(passed, weights, right)
            backed = sum(right[i] * weights[i] for i, p in passed.items() if p)
            alone = sum(right[i] * len(attempts[i]) ** 0.5 for i, p in passed.items() if p)
            weight = row.weight * (backed / alone if alone else 1.0)
            for i, p in passed.items():
                odds[i] += weight * (for_it if p else against)
        right = {i: 1 / (1 + math.exp(-each)) for i, each in odds.items()}
        if max(abs(odds[i] - before[i]) for i in odds) < 1e-6:
            break
    return {i: round(each, 4) for i, each in odds.items()}


def _worth(passed: Mapping[str, bool], weights: Mapping[str, float], right: Mapping[str, float]) -> tuple[float, float]:
    """What passing and failing a test adds to the odds, by how often right-looking and wrong-looking candidates pass
    it; nothing for a test that speaks against what passes it."""
    good, bad = list(RIGHT), list(WRONG)
    for i, p in passed.items():
        good[not p] += weights[i] * right[i]
        bad[not p] += weights[i] * (1 - right[i])
    of_right, of_wrong = good[0] / sum(good), bad[0] / sum(bad)
    if of_right <= of_wrong:
        return 0.0, 0.0
    return math.log(of_right / of_wrong), math.log((1 - of_right) / (1 - of_wrong))
