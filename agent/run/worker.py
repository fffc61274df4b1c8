"""A worker: jobs of runs that another process drives, in sandboxes of the machine that it is on.

It holds sandboxes, a cache and environments of its own, and has two calls back, `write` and `ask`. What a job tells its
driver are messages, in order: ("begun", None) when its environment is there, ("write", event), ("ask", (number, model,
arguments of `ModelClient.complete`)), ("say", line), and at the end ("done", what it gives), ("failed", error) or,
where this machine cannot have the environment, ("unfit", error).
"""

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from agent.config import Settings
from agent.run.context import Run, Verification
from agent.run.executor import InProcess, begin
from agent.run_files import RunFiles
from harness import trace
from harness.cache import cache_root
from harness.environments.environment import Built, build
from harness.evidence.unchanged import UnchangedCode
from harness.money.budget import BudgetKeeper
from harness.parallel import apart
from harness.records import Budget, Json
from harness.repository.workspace import Workspace, unpacked
from harness.sandbox.base import Provider
from harness.sandbox.choice import choose_provider
from tasks.errors import EnvironmentFailed, TroopError, words_of
from tasks.task import Task

if TYPE_CHECKING:
    from agent.models.client import ModelClient

    Said = tuple[trace.Replied | Exception, int, bool]  # with the context and whether tools are taken, as known by then

ENDS = ("done", "failed", "unfit")
"""The last message of a job is one of these."""

Message = tuple[str, Any]
Packed = Sequence[Awaitable[bytes]]  # one, for what `packed` gave; awaited only where a cache lacks the base
Job: TypeAlias = "AttemptJob | Verification"


@dataclass(frozen=True, slots=True)
class Terms:
    """What all jobs of one run have in common. `built`: their environment, set up (or taken from a registry) where its
    key is not found; `described`: as in `Workspace`, which travels apart, once for each node."""

    run: str
    task: Task
    settings: Settings
    built: Built
    prepared: trace.Prepared
    described: str


@dataclass(frozen=True, slots=True)
class AttemptJob:
    """Drive an attempt that has begun to its end. `events`: its own so far, of which finished turns are restored, and
    what of the run opens it again; its seed and sampling are in the first. `seconds_left`: until a cap on time, None
    without one. `context`, `takes_tools`: what the model bears, as known by now; None for `repair`. `stopped`: by a
    person."""

    index: int
    model: str
    events: tuple[trace.Event, ...]
    seconds_left: float | None
    context: int | None
    takes_tools: bool
    stopped: bool = False

    @classmethod
    def of(cls, run: Run, index: int) -> "AttemptJob":
        """The attempt as its trace stands now, when its clock starts."""
        begin(run, index)
        of_run = (trace.RunResumed, trace.RunReopened, trace.BudgetReached)
        events = tuple(event for event in run.events if event.attempt == index or isinstance(event, of_run))
        model, left = run.model_of(index), run.keeper.seconds_left(index)
        client = run.clients.get(model)
        context, tools = (client.context, client.takes_tools) if client else (None, False)
        return cls(index, model, events, left, context, tools, run.is_stopped(index))


@dataclass(slots=True, eq=False)
class Line:
    """A job's line to its driver: to the job it is the trace, and the client of its model (as far as it knows that)."""

    events: list[trace.Event]
    model: str = ""
    context: int | None = None
    takes_tools: bool = False
    out: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    asked: "list[asyncio.Future[Said]]" = field(default_factory=list)

    def write(self, event: trace.Event) -> trace.Event:
        """As `Trace.write`; the driver masks secrets, of which a worker knows none."""
        event = replace(event, at=time.time())
        self.events.append(event)
        self.out.put_nowait(("write", event))
        return event

    async def complete(self, messages: Sequence[Json], tools: Sequence[Json] = (), **more: Any) -> trace.Replied:
        """As `ModelClient.complete`, by the driver's client."""
        answer: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self.out.put_nowait(("ask", (len(self.asked), self.model, {"messages": messages, "tools": tools, **more})))
        self.asked.append(answer)
        reply, self.context, self.takes_tools = await answer
        if isinstance(reply, Exception):
            raise reply
        return reply

    def say(self, told: str) -> None:
        self.out.put_nowait(("say", f"{platform.node()}: {told}"))


