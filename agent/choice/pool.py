"""Choosing among patches that exist already: evidence on each, kept in a run directory, then an order by the ranker or
the rules.

`gather` fills the directory and needs the repositories, and for what is run, sandboxes. `rank` reads nothing but the
directory.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choice.case import Ground
from agent.choice.order import JUDGED_AT_MOST, NEAR, select, undecided
from harness.cache import cache_root
from harness.choosing.evidence_store import Base, Found, InstanceEvidence, digest, evidence_so_far, keeping
from harness.choosing.features import CandidateFeatures, rows
from harness.choosing.pool import Sample
from harness.choosing.ranker import Weights, finalists
from harness.parallel import apart, in_parallel
from harness.patches.patch import Patch
from harness.records import Candidate, Evidence, Json, Ranker, WitnessTest
from tasks.errors import words_of
from tasks.say import Say

if TYPE_CHECKING:
    from harness.repository.workspace import Workspace
    from harness.sandbox.base import Limits
    from tasks.task import Task


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance's code is, and how it is run. `image`: of a suite's instance, None where there is none here;
    for a task of its own the environment is set up as `solve` does (`task`)."""

    workspace: Workspace
    statement: str
    image: str | None = None
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """A place in the order. `probability` None by the rules. `parts`: what counted, the most important first."""

    sources: tuple[str, ...]
    patch: str
    probability: float | None
    parts: Mapping[str, float]
    why: str


@dataclass(frozen=True, slots=True)
class PoolChoice:
    """The order of one instance's candidates, best first, and the selected one (None: none is good enough)."""

    instance: str
    order: tuple[Ordered, ...]
    selected: Ordered | None
    rationale: str

    def as_json(self) -> Json:
        return {
            "instance": self.instance,
            "selected": list(self.selected.sources) if self.selected else None,
            "rationale": self.rationale,
            "candidates": [{k: v for k, v in dataclasses.asdict(each).items() if k != "patch"} for each in self.order],
        }


@dataclass(frozen=True, slots=True)
class Lookout:
    """How an instance's code is got at and run. `directory`: of the run. `place_of` None for an instance whose code is
    not at hand. `execute` False: nothing is run. `checks` bounds the sandboxes at a time, over all instances."""

    directory: Path
    place_of: Callable[[str], Place | None]
    execute: bool
    limits: Limits
    sandbox: str
    checks: asyncio.Semaphore
    say: Say

    @asynccontextmanager
    async def ground(self, instance: str, place: Place) -> AsyncIterator[Ground | None]:
        """Where the instance's candidates can be tried out; None where nothing can be run."""
        if not self.execute or (place.image is None and place.task is None):
            yield None
            return
        from harness.environments.environment import build
        from harness.repository.base_tree import open_tree
        from harness.sandbox.base import Sandbox, SandboxSpec
        from harness.sandbox.choice import choose_provider

        image = place.image or (place.task.environment.image if place.task else None)
        provider = await choose_provider(self.sandbox, image=image, cache=cache_root(), say=self.say)
        run, limits = self.directory.name, self.limits
        try:
            environment, command = None, None
            if place.task is not None:
                built = await build(provider, place.workspace, place.task, run=run, limits=limits, say=self.say)
                environment, command = built.key, built.test_command

            async def opened(name: str) -> Sandbox:
                own = f"{instance}-{name}"[:100]
                spec = SandboxSpec(run=run, name=own, environment=environment, image=place.image, limits=limits)
                return await provider.create(spec)

            with open_tree(place.workspace.git_dir, place.workspace.base_commit) as tree:
                yield Ground(tree, opened, command, self.checks)
        finally:
            await provider.close()


async def gather(
    lookout: Lookout,
    samples: Mapping[str, Sequence[Sample]],
    *,
    witnesses: Mapping[str, Sequence[WitnessTest]],
    weights: Weights,
    near_seconds: float,
    at_once: int,
) -> None:
    """All evidence that can be had on every instance; what the run directory has already is not looked for again.

    `witnesses`: tests of attempts, by instance. `near_seconds`: of tests near the change. `at_once`: instances. What
    goes wrong on an instance (sandboxes that keep dying) ends the evidence on that one; it is raised where there is no
    other.
    """
    slots = asyncio.Semaphore(at_once)

    async def one(instance: str, of_it: Sequence[Sample]) -> None:
        async with slots:
            lookout.say(f"{instance}: {len(of_it)} candidates")
            try:
                evidence = evidence_so_far(lookout.directory, instance, of_it)
                await _gather_one(lookout, evidence, witnesses.get(instance, ()), weights, near_seconds)
            except Exception as error:  # one instance's fault ends no other's
                if len(samples) == 1:
                    raise
                lookout.say(f"{instance}: {words_of(error)}; it goes on with what is known")

    await in_parallel(one(instance, of_it) for instance, of_it in sorted(samples.items()))


async def _gather_one(
    lookout: Lookout, evidence: InstanceEvidence, witnesses: Sequence[WitnessTest], weights: Weights, seconds: float
) -> None:
    from harness.choosing.gather import gather_probes, gather_static, gather_tests
    from harness.repository.base_tree import open_tree

    keep = keeping(lookout.directory)
    place = await apart(lookout.place_of, evidence.instance)
    if place is None:
        keep(await asyncio.to_thread(gather_static, evidence, "", None))
        return
    with open_tree(place.workspace.git_dir, place.workspace.base_commit) as tree:
        evidence = await asyncio.to_thread(gather_static, evidence, place.statement, tree)
    keep(evidence)
    async with lookout.ground(evidence.instance, place) as ground:
        if ground is None:
            return
        say = lookout.say
        evidence = await gather_probes(evidence, ground.tree, ground.opened, witnesses=witnesses, keep=keep, say=say)
        await gather_tests(
            evidence,
            ground.tree,
            ground.opened,
            only=_stand_first(evidence, weights),
            command=ground.command,
            seconds=seconds,
            slots=ground.slots,
            keep=keep,
            say=say,
        )


