"""`troop select SUITE|TASK --candidates FILE…`: a run, or an evaluation, whose attempts are patches that exist
already."""

import argparse
from collections.abc import Sequence
from functools import partial

from rich.text import Text

from agent.commands.eval_command import SUITES, evaluation_of, exit_code, work
from agent.commands.options import settings_of, task_of
from agent.commands.progress import Progress
from agent.config import Settings
from harness.choosing.pool import Sample, by_instance, read_candidates
from harness.suites.evaluate import Outcome
from harness.suites.live import outcome_line
from harness.views.words import clean, verdict_words, whose
from tasks.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """What is not asked of select, and holds."""
    parser.set_defaults(images=[], verbatim=False, repeat=1, disk=None, model=[], worth=None, retry="")


def execute(known: argparse.Namespace) -> int:
    """Verify the patches and choose, as `solve` does with its attempts; for a suite as `eval` does, ungraded."""
    from agent.assemble import without_attempts

    settings = without_attempts(settings_of(known))
    if known.suite in SUITES:
        return _of_suite(known, settings)
    from agent.commands.conclude import solved

    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        instance = task_of(known, known.suite, progress.say)
        given = _given(known, [instance.task.id], instance.task.id)[instance.task.id]
        return solved(known, known.suite, instance, settings, progress, given)


def _given(known: argparse.Namespace, ids: Sequence[str], only: str | None = None) -> dict[str, tuple[Sample, ...]]:
    """The patches for these instances, in their order. `only`: the one that patches without a name of an instance are
    for. Raises InputError where there are none."""
    every = by_instance(read_candidates(known.candidates, only))
    found = {id: every[id] for id in ids if id in every}
    if not found:
        are = f"they are for {', '.join(sorted(every)[:3])}" if every else "they are empty"
        raise InputError(f"none of the candidates is for {only or known.suite}: {are}")
    return found


def _of_suite(known: argparse.Namespace, settings: Settings) -> int:
    """The directory of --out holds one run per instance, predictions, report."""
    if known.apply or known.grade or known.pr:
        raise InputError(
            "--apply, --pr and --grade are for a single task; `troop grade` says which predictions are right"
        )
    evaluation = evaluation_of(known, settings, "none", partial(_given, known))
    progress = Progress(quiet=True, json=known.json)
    report = work(evaluation, known, progress)
    progress.show(*(Text(_line(outcome), overflow="fold") for outcome in evaluation.results()))
    progress.show(f"predictions: {evaluation.out / 'predictions.jsonl'}; all of it: troop report {evaluation.out}")
    progress.document(report)
    return exit_code(report)


def _line(outcome: Outcome) -> str:
    """What came of an instance, and whose patch it is."""
    report = outcome.solved.report if outcome.solved else {"selected": None}
    if report["selected"] is None:
        return clean(outcome_line(outcome))
    return f"{outcome.id}: {verdict_words(report)}: {whose(report, report['selected']['candidate'])}"
