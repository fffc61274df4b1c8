"""Suspicion by Ochiai, the tests that are measured, and the places that failures name."""

from __future__ import annotations

import math
from typing import Any

from agent.repair.localise import LINES_KEPT, companions, failing_tests, named_lines, ochiai, ranked
from harness.records import Outcome, TestReport


def report(outcomes: dict[str, Outcome], **more: Any) -> TestReport:
    return TestReport(outcomes, 1, False, True, 1.0, **more)


def test_a_line_that_only_failing_tests_run_is_most_suspicious() -> None:
    assert ochiai(2, 0, 2) == 1.0
    assert ochiai(2, 2, 2) == 1 / math.sqrt(2)
    assert ochiai(1, 0, 4) == 0.5
    assert ochiai(0, 5, 2) == 0.0


def test_lines_are_ranked_and_tests_are_not_blamed() -> None:
    found = {
        "failed": 2,
        "passed": 3,
        "files": {
            "pkg/core.py": {"4": [2, 0], "2": [2, 3], "9": [0, 3]},
            "tests/test_core.py": {"1": [2, 0]},
            "given.py": {"1": [2, 0]},
        },
    }
    lines = ranked(found, apart=["given.py"])
    assert [line[:2] for line in lines] == [("pkg/core.py", 4), ("pkg/core.py", 2)]
    assert lines[0][2] == 1.0 and lines[1][2] == round(2 / math.sqrt(10), 4)


def test_only_the_worst_lines_are_kept() -> None:
    many = {"failed": 1, "passed": 0, "files": {"a.py": {str(n): [1, 0] for n in range(1, 2 * LINES_KEPT)}}}
    assert len(ranked(many)) == LINES_KEPT


def test_a_file_stands_for_its_failing_tests() -> None:
    baseline = report({"tests/a.py::one": "failed", "tests/a.py::two": "passed", "tests/b.py::three": "failed"})
    assert failing_tests(["tests/a.py"], baseline) == ("tests/a.py::one",)
    assert failing_tests(["tests/a.py::two"], baseline) == ()
    assert failing_tests(["tests/a.py::one"], None) == ("tests/a.py::one",)


def test_near_passing_tests_are_measured_within_the_time() -> None:
    outcomes: dict[str, Outcome] = {"far/x.py::t": "passed", "tests/b.py::t": "passed", "tests/a.py::t": "passed"}
    fast = report(outcomes, durations=dict.fromkeys(outcomes, 0.1))
    assert companions(["tests/a.py::bad"], fast) == ("tests/a.py::t", "tests/b.py::t", "far/x.py::t")
    slow = report(outcomes, durations=dict.fromkeys(outcomes, 15.0))
    assert companions(["tests/a.py::bad"], slow) == ("tests/a.py::t",)


def test_without_records_the_places_that_failures_name_are_suspected() -> None:
    output = 'File "/testbed/pkg/core.py", line 7, in f\n  File "/testbed/pkg/deep.py", line 3\n/usr/lib/x.py:3: oops'
    failed = report({"t": "failed"}, failures={"t": "/testbed/tests/test_a.py:3: AssertionError"}, output=output)
    lines = named_lines(failed)
    assert [line[:2] for line in lines] == [("pkg/deep.py", 3), ("pkg/core.py", 7)]
    assert lines[0][2] > lines[1][2]
