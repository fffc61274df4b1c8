"""Runs unittest as `python -m unittest` does, and reports every test as `troop_pytest` does.

    python -m troop_unittest ARGUMENTS     in place of `python -m unittest ARGUMENTS`

Runs inside the sandbox, self-contained, Python 3.6 and newer (hence the quoted annotations). It is told what to do, and
reports, through the same variables and the same lines as the plugin (see there): TROOP_REPORT, TROOP_ROOT,
TROOP_SELECT, TROOP_TEST_SECONDS (of a test with its own fixtures) and TROOP_FIRST_FAILURE.

Ids are as pytest has them, by the file that a test was loaded from: `tests/test_a.py::ATests::test_x`. What is selected
by a dotted name (`tests.test_a.ATests`) has one in the report. Selected files are run wherever they lie and whatever
they are called; discovery loads no other ones.
"""

import fnmatch
import json
import os
import re
import signal
import sys
import time
import traceback
import unittest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MESSAGE_LINES = 12
MESSAGE_CHARS = 1200
REFIRE_SECONDS = 1.0
NO_TESTS_FOUND = 5
WRONG_USAGE = 4
SEVERITY = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}
FIXTURE = re.compile(r"(setUp|tearDown)(?:Class|Module) \((.*)\)$")

HERE = str(Path(__file__).resolve().parent)
if HERE in sys.path:  # the repository's own modules come first
    sys.path.remove(HERE)
    sys.path.append(HERE)


class TooLong(BaseException):
    """A test took more than its time."""


