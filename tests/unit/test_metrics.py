"""pass@k, selected@k, majority@k, recovery."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest

from harness.scaling.metrics import majority_right, pass_at_k, recovery, solved_by_best


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_sample(n: int) -> None:
    for correct in range(n + 1):
        samples = [i < correct for i in range(n)]
        for k in range(1, n + 1):
            counted = fmean(any(subset) for subset in itertools.combinations(samples, k))
            assert pass_at_k(n, correct, k) == pytest.approx(counted)


def test_recovery_is_the_share_of_what_sampling_offers() -> None:
    assert recovery(0.25, 0.5, 1.0) == pytest.approx((0.5 - 0.25) / (1.0 - 0.25))
    assert recovery(1.0, 1.0, 1.0) is None, "one sample is as good as all"


Candidates = list[tuple[int, bool]]
POOLS: list[tuple[Candidates, int]] = [
    ([(1, True)], 0),
    ([(2, False), (1, True), (1, False)], 1),
    ([(1, False), (1, False), (2, True), (2, False)], 1),
    ([(3, True), (1, False), (1, True)], 2),
    ([(2, False), (1, False)], 0),
    ([], 3),
]


def labelled(candidates: Candidates, unusable: int) -> list[int | None]:
    """The candidate of each sample."""
    return [which for which, (count, _) in enumerate(candidates) for _ in range(count)] + [None] * unusable


@pytest.mark.parametrize(("candidates", "unusable"), POOLS)
@pytest.mark.parametrize("m", [1, 2, 5])
def test_selected_at_k_is_the_share_of_subsets_whose_best_hold_a_right_one(
    candidates: Candidates, unusable: int, m: int
) -> None:
    samples = labelled(candidates, unusable)
    for k in range(1, len(samples) + 1):
        hits = []
        for subset in itertools.combinations(samples, k):
            best = sorted({each for each in subset if each is not None})[:m]
            hits.append(any(candidates[each][1] for each in best))
        assert solved_by_best(candidates, unusable, k, m) == pytest.approx(fmean(hits))


@pytest.mark.parametrize(("candidates", "unusable"), POOLS)
def test_majority_at_k_is_the_share_of_subsets_whose_largest_group_is_right(
    candidates: Candidates, unusable: int
) -> None:
    samples = labelled(candidates, unusable)
    for k in range(1, len(samples) + 1):
        hits = []
        for subset in itertools.combinations(samples, k):
            votes = {each: subset.count(each) for each in subset if each is not None}
            first = [each for each, count in votes.items() if count == max(votes.values())]
            hits.append(fmean(candidates[each][1] for each in first) if first else 0.0)
        assert majority_right(candidates, unusable, k) == pytest.approx(fmean(hits))


def test_with_as_many_submissions_as_samples_selection_cannot_miss() -> None:
    candidates = [(1, False), (2, False), (3, True), (1, False)]
    for k in range(1, 8):
        assert solved_by_best(candidates, 0, k, m=k) == pytest.approx(pass_at_k(7, 3, k))


def test_three_hundred_samples_are_counted_in_no_time() -> None:
    candidates = [(1 + i % 3, i in (40, 90)) for i in range(125)]
    assert 0.0 < solved_by_best(candidates, 1, 100, 10) < 1.0
    assert 0.0 < majority_right(candidates, 1, 100) < 1.0
