"""All that a report says of graded samples, as data: curves, what to buy, forecasts."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.records import Json
from harness.scaling.curves import Curve, Draws, Estimate, by_task, curves, difference, measures
from harness.scaling.forecast import Forecast, forecast
from harness.scaling.frontier import Best, frontier, shared
from harness.scaling.metrics import BOOTSTRAPS, recovery
from harness.scaling.samples import Model
from tasks.errors import InputError

Missing = Literal["leave-out", "wrong"]
STUDY_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """One model at its depth n: `tasks` have n samples, `left_out` fewer. `recovery`: (selected - mean@1) / (oracle -
    mean@1)."""

    model: str
    tasks: int
    left_out: int
    depth: int
    mean_at_1: Estimate
    oracle: Estimate
    selected: Estimate | None
    over_random: Estimate | None
    recovery: float | None


@dataclass(frozen=True, slots=True)
class Study:
    """`common`: the tasks that all models are compared on. `forecasts`: by model."""

    submissions: int
    missing: Missing
    ungraded: int
    common: int
    summaries: tuple[Summary, ...]
    curves: tuple[Curve, ...]
    frontier: tuple[Best, ...]
    frontier_measure: str
    forecasts: Mapping[str, tuple[Forecast, ...]]

    def to_json(self) -> Json:
        """One JSON document; shares are 0..1, money USD for a task."""
        return {"schema": STUDY_SCHEMA, **dataclasses.asdict(self)}


def study(
    models: Sequence[Model],
    *,
    ungraded: int = 0,
    submissions: int = 1,
    missing: Missing = "leave-out",
    budgets: Sequence[float] = (),
    forecast_to: Sequence[int] = (),
    draws: int = BOOTSTRAPS,
) -> Study:
    """Everything about these models. `missing` "wrong": a task or sample that a model lacks gave no patch, and counts
    as wrong. Raises InputError without a sample, or without a task that all of them have."""
    tasks = sorted({task for model in models for task in model.tasks})
    if not tasks:
        raise InputError("there are no graded samples to report on")
    if missing == "wrong":
        models = [model.padded(tasks) for model in models]
    models = [replace(model, submissions=submissions) for model in models]
    drawn = Draws(tasks, draws=draws)
    together = shared(models)
    common = len(together[0].tasks)
    if not common and len(models) > 1:
        raise InputError(
            "the models have no task in common that each has its full number of samples of; try --missing wrong"
        )
    ranked = all("selected" in measures(model) for model in together)
    measure = "selected" if ranked else "coverage"
    # A free model needs no budget.
    budgeted = [m for m in together if m.priced and any(s.usd for of_task in m.tasks.values() for s in of_task)]
    return Study(
        submissions,
        missing,
        ungraded,
        common,
        tuple(summary(model, drawn) for model in models if model.depth),
        tuple(curve for model in models for curve in curves(model, drawn)),
        tuple(frontier(budgeted, drawn, measure=measure, budgets=budgets)),
        measure,
        {model.name: forecasts(model, forecast_to, draws) for model in models if model.depth} if forecast_to else {},
    )


def summary(model: Model, draws: Draws) -> Summary:
    """What one model came to; it must have a sample."""
    whole = model.whole()
    ways = measures(whole)
    first = by_task(whole, ways["coverage"], 1)
    oracle = by_task(whole, ways["coverage"], whole.depth)
    chosen = by_task(whole, ways["selected"], whole.depth) if "selected" in ways else None
    mean, most = draws.estimate(first), draws.estimate(oracle)
    selected = None if chosen is None else draws.estimate(chosen)
    return Summary(
        model.name,
        len(whole.tasks),
        len(model.tasks) - len(whole.tasks),
        whole.depth,
        mean,
        most,
        selected,
        None if chosen is None else difference(chosen, first, draws),
        None if selected is None else recovery(mean.value, selected.value, most.value),
    )


def forecasts(model: Model, ks: Sequence[int], draws: int) -> tuple[Forecast, ...]:
    """Each law's forecast of coverage at each k, by as many first samples as is the model's depth."""
    whole = model.whole()
    outcomes = [[s.right for s in samples[: whole.depth]] for samples in whole.tasks.values()]
    return tuple(each for k in ks for each in forecast(outcomes, k, draws=draws))
