"""Repositories in other languages, from set-up to selection, and what their tools tell of each test."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import solve
from harness import inside
from harness.environments.base_run import Baseline, baseline
from harness.environments.environment import CleanRoom, build
from harness.records import Exec, TestReport
from harness.sandbox.base import Provider
from harness.testing.report import outcome_of, read_lines
from tasks.errors import SetupFailed
from tasks.task import Repository, Task
from tests.support.calculator import PLAN, STATEMENT, SUBMIT, call, settings
from tests.support.languages import GO, KINDS, NODE, Project
from tests.support.model_server import Answer, Request, serving
from tests.support.repositories import make_repository, make_task, opened

SYSTEM = "/usr/local/bin:/usr/bin:/bin"


def needs(project: Project) -> None:
    """Skip where the sandbox, which shows this machine's system directories, would not find a program."""
    missing = [program for program in project.programs if shutil.which(program, path=SYSTEM) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: golang-go; nodejs and npm)")


@pytest.mark.network
@pytest.mark.bubblewrap
@pytest.mark.parametrize("project", [GO, NODE], ids=["go", "node"])
def test_an_issue_in_another_language_is_solved_from_set_up_to_selection(project: Project, tmp_path: Path) -> None:
    needs(project)
    path, witness = project.witness

    def script(request: Request) -> Answer:
        wrong = request.body["temperature"] == 0.6
        edit = call("edit", path=project.source, old=project.old, new=project.wrong if wrong else project.new)
        own = path.replace("first", "other") if wrong else path  # one package cannot hold both of Go's at a time
        writes = call("witness", path=own, content=witness)
        return [PLAN, writes, edit, call("test"), SUBMIT, SUBMIT][request.turn]

    repository = make_repository(tmp_path / "repository", project.files)
    task = Task("total", Repository("path", str(repository)), STATEMENT)
    with serving(script) as server:
        done = solve(task, settings(server.url, tmp_path / "runs", attempts=2, base_runs=2))
    assert done.exit_code == 0, done.report
    assert done.patch is not None and project.new in done.patch
    assert path not in done.patch, "the witness test is kept apart"
    assert done.report["selected"]["attempt"] == 1
    right = next(c for c in done.report["candidates"] if c["attempts"] == [1])
    assert right["evidence"]["clean"] and right["evidence"]["regression"]["run"] == len(project.tests)
    assert list(right["evidence"]["witness"].values()) == ["passed", "passed"]


@pytest.mark.network
@pytest.mark.bubblewrap
def test_the_judge_compares_equal_patches_and_is_asked_for_no_test_in_python(tmp_path: Path) -> None:
    needs(GO)

    def script(request: Request) -> Answer:
        if "Two patches, A and B" in request.body["messages"][0]["content"]:
            first = request.body["messages"][0]["content"].partition('<patch name="B">')[0]
            return Answer(text=json.dumps({"reason": "plain", "winner": "A" if "range" in first else "B"}))
        ranged = call("edit", path=GO.source, old="i := 1; i < len(values); i++", new="i := range values")
        plain = call("edit", path=GO.source, old=GO.old, new=GO.new)
        return [PLAN, ranged if request.body["temperature"] == 0.6 else plain, SUBMIT, SUBMIT][request.turn]

    task = Task("total", Repository("path", str(make_repository(tmp_path / "repository", GO.files))), STATEMENT)
    with serving(script) as server:
        done = solve(task, settings(server.url, tmp_path / "runs", attempts=2))
    assert done.report["selected"]["method"] == "judge" and "range values" in str(done.patch)
    assert done.report["cost"]["by_purpose"]["judge"]["calls"] == 2, "both orders"


@pytest.mark.network
@pytest.mark.bubblewrap
def test_what_npm_installs_is_there_in_every_later_sandbox_without_the_network(
    bubblewrap: Provider, tmp_path: Path
) -> None:
    needs(NODE)
    package = {"name": "kinds", "scripts": {"test": "mocha test/kinds.*"}, "devDependencies": {"mocha": "^10"}}
    repository = make_repository(tmp_path, {**KINDS["mocha"], "package.json": json.dumps(package)})
    found = asyncio.run(based(bubblewrap, make_task(repository)))
    assert found.report is not None and found.report.valid, found
    assert found.report.passed == {"test/kinds.test.js::kinds good"} and len(found.report.outcomes) == 3


