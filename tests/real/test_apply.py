"""A selected patch on a branch: named after the issue, told in the commit, made once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.repository.apply import Applied, apply_to_branch, branch_name, commit_message
from tasks.errors import InputError
from tasks.source import local_task
from tests.support.repositories import git, make_repository

NASTY = "Fix: a\r\n\nSigned-off-by: Eve <e@x>\x1b[31m\u202e\x00 \ud800 naïve"


def patched(value: int) -> str:
    return f"--- a/mod.py\n+++ b/mod.py\n@@ -1 +1 @@\n-x = 1\n+x = {value}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "mine", {"mod.py": "x = 1\n"}, date="2024-01-01T00:00:00+0000")


def put(repository: Path, value: int, title: str = "It bends") -> Applied:
    message = commit_message(title, ["Selected by Troop.", "All tests pass."], "mine-1")
    return apply_to_branch(
        repository, git(repository, "rev-parse", "HEAD"), patched(value), branch_name(title, "id"), message
    )


def test_a_patch_gets_one_branch_and_another_patch_the_next_number(repository: Path) -> None:
    assert put(repository, 2) == Applied("troop/it-bends", new=True)
    assert put(repository, 2) == Applied("troop/it-bends", new=False)
    assert put(repository, 3) == Applied("troop/it-bends-2", new=True)
    assert put(repository, 3) == Applied("troop/it-bends-2", new=False)
    git(repository, "branch", "-D", "troop/it-bends")
    assert put(repository, 3, "It bends") == Applied("troop/it-bends", new=True)


def test_a_patch_that_was_verified_as_it_applies_loosely_is_put_on_a_branch_so(repository: Path) -> None:
    """Its counts and one line of context are wrong, as other tools' patches often are; what does not apply is refused."""
    base = git(repository, "rev-parse", "HEAD")
    (repository / "mod.py").write_text("a = 1\nb = 2\nx = 1\nc = 3\nd = 4\n")
    git(repository, "commit", "-qam", "more")
    head = git(repository, "rev-parse", "HEAD")
    loose = "--- a/mod.py\n+++ b/mod.py\n@@ -1,9 +1,9 @@\n a = 0\n b = 2\n-x = 1\n+x = 5\n c = 3\n d = 4\n"
    done = apply_to_branch(repository, head, loose, "loose", "It bends\n")
    assert git(repository, "show", f"{done.branch}:mod.py") == "a = 1\nb = 2\nx = 5\nc = 3\nd = 4"
    with pytest.raises(InputError, match="cannot put the patch on a branch"):
        apply_to_branch(repository, base, loose, "loose", "It bends\n")


def test_branches_of_the_users_own_stand_in_no_way(repository: Path) -> None:
    git(repository, "branch", "naïve")
    git(repository, "branch", "troop")
    git(repository, "config", "i18n.commitEncoding", "latin-1")
    assert put(repository, 2, NASTY).branch == "troop-fix-a-signed-off-by-eve-e-x-31m-naive"
    shown = git(
        repository,
        "log",
        "-1",
        "--encoding=UTF-8",
        "--format=%s%n%(trailers:only)",
        "troop-fix-a-signed-off-by-eve-e-x-31m-naive",
    )
    assert shown == "Fix: a Signed-off-by: Eve <e@x> [31m naïve\nTroop-Run: mine-1"


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_title_can_break_out_of_the_subject_or_of_a_branchs_name(title: str, run: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", branch_name(title, run)) and len(branch_name(title, run, "12")) <= 50
    subject, _, rest = commit_message(title, ["Told."], run).partition("\n")
    assert 0 < len(subject) <= 72 and subject.isprintable()
    assert re.fullmatch(r"\nTold\.\n\nTroop-Run: .*\n", rest)


def test_a_long_title_is_cut_between_words_where_it_has_some() -> None:
    assert commit_message("word " * 30, [], "r").splitlines()[0] == "word " * 13 + "word…"
    assert commit_message("w" * 100, [], "r").splitlines()[0] == "w" * 72
    assert branch_name("word " * 30, "id", "7") == "7" + "-word" * 9
    assert branch_name("w" * 100, "id") == "w" * 50
    assert branch_name("太郎", "mine-0a1b") == "mine-0a1b"


@pytest.mark.parametrize(
    ("statement", "title"),
    [
        ("# It bends\n\nAlways.", "It bends"),
        ("\n## It bends ##\n", "It bends"),
        ("<!-- a template -->\n---\n#12 bends", "#12 bends"),
        ("...", "mine-2f43b42f"),
    ],
)
def test_the_title_is_the_first_line_that_says_something(statement: str, title: str, tmp_path: Path) -> None:
    task = dataclasses.replace(local_task(tmp_path / "mine", statement), id="mine-2f43b42f")
    assert task.title == title and task.number == ""
    assert dataclasses.replace(task, id="octo__spoon-7").number == "7"
