"""Repositories in other languages, from set-up to selection, and what their tools tell of each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent import solve
from tasks.errors import SetupFailed
from tasks.task import Repository, Task
from tests.support.calculator import PLAN, STATEMENT, SUBMIT, call, settings
from tests.support.languages import GO, NODE, Project
from tests.support.model_server import Answer, Request, serving
from tests.support.repositories import make_repository

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
        writes = call("witness", path=path, content=witness)
        return [PLAN, writes, edit, call("test"), SUBMIT][request.turn]

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
    assert list(right["evidence"]["witness"].values()) == ["passed"]
