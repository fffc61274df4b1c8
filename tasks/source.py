"""SOURCE on the command line: which kind of task it names. A user's own tree is only ever read."""

import dataclasses
import hashlib
import re
import sys
from pathlib import Path

from tasks.errors import Explained, InputError
from tasks.instance import Instance
from tasks.places import expanded, is_there
from tasks.say import Say
from tasks.task import Environment, Repository, Task
from tasks.taskfile import load_task_file

_OF_A_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile", "manage.py")
FORMS = """\
  https://github.com/owner/name/issues/N   a GitHub issue
  owner/name#N                             the same, shorter
  path/to/task.toml                        a task file
  path/to/repository                       a local git repository, with --issue FILE|- or --issue-text TEXT"""


def resolve(
    source: str,
    *,
    issue: str | None = None,
    issue_text: str | None = None,
    base: str | None = None,
    include_uncommitted: bool = False,
    say: Say = lambda line: None,
) -> Instance:
    """The instance that SOURCE names; `grading` is None for all but task files that hold hidden tests.

    `issue`: a file with the issue's text ("-": standard input), or an issue as SOURCE names it, `issue_text`: the text
    itself; both for a local repository only. `base`: git ref or commit. Raises InputError for a source of no known
    form, SourceUnavailable by the network."""
    path = expanded(source)
    if is_there(path) and path.is_dir():
        around = path.resolve(), *path.resolve().parents
        if not any((place / ".git").exists() or (place / "HEAD").is_file() for place in around):
            hint = "git init && git add -A && git commit makes it one"
            raise InputError(f"{source} is a directory, and neither it nor one above it is a git repository: {hint}")
        there = _issue_by_name(issue, base, say) if issue_text is None else None
        text = there.statement if there else _issue_text(source, issue, issue_text)
        task = local_task(path, text, base=base, include_uncommitted=include_uncommitted)
        return Instance(dataclasses.replace(task, id=there.id) if there else task)
    if is_there(path) and path.suffix.lower() != ".toml":
        raise InputError(_why_no_task(source, path))
    if issue is not None or issue_text is not None:
        raise InputError(f"--issue and --issue-text belong to a local repository, and {source} is none")
    if path.suffix.lower() == ".toml":
        return _task_file(path, base, include_uncommitted)
    if include_uncommitted:
        raise InputError(f"--include-uncommitted belongs to a local repository, and {source} is none")
    from tasks import github

    if github.is_issue(source):
        return Instance(github.fetch_issue(source, base=base, say=say))
    missing = f"{source} does not exist" if "/" in source or path.suffix else f"{source!r} is no source of work"
    raise InputError(f"{missing}; a source is one of\n{FORMS}")


def _issue_by_name(issue: str | None, base: str | None, say: Say) -> Task | None:
    """The task of the GitHub issue that `--issue` names; None where it names a file."""
    if issue is None or Path(issue).exists():
        return None
    from tasks import github

    return github.fetch_issue(issue, base=base, say=say) if github.is_issue(issue) else None


def read_issue(name: str) -> str:
    """The text of `--issue FILE`, or of standard input for "-". Raises InputError for a file that is not text."""
    with Explained(f"cannot read the issue from {name}", OSError, UnicodeDecodeError):
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8")


def local_task(directory: Path, statement: str, *, base: str | None = None, include_uncommitted: bool = False) -> Task:
    """The task of solving `statement` in the git repository at `directory`, at its HEAD or at `base`.

    A directory within a repository is the project that is meant, if it is one. The id is the directory's name with a
    hash of the statement, so two issues of one repository have two ids. Raises InputError for an empty statement.
    Whether the directory is a repository is seen when its workspace is opened."""
    if not statement.strip():
        raise InputError("the issue's text is empty: say what is wrong and what should happen instead")
    root = directory.resolve()
    top = next((place for place in root.parents if (place / ".git").exists()), root)
    within = root != top and not (root / ".git").exists() and any((root / name).is_file() for name in _OF_A_PROJECT)
    text = statement.strip() + "\n"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-.") or "repository"
    return Task(
        id=f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        repository=Repository("path", str(root), base, include_uncommitted),
        statement=text,
        environment=Environment(directory=root.relative_to(top).as_posix() if within else ""),
    )


def _why_no_task(source: str, path: Path) -> str:
    """What keeps a thing that is there, and is no directory, from being a source of work. Raises InputError itself for
    a file that cannot be read."""
    if not path.is_file():
        return f"{source} is neither a file nor a directory"
    with Explained(f"{source} cannot be read", OSError), path.open("rb") as file:
        beginning = file.read(4096)
    kind, hint = "a binary file" if b"\0" in beginning else "an empty file", ""
    if beginning.strip() and b"\0" not in beginning:
        kind, hint = "a file", f"; if it is an issue's text, name the repository and give it with --issue {source}"
    return f"{source} is {kind}, not a task file (TOML, in a file called NAME.toml){hint}"


def _issue_text(source: str, issue: str | None, issue_text: str | None) -> str:
    if issue is not None and issue_text is not None:
        raise InputError("--issue and --issue-text exclude each other")
    if issue is not None:
        return read_issue(issue)
    if issue_text is None:
        raise InputError(f"{source} is a directory: say what to solve there with --issue FILE|- or --issue-text TEXT")
    return issue_text


def _task_file(path: Path, base: str | None, include_uncommitted: bool) -> Instance:
    instance = load_task_file(path)
    repository = instance.task.repository
    if base is not None and repository.kind == "package":
        raise InputError(f"--base belongs to a git repository, and {path} is about a released package")
    if include_uncommitted and repository.kind != "path":
        raise InputError(f"--include-uncommitted belongs to a local repository, and {path} is about none")
    repository = dataclasses.replace(repository, base=base or repository.base, include_uncommitted=include_uncommitted)
    return dataclasses.replace(instance, task=dataclasses.replace(instance.task, repository=repository))
