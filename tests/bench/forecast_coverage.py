"""How often the 95 % interval of a forecast holds the truth: simulations of tasks whose law is known.

    python tests/bench/forecast_coverage.py [--simulations 1000] [--draws 200] [--every-law] > forecast_coverage.json

Each simulation draws tasks with success rates of a known mixture, samples of each, and asks `harness.scaling.forecast`
for coverage at k not sampled. Told for each setting: the share of simulations that were refused (and why), and among
the others the share whose interval holds the true expected coverage, and the interval's mean width. The mixtures are
Beta (the beta-binomial law is then true), and Beta with a share of tasks that nothing solves (the inflated law is then
true).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy
from numpy.typing import NDArray

from harness.scaling.forecast import LAWS, forecast
from harness.scaling.laws import BetaBinomial

Rates = NDArray[numpy.float64]
Draw = Callable[[numpy.random.Generator, int], Rates]


@dataclass(frozen=True)
class Setting:
    """`draw(generator, tasks)` gives success rates; `truth(k)` the expected coverage. `law`: the one that is true."""

    name: str
    law: str
    tasks: int
    samples: int
    k: int
    draw: Draw
    truth: Callable[[float], float]


def beta(alpha: float, b: float, tasks: int, samples: int, k: int) -> Setting:
    return Setting(
        f"Beta({alpha}, {b})",
        "beta-binomial",
        tasks,
        samples,
        k,
        lambda rng, count: rng.beta(alpha, b, count),
        BetaBinomial(alpha, b).coverage,
    )


def inflated(unsolvable: float, alpha: float, b: float, tasks: int, samples: int, k: int) -> Setting:
    return Setting(
        f"{unsolvable:.0%} never solved, the others Beta({alpha}, {b})",
        "inflated beta-binomial",
        tasks,
        samples,
        k,
        lambda rng, count: rng.beta(alpha, b, count) * (rng.random(count) >= unsolvable),
        lambda at: (1 - unsolvable) * BetaBinomial(alpha, b).coverage(at),
    )


SETTINGS = (
    partial(beta, 0.3, 2.0, 100, 16, 160),
    partial(inflated, 0.3, 0.5, 2.0, 100, 32, 320),
    partial(beta, 0.3, 2.0, 40, 32, 320),
    partial(beta, 0.3, 2.0, 300, 16, 160),
    partial(beta, 0.15, 1.0, 100, 10, 100),
    partial(inflated, 0.5, 1.0, 3.0, 100, 16, 160),
    partial(beta, 0.5, 5.0, 60, 20, 100),
    partial(beta, 0.3, 2.0, 40, 10, 40),
)


def simulate(setting: Setting, simulations: int, draws: int, seed: int, every: bool) -> dict[str, object]:
    """What the forecasts of one setting came to, by law: the true one, or `every`."""
    laws = list(LAWS) if every else [setting.law]
    told_by = mock.patch.dict(LAWS, {law: LAWS[law] for law in laws}, clear=True)
    truth = setting.truth(setting.k)
    rng = numpy.random.default_rng(seed)
    held: Counter[str] = Counter()
    refusals: dict[str, Counter[str]] = {}
    widths: dict[str, list[float]] = {}
    off: dict[str, list[float]] = {}
    with told_by:
        for simulation in range(simulations):
            rates = setting.draw(rng, setting.tasks)
            outcomes = (rng.random((setting.tasks, setting.samples)) < rates[:, None]).tolist()
            for told in forecast(outcomes, setting.k, draws=draws, seed=simulation):
                if told.coverage is None or told.low is None or told.high is None:
                    why = " ".join(told.refused.split()[:2])
                    refusals.setdefault(told.law, Counter())[why] += 1
                    continue
                held[told.law] += told.low <= truth <= told.high
                widths.setdefault(told.law, []).append(told.high - told.low)
                off.setdefault(told.law, []).append(told.coverage - truth)
    return {
        "tasks are": setting.name,
        "true law": setting.law,
        "tasks": setting.tasks,
        "samples": setting.samples,
        "k": setting.k,
        "truth": round(truth, 4),
        "by law": {
            law: {
                "told": len(widths.get(law, [])),
                "held": round(held[law] / len(widths[law]), 4) if law in widths else None,
                "mean width": round(float(numpy.mean(widths[law])), 4) if law in widths else None,
                "bias": round(float(numpy.mean(off[law])), 4) if law in off else None,
                "refused": dict(refusals.get(law, {})),
            }
            for law in laws
        },
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--simulations", type=int, default=1000)
    options.add_argument("--draws", type=int, default=200, help="bootstraps of each forecast")
    options.add_argument("--every-law", action="store_true", help="also what the laws that are not true come to")
    options.add_argument("--only", type=int, action="append", help="number of a setting, from 0")
    known = options.parse_args()
    os.nice(10)
    results = []
    for number, make in enumerate(SETTINGS):
        if known.only and number not in known.only:
            continue
        results.append(simulate(make(), known.simulations, known.draws, number, known.every_law))
        sys.stderr.write(json.dumps(results[-1]) + "\n")
    print(json.dumps({"simulations": known.simulations, "draws": known.draws, "settings": results}, indent=1))


if __name__ == "__main__":
    main()
