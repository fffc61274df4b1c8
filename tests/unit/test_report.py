"""From events to report.json, to the live view, and to what a person reads at the end."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from harness import trace
from harness.evidence.strength import strength_of
from harness.money.ledger import Ledger
from harness.records import Charge, Evidence, Outcome, Purpose, Ranked, Selection, TestReport, Usage
from harness.views.live import SPINNER, Board, View, board_view
from harness.views.report import active_seconds, run_status, solve_report
from harness.views.report_view import solve_view, verbose_view
from tests.support.waiting import wait_for

DIFF = """diff --git a/pkg/core.py b/pkg/core.py
--- a/pkg/core.py
+++ b/pkg/core.py
@@ -1,3 +1,3 @@
 def total(values):
-    return sum(values[1:])
+    return sum(values)
"""
OTHER = DIFF.replace("+    return sum(values)", "+    return 3")


def charge(
    attempt: int | None, usd: float | None, *, purpose: Purpose = "act", answered: bool = True, model: str = "qwen"
) -> Charge:
    usage = Usage(100, 50, 0, 20, 10) if answered else Usage()
    return Charge(attempt, purpose, model, usage, usd, "alias" if usd is not None else "unknown", 2.0, answered)


def replied(attempt: int | None, usd: float | None, **more: Any) -> trace.Replied:
    return trace.Replied(at=20.0, attempt=attempt, key="k", message={}, charge=charge(attempt, usd, **more))


def report(passed: int, failed: int) -> TestReport:
    outcomes: dict[str, Outcome] = {f"p{n}": "passed" for n in range(passed)}
    outcomes |= {f"f{n}": "failed" for n in range(failed)}
    return TestReport(outcomes, 1 if failed else 0, False, True, 1.0)


def started(attempts: int = 2) -> trace.RunStarted:
    return trace.RunStarted(
        at=10.0,
        run="calc-1",
        task={"id": "calc", "statement": "sums are wrong"},
        settings={"models": ["qwen", "repair"], "budget": {"attempts": attempts}},
    )


def attempt(index: int, diff: str, *, status: str = "submitted", model: str = "qwen") -> list[trace.Event]:
    return [
        trace.AttemptStarted(at=11.0, attempt=index, seed=7 * index, model=model),
        replied(index, 0.01, purpose="plan"),
        trace.Planned(at=20.0, attempt=index, text="look"),
        replied(index, 0.02),
        trace.Decided(at=21.0, attempt=index, turn=1, text="", calls=({"id": "1", "name": "edit", "arguments": {}},)),
        trace.ToolRan(at=21.0, attempt=index, turn=1, call="1", name="edit", result="done"),
        trace.TestsRan(at=22.0, attempt=index, turn=1, report=report(4, 1)),
        trace.TurnEnded(at=22.0, attempt=index, turn=1, seconds=3.0),
        trace.AttemptEnded(at=31.0, attempt=index, status=status, patch=diff, turns=1, seconds=20.0, flags=("large",)),
    ]


def whole() -> list[trace.Event]:
    """Two candidates of three attempts, one retry that cost nobody knows what, one judge's call."""
    clean = Evidence(True, True, {"a": "passed", "b": "passed"}, {"w0": "passed", "w1": "failed"}, {"g": "passed"})
    broken = Evidence(True, True, {"a": "passed", "b": "failed"}, {"w0": "failed"}, {"g": "failed"})
    ranking = (Ranked("c1", True, "keeps all tests green"), Ranked("c2", False, "breaks 1 test"))
    return [
        started(3),
        trace.Prepared(
            at=11.0,
            base_commit="b" * 40,
            environment="env",
            backend="docker",
            missing_limits=("memory: no cgroup",),
            baseline=report(5, 1),
        ),
        *attempt(0, DIFF),
        *attempt(1, OTHER, status="turn-limit", model="repair"),
        trace.Charged(at=30.0, attempt=2, key="k", charge=charge(2, None, answered=False)),
        trace.InfrastructureFailed(at=30.0, attempt=2, what="model", detail="qwen: 500", retried=True),
        *attempt(2, DIFF),
        trace.Verified(at=40.0, candidate="c1", attempts=(0, 2), key="x", evidence=clean),
        trace.Verified(at=41.0, candidate="c2", attempts=(1,), key="y", evidence=broken),
        replied(None, 0.5, purpose="judge", model="big"),
        trace.Judged(at=42.0, first="c1", second="c2", winner="c1", reason="it is right"),
        trace.Selected(at=43.0, selection=Selection("c1", "regression", 0.8, ranking, "c1 alone is clean.")),
        trace.RunEnded(at=44.0, status="selected", seconds=34.0),
    ]


