"""The page of an evaluation, from its report.json: for the terminal (`eval_view`) and as Markdown (`markdown`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.records import Json
from harness.views.picture import table
from harness.views.words import clean, counted, elapsed_short, tokens_short

SHOWN_K = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 250, 256)
"""Where there are more than `ALL_UP_TO` samples, the k that get a row on the terminal; the Markdown has all."""
ALL_UP_TO = 12
NAMED = 10
"""Failed instances that are named on the page; report.json has all."""


def eval_view(report: Json) -> list[RenderableType]:
    """What `troop eval` and `troop report` print, in order; 80 columns are enough."""
    results = Table.grid(padding=(0, 2, 0, 0))
    for name, value in (*measures(report), *expenses(report)):
        results.add_row(Text(name, "dim"), Text(clean(value), overflow="fold"))
    view: list[RenderableType] = [Text(clean(title(report)), "bold"), results]
    if rows := _coverage_rows(report, few=True):
        coverage = table(">k", ">pass@k", "95 % interval")
        for row in rows:
            coverage.add_row(*row)
        view += [Text(), coverage]
    return view + [Text(clean(note), "yellow") for note in notes(report)]


def markdown(report: Json) -> str:
    """An evaluation's report as a page of Markdown: measures, costs, coverage, notes, and a line for every instance."""
    lines = [f"# {title(report)}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in (*measures(report), *expenses(report))]
    if rows := _coverage_rows(report, few=False):
        lines += ["", "| k | pass@k | 95 % interval |", "| ---: | ---: | --- |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {_cell(note)}" for note in notes(report))] if notes(report) else []
    lines += ["", "| instance | selected | right attempts | candidates | cost |", "| --- | --- | ---: | ---: | ---: |"]
    return "\n".join([*lines, *(_instance_row(task) for task in report["tasks"])]) + "\n"


def title(report: Json) -> str:
    """What was evaluated, in a line."""
    models = " + ".join(report["models"]) or "?"
    most = "at most " if report.get("adaptive") else ""
    return (
        f"{report['suite']}: {models}, {most}{counted(report['attempts'], 'attempt')} of each of "
        f"{counted(report['instances'], 'instance')}"
    )


def measures(report: Json) -> list[tuple[str, str]]:
    """How well it went: name and value, in words where a value is undefined."""
    instances, selected, oracle = report["instances"], report["selected"], report["oracle"]
    chosen, right = "undefined (nothing graded)", "undefined"
    if selected is not None:
        low, high = report["selected_share"]["low"], report["selected_share"]["high"]
        between = "" if low is None else f" [{_percent(low)}, {_percent(high)}]"
        chosen = f"{selected} of {instances} resolved ({_percent(selected / instances)}){between}"
    if oracle is not None:
        right = f"{oracle} of {report['measured']} with a right attempt"
    each = f" ({report['candidates'] / report['solved']:.1f} an instance)" if report["solved"] else ""
    return [
        (f"selected@{report['attempts']}", chosen),
        ("mean@1", _value(report["mean_at_1"], report["mean_at_1_interval"])),
        (f"oracle@{report['attempts']}", right),
        ("recovery", "undefined" if report["recovery"] is None else f"{report['recovery']:.2f}"),
        ("distinct candidates", f"{report['candidates']}{each}"),
        ("attempts ended", ", ".join(f"{n} {status}" for status, n in _most(report["statuses"])) or "none"),
    ]


def expenses(report: Json) -> list[tuple[str, str]]:
    """What it cost: money, tokens, time, what the world broke, what was tried that may not be."""
    usage, world, leaks = report["usage"], report["infrastructure"], report["leak_tries"]
    least = "" if report["usd_exact"] else "≥"
    rows = {"cost": "unknown (give the model prices in an alias)"}
    if report["usd"] is not None:
        of = ("usd", "usd_per_attempt", "usd_per_instance", "usd_per_solved")
        whole, attempt, instance, solved = (_usd(report[each], least) for each in of)
        rows["cost"] = f"{whole}; {attempt} an attempt, {instance} an instance, {solved} a solved one"
    cached = "no share known" if report["cached_share"] is None else _percent(report["cached_share"])
    rows["tokens"] = (
        f"{tokens_short(report['tokens'])} in {counted(report['calls'], 'call')}: "
        f"{tokens_short(usage['input'] + usage['cache_read'] + usage['cache_write'])} in ({cached} cached), "
        f"{tokens_short(usage['output'] + usage['reasoning'])} out"
    )
    rows["time"] = (
        f"{elapsed_short(report['seconds'])} in all; attempts {elapsed_short(report['attempt_seconds'])} added up, "
        f"model calls {elapsed_short(report['model_seconds'])}"
    )
    rows["infrastructure"] = (
        f"{counted(world['retries'], 'retry')}, {counted(world['attempts'], 'attempt')} lost, "
        f"{counted(world['instances'], 'instance')} failed"
    )
    kinds = ", ".join(f"{kind} {n}" for kind, n in _most(leaks["by_kind"]))
    rows["leak tries"] = counted(leaks["attempts"], "attempt") + (f" ({kinds})" if kinds else "")
    if gpu := report["gpu"]:
        rows["local GPU"] = (
            f"{gpu['seconds']:.0f} GPU-seconds, ${gpu['usd']:.4f}; {gpu['output_tokens_per_second']:.0f} output "
            f"tokens/s, {gpu['tokens_per_second']:.0f} tokens/s in all"
        )
    return list(rows.items())


