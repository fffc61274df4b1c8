"""Run tests in a sandbox and read what really happened: a structured report, cross-checked with the exit code.

pytest, wherever the command starts it, loads `harness/inside/troop_pytest.py` and writes one line per test. A report is
valid only if it is complete (pytest finished its session) and says the same as the exit codes:

    pytest's exit status 0    nothing failed
    pytest's exit status 1    something failed (collection errors are recorded as errors, and the other tests still run)
    2, 3, 4, 5                not valid (interrupted, internal error, wrong usage, no tests), except 2 where all that
                              happened are collection errors that are recorded
    the command's exit code   0 if and only if pytest's status was 0 (`make` turns a 1 into a 2)

A command that never starts pytest is one pseudo test, `COMMAND_TEST`, that passes with exit code 0. Of these, Django's
`runtests.py` can be limited to files and ids as well: they are appended to it as its labels. `SYMPY` reports as pytest does.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.records import Exec, Outcome, TestReport
from harness.sandbox.base import TROOPDIR, WORKDIR, Sandbox

COMMAND_TEST = "<command>"

SYMPY = f"PYTHONHASHSEED=0 PYTHONWARNINGS=ignore python {TROOPDIR}/inside/troop_sympy.py"
"""Runs tests of sympy where its environment has no pytest; wants ids."""

BROKE_OFF = "pytest ended before its session did"

OUTPUT_CHARS = 6000
OUTPUT_BYTES = 64_000
# What is read of a report: the code under test could fill it. A run beyond one of the first two is not valid.
REPORT_BYTES = 20_000_000
REPORT_TESTS = 200_000
ID_CHARS = 2000
MESSAGE_CHARS = 2000
APPENDED_FILES = 200

_PYTEST = re.compile(r"(?:^|[\s/;&|(])(?:pytest|py\.test)(?=$|[\s;&|)])")
_LABELLED = re.compile(r"(?:^|\s)(?:\./)?((?:[\w.-]+/)*)runtests\.py(?=$|\s)")
_PYTHONPATH = re.compile(r"(?<![\w$-])PYTHONPATH=(?=([^\s;&|]*))")
_OVERSIZED = b'{"oversized": true}\n'
_SHELL_OPERATORS = re.compile(r"[|;&<>()\n]")
_SEVERITY: dict[Outcome, int] = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}


async def run_tests(
    sandbox: Sandbox,
    command: str,
    ids: Sequence[str] = (),
    *,
    timeout: float,
    test_seconds: float | None = None,
    cwd: str = WORKDIR,
    env: Mapping[str, str] | None = None,
) -> TestReport:
    """Run `command` in `cwd`, limited to `ids` (test ids, classes, files or directories, relative to `cwd`; empty: all).

    `timeout` in seconds for the whole run, then it is killed and the report holds what had finished. `test_seconds`: wall
    time that a phase of one test may take before the test fails and the run goes on. The working tree gets no byte code
    and no caches. Raises SandboxFailed when the sandbox is gone; everything else is in the report.
    """
    place = f"/tmp/troop-tests-{secrets.token_hex(8)}"
    result = await sandbox.exec(
        script(place, _with_files(command, ids), settings(place, ids, test_seconds)),
        cwd=cwd,
        env=env,
        stdin=json.dumps(list(ids)).encode("ascii"),
        timeout=timeout,
        output_bytes=OUTPUT_BYTES,
        merge=True,
    )
    try:
        lines = await sandbox.read(f"{place}/report", limit=REPORT_BYTES)
    except FileNotFoundError:
        lines = b""
    except ValueError:
        lines = _OVERSIZED
    await sandbox.exec(["rm", "-rf", place], cwd="/", timeout=30)
    return interpret(command, result, lines)


def broke_off(report: TestReport) -> bool:
    """Whether pytest died in the middle; the test that was running then is an error."""
    return report.reason.startswith(BROKE_OFF)


def outcome_of(report: TestReport, test: str) -> str:
    """The outcome of a test, or of a class, parametrised test, file or directory as a whole; "missing" if nothing ran.

    The worst of all that it stands for, where skipped parts count only if nothing else ran. A file that could not be
    loaded is an error of everything in it.
    """
    found = {
        outcome for name, outcome in report.outcomes.items() if selects(test, name) or name == test.partition("::")[0]
    }
    return next((outcome for outcome in ("error", "failed", "passed", "skipped") if outcome in found), "missing")


def selects(wanted: str, test: str) -> bool:
    """Whether the id `wanted` (a test, class, file or directory) stands for the id `test`."""
    return test == wanted or wanted == "." or (test.startswith(wanted) and test[len(wanted) :][:1] in ("[", "/", ":"))


def runs_pytest(command: str) -> bool:
    """Whether the command names pytest itself (a `make` target may still start it)."""
    return _PYTEST.search(command) is not None


def takes_labels(command: str) -> bool:
    """Whether the command is Django's test runner, which takes labels (dotted names) in place of files."""
    return _LABELLED.search(command) is not None and not _SHELL_OPERATORS.search(command)


