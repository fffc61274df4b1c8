"""The task of a row as attempts get it: in its image's environment, with the test framework that its command wants."""

from __future__ import annotations

from dataclasses import replace

from harness.sandbox.base import ENVDIR
from harness.swebench.names import ENV
from harness.testing.runners.registry import runner_of
from tasks.swebench import Row, task_of
from tasks.task import Environment, Repository, Task


def task_in_image(row: Row, repository: Repository, image: str) -> Task:
    """The row's task in its image; see `tasks.swebench.task_of`."""
    task = task_of(row, repository)
    assert task.test_command is not None, "every row has one"
    return replace(task, environment=Environment(image=image, setup=_setup(task.test_command)))


def _setup(command: str) -> tuple[str, ...]:
    """Published images have their environment at another place than a sandbox; and not every project tests with pytest.

    What is installed here stays in the sandboxes of attempts: grading has the image as it is.
    """
    python = f"{ENVDIR}/bin/python"
    link = f"test -x {python} || {{ rm -rf {ENVDIR} && ln -s {ENV} {ENVDIR}; }}"
    runner = runner_of(command)
    # Old trees import from `py` what newer pytests no longer bring along.
    there = f"{python} -m {runner.name} --version > /dev/null 2>&1"
    install = f"{there} || {python} -m pip install --quiet {' '.join(runner.packages)}"
    # The tree was laid anew, and no later run writes byte code.
    compiled = f"{python} -m compileall -q . > /dev/null 2>&1 || true"
    return (link, install, compiled) if runner.packages else (link, compiled)
