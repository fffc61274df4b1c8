"""The judge of `troop select`: asked about the candidates of an instance that stand first and too close together.

RUN/judge/<instance>.jsonl   what it was asked and said, with its charges: a trace, so that nothing is asked twice
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.choice.case import Case
from agent.choice.judge import asking, judge
from agent.choice.pool import Lookout
from agent.config import Alias
from agent.models.client import ModelClient
from agent.models.connections import Connections
from agent.secrets import known_masker, masker
from harness import trace
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
    """How the judge is asked. `usd`: its cap for one instance, `whole_usd`: over all of them, None for none. `at_once`:
    instances."""

    lookout: Lookout
    alias: Alias
    usd: float | None
    whole_usd: float | None
    at_once: int


async def judge_all(
    judging: Judging, finalists: Mapping[str, Sequence[Candidate]], statements: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The judge's points by instance and candidate id, for the instances that have finalists."""
    shared = SharedBudget(Budget(usd=judging.whole_usd), [i for i, of_it in finalists.items() if of_it])
    slots = asyncio.Semaphore(judging.at_once)
    connections = Connections()
    found: dict[str, dict[str, float]] = {}

    async def one(instance: str, of_it: Sequence[Candidate]) -> None:
        async with slots:
            try:
                found[instance] = await _judge_one(judging, instance, of_it, statements[instance], connections, shared)
            except Exception as error:  # one instance's fault ends no other's
                if len(finalists) == 1:
                    raise
                judging.lookout.say(f"{instance}: {words_of(error)}; it goes on without the judge")

    try:
        await in_parallel(one(instance, of_it) for instance, of_it in sorted(finalists.items()) if of_it)
    finally:
        await connections.aclose()
    return found


def said_on(directory: Path, instance: str) -> list[trace.Event]:
    """What the judge was asked and said on an instance, as the run's files have it."""
    return list(trace.read(_file(directory, instance), may_be_empty=True))


def _file(directory: Path, instance: str) -> Path:
    return directory / "judge" / f"{instance}.jsonl"


async def _judge_one(
    judging: Judging,
    instance: str,
    finalists: Sequence[Candidate],
    statement: str,
    connections: Connections,
    shared: SharedBudget,
) -> dict[str, float]:
    lookout = judging.lookout
    lookout.say(f"{instance}: the judge compares {len(finalists)} candidates")
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
        ask = asking(client, events, 0, lambda error: None)
        place = await apart(lookout.place_of, instance)
        async with lookout.ground(instance, place) if place else contextlib.nullcontext() as ground:
            points = await judge(
                Case(statement or STATEMENT_MISSING, finalists, ground, events, log.write, lookout.say), ask
            )
    shared.finish(instance)
    return points


def _say(say: Say, instance: str, event: trace.Event) -> None:
    line = line_of(event, Board())
    if line:
        say(f"{instance}: {line}")