class Report:
    """The lines, and the test under way."""

    def __init__(self) -> None:
        path = os.environ.pop("TROOP_REPORT", "")
        select = os.environ.pop("TROOP_SELECT", "")
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if path else -1
        self.root = os.path.realpath(os.environ.pop("TROOP_ROOT", "") or str(Path.cwd()))
        self.select = json.loads(Path(select).read_text(encoding="ascii")) if select else None
        self.seconds = float(os.environ.pop("TROOP_TEST_SECONDS", "") or 0)
        self.first = bool(os.environ.pop("TROOP_FIRST_FAILURE", ""))
        self.dotted = [str(name) for name in self.select or () if not self.is_path(name)]
        self.loaded = set()  # type: set[str]
        self.loader = loader(self)
        self.planned = []  # type: list[tuple[str, str, str]]
        self.running = ""
        self.last = ""
        self.began = 0.0
        self.outcome = "passed"
        self.message = ""
        self.ended = False
        self.told = 0
        self.write({"begin": os.getpid()})

    def write(self, line: "dict[str, Any]") -> None:
        if self.fd >= 0:
            os.write(self.fd, json.dumps(line).encode("ascii") + b"\n")

    def tell(self, test: str, outcome: str, seconds: float = 0.0, message: str = "") -> None:
        self.told += 1
        self.write({"test": test, "outcome": outcome, "seconds": round(seconds, 4), "message": message})

    # ---- names

    def path(self, file: str) -> str:
        return os.path.relpath(os.path.realpath(file), self.root).replace(os.sep, "/")

    def is_path(self, name: str) -> bool:
        """Whether a selected name is a file, a folder or of one, and no dotted name."""
        return re.search(r"/|::|\.py$", name) is not None or Path(self.root, name).is_dir()

    def name(self, test: "Any") -> str:
        """The id of a test; of a file that could not be loaded, the file's."""
        case = type(test)
        unloaded = case.__name__ in ("_FailedTest", "ModuleSkipped")
        dotted = str(test._testMethodName if unloaded else test.id())
        for wanted in self.dotted:
            if (dotted + ".").startswith(wanted + "."):
                return dotted
            if unloaded and wanted.startswith(dotted + "."):
                return wanted
        if unloaded:
            return self.module_path(dotted)
        file = getattr(test, "troop_file", None) or getattr(sys.modules.get(case.__module__), "__file__", None)
        path = self.path(file) if file else ".."
        if path.startswith("..") or not hasattr(test, "_testMethodName"):
            return dotted
        return "::".join((path, case.__qualname__.replace(".", "::"), test._testMethodName))

    def module_path(self, module: str) -> str:
        """The file of a module by its dotted name; the name where there is none."""
        for folder in sys.path:
            for end in (".py", "/__init__.py"):
                file = Path(folder, module.replace(".", "/") + end)
                if file.is_file():
                    return self.path(str(file))
        return module

    # ---- which tests

    def plan(self, suite: "Any") -> None:
        """Leave only the selected tests in the suite, and add those of selected files and names that it lacks."""
        if self.select is not None:
            self.keep(suite)
            there = self.loaded.union(self.name(test) for test in each(suite))
            for file in sorted({test.partition("::")[0] for test in self.select}):
                if file.endswith(".py") and file not in there and Path(self.root, file).is_file():
                    suite.addTest(self.load(file[: -len(".py")].replace("/", ".")))
            for name in self.dotted:
                if not any((test + ".").startswith(name + ".") for test in there):
                    found = self.load(name)
                    if not any(type(test).__name__ == "_FailedTest" for test in each(found)):
                        suite.addTest(found)
        for test in each(suite):
            case = type(test)
            self.planned.append((self.name(test), case.__module__ + "." + case.__qualname__, case.__module__))

    def keep(self, suite: "Any") -> None:
        kept = []
        for test in suite:
            if isinstance(test, unittest.BaseTestSuite):
                self.keep(test)
                kept.append(test)
            elif self.wanted(self.name(test)):
                kept.append(test)
        suite._tests[:] = kept

    def wanted(self, name: str) -> bool:
        for wanted in self.select or ():
            stem, ends = wanted.rstrip("/"), "." if wanted in self.dotted else "/:"
            if stem in (name, ".") or (name.startswith(stem) and name[len(stem)] in ends):
                return True
        return False

    def load(self, name: str) -> unittest.TestSuite:
        """The selected tests of what the command does not load, by its dotted name."""
        if self.root not in sys.path:
            sys.path.append(self.root)
        found = self.loader.loadTestsFromName(name)
        self.keep(found)
        return found

    # ---- what unittest tells

    def start(self, test: "Any") -> None:
        self.running = self.last = self.name(test)
        self.outcome, self.message, self.ended = "passed", "", False
        self.began = time.perf_counter()
        self.write({"start": self.running})
        if self.seconds:
            signal.signal(signal.SIGALRM, self.ring)
            # Again and again: the code under test may catch the exception.
            signal.setitimer(signal.ITIMER_REAL, self.seconds, REFIRE_SECONDS)

    def ring(self, *_: "Any") -> None:
        if not self.ended:
            raise TooLong(f"timed out after {self.seconds:g} s")

    def stop(self) -> None:
        if self.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.running:
            if self.ended or self.outcome != "passed":
                self.tell(self.running, self.outcome, time.perf_counter() - self.began, self.message)
            self.running = ""

    def add(self, test: "Any", outcome: str, message: str = "", part: bool = False) -> None:
        """A test has ended, or a `part` of it, or its fixtures: the worst gives the outcome and the message."""
        if type(test).__name__ == "_ErrorHolder":
            self.add_fixture(test.id(), outcome, message)
            return
        if type(test).__name__ == "_FailedTest":
            outcome = "error"
        if not self.running:
            self.tell(self.name(test), outcome, 0.0, message)
            return
        self.ended = self.ended or not part
        if SEVERITY[outcome] > SEVERITY[self.outcome]:
            self.outcome, self.message = outcome, message

    def add_fixture(self, text: str, outcome: str, message: str) -> None:
        """What goes before the tests of a class or module is about all of them, what goes after them about the last."""
        match = FIXTURE.match(text)
        names = [name for name, *of in self.planned if match and match.group(1) == "setUp" and match.group(2) in of]
        for name in names or [self.last or text]:
            self.tell(name, "error" if outcome == "failed" else outcome, 0.0, message)

    def finish(self, status: int) -> int:
        """Write how the run ended, by unittest's own word; the exit status."""
        status = status if status or self.told else NO_TESTS_FOUND
        self.write({"finish": os.getpid(), "exit": status})
        return status