class Worker:
    """Does jobs of one driver, many at a time; it is the driver that bounds them. Belongs to one event loop."""

    def __init__(self, backend: str, registry: str | None) -> None:
        self._backend, self._registry = backend, registry
        self._lines: dict[str, tuple[Line, asyncio.Task[None]]] = {}
        self._bases: dict[str, asyncio.Task[Workspace]] = {}
        self._unchanged: dict[str, UnchangedCode] = {}
        self._checks = asyncio.Semaphore(os.cpu_count() or 2)
        self._jobs = InProcess()
        self._provider: Provider

    async def ready(self) -> str:
        """The machine's name. Raises SandboxFailed where no sandbox can be had."""
        self._provider = await choose_provider(self._backend, image=None, cache=cache_root())
        self._provider.registry = self._registry
        return platform.node()

    async def do(self, ticket: str, terms: Terms, packed: Packed, job: Job) -> AsyncIterator[Message]:
        """Do a job; its messages."""
        line = Line([terms.prepared])
        if isinstance(job, AttemptJob):
            line = Line([terms.prepared, *job.events], job.model, job.context, job.takes_tools)
        self._lines[ticket] = line, asyncio.ensure_future(self._whole(terms, packed, job, line))
        message: Message = ("", None)
        while message[0] not in ENDS:
            yield (message := await line.out.get())
        del self._lines[ticket]

    async def answer(self, ticket: str, number: int, said: "Said") -> None:
        """The driver's answer to a question of a job."""
        if ticket in self._lines and not (answer := self._lines[ticket][0].asked[number]).done():
            answer.set_result(said)

    async def stop(self, *tickets: str) -> None:
        """Break these jobs off (none named: all, for good); their sandboxes are gone when this returns."""
        tasks = [task for ticket, (_, task) in self._lines.items() if ticket in tickets or not tickets]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not tickets:
            await self._provider.close()

    async def _whole(self, terms: Terms, packed: Packed, job: Job, line: Line) -> None:
        end, value = "unfit", cast("Any", EnvironmentFailed("the job was broken off"))
        try:
            run = await self._run(terms, packed, job, line)
            end = "failed"
            line.out.put_nowait(("begun", None))
            work = self._jobs.drive(run, job.index) if isinstance(job, AttemptJob) else self._jobs.verify(run, job)
            value, end = await work, "done"
        except Exception as error:
            value = error if isinstance(error, TroopError) else RuntimeError(f"{platform.node()}: {words_of(error)}")
        finally:
            line.out.put_nowait((end, value))

    async def _run(self, terms: Terms, packed: Packed, job: Job, line: Line) -> Run:
        """The run as it is here: with the base and the environment of this machine."""
        key = terms.built.key
        if key not in self._bases or (self._bases[key].done() and self._bases[key].exception()):
            self._bases[key] = asyncio.ensure_future(self._base(terms, packed, line))
        run = Run(
            task=terms.task,
            settings=terms.settings,
            files=RunFiles(cache_root() / terms.run),
            workspace=lambda _: self._bases[key].result(),
            provider=self._provider,
            executor=self._jobs,
            log=cast("trace.Trace", line),
            events=line.events,
            keeper=BudgetKeeper(Budget(seconds=job.seconds_left if isinstance(job, AttemptJob) else None)),
            clients={line.model: cast("ModelClient", line)} if line.context else {},
            judge=None,
            slots=contextlib.nullcontext(),
            say=line.say,
            checks=self._checks,
            base=await asyncio.shield(self._bases[key]),
            built=terms.built,
            bare=self._unchanged.get(key),
            stopped={job.index} if isinstance(job, AttemptJob) and job.stopped else set(),
        )
        self._unchanged[key] = run.unchanged()
        return run

    async def _base(self, terms: Terms, packed: Packed, line: Line) -> Workspace:
        """The base of the run, once its environment is here as well."""
        there = terms.prepared.base_commit, terms.described, cache_root()
        base = await apart(unpacked, None, *there) or await apart(unpacked, await packed[0], *there)
        assert base is not None, "it was unpacked"
        limits, timeout = terms.settings.limits, terms.settings.setup_timeout
        given = self._provider, base, terms.task
        built = await build(*given, run=terms.run, limits=limits, setup_timeout=timeout, say=line.say)
        if built.key != terms.built.key:
            raise EnvironmentFailed(f"{platform.node()} makes another environment of this task than the driver does")
        return base
