"""How what is solved grows with samples and with dollars: curves with 95 % intervals, by bootstrap over tasks.

All intervals of one report use the same draws of tasks (`Draws`), so differences between models and measures are
paired: they are computed within each draw. Percentile intervals; where every task has the value 0, or every task 1, the
exact binomial bound.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.scaling.metrics import BOOTSTRAPS, majority_right, pass_at_k, solved_by_best
from harness.scaling.samples import Model, Sample, clusters, ranking

LOW, HIGH = 0.025, 0.975
ALL_UP_TO = 16
"""Every k up to this is on a curve; above, POINTS of them, evenly spaced on a logarithmic scale."""
POINTS = 16
SPREAD_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Spread:
    """What k samples of one task cost, in USD: the 5 %, 50 % and 95 % points over tasks and choices of samples."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """k samples of each task: the share solved, the mean cost of a task in USD and its spread (None where unknown)."""

    k: int
    solved: Estimate
    usd: Estimate | None
    spread: Spread | None


@dataclass(frozen=True, slots=True)
class Curve:
    """One measure ("coverage", "selected", "majority") of one model over `tasks` tasks."""

    model: str
    measure: str
    tasks: int
    points: tuple[Point, ...]


class Draws:
    """Tasks drawn with replacement, the same for whatever is asked."""

    def __init__(self, tasks: Sequence[str], *, draws: int = BOOTSTRAPS, seed: int = 0) -> None:
        self.tasks = sorted(tasks)
        rng = random.Random(seed)
        size = len(self.tasks)
        self._drawn = [rng.choices(range(size), k=size) for _ in range(draws)]

    def means(self, values: Mapping[str, float]) -> list[float]:
        """The mean of the tasks' values in each draw; tasks without a value are passed over."""
        row = [values.get(task) for task in self.tasks]
        full = [value for value in row if value is not None]
        if len(full) == len(row):
            return [math.fsum(map(full.__getitem__, drawn)) / len(drawn) for drawn in self._drawn]
        found = []
        for drawn in self._drawn:
            there = [value for value in map(row.__getitem__, drawn) if value is not None]
            if there:
                found.append(math.fsum(there) / len(there))
        return found

    def estimate(self, values: Mapping[str, float]) -> Estimate:
        """The mean over tasks (at least one) and its interval."""
        if set(values.values()) in ({0.0}, {1.0}):
            rest = 1.0 - LOW ** (1 / len(values))
            value = next(iter(values.values()))
            return Estimate(value, min(value, 1.0 - rest), max(value, rest))
        return self.plain(values)

    def plain(self, values: Mapping[str, float]) -> Estimate:
        """The mean over tasks of values that are no shares (dollars, differences), and its interval by percentiles."""
        ordered = sorted(self.means(values))
        last = len(ordered) - 1
        return Estimate(fmean(values.values()), ordered[round(LOW * last)], ordered[round(HIGH * last)])


Measure = Callable[[Sequence[Sample], int], float]


def measures(model: Model) -> dict[str, Measure]:
    """What can be told of a model's samples: coverage; selected where ranked, majority where patches have names."""
    found: dict[str, Measure] = {
        "coverage": lambda samples, k: pass_at_k(len(samples), sum(s.right for s in samples), k)
    }
    if model.ranked:
        found["selected"] = lambda samples, k: solved_by_best(*ranking(samples), k, model.submissions)
    if model.named:
        found["majority"] = lambda samples, k: majority_right(*clusters(samples), k)
    return found


def by_task(model: Model, measure: Measure, k: int) -> dict[str, float]:
    """The measure at k of every task; all must have k samples."""
    return {task: measure(samples, k) for task, samples in model.tasks.items()}


def usd_by_task(model: Model, k: int) -> dict[str, float]:
    """What k samples of each task are expected to cost; only for a priced model."""
    return {task: k * fmean(s.usd or 0.0 for s in samples) for task, samples in model.tasks.items()}


def ks_up_to(depth: int) -> list[int]:
    """The k that a curve has points at: all of 1 to ALL_UP_TO, of a deeper one POINTS evenly spaced on a log scale."""
    if depth <= ALL_UP_TO:
        return list(range(1, depth + 1))
    return sorted({round(depth ** (i / (POINTS - 1))) for i in range(POINTS)})


def curves(model: Model, draws: Draws) -> list[Curve]:
    """Every measure of a model, on the tasks that have its depth of samples; none where there is no sample."""
    whole = model.whole()
    if not whole.depth:
        return []
    ks = ks_up_to(whole.depth)
    usd = {k: draws.plain(usd_by_task(whole, k)) if whole.priced else None for k in ks}
    spread = {k: _spread(whole, k) if whole.priced else None for k in ks}
    found = []
    for name, measure in measures(whole).items():
        points = [Point(k, draws.estimate(by_task(whole, measure, k)), usd[k], spread[k]) for k in ks]
        found.append(Curve(model.name, name, len(whole.tasks), tuple(points)))
    return found


def _spread(model: Model, k: int) -> Spread:
    rng = random.Random(k)
    pool = [[s.usd or 0.0 for s in samples] for samples in model.tasks.values()]
    drawn = sorted(math.fsum(rng.sample(rng.choice(pool), k)) for _ in range(SPREAD_DRAWS))
    return Spread(*(drawn[round(share * (SPREAD_DRAWS - 1))] for share in (0.05, 0.5, 0.95)))


def difference(first: Mapping[str, float], second: Mapping[str, float], draws: Draws) -> Estimate:
    """The mean of first - second over the tasks that have both, paired."""
    return draws.plain({task: first[task] - second[task] for task in first.keys() & second.keys()})
