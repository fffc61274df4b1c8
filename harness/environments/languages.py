"""Repositories in other languages: what tells of one, what it needs and how it is tested. Nothing is executed here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.errors import SetupFailed

_PYTHON = frozenset({"setup.py", "pyproject.toml", "setup.cfg", "Pipfile", "manage.py", "tox.ini", "conftest.py"})
_SUFFIXES = {
    **{".py": "Python", ".go": "Go", ".rs": "Rust", ".java": "Java", ".kt": "Kotlin", ".scala": "Scala", ".rb": "Ruby"},
    **{".c": "C", ".cc": "C++", ".cpp": "C++", ".cs": "C#", ".php": "PHP", ".swift": "Swift", ".ex": "Elixir"},
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts"), "JavaScript"),
}
_MANIFESTS = {"Go": "go.mod", "Rust": "Cargo.toml", "JavaScript": "package.json"}
_USUAL = {"Java": "mvn test", "Kotlin": "gradle test", "Scala": "sbt test", "Ruby": "bundle exec rspec"}
_IN_SCRIPT = re.compile(
    r"(?:^|[\s;&|])((?:\w+=\S+\s+)*)(?:npx\s+)?(jest|vitest|mocha|node(?=\s[^;&|]*--test\b))(?=\s|$)([^;&|]*)"
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a repository is set up with. `programs`: must be there, or `package` (of Debian) and `image` bring them.
    `fetch`: gets what the repository depends on, by the first that works; `build`: compiles the tests ("": nothing)."""

    test_command: str
    programs: tuple[str, ...]
    package: str
    image: str
    fetch: tuple[str, ...]
    build: str = ""

    @property
    def missing(self) -> str:
        """What to type where a program is missing."""
        return (
            f"{' and '.join(self.programs)} must be in the sandbox and are not: apt = [{self.package}] in the task file"
            f" or troop.toml, or another image (--image {self.image})"
        )


def toolchain(paths: Sequence[str], read: Callable[[str], bytes], test_command: str | None) -> Toolchain | None:
    """What the tests of a repository in Go, Rust or JavaScript need; None for one in Python, and for one in another
    language whose test command the user gives. Raises SetupFailed where no test command is known."""
    sources = Counter(_SUFFIXES.get(PurePosixPath(path).suffix, "") for path in paths)
    del sources[""]
    here = [language for language, manifest in _MANIFESTS.items() if manifest in paths and sources[language]]
    python = any(path in _PYTHON if here else PurePosixPath(path).name in _PYTHON for path in paths)
    language = max(here or sources, key=lambda name: sources[name], default="Python")
    if language == "Python" or sources["Python"] >= (1 if python else sources[language]):
        return None
    text = read(_MANIFESTS[language]).decode("utf-8", "replace") if here else ""
    if here and language == "Go":
        build = "go test -count=1 -run '^$' ./..."
        return Toolchain(test_command or "go test ./...", ("go",), '"golang-go"', "golang", ("go mod download",), build)
    if here and language == "Rust":
        command = test_command or "cargo test" + " --workspace" * ("[workspace]" in text)
        programs, package = ("cargo", "cc"), '"cargo", "gcc"'
        return Toolchain(command, programs, package, "rust", ("cargo fetch",), "cargo test --workspace --no-run")
    command = test_command or (_command_of(text) if here else "")
    if here and command:
        return Toolchain(command, ("node", "npm"), '"nodejs", "npm"', "node", _installs(paths))
    if command:
        return None
    usual = _USUAL.get(language, "npm test" if here else "make test")
    raise SetupFailed(
        f"the repository is in {language}, and Troop knows no command that runs its tests: give one, such as"
        f" --test-command '{usual}', with what it needs (--setup COMMAND, --image IMAGE)"
    )


def _command_of(package: str) -> str:
    """The test command by a package.json: what its scripts start, else what it depends on; "" for nothing known."""
    try:
        found = json.loads(package)
    except (ValueError, RecursionError):
        return ""
    tables = [table for name in ("scripts", "devDependencies", "dependencies") for table in [found.get(name)]]
    scripts, *depends = [table if isinstance(table, dict) else {} for table in tables]
    for name in sorted((name for name in scripts if name.startswith("test")), key=len):
        if match := _IN_SCRIPT.search(str(scripts[name])):
            settings, tool, rest = match.groups()
            rest = re.sub(r"\s--(watch\w*|coverage)(=\S+)?(?=\s|$)", "", rest.rstrip())
            return f"{settings}{'npx ' * (tool != 'node')}{tool}{rest}"
    return next((f"npx {tool}" for tool in ("vitest", "jest", "mocha") for table in depends if tool in table), "")


def _installs(paths: Sequence[str]) -> tuple[str, ...]:
    """By the lock file's own manager, else by npm, which leaves no lock file behind."""
    usual = "npm install --no-package-lock --no-audit --no-fund"
    locked = {
        "pnpm-lock.yaml": "npx --yes pnpm@9 install --frozen-lockfile",
        "yarn.lock": "npx --yes yarn@1 install --frozen-lockfile",
        **dict.fromkeys(("package-lock.json", "npm-shrinkwrap.json"), "npm ci --no-audit --no-fund"),
    }
    return (*(command for lock, command in locked.items() if lock in paths), usual)
