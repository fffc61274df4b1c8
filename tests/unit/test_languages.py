"""Which language a repository is in, and what its tests need."""

from __future__ import annotations

import json

import pytest

from harness.environments.detect import detect
from harness.environments.languages import foreign
from tasks.errors import SetupFailed


def command(*paths: str, package: object = None, given: str | None = None) -> str | None:
    found = foreign(paths, lambda path: json.dumps(package).encode(), given)
    return found and found[0]


@pytest.mark.parametrize(
    "paths",
    [
        ("pyproject.toml", "a.py", "package.json", "ui/a.ts", "ui/b.ts"),
        ("setup.py", "a.py", "go.mod", "a.go", "b.go"),
        ("backend/pyproject.toml", "backend/a.py", "ui/package.json", "ui/a.ts", "ui/b.ts"),
        ("a.py", "b.py", "c.js"),
        ("a.py", "a.c"),
        ("README.md",),
        ("pyproject.toml",),
    ],
)
def test_a_python_repository_stays_one_whatever_else_it_has(paths: tuple[str, ...]) -> None:
    assert command(*paths) is None


def test_go_and_rust_are_known_by_their_manifests() -> None:
    assert command("go.mod", "a.go", "b.go", "tools/release.py") == "go test ./..."
    assert command("go.mod", "a.go", "b.go", "package.json", "x.js") == "go test ./..."
    assert command("Cargo.toml", "src/lib.rs", "python/pyproject.toml", "package.json") == "cargo test --workspace"
    assert command("go.mod", "a.go", given="make check") == "make check"


@pytest.mark.parametrize(
    ("package", "wanted"),
    [
        ({"scripts": {"test": "jest --coverage --maxWorkers=2"}}, "npx jest --maxWorkers=2"),
        ({"scripts": {"test": "npm run lint && c8 mocha 'test/**/*.js'"}}, "npx mocha 'test/**/*.js'"),
        ({"scripts": {"test": "cross-env NODE_ENV=test vitest --watch"}}, "NODE_ENV=test npx vitest"),
        ({"scripts": {"test": "node --import tsx --test test/*.ts; true"}}, "node --import tsx --test test/*.ts"),
        ({"scripts": {"test": "run-s test:*", "test:unit": "vitest run"}}, "npx vitest run"),
        ({"scripts": {"test": "turbo test"}, "devDependencies": {"jest": "^30"}}, "npx jest"),
        ({"dependencies": {"mocha": "9"}, "scripts": None}, "npx mocha"),
    ],
)
def test_a_javascript_repositorys_command_is_that_of_its_package_file(package: object, wanted: str) -> None:
    assert command("package.json", "a.ts", package=package) == wanted


def test_javascript_is_installed_by_the_manager_whose_lock_file_is_there() -> None:
    def ways(*paths: str) -> tuple[str, ...]:
        found = foreign((*paths, "package.json", "a.js"), lambda path: b"", "npm test")
        assert found is not None
        return found[1][1][1]

    assert [way.split(" --")[0] for way in ways("package-lock.json")] == ["npm ci", "npm install"]
    assert ways("yarn.lock")[0].startswith("npx --yes yarn@1") and ways("pnpm-lock.yaml")[0].startswith(
        "npx --yes pnpm"
    )
    assert len(ways()) == 1


@pytest.mark.parametrize(
    ("paths", "package", "language", "usual"),
    [
        (("pom.xml", "src/main/java/A.java"), None, "Java", "mvn test"),
        (("Makefile", "a.c", "b.c", "gen.py"), None, "C", "make test"),
        (("package.json", "a.js"), {"scripts": {"test": "ava"}}, "JavaScript", "npm test"),
        (("package.json", "a.js"), [], "JavaScript", "npm test"),
        (("server/go.mod", "server/a.go"), None, "Go", "make test"),
    ],
)
def test_a_repository_whose_tests_nobody_can_run_stops_with_what_to_type(
    paths: tuple[str, ...], package: object, language: str, usual: str
) -> None:
    with pytest.raises(SetupFailed, match=rf"is in {language}, .* --test-command '{usual}'.*--setup.*--image"):
        command(*paths, package=package)
    assert (command(*paths, package=package, given="make") is None) is ("package.json" not in paths)


def test_another_languages_set_up_has_a_python_for_troop_and_none_of_its_packages() -> None:
    found = detect(["go.mod", "a.go", "requirements.txt"], lambda path: b"")
    assert found.test_command == "go test ./..."
    assert [step.what for step in found.steps][1:] == [
        "looking for go",
        "getting what it depends on",
        "compiling the tests",
    ]
    assert found.steps[0].what == "making a Python environment"
    assert 'apt = ["golang-go"]' in found.steps[1].failure and "--image golang" in found.steps[1].failure
    assert not any("pip install" in command for step in found.steps for command in step.commands)
