"""Choosing among patches that exist already: evidence on each, kept in a run directory, then an order by the ranker or
the rules.

`gather` fills the directory and needs the repositories, and for what is run, sandboxes. `rank` reads nothing but the
directory.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choice.case import Ground
from agent.choice.hearing import NO_WORD, Word
from agent.choice.order import Findings, select, undecided
from agent.choice.weighing import weighed
from harness.cache import cache_root
from harness.choosing.evidence_store import InstanceEvidence, digest, evidence_so_far, keeping
from harness.choosing.features import CandidateFeatures, rows
from harness.choosing.pool import Sample
from harness.choosing.probes import WITNESS
from harness.choosing.ranker import Weights, finalists
from harness.evidence.shown import Shown, of_evidence
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

    async def each(
        self, instances: Sequence[str], of: int, at_once: int, otherwise: str, work: Callable[[str], Awaitable[None]]
    ) -> None:
        """Do the work on each instance; one's fault ends no other's, if it is one `of` several, and is said, with what
        happens otherwise."""
        slots = asyncio.Semaphore(at_once)

        async def one(instance: str) -> None:
            async with slots:
                try:
                    await work(instance)
                except Exception as error:
                    if of == 1:
                        raise
                    self.say(f"{instance}: {words_of(error)}; {otherwise}")

        await in_parallel(map(one, instances))

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

    async def one(instance: str) -> None:
        lookout.say(f"{instance}: {len(samples[instance])} candidates")
        evidence = evidence_so_far(lookout.directory, instance, samples[instance])
        await _gather_one(lookout, evidence, witnesses.get(instance, ()), weights, near_seconds)

    await lookout.each(sorted(samples), len(samples), at_once, "it goes on with what is known", one)


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


@dataclass(frozen=True)
class Pool:
    """An instance's distinct candidates as `solve` knows them, and how they are ordered. `threshold`: the least
    probability, by the ranker, or strength."""

    evidence: InstanceEvidence
    weights: Weights
    ranker: Ranker
    threshold: float | str

    @cached_property
    def rows(self) -> dict[str, CandidateFeatures]:
        """The features by candidate id, which is the same however the other candidates change."""
        return {digest(row.patch)[:8]: row for row in rows(self.evidence)}

    @cached_property
    def candidates(self) -> list[Candidate]:
        """With the evidence as `solve` has it."""
        return [
            Candidate(i, r.patch, tuple(range(len(r.sources))), Patch(r.patch).flags, self._as_evidence(r.patch))
            for i, r in self.rows.items()
        ]

    @property
    def able(self) -> list[Candidate]:
        """The candidates that can be tried out."""
        return [c for c in self.candidates if c.evidence and c.evidence.applies and c.evidence.valid]

    @cached_property
    def found(self) -> Findings:
        """All that orders the candidates. By the ranker only what cannot be applied or parsed is not acceptable: near
        tests are features of it, and were not run on all."""
        found = weighed(Findings(shown=of_evidence(self.candidates)), self.evidence, self.weights, self.rows)
        if self.ranker == "rules":
            return Findings(shown=found.shown)
        objections = {c.id: "" if c in self.able else "does not apply, or is no Python" for c in self.candidates}
        return replace(found, objections=objections, kinds=found.kinds | {"regression"})

    def finalists(self, shown: Sequence[Shown] = ()) -> list[Candidate]:
        """Those that stand first and too close together, for a judge whose tests showed this so far; none where nothing
        is selected."""
        return undecided(self.candidates, self.found.with_shown(shown), self.threshold)

    def choose(self, word: Word = NO_WORD) -> PoolChoice:
        """Order the candidates and choose. `word`: the judge's."""
        chosen = select(self.candidates, self.found.with_shown(word.shown), word.points, self.threshold)
        order, said = [], chosen.rationale + word.warning
        for ranked in chosen.ranking:
            row, by_ranker = self.rows[ranked.candidate], (self.found.weighed or {}).get(ranked.candidate)
            number, parts = (by_ranker.probability, by_ranker.parts) if by_ranker else (None, {})
            order.append(Ordered(row.sources, row.patch, number, parts, ranked.why))
            said = said.replace(ranked.candidate, row.sources[0])
        return PoolChoice(self.evidence.instance, tuple(order), order[0] if chosen.candidate else None, said)

    def _as_evidence(self, patch: str) -> Evidence:
        """Near tests as regression tests; witness tests that fail on the base."""
        found, base = self.evidence.found[digest(patch)], self.evidence.base
        broken = set(found.tests.broken) if found.tests else set()
        green = base.near.green if base.near and found.tests else ()
        failing = {n for n, steps in (base.probes or {}).items() if n.startswith(WITNESS) and steps and steps[0].error}
        after = {name: steps[0].error for name, steps in (found.probes or {}).items() if name in failing and steps}
        return Evidence(
            applies=found.static.applies != "no",
            valid=not found.static.unparsed,
            regression={test: "failed" if test in broken else "passed" for test in (*green, *broken)},
            witness={name: "failed" if after[name] else "passed" for name in sorted(after)},
            reason="it does not parse" if found.static.unparsed else found.static.reason,
        )
