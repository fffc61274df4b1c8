"""Laws of coverage and forecasts by them."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from harness.scaling.forecast import LAWS, Forecast, forecast
from harness.scaling.laws import BetaBinomial, fit_beta_binomial, fit_inflated, log_beta


def drawn(
    rng: random.Random, tasks: int, samples: int, *, alpha: float, beta: float, never: float = 0.0
) -> list[list[bool]]:
    """Outcomes of tasks whose success rates are Beta(alpha, beta), a share of them 0."""
    rates = [0.0 if rng.random() < never else rng.betavariate(alpha, beta) for _ in range(tasks)]
    return [[rng.random() < rate for _ in range(samples)] for rate in rates]


def counts(outcomes: list[list[bool]]) -> Counter[tuple[int, int]]:
    return Counter((len(each), sum(each)) for each in outcomes)


def log_likelihood(law: BetaBinomial, seen: Counter[tuple[int, int]]) -> float:
    """By the definition, without the sums of logarithms that the fit uses."""
    total = 0.0
    for (n, c), tasks in seen.items():
        chance = (
            (1 - law.unsolvable)
            * math.comb(n, c)
            * math.exp(log_beta(law.alpha + c, law.beta + n - c) - log_beta(law.alpha, law.beta))
        )
        total += tasks * math.log(chance + (law.unsolvable if c == 0 else 0.0))
    return total


def test_the_beta_binomial_fit_is_the_likeliest_of_its_neighbours() -> None:
    seen = counts(drawn(random.Random(1), 80, 12, alpha=0.4, beta=2.0))
    fit = fit_beta_binomial(seen)
    best = log_likelihood(fit, seen)
    for a, b in [(1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98), (1.02, 1.02), (0.98, 0.98)]:
        assert log_likelihood(BetaBinomial(fit.alpha * a, fit.beta * b), seen) < best


def test_the_inflated_fit_is_the_likeliest_of_its_neighbours() -> None:
    seen = counts(drawn(random.Random(2), 150, 16, alpha=1.0, beta=3.0, never=0.4))
    fit = fit_inflated(seen)
    assert 0.2 < fit.unsolvable < 0.6
    best = log_likelihood(fit, seen)
    for u, a, b in [
        (0.02, 1, 1),
        (-0.02, 1, 1),
        (0, 1.03, 1),
        (0, 0.97, 1),
        (0, 1, 1.03),
        (0, 1, 0.97),
        (0.01, 1.03, 1.03),
    ]:
        other = BetaBinomial(fit.alpha * a, fit.beta * b, fit.unsolvable + u)
        assert log_likelihood(other, seen) < best


def test_parameters_are_found_again_from_much_data() -> None:
    rng = random.Random(3)
    plain = fit_beta_binomial(counts(drawn(rng, 3000, 20, alpha=0.5, beta=3.0)))
    assert plain.alpha == pytest.approx(0.5, rel=0.12) and plain.beta == pytest.approx(3.0, rel=0.15)
    part = fit_inflated(counts(drawn(rng, 3000, 20, alpha=1.0, beta=3.0, never=0.3)))
    assert part.unsolvable == pytest.approx(0.3, abs=0.05)


def test_coverage_of_the_laws_is_the_chance_that_any_of_k_is_right() -> None:
    rng = random.Random(4)
    rates = [rng.betavariate(0.5, 2.0) for _ in range(40_000)]
    for k in (1, 4, 30):
        simulated = math.fsum(1 - (1 - rate) ** k for rate in rates) / len(rates)
        assert BetaBinomial(0.5, 2.0).coverage(k) == pytest.approx(simulated, abs=0.01)
        assert BetaBinomial(0.5, 2.0, 0.25).coverage(k) == pytest.approx(0.75 * simulated, abs=0.01)


@pytest.mark.parametrize(
    "seen", [{(8, 0): 20}, {(8, 0): 10, (8, 8): 10}, {(8, 4): 20}], ids=["nothing", "all or nothing", "no spread"]
)
def test_a_fit_that_the_data_do_not_tell_says_so(seen: dict[tuple[int, int], float]) -> None:
    assert fit_beta_binomial(seen).at_bound


def by_law(told: list[Forecast]) -> dict[str, Forecast]:
    return {each.law: each for each in told}


def test_a_forecast_has_its_interval_and_its_hold_out_check_beside_it() -> None:
    outcomes = drawn(random.Random(6), 150, 16, alpha=0.4, beta=2.0)
    told = by_law(forecast(outcomes, 64, draws=100))
    assert set(told) == set(LAWS)
    best = told["beta-binomial"]
    assert best.low is not None and best.coverage is not None and best.high is not None
    assert best.low < best.coverage < best.high
    assert best.low < BetaBinomial(0.4, 2.0).coverage(64) < best.high
    assert best.hold_out is not None
    assert (best.hold_out.fitted, best.hold_out.asked) == (8, 16)
    assert best.hold_out.observed == pytest.approx(sum(any(each) for each in outcomes) / 150)


def test_the_same_data_give_the_same_forecast() -> None:
    outcomes = drawn(random.Random(7), 60, 10, alpha=0.4, beta=2.0)
    assert forecast(outcomes, 40, draws=50) == forecast(outcomes, 40, draws=50)


REFUSED = [(29, 16, 32, "29 tasks"), (60, 5, 20, "5 samples"), (60, 16, 257, "more than 16 times")]


@pytest.mark.parametrize(("tasks", "samples", "k", "why"), REFUSED)
def test_too_little_data_are_refused_with_the_reason(tasks: int, samples: int, k: int, why: str) -> None:
    for told in forecast(drawn(random.Random(8), tasks, samples, alpha=0.4, beta=2.0), k, draws=20):
        assert told.coverage is None and told.low is None and told.high is None
        assert why in told.refused


def test_tasks_that_are_all_won_or_all_lost_tell_nothing() -> None:
    for told in forecast([[True] * 10] * 30 + [[False] * 10] * 30, 20, draws=20):
        assert "only 0 tasks have right and wrong samples" in told.refused


def test_a_curve_that_bends_after_the_first_half_is_refused() -> None:
    rng = random.Random(9)
    early = drawn(rng, 120, 8, alpha=0.6, beta=3.0)
    outcomes = [[*each, *[any(each) and rng.random() < 0.2 for _ in range(8)]] for each in early]
    told = by_law(forecast(outcomes, 64, draws=100))
    assert "hold-out check misses" in told["beta-binomial"].refused
    assert told["beta-binomial"].coverage is None


def shared_out(rng: random.Random, tasks: int, attempts: int) -> list[list[bool]]:
    """Attempts that divide one list of changes among themselves, as `repair` does: the one or two right changes of a
    task are each in the share of one attempt, so failures make the others likelier."""
    found = []
    for _ in range(tasks):
        winners = set(rng.sample(range(attempts), rng.choice((1, 1, 1, 2, 2, 3))))
        found.append([attempt in winners for attempt in range(attempts)])
    return found


def test_a_law_that_misses_what_was_sampled_is_refused() -> None:
    outcomes = shared_out(random.Random(11), 40, 32)
    assert all(any(each) for each in outcomes)
    for told in forecast(outcomes, 64, draws=100):
        assert told.coverage is None
        assert "misses" in told.refused or "less than" in told.refused or "bound" in told.refused


def test_no_forecast_lies_below_what_was_observed_with_fewer_samples() -> None:
    rng = random.Random(12)
    kept = 0
    for seed in range(12):
        outcomes = drawn(rng, 60, 16, alpha=0.6, beta=1.5)
        observed = sum(any(each) for each in outcomes) / len(outcomes)
        for told in forecast(outcomes, 18, draws=50, seed=seed):
            assert told.coverage is None or told.coverage >= observed
            kept += told.coverage is not None
            assert told.coverage is not None or told.refused
    assert kept, "some are forecast"


@pytest.mark.slow
@pytest.mark.parametrize("law", ["beta-binomial", "inflated beta-binomial"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(law: str) -> None:
    """Sixty simulations; tests/bench/forecast_coverage.py has a thousand, and more settings."""
    rng = random.Random(10)
    never = 0.3 if law == "inflated beta-binomial" else 0.0
    truth = (1 - never) * BetaBinomial(0.5, 2.0).coverage(80)
    told = [
        by_law(forecast(drawn(rng, 80, 16, alpha=0.5, beta=2.0, never=never), 80, draws=50, seed=seed))[law]
        for seed in range(60)
    ]
    kept = [each for each in told if each.low is not None and each.high is not None]
    held = sum((each.low or 0) <= truth <= (each.high or 0) for each in kept)
    assert len(kept) >= 50
    assert held >= 0.86 * len(kept)
