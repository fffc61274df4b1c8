"""QuixBugs as a suite: 40 small Python programs, each with a defect on one line, from a checkout of jkoppel/QuixBugs.

A task's tree is a git repository made for it: the defective program, the helpers that it or its tests import, and every
other of its test cases. All of its cases grade. Nothing of the corrected programs is read. No program is run here:
which of the visible cases fail is found out by the run of the base.
"""

import ast
import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.choose import choose
from tasks.errors import EnvironmentFailed, Explained, InputError
from tasks.instance import Grading, Instance
from tasks.places import made_whole
from tasks.task import GivenTest, Repository, Task

_PREFIX = "quixbugs-"

TEST_COMMAND = "python -m pytest -q"

# One date for all, so that the same tree is always the same commit, and old enough to be no news to any package index.
_COMMITTED = "2024-06-01T00:00:00+00:00"

# A program that computes to a given accuracy takes it as its last argument; its results are compared with that.
_ACCURACY_IS_LAST_ARGUMENT = frozenset({"sqrt"})

_TEXTS = Path(__file__).parent / "texts"
_STATEMENT = (_TEXTS / "quixbugs_issue.md").read_text(encoding="utf-8")
_GENERATED = (_TEXTS / "quixbugs_cases.txt").read_text(encoding="utf-8")
_EQUAL = "assert plain(result) == expected"
_CLOSE = "assert result == pytest.approx(expected, abs=arguments[-1])"


@dataclass(frozen=True, slots=True)
class _Program:
    """One program of the checkout, with its own test file (None where there is none)."""

    name: str
    source: str
    cases: tuple[tuple[list[Any], Any], ...]
    tests: str | None


def load_quixbugs(source: Path, work: Path, patterns: Sequence[str] = ()) -> list[Instance]:
    """The instances of the checkout at `source`, in order of name; their repositories are made below `work`.

    `patterns` choose programs, see `tasks.choose`. Raises InputError for a directory that is no such checkout, or a
    pattern that names nothing."""
    return [_instance(source, work, _program(source, name)) for name in choose_programs(source, patterns)]


def choose_programs(source: Path, patterns: Sequence[str]) -> list[str]:
    """The names of the programs that `patterns` choose, in order. Raises InputError as `load_quixbugs` does."""
    names = {
        f"{_PREFIX}{path.stem}": path.stem
        for path in sorted((source / "python_programs").glob("*.py"))
        if (source / "json_testcases" / f"{path.stem}.json").is_file()
        or (source / "python_testcases" / f"test_{path.stem}.py").is_file()
    }
    if not names:
        raise InputError(
            f"{source} is no checkout of QuixBugs (no python_programs with test cases): clone jkoppel/QuixBugs and give"
            " its directory with --source"
        )
    return [names[id] for id in choose(names, patterns)]


def _program(source: Path, name: str) -> _Program:
    tests = source / "python_testcases" / f"test_{name}.py"
    cases = source / "json_testcases" / f"{name}.json"
    text = _text(tests) if tests.is_file() else None
    return _Program(
        name=name,
        source=_text(source / "python_programs" / f"{name}.py"),
        cases=tuple(_cases(cases, _too_slow(text or ""))) if cases.is_file() else (),
        tests=text,
    )


def _text(path: Path) -> str:
    with Explained(f"{path} cannot be read", OSError, UnicodeDecodeError):
        return path.read_bytes().decode("utf-8")


def _cases(path: Path, left_out: Sequence[Any]) -> Iterable[tuple[list[Any], Any]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        with Explained(f"{path}, line {number}: not a test case [arguments, result]", ValueError, TypeError):
            arguments, expected = json.loads(line)
        arguments = arguments if isinstance(arguments, list) else [arguments]
        if arguments not in left_out:
            yield arguments, expected


def _too_slow(tests: str) -> list[Any]:
    """The arguments that the checkout's own test skips, because even a right program takes minutes for them."""
    found = []
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.If) and any(ast.unparse(each).startswith("pytest.skip(") for each in node.body):
            for part in ast.walk(node.test):
                if isinstance(part, ast.Compare) and isinstance(part.ops[0], ast.Eq):
                    found.append(ast.literal_eval(part.comparators[0]))
    return found


