"""A whole run: the outer graph.

    prepare ──> attempts ──> verify ──> select ──> report

prepare   workspace, environment, baseline: everything that can fail without a model having been called
attempts  N inner graphs, scheduled: a later one starts when an earlier one ends, never barred by a slow one; or adaptively,
          as long as another one is worth its price (agent/run/sampling.py)
verify    each distinct candidate in a fresh sandbox
select    the ranker or the rules, and the judge where they leave several close together
report    selected.patch, predictions.jsonl, report.json

Every node reads what the trace says already and does only the rest, so a resume is the same graph from its start.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agent.attempt import graph as inner
from agent.attempt.notebook import Notebook, candidates_of, notebooks
from agent.attempt.policy import Ask, Policy
from agent.choice.judging import judged
from agent.choice.order import select, undecided
from agent.run.sampling import Sampling, sample
from agent.run.verification import near_tests_of, verify_candidates
from agent.run_files import RunFiles
from harness import trace
from harness.environments.environment import Built, baseline, build
from harness.money.budget import BudgetKeeper
from harness.parallel import apart, in_parallel
from harness.records import Attempt, Candidate, Json, Purpose, Selection
from harness.repository.workspace import Workspace
from harness.sandbox.base import Provider, SandboxSpec
from harness.views.report import active_seconds
from tasks.errors import BudgetExceeded, EndpointFailed, EnvironmentFailed, SandboxFailed
from tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.config import Settings
    from agent.models.client import ModelClient


PAUSE_SECONDS = 0.5
"""Before a sandbox that died is replaced; doubled each time."""


@dataclass(slots=True)
class Run:
    """What the nodes of one run work with: the outer graph's runtime context.

    `clients`: by model name (none for `repair`); `judge`: the judge's client, None for no judge. `policies`: makes the
    policy of an attempt from its model's name. `slots` bounds the attempts at a time, of all runs that share it; it may be
    entered many times at once. `checks` bounds verifications likewise. `sampling`: what decides on further attempts, None where
    all are made.
    `workspace`: opens it, at the given commit or (None) at what the task's base means now. `events`: the whole trace so
    far. `broken`: by model, why no more attempts are made with it. `verifying`: held while evidence is gathered; `shown`: whether
    each witness test, by path and text, fails on the base.
    """

    task: Task
    settings: Settings
    files: RunFiles
    workspace: Callable[[str | None], Workspace]
    provider: Provider
    log: trace.Trace
    events: list[trace.Event]
    keeper: BudgetKeeper
    clients: dict[str, ModelClient]
    judge: ModelClient | None
    policies: Callable[[str], Policy]
    slots: AbstractAsyncContextManager[object]
    say: Callable[[str], None]
    checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 2))
    sampling: Sampling | None = None
    verifying: asyncio.Lock = field(default_factory=asyncio.Lock)
    shown: dict[tuple[str, str], bool] = field(default_factory=dict)
    base: Workspace | None = None
    built: Built | None = None
    broken: dict[str, EndpointFailed] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def environment(self) -> Built:
        assert self.built is not None, "prepare comes first"
        return self.built

    def write(self, event: trace.Event) -> None:
        """Append to the trace; `events` follows by listening."""
        self.log.write(event)

    @property
    def over(self) -> trace.BudgetReached | None:
        """The cap of the whole run that was reached, by this process or an earlier one, since it was last reopened."""
        return next((e for e in trace.since_reopened(self.events) if isinstance(e, trace.BudgetReached)), None)

    def end_by(self, error: BudgetExceeded) -> None:
        """Note that a cap is reached; one of the whole run lets no further attempt start."""
        if error.scope == "run" and self.over is None:
            self.write(trace.BudgetReached(limit=error.limit, detail=str(error)))

    def check_budget(self) -> None:
        """Note whether a cap of the whole run is reached by now."""
        try:
            self.keeper.check()
        except BudgetExceeded as error:
            self.end_by(error)

    def model_of(self, index: int) -> str:
        """The model of an attempt: attempts rotate over the run's models."""
        return self.settings.models[index % len(self.settings.models)]

    def may_begin(self, index: int) -> bool:
        """Whether the attempt may be made: no cap of the run is reached, and its model's server is there."""
        self.check_budget()
        return self.over is None and self.model_of(index) not in self.broken

    def prepared(self) -> trace.Prepared:
        return next(e for e in self.events if isinstance(e, trace.Prepared))

    def notebook(self, index: int) -> Notebook:
        return Notebook.of(index, self.events)

    def finished(self) -> list[Attempt]:
        """The attempts that have ended, by index."""
        return [n.attempt() for n in notebooks(self.events) if n.ended is not None]

    def selection(self) -> Selection | None:
        """The choice, if it is made; one from before the run was reopened is made again."""
        return next((e.selection for e in trace.since_reopened(self.events) if isinstance(e, trace.Selected)), None)

    def candidates(self) -> tuple[Candidate, ...]:
        """The distinct candidates with the evidence that the trace holds on them."""
        return candidates_of(self.events)


