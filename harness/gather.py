"""Gathering evidence into a run directory: what is there already is not looked for again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from harness.agreement import votes
from harness.base_tree import BaseTree
from harness.evidence_store import Base, Found, TestFacts, digest, distinct, read_found, write_found
from harness.near_tests import NearBase, base_of, compare, near_files
from harness.patch import is_test
from harness.pool import Sample
from harness.probe_facts import Seen
from harness.probes import Probe, probes_of
from harness.probing import run_probes, views_for
from harness.sandbox.base import WORKDIR, Sandbox
from harness.statement import Statement
from harness.static_evidence import look

NEAR_SECONDS = 25.0
"""For the near tests of one candidate, as the base takes."""

Opened = Callable[[str], Awaitable[Sandbox]]
"""Makes a fresh sandbox that holds the base, by a name for it."""


def gather_static(run: Path, instance: str, samples: Sequence[Sample], statement: str, tree: BaseTree | None) -> int:
    """Static facts of every distinct patch that has none in `run` yet; how many were added.

    `tree` None: the base's files are not at hand, and only what the diff itself tells is noted.
    """
    base, found = read_found(run, instance)
    read = Statement(statement)
    new = {key: Found(look(patch, read, tree)) for key, patch in distinct(samples).items() if key not in found}
    if new or base.statement != statement:
        write_found(run, instance, replace(base, statement=statement), {**found, **new})
    return len(new)


async def gather_behaviour(
    run: Path,
    instance: str,
    samples: Sequence[Sample],
    tree: BaseTree,
    opened: Opened,
    *,
    near_seconds: float = NEAR_SECONDS,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Run the issue's probes and the near tests on the base and on every distinct candidate that was not run yet.

    Each candidate gets a fresh sandbox; what it does to test files is left out. Candidates of the same code are run once.
    Written after every candidate. Raises SandboxFailed.
    """
    base, found = read_found(run, instance)
    packages = import_names(tree.paths())
    read = Statement(base.statement)
    probes, views = probes_of(read, packages), views_for(read, packages)
    sympy = "sympy" in packages
    near, base = await _base(base, samples, found, tree, opened, probes, packages, views, sympy, near_seconds)
    write_found(run, instance, base, found)
    for key, patch in distinct(samples).items():
        facts = found[key]
        if facts.probes is not None and facts.tests is not None:
            continue
        twin = _twin(found, facts)
        if twin is not None:
            found[key] = replace(facts, probes=twin.probes, tests=twin.tests)
        elif facts.static.applies == "no" or facts.static.no_code:
            found[key] = replace(facts, probes={}, tests=TestFacts(0, (), reason="changes no code"))
        else:
            sandbox = await opened(f"candidate-{key}")
            try:
                await lay(sandbox, tree, patch)
                shown = await run_probes(sandbox, probes, packages, views)
                tests = await compare(sandbox, near, sympy)
            finally:
                await sandbox.close()
            found[key] = replace(facts, probes=shown, tests=tests)
            say(f"{instance} {key}: {len(tests.broken)} of {tests.asked} near tests broken, {len(tests.mended)} mended")
        write_found(run, instance, base, found)


async def lay(sandbox: Sandbox, tree: BaseTree, patch: str) -> None:
    """Put the files that a patch changes into a sandbox's tree as it leaves them; test files stay as on the base."""
    for path, (_, after) in tree.patched(patch).files.items():
        if is_test(path):
            continue
        if after is None:
            await sandbox.exec(["rm", "-f", "--", path], cwd=WORKDIR)
        else:
            await sandbox.write(f"{WORKDIR}/{path}", after)


def import_names(paths: Sequence[str]) -> tuple[str, ...]:
    """The packages of a repository by their import names, the largest first (at most three)."""
    names: Counter[str] = Counter()
    for path in paths:
        parts = PurePosixPath(path).parts
        parts = parts[1:] if parts[:1] in (("src",), ("lib",)) else parts
        if len(parts) > 1 and path.endswith(".py") and parts[0] not in _NO_PACKAGES:
            names[parts[0]] += 1
    packages = {PurePosixPath(p).parts[-2] for p in paths if p.endswith("/__init__.py") and p.count("/") <= 2}
    return tuple(name for name, _ in names.most_common() if name in packages)[:3]


_NO_PACKAGES = frozenset(
    {"tests", "test", "testing", "doc", "docs", "examples", "bench", "benchmarks", "scripts", "utils", "bin"}
)


async def _base(
    base: Base,
    samples: Sequence[Sample],
    found: Mapping[str, Found],
    tree: BaseTree,
    opened: Opened,
    probes: Sequence[Probe],
    packages: Sequence[str],
    views: Sequence[str],
    sympy: bool,
    near_seconds: float,
) -> tuple[NearBase, Base]:
    """The base's own behaviour; run again where the store does not say (the near tests' names are kept there only)."""
    if all(f.probes is not None and f.tests is not None for f in found.values()):
        return NearBase((), frozenset(), frozenset(), 0.0), base
    models: dict[str, list[str]] = {}
    for sample in samples:
        for path in found[digest(sample.patch)].static.files:
            models.setdefault(path, []).append(sample.model)
    touched = {path: votes(of_it) for path, of_it in models.items() if path.endswith(".py")}
    files = near_files(tree.paths(), touched, lambda p: (tree.read(p) or b"").decode("utf-8", "replace"))
    sandbox = await opened("base")
    try:
        shown = await run_probes(sandbox, probes, packages, views)
        near = await base_of(sandbox, files, sympy, near_seconds)
    finally:
        await sandbox.close()
    sandbox = await opened("base-again")
    try:
        again = await run_probes(sandbox, probes, packages, views)
    finally:
        await sandbox.close()
    return near, replace(
        base,
        probes=shown,
        sources={p.name: p.steps or (p.command,) for p in probes},
        unsteady=tuple(sorted(_differing(shown, again))),
        near=near.files,
        near_green=len(near.green),
        near_seconds=round(near.seconds, 1),
    )


def _differing(one: Mapping[str, tuple[Seen, ...]], other: Mapping[str, tuple[Seen, ...]]) -> set[str]:
    names: set[str] = set()
    for probe, steps in one.items():
        again = other.get(probe, ())
        for at in range(max(len(steps), len(again))):
            if at >= len(steps) or at >= len(again) or steps[at].behaviour != again[at].behaviour:
                names.add(f"{probe}/{at}")
    return names


def _twin(found: Mapping[str, Found], facts: Found) -> Found | None:
    """A patch of the same code that was run already."""
    same = [f for f in found.values() if f.static.code and f.static.code == facts.static.code]
    return next((f for f in same if f.probes is not None and f.tests is not None), None)
