"""Features from what candidates did when they were run: the issue's probes and the near tests. Zero where nothing was run."""

from __future__ import annotations

from collections.abc import Sequence
from math import log1p

from harness.agreement import shares
from harness.evidence_store import Found
from harness.pool import Sample

BEHAVIOUR: dict[str, tuple[str, ...]] = {
    "probes": ("like-base", "error-gone", "same-behaviour", "told-output", "new-crash"),
    "tests": ("breaks-tests", "breaks-tests-alone", "mends-tests"),
}


def behaviour_features(
    found: Sequence[Found], groups: Sequence[str], samples: Sequence[Sample]
) -> dict[str, list[float]]:
    """The columns of the kinds "probes" and "tests", one value a sample."""
    alone = _broken_alone(found, groups)
    return {
        "like-base": [_like_base(f) for f in found],
        "error-gone": [_error_gone(f) for f in found],
        "same-behaviour": shares([_behaviour(f) for f in found], samples),
        "told-output": [max(f.probes.told.values(), default=0.0) if f.probes else 0.0 for f in found],
        "new-crash": [_new_crash(f) for f in found],
        "breaks-tests": [log1p(len(f.tests.broken)) if f.tests else 0.0 for f in found],
        "breaks-tests-alone": [log1p(n) for n in alone],
        "mends-tests": [log1p(len(f.tests.mended)) if f.tests else 0.0 for f in found],
    }


def _like_base(found: Found) -> float:
    """Whether every probe behaves exactly as on the base."""
    facts = found.probes
    return float(
        facts is not None and bool(facts.printed) and all(facts.on_base[p] == d for p, d in facts.printed.items())
    )


def _error_gone(found: Found) -> float:
    """The share of the probes that show the issue's error on the base that no longer do."""
    facts = found.probes
    shown = [p for p, complained in facts.complained.items() if complained] if facts else []
    assert facts is not None or not shown
    return sum(facts.ended.get(p) != facts.ended_on_base[p] for p in shown) / len(shown) if facts and shown else 0.0


def _new_crash(found: Found) -> float:
    """Whether a probe ends by an exception other than the base's."""
    facts = found.probes
    if facts is None:
        return 0.0
    return float(any(e not in ("ok", facts.ended_on_base.get(p)) for p, e in facts.ended.items()))


def _behaviour(found: Found) -> tuple[tuple[str, str], ...] | None:
    """How all probes behaved; None where there is none or all behave as on the base."""
    if found.probes is None or not found.probes.printed or _like_base(found):
        return None
    return tuple(sorted(found.probes.printed.items()))


def _broken_alone(found: Sequence[Found], groups: Sequence[str]) -> list[int]:
    """For each candidate how many tests it breaks that at most a third of the distinct candidates break."""
    broken = {g: set(f.tests.broken) for f, g in zip(found, groups, strict=True) if f.tests is not None}
    often = max(1.0, len(broken) / 3)
    return [
        sum(sum(test in other for other in broken.values()) <= often for test in f.tests.broken) if f.tests else 0
        for f in found
    ]
