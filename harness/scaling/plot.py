"""A study as a picture file: PNG, SVG or HTML, by matplotlib (the extra `plots`). The only module that imports it."""

from __future__ import annotations

import html
import importlib.util
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.scaling.chart import COLOURS
from harness.scaling.curves import Curve
from harness.scaling.forecast import Forecast
from harness.scaling.study import Study
from harness.scaling.view import study_view
from tasks.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".html")
STYLES = {"coverage": ("-", "o"), "selected": ("--", "s"), "majority": (":", "^")}
"""Line and marker of each measure: told apart without colour."""
DOTS_PER_INCH = 160
INCHES_PER_LETTER = 0.078
"""Of the legend's type, about."""


def check_ending(path: Path) -> None:
    """Raise InputError, before the work is done, where the file's name is no picture's, or matplotlib is missing."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--plot {path}: the file's name must end in {', '.join(ENDINGS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib: pip install 'troop[plots]'")


def plot(study: Study, path: Path) -> None:
    """Draw solved tasks over samples and, where known, dollars. Raises InputError if the file cannot be written."""
    check_ending(path)
    kind = path.suffix.lower()
    picture = draw(study)
    try:
        if kind != ".html":
            picture.savefig(path, format=kind[1:], dpi=DOTS_PER_INCH)
        else:
            path.write_text(_page(study, picture), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def draw(study: Study) -> Figure:
    """The figure; nothing is written."""
    from matplotlib.figure import Figure

    priced = [c for c in study.curves if c.points[-1].usd is not None and c.points[-1].usd.value > 0]
    panels = 2 if priced else 1
    figure = Figure(figsize=(6.4 * panels, 5.2), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    models = list(dict.fromkeys(curve.model for curve in study.curves))
    for curve in study.curves:
        _curve(axes[0], curve, models, dollars=False)
    for model, told in study.forecasts.items():
        _forecast(axes[0], model, told, study.curves, models)
    _finish(axes[0], "samples of each task (k)", "tasks solved", whole=True)
    if priced:
        for curve in priced:
            _curve(axes[1], curve, models, dollars=True)
        _finish(axes[1], "USD for each task", "", whole=False)
    handles, labels = axes[0].get_legend_handles_labels()
    room = int(6.4 * panels / (INCHES_PER_LETTER * (max(map(len, labels)) + 6)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(len(labels), room)), frameon=False, fontsize=9
    )
    return figure


def _curve(axes: Axes, curve: Curve, models: Sequence[str], *, dollars: bool) -> None:
    if len(curve.points) == 1 and curve.measure != "coverage":
        return
    colour = COLOURS[models.index(curve.model) % len(COLOURS)]
    line, marker = STYLES[curve.measure]
    x = [p.usd.value if dollars and p.usd else p.k for p in curve.points]
    y = [100 * p.solved.value for p in curve.points]
    low, high = ([100 * getattr(p.solved, side) for p in curve.points] for side in ("low", "high"))
    name = f"{curve.measure}@k"
    if curve.measure == "coverage":
        name = f"coverage (mean@1 {y[0]:.1f}, oracle {y[-1]:.1f})" if len(y) > 1 else f"mean@1 {y[0]:.1f}"
    if len(x) == 1:
        # a little to the side of each other, so that intervals of several models can be seen
        x = [x[0] * 1.02 ** (models.index(curve.model) - (len(models) - 1) / 2)]
        axes.errorbar(x, y, yerr=[[y[0] - low[0]], [high[0] - y[0]]], color=colour, capsize=3, zorder=2)
    elif curve.measure != "majority":
        axes.fill_between(x, low, high, color=colour, alpha=0.16 if curve.measure == "coverage" else 0.09, linewidth=0)
    axes.plot(x, y, line, marker=marker, markersize=4, color=colour, label=f"{curve.model}: {name}", zorder=3)
    if curve.measure == "coverage" and len(x) > 1 and not dollars:
        axes.axhline(y[0], color=colour, linewidth=0.8, alpha=0.6, linestyle=(0, (1, 3)))


def _forecast(axes: Axes, model: str, told: Sequence[Forecast], curves: Sequence[Curve], models: Sequence[str]) -> None:
    """The forecasts that were not refused, as points with their intervals, joined to the end of the curve."""
    colour = COLOURS[models.index(model) % len(COLOURS)]
    start = next(c.points[-1] for c in curves if c.model == model and c.measure == "coverage")
    laws = list(dict.fromkeys(each.law for each in told if each.coverage is not None))
    for place, law in enumerate(laws):
        points = [(start.k, start.solved.value, 0.0, 0.0)]
        for each in told:
            if each.law == law and each.coverage is not None and each.low is not None and each.high is not None:
                points.append((each.k, each.coverage, each.coverage - each.low, each.high - each.coverage))
        nudge = 1.05 ** (place - (len(laws) - 1) / 2)
        x = [points[0][0], *(k * nudge for k, _, _, _ in points[1:])]
        axes.errorbar(
            x,
            [100 * y for _, y, _, _ in points],
            yerr=[[100 * down for _, _, down, _ in points], [100 * up for _, _, _, up in points]],
            color=colour,
            linestyle=(0, (4, 3)),
            linewidth=1.0,
            marker="DvP"[place % 3],
            markersize=5,
            markerfacecolor="white",
            capsize=3,
            label=f"{model}: forecast, {law}",
            zorder=4,
        )


def _finish(axes: Axes, x_label: str, y_label: str, *, whole: bool) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator(ticks(low, high, whole=whole)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if whole else f"${x:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """Round numbers for a logarithmic axis, three to ten of them where there are as many. `whole`: no fractions."""
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [step * 10.0**power for power in powers for step in steps]
        found = [x for x in every if low <= x <= high and not (whole and x % 1)]
        if len(found) >= 4:
            break
    return found


def _page(study: Study, picture: Figure) -> str:
    """The picture and the tables as one page that needs nothing else."""
    drawing = io.StringIO()
    picture.savefig(drawing, format="svg")
    svg = drawing.getvalue()
    console = Console(file=io.StringIO(), record=True, width=110, force_terminal=True, highlight=False)
    for each in study_view(study, charts=False):
        console.print(each)
    tables = console.export_html(inline_styles=True, code_format="{code}")
    title = html.escape(", ".join(dict.fromkeys(c.model for c in study.curves)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>troop report: {title}</title>\n'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}"
        "svg{width:100%;height:auto}pre{overflow-x:auto;font-size:13px}</style></head>\n"
        f"<body><h1>{title}</h1>\n{svg[svg.index('<svg') :]}\n<pre>{tables}</pre></body></html>\n"
    )
