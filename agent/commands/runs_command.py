"""`troop runs [DIR]`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.text import Text

from agent.commands.options import fill_in
from agent.commands.progress import Progress
from agent.run_files import kept_in, overview
from harness.records import Json
from harness.views.picture import table
from harness.views.words import elapsed_short, printable
from tasks.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of runs."""
    parser.add_argument("out", metavar="DIR", type=Path, nargs="?", help="where the runs are (runs)")


def execute(known: argparse.Namespace) -> int:
    """List the runs, the one last worked on first."""
    fill_in(known, ["out"])
    if not known.out.is_dir():
        raise InputError(f"there is no directory {known.out}")
    rows = [overview(place) for place in kept_in(known.out)]
    shown = table("run", "issue…", "verdict…", ">cost", ">age")
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in (row["name"], row["title"], row["verdict"], *figures(row))))
    progress = Progress(quiet=True, json=known.json)
    if not known.json:
        progress.show(shown if rows else f"there is no run in {known.out} yet: `troop solve` makes one")
    progress.document(rows)
    return 0


def figures(row: Json) -> tuple[str, str]:
    """What it cost, and how long ago it was last worked on."""
    hours = max(0.0, time.time() - row["at"]) / 3600
    age = f"{hours / 24:.0f} days" if hours >= 48 else elapsed_short(3600 * hours)
    return "?" if row["usd"] is None else f"${row['usd']:.4f}" if row["usd"] else "-", age
