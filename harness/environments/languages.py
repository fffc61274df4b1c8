"""Repositories in other languages: what tells of one, what it needs and how it is tested. Nothing is executed here."""

import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.errors import SetupFailed

_PYTHON = frozenset({"setup.py", "pyproject.toml", "setup.cfg", "Pipfile", "manage.py", "tox.ini", "conftest.py"})
_IN_SCRIPT = re.compile(
    r"(?:^|[\s;&|])((?:\w+=\S+\s+)*)(?:npx\s+)?(jest|vitest|mocha|node(?=\s[^;&|]*--test\b))(?=\s|$)([^;&|]*)"
)
Needed = tuple[str, tuple[str, ...], str, bool]
"""A step of set-up: what it does, alternatives, what is said where all of them fail, whether it goes on then."""


@cache
def _tables() -> Any:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def foreign(
    paths: Sequence[str], read: Callable[[str], bytes], test_command: str | None
) -> tuple[str, Sequence[Needed]] | None:
    """The test command of a repository in Go, Rust or JavaScript, and what sets it up; None for Python, and for another
    language where the user gives a test command. Raises SetupFailed where none is known."""
    tables = _tables()
    by_ending = {ending: language for language, endings in tables["endings"].items() for ending in endings.split()}
    sources = Counter(by_ending.get(PurePosixPath(path).suffix, "") for path in paths)
    del sources[""]
    here = [name for name, known in tables["known"].items() if known["manifest"] in paths and sources[name]]
    python = any(path in _PYTHON if here else PurePosixPath(path).name in _PYTHON for path in paths)
    language = max(here or sources, key=lambda name: sources[name], default="Python")
    if language == "Python" or sources["Python"] >= (1 if python else sources[language]):
        return None
    known = tables["known"][language] if here else defaultdict(str)
    tool = known["tool"]
    scripted = next(_commands(read(known["manifest"])), "") if tool == "npm" else ""
    command = test_command or known["test"] or scripted
    if not command:
        such = "npm test" if here else tables["usual"].get(language, "make test")
        raise SetupFailed(
            f"the repository is in {language}, and Troop knows no command that runs its tests: give one, such as"
            f" --test-command '{such}', with what it needs (--setup COMMAND, --image IMAGE)"
        )
    missing = f"its tests need {tool}, which the sandbox lacks: apt = [{known['packages']}] in the task file or"
    missing += f" troop.toml brings it, or an image that has it (--image {known['image']})"
    locked = (way for lock, way in tables["locked"].items() if lock in paths and tool == "npm")
    steps: list[Needed] = [
        (f"looking for {tool}", (f"command -v {tool}",), missing, False),
        ("getting what it depends on", (*locked, known["fetch"]), "what it depends on could not be had", False),
        ("compiling the tests", (known["build"],), "not every test could be compiled beforehand", True),
    ]
    return (command, steps) if here else None


def _commands(package: bytes) -> Iterator[str]:
    """Test commands by a package.json: what its scripts start, then by what it depends on."""
    try:
        found = json.loads(package)
        scripts, *depends = ({**(found.get(key) or {})} for key in ("scripts", "devDependencies", "dependencies"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    for name in sorted((name for name in scripts if name.startswith("test")), key=len):
        if match := _IN_SCRIPT.search(str(scripts[name])):
            settings, tool, rest = match.groups()
            rest = re.sub(r"\s--(watch\w*|coverage)(=\S+)?(?=\s|$)", "", rest.rstrip())
            yield f"{settings}{'npx ' * (tool != 'node')}{tool}{rest}"
    yield from (f"npx {tool}" for tool in ("vitest", "jest", "mocha") if any(tool in table for table in depends))
