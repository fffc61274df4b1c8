"""The judge's own test: written for the finalists of a solve, run in real sandboxes, and weighed by the judge."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agent import resume, solve
from agent.assemble import Solution
from harness import trace
from harness.environments import environment
from harness.environments.clean_room import CleanRoom
from harness.records import Budget
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Provider
from harness.suites.instances import grade
from harness.views.replay_frames import frames, render
from tasks.taskfile import load_task_file
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, make_repository, settings, task
from tests.support.model_server import Answer, Request, error, serving

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

EXAMPLES = Path(__file__).parents[2] / "tasks" / "examples"

FORGETFUL = call("edit", path="inflection.py", old="'?[a-z])", new="'?[a-zà-ÿа-я])")
THOROUGH = call("edit", path="inflection.py", old="'?[a-z])", new="'?\\w)")
"""Both do what the issue shows; only the second does what it says: every alphabet."""

GREEK = """Greek is an alphabet, too:

```python
# path: test_greek.py
from inflection import titleize


def test_every_alphabet():
    assert titleize("άλφα βήτα") == "Άλφα Βήτα"


def test_what_always_worked():
    assert titleize("ana maria") == "Ana Maria"
```
"""

COPIES = call("edit", path="calc.py", old="    for value in values[1:]:\n", new="    for value in list(values):\n")


def kinds(solution: Solution, kind: type[trace.Event]) -> list[trace.Event]:
    return [e for e in trace.read(solution.directory / "trace.jsonl") if isinstance(e, kind)]


def asked(request: Request) -> str:
    """The last thing that the request says."""
    said: str = request.body["messages"][-1]["content"]
    return said


def wants_test(request: Request) -> bool:
    return "Write one test on which they are likely to differ" in asked(request)


def parts(question: str) -> tuple[str, str]:
    """What a comparison says of A, and of B."""
    first, _, second = question.partition('<patch name="B">')
    return first.partition('<patch name="A">')[2], second


def told_by(mark: str, question: str) -> Answer:
    """A judge that takes the patch of which the mark is said; a tie where it is said of both or none."""
    first, second = (mark in part for part in parts(question))
    return Answer(text=json.dumps({"reason": mark, "winner": "tie" if first == second else "A" if first else "B"}))


def two_ways(request: Request, test: str, mark: str = "list(values)") -> Answer:
    """Two attempts at the calculator that tests cannot tell apart, and a judge."""
    if wants_test(request):
        return Answer(text=test)
    if "Two patches, A and B" in asked(request):
        return told_by(mark, asked(request))
    return [PLAN, RIGHT if request.body["temperature"] == 0.6 else COPIES, SUBMIT][min(request.turn, 2)]


def test_a_test_that_the_judge_writes_finds_the_right_one_of_two_plausible_patches(
    bubblewrap: Provider, cache: Path, tmp_path: Path
) -> None:
    instance = load_task_file(EXAMPLES / "inflection-titleize-accents.toml")

    def script(request: Request) -> Answer:
        if wants_test(request):
            return Answer(text=GREEK)
        if "Two patches, A and B" in asked(request):
            return told_by("the discriminating test passes", asked(request))
        return [PLAN, FORGETFUL if request.body["temperature"] == 0.6 else THOROUGH, SUBMIT][min(request.turn, 2)]

    with serving(script) as server:
        done = solve(instance.task, settings(server.url, tmp_path / "runs", attempts=2))
        questions = [asked(r) for r in server.requests if "Two patches, A and B" in asked(r)]
    (tested,) = kinds(done, trace.JudgeTested)
    assert isinstance(tested, trace.JudgeTested) and tested.useless == ""
    assert [(t.on, t.outcome) for t in tested.told] == [("base", "failed"), ("c1", "failed"), ("c2", "passed")]
    assert all("Without any patch it fails (1 of 2 pass)." in q and "Άλφα" in q for q in questions)
    assert done.patch is not None and "'?\\w)" in done.patch
    assert done.report["selected"]["method"] == "judge-test"
    assert done.report["judge"]["test"]["outcomes"] == {"base": "failed", "c1": "failed", "c2": "passed"}
    assert done.report["cost"]["by_purpose"]["judge"]["calls"] == 3
    paper = io.StringIO()
    screen = Console(file=paper, width=100)
    for frame in frames(list(trace.read(done.directory / "trace.jsonl")), 1):
        screen.print(render(frame))
    assert "the judge's test  test_greek.py" in paper.getvalue() and "c2: passed, 2 of 2 pass" in paper.getvalue()

    async def resolved(patch: str) -> bool:
        assert instance.grading is not None
        workspace = await asyncio.to_thread(open_workspace, instance.task.repository, cache)
        built = await environment.build(bubblewrap, workspace, instance.task, run="judge")
        return (await grade(CleanRoom(bubblewrap, built, "judge"), instance.task, instance.grading, patch)).resolved

    wrong = (done.directory / "attempts/00/patch.diff").read_text()
    assert asyncio.run(resolved(done.patch)) and not asyncio.run(resolved(wrong))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("NONE", "wrote no test"),
        ("```python\ndef test_(:\n```", "no Python"),
        ("```python\nimport calculus\n\n\ndef test_it():\n    pass\n```", "loaded nowhere"),
        ("```python\nfrom calc import largest\n\nassert largest([1, 2]) == 2\n```", "passes everywhere"),
        ("```python\n# path: calc.py\nassert False\n```", "the same of all"),
        (
            (
                "```python\nfrom pathlib import Path\n\nseen ="
                " Path('/tmp/seen').exists()\nPath('/tmp/seen').touch()\nassert seen\n```"
            ),
            "not do the same twice",
        ),
    ],
)
def test_a_test_that_tells_nothing_apart_changes_nothing(tmp_path: Path, answer: str, why: str) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(lambda request: two_ways(request, answer)) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
        questions = [asked(r) for r in server.requests if "Two patches, A and B" in asked(r)]
    (tested,) = kinds(done, trace.JudgeTested)
    assert isinstance(tested, trace.JudgeTested) and why in tested.useless
    assert len(questions) == 2 and not any("discriminating" in q for q in questions)
    assert done.patch is not None and "list(values)" in done.patch
    assert "test_told_apart.py" not in done.patch and "calc.py" in done.patch


def test_the_cap_on_the_judge_ends_it_with_the_points_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository(tmp_path / "calculator")
    spent = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    with serving(lambda request: replace(two_ways(request, "NONE"), usage=spent)) as server:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "troop.toml").write_text(
            f'[models.dear]\nbase_url = "{server.url}"\nname = "scripted"\nusd_per_mtok_input = 0\n'
            "usd_per_mtok_output = 1000\nsampling = {max_tokens = 10}\n"
        )
        budget = Budget(attempts=2, turns=10, judge_usd=0.025)
        done = solve(task(repository), settings(server.url, tmp_path / "runs", budget=budget, judge_model="dear"))
    assert len(kinds(done, trace.Judged)) == 1, "the test costs a cent, the first comparison another"
    (stopped,) = kinds(done, trace.JudgeStopped)
    assert isinstance(stopped, trace.JudgeStopped) and "The budget of the judge is reached" in stopped.reason
    assert done.report["cost"]["by_purpose"]["judge"]["usd"] == pytest.approx(0.02)
    assert done.report["selected"]["method"] == "judge" and done.patch is not None and "list(values)" in done.patch
    assert "The budget of the judge is reached" in done.report["judge"]["stopped"]
    assert done.report["status"] == "selected" and done.exit_code == 0


@pytest.mark.parametrize("last", ["judge-tested", "judged"])
def test_a_resume_neither_asks_the_judge_again_nor_runs_its_test_again(tmp_path: Path, last: str) -> None:
    repository = make_repository(tmp_path / "calculator")
    test = "```python\nfrom pathlib import Path\n\nassert 'list' in Path('calc.py').read_text()\n```"
    with serving(lambda request: two_ways(request, test, "discriminating test passes")) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
        log = done.directory / "trace.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        cut = next(n for n, line in enumerate(lines, 1) if json.loads(line)["kind"] == last)
        log.write_bytes(b"".join(lines[:cut]))  # as a kill right after this line would leave it
        (done.directory / "selected.patch").unlink()
        before = len(server.requests)
        again = resume(str(done.directory))
        assert len(server.requests) - before == {"judge-tested": 2, "judged": 1}[last]
    assert again.patch == done.patch and again.patch is not None and "list(values)" in again.patch
    assert len(kinds(again, trace.JudgeTested)) == 1 and len(kinds(again, trace.Judged)) == 2
    replied = [e.key for e in kinds(again, trace.Replied) if isinstance(e, trace.Replied)]
    assert len(replied) == len(set(replied))


def test_a_judge_that_cannot_be_asked_leaves_the_choice_to_the_rest_and_it_is_said(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")

    def script(request: Request) -> Answer:
        return error(401, "Incorrect API key") if wants_test(request) else two_ways(request, "NONE")

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
    assert done.exit_code == 0 and not kinds(done, trace.Judged)
    assert "Incorrect API key" in done.report["judge"]["stopped"]
