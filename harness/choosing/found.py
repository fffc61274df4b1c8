"""Everything that was found out about the candidates of one instance. What has to be run is None until it was."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from harness.choosing.pool import Sample
from harness.choosing.probing import Seen
from harness.choosing.static_evidence import StaticFacts

Steps = Mapping[str, tuple[Seen, ...]]
"""What probes showed, by probe name, one `Seen` a step."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one distinct patch."""

    static: StaticFacts
    probes: Steps | None = None

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

    def with_found(self, **found: Found) -> "InstanceEvidence":
        """This evidence, with what is known now of the patches of these digests in place of what was."""
        return replace(self, found={**self.found, **found})


Keep = Callable[[InstanceEvidence], None]
"""Told of all evidence on an instance whenever there is more of it."""


def digest(patch: str) -> str:
    """The name of a patch's text among what was found."""
    return hashlib.sha256(patch.encode("utf-8", "surrogateescape")).hexdigest()[:16]
