"""The ranker: a logistic regression on the evidence, small enough to read.

P(right) = 1 / (1 + exp(-z)), z = bias + sum of weight x (feature / scale). Fitted by Newton's method with an L2 penalty
(iteratively reweighted least squares; Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 4.4.1).
Features whose sign is known beforehand and that come out with the other one are left out and the rest is fitted again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import mul
from pathlib import Path

from harness.choosing.features import CIRCUMSTANCES, NAMES, SIGNS, CandidateFeatures
from tasks.errors import InputError

PENALTY = 10.0
"""Of the squared weights of standardised features, in units of observations."""


PRIORS: dict[str, float] = {"unusable": -2.0, "breaks-tests": -0.5, "breaks-tests-alone": -1.0}
"""What a weight is before any data, per unit of the feature (a logarithm of a count, or 0 and 1); the penalty draws
towards it. All others: 0. It keeps what everybody knows where few labelled candidates show it."""

FINALISTS = 4
"""Candidates that are held against the near tests: the others would have to pass all of these."""

ROUNDS = 30
"""Of Newton's method at most."""

SHIPPED = Path(__file__).parent / "ranker_weights.json"
"""The default weights; `troop select --fit` makes others."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A fitted ranker. `scales`: the standard deviation of each feature where it was fitted.
    `fitted_on`: in words, for the report."""

    bias: float
    weights: Mapping[str, float]
    scales: Mapping[str, float]
    fitted_on: str = ""

    def score(self, row: CandidateFeatures) -> float:
        """z: the larger, the likelier right."""
        total = self.bias
        for name, weight in self.weights.items():
            value = row.relative[name] if name in row.relative else row.circumstances[name]
            total += weight * value / self.scales[name]
        return total

    def probability(self, row: CandidateFeatures) -> float:
        """P(right), 0..1."""
        return _logistic(self.score(row))

    def parts(self, row: CandidateFeatures) -> dict[str, float]:
        """What each feature adds to this candidate's score over the mean of its instance, the largest first."""
        each = {n: w * row.relative[n] / self.scales[n] for n, w in self.weights.items() if n in row.relative}
        return dict(sorted(((n, v) for n, v in each.items() if abs(v) > 1e-9), key=lambda pair: -abs(pair[1])))


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


def finalists(rows: Sequence[CandidateFeatures], weights: Weights) -> list[CandidateFeatures]:
    """The candidates that stand first: those that dearer evidence is gathered on."""
    return sorted(rows, key=lambda r: -weights.score(r))[:FINALISTS]


def read_weights(path: Path) -> Weights:
    """Weights from a JSON file. Raises InputError for one that is none."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Weights(body["bias"], body["weights"], body["scales"], body.get("fitted_on", ""))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no weights: {error}") from error


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights as JSON, rounded to what matters."""
    body = asdict(weights)
    body["bias"] = round(weights.bias, 4)
    body["weights"] = {n: round(w, 4) for n, w in weights.weights.items()}
    body["scales"] = {n: round(s, 6) for n, s in weights.scales.items()}
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


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
