"""The judge at work in a run: its calls charged to the run, its test in fresh sandboxes of the run's environment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from agent.choice.judge import PLACE, Case, asking, judge
from harness.evidence.told import tell
from harness.evidence.verify import lay_patch
from harness.records import Candidate, Told
from harness.sandbox.base import Sandbox, SandboxSpec
from harness.sandbox.fresh import in_fresh_sandbox

if TYPE_CHECKING:
    from agent.run.graph import Run


async def judged(run: Run, finalists: Sequence[Candidate]) -> dict[str, float]:
    """The judge's points by candidate id; none without finalists or a judge."""
    if not finalists or run.judge is None:
        return {}
    ask = asking(run.judge, run.events, run.settings.seed, run.end_by)
    run_test = partial(_told_of_all, run, finalists) if run.environment.test_command is not None else None
    return await judge(Case(run.task.statement, finalists, ask, run.events, run.write, run_test))


async def _told_of_all(run: Run, finalists: Sequence[Candidate], path: str, text: str) -> list[Told]:
    base = run.base
    assert base is not None, "prepare comes first"
    free = path if not _is_there(run, path) else PLACE

    async def one(on: str, patch: str) -> Told:
        async def in_sandbox(sandbox: Sandbox) -> Told:
            reason = await lay_patch(sandbox, run.task, patch) if patch else None
            if reason is not None:
                return Told(on, "error", tail=f"the patch does not apply: {reason}")
            return await tell(sandbox, on, free, text, run.environment.test_command)

        spec = SandboxSpec(
            run=run.name, name=f"judge-{on}", environment=run.environment.key, limits=run.settings.limits
        )
        async with run.checks:
            return await in_fresh_sandbox(run.provider, spec, in_sandbox, run.settings.infrastructure_retries)

    return [await one("base", ""), *[await one(c.id, c.patch) for c in finalists]]


def _is_there(run: Run, path: str) -> bool:
    assert run.base is not None, "prepare comes first"
    try:
        run.base.read(path)
    except FileNotFoundError:
        return False
    return True
