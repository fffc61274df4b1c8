"""What was set up and how the base's tests fare in it: one line for people, `environment` of report.json, and whether
attempts are worth their price there."""

import re
from collections.abc import Collection

from harness.environments.needs import absent_modules
from harness.records import Json, TestReport
from harness.testing.report import COMMAND_TEST, selects
from harness.trace import Prepared

POOR_FILES = 0.1
"""The share of test files that cannot be loaded from which on a baseline is poor."""
_NETWORK = re.compile(
    r"name resolution|Name or service not known|nodename nor servname|Network is unreachable|getaddrinfo failed"
    r"|[Cc]onnection refused|could not connect to server|Max retries exceeded|Failed to establish a new connection"
    r"|Cannot connect to host|All connection attempts failed|No matching distribution found for"
)


def environment_json(prepared: Prepared) -> Json:
    """`environment` of report.json. `baseline` None: no test was run."""
    told = {name: getattr(prepared, name) for name in ("python", "install", "fell_back_from", "test_command")}
    found = None if prepared.baseline is None else counts(prepared.baseline)
    return {**told, "baseline": found, "notes": list(prepared.notes)}


def counts(report: TestReport) -> dict[str, int]:
    """How many tests passed, failed, …; `unloadable`: files (or folders) that could not be loaded, not in `error`."""
    found = dict.fromkeys(("passed", "failed", "error", "skipped", "unloadable"), 0)
    for test, outcome in report.outcomes.items():
        unloadable = outcome == "error" and "::" not in test and test != COMMAND_TEST
        found["unloadable" if unloadable else outcome] += 1
    return found


def summary_line(prepared: Prepared) -> str:
    """Python, how it was installed, the test command and what its tests came to, in one line."""
    fell_back = f" (after {prepared.fell_back_from} failed)" if prepared.fell_back_from else ""
    python, command = f"Python {prepared.python or 'unknown'}", prepared.test_command or "no test command"
    results = "no tests were run" if prepared.baseline is None else _results(prepared.baseline)
    return " · ".join(filter(None, (python, prepared.install + fell_back, command, results)))


def _results(report: TestReport) -> str:
    if COMMAND_TEST in report.outcomes:
        return f"the command as a whole {report.outcomes[COMMAND_TEST]}"
    found, absent = counts(report), absent_modules(report)
    failed, network = found["failed"] + found["error"], offline(report)
    wanting = f" ({network} of them for want of the network or a server)" if network else ""
    why = f" ({', '.join(absent[:5])} not installed): give --setup …" if absent else ": --setup … may mend it"
    words = (
        (True, f"{found['passed']} pass"),
        (failed, f"{failed} fail{wanting}"),
        (found["skipped"], f"{found['skipped']} skipped"),
        (found["unloadable"], f"{found['unloadable']} files cannot be loaded{why}"),
    )
    return ", ".join(word for said, word in words if said)


def offline(report: TestReport) -> int:
    """How many tests failed for want of the network: those that say so, and those that a fixture failed which another
    one of them says it of."""
    heads = {test: text.partition("\n")[0] for test, text in report.failures.items()}
    telling = {heads[test] for test, text in report.failures.items() if _NETWORK.search(text)}
    return sum(1 for head in heads.values() if head in telling)


def trouble(report: TestReport | None, given: Collection[str] = ()) -> tuple[str, bool]:
    """(what is wrong with the base's tests, whether that lets nothing be concluded); ("", False) where all is well.
    `given`: ids of failing tests that came with the issue."""
    if report is None:
        return "no tests guard what a patch may break", False
    if report.outcomes.get(COMMAND_TEST) == "failed" and not given:
        return "the test command fails as a whole", True
    found = counts(report)
    own = [t for t in report.failed if not any(selects(g, t) for g in given)]
    if not found["passed"] and (own or (found["skipped"] and not given)):
        return "tests are found and none of them passes", True
    files = {test.partition("::")[0] for test in report.outcomes}
    if found["unloadable"] > POOR_FILES * len(files):
        return f"{found['unloadable']} of {len(files)} test files cannot be loaded", False
    if len(own) > found["passed"]:
        return "most tests fail on the unchanged code", False
    return "", False