def printed(view: Sequence[RenderableType], width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=False, legacy_windows=False)
    for each in view:
        console.print(each)
    return file.getvalue()


# report.json


def test_the_report_has_the_shape_of_the_design() -> None:
    told = solve_report(whole())
    assert json.loads(json.dumps(told)) == told
    needed = {
        "schema",
        "run",
        "task",
        "models",
        "attempts",
        "candidates",
        "selected",
        "cost",
        "infrastructure",
        "seconds",
    }
    assert needed <= told.keys()
    of_attempt = {"index", "model", "seed", "status", "turns", "seconds", "usd", "usage", "candidate", "flags"}
    assert all(of_attempt <= row.keys() for row in told["attempts"])
    assert all({"id", "attempts", "files", "evidence", "flags"} <= row.keys() for row in told["candidates"])
    assert told["selected"].keys() == {
        "candidate",
        "attempt",
        "method",
        "ranker",
        "confidence",
        "calibrated_on",
        "strength",
        "rationale",
    }
    assert told["selected"]["confidence"] is None, "a trace from before numbers were told only where calibrated"
    assert {"usd", "exact", "by_purpose", "by_attempt"} <= told["cost"].keys()
    assert told["infrastructure"] == {"retries": 1, "failures": []}


def test_attempts_are_told_with_their_cost_and_candidate() -> None:
    rows = solve_report(whole())["attempts"]
    assert [(row["index"], row["status"], row["candidate"]) for row in rows] == [
        (0, "submitted", "c1"),
        (1, "turn-limit", "c2"),
        (2, "submitted", "c1"),
    ]
    assert rows[0]["usd"] == pytest.approx(0.03)
    assert rows[0]["usage"] == {"input": 200, "cache_read": 100, "cache_write": 0, "output": 40, "reasoning": 20}


def test_the_cost_of_the_report_adds_up_and_says_that_it_is_not_exact() -> None:
    cost = solve_report(whole())["cost"]
    assert cost["usd"] == pytest.approx(0.59)
    assert cost["exact"] is False
    assert sum(line["usd"] for line in cost["by_attempt"].values()) == pytest.approx(0.59)
    assert sum(line["usd"] for line in cost["by_purpose"].values()) == pytest.approx(0.59)
    assert cost["by_attempt"]["2"]["unanswered"] == 1


def test_an_attempt_of_which_nothing_has_a_price_costs_null() -> None:
    events = [started(), *attempt(0, DIFF)[:1], replied(0, None)]
    (row,) = solve_report(events)["attempts"]
    assert row["usd"] is None
    assert row["status"] == "running"


def test_evidence_renewed_by_a_resume_replaces_the_old() -> None:
    events = whole()
    more = Evidence(True, True, {"a": "passed"}, {"w9": "passed"})
    again = trace.Verified(at=43.5, candidate="c1", attempts=(0, 2), key="z", evidence=more)
    told = solve_report([*events, again])
    assert [row["id"] for row in told["candidates"]] == ["c1", "c2"]
    assert told["candidates"][0]["evidence"]["witness"] == {"w9": "passed"}


def test_every_prefix_of_a_trace_gives_a_report_and_a_view() -> None:
    events = whole()
    for end in range(1, len(events) + 1):
        solve_report(events[:end])
        printed(solve_view(events[:end], Path("runs/calc-1")))
        printed([board_view(folded(events[:end]), now=50.0, height=24)])


