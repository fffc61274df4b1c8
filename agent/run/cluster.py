"""Jobs on the machines of a Ray cluster: the executor behind `--executor ray`.

The driver stays the only one that asks models, keeps budgets and writes the trace. A worker is an actor that holds
several places; it sends the messages of a job as a stream, in order. When its node dies the stream ends in an error:
what the job asked is waited for (the answers are paid and written), and it begins anew elsewhere from what the trace
holds. The driver's death ends its actors, and with them their sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.attempt import graph as inner
from agent.config import REPAIR
from agent.run.context import Run
from agent.run.executor import InProcess
from agent.run.job import Answered, AttemptJob, Job, NodeLost, Question, Served, VerifyJob, attempt_job, terms_of
from agent.run.places import Places
from agent.run.worker import ENDS, Worker
from agent.version import VERSION
from harness import trace
from harness.records import Candidate, Evidence, WitnessTest
from harness.repository.workspace import packed
from tasks.errors import EndpointFailed, EnvironmentFailed, InputError, TroopError, words_of
from tasks.say import Say

if TYPE_CHECKING:
    from agent.config import Settings

SANDBOX = "sandbox"
"""The resource that a node declares: how many sandboxes it bears at a time."""
PLACES = 8
"""Of a worker, where no node has declared any yet."""
CPU_OF_MODEL, CPU_OF_REPAIR, MEMORY = 0.25, 1.0, 0.25
"""What a place claims: CPUs (an attempt with a model waits for that most of the time), and of its sandbox's limit."""
PATIENCE_SECONDS = 20.0
"""Without any worker, until the reason is told."""
CLOSING_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A worker: its actor, and the name of its node."""

    actor: Any
    node: str


class OnCluster(InProcess):
    """Jobs on the nodes of the cluster. `width`: attempts at a time, for which workers are asked."""

    def __init__(self, settings: Settings, width: int, say: Say) -> None:
        import ray

        super().__init__()
        self._ray, self._say = ray, say
        declared = [int(node["Resources"].get(SANDBOX, 0)) for node in ray.nodes() if node["Alive"]]
        self._each = min([width, *filter(None, declared)] if any(declared) else [width, PLACES])
        cpus = CPU_OF_REPAIR if set(settings.models) == {REPAIR} else CPU_OF_MODEL
        self._claims: dict[str, Any] = {
            "num_cpus": cpus * self._each,
            "memory": int(MEMORY * self._each * settings.limits.memory_mb) << 20,
            "resources": {SANDBOX: self._each},
        }
        self._places = Places[_Member]()
        self._tasks = [asyncio.ensure_future(self._enlist()) for _ in range(math.ceil(width / self._each))]
        self._tasks.append(asyncio.ensure_future(self._tell()))

    async def _enlist(self) -> None:
        """A worker, wherever the cluster has room for its claims; it may come much later."""
        actor = self._ray.remote(Worker).options(max_concurrency=1000, **self._claims).remote()
        try:
            node, version = await actor.ready.remote()
        except self._ray.exceptions.RayError as error:
            self._say(f"a worker could not be started: {str(error).strip()[:300]}")
            return
        if version != VERSION:
            self._say(f"the node {node} has Troop {version}, not {VERSION}: it gets no jobs")
            return
        self._places.add(_Member(actor, node), self._each)

    async def _tell(self) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)
        if not self._places:
            cpus, memory = self._claims["num_cpus"], self._claims["memory"] >> 20
            wanted = f"{self._each} of the resource {SANDBOX}, {cpus:g} CPUs and {memory} MB free"
            start = f"""ray start --address=HEAD --resources='{{"{SANDBOX}": {self._each}}}'"""
            self._say(f"waiting for a node of the Ray cluster that has {wanted} ({start})")

    async def drive(self, run: Run, index: int) -> EndpointFailed | None:
        """The attempt on some node; on another one as often as a node dies within the allowance."""
        losses = 0
        while True:
            try:
                refusal: EndpointFailed | None = await self._do(run, partial(attempt_job, run, index))
                return refusal
            except NodeLost as lost:
                if (notebook := run.notebook(index)).ended is not None:
                    return None
                losses += 1
                self._note(run, index, losses, lost)
                if losses > run.settings.infrastructure_retries:
                    run.write(inner.failed("infrastructure", notebook, lost))
                    return None

    async def verify(
        self,
        run: Run,
        candidate: Candidate,
        regression: Sequence[str],
        witnesses: Sequence[WitnessTest],
        test_seconds: float,
    ) -> Evidence:
        """The evidence on one candidate, found on some node."""
        job, losses = VerifyJob(candidate, tuple(regression), tuple(witnesses), test_seconds), 0
        while True:
            try:
                evidence: Evidence = await self._do(run, lambda: job)
                return evidence
            except NodeLost as lost:
                losses += 1
                self._note(run, None, losses, lost)
                if losses > run.settings.infrastructure_retries:
                    raise

    def _note(self, run: Run, attempt: int | None, losses: int, lost: NodeLost) -> None:
        retried = losses <= run.settings.infrastructure_retries
        run.write(trace.InfrastructureFailed(attempt=attempt, what="node", detail=str(lost), retried=retried))

    async def _do(self, run: Run, job: Callable[[], Job]) -> Any:
        """What the job gives, from the first worker that can have its environment. `job` makes the record as things
        stand when there is a place. Raises NodeLost, and what the job raises."""
        if run.shipped is None:
            run.shipped = asyncio.ensure_future(asyncio.to_thread(self._shipped, run))
        shipped, key = await asyncio.shield(run.shipped), run.environment.key
        while True:
            member = await self._places.take(key)
            try:
                told, value = await self._on(member, run, shipped, job())
            finally:
                self._places.leave(member)
            if told == "done":
                return value
            if told == "failed" or not self._places.refuse(member, key):
                raise value
            self._say(f"the node {member.node} gets no jobs of {run.name}: {value}")

    def _shipped(self, run: Run) -> tuple[Any, Sequence[Any]]:
        """Blocking: the run's terms and its workspace in the object store."""
        assert run.base is not None, "prepare comes first"
        return self._ray.put(terms_of(run)), [self._ray.put(packed(run.base))]

    async def _on(self, member: _Member, run: Run, shipped: tuple[Any, Sequence[Any]], job: Job) -> tuple[str, Any]:
        """The job's last message; those before are acted on."""
        ticket, asked = secrets.token_hex(8), set[asyncio.Task[None]]()
        stream = member.actor.do.options(num_returns="streaming").remote(ticket, *shipped, job)
        try:
            async for batch in stream:
                for told, value in await batch:
                    if told == "write":
                        if not (isinstance(value, trace.BudgetReached) and run.over):  # the first one counts
                            run.write(value)
                    elif told == "ask":
                        asked.add(asyncio.ensure_future(self._answer(run, member, ticket, value)))
                    elif told == "say":
                        run.say(value)
                    elif told == "begun" and isinstance(job, AttemptJob):  # a set-up takes none of its time
                        run.keeper.start_attempt(job.index, elapsed=run.notebook(job.index).seconds)
                    elif told in ENDS:
                        return told, value
            raise NodeLost(f"the worker on {member.node} ended in the midst of a job")
        except self._ray.exceptions.RayError as error:
            if member in self._places:
                self._places.remove(member)
                self._ray.kill(member.actor)
                self._tasks.append(asyncio.ensure_future(self._enlist()))
            if asked:
                await asyncio.wait(asked)
            raise NodeLost(f"the node {member.node} is lost: {type(error).__name__}") from error
        except BaseException:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            with contextlib.suppress(self._ray.exceptions.RayError):
                await member.actor.stop.remote(ticket)
            raise

    async def _answer(self, run: Run, member: _Member, ticket: str, question: Question) -> None:
        client = run.clients[question.model]
        reply: Any
        try:
            reply = await client.complete(**question.arguments)
        except TroopError as error:
            reply = error
        except Exception as error:
            reply = RuntimeError(words_of(error))
        said = Answered(reply, Served(client.context, client.takes_tools))
        with contextlib.suppress(self._ray.exceptions.RayError):
            await member.actor.answer.remote(ticket, question.number, said)

    async def close(self) -> None:
        """Let all workers go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._places:
            with contextlib.suppress(self._ray.exceptions.RayError, TimeoutError):
                await asyncio.wait_for(member.actor.close.remote(), CLOSING_SECONDS)
            self._ray.kill(member.actor)


@contextlib.asynccontextmanager
async def on_cluster(settings: Settings, width: int, say: Say) -> AsyncIterator[OnCluster]:
    """The cluster that RAY_ADDRESS names, or that runs on this machine; as it is where Ray is connected already. Raises
    InputError where Ray is not installed, EnvironmentFailed where no cluster answers."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray: pip install 'troop-solver[ray]'") from error
    own = not ray.is_initialized()
    if own:
        address = os.environ.get("RAY_ADDRESS") or "auto"
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            start = f"""`ray start --head --resources='{{"{SANDBOX}": 8}}'`, or RAY_ADDRESS names one elsewhere"""
            raise EnvironmentFailed(f"no Ray cluster answers ({error}): {start}") from error
    executor = OnCluster(settings, width, say)
    try:
        yield executor
    finally:
        await executor.close()
        if own:
            ray.shutdown()
