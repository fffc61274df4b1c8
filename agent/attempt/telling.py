"""Test runs in words for a policy: what is new, what a witness test says. Short, without colours and warnings."""

from collections.abc import Mapping

from agent.attempt.lines import cut_middle
from harness.records import TestReport
from harness.sandbox.base import WORKDIR
from harness.testing.report import COMMAND_TEST
from harness.views.words import clean

MOST_FAILURES, MOST_NAMED = 10, 30
FAILURE_CHARS, OUTPUT_CHARS = 1200, 3000
"""Of the message of a failure; of the output where there are none."""

KNOWN, NEW = "fails without your changes, too", "new"
MARKS = {"passed": NEW, "skipped": NEW, "failed": KNOWN, "error": KNOWN, "missing": "not on the unchanged code"}
MARKS["flaky"] = "unsteady without your changes, too"
"""What is said of a failing test, by its outcome on the unchanged code."""
WITNESS = {"passed": "passes", "failed": "fails", "untold": "cannot be run singly"}
"""What is said of a witness test, by its outcome; of any other it is that it could not run."""
_UNRUN = {"skipped": "its tests are skipped", "error": "it cannot be loaded; import what is not there yet in the test"}


def describe_report(report: TestReport, before: Mapping[str, str]) -> str:
    """A test run: counts, then the failures, the new ones first. `before`: what failed, by its outcome on the unchanged
    code ("flaky": both), as far as that is known."""
    if not report.outcomes:
        return f"No test ran ({report.reason or f'exit code {report.exit_code}'}).\n{_output(report)}"
    marks = {test: MARKS.get(before.get(test, ""), "") for test in report.failed}
    slow = [t for t, mark in marks.items() if mark == NEW and "timed out after" in report.failures.get(t, "")[:200]]
    marks.update(dict.fromkeys(slow, "it may be the machine that is slow: without your changes it passes"))
    known = sum(mark == KNOWN for mark in marks.values())
    counts = f"{len(report.passed)} passed, {len(report.failed)} failed"
    counts += f" ({known} of them without your changes, too)" if known else ""
    lines = [counts + (", timed out" if report.timed_out else "") + f", in {report.seconds:.1f} s."]
    if not report.valid:
        lines.append(f"The run is not conclusive: {report.reason}.")
    return "\n".join([*lines, *filter(None, [failures(report, marks)])])


def failures(report: TestReport, marks: Mapping[str, str] | None = None, most: int = MOST_FAILURES) -> str:
    """The message of each failing test (of `most` of them, of more the ids) under its id and mark, once where several
    say the same, and of an old failure none; else the end of the output."""
    marks = marks or {}
    failed = sorted(report.failed, key=lambda test: (marks.get(test) == KNOWN, test))
    if COMMAND_TEST in failed or not report.outcomes:
        return f"--- end of the output\n{_output(report)}"
    told: list[str] = []
    before: str | None = None
    for test in failed[:most]:
        message = cut_middle(clean(report.failures.get(test, "")).replace(f"{WORKDIR}/", ""), FAILURE_CHARS)
        mark = f" ({marks[test]})" if marks.get(test) else ""
        said = "" if KNOWN in mark else "\n(as above)" if message == before else f"\n{message}"
        told.append(f"--- {test}{mark}{said}")
        before = message
    if rest := failed[most:]:
        named = ", ".join([*rest[:MOST_NAMED], *("…" for _ in rest[MOST_NAMED:][:1])])
        told.append(f"(and {len(rest)} more failures: {named})")
    return "\n".join(told)


def _output(report: TestReport) -> str:
    return cut_middle(clean(report.output).strip(), OUTPUT_CHARS)


def witness_words(base: tuple[TestReport, str], now: tuple[TestReport, str] | None) -> tuple[bool, str]:
    """(whether a new witness test counts, what it shows), by the report and the file's outcome on the unchanged code,
    and in the attempt's own tree where that is another."""
    (report, outcome), here = base, now[1] if now else ""
    if outcome == "passed":
        return False, "It passes on the unchanged code already: it shows nothing."
    if outcome == "untold":
        return True, f"It could not be checked singly: {report.reason or 'the test command tells only of all tests'}."
    if outcome == "error" and here in ("passed", "failed"):
        said = "It cannot be loaded on the unchanged code, but here it runs: it counts."
    elif outcome == "failed" or (outcome == "missing" and report.timed_out):
        said = "It fails on the unchanged code, as it should."
    else:
        why = _UNRUN.get(outcome, report.reason or "none of its tests is collected")
        return False, f"It could not run on the unchanged code ({why}): it does not count.\n{failures(report)}"
    said += f" With your changes it {WITNESS.get(here, 'could not run')}." if now else ""
    return True, said if here == "passed" else f"{said}\n{failures((now or base)[0], most=3)}"
