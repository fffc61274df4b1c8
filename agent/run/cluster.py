"""Jobs on the machines of a Ray cluster: the executor behind `--executor ray`.

The driver stays the only one that asks models, keeps budgets and writes the trace. A worker is an actor that holds
several places; it sends the messages of a job as a stream, in order. When its node dies the stream ends in an error:
what the job asked is waited for (the answers are paid and written), and it begins anew elsewhere from what the trace
holds. The driver's death ends its actors, and with them their sandboxes.
"""

import asyncio
import contextlib
import math
import os
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from agent.attempt import graph as inner
from agent.config import REPAIR, Settings
from agent.run.context import Run, Verification
from agent.run.executor import InProcess, begin
from agent.run.places import Places
from agent.run.worker import ENDS, AttemptJob, Job, Terms, Worker
from harness import trace
from harness.records import Evidence
from harness.repository.workspace import packed
from tasks.errors import EndpointFailed, EnvironmentFailed, InputError, SandboxFailed, TroopError, words_of
from tasks.say import Say

SANDBOX, PLACES = "sandbox", 8
"""The resource that a node declares: how many sandboxes it bears at a time; and what is taken for it where none has."""
CPU_OF_MODEL, CPU_OF_REPAIR, MEMORY = 0.25, 1.0, 0.25
"""What a place claims: CPUs (an attempt with a model waits for that most of the time), and of its sandbox's limit."""


