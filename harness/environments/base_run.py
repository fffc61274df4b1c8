"""The base's test run: what passes, fails and flickers before anything is changed, and whether the given test fails.

It is kept beside the environment in the cache, so that the second run of a task starts at once.
"""

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cache import cache_root, read_json, write_json
from harness.environments.environment import FORMAT, HELP, CleanRoom, end_of
from harness.parallel import in_parallel
from harness.records import Json, TestReport
from harness.sandbox.base import Sandbox
from harness.testing.report import COMMAND_TEST, READING, broke_off, found_none, outcome_of, selects
from harness.testing.runners.base import files_of
from harness.trace import public, record
from tasks.errors import SetupFailed
from tasks.say import Say
from tasks.task import Task

NO_TESTS = "the repository has no tests that Troop finds, so nothing guards what a patch may break"
NEAR_LATER = "the tests near a change are run on the base once there are changes (scope near)"


TABLES = ("outcomes", "failures", "durations")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The base's test run. `report` None: no tests to run (`note` says so). `flaky`: tests whose outcome differed."""

    report: TestReport | None
    flaky: tuple[str, ...] = ()
    note: str = ""

    @property
    def green(self) -> tuple[str, ...]:
        """The tests that pass every time, sorted."""
        return tuple(sorted(self.report.passed - set(self.flaky))) if self.report else ()


