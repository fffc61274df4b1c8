"""Whether another sample of a task is worth its price, and which task should have the next one: a pure function of what
is known.

What is known of a task (`TaskState`): its attempts that gave nothing acceptable, and its acceptable candidates, each
with the number of attempts that agree on it and the level of its evidence. No grading data.

The model (`Beliefs`). An attempt gives a right and acceptable patch with probability p; p ~ Beta(alpha, beta) over
tasks, as in the forecasts (harness/scaling/laws.py), with weights over several alpha and beta, as few attempts do not
tell them: a single pair fitted to the first two attempts of each task was as sure of itself as one from thousands, and
gave up every task that had failed twice. A wrong attempt gives nothing acceptable with probability `fails`. Right
attempts fall into groups by a Chinese restaurant process with concentration `scatter_right` (right patches are much
alike), wrong acceptable ones by one with `scatter_wrong` (they are wrong in different ways); a group's evidence has
level l with probability right[l] or wrong[l]. For groups of n_1 … n_C attempts, T together, and f failed ones, the
probability of it all, with R the set of right groups and n_R = sum of its n_c, is

    Z = sum over R of  E[B(alpha + n_R, beta + T - n_R + f) / B(alpha, beta)] * fails^f (1 - fails)^(T - n_R)
        * prod_{c in R} scatter_right right[l_c] (n_c - 1)! / (scatter_right)_(n_R)
        * prod_{c not in R} scatter_wrong wrong[l_c] (n_c - 1)! / (scatter_wrong)_(T - n_R)

with (x)_n = x (x+1) … (x+n-1).

The terms depend on R through n_R only, so the sum is over n_R with the coefficients of a polynomial; exact. The ratio
of two Z is the probability of what the next attempt gives. `worth`, the chance that the group most likely to be right
is right, is what a selection gets; the gain of another h samples is the expected worth after them less the worth now,
and the index of a task the largest gain per dollar over h: the knowledge gradient (Frazier, Powell & Dayanik 2008),
over several samples because one more often cannot change the choice where two can (Frazier & Powell 2010, KG(*)). With
evidence that proves a patch right the index falls with every failure, and sampling by the largest index is the optimal
search of Black (1965).

A task is left when its best group is right with probability DECISIVE, or when no right attempt is to be expected
(`standing`); and when its gain per dollar is less than 1 / (what a solved task is worth to the user in USD). The
weights and `fails` are fitted to what all tasks show (`fit_prior`). A task's own attempts are among that and so count
twice: little among many tasks, too much among few.
"""

import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.scaling.laws import log_beta

DECISIVE = 0.95
HOPELESS, HOPE_AHEAD = 0.05, 16
"""No hope: less than this chance of a right attempt among the next so many."""
AHEAD = 2
"""Further samples whose outcomes are all gone through."""
FAR, PATHS, SMALL = 6, 32, 0.01
"""Where a sample is worth less than SMALL by that, PATHS of FAR samples are drawn from the model as well."""
TESTED = 4
"""Groups that a further test is thought to be run on."""
PRICE_PRIOR = 2.0
"""A task's mean cost is shrunk towards that of all tasks as if so many attempts had cost that."""

MEANS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
PRECISIONS = (0.3, 0.6, 1.0, 2.0, 4.0, 10.0)
"""alpha / (alpha + beta) and alpha + beta that the prior is a mixture of."""
FAILS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
"""`fails` that `fit_prior` looks among."""
FAINT = 0.02
"""Parts of the prior with less weight than this share of the heaviest are left out, which saves time."""


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """An acceptable candidate: the attempts that agree on it, and the level of its evidence (0 the least)."""

    attempts: int
    level: int


@dataclass(frozen=True, slots=True)
class TaskState:
    """What is known of a task: acceptable candidates, how many attempts gave none, what all attempts cost in USD."""

    groups: tuple[Group, ...] = ()
    failed: int = 0
    usd: float = 0.0

    @property
    def attempts(self) -> int:
        return self.failed + sum(group.attempts for group in self.groups)


@dataclass(frozen=True, slots=True)
class Prior:
    """p ~ Beta(alpha, beta) with the given weight, for each (weight, alpha, beta) of `parts`; weights add to 1."""

    parts: tuple[tuple[float, float, float], ...]
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.parts))

    def __hash__(self) -> int:
        return self._hash  # found once: it is part of the key of everything that is kept

    @staticmethod
    def beta(alpha: float, beta: float) -> "Prior":
        return Prior(((1.0, alpha, beta),))


