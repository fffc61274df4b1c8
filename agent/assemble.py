"""Putting a run together: which models, which sandbox, which policy; then starting it or going on with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choice.candidates import candidates_of
from agent.choice.order import check_threshold
from agent.config import MODEL_ATTEMPTS, REPAIR, Alias, Config, Settings, key_of, load_config, prices_of, resolve_model
from agent.run.control import changed, listening
from agent.run_files import RunFiles, new_run, run_name
from agent.secrets import known_masker, masker
from agent.version import VERSION
from harness import telemetry, trace
from harness.cache import cache_root
from harness.choosing.pool import Sample
from harness.lock import run_lock
from harness.memory import give_memory_back
from harness.money.budget import BudgetKeeper, Share, SharedBudget
from harness.money.ledger import charges, check_priced, is_priced, unsettled
from harness.parallel import in_parallel
from harness.records import Budget, Json, Selection
from harness.repository.workspace import Workspace, open_workspace, reopen_workspace
from harness.room import check, lacking
from harness.sandbox.base import Provider
from harness.sandbox.choice import choose_provider
from harness.suites.slots import Slots
from harness.views.report import active_seconds, last_selection, run_status
from tasks.errors import DiskFull, EndpointFailed, InputError
from tasks.say import Say
from tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.models.connections import Connections
    from agent.run.context import Executor, Run
    from agent.run.worth import Sampling
    from harness.views.live import View


LEAST_ROOM, RUN_ROOM, SANDBOX_ROOM, ENVIRONMENT_ROOM = 128 << 10, 1 << 20, 100 << 20, 500 << 20
"""Bytes without which no run comes to its end in a run directory; those that an attempt's trace and patch, a sandbox,
and an environment with its clone may want, roughly."""

THREE_WAYS = """No model is configured, and there is no failing test for `repair` to work from. Three ways:
  export OPENAI_API_KEY=...  and  --model openai/gpt-5-mini        an API
  --model http://127.0.0.1:8000/v1#NAME                            a server on this machine (vLLM, Ollama, llama.cpp)
  default_model = "NAME"  in troop.toml, with [models.NAME]        an alias
or a failing test with --failing-test tests/test_x.py::test_y, and `repair` does without a model."""


@dataclass(frozen=True, slots=True)
class Solution:
    """What a run came to. `patch` None: nothing acceptable (or nothing yet). `report`: as in report.json."""

    directory: Path
    status: str
    selection: Selection | None
    patch: str | None
    report: Json

    @property
    def exit_code(self) -> int:
        """0 selected, 1 nothing acceptable, 3 a budget of the run ended it before a selection, 130 interrupted."""
        return {"selected": 0, "none": 1, "budget": 3, "interrupted": 130}.get(self.status, 4)


def _silent(line: str) -> None:
    """No progress."""


def pick_models(settings: Settings, config: Config, task: Task, say: Say) -> tuple[str, ...]:
    """The models of the run, by name. Raises EndpointFailed with the ways to give one where there is none."""
    if settings.models or not settings.budget.attempts:
        return settings.models
    if config.default_model is not None:
        return (config.default_model,)
    if task.failing_test is not None:
        say("No model is configured; `repair` works from the failing test, without a model.")
        return (REPAIR,)
    raise EndpointFailed(THREE_WAYS)


def pick_judge(settings: Settings) -> str | None:
    """The judge's model by name: as set, else the first model that is one; None for no judge."""
    if "none" in (settings.judge, settings.judge_model):
        return None
    return settings.judge_model or next((m for m in settings.models if m != REPAIR), None)


@dataclass(slots=True)
class Pool:
    """What several runs may share: the sandboxes' provider, the connections to models, the slots for attempts.

    `checks` bounds what runs tests and no model: preparing, verifying, grading. `executor`: where jobs are done."""

    provider: Provider
    connections: Connections
    slots: Slots
    checks: asyncio.Semaphore
    executor: Executor

    def heed(self, wish: trace.CapsChanged, settings: Settings, budget: BudgetKeeper | SharedBudget) -> Settings:
        """The settings as wished for, which hold from now on. Raises InputError for a cap that cannot be kept."""
        settings, config = changed(settings, wish), load_config()
        check_models(settings, config)
        budget.change(settings.budget)
        self.connections.width = places = width(settings)
        self.slots.resize(places)
        for alias in named_models(settings, config):
            self.connections.limiter(alias).allow(alias.concurrency or places)
        return settings


