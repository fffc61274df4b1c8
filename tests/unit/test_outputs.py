"""Directories for results: hidden from git when they are made, and recognised when they were not."""

from __future__ import annotations

from pathlib import Path

from harness.lock import run_lock
from harness.outputs import is_output, make_output
from tests.support.repositories import git


def test_a_new_or_empty_directory_is_hidden_from_git_before_anything_lies_in_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "runs/new", tmp_path / "empty"):
        make_output(place)
        assert [path.name for path in place.iterdir()] == [".gitignore"]
    with run_lock(tmp_path / "runs/grade"):
        pass
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all") == ""


def test_a_directory_with_files_of_somebodys_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    make_output(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_results_are_recognised_by_what_lies_together(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert not is_output(tmp_path)
    (tmp_path / "trace.jsonl").write_text("")
    assert is_output(tmp_path)
    assert not is_output(tmp_path / "run.json") and not is_output(tmp_path / "missing")
