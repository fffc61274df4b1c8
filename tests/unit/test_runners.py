"""Which framework a command is for, and what is run when it is limited."""

from __future__ import annotations

import pytest

from harness.records import Outcome, TestReport
from harness.testing.report import COMMAND_TEST, outcome_of, selects
from harness.testing.runners.base import Layout
from harness.testing.runners.registry import USUAL_COMMAND, command_for, line_records, runner_of
from tests.bench.evidence import command_of_project

OWN = command_of_project(["sympy", "x"])
IDS = ["tests/a/test_a.py::A::test_x", "tests/a/test_a.py::A::test_y"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("pytest", "pytest"),
        ("make lint && python -m pytest -q", "pytest"),
        ("python -m unittest", "unittest"),
        ("cd src; PYTHONPATH=. /opt/env/bin/python3 -W error -m unittest discover -s tests", "unittest"),
        ("coverage run -m unittest", "unittest"),
        ("python tests/runtests.py --parallel 1", "runtests.py"),
        ("bin/test", "sympy's runner"),
        ("LANG=C python bin/test -C", "sympy's runner"),
        (OWN, "sympy's runner"),
        ("go test ./...", "go"),
        ("cd crates && RUST_LOG=off cargo test --workspace", "cargo"),
        ("npm run build; npx --no-install jest", "jest"),
        ("NODE_ENV=test node_modules/.bin/mocha test", "mocha"),
        ("vitest run", "vitest"),
        ("node --import tsx --test", "node"),
        ("npm run jest", "the test framework"),
        ("node test.js", "the test framework"),
        ("go vet && make test", "the test framework"),
        ("make test", "the test framework"),
        ("bin/test | tail", "the test framework"),
        ("python -m unittests", "the test framework"),
    ],
)
def test_a_command_is_recognised(command: str, name: str) -> None:
    assert runner_of(command).name == name
    assert runner_of(command).by_file is (name != "the test framework")


@pytest.mark.parametrize(
    ("command", "limited"),
    [
        ("pytest -q", "pytest -q tests/a/test_a.py"),
        ("pytest; true", "pytest; true"),
        ("python -m unittest -v; true", "python -m troop_unittest -v; true"),
        (
            "X=1 ./tests/runtests.py",
            "X=1 python /opt/troop/inside/troop_django.py ./tests/runtests.py a.test_a.A.test_x a.test_a.A.test_y",
        ),
        ("cd a && X=1 npx jest --ci; true", "cd a && X=1 python3 /opt/troop/inside/troop_tools.py jest --ci; true"),
        ("go test -race ./...", "python3 /opt/troop/inside/troop_tools.py go -race ./..."),
        ("bin/test -C", f"if [ -d sympy ]; then {OWN}; else bin/test -C; fi"),
        (OWN, OWN),
        ("make test", "make test"),
    ],
)
def test_a_command_is_limited_to_ids(command: str, limited: str) -> None:
    assert runner_of(command).limited(command, IDS) == limited


def test_a_repository_gets_the_command_that_most_speaks_for() -> None:
    def command(*paths: str, settings: str = "", configured: frozenset[str] = frozenset()) -> str | None:
        return command_for(Layout(paths, settings, configured))

    assert command("app/tests.py") == "python -m unittest discover"
    assert command("app/tests.py", "test_a.py") == USUAL_COMMAND
    assert command("runtests.py", "test_a.py") == "python runtests.py"
    assert command("runtests.py", "test_a.py", settings="pytest") == USUAL_COMMAND
    assert command("runtests.py", configured=frozenset({"pytest"})) == USUAL_COMMAND
    assert command("app.py") is None and command("runtests.py") is None


def test_an_environment_that_nobody_described_gets_the_projects_own_runner() -> None:
    assert command_of_project(["flask"]) == command_of_project([]) == USUAL_COMMAND
    assert "troop_sympy" in OWN


def test_lines_are_recorded_whatever_starts_the_framework() -> None:
    assert line_records("/tmp/lines")["TROOP_LINES"] == "/tmp/lines"


def report(outcome: Outcome | None = None, output: str = "", exit_code: int = 0) -> TestReport:
    outcomes: dict[str, Outcome] = {} if outcome is None else {COMMAND_TEST: outcome}
    return TestReport(outcomes, exit_code, False, True, 1.0, output=output)


def test_a_new_file_counts_only_if_a_test_of_it_was_collected() -> None:
    labelled = runner_of("python tests/runtests.py")
    assert labelled.new_file(report("failed", "Ran 2 tests in 0.1s\n\nFAILED"), "tests/a.py") == "failed"
    assert labelled.new_file(report("passed", "\nRan 0 tests in 0.000s\n\nOK"), "tests/a.py") == "missing"
    assert labelled.new_file(report("failed", "no such option"), "tests/a.py") == "untold"
    assert runner_of("make test").new_file(report("failed"), "tests/a.py") == "untold"
    assert runner_of("make test").new_file(report(), "tests/a.py") == "untold"
    assert runner_of("pytest").new_file(report(), "tests/a.py") == "missing"
    loaded = TestReport({"tests/a.py": "error"}, 1, False, True, 1.0)
    assert runner_of("python -m unittest").new_file(loaded, "tests/a.py") == "error"


def test_a_dotted_name_stands_for_what_lies_below_it() -> None:
    assert selects("tests.test_a.A", "tests.test_a.A.test_x") and not selects("tests.test_a.A", "tests.test_a.AB.x")
    assert not selects("t.py::a", "t.py::a.b") and not selects("tests/a", "tests/a.py::x")
    found = TestReport({"tests.a.A.test_x": "failed"}, 1, False, True, 1.0)
    assert outcome_of(found, "tests.a.A") == "failed"
