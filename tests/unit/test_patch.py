"""What a patch says about itself: its files, its sameness with others, its flags."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.patches.patch import _FLAGS, _WORDS, Patch
from harness.patches.text import FileChange

BASE = """import os


def area(width, height):
    # Multiplies.
    if width < 0:
        raise ValueError("width")
    return width * height


def name(thing):
    return str(thing)


def twice(x):
    return name(x) + name(x)
"""


def diff_of(top: Path, before: Mapping[str, str], after: Mapping[str, str | None], *options: str) -> str:
    """A real diff between two trees; None deletes a file."""
    top.mkdir(parents=True, exist_ok=True)

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=top, capture_output=True, check=True).stdout

    def lay(files: Mapping[str, str | None]) -> None:
        for path, text in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                (top / path).unlink()
            else:
                (top / path).write_bytes(text.encode("utf-8", "surrogateescape"))

    if not (top / ".git").exists():
        git("init", "-q")
    git("read-tree", "--empty")
    lay(before)
    git("add", "--all", "--force")
    tree = git("write-tree").decode().strip()
    lay(after)
    git("add", "--all", "--force")
    options = options or ("--full-index", "--binary", "--no-renames")
    return git("diff", "--cached", *options, tree).decode("utf-8", "surrogateescape")


def edit(tmp_path: Path, after: str | None, path: str = "pkg/shapes.py", before: str = BASE, *options: str) -> Patch:
    return Patch(diff_of(tmp_path / "edit", {path: before}, {path: after}, *options))


def changed(*pairs: tuple[str, str], base: str = BASE) -> str:
    for old, new in pairs:
        assert old in base
        base = base.replace(old, new, 1)
    return base


def of(path: str, *lines: str, kind: str = "modified") -> str:
    """A small diff written by hand."""
    old, new = (f"a/{path}", f"b/{path}")
    head = f"diff --git {old} {new}\n"
    if kind == "added":
        head += "new file mode 100644\n"
        old = "/dev/null"
    elif kind == "deleted":
        head += "deleted file mode 100644\n"
        new = "/dev/null"
    before = sum(line[0] != "+" for line in lines)
    after = sum(line[0] != "-" for line in lines)
    body = "".join(line + "\n" for line in lines)
    return f"{head}--- {old}\n+++ {new}\n@@ -{int(before > 0)},{before} +{int(after > 0)},{after} @@\n{body}"


def lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def applied(change: FileChange, base: list[str]) -> list[str]:
    """The lines of the file after the change; every hunk must fit at its place."""
    after: list[str] = []
    at = 0
    for hunk in change.hunks:
        for number, sign, text in hunk.numbered():
            after += base[at : number - 1]
            at = number - 1
            if sign != "+":
                assert base[at] == text
                at += 1
            if sign != "-":
                after.append(text)
    return after + base[at:]


class TestFiles:
    def test_kinds_paths_and_counts(self, tmp_path: Path) -> None:
        before = {"a.py": "x = 1\ny = 2\n", "gone.py": "g\n", "old/place.py": "content\n" * 5, "docs/x.md": "x\n"}
        after = {
            "a.py": "x = 2\ny = 2\nz = 3\n",
            "gone.py": None,
            "old/place.py": None,
            "new/place.py": "content\n" * 5,
            "b.txt": "n\n",
        }
        patch = Patch(diff_of(tmp_path, before, after))
        assert [(c.path, c.kind, c.old_path) for c in patch.files] == [
            ("a.py", "modified", None),
            ("b.txt", "added", None),
            ("gone.py", "deleted", None),
            ("new/place.py", "renamed", "old/place.py"),
        ]
        assert (patch.added_lines, patch.removed_lines, patch.changed_lines) == (3, 2, 5)
        assert patch.paths == ("a.py", "b.txt", "gone.py", "new/place.py", "old/place.py")
        assert patch.touched_lines["a.py"] == {1, 2}

    def test_renames_as_git_writes_them(self, tmp_path: Path) -> None:
        text = "".join(f"line {n}\n" for n in range(20))
        patch = Patch(diff_of(tmp_path, {"a b.py": text}, {"a b.py": None, "ü.py": text + "more\n"}, "-M"))
        (change,) = patch.files
        assert (change.kind, change.old_path, change.path, change.added) == ("renamed", "a b.py", "ü.py", 1)

    @pytest.mark.parametrize(
        "name", ["a b.py", "tab\there", 'quo"te\\', "new\nline", "ünïcode ☃", "caf\udce9", " lead", "a b/b/c b", "-x"]
    )
    def test_any_name_is_read_back(self, tmp_path: Path, name: str) -> None:
        for after in ("2\n", "", None):
            (change,) = Patch(diff_of(tmp_path / "t", {name: "1\n", "keep": "k\n"}, {name: after})).files
            assert change.path == name
            (tmp_path / "t" / name).unlink(missing_ok=True)

    def test_mode_changes_binaries_and_empty_files(self, tmp_path: Path) -> None:
        diff = (
            "diff --git a/run.sh b/run.sh\nold mode 100755\nnew mode 100644\ndiff --git a/e b/e\nnew file mode"
            " 100644\nindex 0000000000000000000000000000000000000000..e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\n"
            + diff_of(tmp_path, {"b.bin": "\0\1"}, {"b.bin": "\0\2"})
        )
        kinds = {c.path: (c.kind, c.binary) for c in Patch(diff).files}
        assert kinds == {"run.sh": ("mode", False), "e": ("added", False), "b.bin": ("modified", True)}
        assert {"mode-change", "binary"} <= set(Patch(diff).flags)

    def test_content_that_looks_like_a_header_is_content(self, tmp_path: Path) -> None:
        before = "-- a/x\nkeep\n"
        after = "++ b/x\ndiff --git a/q b/q\n@@ -1 +1 @@\nkeep\n"
        patch = Patch(diff_of(tmp_path, {"sql.txt": before}, {"sql.txt": after}))
        assert patch.paths == ("sql.txt",)
        assert (patch.added_lines, patch.removed_lines) == (3, 1)

    def test_plain_diffs_of_other_tools_and_text_around_them(self) -> None:
        text = (
            "Here it is:\n\n--- a/m.py\t2024-01-01 00:00:00\n+++ b/m.py\t2024-01-01 00:00:01\n@@ -1,2 +1,2 @@\n-a\n+b\n"
            " c\n\n--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+x\nDone.\n"
        )
        assert [(c.path, c.kind, c.added) for c in Patch(text).files] == [("m.py", "modified", 1), ("n.py", "added", 1)]

    @pytest.mark.parametrize(
        "text", ["", "\n", "no diff at all\n", "@@ -1 +1 @@\n", "--- a\n", "Binary files a and b\n"]
    )
    def test_what_is_no_diff_changes_nothing(self, text: str) -> None:
        patch = Patch(text)
        assert (patch.files, patch.flags, patch.changes_code, patch.fingerprint) == ((), (), False, "")

    @pytest.mark.parametrize(
        "text", ["diff --git \n", "--- a\n+++ b\n@@ -1,9 +1 @@\n-x", "diff --git a/x b/x\nindex 1..\n@@"]
    )
    def test_a_diff_that_breaks_off_is_read_as_far_as_it_goes(self, text: str) -> None:
        patch = Patch(text)
        assert len(patch.files) == 1 and patch.flags == () and patch.added_lines == 0

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.sampled_from(["a", "b", "", "# c", "\r", "\x0c", "--- a/x", "+++ b/x"]), max_size=8),
        st.lists(st.sampled_from(["a", "b", "", "d", "@@ -1 +1 @@"]), max_size=8),
        st.booleans(),
        st.booleans(),
    )
    def test_applying_the_parsed_change_gives_the_new_file(
        self, tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], old_end: bool, new_end: bool
    ) -> None:
        before = "\n".join(old) + ("\n" if old_end else "")
        after = "\n".join(new) + ("\n" if new_end else "")
        top = tmp_path_factory.getbasetemp()
        (top / "before").write_bytes(before.encode())
        (top / "after").write_bytes(after.encode())
        command = ["git", "diff", "--no-index", "--no-color", "before", "after"]
        patch = Patch(subprocess.run(command, cwd=top, capture_output=True, check=False).stdout.decode())
        for change in patch.changes:
            assert applied(change, lines(before)) == lines(after)
        assert bool(patch.files) == (before != after)


class TestFingerprint:
    FIX = ("width < 0", "width < 0 or height < 0")

    def test_the_same_change_is_the_same_candidate(self, tmp_path: Path) -> None:
        fix = edit(tmp_path, changed(self.FIX)).fingerprint
        same = {
            "a comment more": changed(
                (self.FIX[0], self.FIX[1]), ("    return width", "    # Fine.\n    return width")
            ),
            "a comment at the end": changed(("if width < 0:", "if width < 0 or height < 0:  # both")),
            "a blank line more": changed(self.FIX, ("        raise", "\n        raise")),
            "other spacing": changed(("width < 0", "width<0  or height <0")),
            "trailing blanks": changed(self.FIX, ("or height < 0:", "or height < 0:   ")),
            "a comment changed": changed(self.FIX, ("# Multiplies.", "# Multiplies the two.")),
            "a comment gone": changed(self.FIX, ("    # Multiplies.\n", "")),
        }
        assert {name: edit(tmp_path, text).fingerprint == fix for name, text in same.items()} == dict.fromkeys(
            same, True
        )

    def test_another_change_is_another_candidate(self, tmp_path: Path) -> None:
        fix = edit(tmp_path, changed(self.FIX)).fingerprint
        others = {
            "another condition": changed(("width < 0", "width <= 0")),
            "another string": changed(self.FIX, ('"width"', '"wi dth"')),
            "other indentation": changed(self.FIX, ("    return width", "        return width")),
            "one more change": changed(self.FIX, ("str(thing)", "repr(thing)")),
            "nothing but a comment": changed(("# Multiplies.", "# Multiplies the two.")),
        }
        found = {name: edit(tmp_path, text).fingerprint for name, text in others.items()}
        assert len({fix, *found.values()}) == len(others) + 1

    def test_the_same_line_at_two_places_are_two_candidates(self, tmp_path: Path) -> None:
        one = edit(tmp_path, changed(("    return width", "    print()\n    return width"))).fingerprint
        two = edit(tmp_path, changed(("    return str", "    print()\n    return str"))).fingerprint
        assert one != two

    @pytest.mark.parametrize(
        "options", [("-U0",), ("-U1",), ("-U8", "--abbrev=7"), ("--no-prefix",), ("--patience", "-U5")]
    )
    def test_context_prefixes_and_headers_do_not_count(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        text = changed(self.FIX, ("str(thing)", "repr(thing)"))
        usual = edit(tmp_path, text)
        other = edit(tmp_path, text, "pkg/shapes.py", BASE, *options)
        assert other.diff != usual.diff
        assert other.fingerprint == usual.fingerprint

    def test_the_order_of_files_does_not_count(self) -> None:
        a, b = of("a.py", "-x = 1", "+x = 2"), of("b.py", "-x = 1", "+x = 2")
        assert Patch(a + b).fingerprint == Patch(b + a).fingerprint
        assert len({Patch(d).fingerprint for d in (a, b, a + b)}) == 3

    def test_tests_and_prose_count_only_where_there_is_nothing_else(self) -> None:
        fix = of("pkg/a.py", "-x = 1", "+x = 2")
        test, other = of("tests/test_a.py", "+assert x", kind="added"), of("tests/test_a.py", "+assert y", kind="added")
        assert (
            Patch(fix).fingerprint
            == Patch(fix + test).fingerprint
            == Patch(fix + of("README.md", "-a", "+b")).fingerprint
        )
        assert Patch(test).fingerprint != Patch(other).fingerprint

    def test_what_looks_like_a_comment_in_a_long_string_counts(self, tmp_path: Path) -> None:
        base = 'TEMPLATE = """\n# a\nb\n"""\n'
        one = edit(tmp_path, base.replace("# a", "# A"), "t.py", base)
        two = edit(tmp_path, base.replace("# a", "# AA"), "t.py", base)
        assert one.fingerprint != two.fingerprint

    def test_outside_of_python_every_character_counts(self) -> None:
        assert Patch(of("a.yaml", "-x", "+ y")).fingerprint != Patch(of("a.yaml", "-x", "+y")).fingerprint
        assert Patch(of("a.c", "-x", "+#if 1")).fingerprint != Patch(of("a.c", "-x", "+#if 0")).fingerprint

    def test_modes_links_and_binaries_count(self, tmp_path: Path) -> None:
        mode = "diff --git a/r b/r\nold mode 100644\nnew mode 100755\n"
        back = "diff --git a/r b/r\nold mode 100755\nnew mode 100644\n"
        assert Patch(mode).fingerprint != Patch(back).fingerprint
        found = {Patch(diff_of(tmp_path / str(n), {"b": "\0a"}, {"b": f"\0{n}"})).fingerprint for n in range(2)}
        assert len(found) == 2

    def test_no_change_has_no_fingerprint(self) -> None:
        assert Patch("").fingerprint == ""


