"""The `openai` package's client, as the wires to OpenAI-compatible servers use it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.config import Alias, key_of
from agent.models.failures import Failure, Unusable, explain
from harness.records import Json

if TYPE_CHECKING:
    import httpx2
    from openai._types import RequestOptions


class OpenAIClient:
    """One alias's server, by the connections of `pool`. Raises EndpointFailed where its key is missing."""

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        from openai import AsyncOpenAI, Omit

        # The openai package reads its organisation and project from the environment: not for other people's servers.
        foreign = urlsplit(alias.base_url).hostname != "api.openai.com"
        headers: dict[str, Any] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()} if foreign else {}
        self._client = AsyncOpenAI(
            api_key=key_of(alias) or "none",
            base_url=alias.base_url,
            max_retries=0,
            http_client=pool,
            timeout=alias.timeout,
            default_headers=headers,
        )
        # Without a key no Authorization is sent, which the package wants to be told each time.
        self._options: RequestOptions = {} if alias.key_env else {"headers": {"Authorization": Omit()}}

    async def post(self, path: str, body: Json) -> Any:
        """The JSON that the server answers. Raises errors of openai and httpx2, Unusable for what is no JSON."""
        # The package's own methods check and transform every message by its type: 40 ms at 200 messages; this, 2 ms.
        answer = await self._client.post(path, cast_to=object, body=body, options=self._options)
        if not isinstance(answer, str):
            return answer
        try:
            return json.loads(answer)
        except ValueError:
            raise Unusable(f"the body is no JSON answer: {answer[:200]!r}") from None

    async def stream(self, path: str, body: Json) -> AsyncIterator[Any]:
        """The events of a streamed answer, as JSON."""
        from openai import AsyncStream

        stream = await self._client.post(
            path, cast_to=object, body=body, options=self._options, stream=True, stream_cls=AsyncStream[object]
        )
        async with stream:
            async for event in stream:
                yield event

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """What the server lists. Raises errors of openai and httpx2, Unusable for what is no list."""
        answer = await self._client.get("/models", cast_to=object, options=self._options)
        listed = answer.get("data") if isinstance(answer, dict) else answer
        if not isinstance(listed, list):
            raise Unusable(f"no list of models: {str(answer)[:200]!r}")
        return [model for model in listed if isinstance(model, dict)]


def openai_failure(error: Exception) -> Failure | None:
    """What an error of this client means; None for a defect of ours."""
    import openai

    return explain(error, openai)
