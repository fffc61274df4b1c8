"""What a candidate is worth, found out in a fresh sandbox: the clean room.

The candidate's patch is applied to the environment, the test files that it touches are put back as on the base (a patch
does not get to change what it is measured by), and then run: the regression tests (green on the base), the failing test
given with the issue, and the witness tests of all attempts. The given test and each witness test have a sandbox of
their own, so that no test decides what another one says. Every outcome comes from a structured report that agrees with
the exit code.
"""

import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from harness.code.facts import parsed
from harness.environments.environment import CleanRoom
from harness.parallel import in_parallel, task_group
from harness.patches.extract import apply_patch, restore_paths
from harness.patches.patch import Patch
from harness.patches.paths import guards_tests, place_of_new_test
from harness.records import Evidence, TestReport, WitnessTest
from harness.sandbox.base import TROOPDIR, Sandbox
from harness.sandbox.fresh import probe
from harness.testing.report import COMMAND_TEST, outcome_of
from tasks.errors import SandboxFailed
from tasks.say import Say
from tasks.task import GivenTest, Task

T = TypeVar("T")
Heard = tuple[str, str]
"""A test's outcome and, where it is not "passed", what it said."""
MISSING: Heard = ("missing", "")

SAID_TESTS, SAID_CHARACTERS = 100, 2000
"""Of how many broken regression tests what they said is kept, and how much of each test's word."""

_WANTED = re.compile(r"cannot import name '(\w+)'|No module named '?([\w.]+)|module '[\w.]+' has no attribute '(\w+)'")
"""How Python says which name an import wants."""

VERSION = "2"
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
    """The evidence on one patch, in sandboxes whose names begin with `name`.

    `regression`: ids of tests that are green on the base (see `harness.evidence.regression.choose`). `witnesses`: tests
    that fail on the base (see `witness_on_base`); one under which sandboxes keep dying is an error. Raises
    SandboxFailed where they die without one: that says nothing about the candidate."""
    seconds = 0.0

    async def on_patch(part: str, work: Callable[[Sandbox], Awaitable[T]]) -> tuple[str | None, T | None]:
        """(why the patch does not apply, what the work gave), in a fresh sandbox that holds the patch."""

        async def in_sandbox(sandbox: Sandbox) -> tuple[str | None, T | None]:
            nonlocal seconds
            began = time.monotonic()
            reason = await lay_patch(sandbox, task, patch)
            done = None if reason is not None else await work(sandbox)
            seconds += time.monotonic() - began
            return reason, done

        return await room.fresh(f"{name}{part}", in_sandbox)

    async def given() -> dict[str, Heard]:
        if (test := task.failing_test) is None:
            return {}
        report = (await on_patch("-given", lambda s: room.tests(s, test.ids)))[1]
        return {each: MISSING if report is None else _believed(report, each) for each in test.ids}

    async def shown_by(number: int, witness: WitnessTest) -> Heard:
        try:
            report = (await on_patch(f"-w{number}", lambda s: _witness_report(room, s, witness)))[1]
            return MISSING if report is None else _believed(report, witness.path)
        except SandboxFailed as error:
            await probe(room.provider, room.spec(f"{name}-probe"))
            return "error", str(error)

    reason, evidence = await on_patch("", lambda s: _regression_evidence(room, s, patch, regression))
    if evidence is None:
        return Evidence(False, False, seconds=seconds, reason=f"the patch does not apply: {reason}")
    if evidence.regression or not evidence.reason:  # else nothing can be run
        async with task_group() as group:
            told = group.create_task(given())
            shown = {witness_name(w): group.create_task(shown_by(n, w)) for n, w in enumerate(witnesses)}
        heard = {name: task.result() for name, task in shown.items()}
        words = {test: word for test, (_, word) in (told.result() | heard).items() if word}
        evidence = replace(
            evidence,
            given={test: outcome for test, (outcome, _) in told.result().items()},
            witness={test: outcome for test, (outcome, _) in heard.items()},
            said={**(evidence.said or {}), **words} or None,
        )
    return replace(evidence, seconds=seconds)


