"""The seam between Troop and the APIs of model servers.

A wire turns a conversation into a request and a response into a message, a bill and an outcome. Retry, limits, budgets
and the trace know nothing of it, and it knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agent.models.dialect import Dialect
from agent.models.failures import Failure
from harness.records import Json, Usage


class Wire(Protocol):
    """How one alias is spoken to. A conversation is in the form of Chat Completions, whatever the server speaks; its
    assistant messages are as `message` gave them, with what only this API knows under `native`."""

    name: str
    """What `wire` in an alias calls it."""
    dialect: Dialect
    """What is known of the server by now; `request` follows it."""

    def request(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json],
        *,
        seed: int | None,
        temperature: float | None,
        output: int | None,
    ) -> Json:
        """The request's body. What the user wrote into the alias wins over what Troop varies; False there means: never
        send it. `output`: the limit on the answer's length in tokens (None: none, where the API can do without)."""
        ...

    def characters(self, request: Json) -> int:
        """The length of what the model reads, nearly."""
        ...

    def output_tokens(self, request: Json) -> int | None:
        """How long the answer may get at most; None where nothing says so."""
        ...

    async def send(self, request: Json) -> Any:
        """The server's response as JSON; a streamed one put together. Raises what `failure` explains."""
        ...

    def message(self, response: Any) -> Json:
        """The assistant message of a response, all of it that a later request has to send back. Raises Unusable for a
        response that holds none."""
        ...

    def cut(self, response: Any) -> bool:
        """Whether the answer was ended at the limit of its length."""
        ...

    def bill(self, response: Any) -> tuple[Usage | None, float | None]:
        """What any response says that it took: tokens (None where it does not say), and USD if the provider tells."""
        ...

    def failure(self, error: Exception) -> Failure | None:
        """What an error of `send` or `message` means; None for a defect of ours."""
        ...

    def learn(self, failure: Failure, request: Json) -> str:
        """Take from a refusal of `request` what to do otherwise from now on; says it in words, "" for nothing."""
        ...

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that the server lists. Raises what `failure` explains."""
        ...
