"""`troop select SUITE|TASK --candidates FILE…`: its options; what it does is in `selecting.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.commands.options import add_choice, add_rows, add_settings, fill_in
from agent.commands.selecting import select
from agent.defaults import amount, least, positive

SANDBOX, JUDGE = ("sandbox", "memory", "cpus"), ("judge",)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of select."""
    parser.add_argument("source", metavar="SUITE|TASK", nargs="?", help="a SWE-bench suite, or what `solve` takes")
    parser.add_argument(
        "--candidates",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="predictions, pools, directories of patches, Troop runs",
    )
    parser.add_argument("--from", dest="kept", type=Path, metavar="RUN", help="rank again by the evidence of that run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run directory (runs/select-SOURCE)")
    parser.add_argument("--issue", metavar="FILE", help="the issue's text for a local repository; - reads stdin")
    parser.add_argument("--issue-text", metavar="TEXT", help="the same, given here")
    parser.add_argument("--base", metavar="REF", help="commit, tag or branch that the patches are against")
    add_rows(parser)
    order = parser.add_argument_group("the order")
    add_choice(order, "--ranker", ("evidence", "rules"), "(evidence)")
    order.add_argument("--weights", type=Path, metavar="FILE", help="the ranker's (those that ship)")
    order.add_argument("--threshold", type=least, default=0.0, metavar="P", help="as in solve (0)")
    judge = parser.add_argument_group("the judge")
    judge.add_argument(
        "--judge-model", metavar="NAME", help="tells candidates apart that stand first, close together (none)"
    )
    add_settings(judge, JUDGE)
    judge.add_argument("--max-judge-usd", type=amount, metavar="USD", help="for one instance")
    judge.add_argument("--max-usd", type=amount, metavar="USD", help="for all instances together")
    judge.add_argument("--allow-unknown-price", action="store_true", help="let a cap stand with an unpriced model")
    look = parser.add_argument_group("the evidence")
    look.add_argument("--static", action="store_true", help="execute nothing: what the patches themselves tell")
    look.add_argument("--near-seconds", type=amount, default=12.0, metavar="S", help="of tests near the change (12)")
    look.add_argument("--at-once", type=positive, default=2, metavar="K", help="instances in work at a time (2)")
    add_settings(look, SANDBOX)
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def execute(known: argparse.Namespace) -> int:
    """Gather evidence where asked, rank, write predictions.jsonl, report.json and, for one instance, selected.patch."""
    fill_in(known, (*SANDBOX, *JUDGE))
    return select(known)
