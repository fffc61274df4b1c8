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

    The id is the directory's name with a hash of the statement, so two issues of one repository have two ids. Raises
    InputError for an empty statement. Whether the directory is a repository is seen when its workspace is opened.
    """
    if not statement.strip():
        raise InputError("the issue's text is empty: say what is wrong and what should happen instead")
    root = directory.resolve()
    text = statement.strip() + "\n"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-.") or "repository"
    return Task(
        id=f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        repository=Repository("path", str(root), base, include_uncommitted),
        statement=text,
    )
