"""A suite of instances that bring their hidden tests as data (`tasks.instance.Grading`): QuixBugs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.cache import cache_root
from harness.environments.clean_room import CleanRoom
from harness.environments.environment import build
from harness.parallel import apart
from harness.records import Json, Verdict
from harness.repository.workspace import open_workspace, reopen_workspace
from harness.suites.grade import TEST_SECONDS, grade
from harness.suites.suite import Bench, Means, Ready, Submission
from tasks.errors import InputError
from tasks.instance import Instance
from tasks.task import Task


@dataclass(frozen=True)
class InstanceSuite:
    """Instances whose environment the sandbox sets up when they are solved, so nothing has to be made ready."""

    name: str
    instances: tuple[Instance, ...]
    source: Json = field(default_factory=dict)
    image: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(instance.task.id for instance in self.instances)

    def described(self) -> Json:
        return self.source

    def instance(self, id: str) -> Instance:
        """The instance of that id; raises KeyError for another suite's."""
        return {instance.task.id: instance for instance in self.instances}[id]

    def task(self, id: str) -> Task:
        return self.instance(id).task

    def missing(self) -> Mapping[str, str]:
        return {}

    @contextlib.asynccontextmanager
    async def at_work(self, means: Means) -> AsyncIterator[Bench]:
        yield _InstanceBench(self, means)


@dataclass(frozen=True, slots=True)
class _InstanceBench:
    suite: InstanceSuite
    means: Means

    async def ready(self, ids: Sequence[str]) -> AsyncIterator[Ready]:
        for id in ids:
            yield Ready(id, self.suite.task(id))

    async def grade(self, id: str, submission: Submission) -> Verdict:
        instance, means = self.suite.instance(id), self.means
        if instance.grading is None:
            raise InputError(f"{id} has no hidden tests")
        where = instance.task.repository
        if submission.base_commit is None:
            workspace = await apart(open_workspace, where, cache_root())
        else:
            workspace = await apart(reopen_workspace, where, submission.base_commit, cache_root())
        built = await build(means.provider, workspace, instance.task, run=submission.run, limits=means.limits)
        room = CleanRoom(means.provider, built, submission.run, means.timeout, TEST_SECONDS, means.limits)
        return await grade(room, instance.task, instance.grading, submission.patch, name=f"grade-{submission.name}")
