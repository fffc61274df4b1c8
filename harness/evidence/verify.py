"""What a candidate is worth, found out in a fresh sandbox: the clean room.

The candidate's patch is applied to the environment, the test files that it touches are put back as on the base (a patch
does not get to change what it is measured by), and then run, one after the other: the failing test given with the
issue, the regression tests (green on the base), and the witness tests of all attempts. Every outcome comes from a
structured report that agrees with the exit code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.code.facts import parsed
from harness.environments.clean_room import CleanRoom
from harness.patches.extract import apply_patch, restore_paths
from harness.patches.patch import Patch
from harness.patches.paths import guards_tests
from harness.records import Evidence, TestReport, WitnessTest
from harness.sandbox.base import Sandbox
from harness.testing.report import COMMAND_TEST, outcome_of
from harness.testing.runners.registry import USUAL_COMMAND, runner_of
from tasks.task import GivenTest, Task

VERSION = "1"
"""Part of every verification key: evidence found in another way is not taken for this."""


def witness_name(witness: WitnessTest) -> str:
    """How a witness test is called in the evidence: which attempt wrote it, and its file."""
    return f"{witness.attempt}:{witness.path}"


def verification_key(
    environment: str,
    patch: str,
    regression: Sequence[str],
    witnesses: Sequence[WitnessTest],
    given: GivenTest | None = None,
    command: str | None = None,
) -> str:
    """A name for all that a verification depends on: what has the same name was found out already."""
    parts = (
        VERSION,
        environment,
        patch.encode("utf-8", "surrogateescape").hex(),
        sorted(regression),
        sorted((w.attempt, w.path, w.text) for w in witnesses),
        [given.ids, given.files] if given else None,
        command,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


async def verify(
    room: CleanRoom,
    task: Task,
    *,
    name: str,
    patch: str,
    regression: Sequence[str] = (),
    witnesses: Sequence[WitnessTest] = (),
) -> Evidence:
    """The evidence on one patch, in a sandbox called `name`.

    `regression`: ids of tests that are green on the base (see `harness.evidence.regression.choose`). `witnesses`: tests
    that fail on the base (see `witness_on_base`). Raises SandboxFailed where sandboxes keep dying: that says nothing
    about the candidate.
    """

    async def in_sandbox(sandbox: Sandbox) -> Evidence:
        began = time.monotonic()
        evidence = await _evidence(room, sandbox, task, patch, regression, witnesses)
        return replace(evidence, seconds=time.monotonic() - began)

    return await room.fresh(name, in_sandbox)


async def witness_on_base(room: CleanRoom, witnesses: Sequence[WitnessTest]) -> tuple[WitnessTest, ...]:
    """Those of the witness tests that fail on the base, in the given order, the same file and text only once.

    A test that cannot be loaded there fails, too: a missing name may be just what the issue is about, and such a test
    speaks for a candidate only by passing on it. Not kept: what passes, what is skipped, what has no test in it, what
    the Python that runs Troop cannot parse, and what would take the place of a file of the base.
    """
    distinct = list({(w.path, w.text): w for w in reversed(witnesses)}.values())[::-1]
    distinct = [w for w in distinct if not w.path.endswith(".py") or parsed(w.text.encode("utf-8", "surrogateescape"))]
    if not distinct or room.built.test_command is None:
        return ()

    async def in_sandbox(sandbox: Sandbox) -> tuple[WitnessTest, ...]:
        there = await _existing(sandbox, [w.path for w in distinct])
        new = [w for w in distinct if w.path not in there]
        outcomes = await _witness_outcomes(room, sandbox, new)
        return tuple(w for w in new if outcomes[witness_name(w)] in ("failed", "error"))

    return await room.fresh("witness-base", in_sandbox)


async def lay_patch(sandbox: Sandbox, task: Task, patch: str) -> str | None:
    """Apply the patch, then put back whatever measures it: test files, their configuration, the given test.

    New test files of the patch are removed. None: done; else why the patch does not apply.
    """
    reason = await apply_patch(sandbox, patch)
    if reason is not None:
        return reason
    reason = await restore_paths(sandbox, [path for path in Patch(patch).paths if guards_tests(path)])
    if reason is not None:
        return reason
    for path, text in task.failing_test.files if task.failing_test else ():
        try:
            await sandbox.write(path, text.encode("utf-8"))
        except OSError as error:
            return f"with it the given test {path} cannot be written ({error.strerror})"
    return None


async def _evidence(
    room: CleanRoom,
    sandbox: Sandbox,
    task: Task,
    patch: str,
    regression: Sequence[str],
    witnesses: Sequence[WitnessTest],
) -> Evidence:
    reason = await lay_patch(sandbox, task, patch)
    if reason is not None:
        return Evidence(applies=False, valid=False, reason=f"the patch does not apply: {reason}")
    if room.built.test_command is None:
        return Evidence(applies=True, valid=True, reason="there are no tests to run")
    given = await _given_outcomes(room, sandbox, task.failing_test)
    regressed, objection = await _regression_outcomes(room, sandbox, regression)
    seen = await _witness_outcomes(room, sandbox, witnesses)
    return Evidence(True, not objection, regression=regressed, witness=seen, given=given, reason=objection)


async def _given_outcomes(room: CleanRoom, sandbox: Sandbox, given: GivenTest | None) -> Mapping[str, str]:
    if given is None:
        return {}
    report = await room.tests(sandbox, given.ids)
    return {test: _believed(report, test) for test in given.ids}


async def _regression_outcomes(
    room: CleanRoom, sandbox: Sandbox, regression: Sequence[str]
) -> tuple[Mapping[str, str], str]:
    """(outcome of each test, why nothing can be concluded)."""
    if not regression:
        return {}, ""
    report = await room.tests(sandbox, () if COMMAND_TEST in regression else regression)
    # A command that tells only of the whole speaks for each part of it.
    whole = report.outcomes.get(COMMAND_TEST, "missing")
    outcomes = {test: str(report.outcomes.get(test, whole)) for test in regression}
    return outcomes, "" if report.valid else f"the regression tests did not run as they should: {report.reason}"


async def _witness_outcomes(room: CleanRoom, sandbox: Sandbox, witnesses: Sequence[WitnessTest]) -> dict[str, str]:
    """Outcome of each witness test by name. Several at a time as far as their files differ; where such a run breaks
    off, each of its tests alone."""
    outcomes: dict[str, str] = {}
    apart = not runner_of(room.built.test_command or USUAL_COMMAND).python
    for batch in [[witness] for witness in witnesses] if apart else _batches(witnesses):
        outcomes.update(await _laid_in(room, sandbox, batch))
        unclear = [w for w in batch if outcomes[witness_name(w)] == "missing"]
        for witness in unclear if len(batch) > 1 else ():
            outcomes.update(await _laid_in(room, sandbox, [witness]))
    return outcomes


async def _laid_in(room: CleanRoom, sandbox: Sandbox, batch: Sequence[WitnessTest]) -> dict[str, str]:
    laid = []
    for witness in batch:
        with contextlib.suppress(OSError):  # what is under test has a file where the test's folder should be
            await sandbox.write(witness.path, witness.text.encode("utf-8", "surrogateescape"))
            laid.append(witness)
    if not laid:
        return dict.fromkeys(map(witness_name, batch), "missing")
    try:
        report = await room.tests(sandbox, [w.path for w in laid])
    finally:
        await sandbox.exec(["rm", "-f", "--", *(f"./{w.path}" for w in laid)], timeout=60)
    return {witness_name(w): _believed(report, w.path) if w in laid else "missing" for w in batch}


def _batches(witnesses: Sequence[WitnessTest]) -> list[list[WitnessTest]]:
    """No batch has two tests of one path, or (pytest may not tell such apart) of one file name."""
    batches: list[list[WitnessTest]] = []
    for witness in witnesses:
        file = witness.path.rpartition("/")[2]
        free = (b for b in batches if all(w.path.rpartition("/")[2] != file for w in b))
        batch = next(free, None)
        if batch is None:
            batches.append([witness])
        else:
            batch.append(witness)
    return batches


def _believed(report: TestReport, test: str) -> str:
    """The outcome; a pass in a run that cannot be believed is none. A test command without ids answers as a whole."""
    outcome = outcome_of(report, COMMAND_TEST if COMMAND_TEST in report.outcomes else test)
    return outcome if report.valid or outcome in ("failed", "error") else "missing"


async def _existing(sandbox: Sandbox, paths: Sequence[str]) -> set[str]:
    """Which of the paths are there."""
    script = 'for p in "$@"; do if [ -e "$p" ] || [ -L "$p" ]; then printf "%s\\0" "$p"; fi; done'
    listed = await sandbox.exec(["sh", "-c", script, "sh", *paths], timeout=60)
    return {path.decode("utf-8", "surrogateescape") for path in listed.stdout.split(b"\0") if path}
