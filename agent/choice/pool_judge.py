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
from typing import TYPE_CHECKING, Literal

from agent.choice.judge import PLACE, Case, RunTest, asking, judge
from agent.choice.pool import Place, sandboxes
from agent.config import Alias
from agent.models.client import Connections, ModelClient
from agent.secrets import known_masker, masker
from harness import trace
from harness.evidence.told import tell
from harness.money.budget import BudgetKeeper, SharedBudget
from harness.money.ledger import charges
from harness.parallel import apart, in_parallel
from harness.records import Budget, Candidate, Told
from harness.views.live import Board, line_of
from tasks.say import Say

if TYPE_CHECKING:
    from harness.sandbox.base import Limits

STATEMENT_MISSING = "(the issue's text is not at hand)"


@dataclass(frozen=True, slots=True)
class Judging:
    """How the judge is asked. `usd`: its cap for one instance, `whole_usd`: over all of them. `place_of` None: nothing can be run,
    so it is asked for no test."""

    run: Path
    alias: Alias
    usd: float | None
    whole_usd: float | None
    place_of: Callable[[str], Place | None] | None
    limits: Limits
    sandbox: Literal["auto", "docker", "bubblewrap"]
    at_once: int
    say: Say


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
            found[instance] = await _judge_one(judging, instance, of_it, statements[instance], connections, shared)

    try:
        await in_parallel(one(instance, of_it) for instance, of_it in sorted(finalists.items()) if of_it)
    finally:
        await connections.close()
    return found


def said_on(run: Path, instance: str) -> list[trace.Event]:
    """What the judge was asked and said on an instance, as the run's files have it."""
    return list(trace.read(_file(run, instance), may_be_empty=True))


def _file(run: Path, instance: str) -> Path:
    return run / "judge" / f"{instance}.jsonl"


async def _judge_one(
    judging: Judging,
    instance: str,
    finalists: Sequence[Candidate],
    statement: str,
    connections: Connections,
    shared: SharedBudget,
) -> dict[str, float]:
    judging.say(f"{instance}: the judge compares {len(finalists)} candidates")
    events = said_on(judging.run, instance)
    keys = [judging.alias.key_env] if judging.alias.key_env else []
    log = trace.Trace(_file(judging.run, instance), mask=masker(keys), mask_known=known_masker(keys))
    with contextlib.closing(log):
        log.listen(events.append)
        log.listen(partial(_say, judging, instance))
        if not events:
            log.write(
                trace.RunStarted(
                    run=judging.run.name, task={"id": instance}, settings={"models": [judging.alias.alias]}
                )
            )
        keeper = BudgetKeeper.from_charges(Budget(judge_usd=judging.usd), charges(events), share=shared.share(instance))
        client = ModelClient(judging.alias, connections, record=log.write, keeper=keeper)
        ask = asking(client, events, 0, lambda error: None)
        run_test = await apart(_runner, judging, instance, finalists)
        points = await judge(Case(statement or STATEMENT_MISSING, finalists, ask, events, log.write, run_test))
    shared.finish(instance)
    return points


def _say(judging: Judging, instance: str, event: trace.Event) -> None:
    line = line_of(event, Board())
    if line:
        judging.say(f"{instance}: {line}")


def _runner(judging: Judging, instance: str, finalists: Sequence[Candidate]) -> RunTest | None:
    """Runs a test on the base and the finalists; None where there are no sandboxes for the instance. Opens its workspace."""
    place = judging.place_of(instance) if judging.place_of is not None else None
    if place is None or (place.image is None and place.task is None):
        return None
    return partial(_told_of_all, judging, instance, place, finalists)


async def _told_of_all(
    judging: Judging, instance: str, place: Place, finalists: Sequence[Candidate], path: str, text: str
) -> list[Told]:
    from harness.choosing.gather import in_sandbox
    from harness.repository.base_tree import open_tree

    told = []
    with open_tree(place.workspace.git_dir, place.workspace.base_commit) as tree:
        free = path if tree.read(path) is None else PLACE
        async with sandboxes(judging.run, instance, place, judging.limits, judging.sandbox, judging.say) as (
            opened,
            run,
        ):
            for on, patch in (("base", ""), *((c.id, c.patch) for c in finalists)):
                work = partial(tell, on=on, path=free, text=text, command=run)
                told.append(await in_sandbox(opened, f"judge-{on}", tree, patch, work))
    return told
