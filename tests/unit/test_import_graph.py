"""Which file imports which: read from text, followed through what packages re-export, kept by commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness.code.import_graph import graph_of, import_graph


def imports(sources: Mapping[str, str], of: str) -> set[str]:
    return set(graph_of({path: text.encode() for path, text in sources.items()}).imports[of])


@pytest.mark.parametrize(
    "line",
    [
        "import pkg.beta",
        "import os, pkg.beta as b",
        "from pkg import beta",
        "from pkg import (alpha as a,  # why\n    beta)",
        "from pkg import alpha, \\\n    beta",
        "def f():\n    from pkg.beta import anything",
        "from pkg.beta import *",
        "try:\n    from .. import beta\nexcept ImportError:\n    beta = None",
        "from ..beta import x",
        "from pkg.beta import x; x()",
        "print 'old'\nfrom pkg.beta import x",
    ],
)
def test_every_way_to_import_a_module_is_seen(line: str) -> None:
    sources = {"pkg/__init__.py": "", "pkg/alpha.py": "", "pkg/beta.py": "x = 1\n", "pkg/sub/__init__.py": ""}
    assert "pkg/beta.py" in imports({**sources, "pkg/sub/user.py": line + "\n"}, "pkg/sub/user.py")


def test_a_mention_is_no_import() -> None:
    sources = {"pkg/beta.py": "", "a.py": "# import pkg.beta\nx = 'import pkg.beta'\nimport pkg.betamax\n"}
    assert imports(sources, "a.py") == set()


def test_a_name_is_followed_to_the_file_that_defines_it() -> None:
    sources = {
        "src/pkg/__init__.py": "from .core import *\nfrom .shapes import round as ring\n",
        "src/pkg/core/__init__.py": "from pkg.core.wheels import Wheel, spin\nVERSION: str = '1'\n",
        "src/pkg/core/wheels.py": "class Wheel: ...\ndef spin(): ...\n",
        "src/pkg/shapes.py": "round, square = 1, 2\n",
        "tests/test_a.py": "from pkg import Wheel\n",
        "tests/test_b.py": "from pkg import ring\n",
        "tests/test_c.py": "from pkg import VERSION, nothing\n",
    }
    assert imports(sources, "tests/test_a.py") == {"src/pkg/__init__.py", "src/pkg/core/wheels.py"}
    assert imports(sources, "tests/test_b.py") == {"src/pkg/__init__.py", "src/pkg/shapes.py"}
    assert imports(sources, "tests/test_c.py") == {"src/pkg/__init__.py", "src/pkg/core/__init__.py"}


def test_a_name_that_a_package_offers_goes_before_a_module_of_that_name() -> None:
    sources = {
        "pkg/__init__.py": "from pkg.tools import solve\n",
        "pkg/solve.py": "",
        "pkg/tools.py": "def solve(): ...\n",
        "a.py": "from pkg import solve\n",
    }
    assert imports(sources, "a.py") == {"pkg/__init__.py", "pkg/tools.py"}


def test_circles_end() -> None:
    sources = {
        "pkg/__init__.py": "from pkg.a import *\nfrom pkg.a import x\n",
        "pkg/a.py": "from pkg import *\nfrom pkg import x\n",
    }
    assert imports(sources, "pkg/a.py") == {"pkg/__init__.py"}
    assert imports(sources, "pkg/__init__.py") == {"pkg/a.py"}


def test_modules_beside_a_test_are_found_as_python_would_run_it() -> None:
    sources = {"tests/a/__init__.py": "", "tests/a/models.py": "", "tests/a/test_a.py": "from a.models import M\n"}
    assert imports(sources, "tests/a/test_a.py") == {"tests/a/models.py"}


def test_who_reaches_a_file_directly_and_through_one_other() -> None:
    graph = graph_of({"m.py": b"", "n.py": b"import m\n", "o.py": b"import n\n", "t.py": b"import m, n\n"})
    assert graph.reaching("m.py", ["o.py", "t.py"]) == (frozenset({"t.py"}), frozenset({"o.py"}))
    assert graph.reaching("gone.py", ["o.py", "t.py"]) == (frozenset(), frozenset())


def test_a_graph_is_made_once_for_a_commit(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def read_all(paths: Sequence[str]) -> dict[str, bytes]:
        asked.append(list(paths))
        return {"a.py": b"import b\n", "b.py": b""}

    made = import_graph("c0ffee", ["a.py", "b.py", "README"], read_all, tmp_path)
    assert import_graph("c0ffee", ["a.py", "b.py", "README"], read_all, tmp_path) == made
    assert made.imports == {"a.py": {"b.py"}, "b.py": frozenset()}
    assert asked == [["a.py", "b.py"]], "read once, and no more than Python"
    import_graph("decaf", ["a.py"], read_all, tmp_path)
    assert len(asked) == 2
