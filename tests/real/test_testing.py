"""Tests are run in real sandboxes by a real pytest, and only what really happened is reported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.records import Exec, TestReport
from harness.sandbox.base import Provider, Sandbox
from harness.testing.report import COMMAND_TEST, outcome_of, selects
from harness.testing.run import run_tests
from harness.testing.runners.registry import runner_of
from tests.support.environments import COMMAND, in_sandbox
from tests.support.repositories import make_repository, make_task

TREE = {
    "setup.cfg": "[tool:pytest]\naddopts = -x\n",
    "tests/test_kinds.py": (
        """\
import unittest

import pytest


def test_passes():
    pass


def test_fails():
    assert [1, 2] == [1, 3]


def test_fails_by_a_cause():
    try:
        {}["colour"]
    except KeyError as error:
        raise ValueError("no palette") from error
def test_fails_elsewhere():
    __import__("json").loads("{")
def test_fails_by_a_command():
    __import__("subprocess").check_call("echo Reading; echo no such index >&2; exit 3", shell=True)


@pytest.mark.parametrize("text", ["a b", "c[1]::d", "é", "it's \\"x\\" $HOME;"])
def test_odd(text):
    assert text != "c[1]::d"


@pytest.fixture
def broken():
    raise OSError("no such thing")


def test_setup_error(broken):
    pass


@pytest.fixture
def leaking():
    yield
    raise OSError("left open")


def test_teardown_error(leaking):
    pass


def test_skipped():
    pytest.skip("not here")


@pytest.mark.xfail
def test_expected_failure():
    assert False


@pytest.mark.xfail
def test_unexpected_pass():
    pass


@pytest.mark.xfail(strict=True)
def test_strict_unexpected_pass():
    pass


class OldStyle(unittest.TestCase):
    def test_method(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)
"""
    ),
    "broken/test_import.py": "from nowhere import nothing\n\n\ndef test_never():\n    pass\n",
    "loops/test_loops.py": (
        """\
import pytest


@pytest.mark.parametrize("case", range(3))
def test_forever(case):
    while case != 1:
        try:
            pass
        except BaseException:
            pass


def test_after():
    pass
"""
    ),
    "dies/test_dies.py": "import os\n\n\ndef test_first():\n    pass\n\n\ndef test_dies():\n    os._exit(0)\n",
    "sleeps/test_sleeps.py": (
        "import time\n\n\ndef test_first():\n    pass\n\n\ndef test_sleeps():\n    time.sleep(60)\n"
    ),
    "inner/pytest.ini": "[pytest]\n",
    "inner/test_inner.py": "def test_here():\n    pass\n",
    "nested/test_nested.py": (
        """\
import os
import subprocess
import sys


