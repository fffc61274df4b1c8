"""The tests near to what candidates touch, for `troop select`: on the base, and held against each candidate.

The same tests for all candidates of an instance, so that what one breaks and the others do not can be told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from harness.choosing.evidence_store import NearBase, TestFacts
from harness.evidence.near import AT_ONCE, NearSettings, Opened, Prepare, near_tests
from harness.records import TestReport
from harness.testing.report import outcome_of
from tasks.errors import SandboxFailed

START_SECONDS = 10.0
"""For starting a sandbox's test command, loading the tests included."""
SLOWEST = 4.0
NOTHING_RAN = "<nothing ran>"
"""Stands among the broken tests where a candidate lets no test run."""
PATIENCE = 3.0
"""So many times longer than on the base a test may take on a candidate: else one that was just quick enough there would
fail on a machine that has become busier."""


def bench_for(opened: Opened, command: str, seconds: float, slots: asyncio.Semaphore | None = None) -> NearSettings:
    """How near tests are run that take `seconds` on an idle machine."""
    pace = slowness()
    return NearSettings(
        opened=opened,
        command=command,
        seconds=seconds * pace,
        alone=(seconds + START_SECONDS) * pace,
        together=(2 * seconds + START_SECONDS) * pace,
        test_seconds=max(seconds / 3, 1.0) * pace,
        slots=slots or asyncio.Semaphore(AT_ONCE),
    )


async def base_of(bench: NearSettings, files: Sequence[str]) -> NearBase:
    """The near tests on the base. Raises SandboxFailed where no sandbox works."""
    found = await near_tests(bench, files, failing=True)
    run = {test.partition("::")[0] for test in (*found.green, *found.red)}
    return NearBase(tuple(f for f in files if f in run), found.green, found.red, round(found.seconds, 1))


async def held_against(bench: NearSettings, base: NearBase, name: str, prepare: Prepare) -> TestFacts:
    """The near tests on a candidate, which `prepare` lays over the base. Broken is what does not pass twice. What had
    not run when its time was up is not compared. Raises SandboxFailed where no sandbox works."""
    patient = replace(bench, test_seconds=PATIENCE * bench.test_seconds)
    try:
        ran = await patient.tests(name, (*base.green, *base.red), bench.together, prepare)
        compared = [test for test in base.green if _told(ran, test)]
        broken = [test for test in compared if outcome_of(ran, test) != "passed"]
        if broken and ran.outcomes:
            again = await patient.tests(f"{name}-again", broken, bench.together, prepare)
            broken = [test for test in broken if outcome_of(again, test) != "passed"]
    except SandboxFailed as error:
        await bench.probe()
        return TestFacts(len(base.green), (NOTHING_RAN,), reason=f"its tests take the sandbox down: {error}")
    if not ran.outcomes:
        return TestFacts(len(base.green), (NOTHING_RAN,), reason=ran.reason)
    mended = [test for test in base.red if outcome_of(ran, test) == "passed"]
    return TestFacts(len(compared), tuple(broken[:50]), tuple(mended[:50]), ran.reason)


def _told(ran: TestReport, test: str) -> bool:
    """Whether a run says anything of a test: one that is missing in a whole run is gone."""
    return ran.valid or outcome_of(ran, test) != "missing"


def slowness() -> float:
    """How many times longer than its processor time a computation takes at present: 1.0 on an idle machine, more on a
    busy one (at most `SLOWEST`), so that time-outs mean the same on both."""
    wall, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.2:
        pass
    return min(max((time.monotonic() - wall) / 0.2, 1.0), SLOWEST)
