"""The example tasks are what they say: each hidden test tells the buggy release from the one that upstream fixed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from harness.environments import environment
from harness.environments.base_run import baseline
from harness.environments.environment import CleanRoom
from harness.records import Verdict
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Provider
from harness.suites.instances import TEST_SECONDS, grade
from tasks.instance import Grading, Instance
from tasks.task import Repository
from tasks.taskfile import load_task_file

EXAMPLES = sorted((Path(__file__).parents[2] / "tasks" / "examples").glob("*.toml"))

FIXED = {
    "boltons-bits-length": "26.2.0",
    "humanize-intcomma-zero-digits": "4.2.1",
    "inflection-titleize-accents": "0.4.0",
    "jinja2-set-in-branches": "3.1.5",
    "networkx-two-edge-connected": "3.2",
    "parse-findall-case": "1.17.0",
    "sqlparse-lowercase-create-table": "0.4.3",
}
"""The first release of each package that is without the bug."""

example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def load(path: Path) -> tuple[Instance, Grading]:
    instance = load_task_file(path)
    assert instance.grading is not None
    return instance, instance.grading


def test_every_example_is_listed_and_none_is_missing() -> None:
    assert {path.stem for path in EXAMPLES} == set(FIXED)
    table = (EXAMPLES[0].parent / "README.md").read_text()
    for name, version in FIXED.items():
        assert any(f"`{name}`" in line and f"| {version} |" in line for line in table.splitlines()), name


@example
def test_an_example_is_a_release_with_hidden_tests_of_its_own(path: Path) -> None:
    instance, grading = load(path)
    assert instance.task.id == path.stem
    assert instance.task.repository.kind == "package"
    assert grading.fail_to_pass and grading.pass_to_pass
    hidden = {name for name, _ in grading.files}
    assert {test.partition("::")[0] for test in (*grading.fail_to_pass, *grading.pass_to_pass)} == hidden
    given = instance.task.failing_test
    assert given is None or not hidden & {name for name, _ in given.files}


@pytest.mark.network
@pytest.mark.slow
@example
def test_the_release_has_the_bug_and_the_later_one_has_not(path: Path, bubblewrap: Provider, cache: Path) -> None:
    instance, grading = load(path)
    name = instance.task.repository.location.partition("==")[0]
    later = replace(instance.task, repository=Repository("package", f"{name}=={FIXED[path.stem]}"))

    async def verdict(task_instance: Instance, *, check_base: bool) -> Verdict:
        task = task_instance.task
        workspace = await asyncio.to_thread(open_workspace, task.repository, cache)
        built = await environment.build(bubblewrap, workspace, task, run="examples")
        room = CleanRoom(bubblewrap, built, "examples", 1800.0, TEST_SECONDS)
        if check_base:  # the visible test fails and the package's own tests are green, or this raises
            base = await baseline(room, task, runs=1)
            assert base.report is not None
            given = set(task.failing_test.ids) if task.failing_test else set()
            assert set(base.report.failed) == given
            assert len(base.report.outcomes) > 50
        return await grade(room, task, grading, "")

    async def both() -> tuple[Verdict, Verdict]:
        return await asyncio.gather(
            verdict(instance, check_base=True), verdict(replace(instance, task=later), check_base=False)
        )

    before, after = asyncio.run(both())
    assert set(before.fail_to_pass.values()) == {"failed"}
    assert set(before.pass_to_pass.values()) == {"passed"}
    assert after.resolved, after.reason
