"""A worker: jobs of runs that another process drives, in sandboxes of the machine that it is on.

It knows nothing of how it is reached. It holds sandboxes, a cache and environments of its own, and each job's messages
go to the driver in order: ("begun", None) when its environment is there, ("write", event), ("ask", question), ("say",
line), and at the end ("done", what it gives), ("failed", error) or, where the machine cannot have the environment,
("unfit", error).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from agent.run.context import Run
from agent.run.executor import InProcess
from agent.run.job import Answered, AttemptJob, Job, Question, Served, Terms
from agent.run_files import RunFiles
from agent.version import VERSION
from harness import trace
from harness.cache import cache_root
from harness.environments.environment import build
from harness.money.budget import BudgetKeeper
from harness.parallel import apart
from harness.records import Budget, Json
from harness.repository.workspace import unpacked
from harness.sandbox.base import Provider
from harness.sandbox.choice import choose_provider
from tasks.errors import EnvironmentFailed, InputError, TroopError, words_of
from tasks.say import Say

if TYPE_CHECKING:
    from agent.models.client import ModelClient, Reply

RUNS = 8
"""Of which a worker keeps what it has prepared."""

Message = tuple[str, Any]
ENDS = ("done", "failed", "unfit")
"""The last message of a job is one of these."""


@dataclass(slots=True, eq=False)
class Line:
    """A job's line to its driver; to the job it is the trace, and the client of its model."""

    model: str
    served: Served | None
    events: list[trace.Event]
    out: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    work: asyncio.Task[None] | None = None
    asked: list[asyncio.Future[Answered]] = field(default_factory=list)

    def write(self, event: trace.Event) -> trace.Event:
        """As `Trace.write`; the driver masks secrets, of which a worker knows none."""
        event = replace(event, at=time.time())
        self.events.append(event)
        self.out.put_nowait(("write", event))
        return event

    @property
    def context(self) -> int:
        assert self.served is not None, "there is a model"
        return self.served.context

    @property
    def takes_tools(self) -> bool:
        assert self.served is not None, "there is a model"
        return self.served.takes_tools

    async def complete(self, messages: Sequence[Json], tools: Sequence[Json] = (), **more: Any) -> Reply:
        """As `ModelClient.complete`, by the driver's client."""
        answered: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        arguments = {"messages": messages, "tools": tools, **more}
        self.out.put_nowait(("ask", Question(len(self.asked), self.model, arguments)))
        self.asked.append(answered)
        said = await answered
        self.served = said.served
        if isinstance(said.reply, Exception):
            raise said.reply
        return said.reply