class Stage(TypedDict):
    """The outer graph's state: the last stage that is done."""

    done: str


async def drive(run: Run) -> None:
    """The whole run, to its end. Raises what `prepare` raises, and CancelledError when interrupted."""
    graph: StateGraph[Stage, Run, Stage, Stage] = StateGraph(Stage, context_schema=Run)
    nodes = (
        ("prepare", prepare),
        ("attempts", attempts),
        ("verify", verify_all),
        ("select", choose_one),
        ("report", report),
    )
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    await graph.compile().ainvoke({"done": ""}, context=run)


async def prepare(state: Stage, runtime: Runtime[Run]) -> Stage:
    """Workspace, environment and baseline. Raises InputError, SourceUnavailable, SetupFailed, SandboxFailed.

    A run that was prepared before keeps its base, whatever the repository's branches point to by now.
    """
    run = runtime.context
    pinned = next((e.base_commit for e in run.events if isinstance(e, trace.Prepared)), None)
    run.base = workspace = await apart(run.workspace, pinned)
    for note in workspace.notes:
        run.say(note)
    async with run.checks:
        await _prepare(run, workspace, pinned is None)
    return {"done": "prepare"}


async def _prepare(run: Run, workspace: Workspace, first: bool) -> None:
    """The environment, and for a run that was not prepared before the baseline."""
    began = time.monotonic()
    run.built = built = await build(
        run.provider,
        workspace,
        run.task,
        run=run.name,
        limits=run.settings.limits,
        setup_timeout=run.settings.setup_timeout,
        say=run.say,
    )
    if not first:
        return
    found = await baseline(
        run.provider,
        built,
        run.task,
        run=run.name,
        runs=run.settings.base_runs,
        timeout=run.settings.test_timeout,
        limits=run.settings.limits,
        say=run.say,
    )
    run.write(
        trace.Prepared(
            base_commit=workspace.base_commit,
            environment=built.key,
            backend=run.provider.name,
            image=built.image,
            test_command=built.test_command,
            baseline=found.report,
            flaky=found.flaky,
            missing_limits=built.missing_limits,
            note=" ".join([*built.notes, *([found.note] if found.note else [])]),
            seconds=time.monotonic() - began,
        )
    )


async def attempts(state: Stage, runtime: Runtime[Run]) -> Stage:
    """All attempts that have not ended yet, as many at a time as there are slots; with `sampling`, those that are worth it.

    Raises EndpointFailed when there is no sample because the model's server is not there.
    """
    run = runtime.context
    async with _graph(run) as graph:

        async def one(index: int) -> None:
            async with run.slots:
                if run.may_begin(index):
                    await _attempt(run, graph, index)

        if run.sampling is not None:
            await sample(run, run.sampling, lambda index: _attempt(run, graph, index))
        else:
            await in_parallel(one(index) for index in range(run.settings.budget.attempts))
    samples = [a for a in run.finished() if a.status != "infrastructure"]
    if samples:
        return {"done": "attempts"}
    run.files.write_patches(run.events)
    if run.broken:
        raise next(iter(run.broken.values()))
    failures = [a for a in run.finished() if a.status == "infrastructure"]
    if failures:
        raise EnvironmentFailed(
            f"every attempt failed for reasons outside of it, the last one by {failures[-1].detail}"
        )
    return {"done": "attempts"}


