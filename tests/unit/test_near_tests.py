"""What sympy's own runner prints, and which packages a repository holds."""

from __future__ import annotations

from harness.choosing.evidence_store import Base
from harness.choosing.gather import import_names, tells
from harness.choosing.near_tests import sympy_outcomes
from harness.choosing.probe_facts import Seen

OUTPUT = """============================= test process starts ==============================
sympy/core/tests/test_power.py[4]
test_rational ok
test_large_rational F
test_negative_real E
test_expand f
                                                                          [FAIL]
sympy/core/tests/test_numbers.py[2]
test_rational ok
test_slow s                                                                 [OK]
________________________________________________________________________________
"""


def test_outcomes_are_told_by_file_and_test() -> None:
    assert sympy_outcomes(OUTPUT) == {
        "sympy/core/tests/test_power.py::test_rational": "passed",
        "sympy/core/tests/test_power.py::test_large_rational": "failed",
        "sympy/core/tests/test_power.py::test_negative_real": "error",
        "sympy/core/tests/test_numbers.py::test_rational": "passed",
    }


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
