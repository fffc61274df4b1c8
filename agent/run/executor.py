"""Where the jobs of a run are done: the executor that is this process.

A job is an attempt or the verification of a candidate (see `agent.run.context.Executor`). All it tells goes into the
run's trace. What begins and closes an attempt is done where the run is driven, whoever does the rest.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Never, cast

from agent.attempt import graph as inner
from agent.attempt.notebook import Notebook
from agent.attempt.policy import Ask, Policy, asking
from agent.config import CONTEXT
from agent.run.context import Run, Verification
from agent.run.verification import near_tests_of
from harness import trace
from harness.cache import cache_root
from harness.evidence.verify import verify
from harness.memory import settled
from harness.patches.extract import hide_setup
from harness.records import Evidence
from harness.room import check
from harness.sandbox.fresh import Coming, probe
from tasks.errors import DiskFull, EndpointFailed, SandboxFailed

if TYPE_CHECKING:
    from agent.config import Settings
    from agent.models.client import ModelClient
    from harness.sandbox.base import Sandbox

PAUSE_SECONDS = 0.5
"""Before a sandbox that died is replaced; doubled each time."""


class InProcess:
    """Jobs in this process, in sandboxes of the run's provider on this machine."""

    def __init__(self) -> None:
        self._graph = inner.build()

    async def attempt(self, run: Run, index: int) -> None:
        """One attempt to its end."""
        if run.notebook(index).ended is not None:
            return
        begin(run, index)
        model = run.model_of(index)
        if refusal := await self.drive(run, index):
            run.refused(model, refusal)
        ended = run.notebook(index).ended
        if ended is not None and ended.status != "infrastructure":
            run.refusals.pop(model, None)
        if ended is not None and ended.status == "budget":
            run.check_budget()  # the attempt may have ended by the clock of the whole run

    async def verify(self, run: Run, job: Verification) -> Evidence:
        """The evidence on one candidate. One that takes its sandboxes down is invalid, where others can be made."""
        name, patch, ids = f"verify-{job.candidate.id}", job.candidate.patch, job.regression
        room = replace(run.room(job.test_seconds), slots=run.checks)
        try:
            return await verify(room, run.task, name=name, patch=patch, regression=ids, witnesses=job.witnesses)
        except SandboxFailed as error:
            await probe(room.provider, room.spec(f"probe-{job.candidate.id}"))
            return Evidence(applies=True, valid=False, reason=f"its tests take the sandbox down: {error}")

    async def drive(self, run: Run, index: int) -> EndpointFailed | None:
        """An attempt that has begun, to its end, in a new sandbox as often as one dies within the allowance; the error
        where its model's server ended it."""
        settled()
        while True:
            try:
                return await self._one_sandbox(run, run.notebook(index))
            except SandboxFailed as error:
                failures = run.notebook(index).failures
                retried = failures < run.settings.infrastructure_retries
                run.write(trace.InfrastructureFailed(attempt=index, what="sandbox", detail=str(error), retried=retried))
                if not retried:
                    await self._give_up(run, run.notebook(index), error)
                    return None
                await asyncio.sleep(PAUSE_SECONDS * 2**failures)

    async def _give_up(self, run: Run, notebook: Notebook, error: SandboxFailed) -> None:
        """End an attempt whose sandboxes keep dying, with the patch that its last turn's tree makes where one can be
        had."""
        try:
            await self._one_sandbox(run, notebook, over=f"the sandbox: {error}")
        except SandboxFailed:
            run.write(inner.failed("infrastructure", notebook, error))

    async def _one_sandbox(self, run: Run, notebook: Notebook, over: str = "") -> EndpointFailed | None:
        """Drive the attempt in one sandbox until it ends or the sandbox dies. `over`: why it ends as it stands. What it
        gives: see `drive`."""
        assert notebook.started is not None
        index, settings = notebook.index, run.settings
        # It is made while the model thinks about its plan.
        sandbox = Coming(_opened(run, index))
        try:
            left = run.keeper.seconds_left(index)
            client = run.clients.get(notebook.started.model)
            desk = inner.Desk(
                task=run.task,
                prepared=run.prepared(),
                policy=_policy(run, client, notebook),
                sandbox=cast("Sandbox", sandbox),
                notebook=notebook,
                rules=inner.Rules(
                    turns=settings.budget.turns,
                    command_timeout=_within(settings.command_timeout, left),
                    test_timeout=_within(settings.test_timeout, left),
                    malformed=settings.malformed_limit,
                    deadline=None if left is None else time.monotonic() + left,
                ),
                seed=notebook.started.seed,
                ask=_ask(run, client, notebook, notebook.started),
                write=run.write,
                fresh=partial(run.room().fresh, f"patch-{index:02d}"),
                unchanged=run.unchanged(),
                with_tests=settings.with_tests,
                near=near_tests_of(run),
                context=lambda: client.context if client else CONTEXT,
            )
            try:
                if over or run.is_stopped(index):
                    await inner.restore(desk)
                    await inner.end(desk, *(("infrastructure", over) if over else ("interrupted", trace.BY_HAND)))
                else:
                    run.at_work[index] = asyncio.create_task(inner.drive(self._graph, desk))
                    await run.at_work[index]
            except (SandboxFailed, DiskFull):
                raise
            except asyncio.CancelledError:
                if not run.was_stopped(index):
                    raise
                await inner.end(desk, "interrupted", trace.BY_HAND)
            except EndpointFailed as error:  # the sandbox lives, so the patch made so far is kept
                run.write(trace.InfrastructureFailed(attempt=index, what="model", detail=str(error), retried=False))
                await inner.end(desk, "infrastructure", detail=f"the model: {error}")
                return error
            except Exception as error:  # a defect ends the attempt as data, with whatever patch exists
                await _end_crashed(run, desk, error)
            return None
        finally:
            await sandbox.close()


