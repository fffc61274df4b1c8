"""Test runs in words: what is new, and what a witness test shows."""

from __future__ import annotations

import pytest

from agent.attempt.telling import describe_report, witness_words
from harness.records import Outcome, TestReport


def report(output: str = "", timed_out: bool = False, **outcomes: Outcome) -> TestReport:
    told = {f"t.py::{name}": outcome for name, outcome in outcomes.items()}
    failures = {test: "/testbed/t.py:3: \x1b[31massert 0\x1b[0m" for test, o in told.items() if o != "passed"}
    return TestReport(told, 1, timed_out, True, 1.0, failures, output=output)


def test_failures_are_marked_by_what_the_unchanged_code_says_and_new_ones_come_first() -> None:
    run = report(a="failed", b="failed", c="error", d="failed", e="failed", f="passed")
    before = {"t.py::a": "failed", "t.py::b": "passed", "t.py::c": "flaky", "t.py::d": "missing"}
    counts, *rest = describe_report(run, before).split("\n")
    assert counts == "1 passed, 5 failed (1 of them without your changes, too), in 1.0 s."
    assert rest == [
        "--- t.py::b (new)",
        "t.py:3: assert 0",  # no colours, and paths as the tools take them
        "--- t.py::c (unsteady without your changes, too)",
        "(as above)",
        "--- t.py::d (not on the unchanged code)",
        "(as above)",
        "--- t.py::e",
        "(as above)",
        "--- t.py::a (fails without your changes, too)",
    ]


@pytest.mark.parametrize(
    ("base", "now", "counts", "said"),
    [
        ("failed", None, True, "It fails on the unchanged code, as it should.\n--- t.py::a\nt.py:3: assert 0"),
        ("failed", "passed", True, "as it should. With your changes it passes."),
        ("failed", "failed", True, "With your changes it fails.\n--- t.py::a"),
        ("failed", "error", True, "With your changes it could not run.\n--- t.py::a"),
        ("error", "passed", True, "cannot be loaded on the unchanged code, but here it runs: it counts."),
        ("error", None, False, "could not run on the unchanged code (it cannot be loaded"),
        ("error", "error", False, "it does not count"),
        ("passed", "passed", False, "It passes on the unchanged code already: it shows nothing."),
        ("skipped", None, False, "its tests are skipped"),
        ("missing", None, False, "none of its tests is collected"),
        ("untold", None, True, "could not be checked singly"),
    ],
)
def test_a_witness_counts_where_it_fails_on_the_unchanged_code(
    base: str, now: str | None, counts: bool, said: str
) -> None:
    found, words = witness_words((report(a="failed"), base), None if now is None else (report(a="failed"), now))
    assert found is counts and said in words


def test_a_witness_that_does_not_end_counts() -> None:
    found, words = witness_words((report(timed_out=True), "missing"), None)
    assert found and "fails on the unchanged code" in words


def test_of_many_failures_the_rest_are_named() -> None:
    def told_of(many: int) -> str:
        outcomes: dict[str, Outcome] = {f"t.py::t{n:02d}": "failed" for n in range(many)}
        return describe_report(TestReport(outcomes, 1, False, True, 1.0, {}), {}).split("\n")[-1]

    assert told_of(13) == "(and 3 more failures: t.py::t10, t.py::t11, t.py::t12)"
    assert told_of(60).startswith("(and 50 more failures: t.py::t10, ") and told_of(60).endswith("t.py::t39, …)")


def test_a_test_that_only_took_too_long_is_not_called_new() -> None:
    run = TestReport({"t.py::a": "failed"}, 1, False, True, 60.0, {"t.py::a": "Failed: timed out after 60 s"})
    said = describe_report(run, {"t.py::a": "passed"})
    assert "(new)" not in said and "it may be the machine that is slow: without your changes it passes" in said


def test_the_first_of_failures_without_a_message_is_like_nothing_above_it() -> None:
    run = TestReport({"t.py::a": "failed", "t.py::b": "failed"}, 1, False, True, 1.0)
    assert describe_report(run, {}).split("\n")[1:] == ["--- t.py::a", "", "--- t.py::b", "(as above)"]
