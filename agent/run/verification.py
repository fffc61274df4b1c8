"""What the verify stage asks of fresh sandboxes: which witness tests count, which tests guard a candidate, the evidence
on it.

A sandbox that dies again and again is held against the candidate or the witness test that was in it, once another one
has been seen to work; where none works it is the environment's failure.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent.attempt.graph import test_seconds
from agent.run.context import Run, Verification
from harness import trace
from harness.environments.base_run import Baseline
from harness.evidence.black_box import contradiction
from harness.evidence.near import NEAR_SECONDS, files_near, imports_of, near_baseline, what_is_touched
from harness.evidence.regression import Touched, choose
from harness.evidence.verify import verification_key, witness_name, witness_on_base
from harness.parallel import in_parallel
from harness.records import Candidate, Evidence, TestReport, WitnessTest
from harness.sandbox.fresh import probe
from harness.testing.report import selects
from harness.views.report import latest_verified
from tasks.errors import SandboxFailed, words_of
from tasks.task import Task

NEAR_FILES = 6
"""So many test files stand for a suite that takes too long, when an attempt runs its tests."""


async def verify_candidates(run: Run, *, early: bool = False) -> None:
    """Write the evidence on every candidate on which the trace does not hold it yet, a few at a time.

    `early`: while attempts are being made. Then candidates that have evidence keep it, though later witness tests, and
    later tests near to the candidates, are not in it: the verify stage adds what is missing. One call at a time, for a
    candidate has its id from the first evidence on it."""
    async with run.verifying:
        candidates = await asyncio.to_thread(run.candidates)
        wanted = [c for c in candidates if not early or c.evidence is None]
        if not wanted:
            return
        with run.busy("looking for tests to verify by"):
            guards = await guards_of(run, candidates)
            witnesses = await true_witnesses(run, candidates)
        known = {e.key: e.evidence for e in run.events if isinstance(e, trace.Verified)}
        holding = {(e.candidate, e.key, e.attempts) for e in latest_verified(run.events) if early or not e.early}

        async def one(candidate: Candidate) -> None:
            key, _ = await asyncio.to_thread(what_guards, run, candidate, witnesses, guards)
            if (candidate.id, key, candidate.attempts) in holding:
                return
            evidence = known.get(key)  # of a reopened run, or found early: the same patch, arrived at by more attempts
            if evidence is None:
                with run.busy(f"verifying {candidate.id}"):
                    evidence = await _evidence_beyond(run, candidate, known, witnesses, guards)
            run.write(
                trace.Verified(
                    candidate=candidate.id, attempts=candidate.attempts, key=key, evidence=evidence, early=early
                )
            )

        await in_parallel(one(candidate) for candidate in wanted)


async def _evidence_beyond(
    run: Run, candidate: Candidate, known: Mapping[str, Evidence], witnesses: Sequence[WitnessTest], guards: Baseline
) -> Evidence:
    """The evidence on a candidate; where all but some witness tests is `known` (by key), only these run."""
    if any(event.masked for event in run.events if event.attempt in candidate.attempts):
        return Evidence(applies=False, valid=False, reason="it held a secret of this machine's environment, now masked")
    seconds = test_seconds(guards.report)
    old = [w for w in witnesses if candidate.evidence is not None and witness_name(w) in candidate.evidence.witness]
    key, ids = what_guards(run, candidate, old, guards)
    before = known.get(key)
    if before is None or not before.valid:
        return await run.executor.verify(run, Verification(candidate, ids, witnesses, seconds))
    new = [w for w in witnesses if w not in old]
    more = await run.executor.verify(run, Verification(candidate, (), new, seconds))
    if not more.valid:
        return more
    return replace(before, witness={**before.witness, **more.witness}, seconds=before.seconds + more.seconds)


async def guards_of(run: Run, candidates: Sequence[Candidate]) -> Baseline:
    """The base's test run that candidates are held against: the whole suite's, or (scope near) that of the tests near
    to what the candidates touch, which is done now unless the trace holds it."""
    prepared = run.prepared()
    if run.task.test_scope == "whole" or run.base is None or not candidates:
        return Baseline(prepared.baseline, prepared.flaky)
    touched = await asyncio.to_thread(what_is_touched, run.base, [c.patch for c in candidates])
    for event in run.events:
        if isinstance(event, trace.NearTested) and (event.paths, event.names) == (touched.paths, touched.names):
            return Baseline(event.report, event.flaky, event.note)
    began = time.monotonic()
    seconds = min(run.settings.verify_seconds, NEAR_SECONDS)
    found = await near_baseline(replace(run.room(), slots=run.checks), run.base, touched, seconds=seconds, say=run.say)
    if found.note:
        run.say(found.note)
    run.write(
        trace.NearTested(
            paths=touched.paths,
            names=touched.names,
            report=found.report,
            flaky=found.flaky,
            note=found.note,
            seconds=time.monotonic() - began,
        )
    )
    return found


def near_tests_of(run: Run) -> Callable[[str, Sequence[str]], Sequence[str]] | None:
    """What finds the test files nearest to a patch (to files, where it touches no source) for an attempt's own test
    runs; None where those run the whole suite."""
    base = run.base
    if run.task.test_scope == "whole" or base is None:
        return None

    def near(patch: str, files: Sequence[str]) -> Sequence[str]:
        touched = what_is_touched(base, [patch])
        touched = touched if touched.paths else Touched(tuple(dict.fromkeys(files)))
        return files_near(base, touched, NEAR_FILES) or files_near(base, touched, NEAR_FILES, least=0)

    return near


async def contradicted(run: Run, candidate: Candidate) -> bool:
    """Whether the plain test command contradicts the evidence on a candidate, which is then no longer acceptable."""
    room = replace(run.room(), slots=run.checks)
    try:
        with run.busy(f"running the tests of {candidate.id} without Troop's plugin"):
            said = await contradiction(room, run.task, candidate)
    except (SandboxFailed, OSError) as error:
        await probe(room.provider, room.spec(f"probe-{candidate.id}"))
        said = words_of(error)
    if said:
        before = next(e for e in latest_verified(run.events) if e.candidate == candidate.id)
        reason = f"its results are not to be believed, for without Troop's plugin the test command differs: {said}"
        run.write(replace(before, evidence=replace(before.evidence, valid=False, reason=reason), early=False))
    return bool(said)


async def true_witnesses(run: Run, candidates: Sequence[Candidate]) -> tuple[WitnessTest, ...]:
    """The witness tests of all attempts that fail on the base, each path once; none that take the sandbox down."""
    recorded = [w for a in run.finished() for w in a.witness_tests]
    if not recorded or not candidates:
        return ()
    recorded = list({(w.path, w.text): w for w in reversed(recorded)}.values())[::-1]
    new = [w for w in recorded if (w.path, w.text) not in run.shown]
    if new:
        room = replace(run.room(test_seconds(run.prepared().baseline)), slots=run.checks)
        failing = {(w.path, w.text) for w in await witness_on_base(room, run.task.statement, new, run.say)}
        run.shown.update({(w.path, w.text): (w.path, w.text) in failing for w in new})
    return tuple(w for w in recorded if run.shown[w.path, w.text])


def what_guards(
    run: Run, candidate: Candidate, witnesses: Sequence[WitnessTest], guards: Baseline
) -> tuple[str, tuple[str, ...]]:
    """The memo key of a candidate's verification, and the regression tests chosen for it."""
    base = run.base
    ids: tuple[str, ...] = ()
    if guards.report is not None and base is not None:
        ids = choose(
            guards.report,
            {*guards.flaky, *_given_tests(run.task, guards.report)},
            candidate.patch,
            seconds=run.settings.verify_seconds,
            imports=lambda: imports_of(base),
        )
    key = verification_key(
        run.environment.key, candidate.patch, ids, witnesses, run.task.failing_test, run.environment.test_command
    )
    return key, ids


def _given_tests(task: Task, baseline: TestReport) -> set[str]:
    """The base's tests that the task's given ids select; they are evidence of their own."""
    given = task.failing_test.ids if task.failing_test else ()
    return {test for test in baseline.outcomes if any(selects(wanted, test) for wanted in given)}
