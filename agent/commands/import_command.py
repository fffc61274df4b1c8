"""`troop import FILE…`: what other tools wrote of their attempts, as runs that can be replayed and chosen among."""

import argparse
import contextlib

from agent.commands.options import fill_in
from agent.commands.progress import Progress
from harness import trace
from harness.choosing.pool import Sample, of_trajectory
from harness.trajectories import read


def execute(known: argparse.Namespace) -> int:
    """A run for each instance, with an attempt for each of its files; the runs are printed."""
    from agent.assemble import open_trace, start, without_attempts
    from agent.config import Settings
    from tasks.task import Repository, Task

    fill_in(known, ["out"])
    found: dict[str, tuple[Task, list[Sample]]] = {}
    for it in map(read, known.files):
        of_it = found.setdefault(it.instance, (Task(it.instance, Repository("path", ""), it.statement), []))
        of_it[1].append(of_trajectory(it))
    progress, runs = Progress(quiet=True, json=known.json), list[str]()
    for task, samples in found.values():
        files, _, settings = start(task, without_attempts(Settings(out=known.out)), given=samples)
        with contextlib.closing(open_trace(files, settings)) as log:
            log.write(trace.RunEnded(status="none", detail="imported"))
        files.write_report(list(trace.read(files.trace_file)))
        runs.append(str(files.directory))
    progress.show(*runs)
    progress.document({"runs": runs})
    return 0
