"""A model that submits recorded patches: for evaluations of many rows of SWE-bench whose cost is Troop's, not a model's.

    python -m tests.bench.recorded_server POOL ROWS --port 8200 &
    troop eval swe-bench-lite --dataset ROWS --mirrors DIR --model http://127.0.0.1:8200/v1#scripted -n 2 --disk 30 …

POOL: patches as in docs/selection.md (`instance_id`, `model_patch`), ROWS: rows of SWE-bench. A row is known by its issue;
which of its patches an attempt submits, by the attempt's seed. `--ids` prints the rows that have patches, joined by commas.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.model_server import Answer, ModelServer, Request

KNOWN = 200
"""Characters of an issue that tell it from all others."""


def read(pool: Path, rows: Path) -> dict[str, tuple[str, list[str]]]:
    """By instance, how its issue begins (as JSON has it) and its distinct patches."""
    patches: dict[str, dict[str, None]] = defaultdict(dict)
    with gzip.open(pool, "rt", encoding="utf-8") as lines:
        for sample in map(json.loads, lines):
            if sample["model_patch"]:
                patches[sample["instance_id"]].setdefault(sample["model_patch"])
    issues = {
        row["instance_id"]: row["problem_statement"].strip() for row in map(json.loads, rows.open(encoding="utf-8"))
    }
    return {id: (json.dumps(issues[id][:KNOWN])[1:-1], list(found)) for id, found in patches.items() if id in issues}


def answer(known: dict[str, tuple[str, list[str]]], request: Request) -> Answer:
    """A plan, the patch, its submission."""
    if request.turn == 0:
        return Answer("Lay the patch.")
    if request.turn > 1:
        return Answer(tool_calls=[{"name": "submit", "arguments": {}}])
    body: dict[str, Any] = request.body
    told = json.dumps(body)
    for begins, patches in known.values():
        if begins in told:
            patch = patches[int(body.get("seed") or 0) // 7919 % len(patches)]
            lay = "git apply --recount ../recorded.diff || patch -p1 --batch --forward < ../recorded.diff"
            command = f"cat > ../recorded.diff <<'END OF PATCH'\n{patch}\nEND OF PATCH\n{lay}; rm ../recorded.diff"
            return Answer(tool_calls=[{"name": "run", "arguments": {"command": command}}])
    return Answer(status=500, raw='{"error": {"message": "no row has this issue"}}')


async def serve(port: int, known: dict[str, tuple[str, list[str]]]) -> None:
    """Until it is killed."""
    async with ModelServer(partial(answer, known), keep=False).listening(port):
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--port", type=int, default=8200)
    parser.add_argument("--ids", action="store_true")
    options = parser.parse_args()
    known = read(options.pool, options.rows)
    if options.ids:
        print(",".join(sorted(known)))
        return
    asyncio.run(serve(options.port, known))


if __name__ == "__main__":
    main()
