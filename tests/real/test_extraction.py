"""What an attempt did to the tree comes out as a patch, and the patch makes the same tree in a fresh sandbox."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.patches.extract import apply_patch, mark_setup, restore_paths, take_patch
from harness.patches.patch import Patch
from harness.repository.workspace import Workspace, open_workspace
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from tasks.errors import PatchNotTaken, SandboxFailed, SetupFailed
from tasks.task import Repository
from tests.support.repositories import git

Tree = dict[str, tuple[str, bool, bytes]]

IGNORE = b"*.log\n/local/\n__pycache__/\n/build/\ngenerated.py\n"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Workspace:
    """A repository with one of everything that makes patches hard."""
    top = tmp_path_factory.mktemp("origin")
    git(top, "init", "-q", "-b", "trunk")
    files: dict[bytes, bytes] = {
        b".gitignore": IGNORE,
        b".gitmodules": b'[submodule "vendored"]\n\tpath = vendored\n\turl = https://example.org/v.git\n',
        b"crlf.txt": b"one\r\ntwo\r\nthree\r\n",
        b"no-newline.txt": b"one\ntwo",
        b"binary.bin": bytes(range(256)) * 8,
        b"src/mod.py": b"def f(x):\n    return x\n\n\ndef g(x):\n    return f(x)\n",
        b"src/other.py": b"import src.mod\n",
        b"run.sh": b"#!/bin/sh\necho hello\n",
        b"dir/a.txt": b"a\n",
        b"dir/deep/b.txt": b"b\n",
        b"caf\xe9.txt": b"caf\xe9\n",
        b"with space.txt": b"s\n",
        b'quo"te\\.txt': b"q\n",
        b"new\nline.txt": b"n\n",
        b"tests/test_mod.py": b"from src.mod import f\n\n\ndef test_f():\n    assert f(1) == 1\n",
    }
    for name, content in files.items():
        path = Path(os.fsdecode(os.fsencode(top) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("src/mod.py")
    git(top, "add", "--all")
    git(top, "update-index", "--add", "--cacheinfo", "160000,1234567890123456789012345678901234567890,vendored")
    git(top, "commit", "-q", "-m", "base")
    return open_workspace(Repository("path", str(top)), cache)


async def fresh(provider: Provider, workspace: Workspace, name: str) -> Sandbox:
    sandbox = await provider.create(SandboxSpec(run="extraction", name=name))
    await sandbox.upload(workspace.archive())
    return sandbox


async def tree(sandbox: Sandbox) -> Tree:
    """Path -> (type, executable, content or target) of all but git directories."""
    done = await sandbox.exec("tar --exclude=.git -cf - .", output_bytes=1 << 28, timeout=60)
    assert done.exit_code == 0, done.stderr
    out: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout), errors="surrogateescape") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.issym():
                out[name] = ("link", False, os.fsencode(member.linkname))
            elif member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                out[name] = ("file", bool(member.mode & 0o100), file.read())
    return out


class Bench:
    """Two sandboxes that last for the module, each emptied and filled again for every attempt."""

    def __init__(self, runner: asyncio.Runner, workspace: Workspace, one: Sandbox, two: Sandbox) -> None:
        self._runner = runner
        self._archive = workspace.archive()
        self._one, self._two = one, two

    def attempt(self, script: str, *, exclude: Sequence[str] = ()) -> tuple[str, Tree, Tree]:
        """Run a script as an attempt would, take the patch, apply it elsewhere: (patch, tree there, tree here)."""
        return self._runner.run(self._attempt(script, exclude))

    async def _attempt(self, script: str, exclude: Sequence[str]) -> tuple[str, Tree, Tree]:
        for sandbox in (self._one, self._two):
            emptied = await sandbox.exec("chmod -R u+rwX . ; find . -mindepth 1 -delete", timeout=60)
            assert emptied.exit_code == 0, emptied.output
            await sandbox.upload(self._archive)
        return await try_out(self._one, self._two, script, exclude)


async def try_out(one: Sandbox, two: Sandbox, script: str, exclude: Sequence[str] = ()) -> tuple[str, Tree, Tree]:
    done = await one.exec(script, timeout=60)
    assert done.exit_code == 0, done.output
    patch = await take_patch(one, exclude=exclude)
    refused = await apply_patch(two, patch)
    assert refused is None, refused
    return patch, await tree(one), await tree(two)


@pytest.fixture(scope="module")
def bench(workspace: Workspace) -> Iterator[Bench]:
    from harness.sandbox.bubblewrap.provider import BubblewrapProvider

    with asyncio.Runner() as runner:
        provider = BubblewrapProvider()
        one = runner.run(fresh(provider, workspace, "attempt-00"))
        two = runner.run(fresh(provider, workspace, "verify-c1"))
        yield Bench(runner, workspace, one, two)
        for sandbox in (one, two):
            runner.run(sandbox.close())
        runner.run(provider.close())


CASES = {
    "CRLF": r"printf 'one\r\n2\r\nthree\r\n' > crlf.txt; printf 'a\r\nb\n' > mixed.txt",
    "CRLF lost": r"printf 'one\ntwo\nthree\n' > crlf.txt",
    "no final newline": r"printf 'one\ntwo\nthree' > no-newline.txt; printf 'new' > new.txt; printf 'a' > dir/a.txt",
    "final newline gained": r"printf 'one\ntwo\n' > no-newline.txt",
    "binary": r"printf '\000\001\377new' > binary.bin; head -c 3000 /dev/urandom > fresh.bin",
    "rename": "git mv src/mod.py src/renamed.py; mv binary.bin moved.bin",
    "rename and edit": "mv src/mod.py src/renamed.py; echo 'z = 1' >> src/renamed.py",
    "swap": "mv crlf.txt t; mv no-newline.txt crlf.txt; mv t no-newline.txt",
    "mode": "chmod -x run.sh; chmod +x src/mod.py",
    "mode and content": "chmod +x src/mod.py; echo 'z = 1' >> src/mod.py",
    "symlink": "ln -sf /etc/passwd link; ln -s ../../../../outside away; ln -s missing dangling",
    "symlink becomes file": "rm link; cp src/mod.py link",
    "file becomes symlink": "rm src/other.py; ln -s mod.py src/other.py",
    "non-UTF-8": (
        r"""printf 'caf\351\nth\351\n' > "$(printf 'caf\351.txt')"; printf 'x\n' > "$(printf 'na\357ve.txt')" """
    ),
    "non-ASCII": "printf 'à la carte\\n' > 'menü ☃.txt'",
    "odd names": (
        r"""echo 1 >> 'with space.txt'; echo 1 >> 'quo"te\.txt'; echo 1 >> "$(printf 'new\nline.txt')";
        echo 1 > "$(printf 'tab\there')"; echo 1 > ' lead'; echo 1 > 'trail '; echo 1 > -dash; echo 1 > '*?[x].txt'; echo 1 > '"'"""
    ),
    "deleted": "rm crlf.txt binary.bin run.sh link; rm -r dir",
    "everything deleted": "rm -rf src tests dir [a-z]*.txt binary.bin run.sh link; rm -f .gitignore",
    "file becomes directory": "rm crlf.txt; mkdir crlf.txt; echo x > crlf.txt/inside",
    "directory becomes file": "rm -r dir; echo flat > dir",
    "directory becomes symlink": "rm -r dir; ln -s src dir",
    "empty file": ": > empty.txt; : > dir/a.txt",
    "ignored source": "echo 'X = 1' > generated.py; mkdir local; echo 'Y = 2' > local/settings.py",
    "nested repository": (
        "git init -q inner; echo 1 > inner/f.py; cd inner; git add f.py; git commit -qm x; git init -q deep; echo 2 >"
        " deep/g.py"
    ),
    "repository within a directory of the base": (
        "git init -q src; echo 'n = 1' > src/new.py; echo 'm = 1' >> src/mod.py"
    ),
    "commit": (
        "echo 'z = 1' >> src/mod.py; echo 1 > new.py; git add -A; git commit -qm mine; echo 'y = 2' >> src/mod.py"
    ),
    "branch switched": (
        "git checkout -qb other; echo 'z = 1' >> src/mod.py; git commit -qam mine; git checkout -q --orphan lost; git"
        " rm -rq --cached ."
    ),
    "reset": (
        "echo 'z = 1' >> src/mod.py; git commit -qam mine; git reset -q --soft HEAD~0; git update-ref -d HEAD; echo 1 >"
        " new.py"
    ),
    "staged, then changed": "echo a > new.py; git add new.py; echo b > new.py; git rm -q --cached src/other.py",
    "no .git": "rm -rf .git; echo 'z = 1' >> src/mod.py; echo 1 > new.py",
    ".git is a file": "rm -rf .git; echo 'gitdir: /nowhere' > .git; echo 'z = 1' >> src/mod.py",
    "damaged .git": (
        "echo garbage > .git/HEAD; echo garbage > .git/index; echo '[core' > .git/config; echo 'z = 1' >> src/mod.py"
    ),
    "attributes": (
        r"""printf '* text=auto eol=crlf ident filter=evil diff=evil working-tree-encoding=UTF-16\n*.bin -binary text\n' > .gitattributes;
        printf 'a\nb\r\n$Id$\n' > mixed.txt; printf 'one\ntwo\r\n' > crlf.txt; echo '# $Id$' >> src/mod.py"""
    ),
    "unreadable": "echo 1 >> src/mod.py; chmod 0 src/mod.py dir",
    "looks like a diff": (
        r"printf 'diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n\\ No newline\n' > dir/a.txt"
    ),
    "form feeds and lone carriage returns": r"printf 'a\fb\rc\vd\n\n\r\r\n' > src/other.py",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.bubblewrap
def test_the_patch_makes_the_same_tree(bench: Bench, case: str) -> None:
    patch, there, here = bench.attempt(CASES[case])
    assert patch != ""
    assert here == there


def test_all_at_once_on_every_backend(provider: Provider, workspace: Workspace) -> None:
    names = (
        "CRLF",
        "binary",
        "mode",
        "symlink",
        "non-UTF-8",
        "odd names",
        "directory becomes file",
        "ignored source",
        "no .git",
    )

    async def go() -> tuple[str, Tree, Tree]:
        one, two = await fresh(provider, workspace, "attempt-00"), await fresh(provider, workspace, "verify-c1")
        try:
            return await try_out(one, two, "\n".join(f"({CASES[name]})" for name in names))
        finally:
            await one.close()
            await two.close()

    _, there, here = asyncio.run(go())
    assert here == there


@pytest.mark.bubblewrap
def test_nothing_changed_is_no_patch(bench: Bench) -> None:
    script = (
        "touch src/mod.py; chmod 600 crlf.txt; git commit -q --allow-empty -m empty; mkdir empty; cp run.sh x; rm x"
    )
    patch, _, _ = bench.attempt(script)
    assert patch == ""


@pytest.mark.bubblewrap
def test_junk_is_left_out(bench: Bench) -> None:
    junk = """
        mkdir -p src/__pycache__ .pytest_cache src/x.egg-info build/lib/src build/lib.linux htmlcov .mypy_cache node_modules/a venv
        touch src/__pycache__/mod.cpython-311.pyc .pytest_cache/x src/x.egg-info/PKG-INFO build/lib/src/mod.py build/lib.linux/m.py
        touch htmlcov/index.html .mypy_cache/c node_modules/a/i.js src/fast.so src/mod.py~ .src.swp src/mod.py.orig .coverage
        touch venv/pyvenv.cfg venv/activate.py noise.log build/notes.py; mkfifo pipe; mkdir -p build && echo 1 > build/made.py
        echo 'z = 1' >> src/mod.py
    """
    patch, _, _ = bench.attempt(junk)
    assert Patch(patch).paths == ("src/mod.py",)


@pytest.mark.bubblewrap
def test_a_new_build_directory_that_is_not_ignored_holds_sources(bench: Bench) -> None:
    patch, _, _ = bench.attempt("mkdir -p src/build; echo 1 > src/build/rules.py; echo 1 > src/data.log")
    assert Patch(patch).paths == ("src/build/rules.py",)


@pytest.mark.bubblewrap
def test_a_file_replaced_by_a_pipe_is_a_deletion(bench: Bench) -> None:
    patch, _, here = bench.attempt("rm crlf.txt; mkfifo crlf.txt")
    assert [(c.path, c.kind) for c in Patch(patch).files] == [("crlf.txt", "deleted")]
    assert "crlf.txt" not in here


@pytest.mark.bubblewrap
def test_excluded_paths_stay_as_on_the_base(bench: Bench) -> None:
    script = (
        "echo 1 >> tests/test_mod.py; echo 1 > tests/test_new.py; echo 1 > given.py; rm crlf.txt; echo 'z=1' >>"
        " src/mod.py"
    )
    patch, _, _ = bench.attempt(script, exclude=("tests/", "given.py", "crlf.txt"))
    assert Patch(patch).paths == ("src/mod.py",)


@pytest.mark.bubblewrap
def test_submodules_stay_as_they_are(bench: Bench) -> None:
    script = "cd vendored; git init -q; echo 1 > f; git add f; git commit -qm x; cd ..; echo 'z=1' >> src/mod.py"
    patch, _, _ = bench.attempt(script)
    assert Patch(patch).paths == ("src/mod.py",)
    patch, _, _ = bench.attempt("rmdir vendored")
    assert patch == ""


@pytest.mark.bubblewrap
def test_a_submodule_removed_with_its_entry_is_removed(bench: Bench) -> None:
    patch, _, here = bench.attempt("rm -r vendored .gitmodules")
    assert set(Patch(patch).paths) == {"vendored", ".gitmodules"}
    assert "submodule" in Patch(patch).flags
    assert ".gitmodules" not in here


@pytest.mark.bubblewrap
def test_a_huge_file_comes_through_and_a_gigantic_new_one_does_not(bench: Bench) -> None:
    script = "head -c 6000000 /dev/urandom > huge.bin; truncate -s 40M gigantic.bin; seq 100000 > binary.bin"
    patch, there, here = bench.attempt(script)
    del there["gigantic.bin"]
    assert here == there
    assert {c.path for c in Patch(patch).files} == {"huge.bin", "binary.bin"}


def test_nothing_that_was_planted_is_executed(bubblewrap: Provider, workspace: Workspace) -> None:
    script = """
        mark='touch /tmp/executed; cat'
        for place in .git/config ~/.gitconfig; do
          git config -f $place core.fsmonitor "$mark"; git config -f $place diff.external "$mark"
          git config -f $place filter.evil.clean "$mark"; git config -f $place filter.evil.smudge "$mark"
          git config -f $place diff.evil.textconv "$mark"; git config -f $place diff.evil.command "$mark"
          git config -f $place core.pager "$mark"; git config -f $place core.hooksPath /testbed/.hooks
        done
        mkdir -p .hooks .git/hooks
        for hook in post-index-change pre-commit post-checkout reference-transaction; do
          printf '#!/bin/sh\\ntouch /tmp/executed\\n' | tee .git/hooks/$hook > .hooks/$hook; chmod +x .git/hooks/$hook .hooks/$hook
        done
        printf '* filter=evil diff=evil\\n' | tee .git/info/attributes > .gitattributes
        mkdir -p inner; cp -r .git inner/.git; echo 1 > inner/f.py
        echo 'z = 1' >> src/mod.py
        rm -f /tmp/executed
    """

    async def go() -> None:
        sandbox = await fresh(bubblewrap, workspace, "attempt-00")
        try:
            done = await sandbox.exec(script)
            assert done.exit_code == 0, done.output
            patch = await take_patch(sandbox)
            assert {"src/mod.py", "inner/f.py"} <= set(Patch(patch).paths)
            await restore_paths(sandbox, ["src/mod.py"])
            assert (
                await apply_patch(
                    sandbox,
                    "--- a/src/mod.py\n+++ b/src/mod.py\n@@ -1,2 +1,2 @@\n-def f(x):\n+def f(y):\n     return x\n",
                )
                is None
            )
            assert (await sandbox.exec("test -e /tmp/executed")).exit_code == 1
        finally:
            await sandbox.close()

    asyncio.run(go())


def test_what_set_up_did_is_in_no_patch(bubblewrap: Provider, workspace: Workspace) -> None:
    """Files that set-up made, files of the base that it changed, and the attempt's own change to one of the latter."""

    async def prepared(name: str) -> Sandbox:
        sandbox = await fresh(bubblewrap, workspace, name)
        await sandbox.exec(
            "echo 'version = 1' > src/_version.py; echo 'built' >> src/other.py; sed -i '1i # made' src/mod.py"
        )
        await mark_setup(sandbox)
        return sandbox

    async def go() -> None:
        one, two = await prepared("attempt-00"), await prepared("verify-c1")
        try:
            assert await take_patch(one) == ""
            await one.exec("echo 'version = 2' > src/_version.py; echo 'z = 1' >> src/mod.py; echo 1 > src/new.py")
            patch = await take_patch(one)
            assert Patch(patch).paths == ("src/mod.py", "src/new.py")
            assert Patch(patch).added_lines == 2
            assert await apply_patch(two, patch) is None
            assert (await two.read("src/mod.py")).startswith(b"# made\n")
            await restore_paths(two, ["src"])
            assert await take_patch(two) == ""
            assert await two.read("src/_version.py") == b"version = 1\n"
            assert (await two.read("src/other.py")).endswith(b"built\n")
        finally:
            await one.close()
            await two.close()

    asyncio.run(go())


