"""`troop ctl RUN`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from agent.commands.options import run_of
from agent.commands.progress import Progress
from agent.defaults import amount, positive
from harness.cache import write_json
from harness.lock import RunLock
from tasks.errors import EnvironmentFailed, InputError, RunLocked

PATIENCE_SECONDS = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of ctl."""
    parser.add_argument("run", metavar="RUN", type=Path, nargs="?", help="of the run or evaluation (the latest)")
    parser.add_argument("--max-usd", type=amount, metavar="USD", help="the cap of the whole from now on")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="likewise")
    parser.add_argument("--concurrency", type=positive, metavar="N", help="attempts at a time from now on")


def execute(known: argparse.Namespace) -> int:
    """Leave the wish in the directory and wait until the process that works there has taken it."""
    from agent.assemble import named_models
    from agent.config import Settings, load_config, prices_of
    from agent.run.control import WISH
    from agent.run_files import RunFiles
    from harness.money.ledger import check_priced
    from harness.trace import CapsChanged, public, record

    wish = CapsChanged(usd=known.max_usd, tokens=known.max_tokens, concurrency=known.concurrency)
    if wish == CapsChanged():
        raise InputError("say what is to change: --max-usd, --max-tokens or --concurrency")
    directory = run_of(known, evaluations=True)
    whole = directory / "eval.json"
    of_evaluation = whole.is_file() and record(Settings, json.loads(whole.read_bytes())["settings"])
    settings = of_evaluation or RunFiles(directory).read_run()[1]
    prices = [prices_of(alias) for alias in named_models(settings, load_config())]
    check_priced(prices, wish.usd, allow_unknown=settings.allow_unknown_price)
    try:
        with RunLock(directory):
            raise InputError(f"{directory} is not being worked on: give the options when you go on with it")
    except RunLocked:
        write_json(directory / WISH, public(wish))
    place, until = directory / WISH, time.monotonic() + PATIENCE_SECONDS
    while place.exists():
        if time.monotonic() > until:
            place.unlink(missing_ok=True)
            why = f"took no notice for {PATIENCE_SECONDS:g} s (of an evaluation name its directory, not an instance's)"
            raise EnvironmentFailed(f"the process that works on {directory} {why}")
        time.sleep(0.1)
    progress = Progress(quiet=True, json=known.json)
    progress.show(f"{directory} has {wish.words}")
    progress.document({"directory": str(directory), **public(wish)})
    return 0
