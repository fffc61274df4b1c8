"""An evaluation on disk and at work: one run directory for each instance, what is left to do of each, what came out.

OUT/eval.json             suite, instances, settings
OUT/<instance>/           a run directory as `troop solve` makes it
OUT/predictions.jsonl     the selected patches; predictions-01.jsonl and on: the attempts by rank
OUT/report.json, report.md
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any

from agent.assemble import Part, Pool, check_models, go, is_finished, named_models, open_pool, open_trace, start
from agent.attempt.notebook import notebooks
from agent.choice.candidates import candidates_of
from agent.config import REPAIR, Config, Settings, prices_of, resolve_model
from agent.defaults import SETTINGS
from agent.models.client import ModelClient
from agent.models.contact import listed
from agent.run.control import listening
from agent.run.worth import Sampling, beliefs_for, state_of
from agent.run_files import RunFiles
from harness import trace
from harness.cache import write_json, write_text
from harness.choosing.pool import Sample
from harness.money.budget import SharedBudget
from harness.money.ledger import Ledger, Line, charges
from harness.outputs import make_output
from harness.records import Json, Verdict
from harness.scaling.adaptive import TaskState
from harness.suites.evaluate import EvaluationPlan, Grades, Outcome, Solved, evaluate
from harness.suites.live import SuiteView
from harness.suites.page import markdown
from harness.suites.report import SELECTED, Asked, prediction_files, suite_report
from harness.suites.slots import Lane
from harness.suites.suite import Means, Suite
from harness.views.report import active_spans, solve_report
from tasks.errors import EndpointFailed, EnvironmentFailed, InputError, SandboxFailed, words_of
from tasks.task import Task

EVAL_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What the trace of an instance's run says before anything goes on.

    `attempts`: as many as it was asked for; `begun`, `ended`: those that have, `again` of the latter such that they go
    on where the run is reopened. `stopped`: adaptive sampling begins no more; `state`: what it knows of the instance.
    `broken`: attempts that the world ended or kept from beginning; `capped`: a cap of the whole run ended it. `cost`:
    all charges; `dearest`: USD of its dearest call. `outcome`: of a finished run. `given`: the ends of
    attempts that are patches handed in."""

    task: Task
    settings: Settings
    attempts: int
    ended: int
    again: int
    begun: int
    stopped: bool
    state: TaskState
    broken: int
    capped: bool
    cost: Line
    dearest: float
    outcome: Outcome | None
    given: Sequence[trace.AttemptEnded]


def kept_run(files: RunFiles) -> EarlierRun | None:
    """What is kept of the run; None where there is none. Raises InputError for one that is damaged."""
    if not (files.directory / "run.json").exists():
        return None
    task, settings, _ = files.read_run()
    events = list(trace.read(files.trace_file, may_be_empty=True))
    attempts = trace.attempts_asked(events, settings.budget.attempts)
    begun, latest, charged = notebooks(events), trace.since_reopened(events), list(charges(events))
    statuses = Counter(n.ended.status for n in begun if n.ended is not None)
    capped = any(isinstance(e, trace.BudgetReached) for e in latest)
    stopped = any(isinstance(e, trace.SamplingStopped) for e in latest)
    missing = 0 if capped or stopped else attempts - statuses.total()
    solved = solved_of(files, events) if events and is_finished(events) else None
    return EarlierRun(
        task=task,
        settings=settings,
        attempts=attempts,
        ended=statuses.total(),
        again=statuses["infrastructure"] + (statuses["budget"] if capped else 0),
        begun=len(begun),
        stopped=stopped,
        state=state_of(events) if settings.adaptive and events else TaskState(),
        broken=statuses["infrastructure"] + missing if solved else 0,
        capped=capped,
        cost=Ledger.fold(charged).total,
        dearest=max((c.usd or 0.0 for c in charged), default=0.0),
        outcome=Outcome(task.id, solved, dict(solved.known)) if solved else None,
        given=[n.ended for n in begun if n.started is not None and n.started.name and n.ended is not None],
    )


