"""Chat Completions, as OpenAI and all who follow it speak it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.config import Alias
from agent.models.dialect import OUTPUT_NAMES, Dialect
from agent.models.failures import Failure, Unusable
from agent.models.usage import chat_bill
from agent.models.wires.openai_client import OpenAIClient, openai_failure
from agent.models.wires.texts import encodable, system_merged
from harness.records import Json, Usage

if TYPE_CHECKING:
    import httpx2

_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_USUAL = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "id", "type", "function"})
_GROWING = frozenset({"content", "refusal", "arguments", "text", "summary", "data", "reasoning", "reasoning_content"})


class ChatWire:
    """One alias on a Chat Completions server, by the connections of `pool`. Raises EndpointFailed where its key is
    missing."""

    name = "chat"

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        self.dialect = Dialect(stream=alias.stream, system=alias.system_role, tools=alias.tools)
        if "//api.openai.com" in alias.base_url:
            self.dialect.output_name = "max_completion_tokens"
        self._alias = alias
        self._client = OpenAIClient(alias, pool)
        # Claude behind another provider caches only what is marked.
        self._marks = "claude" in alias.name.lower()

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
        send it."""
        known = self.dialect
        chat: list[Json] = list(messages) if known.system else system_merged(messages)
        chat = [_sent_back(m, known) if m.get("role") == "assistant" else m for m in chat]
        if known.one_call:
            chat = list(_one_call_each(chat))
        body: Json = {"model": self._alias.name, "messages": marked(chat) if self._marks else chat}
        if tools:
            body["tools"] = list(tools)
        varied: Json = {"seed": seed, "temperature": temperature}
        if not any(name in self._alias.sampling for name in OUTPUT_NAMES):
            varied[known.output_name] = output
        if known.stream:
            varied |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= {k: v for k, v in varied.items() if v is not None and k not in known.left_out}
        body |= self._alias.sampling
        for name in [name for name in (*varied, *OUTPUT_NAMES) if body.get(name) is False]:
            del body[name]
        return body

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
        """How long the answer may get at most, where the request says so."""
        return next((int(request[name]) for name in OUTPUT_NAMES if request.get(name)), None)

    async def send(self, request: Json) -> Any:
        """The server's response; a streamed one put together. Raises errors of openai and httpx2, and Unusable."""
        if not request.get("stream"):
            return await self._client.post("/chat/completions", request)
        return assembled([chunk async for chunk in self._client.stream("/chat/completions", request)])

    def message(self, response: Any) -> Json:
        """The assistant message of a response. Raises Unusable for one that holds no answer."""
        choice = _choice(response)
        message = choice.get("message")
        if not isinstance(message, dict) or choice.get("finish_reason") == "error":
            told = choice.get("error") or (response.get("error") if isinstance(response, dict) else None)
            raise Unusable("the answer holds no message", told)
        return {**encodable(message), "role": "assistant"}

    def cut(self, response: Any) -> bool:
        """Whether the answer was ended at the limit of its length."""
        return str(_choice(response).get("finish_reason")).lower() in _CUT

    def bill(self, response: Any) -> tuple[Usage | None, float | None]:
        """What the response says that it took: tokens, and USD if the provider tells."""
        return chat_bill(response)

    def failure(self, error: Exception) -> Failure | None:
        """What an error means; None for a defect of ours."""
        return openai_failure(error)

    def learn(self, failure: Failure, request: Json) -> str:
        """Take from a refusal what to do otherwise from now on; says it in words."""
        ours = request.keys() - self._alias.sampling.keys() - {"model", "messages", "tools", "stream"}
        back = [m for m in request["messages"] if m.get("role") == "assistant"]
        calls = [c for m in back for c in m.get("tool_calls") or () if isinstance(c, dict)]
        fields = {name for each in (*back, *calls) for name in each} - _USUAL
        return self.dialect.learn(failure, ours, fields)

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that the server lists."""
        return await self._client.models()


def _choice(response: Any) -> Json:
    choices = response.get("choices") if isinstance(response, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _sent_back(message: Json, known: Dialect) -> Json:
    """An assistant message for a server. Servers answer with null fields that some of them refuse to read back;
    `content` may be null, mostly."""
    unknown = known.fields
    if None not in message.values() and "native" not in message and not unknown:
        return message
    sent = {k: v for k, v in message.items() if (v is not None or k == "content") and k not in unknown}
    sent.pop("native", None)
    if not known.null_content and sent.get("content") is None:
        sent["content"] = ""
    if unknown and isinstance(calls := sent.get("tool_calls"), list):
        sent["tool_calls"] = [{k: v for k, v in call.items() if k not in unknown} for call in calls]
    return sent


def _one_call_each(messages: Sequence[Json]) -> Iterable[Json]:
    """The conversation with each message of several calls as several messages, each followed by its result."""
    results = {m["tool_call_id"]: m for m in messages if m.get("role") == "tool"}
    for message in messages:
        calls = message.get("tool_calls") or ()
        if len(calls) > 1:
            for number, call in enumerate(calls):
                yield {**message, "content": message.get("content") if not number else None, "tool_calls": [call]}
                yield results[call["id"]]
        elif message.get("role") != "tool" or not _of_several(message, messages):
            yield message


def _of_several(result: Json, messages: Sequence[Json]) -> bool:
    asked = (m["tool_calls"] for m in messages if len(m.get("tool_calls") or ()) > 1)
    return any(call["id"] == result["tool_call_id"] for calls in asked for call in calls)


def marked(messages: Sequence[Json]) -> list[Json]:
    """The conversation with marks of Anthropic's prompt cache: at the end of the system message, and at the latest two
    messages that are not the model's, so that each turn finds what the one before has stored."""
    places = [0, *[n for n, m in enumerate(messages) if n and m.get("role") in ("user", "tool")][-2:]]
    chat = list(messages)
    for place in places:
        if isinstance(text := chat[place].get("content"), str) and text:
            part = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
            chat[place] = {**chat[place], "content": [part]}
    return chat


