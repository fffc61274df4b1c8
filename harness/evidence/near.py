"""The base's tests near a change, for suites too long to be run whole (a task's scope "near").

The test files that are nearest to what the candidates touch are run on the base, each in a fresh sandbox, some at a
time, until the time is used up. What is green then is run once more, all of it together, just as every candidate will
be held against it: what does not pass again in company is left out. Both results are kept by environment, so the next
run has them at once.
"""

import asyncio
import functools
import hashlib
import json
import os
import time
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from harness.cache import cache_root, read_json, write_json
from harness.code.import_graph import ImportGraph, import_graph
from harness.environments.base_run import TABLES, Baseline
from harness.environments.environment import FORMAT, CleanRoom
from harness.evidence.regression import NEAR, STARTING_SECONDS, Touched, cost, near_files, touched_by
from harness.parallel import in_parallel
from harness.patches.patch import Patch
from harness.patches.paths import holds_tests
from harness.records import Json, TestReport
from harness.sandbox.fresh import probe
from harness.testing.report import COMMAND_TEST, READING, broke_off
from harness.testing.runners.registry import runner_of
from harness.trace import public, record
from tasks.errors import SandboxFailed
from tasks.say import Say

AT_ONCE = os.cpu_count() or 2
NEAR_SECONDS = 120.0
"""Of tests near to the candidates of a run: what is nearest says the most, and the base has to run it first."""
MOST_FILES = 16
"""So many test files say what a change breaks near by; each costs a start of the test command."""
STARTING_AT_MOST = 15.0
"""Seconds for starting a test command, loading its tests included."""

NO_FILES = "no test file of the repository is near to what the candidates change, so nothing guards what they may break"
NOT_BY_FILE = "the test command cannot be limited to files, so nothing guards what a patch may break"
NONE_GREEN = "no test near to what the candidates change passes on the base, so nothing guards what they may break"
TOGETHER = "the tests near the change cannot be run together on the base, so nothing guards what a patch may break"


class Base(Hashable, Protocol):
    """The files of a base commit, as a `Workspace` or a `BaseTree` has them."""

    @property
    def base_commit(self) -> str: ...

    def files(self) -> list[str]: ...

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]: ...


async def near_baseline(
    room: CleanRoom, base: Base, touched: Touched, *, seconds: float, say: Say = lambda line: None
) -> Baseline:
    """What the tests near to `touched` say on the base; `report` None where there are none (`note` says why).

    A candidate is held against `report.passed` without `flaky`, which is what `harness.evidence.regression.choose`
    gives for the same `seconds`. Raises SandboxFailed where no sandbox works; a test file that takes its sandbox down
    is left out, which `note` says."""
    if room.built.test_command is None or not runner_of(room.built.test_command).by_file:
        return Baseline(None, note=NOT_BY_FILE)
    files = await asyncio.to_thread(files_near, base, touched)
    if not files:
        return Baseline(None, note=NO_FILES)
    say(f"running the test files nearest to the changes on the base, {', '.join(files[:3])}{', …' * (len(files) > 3)}")
    return await near_tests(room, files, seconds)


async def near_tests(room: CleanRoom, files: Sequence[str], seconds: float) -> Baseline:
    """Run test files on the base, the nearest first, until `seconds` of tests are found, and what passed once more, all
    together; `flaky` is what passed alone and not together. Where the room bounds no sandboxes, AT_ONCE at a time.

    Where nothing passes, or it cannot be run together, there is no report and `note` says so. Raises SandboxFailed
    where no sandbox works."""
    room = replace(room, slots=room.slots or asyncio.Semaphore(AT_ONCE))
    reports, dead = await _each_alone(room, files, seconds)
    report = _fitting(reports, seconds)
    notes = [f"{len(dead)} test files take their sandbox down: {', '.join(dead)}"] if dead else []
    if not report.passed:
        return Baseline(None, note="; ".join([NONE_GREEN, *notes]))
    again = await _together(room, sorted(report.passed), seconds)
    if again is None:
        return Baseline(None, note="; ".join([TOGETHER, *notes]))
    flaky = tuple(sorted(report.passed - again.passed))
    if flaky:
        notes.append(f"{len(flaky)} of the tests near the changes do not pass every time on the base, and are left out")
    return Baseline(report, flaky, "; ".join(notes))


def files_near(base: Base, touched: Touched, most: int = MOST_FILES, least: float = NEAR) -> list[str]:
    """The test files of the base that are nearest to what is touched, the nearest first, `most` of them at most.
    `least`: the score that they must have."""
    return near_files(texts_of_tests(base), touched, imports_of(base), least)[:most]


@functools.lru_cache(maxsize=2)
def imports_of(base: Base) -> ImportGraph:
    """Which file of the base imports which."""
    return import_graph(base.base_commit, base.files(), base.read_all, cache_root() / "imports")


def what_is_touched(base: Base, patches: Collection[str]) -> Touched:
    """What of the base the patches touch, taken together."""
    found = base.read_all(path for patch in patches for path in Patch(patch).source_files)
    return touched_by(patches, found.get)


