"""A pytest plugin that runs inside the sandbox: which lines each test executes, counted over failing and passing tests.

Loaded by `-p troop_lines`; self-contained, Python 3.6 and newer (hence the quoted annotations). Inert without
TROOP_LINES, the file to write; it is removed from the environment, so that a pytest started by a test does not write
into it. With `coverage` installed its tracer is used, one context per test; else a slower trace function.

Written at the end of the session: {"failed": tests, "passed": tests, "files": {path below the working directory:
{line: [failing tests that executed it, passing tests that did]}}, "tracer": "coverage" or "settrace"}. Lines executed
while tests are imported count for a test file that cannot be collected, and for nothing else.
"""

import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

COLLECTION = ""


class CoverageLines:
    """Lines by test, by coverage's tracer."""

    name = "coverage"

    def __init__(self, root: str) -> None:
        os.environ.setdefault("COVERAGE_CORE", "ctrace")  # the newer core keeps no contexts
        coverage = importlib.import_module("coverage")
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=[root + "/*"], messages=False)
        self.coverage.start()

    def switch(self, test: str) -> None:
        self.coverage.switch_context(test)

    def stop(self) -> "dict[str, dict[int, list[str]]]":
        self.coverage.stop()
        data = self.coverage.get_data()
        return {path: data.contexts_by_lineno(path) for path in data.measured_files()}


class TracedLines:
    """Lines by test, by a trace function of our own."""

    name = "settrace"

    def __init__(self, root: str) -> None:
        self.root = root + os.sep
        self.test = COLLECTION
        self.seen = {}  # type: dict[str, dict[int, set[str]]]
        sys.settrace(self.trace)
        threading.settrace(self.trace)

    def trace(self, frame: "Any", event: str, argument: "Any") -> "Any":
        path = frame.f_code.co_filename
        if not path.startswith(self.root):
            return None
        lines = self.seen.setdefault(path, {})

        def within(frame: "Any", event: str, argument: "Any") -> "Any":
            if event == "line":
                lines.setdefault(frame.f_lineno, set()).add(self.test)
            return within

        return within

    def switch(self, test: str) -> None:
        self.test = test
        if sys.gettrace() is None:  # a test took the trace function away
            sys.settrace(self.trace)

    def stop(self) -> "dict[str, dict[int, list[str]]]":
        sys.settrace(None)
        threading.settrace(None)
        return {path: {line: sorted(tests) for line, tests in lines.items()} for path, lines in self.seen.items()}


class Session:
    """One measured pytest session."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root = str(Path.cwd().resolve())
        self.failed = set()  # type: set[str]
        self.passed = set()  # type: set[str]
        self.lines = _tracer(self.root)

    def write(self) -> None:
        files = {}
        for path, by_line in self.lines.stop().items():
            counted = {line: self.count(tests) for line, tests in by_line.items()}
            counted = {line: counts for line, counts in counted.items() if any(counts)}
            if counted and path.startswith(self.root + os.sep):
                files[os.path.relpath(path, self.root).replace(os.sep, "/")] = counted
        found = {"failed": len(self.failed), "passed": len(self.passed), "files": files, "tracer": self.lines.name}
        Path(self.path).write_text(json.dumps(found), encoding="ascii")

    def count(self, tests: "list[str]") -> "list[int]":
        return [sum(t in self.failed for t in tests), sum(t in self.passed for t in tests)]


def _tracer(root: str) -> "CoverageLines | TracedLines":
    try:
        return CoverageLines(root)
    except Exception:  # not installed, too old, or its core cannot keep contexts: the slower way works everywhere
        return TracedLines(root)


_path = os.environ.pop("TROOP_LINES", "")
_session = Session(_path) if _path else None


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: "Any") -> "Iterator[None]":
    if _session is not None:
        _session.lines.switch(item.nodeid)
    yield
    if _session is not None:
        _session.lines.switch(COLLECTION)


def pytest_runtest_logreport(report: "Any") -> None:
    if _session is None:
        return
    if report.failed:
        _session.failed.add(report.nodeid)
        _session.passed.discard(report.nodeid)
    elif report.when == "call" and report.passed and report.nodeid not in _session.failed:
        _session.passed.add(report.nodeid)


def pytest_collectreport(report: "Any") -> None:
    if _session is not None and report.failed:
        _session.failed.add(COLLECTION)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: "Any") -> None:
    global _session
    if _session is not None:
        _session.write()
        _session = None
