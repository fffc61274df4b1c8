"""What an evaluation's report, page, predictions and live view say, from outcomes made here."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from harness import trace
from harness.records import Charge, Json, Usage, Verdict
from harness.suites.evaluate import Grades, Outcome, Solved
from harness.suites.live import SuiteBoard, SuiteView, suite_board_view
from harness.suites.page import markdown
from harness.suites.report import Asked, prediction_files, suite_report
from harness.suites.suite import Ready
from harness.suites.view import eval_view
from tasks.task import Repository, Task

USAGE = {"input": 60, "cache_read": 40, "cache_write": 0, "output": 10, "reasoning": 0}


def attempt(index: int, candidate: str | None, *, status: str = "submitted", flags: Sequence[str] = ()) -> Json:
    return {
        "index": index,
        "model": "m",
        "status": status,
        "seconds": 10.0,
        "usd": 0.1,
        "usage": USAGE,
        "candidate": candidate,
        "flags": list(flags),
    }


def solved(
    candidates: Sequence[str | None],
    selected: str | None,
    *,
    usd: float | None = 0.4,
    lost: int = 0,
    spans: Sequence[tuple[float, float]] = ((0.0, 30.0),),
    flags: Sequence[str] = (),
    source: str = "alias",
    failure: str = "",
) -> Solved:
    """Samples with these candidates; `lost` further attempts were ended by the world."""
    rows = [attempt(n, c, flags=flags) for n, c in enumerate(candidates)]
    rows += [attempt(len(rows) + n, None, status="infrastructure") for n in range(lost)]
    line = {"usd": usd, "exact": usd is not None, "calls": 4, "usage": USAGE, "seconds": 20.0}
    report: Json = {
        "run": "r",
        "base_commit": "b",
        "status": "selected" if selected else "none",
        "attempts": rows,
        "candidates": [],
        "cost": {**line, "by_model": {"m": line}},
        "infrastructure": {"retries": 1, "failures": []},
    }
    patches = {n: f"patch {c}" if c else "" for n, c in enumerate(candidates)}
    distinct = dict.fromkeys(c for c in candidates if c)
    return Solved(
        report=report,
        patches=patches,
        candidates={c: f"patch {c}" for c in distinct},
        samples=tuple(candidates),
        selected=selected,
        spans=tuple(spans),
        failure=failure,
    )


def outcome(id: str, found: Solved, right: Sequence[str] = (), *, graded: Sequence[str] | None = None) -> Outcome:
    names = list(found.candidates) if graded is None else graded
    return Outcome(id, found, {c: Verdict(c in right, {}, {}, "" if c in right else "it fails") for c in names})


def report_of(outcomes: Sequence[Outcome], n: int = 4, grades: Grades = "all", **more: Any) -> Json:
    unfinished = more.pop("unfinished", 0)
    asked = Asked("suite", ("m",), n, grades, **more)
    return suite_report(outcomes, asked, instances=len(outcomes) + unfinished, unfinished=unfinished)


ONE = outcome("one", solved(["c1", "c2", None, "c2"], "c2"), ["c2"])
TWO = outcome("two", solved(["c1", "c1", "c1", "c1"], "c1", spans=[(20.0, 50.0)], flags=["leak:git"]))


def flaky(found: Outcome, candidate: str) -> Outcome:
    return replace(found, verdicts={**found.verdicts, candidate: replace(found.verdicts[candidate], flaky=True)})


def test_a_verdict_that_differs_between_repetitions_widens_every_interval() -> None:
    steady, shaky = report_of([ONE, TWO]), report_of([flaky(ONE, "c2"), flaky(TWO, "c1")])
    assert steady["flaky"] == [] and shaky["flaky"] == ["one", "two"]
    for name in ("selected", "mean_at_1", "oracle"):
        assert shaky[name] == steady[name], "a value is that of the first grading"
    assert steady["mean_at_1_interval"][1] < shaky["mean_at_1_interval"][1]
    assert steady["coverage"][0]["high"] < shaky["coverage"][0]["high"]
    both = zip(steady["coverage"], shaky["coverage"], strict=True)
    assert all(wide["low"] <= row["low"] and row["high"] <= wide["high"] for row, wide in both)
    assert "differ between repetitions" in markdown(shaky) and "one, two" in markdown(shaky)
    assert "differ between" not in markdown(steady)


def test_one_flaky_verdict_widens_by_itself_alone() -> None:
    # All against it: nothing is right. All for it: as it is.
    others = [replace(ONE, id=f"also-{n}") for n in range(5)]
    steady, shaky = report_of([ONE, *others]), report_of([flaky(ONE, "c2"), *others])
    assert shaky["flaky"] == ["one"] and shaky["mean_at_1_interval"][0] < steady["mean_at_1_interval"][0]
    assert shaky["mean_at_1_interval"][1] == steady["mean_at_1_interval"][1]
    assert shaky["selected_share"]["low"] < steady["selected_share"]["low"]


def test_the_measures_are_those_of_the_samples() -> None:
    report = report_of([ONE, TWO])
    assert (report["selected"], report["oracle"], report["measured"]) == (1, 1, 2)
    assert report["mean_at_1"] == 0.25 and report["recovery"] == 1.0
    assert [round(row["pass_at_k"], 4) for row in report["coverage"]] == [0.25, 0.4167, 0.5, 0.5]
    for row in report["coverage"]:
        assert row["low"] <= row["pass_at_k"] <= row["high"]
    assert report["tasks"][0]["correct"] == 2 and report["tasks"][1]["resolved"] is False


def test_cost_tokens_and_time_are_those_of_all_attempts() -> None:
    report = report_of([ONE, TWO])
    assert report["usd"] == pytest.approx(0.8) and report["usd_per_attempt"] == pytest.approx(0.1)
    assert report["usd_per_instance"] == pytest.approx(0.4) and report["usd_per_solved"] == pytest.approx(0.8)
    assert report["cached_share"] == pytest.approx(0.4) and report["tokens"] == 220
    assert report["seconds"] == 50.0, "what overlaps counts once"
    assert report["attempt_seconds"] == 80.0 and report["model_seconds"] == 40.0
    assert report["leak_tries"] == {"attempts": 4, "by_kind": {"leak:git": 4}}
    assert report["candidates"] == 3


def test_plain_lines_say_why_sampling_stopped() -> None:
    file = io.StringIO()
    view = SuiteView(SuiteBoard("suite", 2, 8), Console(file=file))
    view.ready(Ready("one", Task("one", Repository("path", "/r"), "s")))
    view.see(
        "one",
        trace.SamplingStopped(
            why="not worth it", attempts=3, worth=0.8, hope=0.5, gain=0.001, usd=0.02, per_solve=10.0
        ),
    )
    assert file.getvalue().splitlines() == [
        "one: sampling stopped, not worth it: after 3 attempts the best candidate is right with a chance of 0.80; "
        "another attempt is worth 0.01 USD and costs 0.02"
    ]


def test_pass_at_k_is_undefined_where_an_instance_has_fewer_samples() -> None:
    short = outcome("short", solved(["c1", "c1"], "c1", lost=2), ["c1"])
    report = report_of([ONE, short])
    assert [row["pass_at_k"] is None for row in report["coverage"]] == [False, False, True, True]
    assert report["coverage"][2]["missing"] == 1 and report["infrastructure"]["attempts"] == 2
    assert "pass@k is undefined from k = 3 on: 1 instance with fewer samples" in markdown(report)


def test_what_sampling_by_success_leaves_unequal_is_measured_on_the_first_samples_alone() -> None:
    easy = outcome("easy", solved(["c1", "c1"], "c1"), ["c1"])
    hard = outcome("hard", solved([None, None, "c1", None], "c1"), ["c1"])
    for found, why in ((easy, "decisive"), (hard, "hopeless")):
        assert found.solved is not None
        found.solved.report["sampling"] = {"stopped": why}
    report = report_of([easy, hard], adaptive=True)
    assert report["adaptive"] == {"stopped": {"decisive": 1, "hopeless": 1}, "common_samples": 2}
    assert report["mean_at_1"] == 0.5, "not the mean of 2 of 2 and 1 of 4, which was sampled until it was solved"
    assert [row["pass_at_k"] for row in report["coverage"]] == [0.5, 0.5, None, None]
    assert [row["missing"] for row in report["coverage"]] == [0, 0, 1, 1]
    assert (report["oracle"], report["selected"], report["recovery"]) == (2, 2, 1.0)
    page = markdown(report)
    assert "at most 4 attempts of each of 2 instances" in page
    assert (
        "sampling stopped early of 1 decisive, 1 hopeless" in page
        and "of the first 2 samples of each instance" in page
        and "short of samples" not in page
    )


def test_an_instance_that_failed_is_left_out_of_the_measures_but_its_cost_is_not() -> None:
    lost = Outcome("lost", None, failure="no daemon\nat all", unsolved=solved([], None, usd=2.0, failure="no daemon"))
    report = report_of([ONE, lost])
    assert (report["instances"], report["solved"], report["measured"]) == (2, 1, 1)
    assert report["usd"] == pytest.approx(2.4) and report["mean_at_1"] == 0.5
    page = markdown(report)
    assert "1 of 2 resolved (50.0 %)" in page and "lost: no daemon" in page and "1 are left out" in page


def test_without_all_verdicts_nothing_is_said_of_coverage() -> None:
    only_selected = outcome("one", solved(["c1", "c2", None, "c2"], "c2"), ["c2"], graded=["c2"])
    report = report_of([only_selected], grades="selected")
    assert report["selected"] == 1
    assert report["mean_at_1"] is report["oracle"] is report["recovery"] is None
    assert all(row["pass_at_k"] is None for row in report["coverage"])
    assert report_of([outcome("one", solved(["c1"], "c1"), graded=[])], grades="none")["selected"] is None


def test_an_unknown_price_stays_unknown() -> None:
    report = report_of([outcome("one", solved(["c1"], "c1", usd=None))])
    assert report["usd"] is report["usd_per_attempt"] is report["usd_per_solved"] is None
    assert not report["usd_exact"] and "unknown (give the model prices" in markdown(report)


def test_a_local_gpu_has_its_seconds_and_their_yield() -> None:
    report = report_of([ONE], gpu_hours={"m": 3.6})
    assert report["gpu"]["seconds"] == pytest.approx(400) and report["gpu"]["usd"] == pytest.approx(0.4)
    assert report["gpu"]["output_tokens_per_second"] == pytest.approx(10 / 400)
    assert "400 GPU-seconds" in markdown(report)
    assert report_of([ONE])["gpu"] is None


def test_the_page_fits_eighty_columns() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80)
    many = [outcome(f"repository__name-{n}", solved(["c1"] * 40, "c1"), ["c1"] * (n % 2)) for n in range(6)]
    for report in (report_of([ONE, TWO]), report_of(many, 40), report_of([]), report_of([ONE], unfinished=3)):
        for part in eval_view(report):
            console.print(part)
    shown = screen.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "3 instances unfinished" in shown and "selected@40" in shown
    assert "attempts ended 240 finished" in " ".join(shown.split()), "words for people"
    assert "1: 0.500, 2: 0.500, 4: 0.500, 8: 0.500, 16: 0.500, 32: 0.500, 40: 0.500 [" in " ".join(shown.split())


def test_each_attempt_has_its_line_in_the_file_of_its_rank() -> None:
    lost = outcome("lost", solved(["c1"], "c1", lost=1))
    files = prediction_files([ONE, lost, Outcome("failed", None, failure="x")], ["a", "b"], 4)
    read = {name: [json.loads(line) for line in text.splitlines()] for name, text in files.items()}
    assert sorted(read) == [
        "predictions-01.jsonl",
        "predictions-02.jsonl",
        "predictions-03.jsonl",
        "predictions-04.jsonl",
        "predictions.jsonl",
    ]
    assert read["predictions.jsonl"] == [
        {"instance_id": "one", "model_name_or_path": "a+b", "model_patch": "patch c2"},
        {"instance_id": "lost", "model_name_or_path": "a+b", "model_patch": "patch c1"},
    ]
    assert [row["model_patch"] for row in read["predictions-03.jsonl"]] == [""]
    assert [row["instance_id"] for row in read["predictions-02.jsonl"]] == ["one"], "what the world ended is no sample"
    assert read["predictions-02.jsonl"][0]["model_name_or_path"] == "a+b@02"


# The live view


def board() -> SuiteBoard:
    shown = SuiteBoard("swe-bench-lite", 40, 4, cap=20.0, started=1000.0)
    shown.take_over("one", ONE, 4, board_cost())
    for n in range(12):
        id = f"scikit-learn__scikit-learn-{n:05d}-long"
        shown.begin(Ready(id, Task(id, Repository("path", "/r"), "s")), 1000.0 + n)
        shown.add(id, trace.Prepared(at=1001.0, base_commit="b", environment="e", backend="docker"))
        for index in range(3):
            shown.add(id, trace.AttemptStarted(at=1002.0, attempt=index, seed=1, model="m"))
            charge = Charge(index, "act", "m", Usage(9000, 1000, 0, 500), 0.0123, "alias", 1.0)
            shown.add(id, trace.Replied(at=1003.0, attempt=index, key="k", message={}, charge=charge))
        shown.add(id, trace.AttemptEnded(at=1004.0, attempt=0, status="infrastructure", patch=""))
    shown.add(id, trace.InfrastructureFailed(attempt=1, what="model", detail="429", retried=True))
    shown.said = f"{id}: installing the repository in editable mode, which can take a while"
    shown.end(TWO)
    shown.end(Outcome("three", None, failure="its image: the build failed\nat the end of a long log"))
    return shown


def board_cost() -> Any:
    from harness.money.ledger import Ledger

    return Ledger.fold([Charge(0, "act", "m", Usage(100), 0.5, "alias", 1.0)]).total


def test_the_live_view_shows_all_of_it_on_eighty_columns_and_few_lines() -> None:
    for height in (12, 24):
        screen = io.StringIO()
        console = Console(file=screen, width=80, height=height, force_terminal=True, color_system=None)
        console.print(suite_board_view(board(), now=1060.0, height=height))
        shown = screen.getvalue()
        assert max(map(len, shown.splitlines())) <= 80 and len(shown.splitlines()) <= height
        assert "3/40 instances ended, 1 solved, 1 failed" in shown
        assert "attempts 16/160 ended, 24 active" in shown and "of $20" in shown
        assert "1 retry, 12 lost" in shown and "about 11:40 left" in shown
        assert "two: not resolved (0 of 4 attempts right, 1 candidate)" in shown
        assert ("more instances in work" in shown) == (height == 12)


def test_plain_lines_tell_of_instances_attempts_and_failures_only() -> None:
    file = io.StringIO()
    view = SuiteView(SuiteBoard("s", 1, 1), Console(file=file))
    view.see("one", trace.Prepared(base_commit="b", environment="e", backend="docker", seconds=2.0))
    view.see("one", trace.Planned(attempt=0, text="\x1b[31mplan"))
    view.see("one", trace.AttemptEnded(attempt=0, status="submitted", patch="", turns=1, seconds=1.5))
    view.ended(ONE)
    lines = file.getvalue().splitlines()
    assert lines[:3] == [
        "one: prepared on docker in 2.0 s",
        "one: attempt 0: finished, 1 turn, 1.5 s",
        "one: resolved (2 of 4 attempts right, 2 candidates)",
    ]
    assert lines[3].startswith("  s: 1/1 instances ended, 1 solved")


def test_the_live_view_leaves_its_last_state_on_the_screen() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, height=20, force_terminal=True, color_system=None)
    view = SuiteView(SuiteBoard("s", 1, 1), console)
    view.ready(Ready("one", Task("one", Repository("path", "/r"), "s")))
    view.ended(ONE)
    view.screen.stop()
    view.screen.stop()
    assert "1/1 instances ended, 1 solved" in screen.getvalue()
