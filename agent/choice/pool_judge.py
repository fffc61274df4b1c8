"""The judge of `troop select`: asked about the candidates of an instance that stand first and too close together.

RUN/judge/<instance>.jsonl   what it was asked and said, with its charges: a trace, so that nothing is asked twice
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.choice.case import Case, Known
from agent.choice.hearing import Hearing, Word
from agent.choice.judge import judge
from agent.choice.pool import Lookout, Pool
from agent.config import Alias
from agent.models.client import ModelClient
from agent.models.connections import Connections
from agent.secrets import known_masker, masker
from harness import trace
from harness.choosing.evidence_store import InstanceEvidence
from harness.money.budget import BudgetKeeper, SharedBudget
from harness.money.ledger import charges
from harness.parallel import apart
from harness.records import Budget
from harness.views.live import Board, line_of
from tasks.say import Say

STATEMENT_MISSING = "(the issue's text is not at hand)"


@dataclass(frozen=True, slots=True)
class Judging:
    """How the judge is asked. `how`: see `agent.choice.judge`. `usd`: its cap for one instance, `whole_usd`: over all
    of them, None for none. `at_once`: instances."""

    lookout: Lookout
    alias: Alias
    how: str
    usd: float | None
    whole_usd: float | None
    at_once: int


async def judge_all(judging: Judging, every: Mapping[str, Pool]) -> dict[str, Word]:
    """The judge's word by instance, for the instances that have finalists."""
    tied = [instance for instance, pool in sorted(every.items()) if pool.finalists()]
    shared, connections = SharedBudget(Budget(usd=judging.whole_usd), tied), Connections()
    found: dict[str, Word] = {}

    async def one(instance: str) -> None:
        found[instance] = await _judge_one(judging, every[instance], connections, shared)

    try:
        await judging.lookout.each(tied, len(every), judging.at_once, "it goes on without the judge", one)
    finally:
        await connections.aclose()
    return found


def said_on(directory: Path, instance: str) -> list[trace.Event]:
    """What the judge was asked and said on an instance, as the run's files have it."""
    return list(trace.read(_file(directory, instance), may_be_empty=True))


def _file(directory: Path, instance: str) -> Path:
    return directory / "judge" / f"{instance}.jsonl"


async def _judge_one(judging: Judging, pool: Pool, connections: Connections, shared: SharedBudget) -> Word:
    lookout, evidence, instance, candidates = judging.lookout, pool.evidence, pool.evidence.instance, pool.able
    lookout.say(f"{instance}: the judge is asked about {len(candidates)} candidates")
    events = said_on(lookout.directory, instance)
    keys = [judging.alias.key_env] if judging.alias.key_env else []
    log = trace.Trace(_file(lookout.directory, instance), mask=masker(keys), mask_known=known_masker(keys))
    with contextlib.closing(log):
        log.listen(events.append)
        log.listen(partial(_say, lookout.say, instance))
        if not events:
            log.write(
                trace.RunStarted(
                    run=lookout.directory.name, task={"id": instance}, settings={"models": [judging.alias.alias]}
                )
            )
        keeper = BudgetKeeper.from_charges(Budget(judge_usd=judging.usd), charges(events), share=shared.share(instance))
        client = ModelClient(judging.alias, connections, record=log.write, keeper=keeper)
        place = await apart(lookout.place_of, instance)
        statement, known = evidence.base.statement or STATEMENT_MISSING, _known(evidence)
        async with lookout.ground(instance, place) if place else contextlib.nullcontext() as ground:
            case = Case(statement, candidates, ground, events, log.write, lookout.say, pool.finalists, known)
            word = await judge(Hearing(case, client, 0, lambda error: None), judging.how)
    shared.finish(instance)
    return word


def _known(evidence: InstanceEvidence) -> Known:
    base = evidence.base
    steps = {"": base.probes or {}, **{key: found.probes or {} for key, found in evidence.found.items()}}
    return Known({name: "\n".join(of_it) for name, of_it in base.sources.items()}, steps, base.sources)


def _say(say: Say, instance: str, event: trace.Event) -> None:
    line = line_of(event, Board())
    if line:
        say(f"{instance}: {line}")