def solved_of(files: RunFiles, events: Sequence[trace.Event]) -> Solved:
    """What the run came to, as `harness.suites.evaluate` takes it."""
    report = solve_report(events)
    _, settings, _ = files.read_run()
    rows = [row for row in report["attempts"] if row["status"] not in ("infrastructure", "running")]
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded) and e.attempt is not None}
    verdicts = {e.candidate: e.verdict for e in events if isinstance(e, trace.Graded)}

    def note(candidate: str, verdict: Verdict) -> None:
        with contextlib.closing(open_trace(files, settings)) as log:
            log.write(trace.Graded.of(candidate, verdict))

    candidates = candidates_of(events)
    of_attempt = {index: candidate.id for candidate in candidates for index in candidate.attempts}
    return Solved(
        report=report,
        patches={row["index"]: patches[row["index"]] for row in rows},
        candidates={candidate.id: candidate.patch for candidate in candidates},
        samples=tuple(of_attempt.get(row["index"]) for row in rows),
        selected=report["selected"]["candidate"] if report["selected"] else None,
        known=verdicts,
        note=note,
        spans=tuple(active_spans(events)),
    )


@dataclass(slots=True)
class Evaluation:
    """One evaluation. `settings` are settled (see `agent.assemble.settle`); their caps hold for all instances together.

    `retry`: attempts of finished instances that the world broke are made again. `at_once`: instances in work at a time.
    `given`: by instance, patches that exist already, in place of attempts."""

    suite: Suite
    settings: Settings
    out: Path
    grades: Grades
    retry: bool
    at_once: int | None
    config: Config
    given: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    kept: dict[str, EarlierRun] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reopen: dict[str, str] = field(default_factory=dict)

    def files(self, id: str) -> RunFiles:
        return RunFiles(self.out / id)

    def look(self) -> None:
        """Read what is there already, and what is left to do. Raises InputError where it cannot be gone on with."""
        for id in self.suite.ids:
            kept = kept_run(self.files(id))
            if kept is not None:
                given = self.given.get(id)
                check_kept(self.files(id).directory, kept, self.settings, self.suite.task(id), given)
                self.kept[id] = kept
        budget = self.shared_budget()
        for id, kept in self.kept.items():
            self.reopen[id] = self._why_reopen(id, kept, budget)
            if kept.outcome is not None and not self.reopen[id] and not kept.outcome.left_to_grade(self.grades):
                self.outcomes[id] = kept.outcome

    def shared_budget(self) -> SharedBudget:
        """The budget of all instances, with what they have spent so far; one that needs no more counts as finished."""
        budget = SharedBudget(self.settings.budget, self.suite.ids, fair=not self.settings.adaptive)
        for id, kept in self.kept.items():
            budget.note(id, kept.cost.known_usd, kept.cost.usage.total)
            more = self.settings.budget.attempts > kept.attempts or (self.retry and kept.broken > 0)
            if kept.outcome is not None and not kept.capped and not more:
                budget.finish(id)
        return budget

    def _why_reopen(self, id: str, kept: EarlierRun, budget: SharedBudget) -> str:
        if kept.outcome is None:
            return ""
        if self.settings.budget.attempts > kept.attempts:
            return f"{self.settings.budget.attempts} attempts instead of {kept.attempts}"
        if self.retry and kept.broken:
            return "what the world broke is done again"
        if kept.capped:
            # Would its share of what is left pay for another call like its dearest?
            share, spent, tokens = budget.share(id), kept.cost.known_usd + kept.dearest, kept.cost.usage.total
            per_call = tokens / kept.cost.calls if kept.cost.calls else 0.0
            if budget.level("usd", share) > spent and budget.level("tokens", share) > tokens + per_call:
                return "there is a budget again"
        return ""

    @property
    def left(self) -> tuple[str, ...]:
        """The instances with something left to do, those begun before the others."""
        waiting = [id for id in self.suite.ids if id not in self.outcomes]
        return tuple(sorted(waiting, key=lambda id: id not in self.kept))

    def attempts_left(self, id: str) -> int:
        """Attempts of the instance that are still to be made, as far as one can say before."""
        kept = self.kept.get(id)
        if kept is None or self.given:
            return self.settings.budget.attempts
        if kept.outcome is not None and not self.reopen.get(id):
            return 0
        most = kept.begun if kept.stopped and not self.reopen.get(id) else self.settings.budget.attempts
        return max(most, kept.attempts if not kept.stopped else 0) - kept.ended + kept.again

    def begin(self) -> None:
        """Write eval.json. Raises InputError and EndpointFailed for models that cannot be and have work."""
        if self.given or any(self.attempts_left(id) for id in self.left):
            check_models(self.settings, self.config)
        make_output(self.out)
        self._keep_settings()

    def _keep_settings(self) -> None:
        write_json(
            self.out / "eval.json",
            {
                "schema": EVAL_SCHEMA,
                "suite": self.suite.name,
                **self.suite.described(),
                "instances": list(self.suite.ids),
                "grades": self.grades,
                "settings": trace.public(self.settings),
            },
        )

    async def work(self, view: SuiteView) -> None:
        """Do all that is left; `outcomes` fills as instances end."""
        for id, kept in self.kept.items():
            over = kept.outcome is not None and not self.reopen.get(id)
            ended = kept.ended if over else kept.ended - kept.again
            view.board.take_over(id, self.outcomes.get(id), ended, kept.cost)
        if not self.left:
            return
        budget, sampling = self.shared_budget(), self._sampling()

        def keep(outcome: Outcome) -> None:
            self.outcomes[outcome.id] = outcome
            view.ended(outcome)

        async with open_pool(self.settings, self.suite.image, view.say) as pool:
            if any(self.attempts_left(id) for id in self.left):
                # Every model's server must be there and take the key before images are built for it.
                for alias in named_models(self.settings, self.config):
                    await listed(ModelClient(alias, pool.connections, record=lambda event: event))
            limits, timeout = self.settings.limits, self.settings.test_timeout
            means = Means(pool.provider, limits, timeout, max(1, os.cpu_count() or 2), view.say)
            async with self.suite.at_work(means) as bench:

                async def solve(task: Task, lane: Lane) -> Solved:
                    self._tell_lane(task.id, lane, sampling)
                    try:
                        return await self._solve(task, lane, pool, budget, view, sampling)
                    finally:
                        budget.finish(task.id)
                        if sampling is not None:
                            sampling.listeners.pop(task.id, None)

                ahead = 1 if sampling is not None else self.settings.budget.attempts
                plan = EvaluationPlan(pool.slots, pool.checks, ahead, self.grades, self.at_once)

                def heed(wish: trace.CapsChanged) -> None:
                    self.settings = pool.heed(wish, self.settings, budget)
                    self._keep_settings()
                    view.board.cap = self.settings.budget.usd
                    view.say(wish.words)

                async with listening(self.out, heed):
                    await evaluate(self.left, bench, solve, plan, view.ready, keep)

    def _sampling(self) -> Sampling | None:
        """What decides on the attempts of all instances together, with what is known of those begun before."""
        if not self.settings.adaptive:
            return None
        sampling = Sampling(self.settings.worth)
        for id, kept in self.kept.items():
            sampling.join(id, beliefs_for(kept.task, self.settings.models), kept.state)
        return sampling

    def _tell_lane(self, id: str, lane: Lane, sampling: Sampling | None) -> None:
        """How many places the instance wants, and in adaptive sampling how much. There it wants one at a time, and
        where it promises less than a new instance would, none that should keep one from being prepared."""
        if sampling is None or not self.attempts_left(id):
            lane.expect(self.attempts_left(id))
            return
        lane.urgency = lambda: sampling.urgency(id)
        sampling.listeners[id] = lambda: lane.expect(int(sampling.eager(id)))

    async def _solve(
        self, task: Task, lane: Lane, pool: Pool, budget: SharedBudget, view: SuiteView, sampling: Sampling | None
    ) -> Solved:
        """The solver that `harness.suites.evaluate` takes: one run per task, gone on with where it exists."""
        files, kept, reopen = self.files(task.id), self.kept.get(task.id), self.reopen.get(task.id, "")
        if kept is None:
            # The cap of all stands in the run as well, for whoever resumes it on its own.
            own = replace(self.settings, budget=replace(self.settings.budget, seconds=None))
            files, _, _ = start(task, own, directory=files.directory, given=self.given.get(task.id, ()))
        elif kept.outcome is not None and kept.outcome.solved is not None and not reopen:
            return kept.outcome.solved
        part = Part(lane, budget.share(task.id), self.settings.budget, reopen, sampling)
        failure, outage = "", False
        try:
            await go(
                files,
                listeners=[lambda event: view.see(task.id, event)],
                say=lambda line: view.say(f"{task.id}: {line}"),
                pool=pool,
                part=part,
            )
        except Exception as error:  # its cost and its attempts stand in the report all the same
            # About a model server, the sandboxes or the machine, which all instances have in common?
            outage = isinstance(error, (EndpointFailed, SandboxFailed)) or type(error) is EnvironmentFailed
            failure = words_of(error)
        found = await asyncio.to_thread(lambda: solved_of(files, list(trace.read(files.trace_file))))
        return replace(found, failure=failure, outage=outage)

    def results(self) -> list[Outcome]:
        """The outcomes so far, in the order of the instances; of one that is to go on, what it had come to before."""
        known = {id: kept.outcome for id, kept in self.kept.items() if kept.outcome is not None} | self.outcomes
        return [known[id] for id in self.suite.ids if id in known]

    def write(self) -> Json:
        """Write report.json, report.md and the prediction files as they stand now; returns the report."""
        budget, results, total = self.settings.budget, self.results(), len(self.suite.ids)
        aliases = [resolve_model(name, self.config) for name in self.settings.models if name != REPAIR]
        makers = dict.fromkeys(sample.model for of_it in self.given.values() for sample in of_it)
        models = () if self.given else self.settings.models  # those only write tests
        asked = Asked(
            suite=self.suite.name,
            models=models or tuple(makers),
            attempts=max(map(len, self.given.values()), default=budget.attempts),
            grades=self.grades,
            gpu_hours={a.alias: hour for a in aliases if (hour := prices_of(a).gpu_hour) is not None},
            budget={"usd": budget.usd, "tokens": budget.tokens, "seconds": budget.seconds},
            adaptive=self.settings.adaptive,
        )
        report = suite_report(results, asked, instances=total, unfinished=total - len(self.outcomes))
        files = prediction_files(results, models, budget.attempts)
        files = {name: text for name, text in files.items() if name == SELECTED or not self.given}
        for name, text in files.items():
            write_text(self.out / name, text)
        write_text(self.out / "report.md", markdown(report))
        write_json(self.out / "report.json", report)
        return report


