"""Runs tests with sympy's own runner and reports them as `troop_pytest` does, where an environment has no pytest.

Runs inside the sandbox, in the repository's root, Python 3.6 and newer; told what to do, and reporting, as
`troop_report` says. TROOP_SELECT, a list of files or of `file::test`, has to be given. sympy's cache stays on, other
than with its `bin/test -C`.
"""

import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import troop_report  # type: ignore[import-not-found]  # beside it, in the sandbox

if TYPE_CHECKING:
    from typing import Any

REFIRE_SECONDS = 1.0


class TooLong(Exception):
    """A test took more than its time."""


class Enough(BaseException):
    """A test failed, and the first failure is all that is asked for."""


class Lines(troop_report.Report):  # type: ignore[misc]  # known in the sandbox
    """The report."""

    failed = False

    def tell(self, test: str, outcome: str, message: str = "", seconds: float = 0.0) -> None:
        self.failed = self.failed or outcome in ("failed", "error")
        super().tell(test, outcome, message[-1200:], seconds)
        if self.first and self.failed:
            raise Enough


def run_wanted(lines: Lines) -> None:
    try:
        from sympy.testing import runtests  # type: ignore[import-not-found]  # the sandbox's sympy
    except ImportError:
        from sympy.utilities import runtests  # type: ignore[import-not-found]  # before 1.6
    root = Path.cwd()
    names = {}  # type: dict[str, set[str]]
    for test in lines.select:
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
            lines.tell(self.test or self.file, outcome, message, time.time() - self.began if self.test else 0.0)
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
                raise TooLong(f"the test took more than {lines.seconds:g} s")

            signal.signal(signal.SIGALRM, stop)
            # Again and again: the code under test may catch the exception.
            signal.setitimer(signal.ITIMER_REAL, lines.seconds, REFIRE_SECONDS)
            try:
                random.seed(self._seed)
                function()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    reporter = Reporter()
    tests = Tests(reporter, seed=0.5)
    tests._testfiles.extend(sorted(names))
    tests.test(sort=True, timeout=lines.seconds or False)


def shown(exc_info: "Any") -> str:
    return "".join(traceback.format_exception(*exc_info))


def main() -> int:
    lines = Lines()
    sys.path.insert(0, str(Path.cwd()))
    try:
        try:
            run_wanted(lines)
        except Exception:
            for path in sorted({test.partition("::")[0] for test in lines.select}):
                lines.tell(path, "error", traceback.format_exc())
    except Enough:
        print("the first failure ends the run")
    lines.finish(int(lines.failed))
    return int(lines.failed)


if __name__ == "__main__":
    sys.exit(main())
