"""Putting the selected patch on a new branch of the user's repository, without touching the working tree; pushing it.

Only git's plumbing is used: the patch goes on the base's tree in an index of our own, and becomes a commit and a
branch. No hook runs, nothing is checked out; a branch is pushed from a git directory of ours that borrows its objects.
"""

import itertools
import os
import re
import shutil
import tempfile
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.cache import cache_root
from harness.patches.text import LOOSELY
from harness.repository import hostgit
from harness.repository.hostgit import IDENTITY, GitFailed, as_variables, git, users_environment
from tasks.errors import InputError

SUBJECT_CHARACTERS = 72
NAME_CHARACTERS = 50
MOST_NUMBERS = 20
"""Branches of one name that are passed over on a server."""


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
    apply."""
    (cache_root() / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root() / "tmp", prefix="apply-") as scratch:
        do = partial(_do, repository, _environment(repository, Path(scratch) / "index"))
        try:
            do("cat-file", "-e", f"{base}^{{commit}}")
        except InputError as error:
            raise InputError(
                f"cannot apply to {repository}: the base commit {base[:12]} is not in it (it held uncommitted changes);"
                " apply selected.patch with `git apply` instead"
            ) from error
        do("read-tree", base)
        laid = ("apply", "--cached", "--whitespace=nowarn")
        try:
            do(*laid, "-", stdin=patch)
        except InputError:  # it was verified as it applies with less context
            do(*laid, *LOOSELY, "-", stdin=patch)
        tree = do("write-tree")
        form = "--format=%(refname:lstrip=2)%00%(tree) %(parent)"
        listed = do("for-each-ref", form, "refs/heads/troop", "refs/heads/troop-*")
        taken = dict(line.split("\0", 1) for line in listed.splitlines())
        # A branch that is called "troop" leaves no room for one below it.
        first = f"{'troop-' if 'troop' in taken else 'troop/'}{name}"
        for number in itertools.count(1):
            branch = first if number == 1 else f"{first}-{number}"
            if taken.get(branch) == f"{tree} {base}":
                return Applied(branch, new=False)
            if branch not in taken:
                break
        do("branch", branch, do("commit-tree", tree, "-p", base, "-F", "-", stdin=message))
    return Applied(branch, new=True)


def borrow_from(objects: Path, place: Path, commit: str) -> None:
    """Make a bare git directory at `place` that has the objects of another one, as far back as that goes."""
    hostgit.plant(place, commit, borrows=objects)
    if (objects.parent / "shallow").exists():
        shutil.copyfile(objects.parent / "shallow", place / "shallow")


def push_branch(repository: Path, branch: str, url: str) -> str:
    """Push a branch of the repository to the one at `url`; its name there, with a number where another has its own.

    git talks to the server as the user does, with GITHUB_TOKEN where that is GitHub's (see `network_environment`).
    Raises InputError with what git says where the push is refused."""
    ask = ("rev-parse", "--path-format=absolute", f"refs/heads/{branch}", "--git-path", "objects")
    commit, objects = hostgit.lines(git(*ask, cwd=repository))
    clean, variables = hostgit.network_environment(url)
    (cache_root() / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root() / "tmp", prefix="push-") as scratch:
        borrow_from(Path(objects), Path(scratch), commit)
        for number in range(1, MOST_NUMBERS + 1):
            name = branch if number == 1 else f"{branch}-{number}"
            try:
                new = (f"--force-with-lease=refs/heads/{name}:", clean, f"{commit}:refs/heads/{name}")
                git("push", "--quiet", *new, git_dir=Path(scratch), base=variables)
                return name
            except GitFailed as error:
                said = hostgit.without_secrets(error.stderr, url)
                if "[rejected]" not in said:
                    break
    raise InputError(f"the branch {branch} cannot be pushed to {clean}, git says: {said}")


def branch_name(title: str, fallback: str, number: str = "") -> str:
    """A name after an issue's title, of small letters, digits and hyphens only, whatever the title holds; after
    `fallback` where that leaves nothing. `number`: the issue's, put in front."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode("ascii").lower()
    words = re.findall(r"[a-z0-9]+", plain) or re.findall(r"[a-z0-9]+", fallback.lower()) or ["patch"]
    slug = "-".join([number, *words] if number else words)
    whole_words = slug if len(slug) <= NAME_CHARACTERS else slug[: NAME_CHARACTERS + 1].rpartition("-")[0]
    return (whole_words or slug)[:NAME_CHARACTERS]


def commit_message(title: str, lines: Sequence[str], run: str) -> str:
    """The issue's title as the subject, `lines` as the body, the run's name as the one trailer.

    The title is whatever somebody wrote: it becomes one line without control characters, of 72 at most, so that it can
    neither begin a body nor add a trailer."""
    subject = textwrap.shorten(_plain(title), SUBJECT_CHARACTERS, placeholder="…")
    if subject in ("", "…"):
        subject = _plain(title)[:SUBJECT_CHARACTERS] or "A patch"
    body = "\n".join(filter(None, map(_plain, lines)))
    return "\n\n".join([subject, *([body] if body else []), f"Troop-Run: {_plain(run)}"]) + "\n"


def _plain(text: str) -> str:
    """One line, without characters that control, format or are none."""
    return " ".join("".join(" " if unicodedata.category(c).startswith("C") else c for c in text).split())


def _do(repository: Path, env: Mapping[str, str], *arguments: str, stdin: str = "") -> str:
    try:
        told = git("-C", str(repository), *arguments, base=env, stdin=stdin.encode("utf-8", "surrogateescape"))
    except GitFailed as error:
        why = f"git {arguments[0]} says: {error.stderr}"
        raise InputError(f"cannot put the patch on a branch of {repository}: {why}") from error
    return told.decode("utf-8", "surrogateescape").strip()


def _environment(repository: Path, index: Path) -> dict[str, str]:
    """For git in the user's repository: the user's identity if configured, else ours; no hooks, no monitors."""
    safe = {"core.hooksPath": os.devnull, "core.fsmonitor": "false", "i18n.commitEncoding": "utf-8"}
    own = users_environment("GIT_AUTHOR_", "GIT_COMMITTER_")
    env = {**own, "GIT_INDEX_FILE": str(index), **as_variables(safe)}
    try:
        git("-C", str(repository), "config", "user.email", base=env)
    except GitFailed:
        return IDENTITY | env
    return env
