"""Chat Completions, as OpenAI and all who follow it speak it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.config import Alias, key_of
from agent.models.failures import Failure, Unusable, explain
from agent.models.usage import usage_of
from harness.records import Json, Usage

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from openai._types import RequestOptions
    from openai.types.chat import ChatCompletion

_OURS = frozenset({"seed", "temperature"})
"""Parameters that Troop adds so that attempts differ; left out for servers that refuse them."""


class ChatWire:
    """One alias on a Chat Completions server, by the connections of `pool`. Raises EndpointFailed where its key is
    missing."""

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        self._alias = alias
        self._client = _openai_client(alias, pool)
        self._options = _options(alias)

    def request(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json],
        *,
        seed: int | None,
        temperature: float | None,
        refused: Collection[str],
    ) -> Json:
        """The request's body. What the user wrote into the alias wins over what Troop varies; False there means: never
        send it."""
        body: Json = {"model": self._alias.name, "messages": [_sendable(m) for m in messages]}
        if tools:
            body["tools"] = list(tools)
        varied = {"seed": seed, "temperature": temperature}
        body |= {k: v for k, v in varied.items() if v is not None and k not in refused}
        body |= self._alias.sampling
        for name in [name for name in _OURS if body.get(name) is False]:
            del body[name]
        return body

    def optional(self, request: Json) -> frozenset[str]:
        """The parameters in it that Troop added and can leave out."""
        return _OURS & request.keys() - self._alias.sampling.keys()

    def characters(self, request: Json) -> int:
        """The length of what the model reads, nearly: writing the whole request as JSON to measure it takes ten times
        as long."""
        total = len(json.dumps(request["tools"])) if "tools" in request else 0
        for message in request["messages"]:
            total += 16
            for value in message.values():
                total += len(value) if isinstance(value, str) else len(str(value))
        return total

    def output_tokens(self, request: Json) -> int | None:
        """How long the answer may get at most, where the alias says so."""
        bound = request.get("max_completion_tokens") or request.get("max_tokens")
        return int(bound) if bound else None

    async def send(self, request: Json) -> ChatCompletion:
        """The server's response. Raises errors of openai and httpx2."""
        from openai.types.chat import ChatCompletion

        # `chat.completions.create` checks and transforms every message by its type: 40 ms at 200 messages; this, 2 ms.
        return await self._client.post("/chat/completions", cast_to=ChatCompletion, body=request, options=self._options)

    def message(self, response: Any) -> Json:
        """The assistant message of a response. Raises Unusable for one that holds no answer."""
        from openai.types.chat import ChatCompletion

        if not isinstance(response, ChatCompletion):
            raise Unusable(f"the body is no JSON answer: {str(response)[:200]!r}")
        choices = getattr(response, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise Unusable("the answer holds no message", getattr(response, "error", None))
        message: Json = choices[0].message.to_dict(mode="json", warnings=False)
        return {"role": "assistant", **message}

    def usage(self, response: Any) -> Usage | None:
        """What the response says that it took; None where it does not say."""
        return usage_of(response)

    def failure(self, error: Exception) -> Failure | None:
        """What an error means; None for a defect of ours."""
        return explain(error)


def _sendable(message: Json) -> Json:
    """Servers answer with null fields that some of them refuse to read back; `content` may be null."""
    if message.get("role") != "assistant" or None not in message.values():
        return message
    return {k: v for k, v in message.items() if v is not None or k == "content"}


def _options(alias: Alias) -> RequestOptions:
    """Options of every request: without a key no Authorization is sent, which the package wants to be told each
    time."""
    from openai import Omit

    return {} if alias.key_env else {"headers": {"Authorization": Omit()}}


def _openai_client(alias: Alias, pool: httpx2.AsyncClient) -> AsyncOpenAI:
    from openai import AsyncOpenAI, Omit

    key = key_of(alias)
    # The openai package reads its organisation and project from the environment: not for other people's servers.
    foreign = urlsplit(alias.base_url).hostname != "api.openai.com"
    headers: dict[str, Any] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()} if foreign else {}
    return AsyncOpenAI(
        api_key=key or "none",
        base_url=alias.base_url,
        max_retries=0,
        http_client=pool,
        timeout=alias.timeout,
        default_headers=headers,
    )
