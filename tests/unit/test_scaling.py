"""Curves over samples and dollars, what to buy, and how they are told."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from statistics import fmean

import pytest

from harness.scaling.curves import Draws, by_task, curves, difference, ks_up_to, measures
from harness.scaling.frontier import frontier, shared
from harness.scaling.samples import Model, Sample, clusters, ranking, told_apart
from harness.scaling.study import study
from harness.scaling.view import study_view
from tasks.errors import InputError
from tests.unit.test_report import printed


def model(name: str, right: list[int], n: int, usd: float | None, *, ranked: bool = False) -> Model:
    """A model that solved `right[i]` of n samples of task i; a sample costs `usd`."""
    rng = random.Random(name)
    tasks = {}
    for place, count in enumerate(right):
        outcomes = [i < count for i in range(n)]
        rng.shuffle(outcomes)
        tasks[f"t{place:02}"] = tuple(
            Sample(each, usd, "fix" if each else f"w{i}", float(each) + rng.gauss(0, 0.7) if ranked else None)
            for i, each in enumerate(outcomes)
        )
    return Model(name, tasks, ranked)


CHEAP = model("cheap", [0, 0, 1, 1, 2, 3, 4, 5] * 5, 8, 0.1, ranked=True)
DEAR = model("dear", [0, 1, 1, 2, 2, 2, 4, 4] * 5, 4, 1.0, ranked=True)
BOTH = Draws(sorted(CHEAP.tasks), draws=200)


def test_a_curve_starts_at_mean_at_1_and_ends_at_the_oracle() -> None:
    coverage, selected, _ = curves(CHEAP, BOTH)
    assert (coverage.measure, selected.measure) == ("coverage", "selected")
    shares = [fmean(s.right for s in samples) for samples in CHEAP.tasks.values()]
    assert coverage.points[0].solved.value == pytest.approx(fmean(shares))
    assert coverage.points[-1].solved.value == pytest.approx(fmean(share > 0 for share in shares))
    values = [point.solved.value for point in coverage.points]
    assert values == sorted(values)
    assert all(s.solved.value <= c.solved.value + 1e-9 for s, c in zip(selected.points, coverage.points, strict=True))


def test_selected_with_one_sample_is_mean_at_1_and_with_many_submissions_is_coverage() -> None:
    once = measures(CHEAP)["selected"]
    often = measures(replace(CHEAP, submissions=8))["selected"]
    for task, samples in CHEAP.tasks.items():
        assert once(samples, 1) == pytest.approx(fmean(s.right for s in samples)), task
        assert often(samples, 8) == pytest.approx(float(any(s.right for s in samples)))


def test_every_interval_holds_its_value() -> None:
    for curve in (*curves(CHEAP, BOTH), *curves(DEAR, BOTH)):
        for point in curve.points:
            assert point.solved.low <= point.solved.value <= point.solved.high
            assert point.usd is not None and point.spread is not None
            assert point.usd.value == pytest.approx(point.k * (0.1 if curve.model == "cheap" else 1.0))
            assert point.spread.low <= point.spread.middle <= point.spread.high


def test_nothing_solved_in_ten_tasks_does_not_mean_that_nothing_can_be() -> None:
    draws = Draws([f"t{i}" for i in range(10)], draws=50)
    told = draws.estimate({f"t{i}": 0.0 for i in range(10)})
    assert (told.value, told.low) == (0.0, 0.0)
    assert told.high == pytest.approx(1 - 0.025**0.1), "the exact binomial bound"


def test_a_paired_difference_is_narrower_than_the_intervals_of_its_sides() -> None:
    way = measures(CHEAP)["coverage"]
    more, less = by_task(CHEAP, way, 8), by_task(CHEAP, way, 6)
    paired, alone = difference(more, less, BOTH), BOTH.estimate(more)
    assert 0 <= paired.low <= paired.value <= paired.high
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_tasks_that_lack_samples_are_left_out_or_counted_as_wrong() -> None:
    tasks = {f"t{i}": (Sample(True, 2.0),) * (3 if i else 1) for i in range(10)}
    short = Model("m", tasks)
    assert (short.depth, len(short.whole().tasks)) == (3, 9)
    filled = short.padded([*tasks, "other"])
    assert len(filled.whole().tasks) == 11
    assert [s.right for s in filled.tasks["t0"]] == [True, False, False]
    assert [s.usd for s in filled.tasks["other"]] == [2.0] * 3, "a run without a patch was paid for as well"


def test_leaving_tasks_out_does_not_make_the_others_deeper() -> None:
    sizes = [2] * 2 + [3] * 7 + [1]
    whole = Model("m", {f"t{i}": (Sample(False),) * n for i, n in enumerate(sizes)}).whole()
    assert (whole.depth, len(whole.tasks), whole.whole().depth) == (2, 9, 2)


def test_the_ranking_has_distinct_candidates_and_counts_what_may_not_be_selected() -> None:
    samples = [Sample(False, score=1.0, candidate="a"), Sample(True, score=3.0, candidate="b")]
    samples += [Sample(False, score=2.0, candidate="a"), Sample(True, candidate="c"), Sample(False)]
    assert ranking(samples) == ([(1, True), (2, False)], 2)
    assert clusters(samples) == ([(2, 0.0), (1, 1.0), (1, 1.0)], 1)


def test_models_of_one_name_are_told_apart_or_put_together() -> None:
    other = model("cheap", [1] * 40, 2, 0.1)
    sources = [("first", [CHEAP, DEAR]), ("second", [other])]
    assert [m.name for m in told_apart(sources, merge=False)] == ["cheap (first)", "dear", "cheap (second)"]
    joined = told_apart(sources, merge=True)[0]
    assert {len(samples) for samples in joined.tasks.values()} == {10}
    assert not joined.ranked


# What to buy


def test_the_frontier_names_what_solves_most_within_each_budget() -> None:
    both = shared([CHEAP, DEAR])
    rows = frontier(both, BOTH, budgets=[0.05, 0.35, 10.0])
    assert len(rows) == 2, "five cents buy nothing"
    assert (rows[0].budget, rows[0].purchase.model, rows[0].purchase.k) == (0.35, "cheap", 3)
    last = rows[-1]
    ways = {m.name: measures(m)["coverage"] for m in both}
    best = max((fmean(by_task(m, ways[m.name], m.depth).values()), m.name) for m in both)
    assert last.purchase.solved.value == pytest.approx(best[0]) and last.purchase.model == best[1]
    assert last.runner_up is not None and last.ahead is not None and last.runner_up.model != last.purchase.model
    assert 0.0 < last.sure <= 1.0
    assert last.ahead.value == pytest.approx(last.purchase.solved.value - last.runner_up.solved.value)


def test_without_budgets_each_row_costs_and_solves_more_than_the_one_before() -> None:
    rows = frontier(shared([CHEAP, DEAR]), BOTH)
    assert [r.purchase.usd.value for r in rows] == sorted(r.purchase.usd.value for r in rows)
    solved = [r.purchase.solved.value for r in rows]
    assert solved == sorted(set(solved))


# How it is told


def test_a_study_is_json_and_fits_eighty_columns() -> None:
    told = study([CHEAP, DEAR], forecast_to=[16], draws=100)
    assert json.loads(json.dumps(told.to_json()))["summaries"][0]["model"] == "cheap"
    text = printed(study_view(told))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for part in ("mean@1", "selected@k", "majority@k", "USD a task", "The most for each budget", "Forecast"):
        assert part in text
    assert "hold-out check" in text
    assert "refused: 4 samples of each task" in " ".join(text.split())


def test_recovery_of_a_study_is_what_the_selection_keeps() -> None:
    (summary,) = study([CHEAP], draws=50).summaries
    assert summary.selected is not None and summary.recovery is not None and summary.over_random is not None
    offered = summary.oracle.value - summary.mean_at_1.value
    assert summary.recovery == pytest.approx((summary.selected.value - summary.mean_at_1.value) / offered)


def test_models_without_a_common_task_cannot_be_compared() -> None:
    other = Model("other", {"elsewhere": (Sample(True),)})
    with pytest.raises(InputError, match="no task in common"):
        study([CHEAP, other], draws=20)


def test_the_points_of_a_long_curve_are_few_and_hold_both_ends() -> None:
    assert ks_up_to(5) == [1, 2, 3, 4, 5]
    long = ks_up_to(250)
    assert (long[0], long[-1]) == (1, 250) and len(long) <= 16
