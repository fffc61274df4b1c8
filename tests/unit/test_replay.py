"""Watching an attempt again: which frames a trace makes, how they look, and what the keys do on a real terminal."""

from __future__ import annotations

import io
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from harness import trace
from harness.records import Charge, Evidence, Ranked, Selection, TestReport, Usage
from harness.views.replay import play
from harness.views.replay_frames import FOLD, Frame, default_attempt, frames, render, steps
from harness.views.words import clean
from tests.support.terminal import Terminal

DIFF = "--- a/spoon.py\n+++ b/spoon.py\n@@ -1 +1 @@\n-bent = True\n+bent = False\n"
BASE = TestReport({"t.py::old": "passed", "t.py::issue": "failed"}, 1, False, True, 0.5)
AFTER = TestReport(
    {"t.py::old": "failed", "t.py::issue": "passed"}, 1, False, True, 1.5, failures={"t.py::old": "assert 1 == 2\nmore"}
)


def charge(usd: float | None) -> Charge:
    return Charge(2, "act", "m", Usage(input=1000, output=234), usd, "alias" if usd else "unknown", 1.0)


def events(*more: trace.Event) -> list[trace.Event]:
    """A run with attempts 1 and 2, of which the second edits, tests and submits; one event a second."""
    call = {"id": "c1", "name": "edit", "arguments": {"path": "spoon.py", "old": "a", "new": "b"}}
    shell = {"id": "c2", "name": "run", "arguments": {"command": "python -c 'print(1)' | cat"}}
    test = {"id": "c3", "name": "test", "arguments": {"ids": ["t.py::issue"]}}
    listed: list[trace.Event] = [
        trace.RunStarted(run="r", task={"id": "spoon-1", "statement": "# It bends\n\nBadly."}, settings={}),
        trace.Prepared(base_commit="a" * 40, environment="e", backend="docker", baseline=BASE),
        trace.AttemptStarted(attempt=1, seed=5, model="other"),
        trace.AttemptStarted(attempt=2, seed=6, model="lab/m", sampling={"temperature": 0.5}),
        trace.Decided(attempt=1, turn=1, text="Not to be seen."),
        trace.Planned(attempt=2, text="Unbend it.", seconds=0.7),
        trace.Replied(attempt=2, key="2/1", message={}, charge=charge(0.25)),
        trace.Decided(attempt=2, turn=1, text="Here I go.", calls=(call, shell, test)),
        trace.ToolRan(attempt=2, turn=1, call="c1", name="edit", result="Edited", diff=DIFF, seconds=0.1),
        trace.ToolRan(attempt=2, turn=1, call="c2", name="run", result="one\n(exit code 0)", seconds=0.2),
        trace.TestsRan(attempt=2, turn=1, report=AFTER, selection=("t.py::issue",)),
        trace.ToolRan(attempt=2, turn=1, call="c3", name="test", result="told twice", seconds=1.5),
        trace.TurnEnded(attempt=2, turn=1, seconds=3.5, model_seconds=1.0, command_seconds=2.0),
        trace.AttemptEnded(attempt=2, status="submitted", patch=f"diff --git a/spoon.py b/spoon.py\n{DIFF}", turns=1),
        *more,
    ]
    return [replace(event, at=1000.0 + number) for number, event in enumerate(listed)]


