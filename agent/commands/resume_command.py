"""`troop resume RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.commands.options import add_afterwards, add_choice, run_of
from tasks.instance import Instance


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of resume."""
    parser.add_argument("run", metavar="RUN", type=Path, nargs="?", help="the run's directory (the latest run)")
    parser.add_argument("--quiet", action="store_true", help="no progress; of a run only verdict, patch and cost")
    add_choice(parser, "--log", ("text", "json"), "progress on stderr as text, or as one JSON object a line (text)")
    add_afterwards(parser)


def execute(known: argparse.Namespace) -> int:
    """Go on where the trace ends; a finished run is shown as it is."""
    from agent.commands.conclude import check_wishes, conclude, drive
    from agent.commands.progress import Progress
    from agent.run_files import RunFiles
    from tasks.source import resolve

    files = RunFiles(run_of(known).resolve())
    task, _, source = files.read_run()
    # Hidden tests are never kept in a run directory: they are read again from where they were.
    instance = resolve(source) if known.grade and source.endswith(".toml") else Instance(task)
    check_wishes(Instance(task, instance.grading), apply=known.apply, grade=known.grade)
    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        solution = drive(files, instance.grading if known.grade else None, progress)
        return conclude(solution, task, progress, apply=known.apply)
