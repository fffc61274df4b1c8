"""Tries to reach what an attempt may not have: the network, later history, the fix itself.

Nothing can be had that way (sandboxes have no network, workspaces no future); a try is flagged because a patch that
rests on it, or on memory of it, deserves a second look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.attempt.policy import TurnRecord
from agent.attempt.tools import kind_of

TRIES: dict[str, re.Pattern[str]] = {
    "leak:history": re.compile(
        r"\bgit\b[^|;&\n]*\b(?:reflog|fsck|cherry|stash\s+list|log\b[^|;&\n]*--(?:all|reflog)|"
        r"(?:show|log|diff|checkout)\b[^|;&\n]*\b(?:origin/|upstream/|ORIG_HEAD|FETCH_HEAD|HEAD@\{))"
    ),
    "leak:remote": re.compile(r"\bgit\b[^|;&\n]*\b(?:fetch|pull|clone|ls-remote)\b"),
    "leak:download": re.compile(
        r"\b(?:curl|wget)\b|\bpip3?\s+(?:download|install)\b(?![^|;&\n]*(?:\s-e\s|\s\.))|\bhttps?://(?!localhost|127\.)"
    ),
}
"""Flag -> the commands that count as such a try."""


def leak_tries(history: Iterable[TurnRecord]) -> tuple[str, ...]:
    """The flags that the shell commands of an attempt deserve, sorted, each once."""
    commands = [
        str(call.arguments.get("command", ""))
        for record in history
        for call in record.decision.calls
        if kind_of(call.name) == "runs"
    ]
    return tuple(sorted(flag for flag, pattern in TRIES.items() if any(pattern.search(c) for c in commands)))
