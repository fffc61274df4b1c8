"""A suite: instances by id, how each is made ready, and the hidden tests' word on a patch.

`Suite` is what the command line loads; `Bench` is the same with a provider of sandboxes at hand. What solves gets a
`Task` from `Ready`, and nothing else of this.
"""

from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from harness.records import Json, Verdict
from harness.sandbox.base import Limits, Provider
from tasks.say import Say
from tasks.task import Task


@dataclass(frozen=True, slots=True)
class Ready:
    """One instance that can be worked on now. `task` None: it cannot, and `failure` says why."""

    id: str
    task: Task | None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A patch against `base_commit`, to be graded. `name`: the candidate; `run`: whose sandboxes these are."""

    name: str
    patch: str
    run: str
    base_commit: str


@dataclass(frozen=True, slots=True)
class Means:
    """What a bench works with. `timeout`: seconds of one grading's tests; `workers`: gradings at a time."""

    provider: Provider
    limits: Limits
    timeout: float
    workers: int
    say: Say


class Bench(Protocol):
    """A suite at work."""

    def ready(self, ids: Sequence[str]) -> AsyncIterator[Ready]:
        """Each of the instances once, as it becomes ready: those that are so already first."""

    async def grade(self, id: str, submission: Submission) -> Verdict:
        """The hidden tests' word on one patch. Raises EnvironmentFailed where they could not be run."""

    async def leave(self, id: str) -> None:
        """The instance is done with: what only it needed may go."""


class Suite(Protocol):
    """The chosen instances of a suite. `image`: a Docker image that its tasks need, if one can be named beforehand."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def image(self) -> str | None: ...

    def only(self, ids: Container[str]) -> Self:
        """The suite of these of its instances."""

    def described(self) -> Json:
        """What names these instances, to be kept with the evaluation."""

    def task(self, id: str) -> Task:
        """The task, as far as it is known before its environment is there."""

    def missing(self) -> Mapping[str, str]:
        """What instances still need before they can be worked on, if anything, in a few words. Starts nothing."""

    def at_work(self, means: Means) -> AbstractAsyncContextManager[Bench]:
        """The bench; at the end nothing of it is left running."""