def test_runs_pytest(tmp_path):
    assert not [name for name in os.environ if name.startswith("TROOP_")]
    (tmp_path / "test_other.py").write_text("def test_other():\\n    assert False\\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed" in done.stdout
"""
    ),
    "conf/conftest.py": "import does_not_exist\n",
    "conf/test_conf.py": "def test_conf():\n    pass\n",
}
KINDS = "tests/test_kinds.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("tree"), TREE, date="2024-01-01T00:00:00+0000")


def run(
    provider: Provider,
    tree: Path,
    ids: Sequence[str] = (),
    command: str = COMMAND,
    timeout: float = 60.0,
    test_seconds: float | None = None,
) -> TestReport:
    async def work(sandbox: Sandbox) -> TestReport:
        report = await run_tests(sandbox, command, ids, timeout=timeout, test_seconds=test_seconds)
        changed = await sandbox.exec(
            "git status --porcelain --ignored; find . -name __pycache__ -o -name .pytest_cache"
        )
        assert changed.output == "", "a test run leaves no byte code and no caches in the tree"
        return report

    return in_sandbox(provider, make_task(tree), work)


def test_every_kind_of_outcome_is_told_apart(provider: Provider, tree: Path) -> None:
    report = run(provider, tree, [KINDS])
    assert report.valid and report.exit_code == 1
    assert {test.removeprefix(KINDS + "::"): outcome for test, outcome in report.outcomes.items()} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_fails_by_a_cause": "failed",
        "test_fails_elsewhere": "failed",
        "test_fails_by_a_command": "failed",
        "test_odd[a b]": "passed",
        "test_odd[c[1]::d]": "failed",
        "test_odd[\\xe9]": "passed",
        'test_odd[it\'s "x" $HOME;]': "passed",
        "test_setup_error": "error",
        "test_teardown_error": "error",
        "test_skipped": "skipped",
        "test_expected_failure": "skipped",
        "test_unexpected_pass": "passed",
        "test_strict_unexpected_pass": "failed",
        "OldStyle::test_method": "failed",
    }
    assert "assert [1, 2] == [1, 3]" in report.failures[f"{KINDS}::test_fails"]
    assert "no such thing" in report.failures[f"{KINDS}::test_setup_error"]
    where, _, frame = report.failures[f"{KINDS}::test_fails_elsewhere"].rpartition("\n")
    assert "json/decoder.py" in where and frame == f'from {KINDS}:20: __import__("json").loads("{{")'
    assert report.failures[f"{KINDS}::test_fails_by_a_cause"].endswith("no palette\ncaused by KeyError: 'colour'")
    assert report.failures[f"{KINDS}::test_fails_by_a_command"].endswith("\nit said: no such index")
    assert "short test summary" in report.output
    assert set(report.durations) == set(report.outcomes)


def test_exactly_the_asked_tests_run(bubblewrap: Provider, tree: Path) -> None:
    wanted = [f'{KINDS}::test_odd[it\'s "x" $HOME;]', f"{KINDS}::test_odd[c[1]::d]", f"{KINDS}::OldStyle"]
    report = run(bubblewrap, tree, wanted)
    assert report.valid
    assert set(report.outcomes) == {*wanted[:2], f"{KINDS}::OldStyle::test_method"}


def test_ids_reach_a_pytest_that_the_command_hides(bubblewrap: Provider, tree: Path) -> None:
    command = "true; python -m pytest -q tests || exit 2"
    report = run(bubblewrap, tree, [f"{KINDS}::test_fails"], command)
    assert report.outcomes == {f"{KINDS}::test_fails": "failed"}
    assert report.valid and report.exit_code == 2


def test_files_that_cannot_be_loaded_are_errors_and_the_others_still_run(bubblewrap: Provider, tree: Path) -> None:
    report = run(bubblewrap, tree, ["broken", f"{KINDS}::test_passes"])
    assert report.valid
    assert report.outcomes == {"broken/test_import.py": "error", f"{KINDS}::test_passes": "passed"}
    assert "No module named 'nowhere'" in report.failures["broken/test_import.py"]
    assert outcome_of(report, "broken/test_import.py::test_never") == "error"


def test_an_endless_loop_fails_its_test_and_the_run_goes_on(provider: Provider, tree: Path) -> None:
    report = run(provider, tree, ["loops"], test_seconds=2.0)
    assert report.valid and not report.timed_out
    loops = "loops/test_loops.py::test_"
    assert dict(report.outcomes) == {
        f"{loops}forever[0]": "failed",
        f"{loops}forever[1]": "passed",
        f"{loops}forever[2]": "failed",
        f"{loops}after": "passed",
    }
    assert "timed out after 2 s" in report.failures[f"{loops}forever[0]"]
    assert "test_loops.py" in report.failures[f"{loops}forever[0]"]


def test_a_run_that_is_stopped_keeps_what_had_finished(provider: Provider, tree: Path) -> None:
    report = run(provider, tree, ["sleeps"], timeout=4.0)
    assert report.timed_out and not report.valid and not report.green
    assert report.outcomes == {"sleeps/test_sleeps.py::test_first": "passed"}
    assert report.reason.endswith("while running sleeps/test_sleeps.py::test_sleeps")


def test_a_pytest_that_dies_with_exit_code_0_is_not_believed(bubblewrap: Provider, tree: Path) -> None:
    report = run(bubblewrap, tree, ["dies"])
    assert report.exit_code == 0 and not report.valid and not report.green
    assert "while running dies/test_dies.py::test_dies" in report.reason
    assert report.outcomes == {"dies/test_dies.py::test_first": "passed", "dies/test_dies.py::test_dies": "error"}


def test_an_exit_code_that_hides_the_failure_is_not_believed(bubblewrap: Provider, tree: Path) -> None:
    report = run(bubblewrap, tree, command="python -m pytest -q tests || true")
    assert not report.valid
    assert report.reason == "the test command's exit code is 0, but pytest's was 1"


def test_a_conftest_that_cannot_be_loaded_is_not_mistaken_for_a_command_without_pytest(
    bubblewrap: Provider, tree: Path
) -> None:
    report = run(bubblewrap, tree, ["conf"])
    assert not report.valid and report.outcomes == {}


def test_a_test_that_runs_pytest_does_not_write_into_the_report(bubblewrap: Provider, tree: Path) -> None:
    report = run(bubblewrap, tree, ["nested"])
    assert report.valid
    assert report.outcomes == {"nested/test_nested.py::test_runs_pytest": "passed"}


def test_ids_are_relative_to_the_repository_wherever_pytest_finds_its_root(bubblewrap: Provider, tree: Path) -> None:
    for ids in (["inner"], ["inner/test_inner.py::test_here"]):
        assert run(bubblewrap, tree, ids).outcomes == {"inner/test_inner.py::test_here": "passed"}


def test_a_command_without_pytest_is_one_test(bubblewrap: Provider, tree: Path) -> None:
    assert run(bubblewrap, tree, command="echo fine").outcomes == {COMMAND_TEST: "passed"}
    failed = run(bubblewrap, tree, command="echo broken >&2; exit 3")
    assert failed.valid and failed.outcomes == {COMMAND_TEST: "failed"}
    assert failed.failures == {COMMAND_TEST: "broken"}
    assert not run(bubblewrap, tree, command="no-such-command").valid
    assert not run(bubblewrap, tree, command="python -S -m pytest").valid


@pytest.mark.parametrize(
    "command",
    [
        "PYTHONPATH=inner python -m pytest -q",
        "export PYTHONPATH='inner:x'; python -m pytest -q tests",
        "PYTHONPATH= python -m pytest -q",
    ],
)
def test_a_command_that_sets_the_python_path_keeps_what_reports(bubblewrap: Provider, tree: Path, command: str) -> None:
    report = run(bubblewrap, tree, [f"{KINDS}::test_passes"], command)
    assert report.outcomes == {f"{KINDS}::test_passes": "passed"} and report.valid


def test_where_the_plugin_is_not_found_the_reason_says_what_to_do(bubblewrap: Provider, tree: Path) -> None:
    for command in ("env -u PYTHONPATH python -m pytest -q", "echo 'env -u PYTHONPATH python -m pytest' | sh"):
        report = run(bubblewrap, tree, command=command)
        assert not report.valid and report.outcomes == {}
        assert "PYTHONPATH=src:$PYTHONPATH" in report.reason


def test_a_report_that_was_filled_by_the_code_under_test_is_not_read(
    bubblewrap: Provider, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.testing.run.REPORT_BYTES", 300)
    report = run(bubblewrap, tree, [KINDS])
    assert not report.valid and report.outcomes == {}
    assert report.reason.startswith("the report of the tests is larger")


def test_a_named_file_that_is_not_there_is_no_pass(bubblewrap: Provider, tree: Path) -> None:
    report = run(bubblewrap, tree, ["tests/test_gone.py::test_x"])
    assert not report.valid and not report.outcomes


# What a report amounts to, without a sandbox


def test_a_report_is_read_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "t.py::test_x[" + "x" * 5000
    report = finished(
        1,
        {"begin": 1},
        {"begin": ["unhashable"]},
        {"test": long + "1]", "outcome": "passed"},
        {"test": long + "2]", "outcome": "failed", "message": "m" * 10_000, "seconds": float("nan")},
        {"finish": 1, "exit": 1},
    )
    assert report.valid and report.outcomes == {"t.py::test_x": "failed"}
    assert len(report.failures["t.py::test_x"]) == 2000 and not report.durations
    monkeypatch.setattr("harness.testing.report.REPORT_TESTS", 3)
    lines = [{"test": f"t.py::test_{n}", "outcome": "passed"} for n in range(5)]
    report = finished(0, {"begin": 1}, *lines, {"finish": 1, "exit": 0})
    assert len(report.outcomes) == 3 and not report.valid and "3 tests" in report.reason
    nested = b'{"begin": 1}\n' + b"[" * 100_000 + b'\n{"finish": 1, "exit": 0}\n'
    assert runner_of(COMMAND).read(Exec(b"", b"", 0, False, 1.0), nested).valid


def finished(exit_code: int, *lines: object) -> TestReport:
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return runner_of(COMMAND).read(Exec(b"", b"", exit_code, False, 1.0), text)


BEGIN, END_0, END_1 = {"begin": 7}, {"finish": 7, "exit": 0}, {"finish": 7, "exit": 1}
PASS = {"test": "t.py::a", "outcome": "passed"}
FAIL = {"test": "t.py::b", "outcome": "failed", "message": "no"}


def test_a_report_is_valid_only_if_it_is_complete_and_agrees_with_the_exit_code() -> None:
    assert finished(0, BEGIN, PASS, END_0).green
    assert finished(1, BEGIN, PASS, FAIL, END_1).valid
    assert not finished(0, BEGIN, PASS).valid, "no finish line"
    assert not finished(0, BEGIN, PASS, FAIL, END_0).valid, "a failure, and exit status 0"
    assert not finished(1, BEGIN, PASS, END_1).valid, "exit status 1 without a failure"
    assert not finished(1, BEGIN, PASS, END_0).valid, "exit code and exit status differ"
    assert not finished(137, BEGIN, PASS, END_0).valid
    for status in (2, 3, 4, 5):
        assert not finished(status, BEGIN, PASS, {"finish": 7, "exit": status}).valid


def test_nothing_but_recorded_collection_errors_is_valid() -> None:
    error = {"test": "t.py", "outcome": "error", "message": "ImportError"}
    assert finished(2, BEGIN, error, {"finish": 7, "exit": 2}).valid


def test_two_pytests_in_one_command_make_one_report_and_the_worse_outcome_counts() -> None:
    report = finished(2, BEGIN, PASS, END_0, {"begin": 8}, {**PASS, "outcome": "failed"}, {"finish": 8, "exit": 1})
    assert report.valid and report.outcomes == {"t.py::a": "failed"}


def test_a_line_torn_by_a_kill_is_passed_over() -> None:
    text = b'{"begin": 7}\n{"test": "t.py::a", "outcome": "passed"}\n{"test": "t.py::b", "outc'
    report = runner_of(COMMAND).read(Exec(b"", b"", 137, True, 9.0), text)
    assert report.outcomes == {"t.py::a": "passed"} and not report.valid


def test_an_id_stands_for_what_lies_below_it() -> None:
    assert selects("t.py", "t.py::a") and selects("t.py::A", "t.py::A::b") and selects("t.py::a", "t.py::a[1]")
    assert selects("tests", "tests/t.py::a") and selects(".", "x.py::a")
    assert not selects("t.py::a", "t.py::ab") and not selects("test", "tests/t.py::a")
