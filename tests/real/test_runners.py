"""Tests of each framework are run in real sandboxes, and a new test file is run by the task's own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from agent.attempt.graph import Desk, Rules
from agent.attempt.notebook import Notebook
from agent.attempt.policy import ToolCall
from agent.attempt.tools import use_tool
from harness import trace
from harness.evidence.told import tell
from harness.records import TestReport
from harness.sandbox.base import WORKDIR, Provider, Sandbox
from harness.testing.report import COMMAND_TEST, outcome_of
from harness.testing.run import run_tests
from tests.real.test_near import RUNTESTS
from tests.real.test_near_candidates import SYMPY_TESTS
from tests.support.environments import COMMAND, in_sandbox
from tests.support.repositories import make_repository, make_task

KINDS = """\
import os
import time
import unittest


class Kinds(unittest.TestCase):
    def test_bad(self):
        self.assertEqual(1, 2)

    def test_broken(self):
        raise OSError("no such thing")

    @unittest.expectedFailure
    def test_expected(self):
        self.fail()

    @unittest.skip("not here")
    def test_skipped(self):
        pass

    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)

    def test_skipped_part(self):
        with self.subTest(number=1):
            self.skipTest("not this one")

    def test_passes(self):
        assert not [name for name in os.environ if name.startswith("TROOP_RE")]

    @unittest.expectedFailure
    def test_unexpected(self):
        pass

    def test_forever(self):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass


class Fixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("no database")

    def test_never(self):
        pass