def text(frame: Frame, width: int = 80) -> str:
    console = Console(width=width, color_system=None, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        console.print(render(frame))
    return re.sub(r" +$", "", captured.get(), flags=re.MULTILINE)


def one(event: trace.Event, **fields: object) -> str:
    """How an event looks as the last of the attempt."""
    listed = [*events()[:4], replace(event, attempt=2)]
    return text(frames(listed, 2)[-1])


VERIFIED = trace.Verified(
    candidate="c1", attempts=(2, 4), key="k", evidence=Evidence(True, True, {"t.py::old": "failed"}, {"w": "passed"})
)
SELECTED = trace.Selected(
    selection=Selection("c1", "witness", 0.8, (Ranked("c1", True, "x"),), "It passes the witness.")
)


# Which frames there are


def test_an_attempt_is_shown_from_its_start_to_its_end_and_no_other_attempt_is() -> None:
    shown = frames(events(), 2)
    assert [frame.event.kind for frame in shown] == [
        "attempt-started",
        "planned",
        "decided",
        "tool-ran",
        "tool-ran",
        "tests-ran",
        "turn-ended",
        "attempt-ended",
    ]
    everything = "".join(map(text, shown))
    assert "Not to be seen" not in everything
    assert "told twice" not in everything


def test_the_verdict_on_the_attempts_patch_comes_last() -> None:
    of_another = replace(VERIFIED, candidate="c2", attempts=(1,))
    graded = trace.Graded(candidate="c1", resolved=False, reason="1 of 2 pass")
    shown = frames(events(of_another, VERIFIED, SELECTED, graded), 2)
    assert [frame.event.kind for frame in shown[-3:]] == ["verified", "selected", "graded"]
    said = "".join(text(frame) for frame in shown[-3:])
    assert "verified as c1" in said and "breaks 1 test, 1/1 witness tests pass" in said and "broken  t.py::old" in said
    assert "selected c1" in said and "It passes the witness." in said
    assert "fails the hidden tests" in said and "1 of 2 pass" in said


LOSER = trace.Verified(
    candidate="c2",
    attempts=(2,),
    key="k",
    evidence=Evidence(True, True, {"t.py::old": "failed"}, said={"t.py::old": "t.py:3: assert 1 == 2"}),
)


@pytest.mark.parametrize(
    ("own", "ranked", "told"),
    [
        (VERIFIED, Ranked("c1", True, "x"), ["it won: selected c1", "It passes the witness."]),
        (LOSER, Ranked("c2", False, "breaks t.py::old"), ["it lost", "c2: breaks t.py::old", "t.py:3: assert 1 == 2"]),
        (LOSER, Ranked("c2", True, "x"), ["it lost", "c2: passes fewer of the tests that attempts wrote"]),
        (replace(LOSER, attempts=(1,)), Ranked("c2", True, "x"), ["it lost", "no patch that could be verified"]),
    ],
)
def test_it_ends_with_why_the_attempt_won_or_lost(own: trace.Verified, ranked: Ranked, told: list[str]) -> None:
    chosen = replace(SELECTED, selection=replace(SELECTED.selection, ranking=(Ranked("c1", True, "x"), ranked)))
    said = " ".join(text(frames(events(own, chosen), 2)[-1]).split())
    assert all(part in said for part in told), said
    assert ("assert 1 == 2" in said) == (own is LOSER)


def test_two_attempts_stand_beside_each_other_turn_by_turn_and_end_together() -> None:
    more = trace.TurnEnded(attempt=1, turn=2, seconds=1.0)
    ended = trace.AttemptEnded(attempt=1, status="turn-limit", patch="", turns=2)
    kinds = [[[f.event.kind for f in side] for side in step] for step in steps(events(more, ended), 1, beside=2)]
    assert kinds[0] == [["attempt-started"], ["attempt-started", "planned"]]
    assert [len(left) for left, _ in kinds] == [1, 1, 1, 1] and [len(right) for _, right in kinds] == [2, 5, 0, 1]
    assert kinds[-1] == [["attempt-ended"], ["attempt-ended"]]
    assert [len(step) for step in steps(events(), 2)] == [1] * 8


def test_without_a_wish_the_selected_patchs_first_attempt_is_shown() -> None:
    assert default_attempt(events(VERIFIED, SELECTED)) == 2
    assert default_attempt(events(VERIFIED)) == 1
    nothing = replace(SELECTED, selection=replace(SELECTED.selection, candidate=None))
    assert default_attempt(events(VERIFIED, nothing)) == 1


def test_waits_are_those_between_the_attempts_own_events() -> None:
    shown = frames(events(), 2)
    assert [frame.wait for frame in shown[:4]] == [0.0, 2.0, 2.0, 1.0]
    assert [frame.clock for frame in shown[:4]] == [0.0, 2.0, 4.0, 5.0]


def test_the_time_between_a_stop_and_a_resume_is_no_wait() -> None:
    listed = events()
    cut = next(i for i, e in enumerate(listed) if e.kind == "tests-ran")
    late = [replace(e, at=e.at + 90_000) for e in listed[cut:]]
    resumed = trace.RunResumed(at=late[0].at - 0.5)
    shown = frames([*listed[:cut], resumed, *late], 2)
    assert next(f for f in shown if f.event.kind == "tests-ran").wait == 0.5
    assert shown[-1].clock < 20


# How a frame looks


def test_the_first_frame_names_the_task_the_model_and_the_seed() -> None:
    said = text(frames(events(), 2)[0])
    for part in ("attempt 2", "lab/m", "seed 6", "temperature 0.5", "spoon-1", "It bends"):
        assert part in said


def test_a_command_is_shown_with_its_output_and_an_edit_as_a_diff() -> None:
    _, _, _, edit, run, *_ = map(text, frames(events(), 2))
    assert "edit  spoon.py  0.1 s" in edit and "-bent = True" in edit and "+bent = False" in edit
    assert "Edited" not in edit
    assert "run  0.2 s" in run and "python -c 'print(1)' | cat" in run and "(exit code 0)" in run


def test_a_test_run_tells_what_it_fixed_and_what_it_broke() -> None:
    said = text(frames(events(), 2)[5])
    assert "t.py::issue" in said and "1.5 s" in said
    assert "1 passed" in said and "1 failed" in said
    assert re.search(r"fixed +t\.py::issue", said)
    assert re.search(r"broken +t\.py::old\n +assert 1 == 2\n", said)
    assert "more" not in said


def test_a_test_run_that_says_nothing_says_why() -> None:
    report = TestReport({}, 4, True, False, 9.0, reason="no report was written")
    said = one(trace.TestsRan(turn=1, report=report))
    assert "the whole suite" in said and "no report was written" in said and "time limit" in said


def test_many_failing_tests_are_counted_after_the_first_few() -> None:
    report = TestReport({f"t.py::t{n:02}": "failed" for n in range(30)}, 1, False, True, 1.0)
    said = one(trace.TestsRan(turn=1, report=report))
    assert "t.py::t07" in said and "t.py::t08" not in said
    assert "22 more tests" in said


def test_a_turn_tells_its_time_and_what_the_attempt_has_cost_so_far() -> None:
    said = text(frames(events(), 2)[6])
    assert "turn 1: 3.5 s" in said and "model 1.0, commands 2.0" in said
    assert "1,234 tokens, $0.2500" in said


def test_an_unknown_price_is_never_shown_as_nothing() -> None:
    ended = trace.TurnEnded(attempt=2, turn=2, seconds=1)
    unknown = trace.Charged(attempt=2, key="2/2", charge=charge(None))
    assert "≥$0.2500" in " ".join(text(frames([*events(), unknown, ended], 2)[-1]).split())
    assert "tokens, ?" in text(frames([*events()[:4], unknown, ended], 2)[-1])


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        (trace.Decided(turn=3, text="", error="no JSON"), ["turn 3", "malformed reply: no JSON"]),
        (trace.InfrastructureFailed(what="sandbox", detail="it died", retried=True), ["sandbox", "it died", "again"]),
        (trace.AttemptEnded(status="stuck", patch="", turns=1), ["went in circles", "1 turn  ", "no change"]),
        (trace.AttemptEnded(status="budget", patch=DIFF, flags=("edits-tests",)), ["0 turns", "flags: edits-tests"]),
        (trace.Planned(text="No test.", stop="no-failing-test"), ["plan", "ends here: no-failing-test"]),
        (trace.ToolRan(turn=1, call="?", name="read", result="There is no file x.", ok=False), ["read", "no file x."]),
    ],
)
def test_what_else_can_happen_is_shown(event: trace.Event, parts: list[str]) -> None:
    said = one(event)
    for part in parts:
        assert part in said


