"""A study for a person, in 80 columns. Pure: data to renderables."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.scaling.curves import Curve, Estimate
from harness.scaling.forecast import Forecast
from harness.scaling.frontier import Purchase, evenly
from harness.scaling.study import Study, Summary
from harness.views.picture import table
from harness.views.words import clean

SHOWN_KS = 12
"""Rows of a model's table; the JSON has all."""


def study_view(study: Study) -> list[RenderableType]:
    """Tables, in order."""
    view: list[RenderableType] = [*_heading(study), _summaries(study.summaries)]
    for name in dict.fromkeys(curve.model for curve in study.curves):
        view += [Text(), _table([c for c in study.curves if c.model == name])]
    if study.frontier:
        view += [Text(), _frontier(study)]
    for name, told in study.forecasts.items():
        view += [Text(), _forecasts(name, told)]
    return view


def share(value: float) -> str:
    """A share in per cent, one digit."""
    return f"{100 * value:.1f}"


def span(estimate: Estimate | None) -> str:
    """A share and its interval, in per cent; two digits of the interval are enough."""
    if estimate is None:
        return "-"
    low, high = (f"{100 * x:.{1 if abs(x) < 0.0995 else 0}f}" for x in (estimate.low, estimate.high))
    return f"{share(estimate.value)} [{low}, {high}]"


def usd(value: float) -> str:
    """Dollars, three significant digits."""
    return f"${value:.2f}" if value >= 1 else f"${value:.3g}"


def _heading(study: Study) -> list[Text]:
    notes = [Text("All in per cent, with 95 % intervals by bootstrap over tasks.", "dim")]
    if study.ungraded:
        notes.append(Text(f"{study.ungraded} samples have no outcome and are left out.", "yellow"))
    if study.missing == "wrong":
        notes.append(Text("Samples that a model lacks count as wrong, at the mean cost of its others.", "yellow"))
    for each in study.summaries:
        if each.left_out:
            few = f"{each.left_out} tasks have fewer than {each.depth} samples and are left out."
            notes.append(Text(f"{clean(each.model)}: {few}", "yellow"))
    return notes


def _summaries(summaries: Iterable[Summary]) -> RenderableType:
    shown = table("model", "tasks", ">n", ">mean@1", ">selected@n", ">oracle", ">recovery")
    for each in summaries:
        shown.add_row(
            clean(each.model),
            str(each.tasks),
            str(each.depth),
            span(each.mean_at_1),
            span(each.selected),
            span(each.oracle),
            "-" if each.recovery is None else f"{each.recovery:.2f}",
        )
    return shown


def _titled(title: str, shown: RenderableType) -> RenderableType:
    return Group(Text(title, "bold"), shown)


def _table(curves: Sequence[Curve]) -> RenderableType:
    costs = curves[0].points[-1].usd is not None and curves[0].points[-1].spread is not None
    first, *others = (f"{c.measure}@k" for c in curves)
    shown = table("k", first, *(f">{each}" for each in others), *((">USD a task", ">5-95 %") if costs else ()))
    for at in evenly(len(curves[0].points), SHOWN_KS):
        point = curves[0].points[at]
        money = []
        if point.usd is not None and point.spread is not None:
            money = [usd(point.usd.value), f"{usd(point.spread.low)} to {usd(point.spread.high)}"]
        shown.add_row(str(point.k), *(span(c.points[at].solved) for c in curves), *money)
    return _titled(clean(curves[0].model), shown)


def _frontier(study: Study) -> RenderableType:
    shown = table("up to", "buy", f">{study.frontier_measure}", ">sure", ">ahead of")
    for row in study.frontier:
        sure, ahead = "-", "-"
        if row.runner_up is not None:
            sure, ahead = f"{100 * row.sure:.0f} %", f"{_samples(row.runner_up)} by {span(row.ahead)}"
        shown.add_row(usd(row.budget), _samples(row.purchase), span(row.purchase.solved), sure, ahead)
    return _titled("The most for each budget (USD a task)", shown)


def _samples(bought: Purchase) -> str:
    return f"{bought.k} × {clean(bought.model)}"


def _forecasts(model: str, told: Sequence[Forecast]) -> RenderableType:
    ks = list(dict.fromkeys(each.k for each in told))
    title = f"Forecast: {clean(model)}"
    if not any(each.parameters for each in told):
        refusal = f" to k = {', '.join(map(str, ks))} refused: {told[0].refused}"
        return Text.assemble((title, "bold"), (refusal, "yellow"))
    shown = table("law", *(f"k = {k}" for k in ks[:1]), *(f">k = {k}" for k in ks[1:]), "fit", "hold-out check")
    reasons: dict[str, list[str]] = {}
    for law in dict.fromkeys(each.law for each in told):
        row = [each for each in told if each.law == law]
        shown.add_row(law, *map(_told, row), _fit(row[0]), _check(row[0]))
    for each in (each for each in told if each.refused):
        reasons.setdefault(each.refused, []).append(f"{each.law} to {each.k}")
    notes = [Text(f"refused ({', '.join(which)}): {why}", "yellow") for why, which in reasons.items()]
    for k in ks:  # where laws pass their checks and still differ, the range over them is what is known
        passed = [(e.low, e.high) for e in told if e.k == k and e.low is not None and e.high is not None]
        if len(passed) > 1:
            low, high = min(low for low, _ in passed), max(high for _, high in passed)
            notes.append(Text(f"k = {k}: between {share(low)} and {share(high)} over the laws that passed."))
    return Group(_titled(title, shown), *notes)


def _told(each: Forecast) -> str:
    if each.coverage is None or each.low is None or each.high is None:
        return "refused"
    return span(Estimate(each.coverage, each.low, each.high))


def _fit(each: Forecast) -> str:
    names = {"alpha": "α", "beta": "β", "unsolvable": "never"}
    return " ".join(f"{names.get(name, name)} {value:.2g}" for name, value in each.parameters.items() if value) or "-"


def _check(each: Forecast) -> str:
    held = each.hold_out
    if held is None:
        return "-"
    return f"{held.fitted}→{held.asked}: {share(held.forecast)}, was {share(held.observed)}"
