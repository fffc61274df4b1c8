"""Opening a local repository: what is taken, what it says when it cannot, and what a sandbox gets of it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest

from harness.cache import cache_root
from harness.repository import workspace as workspace_module
from harness.repository.workspace import Workspace, open_workspace
from tasks.errors import InputError
from tasks.task import Repository
from tests.support.repositories import git


def at(top: Path, base: str | None = None, *, uncommitted: bool = False) -> Repository:
    return Repository("path", str(top), base, include_uncommitted=uncommitted)


def photograph(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below `top`, .git included: mode, time of change, content."""
    return {
        str(p.relative_to(top)): (p.lstat().st_mode, p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in sorted(top.rglob("*"))
    }


def unpack(workspace: Workspace, into: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(workspace.archive()), errors="surrogateescape") as archive:
        archive.extraction_filter = lambda member, _: member  # as an attribute: 3.11.2 has no argument for it
        archive.extractall(into)
    return into / "testbed"


class TestCacheRoot:
    def test_is_named_by_the_environment_or_the_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TROOP_CACHE", "/a/b")
        assert cache_root() == Path("/a/b")
        monkeypatch.delenv("TROOP_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/x")
        assert cache_root() == Path("/x/troop")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/home/me")
        assert cache_root() == Path("/home/me/.cache/troop")


class TestPath:
    def test_head_is_the_base(self, origin: Path, store: Path) -> None:
        workspace = open_workspace(at(origin), store)
        assert workspace.base_commit == git(origin, "rev-parse", "HEAD")
        assert workspace.tree == git(origin, "rev-parse", "HEAD^{tree}")
        assert workspace.files() == ["app.py", "pkg/mod.py"]
        assert workspace.read("app.py") == b"value = 2\n"
        assert workspace.notes == ()
        with pytest.raises(FileNotFoundError, match=r"nothing\.py"):
            workspace.read("nothing.py")
        with pytest.raises(FileNotFoundError):
            workspace.read("pkg")

    @pytest.mark.parametrize("base", ["v1.0", "feature/x", "HEAD~1", "sha", "short sha"])
    def test_any_ref_is_a_base(self, origin: Path, store: Path, base: str) -> None:
        first = git(origin, "rev-parse", "HEAD~1")
        named = {"sha": first, "short sha": first[:9]}.get(base, base)
        workspace = open_workspace(at(origin, named), store)
        assert workspace.base_commit == first
        assert workspace.read("app.py") == b"value = 1\n"
        assert workspace.date.isoformat() == "2021-03-04T05:06:07+02:00"
        assert workspace.date.utcoffset() == timedelta(hours=2)
        assert workspace.described.startswith("v1.0-0-g")

    def test_the_second_opening_makes_nothing_again(
        self, origin: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = open_workspace(at(origin), store)
        made = photograph(first.git_dir)
        monkeypatch.setattr(workspace_module, "_cut", None)
        assert open_workspace(at(origin), store) == first
        assert photograph(first.git_dir) == made

    def test_uncommitted_changes_are_left_out_and_counted(self, origin: Path, store: Path) -> None:
        (origin / "app.py").write_text("dirty\n")
        (origin / "staged.py").write_text("staged\n")
        git(origin, "add", "staged.py")
        (origin / "new.py").write_text("new\n")
        workspace = open_workspace(at(origin), store)
        assert workspace.read("app.py") == b"value = 2\n"
        (note,) = workspace.notes
        assert "2 changed and 1 untracked files" in note
        assert "--include-uncommitted" in note

    def test_uncommitted_changes_can_be_taken_in(self, origin: Path, store: Path) -> None:
        (origin / ".gitignore").write_text("*.log\n")
        (origin / "app.py").write_text("dirty\n")
        (origin / "pkg/mod.py").unlink()
        (origin / "staged.py").write_text("staged\n")
        git(origin, "add", "staged.py")
        (origin / "staged.py").write_text("and changed since\n")
        (origin / "new.py").write_text("new\n")
        (origin / "noise.log").write_text("noise\n")
        (origin / "link").symlink_to("app.py")
        before = photograph(origin)
        workspace = open_workspace(at(origin, uncommitted=True), store)
        assert workspace.files() == [".gitignore", "app.py", "link", "new.py", "staged.py"]
        assert workspace.read("app.py") == b"dirty\n"
        assert workspace.read("staged.py") == b"and changed since\n"
        assert workspace.read("link") == b"app.py"
        assert photograph(origin) == before
        assert open_workspace(at(origin, uncommitted=True), store).base_commit == workspace.base_commit
        missing = subprocess.run(
            ["git", "cat-file", "-e", workspace.base_commit], cwd=origin, capture_output=True, check=False
        )
        assert missing.returncode != 0, "the synthetic commit is in the cache, not in the user's repository"

    def test_results_of_troop_are_neither_counted_nor_taken_in(self, origin: Path, store: Path) -> None:
        """Those of a release that did not hide them, untracked or staged; what is committed is the repository's own."""
        kinds = {
            "runs/a": ("run.json", "trace.jsonl"),
            "runs/eval-quixbugs": ("eval.json", ".lock"),
            "deep/er/grade": ("report.json", ".lock"),
            "é/select": ("samples.jsonl.gz", "predictions.jsonl"),
        }
        for folder, names in kinds.items():
            (origin / folder / "attempts/01").mkdir(parents=True)
            for name in (*names, "attempts/01/patch.diff"):
                (origin / folder / name).write_text("x\n")
        git(origin, "add", "runs/a")
        (origin / "runs/a/trace.jsonl").write_text("and changed since\n")
        assert open_workspace(at(origin), store).notes == ()
        clean = open_workspace(at(origin, uncommitted=True), store)
        assert clean.notes == () and clean.base_commit == git(origin, "rev-parse", "HEAD")
        (origin / "runs/notes.md").write_text("mine\n")
        (origin / "run.json").write_text("mine\n")
        (origin / "trace.jsonl").write_text("mine\n")
        taken = open_workspace(at(origin, uncommitted=True), store)
        assert taken.files() == ["app.py", "pkg/mod.py", "run.json", "runs/notes.md", "trace.jsonl"]
        assert "3 untracked files" in taken.notes[0]

    def test_what_the_user_ignores_everywhere_is_not_taken_in(
        self, origin: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "ignore it").write_text("*.swp\n")
        (tmp_path / "gitconfig").write_text(f'[core]\n\texcludesFile = "{tmp_path}/ignore it"\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
        (origin / "x.swp").write_text("")
        assert open_workspace(at(origin), store).notes == ()
        (origin / "new.py").write_text("")
        assert open_workspace(at(origin, uncommitted=True), store).files() == ["app.py", "new.py", "pkg/mod.py"]

    def test_what_a_killed_process_left_in_the_cache_is_removed_in_time(self, origin: Path, store: Path) -> None:
        old, young = store / "tmp/cut-old/made", store / "tmp/cut-young/made"
        for left in (old, young):
            left.mkdir(parents=True)
        os.utime(old.parent, (1, 1))
        open_workspace(at(origin), store)
        assert [p.name for p in (store / "tmp").iterdir()] == ["cut-young"]

    def test_a_clean_tree_taken_in_is_the_commit_itself(self, origin: Path, store: Path) -> None:
        assert open_workspace(at(origin, uncommitted=True), store).base_commit == git(origin, "rev-parse", "HEAD")

    def test_uncommitted_changes_go_with_no_other_base(self, origin: Path, store: Path) -> None:
        (origin / "app.py").write_text("dirty\n")
        with pytest.raises(InputError, match="--include-uncommitted needs the checked-out commit"):
            open_workspace(at(origin, "v1.0", uncommitted=True), store)

    def test_the_users_repository_is_never_written_to(self, origin: Path, store: Path) -> None:
        (origin / "app.py").write_text("dirty\n")
        os.utime(origin / "pkg/mod.py", (1, 1))  # stale in the index: git would like to refresh it
        before = photograph(origin)
        open_workspace(at(origin), store).archive()
        open_workspace(at(origin, "v1.0"), store).archive()
        assert photograph(origin) == before

    def test_a_read_only_repository_will_do(self, origin: Path, store: Path) -> None:
        for path in [origin, *origin.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            assert open_workspace(at(origin), store).files()
        finally:
            for path in [origin, *origin.rglob("*")]:
                path.chmod(path.stat().st_mode | 0o200)

    def test_a_directory_within_stands_for_the_whole(self, origin: Path, store: Path) -> None:
        workspace = open_workspace(at(origin / "pkg"), store)
        assert "pkg/mod.py" in workspace.files()
        assert "the whole repository is used" in workspace.notes[0]

    def test_a_bare_repository_will_do(self, origin: Path, store: Path, tmp_path: Path) -> None:
        git(tmp_path, "clone", "-q", "--bare", str(origin), "bare.git")
        assert open_workspace(at(tmp_path / "bare.git"), store).read("app.py") == b"value = 2\n"

    def test_a_shallow_clone_will_do(self, origin: Path, store: Path, tmp_path: Path) -> None:
        git(tmp_path, "clone", "-q", "--depth=1", origin.as_uri(), "shallow")
        assert open_workspace(at(tmp_path / "shallow"), store).read("app.py") == b"value = 2\n"

    def test_a_partial_clone_is_explained(self, origin: Path, store: Path, tmp_path: Path) -> None:
        git(origin, "config", "uploadpack.allowFilter", "true")
        git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", origin.as_uri(), "partial")
        with pytest.raises(InputError, match="partial clone"):
            open_workspace(at(tmp_path / "partial"), store)

    def test_sha256_repositories_work(self, tmp_path: Path, store: Path) -> None:
        top = tmp_path / "sha256"
        top.mkdir()
        git(top, "init", "-q", "--object-format=sha256")
        (top / "a.py").write_text("x = 1\n")
        git(top, "add", "a.py")
        git(top, "commit", "-qm", "one")
        (top / "a.py").write_text("x = 2\n")
        workspace = open_workspace(at(top, uncommitted=True), store)
        assert len(workspace.base_commit) == 64
        assert git(unpack(workspace, tmp_path / "out"), "status", "--porcelain") == ""

    def test_a_submodule_is_what_its_commit_has_and_its_settings_do_nothing(
        self, origin: Path, store: Path, tmp_path: Path
    ) -> None:
        git(tmp_path, "init", "-q", "lib")
        (tmp_path / "lib/l.py").write_text("l = 1\n")
        git(tmp_path / "lib", "add", "--all")
        git(tmp_path / "lib", "commit", "-qm", "lib")
        git(origin, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "lib"), "lib")
        git(origin, "commit", "-qm", "with a submodule")
        mark = tmp_path / "executed"
        git(origin / "lib", "config", "core.fsmonitor", f"touch {mark}; false")
        (origin / "lib/l.py").write_text("l = 2\n")
        (origin / "app.py").write_text("dirty\n")
        workspace = open_workspace(at(origin, uncommitted=True), store)
        assert "lib" not in workspace.files()
        testbed = unpack(workspace, tmp_path / "out")
        assert {path.name: path.read_text() for path in (testbed / "lib").iterdir()} == {"l.py": "l = 1\n"}
        assert git(testbed, "status", "--porcelain") == ""
        assert not mark.exists()

    @pytest.mark.parametrize("uncommitted", [False, True])
    def test_a_malicious_repository_executes_nothing(
        self, origin: Path, store: Path, tmp_path: Path, uncommitted: bool
    ) -> None:
        mark = tmp_path / "executed"
        command = f"touch {mark}; cat"
        (origin / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
        git(origin, "add", ".gitattributes")
        git(origin, "commit", "-qm", "attributes")
        settings = (
            "core.fsmonitor",
            "core.pager",
            "core.editor",
            "core.sshCommand",
            "core.askPass",
            "core.alternateRefsCommand",
            "diff.external",
            "filter.evil.clean",
            "filter.evil.smudge",
            "filter.evil.process",
            "diff.evil.textconv",
            "diff.evil.command",
            "uploadpack.packObjectsHook",
            "gpg.program",
            "credential.helper",
            "alias.rev-parse",
        )
        for name in settings:
            git(origin, "config", name, command)
        git(origin, "config", "filter.evil.required", "true")
        git(origin, "config", "extensions.partialClone", "evil")
        git(origin, "config", "core.repositoryFormatVersion", "1")
        git(origin, "config", "remote.evil.url", f"ext::sh -c touch% {mark}")
        git(origin, "config", "remote.evil.promisor", "true")
        git(origin, "config", "core.hooksPath", str(tmp_path / "hooks"))
        (tmp_path / "hooks").mkdir()
        for hook in (
            "post-index-change",
            "reference-transaction",
            "pre-commit",
            "post-checkout",
            "fsmonitor-watchman",
            "pre-auto-gc",
        ):
            for place in (tmp_path / "hooks", origin / ".git/hooks"):
                place.mkdir(exist_ok=True)
                (place / hook).write_text(f"#!/bin/sh\ntouch {mark}\n")
                (place / hook).chmod(0o755)
        (origin / "app.py").write_text("dirty\n")
        (origin / "new.py").write_text("new\n")
        mark.unlink(missing_ok=True)
        workspace = open_workspace(at(origin, uncommitted=uncommitted), store)
        workspace.archive()
        assert workspace.read("app.py") == (b"dirty\n" if uncommitted else b"value = 2\n")
        with pytest.raises(InputError):
            open_workspace(at(origin, "0" * 39 + "1"), store)
        assert not mark.exists()
        # The trap is armed: an ordinary git falls into it.
        subprocess.run(["git", "status"], cwd=origin, capture_output=True, check=False)
        assert mark.exists()

    def test_a_repository_of_another_owner_can_be_opened(self, origin: Path, store: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        for path in [origin, *origin.rglob("*")]:
            os.chown(path, 12345, 12345)
        assert open_workspace(at(origin), store).files()

    def test_a_surrounding_git_does_not_mislead(
        self, origin: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Called from a git hook, GIT_DIR and the like are set."""
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other-index"))
        monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
        assert open_workspace(at(origin), store).read("app.py") == b"value = 2\n"

    def test_errors_are_one_clear_sentence(self, origin: Path, store: Path, tmp_path: Path) -> None:
        plain = tmp_path / "plain"
        plain.mkdir()
        git(tmp_path, "init", "-q", "empty")
        for repository, said in (
            (at(tmp_path / "missing"), "there is no directory"),
            (at(origin / "app.py"), "is a file"),
            (at(plain), "is not a git repository"),
            (at(tmp_path / "empty"), "has no commits yet"),
            (at(origin, "nonsense"), "no branch, tag or commit 'nonsense'"),
            (at(origin, "--help"), "no branch, tag or commit '--help'"),
            (at(origin / ".git"), "the inside of a git directory"),
        ):
            with pytest.raises(InputError, match=said) as caught:
                open_workspace(repository, store)
            assert "\n" not in str(caught.value)
            assert repository.location in str(caught.value)

    def test_an_unfinished_merge_cannot_be_taken_in(self, origin: Path, store: Path) -> None:
        git(origin, "checkout", "-q", "-b", "other", "v1.0")
        (origin / "app.py").write_text("value = 3\n")
        git(origin, "commit", "-qam", "three")
        subprocess.run(["git", "merge", "trunk"], cwd=origin, capture_output=True, check=False)
        with pytest.raises(InputError, match="in the middle of a merge"):
            open_workspace(at(origin, uncommitted=True), store)


class TestArchive:
    @pytest.fixture
    def hard(self, tmp_path: Path) -> Path:
        """Attributes, modes, links and names that a careless copy would change."""
        top = tmp_path / "hard"
        top.mkdir()
        git(top, "init", "-q")
        (top / ".gitattributes").write_text(
            "*.txt text eol=crlf\n*.id ident\n*.no export-ignore\n*.sub export-subst\n*.u"
            " working-tree-encoding=UTF-16\n"
        )
        names = {
            b"a.txt": b"1\n2\n",
            b"b.txt": b"1\r\n2\r\n",
            b"k.id": b"$Id$\n",
            b"e.no": b"kept\n",
            b"f.sub": b"$Format:%H$\n",
        }
        names |= {
            b"caf\xe9": b"\xe9",
            b"d/" * 60 + b"deep.py": b"deep\n",
            b"n" * 200: b"long\n",
            b"empty": b"",
            b"\xe2\x98\x83": b"snow\n",
        }
        for name, content in names.items():
            path = Path(os.fsdecode(os.fsencode(top) + b"/" + name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (top / "empty").chmod(0o755)
        (top / "link").symlink_to("../outside")
        (top / os.fsdecode(b"l\xe9")).symlink_to(os.fsdecode(b"caf\xe9"))
        info = top / ".git/info/attributes"
        info.parent.mkdir(exist_ok=True)
        info.write_text("* -text -eol -ident !working-tree-encoding\n")
        git(top, "add", "--all")
        git(top, "commit", "-qm", "hard")
        return top

    def test_has_the_bytes_modes_and_links_of_the_commit(self, hard: Path, store: Path, tmp_path: Path) -> None:
        testbed = unpack(open_workspace(at(hard), store), tmp_path / "out")

        def shape(top: Path) -> dict[bytes, object]:
            found: dict[bytes, object] = {}
            for path in top.rglob("*"):
                name = os.fsencode(path.relative_to(top))
                if name.split(b"/")[0] == b".git" or (path.is_dir() and not path.is_symlink()):
                    continue
                found[name] = (
                    os.fsencode(path.readlink())
                    if path.is_symlink()
                    else (path.read_bytes(), path.stat().st_mode & 0o111)
                )
            return found

        assert shape(testbed) == shape(hard)

    @pytest.mark.parametrize("which", ["origin", "hard"])
    def test_git_is_clean_there_and_need_not_read_the_files(
        self, which: str, request: pytest.FixtureRequest, store: Path, tmp_path: Path
    ) -> None:
        top: Path = request.getfixturevalue(which)
        testbed = unpack(open_workspace(at(top), store), tmp_path / "out")
        # Taken for unchanged by its time and size alone: content that nobody reads is not missed.
        stale = next(p for p in sorted(testbed.glob("*.py" if which == "origin" else "*.txt")))
        content, times = stale.read_bytes(), stale.stat()
        stale.write_bytes(b"#" * len(content))
        os.utime(stale, ns=(times.st_atime_ns, times.st_mtime_ns))
        # Symlinks are the exception: their times cannot be set by every tar, so git may look at them again.
        looked_at = git(testbed, "diff-files", "--name-only", "--ignore-submodules").splitlines()
        assert {name.strip('"') for name in looked_at} <= {"link", "l\\351"}
        stale.write_bytes(content)
        assert git(testbed, "status", "--porcelain") == ""
        assert git(testbed, "symbolic-ref", "HEAD") == "refs/heads/main"
        assert git(testbed, "fsck", "--full") == ""
        git(testbed, "checkout", "--", ".")
        assert git(testbed, "status", "--porcelain") == ""

    def test_is_the_same_every_time(self, origin: Path, store: Path, tmp_path: Path) -> None:
        one = open_workspace(at(origin), store).archive()
        assert open_workspace(at(origin), tmp_path / "another cache").archive() == one
