"""The unchanged code, as attempts ask for it: in fresh sandboxes of the base, so that no attempt's tree is touched.

What its tests say is kept by environment (`harness.evidence.near`): each file is run once, whoever asks for it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from harness.environments.base_run import Baseline
from harness.environments.environment import CleanRoom
from harness.evidence.near import alone
from harness.records import Exec, TestReport
from harness.repository.workspace import Workspace
from harness.sandbox.base import Sandbox
from harness.testing.report import outcome_of
from harness.testing.runners.base import files_of
from harness.testing.runners.registry import runner_of
from tasks.errors import SandboxFailed

MOST_FILES = 8
"""So many test files are run on the base for one report of an attempt; of more failures nothing is said."""
_NOTHING = TestReport({}, 0, False, True, 0.0, reason="no test command is known for this repository")

T = TypeVar("T")


class UnchangedCode:
    """For all attempts of a run, which share what is found out. `known`: the base's own run; `seconds`: of tests that
    candidates are held against. Raises ValueError, which says so, where no sandbox works."""

    def __init__(self, room: CleanRoom, base: Workspace, known: Baseline, seconds: float) -> None:
        self._room, self._base, self._known, self._seconds = room, base, known, seconds
        self._locks: dict[str, asyncio.Lock] = {}

    async def new_test(self, path: str, text: str) -> tuple[TestReport, str]:
        """Run a new test file: the report, and the file's outcome (as `Runner.new_file` gives it)."""
        command = self._room.built.test_command
        if command is None:
            return _NOTHING, "untold"

        async def work(sandbox: Sandbox) -> TestReport:
            await sandbox.write(path, text.encode("utf-8", "surrogateescape"))
            return await self._room.tests(sandbox, [path])

        report = await self._fresh("unchanged-test", work)
        return report, runner_of(command).new_file(report, path)

    async def run(self, command: str, files: Mapping[str, bytes], timeout: float) -> Exec:
        """Run a shell command beside these files. `timeout` in seconds."""

        async def work(sandbox: Sandbox) -> Exec:
            for path, content in files.items():
                with contextlib.suppress(OSError):
                    await sandbox.write(path, content)
            return await sandbox.exec(command, timeout=timeout, merge=True)

        return await self._fresh("unchanged-run", work)

    async def outcomes(self, tests: Sequence[str]) -> Mapping[str, str]:
        """What tests say: an outcome, "flaky", or "missing" for what is not there; left out where it is unknown."""
        known = self._known.report or _NOTHING
        found = {test: outcome for test in tests if (outcome := _outcome(known, test)) != "missing"}
        found.update({test: "flaky" for test in tests if test in self._known.flaky})
        rest = [test for test in tests if test not in found]
        there = set(await asyncio.to_thread(self._base.files)) if rest else set()
        for file in files_of(rest)[:MOST_FILES]:
            report = await self._of_file(file) if file in there else _NOTHING
            if report is not None:
                told = {test: _outcome(report, test) for test in rest if test.partition("::")[0] == file}
                # Of a run that was cut short nothing is known of a test that it has not reached.
                whole = report is _NOTHING or (report.valid and not report.timed_out)
                found.update({test: outcome for test, outcome in told.items() if whole or outcome != "missing"})
        return found

    async def _of_file(self, file: str) -> TestReport | None:
        if not runner_of(self._room.built.test_command or "").by_file:
            return None
        async with self._locks.setdefault(file, asyncio.Lock()):
            report = await alone(self._room, file, self._seconds)
        return report if report is not None and (report.valid or report.outcomes) else None

    async def _fresh(self, name: str, work: Callable[[Sandbox], Awaitable[T]]) -> T:
        try:
            return await self._room.fresh(name, work)
        except SandboxFailed as error:
            raise ValueError(f"the unchanged code could not be tried: {error}") from error


def _outcome(report: TestReport, test: str) -> str:
    """The outcome of a test; of a file that cannot be loaded now: "passed" where one of its tests passed."""
    loaded = any(outcome == "passed" and name.startswith(f"{test}::") for name, outcome in report.outcomes.items())
    return "passed" if "::" not in test and loaded else outcome_of(report, test)
