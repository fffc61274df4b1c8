"""Fitting the ranker on a labelled pool: cross-validation by instance, calibration, reliability, and how good a
selection by it is.

    python -m tests.bench.fitting POOL --evidence RUN [--labels FILE…] [--weights FILE]

RUN is where `tests.bench.selection` gathered the pool's evidence. A label file is JSON lines with `instance_id`, `source` and
`outcome`, or the report.json of `troop grade`, whose models are the pool's sources. Fitted by Newton's method with an
L2 penalty (iteratively reweighted least squares; Hastie, Tibshirani and Friedman, "The Elements of Statistical
Learning", 4.4.1); features whose sign is known beforehand and that come out with the other one are left out, and the
rest is fitted again. The measure:

recovery = (selected - mean@1) / (oracle - mean@1), each a sum over instances: what was selected and right, what a blind
choice would have got, what could have been got. The interval is of the gain over a blind choice, by a bootstrap over
instances, paired: each drawn instance brings its selected and its blind result.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import mul
from pathlib import Path

from harness.choosing.features import CandidateFeatures
from harness.choosing.ranker import Weights
from tasks.errors import InputError, TroopError
from tests.bench.evidence import NAMES, TESTS, evidence_of, rows
from tests.bench.graded import OUTCOMES, Graded, by_instance, read_graded, unlabelled

BOOTSTRAPS = 10_000
FOLDS = 10
"""Parts of the instances, each judged by a ranker that was fitted on the others."""
BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)

PENALTY = 10.0
"""Of the squared weights of standardised features, in units of observations."""

PRIORS: dict[str, float] = {"unusable": -2.0, "breaks-tests": -0.5, "breaks-tests-alone": -1.0}
"""What a weight is before any data, per unit of the feature (a logarithm of a count, or 0 and 1); the penalty draws
towards it. All others: 0. It keeps what everybody knows where few labelled candidates show it."""

ROUNDS = 30
"""Of Newton's method at most."""

CIRCUMSTANCES = ("agreement-of-all", "best-agreement", "place-agreement", "distinct-share")
"""What is the same for all candidates of an instance, and tells an easy one from a hard one."""

SIGNS = dict.fromkeys(("traceback-place", "same-code", "same-places", "likeness", "nearness"), 1)
SIGNS |= dict.fromkeys(("error-gone", "same-behaviour", "same-steps"), 1)
SIGNS |= dict.fromkeys(("unusable", "undefined-names", "edits-tests", "debugging", "stray-files"), -1)
SIGNS |= dict.fromkeys(("breaks-tests", "breaks-tests-alone", "like-base", "new-crash"), -1)
"""Features whose weight may only be positive (1) or negative (-1)."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An instance's distinct candidates, whether each is right (most of its labelled samples say so), and the labels of
    its samples, one each."""

    instance: str
    rows: tuple[CandidateFeatures, ...]
    right: tuple[bool, ...]
    samples: tuple[bool, ...]

    @property
    def mixed(self) -> bool:
        """Right ones and wrong ones to choose among."""
        return len(set(self.samples)) > 1


@dataclass(frozen=True, slots=True)
class Bin:
    """Of a reliability diagram: candidates whose cross-validated probability lies in `low`..`high`."""

    low: float
    high: float
    candidates: int
    predicted: float
    right: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """`weights`: fitted on everything and calibrated. `recovery`, `reliability`: cross-validated by instance."""

    weights: Weights
    instances: int
    mixed: int
    recovery: Recovery
    reliability: tuple[Bin, ...]
    brier: float


def read_labelled(path: Path, labels: Sequence[Path] = ()) -> list[Graded]:
    """The samples of a pool file, with the outcomes of other files laid over the pool's."""
    outcomes: dict[tuple[str, str], bool | None] = {}
    for file in labels:
        outcomes |= _labels(file)
    return [replace(s, right=outcomes.get((s.instance, s.source), s.right)) for s in read_graded(path)]


def _labels(path: Path) -> dict[tuple[str, str], bool | None]:
    """By instance and source, whether the patch is right."""
    if path.suffix == ".json":
        report = json.loads(path.read_bytes())
        if not isinstance(report, dict) or not {"sets", "predictions"} <= report.keys():
            raise InputError(f"{path} is no report of troop grade: it has no sets or no predictions")
        models = {each["name"]: each["model"] for each in report["sets"]}
        # Without an image there was no grading, only a failure of the world.
        graded = [each for each in report["predictions"] if each.get("image")]
        return {(each["instance_id"], models[each["set"]]): bool(each["resolved"]) for each in graded}
    told = {(x["instance_id"], x["source"]): x["outcome"] for x in map(json.loads, path.read_text().splitlines())}
    if unknown := set(told.values()) - {None, *OUTCOMES}:
        raise InputError(f"{path}: the outcome {min(unknown)!r} is none of {', '.join(OUTCOMES)}")
    return {key: None if outcome is None else outcome == "resolved" for key, outcome in told.items()}


