"""How often the test files that are chosen as near to the candidates hold those that the accepted fix changed.

    python -m tests.bench.near_choice --pool POOL --dataset ROWS --mirrors DIR

Over the development part of the pool (selection_split.json). A row's `test_patch` is the yardstick, and goes nowhere
else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.code.import_graph import NO_IMPORTS, import_graph
from harness.evidence.near import texts_of_tests
from harness.evidence.regression import near_files, touched_by
from harness.patches.patch import Patch
from harness.repository.base_tree import open_tree
from tasks.swebench import load_rows
from tests.bench.graded import by_instance, read_graded
from tests.bench.selection import SPLIT, runs_here

AT = (3, 6, 16)


def shares(ranks: Mapping[str, Sequence[int | None]], first: int) -> str:
    """Of the instances: those of whose changed test files one is among the first, and those of which all are."""
    one = sum(any(rank is not None and rank < first for rank in of_it) for of_it in ranks.values())
    every = sum(all(rank is not None and rank < first for rank in of_it) for of_it in ranks.values())
    return f"first {first}: one {one / len(ranks):.2f}, all {every / len(ranks):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--mirrors", type=Path, required=True)
    known = parser.parse_args()
    samples = by_instance(read_graded(known.pool))
    ways: dict[str, dict[str, list[int | None]]] = {"names, places and mentions": {}, "and the import graph": {}}
    seconds: list[list[float]] = []
    with tempfile.TemporaryDirectory() as kept:
        for row in load_rows("swe-bench-lite", known.dataset):
            instance = row.instance_id
            if instance not in SPLIT["development"] or not runs_here(instance):
                continue
            with open_tree(known.mirrors / f"{row.repo.replace('/', '__')}.git", row.base_commit) as tree:
                paths, both = tree.files(), []
                for _ in ("made", "loaded"):
                    began = time.monotonic()
                    imports = import_graph(tree.base_commit, paths, tree.read_all, Path(kept))
                    both.append(time.monotonic() - began)
                seconds.append(both)
                texts = texts_of_tests(tree)
                touched = touched_by({s.patch for s in samples[instance]}, tree.read)
            changed = [path for path in Patch(row.test_patch).paths if path in texts]
            if not changed:
                continue
            for way, known_imports in zip(ways, (NO_IMPORTS, imports), strict=True):
                order = near_files(texts, touched, known_imports)
                ways[way][instance] = [order.index(path) if path in order else None for path in changed]
    for way, ranks in ways.items():
        print(f"{way}, {len(ranks)} instances: " + "; ".join(shares(ranks, first) for first in AT))
    made, loaded = (max(each) for each in zip(*seconds, strict=True))
    print(f"a graph: made in {made:.2f} s at most, loaded in {loaded:.3f} s at most")


if __name__ == "__main__":
    main()
