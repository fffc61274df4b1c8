"""An evaluation in words, from its report.json; `eval_view`: on a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.records import Json
from harness.views.words import clean, counted, elapsed_short, end_words, tokens_short

NAMED = 10
"""Failed instances that are named on the page; report.json has all."""


def eval_view(report: Json) -> list[RenderableType]:
    """What `troop eval` and `troop report` print, in order; 80 columns are enough."""
    results = Table.grid(padding=(0, 2, 0, 0))
    for name, value in (*measures(report), *expenses(report)):
        results.add_row(Text(name, "dim"), Text(clean(value), overflow="fold"))
    view: list[RenderableType] = [Text(clean(title(report)), "bold"), results]
    return view + [Text(clean(note), "yellow") for note in notes(report)]


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
        ("pass@k", _coverage([row for row in report["coverage"] if row["pass_at_k"] is not None])),
        (f"oracle@{report['attempts']}", right),
        ("recovery", "undefined" if report["recovery"] is None else f"{report['recovery']:.2f}"),
        ("distinct candidates", f"{report['candidates']}{each}"),
        ("attempts ended", ", ".join(f"{n} {end_words(status)}" for status, n in _most(report["statuses"])) or "none"),
    ]


def expenses(report: Json) -> list[tuple[str, str]]:
    """What it cost: money, tokens, time, what the world broke, what was tried that may not be."""
    usage, world, leaks = report["usage"], report["infrastructure"], report["leak_tries"]
    least = "" if report["usd_exact"] else "≥"
    rows = {"cost": "unknown (give the model prices in an alias)"}
    if report["usd"] is not None:
        of = ("usd", "usd_per_attempt", "usd_per_instance", "usd_per_solved")
        usd = ("-" if (value := report[each]) is None else f"{least}${value:.4f}" for each in of)
        whole, attempt, instance, solved = usd
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
    if flaky := report.get("flaky"):
        said.append(f"verdicts that differ between repetitions, for which intervals are wider: {', '.join(flaky)}")
    said += [f"{failed['id']}: {failed['reason'].splitlines()[0]}" for failed in report["failed"][:NAMED]]
    more = len(report["failed"]) - NAMED
    return said + ([f"and {counted(more, 'more failed instance')}"] if more > 0 else [])


def _coverage(rows: Sequence[Json]) -> str:
    """pass@k at powers of two and at the largest k, there with its interval."""
    shown = [f"{row['k']}: {row['pass_at_k']:.3f}" for row in rows[:-1] if row["k"] & (row["k"] - 1) == 0]
    last = [f"{r['k']}: {_value(r['pass_at_k'], (r['low'], r['high']))}" for r in rows[-1:]]
    return ", ".join([*shown, *last]) or "undefined"


def _value(value: float | None, interval: Sequence[float | None] | None) -> str:
    low, high = interval or (None, None)
    known = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return "undefined" if value is None else f"{value:.3f}{known}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _most(counts: Json) -> list[tuple[str, Any]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
