"""Options that several commands share, and how they become `Settings`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.sandbox.choice import AUTO, sandbox_names
from tasks.errors import InputError

if TYPE_CHECKING:
    from agent.config import Settings


def positive(text: str) -> int:
    """An argparse type: a whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def amount(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


positive.__name__, amount.__name__ = "whole number", "number"  # argparse names the type in its message


def add_solving(parser: argparse.ArgumentParser, whole: str = "of the whole run") -> None:
    """The options of solving: attempts, models, sandbox, budgets. `whole`: what the caps hold for, in words."""
    tries = parser.add_argument_group("attempts and models")
    tries.add_argument("-n", "--attempts", type=positive, default=4, metavar="N", help="independent attempts (4)")
    tries.add_argument(
        "--adaptive", action="store_true", help="make an attempt only while it is worth its price; -n is then the most"
    )
    tries.add_argument("--worth", type=amount, metavar="USD", help="adaptive: what a solved issue is worth to you (10)")
    tries.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="alias, provider/name, http://host:port/v1#name, or repair; several: attempts rotate",
    )
    tries.add_argument("--judge-model", metavar="NAME", help="the judge's model; none: no judge (first --model)")
    tries.add_argument("--temperature", type=float, metavar="T", help="the same for all attempts (varies by attempt)")
    tries.add_argument("--seed", type=int, default=0, help="seed of the run; each attempt gets its own from it (0)")
    tries.add_argument("--concurrency", type=positive, metavar="K", help="attempts at a time")
    caps = parser.add_argument_group("budgets")
    caps.add_argument("--max-turns", type=positive, default=50, metavar="N", help="turns of an attempt (50)")
    caps.add_argument("--max-usd", type=amount, metavar="USD", help=whole)
    caps.add_argument("--max-tokens", type=positive, metavar="N", help=whole)
    caps.add_argument("--max-attempt-usd", type=amount, metavar="USD", help="of one attempt")
    caps.add_argument("--max-judge-usd", type=amount, metavar="USD", help="of the judge, for one task")
    caps.add_argument("--timeout", type=amount, metavar="S", help=f"seconds {whole}; what there is then is verified")
    caps.add_argument("--attempt-timeout", type=amount, metavar="S", help="seconds of one attempt")
    caps.add_argument("--allow-unknown-price", action="store_true", help="let --max-usd stand with an unpriced model")
    order = parser.add_argument_group("the choice")
    order.add_argument(
        "--ranker", choices=("evidence", "rules"), help="what orders candidates (evidence; for repair alone: rules)"
    )
    order.add_argument(
        "--threshold", type=share, default=0.0, metavar="P", help="select nothing below P(right), by the ranker (0)"
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument("--sandbox", choices=sandbox_names(), default=AUTO, help="(auto)")
    where.add_argument("--memory", type=positive, default=4096, metavar="MB", help="of one sandbox (4096)")
    where.add_argument("--cpus", type=amount, default=2.0, metavar="N", help="of one sandbox (2)")
    where.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="where the run directory goes (runs)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Which instances of a suite, and where SWE-bench's rows and their repositories come from."""
    which = parser.add_argument_group("instances")
    which.add_argument(
        "--instances",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only these: ids, bare names, globs, repo:NAME, sample:N@SEED (repeatable, or joined by commas)",
    )
    which.add_argument("--dataset", type=Path, metavar="FILE", help="the rows (JSONL, JSON, parquet), not the hub's")
    which.add_argument("--mirrors", type=Path, metavar="DIR", help="clones called owner__name.git or owner/name")


def settings_of(known: argparse.Namespace) -> Settings:
    """The `Settings` that the options of `add_solving` say."""
    from agent.config import WORTH, Settings
    from harness.records import Budget
    from harness.sandbox.base import Limits

    if known.out.exists() and not known.out.is_dir():
        raise InputError(f"--out {known.out} is a file; give a directory")
    if known.worth is not None and not known.adaptive:
        raise InputError("--worth says when --adaptive stops: give both")
    return Settings(
        adaptive=known.adaptive,
        worth=WORTH if known.worth is None else known.worth,
        budget=Budget(
            attempts=known.attempts,
            turns=known.max_turns,
            usd=known.max_usd,
            tokens=known.max_tokens,
            seconds=known.timeout,
            attempt_usd=known.max_attempt_usd,
            attempt_seconds=known.attempt_timeout,
            judge_usd=known.max_judge_usd,
        ),
        models=tuple(known.model),
        judge_model=known.judge_model,
        sandbox=known.sandbox,
        concurrency=known.concurrency,
        seed=known.seed,
        out=known.out,
        limits=Limits(memory_mb=known.memory, cpus=known.cpus),
        allow_unknown_price=known.allow_unknown_price,
        temperature=known.temperature,
        ranker=known.ranker,
        threshold=known.threshold,
    )
