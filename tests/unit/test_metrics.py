"""pass@k, coverage, recovery."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest

from harness.metrics import Sampled, coverage, interval, mean_at_1, pass_at_k, recovery


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_sample(n: int) -> None:
    for correct in range(n + 1):
        samples = [i < correct for i in range(n)]
        for k in range(1, n + 1):
            counted = fmean(any(subset) for subset in itertools.combinations(samples, k))
            assert pass_at_k(n, correct, k) == pytest.approx(counted)


def test_pass_at_k_is_undefined_with_too_few_samples() -> None:
    assert pass_at_k(3, 1, 4) is None
    assert coverage([Sampled(4, 1, True), Sampled(2, 1, True)], 3) is None


def test_recovery_is_the_share_of_what_sampling_offers() -> None:
    tasks = [Sampled(4, 1, True), Sampled(4, 1, False)]
    assert mean_at_1(tasks) == 0.25
    assert recovery(tasks) == pytest.approx((0.5 - 0.25) / (1.0 - 0.25))
    assert recovery([Sampled(4, 4, True)]) is None, "one sample is as good as all"


def test_the_interval_holds_the_value_and_is_the_same_every_time() -> None:
    tasks = [Sampled(4, c, False) for c in (0, 1, 2, 4, 0, 3)]
    low, high = interval(tasks, mean_at_1) or (1.0, 0.0)
    value = mean_at_1(tasks)
    assert value is not None and low <= value <= high
    assert interval(tasks, mean_at_1) == (low, high)