_GRID = tuple((mean * size, (1 - mean) * size) for mean in MEANS for size in PRECISIONS)


@dataclass(frozen=True, slots=True)
class Beliefs:
    """The parameters of the model (see the module). `right`, `wrong`: of each level of evidence; they add to 1."""

    prior: Prior = Prior(((1.0, 0.4, 1.6),))
    fails: float = 0.3
    scatter_right: float = 0.4
    scatter_wrong: float = 6.0
    right: tuple[float, ...] = (0.2, 0.8)
    wrong: tuple[float, ...] = (0.7, 0.3)


Standing = Literal["decisive", "hopeless", "open"]
Kinds = tuple[tuple[Group, int], ...]
"""Equal groups together, with how many there are: what the probabilities depend on."""


def worth(state: TaskState, beliefs: Beliefs) -> float:
    """The probability that the best group is right; 0 where there is none."""
    return _worth(kinds_of(state.groups), state.failed, beliefs)


def hope(state: TaskState, beliefs: Beliefs, samples: int = HOPE_AHEAD) -> float:
    """The probability that at least one of the next `samples` attempts is right."""
    terms = _terms(kinds_of(state.groups), state.failed, beliefs)
    total, prior, made = math.fsum(terms), beliefs.prior, state.attempts
    wrong = math.fsum(
        term / total * math.exp(_log_chance(prior, n, made - n + samples) - _log_chance(prior, n, made - n))
        for n, term in enumerate(terms)
    )
    return 1.0 - wrong


def standing(state: TaskState, beliefs: Beliefs) -> Standing:
    """Whether to leave the task: "decisive" (the best group is very likely right), "hopeless", or else "open"."""
    if worth(state, beliefs) >= DECISIVE:
        return "decisive"
    return "hopeless" if hope(state, beliefs) < HOPELESS else "open"


def gain(state: TaskState, beliefs: Beliefs) -> float:
    """The expected gain in `worth` for each further sample, at the best number of them: 1 to AHEAD, or where these
    promise little, FAR too. Deterministic."""
    return _gain(kinds_of(state.groups), state.failed, beliefs)


@functools.lru_cache(maxsize=200_000)
def _gain(kinds: Kinds, failed: int, beliefs: Beliefs) -> float:
    now = _worth(kinds, failed, beliefs)
    near = max((_expected(kinds, failed, beliefs, h) - now) / h for h in range(1, AHEAD + 1))
    if near >= SMALL or not kinds:
        return near  # without a candidate there is no choice to change, and no sample is worth more than the next
    return max(near, _far(kinds, failed, beliefs) / FAR)


def _far(kinds: Kinds, failed: int, beliefs: Beliefs) -> float:
    """The expected gain of FAR samples, over PATHS drawn from the model.

    As the chance that today's best group is right is not expected to change, the gain is the expected lead, after the
    samples, of what is best then over what is best today: never negative, and 0 on every path that does not change the
    choice."""
    rng = random.Random(FAR)
    return math.fsum(_lead(kinds, failed, beliefs, rng) for _ in range(PATHS)) / PATHS


def _lead(kinds: Kinds, failed: int, beliefs: Beliefs, rng: random.Random) -> float:
    groups = [group for group, many in kinds for _ in range(many)]
    found = chances(kinds, failed, beliefs)
    best = max(range(len(groups)), key=lambda i: found[groups[i]], default=None)
    for _ in range(FAR):
        now = log_likelihood(kinds_of(groups), failed, beliefs)
        mark, chosen = rng.random(), -1
        for place in range(len(groups) + len(beliefs.right)):
            after = _grown(groups, place)
            mark -= math.exp(log_likelihood(kinds_of(after), failed, beliefs) - now)
            if mark < 0:
                groups, chosen = after, place
                break
        failed += chosen < 0
    ends = chances(kinds_of(groups), failed, beliefs)
    return max((ends[g] for g in groups), default=0.0) - (0.0 if best is None else ends[groups[best]])


def _grown(groups: Sequence[Group], place: int) -> list[Group]:
    """The groups after an attempt that joined the one at `place`, or past the end made a new one of that level."""
    if place >= len(groups):
        return [*groups, Group(1, place - len(groups))]
    return [*groups[:place], Group(groups[place].attempts + 1, groups[place].level), *groups[place + 1 :]]


def price(state: TaskState, mean_usd: float) -> float:
    """The expected cost of the task's next sample in USD. `mean_usd`: the mean cost of a sample over all tasks."""
    return (state.usd + PRICE_PRIOR * mean_usd) / (state.attempts + PRICE_PRIOR)


