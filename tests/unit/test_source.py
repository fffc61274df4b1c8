"""SOURCE on the command line: which task it names, and what is said when it names none."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.local import local_task
from tasks.source import FORMS, resolve
from tasks.task import Repository


def test_a_directory_with_a_text_is_a_local_repository(tmp_path: Path) -> None:
    task = resolve(str(tmp_path), issue_text="  It bends.\n\n", base="v1").task
    assert task.repository == Repository("path", str(tmp_path.resolve()), "v1")
    assert task.statement == "It bends.\n"


def test_uncommitted_changes_are_taken_only_when_asked_for(tmp_path: Path) -> None:
    assert not resolve(str(tmp_path), issue_text="x").task.repository.include_uncommitted
    assert resolve(str(tmp_path), issue_text="x", include_uncommitted=True).task.repository.include_uncommitted


def test_two_issues_of_one_repository_have_two_ids_and_one_issue_has_one(tmp_path: Path) -> None:
    place = tmp_path / "my repo"
    first, again, second = (local_task(place, text).id for text in ("It bends.", "It bends.\n", "It breaks."))
    assert first == again != second
    assert first.startswith("my-repo-")


def test_the_issue_can_be_read_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "issue.md").write_text("It bends. é\n", encoding="utf-8")
    assert resolve(str(tmp_path), issue=str(tmp_path / "issue.md")).task.statement == "It bends. é\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("From a pipe. é".encode())))
    assert resolve(str(tmp_path), issue="-").task.statement == "From a pipe. é\n"


def test_a_task_file_is_taken_with_the_base_that_the_command_line_names(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('statement = "x"\n[repository]\npath = "."\nbase = "v1"\n')
    assert resolve(str(file)).task.repository.base == "v1"
    assert resolve(str(file), base="v2").task.repository.base == "v2"
    assert resolve(str(file), include_uncommitted=True).task.repository.include_uncommitted


@pytest.mark.parametrize("source", ["nothing", "no/such/place", "task.json", "octo#7", "git@github.com:octo/spoon.git"])
def test_a_source_of_no_known_form_lists_the_forms(source: str) -> None:
    with pytest.raises(InputError) as error:
        resolve(source)
    assert source in str(error.value)
    assert FORMS in str(error.value)


def test_options_that_do_not_belong_to_the_source_are_refused(tmp_path: Path) -> None:
    package = tmp_path / "p.toml"
    package.write_text('statement = "x"\n[repository]\npackage = "spoon==1"\n')
    for source, options, flag in (
        (tmp_path, {}, "--issue-text"),
        (tmp_path, {"issue": "a", "issue_text": "b"}, "exclude each other"),
        (tmp_path, {"issue_text": "  \n"}, "empty"),
        (tmp_path, {"issue": str(tmp_path / "none.md")}, "none.md"),
        (package, {"issue_text": "b"}, "--issue-text"),
        (package, {"base": "main"}, "--base"),
        (package, {"include_uncommitted": True}, "--include-uncommitted"),
        ("octo/spoon#7", {"include_uncommitted": True}, "--include-uncommitted"),
        (tmp_path / "missing.toml", {}, "missing.toml"),
    ):
        with pytest.raises(InputError, match=flag):
            resolve(str(source), **options)
