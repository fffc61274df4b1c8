"""What should order the candidates that tests leave equal: agreement, size, or the ranker's probability?

    python -m tests.bench.orders pool --pool POOL --evidence RUN      patches of models; the ranker cross-validated by instance
    python -m tests.bench.orders runs EVALDIR                         a graded evaluation of `troop eval`; the shipped weights

A tie counts as the chance to draw a right one. `runs` looks at acceptable candidates only, and at what can be told
without running anything again.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.choice.candidates import candidates_of
from agent.choice.order import select, why_not
from harness import trace
from harness.choosing.features import rows
from harness.choosing.found import InstanceEvidence
from harness.choosing.gather import gather_static
from harness.choosing.pool import Sample
from harness.choosing.ranker import read_weights
from harness.patches.patch import Patch
from harness.records import Candidate
from harness.repository.base_tree import open_tree
from tests.bench.fitting import choices, cross, recovery
from tests.bench.selection import heading, line, load, runs_here

Key = tuple[float, ...]

WAYS: Mapping[str, Callable[[float, float, float], Key]] = {
    "agreement, then the smaller (rules)": lambda votes, small, p: (votes, small),
    "agreement, then P": lambda votes, small, p: (votes, p),
    "the smaller, then P": lambda votes, small, p: (small, p),
    "P": lambda votes, small, p: (p,),
}
"""From votes, minus the size, and the ranker's score to what is compared."""


def pool(known: argparse.Namespace) -> None:
    """Recovery by each way, for the instances that were run here and for all."""
    items = [item for part in ("development", "test") for item in load(known, part)]
    scores = cross(items)
    for name, chosen in (("run here", [i for i in items if runs_here(i.instance)]), ("all", items)):
        print(heading(name, chosen))
        for title, way in WAYS.items():
            keys = {
                item.instance: [
                    way(float(len(row.sources)), -Patch(row.patch).changed_lines, score)
                    for row, score in zip(item.rows, scores[item.instance], strict=True)
                ]
                for item in chosen
            }
            placed = {instance: [float(sorted(of_it).index(key)) for key in of_it] for instance, of_it in keys.items()}
            print(line(title, recovery(choices(chosen, placed))))


def runs(known: argparse.Namespace) -> None:
    """Selected right by each way, over the runs of an evaluation."""
    right: dict[str, float] = defaultdict(float)
    directories = sorted(path.parent for path in known.directory.glob("*/trace.jsonl"))
    for run in directories:
        events = list(trace.read(run / "trace.jsonl"))
        verdicts = {e.candidate: e.resolved for e in events if isinstance(e, trace.Graded)}
        candidates = candidates_of(events)
        right["oracle"] += any(verdicts.values())
        right["the rules as they are"] += bool(verdicts.get(select(candidates).candidate or ""))
        acceptable = [c for c in candidates if not why_not(c)]
        if not acceptable:
            continue
        scores = _scores(events, acceptable)
        for title, way in WAYS.items():
            keys = [way(len(c.attempts), -Patch(c.patch).changed_lines, scores[c.id]) for c in acceptable]
            first = [c for c, key in zip(acceptable, keys, strict=True) if key == max(keys)]
            right[title] += sum(verdicts.get(c.id, False) for c in first) / len(first)
    print(f"{len(directories)} runs")
    for title, count in right.items():
        print(f"  {title:40} {count:6.2f}")


def _scores(events: Sequence[trace.Event], candidates: Sequence[Candidate]) -> dict[str, float]:
    """The ranker's score of each candidate by what the patches themselves tell."""
    started = events[0]
    assert isinstance(started, trace.RunStarted), "the first event of every trace"
    base = next(e.base_commit for e in events if isinstance(e, trace.Prepared))
    samples = [Sample("run", str(n), "one", c.patch) for c in candidates for n in c.attempts]
    with open_tree(_repository(started), base) as tree:
        table = rows(gather_static(InstanceEvidence("run", tuple(samples)), str(started.task["statement"]), tree))
    weights = read_weights()
    row_of = {source: row for row in table for source in row.sources}
    return {c.id: weights.score(row_of[str(c.attempts[0])]) for c in candidates}


def _repository(started: trace.RunStarted) -> Path:
    return Path(str(started.task["repository"]["location"]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    of_pool = kinds.add_parser("pool")
    of_pool.add_argument("--pool", type=Path, required=True)
    of_pool.add_argument("--evidence", type=Path, required=True)
    of_pool.add_argument("--labels", type=Path, action="append", default=[])
    of_pool.set_defaults(work=pool)
    of_runs = kinds.add_parser("runs")
    of_runs.add_argument("directory", type=Path)
    of_runs.set_defaults(work=runs)
    known = parser.parse_args()
    known.work(known)


if __name__ == "__main__":
    main()
