"""A local repository with the issue's text as a task. The user's tree is only ever read."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from tasks.errors import InputError
from tasks.task import Repository, Task


def read_issue(name: str) -> str:
    """The text of `--issue FILE`, or of standard input for "-". Raises InputError for a file that is not text."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the issue from {name}: {error.strerror}") from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the issue in {name} is not UTF-8 text (byte {error.start})") from error


def local_task(directory: Path, statement: str, *, base: str | None = None, include_uncommitted: bool = False) -> Task:
    """The task of solving `statement` in the git repository at `directory`, at its HEAD or at `base`.

    The id is the directory's name with a hash of the statement, so two issues of one repository have two ids.
    Raises InputError for an empty statement and for a directory that is not the root of a git repository.
    """
    if not statement.strip():
        raise InputError("the issue's text is empty: say what is wrong and what should happen instead")
    if base is not None and include_uncommitted:
        raise InputError("--base and --include-uncommitted exclude each other: uncommitted changes lie on HEAD")
    root = directory.resolve()
    _check_repository(root)
    text = statement.strip() + "\n"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-.") or "repository"
    return Task(
        id=f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        repository=Repository("path", str(root), base, include_uncommitted),
        statement=text,
    )


def _check_repository(root: Path) -> None:
    if (root / ".git").exists() or ((root / "HEAD").is_file() and (root / "objects").is_dir()):
        return
    for parent in root.parents:
        if (parent / ".git").exists():
            raise InputError(f"{root} is inside the git repository {parent}: give that directory")
    raise InputError(f"{root} is not a git repository: make it one with `git init`, `git add` and `git commit`")
