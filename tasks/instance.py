"""A task with its hidden grading data, which no solver may see. What solves, verifies or selects never imports it."""

from dataclasses import dataclass

from tasks.task import Task


@dataclass(frozen=True, slots=True)
class Grading:
    """Hidden grading data: never an input to solving, verification or selection.

    `files`: (path, text) test files laid over the patched tree.
    `fail_to_pass`, `pass_to_pass`: test ids; an empty `fail_to_pass` with `files` means: every test in those files.
    `test_command` overrides the task's."""

    files: tuple[tuple[str, str], ...] = ()
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    test_command: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A task together with its hidden grading data (None: it cannot be graded)."""

    task: Task
    grading: Grading | None = None
