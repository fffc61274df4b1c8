"""Driving a run from a command, and what comes after it: grading, applying, the result on the screen."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.assemble import Pool, Solution, go, open_pool, open_trace, solution, start
from agent.commands.progress import Progress
from agent.commands.signals import interruptible
from agent.config import Settings
from agent.run_files import RunFiles
from agent.secrets import mask
from harness import trace
from harness.choosing.pool import Sample
from harness.records import Json
from harness.repository.apply import Applied, apply_to_branch, branch_name, commit_message
from harness.suites.instances import InstanceSuite
from harness.suites.suite import Means, Submission
from harness.views.report_view import solve_view
from harness.views.words import reasons, verdict_words
from tasks.errors import InputError
from tasks.instance import Grading, Instance
from tasks.places import expanded, is_there
from tasks.task import Task


def check_wishes(instance: Instance, *, apply: bool, grade: bool) -> None:
    """Refuse what could not be done afterwards, before anything starts."""
    if grade and instance.grading is None:
        raise InputError("--grade needs hidden tests, and this task has none: they stand in a task file's [grading]")
    if apply and instance.task.repository.kind != "path":
        raise InputError(
            f"--apply puts the patch on a branch of a local repository, and this task is about a "
            f"{instance.task.repository.kind}: apply runs/.../selected.patch with `git apply` where you want it"
        )
    if apply and instance.task.repository.include_uncommitted:
        raise InputError(
            "--apply needs a commit to branch from, and --include-uncommitted starts from changes that are in none: "
            "leave one of the two out (selected.patch fits your working tree: `git apply` it there)"
        )


def solved(
    known: argparse.Namespace,
    source: str,
    instance: Instance,
    settings: Settings,
    progress: Progress,
    given: Sequence[Sample] = (),
) -> int:
    """Start a run of the instance that `source` names, drive it to its end, and conclude; the exit code. `known`: the
    options of `add_afterwards`. `given`: patches to choose among."""
    check_wishes(instance, apply=known.apply, grade=known.grade)
    path = expanded(source)
    source = str(path.resolve()) if is_there(path) else source
    files, task, _ = start(instance.task, settings, source=source, given=given, say=progress.say)
    done = drive(files, instance.grading if known.grade else None, progress)
    return conclude(done, task, progress, apply=known.apply)


def drive(files: RunFiles, grading: Grading | None, progress: Progress) -> Solution:
    """Drive the run to its end, and grade the selected patch where hidden tests are given.

    SIGINT and SIGTERM stop it in order: sandboxes are closed, the trace says so, KeyboardInterrupt is raised, and the
    message says how to go on.
    """

    async def whole() -> Solution:
        task, settings, _ = files.read_run()
        progress.view.catch_up(trace.read(files.trace_file, may_be_empty=True))
        async with open_pool(settings, task.environment.image, progress.say) as pool:
            done = await go(files, listeners=[progress.view.see], say=progress.say, pool=pool)
            if grading is not None:
                await grade_selected(files, done, grading, pool)
                done = solution(files, list(trace.read(files.trace_file)))
            return done

    return interruptible(whole(), f"go on with: troop resume {files.directory}")


async def grade_selected(files: RunFiles, done: Solution, grading: Grading, pool: Pool) -> None:
    """Let the hidden tests judge the selected patch, if there is one, and note their word in the trace, once."""
    candidate = done.selection.candidate if done.selection else None
    if candidate is None or done.patch is None:
        return
    if any(isinstance(e, trace.Graded) and e.candidate == candidate for e in trace.read(files.trace_file)):
        return
    task, settings, _ = files.read_run()
    means = Means(pool.provider, settings.limits, settings.test_timeout, 1, lambda line: None)
    async with InstanceSuite("", (Instance(task, grading),)).at_work(means) as bench:
        submission = Submission(candidate, done.patch, files.name, done.report["base_commit"])
        verdict = await bench.grade(task.id, submission)
    with contextlib.closing(open_trace(files, settings)) as log:
        log.write(trace.Graded.of(candidate, verdict))


def put_on_branch(task: Task, report: Json, run: str, candidate: str, patch: str) -> Applied:
    """Commit the patch of a candidate on a branch named after the issue. Raises InputError where it cannot be
    applied."""
    words = [f"Candidate {candidate} of Troop, which was not selected."]
    if report["selected"] is not None and report["selected"]["candidate"] == candidate:
        reason, against = reasons(report)
        words = [
            f"Selected by Troop ({verdict_words(report)}).",
            f"Why: {reason}",
            f"But: {against}" if against else "",
        ]
    name, message = branch_name(task.title, task.id, task.number), commit_message(task.title, words, run)
    return apply_to_branch(Path(task.repository.location), report["base_commit"], patch, name, message)


def conclude(done: Solution, task: Task, progress: Progress, *, apply: bool) -> int:
    """Apply the patch where asked, show what the run came to, and give the exit code.

    A patch that cannot be applied is told of after the result (exit code 2): what the run came to is not lost over it.
    """
    progress.stop()
    applied, refusal = None, None
    if apply and done.patch is not None:
        try:
            chosen = done.report["selected"]["candidate"]
            applied = put_on_branch(task, done.report, done.directory.name, chosen, done.patch)
        except InputError as error:
            refusal = error
    if not (progress.quiet and progress.json):
        progress.show(*solve_view(list(trace.read(done.directory / "trace.jsonl")), done.directory, applied=applied))
    branch = {"branch": applied.branch, "branch_is_new": applied.new} if applied else {"branch": None}
    failure = {} if refusal is None else {"apply_error": mask(str(refusal))}
    progress.document({**done.report, "directory": str(done.directory), **branch, **failure})
    if refusal is not None:
        sys.stderr.write(f"troop: {mask(str(refusal))}\n")
        return refusal.exit_code
    return done.exit_code
