"""Adaptive sampling as a user has it: real processes, sandboxes and HTTP, a scripted model."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import resume, solve
from agent.assemble import Solution
from agent.run.executor import seed_of
from agent.run.worth import state_of
from harness import trace
from harness.records import Json
from harness.scaling.adaptive import Group
from harness.views.replay_frames import frames
from tests.support import programs
from tests.support.calculator import PLAN, RIGHT, SOLVING, SUBMIT, WITNESS, WRONG, call, make_repository, settings, task
from tests.support.model_server import Answer, Request, serving

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

NOTHING = [PLAN, Answer(text="I do not know."), SUBMIT]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "calculator")


def events(solution: Solution) -> list[trace.Event]:
    return list(trace.read(solution.directory / "trace.jsonl"))


def stops(solution: Solution) -> list[trace.SamplingStopped]:
    return [e for e in events(solution) if isinstance(e, trace.SamplingStopped)]


def test_agreement_on_a_fix_that_the_given_test_shows_is_decisive_and_ends_the_sampling(
    repository: Path, tmp_path: Path
) -> None:
    with serving(SOLVING) as server:
        done = solve(
            task(repository, failing_test=True),
            settings(server.url, tmp_path / "runs", attempts=12, adaptive=True, concurrency=1),
        )
    (stop,) = stops(done)
    assert stop.why == "decisive" and stop.worth >= 0.95
    assert 2 <= len(done.report["attempts"]) == stop.attempts < 6
    assert done.exit_code == 0 and done.report["sampling"]["stopped"] == "decisive"
    (candidate,) = done.report["candidates"]
    assert candidate["attempts"] == list(range(stop.attempts)), "the evidence counts all attempts that agree"
    assert [f.event for f in frames(events(done), 0) if isinstance(f.event, trace.SamplingStopped)] == [stop]


def slow_but_the_second(request: Request) -> Answer:
    """The second attempt solves it at once, the others take their time over every step."""
    answer = SOLVING[request.turn]
    return answer if request.body["seed"] == seed_of(0, 1) else replace(answer, delay=20.0)


def test_a_proved_candidate_ends_a_run_that_was_to_go_on_until_then(repository: Path, tmp_path: Path) -> None:
    with serving(slow_but_the_second) as server:
        done = solve(
            task(repository, failing_test=True),
            settings(server.url, tmp_path / "runs", attempts=6, until="proved", concurrency=3),
        )
        asked = len(server.requests)
        (stop,) = stops(done)
        assert (stop.why, done.exit_code, done.report["selected"]["strength"]) == ("proved", 0, "proved")
        assert {a["index"]: a["status"] for a in done.report["attempts"]} == {
            0: "interrupted",
            1: "submitted",
            2: "interrupted",
        }
        assert asked < 6 + 3, "the others were not waited for"
        again = resume(str(done.directory))
        assert len(server.requests) == asked and again.report["selected"] == done.report["selected"]


def test_nothing_is_broken_off_where_no_candidate_is_that_good(repository: Path, tmp_path: Path) -> None:
    with serving(SOLVING) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, until="proved"))
    assert not stops(done) and [a["status"] for a in done.report["attempts"]] == ["submitted"] * 2
    assert done.report["selected"]["strength"] == "strong"


def test_attempts_that_all_fail_are_hopeless_before_the_last_one(repository: Path, tmp_path: Path) -> None:
    with serving(NOTHING) as server:
        done = solve(
            task(repository),
            settings(server.url, tmp_path / "runs", attempts=200, adaptive=True, worth=1e6, concurrency=4),
        )
    (stop,) = stops(done)
    assert (done.exit_code, stop.why) == (1, "hopeless") and stop.hope < 0.05
    assert len(done.report["attempts"]) < 200


def test_a_solve_that_is_worth_little_ends_when_another_attempt_costs_more(repository: Path, tmp_path: Path) -> None:
    with serving(NOTHING) as server:
        done = solve(
            task(repository),
            settings(server.url, tmp_path / "runs", attempts=50, adaptive=True, worth=0.001, concurrency=1),
        )
    (stop,) = stops(done)
    assert stop.why == "not worth it" and stop.gain * stop.per_solve < stop.usd
    assert 1 <= len(done.report["attempts"]) < 50


def test_candidates_keep_their_evidence_and_names_whatever_order_they_come_in(repository: Path, tmp_path: Path) -> None:
    """The first attempt ends last: what was verified before it stays what it was, and is not verified again."""
    second_witness = WITNESS.replace("[1, 2]) == 3", "[2, 2]) == 4")

    def script(request: Request) -> Answer:
        first = request.body["seed"] == 0
        edit = WRONG if first else RIGHT
        path, text = ("tests/test_a.py", WITNESS) if first else ("tests/test_b.py", second_witness)
        answer = [PLAN, call("witness", path=path, content=text), edit, SUBMIT][min(request.turn, 3)]
        return replace(answer, delay=3.0) if first else answer

    with serving(script) as server:
        done = solve(
            task(repository), settings(server.url, tmp_path / "runs", attempts=2, adaptive=True, concurrency=2)
        )
        asked = len(server.requests)
        verified = [e for e in events(done) if isinstance(e, trace.Verified)]
        assert [(e.candidate, e.attempts, e.early) for e in verified[:2]] == [("c1", (1,), True), ("c2", (0,), True)]
        right, wrong = (next(c for c in done.report["candidates"] if c["attempts"] == [n]) for n in (1, 0))
        assert (right["id"], wrong["id"]) == ("c1", "c2")
        assert set(right["evidence"]["witness"].values()) == {"passed"} and len(right["evidence"]["witness"]) == 2
        assert right["evidence"]["clean"] and wrong["evidence"]["regression"]["broken"]
        assert done.report["selected"]["candidate"] == "c1"
        assert state_of(events(done)).groups == (Group(1, 1),) and state_of(events(done)).failed == 1
        cut = done.directory / "trace.jsonl"
        lines = cut.read_text().splitlines(keepends=True)
        place = max(n for n, line in enumerate(lines) if '"early":true' in line)
        cut.write_text("".join(lines[: place + 1]))
        again = resume(str(done.directory))
        assert len(server.requests) == asked
    assert again.selection == done.selection
    assert [c["id"] for c in again.report["candidates"]] == ["c1", "c2"]


# Evaluations

SEEDS = {seed_of(0, index): index for index in range(16)}


def easy_and_hard(program: str, attempt: int) -> list[Answer]:
    """`largest` is always mended the same way; `pairs` at the sixth attempt and after."""
    right = program == "largest" or attempt >= 5
    return [PLAN, (programs.RIGHT if right else programs.WRONG)[program], SUBMIT]


def evaluating(place: Path, url: str, *more: str) -> list[str]:
    if not (place / "checkout").exists():
        programs.make_checkout(place / "checkout")
    command = [sys.executable, "-m", "agent", "eval", "quixbugs", "--source", str(place / "checkout")]
    command += ["--sandbox", "bubblewrap", "--judge-model", "none", "--json", "--adaptive", "--concurrency", "1"]
    model = [] if "--model" in more else ["--model", f"{url}#scripted"]
    return [*command, "--out", str(place / "runs"), *model, *more]


def evaluated(place: Path, url: str, *more: str) -> dict[str, Any]:
    done = subprocess.run(evaluating(place, url, *more), capture_output=True, text=True, cwd=place, timeout=300)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def gist(report: dict[str, Any]) -> dict[str, Json]:
    """What must not depend on whether a process was killed."""
    return {
        task["id"]: {
            "samples": task["samples"],
            "correct": task["correct"],
            "resolved": task["resolved"],
            "stopped": (task["report"]["sampling"] or {}).get("stopped"),
        }
        for task in report["tasks"]
    }


def test_an_evaluation_spends_on_the_hard_what_the_easy_need_not(tmp_path: Path) -> None:
    with serving(programs.script(SEEDS, easy_and_hard)) as server:
        code = subprocess.run(
            evaluating(tmp_path, server.url, "-n", "8", "--dry-run"), capture_output=True, cwd=tmp_path, timeout=60
        )
        expected = json.loads(code.stdout)
        assert expected["adaptive"] and expected["attempts_left"] == 16
        report = evaluated(tmp_path, server.url, "-n", "8")
        asked = len(server.requests)
        assert evaluated(tmp_path, server.url, "-n", "8") == report
        assert len(server.requests) == asked, "the same command again asks nothing"
    tasks = {task["id"].removeprefix("quixbugs-"): task for task in report["tasks"]}
    assert report["selected"] == report["oracle"] == 2
    assert tasks["largest"]["samples"] <= 3 < 6 <= tasks["pairs"]["samples"]
    assert tasks["largest"]["report"]["sampling"]["stopped"] == "decisive"
    assert report["adaptive"]["common_samples"] == tasks["largest"]["samples"]
    assert report["mean_at_1"] == 0.5, "of as many first attempts of both"
    rows = {row["k"]: row for row in report["coverage"]}
    assert rows[1]["pass_at_k"] == 0.5 and rows[8]["pass_at_k"] is None
    page = (tmp_path / "runs" / "eval-quixbugs" / "report.md").read_text()
    assert "at most 8 attempts" in page and "is no matter of chance" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "many", "by"),
    [
        ("verified", 2, signal.SIGKILL),
        ("attempt-ended", 4, signal.SIGKILL),
        ("sampling-stopped", 1, signal.SIGKILL),
        ("replied", 7, signal.SIGINT),
    ],
)
def test_a_stopped_adaptive_evaluation_comes_to_the_same_end(
    tmp_path: Path, kind: str, many: int, by: signal.Signals
) -> None:
    def slow(request: Request) -> Answer:
        return replace(programs.script(SEEDS, easy_and_hard)(request), delay=0.1)

    with serving(slow) as server:
        whole = gist(evaluated(tmp_path, server.url, "-n", "8"))
        place = tmp_path / "killed"
        place.mkdir()
        command = evaluating(place, server.url, "-n", "8")
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=place)
        traces = place / "runs" / "eval-quixbugs"
        end = time.monotonic() + 120
        while sum(f.read_text().count(f'"kind":"{kind}"') for f in traces.glob("*/trace.jsonl")) < many:
            assert time.monotonic() < end and killed.poll() is None
            time.sleep(0.02)
        killed.send_signal(by)
        killed.wait()
        report = evaluated(place, server.url, "-n", "8")
    assert gist(report) == whole
    for file in traces.glob("*/trace.jsonl"):
        found = list(trace.read(file))
        replied = collections.Counter(e.key for e in found if isinstance(e, trace.Replied))
        assert set(replied.values()) == {1}, "no answered call is paid again"
        early = collections.Counter((e.candidate, e.key) for e in found if isinstance(e, trace.Verified) and e.early)
        assert set(early.values()) <= {1}
        assert sum(isinstance(e, trace.SamplingStopped) for e in found) <= 1


PRICED = """[models.priced]
base_url = "{url}"
name = "scripted"
usd_per_mtok_input = 1.0
usd_per_mtok_output = 1.0
sampling = {{ max_tokens = 100 }}
"""


def test_one_budget_goes_where_it_gains_most_and_is_not_passed(tmp_path: Path) -> None:
    with serving(programs.script(SEEDS, easy_and_hard)) as server:
        (tmp_path / "troop.toml").write_text(PRICED.format(url=server.url))
        free = evaluated(tmp_path, server.url, "-n", "8", "--model", "priced", "--out", str(tmp_path / "free"))
        costs = {task["id"]: task["report"]["cost"]["usd"] for task in free["tasks"]}
        easy, hard = costs["quixbugs-largest"], costs["quixbugs-pairs"]
        cap = easy + 0.8 * hard
        assert cap / 2 < 0.8 * hard, "a fair share would not do"
        more = ("-n", "8", "--model", "priced", "--max-usd", f"{cap:.6f}", "--out", str(tmp_path / "capped"))
        report = evaluated(tmp_path, server.url, *more)
    spent = {task["id"]: task["report"]["cost"]["usd"] for task in report["tasks"]}
    assert sum(spent.values()) <= cap + 1e-9
    assert spent["quixbugs-pairs"] > cap / 2 and sum(spent.values()) > 0.8 * cap