def _stand_first(evidence: InstanceEvidence, weights: Weights) -> set[str]:
    """The digests of the patches that are worth running tests on."""
    code = {row.sources for row in finalists(rows(evidence), weights)}
    return {digest(s.patch) for s in evidence.samples if any(s.source in sources for sources in code)}


def choose(
    evidence: InstanceEvidence,
    weights: Weights,
    ranker: Ranker,
    threshold: float,
    points: Mapping[str, float] | None = None,
) -> PoolChoice:
    """Order the candidates of an instance and choose. `threshold`: the least probability, by the ranker. `points`: the
    judge's, by the ids of the candidates `for_the_judge`."""
    table = rows(evidence)
    if ranker == "rules":
        return _by_rules(evidence, table, points)
    judged = points or {}
    ranked = [_ordered(row, weights) for row in sorted(table, key=lambda r: (-weights.score(r), r.absolute["size"]))]
    order = tuple(sorted(ranked, key=lambda each: -judged.get(name_of(each.patch), 0.0)))
    best = order[0]
    assert best.probability is not None, "the ranker gives one"
    if evidence.found[digest(best.patch)].static.applies == "no":
        return PoolChoice(evidence.instance, order, None, "No candidate that stands first applies to the base.")
    if best.probability < threshold:
        said = f"The best candidate's probability, {best.probability:.2f}, is below {threshold:g}."
        return PoolChoice(evidence.instance, order, None, said)
    first = {judged.get(name_of(each.patch), 0.0) for each in order[:2]}
    by_judge = "The judge preferred it. " if len(first) > 1 else ""
    return PoolChoice(evidence.instance, order, best, f"{by_judge}P(right) = {best.probability:.2f}: {best.why}")


def name_of(patch: str) -> str:
    """A candidate's id, the same however the others change."""
    return digest(patch)[:8]


def for_the_judge(evidence: InstanceEvidence, weights: Weights, ranker: Ranker, threshold: float) -> list[Candidate]:
    """The candidates that stand first and too close together, for a judge; none where nothing is selected."""
    chosen = choose(evidence, weights, ranker, threshold)
    if chosen.selected is None:
        return []
    known = {c.patch: c for c in _candidates(evidence, rows(evidence))}
    if ranker == "rules":
        return undecided(list(known.values()))
    least = max(threshold, (chosen.selected.probability or 0.0) - NEAR)
    close = [known[each.patch] for each in chosen.order if (each.probability or 0.0) >= least]
    able = [c for c in close if c.evidence is not None and c.evidence.applies and c.evidence.valid]
    return able[:JUDGED_AT_MOST] if len(able) > 1 else []


def _ordered(row: CandidateFeatures, weights: Weights) -> Ordered:
    parts = weights.parts(row)
    named = [f"{name} {value:+.2f}" for name, value in list(parts.items())[:4]]
    why = ", ".join(named) or "nothing tells it apart"
    return Ordered(row.sources, row.patch, weights.probability(row), parts, why)


def _candidates(evidence: InstanceEvidence, table: Sequence[CandidateFeatures]) -> list[Candidate]:
    """The rows as `solve` knows candidates."""
    return [
        Candidate(
            name_of(row.patch),
            row.patch,
            tuple(range(len(row.sources))),
            Patch(row.patch).flags,
            _as_evidence(evidence.found[digest(row.patch)], evidence.base),
        )
        for row in table
    ]


def _by_rules(
    evidence: InstanceEvidence, table: Sequence[CandidateFeatures], points: Mapping[str, float] | None
) -> PoolChoice:
    """The order that `solve --ranker rules` has."""
    chosen = select(_candidates(evidence, table), len(evidence.samples), points)
    row_of = {name_of(row.patch): row for row in table}
    ranking = [(row_of[ranked.candidate], ranked.why) for ranked in chosen.ranking]
    order = tuple(Ordered(row.sources, row.patch, None, {}, why) for row, why in ranking)
    return PoolChoice(evidence.instance, order, order[0] if chosen.candidate else None, chosen.rationale)


def _as_evidence(found: Found, base: Base) -> Evidence:
    """What the rules look at: near tests as regression tests, steps that failed on the base as witness tests."""
    broken = set(found.tests.broken) if found.tests else set()
    green = base.near.green if base.near and found.tests else ()
    before = {f"{p}/{n}": s.error for p, of_it in (base.probes or {}).items() for n, s in enumerate(of_it)}
    after = {f"{p}/{n}": s.error for p, of_it in (found.probes or {}).items() for n, s in enumerate(of_it)}
    failing = {name for name, error in before.items() if error and error != "NameError"}
    return Evidence(
        applies=found.static.applies != "no",
        valid=not found.static.unparsed,
        regression={test: "failed" if test in broken else "passed" for test in (*green, *broken)},
        witness={name: "failed" if after.get(name, "missing") else "passed" for name in sorted(failing & after.keys())},
        reason="it does not parse" if found.static.unparsed else found.static.reason,
    )
