"""The evidence that the research on choosing works with: gathered on a pool of patches, and kept on disk; ranking reads
nothing else. Beside what a run looks at (`harness.choosing`), the tests near a change, as a feature: in a run a candidate
that breaks one is not acceptable, so its ranker never hears of them.

    RUN/evidence/<instance>.json  what was found out about the base and each distinct patch, by the digest of its text

What has to be run is None until it was; gathering again adds what is missing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log1p
from pathlib import Path
from statistics import fmean
from typing import cast

from harness.cache import write_json
from harness.choosing import features
from harness.choosing.features import CandidateFeatures
from harness.choosing.found import Base, Found, InstanceEvidence, Keep, digest
from harness.choosing.gather import import_names, lay
from harness.choosing.pool import Sample
from harness.choosing.ranker import Weights
from harness.environments.environment import Built, CleanRoom
from harness.evidence.near import AT_ONCE, files_near, near_tests, together, what_is_touched
from harness.parallel import in_parallel
from harness.records import TestReport
from harness.repository.base_tree import BaseTree
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from harness.sandbox.fresh import Opened, probe
from harness.testing.report import outcome_of
from harness.testing.runners.registry import USUAL_COMMAND
from harness.testing.runners.sympy import Sympy
from harness.trace import record
from tasks.errors import InputError, SandboxFailed, words_of
from tasks.say import Say
from tests.bench.graded import unlabelled

SCHEMA = 2

TESTS = ("breaks-tests", "breaks-tests-alone")
KINDS = {**features.KINDS, "tests": TESTS}
"""The features by kind of evidence, those of the near tests too; an ablation takes whole kinds away."""

NAMES = (*features.NAMES, *TESTS)

FINALISTS = 4
"""Candidates that are held against the near tests: the others would have to pass all of these."""

NEAR_SECONDS = 12.0
"""For the near tests of one candidate, as the base takes."""

NOTHING_RAN = "<nothing ran>"
"""Stands among the broken tests where a candidate lets no test run."""

PATIENCE = 3.0
"""So many times longer than on the base a test may take on a candidate: else one that was just quick enough there would
fail on a machine that has become busier."""


@dataclass(frozen=True, slots=True)
class TestFacts:
    """Near tests on one candidate: `broken` pass on the base every time and not here. `asked`: how many tests were
    compared. `reason`: what was odd about the run, mostly empty."""

    __test__ = False

    asked: int
    broken: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NearEvidence(InstanceEvidence):
    """What a run looks at, and the near tests. `green`: those that pass on the base every time, None until they were run;
    `tests`: on each patch that was held against them, by its digest."""

    green: tuple[str, ...] | None = None
    tests: Mapping[str, TestFacts] = field(default_factory=dict)


def rows(evidence: InstanceEvidence) -> list[CandidateFeatures]:
    """The distinct candidates of an instance with their features, those of the near tests too (0.0 where none ran)."""
    table = features.rows(evidence)
    tests = evidence.tests if isinstance(evidence, NearEvidence) else {}
    broken = [None if (each := tests.get(digest(row.patch))) is None else set(each.broken) for row in table]
    breakers = Counter(test for each in broken for test in each or ())
    often = max(1.0, sum(each is not None for each in broken) / 3)
    alone = [None if each is None else {test for test in each if breakers[test] <= often} for each in broken]
    columns = {name: _known(table, found) for name, found in zip(TESTS, (broken, alone), strict=True)}
    means = {name: fmean(column) for name, column in columns.items()}
    return [
        replace(
            row,
            absolute={**row.absolute, **{name: columns[name][at] for name in TESTS}},
            relative={**row.relative, **{name: columns[name][at] - means[name] for name in TESTS}},
        )
        for at, row in enumerate(table)
    ]


def _known(table: Sequence[CandidateFeatures], broken: Sequence[Collection[str] | None]) -> list[float]:
    """How many tests each candidate breaks, as a logarithm. One that was not held against them counts as the mean of the
    samples that were: neither for nor against."""
    values = [None if each is None else log1p(len(each)) for each in broken]
    known = [value for value, row in zip(values, table, strict=True) if value is not None for _ in row.sources]
    mean = fmean(known or [0.0])
    return [mean if value is None else value for value in values]


def command_of_project(packages: Collection[str]) -> str:
    """The command that runs the tests of a project with these import names in an environment that nobody described."""
    return Sympy.command if "sympy" in packages else USUAL_COMMAND


def write_found(directory: Path, evidence: InstanceEvidence) -> None:
    """Keep what was found out about an instance; whole or not at all."""
    near = evidence if isinstance(evidence, NearEvidence) else NearEvidence(evidence.instance, ())
    body = {
        "schema": SCHEMA,
        "instance": evidence.instance,
        "base": dataclasses.asdict(evidence.base),
        "found": {key: dataclasses.asdict(each) for key, each in evidence.found.items()},
        "green": near.green,
        "tests": {key: dataclasses.asdict(each) for key, each in near.tests.items()},
    }
    write_json(_place(directory, evidence.instance), body)


def keeping(directory: Path) -> Keep:
    """Keeps evidence in the run's directory."""
    return lambda evidence: write_found(directory, evidence)


