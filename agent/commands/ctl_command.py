"""`troop ctl RUN`."""

import argparse

from agent.commands.options import run_of
from agent.commands.progress import Progress
from tasks.errors import InputError


def execute(known: argparse.Namespace) -> int:
    """Ask the process that works on the run or evaluation, and say what holds now."""
    from agent.run.control import ask
    from harness.trace import CapsChanged, public

    wish = CapsChanged(usd=known.max_usd, tokens=known.max_tokens, concurrency=known.concurrency)
    if wish == CapsChanged():
        raise InputError("say what is to change: --max-usd, --max-tokens or --concurrency")
    directory = run_of(known, evaluations=True).resolve()
    if (directory.parent / "eval.json").is_file():
        raise InputError(f"{directory} is an instance of the evaluation {directory.parent}: name that")
    if not any((directory / name).is_file() for name in ("eval.json", "run.json")):
        raise InputError(f"{directory} is neither a run nor an evaluation")
    ask(directory, wish)
    progress = Progress(quiet=True, json=known.json)
    progress.show(f"{directory} has {wish.words}")
    progress.document({"directory": str(directory), **public(wish)})
    return 0
