"""The split of the pool's instances into a development and a test part; made before any feature was written.

Rule: within each repository the instances are sorted by the SHA-256 of their id and dealt out in turn, development
first. Nothing but the ids goes into it. Features are designed and failures looked into on the development part only;
the test part is evaluated frozen. `runs_here` names the repositories whose instances can be run where the pool was
measured; the others have published outcomes only.

    python tests/bench/selection_split.py POOL > tests/bench/selection_split.json
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

RUNS_HERE = (
    "mwaskom/seaborn",
    "pallets/flask",
    "pylint-dev/pylint",
    "pytest-dev/pytest",
    "sphinx-doc/sphinx",
    "sympy/sympy",
)
RULE = "within each repository sorted by sha256 of the instance id, dealt out in turn, development first"


def split(instances: Iterable[str]) -> dict[str, list[str]]:
    """{"development": ids, "test": ids}, each sorted."""
    by_repository: dict[str, list[str]] = {}
    for instance in sorted(set(instances)):
        by_repository.setdefault(instance.rpartition("-")[0], []).append(instance)
    parts: dict[str, list[str]] = {"development": [], "test": []}
    for ids in by_repository.values():
        dealt = sorted(ids, key=lambda i: hashlib.sha256(i.encode()).hexdigest())
        parts["development"] += dealt[0::2]
        parts["test"] += dealt[1::2]
    return {name: sorted(ids) for name, ids in parts.items()}


def main(pool: Path) -> None:
    with gzip.open(pool, "rt", encoding="utf-8") as lines:
        ids = {json.loads(line)["instance_id"] for line in lines}
    print(json.dumps({"rule": RULE, "runs_here": RUNS_HERE, **split(ids)}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
