"""`troop solve SOURCE`."""

from __future__ import annotations

import argparse
import dataclasses

from agent.commands.options import add_afterwards, add_repeatable, add_solving, settings_of
from harness.sandbox.choice import with_images, without_images
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.places import expanded, is_there
from tasks.task import GivenTest


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of solve."""
    parser.add_argument("source", metavar="SOURCE", help="issue URL, owner/name#N, task file, or local repository")
    task = parser.add_argument_group("the task")
    task.add_argument("--issue", metavar="FILE", help="the issue's text for a local repository; - reads stdin")
    task.add_argument("--issue-text", metavar="TEXT", help="the same, given here")
    task.add_argument("--base", metavar="REF", help="commit, tag or branch to start from (the default branch's head)")
    task.add_argument(
        "--include-uncommitted", action="store_true", help="start from the tree with its uncommitted changes"
    )
    add_repeatable(task, "--failing-test", "ID", "a test of the repository that shows the issue")
    task.add_argument("--image", help="Docker image to start from")
    task.add_argument("--python", metavar="X.Y", help="Python version of the environment")
    add_repeatable(task, "--setup", "COMMAND", "set-up command, instead of detected")
    task.add_argument("--directory", metavar="DIR", help="of the project, in a repository that has several")
    task.add_argument("--test-command", metavar="COMMAND", help="runs the test-suite in the repository's root")
    add_solving(parser)
    add_afterwards(parser)


def execute(known: argparse.Namespace) -> int:
    """Solve, print the result, grade and apply where asked."""
    from agent.assemble import start
    from agent.commands.conclude import check_wishes, conclude, drive
    from agent.commands.progress import Progress
    from tasks.source import resolve

    settings = settings_of(known)
    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        instance = resolve(
            known.source,
            issue=known.issue,
            issue_text=known.issue_text,
            base=known.base,
            include_uncommitted=known.include_uncommitted,
            say=progress.say,
        )
        instance = _overridden(instance, known)
        check_wishes(instance, apply=known.apply, grade=known.grade)
        path = expanded(known.source)
        source = str(path.resolve()) if is_there(path) else known.source
        files, task, _ = start(instance.task, settings, source=source, say=progress.say)
        solution = drive(files, instance.grading if known.grade else None, progress)
        return conclude(solution, task, progress, apply=known.apply)


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
