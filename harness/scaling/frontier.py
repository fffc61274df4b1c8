"""What to buy: for each budget the model and number of samples that solve most.

Budgets and costs are USD for one task. Models are compared on the tasks that all of them have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.scaling.curves import Draws, Estimate, by_task, difference, ks_up_to, measures, usd_by_task
from harness.scaling.samples import Model


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

    `runner_up`: the best of another model, and `ahead` by how much it is beaten, paired (None where there is none)."""

    budget: float
    purchase: Purchase
    sure: float
    runner_up: Purchase | None
    ahead: Estimate | None


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
    common = sorted(set.intersection(*(set(model.tasks) for model in whole))) if whole else []
    return [replace(model, tasks={i: model.tasks[i] for i in common}) for model in whole]


def frontier(
    models: Sequence[Model], draws: Draws, *, measure: str = "coverage", budgets: Sequence[float] = ()
) -> list[Best]:
    """The best purchase at each budget; without budgets, at each at which it changes. Models without prices are passed
    over.

    `models`: of the same tasks (see `shared`). A budget that buys nothing has no row."""
    sampled = [(m, k) for m in models if m.priced for k in ks_up_to(m.depth)]
    options = [_Option(m.name, k, by_task(m, measures(m)[measure], k), usd_by_task(m, k)) for m, k in sampled]
    means = [(fmean(o.usd.values()), fmean(o.solved.values())) for o in options]
    drawn = [(draws.means(o.usd), draws.means(o.solved)) for o in options]
    rows = []
    for budget in budgets or _steps(means):
        within = [i for i, (usd, _) in enumerate(means) if usd <= budget * (1 + 1e-9)]
        within.sort(key=lambda i: (-means[i][1], means[i][0]))
        if not within:
            continue
        best, *others = (options[i] for i in within)
        second = next((other for other in others if other.model != best.model), None)
        ahead = difference(best.solved, second.solved, draws) if second else None
        runner_up = second.purchase(draws) if second else None
        rows.append(Best(budget, best.purchase(draws), _sure(best, options, drawn, budget), runner_up, ahead))
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
    best: _Option, options: Sequence[_Option], drawn: Sequence[tuple[Sequence[float], Sequence[float]]], budget: float
) -> float:
    """In how many draws of tasks the model of `best` has the best purchase within the budget."""
    wins, count = 0, len(drawn[0][0])
    for at in range(count):
        top: dict[str, float] = {}
        for option, (usd, solved) in zip(options, drawn, strict=True):
            if usd[at] <= budget * (1 + 1e-9) or option is best:
                top[option.model] = max(top.get(option.model, -1.0), solved[at])
        wins += top[best.model] >= max(top.values())
    return wins / count


def evenly(count: int, shown: int) -> list[int]:
    """`shown` places of `count`, or all where there are fewer, with the first and the last."""
    return sorted({round(i * (count - 1) / (shown - 1)) for i in range(shown)})
