"""Tests that a candidate passed, once more by the plain test command: without Troop's plugin, and beside a test that
must fail. What the command says by itself, its exit code and its summary, has to agree with what the plugin reported.

So code under test that writes the plugin's report, behaves when it sees the plugin, or has pytest call what fails a
pass, is found out. Code that knows the very test from all others is not.
"""

import re
import secrets
from collections.abc import Sequence

from harness.environments.environment import CleanRoom
from harness.evidence.verify import lay_patch
from harness.records import Candidate, Evidence, Exec
from harness.sandbox.base import Sandbox
from harness.testing.run import OUTPUT_BYTES
from harness.testing.runners.base import appended
from harness.testing.runners.registry import runner_of
from tasks.task import Task

MOST_TESTS, MOST_CHARS = 200, 250
"""So many tests, with ids no longer than that, fit into one command."""


async def contradiction(room: CleanRoom, task: Task, candidate: Candidate) -> str:
    """How the plain test command contradicts the evidence on an acceptable candidate, as a phrase; empty where it does
    not, does the same on the base, does not do it twice, or cannot be asked. Raises SandboxFailed; OSError where the
    test that must fail cannot be written."""
    command, evidence = room.built.test_command or "", candidate.evidence or Evidence(False, False)
    summary = runner_of(command).summary
    # Cases of a parametrised test have names that a command line may not mean.
    passed = sorted(test for test, outcome in evidence.regression.items() if outcome == "passed")
    green = [t for t in passed if "::" in t and "[" not in t and len(t) <= MOST_CHARS][:MOST_TESTS]
    asked = [*evidence.given, *green]
    if summary is None or not asked or appended(command, asked) == command:
        return ""
    name = f"test_{secrets.token_hex(4)}"
    path = f"{asked[0].partition('::')[0].rpartition('/')[0] or '.'}/{name}.py"

    async def said(patch: str, tests: Sequence[str]) -> str:
        async def in_sandbox(sandbox: Sandbox) -> str:
            if reason := await lay_patch(sandbox, task, patch):
                return f"the patch does not apply: {reason}"
            await sandbox.write(path, f"def {name}():\n    assert 1 == 2\n".encode())
            run, timeout = appended(command, [*tests, path]), 60 + 3 * evidence.seconds
            done = await sandbox.exec(run, timeout=timeout, output_bytes=OUTPUT_BYTES, merge=True)
            return _objection(done, summary, len(tests))

        return await room.fresh(f"plain-{candidate.id}", in_sandbox)

    found = await said(candidate.patch, asked)
    return await said(candidate.patch, asked) if found and not await said("", green) else ""


def _objection(done: Exec, summary: re.Pattern[str], tests: int) -> str:
    found = next((rows for line in reversed(done.output.splitlines()) if (rows := summary.findall(line))), [])
    counts = {word: int(number) for number, word in found}
    passed = counts.get("passed", 0) + counts.get("xpassed", 0)
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if done.exit_code == 1 and failed == 1 and passed >= tests:
        return ""
    seen = f"{passed} passed, {failed} failed, exit code {done.exit_code}"
    return f"it says {seen!r}, where {tests} were reported to pass, and one was put in that fails"