async def _opened(run: Run, index: int) -> Sandbox:
    sandbox = await run.provider.create(run.room().spec(f"attempt-{index:02d}"))
    try:
        await hide_setup(sandbox)
    except BaseException:
        await sandbox.close()
        raise
    return sandbox


def begin(run: Run, index: int) -> None:
    """Note that an attempt begins, unless that is known, and let its clock run."""
    notebook, model = run.notebook(index), run.model_of(index)
    if notebook.started is None:
        sampling = {}
        if client := run.clients.get(model):
            own = client.alias.sampling.get("temperature", temperature_of(run.settings, index))
            sampling = {} if own is False else {"temperature": own}
        seed = seed_of(run.settings.seed, index)
        run.write(trace.AttemptStarted(attempt=index, seed=seed, model=model, sampling=sampling))
    run.keeper.start_attempt(index, elapsed=notebook.seconds)


def seed_of(run_seed: int, index: int) -> int:
    """The seed of an attempt: differs by attempt, the same for the same run seed."""
    return (run_seed * 1_000_003 + index * 7919) % 2**31


def temperature_of(settings: Settings, index: int) -> float:
    """The temperature of an attempt's samples: as set, else 0.6 to 1.0 by the golden ratio, so that samples differ."""
    if settings.temperature is not None:
        return settings.temperature
    return round(0.6 + 0.4 * ((index * 0.618034) % 1.0), 2)


def _within(timeout: float, left: float | None) -> float:
    """A timeout that does not reach far beyond a deadline `left` seconds away."""
    return timeout if left is None else min(timeout, max(left, 1.0))


async def _end_crashed(run: Run, desk: inner.Desk, error: Exception) -> None:
    """End the attempt as crashed. Raises DiskFull where a disk that is nearly full may be what it crashed on."""
    check(run.files.directory, 1 << 20)
    check(cache_root(), 1 << 20)
    said = f"{type(error).__name__}: {error}"
    try:
        await inner.end(desk, "crashed", detail=said)
    except DiskFull:
        raise
    except Exception as second:  # what broke the attempt may break the taking of its patch as well
        end = inner.failed("crashed", run.notebook(desk.notebook.index), error)
        run.write(replace(end, detail=f"{said}; no patch could be taken: {type(second).__name__}: {second}"))


def _policy(run: Run, client: ModelClient | None, notebook: Notebook) -> Policy:
    if client is None:
        from agent.repair.policy import RepairPolicy

        return RepairPolicy(attempts=run.settings.budget.attempts, seed=run.settings.seed)
    from agent.attempt.model_policy import ModelPolicy

    return ModelPolicy(tools=client.takes_tools, writes_tests=notebook.writes_tests)


def _ask(run: Run, client: ModelClient | None, notebook: Notebook, started: trace.AttemptStarted) -> Ask:
    if client is None:
        return _no_model
    index, temperature = notebook.index, started.sampling.get("temperature")
    complete = partial(client.complete, attempt=index, seed=started.seed, temperature=temperature)
    return asking(complete, notebook.replies, str(index), run.end_by)


async def _no_model(*_: object, **__: object) -> Never:
    raise EndpointFailed("this policy has no model to ask")
