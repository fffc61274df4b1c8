"""`troop show [RUN] [CANDIDATE]`: a candidate's patch, printed or put on a branch."""

import argparse
import re
import sys
from pathlib import Path

from agent.choice.candidates import candidates_of
from agent.commands.conclude import check_wishes, put_away
from agent.commands.options import run_of
from agent.commands.progress import Progress
from agent.run_files import RunFiles
from harness import trace
from harness.records import Candidate
from harness.views.report import last_selection, solve_report
from harness.views.words import clean, counted
from tasks.errors import InputError
from tasks.instance import Instance


def execute(known: argparse.Namespace) -> int:
    """Print the patch as it is, on a terminal without what commands it; or apply it."""
    files, events, (candidate,) = opened(known, 1)
    report = solve_report(events)
    chosen = report["selected"] is not None and report["selected"]["candidate"] == candidate.id
    if not chosen and candidate.id not in known.words:
        raise InputError(f"nothing was selected in {files.name}; its best is {candidate.id}: name it to see it")
    if known.apply or known.pr or known.ready or known.tell_cost:
        check_wishes(Instance(files.read_run()[0]), known)
        progress, told = Progress(quiet=True, json=known.json), {"candidate": candidate.id}
        put_away(files, candidate, known, progress, told)
        progress.document(told)
    elif sys.stdout.isatty():
        sys.stdout.write(clean(candidate.patch))
    else:
        sys.stdout.buffer.write(candidate.patch.encode("utf-8", "surrogateescape"))
    return 0


def opened(known: argparse.Namespace, count: int) -> tuple[RunFiles, list[trace.Event], list[Candidate]]:
    """The run that the words name, or the latest, its events, and `count` candidates: those that the words name, then
    those that stand first. Raises InputError where there are not as many."""
    named = [word for word in known.words if re.fullmatch(r"c\d+", word) and not Path(word).exists()]
    known.run, *more = [word for word in known.words if word not in named] or [None]
    files = RunFiles(run_of(known).resolve())
    events = list(trace.read(files.trace_file))
    there = {each.id: each for each in candidates_of(events)}
    selection = last_selection(events)
    ranked = [each.candidate for each in selection.ranking] if selection else []
    names = list(dict.fromkeys([*named, *ranked, *there]))
    if more or len(named) > count or len(names) < count or not there.keys() >= set(names[:count]):
        have = ", ".join(there) or "none yet"
        raise InputError(f"name a run and {counted(count, 'candidate')} at most; {files.name} has {have}")
    return files, events, [there[name] for name in names[:count]]