def labelled(samples: Sequence[Graded], directory: Path) -> list[Labelled]:
    """The labelled samples with the evidence that `run` holds on them; what has no label or no evidence is left out."""
    found = []
    for instance, all_of_it in sorted(by_instance(samples).items()):
        of_it = [s for s in all_of_it if s.right is not None]
        if not of_it or not (directory / "evidence" / f"{instance}.json").exists():
            continue
        table = rows(evidence_of(directory, instance, unlabelled(of_it)))
        label = {s.source: bool(s.right) for s in of_it}
        right = tuple(2 * sum(label[x] for x in row.sources) > len(row.sources) for row in table)
        found.append(Labelled(instance, tuple(table), right, tuple(label.values())))
    return found


def cross(
    items: Sequence[Labelled], *, features: Collection[str] = NAMES, penalty: float = PENALTY
) -> dict[str, list[float]]:
    """By instance, the scores of its candidates by a ranker that was fitted without any instance of its fold."""
    shuffled = sorted(items, key=lambda i: i.instance)
    random.Random(0).shuffle(shuffled)
    scores: dict[str, list[float]] = {}
    for fold in range(min(FOLDS, len(shuffled))):
        kept = [i for at, i in enumerate(shuffled) if at % FOLDS != fold]
        table, right = [r for i in kept for r in i.rows], [x for i in kept for x in i.right]
        ranker = fit(table, right, features=features, penalty=penalty)
        scores |= {i.instance: [ranker.score(r) for r in i.rows] for i in shuffled[fold::FOLDS]}
    return scores


def choices(items: Sequence[Labelled], scores: Mapping[str, Sequence[float]]) -> list[Choice]:
    """What choosing the best-scored candidate comes to; among equals each is as likely."""
    blind = {i.instance: sum(i.samples) / len(i.samples) for i in items}
    return [Choice(i.instance, chance(i, scores[i.instance]), blind[i.instance], any(i.samples)) for i in items]


def chance(item: Labelled, scores: Sequence[float]) -> float:
    """The chance that the best-scored candidate is right."""
    best = max(scores)
    tied = [right for right, score in zip(item.right, scores, strict=True) if score >= best - 1e-9]
    return sum(tied) / len(tied)


def fit_pool(samples: Sequence[Graded], directory: Path, name: str) -> Fitted:
    """Fit on all labelled samples that `run` has evidence on. Raises InputError where they cannot bear it."""
    items = labelled(samples, directory)
    if sum(i.mixed for i in items) < 5:
        raise InputError(
            f"{name} has {sum(i.mixed for i in items)} instances with right and wrong candidates that {directory} holds"
            " evidence on; a ranker needs 5 at least"
        )
    scores = cross(items)
    flat = [(z, right) for i in items for z, right in zip(scores[i.instance], i.right, strict=True)]
    slope, shift = platt(flat)
    weights = fit([r for i in items for r in i.rows], [x for i in items for x in i.right])
    count = sum(len(i.rows) for i in items)
    weights = calibrated(weights, slope, shift, f"{count} candidates of {len(items)} instances of {name}")
    told = [(1 / (1 + math.exp(-(slope * z + shift))), right) for z, right in flat]
    return Fitted(
        weights=weights,
        instances=len(items),
        mixed=sum(i.mixed for i in items),
        recovery=recovery(choices(items, scores)),
        reliability=reliability(told),
        brier=sum((p - right) ** 2 for p, right in told) / len(told),
    )


