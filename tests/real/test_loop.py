"""What the loop of an attempt tells a model that it would otherwise lose turns to find out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent import resume, solve
from agent.assemble import Solution
from harness import trace
from tests.support import repositories
from tests.support.calculator import FILES, PLAN, RIGHT, SUBMIT, WITNESS, call, settings, task
from tests.support.model_server import Answer, serving
from tests.support.runs import events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]

RECORD = call("witness", path="tests/test_w.py", content=WITNESS)
BREAKING = call("edit", path="calc.py", old="return max", new="return min")
OTHER = call("edit", path="calc.py", old="result += value", new="result += int(value)")


def told(done: Solution, tool: str) -> list[trace.ToolRan]:
    return [e for e in events(done.directory) if isinstance(e, trace.ToolRan) and e.name == tool]


def played(repository: Path, out: Path, script: Sequence[Answer], **more: object) -> Solution:
    with serving([PLAN, *script]) as server:
        return solve(task(repository), settings(server.url, out, **more))  # type: ignore[arg-type]


def turns(done: Solution) -> tuple[str, int]:
    (row,) = done.report["attempts"]
    return row["status"], row["turns"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([RIGHT], "no test has run since your last edit"),
        ([call("test"), RIGHT], "no test has run since your last edit"),
        ([call("run", command="true")], "the patch is empty"),
        ([call("create", path="tests/test_more.py", content="def test_it(): ...\n")], "the patch touches only tests"),
        ([RECORD, OTHER, call("test")], "the witness tests/test_w.py fails"),
        ([BREAKING, call("test")], "tests fail that passed before your changes"),
    ],
)
def test_a_submit_is_asked_back_once_and_the_second_is_final(
    repository: Path, tmp_path: Path, script: list[Answer], why: str
) -> None:
    done = played(repository, tmp_path / "runs", [*script, SUBMIT])
    (asked,) = told(done, "submit")
    assert not asked.ok and why in asked.result and "Submit again if it is what you want." in asked.result
    assert turns(done) == ("submitted", len(script) + 2)


@pytest.mark.parametrize(
    "script",
    [
        [RIGHT, call("test")],
        [RIGHT, call("run", command="python -m pytest -q")],
        [RIGHT, RECORD],
        [RECORD, RIGHT, call("test", ids=["tests/test_calc.py"])],
        [call("test"), Answer(tool_calls=[*RIGHT.tool_calls, *call("test").tool_calls])],
    ],
)
def test_a_tested_patch_without_a_failing_witness_is_taken_at_once(
    repository: Path, tmp_path: Path, script: list[Answer]
) -> None:
    done = played(repository, tmp_path / "runs", [*script, SUBMIT])
    assert not told(done, "submit") and turns(done) == ("submitted", len(script) + 1)


def test_the_last_turn_is_not_asked_back(repository: Path, tmp_path: Path) -> None:
    done = played(repository, tmp_path / "runs", [RIGHT, SUBMIT], turns=2)
    assert not told(done, "submit") and turns(done) == ("submitted", 2)


def test_what_was_asked_back_before_a_kill_is_not_asked_again(repository: Path, tmp_path: Path) -> None:
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
        lines = (done.directory / "trace.jsonl").read_bytes().splitlines(keepends=True)
        second = [n for n, line in enumerate(lines) if b'"kind":"turn-ended"' in line][1]
        (done.directory / "trace.jsonl").write_bytes(b"".join(lines[: second + 1]))
        before, count = server.requests[-1].raw, len(server.requests)
        resume(str(done.directory))
        assert [request.raw for request in server.requests[count:]] == [before]
    assert len(told(done, "submit")) == 1 and turns(done) == ("submitted", 3)


def test_good_calls_before_one_that_is_none_are_carried_out(repository: Path, tmp_path: Path) -> None:
    calls = [*RIGHT.tool_calls, {"name": "reed", "arguments": {}}, *call("undo").tool_calls]
    done = played(repository, tmp_path / "runs", [Answer(tool_calls=calls), call("test"), SUBMIT])
    (bad,) = told(done, "reed")
    assert told(done, "edit")[0].ok and "There is no tool 'reed'" in bad.result and not told(done, "undo")
    assert done.patch is not None and turns(done) == ("submitted", 3)


def test_every_failure_says_whether_it_is_new_and_every_run_what_the_witness_says(tmp_path: Path) -> None:
    old = "from calc import largest\n\n\ndef test_old():\n    assert largest([1]) == 2\n"
    directory = repositories.make_repository(tmp_path / "r", {**FILES, "tests/test_old.py": old})
    breaks = call("edit", path="calc.py", old="return max(values)", new="return 0")
    done = played(directory, tmp_path / "runs", [RECORD, breaks, call("test"), RIGHT, call("test"), SUBMIT])
    first, second = (event.result for event in told(done, "test"))
    assert "--- tests/test_calc.py::test_largest (new)" in first and "witness tests/test_w.py: fails" in first
    assert "--- tests/test_old.py::test_old (fails without your changes, too)" in first
    assert "(1 of them without your changes, too)" in first and "witness tests/test_w.py: passes" in second


def test_of_the_files_that_a_test_names_those_that_are_there_are_run(repository: Path, tmp_path: Path) -> None:
    named = call("test", ids=["tests/test_gone.py", "tests/test_calc.py::test_largest"])
    done = played(repository, tmp_path / "runs", [RIGHT, named, SUBMIT])
    (said,) = told(done, "test")
    assert said.result.startswith("1 passed, 0 failed") and said.result.endswith("\n(there is no tests/test_gone.py)")


def test_a_witness_is_tried_on_the_unchanged_code_too(repository: Path, tmp_path: Path) -> None:
    useless = call("witness", path="tests/test_w.py", content=WITNESS.replace("== 3", "== 2"))
    done = played(repository, tmp_path / "runs", [RIGHT, useless, RECORD, SUBMIT])
    refused, recorded = told(done, "witness")
    assert not refused.ok and "It passes on the unchanged code already: it shows nothing." in refused.result
    assert recorded.result == (
        "Recorded tests/test_w.py. It fails on the unchanged code, as it should. With your changes it passes."
    )


def test_a_command_runs_with_and_without_the_changes_and_leaves_the_tree_alone(
    repository: Path, tmp_path: Path
) -> None:
    write = "echo 'import calc; print(calc.total([1, 2]))' | tee show.py > /tmp/show.py"
    show = call("run", command="PYTHONPATH=. python /tmp/show.py; python show.py", compare=True)
    same = call("run", command="ls calc.py; echo 1 passed in 0.$(date +%N)s", compare=True)
    long = call("run", command="seq 90; PYTHONPATH=. python /tmp/show.py", compare=True)
    turns = [RIGHT, call("run", command=write), show, same, long, call("diff"), SUBMIT]
    done = played(repository, tmp_path / "runs", turns)
    _, both, alike, cut = (event.result for event in told(done, "run"))
    assert both == "3\n3\n(exit code 0)\n\nWithout your changes: 2\n2\n(exit code 0)"
    assert alike.startswith("calc.py\n1 passed") and alike.endswith("\n\nWithout your changes: the same.")
    assert cut.endswith("-2\n+3\n (exit code 0)") and cut.count("\n45\n") == 1, "a long output is not told twice"
    assert told(done, "diff")[0].result.startswith("2 files: calc.py +1 -1, show.py +1 -0\ndiff --git a/calc.py")


def test_a_given_test_stays_as_it_is(repository: Path, tmp_path: Path) -> None:
    edit = call("edit", path="tests/test_issue.py", old="== 3", new="== 2")
    with serving([PLAN, edit, RIGHT, call("test"), SUBMIT]) as server:
        done = solve(task(repository, failing_test=True), settings(server.url, tmp_path / "runs"))
    (refused, _) = told(done, "edit")
    assert not refused.ok and "holds the given test" in refused.result


def test_the_repositorys_words_are_given_unless_left_out_and_its_layout_always(tmp_path: Path) -> None:
    words = {"AGENTS.md": "# Rules\n\nNever use tabs.\n", "CLAUDE.md": "# Rules\n\nNever use tabs.\n"}
    words["CONTRIBUTING.md"] = (
        "# Welcome\n\nFork it.\n\n## Writing tests\n\nName what is tested.\n\n## Money\n\nGive.\n"
    )
    directory = repositories.make_repository(tmp_path / "r", {**FILES, **words})
    for guide in (True, False):
        with serving([PLAN, RIGHT, call("test"), SUBMIT]) as server:
            solve(task(directory), settings(server.url, tmp_path / f"runs-{guide}", guide=guide))
            said = server.requests[0].body["messages"][1]["content"]
        assert said.count("Never use tabs.") == guide and ("AGENTS.md (the repository's words" in said) is guide
        assert (
            ("## Writing tests\n\nName what is tested." in said) is guide and "Fork" not in said and "Give" not in said
        )
        assert "\n  tests/ (1 files): test_calc.py\n" in said and "Witness tests are kept out of your patch." in said


def test_with_tests_the_witness_is_part_of_the_patch(repository: Path, tmp_path: Path) -> None:
    script = [RECORD, RIGHT, call("test"), SUBMIT]
    plain = played(repository, tmp_path / "plain", script)
    with_tests = played(repository, tmp_path / "with", script, with_tests=True)
    assert plain.patch is not None and "tests/test_w.py" not in plain.patch
    assert with_tests.patch is not None and "+++ b/tests/test_w.py" in with_tests.patch


def test_what_set_up_left_is_hidden_from_the_attempts_git(repository: Path, tmp_path: Path) -> None:
    setup = ("touch 'left [1].txt' && mkdir -p out && touch out/made",)
    given = task(repository)
    given = replace(given, environment=replace(given.environment, setup=setup))
    with serving([PLAN, call("run", command="touch own; git status --porcelain"), SUBMIT]) as server:
        done = solve(given, settings(server.url, tmp_path / "runs"))
    assert told(done, "run")[0].result == "?? own\n(exit code 0)"


@pytest.mark.docker
def test_an_attempt_that_destroys_its_own_sandbox_ends_by_name(repository: Path, tmp_path: Path) -> None:
    script = [RIGHT, call("run", command="rm -rf /usr /bin /lib /lib64 /sbin"), call("run", command="true")]
    done = played(repository, tmp_path / "runs", script, sandbox="docker")
    status, count = turns(done)
    assert status == "destroyed" and count <= 3
