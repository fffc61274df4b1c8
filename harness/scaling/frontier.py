"""What to buy: for each budget the model and number of samples that solve most, and mixtures of models.

Budgets and costs are USD for one task. Models are compared on the tasks that all of them have.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from statistics import fmean

from harness.scaling.curves import Draws, Estimate, by_task, difference, ks_up_to, measures, usd_by_task
from harness.scaling.samples import Model

SPLITS = 20
"""Random halvings of the tasks for the honest value of a mixture."""
SHOWN = 6
"""Mixtures along the path that are told where no budget is named."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """`k` samples of `model` for each task: the share of tasks solved, at `usd` a task."""

    model: str
    k: int
    solved: Estimate
    usd: Estimate


@dataclass(frozen=True, slots=True)
class Best:
    """The purchase within a budget that solves most. `sure`: the share of the bootstraps in which its model does.

    `runner_up`: the best of another model, and `ahead` by how much it is beaten, paired (None where there is none).
    """

    budget: float
    purchase: Purchase
    sure: float
    runner_up: Purchase | None
    ahead: Estimate | None


@dataclass(frozen=True, slots=True)
class Versus:
    """`first` against `second`: solved and USD a task, first less second, paired."""

    first: Purchase
    second: Purchase
    solved: Estimate
    usd: Estimate


@dataclass(frozen=True, slots=True)
class Mixture:
    """Samples of several models, by name, for each task; coverage and USD a task.

    `honest`: its coverage where the mixture was chosen on other tasks than it was measured on, and `gain` what that has
    over the best purchase of a single model for the same money, chosen likewise (means over random halvings of the
    tasks).
    """

    samples: Mapping[str, int]
    solved: Estimate
    usd: Estimate
    honest: float
    gain: float


@dataclass(frozen=True, slots=True)
class _Option:
    model: str
    k: int
    solved: Mapping[str, float]
    usd: Mapping[str, float]

    def purchase(self, draws: Draws) -> Purchase:
        return Purchase(self.model, self.k, draws.estimate(self.solved), draws.plain(self.usd))


def shared(models: Sequence[Model]) -> list[Model]:
    """The models, on the tasks for which each has its depth of samples."""
    whole = [model.whole() for model in models]
    common = set.intersection(*(set(model.tasks) for model in whole)) if whole else set()
    return [Model(m.name, {i: m.tasks[i] for i in sorted(common)}, m.ranked, m.settled) for m in whole]


def _option(model: Model, k: int, measure: str, submissions: int) -> _Option:
    return _Option(model.name, k, by_task(model, measures(model, submissions)[measure], k), usd_by_task(model, k))


def frontier(
    models: Sequence[Model],
    draws: Draws,
    *,
    measure: str = "coverage",
    submissions: int = 1,
    budgets: Sequence[float] = (),
) -> list[Best]:
    """The best purchase at each budget; without budgets, at each at which it changes. Models without prices are passed
    over.

    `models`: of the same tasks (see `shared`). A budget that buys nothing has no row.
    """
    able = [model for model in models if model.priced and measure in measures(model, submissions)]
    options = [_option(model, k, measure, submissions) for model in able for k in ks_up_to(model.depth)]
    means = [(fmean(o.usd.values()), fmean(o.solved.values())) for o in options]
    drawn = [(draws.means(o.usd), draws.means(o.solved)) for o in options]
    rows = []
    for budget in budgets or _steps(means):
        within = [i for i, (usd, _) in enumerate(means) if usd <= budget * (1 + 1e-9)]
        if not within:
            continue
        best = max(within, key=lambda i: (means[i][1], -means[i][0]))
        others = [i for i in within if options[i].model != options[best].model]
        second = max(others, key=lambda i: (means[i][1], -means[i][0]), default=None)
        rows.append(
            Best(
                budget,
                options[best].purchase(draws),
                _sure(best, options, drawn, budget),
                None if second is None else options[second].purchase(draws),
                None if second is None else difference(options[best].solved, options[second].solved, draws),
            )
        )
    return rows


def _steps(means: Sequence[tuple[float, float]]) -> list[float]:
    """The costs at which something cheaper solves less."""
    steps, best = [], -1.0
    for usd, solved in sorted(means, key=lambda each: (each[0], -each[1])):
        if solved > best + 1e-9:
            steps.append(usd)
            best = solved
    return steps


def _sure(
    best: int, options: Sequence[_Option], drawn: Sequence[tuple[Sequence[float], Sequence[float]]], budget: float
) -> float:
    """In how many draws of tasks the model of `best` has the best purchase within the budget."""
    wins, count = 0, len(drawn[best][0])
    for at in range(count):
        top: dict[str, float] = {}
        for option, (usd, solved) in zip(options, drawn, strict=True):
            if usd[at] <= budget * (1 + 1e-9) or option is options[best]:
                top[option.model] = max(top.get(option.model, -1.0), solved[at])
        wins += top[options[best].model] >= max(top.values())
    return wins / count


Offer = tuple[Model, int]
"""So many samples of a model for each task."""


def versus(first: Offer, second: Offer, draws: Draws, *, measure: str = "coverage", submissions: int = 1) -> Versus:
    """Two purchases compared on the tasks that both models have; both must be priced and have as many samples."""
    one, other = (_option(model, k, measure, submissions) for model, k in (first, second))
    solved, usd = difference(one.solved, other.solved, draws), difference(one.usd, other.usd, draws)
    return Versus(one.purchase(draws), other.purchase(draws), solved, usd)


def cheap_or_dear(models: Sequence[Model], draws: Draws) -> list[Versus]:
    """For each pair of priced models: one sample of the dearer against the cheaper's for that money (at least one)."""
    priced = [m for m in models if m.priced]
    cost = {m.name: fmean(usd_by_task(m, 1).values()) for m in priced}
    ordered = sorted(priced, key=lambda m: cost[m.name])
    return [
        versus((cheap, max(1, min(cheap.depth, int(cost[dear.name] / cost[cheap.name] + 1e-9)))), (dear, 1), draws)
        for cheap, dear in combinations(ordered, 2)
        if cost[cheap.name] > 0
    ]