def assembled(chunks: Iterable[Any]) -> Json:
    """The response that streamed chunks come to, in the form of one that is not streamed. Raises Unusable for an error
    in the midst of them, and for none at all."""
    message: Json = {}
    whole: Json = {}
    finish = None
    for chunk in chunks:
        if not isinstance(chunk, dict):
            continue
        if chunk.get("error"):
            raise Unusable("the stream ended with an error", chunk["error"])
        whole |= {k: v for k, v in chunk.items() if k != "choices" and v is not None}
        choice = _choice(chunk)
        finish = choice.get("finish_reason") or finish
        if isinstance(delta := choice.get("delta"), dict):
            _merge(message, delta)
    if not message and finish is None:
        raise Unusable("the stream ended without an answer")
    return {**whole, "choices": [{"message": message, "finish_reason": finish}]}


def _merge(into: Json, delta: Json) -> None:
    """Take a piece of a message into it: texts grow, entries of lists are known by their `index`."""
    for key, value in delta.items():
        had = into.get(key)
        if isinstance(value, list) and all(isinstance(each, dict) for each in value):
            entries: list[Json] = into.setdefault(key, []) if isinstance(had, list | None) else []
            into[key] = entries
            for entry in value:
                same = next((e for e in entries if "index" in entry and e.get("index") == entry["index"]), None)
                if same is None:
                    entries.append(dict(entry))
                else:
                    _merge(same, entry)
        elif isinstance(value, dict) and isinstance(had, dict):
            _merge(had, value)
        elif isinstance(value, str) and isinstance(had, str) and key in _GROWING:
            into[key] = had + value
        elif had in (None, ""):
            into[key] = dict(value) if isinstance(value, dict) else value
