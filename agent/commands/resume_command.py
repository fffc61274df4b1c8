"""`troop resume RUN`."""

from __future__ import annotations

import argparse

from agent.commands.options import run_of
from tasks.instance import Instance


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
    check_wishes(Instance(task, instance.grading), known)
    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        solution = drive(files, instance.grading if known.grade else None, progress)
        return conclude(solution, progress, known)
