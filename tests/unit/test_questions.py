"""What a judge is shown of runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from agent.choice.case import Known
from agent.choice.hands import _Bench
from agent.choice.questions import steps_in_words, told_in_words
from harness.choosing.probing import Seen
from harness.records import Told


def shown(*steps: Seen, sources: tuple[str, ...] = ("so.Plot(x)",)) -> str:
    case: Any = SimpleNamespace(known=Known(steps={"": {"p": steps}}, sources={"p": sources}))
    return steps_in_words(case, "")


def test_code_of_the_issue_that_lacks_a_name_of_its_own_says_nothing_and_is_left_out() -> None:
    assert shown(Seen("", "NameError", "name 'so' is not defined")) == ""
    assert "name 'inner'" in shown(Seen("", "NameError", "name 'inner' is not defined")), "that is the project's"
    kept = shown(Seen("3"), Seen("", "NameError", "name 'y' is not defined"), sources=("f(1)", "y"))
    assert kept == ">>> f(1)\n3\n>>> y\nNameError: name 'y' is not defined"


def test_of_candidates_that_are_not_to_be_ordered_only_the_outcome_is_told() -> None:
    import asyncio

    told = [Told(on, "failed", {"t": "failed"}, f"Traceback of {on}") for on in ("base", "c1", "c3")]
    tested = SimpleNamespace(
        path="tests/test_j.py", useless="", told=[*told, Told("c2", "passed", {"t": "passed"}, "")]
    )

    async def tried(*_: object) -> Any:
        return tested

    hearing = SimpleNamespace(tests={}, tried=tried)
    bench = SimpleNamespace(
        trees={"base": "", "c1": "x", "c2": "x"},
        hearing=hearing,
        ground=SimpleNamespace(tree=SimpleNamespace(read=lambda p: None)),
    )
    arguments = {"path": "tests/test_j.py", "content": "def test_it():\n    assert f() == 1\n"}
    said = asyncio.run(_Bench._try(cast("Any", bench), cast("Any", None), arguments)).text
    assert "Traceback of base" in said and "Traceback of c1" in said and "c2: passes (1 of 1 pass)" in said
    assert "Traceback of c3" not in said and "not yours to order: c3: fails (0 of 1 pass))" in said


def test_a_test_that_is_skipped_is_told_so() -> None:
    assert told_in_words(Told("c1", "error", {"a::t": "skipped"})) == "is skipped (0 of 1 pass)"
    assert told_in_words(Told("c1", "unsteady")) == "does not do the same twice"
    assert told_in_words(Told("c1", "error")) == "cannot be loaded"
