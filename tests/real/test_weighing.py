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
from tests.support.calculator import PLAN, RIGHT, SUBMIT, WITNESS, call, make_repository, settings
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
    assert (chosen["candidate"], chosen["method"], chosen["ranker"]) == ("c2", "probe", "evidence")
    assert [row["candidate"] for row in ranking] == ["c2", "c1"]
    assert (chosen["confidence"], chosen["calibrated_on"]) == (None, None), "not where regression tests had passed"
    assert ranking[0]["score"] > ranking[1]["score"] and ranking[0]["parts"]
    assert len(probed(done)) == 3, "the base and two candidates"
    assert [step["out"] for step in probed(done)[0].shown["session"]] == ["", "2"]
    assert [step["out"] for step in probed(done)[2].shown["session"]] == ["", "3"]

    log = done.directory / "trace.jsonl"
    kept = [line for line in log.read_bytes().splitlines(keepends=True) if b'"selected"' not in line]
    log.write_bytes(b"".join(line for line in kept if json.loads(line)["kind"] not in ("selected", "run-ended")))
    again = resume(str(done.directory))
    assert len(probed(again)) == 3 and again.report["ranking"] == ranking


LISTS = "def test_lists():\n    with pytest.raises(TypeError, match='give a list please'):\n        total(7)\n"
"""A test of something that nobody asked for."""


def test_a_witness_of_what_nobody_stated_weighs_less_than_one_of_what_the_issue_says(tmp_path: Path) -> None:
    refuses = "    if not isinstance(values, list):\n        raise TypeError('give a list please')\n    result = 0\n"
    guesses = call("edit", path="calc.py", old="    result = 0\n", new=refuses)
    guessed = call("witness", path="test_lists.py", content=f"import pytest\n\nfrom calc import total\n\n\n{LISTS}")
    stated = call("witness", path="test_first.py", content=WITNESS)

    def script(request: Request) -> Answer:
        hasty = request.body["temperature"] == 0.6
        return [PLAN, guessed if hasty else stated, guesses if hasty else RIGHT, SUBMIT, SUBMIT][min(request.turn, 4)]

    repository = make_repository(tmp_path / "calculator")
    issue = "The first value is left out of the sum: of 1 and 2 it is 2, where 3 is expected.\n"
    with serving(script) as server:
        given = settings(server.url, tmp_path / "runs", attempts=2, judge_model="none", ranker="rules")
        done = solve(Task("calculator", Repository("path", str(repository)), issue), given)
    witnesses = [list(c["evidence"]["witness"].values()) for c in done.report["candidates"]]
    assert sorted(witnesses) == [["failed", "passed"], ["passed", "failed"]], "each passes its own test alone"
    chosen = done.report["selected"]
    assert chosen["method"] == "witness" and done.patch is not None and "in values:" in done.patch


def test_with_one_acceptable_candidate_nothing_more_is_run(tmp_path: Path) -> None:
    done = solved(tmp_path, attempts=1)
    assert done.report["selected"]["method"] == "only-candidate"
    assert done.report["selected"]["strength"] == "guess"
    assert not probed(done)


def test_nothing_is_selected_below_the_threshold(tmp_path: Path) -> None:
    done = solved(tmp_path, threshold=0.99)
    assert done.exit_code == 1 and done.patch is None and done.report["status"] == "none"
    assert done.selection is not None and "that is below 0.99" in done.selection.rationale
    assert all("score" in row for row in done.report["ranking"])


def test_the_rules_are_still_to_be_had(tmp_path: Path) -> None:
    done = solved(tmp_path, ranker="rules")
    assert done.report["selected"]["ranker"] == "rules" and done.report["selected"]["method"] == "first"
    assert "score" not in done.report["ranking"][0]
    assert not probed(done)


def test_a_number_as_threshold_needs_the_ranker(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--threshold with a number is for the ranker's probability"):
        solved(tmp_path, threshold=0.5, models=("repair",))


def test_a_word_as_threshold_needs_no_ranker_and_survives_a_resume(tmp_path: Path) -> None:
    done = solved(tmp_path, threshold="likely", ranker="rules")
    assert done.exit_code == 1 and done.selection is not None and "less than likely" in done.selection.rationale
    again = resume(str(done.directory))
    assert again.report["status"] == "none"


def test_a_cap_on_a_judge_without_a_price_is_refused(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(two_ways) as server, pytest.raises(InputError, match="--max-judge-usd cannot be kept"):
        given = settings(server.url, tmp_path / "runs", budget=Budget(judge_usd=1.0))
        solve(Task("calculator", Repository("path", str(repository)), ISSUE), given)
