"""Runs unittest as `python -m unittest` does, and reports every test as `troop_pytest` does.

    python -m troop_unittest ARGUMENTS     in place of `python -m unittest ARGUMENTS`

Runs inside the sandbox, Python 3.6 and newer (hence the quoted annotations); told what to do, and reporting, as
`troop_report` says. TROOP_TEST_SECONDS are of a test with its own fixtures.

Ids are as pytest has them, by the file that a test was loaded from: `tests/test_a.py::ATests::test_x`. What is selected
by a dotted name (`tests.test_a.ATests`) has one in the report. Selected files are run wherever they lie and whatever
they are called; discovery loads no other ones.
"""

import fnmatch
import importlib.util
import os
import re
import signal
import sys
import time
import unittest
from pathlib import Path
from typing import TYPE_CHECKING

import troop_report  # type: ignore[import-not-found]  # beside it, in the sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MESSAGE_LINES = 12
MESSAGE_CHARS = 1200
REFIRE_SECONDS = 1.0
NO_TESTS_FOUND = 5
WRONG_USAGE = 4
FIXTURE = re.compile(r"(setUp|tearDown)(?:Class|Module) \((.*)\)$")
# unittest's lists of what came to pass, the worst first: the outcome, and a message where it keeps none.
KINDS = (
    ("errors", "failed", ""),
    ("failures", "failed", ""),
    ("unexpectedSuccesses", "failed", "passes though it is expected to fail"),
    ("expectedFailures", "skipped", "fails as expected"),
    ("skipped", "skipped", ""),
)


class TooLong(BaseException):
    """A test took more than its time."""


class Run(troop_report.Report):  # type: ignore[misc]  # known in the sandbox
    """What is asked for, and the report."""

    def __init__(self) -> None:
        super().__init__()
        self.files = {name.partition("::")[0] for name in self.select}
        self.dotted = [n for n in self.select if not re.search(r"/|::|\.py$", n) and not Path(self.root, n).is_dir()]
        self.loaded = set()  # type: set[str]
        self.planned = []  # type: list[tuple[str, str, str]]
        self.told = 0

    def tell(self, test: str, outcome: str, message: str = "", seconds: float = 0.0) -> None:
        self.told += 1
        lines = message.strip().splitlines()[-MESSAGE_LINES:]
        super().tell(test, outcome, "\n".join(lines)[-MESSAGE_CHARS:], seconds)

    def path(self, file: str) -> str:
        return os.path.relpath(os.path.realpath(file), self.root).replace(os.sep, "/")

    def name(self, test: "Any") -> str:
        """The id of a test; of a file that could not be loaded, the file's."""
        case, method = type(test), getattr(test, "_testMethodName", "")
        unloaded = case.__name__ in ("_FailedTest", "ModuleSkipped")
        dotted = str(method if unloaded else test.id())
        for wanted in self.dotted:
            if (dotted + ".").startswith(wanted + "."):
                return dotted
            if unloaded and wanted.startswith(dotted + "."):
                return str(wanted)
        own = getattr(sys.modules.get(case.__module__), "__file__", None)
        file = file_of(dotted) if unloaded else getattr(test, "troop_file", own)
        lost = (name for name in self.files if unloaded and name.endswith(f"/{dotted}.py"))
        path = self.path(file) if file else next(lost, "..")
        if path.startswith(".."):
            return dotted
        return path if unloaded else "::".join((path, case.__qualname__.replace(".", "::"), method))

    def wanted(self, name: str) -> bool:
        for wanted in self.select:
            stem, ends = wanted.rstrip("/"), "." if wanted in self.dotted else "/:"
            if stem in (name, ".") or (name.startswith(stem) and name[len(stem)] in ends):
                return True
        return not self.select

    def keep(self, suite: "Any") -> None:
        """Leave only the selected tests in the suite."""
        kept = []
        for test in suite:
            if isinstance(test, unittest.BaseTestSuite):
                self.keep(test)
            elif not self.wanted(self.name(test)):
                continue
            kept.append(test)
        suite._tests[:] = kept

    def plan(self, suite: "Any", loader: unittest.TestLoader) -> None:
        """Leave only the selected tests in the suite, and add those of selected files and names that it lacks."""
        self.keep(suite)
        there = self.loaded.union(self.name(test) for test in each(suite))
        lacking = [n for n in self.dotted if not any((test + ".").startswith(n + ".") for test in there)]
        for file in sorted(self.files - there):
            if file.endswith(".py") and Path(self.root, file).is_file():
                lacking.append(file[: -len(".py")].replace("/", "."))
        if lacking and self.root not in sys.path:
            sys.path.append(self.root)
        for name in lacking:
            found = loader.loadTestsFromName(name)
            self.keep(found)
            suite.addTest(found)
        for test in each(suite):
            case = type(test)
            self.planned.append((self.name(test), case.__module__ + "." + case.__qualname__, case.__module__))


