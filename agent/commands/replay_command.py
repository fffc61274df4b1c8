"""`troop replay RUN|FILE`."""

import argparse
from functools import partial

from rich.console import Console

from agent.commands.options import run_of
from agent.commands.progress import Progress
from harness import trace
from harness.views.replay import play
from harness.views.replay_frames import default_attempt, steps
from tasks.errors import InputError


def execute(known: argparse.Namespace) -> int:
    """Play one attempt of the trace."""
    run = run_of(known)
    path = run / "trace.jsonl" if run.is_dir() else run
    events = list(trace.read(path))
    there = sorted({e.attempt for e in events if e.attempt is not None})
    attempt = default_attempt(events) if known.attempt is None else known.attempt
    for wanted in (attempt, attempt if known.beside is None else known.beside):
        if wanted not in there:
            raise InputError(f"{run} has no attempt {wanted}; it has {', '.join(map(str, there)) or 'none yet'}")
    if known.json:
        own = [trace.to_json(e) for e in events if e.attempt == attempt]
        Progress(quiet=True, json=True).document(own)
    else:
        load = partial(steps, events, beside=known.beside)
        play(Console(highlight=False), load, there, attempt, speed=known.speed, step=known.step)
    return 0
