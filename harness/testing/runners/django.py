"""Django's `runtests.py`: known by its exit code, limited to files and ids by labels (dotted names) at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.records import TestReport
from harness.testing.report import COMMAND_TEST
from harness.testing.runners.base import OWN_SCRIPT, Layout, Runner, appended, has_test_files

_LABELLED = re.compile(r"(?:^|\s)(?:\./)?((?:[\w.-]+/)*)runtests\.py(?=$|\s)")
_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)


class Django(Runner):
    """A script of that name takes labels; one that starts another framework reports as that does."""

    name = "runtests.py"
    always_reports = False

    def recognises(self, command: str) -> bool:
        return _LABELLED.search(command) is not None and appended(command, ["label"]) != command

    def claims(self, layout: Layout) -> tuple[int, str] | None:
        script = next((path for path in ("tests/runtests.py", "runtests.py") if path in layout.paths), None)
        if script is None or not has_test_files(layout):
            return None
        return OWN_SCRIPT, f"python {script}"

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        """`--failfast` only for what is told Django's settings: another project's script may not know it."""
        failfast = ["--failfast"] if to_first_failure and "--settings" in command else []
        return appended(command, [*failfast, *dict.fromkeys(label_of(command, test) for test in ids)])

    def new_file(self, report: TestReport, path: str) -> str:
        """The exit code is the file's own, if the output says that a test ran (a file that cannot be loaded is one)."""
        ran = _RAN.findall(report.output)
        if COMMAND_TEST not in report.outcomes or not ran:
            return super().new_file(report, path)
        return report.outcomes[COMMAND_TEST] if any(map(int, ran)) else "missing"


def label_of(command: str, test: str) -> str:
    """The label of a test file, directory or id for Django's runner: `tests/queries/test_q.py::Q::test_x` is
    `queries.test_q.Q.test_x` below the runner's directory. What is none of these is taken for a label."""
    found = _LABELLED.search(command)
    path, _, rest = test.partition("::")
    if "/" not in path and not path.endswith(".py"):
        return test
    place = path.removeprefix("./").removeprefix(found[1] if found else "").removesuffix(".py").rstrip("/")
    return ".".join(part for part in (place.replace("/", "."), rest.replace("::", ".")) if part)
