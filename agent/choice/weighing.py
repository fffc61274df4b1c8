"""The ranker's word on the candidates of a run: each one's probability of being right, by all the evidence that there is.

What the patches themselves tell is looked at in memory. What the issue's own code does is found out only where several candidates
are acceptable, and is written to the trace, so that it is found out once. Regression and witness outcomes are those of the
verification; nothing of it is run again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choice.order import Weighed, why_not
from harness import trace
from harness.choosing.evidence_store import (
    Base,
    Found,
    InstanceEvidence,
    Steps,
    TestFacts,
    digest,
    read_found,
    steps_of,
    write_found,
)
from harness.choosing.features import rows
from harness.choosing.gather import gather_probes, gather_static
from harness.choosing.pool import Sample
from harness.choosing.probe_facts import Seen
from harness.choosing.probes import WITNESS
from harness.choosing.ranker import SHIPPED, read_weights
from harness.records import Candidate, Json
from harness.repository.base_tree import BaseTree, open_tree
from harness.sandbox.base import Sandbox, SandboxSpec
from tasks.errors import SandboxFailed

if TYPE_CHECKING:
    from agent.run.graph import Run

PROBING_SECONDS = 300.0
"""For the issue's own code on the base and on all candidates; what takes longer counts for none of them."""

_HERE = "run"
"""What the run's task is called among the evidence: the gathering knows instances by name."""


async def weigh(run: Run, candidates: Sequence[Candidate]) -> dict[str, Weighed]:
    """The ranker's word by candidate id, on candidates that are all verified."""
    base = run.base
    assert base is not None, "prepare comes first"
    if not candidates:
        return {}
    model = {a.index: a.model for a in run.finished()}
    samples = {c.id: [Sample(_HERE, str(n), model[n], c.patch) for n in c.attempts] for c in candidates}
    every = tuple(sample for of_it in samples.values() for sample in of_it)
    with tempfile.TemporaryDirectory(prefix="troop-evidence-") as scratch:
        with open_tree(base.git_dir, base.base_commit) as tree:
            store = Path(scratch)
            await asyncio.to_thread(gather_static, store, _HERE, every, run.task.statement, tree)
            acceptable = [s for c in candidates if not why_not(c) for s in samples[c.id]]
            if len({sample.patch for sample in acceptable}) > 1:
                await _probe(run, store, acceptable, tree)
        known, found = read_found(store, _HERE)
    evidence = _with_verification(InstanceEvidence(_HERE, every, known, found), candidates)
    weights = read_weights(SHIPPED)
    row_of = {source: row for row in rows(evidence) for source in row.sources}
    chosen = {c.id: row_of[str(c.attempts[0])] for c in candidates}
    return {name: Weighed(weights.probability(row), weights.parts(row)) for name, row in chosen.items()}


async def _probe(run: Run, store: Path, samples: Sequence[Sample], tree: BaseTree) -> None:
    """Find out what the issue's own code does, as far as the trace does not say; all of it is in `store` then, or nothing."""
    static = read_found(store, _HERE)
    probed = [e for e in run.events if isinstance(e, trace.Probed)]
    note = next((e.note for e in reversed(probed) if e.note), "")
    if not note:
        write_found(store, _HERE, *_as_probed(*static, probed))
        note = await _gather(run, store, samples, tree)
        if note:
            run.say(f"the issue's own code is left out: {note}")
            run.write(trace.Probed(patch="", note=note))
    if note:
        write_found(store, _HERE, *static)


async def _gather(run: Run, store: Path, samples: Sequence[Sample], tree: BaseTree) -> str:
    """Probe the base and then one candidate after the other, each written down when it is done; why it came to nothing."""

    async def opened(name: str) -> Sandbox:
        spec = SandboxSpec(run=run.name, name=name, environment=run.environment.key, limits=run.settings.limits)
        return await run.provider.create(spec)

    if not any(path.endswith(".py") for path in tree.paths()):
        return ""
    try:
        async with run.checks, asyncio.timeout(PROBING_SECONDS):
            for done in range(len(samples) + 1):
                await gather_probes(store, _HERE, samples[:done], tree, opened)
                base, found = read_found(store, _HERE)
                if not base.probes:
                    return ""
                patch = digest(samples[done - 1].patch) if done else ""
                _write_once(run, patch, base, found)
    except TimeoutError:
        return f"it takes more than {PROBING_SECONDS:g} s"
    except SandboxFailed as error:
        return str(error)
    return ""


def _write_once(run: Run, patch: str, base: Base, found: Mapping[str, Found]) -> None:
    if any(isinstance(e, trace.Probed) and e.patch == patch for e in run.events):
        return
    if patch:
        run.write(trace.Probed(patch=patch, shown=_plain(found[patch].probes)))
    else:
        sources = {name: list(steps) for name, steps in base.sources.items()}
        run.write(trace.Probed(patch="", shown=_plain(base.probes), sources=sources, unsteady=base.unsteady))


def _plain(steps: Steps | None) -> Json:
    return {name: [dataclasses.asdict(seen) for seen in of_it] for name, of_it in (steps or {}).items()}


def _as_probed(base: Base, found: Mapping[str, Found], probed: Sequence[trace.Probed]) -> tuple[Base, dict[str, Found]]:
    """The evidence with what the trace says of probes."""
    shown = {e.patch: steps_of(e.shown) for e in probed}
    first = next((e for e in probed if not e.patch), None)
    if first is not None:
        sources = {name: tuple(steps) for name, steps in first.sources.items()}
        base = replace(base, probes=shown[""], sources=sources, unsteady=first.unsteady)
    return base, {key: replace(f, probes=shown.get(key, f.probes)) for key, f in found.items()}


def _with_verification(evidence: InstanceEvidence, candidates: Sequence[Candidate]) -> InstanceEvidence:
    """The evidence with the verification's outcomes: regression tests as near tests, each witness test as a probe of one step."""
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