@functools.lru_cache(maxsize=2)
def texts_of_tests(base: Base) -> Mapping[str, str]:
    """The text of every test file of the base by its path."""
    found = base.read_all(path for path in base.files() if holds_tests(path))
    return {path: text.decode("utf-8", "replace") for path, text in found.items()}


async def _each_alone(room: CleanRoom, files: Sequence[str], seconds: float) -> tuple[list[TestReport], list[str]]:
    """(reports, the nearest file's first; files that take their sandbox down). Ends when the tests that pass take the
    time that there is, or when twice as much has gone by. Raises SandboxFailed where every sandbox died."""
    reports: list[TestReport] = []
    dead: list[str] = []
    left = seconds
    until = time.monotonic() + 2 * seconds
    while files and left > 0 and time.monotonic() < until:
        now, files = files[:AT_ONCE], files[AT_ONCE:]
        for file, found in zip(now, await in_parallel(alone(room, file, seconds) for file in now), strict=True):
            if found is None:
                dead.append(file)
                continue
            reports.append(found)
            left -= cost(found, found.passed)
    if dead and not reports:
        await probe(room.provider, room.spec("near-probe"))
    return reports, dead


async def alone(room: CleanRoom, file: str, seconds: float) -> TestReport | None:
    """One test file on the base, run there once and kept; None where its sandbox died. `seconds`: of tests that a
    candidate is held against, of which one file may take half."""
    path, timeout = _kept(room, "near", file), seconds / 2 + STARTING_AT_MOST
    kept = read_json(path) if path else None
    # What was stopped is run again where there is more time now.
    if kept is not None and (not kept["report"].get("timed_out") or kept["timeout"] >= timeout):
        return record(TestReport, kept["report"])
    try:
        report = await _run(room, f"near-{hashlib.sha256(file.encode()).hexdigest()[:8]}", [file], timeout)
    except SandboxFailed:
        return None
    if path:
        write_json(path, {"report": public(report), "timeout": timeout}, indent=None)
    return report


async def _run(room: CleanRoom, name: str, ids: Sequence[str], timeout: float) -> TestReport:
    """Run tests in a fresh sandbox; no output is kept. Raises SandboxFailed."""
    room = replace(room, timeout=timeout)
    return replace(_by_file(await room.fresh(name, lambda sandbox: room.tests(sandbox, ids)), ids), output="")


def _kept(room: CleanRoom, what: str, *names: str) -> Path | None:
    """Where a result is kept; all that decides it is in the name. None: in an environment without a key nothing is."""
    parts = json.dumps([FORMAT, READING, room.built.test_command, room.test_seconds, *names])
    name = f"{room.built.key}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.json"
    return cache_root() / what / name if room.built.key else None


def _by_file(report: TestReport, files: Sequence[str]) -> TestReport:
    """What a command that tells only of the whole says of the files that it ran: the same of each."""
    if COMMAND_TEST not in report.outcomes:
        return report
    return replace(
        report,
        outcomes=dict.fromkeys(files, report.outcomes[COMMAND_TEST]),
        failures=dict.fromkeys(files, report.failures[COMMAND_TEST]) if report.failures else {},
        durations=dict.fromkeys(files, report.seconds / len(files)),
    )


def _fitting(reports: Sequence[TestReport], seconds: float) -> TestReport:
    """One report of several files: all that did not pass, and as much of what did as fits into the time, the nearest
    file's quickest tests first."""
    left = seconds - STARTING_SECONDS
    united = TestReport({}, 0, False, True, 0.0)
    for report in (report for report in reports if _usable(report)):
        taken = set(report.outcomes) - report.passed
        for test in sorted(report.passed, key=lambda test: (report.durations.get(test, 0.0), test)):
            price = cost(report, [test])
            if price <= left:
                taken.add(test)
                left -= price
        told = {name: {test: each for test, each in getattr(report, name).items() if test in taken} for name in TABLES}
        tables: Json = {name: {**getattr(united, name), **told[name]} for name in TABLES}
        seconds, exit_code = united.seconds + report.seconds, max(united.exit_code, report.exit_code)
        united = replace(united, **tables, seconds=seconds, exit_code=exit_code)
    return united


def _usable(report: TestReport) -> bool:
    """Whether what passed in a run passed: the run was whole, or broke off after that."""
    return report.valid or report.timed_out or broke_off(report)


async def _together(room: CleanRoom, tests: Sequence[str], seconds: float) -> TestReport | None:
    """The tests in one run, as for a candidate; None where that takes the sandbox down, or says nothing."""
    path = _kept(room, "near-together", *tests)
    kept = read_json(path) if path else None
    if kept is not None:
        return record(TestReport, kept)
    try:
        report = await _run(room, "near-together", tests, together(seconds))
    except SandboxFailed:
        await probe(room.provider, room.spec("near-probe"))
        return None
    if not _usable(report):
        return None
    if path:
        write_json(path, public(report), indent=None)
    return report


def together(seconds: float) -> float:
    """The seconds that the run of all may take, where a candidate is held against so many seconds of tests."""
    return 3 * seconds + 60.0
