"""Tests that a candidate passed, once more by the plain test command: without Troop's plugin, and beside a test that
must fail. What the command says by itself, its exit code and its summary, has to agree with what the plugin reported.

So code under test that writes the plugin's report, behaves when it sees the plugin, or has pytest call what fails a
pass, is found out. Code that knows the very test from all others is not.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import accumulate, takewhile

from harness.environments.clean_room import CleanRoom
from harness.evidence.verify import lay_patch
from harness.records import Candidate, Exec
from harness.sandbox.base import Sandbox
from harness.testing.run import OUTPUT_BYTES
from harness.testing.runners.base import appended
from harness.testing.runners.registry import runner_of
from tasks.task import Task

MOST_CHARS = 60_000
"""Of the ids of tests in one command, which the system limits."""
STARTING_SECONDS = 60.0


async def contradiction(room: CleanRoom, task: Task, candidate: Candidate) -> str:
    """How the plain test command contradicts the evidence on an acceptable candidate, as a phrase; empty where it does
    not, does the same on the base, does not do it twice, or cannot be asked. Raises SandboxFailed."""
    evidence, command = candidate.evidence, room.built.test_command
    summary = runner_of(command).summary if command is not None else None
    if evidence is None or command is None or summary is None or appended(command, ["a"]) == command:
        return ""
    green = _fitting([test for test in sorted(evidence.regression) if "::" in test and "[" not in test])
    asked = [*evidence.given, *green]
    if not asked:
        return ""
    timeout = STARTING_SECONDS + 3 * evidence.seconds

    name = f"test_{secrets.token_hex(4)}"
    path = f"{asked[0].partition('::')[0].rpartition('/')[0] or '.'}/{name}.py"

    async def said(patch: str, tests: Sequence[str]) -> str:
        async def in_sandbox(sandbox: Sandbox) -> str:
            if reason := await lay_patch(sandbox, task, patch):
                return f"the patch does not apply: {reason}"
            await sandbox.write(path, f"def {name}():\n    assert 1 == 2\n".encode())
            run = appended(command, [*tests, path])
            done = await sandbox.exec(run, timeout=timeout, output_bytes=OUTPUT_BYTES, merge=True)
            return _objection(done, summary, len(tests))

        return await room.fresh(f"plain-{candidate.id}", in_sandbox)

    found = await said(candidate.patch, asked)
    return await said(candidate.patch, asked) if found and not await said("", green) else ""


def _objection(done: Exec, summary: re.Pattern[str], tests: int) -> str:
    if done.timed_out:
        return f"it did not end within {done.seconds:.0f} s"
    if done.exit_code == 0:
        return "it ended well, though a test had been put in that fails"
    found = next((rows for line in reversed(done.output.splitlines()) if (rows := summary.findall(line))), [])
    counts = {word: int(number) for number, word in found}
    passed = counts.get("passed", 0) + counts.get("xpassed", 0)
    failed = counts.get("failed", 0) + counts.get("error", 0) - 1
    if counts and (failed or passed < tests):
        return f"by its summary {passed} tests passed and {failed} failed, where all {tests} were reported to pass"
    return ""


def _fitting(tests: Sequence[str]) -> list[str]:
    """The first tests, as many as one command may name."""
    ends = accumulate(len(test) + 3 for test in tests)
    return [test for test, _ in takewhile(lambda each: each[1] < MOST_CHARS, zip(tests, ends, strict=True))]
