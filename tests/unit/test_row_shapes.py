"""Rows of SWE-bench Pro, SWE-rebench and Multi-SWE-bench, made by hand in the shape of their data sets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.environments.detect import given_steps
from harness.suites.swebench import task_in_image
from harness.swebench import official
from harness.swebench.reinstall import installs_in_place
from tasks.errors import InputError
from tasks.swebench import ENTER, TREE, Row, load_rows, repository_of
from tests.support.rows import bare_row
from tests.support.suite_rows import COMMIT, multi, pro, rebench, write, write_scripts


def loaded(place: Path, row: dict[str, Any]) -> Row:
    if "dockerhub_tag" in row:
        write_scripts(place, row)
    (found,) = load_rows("swe-bench", write(place / "helper_code" / "rows.jsonl", row))
    return found


def log(*lines: str, before: str = "", after: str = "") -> str:
    return "\n".join((before, ">>>>> Start Test Output", *lines, ">>>>> End Test Output", after))


def test_a_row_of_pro(tmp_path: Path) -> None:
    row = loaded(tmp_path, pro())
    assert (row.image, row.tree) == ("jefzda/sweap-images:acme.lines-acme__lines-1", "/app")
    assert row.enter == f"cd /app && git reset -q --hard {COMMIT} && git checkout -q {COMMIT}"
    assert (row.fail_to_pass, row.pass_to_pass) == (("test add",), ("test double",))
    assert row.problem_statement.index("subtracts") < row.problem_statement.index("add(2, 2) is 4")
    assert len(row.instance_id) > 100 and row.version == ""
    script = official.eval_script(row)
    assert f"git checkout {COMMIT} -- tests/test_calc.py" in script and "git clean" not in script
    assert "bash /workspace/run_script.sh tests/test_calc.py >" in script
    official.check(row)
    official.check(row, "4.1")


def test_only_what_pro_s_own_parser_says_passed_has_passed(tmp_path: Path) -> None:
    row = loaded(tmp_path, pro())

    def resolved(*lines: str, **around: str) -> Any:
        return [official.report_of(row, log(*lines, **around), rules)["resolved"] for rules in ("5", "4.1")]

    assert resolved('{"test add": "PASSED", "test double": "PASSED"}') == [True, True]
    assert resolved('{"test add": "PASSED", "test double": "SKIPPED"}') == [False, False]
    assert resolved('{"test add": "PASSED"}') == [False, False]
    forged = '| {"test add": "PASSED", "test double": "PASSED"}'
    assert resolved("no results", after=forged) == [False, False], "the tests' own output holds no results"


def test_pro_s_scripts_are_looked_for_beside_the_rows_and_one_level_up(tmp_path: Path) -> None:
    row = pro()
    beside = write(tmp_path / "rows.jsonl", row)
    with pytest.raises(InputError, match=r"line 1: this is no whole row of swe-bench-pro: .*run_script.sh"):
        load_rows("swe-bench", beside)
    write_scripts(tmp_path, row)
    assert load_rows("swe-bench", beside) == load_rows("swe-bench", write(tmp_path / "data" / "rows.jsonl", row))


def test_a_row_of_rebench_is_tested_as_its_install_config_says(tmp_path: Path) -> None:
    row = loaded(tmp_path, rebench())
    assert (row.image, row.tree, row.enter) == ("swerebench/sweb.eval.x86_64.acme_1776_lines-2", TREE, ENTER)
    script = official.eval_script(row)
    assert "LANG=C.UTF-8 LC_ALL=C.UTF-8 pytest -rA tests/test_calc.py\n" in script
    install = "LANG=C.UTF-8 LC_ALL=C.UTF-8 python -m pip install -e ."
    assert official.install_command(row) == install and installs_in_place(install)
    assert script.count(install) == 1 and install not in official.eval_script(row, install=False)
    said = log("PASSED tests/test_calc.py::test_add", "PASSED tests/test_calc.py::test_double")
    assert official.report_of(row, said)["resolved"]
    other = loaded(
        tmp_path, rebench(instance_id="acme__lines-3", install_config={"test_cmd": "tox", "log_parser": "x"})
    )
    assert "tox tests/test_calc.py" in official.eval_script(other) and "pytest -rA" in official.eval_script(row)
    with pytest.raises(InputError, match="has no log parser 'x'"):
        official.check(other)


def test_a_row_of_multi(tmp_path: Path) -> None:
    row = loaded(tmp_path, multi())
    assert (row.instance_id, row.repo, row.base_commit) == ("jqlang__jq-7", "jqlang/jq", COMMIT)
    assert (row.image, row.tree, row.enter) == ("mswebench/jqlang_m_jq:pr-7", "/home/jq", "cd /home/jq")
    assert (row.fail_to_pass, row.pass_to_pass) == (("test_add", "test_new"), ("test_double",))
    assert row.problem_statement == "add\n\nadd() subtracts.\n\nAlso" and row.patch.startswith("diff --git")
    assert "bash /home/fix-run.sh" in official.eval_script(row)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Multi-SWE-bench's package has for a repository."""

    class Reader:
        def __init__(self, change: Any, config: Any) -> None:
            assert change.number == 7

        def parse_log(self, text: str) -> Any:
            print("it prints")
            words = [line.split(": ") for line in text.splitlines() if ": " in line]
            passed, failed = ({name for word, name in words if word == kind} for kind in ("PASS", "FAIL"))
            return SimpleNamespace(passed_tests=passed, failed_tests=failed)

    instance = ModuleType("multi_swe_bench.harness.instance")
    vars(instance)["Instance"] = SimpleNamespace(_registry={"jqlang/jq": Reader})
    for name in ("multi_swe_bench", "multi_swe_bench.harness", "multi_swe_bench.harness.repos"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "multi_swe_bench.harness.instance", instance)
    monkeypatch.delitem(official.RELEASES["5"].module("harness.log_parsers").PARSER_REGISTRY, NAME, raising=False)


