"""sympy's own runner, for environments that have no pytest: `harness/inside/troop_sympy.py` reports what it does."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.sandbox.base import INSIDE
from harness.testing.runners.base import Runner, appended

_OWN = re.compile(r"(?:\w+=\S*\s+)*(?:(?:/\S*/)?python[0-9.]*\s+)?(?:\./)?bin/test(?=$|\s)")


class Sympy(Runner):
    """sympy's `bin/test` reports no tests by itself. Limited to ids, `command` takes its place, which wants some."""

    name = "sympy's runner"
    command = f"PYTHONHASHSEED=0 PYTHONWARNINGS=ignore python {INSIDE}/troop_sympy.py"
    always_reports = False

    def recognises(self, command: str) -> bool:
        return command == self.command or (_OWN.match(command) is not None and appended(command, ["file"]) != command)

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        """Another project may have a script of that name."""
        if not ids or command == self.command:
            return command
        return f"if [ -d sympy ]; then {self.command}; else {command}; fi"
