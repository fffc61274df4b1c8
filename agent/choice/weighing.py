"""The ranker's word on the candidates of an issue: each one's probability of being right, by all the evidence that
there is.

What the patches themselves tell is looked at in memory. What the issue's own code does is found out only where several
candidates are acceptable, and is written to the trace, so that it is found out once. What the verification's tests
showed counts before the ranker's word, and is no part of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from agent.choice.case import Case, Ground, Known
from agent.choice.order import Findings, Weighed, objections
from harness import trace
from harness.choosing.behaviour import probe_rows, steps_of_each
from harness.choosing.features import rows
from harness.choosing.found import InstanceEvidence
from harness.choosing.gather import gather_probes, gather_static
from harness.choosing.pool import Sample
from harness.choosing.ranker import read_weights
from tasks.errors import SandboxFailed

PROBING_SECONDS = 300.0
"""For the issue's own code on the base and on all candidates; what takes longer counts for none of them."""

_HERE = "run"
"""What the issue at hand is called among the evidence: the gathering knows instances by name."""


async def weigh(case: Case, models: Mapping[int, str], found: Findings) -> Findings:
    """What is `found`, with the ranker's word on the candidates, all of them verified, and with what the issue's own
    code showed. `models`: by attempt, who made it."""
    ground, weights = case.ground, read_weights()
    if not case.candidates or ground is None:
        return replace(found, weighed={})
    samples = {c.id: tuple(Sample(_HERE, str(n), models[n], c.patch) for n in c.attempts) for c in case.candidates}
    every = tuple(sample for of_it in samples.values() for sample in of_it)
    evidence = await asyncio.to_thread(gather_static, InstanceEvidence(_HERE, every), case.statement, ground.tree)
    against = objections(case.candidates)
    acceptable = tuple(s for c in case.candidates if not against[c.id] for s in samples[c.id])
    if len({sample.patch for sample in acceptable}) > 1:
        evidence = replace(await _probed(case, ground, replace(evidence, samples=acceptable)), samples=every)
    row_of = {source: row for row in rows(evidence) for source in row.sources}
    chosen = {c.id: row_of[str(c.attempts[0])] for c in case.candidates}
    patches = {id: row.patch for id, row in chosen.items()}
    did = steps_of_each(evidence, patches)
    words = {
        id: Weighed(weights.probability(row), weights.parts(row), tuple(sorted(did[id].items())))
        for id, row in chosen.items()
    }
    shown = (*(found.shown or ()), *probe_rows(evidence, patches))
    return replace(found, weighed=words, shown=shown, calibrated_on=weights.fitted_on, kinds=weights.kinds)


async def _probed(case: Case, ground: Ground, evidence: InstanceEvidence) -> InstanceEvidence:
    """The evidence with what the issue's own code does, as far as the trace does not say: all of it, or nothing."""
    probed = [e for e in case.events if isinstance(e, trace.Probed)]
    if any(e.note for e in probed) or not any(path.endswith(".py") for path in ground.tree.files()):
        return evidence
    known, keep = _as_probed(evidence, probed), partial(_write_new, case)
    try:
        async with ground.slots, asyncio.timeout(PROBING_SECONDS):
            return await gather_probes(known, ground.tree, ground.opened, keep=keep)
    except TimeoutError:
        note = f"it takes more than {PROBING_SECONDS:g} s"
    except SandboxFailed as error:
        note = str(error)
    case.say(f"the issue's own code is left out: {note}")
    case.write(trace.Probed(patch="", note=note))
    return evidence


def _write_new(case: Case, evidence: InstanceEvidence) -> None:
    """What the trace does not have yet: of the base, then of one candidate after the other when it is done."""
    base = evidence.base
    if not base.probes:
        return
    written = {e.patch for e in case.events if isinstance(e, trace.Probed)}
    if "" not in written:
        sources = {name: list(steps) for name, steps in base.sources.items()}
        case.write(trace.Probed(patch="", shown=trace.public(base.probes), sources=sources, unsteady=base.unsteady))
    for patch, found in evidence.found.items():
        if found.probes is not None and patch not in written:
            case.write(trace.Probed(patch=patch, shown=trace.public(found.probes)))


def _as_probed(evidence: InstanceEvidence, probed: Sequence[trace.Probed]) -> InstanceEvidence:
    """The evidence with what the trace says of probes."""
    shown = Known.of(probed, ()).steps
    first = next((e for e in probed if not e.patch), None)
    base = evidence.base
    if first is not None:
        sources = {name: tuple(steps) for name, steps in first.sources.items()}
        base = replace(base, probes=shown[""], sources=sources, unsteady=first.unsteady)
    found = {key: replace(f, probes=shown.get(key, f.probes)) for key, f in evidence.found.items()}
    return replace(evidence, base=base, found=found)
