"""`troop solve SOURCE`."""

from __future__ import annotations

import argparse

from agent.commands.options import add_afterwards, add_solving, add_task, settings_of, task_of


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of solve."""
    parser.add_argument("source", metavar="SOURCE", help="issue URL, owner/name#N, task file, or local repository")
    add_task(parser)
    add_solving(parser)
    add_afterwards(parser)


def execute(known: argparse.Namespace) -> int:
    """Solve, print the result, grade and apply where asked."""
    from agent.commands.conclude import solved
    from agent.commands.progress import Progress

    settings = settings_of(known)
    with Progress(quiet=known.quiet, json=known.json) as progress:
        return solved(known, known.source, task_of(known, known.source, progress.say), settings, progress)
