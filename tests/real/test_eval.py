"""`troop eval` as a user runs it: real processes, sandboxes and HTTP, a scripted model on two small programs."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.solver import seed_of
from harness import trace
from tests.support.calculator import PLAN, SUBMIT
from tests.support.model_server import Answer, serving
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
