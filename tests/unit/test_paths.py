"""What a path says: tests and what guards them, where a new test may lie, prose."""

from __future__ import annotations

import pytest

from agent.choice.hearing import PLACE
from harness.patches.paths import (
    guards_tests,
    hides_from,
    holds_tests,
    is_prose,
    is_test,
    place_of_new_test,
    pytest_collects,
)


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("tests/data/x.json", True),
        ("pkg/tests/util.py", True),
        ("test/x.py", True),
        ("pkg/test_x.py", True),
        ("pkg/x_test.py", True),
        ("conftest.py", True),
        ("sums/total_test.go", True),
        ("sums/testdata/a.golden", True),
        ("src/total.spec.tsx", True),
        ("src/__tests__/total.js", True),
        ("src/parse/tests.rs", True),
        ("src/latest.go", False),
        ("src/spec.ts", False),
        ("numpy/testing/decorators.py", False),
        ("django/test/client.py", False),
        ("pkg/latest.py", False),
        ("pkg/testify.py", False),
    ],
)
def test_tests_are_told_from_code_by_their_path(path: str, test: bool) -> None:
    assert is_test(path) is test


@pytest.mark.parametrize(
    "path",
    [
        "tests/data/x.json",
        "pkg/tests/helper.py",
        "test_x.py",
        "pkg/x_test.py",
        "conftest.py",
        "pkg/conftest.py",
        "pytest.ini",
        "sitecustomize.py",
        "tox.ini",
        "setup.cfg",
        "pyproject.toml",
        "test/helper.py",
        "x.pth",
        "app/tests.py",
        "package.json",
        "ui/jest.config.js",
        ".mocharc.yml",
    ],
)
def test_what_decides_about_tests_guards_them(path: str) -> None:
    assert guards_tests(path)


@pytest.mark.parametrize(
    "path", ["pkg/core.py", "django/test/client.py", "numpy/testing/utils.py", "pkg/testing.py", "contest.py"]
)
def test_what_may_be_the_fix_does_not_guard_tests(path: str) -> None:
    assert not guards_tests(path)


def test_files_that_hold_tests_have_the_names_that_runners_look_for() -> None:
    assert all(
        map(holds_tests, ("test_a.py", "a/b_test.py", "tests/queries/tests.py", "x/unittest_a.py", "b_tests.py"))
    )
    elsewhere = ("a/b_test.go", "tests/it.rs", "a/b.spec.mts", "test/a.js", "a/__tests__/b.tsx")
    assert all(map(holds_tests, elsewhere)) and not any(map(pytest_collects, elsewhere))
    assert not any(
        map(
            holds_tests,
            (
                "tests/conftest.py",
                "tests/test_apps/cli/flask.py",
                "a_test/b_tests/c.py",
                "a/tests.go",
                "src/latest.js",
                "contest.py",
                "a/latest.py",
                "tests/test_data.txt",
            ),
        )
    )
    assert all(map(pytest_collects, ("test_a.py", "a/b_test.py")))
    assert not any(map(pytest_collects, ("tests/queries/tests.py", "x/unittest_a.py", "test_a.txt", "test_a.pyi")))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("tests/test_issue.py", "tests/test_issue.py"),
        ("./tests//sub/./test_issue.py", "tests/sub/test_issue.py"),
        ("pkg/issue_test.py", "pkg/issue_test.py"),
        ("pkg/issue-12_test.go", "pkg/issue-12_test.go"),
        ("crates/a/tests/issue.rs", "crates/a/tests/issue.rs"),
        ("./src/issue.test.ts", "src/issue.test.ts"),
        ("docs/pytest/test_issue.py", "docs/pytest/test_issue.py"),
        (PLACE, PLACE),
    ],
)
def test_a_new_test_lies_where_a_runner_finds_it(path: str, place: str) -> None:
    assert place_of_new_test(path) == place


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "tests/", "/tmp/test_issue.py", "../test_issue.py", "tests/../test_issue.py", "-x/test_issue.py"),
        *("conftest.py", "tests/conftest.py", "sitecustomize.py", "usercustomize.py", "pytest.ini", "a.pth"),
        *("pytest.py", "_pytest/test_issue.py", "pluggy.py", "iniconfig/test_issue.py", "troop_test.py", "troop_x.py"),
        *("node_modules/a/b.test.js", "src/issue.rs", "tests/sub/issue.rs", "test/issue.js", "jest.config.js", "a.go"),
        *(".git/hooks/test_issue.py", "issue.py", "tests/test_issue.txt", "tests/test_issue-1.py", "__init__.py"),
        *("a\0b/test_issue.py", "a\n/test_issue.py", "\udcff/test_issue.py"),
    ],
)
def test_what_is_loaded_unasked_hides_a_tool_or_is_not_inside_is_no_place_for_a_new_test(path: str) -> None:
    assert place_of_new_test(path) == ""


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("pytest.py", "."),
        ("src/_pytest/__init__.py", "src"),
        ("pluggy.cpython-311-x86_64-linux-gnu.so", "."),
        ("a/b/troop_pytest.py", "a/b"),
        ("unittest/__init__.py", "."),
        ("lib/json.py", "lib"),
        ("usercustomize.pyc", "."),
        ("a/x.pth", "a"),
        ("calc.py", None),
        ("json.txt", None),
        ("json/tool.py", None),
        ("tests/pytest.py", None),
    ],
)
def test_what_is_loaded_in_place_of_a_test_tool_or_the_standard_library_is_known(path: str, folder: str | None) -> None:
    assert hides_from(path) == folder


def test_prose_is_told_from_code_by_its_path() -> None:
    assert is_prose("README.md")
    assert is_prose("docs/conf.py")
    assert not is_prose("pkg/docs.py")
    assert not is_prose("pkg/data.txt")