def each(suite: "Any") -> "Iterator[Any]":
    for test in suite:
        if isinstance(test, unittest.BaseTestSuite):
            yield from each(test)
        else:
            yield test


def shown(error: "Any") -> str:
    lines = "".join(traceback.format_exception(*error)).strip().splitlines()
    return "\n".join(lines[-MESSAGE_LINES:])[-MESSAGE_CHARS:]


def results(report: Report) -> "type[unittest.TextTestResult]":
    """unittest's own results, which tell the report as well."""

    class Result(unittest.TextTestResult):
        def startTest(self, test: "Any") -> None:
            super().startTest(test)
            report.start(test)

        def stopTest(self, test: "Any") -> None:
            report.stop()
            super().stopTest(test)

        def addSuccess(self, test: "Any") -> None:
            report.add(test, "passed")
            super().addSuccess(test)

        def addFailure(self, test: "Any", err: "Any") -> None:
            report.add(test, "failed", shown(err))
            super().addFailure(test, err)

        def addError(self, test: "Any", err: "Any") -> None:
            report.add(test, "failed", shown(err))
            super().addError(test, err)

        def addSkip(self, test: "Any", reason: str) -> None:
            if type(test).__name__ != "_SubTest":  # a skipped part does not make the whole test skipped
                report.add(test, "skipped", str(reason)[:MESSAGE_CHARS])
            super().addSkip(test, reason)

        def addExpectedFailure(self, test: "Any", err: "Any") -> None:
            report.add(test, "skipped", "fails as expected")
            super().addExpectedFailure(test, err)

        def addUnexpectedSuccess(self, test: "Any") -> None:
            report.add(test, "failed", "passes though it is expected to fail")
            super().addUnexpectedSuccess(test)

        def addSubTest(self, test: "Any", subtest: "Any", err: "Any") -> None:
            if err is not None:
                report.add(test, "failed", shown(err), part=True)
            super().addSubTest(test, subtest, err)

    return Result


def loader(report: Report) -> unittest.TestLoader:
    """unittest's own loader, but that discovery loads what is selected, and the report learns from which file."""

    class Loader(unittest.TestLoader):
        def loadTestsFromModule(self, module: "Any", *arguments: "Any", **options: "Any") -> "Any":
            suite = super().loadTestsFromModule(module, *arguments, **options)
            file = getattr(module, "__file__", None)
            if file:
                report.loaded.add(report.path(file))
                for test in each(suite):
                    test.troop_file = getattr(test, "troop_file", file)
            return suite

        def _match_path(self, path: str, full_path: str, pattern: str) -> bool:
            if report.select is None or report.dotted:
                return fnmatch.fnmatch(path, pattern)
            name = report.path(full_path)
            files = {test.partition("::")[0] for test in report.select}
            return name in files or (report.wanted(name) and fnmatch.fnmatch(path, pattern))

    return Loader()


def runner(report: Report) -> "type[unittest.TextTestRunner]":
    """unittest's own runner, but that it runs what is selected, and tells the report."""

    class Runner(unittest.TextTestRunner):
        resultclass = results(report)

        def run(self, test: "Any") -> "Any":
            self.failfast = self.failfast or report.first
            report.plan(test)
            return super().run(test)

    return Runner


def main() -> int:
    report = Report()
    sys.argv[0] = "python -m unittest"
    try:
        unittest.main(module=None, testRunner=runner(report), testLoader=report.loader)
    except SystemExit as stop:
        if stop.code == 2 and not report.planned:
            report.finish(WRONG_USAGE)
            return 2
        return report.finish(0 if stop.code in (None, 0, NO_TESTS_FOUND) else 1)
    return report.finish(0)


if __name__ == "__main__":
    sys.exit(main())
