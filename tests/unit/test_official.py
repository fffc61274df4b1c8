"""What is taken from the official package, and what is said where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.swebench import official
from tasks.errors import InputError
from tests.support.graded_instance import make_row

BASE = "a" * 40
ROW = make_row(BASE)
LOG = """\
+ : '>>>>> Start Test Output'
PASSED tests/test_calc.py::test_add
PASSED tests/test_calc.py::test_double
+ : '>>>>> End Test Output'
"""


def test_a_specification_is_plain_data() -> None:
    spec = official.spec_of(ROW)
    assert spec.python == "3.9" and spec.install == "python -m pip install -e ."
    assert "py==1.11.0" in spec.pip_packages
    django = official.spec_of(replace(ROW, repo="django/django", version="3.0"))
    assert django.requirements_paths == ("tests/requirements/py3.txt",) and django.packages == ()
    xarray = official.spec_of(replace(ROW, repo="pydata/xarray", version="0.12"))
    assert xarray.environment_paths and not xarray.requirements_paths
    scikit = official.spec_of(replace(ROW, repo="scikit-learn/scikit-learn", version="1.3"))
    assert "numpy==1.19.2" in scikit.packages and "pandas<2.0.0" in scikit.packages, "without the shell's quotes"


def test_the_script_without_the_installation_lacks_only_that_line() -> None:
    whole, less = official.eval_script(ROW), official.eval_script(ROW, install=False)
    assert [line for line in whole.splitlines() if line not in less.splitlines()] == ["python -m pip install -e ."]
    assert whole.startswith("#!/bin/bash\nset -uxo pipefail\n")
    assert f"git checkout {BASE} tests/test_calc.py" in less


def test_a_row_may_bring_its_own_script_and_parser() -> None:
    own = replace(
        ROW,
        repo="new/repo",
        version="1",
        eval_script="run tests\n",
        log_parser="parse_log_pytest",
        eval_type="pass_and_fail",
    )
    assert official.eval_script(own) == "#!/bin/bash\nset -uxo pipefail\nrun tests\n"
    assert official.eval_script(own, install=False) == official.eval_script(own)
    assert official.install_command(own) == ""
    assert official.report_of(own, LOG)["resolved"]
    known = replace(ROW, eval_script="#!/bin/bash\npython -m pip install -e .\npytest\n", log_parser="parse_log_pytest")
    assert official.eval_script(known, install=False) == "#!/bin/bash\npytest\n"


def test_kinds_of_evaluation_differ_in_what_a_missing_test_means() -> None:
    silent = LOG.replace("PASSED tests/test_calc.py::test_add\n", "")
    row = replace(ROW, log_parser="parse_log_pytest")
    assert not official.report_of(replace(row, eval_type="pass_and_fail"), silent)["resolved"]
    assert official.report_of(replace(row, eval_type="fail_only"), silent)["resolved"]


@pytest.mark.parametrize(
    "log",
    [
        LOG.replace(">>>>> Start Test Output", ""),
        LOG.replace(">>>>> End Test Output", ""),
        LOG + ">>>>> Tests Timed Out\n",
        ">>>>> Patch Apply Failed\n" + LOG,
    ],
)
def test_a_log_without_a_whole_test_run_is_no_success(log: str) -> None:
    for row in (ROW, replace(ROW, log_parser="parse_log_pytest")):
        report = official.report_of(row, log)
        assert (report["patch_successfully_applied"], report["resolved"]) == (False, False)
        assert "tests_status" not in report


def test_both_ways_to_a_report_give_the_same() -> None:
    for log in (LOG, LOG.replace("PASSED", "FAILED", 1), LOG.replace("\n", "\r\n")):
        assert official.report_of(ROW, log) == official.report_of(replace(ROW, log_parser="parse_log_pytest"), log)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"repo": "no/such"}, "has no specification for the repository no/such"),
        ({"version": "99"}, "does not know version '99' of pytest-dev/pytest"),
        ({"log_parser": "parse_log_none", "eval_script": "x"}, "has no log parser 'parse_log_none'"),
        ({"eval_type": "sometimes"}, "eval_type is 'sometimes', not one of pass_and_fail, fail_only"),
        ({"test_patch": "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\nwords"}, "no evaluation script can be made of the row"),
    ],
)
def test_what_the_package_does_not_know_is_said_before_anything_starts(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        official.check(replace(ROW, **fields))


def test_a_test_patch_that_only_adds_files_is_recognised() -> None:
    added = "diff --git a/t.py b/t.py\nnew file mode 100644\n--- /dev/null\n+++ b/t.py\n@@ -0,0 +1 @@\n+x\n"
    assert official.checks_out_all(replace(ROW, test_patch=added))
    assert not official.checks_out_all(ROW)
    assert not official.checks_out_all(replace(ROW, test_patch=ROW.test_patch + added))
    assert official.checks_out_all(replace(ROW, eval_script=f"cd /testbed\ngit checkout {BASE}\n"))


HIDE = """
import importlib.metadata, sys
found = importlib.metadata.version
def version(name):
    if name == "swebench":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