async def verify_all(state: Stage, runtime: Runtime[Run]) -> Stage:
    """Evidence on every candidate that has none yet, a few at a time."""
    await verify_candidates(runtime.context)
    return {"done": "verify"}


async def choose_one(state: Stage, runtime: Runtime[Run]) -> Stage:
    """What verification, the ranker and, among those that stand first, the judge say."""
    run = runtime.context
    if run.selection() is not None:
        return {"done": "select"}
    candidates = run.candidates()
    weighed = None
    if run.settings.orders_by == "evidence":
        from agent.choice.weighing import weigh

        weighed = await weigh(run, candidates)
    samples = len([a for a in run.finished() if a.status != "infrastructure"])
    threshold = run.settings.threshold
    points = await judged(run, undecided(candidates, weighed, threshold))
    run.write(trace.Selected(selection=select(candidates, samples, points, weighed, threshold)))
    return {"done": "select"}


async def report(state: Stage, runtime: Runtime[Run]) -> Stage:
    """Write the result files, then the run's end: a run that has ended has them."""
    run = runtime.context
    selection = run.selection()
    assert selection is not None, "select comes first"
    run.files.write_results(run.events, run.candidates(), selection)
    over = run.over
    status = "selected" if selection.candidate else "budget" if over is not None else "none"
    run.write(trace.RunEnded(status=status, detail=over.detail if over else "", seconds=active_seconds(run.events)))
    return {"done": "report"}


@asynccontextmanager
async def _graph(run: Run) -> AsyncIterator[Any]:
    """The inner graph with its checkpoints in the run directory."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    # The trace is the record: a process that takes the run over starts with checkpoints of its own, and one that is lost
    # with the machine costs nothing, so none is waited for.
    for ending in ("", "-wal", "-shm"):
        run.files.checkpoints.with_name(run.files.checkpoints.name + ending).unlink(missing_ok=True)
    async with aiosqlite.connect(run.files.checkpoints) as connection:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=OFF")
        saver = AsyncSqliteSaver(connection)
        await saver.setup()
        yield inner.build(saver)


def seed_of(run_seed: int, index: int) -> int:
    """The seed of an attempt: differs by attempt, the same for the same run seed."""
    return (run_seed * 1_000_003 + index * 7919) % 2**31


def temperature_of(settings: Settings, index: int) -> float:
    """The temperature of an attempt's samples: as set, else 0.6 to 1.0 by the golden ratio, so that samples differ."""
    if settings.temperature is not None:
        return settings.temperature
    return round(0.6 + 0.4 * ((index * 0.618034) % 1.0), 2)


async def _attempt(run: Run, graph: Any, index: int) -> None:
    """One attempt to its end, in a new sandbox as often as one dies within the allowance."""
    notebook = run.notebook(index)
    if notebook.ended is not None:
        return
    model = run.model_of(index)
    if notebook.started is None:
        sampling = {"temperature": temperature_of(run.settings, index)} if model in run.clients else {}
        started = trace.AttemptStarted(
            attempt=index, seed=seed_of(run.settings.seed, index), model=model, sampling=sampling
        )
        run.write(started)
        notebook = run.notebook(index)
    assert notebook.started is not None
    run.keeper.start_attempt(index, elapsed=notebook.seconds)
    while True:
        try:
            await _one_sandbox(run, graph, run.notebook(index))
            break
        except SandboxFailed as error:
            failures = run.notebook(index).failures
            retried = failures < run.settings.infrastructure_retries
            run.write(trace.InfrastructureFailed(attempt=index, what="sandbox", detail=str(error), retried=retried))
            if not retried:
                run.write(inner.failed("infrastructure", run.notebook(index), error))
                break
            await asyncio.sleep(PAUSE_SECONDS * 2**failures)
    ended = run.notebook(index).ended
    if ended is not None and ended.status == "budget":
        run.check_budget()  # the attempt may have ended by the clock of the whole run


