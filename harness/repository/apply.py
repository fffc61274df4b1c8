"""Putting the selected patch on a new branch of the user's repository, without touching the working tree.

Only git's plumbing is used: the patch goes on the base's tree in an index of our own, and becomes a commit and a
branch. No hook runs, nothing is checked out.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cache import cache_root
from harness.repository.hostgit import IDENTITY, as_variables, users_environment
from tasks.errors import InputError

SUBJECT_CHARACTERS = 72
NAME_CHARACTERS = 50


@dataclass(frozen=True, slots=True)
class Applied:
    """Where a patch is. `new` False: the branch held that very patch already, and nothing was made."""

    branch: str
    new: bool


def apply_to_branch(repository: Path, base: str, patch: str, name: str, message: str) -> Applied:
    """Commit `patch` on top of commit `base` as branch "troop/<name>" of the repository, see `branch_name`.

    Where that branch, or one that differs by a number, holds the same patch on the same base, it is named and left as
    it is. Where it holds another the new one gets a number: "troop/<name>-2". `message`: see `commit_message`. The
    author is the user's git identity, if any. Raises InputError where the base is not there or the patch does not
    apply.
    """
    (cache_root() / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root() / "tmp", prefix="apply-") as scratch:
        index = str(Path(scratch) / "index")
        if _git(repository, "cat-file", "-e", f"{base}^{{commit}}", index=index).returncode != 0:
            raise InputError(
                f"cannot apply to {repository}: the base commit {base[:12]} is not in it (it held uncommitted changes);"
                " apply selected.patch with `git apply` instead"
            )
        _do(repository, "read-tree", base, index=index)
        _do(repository, "apply", "--cached", "--whitespace=nowarn", "-", index=index, stdin=patch)
        tree = _do(repository, "write-tree", index=index)
        form = "--format=%(refname:lstrip=2)%00%(tree) %(parent)"
        listed = _do(repository, "for-each-ref", form, "refs/heads/troop", "refs/heads/troop-*", index=index)
        taken = dict(line.split("\0", 1) for line in listed.splitlines())
        # A branch that is called "troop" leaves no room for one below it.
        first = f"{'troop-' if 'troop' in taken else 'troop/'}{name}"
        for number in itertools.count(1):
            branch = first if number == 1 else f"{first}-{number}"
            if taken.get(branch) == f"{tree} {base}":
                return Applied(branch, new=False)
            if branch not in taken:
                break
        commit = _do(repository, "commit-tree", tree, "-p", base, "-F", "-", index=index, stdin=message)
        _do(repository, "branch", branch, commit, index=index)
    return Applied(branch, new=True)


def branch_name(title: str, fallback: str, number: str = "") -> str:
    """A name after an issue's title, of small letters, digits and hyphens only, whatever the title holds; after
    `fallback` where that leaves nothing. `number`: the issue's, put in front."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode("ascii").lower()
    words = re.findall(r"[a-z0-9]+", plain) or re.findall(r"[a-z0-9]+", fallback.lower()) or ["patch"]
    slug = "-".join([number, *words] if number else words)
    return (
        slug
        if len(slug) <= NAME_CHARACTERS
        else (slug[: NAME_CHARACTERS + 1].rpartition("-")[0] or slug)[:NAME_CHARACTERS]
    )


def commit_message(title: str, lines: Sequence[str], run: str) -> str:
    """The issue's title as the subject, `lines` as the body, the run's name as the one trailer.

    The title is whatever somebody wrote: it becomes one line without control characters, of 72 at most, so that it can
    neither begin a body nor add a trailer.
    """
    subject = textwrap.shorten(_plain(title), SUBJECT_CHARACTERS, placeholder="…")
    if subject in ("", "…"):
        subject = _plain(title)[:SUBJECT_CHARACTERS] or "A patch"
    body = "\n".join(filter(None, map(_plain, lines)))
    return "\n\n".join([subject, *([body] if body else []), f"Troop-Run: {_plain(run)}"]) + "\n"


def _plain(text: str) -> str:
    """One line, without characters that control, format or are none."""
    return " ".join("".join(" " if unicodedata.category(c).startswith("C") else c for c in text).split())


def _do(repository: Path, *arguments: str, index: str, stdin: str = "") -> str:
    done = _git(repository, *arguments, index=index, stdin=stdin)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise InputError(f"cannot put the patch on a branch of {repository}: git {arguments[0]} says: {said}")
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def _git(repository: Path, *arguments: str, index: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    """git in the user's repository, with the user's identity if configured, else ours; no hooks, no monitors."""
    safe = {"core.hooksPath": os.devnull, "core.fsmonitor": "false", "i18n.commitEncoding": "utf-8"}
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
