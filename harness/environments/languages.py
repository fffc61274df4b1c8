"""Repositories in other languages: what tells of one, what it needs and how it is tested. Nothing is executed here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from tasks.errors import SetupFailed

_PYTHON = frozenset({"setup.py", "pyproject.toml", "setup.cfg", "Pipfile", "manage.py", "tox.ini", "conftest.py"})
_SUFFIXES = {
    **{".py": "Python", ".go": "Go", ".rs": "Rust", ".java": "Java", ".kt": "Kotlin", ".scala": "Scala", ".rb": "Ruby"},
    **{".c": "C", ".cc": "C++", ".cpp": "C++", ".cs": "C#", ".php": "PHP", ".swift": "Swift", ".ex": "Elixir"},
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts"), "JavaScript"),
}
_USUAL = {"Java": "mvn test", "Kotlin": "gradle test", "Scala": "sbt test", "Ruby": "bundle exec rspec"}
_CARGO = "cargo test --workspace"
_NPM = "npm install --no-package-lock --no-audit --no-fund"
# By language: its manifest, its tool, the packages of Debian and the image that bring it; what gets the dependencies,
# runs the tests and compiles them.
_KNOWN = {
    "Go": ("go.mod", "go", '"golang-go"', "golang", "go mod download", "go test ./...", "go test -run '^$' ./..."),
    "Rust": ("Cargo.toml", "cargo", '"cargo", "gcc"', "rust", "cargo fetch", _CARGO, f"{_CARGO} --no-run"),
    "JavaScript": ("package.json", "npm", '"nodejs", "npm"', "node", _NPM, "", "true"),
}
_IN_SCRIPT = re.compile(
    r"(?:^|[\s;&|])((?:\w+=\S+\s+)*)(?:npx\s+)?(jest|vitest|mocha|node(?=\s[^;&|]*--test\b))(?=\s|$)([^;&|]*)"
)
_LOCKED = {
    "pnpm-lock.yaml": "npx --yes pnpm@9 install --frozen-lockfile",
    "yarn.lock": "npx --yes yarn@1 install --frozen-lockfile",
    **dict.fromkeys(("npm-shrinkwrap.json", "package-lock.json"), "npm ci --no-audit --no-fund"),
}

Needed = tuple[str, tuple[str, ...], str, bool]
"""A step of set-up: what it does, alternatives, what is said where all of them fail, whether it goes on then."""


def foreign(
    paths: Sequence[str], read: Callable[[str], bytes], test_command: str | None
) -> tuple[str, Sequence[Needed]] | None:
    """The test command of a repository in Go, Rust or JavaScript, and what sets it up; None for Python, and for another
    language where the user gives a test command. Raises SetupFailed where none is known."""
    sources = Counter(_SUFFIXES.get(PurePosixPath(path).suffix, "") for path in paths)
    del sources[""]
    here = [language for language, (manifest, *_) in _KNOWN.items() if manifest in paths and sources[language]]
    python = any(path in _PYTHON if here else PurePosixPath(path).name in _PYTHON for path in paths)
    language = max(here or sources, key=lambda name: sources[name], default="Python")
    if language == "Python" or sources["Python"] >= (1 if python else sources[language]):
        return None
    manifest, tool, packages, image, fetch, usual, build = _KNOWN[language] if here else ("", "", "", "", "", "", "")
    scripted = next(_commands(read(manifest)), "") if tool == "npm" else ""
    command = test_command or usual or scripted
    if not command:
        such = "npm test" if here else _USUAL.get(language, "make test")
        raise SetupFailed(
            f"the repository is in {language}, and Troop knows no command that runs its tests: give one, such as"
            f" --test-command '{such}', with what it needs (--setup COMMAND, --image IMAGE)"
        )
    missing = f"its tests need {tool}, which the sandbox lacks: apt = [{packages}] in the task file or troop.toml"
    missing += f" brings it, or an image that has it (--image {image})"
    locked = (way for lock, way in _LOCKED.items() if lock in paths and tool == "npm")
    steps: list[Needed] = [
        (f"looking for {tool}", (f"command -v {tool}",), missing, False),
        ("getting what it depends on", (*locked, fetch), "what it depends on could not be had", False),
        ("compiling the tests", (build,), "not every test could be compiled beforehand", True),
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