class After(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        raise OSError("left open")

    def test_last(self):
        pass
"""
ONE = "import unittest\n\n\nclass One(unittest.TestCase):\n    def test_one(self):\n        "
FILES = {
    "total.py": "def total(values):\n    return sum(values[1:])\n",
    "tests/__init__.py": "",
    "tests/test_kinds.py": KINDS,
    "tests/test_broken.py": "import nothing_of_that_name\n",
    "tests/test_good.py": ONE + "pass\n\n    def test_two(self):\n        pass\n",
    "tests/dies/__init__.py": "",
    "tests/dies/test_dies.py": ONE + "import os; os._exit(0)\n",
    "tests/runtests.py": RUNTESTS,
    "odd/check.py": ONE + "self.fail()\n",
    "inner/test_top.py": ONE + "pass\n",
    "plain/test_first.py": "def test_a():\n    assert False\n\n\ndef test_b():\n    assert False\n",
}
DISCOVER = "python -m unittest discover -s tests -t ."
GOOD = {"tests/test_good.py::One::test_one": "passed", "tests/test_good.py::One::test_two": "passed"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("frameworks"), FILES, date="2024-01-01T00:00:00+0000")


def run(
    provider: Provider, tree: Path, command: str, ids: Sequence[str] = (), *, first: bool = False, timeout: float = 60.0
) -> TestReport:
    async def work(sandbox: Sandbox) -> TestReport:
        report = await run_tests(sandbox, command, ids, timeout=timeout, test_seconds=1.0, to_first_failure=first)
        changed = await sandbox.exec("git status --porcelain --ignored")
        assert changed.output == "", "a test run leaves nothing in the tree"
        return report

    return in_sandbox(provider, make_task(tree), work)


def test_unittest_is_read_test_by_test(bubblewrap: Provider, tree: Path) -> None:
    report = run(bubblewrap, tree, DISCOVER, ["tests/test_kinds.py", "tests/test_broken.py"])
    assert report.valid and report.exit_code == 1, report.reason + report.output
    assert {test.removeprefix("tests/test_kinds.py::"): outcome for test, outcome in report.outcomes.items()} == {
        "Kinds::test_bad": "failed",
        "Kinds::test_broken": "failed",
        "Kinds::test_expected": "skipped",
        "Kinds::test_skipped": "skipped",
        "Kinds::test_parts": "failed",
        "Kinds::test_skipped_part": "passed",
        "Kinds::test_passes": "passed",
        "Kinds::test_unexpected": "failed",
        "Kinds::test_forever": "failed",
        "Fixture::test_never": "error",
        "After::test_last": "error",
        "tests/test_broken.py": "error",
    }
    assert "1 != 2" in report.failures["tests/test_kinds.py::Kinds::test_bad"]
    assert "timed out after 1 s" in report.failures["tests/test_kinds.py::Kinds::test_forever"]
    assert "no database" in report.failures["tests/test_kinds.py::Fixture::test_never"]
    assert outcome_of(report, "tests/test_broken.py::A::test_a") == "error"
    assert "FAILED (" in report.output


@pytest.mark.parametrize(
    ("command", "ids", "outcomes"),
    [
        (DISCOVER, ["tests/test_good.py"], GOOD),
        ("python -m unittest discover tests; exit $?", ["tests/test_good.py"], GOOD),
        ("python -m unittest", ["tests/test_good.py::One::test_two"], {"tests/test_good.py::One::test_two": "passed"}),
        ("python -m unittest tests.test_kinds tests.test_good", ["tests/test_good.py"], GOOD),
        ("python -m unittest tests.test_good", (), GOOD),
        ("cd inner && python -m unittest", ["inner"], {"inner/test_top.py::One::test_one": "passed"}),
        (DISCOVER, ["tests.test_good.One.test_one"], {"tests.test_good.One.test_one": "passed"}),
    ],
)
def test_unittest_runs_exactly_what_is_asked_for(
    bubblewrap: Provider, tree: Path, command: str, ids: Sequence[str], outcomes: dict[str, str]
) -> None:
    report = run(bubblewrap, tree, command, ids)
    assert report.valid and report.outcomes == outcomes, report.reason + report.output


def test_unittest_runs_a_file_that_its_command_would_not_find(bubblewrap: Provider, tree: Path) -> None:
    for command in (DISCOVER, "python -m unittest discover odd"):
        report = run(bubblewrap, tree, command, ["odd/check.py"])
        assert report.valid and report.outcomes == {"odd/check.py::One::test_one": "failed"}, report.output


def test_an_unittest_report_is_believed_only_if_it_is_whole_and_agrees_with_the_exit_code(
    bubblewrap: Provider, tree: Path
) -> None:
    dies = run(bubblewrap, tree, DISCOVER, ["tests/dies"])
    assert dies.exit_code == 0 and not dies.valid, "it ended in the middle with exit code 0"
    assert dies.outcomes == {"tests/dies/test_dies.py::One::test_one": "error"}
    hidden = run(bubblewrap, tree, f"{DISCOVER} || true", ["odd/check.py"])
    assert hidden.reason == "the test command's exit code is 0, but unittest's was 1"
    contradicted = run(bubblewrap, tree, f"{DISCOVER} && exit 3", ["tests/test_good.py"])
    assert contradicted.reason == "the test command's exit code is 3, but unittest's was 0"
    assert "found no tests" in run(bubblewrap, tree, DISCOVER, ["tests/test_gone.py"]).reason
    assert "a way that it does not know" in run(bubblewrap, tree, "python -m unittest --nonsense").reason
    unheard = run(bubblewrap, tree, "env -u PYTHONPATH python -m unittest tests.test_good")
    assert not unheard.valid and "PYTHONPATH=src:$PYTHONPATH" in unheard.reason
    assert not run(bubblewrap, tree, "no-such-python -m unittest").valid


@pytest.mark.parametrize(
    ("command", "ids", "outcomes"),
    [
        (COMMAND, ["plain"], {"plain/test_first.py::test_a": "failed"}),
        (f"true; {COMMAND} plain || exit 2", (), {"plain/test_first.py::test_a": "failed"}),
        (DISCOVER, ["tests/test_kinds.py::Kinds"], {"tests/test_kinds.py::Kinds::test_bad": "failed"}),
    ],
)
def test_a_run_ends_with_its_first_failure_where_that_is_asked_for(
    bubblewrap: Provider, tree: Path, command: str, ids: Sequence[str], outcomes: dict[str, str]
) -> None:
    report = run(bubblewrap, tree, command, ids, first=True)
    assert report.valid and report.outcomes == outcomes


def test_a_labelled_script_answers_as_a_whole(bubblewrap: Provider, tree: Path) -> None:
    command = "PYTHONPATH=. python tests/runtests.py"
    assert run(bubblewrap, tree, command, ["tests/test_good.py"]).outcomes == {COMMAND_TEST: "passed"}
    assert run(bubblewrap, tree, command, ["tests/test_kinds.py::Kinds::test_bad"]).outcomes == {COMMAND_TEST: "failed"}


@pytest.mark.network
def test_sympys_own_command_reports_test_by_test_once_it_is_limited(
    bubblewrap: Provider, tree: Path, sympy: Path
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("sympy", "mpmath"):
            archive.add(
                sympy / name, f"{WORKDIR}/{name}", filter=lambda one: None if "__pycache__" in one.name else one
            )

    async def work(sandbox: Sandbox) -> None:
        await sandbox.upload(packed.getvalue())
        await sandbox.write("sympy/core/tests/test_new.py", SYMPY_TESTS.encode())

        async def ran(ids: Sequence[str], *, first: bool = False) -> TestReport:
            return await run_tests(sandbox, "bin/test -C", ids, timeout=120, test_seconds=2.0, to_first_failure=first)

        file = "sympy/core/tests/test_new.py"
        report = await ran([f"{file}::test_expand", f"{file}::test_wrong"])
        assert report.valid, report.reason + report.output
        assert report.outcomes == {f"{file}::test_expand": "passed", f"{file}::test_wrong": "failed"}
        first = await ran([file], first=True)
        assert first.valid and f"{file}::test_wrong" in first.outcomes and f"{file}::test_raises" not in first.outcomes

    in_sandbox(bubblewrap, make_task(tree), work)


# A new test of an attempt, and one of the judge

METHOD = """\
import unittest

from total import total


class New(unittest.TestCase):
    def test_first_counts(self):
        """
FAILS = METHOD + "self.assertEqual(total([1, 2]), 3)\n"
FUNCTION = "from total import total\n\n\ndef test_first_counts():\n    assert total([1, 2]) == 3\n"
LABELLED = "PYTHONPATH=. python tests/runtests.py --verbosity=2"


async def witnessed(sandbox: Sandbox, command: str | None, text: str) -> tuple[trace.ToolRan, Desk]:
    class Nobody:
        only_green = False

    async def ask(*asked: Any, **more: Any) -> trace.Replied:
        raise AssertionError("no model is asked")

    async def fresh(work: Callable[[Sandbox], Awaitable[str]]) -> str:
        raise AssertionError("no other sandbox is made")

    desk = Desk(
        task=make_task(Path("/nowhere")),
        prepared=trace.Prepared(base_commit="", environment="", backend="", test_command=command),
        policy=Nobody(),  # type: ignore[arg-type]  # it decides nothing here
        sandbox=sandbox,
        notebook=Notebook(0),
        rules=Rules(turns=1, command_timeout=60.0, test_timeout=60.0, malformed=1),
        seed=0,
        ask=ask,
        write=lambda event: event,
        fresh=fresh,
        unchanged=cast("Any", None),  # nothing is changed
    )
    call = ToolCall("1", "witness", {"path": "tests/test_new.py", "content": text})
    return await use_tool(desk.box, call), desk


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        (
            DISCOVER,
            FAILS,
            "fails on the unchanged code, as it should.\n--- tests/test_new.py::New::test_first_counts\n",
        ),
        (LABELLED, FAILS, "FAIL: test_first_counts (test_new.New"),
        (COMMAND, FUNCTION, "as it should.\n--- tests/test_new.py::test_first_counts\ntests/test_new.py:5: assert 2"),
        (f"true; {LABELLED}", FAILS, "It could not be checked singly: the test command tells only of all tests"),
        (None, FAILS, "It could not be checked singly: no test command is known"),
    ],
)
def test_a_witness_is_run_by_the_tasks_own_runner(
    bubblewrap: Provider, tree: Path, command: str | None, text: str, said: str
) -> None:
    async def work(sandbox: Sandbox) -> None:
        result, desk = await witnessed(sandbox, command, text)
        assert result.ok and result.result.startswith("Recorded tests/test_new.py. ") and said in result.result, (
            result.result
        )
        assert [w.text for w in desk.box.witnesses] == [text]

    in_sandbox(bubblewrap, make_task(tree), work)


@pytest.mark.parametrize(
    ("command", "text", "why"),
    [
        (DISCOVER, FUNCTION, "could not run on the unchanged code ("),
        (LABELLED, FUNCTION, "could not run on the unchanged code ("),
        (COMMAND, "value = 1\n", "could not run on the unchanged code ("),
        (DISCOVER, "import nothing_of_that_name\n", "it cannot be loaded"),
        (COMMAND, f"import nothing_of_that_name\n{FUNCTION}", "it cannot be loaded"),
        (DISCOVER, METHOD + "pass\n", "It passes on the unchanged code already: it shows nothing."),
        (COMMAND, "import pytest\n\n\n@pytest.mark.skip\ndef test_it(): ...\n", "its tests are skipped"),
    ],
)
def test_a_witness_that_shows_nothing_is_refused_with_the_reason(
    bubblewrap: Provider, tree: Path, command: str, text: str, why: str
) -> None:
    async def work(sandbox: Sandbox) -> None:
        result, desk = await witnessed(sandbox, command, text)
        assert not result.ok and result.result.startswith("tests/test_new.py is not recorded. "), result.result
        assert why in result.result and len(result.result) < 1000
        assert not desk.box.witnesses
        assert (await sandbox.exec("git status --porcelain")).output == "", "the file is taken away again"

    in_sandbox(bubblewrap, make_task(tree), work)


@pytest.mark.parametrize("command", [DISCOVER, LABELLED, COMMAND, "make test", None])
@pytest.mark.parametrize("text", [FAILS, FUNCTION])
def test_the_judges_test_is_run_by_the_tasks_own_runner_or_by_the_usual_one(
    bubblewrap: Provider, tree: Path, command: str | None, text: str
) -> None:
    async def work(sandbox: Sandbox) -> None:
        told = await tell(sandbox, "base", "tests/test_new.py", text, command)
        assert told.outcome == "failed" and ("3" in told.tail), told
        await sandbox.write("total.py", b"total = sum\n")
        assert (await tell(sandbox, "c1", "tests/test_new.py", text, command)).outcome == "passed"

    in_sandbox(bubblewrap, make_task(tree), work)
