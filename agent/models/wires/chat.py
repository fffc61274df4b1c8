"""Chat Completions, as OpenAI and all who follow it speak it."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import httpx2

from agent.config import Alias
from agent.models.dialect import Dialect
from agent.models.failures import IN_STREAM, Failure, Unusable
from agent.models.wires.base import Wire, Wish, openai_server
from agent.models.wires.texts import dicts, encodable, system_merged
from harness.records import Json

_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_USUAL = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "id", "type", "function"})
_GROWING = frozenset({"content", "refusal", "arguments", "text", "summary", "data", "reasoning", "reasoning_content"})


class ChatWire(Wire):
    """One alias on a Chat Completions server."""

    name = "chat"
    path = "/chat/completions"

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        super().__init__(alias, openai_server(alias, pool))
        if "//api.openai.com" in alias.base_url:
            self.dialect.output_name = "max_completion_tokens"
        # Claude behind another provider caches only what is marked.
        self._marks = "claude" in alias.name.lower()

    def request(self, messages: Sequence[Json], tools: Sequence[Json], wish: Wish) -> Json:
        known = self.dialect
        chat: list[Json] = list(messages) if known.system else system_merged(messages)
        chat = [_sent_back(m, known) if m.get("role") == "assistant" else m for m in chat]
        if known.one_call:
            chat = list(_one_call_each(chat))
        body: Json = {"model": self._alias.name, "messages": marked(chat) if self._marks else chat}
        if tools:
            body["tools"] = list(tools)
        varied: Json = {"seed": wish.seed, "temperature": wish.temperature, known.output_name: self._limit(wish.output)}
        if known.stream:
            varied |= {"stream": True, "stream_options": {"include_usage": True}}
        return self._completed(body, varied)

    def _parts(self, request: Json) -> Iterable[Json]:
        return cast("list[Json]", request["messages"])

    def _assembled(self, events: Sequence[Any]) -> Json:
        message: Json = {}
        whole: Json = {}
        finish = None
        for chunk in dicts(events):
            if chunk.get("error"):
                raise Unusable(IN_STREAM, chunk["error"])
            whole |= {k: v for k, v in chunk.items() if k != "choices" and v is not None}
            choice = _choice(chunk)
            finish = choice.get("finish_reason") or finish
            if isinstance(delta := choice.get("delta"), dict):
                _merge(message, delta)
        if not message and finish is None:
            raise Unusable("the stream ended without an answer")
        return {**whole, "choices": [{"message": message, "finish_reason": finish}]}

    def message(self, response: Any) -> Json:
        choice = _choice(response)
        message = choice.get("message")
        if not isinstance(message, dict) or choice.get("finish_reason") == "error":
            told = choice.get("error") or (response.get("error") if isinstance(response, dict) else None)
            raise Unusable("the answer holds no message", told)
        return {**encodable(message), "role": "assistant"}

    def cut(self, response: Any) -> bool:
        return str(_choice(response).get("finish_reason")).lower() in _CUT

    def learn(self, failure: Failure, request: Json) -> str:
        ours = request.keys() - self._alias.sampling.keys() - {"model", "messages", "tools", "stream"}
        back = [m for m in request["messages"] if m.get("role") == "assistant"]
        calls = [c for m in back for c in m.get("tool_calls") or () if isinstance(c, dict)]
        return self.dialect.learn(failure, ours, {name for each in (*back, *calls) for name in each} - _USUAL)


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
    for at, message in enumerate(messages):
        calls = message.get("tool_calls") or ()
        results = {m.get("tool_call_id"): m for m in messages[at + 1 : at + 1 + len(calls)]}
        for number, call in enumerate(calls):
            yield {**message, "content": None if number else message.get("content"), "tool_calls": [call]}
            yield results[call["id"]]
        if not calls and message.get("role") != "tool":
            yield message


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
