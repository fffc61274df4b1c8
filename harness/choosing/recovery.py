"""How good a selection was, on instances whose candidates are labelled.

recovery = (selected - mean@1) / (oracle - mean@1), each a sum over instances: what was selected and right, what a blind
choice would have got, what could have been got. The interval is of the gain over a blind choice, by a bootstrap over
instances, paired: each drawn instance brings its selected and its blind result.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

BOOTSTRAPS = 10_000


@dataclass(frozen=True, slots=True)
class Choice:
    """One instance. `selected`: the chance that the selection is right (a tie between k is k candidates at 1/k; an
    abstention is 0.0); `blind`: the share of right samples; `possible`: whether any is right."""

    instance: str
    selected: float
    blind: float
    possible: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """Sums over instances; `recovery` None where there was nothing to choose. `gain`: selected - mean@1, with its 95 %
    interval `low`..`high`; `recovery_low`, `recovery_high`: that of the recovery, where every draw defines one."""

    instances: int
    selected: float
    mean_at_1: float
    oracle: int
    recovery: float | None
    gain: float
    low: float
    high: float
    recovery_low: float | None
    recovery_high: float | None


def recovery(choices: Sequence[Choice], *, draws: int = BOOTSTRAPS) -> Recovery:
    """The measures over these instances."""
    selected, blind, oracle = _sums(choices)
    rng = random.Random(0)
    gains, shares = [], []
    for _ in range(draws if choices else 0):
        s, b, o = _sums(rng.choices(choices, k=len(choices)))
        gains.append(s - b)
        if o > b:
            shares.append((s - b) / (o - b))
    low, high = _middle(gains) or (0.0, 0.0)
    between = _middle(shares)
    return Recovery(
        instances=len(choices),
        selected=selected,
        mean_at_1=blind,
        oracle=round(oracle),
        recovery=(selected - blind) / (oracle - blind) if oracle > blind else None,
        gain=selected - blind,
        low=low,
        high=high,
        recovery_low=between[0] if between else None,
        recovery_high=between[1] if between else None,
    )


def _sums(choices: Sequence[Choice]) -> tuple[float, float, float]:
    return (sum(c.selected for c in choices), sum(c.blind for c in choices), float(sum(c.possible for c in choices)))


def _middle(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle 95 %."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[max(0, int(0.975 * len(ordered)) - 1)]