def gain_beside(state: TaskState, beliefs: Beliefs, pending: int) -> float:
    """The `gain` of one more attempt beside `pending` ones that are under way: as if these had failed, times the chance
    that none of them is right. What another attempt adds where one of them is right is left out: it is little."""
    if not pending:
        return gain(state, beliefs)
    return (1.0 - hope(state, beliefs, pending)) * gain(replace(state, failed=state.failed + pending), beliefs)


def told(state: TaskState, beliefs: Beliefs) -> float:
    """The expected gain in `worth` of one more witness test that is run on the groups that are likeliest to be right,
    TESTED of them: as if each were right or wrong for itself, and passed it as groups reach level 1 by `Beliefs()`."""
    likely = chances(kinds_of(state.groups), state.failed, beliefs)
    best = sorted((likely[group] for group in state.groups), reverse=True)[:TESTED]
    known, expected = Beliefs(), 0.0
    for outcomes in itertools.product((0, 1), repeat=len(best)):
        right = [p * known.right[o] for p, o in zip(best, outcomes, strict=True)]
        either = [r + (1 - p) * known.wrong[o] for r, p, o in zip(right, best, outcomes, strict=True)]
        expected += math.prod(either) * max((r / e for r, e in zip(right, either, strict=True)), default=0.0)
    return expected - max(best, default=0.0)


def fit_prior(states: Iterable[TaskState], beliefs: Beliefs) -> Beliefs:
    """The beliefs with the prior weighted by how likely each alpha and beta of a grid makes what was seen of these
    tasks, and with the likeliest `fails` of FAILS and its own: who believes too much of what wrong attempts give takes
    right ones for wrong. Needs no labels."""
    seen = Counter((kinds_of(state.groups), state.failed) for state in states if state.attempts)
    if not seen:
        return beliefs
    fits = [_weighted(seen, replace(beliefs, fails=fails)) for fails in sorted({*FAILS, beliefs.fails})]
    return max(fits, key=lambda fit: fit[0])[1]


def _weighted(seen: Mapping[tuple[Kinds, int], int], beliefs: Beliefs) -> tuple[float, Beliefs]:
    """The beliefs with the prior weighted, and the log of how likely they make what was seen, up to a constant."""
    rows = [(_coefficients(kinds, beliefs), kinds, failed, count) for (kinds, failed), count in seen.items()]

    def height(alone: Beliefs) -> float:
        # One task's worth of prior weight on a middling success rate keeps a few failures from meaning that nothing
        # works.
        ((_, alpha, beta),) = alone.prior.parts
        total = math.log(alpha * beta / (alpha + beta) ** 2)
        for coefficients, kinds, failed, count in rows:
            total += count * (_log_sum(kinds, failed, alone, coefficients) + failed * math.log(alone.fails))
        return total

    heights = {(a, b): height(replace(beliefs, prior=Prior.beta(a, b))) for a, b in _GRID}
    top = max(heights.values())
    weights = {pair: math.exp(each - top) for pair, each in heights.items() if each - top > math.log(FAINT)}
    total = math.fsum(weights.values())
    parts = tuple((each / total, a, b) for (a, b), each in weights.items())
    return top + math.log(total), replace(beliefs, prior=Prior(parts))


def kinds_of(groups: Iterable[Group]) -> Kinds:
    """The groups with equal ones counted together, in order."""
    return tuple(sorted(Counter(groups).items()))


def _rising(x: float, n: int) -> float:
    """log of x (x+1) … (x+n-1)."""
    return math.lgamma(x + n) - math.lgamma(x)


@functools.lru_cache(maxsize=200_000)
def log_likelihood(kinds: Kinds, failed: int, beliefs: Beliefs) -> float:
    """log Z: the log of the probability of what was seen of a task, in any one order of its attempts."""
    return _log_sum(kinds, failed, beliefs, _coefficients(kinds, beliefs)) + _log_shared(kinds, failed, beliefs)


def _log_sum(kinds: Kinds, failed: int, beliefs: Beliefs, coefficients: Sequence[float]) -> float:
    scale, factors = _factors(_acceptable(kinds), failed, beliefs)
    return scale + math.log(math.fsum(c * f for c, f in zip(coefficients, factors, strict=True)))


