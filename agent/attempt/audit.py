"""Tries to reach what an attempt may not have: the network, later history, the fix itself.

Nothing can be had that way (sandboxes have no network, workspaces no future); a try is flagged because a patch that
rests on it, or on memory of it, deserves a second look.
"""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from agent.attempt.policy import TurnRecord
from agent.attempt.tools import kind_of

_TRIES = tomllib.loads(Path(__file__).with_name("tries.toml").read_text(encoding="utf-8"))
TRIES = {flag: re.compile(expression) for flag, expression in _TRIES.items()}


def leak_tries(history: Iterable[TurnRecord]) -> tuple[str, ...]:
    """The flags that the shell commands of an attempt deserve, sorted, each once."""
    commands = [
        str(call.arguments.get("command", ""))
        for record in history
        for call in record.decision.calls
        if kind_of(call.name) == "runs"
    ]
    return tuple(sorted(flag for flag, pattern in TRIES.items() if any(pattern.search(c) for c in commands)))
