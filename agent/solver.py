"""A whole run: the outer graph.

    prepare ──> attempts ──> verify ──> select ──> report

prepare   workspace, environment, baseline: everything that can fail without a model having been called
attempts  N inner graphs, scheduled: a later one starts when an earlier one ends, never barred by a slow one
verify    each distinct candidate in a fresh sandbox
select    the rules, and the judge where they leave a tie
report    selected.patch, predictions.jsonl, report.json

Every node reads what the trace says already and does only the rest, so a resume is the same graph from its start.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agent import attempt as inner
from agent.judge import judge
from agent.notebook import Notebook
from agent.policy import Ask, Policy
from agent.run_files import RunFiles
from agent.select import group, select, undecided
from harness import trace
from harness.budget import BudgetKeeper
from harness.environment import Built, baseline, build
from harness.records import Attempt, Candidate, Json, Purpose, Selection, TestReport, WitnessTest
from harness.regression import choose
from harness.sandbox.base import Provider, SandboxSpec
from harness.testing import selects
from harness.verify import verification_key, verify, witness_on_base
from harness.workspace import Workspace
from tasks.errors import BudgetExceeded, EndpointFailed, EnvironmentFailed, SandboxFailed
from tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.config import Settings
    from agent.model import ModelClient


@dataclass(slots=True)
class Run:
    """What the nodes of one run work with: the outer graph's runtime context.

    `clients`: by model name (none for `repair`); `judge`: the judge's client, None for no judge. `policies`: makes the
    policy of an attempt from its model's name. `slots` bounds the attempts at a time, of all runs that share it.
    `events`: the whole trace so far.
    """

    task: Task
    settings: Settings
    files: RunFiles
    workspace: Callable[[], Workspace]
    provider: Provider
    log: trace.Trace
    events: list[trace.Event]
    keeper: BudgetKeeper
    clients: dict[str, ModelClient]
    judge: ModelClient | None
    policies: Callable[[str], Policy]
    slots: asyncio.Semaphore
    say: Callable[[str], None]
    base: Workspace | None = None
    built: Built | None = None
    over: BudgetExceeded | None = None
    broken: EndpointFailed | None = None

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

    def prepared(self) -> trace.Prepared:
        return next(e for e in self.events if isinstance(e, trace.Prepared))

    def notebook(self, index: int) -> Notebook:
        return Notebook.of(index, self.events)

    def finished(self) -> list[Attempt]:
        """The attempts that have ended, by index."""
        return [n.attempt() for n in self._notebooks() if n.ended is not None]

    def _notebooks(self) -> list[Notebook]:
        notebooks: dict[int, Notebook] = {}
        for event in self.events:
            if event.attempt is not None:
                notebooks.setdefault(event.attempt, Notebook(event.attempt)).add(event)
        return [notebooks[index] for index in sorted(notebooks)]

    def selection(self) -> Selection | None:
        return next((e.selection for e in self.events if isinstance(e, trace.Selected)), None)

    def candidates(self) -> tuple[Candidate, ...]:
        """The distinct candidates with the evidence that the trace holds on them."""
        evidence = {e.candidate: e.evidence for e in self.events if isinstance(e, trace.Verified)}
        return tuple(Candidate(c.id, c.patch, c.attempts, c.flags, evidence.get(c.id)) for c in group(self.finished()))


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
    """Workspace, environment and baseline. Raises InputError, SourceUnavailable, SetupFailed, SandboxFailed."""
    run = runtime.context
    began = time.monotonic()
    run.base = workspace = await asyncio.to_thread(run.workspace)
    for note in workspace.notes:
        run.say(note)
    run.built = built = await build(
        run.provider,
        workspace,
        run.task,
        run=run.name,
        limits=run.settings.limits,
        setup_timeout=run.settings.setup_timeout,
        say=run.say,
    )
    if any(isinstance(e, trace.Prepared) for e in run.events):
        return {"done": "prepare"}
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
    return {"done": "prepare"}


async def attempts(state: Stage, runtime: Runtime[Run]) -> Stage:
    """All attempts that have not ended yet, as many at a time as there are slots.

    Raises EndpointFailed when no attempt could be had because the model's server is not there.
    """
    run = runtime.context
    async with _graph(run) as graph:

        async def one(index: int) -> None:
            async with run.slots:
                if run.over is None and run.broken is None:
                    await _attempt(run, graph, index)

        await _all(one(index) for index in range(run.settings.budget.attempts))
    samples = [a for a in run.finished() if a.status != "infrastructure"]
    if not samples and run.broken is not None:
        raise run.broken
    failures = [a for a in run.finished() if a.status == "infrastructure"]
    if not samples and failures:
        raise EnvironmentFailed(
            f"every attempt failed for reasons outside of it, the last one by {failures[-1].detail}"
        )
    return {"done": "attempts"}


async def verify_all(state: Stage, runtime: Runtime[Run]) -> Stage:
    """Evidence on every candidate that has none yet, a few at a time."""
    run = runtime.context
    candidates = run.candidates()
    witnesses = await _true_witnesses(run, candidates)
    few = asyncio.Semaphore(os.cpu_count() or 2)

    async def one(candidate: Candidate) -> None:
        key, ids = _verification(run, candidate, witnesses)
        if any(isinstance(e, trace.Verified) and e.key == key for e in run.events):
            return
        async with few:
            evidence = await verify(
                run.provider,
                run.environment,
                run.task,
                run=run.name,
                name=f"verify-{candidate.id}",
                patch=candidate.patch,
                regression=ids,
                witnesses=witnesses,
                timeout=run.settings.test_timeout,
                test_seconds=inner.test_seconds(run.prepared().baseline),
                limits=run.settings.limits,
                retries=run.settings.infrastructure_retries,
            )
        run.write(trace.Verified(candidate=candidate.id, attempts=candidate.attempts, key=key, evidence=evidence))

    await _all(one(candidate) for candidate in candidates)
    return {"done": "verify"}


async def choose_one(state: Stage, runtime: Runtime[Run]) -> Stage:
    """The rules, and the judge where they leave a tie."""
    run = runtime.context
    if run.selection() is not None:
        return {"done": "select"}
    candidates = run.candidates()
    tied = undecided(candidates)
    points: dict[str, float] = {}
    if tied and run.judge is not None:
        points = await judge(run.task.statement, tied, _ask(run, run.judge, None, None), run.write)
    samples = [a for a in run.finished() if a.status != "infrastructure"]
    run.write(trace.Selected(selection=select(candidates, len(samples), points)))
    return {"done": "select"}


async def report(state: Stage, runtime: Runtime[Run]) -> Stage:
    """Write the run's end and its result files."""
    run = runtime.context
    selection = run.selection()
    assert selection is not None, "select comes first"
    status = "selected" if selection.candidate else "budget" if run.over is not None else "none"
    started = run.events[0].at
    run.write(trace.RunEnded(status=status, detail=str(run.over or ""), seconds=time.time() - started))
    run.files.write_results(run.events, run.candidates(), selection)
    return {"done": "report"}


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at the same time; the first error ends the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


