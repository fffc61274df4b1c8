"""A model's answers as the trace has them, for tests that call no model."""

from __future__ import annotations

from harness.records import Charge, Json, Usage
from harness.trace import Replied


def replied(message: Json, cut: bool = False) -> Replied:
    return Replied(key="", message=message, charge=Charge(None, "act", "model", Usage(), None, "unknown", 0.0), cut=cut)
