"""A whole run: the outer graph.

    prepare ──> attempts ──> verify ──> select ──> report

prepare   workspace, environment, baseline: everything that can fail without a model having been called
attempts  N inner graphs, scheduled: a later one starts when an earlier one ends, never barred by a slow one; or
          adaptively, as long as another one is worth its price (agent/run/sampling.py)
verify    each distinct candidate in a fresh sandbox
select    the ranker or the rules, and the judge where they leave several close together
report    selected.patch, predictions.jsonl, report.json

Every node reads what the trace says already and does only the rest, so a resume is the same graph from its start.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

from langgraph.graph import StateGraph
from langgraph.runtime import Runtime

from agent.choice.case import Case, Ground, Known
from agent.choice.hearing import Hearing
from agent.choice.order import Findings, objections, only_break_tests, select, undecided
from agent.config import Settings
from agent.run.about import about
from agent.run.context import Run
from agent.run.sampling import break_off, sample, until_good, witnesses_on_tie
from agent.run.verification import contradicted, verify_candidates
from harness import trace
from harness.environments.base_run import baseline
from harness.environments.environment import HELP, build, end_of
from harness.environments.summary import summary_line, trouble
from harness.evidence.guesses import weights_of
from harness.evidence.shown import Shown, of_evidence
from harness.evidence.strength import STRENGTHS
from harness.parallel import apart, in_parallel
from harness.patches.patch import Patch
from harness.records import Candidate, Selection
from harness.repository.base_tree import BaseTree, open_tree
from harness.repository.workspace import Workspace
from harness.views.report import active_seconds
from tasks.errors import EnvironmentFailed, SetupFailed
from tasks.say import WARNING, Say
from tasks.task import Task


class Stage(TypedDict):
    """The outer graph's state: the last stage that is done."""

    done: str


async def drive(run: Run) -> None:
    """The whole run, to its end. Raises what `prepare` raises, and CancelledError when interrupted."""
    graph: StateGraph[Stage, Run, Stage, Stage] = StateGraph(Stage, context_schema=Run)
    stages = {"prepare": prepare, "attempts": attempts, "verify": verify_candidates}
    stages |= {"select": choose_one, "report": report}
    nodes: list[tuple[str, Any]] = [(name, partial(_node, name, stage)) for name, stage in stages.items()]
    graph.add_sequence(nodes)
    graph.set_entry_point("prepare")
    await graph.compile().ainvoke({"done": ""}, context=run)


async def _node(name: str, stage: Callable[[Run], Awaitable[None]], state: Stage, runtime: Runtime[Run]) -> Stage:
    await stage(runtime.context)
    return {"done": name}


async def prepare(run: Run) -> None:
    """Workspace, environment and baseline. Raises InputError, SourceUnavailable, SetupFailed, SandboxFailed.

    A run that was prepared before keeps its base, whatever the repository's branches point to by now."""
    pinned = next((e.base_commit for e in run.events if isinstance(e, trace.Prepared)), None)
    with run.busy("setting up"):
        run.base = workspace = await apart(run.workspace, pinned)
        for note in workspace.notes:
            run.say(note)
        async with run.checks:
            await _prepare(run, workspace, pinned is None)


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
    settings, task = run.settings, run.task
    found = await baseline(run.room(), task, runs=settings.base_runs, anyway=settings.yes, say=run.say)
    notes = (*built.notes, *([found.note] if found.note else []))
    prepared = trace.Prepared(
        base_commit=workspace.base_commit,
        environment=built.key,
        backend=run.provider.name,
        image=built.image,
        test_command=built.test_command,
        baseline=found.report,
        flaky=found.flaky,
        missing_limits=built.missing_limits,
        note=" ".join(notes),
        about=await asyncio.to_thread(about, workspace, settings.guide, settings.with_tests, task.earlier),
        seconds=time.monotonic() - began,
        python=built.python,
        install=built.install,
        fell_back_from=built.fell_back_from,
        notes=notes,
    )
    run.say(summary_line(prepared))
    check_baseline(prepared, task, settings, run.say)
    run.write(prepared)


def check_baseline(prepared: trace.Prepared, task: Task, settings: Settings, say: Say) -> None:
    """Whether the base's tests are fit to judge patches by. Raises SetupFailed where they are not, and where they are
    poor and `strict` is set; what is wrong is said in bold, or where `yes` lets the run go on."""
    if task.test_scope == "near":
        return
    wrong, hopeless = trouble(prepared.baseline, task.failing_test.ids if task.failing_test else ())
    if not wrong:
        return
    if not settings.yes and (hopeless or settings.strict):
        reason = next(iter(prepared.baseline.failures.values()), "") if prepared.baseline else ""
        ways = "--test-command COMMAND, or --yes to go on in any case"
        raise SetupFailed(f"{wrong}: {summary_line(prepared)}\n{end_of(reason)}\n{HELP}, {ways}".replace("\n\n", "\n"))
    say(f"{WARNING}{wrong}; the run goes on ({HELP}; --strict would stop here)")


