"""How well a right patch is chosen among real ones: recovery, beside naive ways, by kind of evidence.

    python -m tests.bench.selection gather  --pool POOL --dataset ROWS --mirrors DIR --evidence RUN
    python -m tests.bench.selection measure --pool POOL --evidence RUN [--labels FILE] [--part development|test|all]
    python -m tests.bench.selection missed  --pool POOL --evidence RUN
    python -m tests.bench.selection labels  --pool POOL [--labels FILE] > all.jsonl

`labels` writes every sample's label, what was graded before what was published; the shipped weights are made with it:

    python -m tests.bench.fitting POOL --evidence RUN --labels all.jsonl --weights harness/choosing/ranker_weights.json

The split into parts is selection_split.json. `measure` on the development part cross-validates by instance; on the test
part the ranker is fitted on the whole development part and judged once. Instances of the repositories in `runs_here`
are judged by labels of the official tests here; the published outcomes of the others are labels for what needs no
execution.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.choosing.found import InstanceEvidence, digest
from harness.choosing.gather import gather_probes, gather_static
from harness.choosing.ranker import SHIPPED, read_weights
from harness.patches.patch import Patch
from tasks.errors import TroopError
from tests.bench.evidence import KINDS, NAMES, evidence_so_far, finalists, gather_tests, keeping, rows
from tests.bench.fitting import Labelled, Recovery, chance, choices, cross, fit, labelled, read_labelled, recovery
from tests.bench.graded import Graded, by_instance, read_graded

if TYPE_CHECKING:
    from harness.sandbox.docker.provider import DockerProvider

SPLIT = json.loads((Path(__file__).parent / "selection_split.json").read_text())


def runs_here(instance: str) -> bool:
    return instance.rpartition("-")[0].replace("__", "/", 1) in SPLIT["runs_here"]


def with_published(pool: Path, samples: Sequence[Graded]) -> list[Graded]:
    """Published outcomes as labels, for samples that were not graded here."""
    published = {}
    with gzip.open(pool, "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            published[line["instance_id"], line["source"]] = line.get("published_resolved")
    return [replace(s, right=published.get((s.instance, s.source))) if s.right is None else s for s in samples]


# Ways to choose: from rows to a score of each; ties are broken by drawing.


def smallest(item: Labelled) -> list[float]:
    return [float(-Patch(row.patch).changed_lines) for row in item.rows]


def majority(item: Labelled) -> list[float]:
    return [float(len(row.sources)) for row in item.rows]


def regression_filter(item: Labelled) -> list[float]:
    return [-float(row.absolute["breaks-tests"] > 0) for row in item.rows]


def filter_majority(item: Labelled) -> list[float]:
    return [len(row.sources) - 1000.0 * (row.absolute["breaks-tests"] > 0) for row in item.rows]


NAIVE: dict[str, Callable[[Labelled], list[float]]] = {
    "smallest patch": smallest,
    "exact-match majority": majority,
    "regression filter": regression_filter,
    "regression filter + majority": filter_majority,
}


def line(name: str, found: Recovery) -> str:
    share = "   -  " if found.recovery is None else f"{found.recovery:6.2f}"
    low = "" if found.recovery_low is None else f" [{found.recovery_low:5.2f}, {found.recovery_high:5.2f}]"
    return (
        f"  {name:34} selected {found.selected:6.2f}  recovery {share}{low}  "
        f"gain {found.gain:+5.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    )


def by(way: Callable[[Labelled], list[float]], items: Sequence[Labelled]) -> dict[str, list[float]]:
    return {i.instance: way(i) for i in items}


def heading(name: str, items: Sequence[Labelled]) -> str:
    total = recovery(choices(items, by(smallest, items)), draws=0)
    return (
        f"{name}: {len(items)} instances, {sum(i.mixed for i in items)} with right and wrong candidates, "
        f"mean@1 {total.mean_at_1:.2f}, oracle {total.oracle}"
    )


def show(name: str, items: Sequence[Labelled], scores: Mapping[str, Sequence[float]]) -> None:
    print(heading(name, items))
    for title, way in NAIVE.items():
        print(line(title, recovery(choices(items, by(way, items)))))
    print(line("ranker", recovery(choices(items, scores))))


def load(known: argparse.Namespace, part: str) -> list[Labelled]:
    samples = with_published(known.pool, read_labelled(known.pool, known.labels or []))
    return labelled([s for s in samples if s.instance in SPLIT[part]], known.evidence)


def gather(known: argparse.Namespace) -> None:
    """Static evidence on all instances of the asked part."""
    from harness.repository.base_tree import open_tree
    from tasks.swebench import load_rows

    grouped = by_instance(read_graded(known.pool))
    data = {row.instance_id: row for row in load_rows("swe-bench-lite", known.dataset)}
    keep = keeping(known.evidence)
    for instance in sorted(i for p in known.parts for i in SPLIT[p]):
        row = data[instance]
        evidence = evidence_so_far(known.evidence, instance, grouped[instance])
        mirrors = [m / f"{row.repo.replace('/', '__')}.git" for m in known.mirrors]
        place = next((m for m in mirrors if m.exists()), None)
        if place is None:
            keep(gather_static(evidence, row.problem_statement, None))
            continue
        with open_tree(place, row.base_commit) as tree:
            keep(gather_static(evidence, row.problem_statement, tree))


def behave(known: argparse.Namespace) -> None:
    """Probes and near tests on the asked part's instances that have an image here."""
    asyncio.run(_behave(known))


