"""The test files near to what candidates touch, run whole on the base and on each candidate.

The same files for all candidates of an instance, so that what one breaks and the others do not can be told: those that
`harness.regression` calls near, as many as the base runs within the time.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.choosing.evidence_store import NearBase, TestFacts
from harness.records import Outcome
from harness.sandbox.base import WORKDIR, Sandbox
from harness.testing import run_tests

FILES_AT_MOST = 6
PYTEST = "python -m pytest -q"
SYMPY = "python bin/test -C --verbose"
"""sympy's own runner, whose output is read; its environments have no pytest."""

_SYMPY_LINE = re.compile(r"^(test_\w+|\w*[Tt]est\w*) (ok|F|E|f|s|w|X)\b")
_SYMPY_FILE = re.compile(r"^(\S+\.py)\[\d+\]")
_SYMPY_WORDS: dict[str, Outcome] = {"ok": "passed", "F": "failed", "E": "error"}


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: outcomes by test id; those that neither pass nor fail (skipped, expected to fail) are left out."""

    outcomes: Mapping[str, str]
    seconds: float
    timed_out: bool
    reason: str = ""


async def base_of(sandbox: Sandbox, files: Sequence[str], command: str, budget: float, runs: int = 2) -> NearBase:
    """Run the files one by one, keep those that end within the budget (seconds for all), and repeat these."""
    kept: list[str] = []
    spent = 0.0
    slow = await slowness(sandbox)
    for file in files:
        ran = await run_files(sandbox, [file], command, max(budget - spent, 2.0) * slow)
        if ran.timed_out or not ran.outcomes:
            continue
        kept.append(file)
        spent += ran.seconds / slow
        if spent >= budget * 0.8:
            break
    if not kept:
        return NearBase()
    each = [await run_files(sandbox, kept, command, (3 * spent + 20) * slow) for _ in range(runs)]
    always = set.intersection(*(set(ran.outcomes) for ran in each))
    green = {t for t in always if all(ran.outcomes[t] == "passed" for ran in each)}
    red = {t for t in always if all(ran.outcomes[t] in ("failed", "error") for ran in each)}
    return NearBase(
        tuple(kept), tuple(sorted(green)), tuple(sorted(red)), round(max(ran.seconds for ran in each) / slow, 1)
    )


async def compare(sandbox: Sandbox, base: NearBase, command: str) -> TestFacts:
    """The near tests on a candidate's tree, held against the base."""
    if not base.files:
        return TestFacts(0, (), reason="no near test ran on the base")
    ran = await run_files(sandbox, base.files, command, (3 * base.seconds + 20) * await slowness(sandbox))
    if not ran.outcomes:
        return TestFacts(len(base.green), ("<nothing ran>",), reason=ran.reason)
    broken = sorted(t for t in base.green if ran.outcomes.get(t) != "passed")
    mended = sorted(t for t in base.red if ran.outcomes.get(t) == "passed")
    return TestFacts(len(base.green), tuple(broken[:50]), tuple(mended[:50]), ran.reason)


async def slowness(sandbox: Sandbox) -> float:
    """How many times longer than its processor time a computation takes at present: 1.0 on an idle machine, more on a busy
    one, so that time-outs mean the same on both."""
    ask = "import time; w, c = time.time(), time.process_time()\nwhile time.process_time() - c < .2: pass\nprint(time.time() - w)"
    done = await sandbox.exec(["python", "-c", ask], timeout=60)
    try:
        return min(max(float(done.stdout) / 0.2, 1.0), 50.0)
    except ValueError:
        return 1.0


async def run_files(sandbox: Sandbox, files: Sequence[str], command: str, seconds: float) -> Ran:
    """The outcome of every test in these files, at most `seconds` long. `command`: pytest's, or sympy's own runner."""
    if command != SYMPY:
        report = await run_tests(sandbox, command, list(files), timeout=seconds, test_seconds=seconds)
        told = {t: o for t, o in report.outcomes.items() if o != "skipped"}
        return Ran(told, report.seconds, report.timed_out, report.reason)
    done = await sandbox.exec(
        f"PYTHONWARNINGS=ignore {command} {shlex.join(files)}",
        cwd=WORKDIR,
        timeout=seconds,
        output_bytes=2_000_000,
        merge=True,
    )
    return Ran(sympy_outcomes(done.output), done.seconds, done.timed_out, "stopped" if done.timed_out else "")


def sympy_outcomes(output: str) -> dict[str, str]:
    """Outcomes by "file::test" from what sympy's own runner prints with --verbose."""
    found: dict[str, str] = {}
    file = ""
    for line in output.split("\n"):
        if match := _SYMPY_FILE.match(line):
            file = match[1]
        elif (match := _SYMPY_LINE.match(line)) and match[2] in _SYMPY_WORDS:
            found[f"{file}::{match[1]}"] = _SYMPY_WORDS[match[2]]
    return found
