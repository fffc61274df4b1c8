"""Graded samples from elsewhere: JSON lines of outcomes, SWE-bench predictions with the official report, and eval
directories.

Rows (JSON lines, a list, or an object by instance id; also .gz), one for each sample, in the order in which they were
drawn:

    {"instance_id": "…", "model": "…", "resolved": true, "usd": 0.12, "score": 0.9, "candidate": "…"}

Needed are `instance_id` and `resolved` (true, false, or null: not known, the row is left out and counted). `model` may
also be called `source` or `model_name_or_path`; an ending "run-N" makes it the Nth repeat of one model. `usd` (or
`cost_usd`): what the sample cost, null or absent where unknown. `score`: the order of a selection, higher first; null:
not to be selected; if no row of a model has one, it has no selection. `candidate` names the patch; without it
`model_patch` is compared.

Predictions (.jsonl or .json of instance_id, model_name_or_path, model_patch) go with a report of the official harness
(JSON with `resolved_ids`); each such pair is one sample of every instance in it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.patches.patch import Patch
from harness.records import Json
from harness.scaling.samples import Model, Sample
from tasks.entries import entries, read_text
from tasks.errors import Explained, InputError

NAMES = ("model", "source", "model_name_or_path")
_WHOLE = "hold rows: JSON lines, a list of objects, or an object of them by id"
_EACH = "a row must be an object with instance_id and its outcome"
_REPEAT = re.compile(r"[-_/ ]*run[-_ ]?\d+$")


@dataclass(frozen=True, slots=True)
class Imported:
    """`models`, each with its samples; `ungraded`: how many rows had no outcome."""

    models: tuple[Model, ...]
    ungraded: int


_Imported = tuple[str, str, Sample, bool]
"""The model, the task, its sample, and whether that has a place in an order."""


def imported(files: Sequence[Path], labels: Sequence[Path], *, label: str = "resolved") -> Imported:
    """Read rows, or predictions where `labels` has the official report of each file, in the same order.

    `label`: the field of a row that says whether it is right. Raises InputError where a file is not what it must be."""
    if labels and len(labels) != len(files):
        raise InputError(
            f"{len(files)} files of predictions and {len(labels)} of labels: each needs one of the other, in order"
        )
    rows: list[_Imported | None] = []
    for index, path in enumerate(files):
        resolved = _resolved_ids(labels[index]) if labels else None
        found = list(entries(path, read_text(path, "results in"), whole=_WHOLE, each=_EACH))
        if not found:
            raise InputError(f"{path} has no rows")
        rows += [_row(fields, resolved, label, where) for where, fields in found]
    return Imported(_models(filter(None, rows)), rows.count(None))


def _models(rows: Iterable[_Imported]) -> tuple[Model, ...]:
    samples: dict[str, dict[str, list[Sample]]] = {}
    ranked: set[str] = set()
    for model, task, sample, scored in rows:
        samples.setdefault(model, {}).setdefault(task, []).append(sample)
        ranked |= {model} if scored else set()
    return tuple(
        Model(name, {task: tuple(drawn) for task, drawn in sorted(tasks.items())}, name in ranked)
        for name, tasks in samples.items()
    )


def _row(row: Mapping[str, Any], resolved: set[str] | None, label: str, where: str) -> _Imported | None:
    task = row.get("instance_id")
    if not isinstance(task, str) or not task:
        raise InputError(f"{where}: the field instance_id is missing")
    if resolved is None and label not in row:
        raise InputError(
            f"{where}: the field {label} is missing; name another with --label-field, or give the official report with"
            " --labels"
        )
    right = task in resolved if resolved is not None else row[label]
    if isinstance(right, str):
        right = {"resolved": True, "unresolved": False, "apply-failed": False}.get(right, right)
    if right is None:
        return None
    if not isinstance(right, bool):
        raise InputError(f"{where}: the field {label} is {right!r}; it must be true, false or null")
    name = next((str(row[field]) for field in NAMES if row.get(field)), "model")
    candidate, patch = row.get("candidate"), row.get("model_patch")
    if candidate is None:
        candidate = Patch(patch).fingerprint if isinstance(patch, str) else ""
    sample = Sample(right, _number(row, ("usd", "cost_usd"), where), str(candidate), _number(row, ("score",), where))
    return _REPEAT.sub("", name) or name, task, sample, row.get("score") is not None


def _number(row: Mapping[str, Any], fields: Sequence[str], where: str) -> float | None:
    for field in fields:
        value = row.get(field)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{where}: the field {field} is {value!r}; it must be a number or null")
            return float(value)
    return None


def _resolved_ids(path: Path) -> set[str]:
    with Explained(f"{path} is not JSON", ValueError, RecursionError):
        data = json.loads(read_text(path, "the report"))
    ids = data.get("resolved_ids", data.get("resolved")) if isinstance(data, dict) else None
    if not isinstance(ids, list):
        raise InputError(f"{path} is not a report of the official harness: it has no list resolved_ids")
    return {str(each) for each in ids}


def is_evaluation(report: Any) -> bool:
    """Whether a report.json is that of an evaluation."""
    return isinstance(report, dict) and isinstance(report.get("tasks"), list)


def of_evaluation(report: Json) -> Imported:
    """The samples of an evaluation's report.json, by model: graded attempts, their cost and the place of their
    candidate.

    Attempts that the world ended are no samples. Those of a task of which a candidate was not graded are left out and
    counted. Of an adaptive evaluation, as many first samples of each task as all have: who has more of them is no
    matter of chance."""
    common = (report.get("adaptive") or {}).get("common_samples")
    rows: list[_Imported] = []
    ungraded = 0
    for task in report["tasks"]:
        solved = task.get("report")
        if not solved:
            continue
        attempts = [a for a in solved["attempts"] if a["status"] not in ("infrastructure", "running")][:common]
        if any(candidate["id"] not in task["verdicts"] for candidate in solved["candidates"]):
            ungraded += len(attempts)
            continue
        order = [each["candidate"] for each in solved.get("ranking", []) if each["acceptable"]]
        right = {name for name, verdict in task["verdicts"].items() if verdict["resolved"]}
        for attempt in attempts:
            name = attempt["candidate"] or ""
            score = -float(order.index(name)) if name in order else None
            sample = Sample(name in right, attempt["usd"], name, score)
            rows.append((str(attempt["model"] or "model"), task["id"], sample, "ranking" in solved))
    return Imported(_models(rows), ungraded)
