"""Jobs as records, for workers on other machines: what they have to know of a run, of one job of it, and of an answer.

A worker (`agent.run.worker`) has two calls back: `ask`, the charged call of a model, and `write`, an event for the
trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.run.context import Run
from agent.version import VERSION
from harness import trace
from harness.environments.environment import Built
from harness.records import Candidate, WitnessTest
from tasks.errors import InputError, SandboxFailed
from tasks.task import Task

if TYPE_CHECKING:
    from agent.config import Settings
    from agent.models.client import ModelClient, Reply


class NodeLost(SandboxFailed):
    """The node that a job was on is gone, with all that ran there."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all jobs of one run have in common. `built`: their environment, made anew (or taken from a registry) where
    its key is not found; `described`: as in `Workspace`. The workspace itself travels apart, once for each node."""

    run: str
    task: Task
    settings: Settings
    built: Built
    prepared: trace.Prepared
    described: str
    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of a model's server by now: the tokens that it bears, and whether it takes tools."""

    context: int
    takes_tools: bool

    @classmethod
    def by(cls, client: ModelClient | None) -> Served | None:
        return cls(client.context, client.takes_tools) if client is not None else None


@dataclass(frozen=True, slots=True)
class AttemptJob:
    """Drive an attempt that has begun to its end. `events`: its own so far, of which finished turns are restored, and
    what of the run opens it again; its seed and sampling are in the first. `seconds_left`: until a cap on time, None
    without one. `served`: None for `repair`."""

    index: int
    events: tuple[trace.Event, ...]
    seconds_left: float | None
    served: Served | None


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Find the evidence on a candidate; see `agent.run.context.Executor.verify`."""

    candidate: Candidate
    regression: tuple[str, ...]
    witnesses: tuple[WitnessTest, ...]
    test_seconds: float


Job = AttemptJob | VerifyJob


@dataclass(frozen=True, slots=True)
class Question:
    """What a job asks of its model: the arguments of `ModelClient.complete`, and the number of the question."""

    number: int
    model: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question, or the error that came of it."""

    reply: Reply | Exception
    served: Served


def terms_of(run: Run) -> Terms:
    """The terms of a run that is prepared. Raises InputError where another machine cannot have its tree."""
    assert run.base is not None, "prepare comes first"
    if any(run.base.submodules().values()):
        raise InputError("submodules are taken from your checkout, which other machines do not have: --executor local")
    return Terms(run.name, run.task, run.settings, run.environment, run.prepared(), run.base.described)


def attempt_job(run: Run, index: int) -> AttemptJob:
    """The job of an attempt as its trace stands now, when its clock starts."""
    run.keeper.start_attempt(index, elapsed=run.notebook(index).seconds)
    of_run = (trace.RunResumed, trace.RunReopened, trace.BudgetReached)
    events = tuple(event for event in run.events if event.attempt == index or isinstance(event, of_run))
    served = Served.by(run.clients.get(run.model_of(index)))
    return AttemptJob(index, events, run.keeper.seconds_left(index), served)
