"""Measures of repeated sampling: pass@k, coverage with intervals, recovery."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Sampled:
    """One task's samples: `n` of them, `correct` right; `selected`: whether the selected patch is right."""

    n: int
    correct: int
    selected: bool


def pass_at_k(n: int, correct: int, k: int) -> float | None:
    """The chance that at least one of k samples, drawn without replacement from n of which `correct` are right, is right.

    The unbiased estimator of Chen et al. 2021 ("Evaluating Large Language Models Trained on Code"), 1 - C(n-c, k)/C(n, k),
    in its product form. None where fewer than k samples exist.
    """
    if k > n:
        return None
    missed = 1.0
    for i in range(n - correct + 1, n + 1):
        missed *= max(0.0, 1.0 - k / i)
    return 1.0 - missed


def coverage(tasks: Sequence[Sampled], k: int) -> float | None:
    """Mean pass@k over tasks; None where a task has fewer than k samples, or there is no task."""
    values = [pass_at_k(t.n, t.correct, k) for t in tasks]
    if not values or any(v is None for v in values):
        return None
    return fmean(v for v in values if v is not None)


def interval(
    tasks: Sequence[Sampled], measure: Callable[[Sequence[Sampled]], float | None], *, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a measure by bootstrap over tasks; None where the measure is undefined."""
    if measure(tasks) is None:
        return None
    rng = random.Random(seed)
    drawn = [measure(rng.choices(tasks, k=len(tasks))) for _ in range(BOOTSTRAPS)]
    values = sorted(v for v in drawn if v is not None)
    return values[int(0.025 * len(values))], values[int(0.975 * len(values)) - 1]


def mean_at_1(tasks: Sequence[Sampled]) -> float | None:
    """The share of right samples, averaged over tasks; tasks without samples count as 0. None without tasks."""
    return fmean(t.correct / t.n if t.n else 0.0 for t in tasks) if tasks else None


def recovery(tasks: Sequence[Sampled]) -> float | None:
    """(selected - mean@1) / (oracle - mean@1): how much of what sampling offers the selection keeps.

    None where the oracle is no better than one sample.
    """
    single = mean_at_1(tasks)
    if single is None:
        return None
    oracle = fmean(float(t.correct > 0) for t in tasks)
    chosen = fmean(float(t.selected) for t in tasks)
    return None if oracle - single < 1e-12 else (chosen - single) / (oracle - single)
