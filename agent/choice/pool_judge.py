"""The judge of `troop select`: asked about the candidates of an instance that stand first and too close together.

RUN/judge/<instance>.jsonl   what it was asked and said, with its charges: a trace, so that nothing is asked twice
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.choice.case import Case, Known
from agent.choice.hearing import Hearing, Word
from agent.choice.judge import judge
from agent.choice.pool import Lookout, able
from agent.config import Alias
from agent.models.client import ModelClient
from agent.models.connections import Connections
from agent.secrets import known_masker, masker
from harness import trace
from harness.choosing.evidence_store import InstanceEvidence
from harness.evidence.shown import Shown
from harness.money.budget import BudgetKeeper, SharedBudget
from harness.money.ledger import charges
from harness.parallel import apart, in_parallel
from harness.records import Budget, Candidate
from harness.views.live import Board, line_of
from tasks.errors import words_of
from tasks.say import Say

STATEMENT_MISSING = "(the issue's text is not at hand)"


@dataclass(frozen=True, slots=True)
class Judging:
    """How the judge is asked. `how`: see `agent.choice.judge`. `finalists`: those of an instance that stand first and
    too close together, with these rows of the judge's tests. `usd`: its cap for one instance, `whole_usd`: over all of
    them, None for none. `at_once`: instances."""

    lookout: Lookout
    alias: Alias
    how: str
    finalists: Callable[[InstanceEvidence, Sequence[Shown]], Sequence[Candidate]]
    usd: float | None
    whole_usd: float | None
    at_once: int


async def judge_all(judging: Judging, every: Mapping[str, InstanceEvidence]) -> dict[str, Word]:
    """The judge's word by instance, for the instances that have finalists."""
    tied = {i: evidence for i, evidence in sorted(every.items()) if judging.finalists(evidence, ())}
    shared = SharedBudget(Budget(usd=judging.whole_usd), list(tied))
    slots = asyncio.Semaphore(judging.at_once)
    connections = Connections()
    found: dict[str, Word] = {}

    async def one(evidence: InstanceEvidence) -> None:
        async with slots:
            try:
                found[evidence.instance] = await _judge_one(judging, evidence, connections, shared)
            except Exception as error:  # one instance's fault ends no other's
                if len(every) == 1:
                    raise
                judging.lookout.say(f"{evidence.instance}: {words_of(error)}; it goes on without the judge")

    try:
        await in_parallel(map(one, tied.values()))
    finally:
        await connections.aclose()
    return found


def said_on(directory: Path, instance: str) -> list[trace.Event]:
    """What the judge was asked and said on an instance, as the run's files have it."""
    return list(trace.read(_file(directory, instance), may_be_empty=True))


def _file(directory: Path, instance: str) -> Path:
    return directory / "judge" / f"{instance}.jsonl"


async def _judge_one(
    judging: Judging, evidence: InstanceEvidence, connections: Connections, shared: SharedBudget
) -> Word:
    lookout, instance, candidates = judging.lookout, evidence.instance, able(evidence)
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
        statement, finalists = evidence.base.statement or STATEMENT_MISSING, partial(judging.finalists, evidence)
        async with lookout.ground(instance, place) if place else contextlib.nullcontext() as ground:
            case = Case(statement, candidates, ground, events, log.write, lookout.say, finalists, _known(evidence))
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
