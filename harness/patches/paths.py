"""What a path says by itself: the one place that knows a test file by its name. Paths are relative to the repository.

`is_test`: does it belong to the tests rather than to the program? `guards_tests`: does it decide what tests say?
`holds_tests`, `pytest_collects`: would a runner look for tests in it? `place_of_new_test`: may a new test lie there?
`hides_from`: would it be loaded in place of what runs the tests?
"""

import re
import sys
from pathlib import PurePosixPath

_ELSEWHERE = r"\w[\w.-]*(_test\.go|\.(test|spec)\.[cm]?[jt]sx?)"
_BY_NAME = re.compile(rf"(test_.*|.*_tests?|tests?|conftest)\.pyi?|tests?\.rs|{_ELSEWHERE}")
_DECIDES = re.compile(
    r"(site|user)customize\.py|.+\.pth|package\.json|(jest|vitest)\.config\..+|\.mocharc\..+"
    r"|\.?pytest\.(ini|toml)|tox\.(ini|toml)|setup\.cfg|pyproject\.toml|\.coveragerc"
)
_HOLDS = re.compile(
    rf"(.*/)?(((unit)?test_[^/]*|[^/]*_tests?|tests)\.py|{_ELSEWHERE}|(tests?|__tests__)/.*\.([cm]?[jt]sx?|rs))"
)
_COLLECTED = re.compile(r"(test_.*|.*_test)\.py")
_LOADED = re.compile(
    r"(pytest|troop)_\w+|py|packaging|pygments|exceptiongroup|tomli|attrs?|colorama|xdist|execnet|(site|user)customize"
)
_NEW = re.compile(rf"(.*/)?((test_\w+|(?!troop_)\w+_test)\.py|{_ELSEWHERE}|tests/\w+\.rs)")
_TOOLS = frozenset({"pytest", "_pytest", "pluggy", "iniconfig", "node_modules"})


def is_test(path: str) -> bool:
    """Whether a path looks like part of a test-suite: below a directory `tests` (Go: `testdata`, JavaScript:
    `__tests__`), below `test` or `testing` at the top, or named test_*, *_test, *.test.js, *.spec.ts, tests.py or
    conftest.py. (django/test and numpy/testing are code that may need repair.)"""
    *folders, name = path.split("/")
    if not {"tests", "testdata", "__tests__"}.isdisjoint(folders) or folders[:1] in (["test"], ["testing"]):
        return True
    return _BY_NAME.fullmatch(name) is not None


def guards_tests(path: str) -> bool:
    """Whether a path decides what tests say, so that the clean room takes it from the base: whatever `is_test`, the
    settings of pytest, tox, coverage, jest, vitest and mocha, and what Python runs by itself at its start."""
    return is_test(path) or _DECIDES.fullmatch(path.rpartition("/")[2]) is not None


def holds_tests(path: str) -> bool:
    """Whether some runner would look for tests in a file of that name."""
    return _HOLDS.fullmatch(path) is not None


def pytest_collects(path: str) -> bool:
    """Whether pytest, left to its own settings, would look for tests in a file of that name."""
    return _COLLECTED.fullmatch(PurePosixPath(path).name) is not None


def place_of_new_test(path: str) -> str:
    """The path in its shortest form if a new test may lie there; empty otherwise.

    It may inside of the repository, in no hidden folder, under a name that pytest collects and Python can import, or
    that means a test in Go (x_test.go), Rust (tests/x.rs) or JavaScript (x.test.js, x.spec.ts). So no new test is a
    file that pytest or Python loads by itself (conftest.py, sitecustomize.py, pytest.ini), nor one that takes the place
    of what runs the tests (pytest.py, `_pytest/`, troop_*.py, node_modules/)."""
    pure = PurePosixPath(path)
    inside = not pure.is_absolute() and not any(part == ".." or part[0] in ".-" for part in pure.parts)
    free = inside and _TOOLS.isdisjoint(pure.parts[:1])
    return pure.as_posix() if free and path.isprintable() and _NEW.fullmatch(pure.as_posix()) else ""


def hides_from(path: str) -> str | None:
    """The folder from which Python, importing there first, would load the file in place of a tool that runs tests or of
    the standard library, which those tools import (`pytest.py`, `_pytest/__init__.py`, `json.py`, `x.pth`), or run it
    at its start; None for any other file, and for a test file."""
    pure = PurePosixPath(path)
    stem = pure.name.partition(".")[0]
    package = stem == "__init__"
    name = pure.parent.name if package else stem
    known = name in sys.stdlib_module_names or name in _TOOLS or _LOADED.fullmatch(name) is not None
    hides = (known and pure.suffix in (".py", ".pyc", ".so")) or pure.suffix == ".pth"
    return str(pure.parent.parent if package else pure.parent) if hides and not is_test(path) else None


def is_prose(path: str) -> bool:
    """Documentation: changes nothing that a program does."""
    return path.lower().endswith((".md", ".rst")) or path.lower().startswith(("doc/", "docs/"))
