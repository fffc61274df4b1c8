"""Predictions: the patches that somebody wants graded, in the official formats, and the sets that they fall into.

A file holds JSON lines, a JSON list, or a JSON object by instance id; each prediction has `instance_id`,
`model_name_or_path` and `model_patch` (null: no patch). Several predictions of one model for one instance are its
ranks: 1, 2, … in the order of the file, or as a field `rank` says. A set is what the official harness would call one
run: one file, one model, one rank, so one prediction for an instance.
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.entries import entries, read_text, text_of
from tasks.errors import InputError
from tasks.swebench import Row

BASELINES = ("gold", "empty", "noop")
"""Instead of a file: the right patches; none, which is never run; patches that change nothing a test could see."""

_WHOLE = "hold predictions: JSON lines, a list of objects, or an object of them by id"
_EACH = "a prediction must be an object with instance_id, model_name_or_path and model_patch"

_NOOP = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+nothing\n"
_NOOP = _NOOP.format("troop-noop.txt")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One patch for one instance. `patch` "" where there is none. `source`: the file or baseline that it is from."""

    instance_id: str
    model: str
    patch: str
    rank: int = 1
    source: str = ""


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """At most one prediction for an instance. `name`: fit for a file name, unlike any other set's of the same call."""

    name: str
    model: str
    rank: int
    source: str
    predictions: Mapping[str, Prediction]


def baseline(name: str, rows: Sequence[Row]) -> list[Prediction]:
    """The predictions that one of BASELINES stands for."""
    own = {"empty": "", "noop": _NOOP}
    return [Prediction(row.instance_id, name, own.get(name, row.patch), source=name) for row in rows]


def read_predictions(path: Path, known: Collection[str]) -> list[Prediction]:
    """The predictions of a file. `known`: the ids of the data set. Raises InputError, naming file, place and field."""
    text = read_text(path, "the predictions in")
    seen: Counter[tuple[str, str]] = Counter()
    taken: dict[tuple[str, str, int], str] = {}
    found = []
    for place, fields in entries(path, text, whole=_WHOLE, each=_EACH):
        name = _instance(place, fields, known)
        model = text_of(place, fields, "model_name_or_path", needed=False) or path.stem
        if "model_patch" not in fields:
            raise InputError(f"{place}: the field model_patch is missing (null stands for no patch)")
        patch = text_of(place, fields, "model_patch", needed=False)
        seen[name, model] += 1
        rank = _rank(place, fields, seen[name, model])
        if before := taken.get((name, model, rank)):
            raise InputError(f"{place}: {name} has a prediction of {model} with rank {rank} already, in {before}")
        taken[name, model, rank] = place
        found.append(Prediction(name, model, patch, rank, str(path)))
    if not found:
        raise InputError(f"{path} holds no predictions")
    return found


def sets_of(predictions: Sequence[Prediction]) -> list[PredictionSet]:
    """The predictions by file, model and rank, in the order in which they first come."""
    groups: dict[tuple[str, str, int], dict[str, Prediction]] = {}
    for prediction in predictions:
        group = groups.setdefault((prediction.source, prediction.model, prediction.rank), {})
        group[prediction.instance_id] = prediction
    sources = Counter((model, rank) for _, model, rank in groups)
    taken: set[str] = set()
    sets = []
    for (source, model, rank), group in groups.items():
        name = _file_name(model)
        if sources[model, rank] > 1:
            name += f".{_file_name(Path(source).stem)}"
        if rank > 1:
            name += f".rank-{rank}"
        name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(groups) + 2))) if n not in taken)
        taken.add(name)
        sets.append(PredictionSet(name, model, rank, source, group))
    return sets


def _file_name(model: str) -> str:
    """The folder of a model's files: its name as the official harness writes it, and safe besides."""
    return re.sub(r"[^\w.+@=,-]", "_", model.replace("/", "__"))[:120].lstrip(".") or "unnamed"


# ---- reading


def _instance(place: str, fields: Mapping[str, Any], known: Collection[str]) -> str:
    name = text_of(place, fields, "instance_id")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise InputError(f"{place}: the field instance_id is {name!r}, which the data set does not have{hint}")
    return name


def _rank(place: str, fields: Mapping[str, Any], nth: int) -> int:
    rank = fields.get("rank", nth)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise InputError(f"{place}: the field rank must be a whole number from 1, not {rank!r}")
    return rank