def test_the_time_between_a_stop_and_a_resume_does_not_count() -> None:
    events = [started(), trace.RunEnded(at=20.0, status="interrupted"), trace.RunResumed(at=1000.0)]
    assert run_status(events) == "running"
    assert active_seconds([*events, trace.RunEnded(at=1005.0, status="none")]) == pytest.approx(15.0)


# The view at the end


def test_what_a_provider_says_that_it_charged_stands_beside_our_price() -> None:
    told = [
        replace(e, charge=replace(e.charge, reported_usd=0.03)) if isinstance(e, trace.Replied) else e for e in whole()
    ]
    text = " ".join(printed(verbose_view(told, Path("runs/calc-1"))).split())
    assert "providers say $0.2100 where these prices come to $0.5900" in text
    assert solve_report(told)["cost"]["reported_usd"] == pytest.approx(0.21)


def test_the_screen_says_verdict_patch_why_and_what_to_type_in_a_few_lines() -> None:
    text = printed(solve_view(whole(), Path("runs/calc-1")))
    lines = text.splitlines()
    assert len(lines) < 25 and all(len(line) - len(line.rstrip()) <= 1 for line in lines), "and nothing is padded"
    assert lines[:2] == ["sums are wrong", "Proved by a failing test that passes now · 3 attempts in 0:34"]
    assert "+    return sum(values)" in text and "index " not in text
    assert "return 3" not in text, "only the selected patch is shown"
    said = " ".join(text.split())
    assert (
        "why: passes 1 failing test that was given, 1 of 2 tests written for the issue, 2 tests that passed before;"
        in said
    )
    assert "2 of 3 attempts came to it. The other candidates break tests or are not acceptable." in said
    assert "but: fails 1 test written for the issue" in said
    assert "c2 (attempt 1): breaks 1 test" in said
    assert "cost: ≥$0.5900 for 7 calls" in said and "at least" in said and "1 retry for reasons outside" in said
    assert "regression" not in text and "submitted" not in text
    assert "git apply runs/calc-1/selected.patch" in text
    assert "troop replay runs/calc-1 --attempt 0" in text
    assert "troop resume" not in text


def test_an_acceptable_candidate_is_told_why_it_lost() -> None:
    *before, selected, ended = whole()
    assert isinstance(selected, trace.Selected)
    alike = (Ranked("c1", True, "keeps all tests green"), Ranked("c2", True, "keeps all tests green"))
    told = [*before, replace(selected, selection=Selection("c1", "size", 0.8, alike, "c1 is smaller.")), ended]
    said = " ".join(printed(solve_view(told, Path("runs/calc-1"))).split())
    assert "c2 (attempt 1): breaks nothing, but changes more; nothing else tells the two apart" in said


def test_the_whole_of_it_shows_evidence_on_every_candidate_and_the_ledger() -> None:
    text = printed(verbose_view(whole(), Path("runs/calc-1")))
    assert "breaks 1 test, 0/1 given tests pass" in text and "broken: b" in text
    assert "1/2 witness tests pass" in " ".join(text.split())
    assert "lower bound" in text and "memory: no cgroup" in text
    assert "out of turns" in text and "turn-limit" not in text


@pytest.mark.parametrize(
    ("given", "witness", "attempts", "strength"),
    [
        ({"g": "passed"}, {}, (0,), "proved"),
        ({}, {"1:t": "passed"}, (0, 2), "strong"),
        ({}, {"1:t": "passed"}, (0,), "likely"),
        ({}, {}, (0, 1), "likely"),
        ({}, {"1:t": "failed"}, (0, 1), "guess"),
        ({}, {}, (0,), "guess"),
    ],
)
def test_how_far_a_choice_is_shown_is_said_in_a_word(
    given: dict[str, str], witness: dict[str, str], attempts: tuple[int, ...], strength: str
) -> None:
    assert strength_of(Evidence(True, True, {"a": "passed"}, witness, given), attempts) == strength
    assert strength_of(Evidence(True, True, {"a": "failed"}, witness, given), attempts) == "guess"


