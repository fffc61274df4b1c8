"""Repositories that several of these tests work on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.task import Task
from tests.support import calculator
from tests.support.cluster import Machines, machines
from tests.support.repositories import CALC, FAILING, git, make_repository, make_task


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A real Ray cluster of a head and one node."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with machines(tmp_path_factory.mktemp("nodes")) as found:
        found.add("one")
        yield found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The calculator, as the user has it."""
    return calculator.make_repository(tmp_path / "calculator")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The task of mending `mean` in CALC, with its failing test; the same commit every time, so one environment is
    enough."""
    place = make_repository(tmp_path_factory.mktemp("calc"), CALC, date="2024-02-02T00:00:00+0000")
    return make_task(place, failing=FAILING)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with two commits on `trunk`, a tag and a branch at the first."""
    top = tmp_path / "origin"
    top.mkdir()
    git(top, "init", "-q", "-b", "trunk")
    (top / "app.py").write_text("value = 1\n")
    (top / "pkg").mkdir()
    (top / "pkg/mod.py").write_text("x = 1\n")
    git(top, "add", "--all")
    git(top, "commit", "-q", "-m", "one", GIT_COMMITTER_DATE="2021-03-04T05:06:07+02:00")
    git(top, "tag", "-a", "v1.0", "-m", "release")
    (top / "app.py").write_text("value = 2\n")
    git(top, "commit", "-qam", "two")
    git(top, "branch", "feature/x", "HEAD~1")
    return top


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A cache of this test alone."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def sympy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with sympy in it."""
    place = tmp_path_factory.mktemp("sympy")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(place),
        "sympy==1.12",
        "mpmath<1.4",
    ]
    subprocess.run(command, check=True, timeout=300)
    return place
