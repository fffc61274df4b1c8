"""Gathering evidence on the candidates of an instance: what is known already is not looked for again."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

from harness.cache import cache_root
from harness.choosing.evidence_store import Base, Found, InstanceEvidence, Keep, NearBase, Steps, TestFacts
from harness.choosing.near_tests import NOTHING_RAN, base_of, bench_for, held_against
from harness.choosing.probe_facts import Seen
from harness.choosing.probes import probes_of, witness_probes
from harness.choosing.probing import run_probes, views_for
from harness.choosing.statement import Statement
from harness.choosing.static_evidence import StaticFacts, look
from harness.code.import_graph import import_graph
from harness.evidence.near import MOST_FILES, Opened
from harness.evidence.regression import near_files, touched_by
from harness.parallel import in_parallel
from harness.patches.paths import guards_tests, holds_tests
from harness.records import WitnessTest
from harness.repository.base_tree import BaseTree
from harness.sandbox.base import WORKDIR, Sandbox
from harness.sandbox.fresh import in_one_opened
from harness.testing.runners.registry import command_of_project
from tasks.errors import SandboxFailed, TroopError, words_of
from tasks.say import Say

NEAR_SECONDS = 12.0
"""For the near tests of one candidate, as the base takes."""

RETRIES = 3
"""Sandboxes that may die under one candidate."""

T = TypeVar("T")


def gather_static(evidence: InstanceEvidence, statement: str, tree: BaseTree | None) -> InstanceEvidence:
    """The evidence with static facts on every distinct patch that has none yet.

    `tree` None: the base's files are not at hand, and only what the diff itself tells is noted.
    """
    read = Statement(statement)
    new = {key: Found(_look(patch, read, tree)) for key, patch in evidence.patches.items() if key not in evidence.found}
    return replace(evidence.with_found(**new), base=replace(evidence.base, statement=statement))


def _look(patch: str, statement: Statement, tree: BaseTree | None) -> StaticFacts:
    """The facts on a patch. One that cannot even be looked at counts as none that applies, and ends no other's case."""
    try:
        return look(patch, statement, tree)
    except (OSError, TroopError):
        raise
    except Exception as error:
        return StaticFacts("no", "", (), (), 0, 0, 0, reason=f"it cannot be looked at: {words_of(error)}")


async def gather_probes(
    evidence: InstanceEvidence,
    tree: BaseTree,
    opened: Opened,
    *,
    witnesses: Sequence[WitnessTest] = (),
    keep: Keep = lambda evidence: None,
    say: Say = lambda line: None,
) -> InstanceEvidence:
    """The evidence with what the issue's probes, and the witness tests of attempts, show on the base, run twice, and on
    every distinct candidate on which they were not run yet.

    Each candidate gets a fresh sandbox; what it does to test files is left out. Candidates of the same code are run
    once. `keep` is told after the base and after every candidate. Raises SandboxFailed where no sandbox works.
    """
    packages = import_names(tree.paths())
    read = Statement(evidence.base.statement)
    of_issue, tests, views = probes_of(read, packages), witness_probes(witnesses), views_for(read, packages)
    probes = (*of_issue, *tests)

    async def shown_by(name: str, patch: str) -> Steps:
        """Each test of an attempt has a sandbox of its own: none decides what another shows."""
        shown: Steps = {}
        for together in ([of_issue] if of_issue else []) + [(test,) for test in tests]:
            run = partial(run_probes, probes=together, packages=packages, views=views)
            shown = {**shown, **await in_sandbox(opened, name, tree, patch, run)}
        return shown

    base = evidence.base
    if base.probes is None and probes:
        shown, again = await shown_by("base", ""), await shown_by("base-again", "")
        sources = {p.name: p.steps or (p.command,) for p in probes}
        base = replace(base, probes=shown, sources=sources, unsteady=tuple(sorted(_differing(shown, again))))
    base = base if probes else replace(base, probes={})
    evidence = replace(evidence, base=base)
    keep(evidence)
    for key, patch in evidence.patches.items():
        facts = evidence.found[key]
        if facts.probes is None:
            twins = (f.probes for f in evidence.found.values() if _same_code(f, facts))
            twin = next((probes for probes in twins if probes is not None), None)
            idle = facts.static.applies == "no" or facts.static.no_code or not tells(base, patch)
            try:
                shown = twin if twin is not None else {} if idle else await shown_by(f"probe-{key}", patch)
            except Exception as error:  # one candidate's fault ends no other's case
                if isinstance(error, SandboxFailed):
                    await in_sandbox(opened, "works", tree, "", lambda s: s.exec(["true"], timeout=60))
                why = f"the probes cannot be run on it: {words_of(error)}"
                shown, facts = {}, replace(facts, static=replace(facts.static, reason=why))
            evidence = evidence.with_found(**{key: replace(facts, probes=shown)})
            keep(evidence)
    say(f"{evidence.instance}: {len(probes)} probes")
    return evidence


