"""The clean room: fresh sandboxes of an environment, without the network, and how tests run in them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from harness.environments.environment import Built
from harness.records import TestReport
from harness.sandbox.base import Limits, Provider, Sandbox, SandboxSpec
from harness.sandbox.fresh import in_one_opened
from harness.testing.run import run_tests
from harness.testing.runners.registry import USUAL_COMMAND

TEST_SECONDS = 20.0
"""Wall time of one test, unless something is known of the repository's tests."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CleanRoom:
    """Fresh sandboxes of one environment. `run`: whose they are; `timeout`: seconds of one run of tests, `test_seconds`
    of one test. A sandbox that dies is replaced `retries` times; `slots` bounds them at a time (None: nothing does)."""

    provider: Provider
    built: Built
    run: str
    timeout: float = 600.0
    test_seconds: float = TEST_SECONDS
    limits: Limits = field(default_factory=Limits)
    retries: int = 3
    slots: asyncio.Semaphore | None = None

    def spec(self, name: str) -> SandboxSpec:
        """A sandbox of the environment, by its name."""
        return SandboxSpec(run=self.run, name=name, environment=self.built.key, limits=self.limits)

    async def fresh(self, name: str, work: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Do `work` in a new sandbox. Raises SandboxFailed where all replacements died, which says nothing of it."""
        async with self.slots or nullcontext():
            return await in_one_opened(lambda: self.provider.create(self.spec(name)), work, self.retries)

    async def tests(
        self, sandbox: Sandbox, ids: Sequence[str] = (), *, command: str | None = None, spread: bool = False
    ) -> TestReport:
        """Run the environment's tests (or by `command`) in a sandbox, limited to `ids`, or directory by directory in
        turn (`spread`). Raises SandboxFailed."""
        command, seconds = command or self.built.test_command or USUAL_COMMAND, self.test_seconds
        return await run_tests(sandbox, command, ids, timeout=self.timeout, test_seconds=seconds, spread=spread)