def test_tests_are_restored_from_the_base(bubblewrap: Provider, workspace: Workspace) -> None:
    async def go() -> None:
        sandbox = await fresh(bubblewrap, workspace, "verify-c1")
        try:
            before = await tree(sandbox)
            await sandbox.exec(
                "rm tests/test_mod.py; ln -s ../crlf.txt tests/test_mod.py; echo 1 > tests/conftest.py; rm link; mkdir"
                " link;echo 1 > link/x; chmod +x dir/a.txt; rm -r dir/deep; ln -s /etc dir/deep; echo 'z = 1' >>"
                " src/mod.py"
            )
            await restore_paths(sandbox, ["tests", "link", "dir/deep/b.txt", "dir/a.txt", "not/there.py"])
            after = await tree(sandbox)
            assert after.pop("src/mod.py") != before.pop("src/mod.py")
            assert after == before
        finally:
            await sandbox.close()

    asyncio.run(go())


def test_a_patch_that_does_not_fit_changes_nothing_and_says_why(bubblewrap: Provider, workspace: Workspace) -> None:
    good = "--- a/crlf.txt\n+++ b/crlf.txt\n@@ -1,2 +1,2 @@\n-one\r\n+1\r\n two\r\n"
    bad = "--- a/src/mod.py\n+++ b/src/mod.py\n@@ -1 +1 @@\n-nothing like it\n+x\n"
    outside = "--- /dev/null\n+++ b/../outside.txt\n@@ -0,0 +1 @@\n+x\n"

    async def go() -> None:
        sandbox = await fresh(bubblewrap, workspace, "verify-c1")
        try:
            assert "src/mod.py" in str(await apply_patch(sandbox, good + bad))
            assert "outside.txt" in str(await apply_patch(sandbox, outside))
            assert await apply_patch(sandbox, "not a diff") is not None
            assert await take_patch(sandbox) == ""
            assert await apply_patch(sandbox, "") is None
            whole = "--- a/dir/a.txt\n+++ b/dir/a.txt\n@@ -1 +1 @@\n-a\n+b"
            assert await apply_patch(sandbox, whole) is None
            assert await sandbox.read("dir/a.txt") == b"b\n"
        finally:
            await sandbox.close()

    asyncio.run(go())


