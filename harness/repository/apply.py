"""Putting the selected patch on a new branch of the user's repository, without touching the working tree.

Only git's plumbing is used: the patch goes on the base's tree in an index of our own, and becomes a commit and a branch.
No hook runs, nothing is checked out.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from pathlib import Path

from harness.cache import cache_root
from harness.repository.hostgit import IDENTITY, as_variables, users_environment
from tasks.errors import InputError


def apply_to_branch(repository: Path, base: str, patch: str, name: str) -> str:
    """Commit `patch` on top of commit `base` as branch "troop/<name>" of the repository; the branch's name.

    Where that branch exists the name gets a number: "troop/<name>-2".
    The author is the user's own git identity where there is one. Raises InputError where the base is not in the
    repository or the patch does not apply.
    """
    branch = "troop/" + re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")
    (cache_root() / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root() / "tmp", prefix="apply-") as scratch:
        index = str(Path(scratch) / "index")
        if _git(repository, "cat-file", "-e", f"{base}^{{commit}}", index=index).returncode != 0:
            raise InputError(
                f"cannot apply to {repository}: the base commit {base[:12]} is not in it (it held uncommitted changes); "
                "apply selected.patch with `git apply` instead"
            )
        _do(repository, "read-tree", base, index=index)
        _do(repository, "apply", "--cached", "--whitespace=nowarn", "-", index=index, stdin=patch)
        tree = _do(repository, "write-tree", index=index)
        commit = _do(repository, "commit-tree", tree, "-p", base, "-m", f"Troop: {name}", index=index)
        taken = [
            line.strip()
            for line in _do(repository, "for-each-ref", "--format=%(refname:short)", index=index).splitlines()
        ]
        names = (branch if number == 1 else f"{branch}-{number}" for number in itertools.count(1))
        branch = next(name for name in names if name not in taken)
        _do(repository, "branch", branch, commit, index=index)
    return branch


def _do(repository: Path, *arguments: str, index: str, stdin: str = "") -> str:
    done = _git(repository, *arguments, index=index, stdin=stdin)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise InputError(f"cannot put the patch on a branch of {repository}: git {arguments[0]} says: {said}")
    return done.stdout.decode("ascii").strip()


def _git(repository: Path, *arguments: str, index: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    """git in the user's repository, with the user's identity if configured, else ours; no hooks, no monitors."""
    safe = {"core.hooksPath": os.devnull, "core.fsmonitor": "false"}
    own = users_environment("GIT_AUTHOR_", "GIT_COMMITTER_")
    environment = {**own, "GIT_INDEX_FILE": index, **as_variables(safe)}
    known = subprocess.run(
        ["git", "-C", str(repository), "config", "user.email"], capture_output=True, check=False, env=environment
    )
    if known.returncode != 0:
        environment = IDENTITY | environment
    return subprocess.run(
        ["git", "-C", str(repository), *arguments],
        input=stdin.encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
        env=environment,
    )