async def witness_on_base(
    room: CleanRoom, statement: str, witnesses: Sequence[WitnessTest], say: Say = lambda line: None
) -> tuple[WitnessTest, ...]:
    """Those of the witness tests that fail on the base, in the given order, the same file and text only once; each is
    run in a sandbox of its own.

    Not kept: what passes, what is skipped, what has no test in it or was not collected, what fails for want of a name
    to import that `statement`, the issue's text, does not have (a new name that it asks for may be just what is
    missing), what the Python that runs Troop cannot parse, and what would take the place of a file of the base; nor,
    which `say` hears, what takes its sandbox down, or has a name that no witness test may have. Raises SandboxFailed
    where no sandbox works."""
    distinct = list({(w.path, w.text): w for w in reversed(witnesses)}.values())[::-1]
    if room.built.test_command is None:
        return ()

    async def fails(number: int, witness: WitnessTest) -> bool:
        why = f"{witness.path!r} is no name for one: pytest, Python or git may give it a meaning of its own"
        if place_of_new_test(witness.path) == witness.path:
            if witness.path.endswith(".py") and not parsed(witness.text.encode("utf-8", "surrogateescape")):
                return False
            try:
                return await room.fresh(f"witness-base-{number}", lambda s: _fails_as_new(room, s, witness, statement))
            except SandboxFailed as error:
                await probe(room.provider, room.spec("probe-witness"))
                why = str(error)
        say(f"a witness test of attempt {witness.attempt} is left out: {why}")
        return False

    failing = await in_parallel(fails(number, w) for number, w in enumerate(distinct))
    return tuple(w for w, counts in zip(distinct, failing, strict=True) if counts)


async def _fails_as_new(room: CleanRoom, sandbox: Sandbox, witness: WitnessTest, statement: str) -> bool:
    there = await sandbox.exec(["test", "-e", witness.path, "-o", "-L", witness.path], timeout=60)
    report = None if there.exit_code == 0 else await _witness_report(room, sandbox, witness)
    if report is None or _believed(report, witness.path)[0] not in ("failed", "error"):
        return False
    said = "\n".join(report.failures.values()) or report.output
    wanted = {name.rpartition(".")[2] for names in _WANTED.findall(said) for name in names if name}
    loaded = report.outcomes.keys() != {witness.path}
    return all(re.search(rf"\b{re.escape(name)}\b", statement) for name in wanted) if wanted else loaded


async def lay_patch(sandbox: Sandbox, task: Task, patch: str) -> str | None:
    """Apply the patch, then put back whatever measures it: test files, their configuration, the given test.

    New test files of the patch are removed. None: done; else why the patch does not apply."""
    guards = [path for path in Patch(patch).paths if guards_tests(path)]
    if reason := await apply_patch(sandbox, patch) or await restore_paths(sandbox, guards):
        return reason
    for path, text in task.failing_test.files if task.failing_test else ():
        try:
            await sandbox.write(path, text.encode("utf-8"))
        except OSError as error:
            return f"with it the given test {path} cannot be written ({error.strerror})"
    return None


async def _regression_evidence(room: CleanRoom, sandbox: Sandbox, patch: str, regression: Sequence[str]) -> Evidence:
    """What the regression tests say where the patch is laid; `reason` alone where nothing is to be run."""
    listing = f"git --git-dir={TROOPDIR}/base.git ls-tree -r -z --name-only HEAD"
    listed = await sandbox.exec(listing, timeout=60, output_bytes=50_000_000)
    if hidden := Patch(patch).hides(listed.stdout.decode("utf-8", "replace").split("\0")):
        return Evidence(True, False, reason=f"it brings {hidden}, which Python loads in place of what runs the tests")
    if room.built.test_command is None:
        return Evidence(True, True, reason="there are no tests to run")
    if not regression:
        return Evidence(True, True)
    report = await room.tests(sandbox, () if COMMAND_TEST in regression else regression)
    # A command that tells only of the whole speaks for each part of it.
    whole = report.outcomes.get(COMMAND_TEST, "missing")
    outcomes = {test: str(report.outcomes.get(test, whole)) for test in regression}
    broken = [test for test in regression if outcomes[test] != "passed"][:SAID_TESTS]
    said = {test: word for test in broken if (word := report.failures.get(test, "")[-SAID_CHARACTERS:])}
    objection = "" if report.valid else f"the regression tests did not run as they should: {report.reason}"
    return Evidence(True, not objection, regression=outcomes, reason=objection, said=said or None)


async def _witness_report(room: CleanRoom, sandbox: Sandbox, witness: WitnessTest) -> TestReport | None:
    """None where what is under test has a file where the test's folder should be."""
    try:
        await sandbox.write(witness.path, witness.text.encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    return await room.tests(sandbox, [witness.path])


def _believed(report: TestReport, test: str) -> Heard:
    """The outcome; a pass in a run that cannot be believed is none. A test command without ids answers as a whole."""
    outcome = outcome_of(report, COMMAND_TEST if COMMAND_TEST in report.outcomes else test)
    outcome = outcome if report.valid or outcome in ("failed", "error") else "missing"
    said = "\n".join(f"{name}: {word}" for name, word in report.failures.items()) or report.output or report.reason
    return outcome, "" if outcome == "passed" else said[-SAID_CHARACTERS:]
