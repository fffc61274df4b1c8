"""Many test runs in one sandbox without starting Python and pytest anew for each: what `run_tests` gives, sooner.

The first run starts a process that waits inside (harness/inside/warm.py), held by one `exec` for as long as it lives; every
run is a fork of it, asked for by a short `exec` that lends the fork its standard streams. A run counts only if the waiting
process confirms in the report file how it ended. Anything else (it refused, died, or was killed by the code under test)
and the run is made again by `harness.testing.run.run_tests`, as if nothing had been. A run that times out or is cancelled takes
the waiting process and everything that it started with it, killed by the sandbox's first process.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import Exec, TestReport
from harness.sandbox.base import TROOPDIR, WORKDIR, Sandbox
from harness.testing.run import OUTPUT_BYTES, REPORT_BYTES, files_of, interpret, run_tests, script, settings
from tasks.errors import SandboxFailed

WAIT, ASK = f"{TROOPDIR}/inside/warm.py", f"{TROOPDIR}/inside/warm_ask.py"
LIFETIME = 7 * 24 * 3600.0
START_SECONDS = 30.0
LAST_SECONDS = 0.5
REFUSED = 125
MOST_FAILURES = 4

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_PYTHON = re.compile(r"(?:/[\w./-]*/)?python[0-9.]*")
_QUOTED = re.compile(r"""'[^']*'|"[^"$`\\!]*\"""")
_SHELL = re.compile(r"""[|;&<>()$`\\*?\[\]{}~!#\n'"]""")
_DECISIVE = frozenset({"PATH", "BASH_ENV", "ENV", "SHELLOPTS"})


@dataclass(frozen=True, slots=True)
class Launch:
    """A test command that is nothing but pytest. `variables`: its leading assignments, as a shell reads them; `python`:
    the interpreter's name, empty where the command is the script `pytest`; `arguments`: pytest's own."""

    variables: tuple[str, ...]
    python: str
    arguments: tuple[str, ...]


