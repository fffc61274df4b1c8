"""What an evaluation came to: its report.json and its prediction files, folded from the outcomes of its instances.

Measures are over the instances that were solved and whose samples all have a verdict (`measured`); what is left out of
them is counted and named. A measure for which samples are missing is None, never a number. Intervals are 95 %, by
bootstrap over instances.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean

from harness.records import Json, Usage
from harness.scaling.curves import Draws
from harness.scaling.metrics import Sampled, pass_at_k, recovery
from harness.suites.evaluate import Grades, Outcome, Solved

SUITE_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `gpu_hours`: USD per GPU-hour, by model that has it. `adaptive`: `attempts` are the most."""

    suite: str
    models: tuple[str, ...]
    attempts: int
    grades: Grades
    gpu_hours: Mapping[str, float] = field(default_factory=dict)
    budget: Json = field(default_factory=dict)
    adaptive: bool = False


def suite_report(outcomes: Sequence[Outcome], asked: Asked, **counts: int) -> Json:
    """The report of `_report`. `flaky`: instances with a verdict that was not always the same; intervals begin where
    they would with all of those against their patches, and end where they would with all for them."""
    report = _report(outcomes, asked, **counts)
    report["flaky"] = [o.id for o in outcomes if any(v.flaky for v in o.verdicts.values())]
    for luck, worst in ((False, min), (True, max)) if report["flaky"] else ():
        told = [{c: replace(v, resolved=luck) if v.flaky else v for c, v in o.verdicts.items()} for o in outcomes]
        other = _report([replace(o, verdicts=v) for o, v in zip(outcomes, told, strict=True)], asked, **counts)
        parts = [(report["selected_share"], other["selected_share"], "low", "high")]
        parts += [(a, b, "low", "high") for a, b in zip(report["coverage"], other["coverage"], strict=True)]
        for own, others, *ends in [*parts, (report["mean_at_1_interval"], other["mean_at_1_interval"], 0, 1)]:
            if own and own[ends[luck]] is not None:
                own[ends[luck]] = worst(own[ends[luck]], others[ends[luck]])
    return report


def _report(outcomes: Sequence[Outcome], asked: Asked, *, instances: int | None = None, unfinished: int = 0) -> Json:
    """report.json of an evaluation: the measures over all, what it cost, and per task the solver's report and verdicts.

    `instances`: how many were chosen (None: those of the outcomes); `unfinished`: those with something left to do, as
    the evaluation was stopped. `seconds`: wall time in which anything was worked on; `attempt_seconds` and
    `model_seconds` are sums over what overlaps. `leak_tries`: attempts that tried to get at what they may not have, and
    by which way. `adaptive`: why sampling left instances before their last attempt, and how many first samples all of
    them have."""
    solved = [o.solved for o in outcomes if o.solved is not None]
    worked = [w for o in outcomes if (w := o.solved or o.unsolved) is not None]
    sampled = {o.id: s for o in outcomes if (s := o.sampled) is not None}
    alike = _begun_alike(outcomes) if asked.adaptive else sampled
    known = {o.id: float(o.resolved) for o in outcomes if o.resolved is not None}
    resolved = int(sum(known.values())) if known else None
    share = _estimated(Draws(list(known)), known)
    whys = Counter(why for s in worked if (why := (s.report.get("sampling") or {}).get("stopped")))
    stops = {"stopped": dict(whys), "common_samples": max((s.n for s in alike.values()), default=0)}
    rows = [row for s in worked for row in s.report["attempts"]]
    leaks = [[flag for flag in row["flags"] if flag.startswith("leak:")] for row in rows]
    return {
        "schema": SUITE_SCHEMA,
        "suite": asked.suite,
        "models": list(asked.models),
        "attempts": asked.attempts,
        "adaptive": stops if asked.adaptive else None,
        "graded": asked.grades,
        "instances": len(outcomes) if instances is None else instances,
        "unfinished": unfinished,
        "solved": len(solved),
        "measured": len(sampled),
        "failed": [{"id": o.id, "reason": o.failure} for o in outcomes if o.failure],
        **_measures(sampled, asked.attempts, alike),
        "selected": resolved,
        "selected_share": dict(zip(("value", "low", "high"), share, strict=True)) if known else None,
        "budget": asked.budget,
        **_costs([s.report["cost"] for s in worked], len(rows), resolved),
        "seconds": round(_covered([span for s in worked for span in s.spans]), 3),
        "attempt_seconds": round(sum(row["seconds"] or 0.0 for row in rows), 3),
        "model_seconds": round(sum(s.report["cost"]["seconds"] for s in worked), 3),
        "infrastructure": {
            "retries": sum(s.report["infrastructure"]["retries"] for s in worked),
            "attempts": sum(row["status"] == "infrastructure" for row in rows),
            "instances": sum(bool(o.failure) for o in outcomes),
        },
        "statuses": dict(Counter(row["status"] for row in rows)),
        "leak_tries": {
            "attempts": sum(map(bool, leaks)),
            "by_kind": dict(Counter(flag for each in leaks for flag in each)),
        },
        "candidates": sum(len(s.candidates) for s in solved),
        "gpu": _gpu(worked, asked.gpu_hours),
        "tasks": [_task_row(o) for o in outcomes],
    }


def _begun_alike(outcomes: Sequence[Outcome]) -> dict[str, Sampled]:
    """Of each measured instance the first samples, as many as all of them have. Where sampling stops by what it sees,
    the share of right ones among all samples of an instance is no estimate of its success rate; among the first ones it
    is."""
    depth = min((s.n for o in outcomes if (s := o.sampled) is not None and s.n), default=0)
    return {o.id: s for o in outcomes if (s := o.first(depth)) is not None}


