"""Choosing among patches that exist already, from the command line."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.assemble import start, without_attempts
from agent.config import Settings
from agent.run_files import RunFiles
from harness import trace
from harness.choosing.pool import read_candidates
from harness.records import Charge, Usage, WitnessTest
from tasks.errors import InputError
from tasks.source import local_task
from tests.support.calculator import FILES, PLAN, SUBMIT, WITNESS, call, make_repository
from tests.support.command_line import TROOP, troop
from tests.support.model_server import Answer, Request, serving
from tests.support.programs import make_checkout
from tests.support.repositories import git
from tests.support.waiting import wait_for

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


def run_of(place: Path) -> Path:
    """The only run below `place`."""
    (found,) = (place / "runs").iterdir()
    return found


def asked(place: Path, *candidates: object, issue: str = ISSUE) -> tuple[object, ...]:
    return ("calculator", "--issue-text", issue, "--sandbox", "bubblewrap", "--candidates", *candidates)


@pytest.mark.bubblewrap
def test_a_run_among_patches_verifies_chooses_and_reports_as_one_that_made_them(patches: Path) -> None:
    at = patches.parent
    done = troop("select", *asked(at, patches), cwd=at, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    run, lines = run_of(at), done.stdout.splitlines()
    assert lines[0] == "total leaves out the first value" and "5 patches in" in lines[1]
    assert "from: tool/agrees.patch" in lines
    others = {line.partition(")")[0].partition("(")[2]: line for line in lines if line.startswith("c")}
    assert "breaks tests/test_calc.py::test_total_of_nothing" in others["tool/breaks.patch"]
    assert max(map(len, lines)) <= 80 or all(" " not in line for line in lines if len(line) > 80)
    report = json.loads((run / "report.json").read_text())
    names = {row["candidate"]: row["name"] for row in report["attempts"]}
    assert [names[row["candidate"]] for row in report["ranking"]][:3] == [
        "tool/agrees.patch",
        "tool/right.patch",
        "tool/hides.patch",
    ], "the issue's own code is as it was with the third"
    assert {row["status"] for row in report["attempts"]} == {"given"} and report["models"] == ["tool"]
    assert (run / "selected.patch").read_text() == (patches / "agrees.patch").read_text()
    (prediction,) = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    assert prediction["model_patch"] == (patches / "agrees.patch").read_text()
    again = troop("resume", run, "--apply", "--json", cwd=at)
    assert json.loads(again.stdout)["selected"] == report["selected"], "a finished run is shown as it is"
    assert "tool/hides.patch" in troop("replay", run, "--attempt", "3", cwd=at).stdout
    assert "tool/agrees.patch" in troop("report", run, "--markdown", cwd=at).stdout
    page = at / "page.html"
    assert troop("report", run, "--html", page, cwd=at).returncode == 0 and "tool/fails.patch" in page.read_text()


@pytest.mark.bubblewrap
def test_a_run_killed_while_it_verifies_is_resumed(patches: Path) -> None:
    at = patches.parent
    command = [*TROOP, "select", *map(str, asked(at, patches))]
    process = subprocess.Popen(command, cwd=at, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def verified() -> int:
        logs = list(at.glob("runs/*/trace.jsonl"))
        return logs[0].read_text().count('"kind":"verified"') if logs else 0

    wait_for(lambda: verified() > 0)
    process.kill()
    process.wait()
    done = troop("resume", run_of(at), "--json", cwd=at)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["selected"]["candidate"] == "c1" and len(report["candidates"]) == 5
    assert verified() == 5, "what was verified is not verified again"


def test_a_process_that_dies_while_patches_are_handed_in_leaves_no_run_with_fewer(
    patches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = read_candidates([patches], "calculator")
    task, out = local_task(patches.parent / "calculator", ISSUE), patches.parent / "run"

    def begun() -> int:
        start(task, without_attempts(Settings(out=out.parent)), directory=out, given=given)
        return sum(isinstance(event, trace.AttemptEnded) for event in trace.read(out / "trace.jsonl"))

    with monkeypatch.context() as patch:
        patch.setattr(trace.Trace, "write", dying(trace.Trace.write, after=5))
        with pytest.raises(MemoryError):
            begun()
    with pytest.raises(InputError, match="not a run directory"):
        RunFiles(out).read_run()
    assert begun() == len(given) == 5


def dying(write: Callable[..., Any], after: int) -> Callable[..., Any]:
    """The same, until it has been called so many times."""
    calls = itertools.count()

    def once(*arguments: Any) -> Any:
        if next(calls) == after:
            raise MemoryError
        return write(*arguments)

    return once


@pytest.mark.bubblewrap
def test_an_attempt_of_another_run_brings_its_witness_test_and_can_be_replayed(patches: Path) -> None:
    at = patches.parent
    run = at / "attempts"
    run.mkdir()
    (run / "run.json").write_text("{}")
    witness = WitnessTest(1, "tests/test_witness.py", WITNESS)
    charge = Charge(0, "act", "m", Usage(100), 0.5, "alias", 1.0)
    with contextlib.closing(trace.Trace(run / "trace.jsonl")) as log:
        id = local_task(at / "calculator", "total is wrong").id
        log.write(trace.RunStarted(run="attempts", task={"id": id}, settings={}, versions={}))
        for index, name in enumerate(("hides", "right")):
            log.write(trace.AttemptStarted(attempt=index, seed=index, model="m"))
            log.write(trace.Replied(attempt=index, key=f"{index}/1", message={}, charge=charge))
            log.write(trace.Decided(attempt=index, turn=1, text=f"I try the {name} way"))
            log.write(trace.WitnessRecorded(attempt=index, turn=1, witness=witness))
            log.write(trace.TurnEnded(attempt=index, turn=1, seconds=1.0))
            text = (patches / f"{name}.patch").read_text()
            log.write(trace.AttemptEnded(attempt=index, status="submitted", patch=text, turns=1))
    done = troop("select", *asked(at, patches / "fails.patch", run, issue="total is wrong"), "--json", cwd=at)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["name"] for row in report["attempts"]] == [str(patches / "fails.patch"), "attempts/0", "attempts/1"]
    assert [row["status"] for row in report["attempts"]] == ["given", "submitted", "submitted"]
    assert report["selected"]["attempt"] == 2 and report["selected"]["method"] == "witness"
    assert report["cost"]["calls"] == 0, "the attempts were paid for in their own run"
    assert "I try the right way" in troop("replay", run_of(at), "--attempt", "2", cwd=at).stdout


@pytest.mark.bubblewrap
def test_nothing_is_selected_that_is_shown_less_than_was_asked(patches: Path) -> None:
    at = patches.parent
    strict = troop("select", *asked(at, patches), "--threshold", "likely", cwd=at)
    assert strict.returncode == 1
    assert "Nothing was selected" in strict.stdout and "which is less than likely" in strict.stdout
    assert not (run_of(at) / "selected.patch").exists()
    assert json.loads((run_of(at) / "predictions.jsonl").read_text())["model_patch"] == ""


def test_what_cannot_be_is_told_in_one_line(patches: Path) -> None:
    at = patches.parent
    elsewhere = at / "p.jsonl"
    elsewhere.write_text(json.dumps({"instance_id": "a__b-1", "model_patch": "diff"}) + "\n")
    for arguments, said in (
        (asked(at, at / "none.jsonl"), "none.jsonl: No such file"),
        (asked(at, elsewhere), "none of the candidates is for calculator-"),
        ((*asked(at, patches), "--ranker", "rules", "--threshold", "0.5"), "--threshold with a number is for"),
        ((*asked(at, patches), "--judge-model", "nobody"), "unknown model 'nobody'"),
        ((*asked(at, patches), "--grade"), "--grade needs hidden tests"),
        (("quixbugs", "--candidates", patches), "quixbugs needs --source DIR"),
    ):
        done = troop("select", *arguments, cwd=at)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (at / "runs").exists()


@pytest.mark.bubblewrap
@pytest.mark.network
def test_the_instances_of_a_suite_get_a_run_each_and_the_same_command_goes_on(tmp_path: Path) -> None:
    make_checkout(tmp_path / "checkout")
    file = tmp_path / "m.jsonl"
    changes = [
        ("largest", RIGHT_PATCH),
        ("largest", WRONG_PATCH),
        ("pairs", "no diff at all"),
        ("nowhere", RIGHT_PATCH),
    ]
    rows = [
        {"instance_id": f"quixbugs-{name}", "model_name_or_path": "m", "model_patch": patch} for name, patch in changes
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("quixbugs", "--source", tmp_path / "checkout", "--sandbox", "bubblewrap", "--candidates")
    done = troop("select", *command, file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs/select-quixbugs"
    lines = done.stdout.splitlines()
    assert lines[0] == f"quixbugs-largest: proved by a failing test that passes now: m@{file}" and lines[1].startswith(
        "quixbugs-pairs: nothing selected"
    )
    predicted = {
        row["instance_id"]: row for row in map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    }
    assert predicted["quixbugs-largest"]["model_patch"] == RIGHT_PATCH
    assert predicted["quixbugs-pairs"]["model_patch"] == ""
    log = out / "quixbugs-largest/trace.jsonl"
    before = log.read_text()
    assert troop("select", *command, file, cwd=tmp_path).stdout == done.stdout and log.read_text() == before
    file.write_text(file.read_text().replace(json.dumps(WRONG_PATCH), json.dumps(WRONG_PATCH + "\n")))
    other = troop("select", *command, file, cwd=tmp_path)
    assert other.returncode == 2 and "other candidates" in other.stderr


def _largest(new: str) -> str:
    """A patch of the suite's program `largest`."""
    head = "diff --git a/largest.py b/largest.py\n--- a/largest.py\n+++ b/largest.py\n@@ -1,3 +1,3 @@\n"
    return f"{head} def largest(numbers):\n     numbers.sort()\n-    return numbers[0]\n+    return numbers[{new}]\n"