def test_the_ledger_is_told_by_purpose_model_and_attempt() -> None:
    text = printed(verbose_view(whole(), Path("runs/calc-1")))
    ledger = text[text.index("Ledger") :]
    for label in ("planning", "working", "judging", "model qwen", "model big", "attempt 2", "the run's own"):
        assert label in ledger
    (line,) = [line for line in ledger.splitlines() if line.startswith("attempt 2")]
    assert line.split() == ["attempt", "2", "2", "1", "1", "300", "100", "40", "20", "≥$0.0300"]


def test_nothing_selected_names_the_runner_up() -> None:
    ranking = (Ranked("c2", False, "breaks 1 test"),)
    events = [e for e in whole() if not isinstance(e, (trace.Selected, trace.RunEnded))]
    events.append(trace.Selected(selection=Selection(None, "none", 0.0, ranking, "No candidate is clean.")))
    text = " ".join(printed(solve_view(events, Path("runs/calc-1"))).split())
    assert "No candidate is clean." in text and "c2 (attempt 1): breaks 1 test" in text
    assert "git apply" not in text


def test_an_unfinished_run_says_how_to_go_on() -> None:
    assert "troop resume runs/calc-1" in printed(solve_view(whole()[:8], Path("runs/calc-1")))


def test_the_view_of_a_large_run_is_cut_where_report_json_is_better() -> None:
    assert len(printed(solve_view(crowd(128, 128), Path("runs/calc-1"))).splitlines()) <= 40
    text = printed(verbose_view(crowd(128, 128), Path("runs/calc-1")))
    assert "… and 96 more attempts in report.json" in text
    assert "the 32 dearest attempts of 128" in text
    assert len(text.splitlines()) < 110


def test_a_run_without_model_calls_has_no_ledger() -> None:
    events = [e for e in whole() if not isinstance(e, (trace.Replied, trace.Charged))]
    assert "Ledger" not in printed(verbose_view(events, Path("runs/calc-1")))
    assert "cost: nothing, no model was asked" in printed(solve_view(events, Path("runs/calc-1")))


def test_a_long_patch_is_cut_on_the_screen() -> None:
    long = DIFF + "".join(f"+line {n}\n" for n in range(500))
    events: list[trace.Event] = [
        e
        if not isinstance(e, trace.AttemptEnded)
        else trace.AttemptEnded(attempt=e.attempt, status="submitted", patch=long)
        for e in whole()
    ]
    text = printed(solve_view(events, Path("runs/calc-1")))
    assert "more lines in selected.patch" in text and len(text.splitlines()) <= 40
    assert "line 499" not in text


def test_what_a_model_wrote_cannot_drive_the_terminal() -> None:
    evil = DIFF.replace("sum(values)", "sum(values)  # \x1b]0;owned\x07\x1b[2J \udcff")
    events: list[trace.Event] = [
        e
        if not isinstance(e, trace.AttemptEnded)
        else trace.AttemptEnded(attempt=e.attempt, status="submitted", patch=evil)
        for e in whole()
    ]
    text = printed(solve_view(events, Path("runs/calc-1")))
    text.encode("utf-8")
    assert "\x1b" not in text and "owned" not in text


def test_a_command_is_printed_whole_however_long_the_path() -> None:
    directory = Path("/somewhere") / ("deep-" * 20) / "calc-1"
    text = printed(solve_view(whole(), directory))
    assert f"{directory}/selected.patch" in text.replace("\n", "")


# While it goes on


def test_the_board_follows_an_attempt() -> None:
    states = []
    board = folded([started()])
    for event in attempt(0, DIFF):
        board.add(event)
        states.append((board.rows[0].state, board.rows[0].result))
    assert states == [
        ("planning", ""),
        ("planning", ""),
        ("planned", ""),
        ("planned", ""),
        ("edit", ""),
        ("edit", ""),
        ("test", "4 pass, 1 fail"),
        ("test", "4 pass, 1 fail"),
        ("submitted", "4 pass, 1 fail"),
    ]
    row = board.rows[0]
    assert (row.turn, row.cost.usage.total, row.ended) == (1, 360, 31.0)


