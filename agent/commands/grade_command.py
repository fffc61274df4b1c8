"""`troop grade SUITE`."""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.commands.grade_view import Tally, TallyView, summary_table
from agent.commands.options import WORKERS, nodes_of
from agent.commands.progress import Progress
from agent.commands.signals import interruptible
from harness.cache import write_json
from harness.lock import run_lock
from harness.parallel import in_parallel, task_group
from harness.room import writing
from harness.swebench import official
from harness.swebench.grading import Grader
from harness.swebench.images import Here, ImageOutcome, Source
from harness.swebench.predictions import BASELINES, Prediction, PredictionSet, baseline, read_predictions, sets_of
from harness.swebench.summary import Result, official_summary, untrusted, whole_report, write_files
from tasks.errors import InputError, words_of
from tasks.swebench import SUITES, Row, choose_rows, load_rows


def configure(parser: argparse.ArgumentParser) -> None:
    """The suite."""
    parser.add_argument("suite", metavar="SUITE", choices=sorted(SUITES), help=f"one of: {', '.join(sorted(SUITES))}")


def execute(known: argparse.Namespace) -> int:
    """Grade; the directory of --out holds a folder per prediction, a summary per set of them, and report.json."""
    began = time.monotonic()
    rows, predictions = _asked(known)
    out = (known.out or Path("runs") / f"grade-{known.suite}").absolute()
    instances = [row.instance_id for row in rows]
    sets = sets_of(predictions)
    tally, nodes = Tally(len(predictions)), nodes_of(known)()
    known.workers = known.workers or nodes.width or WORKERS
    with run_lock(out), Progress(quiet=known.quiet, json=known.json, view=partial(TallyView, tally)) as progress:
        work = _Work(known, out, rows, sets, tally, progress, nodes)
        interruptible(work.grade(), "the same command goes on where it stopped")
        for each in work.sets:
            own = {name: work.results[each.name, name] for name in each.predictions}
            write_json(out / f"{each.name}.{out.name}.json", official_summary(instances, own))
        seconds = time.monotonic() - began
        rules = official.rules_of(known.rules)
        report = whole_report(
            known.suite, instances, work.sets, work.results, retries=work.retries, seconds=seconds, rules=rules
        )
        if known.check:
            report["untrusted"] = untrusted(report)
        write_json(out / "report.json", report)
        progress.stop()
        progress.show(*summary_table(report), f"report: {out / 'report.json'}")
        progress.document(report)
    return 4 if report["infrastructure"]["failures"] else 0


def _asked(known: argparse.Namespace) -> tuple[list[Row], list[Prediction]]:
    """The instances that are asked for, and the predictions for them. Raises InputError."""
    rules = official.rules_of(known.rules)
    official.versions(rules)  # for its InputError: better now than after an hour of building images
    every = load_rows(known.suite, known.dataset)
    rows = choose_rows(every, known.instances)
    chosen, ids = {row.instance_id for row in rows}, {row.instance_id for row in every}
    predictions: list[Prediction] = []
    for source in dict.fromkeys([*known.predictions, *(("gold", "noop") if known.check else ())]):
        found = baseline(source, rows) if source in BASELINES else read_predictions(Path(source), ids)
        predictions += [each for each in found if each.instance_id in chosen]
    if not known.predictions and not known.check:
        raise InputError("give --predictions FILE (or gold, empty, noop), or --check")
    if not predictions:
        raise InputError("--predictions holds none for the instances that --instances names")
    wanted = {each.instance_id for each in predictions}
    for row in rows:
        if row.instance_id in wanted:
            for each in rules:
                official.check(row, each)
    return rows, predictions


@dataclass(slots=True)
class _Work:
    """The grading of some sets of predictions, as images become ready. `results` by (set's name, instance)."""

    known: argparse.Namespace
    out: Path
    rows: Sequence[Row]
    sets: Sequence[PredictionSet]
    tally: Tally
    progress: Progress
    nodes: Here
    results: dict[tuple[str, str], Result] = field(default_factory=dict)
    retries: int = 0

    async def grade(self) -> None:
        """Grade everything. A prediction that the world keeps from its verdict is a result, too."""
        known = self.known
        asked = {name: getattr(known, name) for name in ("workers", "timeout", "verbatim", "network", "fresh")}
        asked |= {"rules": official.rules_of(known.rules), "say": self.progress.say}
        asked |= {"nodes": self.nodes, "source": None if known.no_build else Source(known.mirrors)}
        async with Grader(**asked) as grader:
            async with task_group() as group:
                await self._images(grader, lambda prepared: self._start(group, grader, prepared))
            self.retries = grader.infrastructure

    async def _images(self, grader: Grader, ready: Callable[[ImageOutcome], None]) -> None:
        """Make every instance's image ready and say when it is ready; an instance with nothing to run needs none."""
        wanted = []
        for row in self.rows:
            found = [each.predictions.get(row.instance_id) for each in self.sets]
            patches = [prediction.patch for prediction in found if prediction]
            if any(patches):
                wanted.append(row)
            elif patches:
                ready(ImageOutcome(row, None))
        if not wanted:
            return
        if not self.known.no_build:
            workers, say = self.known.workers, self.progress.say
            await self.nodes.images(wanted, source=Source(self.known.mirrors), workers=workers, say=say, tell=ready)
            return
        for left in await grader.clean():
            self.progress.say(f"removed {left}, which a killed process left")
        for row in wanted:
            image = await grader.find(row)
            how = f"troop images build {self.known.suite} --instances {row.instance_id}"
            ready(ImageOutcome(row, image, failure="" if image else f"there is no image of it here: {how}"))

    def _start(self, group: asyncio.TaskGroup, grader: Grader, prepared: ImageOutcome) -> None:
        """Begin with all predictions for one instance."""
        for each in self.sets:
            if prepared.row.instance_id in each.predictions:
                group.create_task(self._one(grader, prepared, each))

    async def _one(self, grader: Grader, prepared: ImageOutcome, each: PredictionSet) -> None:
        row, name = prepared.row, prepared.row.instance_id
        prediction = each.predictions[name]
        try:
            if prediction.patch and prepared.image is None:
                result = Result(prediction, None, prepared.failure)
            else:
                times = self.known.repeat if prediction.patch else 1
                graded, *more = await in_parallel(
                    grader.grade(row, prepared.image, prediction.patch, number) for number in range(times)
                )
                outcomes = tuple(each.outcome for each in (graded, *more)) if more else ()
                result = Result(prediction, graded, outcomes=outcomes)
            folder = self.out / each.name / name
            with writing(folder):
                await asyncio.to_thread(
                    write_files, folder, row, result, grader.memo, name=each.name, rules=grader.rules[0]
                )
        except Exception as error:  # whatever befalls one prediction, the others are graded
            result = Result(prediction, None, words_of(error))
        self.results[each.name, name] = result
        self.progress.say(self.tally.add(each, result))
