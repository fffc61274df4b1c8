"""What is told of code and patches without running them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.choosing.statement import Statement
from harness.choosing.static_evidence import look
from harness.code.facts import normal_form, parsed, touched, undefined_names
from harness.repository.base_tree import open_tree
from tasks.errors import InputError
from tests.support.calculator import FILES, make_repository


def form(source: str) -> str:
    tree = parsed(source.encode())
    found = normal_form(tree) if tree is not None else None
    assert found is not None
    return found


def test_layout_comments_docstrings_and_local_names_do_not_count() -> None:
    one = (
        'def f(values):\n    """Doc."""\n    total = 0\n    for v in values:  # all\n        total += v\n    return'
        " total\n"
    )
    two = "def f(values):\n    s = 0\n    for each in values:\n        s += each\n    return (s)\n"
    assert form(one) == form(two)


@pytest.mark.parametrize(
    "other", ["def f(b):\n    return b\n", "def f(a):\n    return a + 1\n", "def g(a):\n    return a\n"]
)
def test_parameters_names_and_operations_do(other: str) -> None:
    assert form("def f(a):\n    return a\n") != form(other)


def test_a_global_that_a_function_binds_keeps_its_name() -> None:
    assert form("def f():\n    global a\n    a = 1\n") != form("def f():\n    global b\n    b = 1\n")


def test_undefined_names_are_found_in_every_scope() -> None:
    source = (
        b"import os\nX = 1\ndef f(a):\n    return [os, X, a, missing, len] + [q for q in a]\nclass C:\n    y = gone\n"
    )
    assert undefined_names(source) == {"missing", "gone"}


def test_nothing_is_said_of_a_module_with_a_star_import() -> None:
    assert undefined_names(b"from x import *\nprint(anything)\n") == frozenset()


def test_touched_scopes_are_told_by_their_names() -> None:
    before = parsed(b"import a\nclass C:\n    def m(self):\n        return 1\n    def n(self):\n        return 2\n")
    after = parsed(
        b"import a\nclass C:\n    def m(self):\n        return 3\n    def n(self):\n        return 2\ndef new():\n   "
        b" pass\n"
    )
    assert touched(before, after) == frozenset({"C.m", "new"})


def diff_of(directory: Path, path: str, text: str) -> str:
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text(text)
    subprocess.run(["git", "add", "-A"], cwd=directory, check=True)
    made = subprocess.run(["git", "diff", "--cached"], cwd=directory, check=True, capture_output=True, text=True).stdout
    subprocess.run(["git", "reset", "-q", "--hard"], cwd=directory, check=True)
    return made


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "calculator")


def head(repository: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout.strip()


STATEMENT = Statement("`total([1, 2])` in calc.py gives 2\n")


def test_a_patch_is_put_on_the_base_without_a_working_tree(repository: Path) -> None:
    patch = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]", "values"))
    with open_tree(repository, head(repository)) as tree:
        patched = tree.patched(patch)
        assert patched.applies == "clean"
        before, after = patched.files["calc.py"]
        assert before is not None and after is not None
        assert (b"values[1:]" in before, b"values[1:]" in after) == (True, False)
        assert tree.read("calc.py") == before
        assert tree.patched(patch).applies == "clean"


def test_a_patch_with_other_context_applies_fuzzily_and_one_for_other_code_does_not(repository: Path) -> None:
    patch = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]", "values"))
    with open_tree(repository, head(repository)) as tree:
        assert tree.patched(patch.replace(" def total(values):", " def total(numbers):")).applies == "fuzzy"
        gone = tree.patched(patch.replace("values[1:]", "others[1:]"))
        assert gone.applies == "no" and gone.reason


@pytest.mark.parametrize(
    "deep",
    [
        "TOTAL = " + " + ".join(["1"] * 900),
        "def kind(x):\n    if x == 0:\n        return 0\n" + "    elif x:\n        return 1\n" * 400,
    ],
)
def test_code_that_is_nested_too_deeply_to_be_walked_counts_as_its_text(repository: Path, deep: str) -> None:
    one = diff_of(repository, "deep.py", f"{deep}\n")
    other = diff_of(repository, "deep.py", f"{deep}\n\nX = 1\n")
    with open_tree(repository, head(repository)) as tree:
        facts = [look(patch, STATEMENT, tree) for patch in (one, one, other)]
    assert facts[0] == facts[1] and facts[0].code != facts[2].code
    assert not any(each.unparsed or each.no_code for each in facts)


def test_hooks_and_filters_of_a_repository_do_not_run(repository: Path) -> None:
    patch = diff_of(repository, "new.py", "x = 1\n")  # by git as usual, so before there is a hook
    (repository / ".git/hooks/post-index-change").write_text("#!/bin/sh\ntouch ran\n")
    (repository / ".git/hooks/post-index-change").chmod(0o755)
    (repository / ".git/info/attributes").write_text("* filter=evil\n")
    subprocess.run(["git", "config", "filter.evil.smudge", "touch filtered"], cwd=repository, check=True)
    with open_tree(repository, head(repository)) as tree:
        tree.patched(patch)
    assert not (repository / "ran").exists()
    assert not (repository / "filtered").exists()


def test_an_unknown_commit_is_an_input_error(repository: Path) -> None:
    with pytest.raises(InputError, match="has no commit"), open_tree(repository, "0" * 40):
        pass


def test_facts_tell_a_sound_patch_from_a_broken_one(repository: Path) -> None:
    sound = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]", "values"))
    unparsed = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]:", "values[1:"))
    undefined = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]", "known(values)"))
    stray = diff_of(repository, "reproduce.py", "from calc import total\nprint(total([1]))\n")
    prose = diff_of(repository, "calc.py", FILES["calc.py"].replace('"""Sums."""', '"""Adds up."""'))
    with open_tree(repository, head(repository)) as tree:
        facts = [look(p, STATEMENT, tree) for p in (sound, unparsed, undefined, stray, prose)]
    assert [f.unparsed for f in facts] == [(), ("calc.py",), (), (), ()]
    assert [f.undefined for f in facts] == [(), (), ("known",), (), ()]
    assert [f.strays for f in facts] == [(), (), (), ("reproduce.py",), ()]
    assert [f.no_code for f in facts] == [False, True, False, False, True]
    assert facts[0].places == ("calc.py::total",)
    assert facts[0].named_files == 1.0


def test_without_a_tree_the_diff_alone_tells_what_it_can(repository: Path) -> None:
    patch = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]", "values"))
    facts = look(patch, STATEMENT, None)
    assert (facts.applies, facts.files) == ("unknown", ("calc.py",))


def test_a_stray_file_makes_no_other_candidate(repository: Path) -> None:
    fix = FILES["calc.py"].replace("values[1:]", "values")
    alone = diff_of(repository, "calc.py", fix)
    stray = diff_of(repository, "reproduce.py", "from calc import total\nprint(total([1]))\n")
    other = diff_of(repository, "calc.py", FILES["calc.py"].replace("values[1:]", "values[0:]"))
    with open_tree(repository, head(repository)) as tree:
        for at in (tree, None):
            one, both, else_ = (look(p, STATEMENT, at).code for p in (alone, alone + stray, other))
            assert one == both != else_