@contextlib.asynccontextmanager
async def open_pool(settings: Settings, image: str | None, say: Say = _silent) -> AsyncIterator[Pool]:
    """The pool of one run, or of many with the same settings. `image`: a Docker image that a task asks for.

    Raises SandboxFailed where no sandbox can be had."""
    from agent.models.connections import Connections

    give_memory_back()
    async with contextlib.AsyncExitStack() as stack:
        provider = await choose_provider(settings.sandbox, image=image, cache=cache_root(), say=say)
        provider.registry = settings.registry
        stack.push_async_callback(provider.close)
        places = width(settings)
        connections = await stack.enter_async_context(contextlib.aclosing(Connections(places)))
        for alias in named_models(settings, load_config()):
            if alias.concurrency and alias.concurrency < places:
                say(f"{alias.alias} takes {alias.concurrency} calls at once, as its alias says, of {places} attempts")
        executor: Executor
        if settings.executor == "ray":
            from agent.run.cluster import OnCluster

            executor = OnCluster(settings, provider.name, places, say)
            stack.push_async_callback(executor.close)
        else:
            from agent.run.executor import InProcess

            executor = InProcess()
        yield Pool(provider, connections, Slots(places), asyncio.Semaphore(os.cpu_count() or 2), executor)


def width(settings: Settings) -> int:
    """Attempts at a time: as set, else what the processors bear (`repair`) or what models are good for."""
    if settings.concurrency is not None:
        return settings.concurrency
    return (os.cpu_count() or 2) if set(settings.models) <= {REPAIR} else MODEL_ATTEMPTS


def without_attempts(settings: Settings) -> Settings:
    """The settings of a run that makes no attempts, and chooses among patches that it is given; the judge's model
    writes the further tests where it is a tie. Raises InputError where there is none for that."""
    writers = (settings.judge_model or "none",) if settings.tie_witnesses else ()
    if "none" in writers:
        raise InputError("--tie-witnesses needs a model that writes tests: give --judge-model NAME")
    budget = replace(settings.budget, attempts=0)
    return replace(settings, models=writers, budget=budget, adaptive=False, until=None)


def start(
    task: Task,
    settings: Settings,
    *,
    source: str = "",
    directory: Path | None = None,
    given: Sequence[Sample] = (),
    say: Say = _silent,
) -> tuple[RunFiles, Task, Settings]:
    """Make the run directory (`directory`, else a new one below `settings.out`) and the beginning of its trace.
    `given`: patches that exist already, which become attempts that have ended.

    Nothing that costs anything has been started then. Raises InputError and EndpointFailed for models that cannot be.
    """
    config = load_config()
    apt = tuple(dict.fromkeys((*task.environment.apt, *config.apt)))
    task = replace(task, environment=replace(task.environment, apt=apt))
    settings = settle(settings, config, task, say)
    if directory is None and set(settings.models) == {REPAIR}:
        settings = replace(settings, until=settings.until or "proved")
    check_models(settings, config)
    mask, mask_known = _masks(settings, config)
    _refuse_credentials(task, settings, mask)
    # The statement is read by people and models; all else of the task is carried out, so only known secrets go.
    task = replace(task, statement=mask(task.statement))
    task = trace.record(Task, trace.mask_strings(trace.public(task), mask_known))
    place = directory or settings.out / run_name(task.id)
    _check_room(place, settings, None, say)
    files = new_run(place)
    with run_lock(files.directory):
        files.trace_file.unlink(missing_ok=True)  # of a process that was killed here
        with contextlib.closing(open_trace(files, settings)) as log:
            _begin(files, task, settings, log)
            for index, sample in enumerate(given):
                _hand_in(log, index, sample)
        files.write_run(task, settings, _versions(), mask(source), "running")  # it is a run only now
    return files, task, settings