def call(name: str, **arguments: object) -> dict[str, Any]:
    return {"id": name, "name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("called", "ran", "told"),
    [
        (call("edit", path="src/x/parser.py"), {"diff": DIFF}, ("edit src/x/parser.py", "+1 −1")),
        (call("edit", path="a/" * 40 + "end.py"), {"ok": False}, ("edit …/a/a/a/a/a/a/a/a/a/a/a/end.py", "failed")),
        (call("run", command="make\x1b[2J\ncheck"), {"result": "no\n(exit code 2)"}, ("run make check", "exit code 2")),
        (call("run", command="ls"), {"result": "a\n(exit code 0)"}, ("run ls", "")),
        (call("search", pattern="def f"), {"result": "x"}, ("search def f", "")),
        (call("submit"), {"ok": False}, ("submit", "asked back")),
    ],
)
def test_an_action_is_told_with_what_came_of_it(called: Any, ran: dict[str, Any], told: tuple[str, str]) -> None:
    board = folded([started(), trace.Decided(attempt=0, turn=1, text="", calls=(called, call("read", path="b.py")))])
    assert (board.rows[0].state, board.rows[0].result) == (told[0], "")
    board.add(trace.ToolRan(attempt=0, turn=1, call="1", name=called["name"], **{"result": "", **ran}))
    assert (board.rows[0].state, board.rows[0].result) == told


def test_a_test_run_tells_what_fails_only_now() -> None:
    base = trace.Prepared(base_commit="b", environment="e", backend="docker", baseline=report(42, 1))
    run = TestReport({**report(41, 1).outcomes, "p41": "failed"}, 1, False, True, 1.0)
    board = folded([started(), base, trace.TestsRan(attempt=0, turn=1, report=run)])
    assert board.rows[0].result == "41 pass, 1 new failure, 1 fail"
    board.add(trace.TestsRan(attempt=0, turn=2, report=replace(run, valid=False)))
    assert board.rows[0].result == "could not run"


def test_a_row_shows_the_last_action_the_candidate_the_cost_and_the_view_the_cap_and_the_time_left() -> None:
    begun = replace(started(4), settings={"budget": {"attempts": 4, "usd": 2.0}})
    edit = trace.Decided(attempt=1, turn=3, text="", calls=(call("edit", path="src/x/parser.py"),))
    done = trace.ToolRan(attempt=1, turn=3, call="1", name="edit", result="", diff=DIFF)
    found = trace.Verified(candidate="c1", attempts=(0,), key="k", evidence=Evidence(True, True), early=True)
    late = trace.AttemptStarted(at=31.0, attempt=1, seed=1, model="qwen")
    board = folded([begun, *attempt(0, DIFF), late, replied(1, 0.5), edit, done, found])
    text = printed([board_view(board, now=36.0, height=24)])
    assert "0:26; 1/4 attempts ended, 1 active; 540 tokens, $0.5300 of $2" in text
    assert "attempts, about 0:55 left, 1 finished" in text, "of 20 seconds each 15, 20 and 20 are left"
    at_work, ended = (" ".join(line.split()) for line in text.splitlines()[3:5])
    assert at_work[0] in SPINNER and at_work[1:] == " 1 edit src/x/parser.py +1 −1 - 3 180 $0.5000 0:05"
    assert ended == "0 finished: 4 pass, 1 fail c1 1 360 $0.0300 0:20"


def test_what_is_done_outside_of_attempts_has_a_row_with_its_time() -> None:
    view = View()
    with view.busy("verifying c1"):
        text = printed([board_view(view._board, now=time.time() + 65, height=24)])
        assert re.search(f"[{SPINNER}] verifying c1, 1:05", text)
    assert "verifying" not in printed([board_view(view._board, now=time.time(), height=24)])