def test_a_tool_is_shown_by_what_it_was_given_whatever_its_name() -> None:
    given = {"a": {"command": "make all"}, "b": {"pattern": "x+y", "path": "pkg"}, "c": {"path": "a.py"}}
    calls = tuple({"id": name, "name": f"new-{name}", "arguments": given[name]} for name in given)
    ran = [trace.ToolRan(attempt=2, turn=1, call=name, name=f"new-{name}", result="42 = 42") for name in given]
    shown = [text(frame) for frame in frames([trace.Decided(attempt=2, turn=1, text="", calls=calls), *ran], 2)]
    assert [part in said for part, said in zip(("make all", "in pkg", "a.py"), shown, strict=True)] == [True] * 3
    assert "x+y" in shown[1] and all("42 = 42" in said for said in shown)


def test_long_outputs_are_folded_and_say_how_much_is_hidden() -> None:
    said = one(trace.ToolRan(turn=1, call="c", name="run", result="\n".join(f"line {n}" for n in range(1000))))
    assert f"… {1000 - FOLD} lines" in said
    assert "line 0\n" in said and "line 999\n" in said and "line 500\n" not in said
    assert len(said.splitlines()) < FOLD + 5


def test_every_frame_fits_80_columns() -> None:
    wide = trace.ToolRan(turn=1, call="c", name="run", result="x" * 500 + " " + "漢字" * 100)
    many = trace.TestsRan(turn=1, report=AFTER, selection=tuple(f"tests/test_{n}.py" for n in range(40)))
    shown = [
        *frames(events(VERIFIED, SELECTED), 2),
        *frames([*events()[:4], *(replace(e, attempt=2) for e in (wide, many))], 2),
    ]
    console = Console(width=80, color_system=None)
    for frame in shown:
        for line in console.render_lines(render(frame), pad=False):
            assert sum(segment.cell_length for segment in line) <= 80


