"""What a model answered and what its calls of tools gave, as the trace has it, for tests that ask and run nothing."""

from __future__ import annotations

from harness.records import Charge, Json, Usage
from harness.trace import Replied, ToolRan


def replied(message: Json, cut: bool = False) -> Replied:
    return Replied(key="", message=message, charge=Charge(None, "act", "model", Usage(), None, "unknown", 0.0), cut=cut)


def ran(call: str, name: str, result: str, ok: bool = True) -> ToolRan:
    return ToolRan(turn=0, call=call, name=name, result=result, ok=ok)
