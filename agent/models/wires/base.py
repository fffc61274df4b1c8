"""The seam between Troop and the APIs of model servers.

A wire turns a conversation into a request and a response into a message, a bill and an outcome. Retry, limits, budgets
and the trace know nothing of it, and it knows nothing of them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import httpx2

from agent.config import WIRES, Alias
from agent.models.dialect import OUTPUT_NAMES, Dialect
from agent.models.failures import Failure, explain
from agent.models.usage import Bill, chat_bill, count
from agent.models.wires.server import Server
from agent.models.wires.texts import merged
from harness.records import Json


@dataclass(frozen=True, slots=True)
class Wish:
    """What Troop varies from call to call. `output`: the limit on the answer's length in tokens (None: none, where the
    API can do without)."""

    seed: int | None = None
    temperature: float | None = None
    output: int | None = None


class Wire(ABC):
    """How one alias is spoken to. A conversation is in the form of Chat Completions, whatever the server speaks; its
    assistant messages are as `message` gave them, with what only this API knows under `native`.

    What is done here holds for most APIs. A wire is made of an alias and a pool of connections, and raises
    EndpointFailed where the alias's key, or a package that it needs, is missing.
    """

    name: str
    """What `wire` in an alias calls it."""
    path: str
    """Where its calls go, below the base URL."""

    def __init__(self, alias: Alias, server: Server) -> None:
        self.dialect = Dialect(stream=alias.stream, system=alias.system_role, tools=alias.tools)
        """What is known of the server by now; `request` follows it."""
        self._alias = alias
        self._server = server
        self._sampling: Mapping[str, Any] = alias.sampling

    @abstractmethod
    def request(self, messages: Sequence[Json], tools: Sequence[Json], wish: Wish) -> Json:
        """The request's body. What the user wrote into the alias wins over what Troop varies; False there means: never
        send it."""

    @abstractmethod
    def message(self, response: Any) -> Json:
        """The assistant message of a response, all of it that a later request has to send back. Raises Unusable for a
        response that holds none."""

    @abstractmethod
    def cut(self, response: Any) -> bool:
        """Whether the answer was ended at the limit of its length."""

    @abstractmethod
    def learn(self, failure: Failure, request: Json) -> str:
        """Take from a refusal of `request` what to do otherwise from now on; says it in words, "" for nothing."""

    @abstractmethod
    def _parts(self, request: Json) -> Iterable[Json]:
        """What the model reads of a request, but for the tools."""

    @abstractmethod
    def _assembled(self, events: Sequence[Any]) -> Json:
        """The response that streamed events come to, in the form of one that is not streamed. Raises Unusable for an
        error in the midst of them, and where they end too early."""

    def characters(self, request: Json) -> int:
        """The length of what the model reads, nearly: writing the whole request as JSON to measure it takes ten times
        as long."""
        total = len(json.dumps(request["tools"])) if "tools" in request else 0
        for part in self._parts(request):
            total += 16
            for value in part.values():
                total += len(value) if isinstance(value, str) else len(str(value))
        return total

    def output_tokens(self, request: Json) -> int | None:
        """How long the answer may get at most, thinking included; None where nothing says so."""
        return count(request, *OUTPUT_NAMES) or None

    async def send(self, request: Json) -> Any:
        """The server's response as JSON; a streamed one put together. Raises what `failure` explains."""
        answer = await self._server.post(self.path, request)
        return self._assembled(answer) if request.get("stream") else answer

    def bill(self, response: Any) -> Bill:
        """What any response says that it took: tokens (None where it does not say), and USD if the provider tells."""
        return chat_bill(response)

    def failure(self, error: Exception) -> Failure | None:
        """What an error of `send` or `message` means; None for a defect of ours."""
        return explain(error, self._server.sdk)

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that the server lists. Raises what `failure` explains."""
        return await self._server.models()

    def _limit(self, output: int | None) -> int | None:
        """The limit on the answer's length, unless the user has set one."""
        return None if any(name in self._sampling for name in OUTPUT_NAMES) else output

    def _completed(self, body: Json, varied: Json) -> Json:
        """The body with what is varied, as far as the server takes it, and what the user wrote."""
        body |= {k: v for k, v in varied.items() if v is not None and k not in self.dialect.left_out}
        for name, value in self._sampling.items():
            body[name] = merged(body.get(name), value)
        for name in (*varied, *OUTPUT_NAMES):
            if body.get(name) is False and varied.get(name) is not False:
                del body[name]
        return body


def open_wire(name: str, alias: Alias, pool: httpx2.AsyncClient) -> Wire:
    """The wire that `wire` in an alias calls so, for the alias, by the connections of `pool`; it is imported only then.
    Raises EndpointFailed where the alias's key, or a package that the wire needs, is missing."""
    module, _, kind = WIRES[name].partition(":")
    return cast("Wire", getattr(import_module(module), kind)(alias, pool))
