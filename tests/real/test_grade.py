"""Grading: hidden tests decide, and only by passing."""

from __future__ import annotations

import asyncio
from typing import Any

from harness.environments.environment import CleanRoom
from harness.records import Outcome, TestReport, Verdict
from harness.sandbox.base import Provider
from harness.suites.instances import grade, verdict
from tasks.instance import Grading
from tasks.task import Task
from tests.support.environments import freeze
from tests.support.repositories import FIX

HIDDEN = "tests/test_hidden.py"
TEXT = """\
from calc import add, mean


def test_mean():
    assert mean([2, 4]) == 3


def test_add():
    assert add(2, 2) == 4
"""
FILES = ((HIDDEN, TEXT),)
NAMED = Grading(files=FILES, fail_to_pass=(f"{HIDDEN}::test_mean",), pass_to_pass=(f"{HIDDEN}::test_add",))


def graded(provider: Provider, task: Task, grading: Grading, patch: str, **settings: Any) -> Verdict:
    async def scenario() -> Verdict:
        built = await freeze(provider, task)
        return await grade(CleanRoom(provider, built, "tests", **settings), task, grading, patch)

    return asyncio.run(scenario())


def test_the_fix_resolves_the_task_and_the_base_does_not(provider: Provider, task: Task) -> None:
    found = graded(provider, task, NAMED, FIX)
    assert found.resolved and found.reason == ""
    assert found.fail_to_pass == {f"{HIDDEN}::test_mean": "passed"} and found.pass_to_pass == {
        f"{HIDDEN}::test_add": "passed"
    }
    base = graded(provider, task, NAMED, "")
    assert not base.resolved and base.reason == "1 of 2 hidden tests do not pass"
    assert base.fail_to_pass == {f"{HIDDEN}::test_mean": "failed"}


def test_without_names_every_test_of_the_hidden_files_must_pass(bubblewrap: Provider, task: Task) -> None:
    found = graded(bubblewrap, task, Grading(files=FILES), FIX)
    assert found.resolved and set(found.fail_to_pass) == {f"{HIDDEN}::test_mean", f"{HIDDEN}::test_add"}
    helper = Grading(files=(("tests/helper.py", "WRONG = 1 / 1\n"), *FILES))
    assert graded(bubblewrap, task, helper, FIX).resolved
    empty = graded(bubblewrap, task, Grading(files=((HIDDEN, "x = 1\n"),)), FIX)
    assert not empty.resolved


def test_a_hidden_file_takes_the_place_of_the_one_of_the_base(bubblewrap: Provider, task: Task) -> None:
    tail = "--- a/tests/test_core.py\n+++ b/tests/test_core.py\n@@ -6,4 +6,4 @@\n \n \n def test_mean_of_nothing():\n"
    edit = tail + "-    assert mean([0, 0]) == 0\n+    assert True\n"
    header = "diff --git a/tests/test_core.py b/tests/test_core.py\n"
    hidden = "from calc import mean\n\n\ndef test_mean_of_nothing():\n    assert mean([2, 4]) == 3\n"
    test = "tests/test_core.py::test_mean_of_nothing"
    grading = Grading(files=(("tests/test_core.py", hidden),), fail_to_pass=(test,))
    assert graded(bubblewrap, task, grading, FIX + header + edit).resolved, "the candidate's own edit is not in the way"
    assert not graded(bubblewrap, task, grading, header + edit).resolved


def test_why_a_patch_is_not_resolved_is_said_in_words(bubblewrap: Provider, task: Task) -> None:
    broken = graded(bubblewrap, task, NAMED, FIX.replace("len(values) + 1", "nothing"))
    assert broken.reason.startswith("the patch does not apply") and set(broken.fail_to_pass.values()) == {"missing"}
    slow = Grading(files=((HIDDEN, "import time\n\n\ndef test_slow():\n    time.sleep(60)\n"),))
    assert graded(bubblewrap, task, slow, FIX, timeout=4.0).reason.startswith("the hidden tests timed out")
    limited = graded(bubblewrap, task, slow, FIX, test_seconds=1.0)
    assert limited.reason == "1 of 1 hidden tests do not pass"
    conftest = Grading(files=(("tests/conftest.py", "import nothing_like_that\n"), *FILES))
    assert graded(bubblewrap, task, conftest, FIX).reason.startswith("the hidden tests did not run as they should")


def report(outcomes: dict[str, Outcome], valid: bool = True) -> TestReport:
    return TestReport(outcomes, 0, False, valid, 1.0, reason="" if valid else "it broke off")


def test_a_test_that_did_not_run_or_was_skipped_is_not_a_pass() -> None:
    both: dict[str, Outcome] = {f"{HIDDEN}::test_mean": "passed", f"{HIDDEN}::test_add": "passed"}
    assert verdict(NAMED, report(both)).resolved
    for outcome in ("skipped", "failed", "error"):
        assert not verdict(NAMED, report({**both, f"{HIDDEN}::test_add": outcome})).resolved
    missing = verdict(NAMED, report({f"{HIDDEN}::test_mean": "passed"}))
    assert not missing.resolved and missing.pass_to_pass == {f"{HIDDEN}::test_add": "missing"}
    assert missing.reason.endswith("1 of them passed before")


def test_a_run_that_cannot_be_believed_resolves_nothing() -> None:
    both: dict[str, Outcome] = {f"{HIDDEN}::test_mean": "passed", f"{HIDDEN}::test_add": "passed"}
    assert not verdict(NAMED, report(both, valid=False)).resolved


def test_a_command_that_knows_no_tests_answers_as_a_whole() -> None:
    told: tuple[tuple[Outcome, bool], ...] = (("passed", True), ("failed", False))
    for outcome, resolved in told:
        assert verdict(Grading(files=FILES), report({"<command>": outcome})).resolved is resolved
