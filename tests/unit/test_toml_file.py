"""Values put into a TOML file: all else of it stays; a file that is no TOML is left as it was."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.toml_file import as_toml, put
from tasks.errors import InputError

MINE = '''# mine
[models.qwen]   # the big one
base_url = "http://x/v1#a"   # here # there
name="q"
context = 10
note = """
name = [
"""

# the cheap one
[models.cheap]
model = "deepseek/x"'''


def changed(tmp_path: Path, text: str, values: dict[str, Any]) -> str:
    file = tmp_path / "troop.toml"
    file.write_bytes(text.encode())
    put(file, values)
    return file.read_bytes().decode()


def test_a_value_takes_the_place_of_the_old_one_and_its_comment_stays(tmp_path: Path) -> None:
    new = changed(tmp_path, MINE, {"models": {"qwen": {"base_url": "http://y/v1#b", "name": "q"}}})
    assert new == MINE.replace('"http://x/v1#a"', '"http://y/v1#b"')


def test_new_keys_and_tables_leave_all_else_as_it_is(tmp_path: Path) -> None:
    values = {"default_model": "qwen", "models": {"qwen": {"tools": False, "sampling": {"seed": False}}}}
    new = changed(tmp_path, MINE, values)
    before, after = tomllib.loads(MINE), tomllib.loads(new)
    qwen = {**before["models"]["qwen"], **values["models"]["qwen"]}  # type: ignore[index]  # it is a table
    assert after == {"default_model": "qwen", "models": {**before["models"], "qwen": qwen}}
    left = iter(new.splitlines())
    assert all(line in left for line in MINE.splitlines()), "each line is there, in its order"


def test_lines_that_end_as_on_windows_stay(tmp_path: Path) -> None:
    new = changed(tmp_path, "[models.a]\r\ncontext = 1 # c\r\n", {"models": {"a": {"context": 2}, "b": {"name": "é"}}})
    assert new.startswith("[models.a]\r\ncontext = 2 # c\r\n")
    assert tomllib.loads(new) == {"models": {"a": {"context": 2}, "b": {"name": "é"}}}


@pytest.mark.parametrize(
    "text",
    [
        "models = { qwen = { context = 10 } }\n",
        "[models]\nqwen.context = 10\n",
        '[models.qwen]\nnote = """\n[other]\n"""\n',
        '[models.qwen]\nnote = """\ncontext = 3\n"""\ncontext = 10\n',
    ],
)
def test_a_file_may_be_written_in_any_way(text: str, tmp_path: Path) -> None:
    wanted = tomllib.loads(text)
    wanted["models"]["qwen"]["context"] = 11
    assert tomllib.loads(changed(tmp_path, text, {"models": {"qwen": {"context": 11}}})) == wanted


@pytest.mark.parametrize(
    "text", ["[models.qwen]\ncontext = \\\n", "[models.qwen\n", "\udce9 = 1\n", "models = 3\n[models.qwen]\n"]
)
def test_a_file_that_is_no_toml_is_refused_and_left_as_it_was(text: str, tmp_path: Path) -> None:
    file = tmp_path / "troop.toml"
    before = text.encode("utf-8", "surrogateescape")
    file.write_bytes(before)
    with pytest.raises(InputError, match="nothing was written"):
        put(file, {"models": {"qwen": {"context": 11}}})
    assert file.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["troop.toml"]


def test_a_linked_file_stays_a_link_and_keeps_its_mode(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("a = 1\n")
    real.chmod(0o600)
    (tmp_path / "troop.toml").symlink_to(real)
    put(tmp_path / "troop.toml", {"b": 2})
    assert (tmp_path / "troop.toml").is_symlink() and real.read_text() == "a = 1\nb = 2\n"
    assert real.stat().st_mode & 0o777 == 0o600


LEAF = (
    st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
TREE = st.recursive(
    st.dictionaries(KEYS, LEAF, max_size=4), lambda inner: st.dictionaries(KEYS, LEAF | inner, max_size=4)
)


def without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {k: without_empty(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in kept.items() if v != {}}


@given(TREE)
def test_what_is_written_reads_as_what_was_meant(tree: dict[str, Any]) -> None:
    assert without_empty(tomllib.loads(as_toml(tree))) == without_empty(tree)