@asynccontextmanager
async def _graph(run: Run) -> AsyncIterator[Any]:
    """The inner graph with its checkpoints in the run directory."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with aiosqlite.connect(run.files.checkpoints) as connection:
        # The trace is the record; a checkpoint lost with the machine costs nothing, so none is waited for.
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
    model = run.settings.models[index % len(run.settings.models)]
    if notebook.started is None:
        sampling = {"temperature": temperature_of(run.settings, index)} if model in run.clients else {}
        started = trace.AttemptStarted(
            attempt=index, seed=seed_of(run.settings.seed, index), model=model, sampling=sampling
        )
        run.write(started)
        notebook = run.notebook(index)
    assert notebook.started is not None
    run.keeper.start_attempt(index, elapsed=time.time() - notebook.started.at)
    while True:
        try:
            await _one_sandbox(run, graph, run.notebook(index))
            return
        except SandboxFailed as error:
            retried = run.notebook(index).failures < run.settings.infrastructure_retries
            run.write(trace.InfrastructureFailed(attempt=index, what="sandbox", detail=str(error), retried=retried))
            if not retried:
                run.write(inner.failed("infrastructure", run.notebook(index), error))
                return
        except EndpointFailed as error:
            run.broken = run.broken or error
            run.write(trace.InfrastructureFailed(attempt=index, what="model", detail=str(error), retried=False))
            run.write(inner.failed("infrastructure", run.notebook(index), error))
            return


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
                command_timeout=settings.command_timeout,
                test_timeout=settings.test_timeout,
                malformed=settings.malformed_limit,
                deadline=None if left is None else time.monotonic() + left,
            ),
            seed=notebook.started.seed,
            ask=_ask(run, run.clients.get(notebook.started.model), notebook, notebook.started),
            write=run.write,
        )
        try:
            await inner.run(graph, desk, thread=f"attempt-{index}")
        except (SandboxFailed, EndpointFailed):
            raise
        except Exception as error:  # a defect ends the attempt as data, with whatever patch exists
            await inner.end(desk, "crashed", detail=f"{type(error).__name__}: {error}")
    finally:
        await sandbox.close()


def _ask(run: Run, client: ModelClient | None, notebook: Notebook | None, started: trace.AttemptStarted | None) -> Ask:
    """The charged call of an attempt, or of the judge (`notebook` None): what the trace holds is not asked again."""
    index = None if notebook is None else notebook.index

    async def ask(key: str, purpose: Purpose, messages: Sequence[Json], tools: Sequence[Json] = ()) -> Json:
        full = f"{'judge' if index is None else index}/{key}"
        for event in run.events if index is None else ():
            if isinstance(event, trace.Replied) and event.key == full:
                return event.message
        if notebook is not None and key in notebook.replies:
            return notebook.replies[key]
        if client is None:
            raise EndpointFailed("this policy has no model to ask")
        try:
            reply = await client.complete(
                messages,
                tools,
                purpose=purpose,
                attempt=index,
                key=full,
                seed=started.seed if started else run.settings.seed,
                temperature=started.sampling.get("temperature") if started else 0.0,
            )
        except BudgetExceeded as error:
            if error.scope == "run":
                run.over = error
            raise
        if notebook is not None:
            notebook.replies[key] = reply.message
        return reply.message

    return ask


async def _true_witnesses(run: Run, candidates: Sequence[Candidate]) -> tuple[WitnessTest, ...]:
    """The witness tests of all attempts that fail on the base, each path once."""
    recorded = [w for a in run.finished() for w in a.witness_tests]
    if not recorded or not candidates:
        return ()
    return await witness_on_base(
        run.provider,
        run.environment,
        run.task,
        run=run.name,
        witnesses=recorded,
        timeout=run.settings.test_timeout,
        test_seconds=inner.test_seconds(run.prepared().baseline),
        limits=run.settings.limits,
    )


def _verification(run: Run, candidate: Candidate, witnesses: Sequence[WitnessTest]) -> tuple[str, tuple[str, ...]]:
    """The memo key of a candidate's verification, and the regression tests chosen for it."""
    prepared, base = run.prepared(), run.base
    ids: tuple[str, ...] = ()
    if prepared.baseline is not None and base is not None:
        ids = choose(
            prepared.baseline,
            {*prepared.flaky, *_given_tests(run.task, prepared.baseline)},
            candidate.patch,
            seconds=run.settings.verify_seconds,
            text=lambda path: _text(base, path),
        )
    key = verification_key(
        run.environment.key, candidate.patch, ids, witnesses, run.task.failing_test, run.environment.test_command
    )
    return key, ids


def _given_tests(task: Task, baseline: TestReport) -> set[str]:
    """The base's tests that the task's given ids select; they are evidence of their own."""
    given = task.failing_test.ids if task.failing_test else ()
    return {test for test in baseline.outcomes if any(selects(wanted, test) for wanted in given)}


def _text(base: Workspace, path: str) -> str:
    try:
        return base.read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