def test_where_no_attempt_begins_any_more_none_is_waited_for() -> None:
    stop = trace.SamplingStopped(why=trace.BY_HAND, attempts=1)
    board = folded([started(9), *attempt(0, DIFF), *attempt(1, DIFF)[:3], stop])
    assert "1/2 attempts ended, 1 active" in printed([board_view(board, now=32.0, height=24)])
    assert board.news == ["finished by hand after 1 attempt, with what there was"]


@pytest.mark.parametrize(
    ("keys", "stopped"),
    [
        ("s1⏎", [1]),
        ("s12⌫⏎", [1]),
        ("s7⏎", []),
        ("s⏎", []),
        ("s1x⏎", []),
        ("fy", [None]),
        ("fny", []),
        ("y1⏎", []),
        ("s0⏎fy", [0, None]),
        ("git diff⏎", []),
    ],
)
def test_keys_stop_one_attempt_or_all(keys: str, stopped: list[int | None]) -> None:
    board = folded([started(3), *attempt(0, DIFF)[:3], *attempt(1, DIFF)[:3]])
    board.question = ""
    heard: list[int | None] = []
    for key in keys:
        board.press({"⏎": "enter", "⌫": "backspace"}.get(key, key), heard.append)
    assert heard == stopped


def test_what_is_asked_stands_below_the_rows() -> None:
    board = folded([started(3), *attempt(0, DIFF)[:3], *attempt(2, DIFF)[:3]])
    assert "stop" not in printed([board_view(board, now=32.0, height=24)]), "where there is no keyboard"
    asked: list[str] = []
    for key in ("", "s", "2"):
        board.press(key, lambda attempt: None)
        asked.append(printed([board_view(board, now=32.0, height=24)]).splitlines()[-1].strip())
    assert asked == [
        "s: stop an attempt · f: finish with what there is · Ctrl-C: interrupt",
        "stop which attempt (0, 2)? _ (Enter: it ends as it stands; Esc: none)",
        "stop which attempt (0, 2)? 2_ (Enter: it ends as it stands; Esc: none)",
    ]


def test_the_board_and_the_ledger_agree() -> None:
    events = whole()
    board, ledger = folded(events), Ledger.of(events)
    assert board.cost == ledger.total
    assert {str(k): row.cost for k, row in board.rows.items() if k != 2} == {
        k: line for k, line in ledger.by_attempt.items() if k in ("0", "1")
    }


def folded(events: Sequence[trace.Event]) -> Board:
    board = Board()
    for event in events:
        board.add(event)
    return board


def crowd(count: int, ended: int) -> list[trace.Event]:
    events: list[trace.Event] = [started(count)]
    for index in range(count):
        events += attempt(index, DIFF) if index < ended else attempt(index, DIFF)[:5]
    return events


@pytest.mark.parametrize(("count", "ended"), [(1, 0), (8, 3), (128, 0), (128, 100), (128, 128)])
@pytest.mark.parametrize("height", [10, 24, 60])
def test_the_live_view_fits_the_screen(count: int, ended: int, height: int) -> None:
    lines = printed([board_view(folded(crowd(count, ended)), now=100.0, height=height)]).splitlines()
    assert len(lines) < height
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_the_live_view_shows_the_active_and_counts_the_rest() -> None:
    text = printed([board_view(folded(crowd(128, 60)), now=100.0, height=24)])
    shown = [int(line.split()[1]) for line in text.splitlines() if line.split()[0] in SPINNER]
    assert shown == list(range(60, 60 + len(shown))), "active attempts come first"
    assert "calc: attempts, 60 finished" in text and "60/128 attempts ended, 68 active" in text
    assert f"… and {128 - len(shown)} more attempts: {68 - len(shown)} active, 60 ended" in text


def test_a_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    events = [started(), trace.AttemptStarted(at=1.0, attempt=0, seed=1, model="[red]x")]
    assert "[red]x" in printed([board_view(folded(events), now=2.0, height=24, width=120)], 120)


