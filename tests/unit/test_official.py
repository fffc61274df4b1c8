"""What is taken from the official package, and what is said where it is missing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.swebench import official
from tasks.errors import InputError
from tests.support.graded_instance import make_row
from tests.support.official_harness import report_on

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
    assert report_on(own, LOG)["resolved"]
    known = replace(ROW, eval_script="#!/bin/bash\npython -m pip install -e .\npytest\n", log_parser="parse_log_pytest")
    assert official.eval_script(known, install=False) == "#!/bin/bash\npytest\n"


def test_kinds_of_evaluation_differ_in_what_a_missing_test_means() -> None:
    silent = LOG.replace("PASSED tests/test_calc.py::test_add\n", "")
    row = replace(ROW, log_parser="parse_log_pytest")
    assert not report_on(replace(row, eval_type="pass_and_fail"), silent)["resolved"]
    assert report_on(replace(row, eval_type="fail_only"), silent)["resolved"]


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
        report = report_on(row, log)
        assert (report["patch_successfully_applied"], report["resolved"]) == (False, False)
        assert "tests_status" not in report


def test_the_report_is_the_one_that_the_official_function_gives(tmp_path: Path) -> None:
    report, spec = official._official("harness.grading").get_eval_report, official._test_spec(ROW)
    prediction = {"instance_id": ROW.instance_id, "model_patch": ""}
    for log in (LOG, LOG.replace("PASSED", "FAILED", 1), LOG.replace("\n", "\r\n"), "no test ran\n"):
        (tmp_path / "log").write_text(log, newline="")
        theirs = report(spec, prediction, str(tmp_path / "log"), include_tests_status=True)
        assert report_on(ROW, log) == theirs[ROW.instance_id]


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
import importlib.abc, importlib.metadata, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "swebench":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
found = importlib.metadata.version
def version(name):
    if name == "swebench":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
from agent.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_without_the_extra_the_command_says_what_to_type() -> None:
    command = [sys.executable, "-c", HIDE, "grade", "swe-bench-lite", "--predictions", "gold"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "troop: SWE-bench needs the official package: pip install 'troop[eval]'\n"
