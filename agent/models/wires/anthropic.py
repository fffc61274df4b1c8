"""Anthropic Messages, as Anthropic and those who follow it speak it."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx2

from agent.config import PROVIDERS, Alias
from agent.models.failures import Failure, says
from agent.models.usage import count
from agent.models.wires.base import Server, Wire, Wish
from agent.models.wires.blocks import THINKING, as_blocks, as_message, as_tool, assembled
from agent.models.wires.texts import system_merged
from harness.records import Json
from tasks.errors import EndpointFailed, Explained

USUAL_OUTPUT = 8192
"""Tokens that an answer may have where nobody says; the API must be told."""
LEAST_ROOM = 1024
"""Tokens of an answer below which a shorter limit is no way to make a conversation fit."""
_CUT = frozenset({"max_tokens", "model_context_window_exceeded"})
_SUM = re.compile(r"(\d[\d,]*) \+ \d[\d,]* > \d")


class AnthropicWire(Wire):
    """One alias on a server of the Messages API. The API has no `seed`, and no temperature above 1 or beside thinking;
    a budget for thinking comes on top of the limit on an answer."""

    name = "anthropic"
    path = "/messages"

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        why = f"The model {alias.alias} needs the package anthropic (pip install 'anthropic>=2,<3')"
        with Explained(why, ImportError, kind=EndpointFailed):
            import anthropic
        place = replace(alias, base_url=alias.base_url.rstrip("/").removesuffix("/v1") + "/v1")
        super().__init__(alias, Server(anthropic, anthropic.AsyncAnthropic, place, pool, _not_for(alias.base_url)))
        self._thoughts_wanted = False  # before calls, by a model that thinks unasked
        self._density: float | None = None  # tokens per character, where a refusal told

    def request(self, messages: Sequence[Json], tools: Sequence[Json], wish: Wish) -> Json:
        known, sampling = self.dialect, self._sampling
        left_out = THINKING if "thinking" in known.fields else ()
        system, chat = as_blocks(messages if known.system else system_merged(messages), left_out)
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
        body["max_tokens"] = min((wish.output or USUAL_OUTPUT) + budget, known.most_output or 1 << 40)
        heat = min(wish.temperature, 1.0) if wish.temperature is not None and kind == "disabled" else None
        body = self._completed(body, {"temperature": heat, "stream": known.stream or None})
        if (kind == "enabled" or self._thoughts_wanted) and self._thoughts_are_missing(messages):
            body["thinking"] = {"type": "disabled"}
        if self._density and known.context and "max_tokens" not in sampling:
            room = known.context - int(1.02 * self._density * self.characters(body))
            body["max_tokens"] = min(body["max_tokens"], room) if room >= LEAST_ROOM else body["max_tokens"]
        return body

    def _parts(self, request: Json) -> Iterable[Json]:
        return (*request.get("system", ()), *(block for message in request["messages"] for block in message["content"]))

    def _assembled(self, events: Sequence[Any]) -> Json:
        return assembled(events)

    def message(self, response: Any) -> Json:
        return as_message(response)

    def cut(self, response: Any) -> bool:
        return isinstance(response, dict) and str(response.get("stop_reason")) in _CUT

    def learn(self, failure: Failure, request: Json) -> str:
        if failure.too_long and (found := _SUM.search(failure.said)):
            self._density = int(found[1].replace(",", "")) / max(1, self.characters(request))
        thoughts = any(b.get("type") in THINKING for m in request["messages"] for b in m["content"])
        if failure.of_request and thoughts and says("thoughts_refused", failure.said):
            self.dialect.fields.add("thinking")
            return "its thoughts are not sent back"
        if failure.of_request and says("thoughts_wanted", failure.said) and not self._thoughts_wanted:
            self._thoughts_wanted = True
            return "it does not think where its thoughts are not at hand"
        known = self.dialect
        ours = {"max_tokens", "temperature", "cache_control"} - self._alias.sampling.keys() - known.left_out
        if known.most_output and request.get("max_tokens", 0) > known.most_output:  # learnt by now from another call
            ours.discard("max_tokens")
        return known.learn(failure, ours, ())

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that the server lists; where it says how long the alias's answers may get, that is learnt."""
        models = await self._server.models(limit=1000)
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


def _not_for(base_url: str) -> list[str]:
    """The headers that the package takes from the environment, for servers that they are not meant for."""
    own = PROVIDERS["anthropic"]
    meant = os.environ.get(own.elsewhere) or own.base_url
    if urlsplit(base_url).netloc == urlsplit(meant).netloc:
        return []
    lines = os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n")
    return [line.partition(":")[0].strip() for line in lines if ":" in line]
