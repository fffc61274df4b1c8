"""Patches with what grading said of them: for fitting and measuring only. Nothing that makes evidence is handed one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness.choosing import pool
from harness.choosing.pool import Sample, fields_of, sample_of
from tasks.errors import InputError

OUTCOMES = ("resolved", "unresolved", "apply-failed")


@dataclass(frozen=True, slots=True)
class Graded(Sample):
    """A sample, and whether it is right, None where nobody graded it."""

    right: bool | None = None


def unlabelled(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples without what grading said of them."""
    return tuple(Sample(s.instance, s.source, s.model, s.patch) for s in samples)


def by_instance(samples: Iterable[Graded]) -> dict[str, tuple[Graded, ...]]:
    """As `harness.choosing.pool.by_instance`."""
    return cast(dict[str, tuple[Graded, ...]], pool.by_instance(samples))


def read_graded(path: Path) -> list[Graded]:
    """The samples of a pool, by its `outcome` of each. Raises InputError for a line that is damaged."""
    found = []
    for place, fields in fields_of(path):
        outcome, it = fields.get("outcome"), sample_of(path, place, fields)
        if outcome is not None and outcome not in OUTCOMES:
            raise InputError(f"{place}: the outcome '{outcome}' is none of {', '.join(OUTCOMES)}")
        right = None if outcome is None else outcome == "resolved"
        found.append(Graded(it.instance, it.source, it.model, it.patch, right=right))
    return found
