"""Coverage at k that nobody sampled: forecasts with intervals, a hold-out check beside each, and a refusal where data
cannot bear one.

What is forecast is the expected coverage of tasks like these, so the interval has the choice of the tasks in it: tasks
are drawn with replacement, the law is fitted again, and the standard deviation of log(-log(1 - coverage)) over the
draws gives a normal interval on that scale (Student's t for few tasks). Percentiles of the draws came out too narrow in
simulations (tests/bench/forecast_coverage.py has the figures of this one).

The hold-out check fits the same law to the first half of each task's samples and forecasts coverage at all of them:
twice as far as it saw. The miss is the forecast less what was observed, with the interval of this difference over the
same draws of tasks. That interval is wide, so a law must also pass through what was sampled, and may not forecast less
than was observed already.
"""

import dataclasses
import functools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from harness.scaling.laws import BetaBinomial, Counts, fit_beta_binomial, fit_inflated
from harness.scaling.metrics import BOOTSTRAPS, pass_at_k

Fit = Callable[[Counts, BetaBinomial | None], BetaBinomial]

MIN_TASKS = 30
MIN_SAMPLES = 8
MIN_TELLING = 5
"""Tasks that have right and wrong samples both: without them nothing tells how success rates are spread."""
MAX_REACH = 16
"""How many times as many samples as were drawn a forecast may go to."""
MAX_WIDTH = 0.4
"""A wider interval is no forecast."""
MISS = 0.02
"""Hold-out misses up to this are let pass, whatever their interval."""
WIDE = 2.576
"""Standard deviations of a 99 % interval: a check that refuses one true forecast in twenty would be a nuisance."""
VERY_WIDE = 3.291
"""Of a 99.9 % interval, for what is looked at in POINTS places."""
CHECKS = 200
"""Bootstraps of the hold-out check, at most."""
POINTS = 12
"""Points of the curve that a law must pass through."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """A fit to the first `fitted` samples of each task, asked for coverage at `asked`, where `observed` is known.

    `low`, `high`: 99 % interval of forecast - observed."""

    fitted: int
    asked: int
    forecast: float
    observed: float
    low: float
    high: float

    @property
    def missed(self) -> bool:
        """Off by more than MISS, and by more than the choice of tasks explains."""
        return abs(self.forecast - self.observed) > MISS and not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class Forecast:
    """Coverage at k by one law. `coverage`, `low`, `high` (95 %) are None where `refused` says why ("" otherwise)."""

    law: str
    k: int
    parameters: Mapping[str, float]
    coverage: float | None
    low: float | None
    high: float | None
    hold_out: HoldOut | None
    refused: str = ""


def forecast(outcomes: Sequence[Sequence[bool]], k: int, *, draws: int = BOOTSTRAPS, seed: int = 0) -> list[Forecast]:
    """One forecast of coverage at k by each of LAWS. `outcomes`: for each task, whether each of its samples is right,
    in the order drawn.

    Every task must have the same number of samples, at least one."""
    (n,) = {len(each) for each in outcomes}
    cells = Counter((sum(each), sum(each[: n // 2])) for each in outcomes)
    if short := _too_little(cells, n, k):
        return [Forecast(law, k, {}, None, None, None, None, short) for law in LAWS]
    rng = random.Random(seed)
    resampled = [Counter(rng.choices([*cells], [*cells.values()], k=len(outcomes))) for _ in range(draws)]
    return [_by(law, cells, resampled, n, k) for law in LAWS]


_Cells = Mapping[tuple[int, int], int]
"""How many tasks have c right of all n samples, and `first` right of the first n // 2, by (c, first)."""