def test_what_an_attempt_printed_cannot_command_the_terminal() -> None:
    evil = "a\x1b[2Jb\x1b]0;title\x07c\x1bPq\x1b\\d\x9b31me\x08\x00f\rg\u202eh\udcffi\tj"
    assert re.fullmatch(r"[a-zA-Z0-9�\n ]+", clean(evil))
    said = one(trace.ToolRan(turn=1, call="c", name=evil, result=evil, diff=evil))
    assert "\x1b" not in said and "\x9b" not in said
    said.encode("utf-8")


def test_brackets_are_text_and_not_markup() -> None:
    said = one(trace.ToolRan(turn=1, call="c", name="run", result="[bold]x[/bold] [link=http://a]y"))
    assert "[bold]x[/bold] [link=http://a]y" in said


# Printing and exporting


def test_without_a_terminal_everything_is_printed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    play(Console(width=80, highlight=False), partial(steps, events()), [1, 2], 2, speed=0.001, step=False)
    assert time.monotonic() - began < 2
    out = capsys.readouterr().out
    assert "attempt 2" in out and "+bent = False" in out and "finished" in out
    assert "\x1b" not in out


# A real terminal

PLAYER = """
import sys
from functools import partial
from pathlib import Path
from rich.console import Console
from harness import trace
from harness.views.replay import play
from harness.views.replay_frames import steps
events = list(trace.read(Path(sys.argv[1])))
play(Console(highlight=False), partial(steps, events), [1, 2], 2, speed=float(sys.argv[2]), step=bool(sys.argv[3]))
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts replays of the run above, and of `more` events, on pseudo terminals."""
    started: list[Terminal] = []

    def start(speed: float = 1.0, *more: trace.Event, step: bool = False) -> Terminal:
        file = tmp_path / "trace.jsonl"
        written = trace.Trace(file)
        for event in events(*more):
            written.write(event)
        written.close()
        seconds = iter(range(1000, 2000, 2))
        file.write_text(re.sub(r'"at":[0-9.]+', lambda _: f'"at":{next(seconds)}', file.read_text()))
        started.append(Terminal([sys.executable, "-c", PLAYER, str(file), str(speed), "1" if step else ""]))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_the_replay_plays_by_itself_to_the_end_and_waits_there(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(200.0)
    screen.expect("8/8")
    screen.press(b"q")
    assert screen.finished() == 0
    assert screen.restored()


def test_step_by_step_each_key_shows_the_next_frame_and_the_arrows_go_both_ways(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal(step=True)
    screen.expect("1/8  paused")
    screen.press(b" ")
    screen.expect("2/8  paused")
    screen.press(b"\x1b[C\x1bOC")
    screen.expect("4/8  paused")
    screen.press(b"\x1b[D")
    screen.expect("3/8  paused")
    screen.press(b"q")
    assert screen.finished() == 0
    assert screen.restored()


def test_space_pauses_and_goes_on(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(0.05)
    screen.expect("1/8  playing")
    screen.press(b" ")
    screen.expect("1/8  paused")
    screen.press(b" ")
    screen.expect("1/8  playing")
    screen.press(b"q")
    assert screen.finished() == 0


def test_a_frame_that_is_longer_than_the_screen_begins_at_its_top_and_can_be_scrolled(
    terminal: Callable[..., Terminal],
) -> None:
    patch = "".join(f"+line {n:02}\n" for n in range(60))
    screen = terminal(200.0, trace.AttemptEnded(attempt=2, status="again", patch=patch, turns=1))
    screen.expect("9/9  end  attempt 2  … 40 lines below")
    screen.press(b"\x1b[B")
    screen.expect("35 lines below")
    screen.press(b"\x1b[B" * 20)
    screen.expect("+line 59")
    screen.press(b"\x1b[A")
    screen.expect("5 lines below")
    screen.press(b"q")
    assert screen.finished() == 0


def test_ctrl_c_ends_the_replay_and_gives_the_terminal_back(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(step=True)
    screen.expect("1/8")
    assert not screen.restored()
    screen.signal(signal.SIGINT)
    assert screen.finished() != 0
    assert screen.restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_replay_that_is_ended_gives_the_terminal_back(
    terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    screen = terminal(step=True)
    screen.expect("1/8")
    screen.signal(number)
    assert screen.finished() != 0
    assert screen.restored() and screen.all.rfind("\x1b[?1049l") > screen.all.rfind("\x1b[?1049h")


def test_the_keys_are_named_and_go_to_the_ends_to_edits_tests_and_failures(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(step=True)
    screen.expect("space pause · ←→ step · Home End · ↑↓ PgUp PgDn scroll · Enter unfold · n p")
    for key, place in ((b"\x1b[F", 8), (b"\x1b[H", 1), (b"e", 4), (b"t", 6), (b"E", 4), (b"x", 6), (b"\x1b[1~", 1)):
        screen.press(key)
        screen.expect(f"{place}/8  paused")
    screen.press(b"\x1b[4~q")
    assert screen.finished() == 0


def test_a_word_is_searched_from_here_on_and_once_more(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(step=True)
    screen.expect("1/8")
    screen.press(b"/UNBENTX")
    screen.expect("find: UNBENTX_")
    screen.press(b"\x7f\x7f\x7f\r")
    screen.expect("2/8  paused")  # "Unbend it." of the plan holds "unben"
    screen.press(b"/bent = \r")
    screen.expect("4/8  paused")
    screen.press(b"/\r")
    screen.expect("8/8  paused")
    screen.press(b"/\x1b")
    screen.expect("8/8  paused")
    screen.press(b"/never\rq")
    assert screen.finished() == 0


def test_other_attempts_are_a_key_away(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(step=True)
    screen.expect("1/8  paused  attempt 2")
    screen.press(b"n")
    screen.expect("1/2  paused  attempt 1")
    screen.press(b"p")
    screen.expect("1/8  paused  attempt 2")
    screen.press(b"nnq")
    assert screen.finished() == 0


def test_enter_unfolds_what_is_folded_and_folds_it_again(terminal: Callable[..., Terminal]) -> None:
    long = "".join(f"line {n:02}\n" for n in range(60))
    screen = terminal(200.0, trace.Planned(attempt=2, text=long))
    screen.expect("9/9  end")
    screen.press(b"\x1b[6~")
    screen.expect("… 36 lines")
    screen.press(b"\r")
    screen.expect("line 20")
    screen.press(b"\r")
    screen.expect("… 36 lines")
    screen.press(b"q")
    assert screen.finished() == 0