async def _one_sandbox(run: Run, graph: Any, notebook: Notebook) -> None:
    """Drive the attempt in one sandbox until it ends or the sandbox dies."""
    assert notebook.started is not None
    index, settings = notebook.index, run.settings
    spec = SandboxSpec(
        run=run.name, name=f"attempt-{index:02d}", environment=run.environment.key, limits=settings.limits
    )
    sandbox = await run.provider.create(spec)
    try:
        left = run.keeper.seconds_left(index)
        desk = inner.Desk(
            task=run.task,
            prepared=run.prepared(),
            policy=run.policies(notebook.started.model),
            sandbox=sandbox,
            notebook=notebook,
            rules=inner.Rules(
                turns=settings.budget.turns,
                command_timeout=_within(settings.command_timeout, left),
                test_timeout=_within(settings.test_timeout, left),
                malformed=settings.malformed_limit,
                deadline=None if left is None else time.monotonic() + left,
            ),
            seed=notebook.started.seed,
            ask=_ask(run, run.clients.get(notebook.started.model), notebook, notebook.started),
            write=run.write,
            near=near_tests_of(run),
        )
        try:
            await inner.run(graph, desk, thread=f"attempt-{index}")
        except SandboxFailed:
            raise
        except EndpointFailed as error:  # the sandbox lives, so the patch made so far is kept
            run.broken.setdefault(notebook.started.model, error)
            run.write(trace.InfrastructureFailed(attempt=index, what="model", detail=str(error), retried=False))
            await inner.end(desk, "infrastructure", detail=f"the model: {error}")
        except Exception as error:  # a defect ends the attempt as data, with whatever patch exists
            await _end_crashed(run, desk, error)
    finally:
        await sandbox.close()


def _within(timeout: float, left: float | None) -> float:
    """A timeout that does not reach far beyond a deadline `left` seconds away."""
    return timeout if left is None else min(timeout, max(left, 1.0))


async def _end_crashed(run: Run, desk: inner.Desk, error: Exception) -> None:
    said = f"{type(error).__name__}: {error}"
    try:
        await inner.end(desk, "crashed", detail=said)
    except Exception as second:  # what broke the attempt may break the taking of its patch as well
        end = inner.failed("crashed", run.notebook(desk.notebook.index), error)
        run.write(replace(end, detail=f"{said}; no patch could be taken: {type(second).__name__}: {second}"))


def _ask(run: Run, client: ModelClient | None, notebook: Notebook, started: trace.AttemptStarted) -> Ask:
    """The charged call of an attempt: what the trace holds is not asked again."""

    async def ask(key: str, purpose: Purpose, messages: Sequence[Json], tools: Sequence[Json] = ()) -> Json:
        full = f"{notebook.index}/{key}"
        if key in notebook.replies:
            return notebook.replies[key]
        if client is None:
            raise EndpointFailed("this policy has no model to ask")
        try:
            reply = await client.complete(
                messages,
                tools,
                purpose=purpose,
                attempt=notebook.index,
                key=full,
                seed=started.seed,
                temperature=started.sampling.get("temperature"),
            )
        except BudgetExceeded as error:
            run.end_by(error)
            raise
        # As it was written: a resume would go on from the same words.
        written = (e.message for e in reversed(run.events) if isinstance(e, trace.Replied) and e.key == full)
        message = next(written, reply.message)
        notebook.replies[key] = message
        return message

    return ask
