"""The order of a solve's candidates by the ranker, on evidence found in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent import resume, solve
from agent.assemble import Solution
from harness import trace
from harness.records import Budget
from tasks.errors import InputError
from tasks.task import Repository, Task
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, make_repository, settings
from tests.support.model_server import Answer, Request, serving

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

ISSUE = """total leaves out the first value

>>> from calc import total
>>> total([1, 2])
2

It should be 3.
"""

HIDES = call("edit", path="calc.py", old="        result += value", new="        result += value or 0")
"""Changes the code, breaks nothing, and does not mend what the issue shows."""


def two_ways(request: Request) -> Answer:
    return [PLAN, HIDES if request.body["temperature"] == 0.6 else RIGHT, SUBMIT][min(request.turn, 2)]


def solved(tmp_path: Path, attempts: int = 2, **more: Any) -> Solution:
    repository = make_repository(tmp_path / "calculator")
    issue = Task("calculator", Repository("path", str(repository)), ISSUE)
    with serving(two_ways) as server:
        given = settings(server.url, tmp_path / "runs", attempts=attempts, judge_model="none", **more)
        return solve(issue, given)


def events(solution: Solution) -> list[trace.Event]:
    return list(trace.read(solution.directory / "trace.jsonl"))


def probed(solution: Solution) -> list[trace.Probed]:
    return [e for e in events(solution) if isinstance(e, trace.Probed)]


def test_what_the_issues_own_code_does_on_each_candidate_decides_and_is_found_out_once(tmp_path: Path) -> None:
    done = solved(tmp_path)
    assert done.patch is not None and "in values:" in done.patch
    chosen, ranking = done.report["selected"], done.report["ranking"]
    assert (chosen["candidate"], chosen["method"], chosen["ranker"]) == ("c2", "probability", "evidence")
    assert [row["candidate"] for row in ranking] == ["c2", "c1"]
    assert chosen["confidence"] == pytest.approx(ranking[0]["probability"], abs=1e-3)
    assert ranking[0]["probability"] > ranking[1]["probability"] and ranking[0]["parts"]
    assert len(probed(done)) == 3, "the base and two candidates"
    assert [step["out"] for step in probed(done)[0].shown["session"]] == ["", "2"]
    assert [step["out"] for step in probed(done)[2].shown["session"]] == ["", "3"]

    log = done.directory / "trace.jsonl"
    kept = [line for line in log.read_bytes().splitlines(keepends=True) if b'"selected"' not in line]
    log.write_bytes(b"".join(line for line in kept if json.loads(line)["kind"] not in ("selected", "run-ended")))
    again = resume(str(done.directory))
    assert len(probed(again)) == 3 and again.report["ranking"] == ranking


def test_with_one_acceptable_candidate_nothing_more_is_run(tmp_path: Path) -> None:
    done = solved(tmp_path, attempts=1)
    assert done.report["selected"]["method"] == "only-candidate"
    assert 0 < done.report["selected"]["confidence"] < 1
    assert not probed(done)


def test_nothing_is_selected_below_the_threshold(tmp_path: Path) -> None:
    done = solved(tmp_path, threshold=0.99)
    assert done.exit_code == 1 and done.patch is None and done.report["status"] == "none"
    assert done.selection is not None and "is below 0.99" in done.selection.rationale
    assert all("probability" in row for row in done.report["ranking"])


def test_the_rules_are_still_to_be_had(tmp_path: Path) -> None:
    done = solved(tmp_path, ranker="rules")
    assert done.report["selected"]["ranker"] == "rules" and done.report["selected"]["method"] == "first"
    assert "probability" not in done.report["ranking"][0]
    assert not probed(done)


def test_a_threshold_needs_the_ranker(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--threshold is for the ranker's probability"):
        solved(tmp_path, threshold=0.5, models=("repair",))


def test_a_cap_on_a_judge_without_a_price_is_refused(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(two_ways) as server, pytest.raises(InputError, match="--max-judge-usd cannot be kept"):
        given = settings(server.url, tmp_path / "runs", budget=Budget(judge_usd=1.0))
        solve(Task("calculator", Repository("path", str(repository)), ISSUE), given)