async def gather_tests(
    evidence: InstanceEvidence,
    tree: BaseTree,
    opened: Opened,
    *,
    only: Collection[str] | None = None,
    command: str | None = None,
    seconds: float = NEAR_SECONDS,
    slots: asyncio.Semaphore | None = None,
    keep: Keep = lambda evidence: None,
    say: Say = lambda line: None,
) -> InstanceEvidence:
    """The evidence with what the near tests say on the base, run twice, and on every distinct candidate that was not
    held against them yet.

    `only`: the digests of the patches that are held against them, None for all. `command`: runs the tests (None: the
    project's own runner, or the usual framework). `seconds`: what one run of them takes on the base, at most about.
    `slots` bounds the sandboxes at a time, for several instances at once. `keep` is told after the base and
    after every candidate. Raises SandboxFailed.
    """
    wanted = {key: patch for key, patch in evidence.patches.items() if only is None or key in only}
    if all(evidence.found[key].tests is not None for key in wanted):
        return evidence
    usual = command or command_of_project(import_names(tree.paths()))
    bench = await asyncio.to_thread(bench_for, opened, usual, seconds, slots)
    if evidence.base.near is None:
        files = await asyncio.to_thread(_near_files, tree, list(evidence.patches.values()))
        evidence = replace(evidence, base=replace(evidence.base, near=await base_of(bench, files)))
        keep(evidence)
    near = evidence.base.near or NearBase()

    async def hold(keys: Sequence[str]) -> None:
        """Candidates of the same code are run once."""
        nonlocal evidence
        facts = evidence.found[keys[0]]
        twins = (f.tests for f in evidence.found.values() if _same_code(f, facts))
        twin = next((tests for tests in twins if tests is not None), None)
        if twin is not None:
            tests = twin
        elif not near.green or facts.static.applies == "no" or facts.static.no_code:
            tests = TestFacts(0, (), reason="changes no code" if near.green else "no near test passes on the base")
        else:
            patch = wanted[keys[0]]
            try:
                tests = await held_against(bench, near, f"near-{keys[0]}", lambda sandbox: lay(sandbox, tree, patch))
            except (OSError, ValueError) as error:  # it leaves a file where another's folder should be
                tests = TestFacts(len(near.green), (NOTHING_RAN,), reason=f"it cannot be laid out: {words_of(error)}")
            counted = f"{len(tests.broken)} of {tests.asked} near tests broken, {len(tests.mended)} mended"
            say(f"{evidence.instance} {keys[0]}: {counted}")
        evidence = evidence.with_found(**{key: replace(evidence.found[key], tests=tests) for key in keys})
        keep(evidence)

    groups: dict[str, list[str]] = {}
    for key in wanted:
        if evidence.found[key].tests is None:
            groups.setdefault(evidence.found[key].static.code or key, []).append(key)
    await in_parallel(hold(keys) for keys in groups.values())
    return evidence


def _near_files(tree: BaseTree, patches: Sequence[str]) -> list[str]:
    """The test files of the base that are nearest to what the patches touch, the nearest first."""
    paths = tree.paths()
    imports = import_graph(tree.commit, paths, tree.read_all, cache_root() / "imports")
    return near_files(texts_of_tests(tree), touched_by(patches, tree.read), imports)[:MOST_FILES]


def texts_of_tests(tree: BaseTree) -> dict[str, str]:
    """The text of every test file of the base by its path."""
    found = tree.read_all(path for path in tree.paths() if holds_tests(path))
    return {path: text.decode("utf-8", "replace") for path, text in found.items()}


async def in_sandbox(
    opened: Opened, name: str, tree: BaseTree, patch: str, work: Callable[[Sandbox], Awaitable[T]]
) -> T:
    """Do `work` in a fresh sandbox with the patch's files in it; in another one where one dies, `RETRIES` times."""

    async def on_patch(sandbox: Sandbox) -> T:
        await lay(sandbox, tree, patch)
        return await work(sandbox)

    return await in_one_opened(lambda: opened(name), on_patch, RETRIES)


def tells(base: Base, patch: str) -> bool:
    """Whether running the probes on a patch could tell anything: not where each step wants a name that is not there."""
    steps = [seen for of_probe in (base.probes or {}).values() for seen in of_probe]
    missing = [re.search(r"name '(\w+)'", seen.message) for seen in steps if seen.error == "NameError"]
    if len(missing) < len(steps):
        return bool(steps)
    names = {match[1] for match in missing if match}
    return any(re.search(rf"^\+.*(?:def|class|import)\b.*\b{name}\b|^\+\s*{name}\s*=", patch, re.M) for name in names)


async def lay(sandbox: Sandbox, tree: BaseTree, patch: str) -> None:
    """Put the files that a patch changes into a sandbox's tree as it leaves them; what guards tests stays as on the
    base."""
    patched = await asyncio.to_thread(tree.patched, patch) if patch else None
    for path, (_, after) in patched.files.items() if patched else ():
        if guards_tests(path):
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


_NO_PACKAGES = {"tests", "test", "testing", "doc", "docs", "examples", "bench", "benchmarks", "scripts", "utils", "bin"}


def _differing(one: Mapping[str, tuple[Seen, ...]], other: Mapping[str, tuple[Seen, ...]]) -> set[str]:
    names: set[str] = set()
    for probe, steps in one.items():
        again = other.get(probe, ())
        for at in range(max(len(steps), len(again))):
            if at >= len(steps) or at >= len(again) or steps[at].behaviour != again[at].behaviour:
                names.add(f"{probe}/{at}")
    return names


def _same_code(one: Found, other: Found) -> bool:
    return bool(one.static.code) and one.static.code == other.static.code
