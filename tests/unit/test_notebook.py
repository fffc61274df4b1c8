"""The notebook: what an attempt knows is the fold of its events, however often it was stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.attempt.audit import leak_tries
from agent.attempt.notebook import Notebook
from agent.attempt.policy import Decision, ToolCall, TurnRecord
from agent.attempt.tools import TOOLS, kind_of
from harness import trace
from harness.records import Evidence, FileState, Tree, WitnessTest


def turn(number: int, *calls: tuple[str, dict[str, object]], files: tuple[FileState, ...] = ()) -> list[trace.Event]:
    made = [(f"{number}-{n}", name, arguments) for n, (name, arguments) in enumerate(calls)]
    asked = tuple({"id": id, "name": name, "arguments": arguments} for id, name, arguments in made)
    events: list[trace.Event] = [trace.Decided(attempt=0, turn=number, text="", calls=asked)]
    events += [trace.ToolRan(attempt=0, turn=number, call=id, name=name, result="done") for id, name, _ in made]
    if files:
        events.append(trace.TreeChanged(attempt=0, turn=number, tree=Tree(files)))
    return [*events, trace.TurnEnded(attempt=0, turn=number, seconds=0.1)]


def edit(path: str) -> tuple[str, dict[str, object]]:
    return "edit", {"path": path, "old": "a", "new": "b"}


def test_a_turn_that_has_not_ended_does_not_count() -> None:
    events = turn(1, edit("a.py"), files=(FileState("a.py", b"1"),))
    cut = turn(2, edit("a.py"), files=(FileState("a.py", b"2"),))[:-1]
    notebook = Notebook.of(0, [*events, *cut])
    assert len(notebook.history) == 1
    assert notebook.tree["a.py"].data == b"1"
    # The turn is done again after a resume, and only then counts, once.
    for event in turn(2, edit("a.py"), files=(FileState("a.py", b"3"),)):
        notebook.add(event)
    assert len(notebook.history) == 2 and notebook.tree["a.py"].data == b"3"


def test_a_witness_that_is_recorded_again_takes_the_place_of_the_first_at_once() -> None:
    def written(text: str) -> trace.Event:
        return trace.WitnessRecorded(attempt=0, turn=1, witness=WitnessTest(0, "test_x.py", text))

    notebook = Notebook.of(0, [*turn(1)[:-1], written("wrong"), written("right")])
    assert [witness.text for witness in notebook.recorded] == ["right"], "within one turn"
    for event in [turn(1)[-1], *turn(2)[:-1], written("better")]:
        notebook.add(event)
    assert [witness.text for witness in notebook.recorded] == ["better"]


def test_events_of_other_attempts_are_passed_over() -> None:
    others = [trace.Decided(attempt=1, turn=1, text=""), trace.TurnEnded(attempt=1, turn=1, seconds=0.1)]
    assert Notebook.of(0, others).history == []


def test_undo_after_a_resume_is_the_content_before_the_last_edits() -> None:
    first = turn(1, edit("a.py"), files=(FileState("a.py", b"one"),))
    second = turn(2, edit("a.py"), files=(FileState("a.py", b"two"),))
    assert Notebook.of(0, first).undo() == {"a.py": "base"}
    assert Notebook.of(0, [*first, *second]).undo() == {"a.py": b"one"}


def test_undo_and_edit_in_one_turn_leave_the_base_as_what_undo_gives_back() -> None:
    first = turn(1, edit("a.py"), files=(FileState("a.py", b"one"),))
    second = turn(2, ("undo", {}), edit("a.py"), files=(FileState("a.py", b"two"),))
    assert Notebook.of(0, [*first, *second]).undo() == {"a.py": "base"}


def test_undo_after_a_resume_knows_a_file_by_whichever_path_it_was_edited() -> None:
    first = turn(1, edit("./a.py"), files=(FileState("a.py", b"one"),))
    second = turn(2, edit("/testbed/sub/../a.py"), files=(FileState("a.py", b"two"),))
    assert Notebook.of(0, first).undo() == {"a.py": "base"}
    assert Notebook.of(0, [*first, *second]).undo() == {"a.py": b"one"}


def test_undo_after_a_resume_holds_what_a_command_has_removed() -> None:
    first = turn(1, edit("a.py"), files=(FileState("a.py", b"one"),))
    second = turn(2, edit("a.py"), files=(FileState("a.py", b"two"),))
    third = turn(3, ("run", {"command": "rm a.py"}), files=(FileState("a.py", None),))
    assert Notebook.of(0, [*first, *second, *third]).undo() == {"a.py": b"one"}


def test_a_tool_is_one_entry_and_its_kind_says_what_becomes_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    first = turn(1, ("rewrite", {"path": "a.py"}), files=(FileState("a.py", b"one"),))
    assert kind_of("rewrite") == "runs" and Notebook.of(0, first).undo() == {}, "a tool of another version"
    monkeypatch.setitem(TOOLS, "rewrite", replace(TOOLS["create"], name="rewrite"))
    monkeypatch.setitem(TOOLS, "shell", replace(TOOLS["run"], name="shell"))
    assert Notebook.of(0, first).undo() == {"a.py": "base"}
    asked = [TurnRecord(1, Decision("", (ToolCall("1", "shell", {"command": "git fetch origin"}),)), ())]
    assert leak_tries(asked) == ("leak:remote",)


def test_a_tree_that_returns_to_a_former_state_has_its_mark_again() -> None:
    states = [turn(n, edit("a.py"), files=(FileState("a.py", text),)) for n, text in enumerate((b"1", b"2", b"1"), 1)]
    marks = Notebook.of(0, [e for t in states for e in t]).marks
    assert marks[0] == marks[2] != marks[1]


def commands(*lines: str) -> list[TurnRecord]:
    calls = tuple(ToolCall(str(n), "run", {"command": line}) for n, line in enumerate(lines))
    return [TurnRecord(1, Decision("", calls), ())]


def test_tries_to_reach_the_future_are_flagged_and_ordinary_work_is_not() -> None:
    assert leak_tries(commands("git log --all --oneline")) == ("leak:history",)
    assert leak_tries(commands("cd x && git fetch origin")) == ("leak:remote",)
    assert leak_tries(commands("pip download requests==2.0", "curl -s example.org")) == ("leak:download",)
    ordinary = ("git log -3", "git diff", "git status", "pip install -e .", "grep -rn fetch .", "python -m pytest -q")
    assert leak_tries(commands(*ordinary)) == ()


def ended(status: str) -> trace.AttemptEnded:
    return trace.AttemptEnded(attempt=0, status=status, patch="")


def test_only_sandboxes_that_died_use_up_their_allowance() -> None:
    kinds = ("model", "sandbox", "model")
    failures = [trace.InfrastructureFailed(attempt=0, what=what, detail="", retried=True) for what in kinds]
    assert Notebook.of(0, failures).failures == 1


def test_the_time_of_an_attempt_is_that_of_its_work_and_not_of_the_night_between() -> None:
    work = [trace.Planned(attempt=0, text="", seconds=2.0, at=10.0), *turn(1, edit("a.py"))]
    later = [trace.RunResumed(at=90_000.0), *turn(2, edit("a.py"))]
    assert round(Notebook.of(0, [*work, *later]).seconds, 3) == 2.2


def test_a_resume_reopens_what_the_world_ended_and_nothing_else() -> None:
    resumed = trace.RunResumed()
    assert Notebook.of(0, [ended("infrastructure")]).ended is not None
    assert Notebook.of(0, [ended("infrastructure"), resumed]).ended is None
    assert Notebook.of(0, [ended("submitted"), resumed]).ended is not None
    verified = trace.Verified(candidate="c1", attempts=(1,), key="k", evidence=Evidence(applies=True, valid=True))
    assert Notebook.of(0, [ended("infrastructure"), verified, resumed]).ended is not None