def notes(report: Json) -> list[str]:
    """What a reader must know about the figures."""
    said = []
    left_out = report["instances"] - report["measured"]
    if left_out and report["graded"] == "all":
        said.append(
            f"mean@1, pass@k, oracle and recovery are over the {report['measured']} instances all of whose samples were"
            f" graded; {left_out} are left out"
        )
    if report["graded"] != "all":
        said.append(f"graded was {'the selected patch only' if report['graded'] == 'selected' else 'nothing'}")
    if report["unfinished"]:
        said.append(f"{counted(report['unfinished'], 'instance')} unfinished: the same command goes on")
    short = [row for row in report["coverage"] if row["missing"]]
    if adaptive := report.get("adaptive"):
        stops = ", ".join(f"{n} {why}" for why, n in _most(adaptive["stopped"])) or "none"
        said.append(
            f"adaptive: sampling stopped early of {stops}; who has fewer samples is no matter of chance, so mean@1 and"
            f" pass@k are of the first {counted(adaptive['common_samples'], 'sample')} of each instance, and a larger k"
            " is undefined"
        )
    elif short:
        said.append(
            f"pass@k is undefined from k = {short[0]['k']} on: {counted(short[-1]['missing'], 'instance')} with fewer"
            " samples (--retry infrastructure, or a larger budget, makes up for them)"
        )
    said += [f"{failed['id']}: {failed['reason'].splitlines()[0]}" for failed in report["failed"][:NAMED]]
    more = len(report["failed"]) - NAMED
    return said + ([f"and {counted(more, 'more failed instance')}"] if more > 0 else [])


def _coverage_rows(report: Json, *, few: bool) -> list[tuple[str, str, str]]:
    rows = report["coverage"] if report["measured"] else []
    if report.get("adaptive"):
        rows = [row for row in rows if row["pass_at_k"] is not None]
    if few and len(rows) > ALL_UP_TO:
        rows = [row for row in rows if row["k"] in SHOWN_K or row is rows[-1]]
    told = []
    for row in rows:
        value, between = "undefined", f"{counted(row['missing'], 'instance')} short of samples"
        if row["pass_at_k"] is not None:
            value, between = f"{row['pass_at_k']:.3f}", "none of one instance"
        if row["low"] is not None:
            between = f"{row['low']:.3f} to {row['high']:.3f}"
        told.append((str(row["k"]), value, between))
    return told


def _instance_row(task: Json) -> str:
    word = {True: "resolved", False: "not resolved", None: "not graded"}[task["resolved"]]
    if task["failure"] and task["resolved"] is None:
        word = "failed"
    elif task["selected"] is None and task["report"] is not None:
        word = "none"
    right = "?" if task["correct"] is None else f"{task['correct']} of {task['samples']}"
    report = task["report"]
    cost = "-" if report is None or not report["cost"]["calls"] else _usd(report["cost"]["usd"], "")
    return f"| {task['id']} | {word} | {right} | {len(report['candidates']) if report else 0} | {cost} |"


def _value(value: float | None, interval: Sequence[float | None] | None) -> str:
    low, high = interval or (None, None)
    known = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return "undefined" if value is None else f"{value:.3f}{known}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _usd(value: float | None, least: str) -> str:
    return "-" if value is None else f"{least}${value:.4f}"


def _most(counts: Json) -> list[tuple[str, Any]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _cell(text: str) -> str:
    """One line that a Markdown table can hold."""
    return " ".join(text.split()).replace("|", "\\|")
