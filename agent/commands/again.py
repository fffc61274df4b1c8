"""`troop solve --again RUN --note TEXT`: a task once more, with what its user says of what came out before."""

from __future__ import annotations

import argparse
from dataclasses import replace

from agent.choice.candidates import candidates_of
from agent.choice.questions import fenced
from agent.commands.options import run_of
from agent.config import Settings
from agent.run_files import RunFiles
from harness import trace
from harness.views.report import last_selection
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.source import resolve

SHOWN = 3
"""Patches of the earlier run that attempts see at most, the best first."""
NOTE = "## A note on the patch that was made before"


def once_more(known: argparse.Namespace) -> tuple[str, Instance, Settings]:
    """Source, task and settings of an earlier run: on the same base, the note in the statement, and with `--show` its
    best patches. Raises InputError where another task is named as well."""
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
    # Hidden tests are never kept in a run directory: they are read again from where they were.
    given = resolve(source).grading if known.grade and source.endswith(".toml") else None
    return source, Instance(task, given), settings