def in_attempt(bubblewrap: Provider, workspace: Workspace, script: str) -> tuple[str, list[str]]:
    """(the patch after a script ran in a fresh sandbox, what was said about it)."""

    async def go() -> tuple[str, list[str]]:
        sandbox = await fresh(bubblewrap, workspace, "attempt-00")
        said: list[str] = []
        try:
            done = await sandbox.exec(script, timeout=60)
            assert done.exit_code == 0, done.output
            return await take_patch(sandbox, say=said.append), said
        finally:
            await sandbox.close()

    return asyncio.run(go())


def test_the_largest_files_are_left_out_of_a_patch_that_would_hold_too_much(
    bubblewrap: Provider, workspace: Workspace
) -> None:
    script = """
        echo 'z = 1' >> src/mod.py; echo 1 > small.py
        head -c 3000000 /dev/urandom > three; head -c 4000000 /dev/urandom > "$(printf 'fo\nur')"; head -c 2500000 /dev/zero > two
        truncate -s 500M huge && head -c 500000 /dev/urandom > binary.bin
    """
    patch, said = in_attempt(bubblewrap, workspace, script)
    assert Patch(patch).paths == ("binary.bin", "small.py", "src/mod.py", "three", "two")
    (sentence,) = said
    assert "huge (524.3 MB), fo\nur (4.0 MB)" in sentence