async def _behave(known: argparse.Namespace) -> None:
    from harness.repository.base_tree import open_tree
    from harness.sandbox.base import Limits, Sandbox, SandboxSpec
    from harness.sandbox.docker.provider import DockerProvider
    from tasks.swebench import load_rows

    provider = DockerProvider()
    weights = read_weights(SHIPPED)
    keep = keeping(known.evidence)
    grouped = by_instance(read_graded(known.pool))
    data = {row.instance_id: row for row in load_rows("swe-bench-lite", known.dataset)}
    wanted = [i for p in known.parts for i in SPLIT[p] if runs_here(i)]
    for instance in known.only or wanted:
        row = data[instance]
        image = known.image.format(instance.lower().replace("__", "_1776_"))
        mirror = next(m for d in known.mirrors if (m := d / f"{row.repo.replace('/', '__')}.git").exists())
        other = dict(pair.split("=", 1) for pair in known.stand_in).get(row.repo)
        key = f"stand-in-{instance}" if other and not has_image(image) else None
        if key is not None and other is not None:
            await stand_in(provider, other, key, mirror, row.base_commit)

        async def opened(name: str, image: str = image, key: str | None = key, instance: str = instance) -> Sandbox:
            spec = SandboxSpec(
                run=f"select-{instance}",
                name=name,
                limits=Limits(cpus=1.0),
                image=image if key is None else None,
                environment=key,
            )
            return await provider.create(spec)

        began = time.monotonic()
        try:
            with open_tree(mirror, data[instance].base_commit) as tree:
                evidence: InstanceEvidence = evidence_so_far(known.evidence, instance, grouped[instance])
                evidence = gather_static(evidence, data[instance].problem_statement, tree)
                evidence = await gather_probes(evidence, tree, opened, keep=keep)
                if known.tests:
                    first = finalists(rows(evidence), weights)
                    sources = {source for row in first for source in row.sources}
                    only = {digest(s.patch) for s in grouped[instance] if s.source in sources}
                    await gather_tests(
                        evidence, tree, opened, only=only, seconds=known.near_seconds, keep=keep, say=print
                    )
        except TroopError as error:
            print(f"{instance}: {error}")
            continue
        print(f"{instance}: {time.monotonic() - began:.0f} s", flush=True)
    await provider.close()


def has_image(name: str) -> bool:
    import docker

    return bool(docker.from_env().images.list(name=name.removesuffix(":latest")))


async def stand_in(provider: DockerProvider, image: str, key: str, mirror: Path, commit: str) -> None:
    """An environment for an instance without an image of its own: another one's of its repository, with this base's
    files."""
    from harness.repository.hostgit import git
    from harness.sandbox.base import SandboxSpec

    if await provider.has(key):
        return
    sandbox = await provider.create(SandboxSpec(run="select-stand-in", name=key, image=image))
    await sandbox.exec("find . -mindepth 1 -maxdepth 1 ! -name .git ! -name '*.egg-info' -exec rm -rf {} +")
    await sandbox.upload(git("archive", "--format=tar", "--prefix=testbed/", commit, git_dir=mirror))
    await sandbox.exec("PYTHONDONTWRITEBYTECODE= nice python -m compileall -q sympy", timeout=300)
    await provider.freeze(sandbox, key)


def measure(known: argparse.Namespace) -> None:
    """The development part cross-validated, or with --all both parts together (more instances, but half of them those
    that features were designed on), with the ablation; `--part test` instead: the frozen ranker on the test part."""
    items = load(known, "development")
    if "test" in known.parts and not known.all:
        judge_test(items, load(known, "test"), known.penalty)
        return
    part = "development"
    if known.all:
        part, items = "both parts", items + load(known, "test")
    here, elsewhere = [i for i in items if runs_here(i.instance)], [i for i in items if not runs_here(i.instance)]
    scores = cross(items, penalty=known.penalty)
    show(f"{part}, run here, cross-validated", here, scores)
    if known.all:
        first = {s.instance for s in read_graded(known.pool) if s.right is not None}
        show("of these, with outcomes in the pool", [i for i in here if i.instance in first], scores)
    show(f"{part}, published outcomes only, cross-validated", elsewhere, scores)
    for kind, names in KINDS.items() if known.ablate else ():
        for word, kept in (("without", [n for n in NAMES if n not in names]), ("only", names)):
            table = cross(items, features=kept, penalty=known.penalty)
            print(line(f"{word} {kind} (run here)", recovery(choices(here, table))))
            print(line(f"{word} {kind} (published)", recovery(choices(elsewhere, table))))
    show_weights(items, known.penalty)


