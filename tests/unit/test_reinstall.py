"""Which patches could make a repeated installation matter."""

from __future__ import annotations

import pytest

from harness.swebench.reinstall import installs_in_place, why_install


def change(path: str, line: str = "x = 1") -> str:
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-y\n+{line}\n"


def new(path: str) -> str:
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+y\n"


@pytest.mark.parametrize(
    "patch",
    [
        *map(change, ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "sub/meson.build", "environment.yml")),
        *map(change, ("a/_speed.pyx", "a/fast.c", "a/fast.h", "a/lib.f90", "src/grammar.y", "requirements.txt")),
        *map(change, ("requirements/dev.txt", "sympy/release.py", "pkg/_version.py", "VERSION.txt")),
        *map(new, ("pkg/__init__.py", "src/pkg/__init__.py")),
        change("pkg/__init__.py", "__version__ = '2'"),
        new("helper.py") + change("pkg/core.py", "from helper import f"),
        new("src/helper.py") + change("pkg/core.py", "import os, helper"),
        "diff --git a/pkg/a.py b/setup.cfg\nsimilarity index 100%\nrename from pkg/a.py\nrename to setup.cfg\n",
        "--- setup.py\t2020-01-01\n+++ setup.py\t2020-01-02\n@@ -1 +1 @@\n-y\n+x\n",
        "Index: setup.py\n",
        '--- "a/setup.py"\n+++ "b/setup.py"\n@@ -1 +1 @@\n-y\n+x\n',
        "diff --git a/lib/old.py b/lib/new.py\nsimilarity index 90%\nrename from pkg/old.py\nrename to lib/new.py\n"
        + change("pkg/a.py", "import new"),
    ],
)
def test_what_an_installation_reads_makes_it_matter(patch: str) -> None:
    assert why_install(change("pkg/core.py") + patch)


@pytest.mark.parametrize(
    "patch",
    [
        "",
        "no patch at all",
        change("sympy/core/expr.py"),
        change("pkg/__init__.py", "from pkg import core"),
        change("pkg/a/b/c/__init__.py", "version = 3"),
        change("tests/test_it.py", "assert pkg.__version__"),
        new("pkg/a/b/new.py"),
        new("tests/functional/deep/__init__.py"),
        new("reproduce.txt"),
        new("reproduce.py") + change("pkg/core.py", "reproduce = 1"),
        change("pkg/core.py") + new("doc/setup.rst"),
    ],
)
def test_ordinary_changes_do_not(patch: str) -> None:
    assert why_install(patch) == ""


def test_the_reason_names_the_path() -> None:
    assert why_install(change("pkg/a.py") + change("setup.cfg")) == "setup.cfg says how to build or install"


@pytest.mark.parametrize(
    "command", ["python -m pip install -e .", "pip install --editable=.[test]", "python setup.py develop"]
)
def test_commands_that_install_in_place(command: str) -> None:
    assert installs_in_place(command)


@pytest.mark.parametrize(
    "command", ["python -m pip install .", "python setup.py install", "pip install x-extension", ""]
)
def test_commands_that_copy(command: str) -> None:
    assert not installs_in_place(command)
