"""Anthropic Messages, as Anthropic and those who follow it speak it."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.config import PROVIDERS, Alias, key_of
from agent.models.dialect import Dialect
from agent.models.failures import Failure, Unusable, explain
from agent.models.usage import chat_bill, count
from agent.models.wires.blocks import THINKING, as_blocks, as_message, as_tool, assembled
from agent.models.wires.texts import system_merged
from harness.records import Json, Usage
from tasks.errors import EndpointFailed

if TYPE_CHECKING:
    import httpx2
    from anthropic import RequestOptions

USUAL_OUTPUT = 8192
"""Tokens that an answer may have where nobody says; the API must be told."""
LEAST_ROOM = 1024
"""Tokens of an answer below which a shorter limit is no way to make a conversation fit."""
_CUT = frozenset({"max_tokens", "model_context_window_exceeded"})
_THOUGHTS_REFUSED = re.compile(r"signature|thinking.{0,60}cannot be modified", re.IGNORECASE | re.DOTALL)
_THOUGHTS_WANTED = re.compile(r"expected .?thinking.{0,40}but found", re.IGNORECASE)
_SUM = re.compile(r"(\d[\d,]*) \+ \d[\d,]* > \d")


class AnthropicWire:
    """One alias on a server of the Messages API, by the connections of `pool`. Raises EndpointFailed where its key or
    the package `anthropic` is missing."""

    name = "anthropic"

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        try:
            from anthropic import AsyncAnthropic, Omit
        except ImportError as error:
            raise EndpointFailed(
                f"The model {alias.alias} needs the package anthropic: pip install 'troop[anthropic]'"
            ) from error
        self.dialect = Dialect(stream=alias.stream, system=alias.system_role, tools=alias.tools)
        self._alias = alias
        self._thoughts_wanted = False  # before calls, by a model that thinks unasked
        self._density: float | None = None  # tokens per character, where a refusal told
        self._client = AsyncAnthropic(
            api_key=key_of(alias) or "none",  # without one the package would send the environment's to anybody
            base_url=alias.base_url.rstrip("/").removesuffix("/v1"),
            max_retries=0,
            http_client=pool,
            timeout=alias.timeout,
            default_headers=_not_for(alias.base_url),
        )
        none: dict[str, Any] = {"Authorization": Omit(), "X-Api-Key": Omit()}
        self._options: RequestOptions = {} if alias.key_env else {"headers": none}

    def request(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json],
        *,
        seed: int | None,
        temperature: float | None,
        output: int | None,
    ) -> Json:
        """The request's body, with marks of the prompt cache. The API has no `seed`, and no temperature above 1 or
        beside thinking; a budget for thinking comes on top of `output`."""
        known, sampling = self.dialect, self._alias.sampling
        system, chat = as_blocks(
            messages if known.system else system_merged(messages), THINKING if "thinking" in known.fields else ()
        )
        body: Json = {"model": self._alias.name, "messages": chat}
        if system:
            body["system"] = system
        if tools:
            body["tools"] = [as_tool(tool) for tool in tools]
        if "cache_control" not in known.left_out:
            _mark(body)
        thinking = sampling.get("thinking")
        kind = thinking.get("type", "disabled") if isinstance(thinking, Mapping) else "disabled"
        budget = count(thinking, "budget_tokens") or 0 if kind == "enabled" else 0
        body["max_tokens"] = min((output or USUAL_OUTPUT) + budget, known.most_output or 1 << 40)
        if temperature is not None and kind == "disabled" and "temperature" not in known.left_out:
            body["temperature"] = min(temperature, 1.0)
        if known.stream:
            body["stream"] = True
        body |= sampling
        for name in [name for name in ("max_tokens", "temperature", "stream") if body.get(name) is False]:
            del body[name]
        if (kind == "enabled" or self._thoughts_wanted) and self._thoughts_are_missing(messages):
            body["thinking"] = {"type": "disabled"}
        if self._density and known.context and "max_tokens" not in sampling:
            room = known.context - int(1.02 * self._density * self.characters(body))
            body["max_tokens"] = min(body["max_tokens"], room) if room >= LEAST_ROOM else body["max_tokens"]
        return body

    def characters(self, request: Json) -> int:
        """The length of what the model reads, nearly."""
        total = len(json.dumps(request["tools"])) if "tools" in request else 0
        total += sum(len(block["text"]) for block in request.get("system", ()))
        for message in request["messages"]:
            total += 16
            for block in message["content"]:
                for value in block.values():
                    total += len(value) if isinstance(value, str) else len(str(value))
        return total

    def output_tokens(self, request: Json) -> int | None:
        """How long the answer may get at most, thinking included."""
        return count(request, "max_tokens")

    async def send(self, request: Json) -> Any:
        """The server's response; a streamed one put together. Raises errors of anthropic and httpx2, and Unusable."""
        from anthropic import AsyncStream

        # As bytes: JSON the package copies first, and its own methods check every block and refuse long answers.
        sent = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        post = functools.partial(self._client.post, "/v1/messages", cast_to=object, content=sent, options=self._options)
        if request.get("stream"):
            async with await post(stream=True, stream_cls=AsyncStream[object]) as stream:
                return assembled([event async for event in stream])
        answer = await post()
        if not isinstance(answer, str):
            return answer
        try:
            return json.loads(answer)
        except ValueError:
            raise Unusable(f"the body is no JSON answer: {answer[:200]!r}") from None

    def message(self, response: Any) -> Json:
        """The assistant message of a response. Raises Unusable for one that holds no list of blocks."""
        return as_message(response)

    def cut(self, response: Any) -> bool:
        """Whether the answer was ended at the limit of its length, or of the context."""
        return isinstance(response, dict) and str(response.get("stop_reason")) in _CUT

    def bill(self, response: Any) -> tuple[Usage | None, float | None]:
        """What the response says that it took: tokens, and USD if a gateway tells."""
        return chat_bill(response)

    def failure(self, error: Exception) -> Failure | None:
        """What an error means; None for a defect of ours."""
        import anthropic

        if isinstance(error, anthropic.APIStatusError) and error.status_code < 400:
            error = Unusable("the stream ended with an error", error.body)
        return explain(error, anthropic)

    def learn(self, failure: Failure, request: Json) -> str:
        """Take from a refusal what to do otherwise from now on; says it in words."""
        if failure.too_long and (found := _SUM.search(failure.said)):
            self._density = int(found[1].replace(",", "")) / max(1, self.characters(request))
        thoughts = any(b.get("type") in THINKING for m in request["messages"] for b in m["content"])
        if failure.of_request and thoughts and _THOUGHTS_REFUSED.search(failure.said):
            self.dialect.fields.add("thinking")
            return "its thoughts are not sent back"
        if failure.of_request and _THOUGHTS_WANTED.search(failure.said) and not self._thoughts_wanted:
            self._thoughts_wanted = True
            return "it does not think where its thoughts are not at hand"
        known = self.dialect
        ours = {"max_tokens", "temperature", "cache_control"} - self._alias.sampling.keys() - known.left_out
        if known.most_output and request.get("max_tokens", 0) > known.most_output:  # learnt by now from another call
            ours.discard("max_tokens")
        return known.learn(failure, ours, ())

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that the server lists; where it says how long the alias's answers may get, that is learnt."""
        answer = await self._client.get(
            "/v1/models", cast_to=object, options={**self._options, "params": {"limit": 1000}}
        )
        listed = answer.get("data") if isinstance(answer, dict) else answer
        if not isinstance(listed, list):
            raise Unusable(f"no list of models: {str(answer)[:200]!r}")
        models = [model for model in listed if isinstance(model, dict)]
        own = next((model for model in models if model.get("id") == self._alias.name), None)
        self.dialect.most_output = self.dialect.most_output or count(own, "max_tokens") or None
        return models

    def _thoughts_are_missing(self, messages: Sequence[Json]) -> bool:
        """Whether the latest calls come without what the model thought before them: the API then refuses to have it
        think between them."""
        last = next((m for m in reversed(messages) if m.get("role") == "assistant"), {})
        return bool(last.get("tool_calls")) and ("native" not in last or "thinking" in self.dialect.fields)


def _mark(body: Json) -> None:
    """Marks of the prompt cache, four at most: at the end of the tools and of the system blocks, and at the latest two
    turns of the user, so that each turn finds what the one before has stored."""
    turns = [message["content"] for message in body["messages"] if message["role"] == "user"]
    for blocks in (body.get("tools"), body.get("system"), *turns[-2:]):
        if blocks:
            blocks[-1] = {**blocks[-1], "cache_control": {"type": "ephemeral"}}


def _not_for(base_url: str) -> dict[str, Any]:
    """The headers that the package takes from the environment, left out for servers that they are not meant for."""
    from anthropic import Omit

    own = PROVIDERS["anthropic"]
    meant = os.environ.get(own.elsewhere) or own.base_url
    if urlsplit(base_url).netloc == urlsplit(meant).netloc:
        return {}
    lines = os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n")
    return {line.partition(":")[0].strip(): Omit() for line in lines if ":" in line}