def evenly(count: int, shown: int) -> list[int]:
    """`shown` places of `count`, or all where there are fewer, with the first and the last."""
    return sorted({round(i * (count - 1) / (shown - 1)) for i in range(shown)})


_Priced = tuple[float, float, dict[str, int]]
"""The cost in USD of a mixture for one task, its coverage, and the mixture."""


class _Pool:
    """Coverage and cost of mixtures of priced models, by task."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = [m for m in models if m.priced]
        self.missed: dict[str, list[dict[str, float]]] = {}
        for model in self.models:
            way = measures(model)["coverage"]
            rows = [dict.fromkeys(model.tasks, 0.0), *(by_task(model, way, k) for k in range(1, model.depth + 1))]
            self.missed[model.name] = [{task: 1.0 - value for task, value in row.items()} for row in rows]
        self.usd = {m.name: usd_by_task(m, 1) for m in self.models}

    def solved(self, samples: Mapping[str, int], tasks: Sequence[str]) -> dict[str, float]:
        return {task: 1.0 - prod(self.missed[name][k][task] for name, k in samples.items()) for task in tasks}

    def cost(self, samples: Mapping[str, int], tasks: Sequence[str]) -> dict[str, float]:
        return {task: sum(k * self.usd[name][task] for name, k in samples.items()) for task in tasks}

    def path(self, tasks: Sequence[str]) -> list[dict[str, int]]:
        """Greedy: each next sample from the model whose sample adds most coverage for a dollar."""
        samples = {m.name: 0 for m in self.models}
        price = {name: fmean(costs[t] for t in tasks) for name, costs in self.usd.items()}
        left = dict.fromkeys(tasks, 1.0)
        found: list[dict[str, int]] = []
        while True:
            gains = {}
            for model in self.models:
                k = samples[model.name]
                if k < model.depth:
                    rows = self.missed[model.name]
                    gain = sum(left[t] * (1 - rows[k + 1][t] / rows[k][t]) for t in tasks if rows[k][t] > 0)
                    gains[model.name] = gain / max(price[model.name], 1e-12)
            if not gains:
                return found
            name = max(gains, key=lambda each: gains[each])
            samples[name] += 1
            left = {t: 1 - value for t, value in self.solved(samples, tasks).items()}
            found.append(dict(samples))

    def priced(self, mixed: Sequence[dict[str, int]], tasks: Sequence[str]) -> list[_Priced]:
        """Each mixture with its mean cost and coverage over the tasks."""
        return [(fmean(self.cost(m, tasks).values()), fmean(self.solved(m, tasks).values()), m) for m in mixed]


def mixtures(models: Sequence[Model], draws: Draws, *, budgets: Sequence[float] = ()) -> list[Mixture]:
    """SHOWN mixtures along the greedy path, or for each budget the one that solves most. `models`: of the same tasks
    (see `shared`).

    A sample of one model says nothing of another's luck on the same task, so coverage of a mixture on a task is 1 -
    product over models of (1 - pass@k). As coverage has diminishing returns, the greedy path is near the best mixture.
    Empty with fewer than two priced models.
    """
    pool = _Pool(models)
    if len(pool.models) < 2:
        return []
    tasks = sorted(pool.models[0].tasks)
    priced = pool.priced(pool.path(tasks), tasks)
    if budgets:
        chosen = [_within(priced, budget) for budget in budgets]
        path = [each for i, each in enumerate(chosen) if each and each not in chosen[:i]]
    else:
        path = [priced[i][2] for i in evenly(len(priced), SHOWN)]
    costs = [fmean(pool.cost(samples, tasks).values()) for samples in path]
    return [
        Mixture(
            {name: k for name, k in samples.items() if k},
            draws.estimate(pool.solved(samples, tasks)),
            draws.plain(pool.cost(samples, tasks)),
            honest,
            honest - single,
        )
        for samples, (honest, single) in zip(path, _honest(pool, tasks, costs), strict=True)
    ]


def _within(priced: Sequence[_Priced], budget: float) -> dict[str, int] | None:
    """The mixture of most coverage within the budget."""
    fitting = [each for each in priced if each[0] <= budget * (1 + 1e-9)]
    return max(fitting, key=lambda each: each[1])[2] if fitting else None


def _honest(pool: _Pool, tasks: Sequence[str], budgets: Sequence[float]) -> list[tuple[float, float]]:
    """For each budget, coverage on one half of the tasks by the mixture and the single model chosen on the other."""
    rng = random.Random(0)
    alone = [{m.name: k} for m in pool.models for k in range(1, m.depth + 1)]
    found: list[list[tuple[float, float]]] = [[] for _ in budgets]
    for _ in range(SPLITS):
        shuffled = rng.sample(list(tasks), len(tasks))
        half = len(tasks) // 2
        for seen, unseen in ((shuffled[:half], shuffled[half:]), (shuffled[half:], shuffled[:half])):
            if not seen:
                continue
            mixed, single = pool.priced(pool.path(seen), seen), pool.priced(alone, seen)
            for row, budget in zip(found, budgets, strict=True):
                both = (_within(mixed, budget), _within(single, budget))
                one, other = (fmean(pool.solved(each, unseen).values()) if each else 0.0 for each in both)
                row.append((one, other))
    return [(fmean(one for one, _ in row), fmean(other for _, other in row)) if row else (0.0, 0.0) for row in found]
