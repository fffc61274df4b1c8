"""A small project with a bug, the same commit every time, so that its environment is set up once per test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.config import Settings
from harness.records import Budget
from tasks.task import GivenTest, Repository, Task
from tests.support import repositories
from tests.support.model_server import Answer

STATEMENT = "total([1, 2]) gives 2 where 3 is expected: the first value is left out.\n"

FILES = {
    "calc.py": '''"""Sums."""


def total(values):
    result = 0
    for value in values[1:]:
        result += value
    return result


def largest(values):
    return max(values)
''',
    "tests/test_calc.py": """from calc import largest, total


def test_largest():
    assert largest([1, 3, 2]) == 3


def test_total_of_nothing():
    assert total([]) == 0
""",
    "pyproject.toml": """[project]
name = "calculator"
version = "0.1"

[tool.setuptools]
py-modules = ["calc"]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
""",
}

WITNESS = "from calc import total\n\n\ndef test_first_counts():\n    assert total([1, 2]) == 3\n"


def make_repository(directory: Path) -> Path:
    """The project as a git repository with one commit, whose id never changes."""
    return repositories.make_repository(directory, FILES, date="2026-01-01T00:00:00Z")


def task(repository: Path, *, failing_test: bool = False) -> Task:
    """The task of mending `total`; with `failing_test` a visible test comes with it."""
    given = GivenTest(("tests/test_issue.py::test_first_counts",), (("tests/test_issue.py", WITNESS),))
    return Task(
        "calculator", Repository("path", str(repository)), STATEMENT, failing_test=given if failing_test else None
    )


def settings(url: str, out: Path, *, attempts: int = 1, turns: int = 10, **more: Any) -> Settings:
    """Settings for a scripted model at `url`, in bubblewrap unless said otherwise."""
    budget = more.pop("budget", Budget(attempts=attempts, turns=turns))
    models = more.pop("models", (f"{url}#scripted",))
    fields: dict[str, Any] = {"sandbox": "bubblewrap", "base_runs": 1, **more}
    return Settings(budget=budget, models=models, out=out, **fields)


def call(name: str, **arguments: object) -> Answer:
    """A model's answer that calls one tool."""
    return Answer(tool_calls=[{"name": name, "arguments": arguments}])


PLAN = Answer(text="total skips the first value; look at its loop.")
RIGHT = call("edit", path="calc.py", old="values[1:]", new="values")
WRONG = call("edit", path="calc.py", old="    result = 0\n", new="    result = values[0]\n")
SUBMIT = call("submit")
SOLVING = [
    PLAN,
    call("read", path="calc.py"),
    call("witness", path="tests/test_w.py", content=WITNESS),
    RIGHT,
    call("test"),
    SUBMIT,
]
"""Plan, then five turns."""