class Worker:
    """Does jobs, many at a time; whoever bounds them is the driver. Belongs to one event loop."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._runs: dict[tuple[str, str], asyncio.Task[Run]] = {}
        self._providers: dict[str, Provider] = {}
        self._choosing = asyncio.Lock()
        self._jobs = InProcess()

    async def ready(self) -> tuple[str, str]:
        """The machine's name and Troop's version, once this answers at all."""
        return platform.node(), VERSION

    async def do(self, ticket: str, terms: Terms, packed: Sequence[Any], job: Job) -> AsyncIterator[list[Message]]:
        """Do a job; its messages, several together where they come fast. `packed`: one awaitable for the bytes that
        `harness.repository.workspace.packed` gave, awaited only where the cache lacks the base."""
        line = Line("", None, [terms.prepared])
        if isinstance(job, AttemptJob):
            line.model = terms.settings.models[job.index % len(terms.settings.models)]
            line.served = job.served
            line.events += job.events
        self._lines[ticket] = line
        line.work = asyncio.ensure_future(self._whole(terms, packed, job, line))
        try:
            told = ""
            while told not in ENDS:
                batch = [await line.out.get()]
                while not line.out.empty():
                    batch.append(line.out.get_nowait())
                told = batch[-1][0]
                yield batch
        finally:
            del self._lines[ticket]

    async def answer(self, ticket: str, number: int, said: Answered) -> None:
        """The driver's answer to a question of a job."""
        line = self._lines.get(ticket)
        if line is not None and not line.asked[number].done():
            line.asked[number].set_result(said)

    async def stop(self, ticket: str) -> None:
        """Break a job off; its sandboxes are gone when this returns."""
        line = self._lines.get(ticket)
        if line is not None and line.work is not None:
            line.work.cancel()
            await asyncio.wait([line.work])

    async def close(self) -> None:
        """Break all jobs off, and let the sandboxes go."""
        for ticket in list(self._lines):
            await self.stop(ticket)
        for provider in self._providers.values():
            await provider.close()

    async def _whole(self, terms: Terms, packed: Sequence[Any], job: Job, line: Line) -> None:
        try:
            line.out.put_nowait(await self._done(terms, packed, job, line))
        except asyncio.CancelledError:
            line.out.put_nowait(("failed", EnvironmentFailed("the job was broken off")))
            raise
        except TroopError as error:
            line.out.put_nowait(("failed", error))
        except Exception as error:
            line.out.put_nowait(("failed", RuntimeError(f"on the node {platform.node()}: {words_of(error)}")))

    async def _done(self, terms: Terms, packed: Sequence[Any], job: Job, line: Line) -> Message:
        key = terms.run, terms.built.key
        opening = self._runs.get(key)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._runs[key] = asyncio.ensure_future(self._opened(terms, packed, line))
            for old in list(self._runs)[:-RUNS]:
                del self._runs[old]
        try:
            prepared = await asyncio.shield(opening)
        except (EnvironmentFailed, InputError) as error:
            return "unfit", error
        line.out.put_nowait(("begun", None))
        left = job.seconds_left if isinstance(job, AttemptJob) else None
        client = cast("ModelClient", line)
        run = replace(
            prepared,
            log=cast("trace.Trace", line),
            events=line.events,
            keeper=BudgetKeeper(Budget(seconds=left)),
            clients={line.model: client} if line.served else {},
        )
        if isinstance(job, AttemptJob):
            return "done", await self._jobs.drive(run, job.index)
        return "done", await self._jobs.verify(run, job.candidate, job.regression, job.witnesses, job.test_seconds)

    async def _opened(self, terms: Terms, packed: Sequence[Any], line: Line) -> Run:
        """The run as it is here: with the base and the environment of this machine."""
        cache, settings = cache_root(), terms.settings

        def say(told: str) -> None:
            line.out.put_nowait(("say", f"{platform.node()}: {told}"))

        base = await apart(unpacked, None, terms.prepared.base_commit, terms.described, cache)
        if base is None:
            base = await apart(unpacked, await packed[0], terms.prepared.base_commit, terms.described, cache)
        assert base is not None, "it was unpacked"
        provider = await self._provider(terms, say)
        limits, timeout = settings.limits, settings.setup_timeout
        built = await build(provider, base, terms.task, run=terms.run, limits=limits, setup_timeout=timeout, say=say)
        if built.key != terms.built.key:
            raise EnvironmentFailed(f"{platform.node()} would make another environment of this task than the driver's")
        run = Run(
            task=terms.task,
            settings=settings,
            files=RunFiles(cache / terms.run),
            workspace=lambda _: base,
            provider=provider,
            executor=self._jobs,
            log=cast("trace.Trace", line),
            events=[terms.prepared],
            keeper=BudgetKeeper(Budget()),
            clients={},
            judge=None,
            slots=contextlib.nullcontext(),
            say=say,
            checks=asyncio.Semaphore(os.cpu_count() or 2),
            base=base,
            built=terms.built,
        )
        run.unchanged()  # made once, so that all jobs share what is found out
        return run

    async def _provider(self, terms: Terms, say: Say) -> Provider:
        name, image = terms.prepared.backend, terms.task.environment.image
        async with self._choosing:
            if name not in self._providers:
                registry = terms.settings.registry
                provider = await choose_provider(name, image=image, cache=cache_root(), say=say, registry=registry)
                self._providers[name] = provider
        return self._providers[name]
