"""`troop runs [DIR]`."""

import argparse
import time

from rich.text import Text

from agent.commands.options import fill_in
from agent.commands.progress import Progress
from agent.run_files import kept_in, overview
from harness.records import Json
from harness.views.words import elapsed_short, printable
from tasks.errors import InputError


def execute(known: argparse.Namespace) -> int:
    """List the runs, the one last worked on first."""
    fill_in(known, ["out"])
    if not known.out.is_dir():
        raise InputError(f"there is no directory {known.out}")
    rows = [overview(place) for place in kept_in(known.out)]
    shown = [] if rows else [Text(f"there is no run in {known.out} yet: `troop solve` makes one")]
    for row in rows:  # a name is there to be copied, and takes much of 80 columns
        cost, age = figures(row)
        about = " · ".join((f"{age} ago", cost, printable(row["verdict"]), printable(row["title"])))
        shown += [Text(row["name"], "bold", overflow="fold"), Text(f"  {about}")]
    progress = Progress(quiet=True, json=known.json)
    if not known.json:
        progress.show(*shown)
    progress.document(rows)
    return 0


def figures(row: Json) -> tuple[str, str]:
    """What it cost, and how long ago it was last worked on."""
    hours = max(0.0, time.time() - row["at"]) / 3600
    age = f"{hours / 24:.0f} days" if hours >= 48 else elapsed_short(3600 * hours)
    return "?" if row["usd"] is None else f"${row['usd']:.4f}" if row["usd"] else "-", age
