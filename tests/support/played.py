"""Runs made up event by event, so that a page has something of everything to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import trace
from harness.records import Charge, Evidence, Json, Outcome, Ranked, Selection, TestReport, Told, Usage, WitnessTest
from harness.suites.evaluate import Outcome as Graded
from harness.suites.report import Asked, suite_report

DIFF = """diff --git a/pkg/core.py b/pkg/core.py
--- a/pkg/core.py
+++ b/pkg/core.py
@@ -1,4 +1,4 @@
 def mean(values):
     \"\"\"The mean.\"\"\"
-    return sum(values) / (len(values) + 1)
+    return sum(values) / len(values)
"""
OTHER = DIFF.replace("+    return sum(values) / len(values)", "+    return sum(values) / max(1, len(values))")
WRONG = DIFF.replace("+    return sum(values) / len(values)", "+    return 3")


def _report(passed: int, failed: tuple[str, ...] = (), said: str = "assert 2 == 3") -> TestReport:
    outcomes: dict[str, Outcome] = {f"tests/test_core.py::test_{n}": "passed" for n in range(passed)}
    outcomes |= dict.fromkeys(failed, "failed")
    return TestReport(outcomes, 1 if failed else 0, False, True, 1.5, failures=dict.fromkeys(failed, said))


def _charge(attempt: int | None, usd: float, purpose: str = "act") -> Charge:
    usage = Usage(900, 400, 0, 120, 60)
    return Charge(attempt, purpose, "openai/gpt-5-mini", usage, usd, "alias", 2.0)  # type: ignore[arg-type]


def _attempt(index: int, diff: str, turns: int, words: str) -> list[trace.Event]:
    events: list[trace.Event] = [
        trace.AttemptStarted(attempt=index, seed=3 * index, model="openai/gpt-5-mini", sampling={"temperature": 0.8}),
        trace.Replied(attempt=index, key=f"{index}/plan", message={}, charge=_charge(index, 0.0021, "plan")),
        trace.Planned(attempt=index, text=f"Look at core.py first. {words}", seconds=2.0),
    ]
    for turn in range(1, turns + 1):
        ours: Any = {"attempt": index, "turn": turn}
        calls = (
            {"id": "a", "name": "edit", "arguments": {"path": "pkg/core.py", "content": words}},
            {"id": "b", "name": "run", "arguments": {"command": f"python -c 'print({turn})'"}},
        )
        tests = _report(40 + turn, () if turn == turns else ("tests/test_core.py::test_mean",))
        events += [
            trace.Replied(attempt=index, key=f"{index}/{turn}", message={}, charge=_charge(index, 0.0013)),
            trace.Decided(**ours, text=f"Now I change the mean. {words}", calls=calls),
            trace.ToolRan(**ours, call="a", name="edit", result="Edited.", diff=diff, seconds=0.1),
            trace.ToolRan(**ours, call="b", name="run", result=f"{turn}\n{words}", ok=turn % 3 != 0, seconds=0.4),
            trace.TestsRan(**ours, report=tests),
            trace.TurnEnded(**ours, seconds=4.5, model_seconds=2.0, command_seconds=2.0),
        ]
    return [*events, trace.AttemptEnded(attempt=index, status="submitted", patch=diff, turns=turns, seconds=30.0)]


def played(attempts: int = 6, turns: int = 4, words: str = "So be it.") -> list[trace.Event]:
    """A run of three candidates, with given, witness and broken tests, a judge and a ledger. `words`: what issue, model,
    tests and judge say, each in its place."""
    given, witness, broken = (
        f"tests/test_issue.py::test_mean[{words}]",
        f"1:tests/test_{words}.py",
        "tests/test_core.py::test_7",
    )
    regression = {f"tests/test_core.py::test_{n}": "passed" for n in range(40)}
    good = Evidence(True, True, regression, {witness: "passed"}, {given: "passed"}, 3.0)
    half = Evidence(True, True, regression, {witness: "failed"}, {given: "passed"}, 3.0, said={witness: f"E  {words}"})
    told = {given: f"assert 3 == 2\n{words}", witness: words, broken: f"ZeroDivisionError\n{words}"}
    bad = Evidence(True, True, {**regression, broken: "failed"}, {witness: "failed"}, {given: "failed"}, 3.0, said=told)
    patches = {n: (DIFF, OTHER, DIFF, WRONG)[n % 4] + f"+# {words}\n" * (n % 4 == 3) for n in range(attempts)}
    of = {
        name: tuple(n for n in patches if n % 4 in rest) for name, rest in (("c1", (0, 2)), ("c2", (1,)), ("c3", (3,)))
    }
    evidence = {"c1": good, "c2": half, "c3": bad}
    names = [name for name in of if of[name]]
    ranking = tuple(
        Ranked(name, name != "c3", f"the given test passes; {words}", 0.9 - n / 4, {f"agreement {words}": 1.2})
        for n, name in enumerate(names)
    )
    events: list[trace.Event] = [
        trace.RunStarted(
            run="calc-1",
            task={"id": "calc", "statement": f"# The mean is wrong {words}\n\nIt gives 2, not 3.\n{words}"},
            settings={"models": ["openai/gpt-5-mini", words], "budget": {"attempts": attempts}},
        ),
        trace.Prepared(base_commit="b" * 40, environment="e", backend="docker", baseline=_report(41, (given,), words)),
    ]
    for index, patch in patches.items():
        events += _attempt(index, patch, turns, words)
    events += [
        trace.WitnessRecorded(attempt=1, turn=1, witness=WitnessTest(1, witness[2:], f"def test(): {words}", words)),
        *(trace.Verified(candidate=n, attempts=of[n], key=n, evidence=evidence[n]) for n in names),
        trace.Replied(key="judge/0", message={}, charge=_charge(None, 0.01, "judge")),
        trace.JudgeTested(
            finalists=("c1", "c2"),
            path=f"tests/test_{words}.py",
            text=f"def test_mean():\n    {words}\n",
            told=(Told("base", "failed", tail=words), Told("c1", "passed"), Told("c2", "failed", tail=words)),
        ),
        trace.Judged(first="c1", second="c2", winner="c1", reason=f"c1 is simpler. {words}"),
        trace.Selected(selection=Selection("c1", "judge", 0.9, ranking, f"The judge preferred it. {words}")),
        trace.Graded(candidate="c1", resolved=True),
        trace.RunEnded(status="selected", seconds=90.0),
    ]
    return [trace.from_json({**trace.to_json(event), "at": 1000.0 + n}) for n, event in enumerate(events)]


def write_run(directory: Path, events: list[trace.Event]) -> Path:
    """A run directory of these events."""
    directory.mkdir(parents=True)
    (directory / "trace.jsonl").write_text("".join(json.dumps(trace.to_json(event)) + "\n" for event in events))
    started = events[0]
    assert isinstance(started, trace.RunStarted)
    (directory / "run.json").write_text(json.dumps({"schema": 1, "run": directory.name, "task": started.task}))
    return directory


def evaluation(words: str = "it fails", instances: int = 40, attempts: int = 8) -> Json:
    """The report of an evaluation with instances of every kind."""
    outcomes: list[Graded] = []
    report = suite_report(outcomes, Asked("quixbugs", ("openai/gpt-5-mini",), attempts, "all"))
    tasks = []
    for n in range(instances):
        right = [(n * 7 + k * 5) % 11 < n % 5 for k in range(attempts)]
        rows = [
            {
                "index": k,
                "model": "openai/gpt-5-mini" if k % 2 else "qwen",
                "status": "submitted",
                "usd": 0.01 + 0.002 * k,
                "candidate": f"c{k}",
            }
            for k in range(attempts)
        ]
        order = [{"candidate": f"c{k}", "acceptable": True} for k in range(attempts)]
        cost = {"usd": 0.1 + n / 100, "calls": 40}
        candidates = [{"id": f"c{k}"} for k in range(attempts)]
        tasks.append(
            {
                "id": f"program-{n:02}",
                "samples": attempts,
                "correct": sum(right),
                "selected": None if n == 3 else "c0",
                "resolved": None if n == 5 else right[0],
                "verdicts": {
                    f"c{k}": {"resolved": is_right, "reason": "" if is_right else words}
                    for k, is_right in enumerate(right)
                },
                "failure": words if n == 4 else "",
                "report": {
                    "attempts": rows,
                    "ranking": order,
                    "candidates": candidates,
                    "cost": cost,
                    "seconds": 60.0 + n,
                },
            }
        )
    return {**report, "instances": instances, "tasks": tasks, "statuses": {"submitted": 300, "turn-limit": 20}}
