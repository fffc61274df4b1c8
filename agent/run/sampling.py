"""Sampling at work in a run: further attempts only while `agent.run.worth` says that they are worth their price, or
until a candidate is good enough.

Candidates are verified as attempts end, and an attempt keeps its place until its candidate is.
"""

import asyncio
from dataclasses import replace

from agent.attempt.notebook import notebooks
from agent.choice.order import why_not
from agent.run.context import Run
from agent.run.verification import contradicted, verify_candidates
from agent.run.worth import Sampling, beliefs_for, state_of
from harness import trace
from harness.evidence.strength import STRENGTHS, strength_of
from harness.parallel import in_parallel, task_group
from harness.records import WRITERS_FROM


async def sample(run: Run, sampling: Sampling) -> None:
    """Attempts of the run as long as they are worth it, each followed by the evidence on its candidate. What an earlier
    process began is ended, and what it decided holds."""
    begun = [n.index for n in notebooks(run.events) if n.ended is None]
    async with task_group() as group:
        sampling.join(run.task.id, beliefs_for(run.task, run.settings.models), state_of(run.events))
        for index in begun:
            group.create_task(_go_on(run, sampling, index))
        await verify_candidates(run, early=True)  # what had ended, and was not verified, when a process was killed
        sampling.update(run.task.id, state_of(run.events))
        if not any(isinstance(e, trace.SamplingStopped) for e in trace.since_reopened(run.events)):
            await _begin_new(run, sampling, group)


async def _begin_new(run: Run, sampling: Sampling, group: asyncio.TaskGroup) -> None:
    """Begin attempts, one decision after the other, until it is time to stop."""
    id = run.task.id
    while run.over is None and not run.enough:
        begun = {event.attempt for event in run.events if isinstance(event, trace.AttemptStarted)}
        fresh = (i for i in range(run.settings.budget.attempts) if i not in begun)
        index = next((i for i in fresh if run.model_of(i) not in run.broken), None)
        writer = min((i for i in _writers(run) - begun if run.model_of(i) not in run.broken), default=None)
        if writer is not None and sampling.test_first(id, instead=index is not None):
            with sampling.pending(id, lambda: state_of(run.events)):
                await run.attempt(writer)
                await verify_candidates(run)
            continue
        if index is None:
            if writer is None or not sampling.under_way[id]:
                return
            await sampling.change()
            continue
        outlook = sampling.outlook(id)
        if outlook.why == "wait":
            await sampling.change()
            continue
        if outlook.why != "go":
            run.write(outlook)
            return
        began = asyncio.get_running_loop().create_future()
        task = group.create_task(_begin(run, sampling, index, began))
        while not began.done():
            await asyncio.wait({began, sampling.change()}, return_when=asyncio.FIRST_COMPLETED)
            if not began.done() and sampling.outlook(id).why != "go":  # while it waited for a place
                task.cancel()
                await asyncio.wait({task})
                break


async def _begin(run: Run, sampling: Sampling, index: int, began: asyncio.Future[None]) -> None:
    """A new attempt, once there is a place and if it is worth it even then; `began` is set when that is decided."""
    async with run.slots:
        if sampling.outlook(run.task.id).why != "go" or not run.may_begin(index):
            began.set_result(None)
            return
        with sampling.pending(run.task.id, lambda: state_of(run.events)):
            began.set_result(None)
            await run.executor.attempt(run, index)
            await verify_candidates(run, early=True)


async def _go_on(run: Run, sampling: Sampling, index: int) -> None:
    """An attempt that an earlier process began; it counts as under way while it waits for a place."""
    with sampling.pending(run.task.id, lambda: state_of(run.events)):
        async with sampling.first_of_all(run.task.id, run.slots):
            if run.may_begin(index):
                await run.executor.attempt(run, index)
                await verify_candidates(run, early=True)


async def until_good(run: Run, until: str) -> None:
    """All attempts, until there is a candidate as good as `until` says (or better); those under way are then broken
    off, and their patches count for nothing."""

    async def one(index: int) -> None:
        async with run.slots:
            if run.may_begin(index):
                await run.executor.attempt(run, index)
                await _look(run, until)
        if run.enough in STRENGTHS:
            for task in tasks:
                if task is not asyncio.current_task():
                    task.cancel()

    tasks: list[asyncio.Task[None]] = []
    async with task_group() as group:
        await _look(run, until)  # what had ended when a process was killed
        tasks += [group.create_task(one(index)) for index in range(run.settings.budget.attempts)]


def break_off(run: Run) -> None:
    """Where what there is suffices, what has not ended never will."""
    why = trace.BY_HAND if run.enough == trace.BY_HAND else "a candidate was good enough"
    for notebook in notebooks(run.events) if run.enough else ():
        if notebook.ended is None:
            end = trace.AttemptEnded(attempt=notebook.index, status="interrupted", patch="", detail=why)
            run.write(replace(end, turns=len(notebook.history), seconds=notebook.seconds))


async def witnesses_on_tie(run: Run) -> bool:
    """Attempts that only write tests, blind to every patch, and what their tests say of all candidates; those that the
    run is to make and has not made. Whether there is anything new. Adaptive sampling has made those that were worth
    it."""
    due = set() if run.sampling is not None else _writers(run) - {a.index for a in run.finished()}
    await in_parallel(map(run.attempt, sorted(due)))
    if due.isdisjoint(a.index for a in run.finished()):
        return False
    await verify_candidates(run)
    return True


def _writers(run: Run) -> set[int]:
    """The attempts that may be made to write tests only."""
    last = WRITERS_FROM + (run.settings.tie_witnesses or 0)
    return {i for i in range(WRITERS_FROM, last) if run.model_of(i) in run.clients}


async def _look(run: Run, until: str) -> None:
    """Verify what there is by now, and note if that is enough."""
    await verify_candidates(run, early=True)
    good = STRENGTHS[: STRENGTHS.index(until) + 1]
    words = [(strength_of(c.evidence, c.attempts), c) for c in run.candidates() if c.evidence and not why_not(c)]
    for word, candidate in sorted(words, key=lambda found: STRENGTHS.index(found[0])):
        if word in good and not run.enough and not await contradicted(run, candidate) and not run.enough:
            run.write(trace.SamplingStopped(why=word, attempts=len(run.samples())))