def _check_room(directory: Path, settings: Settings, storage: Path | None, say: Say) -> None:
    """Raises DiskFull where a run surely comes to no end; says so where little is left (`storage`: for sandboxes)."""
    check(directory, LEAST_ROOM)
    check(cache_root(), LEAST_ROOM)
    of_sandboxes = ENVIRONMENT_ROOM + width(settings) * SANDBOX_ROOM
    for place, want in ((directory, settings.budget.attempts * RUN_ROOM), (storage, of_sandboxes)):
        if storage is not None and (why := lacking(place, want)):
            say(f"{why}, and this run may want {want >> 20} MB there: if it gets full the run stops, to be resumed")


def _versions() -> Json:
    return {"troop": VERSION, "python": platform.python_version(), "platform": platform.platform()}


def _begin(files: RunFiles, task: Task, settings: Settings, log: trace.Trace) -> None:
    """The first line of the trace."""
    said = {"task": trace.public(task), "settings": trace.public(settings)}
    log.write(trace.RunStarted(run=files.name, versions=_versions(), **said))


def _hand_in(log: trace.Trace, index: int, sample: Sample) -> None:
    """A patch as an attempt that has ended; of one of Troop's with what it did, but for what it cost."""
    log.write(trace.AttemptStarted(attempt=index, seed=0, model=sample.model, name=sample.source))
    for event in sample.story or (trace.AttemptEnded(status="given", patch=sample.patch),):
        if isinstance(event, trace.WitnessRecorded):
            event = replace(event, witness=replace(event.witness, attempt=index))
        log.write(replace(event, attempt=index))


def open_trace(files: RunFiles, settings: Settings) -> trace.Trace:
    """The run's trace, to be written to, with this process's secrets masked."""
    mask, mask_known = _masks(settings, load_config())
    return trace.Trace(files.trace_file, mask=mask, mask_known=mask_known)


def _refuse_credentials(task: Task, settings: Settings, mask: trace.Mask) -> None:
    """A URL that holds a password cannot be kept for a resume, and is not kept unmasked."""
    for url in (task.repository.location, *settings.models, settings.judge_model or ""):
        if mask(url) != url:
            raise InputError(
                f"{mask(url)} holds a credential, which a run directory must not keep: leave it out of the URL (git's"
                " credential helper or GITHUB_TOKEN, and key_env of a model's alias, take its place)"
            )


def settle(settings: Settings, config: Config, task: Task, say: Say = _silent) -> Settings:
    """The settings as a run keeps them: models chosen and under their full names, an absolute directory."""
    settings = replace(settings, models=pick_models(settings, config, task, say), out=settings.out.resolve())
    check_threshold(settings.threshold, settings.orders_by)

    def full(name: str) -> str:  # a URL without a model has the server's only one
        return name if name in (REPAIR, "none") else resolve_model(name, config).alias

    judge = settings.judge_model and full(settings.judge_model)
    return replace(settings, models=tuple(full(name) for name in settings.models), judge_model=judge)


def named_models(settings: Settings, config: Config) -> list[Alias]:
    """The models of the run and its judge. Raises InputError for an unknown name."""
    named = {*settings.models, pick_judge(settings) or REPAIR} - {REPAIR}
    return [resolve_model(name, config) for name in sorted(named)]


def _vendors(settings: Settings) -> dict[str, str]:
    """By model, whose API it has: its vendor's in the price lists, else its wire's."""
    models = named_models(settings, load_config())
    return {m.alias: (m.price_name or m.wire or "").partition("/")[0] for m in models}


def check_models(settings: Settings, config: Config) -> None:
    """Refuse unknown names, missing keys, and unpriced models under a cap before anything is made."""
    aliases = named_models(settings, config)
    for alias in aliases:
        key_of(alias)
    check_priced([prices_of(a) for a in aliases], settings.budget.usd, allow_unknown=settings.allow_unknown_price)
    judge = pick_judge(settings)
    judges = [prices_of(resolve_model(judge, config))] if judge else []
    check_priced(judges, settings.budget.judge_usd, allow_unknown=settings.allow_unknown_price, cap="--max-judge-usd")