def platt(pairs: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """Slope and shift that make cross-validated scores probabilities (Platt 1999, with his corrected targets). The
    slope is never below 0.05: the order stays."""
    positive = sum(right for _, right in pairs)
    high, low = (positive + 1) / (positive + 2), 1 / (len(pairs) - positive + 2)
    scale = max(abs(z) for z, _ in pairs) or 1.0
    shift, slope = newton([[z / scale for z, _ in pairs]], [high if right else low for _, right in pairs], 1e-6)
    return max(slope / scale, 0.05), shift


def calibrated(weights: Weights, slope: float, shift: float, fitted_on: str) -> Weights:
    """The weights that turn a score z into the log-odds slope · z + shift; the order of candidates stays."""
    return replace(
        weights,
        bias=weights.bias * slope + shift,
        weights={name: w * slope for name, w in weights.weights.items()},
        fitted_on=fitted_on,
    )


def reliability(told: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """How often candidates were right by what probability they were given; empty bins are left out."""
    found = []
    for low, high in itertools.pairwise(BINS):
        inside = [(p, right) for p, right in told if low <= p < high or (high == BINS[-1] and p == high)]
        if inside:
            mean, share = (sum(each) / len(inside) for each in zip(*inside, strict=True))
            found.append(Bin(low, high, len(inside), mean, share))
    return tuple(found)


def in_words(fitted: Fitted) -> list[str]:
    """For a person: how well, the weights, the reliability."""
    r = fitted.recovery
    share = "undefined" if r.recovery is None else f"{r.recovery:.2f}"
    lines = [
        f"{fitted.instances} instances, {fitted.mixed} with right and wrong candidates; cross-validated by instance:",
        (
            f"  selected {r.selected:.2f}, mean@1 {r.mean_at_1:.2f}, oracle {r.oracle}, recovery {share}, "
            f"gain {r.gain:+.2f} [{r.low:+.2f}, {r.high:+.2f}], Brier {fitted.brier:.3f}"
        ),
        f"bias {fitted.weights.bias:+.2f}",
    ]
    weights = sorted(fitted.weights.weights.items(), key=lambda pair: -abs(pair[1]))
    lines += [f"  {name:20} {weight:+.2f}" for name, weight in weights]
    lines += [
        f"  P {b.low:.2f}..{b.high:.2f}: {b.candidates:4} candidates, predicted {b.predicted:.2f}, right {b.right:.2f}"
        for b in fitted.reliability
    ]
    return lines


# ---- the fit


def fit(
    rows: Sequence[CandidateFeatures],
    right: Sequence[bool],
    *,
    features: Collection[str] = NAMES,
    penalty: float = PENALTY,
) -> Weights:
    """Fit weights to labelled candidates, by these `features` and all circumstances. Raises InputError where all have
    the same label or there is none."""
    if len(set(right)) < 2:
        raise InputError("a ranker needs right and wrong candidates to be fitted on")
    names = [n for n in NAMES if n in features] + list(CIRCUMSTANCES)
    columns = {n: [r.relative[n] if n in r.relative else r.circumstances[n] for r in rows] for n in names}
    scales = {n: _deviation(column) for n, column in columns.items()}
    names = [n for n in names if scales[n] > 1e-9 or n in PRIORS]
    scales = {n: scales[n] if scales[n] > 1e-9 else 1.0 for n in names}
    labels = [1.0 if each else 0.0 for each in right]
    standard = {n: [v / scales[n] for v in columns[n]] for n in names}
    solution: dict[str, float] = {}
    while True:
        start = [solution.get(n, 0.0) for n in ("", *names)]
        middle = [PRIORS.get(n, 0.0) * scales[n] for n in names]
        found = newton([standard[n] for n in names], labels, penalty, start, middle)
        solution = dict(zip(("", *names), found, strict=True))
        against = {n for n in names if SIGNS.get(n, 0) * solution[n] < 0}
        if not against:
            bias = solution.pop("")
            return Weights(bias, solution, {n: scales[n] for n in names})
        names = [n for n in names if n not in against]


def newton(
    columns: Sequence[Sequence[float]],
    labels: Sequence[float],
    penalty: float,
    start: Sequence[float] | None = None,
    middle: Sequence[float] | None = None,
) -> list[float]:
    """The penalised maximum of the likelihood: the bias, which is not penalised, then a weight for each column.

    `labels`: 0..1. `start`: a first guess of the same shape. `middle`: by column, the weight that the penalty draws
    towards (0).
    """
    every: list[Sequence[float]] = [[1.0] * len(labels), *columns]
    w = list(start or [0.0] * len(every))
    middle = [0.0, *(middle or [0.0] * len(columns))]
    for _ in range(ROUNDS):
        scores = [0.0] * len(labels)
        for weight, column in zip(w, every, strict=True):
            if weight:
                scores = [z + weight * x for z, x in zip(scores, column, strict=True)]
        told = [_logistic(z) for z in scores]
        errors = [y - p for y, p in zip(labels, told, strict=True)]
        slopes = [p * (1.0 - p) for p in told]
        gradient = [
            sum(map(mul, errors, column)) - penalty * (j > 0) * (w[j] - middle[j]) for j, column in enumerate(every)
        ]
        hessian = [[0.0] * len(every) for _ in every]
        for j, column in enumerate(every):
            weighted = list(map(mul, slopes, column))
            for k in range(j + 1):
                hessian[j][k] = hessian[k][j] = sum(map(mul, weighted, every[k]))
            hessian[j][j] += penalty if j else 1e-9
        step = _solved(hessian, gradient)
        w = [a + b for a, b in zip(w, step, strict=True)]
        if max(map(abs, step)) < 1e-6:
            break
    return w


def _solved(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """The solution of a symmetric positive definite system, by elimination."""
    size = len(vector)
    a = [[*row, value] for row, value in zip(matrix, vector, strict=True)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda r: abs(a[r][i]))
        a[i], a[pivot] = a[pivot], a[i]
        for r in range(i + 1, size):
            factor = a[r][i] / a[i][i]
            if factor:
                a[r] = [x - factor * y for x, y in zip(a[r], a[i], strict=True)]
    out = [0.0] * size
    for i in reversed(range(size)):
        out[i] = (a[i][size] - sum(a[i][k] * out[k] for k in range(i + 1, size))) / a[i][i]
    return out


def _logistic(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values) if values else 0.0
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values)))


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights as JSON, rounded to what matters, without those of the near tests: in a run no candidate is held
    against these for the ranker, and what is the same for all adds nothing to a score."""
    body = {**asdict(weights), "kinds": sorted(weights.kinds)}
    body["bias"] = round(weights.bias, 4)
    body["weights"] = {n: round(w, 4) for n, w in weights.weights.items() if n not in TESTS}
    body["scales"] = {n: round(s, 6) for n, s in weights.scales.items() if n not in TESTS}
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


# ---- recovery


@dataclass(frozen=True, slots=True)
class Choice:
    """One instance. `selected`: the chance that the selection is right (a tie between k is k candidates at 1/k; an
    abstention is 0.0); `blind`: the share of right samples; `possible`: whether any is right."""

    instance: str
    selected: float
    blind: float
    possible: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """Sums over instances; `recovery` None where there was nothing to choose. `gain`: selected - mean@1, with its 95 %
    interval `low`..`high`; `recovery_low`, `recovery_high`: that of the recovery, where every draw defines one."""

    instances: int
    selected: float
    mean_at_1: float
    oracle: int
    recovery: float | None
    gain: float
    low: float
    high: float
    recovery_low: float | None
    recovery_high: float | None


def recovery(choices: Sequence[Choice], *, draws: int = BOOTSTRAPS) -> Recovery:
    """The measures over these instances."""
    selected, blind, oracle = _sums(choices)
    rng = random.Random(0)
    gains, shares = [], []
    for _ in range(draws if choices else 0):
        s, b, o = _sums(rng.choices(choices, k=len(choices)))
        gains.append(s - b)
        if o > b:
            shares.append((s - b) / (o - b))
    low, high = _middle(gains) or (0.0, 0.0)
    between = _middle(shares)
    return Recovery(
        instances=len(choices),
        selected=selected,
        mean_at_1=blind,
        oracle=round(oracle),
        recovery=(selected - blind) / (oracle - blind) if oracle > blind else None,
        gain=selected - blind,
        low=low,
        high=high,
        recovery_low=between[0] if between else None,
        recovery_high=between[1] if between else None,
    )


def _sums(choices: Sequence[Choice]) -> tuple[float, float, float]:
    return (sum(c.selected for c in choices), sum(c.blind for c in choices), float(sum(c.possible for c in choices)))


def _middle(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle 95 %."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[max(0, int(0.975 * len(ordered)) - 1)]


def main() -> None:
    """Command line: fit, print the weights and how well they do, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="labelled candidates")
    parser.add_argument("--evidence", type=Path, required=True, metavar="RUN", help="where their evidence was gathered")
    parser.add_argument("--labels", type=Path, action="append", default=[], metavar="FILE", help="outcomes over these")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="written")
    known = parser.parse_args()
    try:
        fitted = fit_pool(read_labelled(known.pool, known.labels), known.evidence, known.pool.name)
    except (OSError, ValueError, TroopError) as error:
        parser.error(str(error))
    if known.weights is not None:
        write_weights(known.weights, fitted.weights)
    print("\n".join(in_words(fitted)))


if __name__ == "__main__":
    main()