FLAGS: list[tuple[str, set[str]]] = [
    (of("pkg/mod.py", "-x = 1", "+x = 2"), set()),
    (of("pkg/new.py", "+x = 2", kind="added"), set()),
    (of("tests/test_a.py", "-assert x", "+assert y"), {"edits-tests"}),
    (of("tests/test_a.py", "-assert x", kind="deleted"), {"edits-tests"}),
    (of("pkg/test_b.py", "+assert x", kind="added"), {"adds-tests"}),
    (of("tests/conftest.py", "+x", kind="added"), {"adds-tests", "conftest"}),
    (of("conftest.py", "-a", "+x"), {"edits-tests", "conftest"}),
    (of("sitecustomize.py", "+import os", kind="added"), {"startup-code", "outside-package"}),
    (of("pkg/evil.pth", "+import os", kind="added"), {"startup-code"}),
    (of("pytest.ini", "+[pytest]", kind="added"), {"test-config"}),
    (of("tox.ini", "-a", "+b"), {"test-config"}),
    (of("pyproject.toml", " [tool.pytest.ini_options]", '-addopts = "-q"', "+addopts = ''"), {"test-config", "build-config"}),
    (of("pyproject.toml", '-version = "1"', '+version = "2"'), {"build-config"}),
    (of("setup.py", "-a", "+b"), {"build-config"}),
    (of("requirements-dev.txt", "-a", "+b"), {"build-config"}),
    (of(".github/workflows/ci.yml", "-a", "+b"), {"ci-config"}),
    (of("pkg/mod.py", "-x = 1", "+breakpoint()"), {"debugging"}),
    (of("pkg/mod.py", "-x = 1", "+import pdb; pdb.set_trace()"), {"debugging"}),
    (of("pkg/mod.py", "-x = 1", "+print('here', x)"), {"debugging"}),
    (of("pkg/mod.py", "-    print(x)", "+    print(y)"), set()),
    (of("pkg/mod.py", "-x = 1", "+blueprint(x)"), set()),
    (of("tests/test_a.py", "+print(x)", kind="added"), {"adds-tests"}),
    (of("pkg/mod.py", *["+x = 1"] * 401), {"large"}),
    ("".join(of(f"pkg/m{n}.py", "-x", "+y") for n in range(21)), {"large"}),
    (of("reproduce_issue.py", "+x", kind="added"), {"outside-package"}),
    (of("pkg/debug_it.py", "+x", kind="added"), {"outside-package"}),
    (of("pkg/mod.py", "-x = 1", "+import os, pytest"), {"test-aware"}),
    (of("pkg/mod.py", "-x = 1", "+x = 'PYTEST_CURRENT_TEST' in environ"), {"test-aware"}),
    (of("pkg/mod.py", "-x = 1", "+x = sys.modules.get('pytest')"), {"test-aware"}),
    (of("pkg/mod.py", "-from unittest import mock", "+from unittest import mock, case"), set()),
    (of("pkg/mod.py", "-x = 1", "+x = 'see pytest'"), set()),
    (of("src/_pytest/runner.py", "-x = 1", "+from _pytest.main import Session"), set()),
    (of("tests/test_a.py", "+import pytest", kind="added"), {"adds-tests"}),
    ("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+t\n\\ No newline at end of file\n", {"symlink"}),
    ("diff --git a/s b/s\ndeleted file mode 160000\n--- a/s\n+++ /dev/null\n@@ -1 +0,0 @@\n-Subproject commit 1\n", {"submodule"}),
    ("diff --git a/r b/r\nold mode 100644\nnew mode 100755\n", {"mode-change"}),
    ("diff --git a/x.bin b/x.bin\nBinary files a/x.bin and b/x.bin differ\n", {"binary"}),
]  # fmt: skip  # a case in each line


