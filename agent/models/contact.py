"""First contact with a model's server: whether it is there, takes the key, and has the model, before anything is set up
that costs time."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from agent.models.client import ModelClient
from tasks.errors import CallRefused, EndpointFailed
from tasks.say import Say

LIST_SECONDS = 30.0
ONE_TOKEN = 16
"""The least that every API takes as a limit on an answer."""
_CONTEXTS = ("max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens", "n_ctx")
"""What lists of models call the context."""


async def greet(client: ModelClient, say: Say) -> None:
    """Make sure, once for all who share the connections, that the alias can be used: by the server's list of models,
    which costs nothing, or where that does not tell by a call of a few tokens, charged like any other.

    Raises EndpointFailed for a server that cannot be reached, refuses the key or does not know the model."""
    connections, name = client.connections, client.alias.alias
    async with connections.greeting:
        if name not in connections.greeted:
            began = time.monotonic()
            try:
                how = await _contact(client)
            except EndpointFailed as error:
                connections.greeted[name] = error
            else:
                connections.greeted[name] = None
                say(f"{name}: {how} in {time.monotonic() - began:.1f} s")
        if (known := connections.greeted[name]) is not None:
            raise known


async def listed(client: ModelClient) -> Sequence[Mapping[str, Any]]:
    """The models that the server lists, at no cost; none where it has no list. Raises EndpointFailed for a server that
    cannot be reached or refuses the key."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await client.wire.models()
    except Exception as error:
        failure = client.wire.failure(error)
        if failure is None:
            raise
        if failure.status in (401, 403) or failure.what == "connection":
            raise client.explained(failure) from error
        return ()


async def _contact(client: ModelClient) -> str:
    """How the server answered, in words."""
    alias = client.alias
    models = await listed(client)
    names = [str(model.get("id")) for model in models]
    if (found := entry_of(models, alias.name)) is not None:
        client.wire.dialect.context = context_of(found)
        return f"{urlsplit(alias.base_url).netloc} lists the model"
    try:
        await client.complete(
            [{"role": "user", "content": "Say ok."}], purpose="contact", attempt=None, key="contact", output=ONE_TOKEN
        )
    except CallRefused:
        pass  # it is there; what it says of this one call it need not say of others
    except EndpointFailed as error:
        has = f" It has: {', '.join(names[:8])}." if names and "404" in str(error) else ""
        raise EndpointFailed(f"{error}{has}") from error
    return f"{urlsplit(alias.base_url).netloc} answers"


def entry_of(models: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """What a server's list says of the model; None where it does not list it."""
    return next((m for m in models if str(m.get("id")).removeprefix("models/") == name), None)


def context_of(model: Mapping[str, Any]) -> int | None:
    """The tokens that a model in a server's list bears, where the list says so."""
    places = [model, *(model[k] for k in ("meta", "top_provider", "limits") if isinstance(model.get(k), dict))]
    told = (place.get(name) for place in places for name in _CONTEXTS)
    return next((n for n in told if isinstance(n, int) and n > 0), None)
