"""Everything that was found out about the candidates of one instance, as it is kept on disk: ranking reads
nothing else.

    RUN/samples.jsonl.gz          who wrote which patch (a pool file without labels)
    RUN/evidence/<instance>.json  what was found out about the base and each distinct patch, by the digest of its text

What has to be run is None until it was; a later `troop select` adds what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.cache import write_json
from harness.choosing.pool import Sample
from harness.choosing.probe_facts import Seen
from harness.choosing.static_evidence import StaticFacts
from harness.trace import record
from tasks.errors import InputError

SCHEMA = 1

Steps = Mapping[str, tuple[Seen, ...]]
"""What probes showed, by probe name, one `Seen` a step."""


@dataclass(frozen=True, slots=True)
class TestFacts:
    """Near tests on one candidate: `broken` pass on the base every time and not here. `asked`: how many tests were
    compared. `reason`: what was odd about the run, mostly empty."""

    __test__ = False

    asked: int
    broken: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NearBase:
    """The near tests that pass on the base every time."""

    green: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one distinct patch."""

    static: StaticFacts
    probes: Steps | None = None
    tests: TestFacts | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing of it to run."""
        return self.static.applies == "no" or self.static.no_code


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of the instance itself. `probes`: on the base, None until run; `unsteady`: steps ("probe/number")
    that differ between two runs of the base and are no evidence. `sources`: of each probe, its steps or its command."""

    statement: str = ""
    probes: Steps | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unsteady: tuple[str, ...] = ()
    near: NearBase | None = None


@dataclass(frozen=True, slots=True)
class InstanceEvidence:
    """All samples of one instance (without labels), and what was found out about the base and their patches."""

    instance: str
    samples: tuple[Sample, ...]
    base: Base = Base()
    found: Mapping[str, Found] = field(default_factory=dict)

    def of(self, sample: Sample) -> Found:
        return self.found[digest(sample.patch)]

    @property
    def patches(self) -> dict[str, str]:
        """The distinct texts of patches by digest, in order of first appearance."""
        return {digest(s.patch): s.patch for s in self.samples}

    def with_found(self, **found: Found) -> InstanceEvidence:
        """This evidence, with what is known now of the patches of these digests in place of what was."""
        return replace(self, found={**self.found, **found})


Keep = Callable[[InstanceEvidence], None]
"""Told of all evidence on an instance whenever there is more of it."""


def digest(patch: str) -> str:
    """The name of a patch's text in the store."""
    return hashlib.sha256(patch.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_found(directory: Path, instance: str, base: Base, found: Mapping[str, Found]) -> None:
    """Keep what was found out about an instance; whole or not at all."""
    body = {
        "schema": SCHEMA,
        "instance": instance,
        "base": dataclasses.asdict(base),
        "found": {key: dataclasses.asdict(each) for key, each in found.items()},
    }
    write_json(_place(directory, instance), body)


def keeping(directory: Path) -> Keep:
    """Keeps evidence in the run's directory."""
    return lambda evidence: write_found(directory, evidence.instance, evidence.base, evidence.found)


def read_found(directory: Path, instance: str) -> tuple[Base, dict[str, Found]]:
    """What the run holds on an instance, if anything. Raises InputError for a damaged file or another schema."""
    place = _place(directory, instance)
    if not place.exists():
        return Base(), {}
    try:
        body = json.loads(place.read_bytes())
        if body["schema"] != SCHEMA:
            raise InputError(f"{place} was written by another version; gather the evidence again in a new directory")
        return record(Base, body["base"]), record(dict[str, Found], body["found"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{place} is damaged: {error}") from error


def evidence_so_far(directory: Path, instance: str, samples: Sequence[Sample]) -> InstanceEvidence:
    """What the run holds on these samples, which may be nothing. Raises InputError as `read_found` does."""
    return InstanceEvidence(instance, tuple(replace(s, right=None) for s in samples), *read_found(directory, instance))


def evidence_of(directory: Path, instance: str, samples: Sequence[Sample]) -> InstanceEvidence:
    """The stored evidence on these samples. Raises InputError where a patch has none."""
    evidence = evidence_so_far(directory, instance, samples)
    missing = [s.source for s in samples if digest(s.patch) not in evidence.found]
    if missing:
        raise InputError(
            f"{directory} holds no evidence on {instance} by {missing[0]}; run troop select without --from first"
        )
    return evidence


def _place(directory: Path, instance: str) -> Path:
    return directory / "evidence" / f"{instance}.json"