_MAY_CHANGE = {"attempts", "max_usd", "max_tokens", "timeout", "out", "concurrency"}
_MAY_CHANGE |= {"allow_unknown_price", "infrastructure_retries"}
"""Settings that may be others where an evaluation is gone on with."""


def check_kept(
    directory: Path, kept: EarlierRun, settings: Settings, task: Task, given: Sequence[Sample] | None
) -> None:
    """Refuse to mix: a run that is there already must have been made with the settings that are asked for, so that its
    attempts and new ones are samples of the same thing, and among the patches `given`. Raises InputError naming what
    differs."""
    places = {"model": "models"} | {each.name: each.place for each in SETTINGS if each.name not in _MAY_CHANGE}
    differing = []
    for name, place in places.items():
        there, now = attrgetter(place)(kept.settings), attrgetter(place)(settings)
        if there != now:
            differing.append(f"--{name.replace('_', '-')} {_plainly(there)} there, {_plainly(now)} now")
    if settings.budget.attempts < kept.attempts:
        differing.append(f"--attempts {kept.attempts} there, {settings.budget.attempts} now, which can only grow")
    if kept.task.repository.base != task.repository.base:
        differing.append(f"the base {kept.task.repository.base} there, {task.repository.base} now")
    patches = [sample.patch for sample in given or ()]
    if [patch if e.masked else e.patch for e, patch in zip_longest(kept.given, patches)] != patches:
        differing.append("other candidates")
    if differing:
        raise InputError(
            f"{directory} was made with other settings ({'; '.join(differing)}): give another --out, or the same "
            "settings to go on with it"
        )


def _plainly(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return "not set" if value is None else str(value)
