"""Who decides inside an attempt: the `Policy` protocol and the data that it sees and gives.

A policy turns what an attempt knows (`View`) into a plan, then into one `Decision` a turn. It has no effects of its
own: commands go through the sandbox, model calls through `View.ask`, both recorded by the attempt. Two policies exist:
`agent.attempt.model_policy.ModelPolicy` and `agent.repair.policy.RepairPolicy`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.config import CONTEXT
from harness.records import AttemptStatus, Json, Purpose, TestReport
from harness.sandbox.base import Sandbox
from harness.trace import Decided, Planned, Prepared, Replied, ToolRan
from tasks.errors import BudgetExceeded
from tasks.task import Task


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool by name (see `agent.attempt.tools`). `id` ties the result to the call. `problem`: why it can
    only be refused."""

    id: str
    name: str
    arguments: Json
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn's decision.

    `calls` run in order; a `test` call, which must be the last, runs in the graph's test node. `error`: the reply was
    malformed; it says how, the attempt answers with a correction and counts it. `stop` ends the attempt after the
    calls, unless the last of them is a submit that is asked back. `thoughts`: what the model thought before it, for
    people."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    error: str = ""
    stop: AttemptStatus | None = None
    thoughts: str = ""

    def event(self, attempt: int | None, turn: int, under: str = "") -> Decided:
        """As the trace has it. `attempt` None: of the judge; its calls' ids are `under` the name of the hearing."""
        return Decided(
            attempt=attempt,
            turn=turn,
            text=self.text,
            calls=tuple({"id": under + c.id, "name": c.name, "arguments": c.arguments} for c in self.calls),
            error=self.error,
            stop=self.stop or "",
            thoughts=self.thoughts,
        )


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A finished turn, as later turns see it. `report`: the turn's test run, if there was one."""

    turn: int
    decision: Decision
    results: tuple[ToolRan, ...]
    report: TestReport | None = None


class Ask(Protocol):
    """One charged model call: `messages` and `tools` in the form of Chat Completions.

    `key` names the call within the attempt ("plan", "17"): a key already answered in the trace is not paid again.
    `longer`: how many answers of this conversation were cut so far; the limit on the answer's length is doubled for
    each. Raises BudgetExceeded before a call that would pass a cap; ContextTooLong, ReplyUnreadable, ToolsRefused and
    other CallRefused where the server does not take this call; EndpointFailed when the world stays broken.

    The message of the answer, sent back as it is, is to the server what it was. Where the API has another form than
    Chat Completions the message holds that too, under `native`; whoever changes its text or calls leaves `native` out.
    """

    async def __call__(
        self, key: str, purpose: Purpose, messages: Sequence[Json], tools: Sequence[Json] = (), *, longer: int = 0
    ) -> Replied: ...


def asking(
    complete: Callable[..., Awaitable[Replied]],
    known: dict[str, Replied],
    name: str,
    end: Callable[[BudgetExceeded], None],
) -> Ask:
    """The charged call of an attempt or a judge: what is `known` by key is not asked again. `complete`: the client's,
    told whose call it is. `name`: what keys begin with in the trace. `end` is told of a cap that is reached."""

    async def ask(
        key: str, purpose: Purpose, messages: Sequence[Json], tools: Sequence[Json] = (), *, longer: int = 0
    ) -> Replied:
        if key not in known:
            try:
                known[key] = await complete(messages, tools, purpose=purpose, key=f"{name}/{key}", longer=longer)
            except BudgetExceeded as error:
                end(error)
                raise
        return known[key]

    return ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What the next turn of a conversation with a model goes on from.

    `turns_left` counts the turn about to be decided. `history`: finished turns in order. `replies`: what the model
    answered so far, by the call's key. `context`: tokens that the model bears, as known now."""

    ask: Ask
    history: Sequence[TurnRecord]
    turns_left: int
    replies: Mapping[str, Replied] = field(default_factory=dict)
    context: int = CONTEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Talk):
    """What a policy may see of its own attempt, and nothing of any other. `seed`: differs by attempt."""

    task: Task
    prepared: Prepared
    index: int
    seed: int
    sandbox: Sandbox
    plan: Planned


class Policy(Protocol):
    """Decides for one attempt; made anew for each attempt (state that must survive a resume goes into `Planned.data`).

    `only_green`: the policy tries changes blindly, so its tree is a patch only if the last test run was green."""

    only_green: bool

    async def plan(self, view: View) -> Planned:
        """Before the first turn (`view.plan` is empty, `view.history` too). `stop` ends the attempt before it (repair:
        "no-failing-test"); whose it is and how long it took is not the policy's to say."""
        ...

    async def decide(self, view: View) -> Decision:
        """The next turn."""
        ...
