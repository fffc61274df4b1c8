"""Small real git repositories for tests, and the way from one to a frozen environment."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.cache import cache_root
from harness.repository.workspace import Workspace, open_workspace
from tasks.task import Environment, GivenTest, Repository, Task

CALC = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "calc"
version = "1.0"
requires-python = ">=3.8"

[tool.setuptools]
packages = ["calc"]
""",
    "calc/__init__.py": "from calc.core import add, mean\n",
    "calc/core.py": """\
def add(a, b):
    return a + b


def mean(values):
    return sum(values) / (len(values) + 1)
""",
    "tests/test_core.py": """\
from calc import add, mean


def test_add():
    assert add(1, 2) == 3


def test_mean_of_nothing():
    assert mean([0, 0]) == 0
""",
}
"""A package with a bug: `mean` divides by one too many."""

FIX = """\
diff --git a/calc/core.py b/calc/core.py
--- a/calc/core.py
+++ b/calc/core.py
@@ -5,2 +5,2 @@
 def mean(values):
-    return sum(values) / (len(values) + 1)
+    return sum(values) / len(values)
"""

FAILING = GivenTest(
    ids=("tests/test_issue.py::test_mean",),
    files=(("tests/test_issue.py", "from calc import mean\n\n\ndef test_mean():\n    assert mean([2, 4]) == 3\n"),),
)


def git(place: Path, *arguments: str | bytes, **variables: str) -> str:
    """What git says in `place`, without white space around it; a person with a name asks, whose settings are git's
    own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=place, env=environment | who | plain | variables, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def make_repository(place: Path, files: Mapping[str, str], *, date: str | None = None) -> Path:
    """A git repository with one commit of `files`, made at `date` (ISO 8601; None: now)."""
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text, encoding="utf-8")
    when = {} if date is None else {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    git(place, "init", "-q", "-b", "main")
    git(place, "add", "-A", "-f")
    git(place, "commit", "-q", "-m", "base", **when)
    return place


def make_task(
    repository: Path,
    *,
    failing: GivenTest | None = None,
    command: str | None = None,
    setup: tuple[str, ...] = (),
    name: str = "example",
) -> Task:
    return Task(
        id=name,
        repository=Repository("path", str(repository)),
        statement="Something is wrong.",
        environment=Environment(setup=setup),
        test_command=command,
        failing_test=failing,
    )


def workspace_of(task: Task) -> Workspace:
    return open_workspace(task.repository, cache_root())


async def opened(task: Task) -> Workspace:
    return await asyncio.to_thread(workspace_of, task)
