"""The seam between Troop and the APIs of model servers.

A wire turns a conversation into a request and a response into a message, a usage and an outcome. Retry, limits, budgets
and the trace know nothing of it, and it knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from agent.models.failures import Failure
from harness.records import Json, Usage


class Wire(Protocol):
    """How one model is spoken to. A conversation is in the form of Chat Completions, whatever the server speaks."""

    def request(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json],
        *,
        seed: int | None,
        temperature: float | None,
        refused: Collection[str],
    ) -> Json:
        """The request. `refused`: parameters that the server has said it does not take; they are left out."""
        ...

    def optional(self, request: Json) -> frozenset[str]:
        """The parameters in it that Troop added and can leave out."""
        ...

    def characters(self, request: Json) -> int:
        """The length of what the model reads, nearly."""
        ...

    def output_tokens(self, request: Json) -> int | None:
        """How long the answer may get at most; None where nothing says so."""
        ...

    async def send(self, request: Json) -> Any:
        """The server's response. Raises what `failure` explains."""
        ...

    def message(self, response: Any) -> Json:
        """The assistant message of a response, in the form of Chat Completions. Raises Unusable for one that holds no
        answer."""
        ...

    def usage(self, response: Any) -> Usage | None:
        """What the response says that it took; None where it does not say."""
        ...

    def failure(self, error: Exception) -> Failure | None:
        """What an error of `send` or `message` means; None for a defect of ours."""
        ...
