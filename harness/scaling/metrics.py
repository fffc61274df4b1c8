"""Measures of repeated sampling: pass@k, selected@k, majority@k, recovery."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Sampled:
    """One task's samples: `n` of them, `correct` right; `selected`: whether the selected patch is right."""

    n: int
    correct: int
    selected: bool


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of k samples, drawn without replacement from n (k or more) of which `correct` are
    right, is right.

    The unbiased estimator of Chen et al. 2021 ("Evaluating Large Language Models Trained on Code"), 1 - C(n-c, k)/C(n,
    k), in its product form."""
    missed = 1.0
    for i in range(n - correct + 1, n + 1):
        missed *= max(0.0, 1.0 - k / i)
    return 1.0 - missed


def recovery(single: float, selected: float, oracle: float) -> float | None:
    """(selected - mean@1) / (oracle - mean@1): how much of what sampling offers the selection keeps. `single`: mean@1.

    None where the oracle is no better than one sample."""
    return None if oracle - single < 1e-12 else (selected - single) / (oracle - single)


def solved_by_best(candidates: Sequence[tuple[int, bool]], unusable: int, k: int, m: int = 1) -> float:
    """selected@k,m of one task: the chance that one of the m best distinct candidates among k random samples is right.

    `candidates`: best first, each with how many samples it came from and whether it is right; `unusable`: samples that
    gave nothing that may be chosen. The samples are drawn without replacement. m = 1 is selected@k; m >= k is pass@k of
    what may be chosen. Exact: counts the subsets in which the m best candidates are all wrong, candidate by candidate.
    There must be k samples."""
    left = n = sum(count for count, _ in candidates) + unusable
    # ways[j][d]: to have drawn j samples of the candidates so far, from d distinct candidates, all of them wrong
    ways = {(0, 0): 1}
    missed = 0
    for count, right in candidates:
        left -= count
        new: dict[tuple[int, int], int] = {}
        for (j, d), number in ways.items():
            for i in range(min(count, k - j) + 1):
                if i and right:
                    break
                state = (j + i, d + (i > 0))
                if state[1] == m:
                    missed += number * math.comb(count, i) * math.comb(left, k - j - i)
                else:
                    new[state] = new.get(state, 0) + number * math.comb(count, i)
        ways = new
    missed += sum(number * math.comb(unusable, k - j) for (j, _), number in ways.items())
    return 1.0 - missed / math.comb(n, k)


def majority_right(clusters: Sequence[tuple[int, float]], unusable: int, k: int) -> float:
    """majority@k of one task: the chance that the candidate with most samples among k random ones is right.

    `clusters`: how many samples each distinct candidate came from and what share of them is right; ties are broken by
    lot; `unusable`: samples without a patch, which do not vote. Exact: for each right candidate and each number of
    votes for it, the subsets in which no other has more, by the number of others that have as many. There must be
    k samples."""
    won, subsets = 0.0, math.comb(sum(count for count, _ in clusters) + unusable, k)
    for chosen, (count, right) in enumerate(clusters):
        if not right:
            continue
        others = [c for index, (c, _) in enumerate(clusters) if index != chosen]
        for votes in range(1, min(count, k) + 1):
            for ties, number in _outvoted(others, unusable, k - votes, votes).items():
                won += right * (math.comb(count, votes) * number / ((ties + 1) * subsets))
    return won


def _outvoted(others: Sequence[int], unusable: int, draws: int, most: int) -> dict[int, int]:
    """In how many ways `draws` samples come from the others, at most `most` of each, by how many reach `most`."""
    ways = Counter({(0, 0): 1})
    for count in others:
        new: Counter[tuple[int, int]] = Counter()
        for (j, ties), number in ways.items():
            for i in range(min(count, most, draws - j) + 1):
                new[j + i, ties + (i == most)] += number * math.comb(count, i)
        ways = new
    found: Counter[int] = Counter()
    for (j, ties), number in ways.items():
        found[ties] += number * math.comb(unusable, draws - j)
    return found
