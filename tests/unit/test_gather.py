"""Which packages a repository holds, and which probes could tell anything."""

from __future__ import annotations

from harness.choosing.found import Base
from harness.choosing.gather import import_names, tells
from harness.choosing.probing import Seen


def test_packages_are_found_with_and_without_a_source_directory() -> None:
    assert import_names(["sympy/__init__.py", "sympy/core/__init__.py", "sympy/core/a.py", "bin/x.py", "setup.py"]) == (
        "sympy",
    )
    assert import_names(["src/flask/__init__.py", "src/flask/app.py", "tests/__init__.py", "tests/test_a.py"]) == (
        "flask",
    )


def test_probes_tell_nothing_where_every_step_wants_a_name_that_the_patch_does_not_define_either() -> None:
    base = Base(probes={"session": (Seen("", "NameError", "name 'expr' is not defined"),)})
    assert not tells(base, "+    return expr\n")
    assert tells(base, "+def expr():\n")
    assert tells(Base(probes={"session": (Seen("1"),)}), "")
    assert not tells(Base(probes={}), "")