def test_plain_lines_tell_each_end_and_no_turn() -> None:
    file = io.StringIO()
    plain = View(Console(file=file))
    for event in whole():
        plain.see(event)
    lines = file.getvalue().splitlines()
    assert "attempt 0: finished, 1 turn, 20.0 s, 360 tokens, $0.0300, tests: 4 pass, 1 fail" in lines
    assert any(line.startswith("attempt 1: out of turns, 1 turn, 20.0 s") for line in lines)
    assert "attempt 2: model failed, trying again: qwen: 500" in lines
    assert "candidate c2 (1 attempt): breaks 1 test, 0/1 given tests pass, 0/1 witness tests pass" in lines
    assert "selected c1 alone is clean." in lines
    assert sum(line.startswith("attempt") for line in lines) == 4
    assert all(line == line.rstrip() for line in lines), "what is piped has no padding"


def test_plain_lines_have_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.views.live.HEARTBEAT", 0.05)
    file = io.StringIO()
    plain = View(Console(file=file))
    plain.see(started())
    with plain.busy("verifying c1"):
        wait_for(lambda: file.getvalue().count("0/2 attempts ended, 0 active; - tokens, -; verifying c1, 0:00") > 1, 10)
    plain.stop()
    told = file.getvalue()
    time.sleep(0.2)
    assert file.getvalue() == told


def test_progress_as_json_is_one_object_a_line() -> None:
    file = io.StringIO()
    view = View(Console(file=file, force_terminal=True, width=20), json=True)
    for event in whole():
        view.see(event)
    view.say("building \x1b[2J it")
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert all(line["at"] > 1e9 for line in lines) and lines[-1]["text"] == "building it"
    ended = next(line for line in lines if line.get("kind") == "attempt-ended")
    assert ended["text"].startswith("attempt 0: finished") and ended["attempt"] == 0
    figures = {name: ended[name] for name in ("ended", "active", "planned", "tokens", "usd", "max_usd")}
    assert figures == {
        "ended": 1,
        "active": 0,
        "planned": 3,
        "tokens": 360,
        "usd": pytest.approx(0.03),
        "max_usd": None,
    }


def test_the_live_view_draws_on_a_terminal_and_leaves_the_last_state() -> None:
    file = io.StringIO()
    view = View(Console(file=file, width=80, height=24, force_terminal=True, legacy_windows=False))
    for event in whole():
        view.see(event)
    view.say("a line of progress")
    view.stop()
    drawn = file.getvalue()
    assert "a line of progress" in drawn
    assert "3/3 attempts ended" in drawn
    assert "\x1b[?25h" in drawn, "the cursor is shown again"
    updates = drawn.split("\x1b[?2026h")[1:]
    assert updates and all(each.count("\x1b[?2026l") == 1 for each in updates), "each is shown at once"


def test_a_resumed_run_shows_what_was_before() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, legacy_windows=False)
    view = View(console)
    view.catch_up([started(), *attempt(0, DIFF)])
    view.see(trace.RunResumed(at=100.0))
    assert view.screen.drawn
    assert "1/2 attempts ended" in printed([view.screen])
    view.stop()


def test_plain_lines_are_for_what_is_not_a_terminal() -> None:
    file = io.StringIO()
    view = View(Console(file=file, force_terminal=False))
    view.catch_up([started()])
    view.see(trace.BudgetReached(limit="usd", detail="[red]no\x1b[2J more"))
    view.say("building [red]:bug: " + 30 * "long ")
    view.stop()
    assert file.getvalue() == f"[red]no more\nbuilding [red]:bug: {30 * 'long '}".rstrip() + "\n"
    assert View(Console(file=io.StringIO(), force_terminal=True)).screen.drawn


def test_where_every_candidate_is_graded_the_selected_ones_word_is_told() -> None:
    selection = Selection("c2", "given", 0.5, (), "why")
    chosen = [trace.Selected(selection=selection), trace.RunEnded(status="selected")]
    words = [trace.Graded(candidate="c2", resolved=True), trace.Graded(candidate="c1", resolved=False, reason="fails")]
    report = solve_report([started(), *attempt(0, DIFF), *attempt(1, OTHER), *chosen, *words])
    assert report["graded"] == {"candidate": "c2", "resolved": True, "reason": ""}
