"""`troop show [RUN] [CANDIDATE]`: a candidate's patch, printed or put on a branch."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax

from agent.commands.conclude import check_wishes, put_on_branch
from agent.commands.options import run_of
from agent.run_files import RunFiles
from harness import trace
from harness.patches.patch import Patch
from harness.records import Candidate
from harness.views.report import latest_verified, solve_report
from harness.views.words import clean, evidence_words
from tasks.errors import InputError
from tasks.instance import Instance

EXAMPLES = """examples:
  troop show                            # the selected patch of the latest run
  troop show c2 | git apply
  troop show runs/RUN c2 --apply        # on a new branch of the local repository
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of show."""
    parser.add_argument("words", nargs="*", metavar="RUN CANDIDATE", help="the latest run, and what it selected")
    parser.add_argument("--apply", action="store_true", help="put the patch on a new branch of the local repository")


def execute(known: argparse.Namespace) -> int:
    """Print the patch as it is, in colours on a terminal; or apply it."""
    files, events, names = opened(known, most=1)
    candidates = candidates_of(events)
    selection = next((e.selection for e in reversed(events) if isinstance(e, trace.Selected)), None)
    name = names[0] if names else selection.candidate if selection else None
    if name is None:
        raise InputError(
            f"nothing was selected in {files.directory}; name one of {', '.join(candidates) or 'none yet'}"
        )
    patch = candidates[name].patch
    if known.apply:
        task, _, _ = files.read_run()
        check_wishes(Instance(task), apply=True, grade=False)
        report = solve_report(events)
        chosen = report["selected"] is not None and report["selected"]["candidate"] == name
        words = evidence_words(report) if chosen else [f"Candidate {name} of Troop, which was not selected."]
        applied = put_on_branch(task, patch, words, report["base_commit"], files.name)
        sys.stdout.write(f"the patch {'is' if applied.new else 'was already'} on the branch {applied.branch}\n")
    elif sys.stdout.isatty():
        Console().print(Syntax(clean(patch), "diff", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(patch.encode("utf-8", "surrogateescape"))
    return 0


def opened(known: argparse.Namespace, most: int) -> tuple[RunFiles, list[trace.Event], list[str]]:
    """The run that the words name, or the latest, its events, and the candidates that they name, `most` at most.

    Raises InputError for a candidate that there is not.
    """
    words = list(known.words)
    first = words[0] if words else ""
    known.run = words.pop(0) if first and (not re.fullmatch(r"c\d+", first) or Path(first).exists()) else None
    files = RunFiles(run_of(known).resolve())
    events = list(trace.read(files.trace_file))
    there = candidates_of(events)
    for word in words:
        if word not in there:
            raise InputError(f"there is no candidate {word} in {files.name}; it has {', '.join(there) or 'none yet'}")
    if len(words) > most:
        raise InputError(f"{most} candidate{'s' * (most > 1)} at most: leave out {' '.join(words[most:])}")
    return files, events, words


def candidates_of(events: list[trace.Event]) -> dict[str, Candidate]:
    """The candidates that were verified, by name."""
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    found = {}
    for event in latest_verified(events):
        patch = patches[event.attempts[0]]
        found[event.candidate] = Candidate(event.candidate, patch, event.attempts, Patch(patch).flags, event.evidence)
    return found
