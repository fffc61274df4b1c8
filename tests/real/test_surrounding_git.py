"""Troop started from within git (a hook, an alias, a CI step): that git's variables lead no call of ours elsewhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.repository.apply import apply_to_branch
from harness.repository.hostgit import network_environment
from harness.repository.workspace import open_workspace, sweep_scratch
from tasks.task import Repository
from tests.support.repositories import git, make_repository

PATCH = "--- a/mod.py\n+++ b/mod.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "mine", {"mod.py": "x = 1\n"}, date="2024-01-01T00:00:00+0000")


@pytest.fixture
def surrounded(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that a hook of another repository would have, and worse."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other.index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    monkeypatch.setenv("GIT_NAMESPACE", "other")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.repositoryformatversion'='99'")


@pytest.mark.usefixtures("surrounded")
def test_a_repository_is_cloned_and_fetched(repository: Path, tmp_path: Path) -> None:
    by_url = Repository("url", repository.as_uri())
    assert open_workspace(by_url, tmp_path / "cache").read("mod.py") == b"x = 1\n"
    (repository / "mod.py").write_text("x = 3\n")
    git(repository, "commit", "-q", "-a", "-m", "more")
    assert open_workspace(by_url, tmp_path / "cache").read("mod.py") == b"x = 3\n"
    assert not (tmp_path / "objects").exists()


@pytest.mark.usefixtures("surrounded")
def test_a_patch_is_put_on_a_branch_of_the_right_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "The User")
    branch = apply_to_branch(repository, git(repository, "rev-parse", "HEAD"), PATCH, "fix", "Fix it\n").branch
    assert git(repository, "show", f"{branch}:mod.py") == "x = 2"
    assert git(repository, "show", "-s", "--format=%an", branch) == "The User"
    assert git(repository, "status", "--porcelain") == ""
    assert not (tmp_path / "objects").exists() and not (tmp_path / "other.index").exists()


def test_how_the_user_reaches_servers_stays_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {
        "GIT_SSL_CAINFO": "/etc/ssl/company.pem",
        "GIT_ASKPASS": "/usr/local/bin/company-token",
        "GIT_SSH_COMMAND": "ssh -i key",
        "GIT_CONFIG_GLOBAL": "/home/user/gitconfig",
        "https_proxy": "http://proxy.example.org:3128",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_TRACE_CURL", "1")
    _, variables = network_environment("https://example.org/a.git")
    assert {name: variables.get(name) for name in theirs} == theirs
    assert "GIT_TRACE_CURL" not in variables and variables["GIT_TERMINAL_PROMPT"] == "0"


def test_what_killed_processes_left_in_the_cache_is_removed_after_some_hours(tmp_path: Path) -> None:
    old, young, archive = tmp_path / "tmp/source-old", tmp_path / "tmp/source-young", tmp_path / "downloads/a-1/.half-7"
    for directory in (old / "mirror.git", young / "mirror.git", archive.parent / "kept"):
        directory.mkdir(parents=True)
    archive.write_bytes(b"half")
    for path in (old, archive):
        os.utime(path, (time.time() - 7 * 3600,) * 2)
    removed = sweep_scratch(tmp_path)
    assert len(removed) == 2 and str(old) in removed[0] and str(archive) in removed[1]
    assert not old.exists() and not archive.exists() and (young / "mirror.git").is_dir()
    assert sweep_scratch(tmp_path) == [] == sweep_scratch(tmp_path / "nothing")