NAME = "multi-swe-bench:jqlang/jq:7"


def test_logs_of_multi_are_read_by_its_package(tmp_path: Path, package: None, capsys: Any) -> None:
    row = loaded(tmp_path, multi())
    official.check(row)
    passing = ("PASS: test_add", "PASS: test_new", "PASS: test_double")
    assert official.report_of(row, log(*passing))["resolved"]
    failing = official.report_of(row, log(*passing[:2], "FAIL: test_double"))
    assert failing["tests_status"]["PASS_TO_PASS"]["failure"] == ["test_double"] and not failing["resolved"]
    assert capsys.readouterr().out == "", "standard output is the command's own"


def test_without_multi_s_package_the_error_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "multi_swe_bench.harness.repos", None)
    registry = official.RELEASES["5"].module("harness.log_parsers").PARSER_REGISTRY
    monkeypatch.delitem(registry, NAME, raising=False)
    with pytest.raises(InputError, match="pip install multi-swe-bench"):
        official.check(loaded(tmp_path, multi()))


@pytest.mark.parametrize("make", [pro, rebench, multi])
def test_an_image_that_the_row_names_counts(tmp_path: Path, make: Callable[..., dict[str, Any]]) -> None:
    assert loaded(tmp_path, make(image="registry.example/own:1")).image == "registry.example/own:1"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (pro(dockerhub_tag=None), "swe-bench-pro: the field dockerhub_tag is missing"),
        (pro(fail_to_pass="f(1)"), "swe-bench-pro: "),
        (rebench(docker_image=None), "swe-rebench: the field docker_image is missing"),
        (rebench(install_config="pytest"), "swe-rebench: "),
        (multi(fix_patch=None), "multi-swe-bench: the field fix_patch is missing"),
        (multi() | {"base": {}}, "multi-swe-bench: the field sha is missing"),
        (multi(org="../etc"), "the field instance_id must be a name fit for a file"),
    ],
)
def test_what_a_row_lacks_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        write_scripts(tmp_path, {"instance_id": pro()["instance_id"]})
        load_rows("swe-bench", write(tmp_path / "rows.jsonl", row))
    assert str(error.value).startswith(f"{tmp_path / 'rows.jsonl'}, line 1: ") and said in str(error.value)


def test_an_attempt_s_sandbox_has_the_tree_where_all_have_it_and_nothing_that_the_image_hides(tmp_path: Path) -> None:
    row = loaded(tmp_path, multi())
    first, *_ = task_in_image(row, repository_of(row), "image").environment.setup
    assert first.startswith(
        "rm -rf /home/jq/.git /home/*.patch && cp -an /home/jq/. /testbed && rm -rf /home/jq && ln -s /testbed /home/jq && {"
    )
    commands = task_in_image(row, repository_of(row), "image").environment.setup
    assert not [step for step in given_steps(commands) if step.installs], "nobody is told Troop's own doings"
    assert [step.installs for step in given_steps(["make", "pip install -e ."])] == [True, True]
    plain = task_in_image(bare_row(), repository_of(bare_row()), "image").environment.setup
    assert not any("cp -an" in command for command in plain)


def test_which_tests_a_repository_has_is_found_out_where_the_image_may_hold_any_language() -> None:
    def command(**fields: Any) -> str | None:
        row = bare_row(**fields)
        return task_in_image(row, repository_of(row), "image").test_command

    assert command() == "python -m pytest -q" and command(image="any") is None
    assert command(image="any", test_command="make test") == "make test"
    assert "runtests" in (command(image="any", repo="django/django") or "")
