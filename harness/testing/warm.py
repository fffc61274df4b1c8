"""Many test runs in one sandbox without starting a test framework anew for each: what `run_tests` gives, sooner.

The first run starts a process that waits inside (harness/inside/warm.py), held by one `exec` for as long as it lives;
every run is a fork of it, asked for by a short `exec` that lends the fork its standard streams. A run counts only if
the waiting process confirms in the report file how it ended. Anything else (it refused, died, or was killed by the code
under test) and the run is made again by `harness.testing.run.run_tests`, as if nothing had been. A run that times out
or is cancelled takes the waiting process and everything that it started with it, killed by the sandbox's first process.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence

from harness.records import Exec, Json, TestReport
from harness.sandbox.base import INSIDE, WORKDIR, Sandbox
from harness.testing.run import OUTPUT_BYTES, run_tests, script, settings, written
from harness.testing.runners.base import Launch, Runner, files_of
from harness.testing.runners.registry import runner_of
from tasks.errors import SandboxFailed

ASK = f"{INSIDE}/warm_ask.py"
LIFETIME = 7 * 24 * 3600.0
START_SECONDS = 30.0
LAST_SECONDS = 0.5
REFUSED = 125
MOST_FAILURES = 4


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
        to_first_failure: bool = False,
    ) -> TestReport:
        """As `harness.testing.run.run_tests`, in `WORKDIR`."""
        runner = runner_of(command)
        launch = runner.launch(command)
        if launch is not None and self._failures < MOST_FAILURES:
            waiting, place = self._ready(runner, launch), f"/tmp/troop-tests-{secrets.token_hex(8)}"
            told = settings(place, ids, test_seconds, to_first_failure)
            environment = {name: value or None for name, value in told.items()}
            request = {"argv": [*launch.arguments, *files_of(ids)], "cwd": WORKDIR, "env": environment}
            report = await self._forked(waiting, place, request | {"select": json.dumps(list(ids))}, timeout)
            if report is not None:
                return report
            await waiting.end()
            # Where none can ever come to anything, none is tried again.
            self._failures = MOST_FAILURES if waiting.refuses else self._failures + 1
        return await run_tests(
            self._sandbox, command, ids, timeout=timeout, test_seconds=test_seconds, to_first_failure=to_first_failure
        )

    def _ready(self, runner: Runner, launch: Launch) -> "_Waiting":
        """Who waits for such a run: the one there is, or a new one."""
        waiting = self._waiting
        if waiting is None or waiting.ended or not waiting.serves(runner, launch):
            if waiting is not None:
                waiting.cancel()
            waiting = self._waiting = _Waiting(self._sandbox, runner, launch)
        return waiting

    async def _forked(self, waiting: "_Waiting", place: str, request: Json, timeout: float) -> TestReport | None:
        """The report of a fork; None where there was none to be believed."""
        request["remove"] = waiting.left
        waiting.left, confirmed = [], False
        try:
            result = await waiting.ask(place, json.dumps(request).encode("ascii"), timeout)
            if result is not None:
                if result.timed_out:
                    await waiting.end()
                lines = await written(self._sandbox, place)
                ended = b'{"ended": %d}\n' % result.exit_code
                confirmed = not result.timed_out and lines.endswith(ended)
                waiting.proven = waiting.proven or confirmed
                if confirmed or (result.timed_out and lines.startswith(b'{"warm": ')):
                    return waiting.runner.read(result, lines)
                await waiting.last_words()
        finally:
            waiting.left.append(place)
            if not confirmed:
                waiting.cancel()
        return None


class _Waiting:
    """A process that waits inside. `left`: places of finished runs, to be removed. `proven`: a run was confirmed."""

    def __init__(self, sandbox: Sandbox, runner: Runner, launch: Launch) -> None:
        self.runner = runner
        self.left: list[str] = []
        self.proven = False
        self._sandbox = sandbox
        self._launch = launch
        self._place = f"/tmp/troop-warm-{secrets.token_hex(8)}"
        self._held = asyncio.ensure_future(self._hold())

    def serves(self, runner: Runner, launch: Launch) -> bool:
        """Whether runs of that launch can be forks of this process; their arguments may differ."""
        own = self._launch
        return (self.runner, own.variables, own.python) == (runner, launch.variables, launch.python)

    @property
    def ended(self) -> bool:
        return self._held.done()

    @property
    def refuses(self) -> bool:
        """Whether it said that it cannot do this at all."""
        return self.ended and not self._held.cancelled() and self._held.result() == REFUSED

    def cancel(self) -> None:
        """Have it killed, soon, with everything that it started."""
        self._held.cancel()

    async def end(self) -> None:
        """Have it killed with everything that it started, before the sandbox does anything asked of it later."""
        self.cancel()
        await asyncio.wait({self._held})

    async def last_words(self) -> None:
        """Give it the time to say that it refuses."""
        await asyncio.wait({self._held}, timeout=LAST_SECONDS)

    async def ask(self, place: str, request: bytes, timeout: float) -> Exec | None:
        """What a run wrote and how it ended, None if it ended with who was to fork it."""
        patience = 0.0 if self.proven else START_SECONDS
        start = [self._launch.python or "python3", "-I", "-S", "-B", ASK]
        argv = [*start, f"{self._place}/socket", place, f"{patience:g}"]
        run = self._sandbox.exec(argv, cwd="/", stdin=request, timeout=timeout, output_bytes=OUTPUT_BYTES, merge=True)
        asking = asyncio.ensure_future(run)
        try:
            await asyncio.wait({asking, self._held}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():  # it may have the answer already
                await asyncio.wait({asking}, timeout=LAST_SECONDS)
            return await asking if asking.done() else None
        finally:
            asking.cancel()

    async def _hold(self) -> int:
        """Its exit code; -1 if the sandbox went first."""
        start = self.runner.waiting(self._launch, f"{self._place}/socket")
        command = script(self._place, start, {})
        try:
            return (await self._sandbox.exec(command, timeout=LIFETIME, output_bytes=4000, merge=True)).exit_code
        except (SandboxFailed, OSError):
            return -1
