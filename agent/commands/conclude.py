"""Driving a run from a command, what it may begin with (an earlier run's task, once more), and what comes after it:
grading, applying, the result on the screen."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.assemble import Pool, Solution, go, open_pool, open_trace, solution, start, workspace_of
from agent.choice.candidates import candidates_of
from agent.choice.questions import fenced
from agent.commands.options import run_of
from agent.commands.progress import Progress
from agent.commands.pull_request import open_pull, target_of
from agent.commands.signals import interruptible
from agent.config import Settings
from agent.run_files import RunFiles
from agent.secrets import mask
from harness import trace
from harness.choosing.pool import Sample
from harness.records import Candidate, Json
from harness.repository.apply import apply_to_branch, borrow_from, branch_name, commit_message
from harness.suites.instances import InstanceSuite
from harness.suites.suite import Means, Submission
from harness.views.report import last_selection, solve_report
from harness.views.report_view import solve_view
from harness.views.words import reasons, verdict_words
from tasks.errors import InputError, TroopError
from tasks.instance import Grading, Instance
from tasks.places import expanded, is_there
from tasks.source import resolve

SHOWN = 3
"""Patches of an earlier run that attempts see at most, the best first."""
NOTE = "## A note on the patch that was made before"


def once_more(known: argparse.Namespace) -> tuple[str, Instance, Settings]:
    """Source, task and settings of the run that --again names: on the same base, the note in the statement, and with
    `--show` its best patches. Raises InputError where another task is named as well."""
    if known.source or known.issue or known.issue_text:
        raise InputError("--again takes the task of the run: leave out SOURCE, --issue and --issue-text")
    known.run = known.again
    files = RunFiles(run_of(known).resolve())
    (task, settings, source), events = files.read_run(), list(trace.read(files.trace_file, may_be_empty=True))
    base = known.base or next((e.base_commit for e in events if isinstance(e, trace.Prepared)), task.repository.base)
    if task.repository.kind != "package" and not task.repository.include_uncommitted:
        task = replace(task, repository=replace(task.repository, base=base))
    if known.note:
        task = replace(task, statement=f"{task.statement}\n{NOTE}\n\n{fenced('note', known.note)}\n")
    selection, patches = last_selection(events), {each.id: each.patch for each in candidates_of(events)}
    ranked = [each.candidate for each in selection.ranking] if selection else list(patches)
    task = replace(task, earlier=tuple(patches[each] for each in ranked[:SHOWN] if known.show))
    return source, Instance(task, hidden_tests(source, known)), settings


def hidden_tests(source: str, known: argparse.Namespace) -> Grading | None:
    """Those of a run's source, where it is to be graded: they are never kept in a run directory, but read again from
    where they were."""
    return resolve(source).grading if known.grade and source.endswith(".toml") else None


def check_wishes(instance: Instance, known: argparse.Namespace) -> None:
    """Refuse what could not be done afterwards, before anything starts."""
    grade, apply = getattr(known, "grade", False), known.apply
    if (known.ready or known.tell_cost) and not known.pr:
        raise InputError("--ready and --tell-cost go with --pr")
    if known.pr:
        target_of(instance.task)
    if grade and instance.grading is None:
        raise InputError("--grade needs hidden tests, and this task has none: they stand in a task file's [grading]")
    if apply and instance.task.repository.kind != "path":
        raise InputError(
            f"--apply puts the patch on a branch of a local repository, and this task is about a "
            f"{instance.task.repository.kind}: apply runs/.../selected.patch with `git apply` where you want it"
        )
    if (apply or known.pr) and instance.task.repository.include_uncommitted:
        raise InputError(
            f"{'--pr' if known.pr else '--apply'} needs a commit to branch from, and --include-uncommitted starts from "
            "changes that are in none: "
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
    """Start a run of the instance that `source` names, drive it to its end, and conclude; the exit code. `known`: what
    is done with the patch afterwards. `given`: patches to choose among."""
    check_wishes(instance, known)
    path = expanded(source)
    source = str(path.resolve()) if is_there(path) else source
    files, _, _ = start(instance.task, settings, source=source, given=given, say=progress.say)
    return conclude(drive(files, instance.grading if known.grade else None, progress), progress, known)


def drive(files: RunFiles, grading: Grading | None, progress: Progress) -> Solution:
    """Drive the run to its end, and grade the selected patch where hidden tests are given.

    SIGINT and SIGTERM stop it in order: sandboxes are closed, the trace says so, KeyboardInterrupt is raised, and the
    message says how to go on."""

    async def whole() -> Solution:
        task, settings, _ = files.read_run()
        progress.view.catch_up(trace.read(files.trace_file, may_be_empty=True))
        async with open_pool(settings, task.environment.image, progress.say) as pool:
            view = progress.view
            done = await go(files, listeners=[view.see], say=progress.say, pool=pool, view=view)
            if grading is not None:
                with view.busy("running the hidden tests"):
                    await grade_selected(files, done, grading, pool)
                done = solution(files, list(trace.read(files.trace_file)))
            return done

    return interruptible(whole(), f"go on with: troop resume {files.directory}", progress.stop)


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


def put_away(files: RunFiles, candidate: Candidate, known: argparse.Namespace, progress: Progress, told: Json) -> None:
    """Commit the patch of a candidate on a branch named after the issue, and open the pull request, as the options say.
    The branch is in the user's own repository, else in one of the run directory. `told`: gets what was done. Raises
    InputError and SourceUnavailable where that cannot be."""
    (task, _, _), report = files.read_run(), solve_report(list(trace.read(files.trace_file)))
    words = [f"Candidate {candidate.id} of Troop, which was not selected."]
    if report["selected"] is not None and report["selected"]["candidate"] == candidate.id:
        reason, against = reasons(report)
        words = [
            f"Selected by Troop ({verdict_words(report)}).",
            f"Why: {reason}",
            f"But: {against}" if against else "",
        ]
    own, base, place = task.repository.kind == "path", report["base_commit"], Path(task.repository.location)
    if not own:
        place = files.directory / "branch.git"
        borrow_from(workspace_of(task, base).git_dir / "objects", place, base)
    name, message = branch_name(task.title, task.id, task.number), commit_message(task.title, words, files.name)
    applied = apply_to_branch(place, base, candidate.patch, name, message)
    told |= {"branch": applied.branch, "branch_is_new": applied.new}
    if own:
        progress.show(f"branch: {applied.branch}{'' if applied.new else ' (it was there already)'}")
    if known.pr:
        url = open_pull(files, candidate.id, base, place, applied.branch, known, progress.errors())
        told["pull_request"] = url
        progress.show(*([f"pull request: {url}"] if url else []))


def conclude(done: Solution, progress: Progress, known: argparse.Namespace) -> int:
    """Show what the run came to, do with the patch what is asked, and give the exit code.

    What cannot be done is told of after the result: what the run came to is not lost over it."""
    progress.stop()
    files, code, told = RunFiles(done.directory), done.exit_code, Json(branch=None)
    events = list(trace.read(files.trace_file))
    if not (progress.quiet and progress.json):
        progress.show(*solve_view(events, done.directory, short=progress.quiet))
    if (known.apply or known.pr) and done.selection is not None:
        try:
            for chosen in (each for each in candidates_of(events) if each.id == done.selection.candidate):
                put_away(files, chosen, known, progress, told)
        except TroopError as error:
            code, told["pull_request_error" if told["branch"] else "apply_error"] = error.exit_code, mask(str(error))
            sys.stderr.write(f"troop: {mask(str(error))}\n")
    progress.document({**done.report, "directory": str(done.directory), **told})
    return code
