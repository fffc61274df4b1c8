"""What the probes of an issue told about one candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """`printed`: by probe, a digest of how it behaved (output, exception, exit status), in a form without addresses, times
    and line numbers. `on_base`: the same on the base. `ended`: by probe, "ok", "timeout", or the name of the exception that ended
    it. `ended_on_base`: likewise. `told`: probes whose output the statement holds, though the base's does not print it.
    """

    printed: Mapping[str, str] = field(default_factory=dict)
    on_base: Mapping[str, str] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)
    ended_on_base: Mapping[str, str] = field(default_factory=dict)
    complained: Mapping[str, bool] = field(default_factory=dict)
    told: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
