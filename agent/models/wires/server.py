"""A model's server behind the client of a vendor's package, as the wires use it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx2

from agent.config import Alias, key_of
from agent.models.failures import Unusable
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
