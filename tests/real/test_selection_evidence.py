"""Each kind of evidence separates right patches from wrong ones, on real patches of the development part of the pool.

Needs the development data: TROOP_DATA names its directory. What is run needs the instance's image as well.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from harness.choosing.found import InstanceEvidence
from harness.choosing.gather import gather_probes, gather_static
from tests.bench.evidence import KINDS, gather_tests, keeping, rows
from tests.bench.fitting import Labelled, labelled
from tests.bench.graded import Graded, by_instance, read_graded, unlabelled

DATA = os.environ.get("TROOP_DATA", "")
pytestmark = pytest.mark.skipif(not DATA, reason="TROOP_DATA does not name the directory of the development data")

SPLIT = json.loads((Path(__file__).parents[1] / "bench/selection_split.json").read_text())


@pytest.fixture(scope="module")
def samples() -> list[Graded]:
    """The development part, labelled: by the official tests where they were run, else as published."""
    pool = Path(DATA) / "candidate-patches.jsonl.gz"
    with gzip.open(pool, "rt", encoding="utf-8") as lines:
        published = {(x["instance_id"], x["source"]): x["published_resolved"] for x in map(json.loads, lines)}
    development = set(SPLIT["development"])
    found = [s for s in read_graded(pool) if s.instance in development]
    return [replace(s, right=published[s.instance, s.source]) if s.right is None else s for s in found]


@pytest.fixture(scope="module")
def statements() -> dict[str, str]:
    rows_of_it = map(json.loads, (Path(DATA) / "swe-bench-lite.jsonl").read_text().splitlines())
    return {row["instance_id"]: row["problem_statement"] for row in rows_of_it}


@pytest.fixture(scope="module")
def items(
    samples: list[Graded], statements: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[Labelled]:
    """What the diffs and the statements alone tell, for every instance with a choice."""
    run = tmp_path_factory.mktemp("run")
    for instance, of_it in by_instance(samples).items():
        keeping(run)(gather_static(InstanceEvidence(instance, unlabelled(of_it)), statements[instance], None))
    return [item for item in labelled(samples, run) if len(set(item.right)) == 2]


@pytest.mark.parametrize(
    ("feature", "sign"),
    [
        ("same-code", 1),
        ("same-places", 1),
        ("likeness", 1),
        ("nearness", 1),
        ("edits-tests", -1),
        ("stray-files", -1),
        ("debugging", -1),
        ("build-config", -1),
        ("unusable", -1),
    ],
)
def test_right_patches_have_more_or_less_of_it_than_wrong_ones_of_their_instance(
    items: list[Labelled], feature: str, sign: int
) -> None:
    gaps = []
    for item in items:
        values = [row.relative[feature] for row in item.rows]
        right = fmean(v for v, good in zip(values, item.right, strict=True) if good)
        wrong = fmean(v for v, good in zip(values, item.right, strict=True) if not good)
        gaps.append(right - wrong)
    assert len(items) > 40
    assert sign * fmean(gaps) > 0


@pytest.mark.docker
@pytest.mark.parametrize(
    ("instance", "feature", "sign"),
    [
        ("sympy__sympy-22714", "error-gone", 1),
        ("sympy__sympy-22714", "same-behaviour", 1),
        ("pytest-dev__pytest-7373", "same-behaviour", 1),
        pytest.param("sympy__sympy-18532", "breaks-tests", -1, marks=pytest.mark.slow),
    ],
)
def test_what_is_run_tells_right_from_wrong(
    samples: list[Graded], statements: dict[str, str], instance: str, feature: str, sign: int, tmp_path: Path
) -> None:
    import docker

    from harness.repository.base_tree import open_tree
    from harness.sandbox.base import Sandbox, SandboxSpec
    from harness.sandbox.docker.provider import DockerProvider

    image = f"troop/sweb.eval.x86_64.{instance.replace('__', '_1776_')}"
    mirror = Path(os.environ.get("TROOP_MIRRORS", "")) / f"{instance.rpartition('-')[0]}.git"
    if not docker.from_env().images.list(name=image) or not mirror.exists():
        pytest.skip(f"needs the image {image} and, in the directory TROOP_MIRRORS, {mirror.name}")
    base = next(
        row["base_commit"]
        for row in map(json.loads, (Path(DATA) / "swe-bench-lite.jsonl").read_text().splitlines())
        if row["instance_id"] == instance
    )
    of_it = by_instance(samples)[instance]

    async def gather() -> InstanceEvidence:
        provider = DockerProvider()

        async def opened(name: str) -> Sandbox:
            return await provider.create(SandboxSpec(run="test-probes", name=name, image=image))

        with open_tree(mirror, base) as tree:
            evidence = InstanceEvidence(instance, unlabelled(of_it))
            evidence = gather_static(evidence, statements[instance], tree)
            look = gather_tests if feature in KINDS["tests"] else gather_probes
            evidence = await look(evidence, tree, opened)
        await provider.close()
        return evidence

    evidence = asyncio.run(gather())
    label = {s.source: s.right for s in of_it}
    table = rows(evidence)
    right = [row.absolute[feature] for row in table if label[row.sources[0]]]
    wrong = [row.absolute[feature] for row in table if not label[row.sources[0]]]
    assert sign * (fmean(right) - fmean(wrong)) > 0