async def baseline(
    room: CleanRoom, task: Task, *, runs: int = 2, anyway: bool = False, say: Say = lambda line: None
) -> Baseline:
    """Run the base's tests `runs` times, each in a fresh sandbox of the room, and check the given failing test.

    Tests that did not finish in a run's time are not part of the baseline, which the note says. Of a task whose scope
    is "near" only the given test's file is run. Raises SetupFailed when tests are there but none can be run (`anyway`:
    the note says so), or a given failing test passes or is not found, and SandboxFailed where sandboxes keep dying."""
    built = room.built
    if built.test_command is None:
        return Baseline(None, note=NO_TESTS)
    near = task.test_scope == "near"
    if near and task.failing_test is None:
        return Baseline(None, note=NEAR_LATER)
    path = _baseline_path(room, task, runs)
    kept = read_json(path)
    if kept is not None:
        return _checked(record(Baseline, kept), task)
    given = task.failing_test.ids if task.failing_test else ()
    files = files_of(given) if near else []
    say(f"running the tests of the base{' in ' * near}{', '.join(files)}: {built.test_command}")

    def in_sandbox(number: int) -> Callable[[Sandbox], Awaitable[TestReport]]:
        # Another order each other time: what depends on it is no guard, and two runs that are cut short see more.
        return lambda sandbox: _base_run(room, sandbox, files, given, spread=processes * (number % 2))

    processes = max(1, min(int(room.limits.cpus), (os.cpu_count() or 1) // 2))
    # A run that fails ends the others: none may go on in a provider that is being closed.
    reports = await in_parallel(room.fresh(f"base-{number}", in_sandbox(number)) for number in range(max(1, runs)))
    try:
        merged = _merge(reports, built.test_command, task)
    except SetupFailed as error:
        if not anyway:
            raise
        return Baseline(None, note=str(error).partition("\n")[0])
    found = _checked(merged, task)
    write_json(path, public(found), indent=None)
    return found


async def _base_run(
    room: CleanRoom, sandbox: Sandbox, files: Sequence[str], given: Sequence[str], *, spread: int
) -> TestReport:
    """The whole suite (or these files of it), and the given tests as well where the command leaves them out."""
    report = await room.tests(sandbox, files, spread=spread)
    if spread > 1 and not report.valid and not report.timed_out:  # these tests may bear no others beside them
        report = await room.tests(sandbox, files, spread=1)
    absent = [test for test in given if outcome_of(report, test) == "missing"]
    if not absent or COMMAND_TEST in report.outcomes:
        return report
    alone = await room.tests(sandbox, absent)
    if not report.outcomes:
        return alone
    both: Json = {name: {**getattr(report, name), **getattr(alone, name)} for name in TABLES}
    return replace(report, **both)


def _merge(reports: Sequence[TestReport], command: str, task: Task) -> Baseline:
    """One baseline of several runs: the first run's report, and whatever differed in another as flaky."""
    usable = [_usable(report) for report in reports]
    if task.test_command is None and task.failing_test is None and all(found_none(report) for report in usable):
        return Baseline(None, note=NO_TESTS)
    for report in usable:
        if not report.valid:
            why = f"the tests of the base cannot be run: {report.reason}; the command was: {command}"
            raise SetupFailed(f"{why}\n{end_of(report.output)}\n{HELP}")
    first = usable[0]
    cut = [report for report in usable if report.timed_out]
    for other in usable[1:] if cut else ():
        known: Json = {name: {**getattr(other, name), **getattr(first, name)} for name in TABLES}
        reason = first.reason.replace(_count(first), _count(replace(first, **known)))
        first = replace(first, **known, reason=reason)
    if _nothing_loads(first, task):
        message = next(iter(first.failures.values()), "") or first.output
        raise SetupFailed(f"no test of the base can be loaded; the command was: {command}\n{end_of(message)}\n{HELP}")
    ids = {test for report in usable for test in report.outcomes}
    flaky = sorted(t for t in ids if len({r.outcomes.get(t) for r in usable if t in r.outcomes or not r.timed_out}) > 1)
    notes = [first.reason] if first.reason else []
    if flaky:
        notes.append(f"{len(flaky)} flaky test{'s are' if len(flaky) > 1 else ' is'} left out of the evidence")
    return Baseline(first, tuple(flaky), "; ".join(notes))


def _usable(report: TestReport) -> TestReport:
    """A run that broke off (stopped, or its interpreter ended) counts for the tests that had finished before."""
    if report.valid or not report.passed or not (report.timed_out or broke_off(report)):
        return report
    reason = f"{report.reason}; only the {_count(report)} that had run by then count"
    return replace(report, valid=True, reason=reason)


def _count(report: TestReport) -> str:
    return f"{len(report.outcomes)} tests"


def _nothing_loads(report: TestReport, task: Task) -> bool:
    """Only files that cannot be loaded, and not just those of the given test (whose failing may be just that)."""
    given = {test.partition("::")[0] for test in (task.failing_test.ids if task.failing_test else ())}
    only_files = all("::" not in test for test in report.failed)
    return only_files and not report.passed and COMMAND_TEST not in report.outcomes and bool(report.failed - given)


def _checked(found: Baseline, task: Task) -> Baseline:
    """The baseline, once every given failing test is seen to fail, every time. Raises SetupFailed for one that does
    not, if it was certain to; else the note says that no failing test is at hand."""
    report, given = found.report, task.failing_test
    if report is None or given is None or COMMAND_TEST in report.outcomes:
        return found
    wrong = [objection for test in given.ids if (objection := _not_failing(report, found.flaky, test))]
    if not wrong:
        return found
    if given.certain:
        raise SetupFailed(wrong[0])
    if len(wrong) < len(given.ids):
        return found
    return replace(found, note="; ".join(filter(None, (found.note, "no test that is at hand fails on the base"))))


def _not_failing(report: TestReport, flaky: Sequence[str], test: str) -> str:
    """Why a given test (or file) does not show the bug; empty if it does."""
    outcome = outcome_of(report, test)
    if outcome == "missing":
        return f"the failing test {test} is not found by the test command, or never ran: check its id"
    if outcome not in ("failed", "error"):
        return f"the failing test {test} does not fail on the base ({outcome}), so it does not show the bug"
    failing = [t for t in report.failed if selects(test, t) or t == test.partition("::")[0]]
    if all(t in flaky for t in failing):
        return f"the failing test {test} does not fail every time on the base, so it cannot show a fix"
    return ""


def _baseline_path(room: CleanRoom, task: Task, runs: int) -> Path:
    given = task.failing_test.ids if task.failing_test else ()
    scope = [] if task.test_scope == "whole" else [task.test_scope]
    asked = [room.built.test_command, task.test_command is None, given]
    parts = json.dumps([FORMAT, READING, *asked, runs, room.timeout, room.test_seconds, *scope])
    return cache_root() / "baselines" / f"{room.built.key}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.json"