def evidence_so_far(directory: Path, instance: str, samples: Sequence[Sample] = ()) -> NearEvidence:
    """What the run holds on these samples, which may be nothing. Raises InputError for a damaged file or another
    schema."""
    nothing = NearEvidence(instance, unlabelled(samples))
    place = _place(directory, instance)
    if not place.exists():
        return nothing
    try:
        body = json.loads(place.read_bytes())
        if body["schema"] != SCHEMA:
            raise InputError(f"{place} was written by another version; gather the evidence again in a new directory")
        base, found = record(Base, body["base"]), record(dict[str, Found], body["found"])
        green = None if body["green"] is None else record(tuple[str, ...], body["green"])
        return replace(nothing, base=base, found=found, green=green, tests=record(dict[str, TestFacts], body["tests"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{place} is damaged: {error}") from error


def evidence_of(directory: Path, instance: str, samples: Sequence[Sample]) -> NearEvidence:
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


@dataclass(frozen=True, slots=True)
class _ByName:
    """What a clean room asks of a provider, where sandboxes are made by their names alone."""

    opened: Opened

    async def create(self, spec: SandboxSpec) -> Sandbox:
        return await self.opened(spec.name)


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
) -> NearEvidence:
    """The evidence with what the near tests say on the base, run twice, and on every distinct candidate that was not
    held against them yet.

    `only`: the digests of the patches that are held against them, None for all. `command`: runs the tests (None: the
    project's own runner, or the usual framework). `seconds`: what one run of them takes on the base, at most about.
    `slots` bounds the sandboxes at a time, for several instances at once. `keep` is told after the base and
    after every candidate. Raises SandboxFailed.
    """
    held = (
        evidence
        if isinstance(evidence, NearEvidence)
        else NearEvidence(evidence.instance, evidence.samples, evidence.base, evidence.found)
    )
    wanted = {key: patch for key, patch in evidence.patches.items() if only is None or key in only}
    if wanted.keys() <= held.tests.keys():
        return held
    usual = command or command_of_project(import_names(tree.files()))
    slots = slots or asyncio.Semaphore(AT_ONCE)
    provider, built = cast(Provider, _ByName(opened)), Built("", None, "", usual)
    room = CleanRoom(provider, built, "select", test_seconds=max(seconds / 3, 1.0), slots=slots)
    if held.green is None:
        touched = await asyncio.to_thread(what_is_touched, tree, list(evidence.patches.values()))
        found = await near_tests(room, await asyncio.to_thread(files_near, tree, touched), seconds)
        held = replace(held, green=found.green)
        keep(held)
    green = held.green or ()

    async def hold(keys: Sequence[str], tests: TestFacts | None) -> None:
        nonlocal held
        if tests is not None:
            pass
        elif not green or evidence.found[keys[0]].idle:
            tests = TestFacts(0, (), reason="changes no code" if green else "no near test passes on the base")
        else:
            patch = wanted[keys[0]]
            try:
                tests = await held_against(room, green, f"near-{keys[0]}", lambda s: lay(s, tree, patch), seconds)
            except (OSError, ValueError) as error:  # it leaves a file where another's folder should be
                tests = TestFacts(len(green), (NOTHING_RAN,), reason=f"it cannot be laid out: {words_of(error)}")
            counted = f"{len(tests.broken)} of {tests.asked} near tests broken"
            say(f"{evidence.instance} {keys[0]}: {counted}")
        held = replace(held, tests={**held.tests, **dict.fromkeys(keys, tests)})
        keep(held)

    await in_parallel(hold(keys, twin) for keys, twin in _untested(held, wanted))
    return held


async def held_against(
    room: CleanRoom, green: Sequence[str], name: str, prepare: Callable[[Sandbox], Awaitable[None]], seconds: float
) -> TestFacts:
    """The near tests on a candidate, which `prepare` lays over the base. Broken is what does not pass twice. What had
    not run when its time was up is not compared. Raises SandboxFailed where no sandbox works."""
    patient = replace(room, timeout=together(seconds), test_seconds=PATIENCE * room.test_seconds)

    async def told(name: str, tests: Sequence[str]) -> TestReport:
        async def work(sandbox: Sandbox) -> TestReport:
            await prepare(sandbox)
            return await patient.tests(sandbox, tests)

        return await patient.fresh(name, work)

    try:
        ran = await told(name, green)
        compared = [test for test in green if _told(ran, test)]
        broken = [test for test in compared if outcome_of(ran, test) != "passed"]
        if broken and ran.outcomes:
            again = await told(f"{name}-again", broken)
            broken = [test for test in broken if outcome_of(again, test) != "passed"]
    except SandboxFailed as error:
        await probe(room.provider, room.spec("near-probe"))
        return TestFacts(len(green), (NOTHING_RAN,), reason=f"its tests take the sandbox down: {error}")
    if not ran.outcomes:
        return TestFacts(len(green), (NOTHING_RAN,), reason=ran.reason)
    return TestFacts(len(compared), tuple(broken[:50]), ran.reason)


def _told(ran: TestReport, test: str) -> bool:
    """Whether a run says anything of a test: one that is missing in a whole run is gone."""
    return ran.valid or outcome_of(ran, test) != "missing"


def _untested(evidence: NearEvidence, wanted: Collection[str]) -> list[tuple[list[str], TestFacts | None]]:
    """The `wanted` patches that no test was run on, those of the same code together, which are run once, each group with
    what is known of that code already."""
    groups: dict[str, list[str]] = {}
    for key, facts in evidence.found.items():
        groups.setdefault(facts.static.code or key, []).append(key)
    found = []
    for keys in groups.values():
        told = {key: evidence.tests[key] for key in keys if key in evidence.tests}
        if new := [key for key in keys if key in wanted and key not in told]:
            found.append((new, next(iter(told.values()), None)))
    return found