def _masks(settings: Settings, config: Config) -> tuple[trace.Mask, trace.Mask]:
    """(for text, for what is carried out: see `trace.Trace`). The keys of the run's models are secret, whatever their
    variables are called."""
    keys = [alias.key_env for alias in named_models(settings, config) if alias.key_env]
    return masker(keys), known_masker(keys)


@dataclass(frozen=True, slots=True)
class Part:
    """A run's part in an evaluation: its lane to the pool's slots, its share of the budget over all runs (which holds
    in place of the run's own caps; `budget` says how many attempts), whether a finished run goes on
    (`reopen`: why, in a few words; "" for not), and what decides on attempts of all runs (None: all are made)."""

    lane: AbstractAsyncContextManager[object]
    share: Share
    budget: Budget
    reopen: str = ""
    sampling: Sampling | None = None


async def go(
    files: RunFiles,
    *,
    listeners: Sequence[trace.Listener] = (),
    say: Say = _silent,
    pool: Pool | None = None,
    part: Part | None = None,
    view: View | None = None,
) -> Solution:
    """Drive the run in `files` to its end, from wherever its trace stands. `view`: a person who watches and steers it.

    Raises RunLocked, and what preparing raises (InputError, EnvironmentFailed). A cancellation (Ctrl-C) is noted in the
    trace and raised again; the run can be resumed."""
    with run_lock(files.directory):
        task, settings, _ = files.read_run()
        events = list(trace.read(files.trace_file, may_be_empty=True))
        settings = _as_it_stands(settings, events, part)
        with contextlib.closing(open_trace(files, settings)) as log:
            for listener in (events.append, *listeners):
                log.listen(listener)
            if not events:  # the process that began the run was killed before its first line was whole
                _begin(files, task, settings, log)
            own = contextlib.nullcontext(pool) if pool else open_pool(settings, task.environment.image, say)
            async with telemetry.exported(log, files.name, task.id, partial(_vendors, settings)), own as shared:
                return await _drive(files, task, settings, log, events, say, shared, part, view)


def _as_it_stands(settings: Settings, events: Sequence[trace.Event], part: Part | None) -> Settings:
    """The settings with as many attempts as the run was last reopened for, changed as `troop ctl` has; the caps of an
    evaluation hold in place of its own."""
    attempts = trace.attempts_asked(events, settings.budget.attempts)
    for event in events:
        if isinstance(event, trace.CapsChanged):
            settings = changed(settings, event)
    if part is None:
        return replace(settings, budget=replace(settings.budget, attempts=attempts))
    if part.reopen or not is_finished(events):
        attempts = max(attempts, part.budget.attempts)
    caps = replace(settings.budget, usd=None, tokens=None, seconds=None)  # its share has them
    return replace(settings, budget=replace(caps, attempts=attempts))


async def _drive(
    files: RunFiles,
    task: Task,
    settings: Settings,
    log: trace.Trace,
    events: list[trace.Event],
    say: Say,
    pool: Pool,
    part: Part | None,
    view: View | None,
) -> Solution:
    from agent.models.client import ModelClient
    from agent.run.context import Run
    from agent.run.graph import drive

    reopened = _reopen(settings, log, events, part)
    # What was handed in stands there from the beginning.
    fresh = all(isinstance(e, trace.RunStarted) or e.attempt is not None for e in events)
    if is_finished(events):
        selection = last_selection(events)
        if selection is not None and files.lacks_results(selection):
            files.write_results(events, candidates_of(events), selection)
        return solution(files, events)
    _check_room(files.directory, settings, pool.provider.storage, say)
    # Hidden tests' words on candidates may stand in the trace of a run that is reopened: whoever solves does not see
    # them.
    seen = [event for event in events if not isinstance(event, trace.Graded)]
    log.listen(seen.append)
    keeper = BudgetKeeper(
        settings.budget, charges(events), elapsed=active_seconds(events), share=part.share if part else None
    )
    if not fresh and not reopened:
        log.write(trace.RunResumed())
    for lost in unsettled(events):
        log.write(lost)
    clients = {
        alias.alias: ModelClient(alias, pool.connections, record=log.write, keeper=keeper)
        for alias in named_models(settings, load_config())
    }
    run = Run(
        task=task,
        settings=settings,
        files=files,
        workspace=lambda base: workspace_of(task, base, say),
        provider=pool.provider,
        executor=pool.executor,
        log=log,
        events=seen,
        keeper=keeper,
        clients=clients,
        judge=clients.get(pick_judge(settings) or ""),
        slots=part.lane if part else pool.slots.lane(0, settings.budget.attempts),
        checks=pool.checks,
        sampling=_sampling(settings, part),
        say=say,
        busy=view.busy if view else contextlib.nullcontext,
    )

    def heed(wish: trace.CapsChanged) -> None:
        run.settings = pool.heed(wish, run.settings, keeper)
        log.write(wish)

    if view is not None:
        view.attend(run.stop)
    try:
        await _first_contact(run, fresh)
        async with listening(files.directory, heed) if part is None else contextlib.nullcontext():
            await drive(run)
    except asyncio.CancelledError:
        _close_trace(files, log, events, "interrupted", "")
        raise
    except Exception as error:
        _close_trace(files, log, events, "failed", str(error))
        raise
    return solution(files, events)


