"""Runs tests with sympy's own runner and reports them as `troop_pytest` does, where an environment has no pytest.

Runs inside the sandbox, in the repository's root, self-contained, Python 3.6 and newer. It is told what to do, and
reports, through the same variables and the same lines as the plugin (see there): TROOP_REPORT, TROOP_SELECT (a list of
files, or of `file::test`; it has to be given), TROOP_TEST_SECONDS and TROOP_FIRST_FAILURE. sympy's cache stays on,
other than with its `bin/test -C`.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

REFIRE_SECONDS = 1.0


class TooLong(Exception):
    """A test took more than its time."""


class Enough(BaseException):
    """A test failed, and the first failure is all that is asked for."""


class Lines:
    """The report: one JSON object a line. `first`: it ends with the first failure."""

    def __init__(self, path: str, first: bool) -> None:
        self.first = first
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.failed = False
        self.write({"begin": os.getpid()})

    def write(self, line: "dict[str, Any]") -> None:
        os.write(self.fd, json.dumps(line).encode("ascii") + b"\n")

    def told(self, test: str, outcome: str, seconds: float = 0.0, message: str = "") -> None:
        self.failed = self.failed or outcome in ("failed", "error")
        self.write({"test": test, "outcome": outcome, "seconds": seconds, "message": message[-1200:]})
        if self.first and self.failed:
            raise Enough

    def finish(self) -> int:
        status = int(self.failed)
        self.write({"finish": os.getpid(), "exit": status})
        return status


def run_wanted(lines: Lines, wanted: "list[str]", seconds: float) -> None:
    """Run the wanted tests; `seconds` for each, 0 for no limit."""
    try:
        from sympy.testing import runtests  # type: ignore[import-not-found]  # the sandbox's sympy
    except ImportError:
        from sympy.utilities import runtests  # type: ignore[import-not-found]  # before 1.6
    root = Path.cwd()
    names = {}  # type: dict[str, set[str]]
    for test in wanted:
        file, _, name = test.partition("::")
        names.setdefault(str(root / file), set()).add(name)

    class Reporter(runtests.PyTestReporter):  # type: ignore[misc]  # sympy has no types
        file = ""
        test = ""
        began = 0.0

        def entering_test(self, f: "Any") -> None:
            self.test = self.file + "::" + f.__name__
            self.began = time.time()
            lines.write({"start": self.test})

        def told(self, outcome: str, message: str = "") -> None:
            """Of the test under way, or of the file where none is."""
            lines.told(self.test or self.file, outcome, time.time() - self.began if self.test else 0.0, message)
            self.test = ""

        def test_pass(self, char: str = ".") -> None:
            self.told("passed")

        def test_xfail(self) -> None:
            self.told("skipped", "fails as expected")

        def test_xpass(self, v: "Any" = None) -> None:
            self.told("skipped", "passes though it is expected to fail")

        def test_skip(self, v: "Any" = None) -> None:
            self.told("skipped", str(v))

        def test_fail(self, exc_info: "Any") -> None:
            self.told("failed", shown(exc_info))

        def test_exception(self, exc_info: "Any") -> None:
            self.told("failed" if self.test else "error", shown(exc_info))

        def import_error(self, filename: str, exc_info: "Any") -> None:
            self.told("error", shown(exc_info))

    class Tests(runtests.SymPyTests):  # type: ignore[misc]  # sympy has no types
        def matches(self, x: "Any") -> bool:
            return not {"", x.__name__}.isdisjoint(names[self.file])

        def test_file(self, filename: str, *arguments: "Any", **options: "Any") -> None:
            self.file = filename
            reporter.file, reporter.test = Path(filename).relative_to(root).as_posix(), ""
            super().test_file(filename, *arguments, **options)

        def _timeout(self, function: "Any", timeout: "Any", *_: "Any") -> None:
            def stop(*_: "Any") -> None:
                raise TooLong(f"the test took more than {seconds:g} s")

            signal.signal(signal.SIGALRM, stop)
            # Again and again: the code under test may catch the exception.
            signal.setitimer(signal.ITIMER_REAL, seconds, REFIRE_SECONDS)
            try:
                random.seed(self._seed)
                function()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    reporter = Reporter()
    tests = Tests(reporter, seed=0.5)
    tests._testfiles.extend(sorted(names))
    tests.test(sort=True, timeout=seconds or False)


def shown(exc_info: "Any") -> str:
    return "".join(traceback.format_exception(*exc_info))


def main() -> int:
    lines = Lines(os.environ.pop("TROOP_REPORT"), bool(os.environ.pop("TROOP_FIRST_FAILURE", "")))
    wanted = json.loads(Path(os.environ.pop("TROOP_SELECT")).read_text(encoding="utf-8"))
    seconds = float(os.environ.pop("TROOP_TEST_SECONDS", "") or 0)
    sys.path.insert(0, str(Path.cwd()))
    try:
        try:
            run_wanted(lines, wanted, seconds)
        except Exception:
            for path in sorted({test.partition("::")[0] for test in wanted}):
                lines.told(path, "error", message=traceback.format_exc())
    except Enough:
        print("the first failure ends the run")
    return lines.finish()


if __name__ == "__main__":
    sys.exit(main())
