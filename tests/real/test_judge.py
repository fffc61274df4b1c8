"""The judge's own test: written for the finalists of a solve, run in real sandboxes, and weighed by the judge."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent import resume, solve
from agent.assemble import Solution
from agent.choice.case import Case, Ground
from agent.choice.questions import in_words, material
from harness import trace
from harness.environments import environment
from harness.environments.environment import CleanRoom
from harness.records import WRITERS_FROM, Budget, Candidate, Evidence
from harness.repository.base_tree import open_tree
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Provider
from harness.suites.instances import grade
from harness.views.replay_frames import frames, render
from harness.views.report_view import verbose_view
from tasks.taskfile import load_task_file
from tests.support.calculator import PLAN, RIGHT, SUBMIT, call, make_repository, settings, task
from tests.support.model_server import Answer, Request, error, serving
from tests.support.repositories import git

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
    assert questions == [], "what a test has told apart is not compared"
    assert done.patch is not None and "'?\\w)" in done.patch
    assert done.report["selected"]["method"] == "judge-test"
    assert done.report["judge"]["test"]["outcomes"] == {"base": "failed", "c1": "failed", "c2": "passed"}
    assert done.report["cost"]["by_purpose"]["judge"]["calls"] == 1
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
    assert len(questions) == 2, "the judge is told how its own test fails where all fail it"
    assert all(("the discriminating test fails" in q) == ("same of all" in why) for q in questions)
    assert done.patch is not None and "list(values)" in done.patch
    assert "test_told_apart.py" not in done.patch and "calc.py" in done.patch


def test_the_cap_on_the_judge_ends_it_and_one_order_alone_is_no_opinion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert done.report["selected"]["method"] != "judge"
    assert "The budget of the judge is reached" in done.report["judge"]["stopped"]
    assert done.report["status"] == "selected" and done.exit_code == 0


@pytest.mark.parametrize("last", ["judge-tested", "judged"])
def test_a_resume_neither_asks_the_judge_again_nor_runs_its_test_again(tmp_path: Path, last: str) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(lambda request: two_ways(request, "NONE")) as server:
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


BIASED = "```python\n# path: tests/test_reads.py\nfrom pathlib import Path\n\n\ndef test_it():\n    assert 'list' in Path('calc.py').read_text()\n```"


def test_no_comparison_overrules_a_test_of_the_judge(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(
        lambda request: two_ways(request, BIASED, "-    for value in values[1:]:\n+    for value in values:")
    ) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2))
    assert not kinds(done, trace.Judged)
    assert done.report["selected"]["method"] == "judge-test" and done.patch is not None and "list(values)" in done.patch


# With hands

WRONG_TEST = "from calc import total\n\n\ndef test_it():\n    assert total([1, 2]) == 4\n"
RIGHT_TEST = "from pathlib import Path\n\nfrom calc import total\n\n\ndef test_it():\n    assert total([1, 2]) == 3\n    assert 'list' in Path('calc.py').read_text()\n"


def reasons(first: str, second: str) -> list[dict[str, str]]:
    return [
        {"candidate": first, "covers": "the first value", "misses": "nothing", "shown_by": "tests/test_j.py"},
        {"candidate": second, "covers": "the first value", "misses": "what is no list", "shown_by": "tests/test_j.py"},
    ]


WORK = [
    call("read", path="calc.py", symbol="total"),
    call(
        "run",
        command="echo 'def total(values): return 0' > calc.py; python -c 'import calc; print(calc.total([1, 2]))'",
        on="c1",
    ),
    call("run", command="python -c 'import calc; print(calc.total([1, 2]))'", on="c1"),
    call("try", path="tests/test_j.py", content=WRONG_TEST),
    call("try", path="tests/test_j.py", content=RIGHT_TEST),
    call("order", candidates=["c1"]),
    call("order", candidates=reasons("c1", "c2")),
]
"""What a judge with hands does with two attempts at the calculator, of which the second copies the list."""


def is_judge(request: Request) -> bool:
    return "You judge patches" in str(request.body["messages"][0]["content"])


def handy(request: Request, work: Sequence[Answer] = WORK) -> Answer:
    return work[min(request.turn, len(work) - 1)] if is_judge(request) else two_ways(request, "NONE")


def test_a_judge_with_hands_reads_tries_corrects_its_test_and_orders_with_reasons(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(handy) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, judge="hands"))
        judged = [request for request in server.requests if is_judge(request)]
    first, results = (
        judged[0].body["messages"],
        [m["content"] for m in judged[-1].body["messages"] if m["role"] == "tool"],
    )
    assert "def total(values)" in first[1]["content"] and '<patch name="c2">' in first[1]["content"]
    assert "result += value" in results[0] and "\n0\n" in f"\n{results[1]}\n" and results[2].startswith("3\n")
    assert "it does not count" in results[3] and "assert 3 == 4" in results[3]
    assert "tests/test_j.py: it counts" in results[4] and "c1: fails" in results[4] and "c2: passes" in results[4]
    assert "must name each of c1, c2 once" in results[5]
    tests = kinds(done, trace.JudgeTested)
    assert [bool(e.useless) for e in tests if isinstance(e, trace.JudgeTested)] == [True, False]
    assert done.report["selected"]["method"] == "judge-test", "its test counts before its opinion"
    assert done.patch is not None and "list(values)" in done.patch
    said = done.report["judge"]["said"]
    assert [(e["candidate"], e["points"]) for e in said] == [("c1", 2.0), ("c2", 1.0)] and "what is no list" in said[1][
        "reason"
    ]
    assert done.report["cost"]["by_purpose"]["judge"]["calls"] == len(WORK)
    events, paper = list(trace.read(done.directory / "trace.jsonl")), io.StringIO()
    for part in (*(render(frame) for frame in frames(events, 0)), *verbose_view(events, done.directory)):
        Console(file=paper, width=100).print(part)
    assert paper.getvalue().count("import calc; print(calc.total([1, 2]))") >= 4, "in the replay and in the report"
    assert paper.getvalue().count("what is no list") >= 2


@pytest.mark.parametrize("equal", [True, False])
def test_a_judge_with_hands_may_say_that_nothing_tells_candidates_apart(tmp_path: Path, equal: bool) -> None:
    repository, entries = make_repository(tmp_path / "calculator"), [*reasons("c2", "c1")]
    work = [call("order", candidates=[entries[0], {**entries[1], "equal": equal}])]
    with serving(lambda request: handy(request, work)) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, judge="hands"))
    said = [(e["candidate"], e["points"]) for e in done.report["judge"]["said"]]
    assert said == [("c2", 2.0), ("c1", 2.0 if equal else 1.0)]
    assert done.report["selected"]["candidate"] == ("c1" if equal else "c2"), "an opinion that is none changes nothing"
    assert (done.report["selected"]["method"] == "judge") == (not equal)


@pytest.mark.parametrize("last", [3, 4, 5])
def test_a_resume_in_the_midst_of_hands_repeats_nothing(tmp_path: Path, last: int) -> None:
    repository = make_repository(tmp_path / "calculator")
    with serving(handy) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, judge="hands"))
        log = done.directory / "trace.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        ran = [
            n
            for n, line in enumerate(lines, 1)
            if json.loads(line)["kind"] == "tool-ran" and "attempt" not in json.loads(line)
        ]
        log.write_bytes(b"".join(lines[: ran[last] - (last == 4)]))  # after a result; once before it, after its test
        (done.directory / "selected.patch").unlink()
        before = len(server.requests)
        again = resume(str(done.directory))
        assert len(server.requests) - before == len(WORK) - 1 - last
    assert again.patch == done.patch and again.report["judge"] == done.report["judge"]
    for kind in (trace.ToolRan, trace.JudgeTested, trace.Replied):
        assert len(kinds(again, kind)) == len(kinds(done, kind))


def test_turns_and_tests_of_a_judge_with_hands_are_capped(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    tries = [call("try", path=f"tests/test_{n}.py", content=f"# {n}\n{RIGHT_TEST}") for n in range(4)]
    looks = [call("run", command=f"echo {n}", on="c2" if n else "c9") for n in range(30)]
    with serving(lambda request: handy(request, [*tries, *looks])) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, judge="hands"))
        judged = [request for request in server.requests if is_judge(request)]
    results = [m["content"] for m in judged[-1].body["messages"] if m["role"] == "tool"]
    assert len(judged) == 20 and "3 tests are written" in results[3] and "on must be one of base, c1, c2" in results[4]
    (stopped,) = kinds(done, trace.JudgeStopped)
    assert isinstance(stopped, trace.JudgeStopped) and "20 turns are over" in stopped.reason
    assert done.report["selected"]["method"] == "judge-test", "its tests count all the same"


def test_a_cap_on_dollars_ends_a_judge_with_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository(tmp_path / "calculator")
    spent = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    with serving(lambda request: replace(handy(request), usage=spent)) as server:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "troop.toml").write_text(
            f'[models.dear]\nbase_url = "{server.url}"\nname = "scripted"\nusd_per_mtok_input = 0\n'
            "usd_per_mtok_output = 1000\nsampling = {max_tokens = 10}\n"
        )
        budget = Budget(attempts=2, turns=10, judge_usd=0.035)
        given = settings(server.url, tmp_path / "runs", budget=budget, judge_model="dear", judge="hands")
        done = solve(task(repository), given)
        assert sum(map(is_judge, server.requests)) == 3
    (stopped,) = kinds(done, trace.JudgeStopped)
    assert isinstance(stopped, trace.JudgeStopped) and stopped.before == "its turn 4"
    assert done.report["status"] == "selected" and done.report["judge"]["said"] == []


def test_a_rubric_is_asked_for_before_any_patch_and_decides_what_tests_leave_equal(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")

    def script(request: Request) -> Answer:
        if "before anybody has seen one" in asked(request):
            return Answer(text=json.dumps({"items": [{"must": f"do {n}", "by": "reading"} for n in "abc"]}))
        if "Hold the patch against" in asked(request):
            met = "yes" if "list(values)" in asked(request) else "no"
            return Answer(text=json.dumps({"items": [{"met": met, "why": "so"}] * 3}))
        return two_ways(request, "NONE")

    with serving(script) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=2, judge="rubric"))
        rubric = next(asked(r) for r in server.requests if "before anybody has seen one" in asked(r))
    assert "for value in values[1:]:" in rubric and "list(values)" not in rubric and "<patch" not in rubric
    assert done.report["cost"]["by_purpose"]["judge"]["calls"] == 3
    assert [e["points"] for e in done.report["judge"]["said"]] == [0.0, 1.0]
    assert done.report["selected"]["method"] == "judge" and done.patch is not None and "list(values)" in done.patch


def test_a_broken_test_is_shown_with_what_it_asserts_and_code_as_it_was(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "calculator")
    change = "diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n@@ -11,2 +11,2 @@\n def largest(values):\n-    return max(values)\n+    return min(values)\n"
    outcomes = {"tests/test_calc.py::test_largest": "failed", "tests/test_calc.py::test_total_of_nothing": "passed"}
    broken = Candidate("c1", change, (0,), (), Evidence(True, True, outcomes))
    opened: Any = None
    with open_tree(repository, git(repository, "rev-parse", "HEAD").strip()) as tree:
        ground = Ground(tree, opened, None, asyncio.Semaphore(1))
        case = Case("it fails", [broken], ground, [], lambda event: event, lambda line: None)
        assert "regression tests: 1 of 2 pass" in in_words(case, broken)
        assert "assert largest([1, 3, 2]) == 3" in in_words(case, broken)
        assert "def largest(values):\n    return max(values)" in material(case, [broken])


# More tests where it is a tie

TELLS = "from pathlib import Path\n\nfrom calc import total\n\n\ndef test_first():\n    assert total([1, 2]) == 3\n    assert 'list' in Path('calc.py').read_text()\n"


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_tie_is_told_apart_by_attempts_that_only_write_tests(tmp_path: Path, adaptive: bool) -> None:
    repository = make_repository(tmp_path / "calculator")
    tells = [
        PLAN,
        SUBMIT,
        call("witness", path="tests/test_w.py", content=TELLS),
        call("run", command="rm calc.py"),
        SUBMIT,
    ]

    def script(request: Request) -> Answer:
        if "You write tests that show one issue" in str(request.body["messages"][0]["content"]):
            return tells[min(request.turn, len(tells) - 1)]
        return two_ways(request, "NONE")

    with serving(script) as server:
        given = settings(server.url, tmp_path / "runs", attempts=2, tie_witnesses=1, judge="none", adaptive=adaptive)
        done = solve(task(repository), given)
        writers = [r for r in server.requests if "You write tests" in str(r.body["messages"][0]["content"])]
        told = str(writers[0].body["messages"][1]["content"])
        assert "The tests run with `" in told and "test tool" not in told and "your patch" not in told
        offered = {tool["function"]["name"] for tool in writers[-1].body["tools"]}
        asked = len(server.requests)
        resume(str(done.directory))
        assert len(server.requests) == asked
    assert offered == {"read", "search", "run", "witness", "submit"}
    assert "your patch" not in json.dumps(writers[-1].body["tools"])
    assert not any("list(values)" in r.raw.decode() and "+++" in r.raw.decode() for r in writers), "it sees no patch"
    assert "no witness test is recorded" in writers[-1].raw.decode()
    assert [a["index"] for a in done.report["attempts"]] == [0, 1], "they are no samples"
    assert done.report["selected"]["method"] == "witness" and done.patch is not None and "list(values)" in done.patch
    ended = [e for e in kinds(done, trace.AttemptEnded) if e.attempt == WRITERS_FROM]
    assert len(ended) == 1 and isinstance(ended[0], trace.AttemptEnded) and ended[0].patch == ""
