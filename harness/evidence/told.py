"""What one test shows in a sandbox: the same test, run in the same way, on the base and with each of several patches.

It is run twice, and what two runs do not agree on is no evidence.
"""

import re
import shlex
from collections.abc import Sequence

from harness.records import Told
from harness.sandbox.base import WORKDIR, Sandbox
from harness.testing.report import COMMAND_TEST
from harness.testing.run import run_tests
from harness.testing.runners.registry import USUAL_COMMAND, runner_of

TEST_SECONDS = 30.0
"""Of one test; the whole file may take twice as long."""

TAIL_LINES, TAIL_CHARS = 40, 4000

_CALLED = (
    "import runpy, sys; found = runpy.run_path(sys.argv[1]); "
    "[each() for name, each in list(found.items()) if name.startswith('test') and callable(each)]"
)
"""What stands for the usual framework where there is none: the file's test functions, called one after the other."""

_HAS_TESTS = re.compile(r"^\s*(?:async\s+)?def test|^class Test", re.MULTILINE)
_NOT_LOADED = re.compile(r"^(?:ImportError|ModuleNotFoundError|SyntaxError|IndentationError)\b", re.MULTILINE)


async def tell(sandbox: Sandbox, on: str, path: str, text: str, command: str | None) -> Told:
    """Lay the test into a sandbox, run it twice, and take it away again. `on`: what the sandbox holds.

    `command`: runs the repository's tests; where that takes no single file, or collects no test of it, the usual
    framework is asked. A file without a test function is a script, which fails by its exit status. Raises
    SandboxFailed."""
    try:
        await sandbox.write(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        return Told(on, "error", tail=f"{path} cannot be written: {error.strerror}")
    try:
        first, again = [await _run(sandbox, on, path, text, command) for _ in range(2)]
    finally:
        await sandbox.exec(["rm", "-f", "--", f"./{path}"], cwd=WORKDIR, timeout=60)
    if (first.outcome, first.tests) != (again.outcome, again.tests):
        return Told(on, "unsteady", tail=first.tail)
    return first


def useless(told: Sequence[Told]) -> str:
    """Why the outcomes say nothing about which candidate is right, in words; "" where they tell candidates apart."""
    candidates = [each for each in told if each.on != "base"]
    if any(each.outcome == "unsteady" for each in told):
        return "it does not do the same twice"
    if all(each.outcome == "error" for each in told):
        return "it can be loaded nowhere"
    if len({(each.outcome, tuple(sorted(each.tests.items()))) for each in candidates}) > 1:
        return ""
    if all(each.outcome == "passed" for each in told):
        return "it passes everywhere, on the base too"
    return "it says the same of all candidates"


async def _run(sandbox: Sandbox, on: str, path: str, text: str, command: str | None) -> Told:
    if not _HAS_TESTS.search(text):
        return await _run_script(sandbox, on, shlex.quote(path))
    for each in _commands(command):
        report = await run_tests(sandbox, each, [path], timeout=2 * TEST_SECONDS, test_seconds=TEST_SECONDS)
        outcome = runner_of(each).new_file(report, path)
        if outcome != "missing" or report.timed_out:
            break
    if runner_of(each).absent(report):
        return await _run_script(sandbox, on, f"-c {shlex.quote(_CALLED)} {shlex.quote(path)}")
    outcome = report.outcomes.get(COMMAND_TEST, "missing") if outcome == "untold" else outcome
    if outcome == "passed" and not report.valid:
        outcome = "error"
    known = {"passed": "passed", "failed": "failed"}
    loaded = bool(report.outcomes.keys() - {path})
    named = [f"{test}: {message}" for test, message in sorted(report.failures.items()) if test != COMMAND_TEST]
    said = "\n".join(named) or report.output
    return Told(
        on,
        known.get(outcome, "failed" if loaded and outcome == "error" else "error"),
        {test: str(o) for test, o in sorted(report.outcomes.items())} if len(report.outcomes) > 1 else {},
        "" if outcome == "passed" else _tail(said or report.reason),
    )


def _commands(command: str | None) -> list[str]:
    """By which the test may be run: the repository's own where it takes single files, then the usual one, whose tests
    another framework may not collect."""
    usual = runner_of(USUAL_COMMAND)
    own = command if command is not None and runner_of(command).by_file else USUAL_COMMAND
    return [own] if runner_of(own) is usual else [own, USUAL_COMMAND]


async def _run_script(sandbox: Sandbox, on: str, arguments: str) -> Told:
    done = await sandbox.exec(
        f"PYTHONPATH=.:$PYTHONPATH python {arguments}",
        cwd=WORKDIR,
        timeout=TEST_SECONDS,
        output_bytes=20_000,
        merge=True,
    )
    if done.timed_out:
        return Told(on, "failed", tail=f"it did not end within {TEST_SECONDS:g} s")
    if done.exit_code == 0:
        return Told(on, "passed")
    return Told(on, "error" if _NOT_LOADED.search(done.output) else "failed", tail=_tail(done.output))


def _tail(text: str) -> str:
    lines = [line for line in text.strip().split("\n") if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])[-TAIL_CHARS:]
