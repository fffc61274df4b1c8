"""Predictions as the official SWE-bench harness takes them: one JSON line an instance, in one file for each way to
choose.

`predictions.jsonl` has the selected patches; `predictions-01.jsonl` and on the patches of the first attempt of each
instance, of the second, and so on, so that grading each of them gives every sample its verdict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.suites.evaluate import Outcome

SELECTED = "predictions.jsonl"


def rank_file(rank: int) -> str:
    """The name of the file with the attempts of a rank, counted from 1."""
    return f"predictions-{rank:02d}.jsonl"


def prediction_files(outcomes: Sequence[Outcome], models: Sequence[str], attempts: int) -> dict[str, str]:
    """Text by file name. A patch that is not there is empty, which the official harness counts as unresolved.

    Left out are instances that came to no end, and of a rank's file attempts that the world ended: they are no samples.
    The model's name carries the rank, since the official harness keeps its results under that name.
    """
    name = "+".join(models) or "troop"
    lines: dict[str, list[str]] = {SELECTED: [], **{rank_file(rank): [] for rank in range(1, attempts + 1)}}
    for outcome in outcomes:
        solved = outcome.solved
        if solved is None:
            continue
        chosen = solved.candidates[solved.selected] if solved.selected is not None else ""
        lines[SELECTED].append(_line(outcome.id, name, chosen))
        for index, patch in solved.patches.items():
            lines.setdefault(rank_file(index + 1), []).append(_line(outcome.id, f"{name}@{index + 1:02d}", patch))
    return {file: "".join(each) for file, each in lines.items()}


def _line(id: str, model: str, patch: str) -> str:
    # A patch's undecodable bytes are surrogates here, which JSON carries as escapes.
    return json.dumps({"instance_id": id, "model_name_or_path": model, "model_patch": patch}) + "\n"
