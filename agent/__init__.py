"""Who solves. From Python: `solve(task, settings)`; the command line is a thin layer over the same names.

from agent import Settings, solve, task_from
instance = task_from("owner/name#12")
solution = solve(instance.task, Settings(models=("openai/gpt-5-mini",)))
print(solution.patch)
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which takes longer to import than a hand to press Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from agent.assemble import Solution
    from agent.config import Alias, Settings
    from harness.records import Budget
    from harness.sandbox.base import Limits
    from harness.trace import Listener
    from tasks.source import resolve as task_from
    from tasks.task import Environment, GivenTest, Repository, Task

_PLACES = {
    "Alias": "agent.config",
    "Budget": "harness.records",
    "Environment": "tasks.task",
    "GivenTest": "tasks.task",
    "Limits": "harness.sandbox.base",
    "Repository": "tasks.task",
    "Settings": "agent.config",
    "Solution": "agent.assemble",
    "Task": "tasks.task",
}

__all__ = [
    "Alias",
    "Budget",
    "Environment",
    "GivenTest",
    "Limits",
    "Repository",
    "Settings",
    "Solution",
    "Task",
    "resume",
    "solve",
    "solve_async",
    "task_from",
]


def solve(task: Task, settings: Settings | None = None, *, listener: Listener | None = None) -> Solution:
    """Solve a task: run the attempts, verify the candidates, select. Blocks until the run has ended.

    `listener` sees every event of the trace. Raises InputError, EnvironmentFailed (and their families, see
    `tasks.errors`); "nothing acceptable" is no error but a Solution without a patch. Inside a running event loop (a
    notebook) use `await solve_async(...)`."""
    import asyncio

    return asyncio.run(solve_async(task, settings, listener=listener))


async def solve_async(task: Task, settings: Settings | None = None, *, listener: Listener | None = None) -> Solution:
    """Solve a task within a running event loop: run the attempts, verify the candidates, select.

    `listener` sees every event of the trace. Raises InputError, EnvironmentFailed (and their families, see
    `tasks.errors`); "nothing acceptable" is no error but a Solution without a patch."""
    from agent.assemble import go, start
    from agent.config import Settings

    files, _, _ = start(task, settings or Settings())
    return await go(files, listeners=[listener] if listener else [])


def resume(run: str, *, listener: Listener | None = None) -> Solution:
    """Go on with the run in directory `run`; a finished one is read from its trace."""
    import asyncio
    from pathlib import Path

    from agent.assemble import go
    from agent.run_files import RunFiles

    return asyncio.run(go(RunFiles(Path(run).resolve()), listeners=[listener] if listener else []))


def __getattr__(name: str) -> Any:
    """The data types, imported when first asked for, so that `import agent` costs nothing."""
    import importlib

    if name == "task_from":
        return importlib.import_module("tasks.source").resolve
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
