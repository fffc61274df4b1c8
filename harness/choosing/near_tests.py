"""The tests near to what candidates touch, held against each candidate of `troop select`.

The same tests for all candidates of an instance, so that what one breaks and the others do not can be told.
"""

from __future__ import annotations

from dataclasses import replace

from harness.choosing.evidence_store import NearBase, TestFacts
from harness.evidence.near import NearSettings, Prepare
from harness.records import TestReport
from harness.testing.report import outcome_of
from tasks.errors import SandboxFailed

NOTHING_RAN = "<nothing ran>"
"""Stands among the broken tests where a candidate lets no test run."""
PATIENCE = 3.0
"""So many times longer than on the base a test may take on a candidate: else one that was just quick enough there would
fail on a machine that has become busier."""


async def held_against(bench: NearSettings, base: NearBase, name: str, prepare: Prepare) -> TestFacts:
    """The near tests on a candidate, which `prepare` lays over the base. Broken is what does not pass twice. What had
    not run when its time was up is not compared. Raises SandboxFailed where no sandbox works."""
    patient = replace(bench, test_seconds=PATIENCE * bench.test_seconds)
    try:
        ran = await patient.tests(name, base.green, bench.together, prepare)
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
    return TestFacts(len(compared), tuple(broken[:50]), ran.reason)


def _told(ran: TestReport, test: str) -> bool:
    """Whether a run says anything of a test: one that is missing in a whole run is gone."""
    return ran.valid or outcome_of(ran, test) != "missing"