def judge_test(development: Sequence[Labelled], test: Sequence[Labelled], penalty: float) -> None:
    """Fitted on the whole development part, judged once."""
    weights = fit([r for i in development for r in i.rows], [x for i in development for x in i.right], penalty=penalty)
    scores = {i.instance: [weights.score(r) for r in i.rows] for i in test}
    show("test, run here", [i for i in test if runs_here(i.instance)], scores)
    show("test, published outcomes only", [i for i in test if not runs_here(i.instance)], scores)


def show_weights(items: Sequence[Labelled], penalty: float) -> None:
    weights = fit([r for i in items for r in i.rows], [x for i in items for x in i.right], penalty=penalty)
    print(f"bias {weights.bias:+.2f}")
    for name, weight in sorted(weights.weights.items(), key=lambda pair: -abs(pair[1])):
        print(f"  {name:24} {weight:+.2f}")


def missed(known: argparse.Namespace) -> None:
    """The development instances where a right candidate was there and not chosen."""
    items = load(known, "development")
    scores = cross(items, penalty=known.penalty)
    for item in items:
        of_it = scores[item.instance]
        if not runs_here(item.instance) or not any(item.right) or chance(item, of_it) == 1.0:
            continue
        print(item.instance, dict(Counter(item.samples)))
        for row, right, score in sorted(zip(item.rows, item.right, of_it, strict=True), key=lambda t: -t[2]):
            said = {n: round(v, 2) for n, v in row.absolute.items() if v}
            print(f"  {'right' if right else 'wrong'} {score:+.2f} {len(row.sources)} {row.sources[0]} {said}")


def labels(known: argparse.Namespace) -> None:
    """Every sample's label as JSON lines."""
    for sample in with_published(known.pool, read_labelled(known.pool, known.labels or [])):
        outcome = "resolved" if sample.right else "unresolved"
        print(json.dumps({"instance_id": sample.instance, "source": sample.source, "outcome": outcome}))


def shuffled(items: Sequence[Labelled], times: int, penalty: float) -> list[float]:
    """Recoveries of rankers that were fitted and judged on labels dealt out anew within each instance, so that how many
    are right stays what it was. Instances whose candidates are all alike have nothing to deal and are left out."""
    rng = random.Random(0)
    told_apart = [item for item in items if len(set(item.right)) > 1]
    out = []
    for _ in range(times):
        dealt = [_dealt(item, rng) for item in told_apart]
        found = recovery(choices(dealt, cross(dealt, penalty=penalty)), draws=0).recovery
        out.append(found if found is not None else 0.0)
    return out


def _dealt(item: Labelled, rng: random.Random) -> Labelled:
    """The labels of the distinct candidates in another order; each sample has that of its candidate."""
    right = list(item.right)
    rng.shuffle(right)
    samples = tuple(x for row, x in zip(item.rows, right, strict=True) for _ in row.sources)
    return replace(item, right=tuple(right), samples=samples)


def shuffle(known: argparse.Namespace) -> None:
    """Labels dealt out anew: what a ranker finds where there is nothing to be found."""
    items = [i for i in load(known, "development") if len(set(i.right)) > 1]
    true = recovery(choices(items, cross(items, penalty=known.penalty)), draws=0).recovery
    found = sorted(shuffled(items, known.times, known.penalty))
    print(f"true labels {true:.3f}; shuffled {known.times} times: mean {sum(found) / len(found):.3f}, ", end="")
    print(f"95th percentile {found[int(0.95 * len(found))]:.3f}, largest {found[-1]:.3f}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "gather": gather,
    "behave": behave,
    "measure": measure,
    "missed": missed,
    "labels": labels,
    "shuffle": shuffle,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=tuple(COMMANDS))
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--evidence", type=Path, help="the run directory; all but labels need it")
    parser.add_argument("--labels", type=Path, action="append")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--mirrors", type=Path, action="append", default=[])
    parser.add_argument("--part", dest="parts", action="append", choices=("development", "test"))
    parser.add_argument("--penalty", type=float, default=10.0)
    parser.add_argument("--only", action="append", metavar="INSTANCE")
    parser.add_argument("--image", default="troop/sweb.eval.x86_64.{}:latest")
    parser.add_argument("--stand-in", action="append", default=[], metavar="OWNER/NAME=IMAGE")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--tests", action="store_true", help="behave: the near tests as well")
    parser.add_argument("--near-seconds", type=float, default=12.0)
    parser.add_argument("--all", action="store_true", help="measure: both parts, cross-validated together")
    parser.add_argument("--ablate", action="store_true")
    known = parser.parse_args()
    known.parts = known.parts or ["development"]
    COMMANDS[known.what](known)


if __name__ == "__main__":
    main()
