"""Choosing among patches that exist already, from the command line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness import trace
from harness.lock import RunLock
from harness.records import WitnessTest
from tasks.source import local_task
from tests.support.calculator import FILES, WITNESS, make_repository
from tests.support.command_line import troop
from tests.support.model_server import Answer, Request, serving
from tests.support.repositories import git

ISSUE = """total leaves out the first value

>>> from calc import total
>>> total([1, 2])
2

It should be 3.
"""

CHANGES = {
    "right": ("values[1:]", "values"),
    "agrees": ("values[1:]:", "(values):  # all of them"),
    "hides": ("result += value", "result += value or 0"),
    "breaks": (
        "values[1:]:\n        result += value\n    return result",
        "values:\n        result += value\n    return result or None",
    ),
    "fails": ("values[1:]", "known(values)"),
}


def write_patches(place: Path, changes: Mapping[str, tuple[str, str]]) -> Path:
    """The repository `calculator`, and beside it a directory with one patch for each change; returns the directory."""
    repository = make_repository(place / "calculator")
    folder = place / "tool"
    folder.mkdir()
    for name, (old, new) in changes.items():
        (repository / "calc.py").write_text(FILES["calc.py"].replace(old, new))
        (folder / f"{name}.patch").write_text(git(repository, "diff") + "\n")
    git(repository, "checkout", "-q", ".")
    return folder


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """A directory with one patch of each kind, beside the repository `calculator`."""
    return write_patches(tmp_path, CHANGES)


@pytest.mark.bubblewrap
def test_the_right_patch_is_chosen_by_what_patches_do_and_the_order_can_be_made_again_offline(patches: Path) -> None:
    at = patches.parent
    asked = (
        "calculator",
        "--issue-text",
        ISSUE,
        "--candidates",
        patches,
        "--out",
        at / "run",
        "--sandbox",
        "bubblewrap",
    )
    done = troop("select", *asked, "--json", cwd=at)
    assert done.returncode == 0, done.stderr
    (choice,) = json.loads(done.stdout)["choices"]
    assert sorted(choice["selected"]) == ["tool/agrees.patch", "tool/right.patch"]
    assert (at / "run/selected.patch").read_text() == (patches / "agrees.patch").read_text()
    (prediction,) = map(json.loads, (at / "run/predictions.jsonl").read_text().splitlines())
    assert prediction["model_patch"] == (patches / "agrees.patch").read_text()

    kept = json.loads(next((at / "run/evidence").iterdir()).read_text())
    assert kept["base"]["probes"]["session"][1]["out"] == "2"
    assert sorted(len(f["tests"]["broken"]) for f in kept["found"].values()) == [0, 0, 0, 1, 1]

    again = troop("select", "--from", at / "run", "--ranker", "rules", "--out", at / "rules", "--json", cwd=at)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["choices"][0]["selected"] == choice["selected"]


@pytest.mark.bubblewrap
def test_a_witness_test_of_a_run_speaks_for_the_patch_that_passes_it(patches: Path) -> None:
    at = patches.parent
    run = at / "attempts"
    run.mkdir()
    (run / "run.json").write_text("{}")
    witness = WitnessTest(1, "tests/test_witness.py", WITNESS)
    with contextlib.closing(trace.Trace(run / "trace.jsonl")) as log:
        log.write(
            trace.RunStarted(
                run="attempts",
                task={"id": local_task(at / "calculator", "total is wrong").id},
                settings={},
                versions={},
            )
        )
        for index, name in enumerate(("hides", "right")):
            log.write(trace.AttemptStarted(attempt=index, seed=index, model="m"))
            log.write(trace.WitnessRecorded(attempt=index, turn=1, witness=witness))
            text = (patches / f"{name}.patch").read_text()
            log.write(trace.AttemptEnded(attempt=index, status="submitted", patch=text))
    asked = ("calculator", "--issue-text", "total is wrong", "--candidates", run, "--out", at / "run")
    done = troop("select", *asked, "--sandbox", "bubblewrap", "--json", cwd=at)
    assert done.returncode == 0, done.stderr
    (choice,) = json.loads(done.stdout)["choices"]
    assert choice["selected"] == ["attempts/1"]
    assert "error-gone" in choice["candidates"][0]["parts"]


def test_nothing_is_selected_below_the_threshold(patches: Path) -> None:
    at = patches.parent
    asked = ("calculator", "--issue-text", ISSUE, "--candidates", patches, "--out", at / "run", "--static")
    assert troop("select", *asked, cwd=at).returncode == 0
    strict = troop("select", "--from", at / "run", "--threshold", "1.0", cwd=at)
    assert strict.returncode == 1
    assert "is below 1" in strict.stdout
    assert not (at / "run/selected.patch").exists()
    assert json.loads((at / "run/predictions.jsonl").read_text())["model_patch"] == ""


def test_one_command_at_a_time_writes_to_a_run(patches: Path) -> None:
    at = patches.parent
    asked = ("calculator", "--issue-text", ISSUE, "--candidates", patches, "--out", at / "run", "--static")
    with RunLock(at / "run"):
        done = troop("select", *asked, cwd=at)
    assert done.returncode == 2 and "is being worked on by process" in done.stderr
    assert not (at / "run/samples.jsonl.gz").exists()
    assert troop("select", *asked, cwd=at).returncode == 0


def test_what_cannot_be_is_told_in_one_line(patches: Path) -> None:
    at = patches.parent
    for arguments, said in (
        (("--candidates", patches), "say what to choose for"),
        (("--from", at), "is no run of troop select"),
        (("--from", at, "--ranker", "rules", "--threshold", "0.5"), "--threshold with a number is for the ranker"),
        (("--from", at, "--judge-model", "nobody"), "unknown model 'nobody'"),
        (("calculator", "--issue-text", "x", "--candidates", at / "none.jsonl"), "does not exist"),
    ):
        done = troop("select", *arguments, cwd=at)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


TWO = {"copies": ("values[1:]", "list(values)"), "right": ("values[1:]", "values")}


def judge(request: Request) -> Answer:
    """Writes a test on which the two differ, and goes by it."""
    said = request.body["messages"][-1]["content"]
    if "Write one test" in said:
        return Answer(text="```python\nfrom pathlib import Path\n\nassert 'list' in Path('calc.py').read_text()\n```")
    first, second = said.partition('<patch name="B">')[::2]
    winner = {(True, False): "A", (False, True): "B"}.get(("test passes" in first, "test passes" in second), "tie")
    return Answer(text=json.dumps({"reason": "by the test", "winner": winner}))


@pytest.mark.bubblewrap
@pytest.mark.network
def test_a_judge_decides_between_candidates_that_the_evidence_leaves_close_and_is_charged_once(tmp_path: Path) -> None:
    folder = write_patches(tmp_path, TWO)
    asked = ["calculator", "--issue-text", ISSUE, "--candidates", folder, "--out", tmp_path / "run"]
    with serving(judge) as server:
        asked += ["--sandbox", "bubblewrap", "--judge-model", f"{server.url}#scripted", "--json"]
        done = troop("select", *asked, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        (choice,) = report["choices"]
        assert choice["selected"] == ["tool/copies.patch"]
        assert "copies.patch: 2 regression tests pass, 1 of 1 tests of the judge pass" in choice["rationale"]
        assert sorted(choice["judge"]["test"]["outcomes"].values()) == ["failed", "failed", "passed"]
        assert report["cost"]["by_purpose"]["judge"]["calls"] == len(server.requests) == 1
        again = troop("select", *asked, cwd=tmp_path)
        assert json.loads(again.stdout) == report and len(server.requests) == 1, "what was asked is not asked again"
        capped = troop("select", *asked, "--max-judge-usd", "1", cwd=tmp_path)
        assert capped.returncode == 2 and "--max-judge-usd cannot be kept" in capped.stderr


@pytest.mark.bubblewrap
@pytest.mark.network
def test_a_judge_with_hands_works_on_a_pool_as_it_does_in_a_run(tmp_path: Path) -> None:
    folder = write_patches(tmp_path, TWO)

    def script(request: Request) -> Answer:
        said = request.body["messages"]
        assert "You judge patches" in said[0]["content"] and "result += value" in said[1]["content"]
        ids = re.findall(r'<patch name="(\w+)">', said[1]["content"])
        order = [{"candidate": each, "covers": "all of it"} for each in ids]
        look = [{"name": "search", "arguments": {"pattern": "list", "on": each}} for each in ids]
        end = [{"name": "order", "arguments": {"candidates": order, "none": True}}]
        return Answer(tool_calls=[look, end][min(request.turn, 1)])

    asked = ["calculator", "--issue-text", ISSUE, "--candidates", folder, "--out", tmp_path / "run", "--judge", "hands"]
    with serving(script) as server:
        asked += ["--sandbox", "bubblewrap", "--judge-model", f"{server.url}#scripted", "--json"]
        (choice,) = json.loads(troop("select", *asked, cwd=tmp_path).stdout)["choices"]
        assert [each["points"] for each in choice["judge"]["said"]] == [2.0, 1.0] and len(server.requests) == 2
        assert choice["rationale"].endswith("The judge found that no candidate solves the issue.")
        (again,) = json.loads(troop("select", *asked, cwd=tmp_path).stdout)["choices"]
        assert again == choice and len(server.requests) == 2
    (log,) = (tmp_path / "run/judge").glob("*.jsonl")
    said = [e for e in trace.read(log) if isinstance(e, trace.ToolRan)]
    assert sorted("calc.py:" in e.result for e in said if e.name == "search") == [False, True]
