"""What an evaluation would do and cost, before it starts: by earlier runs' ledgers, else by stated assumptions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from rich.console import RenderableType
from rich.text import Text

from agent.assemble import width
from agent.config import Config, prices_of, resolve_model
from agent.evaluation import REPAIR, Evaluation
from harness.money.ledger import price
from harness.records import Json, Usage
from harness.views.picture import table
from harness.views.words import counted, elapsed_short, tokens_short

TURNS = 25
"""What is assumed of an attempt with a model nothing is known of: turns, tokens of each, seconds of each."""
INPUT_PER_TURN = 12_000
OUTPUT_PER_TURN = 400
SECONDS_PER_TURN = 12.0
OUTPUT_PER_SECOND = 50.0
"""Output tokens a second that one call of a local GPU is assumed to give."""
REPAIR_SECONDS = 120.0
IMAGE_SECONDS = 60.0
GRADE_SECONDS = 30.0
ROWS = 40
"""Instances that get a line on the screen; --json has all."""

ASSUMED = (
    f"assumed: {TURNS} turns, {INPUT_PER_TURN} tokens in and {OUTPUT_PER_TURN} out a turn with nothing cached, "
    f"{SECONDS_PER_TURN:g} s a turn"
)


@dataclass(frozen=True, slots=True)
class Expected:
    """One attempt of a model: USD (None: no known price), seconds, tokens, and where that comes from."""

    model: str
    usd: float | None
    seconds: float
    tokens: float
    source: str


def forecast(evaluation: Evaluation, root: Path) -> Json:
    """What would run, and what it would cost. `root`: the directory below which earlier runs are looked for."""
    settings = evaluation.settings
    models = [expected_attempt(name, evaluation, root) for name in settings.models]
    missing = evaluation.suite.missing()
    rows = [_row(evaluation, id, missing.get(id, "")) for id in evaluation.suite.ids]
    attempts = sum(row["attempts_left"] for row in rows)
    # Attempts rotate over the models, so each has its part of them.
    usd = None if any(m.usd is None for m in models) else attempts * fmean(m.usd or 0.0 for m in models)
    budget = settings.budget
    unfinished = sum(row["attempts_left"] > 0 for row in rows)
    return {
        "suite": evaluation.suite.name,
        "instances": rows,
        "models": [asdict(model) for model in models],
        "attempts_left": attempts,
        "adaptive": settings.adaptive,
        "usd": usd,
        "hours": round(_seconds(evaluation, rows, fmean(m.seconds for m in models)) / 3600, 2),
        "max_usd": budget.usd,
        "usd_share": None if budget.usd is None or not unfinished or settings.adaptive else budget.usd / unfinished,
        "notes": _notes(usd, budget.usd, attempts, 0 if settings.adaptive else unfinished, missing),
    }


def _row(evaluation: Evaluation, id: str, missing: str) -> Json:
    kept = evaluation.kept.get(id)
    left = evaluation.attempts_left(id)
    state = "new" if kept is None else "begun" if not kept.finished else "more attempts" if left else "finished"
    return {"id": id, "state": state, "image": missing or "ready", "attempts_left": left}


def _seconds(evaluation: Evaluation, rows: Sequence[Json], per_attempt: float) -> float:
    """Wall seconds: images, attempts as many at a time as there are slots, gradings, as if one came after the other."""
    cpus = os.cpu_count() or 2
    images = sum(row["image"] != "ready" for row in rows)
    attempts = sum(row["attempts_left"] for row in rows)
    gradings = 0 if evaluation.grades == "none" else attempts
    places = min(width(evaluation.settings), attempts) or 1
    return float(IMAGE_SECONDS * images / cpus + per_attempt * attempts / places + GRADE_SECONDS * gradings / cpus)


def _notes(usd: float | None, cap: float | None, attempts: int, sharers: int, missing: Mapping[str, str]) -> list[str]:
    """`sharers`: instances that share the cap; 0 where it is spent wherever it gains most."""
    notes = []
    if usd is None:
        notes.append("the price is not known: give prices or usd_per_gpu_hour in an alias (troop.toml)")
    elif cap is not None and usd > cap:
        share = f"each of {counted(sharers, 'instance')} may use its share"
        how = share if sharers else "it is spent where it gains most"
        notes.append(
            f"--max-usd {cap:g} is less than expected: {how}, and "
            f"attempts beyond it are cut off or never begun (for {attempts} attempts give about {usd:.2f})"
        )
    if missing:
        notes.append(f"{counted(len(missing), 'image')} to be made first (pulled, else built)")
    return notes


def expected_attempt(model: str, evaluation: Evaluation, root: Path) -> Expected:
    """One attempt of the model: the mean of its earlier ones below `root`, of the same suite where there are any."""
    near = list(earlier_attempts(evaluation.out, model))
    found = near or list(earlier_attempts(root.resolve(), model))
    if not found:
        return _assumed(model, evaluation.config, evaluation.settings.budget.turns)
    known = [row["usd"] for row in found if row["usd"] is not None]
    return Expected(
        model=model,
        usd=fmean(known) if known else None,
        seconds=fmean(row["seconds"] for row in found),
        tokens=fmean(sum(row["usage"].values()) for row in found),
        source=f"the mean of {counted(len(found), 'attempt')} in {evaluation.out if near else root}",
    )


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


def _assumed(model: str, config: Config, most_turns: int) -> Expected:
    if model == REPAIR:
        return Expected(model, 0.0, REPAIR_SECONDS, 0.0, f"assumed: {REPAIR_SECONDS:g} s an attempt")
    turns = min(TURNS, most_turns)
    prices = prices_of(resolve_model(model, config))
    usage = Usage(input=turns * INPUT_PER_TURN, output=turns * OUTPUT_PER_TURN)
    gpu = turns * OUTPUT_PER_TURN / OUTPUT_PER_SECOND
    usd, _ = price(prices, usage, gpu)
    said = ASSUMED.replace(str(TURNS), str(turns), 1)
    if prices.gpu_hour is not None:
        said += f", {OUTPUT_PER_SECOND:g} tokens/s"
    return Expected(model, usd, turns * SECONDS_PER_TURN, float(usage.total), said)


def forecast_view(expected: Json) -> list[RenderableType]:
    """The forecast for a person."""
    shown = table("instance…", "state", "image…", ">attempts left")
    for row in expected["instances"][:ROWS]:
        image = "ready" if row["image"] == "ready" else "to be made"
        shown.add_row(row["id"], row["state"], image, str(row["attempts_left"]))
    more = len(expected["instances"]) - ROWS
    lines = [Text(f"… and {counted(more, 'more instance')} (--json has all)", "dim")] if more > 0 else []
    for model in expected["models"]:
        usd = "price unknown" if model["usd"] is None else f"${model['usd']:.4f}"
        spent = f"{usd}, {tokens_short(int(model['tokens']))} tokens, {elapsed_short(model['seconds'])} an attempt"
        lines.append(Text(f"{model['model']}: {spent} ({model['source']})"))
    usd = "cost unknown" if expected["usd"] is None else f"about ${expected['usd']:.2f}"
    share = f", ${expected['usd_share']:.4f} for each instance" if expected["usd_share"] is not None else ""
    cap = f"; --max-usd {expected['max_usd']:g}{share}" if expected["max_usd"] is not None else ""
    most = "at most, as attempts are made only while they are worth it: " if expected["adaptive"] else ""
    left = f"{counted(expected['attempts_left'], 'attempt')} left of {counted(len(expected['instances']), 'instance')}"
    lines.append(Text(f"{most}{left}: {usd}, about {expected['hours']:.2f} hours{cap}", "bold"))
    lines += [Text(note, "yellow") for note in expected["notes"]]
    return [shown, *lines, Text("nothing was started (--dry-run)", "dim")]
