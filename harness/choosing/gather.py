"""Gathering evidence on the candidates of an instance: what is known already is not looked for again."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TypeVar

from harness.choosing.found import Base, Found, InstanceEvidence, Keep, Steps
from harness.choosing.probes import probes_of
from harness.choosing.probing import run_probes, views_for
from harness.choosing.statement import Statement
from harness.choosing.static_evidence import StaticFacts, look
from harness.patches.paths import guards_tests
from harness.repository.base_tree import BaseTree
from harness.sandbox.base import WORKDIR, Sandbox
from harness.sandbox.fresh import Opened, in_one_opened
from tasks.errors import SandboxFailed, TroopError, words_of

RETRIES = 3
"""Sandboxes that may die under one candidate."""

T = TypeVar("T")


def gather_static(evidence: InstanceEvidence, statement: str, tree: BaseTree | None) -> InstanceEvidence:
    """The evidence with static facts on every distinct patch that has none yet.

    `tree` None: the base's files are not at hand, and only what the diff itself tells is noted."""
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
        return StaticFacts("no", "", (), (), reason=f"it cannot be looked at: {words_of(error)}")


async def gather_probes(
    evidence: InstanceEvidence, tree: BaseTree, opened: Opened, *, keep: Keep = lambda evidence: None
) -> InstanceEvidence:
    """The evidence with what the issue's probes show on the base, run twice, and on every distinct candidate on which
    they were not run yet.

    Each candidate gets a fresh sandbox; what it does to test files is left out. Candidates of the same code are run
    once. `keep` is told after the base and after every candidate. Raises SandboxFailed where no sandbox works."""
    packages = import_names(tree.files())
    read = Statement(evidence.base.statement)
    probes, views = probes_of(read, packages), views_for(read, packages)

    async def shown_by(name: str, patch: str) -> Steps:
        run = partial(run_probes, probes=probes, packages=packages, views=views)
        return await in_sandbox(opened, name, tree, patch, run)

    base = evidence.base
    if base.probes is None and probes:
        shown, again = await shown_by("base", ""), await shown_by("base-again", "")
        sources = {p.name: p.steps or (p.command,) for p in probes}
        base = replace(base, probes=shown, sources=sources, unsteady=tuple(sorted(_differing(shown, again))))
    base = base if probes else replace(base, probes={})
    evidence = replace(evidence, base=base)
    keep(evidence)
    for keys, twin in _lacking(evidence):
        facts, patch = evidence.found[keys[0]], evidence.patches[keys[0]]
        idle = facts.idle or not tells(base, patch)
        try:
            shown = twin if twin is not None else {} if idle else await shown_by(f"probe-{keys[0]}", patch)
        except Exception as error:  # one candidate's fault ends no other's case
            if isinstance(error, SandboxFailed):
                await in_sandbox(opened, "works", tree, "", lambda s: s.exec(["true"], timeout=60))
            why, shown = f"the probes cannot be run on it: {words_of(error)}", {}
            evidence = evidence.with_found(**{keys[0]: replace(facts, static=replace(facts.static, reason=why))})
        evidence = evidence.with_found(**{key: replace(evidence.found[key], probes=shown) for key in keys})
        keep(evidence)
    return evidence


def _lacking(evidence: InstanceEvidence) -> list[tuple[list[str], Steps | None]]:
    """The patches on which no probe was run, those of the same code together, which are run once, each group with what
    is known of that code already."""
    groups: dict[str, list[str]] = {}
    for key, facts in evidence.found.items():
        groups.setdefault(facts.static.code or key, []).append(key)
    found = []
    for keys in groups.values():
        told = {key: each for key in keys if (each := evidence.found[key].probes) is not None}
        if new := [key for key in keys if key in evidence.patches and key not in told]:
            found.append((new, next(iter(told.values()), None)))
    return found


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


def _differing(one: Steps, other: Steps) -> set[str]:
    pairs = {f"{p}/{at}": pair for p in one for at, pair in enumerate(zip_longest(one[p], other.get(p, ())))}
    return {name for name, (a, b) in pairs.items() if a != b}