@pytest.mark.network
@pytest.mark.docker
def test_a_tool_that_the_image_lacks_stops_the_run_with_what_to_type(docker: Provider, tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match=r'need go, which the sandbox lacks: apt = \["golang-go"\].*--image golang'):
        asyncio.run(based(docker, make_task(make_repository(tmp_path, GO.files))))


def test_a_language_that_troop_does_not_know_stops_before_any_model_call(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "java", {"pom.xml": "<project/>", "src/A.java": "class A {}\n"})
    task = Task("java", Repository("path", str(repository)), STATEMENT)
    with serving([PLAN]) as server:
        with pytest.raises(SetupFailed, match=r"in Java.*--test-command 'mvn test'") as failed:
            solve(task, settings(server.url, tmp_path / "runs"))
        assert not server.requests and failed.value.exit_code == 4


async def based(provider: Provider, task: Task) -> Baseline:
    built = await build(provider, await opened(task), task, run="languages")
    return await baseline(CleanRoom(provider, built, "languages"), task, runs=1)


# What each tool tells, run on this machine itself


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with jest, vitest and mocha in its node_modules."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "package.json").write_text("{}")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (Debian: npm)")
    command = ["npm", "install", "--no-audit", "--no-fund", "jest@29", "vitest@2", "mocha@10"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=500)
    return folder