def _counts(cells: _Cells, n: int, *, half: bool = False) -> Counts:
    counts: Counter[tuple[int, int]] = Counter()
    for (c, first), tasks in cells.items():
        counts[(n // 2, first) if half else (n, c)] += tasks
    return counts


def _too_little(cells: _Cells, n: int, k: int) -> str:
    tasks = sum(cells.values())
    telling = sum(count for (c, _), count in cells.items() if 0 < c < n)
    if tasks < MIN_TASKS:
        return f"{tasks} tasks; at least {MIN_TASKS} are needed"
    if n < MIN_SAMPLES:
        return f"{n} samples of each task; at least {MIN_SAMPLES} are needed"
    if telling < MIN_TELLING:
        return f"only {telling} tasks have right and wrong samples both; at least {MIN_TELLING} are needed"
    return f"{k} is more than {MAX_REACH} times the {n} samples there are" if k > MAX_REACH * n else ""


def _by(law: str, cells: _Cells, resampled: Sequence[_Cells], n: int, k: int) -> Forecast:
    fit = LAWS[law]
    fitted = fit(_counts(cells, n), None)
    parameters = dataclasses.asdict(fitted)
    check = hold_out(fit, cells, resampled, n)
    value, observed = fitted.coverage(k), _covered(cells)
    drawn = [fit(_counts(each, n), fitted) for each in resampled]
    low, high = _interval(value, [each.coverage(k) for each in drawn], sum(cells.values()))
    refused = ""
    if fitted.at_bound:
        refused = "the fit ends at a bound of its parameters, so the data do not tell them"
    elif check.missed:
        refused = (
            f"the hold-out check misses: {check.forecast:.3f} was forecast from {check.fitted} samples for "
            f"{check.asked}, and {check.observed:.3f} observed"
        )
    elif off := _off_the_curve(fitted, cells, list(zip(drawn, resampled, strict=True))[:CHECKS], n):
        refused = off
    elif k > n and value < observed:
        refused = f"{value:.3f} is less than the {observed:.3f} that was observed with {n} samples"
    elif high - low > MAX_WIDTH:
        refused = f"the interval is {low:.2f} to {high:.2f}, which says too little"
    if refused:
        return Forecast(law, k, parameters, None, None, None, check, refused)
    return Forecast(law, k, parameters, value, low, high, check)


def _off_the_curve(fitted: BetaBinomial, cells: _Cells, drawn: Sequence[tuple[BetaBinomial, _Cells]], n: int) -> str:
    """Where the law does not pass through what was sampled, in words; "" where it does."""
    seen = points(_counts(cells, n), n)
    resampled = [[law.coverage(k) - c for k, c in points(_counts(each, n), n)] for law, each in drawn]
    for place, (k, coverage) in sorted(enumerate(seen), reverse=True):
        miss = fitted.coverage(k) - coverage
        if abs(miss) > max(MISS, VERY_WIDE * stdev(misses[place] for misses in resampled)):
            return (
                f"the law misses what was sampled: it says {fitted.coverage(k):.3f} for {k} samples, "
                f"and {coverage:.3f} was observed"
            )
    return ""


def hold_out(fit: Fit, cells: _Cells, resampled: Sequence[_Cells], n: int) -> HoldOut:
    """The check that stands beside a forecast."""
    seen = fit(_counts(cells, n, half=True), None)
    told, observed = seen.coverage(n), _covered(cells)
    misses = [fit(_counts(each, n, half=True), seen).coverage(n) - _covered(each) for each in resampled[:CHECKS]]
    reach = WIDE * stdev(misses)
    return HoldOut(n // 2, n, told, observed, told - observed - reach, told - observed + reach)


def _covered(cells: _Cells) -> float:
    return sum(count for (c, _), count in cells.items() if c) / sum(cells.values())


@functools.cache
def _ks(n: int) -> list[int]:
    return sorted({round(n ** (i / (POINTS - 1))) for i in range(POINTS)})


@functools.cache
def _row(n: int, c: int) -> list[float]:
    return [pass_at_k(n, c, k) for k in _ks(n)]


def points(counts: Counts, n: int) -> list[tuple[int, float]]:
    """Up to POINTS points (k, coverage), k evenly spaced from 1 to n on a logarithmic scale."""
    total = sum(counts.values())
    sums = [0.0] * len(_ks(n))
    for (_, c), tasks in counts.items():
        sums = [so_far + tasks * value for so_far, value in zip(sums, _row(n, c), strict=True)]
    return [(k, each / total) for k, each in zip(_ks(n), sums, strict=True)]


LAWS: dict[str, Fit] = {"inflated beta-binomial": fit_inflated, "beta-binomial": fit_beta_binomial}


def _interval(value: float, drawn: Sequence[float], tasks: int) -> tuple[float, float]:
    """The normal interval on the scale log(-log(1 - coverage)), taken back."""
    reach = _t(tasks - 2) * stdev(map(_stretched, drawn))
    middle = _stretched(value)
    low, high = (-math.expm1(-math.exp(middle + side * reach)) for side in (-1, 1))
    return low, high


def _stretched(coverage: float) -> float:
    return math.log(-math.log1p(-min(1 - 1e-12, max(1e-12, coverage))))


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's t, by its expansion about the normal's; to 0.002 from 8 degrees of freedom on."""
    return 1.95996 + 2.3723 / freedom + 2.8225 / freedom**2
