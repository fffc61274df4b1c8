"""`troop eval` as a user runs it: real processes, sandboxes and HTTP, a scripted model on two small programs."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.run.executor import seed_of
from harness import trace
from tests.support.calculator import PLAN, SUBMIT
from tests.support.model_server import Answer, Request, error, serving
from tests.support.programs import OTHER_WRONG, RIGHT, WRONG, make_checkout, script

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

SEEDS = {seed_of(0, index): index for index in range(16)}
CHEAP = """[models.priced]
base_url = "{url}"
name = "scripted"
usd_per_mtok_input = 1.0
usd_per_mtok_output = 1.0
sampling = {{ max_tokens = 100 }}
"""


def say(program: str, attempt: int) -> list[Answer]:
    """Attempt 0 is wrong, 1 right, 2 says nothing usable, 3 is right again, 4 and on are wrong in another way."""
    edits = [WRONG[program], RIGHT[program], Answer(text="I do not know."), RIGHT[program]]
    return [PLAN, edits[attempt] if attempt < len(edits) else OTHER_WRONG[program], SUBMIT]


def evaluating(place: Path, url: str, *more: str) -> list[str]:
    if not (place / "checkout").exists():
        make_checkout(place / "checkout")
    command = [sys.executable, "-m", "agent", "eval", "quixbugs", "--source", str(place / "checkout")]
    return [
        *command,
        "--out",
        str(place / "runs"),
        "--sandbox",
        "bubblewrap",
        "--judge-model",
        "none",
        *_model(url, more),
    ]


def _model(url: str, more: tuple[str, ...]) -> list[str]:
    return list(more) if "--model" in more else ["--model", f"{url}#scripted", *more]


def run(place: Path, url: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, the report, what was said) of `troop eval --json`."""
    done = subprocess.run(
        [*evaluating(place, url, *more), "--json"], capture_output=True, text=True, cwd=place, timeout=300
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def events(place: Path, program: str) -> list[trace.Event]:
    return list(trace.read(place / "runs" / "eval-quixbugs" / f"quixbugs-{program}" / "trace.jsonl"))


def predictions(place: Path, name: str) -> dict[str, str]:
    lines = (place / "runs" / "eval-quixbugs" / name).read_text().splitlines()
    return {row["instance_id"]: row["model_patch"] for row in map(json.loads, lines)}


@pytest.mark.slow
def test_a_larger_n_adds_attempts_to_finished_instances_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    with serving(script(SEEDS, say)) as server:
        code, first, said = run(tmp_path, server.url, "-n", "2")
        assert (code, first["instances"], first["selected"], first["oracle"]) == (0, 2, 2, 2), said
        assert [row["pass_at_k"] for row in first["coverage"]] == [0.5, 1.0]
        before = len(server.requests)
        assert run(tmp_path, server.url, "-n", "2")[1] == first
        assert len(server.requests) == before, "the same command again asks nothing"
        code, report, said = run(tmp_path, server.url, "-n", "5")
        asked = collections.Counter(SEEDS[int(r.body["seed"])] for r in server.requests[before:])
    assert code == 0 and set(asked) == {2, 3, 4}
    assert report["attempts"] == 5 and report["candidates"] == 6
    for task in report["tasks"]:
        assert (task["samples"], task["correct"], task["resolved"]) == (5, 2, True), said
        by_candidate = {c["id"]: c["attempts"] for c in task["report"]["candidates"]}
        assert by_candidate == {"c1": [0], "c2": [1, 3], "c3": [4]}, "candidates keep their ids"
        assert task["report"]["attempts"][2]["candidate"] is None
    for program in ("largest", "pairs"):
        found = events(tmp_path, program)
        assert [e.attempts for e in found if isinstance(e, trace.RunReopened)] == [5]
        graded = [e.candidate for e in found if isinstance(e, trace.Graded)]
        assert sorted(graded) == ["c1", "c2", "c3"], "no candidate is graded twice"
        keys = [e.key for e in found if isinstance(e, trace.Replied)]
        assert len(keys) == len(set(keys))
    assert predictions(tmp_path, "predictions-03.jsonl") == {"quixbugs-largest": "", "quixbugs-pairs": ""}
    assert predictions(tmp_path, "predictions-02.jsonl") == predictions(tmp_path, "predictions.jsonl")


def test_a_smaller_n_or_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    with serving(script(SEEDS, say)) as server:
        assert run(tmp_path, server.url, "-n", "2", "--instances", "*pairs")[0] == 0
        code, refusal, _ = run(tmp_path, server.url, "-n", "1")
        assert code == 2 and "--attempts 2 there, 1 now" in refusal["error"]
        code, refusal, _ = run(tmp_path, server.url, "-n", "2", "--max-turns", "9", "--memory", "2048")
        assert code == 2 and "--max-turns 50 there, 9 now" in refusal["error"] and "--memory 4096" in refusal["error"]


def test_what_the_world_broke_is_made_again_on_request_and_nothing_else(tmp_path: Path) -> None:
    broken = True

    def falling(request: Request) -> Answer:
        if broken and SEEDS[int(request.body["seed"])] == 1:
            return error(401, "the key has expired")
        return script(SEEDS, say)(request)

    one = ("-n", "3", "--instances", "*pairs", "--concurrency", "1")
    with serving(falling) as server:
        code, first, said = run(tmp_path, server.url, *one)
        assert code == 0 and first["infrastructure"]["attempts"] == 1, said
        assert [row["pass_at_k"] for row in first["coverage"]] == [0.0, None, None]
        assert "quixbugs-pairs" not in predictions(tmp_path, "predictions-02.jsonl"), "it is no sample"
        before = len(server.requests)
        broken = False
        assert run(tmp_path, server.url, *one)[1] == first
        assert len(server.requests) == before, "the same command again leaves it as it is"
        code, report, said = run(tmp_path, server.url, *one, "--retry", "infrastructure")
        asked = {SEEDS[int(r.body["seed"])] for r in server.requests[before:]}
    assert code == 0 and asked == {1, 2}, said
    (task,) = report["tasks"]
    assert (task["samples"], task["correct"], task["resolved"]) == (3, 1, True)
    assert report["infrastructure"]["attempts"] == 0 and report["statuses"] == {"submitted": 3}


def test_one_budget_is_shared_fairly_never_passed_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    with serving(script(SEEDS, say)) as server:
        (tmp_path / "troop.toml").write_text(CHEAP.format(url=server.url))
        code, free, said = run(tmp_path, server.url, "--model", "priced", "-n", "2", "--out", "free")
        assert code == 0 and free["usd"] > 0, said
        cap = 0.6 * free["usd"]
        more = ("--model", "priced", "-n", "2", "--out", "capped")
        code, first, said = run(tmp_path, server.url, *more, "--max-usd", f"{cap:.6f}")
        assert first["usd"] <= cap + 1e-6, "attempts at the same time passed the cap"
        costs = [task["report"]["cost"]["usd"] for task in first["tasks"]]
        assert all(usd <= cap / 2 + 1e-6 for usd in costs), "an instance took what another one waited for"
        assert min(costs) > 0 and first["statuses"].get("budget", 0) >= 1
        assert first["budget"]["usd"] == pytest.approx(cap, abs=1e-6)
        code, report, said = run(tmp_path, server.url, *more, "--max-usd", "5")
    assert (code, report["statuses"]) == (0, {"submitted": 4}), said
    assert report["usd"] == pytest.approx(free["usd"], rel=0.05), "what was answered before was paid once"
    assert report["selected"] == 2


def test_ctrl_c_leaves_a_report_of_what_is_done_and_the_same_command_goes_on(tmp_path: Path) -> None:
    hurried = False

    def slow(request: Request) -> Answer:
        answer = script(SEEDS, say)(request)
        return answer if hurried or b"largest.py" in request.raw else replace(answer, delay=20.0)

    out = tmp_path / "runs" / "eval-quixbugs"
    largest = out / "quixbugs-largest" / "trace.jsonl"
    with serving(slow) as server:
        stopped = subprocess.Popen(
            evaluating(tmp_path, server.url, "-n", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
        )
        wait_for(lambda: largest.exists() and largest.read_text().count('"graded"') == 2)
        time.sleep(1.0)
        stopped.send_signal(signal.SIGINT)
        _, complained = stopped.communicate(timeout=60)
        assert stopped.returncode == 130
        assert "interrupted; the same command goes on where it stopped" in complained.decode()
        assert "Traceback" not in complained.decode()
        report = json.loads((out / "report.json").read_text())
        assert (report["instances"], report["unfinished"], report["selected"]) == (2, 1, 1)
        assert "1 instance unfinished: the same command goes on" in (out / "report.md").read_text()
        hurried = True
        before = len(server.requests)
        code, report, said = run(tmp_path, server.url, "-n", "2")
        assert not [r for r in server.requests[before:] if b"largest.py" in r.raw]
    assert (code, report["unfinished"], report["selected"]) == (0, 0, 2), said


def test_a_dry_run_prices_what_is_left_and_starts_nothing(tmp_path: Path) -> None:
    with serving(script(SEEDS, say)) as server:
        (tmp_path / "troop.toml").write_text(CHEAP.format(url=server.url))
        code, expected, _ = run(tmp_path, server.url, "--model", "priced", "-n", "2", "--dry-run")
        assert code == 0 and not (tmp_path / "runs" / "eval-quixbugs" / "eval.json").exists()
        assert expected["models"][0]["source"].startswith("assumed: 25 turns")
        assert expected["usd"] == pytest.approx(4 * 25 * 12_400 * 1e-6)
        assert run(tmp_path, server.url, "--model", "priced", "-n", "1", "--instances", "*pairs")[0] == 0
        before = len(server.requests)
        code, expected, _ = run(tmp_path, server.url, "--model", "priced", "-n", "3", "--dry-run")
        assert len(server.requests) == before
    assert [(row["state"], row["attempts_left"]) for row in expected["instances"]] == [("new", 3), ("more attempts", 2)]
    (model,) = expected["models"]
    assert model["source"].startswith("the mean of 1 attempt in ") and 0 < model["usd"] < 0.02
    assert expected["usd"] == pytest.approx(5 * model["usd"])


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_what_was_only_solved_is_graded_later_as_far_as_is_asked_for(tmp_path: Path) -> None:
    one = ("-n", "2", "--instances", "*pairs")
    with serving(script(SEEDS, say)) as server:
        code, report, said = run(tmp_path, server.url, *one, "--no-grade")
        assert code == 0 and report["selected"] is report["oracle"] is None, said
        before = len(server.requests)
        assert not [e for e in events(tmp_path, "pairs") if isinstance(e, trace.Graded)]
        code, report, said = run(tmp_path, server.url, *one, "--grade", "selected")
        assert (report["selected"], report["oracle"]) == (1, None), said
        assert [e.candidate for e in events(tmp_path, "pairs") if isinstance(e, trace.Graded)] == ["c2"]
        code, report, said = run(tmp_path, server.url, *one)
        assert (report["selected"], report["oracle"], report["mean_at_1"]) == (1, 1, 0.5), said
        assert len(server.requests) == before, "grading asks no model"
    assert [e.candidate for e in events(tmp_path, "pairs") if isinstance(e, trace.Graded)] == ["c2", "c1"]


def test_a_cap_that_cannot_be_kept_is_refused_whatever_is_there_already(tmp_path: Path) -> None:
    with serving(script(SEEDS, say)) as server:
        assert run(tmp_path, server.url, "-n", "1", "--instances", "*pairs")[0] == 0
        code, refusal, _ = run(tmp_path, server.url, "-n", "2", "--instances", "*pairs", "--max-usd", "1")
    assert code == 2 and "--max-usd cannot be kept: the price of scripted is not known" in refusal["error"]
