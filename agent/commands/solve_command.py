"""`troop solve SOURCE`."""

from __future__ import annotations

import argparse
import dataclasses

from agent.commands.options import add_options, add_solving, settings_of
from harness.sandbox.choice import with_images, without_images
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.places import expanded, is_there
from tasks.task import GivenTest


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of solve."""
    add_options(parser, "solve", "task")
    add_solving(parser)
    add_options(parser, "afterwards", "hidden")


def execute(known: argparse.Namespace) -> int:
    """Solve, print the result, grade and apply where asked."""
    from agent.assemble import start
    from agent.commands.conclude import check_wishes, conclude, drive
    from agent.commands.progress import Progress
    from tasks.source import resolve

    instance, earlier = None, None
    if known.again is not None:
        from agent.commands.again import once_more

        known.source, instance, earlier = once_more(known)
    elif known.source is None or known.note or known.show:
        said = "--note and --show go with --again" if known.source else "SOURCE is missing: say what to solve"
        raise InputError(f"{said} (see `troop solve --help`)")
    settings = settings_of(known, earlier)
    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        instance = instance or resolve(
            known.source,
            issue=known.issue,
            issue_text=known.issue_text,
            base=known.base,
            include_uncommitted=known.include_uncommitted,
            say=progress.say,
        )
        instance = _overridden(instance, known)
        check_wishes(instance, known)
        if known.dry_run:
            from agent.commands.pricing import solve_forecast, solve_forecast_view

            expected = solve_forecast(instance.task, settings, progress.say)
            progress.show(*([] if known.json else solve_forecast_view(expected)))
            progress.document(expected)
            return 0
        path = expanded(known.source)
        source = str(path.resolve()) if is_there(path) else known.source
        files, _, _ = start(instance.task, settings, source=source, say=progress.say)
        solution = drive(files, instance.grading if known.grade else None, progress)
        return conclude(solution, progress, known)


def _overridden(instance: Instance, known: argparse.Namespace) -> Instance:
    """The instance with what the options say of its environment and tests."""
    task = instance.task
    if known.image and without_images(known.sandbox):
        raise InputError(f"--image needs {with_images()}: {known.sandbox} has no images")
    environment = dataclasses.replace(
        task.environment,
        image=known.image or task.environment.image,
        python=known.python or task.environment.python,
        setup=tuple(known.setup) or task.environment.setup,
        directory=known.directory or task.environment.directory,
    )
    given = GivenTest(ids=tuple(known.failing_test)) if known.failing_test else task.failing_test
    task = dataclasses.replace(
        task, environment=environment, test_command=known.test_command or task.test_command, failing_test=given
    )
    return dataclasses.replace(instance, task=task)
