"""Commands of a build, one after the other in a sandbox: told of, logged, and named where one fails."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.records import Exec
from harness.sandbox.base import Sandbox
from tasks.errors import SetupFailed
from tasks.say import Say

STEP_SECONDS = 3600.0
_END_CHARS = 1800
_KEPT = 2_000_000


@dataclass(frozen=True, slots=True)
class Log:
    """The log file of one instance's builds; `prefix` opens every line that a person hears."""

    path: Path
    prefix: str
    hear: Say

    def say(self, line: str) -> None:
        """To the person and to the file."""
        self.hear(f"{self.prefix}: {line}")
        self.write(f"== {line}")

    def write(self, text: str) -> None:
        """To the file only."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text.rstrip("\n") + "\n")


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one layer, in one sandbox."""

    sandbox: Sandbox
    log: Log

    async def take(self, what: str, command: str, *, env: Mapping[str, str] | None = None, cwd: str = "/") -> str:
        """Do a step that must succeed; its output. Raises SetupFailed, naming the step, with the end of its output."""
        done = await self.attempt(what, command, env=env, cwd=cwd)
        if done.exit_code != 0:
            raise failed(self.log, what, done)
        return done.output

    async def attempt(self, what: str, command: str, *, env: Mapping[str, str] | None = None, cwd: str = "/") -> Exec:
        """Do a step that may fail."""
        began = time.monotonic()
        self.log.write(f"-- {what}\n$ {command}")
        done = await self.sandbox.exec(command, cwd=cwd, env=env, timeout=STEP_SECONDS, output_bytes=_KEPT, merge=True)
        self.log.write(f"{done.output}\n-- exit code {done.exit_code} after {time.monotonic() - began:.1f} s")
        return done


def failed(log: Log, what: str, done: Exec) -> SetupFailed:
    """The error of a step that failed."""
    end = done.output.strip()[-_END_CHARS:]
    why = f"was stopped after {done.seconds:.0f} s" if done.timed_out else "failed"
    return SetupFailed(
        f"the image of {log.prefix}: {what} {why}: see {log.path}\n{end}\n"
        "(that is the end of it; the next build goes on from the layers that are done)"
    )
