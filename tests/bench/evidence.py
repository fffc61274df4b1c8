"""The evidence that the research on choosing works with: gathered on a pool of patches, and kept on disk; ranking reads
nothing else. Beside what a run looks at (`harness.choosing`), the tests near a change, as a feature.

    RUN/evidence/<instance>.json  what was found out about the base and each distinct patch, by the digest of its text

What has to be run is None until it was; gathering again adds what is missing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.cache import write_json
from harness.choosing.features import CandidateFeatures
from harness.choosing.found import Base, Found, InstanceEvidence, Keep, NearBase, TestFacts, digest
from harness.choosing.gather import import_names, lay
from harness.choosing.pool import Sample
from harness.choosing.ranker import Weights
from harness.evidence.near import AT_ONCE, NearSettings, Opened, files_near, near_tests, what_is_touched
from harness.parallel import in_parallel
from harness.records import TestReport
from harness.repository.base_tree import BaseTree
from harness.sandbox.base import Sandbox
from harness.testing.report import outcome_of
from harness.testing.runners.registry import RUNNERS, USUAL_COMMAND
from harness.trace import record
from tasks.errors import InputError, SandboxFailed, words_of
from tasks.say import Say

SCHEMA = 1

FINALISTS = 4
"""Candidates that are held against the near tests: the others would have to pass all of these."""

NEAR_SECONDS = 12.0
"""For the near tests of one candidate, as the base takes."""

NOTHING_RAN = "<nothing ran>"
"""Stands among the broken tests where a candidate lets no test run."""

PATIENCE = 3.0
"""So many times longer than on the base a test may take on a candidate: else one that was just quick enough there would
fail on a machine that has become busier."""


def command_of_project(packages: Collection[str]) -> str:
    """The command that runs the tests of a project with these import names in an environment that nobody described."""
    own = (runner.command for runner in RUNNERS if runner.project in packages)
    return next(own, USUAL_COMMAND)


def write_found(directory: Path, instance: str, base: Base, found: Mapping[str, Found]) -> None:
    """Keep what was found out about an instance; whole or not at all."""
    body = {
        "schema": SCHEMA,
        "instance": instance,
        "base": dataclasses.asdict(base),
        "found": {key: dataclasses.asdict(each) for key, each in found.items()},
    }
    write_json(_place(directory, instance), body)


def keeping(directory: Path) -> Keep:
    """Keeps evidence in the run's directory."""
    return lambda evidence: write_found(directory, evidence.instance, evidence.base, evidence.found)