def takes_files(command: str) -> bool:
    """Whether the command can be limited to test files."""
    return runs_pytest(command) or takes_labels(command) or command == SYMPY


def label_of(command: str, test: str) -> str:
    """The label of a test file, directory or id for Django's runner: `tests/queries/test_q.py::Q::test_x` is
    `queries.test_q.Q.test_x` below the runner's directory. What is none of these is taken for a label."""
    found = _LABELLED.search(command)
    path, _, rest = test.partition("::")
    if "/" not in path and not path.endswith(".py"):
        return test
    place = path.removeprefix("./").removeprefix(found[1] if found else "").removesuffix(".py").rstrip("/")
    return ".".join(part for part in (place.replace("/", "."), rest.replace("::", ".")) if part)


def _with_files(command: str, ids: Sequence[str]) -> str:
    """The command with the files of `ids` appended, so that pytest need not collect the rest; the plugin does the
    exact selection. Only to a command that ends in pytest's own arguments; or with the labels of `ids`."""
    if ids and takes_labels(command):
        return f"{command} {shlex.join(dict.fromkeys(label_of(command, test) for test in ids))}"
    files = files_of(ids)
    if not files or not runs_pytest(command) or _SHELL_OPERATORS.search(command):
        return command
    return f"{command} {shlex.join(files)}"


def files_of(ids: Sequence[str]) -> list[str]:
    """The files of the ids, to be named to pytest; none if they are too many for that."""
    files = list(dict.fromkeys(i.partition("::")[0] for i in ids))
    return files if len(files) <= APPENDED_FILES else []


def settings(place: str, ids: Sequence[str], test_seconds: float | None) -> dict[str, str]:
    """What the plugin is told in the environment of one run whose files are in `place`; empty: not set."""
    return {
        "TROOP_REPORT": f"{place}/report",
        "TROOP_SELECT": f"{place}/select" if ids else "",
        "TROOP_TEST_SECONDS": f"{test_seconds:g}" if test_seconds else "",
    }


def script(place: str, command: str, variables: Mapping[str, str]) -> str:
    """The shell script that runs `command` with the plugin loaded; its standard input becomes the file `place`/select."""
    inside = f"{TROOPDIR}/inside"
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/troop-hypothesis"}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in {**variables, **fixed}.items() if value)
    return (
        f"mkdir -m 700 {place} && cat > {place}/select || exit 125\n"
        f'export {exports} TROOP_ROOT="$PWD" TROOP_ADDOPTS_BEFORE="${{PYTEST_ADDOPTS-}}"\n'
        f'export PYTHONPATH="{inside}${{PYTHONPATH:+:$PYTHONPATH}}"\n'
        'export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:+$PYTEST_ADDOPTS }-p troop_pytest'
        f' -o cache_dir=/tmp/troop-pytest-cache --continue-on-collection-errors --maxfail=0 --color=no"\n'
        f'exec "${{BASH:-sh}}" -c {shlex.quote(_keeping_path(command, inside))} < /dev/null\n'
    )


def _keeping_path(command: str, inside: str) -> str:
    """The command with `inside` put into each PYTHONPATH that it sets anew, or pytest would not find the plugin."""

    def kept(found: re.Match[str]) -> str:
        value = found[1]
        if "$PYTHONPATH" in value or "${PYTHONPATH" in value:
            return found[0]
        return found[0] + inside + (":" if value.strip("'\"") else "")

    return _PYTHONPATH.sub(kept, command)


@dataclass
class _Lines:
    """What the report file says, read line by line."""

    oversized: bool = False
    begun: set[int] = field(default_factory=set)
    statuses: dict[int, int] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    running: dict[str, None] = field(default_factory=dict)

    def read(self, line: Mapping[str, object]) -> None:
        match line:
            case {"oversized": True}:
                self.oversized = True
            case {"begin": int(pid)}:
                self.begun.add(pid)
            case {"finish": int(pid), "exit": int(status)}:
                self.statuses[pid] = status
            case {"start": str(test)}:
                self.running[_short_id(test)] = None
            case {"test": str(test), "outcome": ("passed" | "failed" | "error" | "skipped") as outcome}:
                test = _short_id(test)
                self.running.pop(test, None)
                if test in self.outcomes and _SEVERITY[self.outcomes[test]] >= _SEVERITY[outcome]:
                    return
                if test not in self.outcomes and len(self.outcomes) >= REPORT_TESTS:
                    self.oversized = True
                    return
                self.outcomes[test] = outcome
                seconds, message = line.get("seconds"), line.get("message")
                if isinstance(seconds, (int, float)) and 0 <= seconds < 1e9:
                    self.durations[test] = float(seconds)
                if outcome != "passed" and isinstance(message, str):
                    self.failures[test] = message[:MESSAGE_CHARS]


