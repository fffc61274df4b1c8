"""A suite of instances that bring their hidden tests as data (`tasks.instance.Grading`): QuixBugs; and the hidden
tests' word on one patch, which is never an input to selection.

The patch is applied in a fresh sandbox, test files that it touches are put back, the hidden tests are laid over the
tree and run. A patch resolves the task if and only if every test of `fail_to_pass` and of `pass_to_pass` passes; with
no `fail_to_pass` named, every test that the hidden files hold must pass, and there must be one. A test that did not run
is not a pass, and neither is one that was skipped.
"""

import contextlib
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.cache import cache_root
from harness.environments.environment import CleanRoom, build
from harness.evidence.verify import lay_patch
from harness.parallel import apart
from harness.patches.paths import pytest_collects
from harness.records import Json, TestReport, Verdict
from harness.repository.workspace import reopen_workspace
from harness.sandbox.base import Sandbox
from harness.suites.suite import Bench, Means, Ready, Submission
from harness.testing.report import COMMAND_TEST, outcome_of, selects
from tasks.errors import InputError
from tasks.instance import Grading, Instance
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

    def only(self, ids: Container[str]) -> "InstanceSuite":
        return replace(self, instances=tuple(each for each in self.instances if each.task.id in ids))

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

    async def leave(self, id: str) -> None:
        """Nothing: its sandboxes are gone."""

    async def grade(self, id: str, submission: Submission) -> Verdict:
        instance, means = self.suite.instance(id), self.means
        if instance.grading is None:
            raise InputError(f"{id} has no hidden tests")
        workspace = await apart(reopen_workspace, instance.task.repository, submission.base_commit, cache_root())
        built = await build(means.provider, workspace, instance.task, run=submission.run, limits=means.limits)
        room = CleanRoom(means.provider, built, submission.run, means.timeout, TEST_SECONDS, means.limits)
        return await grade(room, instance.task, instance.grading, submission.patch, name=f"grade-{submission.name}")


# ---- grading

TEST_SECONDS = 120.0
"""Of one hidden test."""


async def grade(room: CleanRoom, task: Task, grading: Grading, patch: str, *, name: str = "grade") -> Verdict:
    """The verdict on one patch ("" is the base itself), in a sandbox called `name`.

    Raises SandboxFailed where sandboxes keep dying: that is no verdict."""

    async def in_sandbox(sandbox: Sandbox) -> Verdict:
        if (reason := await lay_patch(sandbox, task, patch)) is not None:
            named = grading.fail_to_pass, grading.pass_to_pass
            to_pass, to_keep = (dict.fromkeys(tests, "missing") for tests in named)
            return Verdict(False, to_pass, to_keep, f"the patch does not apply: {reason}")
        for path, text in grading.files:  # in place of whatever lies there
            await sandbox.write(path, text.encode("utf-8", "surrogateescape"))
        # What is run: the tests that are named, else the files that hold tests.
        ids = dict.fromkeys((*(grading.fail_to_pass or _test_files(grading)), *grading.pass_to_pass))
        return verdict(grading, await room.tests(sandbox, tuple(ids), command=grading.test_command))

    return await room.fresh(name, in_sandbox)


def _test_files(grading: Grading) -> tuple[str, ...]:
    """The hidden files that hold tests, as their names tell; all of them where no name does."""
    paths = [path for path, _ in grading.files]
    python = [path for path in paths if path.endswith(".py") and not path.endswith(("conftest.py", "__init__.py"))]
    named = [path for path in python if pytest_collects(path) or path.endswith("/tests.py")]
    return tuple(named or python or paths)


def verdict(grading: Grading, report: TestReport) -> Verdict:
    """The verdict that a report of the hidden tests amounts to."""
    whole = report.outcomes.get(COMMAND_TEST)  # a command that knows no tests answers as a whole
    ran = {test for file in _test_files(grading) for test in report.outcomes if selects(file, test)}
    found = [COMMAND_TEST] if whole else sorted(ran)
    to_pass, to_keep = (
        {test: str(whole or outcome_of(report, test)) for test in tests}
        for tests in (grading.fail_to_pass or found, grading.pass_to_pass)
    )
    missed = [test for test, outcome in (*to_pass.items(), *to_keep.items()) if outcome != "passed"]
    reason = ""
    if report.timed_out:
        reason = f"the hidden tests timed out: {report.reason}"
    elif not report.valid:
        reason = f"the hidden tests did not run as they should: {report.reason}"
    elif not to_pass:
        reason = "the hidden files hold no test that ran"
    elif missed:
        kept = sum(outcome != "passed" for outcome in to_keep.values())
        reason = f"{len(missed)} of {len(to_pass) + len(to_keep)} hidden tests do not pass" + (
            f", {kept} of them passed before" if kept else ""
        )
    return Verdict(resolved=not reason, fail_to_pass=to_pass, pass_to_pass=to_keep, reason=reason)
