"""`troop resume RUN`."""

import argparse

from agent.commands.options import run_of
from tasks.instance import Instance


def execute(known: argparse.Namespace) -> int:
    """Go on where the trace ends; a finished run is shown as it is."""
    from agent.commands.conclude import check_wishes, conclude, drive, hidden_tests
    from agent.commands.progress import Progress
    from agent.run_files import RunFiles

    files = RunFiles(run_of(known).resolve())
    task, _, source = files.read_run()
    grading = hidden_tests(source, known)
    check_wishes(Instance(task, grading), known)
    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        return conclude(drive(files, grading, progress), progress, known)
