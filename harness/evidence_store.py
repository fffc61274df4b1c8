"""Everything that was found out about the candidates of one instance, as it is kept on disk: ranking reads nothing else.

    RUN/samples.jsonl.gz         who wrote which patch (a pool file without labels)
    RUN/evidence/<instance>.json what was found out about each distinct patch, by the digest of its text

Every kind of evidence is None until somebody looked; a later `troop select` adds what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.pool import Sample
from harness.probe_facts import ProbeFacts
from harness.static_evidence import StaticFacts
from tasks.errors import InputError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TestFacts:
    """Near tests on one candidate: `broken` pass on the base every time and not here, `mended` fail on the base every time
    and pass here. `asked`: how many tests were compared. `reason`: why nothing can be said, empty where it can."""

    __test__ = False

    asked: int
    broken: tuple[str, ...]
    mended: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one distinct patch."""

    static: StaticFacts
    probes: ProbeFacts | None = None
    tests: TestFacts | None = None


@dataclass(frozen=True, slots=True)
class InstanceEvidence:
    """All samples of one instance (without labels) and what was found out about their patches, by `digest`."""

    instance: str
    samples: tuple[Sample, ...]
    found: Mapping[str, Found]
    notes: tuple[str, ...] = field(default=())

    def of(self, sample: Sample) -> Found:
        return self.found[digest(sample.patch)]


def digest(patch: str) -> str:
    """The name of a patch's text in the store."""
    return hashlib.sha256(patch.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def distinct(samples: Sequence[Sample]) -> dict[str, str]:
    """The distinct texts of patches by digest, in order of first appearance."""
    return {digest(s.patch): s.patch for s in samples}


def write_found(run: Path, instance: str, found: Mapping[str, Found], notes: Sequence[str] = ()) -> None:
    """Keep what was found out about an instance's patches; whole or not at all."""
    place = run / "evidence" / f"{instance}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "schema": SCHEMA,
        "instance": instance,
        "notes": list(notes),
        "found": {key: dataclasses.asdict(each) for key, each in found.items()},
    }
    part = place.with_suffix(".part")
    part.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8", errors="surrogateescape")
    part.replace(place)


def read_found(run: Path, instance: str) -> tuple[dict[str, Found], tuple[str, ...]]:
    """What the run holds on an instance, empty where nothing. Raises InputError for a damaged file or another schema."""
    place = run / "evidence" / f"{instance}.json"
    if not place.exists():
        return {}, ()
    try:
        body = json.loads(place.read_text(encoding="utf-8", errors="surrogateescape"))
        if body["schema"] != SCHEMA:
            raise InputError(f"{place} was written by another version; gather the evidence again in a new directory")
        return {key: _found(each) for key, each in body["found"].items()}, tuple(body["notes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place} is damaged: {error}") from error


def evidence_of(run: Path, instance: str, samples: Sequence[Sample]) -> InstanceEvidence:
    """The stored evidence on these samples. Raises InputError where a patch has none."""
    found, notes = read_found(run, instance)
    missing = [s.source for s in samples if digest(s.patch) not in found]
    if missing:
        raise InputError(
            f"{run} holds no evidence on {instance} by {missing[0]}; run troop select without --from first"
        )
    return InstanceEvidence(instance, tuple(replace(s, right=None) for s in samples), found, notes)


def _found(data: Mapping[str, Any]) -> Found:
    return Found(
        static=_record(StaticFacts, data["static"]),
        probes=None if data["probes"] is None else _record(ProbeFacts, data["probes"]),
        tests=None if data["tests"] is None else _record(TestFacts, data["tests"]),
    )


def _record(kind: Any, data: Mapping[str, Any]) -> Any:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})