def file_of(module: str) -> "str | None":
    try:
        return getattr(importlib.util.find_spec(module), "origin", None)
    except Exception:  # whatever its package does when it is imported
        return None


def each(suite: "Any") -> "Iterator[Any]":
    for test in suite:
        if isinstance(test, unittest.BaseTestSuite):
            yield from each(test)
        else:
            yield test


def ring(_signal: int, frame: "Any") -> None:
    if "__unittest" not in frame.f_globals:  # as unittest's own modules have it: there the test has ended
        raise TooLong(f"timed out after {RUN.seconds:g} s")


class Result(unittest.TextTestResult):
    """unittest's own results. What was added to them while a test ran is told of the test."""

    def startTestRun(self) -> None:
        self.seen = dict.fromkeys((kind for kind, *_ in KINDS), 0)
        self.last = ""
        super().startTestRun()

    def added(self) -> "list[tuple[Any, str, str]]":
        """What was added since the last look: the test or a part of it or of its fixtures, outcome, message."""
        new = []
        for kind, outcome, message in KINDS:
            for entry in getattr(self, kind)[self.seen[kind] :]:
                test, said = entry if isinstance(entry, tuple) else (entry, "")
                new.append((test, outcome, message or said))
            self.seen[kind] = len(getattr(self, kind))
        return new

    def startTest(self, test: "Any") -> None:
        self.tell_fixtures()
        super().startTest(test)
        self.last, self.passed, self.began = RUN.name(test), False, time.perf_counter()
        RUN.write({"start": self.last})
        if RUN.seconds:
            signal.signal(signal.SIGALRM, ring)
            # Again and again: the code under test may catch the exception.
            signal.setitimer(signal.ITIMER_REAL, RUN.seconds, REFIRE_SECONDS)

    def addSuccess(self, test: "Any") -> None:
        self.passed = True
        super().addSuccess(test)

    def stopTest(self, test: "Any") -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        new = self.added()
        outcome, message = "passed", ""
        for part, outcome, message in new:
            if type(part).__name__ != "_SubTest" or outcome == "failed":
                break
            outcome, message = "passed", ""  # a skipped part does not make the whole test skipped
        if new or self.passed:  # else it was broken off
            outcome = "error" if type(test).__name__ == "_FailedTest" else outcome
            RUN.tell(self.last, outcome, message, time.perf_counter() - self.began)
        super().stopTest(test)

    def tell_fixtures(self) -> None:
        """What goes before the tests of a class or module is about all of them, what goes after them about the last."""
        for holder, outcome, message in self.added():
            match = FIXTURE.match(holder.id())
            before = match.group(2) if match and match.group(1) == "setUp" else None
            for name in [name for name, *of in RUN.planned if before in of] or [self.last or holder.id()]:
                RUN.tell(name, "error" if outcome == "failed" else outcome, message)

    def stopTestRun(self) -> None:
        self.tell_fixtures()
        super().stopTestRun()


class Loader(unittest.TestLoader):
    """unittest's own loader, but that discovery loads what is selected, and it is noted from which file."""

    def loadTestsFromModule(self, module: "Any", *arguments: "Any", **options: "Any") -> "Any":
        suite = super().loadTestsFromModule(module, *arguments, **options)
        file = getattr(module, "__file__", None)
        if file:
            RUN.loaded.add(RUN.path(file))
            for test in each(suite):
                test.troop_file = getattr(test, "troop_file", file)
        return suite

    def _match_path(self, path: str, full_path: str, pattern: str) -> bool:
        name = RUN.path(full_path)
        return name in RUN.files or ((RUN.wanted(name) or bool(RUN.dotted)) and fnmatch.fnmatch(path, pattern))


class Runner(unittest.TextTestRunner):
    """unittest's own runner, but that it runs what is selected."""

    resultclass: "Any" = Result

    def run(self, test: "Any") -> "Any":
        self.failfast = self.failfast or RUN.first
        RUN.plan(test, LOADER)
        return super().run(test)


RUN, LOADER = Run(), Loader()


def main() -> int:
    sys.argv[0] = "python -m unittest"
    ended, told = 0, 0  # by the process, by the report
    try:
        unittest.main(module=None, testRunner=Runner, testLoader=LOADER)
    except SystemExit as stop:
        ended = told = int(stop.code not in (None, 0, NO_TESTS_FOUND))
        if stop.code == 2 and not RUN.planned:
            ended, told = 2, WRONG_USAGE
    if not told and not RUN.told:
        ended = told = NO_TESTS_FOUND
    RUN.finish(told)
    return ended


if __name__ == "__main__":
    sys.exit(main())
