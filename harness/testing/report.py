"""What a test run amounts to: the lines that a framework's plugin wrote in the sandbox, checked against the exit code.

A plugin writes one JSON object a line: `{"begin": pid}`, `{"start": id}`, `{"test": id, "outcome": …, "seconds": …,
"message": …}` and `{"finish": pid, "exit": status}`. A report is valid only if it is complete (the framework finished
its session) and says the same as the exit codes:

    the framework's status 0   nothing failed
    the framework's status 1   something failed (a file that cannot be loaded is recorded as error; the others run)
    2, 3, 4, 5                 not valid (interrupted, internal error, wrong usage, no tests), except 2 where all that
                               happened are files that cannot be loaded and are recorded
    the command's exit code    0 if and only if the framework's status was 0 (`make` turns a 1 into a 2)

A command under which no plugin wrote anything is one pseudo test, `COMMAND_TEST`, that passes with exit code 0.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.records import Exec, Outcome, TestReport

COMMAND_TEST = "<command>"

READING = "3"
"""What was read of test runs in another way than this is not to be compared with what is read now."""

BROKE_OFF = " ended before its session did"
NO_TESTS_FOUND = 5

OUTPUT_CHARS = 6000
# What is read of a report: the code under test could fill it. A run beyond one of these is not valid.
REPORT_BYTES = 20_000_000
REPORT_TESTS = 200_000
OVERSIZED = b'{"oversized": true}\n'
ID_CHARS = 2000
MESSAGE_CHARS = 2000

_SEVERITY: dict[Outcome, int] = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}
_STATUSES = {
    1: "ended with exit status 1, but no test failed",
    2: "was interrupted",
    3: "had an internal error",
    4: "was called in a way that it does not know, or a named test file is not there",
    NO_TESTS_FOUND: "found no tests",
}
_NO_PLUGIN = re.compile(r"[Nn]o module named '?troop_")


def read_lines(name: str, result: Exec, report: bytes, *, always: bool) -> TestReport:
    """The test report of a finished command of the framework `name`: `report` is what its plugin wrote (empty: it never
    began). `always`: a command that left no report cannot be believed, whatever its exit code."""
    lines = _read_lines(report)
    output = result.output if len(result.output) <= OUTPUT_CHARS else "…" + result.output[-OUTPUT_CHARS:]
    if lines.begun or lines.oversized:
        reason = _objection(name, lines, result)
        if not result.timed_out and lines.begun - set(lines.statuses):
            for test in lines.running:  # it took the interpreter down
                lines.outcomes[test] = "error"
                lines.failures[test] = f"{name}{BROKE_OFF} in this test (exit code {result.exit_code})"
    else:
        lines, reason = _Lines(), _silence(name, result, output, always)
        if not reason:
            lines.outcomes[COMMAND_TEST] = "passed" if result.exit_code == 0 else "failed"
            lines.durations[COMMAND_TEST] = result.seconds
            lines.failures |= {} if result.exit_code == 0 else {COMMAND_TEST: _last_line(output)}
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


def broke_off(report: TestReport) -> bool:
    """Whether the framework died in the middle; the test that was running then is an error."""
    return report.reason.partition(" (")[0].endswith(BROKE_OFF)


def found_none(report: TestReport) -> bool:
    """Whether the framework ran and found no tests."""
    return not report.outcomes and not report.timed_out and report.exit_code == NO_TESTS_FOUND


def outcome_of(report: TestReport, test: str) -> str:
    """The outcome of a test, or of a class, parametrised test, file or directory as a whole; "missing" if nothing ran.

    The worst of all that it stands for, where skipped parts count only if nothing else ran. A file that could not be
    loaded is an error of everything in it."""
    file = test.partition("::")[0]
    found = {outcome for name, outcome in report.outcomes.items() if selects(test, name) or name == file}
    return next((outcome for outcome in ("error", "failed", "passed", "skipped") if outcome in found), "missing")


def selects(wanted: str, test: str) -> bool:
    """Whether the id `wanted` (a test, class, file or directory, or a dotted name of one) stands for the id `test`."""
    if test == wanted or wanted == ".":
        return True
    dotted = "/" not in wanted and "::" not in wanted + test
    return test.startswith(wanted) and test[len(wanted) :][:1] in ("[", "/", ":", *("." * dotted))


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


def _silence(name: str, result: Exec, output: str, always: bool) -> str:
    """Why a command under which no plugin wrote anything cannot be known by its exit code; empty if it can."""
    if result.timed_out:
        return f"the test command was stopped after {result.seconds:.0f} s"
    if _NO_PLUGIN.search(output):
        return (
            f"{name} did not find Troop's plugin (exit code {result.exit_code}): the test command sets PYTHONPATH anew "
            "or has Python ignore it; have it keep what is there (PYTHONPATH=src:$PYTHONPATH)"
        )
    if always:
        return f"{name} did not start (exit code {result.exit_code}): {_last_line(output)}"
    if result.exit_code in (125, 126, 127):
        return f"the test command could not be started (exit code {result.exit_code}): {_last_line(output)}"
    return ""


def _objection(name: str, lines: _Lines, result: Exec) -> str:
    """Why the report cannot be believed; empty if it can."""
    if result.timed_out:
        return f"the tests were stopped after {result.seconds:.0f} s{_while(lines.running)}"
    if lines.oversized:
        return f"the report of the tests is larger than {REPORT_BYTES // 1_000_000} MB or {REPORT_TESTS} tests"
    if lines.begun - set(lines.statuses):
        return f"{name}{BROKE_OFF} (exit code {result.exit_code}){_while(lines.running)}"
    for status in lines.statuses.values():
        if reason := _status_objection(name, status, lines.outcomes):
            return reason
    unclean = any(lines.statuses.values())
    if _failed(lines.outcomes) and not unclean:
        return f"tests failed, but {name} ended with exit status 0"
    if (result.exit_code == 0) == unclean:
        statuses = ", ".join(map(str, lines.statuses.values()))
        return f"the test command's exit code is {result.exit_code}, but {name}'s was {statuses}"
    return ""


def _status_objection(name: str, status: int, outcomes: Mapping[str, Outcome]) -> str:
    unloaded = all(outcome == "error" and "::" not in test for test, outcome in outcomes.items())
    if not status or (status == 1 and _failed(outcomes)) or (status == 2 and outcomes and unloaded):
        return ""
    return f"{name} {_STATUSES.get(status, f'ended with exit status {status}')}"


def _failed(outcomes: Mapping[str, Outcome]) -> bool:
    return any(outcome in ("failed", "error") for outcome in outcomes.values())


def _while(running: Iterable[str]) -> str:
    names = list(running)
    return f" while running {names[-1]}" if names else ""


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"