from agent.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_release_that_is_not_at_hand_and_cannot_be_fetched_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HIDE, "grade", "swe-bench-lite", "--predictions", "gold"]
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    environment = {**os.environ, **nowhere, "TROOP_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("troop: swebench 5.0.2, whose rules and specifications are wanted, cannot be fetched")
    assert "pip install swebench==5.0.2" in done.stderr and not list((tmp_path / "swebench").iterdir())


def test_the_two_releases_are_loaded_apart_and_neither_is_left_among_the_modules() -> None:
    five, four = (official.RELEASES[rules].module("harness.grading") for rules in ("5", "4.1"))
    assert five is not four and not hasattr(four, "parse_test_exit_code")
    assert "swebench" not in sys.modules and five is official.RELEASES["5"].module("harness.grading")


EXIT_3 = ">>>>> Test Exit Code: 3\n"
ADVERSARIAL = {
    "passed lines and a failing exit": (LOG + EXIT_3, False, True),
    "a failing exit that a failure explains": (LOG.replace("PASSED", "FAILED", 1) + EXIT_3, False, False),
    "a clean exit": (LOG + ">>>>> Test Exit Code: 0\n", True, True),
    "the wanted test skipped": (
        LOG.replace("PASSED tests/test_calc.py::test_add", "SKIPPED tests/test_calc.py::test_add"),
        False,
        True,
    ),
    "the kept test skipped": (
        LOG.replace("PASSED tests/test_calc.py::test_double", "SKIPPED tests/test_calc.py::test_double"),
        True,
        True,
    ),
    "no end marker": (LOG.replace(">>>>> End Test Output", ""), False, False),
    "results before the start marker": (
        "".join(LOG.splitlines(True)[1:3]) + "+ : '>>>>> Start Test Output'\n+ : '>>>>> End Test Output'\n",
        True,
        True,
    ),
    "a suite that never ran": (
        "+ : '>>>>> Start Test Output'\nno such command\n+ : '>>>>> End Test Output'\n",
        False,
        False,
    ),
}
"""By name: the output, whether it is resolved by today's rules, and by those of before."""


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_both_rules_on_output_that_deceives(name: str) -> None:
    log, now, before = ADVERSARIAL[name]
    assert (official.report_of(ROW, log)["resolved"], official.report_of(ROW, log, "4.1")["resolved"]) == (now, before)


def test_ids_with_spaces_and_ids_that_were_cut_are_found_by_today_s_rules() -> None:
    row = replace(ROW, fail_to_pass=("tests/t.py::test_a[x",), pass_to_pass=())
    log = LOG.replace("tests/test_calc.py::test_add", "tests/t.py::test_a[x-y]")
    assert official.report_of(row, log)["resolved"] and not official.report_of(row, log, "4.1")["resolved"]
    row = replace(
        ROW, repo="astropy/astropy", version="5.0", fail_to_pass=("tests/t.py::test_a[x y]",), pass_to_pass=()
    )
    log = LOG.replace("tests/test_calc.py::test_add", "tests/t.py::test_a[x y]")
    assert official.report_of(row, log)["resolved"] and not official.report_of(row, log, "4.1")["resolved"]


def test_an_old_row_s_script_tells_the_exit_code_by_today_s_rules_only() -> None:
    now, before = official.eval_script(ROW).splitlines(), official.eval_script(ROW, rules="4.1").splitlines()
    assert [line for line in now if line not in before] == [
        "SWEBENCH_TEST_EXIT_CODE=$?",
        'echo ">>>>> Test Exit Code: $SWEBENCH_TEST_EXIT_CODE"',
    ]
    assert [line for line in now if line in before] == before
