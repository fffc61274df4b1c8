"""Task files: what a file means, and how a wrong one is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.task import Environment, GivenTest, Repository
from tasks.taskfile import load_task_file

ROOT = Path(__file__).parents[2]
PACKAGE = '[repository]\npackage = "spoon==1.2.3"\n'
SMALL = f'id = "spoon"\nstatement = "It bends."\n{PACKAGE}'


def write(directory: Path, text: str, name: str = "task.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def refusal(directory: Path, text: str) -> str:
    """The one sentence that a file is refused with; it names the file."""
    path = write(directory, text)
    with pytest.raises(InputError) as error:
        load_task_file(path)
    assert str(path) in str(error.value)
    return str(error.value).replace(str(path), "FILE")


def test_the_smallest_file_leaves_the_rest_to_be_found_out(tmp_path: Path) -> None:
    instance = load_task_file(write(tmp_path, SMALL))
    assert instance.task.id == "spoon"
    assert instance.task.statement == "It bends.\n"
    assert instance.task.repository == Repository("package", "spoon==1.2.3")
    assert instance.task.environment == Environment()
    assert instance.task.test_command is None
    assert instance.task.failing_test is None
    assert instance.grading is None


def test_the_scope_of_the_tests_is_the_whole_suite_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    assert load_task_file(write(tmp_path, SMALL)).task.test_scope == "whole"
    assert load_task_file(write(tmp_path, SMALL + '[tests]\nscope = "near"\n')).task.test_scope == "near"


def test_the_example_in_the_documentation_is_a_task_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "task-file.md").read_text()
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example
    instance = load_task_file(write(tmp_path, example[1]))
    task = instance.task
    assert task.id == "parse-trailing-space"
    assert task.repository == Repository("url", "https://git.example.org/team/lines.git", "v2.3.0")
    assert task.environment == Environment(python="3.11", setup=("pip install -e .[test]",))
    assert task.test_command == "python -m pytest -q"
    assert task.failing_test and task.failing_test.ids == ("tests/test_issue.py::test_trailing_space",)
    assert task.failing_test.files[0][0] == "tests/test_issue.py"
    assert instance.grading and instance.grading.fail_to_pass == ("tests/test_hidden.py::test_spaces_and_tabs",)
    assert instance.grading.pass_to_pass == ("tests/test_lines.py::test_plain",)
    assert compile(instance.grading.files[0][1], "hidden", "exec")


def test_nothing_of_the_grading_is_in_the_task(tmp_path: Path) -> None:
    text = SMALL + '[grading]\nfail_to_pass = ["SECRET"]\ncommand = "SECRET"\nfiles = {"t.py" = "SECRET"}\n'
    instance = load_task_file(write(tmp_path, text))
    assert instance.grading and instance.grading.test_command == "SECRET"
    assert "SECRET" not in repr(instance.task)


def test_every_bundled_example_loads_with_its_grading() -> None:
    files = sorted((ROOT / "tasks" / "examples").glob("*.toml"))
    assert len(files) >= 4
    for file in files:
        instance = load_task_file(file)
        assert instance.task.id == file.stem
        assert instance.grading is not None


def test_without_an_id_the_file_names_the_task(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL.replace('id = "spoon"\n', ""), "bent spoon.toml")
    assert load_task_file(path).task.id == "bent-spoon"


def test_a_relative_path_counts_from_the_files_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "tasks").mkdir()
    path = write(tmp_path / "tasks", 'statement = "x"\n[repository]\npath = "../repo"\nbase = "v1"\n')
    monkeypatch.chdir("/")
    assert load_task_file(path).task.repository == Repository("path", str((tmp_path / "repo").resolve()), "v1")


def test_test_files_can_lie_in_a_directory_next_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "given" / "tests" / "__pycache__").mkdir(parents=True)
    (tmp_path / "given" / "tests" / "test_a.py").write_bytes(b"def test_a(): assert '\xc3\xa9'\r\n")
    (tmp_path / "given" / "tests" / "__pycache__" / "test_a.pyc").write_bytes(b"\xff")
    text = SMALL + '[failing_test]\nids = ["tests/test_a.py"]\ndirectory = "given"\nfiles = {"b.txt" = "b"}\n'
    given = load_task_file(write(tmp_path, text)).task.failing_test
    assert given == GivenTest(
        ids=("tests/test_a.py",), files=(("b.txt", "b"), ("tests/test_a.py", "def test_a(): assert 'é'\r\n"))
    )


@pytest.mark.parametrize(
    ("extra", "key", "nearest"),
    [
        ('[tests]\ncomand = "make"\n', "[tests] comand", "command"),
        ('[environment]\npythn = "3.11"\n', "[environment] pythn", "python"),
        ('[grading]\nfail-to-pass = ["a"]\n', "[grading] fail-to-pass", "fail_to_pass"),
        ('[failing_tests]\nids = ["a"]\n', "failing_tests", "failing_test"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, extra: str, key: str, nearest: str
) -> None:
    said = refusal(tmp_path, SMALL + extra)
    assert f"FILE: {key} " in said
    assert f"did you mean '{nearest}'" in said


def test_an_unknown_key_far_from_all_lists_the_known_ones(tmp_path: Path) -> None:
    assert "known are command" in refusal(tmp_path, SMALL + "[tests]\nzzz = 1\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PACKAGE, "statement is missing"),
        (f'statement = "  "\n{PACKAGE}', "statement must not be empty"),
        (f"statement = 7\n{PACKAGE}", "statement must be text in quotes, not 7"),
        ('statement = "x"\n', "[repository] is missing"),
        ('statement = "x"\nrepository = "x"\n', "repository must be a table, not 'x'"),
        (f'id = "a/b"\nstatement = "x"\n{PACKAGE}', "id must be a name"),
        ('statement = "x"\n[repository]\n', "exactly one of package, path, url; it has none"),
        (SMALL + 'url = "x"\n', "it has package and url"),
        (SMALL + 'base = "main"\n', "[repository] base belongs to path and url"),
        ('statement = "x"\n[repository]\npackage = "spoon>=1"\n', "[repository] package a released package is written"),
        ('statement = "x"\n[repository]\nurl = "--upload-pack=x"\n', "[repository] url must be"),
        ('statement = "x"\n[repository]\nurl = "u"\nbase = "-x"\n', "[repository] base must be a git ref"),
        ('statement = "x"\n[repository]\npath = "nowhere"\n', "is not a directory"),
        ('statement = "x"\n[repository]\npath = ""\n', "[repository] path must not be empty"),
        (SMALL + "[environment]\npython = 3.11\n", "must be text in quotes, not 3.11"),
        (SMALL + '[environment]\npython = "2.7"\n', "[environment] python must be a Python version"),
        (SMALL + '[environment]\nsetup = "make"\n', "[environment] setup must be an array of texts, not 'make'"),
        (SMALL + "[environment]\nsetup = [1]\n", "must be an array of texts, not [1]"),
        (SMALL + '[environment]\napt = ["a; rm -rf /"]\n', "[environment] apt must name Debian packages, not 'a; rm"),
        (SMALL + '[environment]\ndirectory = "../x"\n', "[environment] directory '../x' must lie inside"),
        (SMALL + '[tests]\ncommand = ""\n', "[tests] command must not be empty"),
        (SMALL + '[tests]\nscope = "far"\n', '[tests] scope must be "whole" or "near", not \'far\''),
        (SMALL + "[failing_test]\nids = []\n", "[failing_test] ids must name at least one"),
        (SMALL + '[failing_test]\nids = ["a"]\nfiles = {"a.py" = 1}\n', "'a.py' must be the file's text"),
        (SMALL + '[grading]\npass_to_pass = ["a"]\n', "[grading] needs fail_to_pass"),
        (SMALL + '[grading]\ndirectory = "nowhere"\n', "[grading] directory must be a directory next to"),
        (SMALL + '[grading]\nfiles = {"../a.py" = ""}\n', "must lie inside the repository"),
        (SMALL + '[grading]\nfiles = {"/a.py" = ""}\n', "must lie inside the repository"),
        (SMALL + '[grading]\nfiles = {".git/hooks/x" = ""}\n', "must not lie in .git"),
        (SMALL + '[grading]\nfiles = {"a//b.py" = ""}\n', "is not a plain path"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused_by_name(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


def test_a_test_file_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.py").write_text("")
    text = SMALL + '[failing_test]\nids = ["a.py"]\ndirectory = "given"\nfiles = {"a.py" = ""}\n'
    assert "'a.py' is given here and in the directory" in refusal(tmp_path, text)


def test_a_link_in_a_test_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.py").symlink_to("/etc/hostname")
    assert "symbolic link" in refusal(tmp_path, SMALL + '[grading]\ndirectory = "given"\n')


def test_wrong_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, 'id = "x"\nstatement = "unfinished\n')


def test_a_missing_file_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_task_file(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_task_file(tmp_path / "binary.toml")


def test_the_environment_may_name_a_project_and_debian_packages(tmp_path: Path) -> None:
    text = SMALL + '[environment]\ndirectory = "libs/core/"\napt = ["libpq-dev", "g++"]\n'
    found = load_task_file(write(tmp_path, text)).task.environment
    assert found == Environment(directory="libs/core", apt=("libpq-dev", "g++"))
