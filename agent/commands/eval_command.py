"""`troop eval SUITE`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import nodes_of, settings_of
from agent.commands.progress import Progress
from harness.lock import run_lock
from harness.outputs import make_output
from harness.records import Json
from harness.sandbox.choice import with_images, without_images
from tasks.errors import InputError
from tasks.swebench import HUB, choose_rows, load_rows

if TYPE_CHECKING:
    from agent.config import Settings
    from agent.evaluation import Evaluation
    from harness.choosing.pool import Sample
    from harness.suites.evaluate import Grades
    from harness.suites.suite import Suite


RESUMABLE = "the same command goes on where it stopped"


def configure(parser: argparse.ArgumentParser) -> None:
    """The suite."""
    parser.add_argument("suite", metavar="SUITE", choices=tuple(SUITES), help=f"one of: {', '.join(SUITES)}")


def execute(known: argparse.Namespace) -> int:
    """Solve and grade the suite's instances. The directory of --out holds one run per instance, predictions, report."""
    evaluation = evaluation_of(known, settings_of(known), "none" if known.no_grade else known.grade)
    progress = Progress(quiet=True, json=known.json)
    if known.dry_run:
        from agent.commands.pricing import forecast, forecast_view

        expected = forecast(evaluation, known.out)
        progress.show(*forecast_view(expected))
        progress.document(expected)
        return 0
    from harness.suites.view import eval_view

    report = work(evaluation, known, progress)
    progress.show(*eval_view(report), f"report: {evaluation.out / 'report.json'} and report.md")
    progress.document(report)
    return exit_code(report)


def evaluation_of(
    known: argparse.Namespace,
    settings: Settings,
    grades: Grades,
    given: Callable[[Sequence[str]], Mapping[str, Sequence[Sample]]] | None = None,
) -> Evaluation:
    """What is asked for, and what is there already. `given`: by instance, patches that exist already, in place of
    attempts; the others are left out. Raises InputError before anything is started."""
    from agent.assemble import settle
    from agent.config import load_config
    from agent.evaluation import Evaluation

    out = (known.out / f"{known.command}-{known.suite}").resolve()
    suite, config = SUITES[known.suite](known, out), load_config()
    if not suite.ids:
        raise InputError(f"no instance of {known.suite} is left to evaluate")
    patches = given(suite.ids) if given else {}
    suite = suite.only(patches) if given else suite
    settings = settle(replace(settings, out=out), config, suite.task(suite.ids[0]))
    evaluation = Evaluation(suite, settings, out, grades, bool(known.retry), known.at_once, config, patches)
    evaluation.look()
    return evaluation


def work(evaluation: Evaluation, known: argparse.Namespace, progress: Progress) -> Json:
    """Do what is left of the evaluation, while it is shown; its report."""
    from agent.commands.signals import interruptible
    from harness.suites.live import SuiteBoard, SuiteView

    settings = evaluation.settings
    board = SuiteBoard(evaluation.suite.name, len(evaluation.suite.ids), settings.budget.attempts, settings.budget.usd)
    view = SuiteView(board, None if known.quiet else progress.errors(), json=known.log == "json")
    with run_lock(evaluation.out):
        evaluation.begin()
        try:
            interruptible(evaluation.work(view), RESUMABLE, view.screen.stop)
        finally:
            view.screen.stop()
            report = evaluation.write()
    return report


def exit_code(report: Json) -> int:
    """0; 4 where every instance failed; 3 where the budget ended before anything was selected."""
    if report["failed"] and report["solved"] == 0:
        return 4
    selected = any(task["selected"] is not None for task in report["tasks"])
    capped = any((task["report"] or {}).get("status") == "budget" for task in report["tasks"])
    return 3 if capped and not selected else 0


def _quixbugs(known: argparse.Namespace, out: Path) -> Suite:
    from harness.suites.instances import InstanceSuite
    from tasks.quixbugs import choose_programs, load_quixbugs

    if known.source is None:
        raise InputError("quixbugs needs --source DIR, a checkout of jkoppel/QuixBugs")
    choose_programs(known.source, known.instances)  # for its InputError, before anything is made
    make_output(out)
    found = load_quixbugs(known.source, out / "trees", known.instances)
    return InstanceSuite(known.suite, tuple(found), {"source": str(known.source.resolve())})


def _swebench(known: argparse.Namespace, out: Path) -> Suite:
    from harness.suites.swebench import SwebenchSuite
    from harness.swebench import official
    from harness.swebench.images import Source
    from harness.swebench.layers import parse_bases

    if without_images(known.sandbox):
        raise InputError(f"{known.suite} needs {with_images()}: its environments are images; {known.sandbox} has none")
    rules = official.rules_of(known.rules)
    official.versions(rules)  # for its InputError: better now than after an hour of attempts
    rows = tuple(choose_rows(load_rows(known.suite, known.dataset), known.instances))
    asked = {name: getattr(known, name) for name in ("dataset", "verbatim", "repeat", "disk")}
    source = Source(known.mirrors, known.pull, parse_bases(known.images))
    return SwebenchSuite(name=known.suite, rows=rows, rules=rules, source=source, nodes=nodes_of(known), **asked)


SUITES: Mapping[str, Callable[[argparse.Namespace, Path], Suite]] = {
    **dict.fromkeys(HUB, _swebench),
    "quixbugs": _quixbugs,
}
"""By name: what loads the suite's chosen instances, given the options and the evaluation's directory."""
