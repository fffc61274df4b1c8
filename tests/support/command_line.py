"""`troop` as a person or a script starts it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TROOP = (sys.executable, "-m", "agent")
"""How the command line is started."""


def troop(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """What the command line answers; no key and no settings of the user's reach it."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    return subprocess.run(
        [*TROOP, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CONFIG_HOME": "/nonexistent", **env},
        check=False,
    )