def _short_id(test: str) -> str:
    """A test's id; that of the whole parametrised test where a case has one that is too long to be kept."""
    return test if len(test) <= ID_CHARS else test.partition("[")[0][:ID_CHARS]


def _read_lines(text: bytes) -> _Lines:
    lines = _Lines()
    for raw in text.split(b"\n"):
        try:
            line = json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            continue  # torn by a kill, for which the missing finish line speaks, or none of the plugin's
        if isinstance(line, dict):
            lines.read(line)
    return lines


def interpret(command: str, result: Exec, report: bytes) -> TestReport:
    """The test report of a finished command: `report` is what the plugin wrote (empty: pytest never began)."""
    lines = _read_lines(report)
    output = _tail(result.output)
    if not lines.begun and not lines.oversized:
        return _without_pytest(command, result, output)
    reason = _objection(lines, result)
    if not result.timed_out and lines.begun - set(lines.statuses):
        for test in lines.running:  # it took the interpreter down
            lines.outcomes[test] = "error"
            lines.failures[test] = f"{BROKE_OFF} in this test (exit code {result.exit_code})"
    return TestReport(
        outcomes=lines.outcomes,
        exit_code=result.exit_code,
        timed_out=result.timed_out,
        valid=not reason,
        seconds=result.seconds,
        failures=lines.failures,
        durations=lines.durations,
        output=output,
        reason=reason,
    )


def _without_pytest(command: str, result: Exec, output: str) -> TestReport:
    reason = ""
    if result.timed_out:
        reason = f"the test command was stopped after {result.seconds:.0f} s"
    elif "troop_pytest" in output and "rror" in output:
        reason = (
            f"pytest did not find Troop's plugin (exit code {result.exit_code}): the test command sets PYTHONPATH anew or "
            "has Python ignore it; have it keep what is there (PYTHONPATH=src:$PYTHONPATH)"
        )
    elif runs_pytest(command):
        reason = f"pytest did not start (exit code {result.exit_code}): {_last_line(output)}"
    elif result.exit_code in (125, 126, 127):
        reason = f"the test command could not be started (exit code {result.exit_code}): {_last_line(output)}"
    outcome: Outcome = "passed" if result.exit_code == 0 else "failed"
    return TestReport(
        outcomes={} if reason else {COMMAND_TEST: outcome},
        exit_code=result.exit_code,
        timed_out=result.timed_out,
        valid=not reason,
        seconds=result.seconds,
        failures={} if reason or outcome == "passed" else {COMMAND_TEST: _last_line(output)},
        durations={} if reason else {COMMAND_TEST: result.seconds},
        output=output,
        reason=reason,
    )


def _objection(lines: _Lines, result: Exec) -> str:
    """Why the report cannot be believed; empty if it can."""
    if result.timed_out:
        return f"the tests were stopped after {result.seconds:.0f} s{_while(lines.running)}"
    if lines.oversized:
        return f"the report of the tests is larger than {REPORT_BYTES // 1_000_000} MB or {REPORT_TESTS} tests"
    if lines.begun - set(lines.statuses):
        return f"{BROKE_OFF} (exit code {result.exit_code}){_while(lines.running)}"
    for status in lines.statuses.values():
        reason = _status_objection(status, lines.outcomes)
        if reason:
            return reason
    failed = any(outcome in ("failed", "error") for outcome in lines.outcomes.values())
    if failed and not any(lines.statuses.values()):
        return "tests failed, but pytest ended with exit status 0"
    if (result.exit_code == 0) != (not any(lines.statuses.values())):
        statuses = ", ".join(str(status) for status in lines.statuses.values())
        return f"the test command's exit code is {result.exit_code}, but pytest's was {statuses}"
    return ""


def _status_objection(status: int, outcomes: Mapping[str, Outcome]) -> str:
    failed = any(outcome in ("failed", "error") for outcome in outcomes.values())
    match status:
        case 0:
            return ""
        case 1:
            return "" if failed else "pytest ended with exit status 1, but no test failed"
        case 2 if outcomes and all(outcome == "error" and "::" not in test for test, outcome in outcomes.items()):
            return ""
        case 2:
            return "pytest was interrupted"
        case 3:
            return "pytest had an internal error"
        case 4:
            return "pytest was called in a way that it does not know, or a named test file is not there"
        case 5:
            return "pytest found no tests"
        case _:
            return f"pytest ended with exit status {status}"


def _while(running: Iterable[str]) -> str:
    names = list(running)
    return f" while running {names[-1]}" if names else ""


def _tail(text: str) -> str:
    return text if len(text) <= OUTPUT_CHARS else "…" + text[-OUTPUT_CHARS:]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"
