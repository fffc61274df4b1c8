"""What was set up, in a line and in report.json, and when a base's tests are no ground to judge patches on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config import Settings
from agent.run.graph import check_baseline
from harness.environments.needs import absent_modules, absent_plugins, by_module, debian_packages, wanted
from harness.environments.summary import environment_json, offline, summary_line, trouble
from harness.records import Outcome, TestReport
from harness.testing.report import COMMAND_TEST
from harness.trace import Prepared
from tasks.errors import SetupFailed
from tasks.task import GivenTest, Repository, Task

TASK = Task("t", Repository("path", "."), "Wrong.\n")


def report(outcomes: dict[str, Outcome], failures: dict[str, str] | None = None, output: str = "") -> TestReport:
    return TestReport(outcomes, 1, False, True, 1.0, failures or {}, output=output)


MANY: dict[str, Outcome] = {f"tests/test_{n}.py::test_it": "passed" for n in range(8)}
FOUND = Prepared(
    base_commit="b",
    environment="e",
    backend="docker",
    test_command="python -m pytest -q",
    python="3.11.2",
    install="pip install -e .[tests]",
    fell_back_from="pip install -e .[tests] --group dev",
    notes=("said",),
    baseline=report(
        {**MANY, "a.py::t": "failed", "b.py::t": "error", "c.py::t": "skipped", "x.py": "error"},
        {"x.py": "ModuleNotFoundError: No module named 'pyftpdlib'", "a.py::t": "E  [Errno -3] name resolution failed"},
    ),
)


def test_the_line_says_python_the_way_of_installing_the_command_and_what_the_tests_came_to() -> None:
    assert summary_line(FOUND) == (
        "Python 3.11.2 · pip install -e .[tests] (after pip install -e .[tests] --group dev failed) · python -m pytest -q ·"
        " 8 pass, 2 fail (1 of them for want of the network or a server), 1 skipped,"
        " 1 files cannot be loaded (pyftpdlib not installed): give --setup …"
    )


def test_what_a_fixture_failed_for_want_of_the_network_counts_as_often_as_it_is_used() -> None:
    failed = "conftest.py:9: CalledProcessError: 'pip', 'download'"
    told = f"{failed}\nit said: ERROR: No matching distribution found for setuptools"
    outcomes: dict[str, Outcome] = {f"a.py::t{n}": "error" for n in range(3)}
    found = report({**outcomes, "a.py::other": "failed"}, {"a.py::t0": told, "a.py::t1": failed, "a.py::t2": failed})
    assert offline(replace(found, failures={**found.failures, "a.py::other": "a.py:1: assert 1 == 2"})) == 3


def test_the_report_has_the_same_as_data() -> None:
    told = environment_json(FOUND)
    assert told["baseline"] == {"passed": 8, "failed": 1, "error": 1, "skipped": 1, "unloadable": 1}
    assert told["notes"] == ["said"] and told["fell_back_from"].endswith("--group dev")
    assert environment_json(replace(FOUND, baseline=None))["baseline"] is None


@pytest.mark.parametrize(
    ("outcomes", "given", "wrong", "hopeless"),
    [
        (MANY, (), "", False),
        ({"a.py::t": "failed"}, (), "none of them passes", True),
        ({"a.py::t": "skipped"}, (), "none of them passes", True),
        ({"a.py::t": "failed"}, ("a.py::t",), "", False),
        ({"a.py::t[1]": "failed"}, ("a.py",), "", False),
        ({COMMAND_TEST: "failed"}, (), "fails as a whole", True),
        ({**MANY, "x.py": "error"}, (), "1 of 9 test files cannot be loaded", False),
        ({"a.py::t": "passed", "a.py::u": "failed", "a.py::v": "error"}, (), "most tests fail", False),
    ],
)
def test_what_is_wrong_with_a_baseline_is_told(
    outcomes: dict[str, Outcome], given: tuple[str, ...], wrong: str, hopeless: bool
) -> None:
    said, stops = trouble(report(outcomes), given)
    assert wrong in said and bool(said) is bool(wrong) and stops is hopeless


def test_a_hopeless_baseline_stops_and_a_poor_one_is_said_and_goes_on() -> None:
    hopeless = replace(FOUND, baseline=report({"a.py::t": "failed"}, {"a.py::t": "boom"}))
    with pytest.raises(SetupFailed, match=r"(?s)none of them passes.*boom.*--setup.*--python.*--image.*--yes"):
        check_baseline(hopeless, TASK, Settings(), print)
    for prepared in (hopeless, replace(FOUND, baseline=None)):
        said: list[str] = []
        settings = Settings(yes=prepared is hopeless)
        check_baseline(prepared, TASK, settings, said.append)
        assert said[0].startswith("warning: ") and "--setup" in said[0]
    with pytest.raises(SetupFailed, match="no tests guard"):
        check_baseline(replace(FOUND, baseline=None), TASK, Settings(strict=True), print)
    check_baseline(hopeless, replace(TASK, failing_test=GivenTest(("a.py::t",))), Settings(strict=True), print)


def test_what_tests_lack_is_looked_up_in_the_projects_own_lists() -> None:
    named = ("PyYAML>=6", "pytest-twisted", "python-dateutil", "ruff")
    known = by_module(named)
    assert (known["yaml"], known["pytest_twisted"], known["dateutil"]) == named[:3]
    files = {
        "tests/test_a.py": b"import yaml, pytest_codspeed\ndef t():\n    d = importorskip('dateutil')\n",
        "app.py": b"import ruff\ntry:\n    import os, linkify_it.x as y\nexcept ImportError:\n    pass\n",
    }
    found = wanted(list(files), lambda path: files[path], [*named, "pytest-codspeed"], ("linkify-it-py~=2",))
    assert found == {"dateutil": "python-dateutil", "linkify_it": "linkify-it-py~=2", "yaml": "PyYAML>=6"}
    broken = report({"a.py": "error"}, {"a.py": "E ModuleNotFoundError: No module named 'twisted.web'"})
    assert absent_modules(broken) == ["twisted"]
    hooks = TestReport({}, 3, False, False, 1.0, output="unknown hook 'pytest_benchmark_update_machine_info' in plugin")
    assert absent_modules(hooks) == ["pytest_benchmark"]
    usage = replace(broken, output="error: unrecognized arguments: --cov=x -n auto --asyncio-mode=auto")
    assert absent_plugins(usage) == ["pytest-cov", "pytest-xdist", "pytest-asyncio"]


def test_what_a_build_lacks_of_the_system_is_named_with_the_line_to_type() -> None:
    assert 'apt = ["libpq-dev"]' in debian_packages("Error: pg_config executable not found.")
    assert debian_packages("error: subprocess-exited-with-error") == ""