def _instance(source: Path, work: Path, program: _Program) -> Instance:
    name = program.name
    visible = f"tests/test_{name}.py"
    every = _test_file(program, step=1)
    tree = {f"{name}.py": program.source, **_modules(source, program), visible: _test_file(program, step=2)}
    task = Task(
        id=f"{_PREFIX}{name}",
        repository=Repository("path", str(_repository(work, name, tree))),
        statement=_STATEMENT.format(name=name),
        test_command=TEST_COMMAND,
        failing_test=GivenTest(ids=(visible,), certain=False),
    )
    return Instance(task, Grading(files=((f"tests/test_{name}_all.py", every),)))


def _test_file(program: _Program, *, step: int) -> str:
    """A pytest file with every `step`-th case, counted from the first."""
    if not program.cases:
        return _functions(program, step)
    numbered = list(enumerate(program.cases, 1))[::step]
    cases = "\n".join(f"    {number}: ({arguments!r}, {expected!r})," for number, (arguments, expected) in numbered)
    check = _CLOSE if program.name in _ACCURACY_IS_LAST_ARGUMENT else _EQUAL
    return _GENERATED.format(name=program.name, cases=cases, check=check)


def _functions(program: _Program, step: int) -> str:
    """The hand-written test file with every `step`-th test function, importing the program from the tree's root."""
    source = program.tests or ""
    body = ast.parse(source).body
    tests = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    kept = set(map(id, tests[::step]))
    lines = source.splitlines()
    parts = []
    for node in body:
        if isinstance(node, ast.If) and "use_correct" in ast.unparse(node.test):
            parts.append(f"from {program.name} import {program.name}")
        elif node not in tests or id(node) in kept:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            parts.append("\n".join(lines[first - 1 : node.end_lineno]))
    return "\n\n".join(parts) + "\n"


def _modules(source: Path, program: _Program) -> dict[str, str]:
    """The helpers (such as a node class) that the program or its hand-written tests import, by path in the tree."""
    found: dict[str, str] = {}
    texts = [program.source] if program.cases else [program.source, program.tests or ""]
    while texts:
        for name in _imported(texts.pop()):
            path = source / "python_programs" / f"{name}.py"
            if name != program.name and path.is_file() and path.name not in found:
                found[path.name] = _text(path)
                texts.append(found[path.name])
    return found


def _imported(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level <= 1:
            names.add(node.module.partition(".")[0])
    return names


def _repository(work: Path, name: str, tree: dict[str, str]) -> Path:
    """A git repository with one commit that holds the tree; made once for the same content."""
    content = hashlib.sha256(json.dumps(sorted(tree.items())).encode()).hexdigest()
    place = work / f"{name}-{content[:12]}"
    if place.is_dir():
        return place.resolve()
    with made_whole(place, work) as made:
        for path, text in tree.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(text.encode("utf-8"))
        for arguments in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], ["commit", "-q", "-m", name]):
            _git(made, arguments)
    return place.resolve()


def _git(directory: Path, arguments: Sequence[str]) -> None:
    """git without the user's configuration: no signing, no hooks, no line-ending conversion."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    who = {f"GIT_{role}_{what}": "troop" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    when = {f"GIT_{role}_DATE": _COMMITTED for role in ("AUTHOR", "COMMITTER")}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(directory), *arguments]
    with Explained("git has to be installed (Debian: apt-get install git)", FileNotFoundError, kind=EnvironmentFailed):
        done = subprocess.run(command, env={**mine, **who, **when, **plain}, capture_output=True, text=True)
    if done.returncode:
        raise EnvironmentFailed(f"git {arguments[0]} failed in {directory}: {done.stderr.strip()}")
