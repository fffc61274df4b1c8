"""How many QuixBugs programs `repair` mends, quickly: its own localisation, mutants, shares and selection, but each
mutant is tried in a forked process inside the sandbox instead of a pytest run of its own.

    .venv/bin/python -m tests.bench.quixbugs --source ~/QuixBugs [--attempts 32] [--turns 50] [--instances gcd kth]

The product itself, at about half a second a turn:

    troop eval quixbugs --source ~/QuixBugs --model repair -n 32 --max-turns 50

Prints for each program how many of the attempts end with a patch, how many of those are right by all of the program's
tests, and whether the selected one is; then the same for fewer attempts (the mutants shared out anew among them).
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.attempt.policy import View
from agent.choice.candidates import group
from agent.choice.order import select
from agent.repair.mutate import Mutant, share_of
from agent.repair.policy import RepairPolicy, SharedWork, mutants_of_base
from harness import trace
from harness.cache import cache_root
from harness.environments import environment
from harness.environments.base_run import baseline
from harness.environments.environment import CleanRoom
from harness.records import Attempt, Evidence
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from harness.sandbox.bubblewrap.provider import BubblewrapProvider
from tasks.instance import Instance
from tasks.quixbugs import load_quixbugs

CHUNK = 100
SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Tried:
    """What is known of one program: the mutants, and of the texts they give whether visible and all tests pass."""

    path: str
    original: str
    ordered: list[Any]
    plausible: dict[str, bool]
    right: dict[str, bool]


async def main(options: argparse.Namespace) -> None:
    provider = BubblewrapProvider(cache_root())
    sizes = sorted({*(n for n in SIZES if n < options.attempts), options.attempts})
    totals = {size: [0, 0, 0.0] for size in sizes}
    with tempfile.TemporaryDirectory() as work:
        instances = load_quixbugs(options.source, Path(work), options.instances or ())
        for instance in instances:
            tried = await try_all(provider, instance, options)
            for size in sizes:
                chosen, some, mean, patches = outcome(tried, size, options) if tried else (False, False, 0.0, 0)
                totals[size] = [totals[size][0] + chosen, totals[size][1] + some, totals[size][2] + mean]
            word = (
                "no visible failing test" if tried is None else "right" if chosen else "wrong" if patches else "nothing"
            )
            print(
                f"{instance.task.id:40} {word:24} patches {patches:3}  right {mean * options.attempts:4.0f}", flush=True
            )
    print(f"\n{'attempts':>8} {'selected':>9} {'oracle':>7} {'mean@1':>7}   of {len(instances)}")
    for size, (selected, solved, share) in totals.items():
        print(f"{size:8} {selected:9} {solved:7} {share / len(instances):7.3f}")
    await provider.close()


async def try_all(provider: Provider, instance: Instance, options: argparse.Namespace) -> Tried | None:
    """Everything about one program; None where no visible test fails."""
    task = instance.task
    workspace = await asyncio.to_thread(open_workspace, task.repository, cache_root())
    built = await environment.build(provider, workspace, task, run="bench")
    base = await baseline(CleanRoom(provider, built, "bench"), task, runs=1)
    sandbox = await provider.create(SandboxSpec(run="bench", name="try", environment=built.key))
    try:
        prepared = trace.Prepared(
            base_commit=workspace.base_commit,
            environment=built.key,
            backend=provider.name,
            test_command=built.test_command,
            baseline=base.report,
        )
        nobody: Any = None
        view = View(
            task=task,
            prepared=prepared,
            index=0,
            seed=0,
            sandbox=sandbox,
            ask=nobody,
            plan=trace.Planned(text=""),
            history=(),
            turns_left=options.turns,
        )
        plan = await RepairPolicy(bench=SharedWork()).plan(view)
        if plan.stop:
            return None
        texts, ordered = await mutants_of_base(sandbox, plan.data)
        path = f"{task.id.removeprefix('quixbugs-')}.py"
        tried = Tried(path, texts[path], ordered, {}, {})
        wanted = {s: None for n in SIZES if n <= options.attempts for s in _variants(tried, n, options)}
        wanted |= dict.fromkeys(_variants(tried, options.attempts, options))
        await _try(sandbox, tried, f"tests/test_{path}", list(wanted), tried.plausible)
        assert instance.grading is not None
        (hidden,) = instance.grading.files
        await sandbox.write(hidden[0], hidden[1].encode())
        await _try(sandbox, tried, hidden[0], [s for s, passed in tried.plausible.items() if passed], tried.right)
        return tried
    finally:
        await sandbox.close()


async def _try(sandbox: Sandbox, tried: Tried, tests: str, sources: list[str], into: dict[str, bool]) -> None:
    await sandbox.write("/tmp/trial.py", Path(__file__).with_name("quixbugs_trial.py").read_bytes())
    for at in range(0, len(sources), CHUNK):
        chunk = sources[at : at + CHUNK]
        job = {"module": tried.path.removesuffix(".py"), "tests": tests, "variants": chunk, "seconds": 5}
        done = await sandbox.exec(["python", "/tmp/trial.py"], stdin=json.dumps(job).encode(), timeout=3600)
        into.update(zip(chunk, json.loads(done.stdout), strict=True))


def _shares(tried: Tried, attempts: int, options: argparse.Namespace) -> list[list[Mutant]]:
    turns = options.turns - 1
    seed = options.seed
    return [
        share_of(tried.ordered, index=i, attempts=attempts, turns=turns, common=seed, seed=seed * 1000 + i)
        for i in range(attempts)
    ]


def _variants(tried: Tried, attempts: int, options: argparse.Namespace) -> list[str]:
    return [text for share in _shares(tried, attempts, options) for m in share if (text := _applied(tried, m))]


def _applied(tried: Tried, mutant: Mutant) -> str:
    """The program's text as mutated; empty where the change is in another file (a helper) or does not compile."""
    if mutant.path != tried.path:
        return ""
    text = mutant.apply(tried.original)
    try:
        compile(text, tried.path, "exec")
    except SyntaxError:
        return ""
    return text


def outcome(tried: Tried, size: int, options: argparse.Namespace) -> tuple[bool, bool, float, int]:
    """(the selected patch is right, some attempt's is, share of right attempts, attempts with a patch)."""
    ends: list[str] = []
    for share in _shares(tried, size, options):
        found = (text for mutant in share if tried.plausible.get(text := _applied(tried, mutant)))
        ends.append(next(found, ""))
    attempts = [Attempt(i, i, "repair", "tests-passed", _diff(tried, text)) for i, text in enumerate(ends) if text]
    passed = Evidence(applies=True, valid=True, given={"visible": "passed"})
    candidates = [replace(c, evidence=passed) for c in group(attempts)]
    selection = select(candidates)
    chosen = next((ends[c.attempts[0]] for c in candidates if c.id == selection.candidate), "")
    right = sum(tried.right.get(text, False) for text in ends)
    return tried.right.get(chosen, False), right > 0, right / size, len(attempts)


def _diff(tried: Tried, text: str) -> str:
    before, after = tried.original.splitlines(keepends=True), text.splitlines(keepends=True)
    lines = difflib.unified_diff(before, after, f"a/{tried.path}", f"b/{tried.path}")
    return f"diff --git a/{tried.path} b/{tried.path}\n" + "".join(lines)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How many QuixBugs programs repair mends.")
    parser.add_argument("--source", type=Path, required=True, help="a checkout of jkoppel/QuixBugs")
    parser.add_argument("--attempts", type=int, default=32)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--instances", nargs="*", default=[], help="only these programs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(main(parsed()))
