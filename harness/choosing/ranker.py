"""The ranker: a logistic regression on the evidence, small enough to read.

P(right) = 1 / (1 + exp(-z)), z = bias + sum of weight x (feature / scale). How it is fitted: tests/bench/fitting.py.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.choosing.features import CandidateFeatures

SHIPPED = Path(__file__).parent / "ranker_weights.json"
"""The default weights; `python -m tests.bench.fitting` makes others."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A fitted ranker. `scales`: the standard deviation of each feature where it was fitted.
    `fitted_on`: in words, for the report. `kinds`: which evidence of other kinds ("given", "witness", "regression",
    "judge") there was on the candidates that its probability was calibrated on."""

    bias: float
    weights: Mapping[str, float]
    scales: Mapping[str, float]
    fitted_on: str = ""
    kinds: frozenset[str] = frozenset()

    def score(self, row: CandidateFeatures) -> float:
        """z: the larger, the likelier right."""
        values = {**row.circumstances, **row.relative}
        return sum((w * values[name] / self.scales[name] for name, w in self.weights.items()), self.bias)

    def probability(self, row: CandidateFeatures) -> float:
        """P(right), 0..1."""
        z = self.score(row)
        return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))

    def parts(self, row: CandidateFeatures) -> dict[str, float]:
        """What each feature adds to this candidate's score over the mean of its instance, the largest first."""
        each = {n: w * row.relative[n] / self.scales[n] for n, w in self.weights.items() if n in row.relative}
        return dict(sorted(((n, v) for n, v in each.items() if abs(v) > 1e-9), key=lambda pair: -abs(pair[1])))


def read_weights(path: Path = SHIPPED) -> Weights:
    """Weights from a JSON file that `tests.bench.fitting` wrote."""
    body = json.loads(path.read_text(encoding="utf-8"))
    return Weights(**{**body, "kinds": frozenset(body.get("kinds", ()))})