async def _first_contact(run: Run, fresh: bool) -> None:
    """Every model that is still to be asked answers, before anything is set up. Raises EndpointFailed."""
    from agent.models.contact import greet

    ended = {attempt.index for attempt in run.finished()}
    due = {run.model_of(i) for i in range(run.settings.budget.attempts) if i not in ended} & run.clients.keys()
    clients = {run.clients[name].alias.alias: run.clients[name] for name in sorted(due)}
    if fresh and run.judge is not None:
        clients.setdefault(run.judge.alias.alias, run.judge)
    for name, client in clients.items():
        with run.busy(f"first contact with {name}"):
            # The table of prices takes half a second to be loaded: here, beside the call, rather than in some turn.
            await in_parallel([greet(client, run.say), asyncio.to_thread(is_priced, client.prices)])


def _sampling(settings: Settings, part: Part | None) -> Sampling | None:
    from agent.run.worth import Sampling

    if not settings.adaptive:
        return None
    return part.sampling if part is not None and part.sampling is not None else Sampling(settings.worth)


def _reopen(settings: Settings, log: trace.Trace, events: Sequence[trace.Event], part: Part | None) -> bool:
    """Note that the run is reopened, where that is asked for: it is finished, or more attempts are wanted of it."""
    if part is None:
        return False
    more = settings.budget.attempts > trace.attempts_asked(events, _begun_with(events))
    if not more and not (part.reopen and is_finished(events)):
        return False
    log.write(trace.RunReopened(attempts=settings.budget.attempts, why=part.reopen or "more attempts"))
    return True


def _begun_with(events: Sequence[trace.Event]) -> int:
    started = events[0]
    assert isinstance(started, trace.RunStarted), "the first event of every trace"
    return int(started.settings.get("budget", {}).get("attempts", Budget().attempts))


def workspace_of(task: Task, base: str | None, say: Say = _silent) -> Workspace:
    """The task's workspace: at the commit that the run began with, or (None) at what its base means now."""
    if base is None:
        return open_workspace(task.repository, cache_root(), say=say)
    return reopen_workspace(task.repository, base, cache_root(), say=say)


def is_finished(events: Sequence[trace.Event]) -> bool:
    """Whether the run came to a selection (or to none), so that a resume has nothing to do."""
    return run_status(events) in ("selected", "none", "budget")


def _close_trace(files: RunFiles, log: trace.Trace, events: list[trace.Event], status: str, detail: str) -> None:
    with contextlib.suppress(DiskFull):  # how the run ended is the more important thing to tell
        log.write(trace.RunEnded(status=status, detail=detail, seconds=active_seconds(events)))
        files.write_report(events)


def solution(files: RunFiles, events: Sequence[trace.Event]) -> Solution:
    """The solution as the trace has it."""
    report = files.write_report(events)
    selection, patch = last_selection(events), None
    if selection is not None and selection.candidate is not None:
        patch = files.selected_patch.read_bytes().decode("utf-8", "surrogateescape")
    return Solution(files.directory, report["status"], selection, patch, report)