async def attempts(run: Run) -> None:
    """All attempts that have not ended yet, as many at a time as there are slots; with `sampling`, those that are worth
    it.

    Raises EndpointFailed when there is no sample because the model's server is not there."""
    if run.sampling is not None:
        await sample(run, run.sampling)
    elif run.settings.until in STRENGTHS:
        await until_good(run, run.settings.until)
    else:
        await in_parallel(map(run.attempt, range(run.settings.budget.attempts)))
    break_off(run)
    if run.enough or run.samples():
        return
    run.files.write_patches(run.events)
    if run.broken:
        raise next(iter(run.broken.values()))
    failures = [a for a in run.finished() if a.status == "infrastructure"]
    if failures:
        raise EnvironmentFailed(
            f"every attempt failed for reasons outside of it, the last one by {failures[-1].detail}"
        )


async def choose_one(run: Run) -> None:
    """What tests showed, the ranker, and, among those that stand first, the judge say; whoever is chosen has to pass
    its tests without Troop's plugin as well, else the choice is made among the others."""
    if run.selection() is not None:
        return
    while True:
        candidates = await asyncio.to_thread(run.candidates)
        with run.busy("choosing"):
            chosen = await _chosen(run, candidates)
        if chosen is None:
            continue
        first = next((c for c in candidates if c.id == chosen.candidate), None)
        if first is None or not await contradicted(run, first):
            break
    run.write(trace.Selected(selection=chosen))


async def _chosen(run: Run, candidates: Sequence[Candidate]) -> Selection | None:
    """The choice; None where there are new tests now, which may order the candidates."""
    assert run.base is not None, "prepare comes first"
    threshold = run.settings.threshold
    with open_tree(run.base.git_dir, run.base.base_commit) as tree:
        ground = Ground(
            tree, lambda name: run.provider.create(run.room().spec(name)), run.environment.test_command, run.checks
        )
        case = Case(run.task.statement, candidates, ground, run.events, run.write, run.say)
        found = Findings(shown=await asyncio.to_thread(_shown, run, candidates, tree))
        if run.settings.orders_by == "evidence":
            from agent.choice.weighing import weigh

            found = await weigh(case, {a.index: a.model for a in run.finished()}, found)

        def finalists(shown: Sequence[Shown]) -> Sequence[Candidate]:
            return undecided(candidates, found.with_shown(shown), threshold)

        tied = await asyncio.to_thread(finalists, ())
        points, warning = None, ""
        if (tied or only_break_tests(candidates)) and await witnesses_on_tie(run):
            return None
        if tied and run.judge is not None:
            from agent.choice.judge import judge

            able = ground if run.environment.test_command is not None else None
            known = Known.of(run.events, [w for a in run.finished() for w in a.witness_tests])
            against = objections(candidates)
            acceptable = [c for c in candidates if not against[c.id]]
            case = replace(case, candidates=acceptable, ground=able, finalists=finalists, known=known)
            hearing = Hearing(case, run.judge, run.settings.seed, run.end_by)
            await judge(hearing, run.settings.judge)
            found, points, warning = found.with_shown(hearing.shown), hearing.points, hearing.warning
    chosen = await asyncio.to_thread(select, candidates, found, points, threshold)
    return replace(chosen, rationale=chosen.rationale + warning)


def _shown(run: Run, candidates: Sequence[Candidate], tree: BaseTree) -> tuple[Shown, ...]:
    """What the given and witness tests showed; a witness that asserts what nobody stated counts less."""
    witnesses = [w for attempt in run.finished() for w in attempt.witness_tests]
    touched = {path for c in candidates for path in Patch(c.patch).source_files} if witnesses else set()
    texts = [text.decode("utf-8", "replace") for text in tree.read_all(touched).values()]
    return of_evidence(candidates, weights_of(witnesses, [run.task.statement, *texts]))


async def report(run: Run) -> None:
    """Write the result files, then the run's end: a run that has ended has them."""
    selection = run.selection()
    assert selection is not None, "select comes first"
    candidates = await asyncio.to_thread(run.candidates)
    await asyncio.to_thread(run.files.write_results, run.events, candidates, selection)
    over = run.over
    status = "selected" if selection.candidate else "budget" if over is not None else "none"
    run.write(trace.RunEnded(status=status, detail=over.detail if over else "", seconds=active_seconds(run.events)))
