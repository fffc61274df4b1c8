"""Gathering evidence into a run directory: what is there already is not looked for again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.base_tree import BaseTree
from harness.evidence_store import Found, digest, distinct, read_found, write_found
from harness.pool import Sample
from harness.statement import Statement
from harness.static_evidence import look


def gather_static(run: Path, instance: str, samples: Sequence[Sample], statement: str, tree: BaseTree | None) -> int:
    """Static facts of every distinct patch that has none in `run` yet; how many were added.

    `tree` None: the base's files are not at hand, and only what the diff itself tells is noted.
    """
    found, notes = read_found(run, instance)
    read = Statement(statement)
    new = {key: Found(look(patch, read, tree)) for key, patch in distinct(samples).items() if key not in found}
    if new:
        write_found(run, instance, {**found, **new}, notes)
    return len(new)


def known(run: Path, instance: str, samples: Sequence[Sample]) -> bool:
    """Whether every patch of the samples has static facts in `run`."""
    found, _ = read_found(run, instance)
    return all(digest(s.patch) in found for s in samples)