class OnCluster(InProcess):
    """Jobs on the nodes of the cluster, in sandboxes of the backend. `width`: attempts at a time."""

    def __init__(self, settings: Settings, backend: str, width: int, say: Say) -> None:
        super().__init__()
        ray = joined()
        self._ray, self._say = ray, say
        declared = [int(node["Resources"].get(SANDBOX, 0)) for node in ray.nodes() if node["Alive"]]
        self._each = min(width, *filter(None, declared)) if any(declared) else min(width, PLACES)
        cpus = (CPU_OF_REPAIR if set(settings.models) == {REPAIR} else CPU_OF_MODEL) * self._each
        memory, number = int(MEMORY * self._each * settings.limits.memory_mb), math.ceil(width / self._each)
        claims = {"num_cpus": cpus, "memory": memory << 20, "resources": {SANDBOX: self._each}}
        hired = ray.remote(Worker).options(max_concurrency=1000, **claims)
        self._hire: Callable[[], Any] = partial(hired.remote, backend, settings.registry)
        say(f"workers on the Ray cluster: {number}, each with {self._each} {SANDBOX}, {cpus:g} CPUs, {memory} MB")
        self._places, self._nodes = Places[Any](), dict[Any, str]()
        self._tasks = [asyncio.ensure_future(self._enlist()) for _ in range(number)]

    async def _enlist(self) -> None:
        """A worker, wherever the cluster has room for its claims; it may come much later."""
        actor = self._hire()
        try:
            self._nodes[actor] = await actor.ready.remote()
        except self._ray.exceptions.RayError as error:
            return self._say(f"a worker could not be started: {str(error).strip()[-300:]}")
        self._places.add(actor, self._each)

    async def drive(self, run: Run, index: int) -> EndpointFailed | None:
        """The attempt on some node; on another one as often as a node dies within the allowance. One that a person
        stops is begun anew there from its last turn, to end as it stands."""
        work = partial(self._anywhere, run, index, lambda: AttemptJob.of(run, index))
        try:
            if not run.is_stopped(index):
                run.at_work[index] = asyncio.ensure_future(work())
                try:
                    return cast("EndpointFailed | None", await run.at_work[index])
                except asyncio.CancelledError:
                    if not run.was_stopped(index):
                        raise
            return cast("EndpointFailed | None", await work())
        except SandboxFailed as lost:
            if (notebook := run.notebook(index)).ended is None:
                run.write(inner.failed("infrastructure", notebook, lost))
            return None

    async def verify(self, run: Run, job: Verification) -> Evidence:
        """The evidence on one candidate, found on some node."""
        return cast("Evidence", await self._anywhere(run, None, lambda: job))

    async def _anywhere(self, run: Run, attempt: int | None, job: Callable[[], Job]) -> Any:
        """What the job gives, from the first worker that can have its environment and lives on; `job` makes the record
        when there is a place. Raises SandboxFailed where nodes kept dying, and what the job raises."""
        if run.shipped is None:
            run.shipped = asyncio.ensure_future(asyncio.to_thread(self._shipped, run))
        shipped, key, losses = await asyncio.shield(run.shipped), run.environment.key, 0
        while True:
            worker = await self._places.take(key)
            try:
                told, value = await self._on(worker, run, shipped, job())
            except SandboxFailed as lost:
                losses += 1
                ended = attempt is not None and run.notebook(attempt).ended is not None
                retried = losses <= run.settings.infrastructure_retries and not ended
                run.write(trace.InfrastructureFailed(attempt=attempt, what="node", detail=f"{lost}", retried=retried))
                if not retried:
                    raise
                continue
            finally:
                self._places.leave(worker)
            if told == "done":
                return value
            if told == "failed" or not self._places.refuse(worker, key):
                raise value
            self._say(f"the node {self._nodes[worker]} gets no jobs of {run.name}: {value}")

    def _shipped(self, run: Run) -> tuple[Any, Sequence[Any]]:
        """Blocking: the run's terms and its workspace in the object store. Raises InputError where it cannot travel."""
        assert run.base is not None, "prepare comes first"
        if any(run.base.submodules().values()):
            raise InputError("submodules come from your checkout, which other machines do not have: --executor local")
        terms = Terms(run.name, run.task, run.settings, run.environment, run.prepared(), run.base.described)
        return self._ray.put(terms), [self._ray.put(packed(run.base))]

    async def _on(self, worker: Any, run: Run, shipped: tuple[Any, Sequence[Any]], job: Job) -> tuple[str, Any]:
        """The job's last message; those before are acted on. Raises SandboxFailed where its node dies."""
        ticket, asked = secrets.token_hex(8), set[asyncio.Task[None]]()
        stream = worker.do.options(num_returns="streaming").remote(ticket, *shipped, job)
        try:
            async for message in stream:
                told, value = await message
                if told == "write":
                    if not (isinstance(value, trace.BudgetReached) and run.over):  # the first one counts
                        run.write(value)
                elif told == "ask":
                    asked.add(asyncio.ensure_future(self._answer(run, worker, ticket, *value)))
                elif told == "say":
                    run.say(value)
                elif told in ENDS:
                    return told, value
                elif isinstance(job, AttemptJob):  # it begins now: a set-up takes none of its time
                    begin(run, job.index)
            raise SandboxFailed(f"the worker on {self._nodes[worker]} ended in the midst of a job")
        except self._ray.exceptions.RayError as error:
            if self._places.workers.pop(worker, None):
                self._ray.kill(worker)
                self._tasks.append(asyncio.ensure_future(self._enlist()))
            await asyncio.gather(*asked)
            raise SandboxFailed(f"the node {self._nodes[worker]} is lost: {type(error).__name__}") from error
        except BaseException:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            with contextlib.suppress(self._ray.exceptions.RayError):
                await worker.stop.remote(ticket)
            raise

    async def _answer(self, run: Run, worker: Any, ticket: str, number: int, model: str, arguments: Any) -> None:
        client, reply = run.clients[model], cast("Any", None)
        try:
            reply = await client.complete(**arguments)
        except Exception as error:
            reply = error if isinstance(error, TroopError) else RuntimeError(words_of(error))
        with contextlib.suppress(self._ray.exceptions.RayError):
            await worker.answer.remote(ticket, number, (reply, client.context, client.takes_tools))

    async def close(self) -> None:
        """Let all workers go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._places.workers:
            with contextlib.suppress(self._ray.exceptions.RayError, TimeoutError):
                await asyncio.wait_for(worker.stop.remote(), 10.0)
            self._ray.kill(worker)


def joined() -> Any:
    """Ray, connected to the cluster that RAY_ADDRESS names, or that runs on this machine, unless it is so already.
    Raises InputError where Ray is not installed, EnvironmentFailed where no cluster answers."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray: pip install 'troop-solver[ray]'") from error
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        if (place := re.fullmatch(r"([^:/]+|\[[^]]+\]):(\d+)", address)) and not ray.is_initialized():
            socket.create_connection((place[1].strip("[]"), int(place[2])), 10).close()  # Ray itself waits for minutes
        ray.init(address=address, ignore_reinit_error=True, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        start = f"""`ray start --head --resources='{{"{SANDBOX}": {PLACES}}}'`, or RAY_ADDRESS names one elsewhere"""
        raise EnvironmentFailed(f"no Ray cluster answers at {address} ({error}): {start}") from error
    # What dead raylets said would go to standard output, where results go; Troop tells of a lost node itself.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray
