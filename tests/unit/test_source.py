"""SOURCE on the command line: which task it names, and what is said when it names none."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.source import FORMS, local_task, resolve
from tasks.task import Repository
from tests.support.repositories import make_repository


@pytest.fixture(autouse=True)
def in_a_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()


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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("README.md", b"# Spoon\n", "is a file, not a task file.*give it with --issue"),
        ("empty.md", b" \n", "is an empty file, not a task file"),
        ("photo", b"\x89PNG\0\0", "is a binary file, not a task file"),
        ("empty.toml", b"# nothing\n", "is empty: a task file needs"),
        ("photo.toml", b"\x89PNG\0\0", "cannot be read as a task file: byte 0 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_task_file_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    for text in (None, "x") if not name.endswith(".toml") else (None,):
        with pytest.raises(InputError, match=said) as error:
            resolve(str(tmp_path / name), issue_text=text)
        assert str(error.value).startswith(str(tmp_path / name)) and "does not exist" not in str(error.value)


def test_a_directory_that_is_no_repository_is_called_so_before_a_text_is_asked_for(tmp_path: Path) -> None:
    within = tmp_path / "src"
    within.mkdir()
    assert resolve(str(within), issue_text="x").task.repository.location == str(within)
    (tmp_path / ".git").rmdir()
    for place in (tmp_path, within):
        with pytest.raises(InputError, match="neither it nor one above it is a git repository"):
            resolve(str(place))


@pytest.mark.parametrize("source", ["~nobody-of-that-name/x", "x" * 300, "x/" * 3000])
def test_what_cannot_be_a_path_is_no_source(source: str) -> None:
    with pytest.raises(InputError, match="a source is one of"):
        resolve(source)


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


def test_a_directory_with_a_project_within_a_repository_is_the_project_that_is_meant(tmp_path: Path) -> None:
    place = make_repository(tmp_path / "mono", {"libs/core/pyproject.toml": "", "libs/core/src/core.py": ""})
    assert local_task(place / "libs/core", "It bends.").environment.directory == "libs/core"
    for whole in (place, place / "libs/core/src"):
        assert local_task(whole, "It bends.").environment.directory == ""
