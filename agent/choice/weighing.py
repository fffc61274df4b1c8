"""The ranker's word on the candidates of an issue: each one's probability of being right, by all the evidence that
there is.

What the patches themselves tell is looked at in memory. What the issue's own code does is found out only where several
candidates are acceptable, and is written to the trace, so that it is found out once. Regression and witness outcomes
are those of the verification; nothing of it is run again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.choice.case import Case, Ground
from agent.choice.order import Weighed, why_not
from harness import trace
from harness.choosing.evidence_store import InstanceEvidence, Steps, TestFacts, digest
from harness.choosing.features import rows
from harness.choosing.gather import gather_probes, gather_static
from harness.choosing.pool import Sample
from harness.choosing.probe_facts import Seen
from harness.choosing.probes import WITNESS
from harness.choosing.ranker import SHIPPED, read_weights
from harness.records import Candidate, Json
from tasks.errors import SandboxFailed

PROBING_SECONDS = 300.0
"""For the issue's own code on the base and on all candidates; what takes longer counts for none of them."""

_HERE = "run"
"""What the issue at hand is called among the evidence: the gathering knows instances by name."""


async def weigh(case: Case, models: Mapping[int, str]) -> dict[str, Weighed]:
    """The ranker's word by candidate id, on candidates that are all verified. `models`: by attempt, who made it."""
    ground = case.ground
    if not case.candidates or ground is None:
        return {}
    samples = {c.id: tuple(Sample(_HERE, str(n), models[n], c.patch) for n in c.attempts) for c in case.candidates}
    every = tuple(sample for of_it in samples.values() for sample in of_it)
    evidence = await asyncio.to_thread(gather_static, InstanceEvidence(_HERE, every), case.statement, ground.tree)
    acceptable = tuple(s for c in case.candidates if not why_not(c) for s in samples[c.id])
    if len({sample.patch for sample in acceptable}) > 1:
        evidence = replace(await _probed(case, ground, replace(evidence, samples=acceptable)), samples=every)
    evidence = _with_verification(evidence, case.candidates)
    weights = read_weights(SHIPPED)
    row_of = {source: row for row in rows(evidence) for source in row.sources}
    chosen = {c.id: row_of[str(c.attempts[0])] for c in case.candidates}
    return {name: Weighed(weights.probability(row), weights.parts(row)) for name, row in chosen.items()}


async def _probed(case: Case, ground: Ground, evidence: InstanceEvidence) -> InstanceEvidence:
    """The evidence with what the issue's own code does, as far as the trace does not say: all of it, or nothing."""
    probed = [e for e in case.events if isinstance(e, trace.Probed)]
    if any(e.note for e in probed):
        return evidence
    try:
        async with ground.slots, asyncio.timeout(PROBING_SECONDS):
            return await _probes(case, ground, _as_probed(evidence, probed))
    except TimeoutError:
        note = f"it takes more than {PROBING_SECONDS:g} s"
    except SandboxFailed as error:
        note = str(error)
    case.say(f"the issue's own code is left out: {note}")
    case.write(trace.Probed(patch="", note=note))
    return evidence


async def _probes(case: Case, ground: Ground, evidence: InstanceEvidence) -> InstanceEvidence:
    """Probe the base and then one candidate after the other, each written to the trace when it is done."""
    if not any(path.endswith(".py") for path in ground.tree.paths()):
        return evidence
    return await gather_probes(evidence, ground.tree, ground.opened, keep=lambda known: _write_new(case, known))


def _write_new(case: Case, evidence: InstanceEvidence) -> None:
    base = evidence.base
    if not base.probes:
        return
    written = {e.patch for e in case.events if isinstance(e, trace.Probed)}
    if "" not in written:
        sources = {name: list(steps) for name, steps in base.sources.items()}
        case.write(trace.Probed(patch="", shown=_plain(base.probes), sources=sources, unsteady=base.unsteady))
    for patch, found in evidence.found.items():
        if found.probes is not None and patch not in written:
            case.write(trace.Probed(patch=patch, shown=_plain(found.probes)))


def _plain(steps: Steps | None) -> Json:
    return {name: [dataclasses.asdict(seen) for seen in of_it] for name, of_it in (steps or {}).items()}


def _as_probed(evidence: InstanceEvidence, probed: Sequence[trace.Probed]) -> InstanceEvidence:
    """The evidence with what the trace says of probes."""
    shown = {e.patch: trace.record(dict[str, tuple[Seen, ...]], e.shown) for e in probed}
    first = next((e for e in probed if not e.patch), None)
    base = evidence.base
    if first is not None:
        sources = {name: tuple(steps) for name, steps in first.sources.items()}
        base = replace(base, probes=shown[""], sources=sources, unsteady=first.unsteady)
    found = {key: replace(f, probes=shown.get(key, f.probes)) for key, f in evidence.found.items()}
    return replace(evidence, base=base, found=found)


def _with_verification(evidence: InstanceEvidence, candidates: Sequence[Candidate]) -> InstanceEvidence:
    """The evidence with the verification's outcomes: regression tests as near tests, witness tests as probes."""
    names = sorted({name for c in candidates if c.evidence for name in c.evidence.witness})
    steps = {name: f"{WITNESS}{n}" for n, name in enumerate(names, 1)}
    found = dict(evidence.found)
    for candidate in candidates:
        seen = candidate.evidence
        if seen is None or not seen.applies:
            continue
        key = digest(candidate.patch)
        witness = {steps[n]: (Seen("", "" if o == "passed" else o),) for n, o in seen.witness.items()}
        tests = TestFacts(len(seen.regression), seen.broken) if seen.regression else None
        found[key] = replace(found[key], probes={**(found[key].probes or {}), **witness}, tests=tests)
    on_base = {step: (Seen("", "failed"),) for step in steps.values()}
    base = replace(evidence.base, probes={**(evidence.base.probes or {}), **on_base})
    return replace(evidence, base=base, found=found)