def _measures(sampled: Mapping[str, Sampled], attempts: int, alike: Mapping[str, Sampled]) -> Json:
    """`alike`: the samples that mean@1 and pass@k are computed from. pass@k is undefined where some instances
    (`missing`: how many) have fewer than k samples."""
    draws, coverage = Draws(list(sampled)), []
    single, *interval = _estimated(draws, {id: s.correct / s.n if s.n else 0.0 for id, s in alike.items()})
    for k in range(1, attempts + 1):
        values = {id: pass_at_k(s.n, s.correct, k) for id, s in alike.items() if s.n >= k}
        missing = sum(s.n < k for s in sampled.values())
        value, low, high = _estimated(draws, {} if missing else values)
        coverage.append({"k": k, "pass_at_k": value, "low": low, "high": high, "missing": missing})
    oracle = [float(s.correct > 0) for s in sampled.values()]
    selected = [float(s.selected) for s in sampled.values()]
    return {
        "mean_at_1": single,
        "mean_at_1_interval": interval if sampled else None,
        "coverage": coverage,
        "oracle": int(sum(oracle)) if sampled else None,
        "recovery": None if single is None else recovery(single, fmean(selected), fmean(oracle)),
    }


def _estimated(draws: Draws, values: Mapping[str, float]) -> tuple[float | None, float | None, float | None]:
    """The mean and its interval: none of a single instance, which says nothing about others."""
    if not values:
        return None, None, None
    found = draws.estimate(values)
    return (found.value, found.low, found.high) if len(values) > 1 else (found.value, None, None)


def _costs(costs: Sequence[Json], attempts: int, resolved: int | None) -> Json:
    """USD are None where a price is unknown; `usd_exact` False: a lower bound."""
    usd = None if any(c["usd"] is None for c in costs) else sum(c["usd"] for c in costs)
    usage = {part: sum(c["usage"][part] for c in costs) for part in asdict(Usage())}
    read = usage["input"] + usage["cache_read"] + usage["cache_write"]

    def per(number: int | None) -> float | None:
        return None if usd is None or not number else usd / number

    return {
        "usd": usd,
        "usd_exact": all(c["exact"] for c in costs),
        "usd_per_attempt": per(attempts),
        "usd_per_instance": per(len(costs)),
        "usd_per_solved": per(resolved),
        "calls": sum(c["calls"] for c in costs),
        "usage": usage,
        "tokens": sum(usage.values()),
        "cached_share": usage["cache_read"] / read if read else None,
    }


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that any of the spans covers."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _gpu(solved: Sequence[Solved], gpu_hours: Mapping[str, float]) -> Json | None:
    """For models on a local GPU: how long it was busy with our calls, and what it gave in that time."""
    seconds = usd = output = tokens = 0.0
    lines = [(model, line) for s in solved for model, line in s.report["cost"]["by_model"].items()]
    for line, price in ((line, gpu_hours[model]) for model, line in lines if gpu_hours.get(model)):
        usd += line["usd"] or 0.0
        seconds += (line["usd"] or 0.0) * 3600 / price
        output += line["usage"]["output"] + line["usage"]["reasoning"]
        tokens += sum(line["usage"].values())
    if not seconds:
        return None
    return {
        "seconds": round(seconds, 3),
        "usd": usd,
        "output_tokens_per_second": output / seconds,
        "tokens_per_second": tokens / seconds,
    }


def _task_row(outcome: Outcome) -> Json:
    sampled, solved = outcome.sampled, outcome.solved
    kept = solved or outcome.unsolved
    return {
        "id": outcome.id,
        "samples": len(solved.samples) if solved else 0,
        "correct": sampled.correct if sampled else None,
        "selected": solved.selected if solved else None,
        "resolved": outcome.resolved,
        "verdicts": {c: {"resolved": v.resolved, "reason": v.reason} for c, v in outcome.verdicts.items()},
        "failure": outcome.failure,
        # Its own word on the grading is of one candidate, and older than the verdicts.
        "report": {k: v for k, v in kept.report.items() if k != "graded"} if kept else None,
    }


# ---- predictions as the official SWE-bench harness takes them, in one file for each way to choose

SELECTED = "predictions.jsonl"


def rank_file(rank: int) -> str:
    """The name of the file with the attempts of a rank, counted from 1."""
    return f"predictions-{rank:02d}.jsonl"


def prediction_files(outcomes: Sequence[Outcome], models: Sequence[str], attempts: int) -> dict[str, str]:
    """Text by file name: JSON lines of the selected patches, and of the patches of each rank (the first attempt of each
    instance, the second, and so on), so that grading each file gives every sample its verdict. A patch that is not
    there is empty, which the official harness counts as unresolved.

    Left out are instances that came to no end, and of a rank's file attempts that the world ended: they are no samples.
    The model's name carries the rank, since the official harness keeps its results under that name."""
    name = "+".join(models) or "troop"
    lines: dict[str, list[str]] = {SELECTED: [], **{rank_file(rank): [] for rank in range(1, attempts + 1)}}
    for outcome in outcomes:
        solved = outcome.solved
        if solved is None:
            continue
        chosen = solved.candidates[solved.selected] if solved.selected is not None else ""
        lines[SELECTED].append(prediction_line(outcome.id, name, chosen))
        for index, patch in solved.patches.items():
            lines.setdefault(rank_file(index + 1), []).append(
                prediction_line(outcome.id, f"{name}@{index + 1:02d}", patch)
            )
    return {file: "".join(each) for file, each in lines.items()}


def prediction_line(id: str, model: str, patch: str) -> str:
    """A prediction as the official harness takes it."""
    # A patch's undecodable bytes are surrogates here, which JSON carries as escapes.
    return json.dumps({"instance_id": id, "model_name_or_path": model, "model_patch": patch}) + "\n"
