"""Go, Rust and JavaScript: their tools are started by `harness/inside/troop_tools.py`, which reports every test."""

import re
from collections.abc import Sequence

from harness.sandbox.base import INSIDE
from harness.testing.runners.base import Runner


class Tool(Runner):
    """One tool, where a command plainly starts it (not from within `npm test`). It is told of files, and may run more
    of their tests than were asked for."""

    python = False

    def __init__(self, name: str, words: str) -> None:
        start = r"(^|[;&|(\n]\s*)((?:\w+=\S*\s+)*)(?:npx\s+(?:-\S+\s+)*)?(?:\S*node_modules/\.bin/)?"
        self.name = name
        self._started = re.compile(rf"{start}{words}(?=$|[\s;&|)])")

    def recognises(self, command: str) -> bool:
        return self._started.search(command) is not None

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        return self._started.sub(rf"\1\2python3 {INSIDE}/troop_tools.py {self.name}", command)


TOOLS = (
    *(Tool("go", r"go\s+test"), Tool("cargo", r"cargo\s+test"), Tool("node", r"node(?=\s[^;&|\n]*--test\b)")),
    *(Tool(name, name) for name in ("jest", "vitest", "mocha")),
)
