"""What a run or an evaluation would do and cost, before it starts: by earlier runs' ledgers, else by stated
assumptions."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import RenderableType
from rich.text import Text

from agent.assemble import settle, width, workspace_of
from agent.config import REPAIR, Config, Settings, load_config, prices_of, resolve_model
from agent.evaluation import Evaluation
from harness.environments.environment import foreseen
from harness.money.ledger import price
from harness.records import Json, Usage
from harness.views.picture import table
from harness.views.words import clean, counted, elapsed_short, tokens_short
from tasks.say import Say
from tasks.task import Task

TURNS, LEAST_TURNS = 25, 8
"""What is assumed of an attempt with a model nothing is known of: turns, tokens of each, seconds of each."""
INPUT_PER_TURN = 12_000
OUTPUT_PER_TURN = 400
SECONDS_PER_TURN = 12.0
OUTPUT_PER_SECOND = 50.0
"""Output tokens a second that one call of a local GPU is assumed to give."""
REPAIR_SECONDS = 120.0
IMAGE_SECONDS = 60.0
GRADE_SECONDS = 30.0
IMAGE_GB = 0.1
"""Of an image that is built here, with its part of the layers below (docs/swe-bench.md). Published ones take more."""
ROWS = 40
"""Instances that get a line on the screen; --json has all."""
NOTHING = Text("nothing was started (--dry-run)", "dim")


def forecast(evaluation: Evaluation, root: Path) -> Json:
    """What would run, and what it would cost. `root`: the directory below which earlier runs are looked for."""
    settings = evaluation.settings
    config, turns = evaluation.config, settings.budget.turns
    models = [expected_attempt(name, config, turns, evaluation.out, root) for name in settings.models]
    missing = evaluation.suite.missing()
    rows: list[Json] = []
    for id in evaluation.suite.ids:
        kept, left = evaluation.kept.get(id), evaluation.attempts_left(id)
        state = "new" if kept is None else "begun" if kept.outcome is None else "more attempts" if left else "finished"
        rows.append({"id": id, "state": state, "image": missing.get(id) or "ready", "attempts_left": left})
    attempts = sum(row["attempts_left"] for row in rows)
    # Attempts rotate over the models, so each has its part of them.
    usd = None if any(m["usd"] is None for m in models) else attempts * fmean(m["usd"] for m in models)
    # In adaptive sampling nobody has a share of the cap: it is spent wherever it gains most.
    cap, sharers = settings.budget.usd, 0 if settings.adaptive else sum(row["attempts_left"] > 0 for row in rows)
    notes = []
    if usd is None:
        notes.append("the price is not known: give prices or usd_per_gpu_hour in an alias (troop.toml)")
    elif cap is not None and usd > cap:
        share = f"each of {counted(sharers, 'instance')} may use its share"
        notes.append(
            f"--max-usd {cap:g} is less than expected: {share if sharers else 'it is spent where it gains most'}, and "
            f"attempts beyond it are cut off or never begun (for {attempts} attempts give about {usd:.2f})"
        )
    gb, most = IMAGE_GB * len(missing), getattr(evaluation.suite, "disk", None)
    if missing:
        room = f", at most {most:g} at a time, as --disk says" if most else ""
        notes.append(f"{counted(len(missing), 'image')} to be made (pulled, else built): about {gb:.1f} GB{room}")
    return {
        "suite": evaluation.suite.name,
        "instances": rows,
        "models": models,
        "attempts_left": attempts,
        "adaptive": settings.adaptive,
        "usd": usd,
        "hours": round(_seconds(evaluation, rows, fmean(m["seconds"] for m in models)) / 3600, 2),
        "gb": gb if most is None else min(gb, most),
        "max_usd": cap,
        "usd_share": cap / sharers if cap is not None and sharers else None,
        "notes": notes,
    }


def _seconds(evaluation: Evaluation, rows: Sequence[Json], per_attempt: float) -> float:
    """Wall seconds: images, attempts as many at a time as there are slots, gradings, as if one came after the other."""
    cpus = os.cpu_count() or 2
    images = sum(row["image"] != "ready" for row in rows)
    attempts = sum(row["attempts_left"] for row in rows)
    gradings = 0 if evaluation.grades == "none" else attempts
    places = min(width(evaluation.settings), attempts) or 1
    return float(IMAGE_SECONDS * images / cpus + per_attempt * attempts / places + GRADE_SECONDS * gradings / cpus)


def solve_forecast(task: Task, settings: Settings, say: Say) -> Json:
    """How the task would be set up and tested, and what its attempts would cost. USD: [least, expected, most], None
    where no price is known."""
    config, budget = load_config(), settings.budget
    settings, workspace = settle(settings, config, task, say), workspace_of(task, None, say)
    models = [expected_attempt(name, config, budget.turns, settings.out, settings.out) for name in settings.models]
    made = [models[attempt % len(models)] for attempt in range(budget.attempts)]
    priced = all(each["usd"] is not None for each in made)
    usd = [sum(each[key] for each in made) for key in ("least_usd", "usd", "most_usd")] if priced else None
    about = {"task": task.id, "title": task.title, "base_commit": workspace.base_commit, "notes": workspace.notes}
    price = {"attempts": budget.attempts, "models": models, "usd": usd, "max_usd": budget.usd}
    return {**about, **foreseen(workspace, task), **price}


def solve_forecast_view(expected: Json) -> list[RenderableType]:
    """The forecast of a run for a person."""
    cost, cap = "cost unknown", f", at most ${expected['max_usd']:g}" if expected["max_usd"] else ""
    if expected["usd"]:
        cost = "about ${1:.2f} (${0:.2f} to ${2:.2f})".format(*expected["usd"]) if any(expected["usd"]) else "no cost"
    told = [
        f"base commit: {expected['base_commit'][:12]}",
        f"Python: {expected['python'] or 'as the image has it'}",
        *(f"set-up: {command}" for command in expected["install"]),
        f"tests: {expected['test_command'] or 'none found (--test-command COMMAND)'}",
    ]
    total = Text(f"{counted(expected['attempts'], 'attempt')}: {cost}{cap}, without a judge", "bold")
    shown = [Text(clean(expected["title"]), "bold"), *map(Text, map(clean, (*expected["notes"], *told)))]
    return [*shown, *map(_spent, expected["models"]), total, NOTHING]


def expected_attempt(model: str, config: Config, most_turns: int, near: Path, root: Path) -> Json:
    """One attempt of the model: USD (None: no known price), seconds, tokens, and where that comes from: the mean of its
    earlier ones below `near` (of the same suite) or `root`."""
    beside = list(earlier_attempts(near, model))
    found = beside or list(earlier_attempts(root.resolve(), model))
    if not found:
        return _assumed(model, config, most_turns)
    known = [row["usd"] for row in found if row["usd"] is not None]
    return {
        "model": model,
        "usd": fmean(known) if known else None,
        **({"least_usd": min(known), "most_usd": max(known)} if known else {}),
        "seconds": fmean(row["seconds"] for row in found),
        "tokens": fmean(sum(row["usage"].values()) for row in found),
        "source": f"the mean of {counted(len(found), 'attempt')} in {near if beside else root}",
    }


def earlier_attempts(root: Path, model: str) -> Iterator[Json]:
    """The finished attempts of the model in the report.json of runs in `root` and in its directories."""
    for pattern in ("*/report.json", "*/*/report.json"):
        for path in sorted(root.glob(pattern)):
            try:
                report = json.loads(path.read_text(encoding="utf-8"))
                rows = [row for row in report.get("attempts", ()) if isinstance(row, dict) and row["model"] == model]
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # not a solve's report
            yield from (row for row in rows if row.get("seconds") and row.get("status") != "infrastructure")


def _assumed(model: str, config: Config, most_turns: int) -> Json:
    if model == REPAIR:
        source = f"assumed: {REPAIR_SECONDS:g} s an attempt"
        none = {"usd": 0.0, "least_usd": 0.0, "most_usd": 0.0}
        return {"model": model, **none, "seconds": REPAIR_SECONDS, "tokens": 0.0, "source": source}
    turns = min(TURNS, most_turns)
    prices = prices_of(resolve_model(model, config))
    usage = Usage(input=turns * INPUT_PER_TURN, output=turns * OUTPUT_PER_TURN)
    usd, _ = price(prices, usage, usage.output / OUTPUT_PER_SECOND)
    source = (
        f"assumed: {turns} turns, {INPUT_PER_TURN} tokens in and {OUTPUT_PER_TURN} out a turn with nothing cached, "
        f"{SECONDS_PER_TURN:g} s a turn" + (f", {OUTPUT_PER_SECOND:g} tokens/s" if prices.gpu_hour is not None else "")
    )
    seconds, tokens = turns * SECONDS_PER_TURN, float(usage.total)
    ends = [None if usd is None else usd * each / turns for each in (min(LEAST_TURNS, most_turns), most_turns)]
    told = {"usd": usd, "least_usd": ends[0], "most_usd": ends[1]}
    return {"model": model, **told, "seconds": seconds, "tokens": tokens, "source": source}


def _spent(model: Json) -> Text:
    usd = "price unknown" if model["usd"] is None else f"${model['usd']:.4f}"
    spent = f"{usd}, {tokens_short(int(model['tokens']))} tokens, {elapsed_short(model['seconds'])} an attempt"
    return Text(f"{model['model']}: {spent} ({model['source']})")


def forecast_view(expected: Json) -> list[RenderableType]:
    """The forecast for a person."""
    shown = table("instance…", "state", "image…", ">attempts left")
    for row in expected["instances"][:ROWS]:
        image = "ready" if row["image"] == "ready" else "to be made"
        shown.add_row(row["id"], row["state"], image, str(row["attempts_left"]))
    more = len(expected["instances"]) - ROWS
    lines = [Text(f"… and {counted(more, 'more instance')} (--json has all)", "dim")] if more > 0 else []
    lines += map(_spent, expected["models"])
    usd = "cost unknown" if expected["usd"] is None else f"about ${expected['usd']:.2f}"
    share = f", ${expected['usd_share']:.4f} for each instance" if expected["usd_share"] is not None else ""
    cap = f"; --max-usd {expected['max_usd']:g}{share}" if expected["max_usd"] is not None else ""
    most = "at most, as attempts are made only while they are worth it: " if expected["adaptive"] else ""
    left = f"{counted(expected['attempts_left'], 'attempt')} left of {counted(len(expected['instances']), 'instance')}"
    lines.append(Text(f"{most}{left}: {usd}, about {expected['hours']:.2f} hours{cap}", "bold"))
    lines += [Text(note, "yellow") for note in expected["notes"]]
    return [shown, *lines, NOTHING]