def read_found(directory: Path, instance: str) -> tuple[Base, dict[str, Found]]:
    """What the run holds on an instance, if anything. Raises InputError for a damaged file or another schema."""
    place = _place(directory, instance)
    if not place.exists():
        return Base(), {}
    try:
        body = json.loads(place.read_bytes())
        if body["schema"] != SCHEMA:
            raise InputError(f"{place} was written by another version; gather the evidence again in a new directory")
        return record(Base, body["base"]), record(dict[str, Found], body["found"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{place} is damaged: {error}") from error


def evidence_so_far(directory: Path, instance: str, samples: Sequence[Sample]) -> InstanceEvidence:
    """What the run holds on these samples, which may be nothing. Raises InputError as `read_found` does."""
    return InstanceEvidence(instance, tuple(replace(s, right=None) for s in samples), *read_found(directory, instance))


def evidence_of(directory: Path, instance: str, samples: Sequence[Sample]) -> InstanceEvidence:
    """The stored evidence on these samples. Raises InputError where a patch has none."""
    evidence = evidence_so_far(directory, instance, samples)
    missing = [s.source for s in samples if digest(s.patch) not in evidence.found]
    if missing:
        raise InputError(f"{directory} holds no evidence on {instance} by {missing[0]}; gather it first")
    return evidence


def _place(directory: Path, instance: str) -> Path:
    return directory / "evidence" / f"{instance}.json"


def finalists(rows: Sequence[CandidateFeatures], weights: Weights) -> list[CandidateFeatures]:
    """The candidates that stand first: those that dearer evidence is gathered on."""
    return sorted(rows, key=lambda r: -weights.score(r))[:FINALISTS]


async def gather_tests(
    evidence: InstanceEvidence,
    tree: BaseTree,
    opened: Opened,
    *,
    only: Collection[str] | None = None,
    command: str | None = None,
    seconds: float = NEAR_SECONDS,
    slots: asyncio.Semaphore | None = None,
    keep: Keep = lambda evidence: None,
    say: Say = lambda line: None,
) -> InstanceEvidence:
    """The evidence with what the near tests say on the base, run twice, and on every distinct candidate that was not
    held against them yet.

    `only`: the digests of the patches that are held against them, None for all. `command`: runs the tests (None: the
    project's own runner, or the usual framework). `seconds`: what one run of them takes on the base, at most about.
    `slots` bounds the sandboxes at a time, for several instances at once. `keep` is told after the base and
    after every candidate. Raises SandboxFailed.
    """
    wanted = {key: patch for key, patch in evidence.patches.items() if only is None or key in only}
    if all(evidence.found[key].tests is not None for key in wanted):
        return evidence
    usual = command or command_of_project(import_names(tree.files()))
    slots = slots or asyncio.Semaphore(AT_ONCE)
    bench = NearSettings(opened, usual, seconds, slots, test_seconds=max(seconds / 3, 1.0))
    if evidence.base.near is None:
        touched = await asyncio.to_thread(what_is_touched, tree, list(evidence.patches.values()))
        found = await near_tests(bench, await asyncio.to_thread(files_near, tree, touched))
        evidence = replace(evidence, base=replace(evidence.base, near=NearBase(found.green)))
        keep(evidence)
    near = evidence.base.near or NearBase()

    async def hold(keys: Sequence[str], tests: TestFacts | None) -> None:
        nonlocal evidence
        if tests is not None:
            pass
        elif not near.green or evidence.found[keys[0]].idle:
            tests = TestFacts(0, (), reason="changes no code" if near.green else "no near test passes on the base")
        else:
            patch = wanted[keys[0]]
            try:
                tests = await held_against(bench, near, f"near-{keys[0]}", lambda sandbox: lay(sandbox, tree, patch))
            except (OSError, ValueError) as error:  # it leaves a file where another's folder should be
                tests = TestFacts(len(near.green), (NOTHING_RAN,), reason=f"it cannot be laid out: {words_of(error)}")
            counted = f"{len(tests.broken)} of {tests.asked} near tests broken"
            say(f"{evidence.instance} {keys[0]}: {counted}")
        evidence = evidence.with_found(**{key: replace(evidence.found[key], tests=tests) for key in keys})
        keep(evidence)

    await in_parallel(hold(keys, twin) for keys, twin in _untested(evidence, wanted))
    return evidence


async def held_against(
    bench: NearSettings, base: NearBase, name: str, prepare: Callable[[Sandbox], Awaitable[None]]
) -> TestFacts:
    """The near tests on a candidate, which `prepare` lays over the base. Broken is what does not pass twice. What had
    not run when its time was up is not compared. Raises SandboxFailed where no sandbox works."""

    async def prepared(name: str) -> Sandbox:
        sandbox = await bench.opened(name)
        try:
            await prepare(sandbox)
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    patient = replace(bench, opened=prepared, test_seconds=PATIENCE * bench.test_seconds)
    try:
        ran = await patient.tests(name, base.green, bench.together)
        compared = [test for test in base.green if _told(ran, test)]
        broken = [test for test in compared if outcome_of(ran, test) != "passed"]
        if broken and ran.outcomes:
            again = await patient.tests(f"{name}-again", broken, bench.together)
            broken = [test for test in broken if outcome_of(again, test) != "passed"]
    except SandboxFailed as error:
        await bench.probe()
        return TestFacts(len(base.green), (NOTHING_RAN,), reason=f"its tests take the sandbox down: {error}")
    if not ran.outcomes:
        return TestFacts(len(base.green), (NOTHING_RAN,), reason=ran.reason)
    return TestFacts(len(compared), tuple(broken[:50]), ran.reason)


def _told(ran: TestReport, test: str) -> bool:
    """Whether a run says anything of a test: one that is missing in a whole run is gone."""
    return ran.valid or outcome_of(ran, test) != "missing"


def _untested(evidence: InstanceEvidence, wanted: Collection[str]) -> list[tuple[list[str], TestFacts | None]]:
    """The `wanted` patches that no test was run on, those of the same code together, which are run once, each group with
    what is known of that code already."""
    groups: dict[str, list[str]] = {}
    for key, facts in evidence.found.items():
        groups.setdefault(facts.static.code or key, []).append(key)
    found = []
    for keys in groups.values():
        told = {key: each for key in keys if (each := evidence.found[key].tests) is not None}
        if new := [key for key in keys if key in wanted and key not in told]:
            found.append((new, next(iter(told.values()), None)))
    return found
