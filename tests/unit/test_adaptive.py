"""When another sample of a task is worth its price."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest

from harness.scaling.adaptive import (
    Beliefs,
    Group,
    Prior,
    TaskState,
    chances,
    fit_prior,
    gain,
    gain_beside,
    hope,
    kinds_of,
    log_likelihood,
    standing,
    told,
    worth,
)
from harness.scaling.laws import log_beta

NOISY = Beliefs(prior=Prior(((0.7, 0.4, 1.6), (0.3, 2.0, 6.0))))
SURE = Beliefs(prior=Prior.beta(0.5, 1.5), fails=0.99, scatter_wrong=6.0, right=(1.0,), wrong=(1.0,))
"""Only right attempts are acceptable, nearly."""


def likelihood(state: TaskState, beliefs: Beliefs) -> float:
    return log_likelihood(kinds_of(state.groups), state.failed, beliefs)


def mean(prior: Prior) -> float:
    return math.fsum(weight * alpha / (alpha + beta) for weight, alpha, beta in prior.parts)


def nexts(state: TaskState, beliefs: Beliefs) -> list[TaskState]:
    """Every state that one more attempt may lead to."""
    grown = [
        TaskState((*state.groups[:i], Group(g.attempts + 1, g.level), *state.groups[i + 1 :]), state.failed)
        for i, g in enumerate(state.groups)
    ]
    new = [TaskState((*state.groups, Group(1, level)), state.failed) for level in range(len(beliefs.right))]
    return [TaskState(state.groups, state.failed + 1), *grown, *new]


STATES = [
    TaskState(),
    TaskState(failed=3),
    TaskState((Group(1, 0),)),
    TaskState((Group(2, 1), Group(1, 0), Group(1, 0)), failed=2),
    TaskState((Group(4, 1), Group(3, 0), Group(1, 1)), failed=5),
]


@pytest.mark.parametrize("state", STATES)
def test_what_the_next_attempt_may_give_has_probabilities_that_add_to_one(state: TaskState) -> None:
    now = likelihood(state, NOISY)
    total = math.fsum(math.exp(likelihood(each, NOISY) - now) for each in nexts(state, NOISY))
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("state", STATES[2:])
def test_the_chance_of_a_group_is_the_sum_over_all_ways_to_be_right(state: TaskState) -> None:
    b = NOISY
    weights: dict[tuple[bool, ...], float] = {}
    for truth in itertools.product((False, True), repeat=len(state.groups)):
        weight, right, wrong = 0.0, 0, 0
        for group, is_right in zip(state.groups, truth, strict=True):
            scatter = b.scatter_right if is_right else b.scatter_wrong
            weight += math.log(scatter * (b.right if is_right else b.wrong)[group.level])
            right, wrong = right + is_right * group.attempts, wrong + (not is_right) * group.attempts
        weight += wrong * math.log(1 - b.fails)
        weight += math.log(
            sum(
                w * math.exp(log_beta(alpha + right, beta + wrong + state.failed) - log_beta(alpha, beta))
                for w, alpha, beta in b.prior.parts
            )
        )
        for scatter, count in ((b.scatter_right, right), (b.scatter_wrong, wrong)):
            weight -= sum(math.log(scatter + i) for i in range(count))
        weights[truth] = math.exp(weight)
    total = sum(weights.values())
    told = chances(kinds_of(state.groups), state.failed, b)
    for place, group in enumerate(state.groups):
        assert told[group] == pytest.approx(sum(w for truth, w in weights.items() if truth[place]) / total)


def test_agreement_and_evidence_make_a_candidate_likelier() -> None:
    alone = worth(TaskState((Group(1, 0),)), NOISY)
    assert worth(TaskState((Group(2, 0),)), NOISY) > alone
    assert worth(TaskState((Group(1, 1),)), NOISY) > alone
    assert worth(TaskState((Group(1, 0),), failed=6), NOISY) < alone


def test_expected_worth_never_falls_with_more_samples() -> None:
    assert all(gain(state, NOISY) >= -1e-12 for state in STATES)


def test_a_choice_that_the_next_sample_cannot_change_may_yet_be_worth_more_samples() -> None:
    plain = Beliefs(right=(1.0,), wrong=(1.0,))
    agreed = TaskState((Group(2, 0),), failed=4)
    now = worth(agreed, plain)
    after = [
        math.exp(likelihood(each, plain) - likelihood(agreed, plain)) * worth(each, plain)
        for each in nexts(agreed, plain)
    ]
    assert math.fsum(after) == pytest.approx(now), "whatever comes, the same candidate is chosen"
    assert gain(agreed, plain) > 1e-4


def test_hundreds_of_attempts_are_within_the_numbers_that_there_are() -> None:
    many = TaskState((Group(40, 1), *[Group(1, 0)] * 300), failed=400)
    found = chances(kinds_of(many.groups), many.failed, NOISY)
    assert all(0.0 < each < 1.0 for each in found.values())
    assert math.isfinite(likelihood(many, NOISY)) and 0.0 < hope(many, NOISY) < 1.0


def test_a_test_tells_most_where_candidates_are_equally_likely() -> None:
    alone, tied, three = (TaskState((Group(1, 0),) * many) for many in (1, 2, 3))
    assert told(TaskState(failed=2), Beliefs()) == 0.0
    assert told(alone, Beliefs()) == pytest.approx(0.0, abs=1e-12), "whatever it says, there is but one to choose"
    assert 0.02 < told(tied, Beliefs()) < told(three, Beliefs()) < 1 - worth(three, Beliefs())
    assert told(TaskState((Group(4, 1), Group(1, 0))), Beliefs()) < told(tied, Beliefs()) / 3


def test_failures_take_away_hope() -> None:
    hopes = [hope(TaskState(failed=n), NOISY) for n in (0, 2, 8, 30, 200)]
    assert hopes == sorted(hopes, reverse=True)
    assert standing(TaskState(failed=500), NOISY) == "hopeless"
    assert standing(TaskState(failed=1), NOISY) == "open"


def test_evidence_and_agreement_together_are_decisive() -> None:
    assert standing(TaskState((Group(6, 1), Group(1, 0))), NOISY) == "decisive"


def test_the_prior_is_found_again_from_what_tasks_show_without_labels() -> None:
    rng = random.Random(5)
    found = {}
    for true in (0.1, 0.5):
        states = []
        for _ in range(300):
            p = rng.betavariate(2 * true, 2 * (1 - true))
            right = sum(rng.random() < p for _ in range(6))
            states.append(TaskState((Group(right, 0),) if right else (), failed=6 - right))
        found[true] = fit_prior(states, SURE)
    for true, beliefs in found.items():
        assert mean(beliefs.prior) == pytest.approx(true, abs=0.06)


@pytest.mark.parametrize("fails", [0.3, 0.9])
def test_how_often_wrong_attempts_give_nothing_is_found_without_labels(fails: float) -> None:
    rng = random.Random(6)
    states = []
    for _ in range(200):
        p = rng.betavariate(0.4, 1.6)
        right, wrong, failed = 0, 0, 0
        for _ in range(4):
            if rng.random() < p:
                right += 1
            elif rng.random() < fails:
                failed += 1
            else:
                wrong += 1
        groups = [Group(right, 1)] * bool(right) + [Group(1, 0)] * wrong
        states.append(TaskState(tuple(groups), failed))
    believed = Beliefs(fails=0.97 if fails == 0.3 else 0.3, scatter_right=0.05, scatter_wrong=50.0)
    fitted = fit_prior(states, believed)
    assert fitted.fails == fails
    assert mean(fitted.prior) == pytest.approx(0.2, abs=0.06)


def test_few_attempts_leave_the_prior_open() -> None:
    few = fit_prior([TaskState((Group(1, 0),), 1)] * 2 + [TaskState(failed=2)] * 38, SURE)
    many = fit_prior([TaskState((Group(1, 0),), 39)] * 20 + [TaskState(failed=40)] * 20, SURE)
    assert len(few.prior.parts) > len(many.prior.parts) >= 1
    twice = TaskState(failed=2)
    assert standing(twice, few) == "open", "what failed twice is not given up"
    alone = replace(few, prior=Prior.beta(0.015, 0.285))
    assert alone.prior.parts[0][1:] in [part[1:] for part in few.prior.parts] and standing(twice, alone) == "hopeless"


def test_attempts_under_way_count_as_failures_that_may_yet_succeed() -> None:
    fresh = TaskState()
    gains = [gain_beside(fresh, NOISY, pending) for pending in range(6)]
    assert gains[0] == gain(fresh, NOISY) and gains == sorted(gains, reverse=True)
    assert 0 < gains[5] < gain(TaskState(failed=5), NOISY)
