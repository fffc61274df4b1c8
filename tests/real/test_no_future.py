"""A workspace holds the base commit and nothing newer: every way back to the future is tried."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.repository.workspace import Workspace, open_workspace
from tasks.task import Repository
from tests.support.repositories import git

SECRET = "TheFixOfTomorrow"
PAST = "TheSinOfYesterday"


def commit(top: Path, name: str, content: str, message: str) -> str:
    (top / name).write_text(content)
    git(top, "add", "--all")
    git(top, "commit", "-q", "-m", message)
    return git(top, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository in which the future of its base commit is everywhere that git can keep it."""
    top = tmp_path_factory.mktemp("origin")
    git(top, "init", "-q", "-b", "main")
    git(top, "config", "gc.auto", "0")
    commit(top, "app.py", f"# {PAST}\n", PAST)
    base = commit(top, "app.py", "value = 1\n" * 50, "base")
    git(top, "tag", "v1")
    fix = "value = 1\n" * 50 + f"# {SECRET}\n"
    # Branches, loose and packed; tags, light and annotated; a branch whose very name tells.
    commit(top, "app.py", fix + "1", f"fix: {SECRET}")
    git(top, "branch", f"fix-{SECRET}")
    git(top, "tag", "v2")
    git(top, "tag", "-a", "v2-annotated", "-m", SECRET)
    # A side branch that was merged, and a replacement of the base by the future.
    git(top, "checkout", "-q", "-b", "side", base)
    commit(top, f"{SECRET}.py", fix + "2", "side")
    git(top, "checkout", "-q", "main")
    git(top, "merge", "-q", "-m", f"merge {SECRET}", "side")
    git(top, "replace", base, "v2")
    # Only in reflogs, in packs without a ref, and loose without a ref.
    commit(top, "app.py", fix + "3", "amended away")
    git(top, "reset", "-q", "--hard", "HEAD~1")
    git(top, "repack", "-q", "-a", "-d", "--keep-unreachable")
    git(top, "pack-refs", "--all")
    commit(top, "app.py", fix + "4", "loose and lost")
    git(top, "reset", "-q", "--hard", "HEAD~1")
    git(top, "fsck", "--lost-found", "--no-reflogs")
    # Stash, notes, FETCH_HEAD, ORIG_HEAD, MERGE_HEAD, a worktree, an alternate, remotes, a commit template.
    (top / "app.py").write_text(fix + "5")
    git(top, "stash", "push", "-q", "-m", SECRET)
    git(top, "notes", "add", "-m", SECRET, base)
    git(top, "fetch", "-q", ".", "v2")
    git(top, "update-ref", "ORIG_HEAD", "v2")
    git(top, "update-ref", "refs/original/refs/heads/main", "v2")
    (top / ".git/MERGE_HEAD").write_text(git(top, "rev-parse", "v2^0") + "\n")
    (top / ".git/MERGE_MSG").write_text(SECRET)
    (top / ".git/description").write_text(SECRET)
    (top / ".git/hooks").mkdir(exist_ok=True)
    (top / ".git/hooks/pre-commit").write_text(f"# {SECRET}\n")
    git(top, "config", "remote.origin.url", f"https://example.org/{SECRET}")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    git(top, "worktree", "add", "-q", str(elsewhere / "tree"), "v2")
    commit(elsewhere / "tree", "app.py", fix + "6", "in a worktree")
    git(elsewhere, "init", "-q", "lender")
    commit(elsewhere / "lender", "lent.py", fix + "7", SECRET)
    (top / ".git/objects/info/alternates").write_text(f"{elsewhere}/lender/.git/objects\n")
    # Staged and never committed; written and never staged.
    (top / ".git/MERGE_HEAD").unlink()
    git(top, "reset", "-q", "--hard", base)
    (top / "staged.py").write_text(fix + "8")
    git(top, "add", "staged.py")
    (top / "untracked.py").write_text(fix + "9")
    return top, base


KINDS = ("path", "worktree", "clone that borrows", "bare", "url")