def launch_of(command: str) -> Launch | None:
    """What to wait with for `command`; None where only a shell knows what it means, or it is not plainly pytest.

    Plain are `python -m pytest ARGUMENTS` (any name or path of a Python, no option before -m) and `pytest ARGUMENTS`, both
    also after assignments such as `PYTHONPATH=src`.
    """
    if _SHELL.search(_QUOTED.sub("", command)):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    start = next((at for at, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
    variables, rest = tuple(words[:start]), words[start:]
    if any(word.partition("=")[0] in _DECISIVE for word in variables):
        return None
    if rest[:1] == ["pytest"]:
        return Launch(variables, "", tuple(rest[1:]))
    if len(rest) >= 3 and _PYTHON.fullmatch(rest[0]) and rest[1:3] == ["-m", "pytest"]:
        return Launch(variables, rest[0], tuple(rest[3:]))
    return None


class WarmTests:
    """The test runs of one sandbox. It needs no closing: what waits inside ends with the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._waiting: _Waiting | None = None
        self._failures = 0

    async def run(
        self,
        command: str,
        ids: Sequence[str] = (),
        *,
        timeout: float,
        test_seconds: float | None = None,
    ) -> TestReport:
        """As `harness.testing.run.run_tests`, in `WORKDIR`."""
        launch = launch_of(command)
        if launch is not None and self._failures < MOST_FAILURES:
            waiting = self._ready(launch)
            report = await self._forked(waiting, launch, command, ids, timeout, test_seconds)
            if report is not None:
                return report
            await self._note(waiting)
        return await run_tests(self._sandbox, command, ids, timeout=timeout, test_seconds=test_seconds)

    def _ready(self, launch: Launch) -> _Waiting:
        """Who waits for such a run: the one there is, or a new one."""
        waiting = self._waiting
        if waiting is None or waiting.ended or (waiting.variables, waiting.python) != (launch.variables, launch.python):
            if waiting is not None:
                waiting.cancel()
            waiting = self._waiting = _Waiting(self._sandbox, launch)
        return waiting

    async def _note(self, waiting: _Waiting) -> None:
        """A run came to nothing. Where none can ever come to anything, none is tried again."""
        await waiting.end()
        self._failures = MOST_FAILURES if waiting.refuses else self._failures + 1

    async def _forked(
        self,
        waiting: _Waiting,
        launch: Launch,
        command: str,
        ids: Sequence[str],
        timeout: float,
        test_seconds: float | None,
    ) -> TestReport | None:
        """The report of a fork; None where there was none to be believed."""
        place = f"/tmp/troop-tests-{secrets.token_hex(8)}"
        variables = {name: value or None for name, value in settings(place, ids, test_seconds).items()}
        request = {
            "argv": [*launch.arguments, *files_of(ids)],
            "cwd": WORKDIR,
            "env": variables,
            "select": json.dumps(list(ids)),
            "remove": waiting.left,
        }
        waiting.left = []
        confirmed = False
        try:
            result = await waiting.ask(place, json.dumps(request).encode("ascii"), timeout)
            if result is not None:
                if result.timed_out:
                    await waiting.end()
                lines = await self._report(place)
                ended = b'{"ended": %d}\n' % result.exit_code
                confirmed = not result.timed_out and lines.endswith(ended)
                waiting.proven = waiting.proven or confirmed
                if confirmed or (result.timed_out and lines.startswith(b'{"warm": ')):
                    return interpret(command, result, lines)
                await waiting.last_words()
        finally:
            waiting.left.append(place)
            if not confirmed:
                waiting.cancel()
        return None

    async def _report(self, place: str) -> bytes:
        try:
            return await self._sandbox.read(f"{place}/report", limit=REPORT_BYTES)
        except (FileNotFoundError, ValueError):
            return b""


class _Waiting:
    """One process that waits inside. `left`: places of finished runs, for the next one to remove. `proven`: a run
    of it was confirmed."""

    def __init__(self, sandbox: Sandbox, launch: Launch) -> None:
        self.variables, self.python = launch.variables, launch.python
        self.left: list[str] = []
        self.proven = False
        self._sandbox = sandbox
        self._place = f"/tmp/troop-warm-{secrets.token_hex(8)}"
        self._held = asyncio.ensure_future(self._hold())

    @property
    def ended(self) -> bool:
        return self._held.done()

    @property
    def refuses(self) -> bool:
        """Whether it said that it cannot do this at all."""
        held = self._held
        return held.done() and not held.cancelled() and held.result() == REFUSED

    def cancel(self) -> None:
        """Have it killed, soon, with everything that it started."""
        self._held.cancel()

    async def end(self) -> None:
        """Have it killed with everything that it started, before the sandbox does anything asked of it later."""
        self._held.cancel()
        await asyncio.wait({self._held})

    async def last_words(self) -> None:
        """Give it the time to say that it refuses."""
        await asyncio.wait({self._held}, timeout=LAST_SECONDS)

    async def ask(self, place: str, request: bytes, timeout: float) -> Exec | None:
        """What a run wrote and how it ended, None if it ended with who was to fork it."""
        patience = 0.0 if self.proven else START_SECONDS
        asking = asyncio.ensure_future(
            self._sandbox.exec(
                [
                    self._interpreter(),
                    "-I",
                    "-S",
                    "-B",
                    ASK,
                    f"{self._place}/socket",
                    place,
                    f"{patience:g}",
                ],
                cwd="/",
                stdin=request,
                timeout=timeout,
                output_bytes=OUTPUT_BYTES,
                merge=True,
            )
        )
        try:
            await asyncio.wait({asking, self._held}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():  # it may have the answer already
                await asyncio.wait({asking}, timeout=LAST_SECONDS)
            return await asking if asking.done() else None
        finally:
            asking.cancel()

    def _interpreter(self) -> str:
        return self.python or "python3"

    async def _hold(self) -> int:
        """Its exit code; -1 if the sandbox went first."""
        wait = [WAIT, f"{self._place}/socket"]
        if self.python:
            start = shlex.join([self.python, *wait, "-m"])
        else:
            start = f'"$(sed -n "1s/^#!//p" "$(command -v pytest)")" {shlex.join(wait)} "$(command -v pytest)"'
        for variable in reversed(self.variables):
            name, _, value = variable.partition("=")
            start = f"{name}={shlex.quote(value)} {start}"
        try:
            done = await self._sandbox.exec(
                script(self._place, start, {}), timeout=LIFETIME, output_bytes=4000, merge=True
            )
        except (SandboxFailed, OSError):
            return -1
        return done.exit_code