def told(
    tool: str, folder: Path, ids: Sequence[str] = (), *, first: bool = False, words: Sequence[str] = ()
) -> TestReport:
    """The report of the project of `KINDS`, by the program that runs within sandboxes."""
    if shutil.which(tool) is None and tool in ("go", "cargo", "node"):
        pytest.skip(f"{tool} is not installed")
    for path, text in KINDS[tool].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    written, asked = Path(tempfile.mkdtemp(dir=folder)) / "report", folder / "asked.list"
    asked.write_text(json.dumps(ids))
    env = {
        **os.environ,
        "TROOP_REPORT": str(written),
        "TROOP_ROOT": str(folder),
        "CARGO_TARGET_DIR": str(folder / "out"),
    }
    env |= {"TROOP_SELECT": str(asked)} if ids else {}
    env |= {"TROOP_FIRST_FAILURE": "1"} if first else {}
    program = Path(str(inside.__file__)).with_name("troop_tools.py")
    done = subprocess.run(
        [sys.executable, program, tool, *words],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return read_lines(tool, Exec(done.stdout, b"", done.returncode, False, 1.0), written.read_bytes(), always=True)


def test_go_is_read_test_by_test(tmp_path: Path) -> None:
    report = told("go", tmp_path, words=["./..."])
    assert report.valid and report.exit_code in (1, 2), report.reason + report.output
    assert report.outcomes == {
        "kinds_test.go::TestGood": "passed",
        "kinds_test.go::TestBad": "failed",
        "kinds_test.go::TestBad/one_two": "failed",
        "kinds_test.go::TestSkipped": "skipped",
        "broken/broken_test.go": "error",
        "dies/dies_test.go": "error",
    }
    assert "1 != 2" in report.failures["kinds_test.go::TestBad/one_two"] and "1 != 2" in report.output
    assert "undefined: undefined" in report.failures["broken/broken_test.go"]
    assert outcome_of(report, "broken/broken_test.go::TestNever") == "error"


@pytest.mark.parametrize(
    ("ids", "outcomes"),
    [
        (["kinds_test.go::TestGood"], {"kinds_test.go::TestGood": "passed"}),
        (["broken/broken_test.go"], {"broken/broken_test.go": "error"}),
        (["dies"], {"dies/dies_test.go": "error"}),
        (["gone/gone_test.go"], {}),
    ],
)
def test_go_runs_what_is_asked_for(tmp_path: Path, ids: list[str], outcomes: dict[str, str]) -> None:
    report = told("go", tmp_path, ids, words=["-race=false", "./..."])
    assert report.outcomes == outcomes and report.valid is bool(outcomes), report.reason


def test_rust_is_read_test_by_test(tmp_path: Path) -> None:
    report = told("cargo", tmp_path)
    assert report.valid and report.exit_code == 101, report.reason + report.output
    assert report.outcomes == {
        "src/lib.rs::tests::good": "passed",
        "src/lib.rs::tests::bad": "failed",
        "src/lib.rs::tests::skipped": "skipped",
        "tests/dies.rs": "error",
    }
    assert "1 != 2" in report.failures["src/lib.rs::tests::bad"]
    assert "tests/dies.rs" not in told("cargo", tmp_path, first=True).outcomes, "the first failure ends the run"
    one = told("cargo", tmp_path, ["src/lib.rs::tests::good"])
    assert one.valid and one.outcomes == {"src/lib.rs::tests::good": "passed"}, "doc tests are not among them"
    (tmp_path / "tests/new.rs").write_text("#[test]\nfn first() {\n    assert_eq!(kinds::two(), 2);\n}\n")
    assert told("cargo", tmp_path, ["tests/new.rs"]).outcomes == {"tests/new.rs::first": "passed"}
    (tmp_path / "tests/new.rs").write_text("#[test]\nfn first() {\n    kinds::three();\n}\n")
    broken = told("cargo", tmp_path, ["tests/new.rs"])
    assert broken.valid and broken.outcomes == {"tests/new.rs": "error"}
    assert "cannot find function `three`" in broken.failures["tests/new.rs"]


def test_nodes_own_runner_is_read_test_by_test(tmp_path: Path) -> None:
    report = told("node", tmp_path, words=["--test"])
    assert report.valid and report.exit_code == 1, report.reason + report.output
    assert report.outcomes == {
        "test/kinds.test.js::kinds::good": "passed",
        "test/kinds.test.js::kinds::bad": "failed",
        "test/kinds.test.js::kinds::skipped": "skipped",
        "test/kinds.test.js::kinds::todo": "skipped",
        "test/broken.test.js": "error",
        "test/dies.test.js": "error",
    }
    assert "1 !== 2" in report.failures["test/kinds.test.js::kinds::bad"] and "heard" in report.output
    one = told("node", tmp_path, ["test/broken.test.js"], words=["--test", "test/"])
    assert one.valid and one.outcomes == {"test/broken.test.js": "error"}
    gone = told("node", tmp_path, ["test/gone.test.js"], words=["--test"])
    assert not gone.valid and outcome_of(gone, "test/gone.test.js") == "missing"


@pytest.mark.network
@pytest.mark.parametrize("tool", ["jest", "vitest", "mocha"])
def test_what_npm_brings_is_read_test_by_test(packages: Path, tool: str) -> None:
    between = " " if tool == "mocha" else "::"
    kinds = {
        f"test/kinds.test.js::kinds{between}{name}": outcome
        for name, outcome in (("good", "passed"), ("bad", "failed"), ("skipped", "skipped"))
    }
    report = told(tool, packages)
    if tool == "mocha":  # which loads all files before it runs one
        assert not report.valid and report.outcomes == {}
    else:
        assert report.valid and report.outcomes == {**kinds, "test/broken.test.js": "error"}, report.output
    one = told(tool, packages, ["test/kinds.test.js"], words=["test"])
    assert one.valid and one.exit_code == 1 and one.outcomes == kinds, one.reason + one.output
    assert "1 != 2" in one.failures[f"test/kinds.test.js::kinds{between}bad"]
    broken = told(tool, packages, ["test/broken.test.js::x"])
    assert broken.valid and broken.outcomes == {"test/broken.test.js": "error"}
    gone = told(tool, packages, ["test/gone.test.js"])
    assert not gone.valid and outcome_of(gone, "test/gone.test.js") == "missing", gone.output


def test_a_tool_that_says_one_thing_and_ends_with_another_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/node"
    for status, kind in ((0, "test:fail"), (1, "test:pass")):
        event = {"names": ["x"], "file": str(tmp_path / "a.test.js"), "status": kind[5:], "message": "", "duration": 1}
        fake.write_text(f"#!/bin/sh\necho '{json.dumps(event)}'\nexit {status}\n")
        fake.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
            report = told("node", tmp_path, words=["--test"])
        assert not report.valid and report.outcomes, report.reason