RIGHT_PATCH, WRONG_PATCH = _largest("-1"), _largest("1")

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
    with serving(judge) as server:
        command = [*asked(tmp_path, folder), "--judge-model", f"{server.url}#scripted", "--json"]
        done = troop("select", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        names = {row["candidate"]: row["name"] for row in report["attempts"]}
        assert names[report["selected"]["candidate"]] == "tool/copies.patch"
        assert report["selected"]["method"] == "judge-test"
        assert sorted(report["judge"]["test"]["outcomes"].values()) == ["failed", "failed", "passed"]
        assert report["cost"]["by_purpose"]["judge"]["calls"] == 1
        asked_before = len(server.requests)
        again = troop("resume", run_of(tmp_path), "--json", cwd=tmp_path)
        assert json.loads(again.stdout)["selected"] == report["selected"]
        assert len(server.requests) == asked_before, "what was asked is not asked again"
        capped = troop("select", *command, "--max-judge-usd", "1", cwd=tmp_path)
        assert capped.returncode == 2 and "--max-judge-usd cannot be kept" in capped.stderr


@pytest.mark.bubblewrap
@pytest.mark.network
def test_where_it_is_a_tie_more_tests_are_written_by_the_judges_model(tmp_path: Path) -> None:
    folder = write_patches(tmp_path, TWO)
    text = "from pathlib import Path\n\nfrom calc import total\n\n\ndef test_first():\n    assert total([1, 2]) == 3\n"
    text += "    assert 'list' in Path('calc.py').read_text()\n"
    tells = call("witness", path="tests/test_w.py", content=text)
    with serving(lambda request: [PLAN, SUBMIT, tells, SUBMIT][request.turn]) as server:
        command = [*asked(tmp_path, folder), "--tie-witnesses", "1", "--judge", "none", "--json"]
        report = json.loads(troop("select", *command, "--judge-model", f"{server.url}#scripted", cwd=tmp_path).stdout)
        assert len(server.requests) == 4
    assert report["selected"]["method"] == "witness"
    assert [row["name"] for row in report["attempts"]] == ["tool/copies.patch", "tool/right.patch"]
    nobody = troop("select", *command, cwd=tmp_path)
    assert nobody.returncode == 2 and "give --judge-model NAME" in nobody.stderr


@pytest.mark.bubblewrap
@pytest.mark.network
def test_a_judge_with_hands_works_on_patches_that_were_handed_in(tmp_path: Path) -> None:
    folder = write_patches(tmp_path, TWO)

    def script(request: Request) -> Answer:
        said = request.body["messages"]
        if "You judge patches" not in said[0]["content"]:
            return Answer(text="here")
        ids = re.findall(r'<patch name="(\w+)">', said[1]["content"])
        order = [{"candidate": each, "covers": "all of it"} for each in ids]
        look = [{"name": "search", "arguments": {"pattern": "list", "on": each}} for each in ids]
        end = [{"name": "order", "arguments": {"candidates": order, "none": True}}]
        return Answer(tool_calls=[look, end][min(request.turn, 1)])

    with serving(script) as server:
        model = ("--judge", "hands", "--judge-model", f"{server.url}#scripted")
        report = json.loads(troop("select", *asked(tmp_path, folder), *model, "--json", cwd=tmp_path).stdout)
    assert [each["points"] for each in report["judge"]["said"]] == [2.0, 1.0]
    assert report["selected"]["rationale"].endswith("The judge found that no candidate solves the issue.")
    said = [e for e in trace.read(run_of(tmp_path) / "trace.jsonl") if isinstance(e, trace.ToolRan)]
    assert sorted("calc.py:" in e.result for e in said if e.name == "search") == [False, True]
