"""Task files: one task, with or without its hidden grading tests, as TOML. docs/task-file.md documents the schema.

A file is read strictly: an unknown key, a wrong type or a path that leads out of the repository is refused by name, so
that a mistyped `comand` never silently means "detect one".
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tasks.errors import Explained, InputError
from tasks.instance import Grading, Instance
from tasks.package import parse_requirement
from tasks.places import expanded
from tasks.task import ID, PACKAGE, Environment, GivenTest, Repository, Task

_PYTHON = re.compile(r"3\.\d+(\.\d+)?")
_ARRAYS = frozenset({"setup", "apt", "ids", "fail_to_pass", "pass_to_pass"})
_TABLES = frozenset({"repository", "environment", "tests", "failing_test", "grading", "files"})
"""The keys whose values are no text."""


def load_task_file(path: Path) -> Instance:
    """The task that a TOML file describes; a relative `[repository] path` counts from the file's directory.

    Raises InputError, naming the file and the line or key, for anything that the schema does not allow."""
    with Explained(f"{path} cannot be read as a task file", OSError, UnicodeDecodeError):
        text = path.read_bytes().decode("utf-8")
    with Explained(f"{path} is not valid TOML", ValueError, RecursionError):
        values = tomllib.loads(text)
    if not values:
        raise InputError(f"{path} is empty: a task file needs a statement and a [repository] at least")
    top = _Table(path, "", values, ("id", "statement", "repository", "environment", "tests", "failing_test", "grading"))
    command, scope = _tests(top)
    statement = top.text("statement")
    if statement is None or not statement.strip():
        raise top.wrong("statement", "is missing" if statement is None else "must not be empty")
    task = Task(
        id=_identifier(top),
        repository=_repository(top),
        statement=f"{statement.strip()}\n",
        environment=_environment(top),
        test_command=command,
        failing_test=_failing_test(top),
        test_scope=scope,
    )
    return Instance(task, _grading(top))


def _identifier(top: _Table) -> str:
    name = top.text("id")
    if name is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", top.file.stem).lstrip("._-")
    if not ID.fullmatch(name):
        raise top.wrong("id", f"must be a name fit for a file (letters, digits, '.', '_', '-'), not {name!r}")
    return name


def _repository(top: _Table) -> Repository:
    if "repository" not in top.values:
        raise InputError(f"{top.file}: the table [repository] is missing")
    table = top.table("repository", ("package", "path", "url", "base"))
    given = [kind for kind in ("package", "path", "url") if kind in table.values]
    if len(given) != 1:
        found = f"has {' and '.join(given)}" if given else "has none of them"
        raise InputError(f"{top.file}: [repository] needs exactly one of package, path, url; it {found}")
    base = table.text("base")
    if base is not None and (not base.strip() or base.startswith("-")):
        raise table.wrong("base", f"must be a git ref or commit, not {base!r}")
    if package := table.text("package"):
        if base is not None:
            raise table.wrong("base", "belongs to path and url; a released package has no history")
        try:
            return Repository("package", "==".join(parse_requirement(package)))
        except InputError as error:
            raise table.wrong("package", str(error)) from error
    if url := table.text("url"):
        if url.startswith("-"):
            raise table.wrong("url", f"must be something that git clones, not {url!r}")
        return Repository("url", url, base)
    location = table.text("path")
    if not location:
        raise table.wrong(given[0], "must not be empty")
    directory = (top.file.parent / expanded(location)).resolve()
    if not directory.is_dir():
        raise table.wrong("path", f"must be a directory with a git repository; {directory} is not a directory")
    return Repository("path", str(directory), base)


def _environment(top: _Table) -> Environment:
    table = top.table("environment", ("image", "python", "setup", "directory", "apt"))
    python = table.text("python")
    if python is not None and not _PYTHON.fullmatch(python):
        raise table.wrong("python", f'must be a Python version such as "3.11", not {python!r}')
    apt, directory = table.texts("apt"), table.text("directory") or ""
    if wrong := next((name for name in apt if not PACKAGE.fullmatch(name)), None):
        raise table.wrong("apt", f"must name Debian packages, not {wrong!r}")
    if directory and (reason := _unfit(directory.rstrip("/"))):
        raise table.wrong("directory", f"{directory!r} {reason}")
    return Environment(table.text("image"), python, table.texts("setup"), directory.rstrip("/"), apt)


def _tests(top: _Table) -> tuple[str | None, Literal["whole", "near"]]:
    """The command and the scope."""
    table = top.table("tests", ("command", "scope"))
    command, scope = table.text("command"), table.text("scope")
    if command is not None and not command.strip():
        raise table.wrong("command", "must not be empty: leave [tests] out to have the command found out")
    if scope not in (None, "whole", "near"):
        raise table.wrong("scope", f'must be "whole" or "near", not {scope!r}')
    return command, "near" if scope == "near" else "whole"


def _failing_test(top: _Table) -> GivenTest | None:
    if "failing_test" not in top.values:
        return None
    table = top.table("failing_test", ("ids", "files", "directory"))
    ids = table.texts("ids")
    if not ids:
        raise table.wrong("ids", "must name at least one test that fails on the base")
    return GivenTest(ids=ids, files=table.files())


def _grading(top: _Table) -> Grading | None:
    if "grading" not in top.values:
        return None
    table = top.table("grading", ("command", "fail_to_pass", "pass_to_pass", "files", "directory"))
    grading = Grading(
        files=table.files(),
        fail_to_pass=table.texts("fail_to_pass"),
        pass_to_pass=table.texts("pass_to_pass"),
        test_command=table.text("command"),
    )
    if not grading.files and not grading.fail_to_pass:
        raise InputError(f"{top.file}: [grading] needs fail_to_pass, or test files (files or directory), or both")
    return grading


class _Table:
    """One table of a task file: reads its keys by type, refuses the unknown ones, and says where an error is."""

    def __init__(self, file: Path, name: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
        self.file = file
        self.name = name
        self.values = values
        for key, value in values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise self.wrong(key, f"is not a key of a task file: {hint}")
            if key in _TABLES:
                what, fits = "a table", isinstance(value, dict)
            elif key in _ARRAYS:
                what, fits = "an array of texts", isinstance(value, list)
                fits = fits and all(isinstance(each, str) and each.strip() for each in value)
            else:
                what, fits = "text in quotes", isinstance(value, str) and "\0" not in value
            if not fits:
                raise self.wrong(key, f"must be {what}, not {value!r}")

    def wrong(self, key: str, what: str) -> InputError:
        where = f"[{self.name}] {key}" if self.name else key
        return InputError(f"{self.file}: {where} {what}")

    def text(self, key: str) -> str | None:
        value: str | None = self.values.get(key)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self.values.get(key, ()))

    def table(self, key: str, known: Sequence[str]) -> _Table:
        """The table of that name, empty where the file has none."""
        return _Table(self.file, key, self.values.get(key, {}), known)

    def files(self) -> tuple[tuple[str, str], ...]:
        """(path in the repository, text) pairs of `files` and of everything below `directory`, sorted by path."""
        inline: Mapping[str, Any] = self.values.get("files", {})
        for path, text in inline.items():
            if not isinstance(text, str):
                raise self.wrong("files", f"{path!r} must be the file's text in quotes, not {text!r}")
        beside = self._beside()
        if twice := inline.keys() & beside.keys():
            raise self.wrong("files", f"{min(twice)!r} is given here and in the directory")
        both = {**inline, **beside}
        for path in both:
            if reason := _unfit(path):
                raise self.wrong("files", f"{path!r} {reason}")
        return tuple(sorted(both.items()))

    def _beside(self) -> dict[str, str]:
        name = self.text("directory")
        if name is None:
            return {}
        root = self.file.parent / name
        if not root.is_dir():
            raise self.wrong("directory", f"must be a directory next to the task file; {root} is not")
        found = {}
        for path in sorted(root.rglob("*")):
            if path.is_symlink():
                raise self.wrong("directory", f"holds a symbolic link, {path}, which is not followed")
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            try:
                found[path.relative_to(root).as_posix()] = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise self.wrong("directory", f"holds {path}, which cannot be read as UTF-8 text") from error
        if not found:
            raise self.wrong("directory", f"holds no file: {root}")
        return found


def _unfit(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path != PurePosixPath(path).as_posix() or "\\" in path or "\0" in path:
        return "is not a plain path such as 'tests/test_issue.py'"
    if path.startswith("/") or ".." in parts:
        return "must lie inside the repository"
    return "must not lie in .git" if ".git" in map(str.lower, parts) else ""
