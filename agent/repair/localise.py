"""Fault localisation: which lines the failing tests run and the passing ones do not.

The suspicion of a line is Ochiai's coefficient (Abreu, Zoeteweij, van Gemund, "On the Accuracy of Spectrum-based Fault
Localization", TAIC PART 2007):

    suspicion = ef / sqrt(F · (ef + ep))

with ef, ep the failing and passing tests that execute the line and F all failing tests; 0 where no failing test does.
The lines come from one run of the tests in the sandbox with `harness/inside/troop_lines.py`, one context per test.
"""

import json
import math
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import PurePosixPath

from harness.evidence.regression import shared
from harness.patches.paths import is_test
from harness.records import Json, TestReport
from harness.sandbox.base import WORKDIR, Sandbox
from harness.testing.report import selects
from harness.testing.run import run_tests
from harness.testing.runners.registry import line_records
from tasks.errors import TroopError

PASSING_SECONDS = 20.0
"""Time, as measured on the base, for the passing tests that are run beside the failing ones."""

PASSING_TESTS = 400
LINES_KEPT = 400
LINES_BYTES = 50_000_000

Line = tuple[str, int, float]
"""(path below WORKDIR, 1-based line, suspicion above 0)"""


def ochiai(ran_failing: int, ran_passing: int, failing: int) -> float:
    """Ochiai's coefficient of a line, 0..1: failing and passing tests that execute it, and all failing tests."""
    return ran_failing / math.sqrt(failing * (ran_failing + ran_passing)) if ran_failing else 0.0


def failing_tests(ids: Iterable[str], baseline: TestReport | None) -> tuple[str, ...]:
    """The tests that fail on the base among those that `ids` (tests or files) stand for; the ids without a baseline."""
    wanted = tuple(ids)
    if baseline is None:
        return wanted
    return tuple(sorted(t for t in baseline.failed if any(selects(i, t) or i.startswith(t + "::") for i in wanted)))


def companions(failing: Sequence[str], baseline: TestReport | None) -> tuple[str, ...]:
    """Passing tests to measure beside the failing ones: of the same files first, then of directories near to theirs,
    as many as PASSING_SECONDS allow."""
    if baseline is None:
        return ()
    places = [PurePosixPath(test.partition("::")[0]).parts for test in failing]

    def distance(test: str) -> int:
        """Steps in the tree from the test's file to the nearest of the failing ones; 0 for one of theirs."""
        here = PurePosixPath(test.partition("::")[0]).parts
        return min((len(here) + len(there) - 2 * shared(here, there) for there in places), default=0)

    nearest = sorted(baseline.passed, key=lambda t: (distance(t), t))[:PASSING_TESTS]
    spent = accumulate(baseline.durations.get(test, 0.0) for test in nearest)
    return tuple(test for test, seconds in zip(nearest, spent, strict=True) if seconds <= PASSING_SECONDS)


async def localise(
    sandbox: Sandbox,
    command: str,
    failing: Sequence[str],
    baseline: TestReport | None,
    *,
    timeout: float,
    apart: Collection[str] = (),
) -> tuple[tuple[Line, ...], str]:
    """Run the failing tests and some passing ones, and rank the lines of the repository's own, non-test files: gives
    the suspicious ones, most suspicious first, and one sentence for people on what they rest on.

    `timeout` in seconds for the run; a single test that does not end is stopped after a few seconds and counts with
    what it ran. `apart`: paths that are not to be blamed. Without line records (no framework ran that can write them,
    or not in its own process) the places that the failures name are taken. Raises SandboxFailed when the sandbox is
    gone."""
    record = f"/tmp/troop-lines-{secrets.token_hex(8)}"
    slowest = max((baseline.durations.get(t, 0.0) for t in baseline.passed), default=0.0) if baseline else 5.0
    report = await run_tests(
        sandbox,
        command,
        (*failing, *companions(failing, baseline)),
        timeout=timeout,
        test_seconds=min(30.0, max(2.0, 4 * slowest)),  # under a tracer
        env=line_records(record),
    )
    try:
        found: Json = json.loads(await sandbox.read(record, limit=LINES_BYTES))
        await sandbox.exec(["rm", "-f", record], cwd="/", timeout=30)
        if lines := ranked(found, apart):
            tests = f"{found['failed']} failing and {found['passed']} passing tests"
            by = "coverage" if found["tracer"] == "coverage" else "a trace function (coverage is not installed)"
            return lines, f"Ochiai over the lines of {tests}, recorded by {by}"
    except TroopError:
        raise
    except Exception:
        pass  # there is none, or the tests themselves wrote there
    return named_lines(report, apart), "no line was recorded, so the places that the failures name are suspected"


def ranked(found: Mapping[str, object], apart: Collection[str] = ()) -> tuple[Line, ...]:
    """The lines of a record (see `harness/inside/troop_lines.py`) by suspicion, tests and `apart` left out."""
    files, failing = found["files"], found["failed"]
    assert isinstance(files, Mapping) and isinstance(failing, int)
    lines = [
        (path, int(line), round(ochiai(counts[0], counts[1], failing), 4))
        for path, counted in files.items()
        if path.endswith(".py") and not is_test(path) and path not in apart and not path.startswith(".")
        for line, counts in counted.items()
        if counts[0]
    ]
    return tuple(sorted(lines, key=lambda line: (-line[2], line[0], line[1]))[:LINES_KEPT])


_PLACE = re.compile(r"([\w./-]+\.py)(?::(\d+)|\", line (\d+))")


def named_lines(report: TestReport, apart: Collection[str] = ()) -> tuple[Line, ...]:
    """Lines that failure messages and the console output name: those named last, where the failure was, first."""
    order: dict[tuple[str, int], None] = {}
    for text in (*report.failures.values(), report.output):
        for match in reversed(list(_PLACE.finditer(text))):
            path = match[1].removeprefix(WORKDIR + "/").removeprefix("./")
            if not path.startswith("/") and not is_test(path) and path not in apart:
                order.setdefault((path, int(match[2] or match[3])))
    return tuple((path, line, round(1 / (1 + at / 4), 4)) for at, (path, line) in enumerate(order))[:LINES_KEPT]
