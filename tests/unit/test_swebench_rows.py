"""Rows of SWE-bench: read from any file that has the fields, chosen by pattern, and made into tasks that hide what
grades."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.suites.swebench import task_in_image
from tasks.errors import InputError
from tasks.swebench import Row, choose_rows, load_rows, repository_of
from tasks.task import Repository
from tests.support.rows import COMMIT, bare_row


def fields(number: int = 1, **changed: Any) -> dict[str, Any]:
    """The official fields of a row."""
    return {
        "instance_id": f"acme__lines-{number}",
        "repo": "acme/lines",
        "base_commit": COMMIT,
        "version": "1.2",
        "created_at": "2020-05-06T07:08:09Z",
        "problem_statement": "# A space\r\n\r\n`parse` chokes on it.",
        "patch": "the right patch",
        "test_patch": "the hidden tests",
        "hints_text": "look into parse()",
        "FAIL_TO_PASS": '["tests/test_a.py::test_space"]',
        "PASS_TO_PASS": '["tests/test_a.py::test_plain"]',
        "environment_setup_commit": COMMIT[::-1],
        **changed,
    }


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_rows("swe-bench-lite", path)
    return str(error.value)


def test_a_row_has_what_the_file_says(tmp_path: Path) -> None:
    (row,) = load_rows("swe-bench-lite", written(tmp_path / "rows.jsonl", fields()))
    assert row == Row(
        instance_id="acme__lines-1",
        repo="acme/lines",
        base_commit=COMMIT,
        version="1.2",
        created_at=datetime(2020, 5, 6, 7, 8, 9, tzinfo=UTC),
        problem_statement="# A space\r\n\r\n`parse` chokes on it.",
        patch="the right patch",
        test_patch="the hidden tests",
        fail_to_pass=("tests/test_a.py::test_space",),
        pass_to_pass=("tests/test_a.py::test_plain",),
        environment_setup_commit=COMMIT[::-1],
    )


def test_hints_are_not_kept(tmp_path: Path) -> None:
    (row,) = load_rows("swe-bench-lite", written(tmp_path / "rows.jsonl", fields()))
    assert "look into" not in repr(row)


def test_a_newer_row_brings_its_image_and_how_it_is_graded(tmp_path: Path) -> None:
    newer = {
        "image": "acme/sweb.eval.x86_64.acme_1776_lines-1:latest",
        "eval_script": "pytest tests/test_a.py",
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "split": "test",
        "FAIL_TO_PASS": ["tests/test_a.py::test_space"],
    }
    old = fields()
    del old["environment_setup_commit"], old["created_at"]
    (row,) = load_rows("swe-bench-lite", written(tmp_path / "rows.jsonl", {**old, **newer}))
    assert (row.image, row.eval_script) == (newer["image"], newer["eval_script"])
    assert (row.log_parser, row.eval_type) == ("parse_log_pytest", "pass_and_fail")
    assert row.fail_to_pass == ("tests/test_a.py::test_space",)
    assert row.environment_setup_commit == row.base_commit and row.created_at is None


def test_every_form_of_a_file_gives_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading parquet needs the extra eval")
    parquet = pytest.importorskip("pyarrow.parquet")
    two = [fields(1), fields(2)]
    lines = written(tmp_path / "rows.jsonl", *two)
    named_json = written(tmp_path / "lines.json", *two)
    listed, by_id, table = tmp_path / "list.json", tmp_path / "object.json", tmp_path / "rows.parquet"
    listed.write_text(json.dumps(two, indent=2))
    by_id.write_text(json.dumps({str(row["instance_id"]): row for row in two}))
    lists = [{**row, "FAIL_TO_PASS": json.loads(row["FAIL_TO_PASS"])} for row in two]
    parquet.write_table(pyarrow.Table.from_pylist(lists), table)
    first, *others = [load_rows("swe-bench", path) for path in (lines, named_json, listed, by_id, table)]
    assert [row.instance_id for row in first] == ["acme__lines-1", "acme__lines-2"]
    assert all(other == first for other in others)


def test_a_file_with_one_row_is_a_file_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text(json.dumps(fields(), indent=1))
    assert [row.instance_id for row in load_rows("swe-bench", path)] == ["acme__lines-1"]


@pytest.mark.parametrize(
    "name",
    [
        "instance_id",
        "repo",
        "base_commit",
        "version",
        "problem_statement",
        "patch",
        "test_patch",
        "FAIL_TO_PASS",
        "PASS_TO_PASS",
    ],
)
def test_a_missing_field_is_named_with_file_and_line(tmp_path: Path, name: str) -> None:
    lacking = fields(2)
    del lacking[name]
    path = written(tmp_path / "rows.jsonl", fields(1), lacking)
    assert refused(path) == f"{path}, line 2: the field {name} is missing"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"instance_id": "../etc"}, "instance_id must be a name fit for a file"),
        ({"repo": "lines"}, "repo must be owner/name, not 'lines'"),
        ({"base_commit": "main"}, "base_commit must be a commit's hash"),
        ({"base_commit": "-" * 40}, "base_commit must be a commit's hash"),
        ({"version": 1.2}, "version must be text, not a number"),
        ({"created_at": "yesterday"}, "created_at is no date"),
        ({"problem_statement": " \n"}, "problem_statement must be more than blanks"),
        ({"FAIL_TO_PASS": "tests/test_a.py"}, "FAIL_TO_PASS is no list of tests in JSON"),
        ({"PASS_TO_PASS": {"a": 1}}, "PASS_TO_PASS must be a list of tests, not an object"),
        ({"PASS_TO_PASS": [1]}, "PASS_TO_PASS must be a list of tests"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path: Path, changed: dict[str, Any], complaint: str) -> None:
    message = refused(written(tmp_path / "rows.jsonl", fields(**changed)))
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}, line 1: the field ") and complaint in message


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", fields())
    path.write_text(path.read_text() + '{"instance_id": "acme')
    assert refused(path).startswith(f"{path}, line 2: this is not JSON: ")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no rows"),
        (b"[]", "holds no rows"),
        (b"3", "must hold rows"),
        (b"[3]", "entry 1: a row must be an object with fields, not a whole number"),
        (b"{", "is not JSON"),
        (b"[]\n\xff", "line 2: this is neither UTF-8 text nor parquet"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    assert complaint in refused(path)


def test_damaged_parquet_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="reading parquet needs the extra eval")
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 100)
    assert refused(path).startswith(f"{path} is damaged: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "none.jsonl")
        == f"cannot read the rows in {tmp_path / 'none.jsonl'}: No such file or directory"
    )


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", fields(1), fields(2), fields(1))
    assert refused(path) == f"{path}, line 3: instance_id acme__lines-1 is there already, in {path}, line 1"


@pytest.mark.parametrize(("module", "path"), [("datasets", None), ("pyarrow", "rows.parquet")])
def test_without_the_extra_the_error_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, path: str | None
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if path is not None:
        (tmp_path / path).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pip install 'datasets"):
        load_rows("swe-bench-lite", tmp_path / path if path else None)


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the hub is read by the extra eval")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", _offline(datasets.load_dataset))
    with pytest.raises(
        InputError, match=r"cannot be had from the hub .*, so give them as a file with --dataset FILE: ."
    ):
        load_rows("swe-bench-lite")


def _offline(load: Callable[..., Any]) -> Callable[..., Any]:
    def loading(name: str, **settings: Any) -> Any:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nmore lines")

    return loading


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(InputError, match="there is no suite 'swe-bench-light': it is one of swe-bench, "):
        load_rows("swe-bench-light")


POOL = [
    *(bare_row(instance_id=f"acme__lines-{n}") for n in range(1, 31)),
    *(bare_row(instance_id=f"sympy__sympy-{n}", repo="sympy/sympy") for n in range(100, 140)),
]


def ids(*patterns: str) -> list[str]:
    return [row.instance_id for row in choose_rows(POOL, patterns)]


def test_no_pattern_means_all_rows() -> None:
    assert choose_rows(POOL, []) == POOL


def test_patterns_add_up_in_the_order_of_the_rows() -> None:
    assert ids("sympy__sympy-103,acme__lines-2", "acme__lines-1") == [
        "acme__lines-1",
        "acme__lines-2",
        "sympy__sympy-103",
    ]
    assert ids("*-10[01]") == ["sympy__sympy-100", "sympy__sympy-101"]
    assert ids("sympy-10[01],lines-2") == ["acme__lines-2", "sympy__sympy-100", "sympy__sympy-101"]
    assert ids("repo:sympy") == ids("repo:sympy/sympy") == ids("sympy__*")


def test_a_sample_is_the_same_for_a_seed_and_comes_from_what_the_others_name() -> None:
    drawn = ids("repo:sympy", "sample:7@3")
    assert len(drawn) == 7 and drawn == ids("sample:7@3,repo:sympy") and all("sympy" in name for name in drawn)
    assert drawn == sorted(drawn) != ids("repo:sympy", "sample:7@4")
    assert ids("sample:7") == ids("sample:7@0")
    assert {row.instance_id for row in choose_rows(POOL[::-1], ["sample:7@3", "repo:sympy"])} == set(drawn)
    assert ids("sample:999") == ids()


def test_a_larger_sample_holds_the_smaller_one() -> None:
    assert set(ids("sample:5@1")) < set(ids("sample:9@1"))


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("sympy__sympy-10", "no instance is called 'sympy__sympy-10'; the nearest are sympy__sympy-1"),
        ("nothing*", "no instance is called 'nothing*'"),
        ("repo:simpy", "no instance is of the repository 'simpy'; the nearest are sympy"),
        ("sample:none", "'sample:none' is no sample"),
        ("sample:0", "'sample:0' is no sample"),
        ("sample:3,sample:4", "takes one sample, not sample:3 and sample:4"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        choose_rows(POOL, [pattern])


@pytest.mark.parametrize("place", ["acme__lines.git", "acme__lines", "acme/lines.git", "acme/lines"])
def test_a_clone_among_the_mirrors_is_taken(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "HEAD").write_text("ref: refs/heads/main\n")
    assert repository_of(bare_row(), tmp_path) == Repository("path", str(tmp_path / place), COMMIT)


def test_without_a_clone_the_repository_is_on_github(tmp_path: Path) -> None:
    (tmp_path / "acme__lines").mkdir()  # but it is no repository
    github = Repository("url", "https://github.com/acme/lines.git", COMMIT)
    assert repository_of(bare_row(), tmp_path) == repository_of(bare_row()) == github


def test_mirrors_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a directory"):
        repository_of(bare_row(), tmp_path / "none")


HIDDEN: dict[str, Any] = {
    "patch": "diff --git a/x b/x",
    "test_patch": "diff --git a/tests/test_x.py b/tests/test_x.py",
    "fail_to_pass": ("tests/test_x.py::test_y",),
    "pass_to_pass": (),
    "eval_script": "pytest tests/test_x.py",
    "log_parser": "parse_other",
    "eval_type": "fail_only",
}


def real_rows() -> list[Row]:
    where = os.environ.get("TROOP_DATA")
    if not where:
        pytest.skip("TROOP_DATA does not name a directory with swe-bench-lite.jsonl")
    return load_rows("swe-bench-lite", Path(where) / "swe-bench-lite.jsonl")


def test_no_hidden_field_makes_a_difference_to_a_task() -> None:
    row = bare_row(problem_statement="It fails.", created_at=datetime(2020, 1, 1, tzinfo=UTC))
    _hides(row)


def test_the_tasks_of_all_rows_hide_what_grades_them() -> None:
    rows = real_rows()
    assert len(rows) == 300
    for row in rows:
        _hides(row)


def _hides(row: Row) -> None:
    """The task is the same whatever the hidden fields hold, and says nothing that only they say."""
    repository = repository_of(row)
    task = task_in_image(row, repository, "image")
    assert task == task_in_image(dataclasses.replace(row, **HIDDEN), repository, "image")
    assert task.statement == row.problem_statement.strip() + "\n"
    assert task.repository.base == row.base_commit
    beyond = "\n".join(_texts(dataclasses.asdict(dataclasses.replace(task, statement=""))))
    names = {*re.findall(r"^diff --git a/(\S+)", row.patch + "\n" + row.test_patch, re.MULTILINE)}
    for test in (*row.fail_to_pass, *row.pass_to_pass):
        names |= {test, *re.findall(r"\btest\w{3,}", test)} - {"tests", "testing"}
    said = [name for name in names if name in beyond]
    assert not [name for name in said if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", beyond)]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in _texts(part)] if isinstance(value, (list, tuple)) else [str(value)]