@pytest.fixture(params=KINDS)
def workspace(
    request: pytest.FixtureRequest, origin: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    top, base = origin
    cache, aside = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("aside")
    kind = request.param
    if kind == "url":
        return open_workspace(Repository("url", top.as_uri(), base=base), cache)
    place = top
    if kind == "worktree":
        git(top, "worktree", "add", "-q", "--detach", str(aside / "tree"), "side")
        place = aside / "tree"
    elif kind == "clone that borrows":
        git(aside, "clone", "-q", "--shared", str(top), "clone")
        place = aside / "clone"
    elif kind == "bare":
        git(aside, "clone", "-q", "--mirror", str(top), "mirror.git")
        place = aside / "mirror.git"
    return open_workspace(Repository("path", str(place), base=base), cache)


@pytest.fixture
def unpacked(workspace: Workspace, tmp_path: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(workspace.archive())) as archive:
        archive.extraction_filter = lambda member, _: member  # as an attribute: 3.11.2 has no argument for it
        archive.extractall(tmp_path)
    return tmp_path


def contents(top: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file's bytes and name, and what any zlib stream in it (a loose object, an object of a pack) unfolds to."""
    for path in top.rglob("*"):
        yield path, path.name.encode()
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield path, content
        at = content.find(b"\x78")
        while at >= 0:
            unfold = zlib.decompressobj()
            with contextlib.suppress(zlib.error):
                yield path, unfold.decompress(content[at:])
            at = content.find(b"\x78", at + 1)


def test_the_future_is_nowhere_in_the_bytes(workspace: Workspace, unpacked: Path) -> None:
    told = [
        str(path)
        for top in (workspace.git_dir.parent, unpacked)
        for path, text in contents(top)
        if SECRET.encode() in text
    ]
    assert told == []


def test_the_test_would_find_it(origin: tuple[Path, str]) -> None:
    found = {str(path.relative_to(origin[0])) for path, text in contents(origin[0] / ".git") if SECRET.encode() in text}
    assert any(name.endswith(".pack") for name in found)
    assert len(found) > 10


def test_neither_is_the_past(workspace: Workspace, unpacked: Path) -> None:
    assert [p for top in (workspace.git_dir, unpacked) for p, text in contents(top) if PAST.encode() in text] == []


def test_exactly_the_objects_of_the_base_are_there(
    workspace: Workspace, unpacked: Path, origin: tuple[Path, str]
) -> None:
    top, base = origin
    blob = git(top, "--no-replace-objects", "rev-parse", f"{base}:app.py")
    tree = git(top, "--no-replace-objects", "rev-parse", f"{base}^{{tree}}")
    for place in (workspace.git_dir, unpacked / "testbed/.git", unpacked / "opt/troop/base.git"):
        listed = git(place, "--git-dir", str(place), "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
        assert set(listed.split()) == {base, tree, blob}
        assert not (place / "objects/info/alternates").exists()


def test_the_base_keeps_its_id_and_its_content(workspace: Workspace, origin: tuple[Path, str]) -> None:
    assert workspace.base_commit == origin[1]
    assert workspace.files() == ["app.py"]
    assert workspace.read("app.py") == b"value = 1\n" * 50


@pytest.mark.parametrize("place", ["testbed", "opt/troop/base.git"])
def test_git_itself_finds_no_way(unpacked: Path, origin: tuple[Path, str], place: str) -> None:
    there, base = unpacked / place, origin[1]
    assert git(there, "log", "--all", "--reflog", "--format=%H") == base
    assert git(there, "for-each-ref", "--format=%(refname) %(objectname)") == f"refs/heads/main {base}"
    assert git(there, "reflog", "--all") == ""
    assert git(there, "stash", "list") == "" if place == "testbed" else True
    assert git(there, "notes", "list") == ""
    assert git(there, "remote") == ""
    assert git(there, "tag") == ""
    assert len(git(there, "worktree", "list").splitlines()) == 1
    assert git(there, "fsck", "--full", "--lost-found", "--unreachable") == ""
    assert git(there, "count-objects", "-v").splitlines()[0] == "count: 0"
    for name in (
        "ORIG_HEAD",
        "FETCH_HEAD",
        "MERGE_HEAD",
        "stash",
        "v2",
        "side",
        "refs/original/refs/heads/main",
        "HEAD~1",
        "HEAD@{1}",
    ):
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "-q", f"{name}^{{commit}}"], cwd=there, capture_output=True, check=False
        )
        assert found.returncode != 0, f"{name} leads to {found.stdout!r}"


def test_a_git_directory_has_nothing_but_what_it_needs(unpacked: Path) -> None:
    names = {
        str(p.relative_to(unpacked / "testbed/.git")) for p in (unpacked / "testbed/.git").rglob("*") if p.is_file()
    }
    packs = {name for name in names if name.startswith("objects/pack/pack-")}
    assert {Path(name).suffix for name in packs} <= {".pack", ".idx", ".rev"}
    assert names - packs == {"HEAD", "config", "index", "info/attributes", "info/exclude", "refs/heads/main", "shallow"}


def test_the_mirror_in_the_cache_is_never_part_of_a_workspace(origin: tuple[Path, str], tmp_path: Path) -> None:
    """The mirror holds the future, as it must; a workspace cut from it does not borrow from it."""
    top, base = origin
    workspace = open_workspace(Repository("url", top.as_uri(), base=base), tmp_path)
    (mirror,) = (tmp_path / "mirrors").glob("*.git")
    assert any(SECRET.encode() in text for _, text in contents(mirror))
    subprocess.run(["rm", "-rf", str(mirror)], check=True)
    assert workspace.read("app.py") == b"value = 1\n" * 50
    assert len(workspace.archive()) > 0
