"""The seam between Troop and the APIs of model servers.

A wire turns a conversation into a request and a response into a message, a bill and an outcome. Retry, limits, budgets
and the trace know nothing of it, and it knows nothing of them.
"""

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2

from agent.config import WIRES, Alias, key_of
from agent.models.dialect import OUTPUT_NAMES, Dialect
from agent.models.failures import Failure, Unusable, explain
from agent.models.usage import Bill, chat_bill, count
from agent.models.wires.texts import merged
from harness.records import Json


class Server:
    """One alias's server, by the connections of `pool` and a `client` of the package `sdk` (openai or anthropic), with
    the package's headers `unsent` left out. Raises EndpointFailed where its key is missing; its calls raise errors of
    the package and of httpx2, and Unusable."""

    def __init__(
        self, sdk: ModuleType, client: Callable[..., Any], alias: Alias, pool: httpx2.AsyncClient, unsent: Iterable[str]
    ) -> None:
        self.sdk = sdk
        self._client = client(
            api_key=key_of(alias) or "none",  # without one the package would send the environment's to anybody
            base_url=alias.base_url,
            max_retries=0,
            http_client=pool,
            timeout=alias.timeout,
            default_headers=dict.fromkeys(unsent, sdk.Omit()),
        )
        # Without a key none is sent, which the packages want to be told each time.
        none = dict.fromkeys(("Authorization", "X-Api-Key"), sdk.Omit())
        self._options: Json = {} if alias.key_env else {"headers": none}

    async def post(self, path: str, body: Json) -> Any:
        """The JSON that the server answers; of a streamed answer the list of its events."""
        # The packages' own methods check and transform every message by its type: 40 ms at 200 messages; this, 2 ms.
        # As bytes, because JSON they copy first.
        sent = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        post = functools.partial(self._client.post, path, cast_to=object, content=sent, options=self._options)
        if body.get("stream"):
            async with await post(stream=True, stream_cls=self.sdk.AsyncStream[object]) as stream:
                return [event async for event in stream]
        answer = await post()
        if not isinstance(answer, str):
            return answer
        try:
            return json.loads(answer)
        except ValueError:
            raise Unusable(f"the body is no JSON answer: {answer[:200]!r}") from None

    async def models(self, **params: object) -> Sequence[Mapping[str, Any]]:
        """What the server lists."""
        options = {**self._options, "params": params}
        answer = await self._client.get("/models", cast_to=object, options=options)
        listed = answer.get("data") if isinstance(answer, dict) else answer
        if not isinstance(listed, list):
            raise Unusable(f"no list of models: {str(answer)[:200]!r}")
        return [model for model in listed if isinstance(model, dict)]


def openai_server(alias: Alias, pool: httpx2.AsyncClient) -> Server:
    """The server behind the package `openai`, which reads its organisation and project from the environment: not for
    other people's servers."""
    import openai

    foreign = urlsplit(alias.base_url).hostname != "api.openai.com"
    unsent = ("OpenAI-Organization", "OpenAI-Project") if foreign else ()
    return Server(openai, openai.AsyncOpenAI, alias, pool, unsent)


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
    EndpointFailed where the alias's key, or a package that it needs, is missing."""

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