@pytest.mark.parametrize(("diff", "flags"), FLAGS, ids=[str(n) for n in range(len(FLAGS))])
def test_flags_name_what_should_make_a_reader_wary(diff: str, flags: set[str]) -> None:
    assert set(Patch(diff).flags) == flags


def test_every_flag_is_explained_where_it_is_looked_up() -> None:
    assert all(_WORDS[flag]["does"] for _, flags in FLAGS for flag in flags)
    assert set(_FLAGS) <= set(_WORDS), "what the table has not is never told"


LINK = "diff --git a/{0} b/{0}\nnew file mode 120000\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+t\n"
TREE = ("calc/__init__.py", "src/calc/__init__.py", "scripts/run.py", "pytest_of_ours.py")


@pytest.mark.parametrize(
    ("diff", "hides"),
    [
        (of("pytest.py", "+x", kind="added"), "pytest.py"),
        (of("src/_pytest/__init__.py", "+x", kind="added"), "src/_pytest/__init__.py"),
        (of("scripts/json.py", "+x", kind="added") + of("src/__init__.py", "+x", kind="added"), "scripts/json.py"),
        ("diff --git a/a.py b/pluggy.py\nrename from a.py\nrename to pluggy.py\n", "pluggy.py"),
        (LINK.format("iniconfig"), "iniconfig"),
        (of("pytest_of_ours.py", "-x", "+y"), ""),
        (of("src/calc/json.py", "+x", kind="added"), ""),
        (of("src/new/__init__.py", "+x", kind="added") + of("src/new/types.py", "+x", kind="added"), ""),
        (LINK.format("readme"), ""),
    ],
)
def test_a_file_that_would_be_loaded_in_place_of_what_runs_the_tests_is_named(diff: str, hides: str) -> None:
    assert Patch(diff).hides(TREE) == hides


def test_source_files_are_neither() -> None:
    diff = of("pkg/a.py", "-x", "+y") + of("tests/test_a.py", "-x", "+y") + of("CHANGES.rst", "-x", "+y")
    assert Patch(diff).source_files == ("pkg/a.py",)