def test_a_changed_file_that_grew_too_large_stays_as_on_the_base(bubblewrap: Provider, workspace: Workspace) -> None:
    patch, said = in_attempt(bubblewrap, workspace, "truncate -s 300M crlf.txt && echo 'z = 1' >> src/mod.py")
    assert Patch(patch).paths == ("src/mod.py",)
    assert "crlf.txt (314.6 MB)" in said[0]


def test_programs_that_the_attempt_put_on_the_path_are_not_called(bubblewrap: Provider, workspace: Workspace) -> None:
    script = """
        mkdir -p /opt/env/bin; cd /opt/env/bin
        for name in sh git find xargs stat; do
          printf '#!/bin/sh\nexit 1\n' > $name; chmod +x $name
        done
        echo 'z = 1' >> /testbed/src/mod.py
    """
    patch, _ = in_attempt(bubblewrap, workspace, script)
    assert Patch(patch).paths == ("src/mod.py",)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("rm -rf /opt/troop/base.git", "base commit that Troop keeps"),
        ("rm -rf /opt/troop/base.git/objects; mkdir /opt/troop/base.git/objects; echo >> run.sh", "working tree"),
        ("for n in $(seq 40); do echo $n > new-file-number-$n.txt; done", "larger than"),
    ],
    ids=["the base removed", "its objects removed", "too much"],
)
def test_an_attempt_that_spoilt_its_patch_is_told_apart_from_a_sandbox_that_died(
    bubblewrap: Provider, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr("harness.patches.extract._OUTPUT_BYTES", 2000)
    with pytest.raises(PatchNotTaken, match=said):
        in_attempt(bubblewrap, workspace, script)


def test_a_sandbox_that_died_is_the_worlds_failure(bubblewrap: Provider, workspace: Workspace) -> None:
    async def go() -> None:
        sandbox = await fresh(bubblewrap, workspace, "attempt-00")
        await sandbox.close()
        for asked in (take_patch(sandbox), apply_patch(sandbox, "x"), restore_paths(sandbox, ["src"])):
            with pytest.raises(SandboxFailed):
                await asked

    asyncio.run(go())


def test_without_the_base_a_patch_is_not_applied_and_nothing_restored(
    bubblewrap: Provider, workspace: Workspace
) -> None:
    async def go() -> None:
        sandbox = await bubblewrap.create(SandboxSpec(run="extraction", name="verify-c1"))
        try:
            assert "base commit" in str(await apply_patch(sandbox, "x"))
            assert "base commit" in str(await restore_paths(sandbox, ["src"]))
            with pytest.raises(SetupFailed, match="base commit"):
                await mark_setup(sandbox)
        finally:
            await sandbox.close()

    asyncio.run(go())


def test_a_patch_of_a_large_tree_is_taken_quickly(
    bubblewrap: Provider, tmp_path: Path, cache: Path, record_property: Callable[[str, object], None]
) -> None:
    git(tmp_path, "init", "-q")
    for n in range(2000):
        path = tmp_path / f"package{n % 40}" / f"module{n}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"VALUE = {n}\n" * 300)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "many")
    large = open_workspace(Repository("path", str(tmp_path)), cache)

    async def go() -> float:
        sandbox = await fresh(bubblewrap, large, "attempt-00")
        try:
            await sandbox.exec("echo 'z = 1' >> package1/module1.py; echo 1 > package2/new.py")
            took = []
            for _ in range(3):
                start = time.perf_counter()
                patch = await take_patch(sandbox)
                took.append(time.perf_counter() - start)
            assert len(Patch(patch).files) == 2
            return min(took)
        finally:
            await sandbox.close()

    seconds = asyncio.run(go())
    record_property("take_patch_seconds", seconds)
    # 0.06 s on an idle machine; the margin is for a busy one.
    assert seconds < 2