def _log_shared(kinds: Kinds, failed: int, beliefs: Beliefs) -> float:
    """What all terms of Z have, whichever groups are right: as if all were wrong."""
    found = failed * math.log(beliefs.fails)
    for group, many in kinds:
        weight = math.log(beliefs.scatter_wrong * beliefs.wrong[group.level])
        found += many * (weight + math.lgamma(group.attempts))
    return found


def _terms(kinds: Kinds, failed: int, beliefs: Beliefs, certain: Group | None = None) -> list[float]:
    """The terms of Z by n_R, but for a factor that all have; `certain`: only those in which one such group is right."""
    _, factors = _factors(_acceptable(kinds), failed, beliefs)
    return [each * factor for each, factor in zip(_coefficients(kinds, beliefs, certain), factors, strict=True)]


def _acceptable(kinds: Kinds) -> int:
    return sum(group.attempts * many for group, many in kinds)


def _coefficients(kinds: Kinds, beliefs: Beliefs, certain: Group | None = None) -> list[float]:
    """The polynomial's coefficients, from n_R = 0 on, a group being right in the odds of its scatter and evidence."""
    coefficients, shift = [1.0], 0
    for group, many in kinds:
        odds = beliefs.scatter_right * beliefs.right[group.level] / (beliefs.scatter_wrong * beliefs.wrong[group.level])
        if group == certain:
            many, shift = many - 1, group.attempts
            coefficients = [each * odds for each in coefficients]
        power = [math.comb(many, i) * odds**i for i in range(many + 1)]
        new = [0.0] * (len(coefficients) + many * group.attempts)
        for at, each in enumerate(coefficients):
            if each:
                for i, factor in enumerate(power):
                    new[at + i * group.attempts] += each * factor
        coefficients = new
    return [0.0] * shift + coefficients


@functools.lru_cache(maxsize=200_000)
def _factors(acceptable: int, failed: int, beliefs: Beliefs) -> tuple[float, list[float]]:
    """What terms of Z have by n_R = 0 … acceptable, beside the coefficient: the largest's log, all relative to it."""
    logs = [
        _log_chance(beliefs.prior, right, acceptable - right + failed)
        + (acceptable - right) * math.log1p(-beliefs.fails)
        - _rising(beliefs.scatter_right, right)
        - _rising(beliefs.scatter_wrong, acceptable - right)
        for right in range(acceptable + 1)
    ]
    top = max(logs)
    return top, [math.exp(each - top) for each in logs]


@functools.lru_cache(maxsize=200_000)
def _log_chance(prior: Prior, right: int, wrong: int) -> float:
    """log of the probability of so many right and wrong attempts, in any one order."""
    return math.log(
        math.fsum(
            weight * math.exp(log_beta(alpha + right, beta + wrong) - log_beta(alpha, beta))
            for weight, alpha, beta in prior.parts
        )
    )


@functools.lru_cache(maxsize=200_000)
def chances(kinds: Kinds, failed: int, beliefs: Beliefs) -> Mapping[Group, float]:
    """For each kind of group, the probability (0..1) that one of it is right."""
    total = math.fsum(_terms(kinds, failed, beliefs))
    return {group: math.fsum(_terms(kinds, failed, beliefs, group)) / total for group, _ in kinds}


def _worth(kinds: Kinds, failed: int, beliefs: Beliefs) -> float:
    return max(chances(kinds, failed, beliefs).values(), default=0.0)


@functools.lru_cache(maxsize=400_000)
def _expected(kinds: Kinds, failed: int, beliefs: Beliefs, samples: int) -> float:
    """The expected worth after so many further attempts."""
    if not samples:
        return _worth(kinds, failed, beliefs)
    now = log_likelihood(kinds, failed, beliefs)
    total = 0.0
    for next_kinds, next_failed, many in _nexts(kinds, failed, beliefs):
        chance = many * math.exp(log_likelihood(next_kinds, next_failed, beliefs) - now)
        total += chance * _expected(next_kinds, next_failed, beliefs, samples - 1)
    return total


def _nexts(kinds: Kinds, failed: int, beliefs: Beliefs) -> list[tuple[Kinds, int, int]]:
    """What one more attempt may lead to, and in how many ways."""
    held = Counter(dict(kinds))
    joining = [(Counter({group: -1, Group(group.attempts + 1, group.level): 1}), many) for group, many in kinds]
    beginning = [(Counter([Group(1, level)]), 1) for level in range(len(beliefs.right))]
    changed = ((tuple(sorted((held + change).items())), failed, many) for change, many in (*joining, *beginning))
    return [(kinds, failed + 1, 1), *changed]
