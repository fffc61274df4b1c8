"""The Responses API, as OpenAI and those who follow it speak it; some models take tools there only.

Nothing is stored on the server (`store` false): what the model thought comes encrypted and goes back in each request.
An answer's items go back as they came, ids and all: OpenAI binds a reasoning item to its id and to the item that
follows it, and vLLM and OpenRouter take no message of the model without an id. Where a server looks such ids up in a
store that does not have them, or cannot decrypt, `learn` leaves them out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx2

from agent.config import Alias
from agent.models.failures import IN_STREAM, Failure, Unusable, says
from agent.models.usage import Bill, responses_bill
from agent.models.wires.base import Wire, Wish, openai_server
from agent.models.wires.texts import dicts, encodable, merged, native_of, system_merged
from harness.records import Json

LEAST_OUTPUT = 16
"""Tokens; the API takes no lower limit on an answer's length."""

_ELSEWHERE = {
    "max_tokens": ("max_output_tokens",),
    "max_completion_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning", "effort"),
    "verbosity": ("text", "verbosity"),
}
"""What parameters of Chat Completions are called here."""
_CUT = frozenset({"length", "max_tokens", "max_output_tokens"})
_WHOLE = frozenset({"response.completed", "response.incomplete", "response.failed"})
_USUAL = frozenset({"type", "role", "id", "content", "text", "call_id", "name", "arguments", "summary", "status"})
_PLACE = re.compile(r"\binput[.\[](\d+)")


class ResponsesWire(Wire):
    """One alias on a server of the Responses API, which has no seed."""

    name = "responses"
    path = "/responses"

    def __init__(self, alias: Alias, pool: httpx2.AsyncClient) -> None:
        super().__init__(alias, openai_server(alias, pool))
        self.dialect.output_name = "max_output_tokens"
        self._sampling = _renamed(alias.sampling)
        self._without_ids = False
        self._unread: set[str] = set()  # reasoning that the server does not take back

    def request(self, messages: Sequence[Json], tools: Sequence[Json], wish: Wish) -> Json:
        known = self.dialect
        # A prompt cache finds the beginning of a request again, of which `instructions` is the first part, and every
        # server knows what its model calls that (a `developer` message is strange to the templates of open models).
        system = "\n\n".join(_text(m.get("content")) for m in messages if m.get("role") == "system")
        chat = messages if known.system else system_merged(messages)
        items = [item for at, message in enumerate(chat) for item in self._items(message, at)]
        body: Json = {"model": self._alias.name, "input": list(_one_call_each(items)) if known.one_call else items}
        if tools:
            body["tools"] = [{"type": "function", **tool["function"], "strict": False} for tool in tools]
        output = self._limit(wish.output)
        varied: Json = {
            "instructions": (system or None) if known.system else None,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"summary": "auto"},
            "temperature": wish.temperature,
            known.output_name: output and max(LEAST_OUTPUT, output),
            "stream": known.stream or None,
        }
        return self._completed(body, varied)

    def _items(self, message: Json, at: int) -> Iterator[Json]:
        """The items that a message comes to; `at`: its place in the conversation."""
        match message.get("role"):
            case "system" if "instructions" not in self.dialect.left_out:
                pass
            case "assistant":
                yield from self._sent_back(native_of(message, self.name, "items")) or self._said(message, at)
            case "tool":
                output = _text(message.get("content"))
                yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}
            case role:
                yield {"role": role, "content": _text(message.get("content"))}

    def _sent_back(self, items: Sequence[Json]) -> list[Json]:
        """The items of an answer as they came; empty where nothing of them can be sent."""
        taken = [item for item in items if item.get("type") != "reasoning" or self._takes(item)]
        # Items know what was thought before them by its id.
        unknown = self.dialect.fields | ({"id"} if self._without_ids or len(taken) < len(items) else set())
        while taken and taken[-1].get("type") == "reasoning":  # of a cut answer: the API wants to see what it led to
            taken.pop()
        return [_without(item, unknown) for item in taken]

    def _takes(self, reasoning: Json) -> bool:
        sealed = reasoning.get("encrypted_content")
        return bool(sealed or not self._without_ids) and _known_by(reasoning) not in self._unread

    def _said(self, message: Json, at: int) -> Iterator[Json]:
        """The items of an answer that another API gave, or that was changed since."""
        if text := _text(message.get("content")):
            part = {"type": "output_text", "text": text, "annotations": []}
            item = {"type": "message", "id": f"msg_{at}", "role": "assistant", "status": "completed", "content": [part]}
            yield _without(item, self.dialect.fields | ({"id"} if self._without_ids else set()))
        for call in message.get("tool_calls") or ():
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            yield {"type": "function_call", "call_id": call["id"], "name": name, "arguments": arguments}

    def _parts(self, request: Json) -> Iterable[Json]:
        return ({"instructions": request.get("instructions", "")}, *request["input"])

    def _assembled(self, events: Sequence[Any]) -> Json:
        items: list[Json] = []
        for event in dicts(events):
            response = event.get("response")
            if str(event.get("type")) in _WHOLE and isinstance(response, dict):
                return response if response.get("output") or not items else {**response, "output": items}
            if event.get("type") == "error" or event.get("error"):
                raise Unusable(IN_STREAM, event.get("error") or event)
            if event.get("type") == "response.output_item.done":
                items += dicts([event.get("item")])
        raise Unusable("the stream ended without an answer")

    def message(self, response: Any) -> Json:
        answer = response if isinstance(response, dict) else {}
        output, status = answer.get("output"), answer.get("status")
        if not isinstance(output, list) or status not in ("completed", "incomplete", None):
            raise Unusable(f"the answer holds no output (status {status!r})", answer.get("error"))
        items = encodable(dicts(output))
        texts = [_text(item.get("content")) for item in items if item.get("type") == "message"]
        message: Json = {"role": "assistant", "content": "\n\n".join(filter(None, texts)) or None}
        reasoning = [item for item in items if item.get("type") == "reasoning"]
        if thoughts := [text for item in reasoning if (text := _thought(item))]:
            message["reasoning_content"] = "\n\n".join(thoughts)
        if calls := [_call(item) for item in items if item.get("type") == "function_call"]:
            message["tool_calls"] = calls
        return {**message, "native": {"wire": self.name, "items": items}}

    def cut(self, response: Any) -> bool:
        details = response.get("incomplete_details") if isinstance(response, dict) else None
        return isinstance(details, dict) and str(details.get("reason")) in _CUT

    def bill(self, response: Any) -> Bill:
        return responses_bill(response)

    def learn(self, failure: Failure, request: Json) -> str:
        known, words, items = self.dialect, failure.said, request["input"]
        if failure.status in (400, 404, 422) and not failure.too_long:
            learnt = self._learn_items(words, request)
            if learnt is not None:
                return learnt
        theirs = self._sampling.keys() - {"reasoning"}  # to which ours is added
        ours = request.keys() - theirs - {"model", "input", "tools", "stream"}
        fields = {name for item in items for part in (item, *dicts(item.get("content"))) for name in part} - _USUAL
        learnt = known.learn(failure, ours, fields | ({"status"} if says("item_status", words) else set()))
        place = _PLACE.search(words)
        if learnt or not failure.of_request or place is None or int(place[1]) >= len(items):
            return learnt
        return self._forget(request) if items[int(place[1])].get("type") == "reasoning" else ""

    def _learn_items(self, words: str, request: Json) -> str | None:
        """What a refusal says of the items of answers; None where it is about something else."""
        if says("ids", words) and any("id" in item for item in request["input"]):
            known, self._without_ids = self._without_ids, True
            return "" if known else "its items are sent back without their ids"
        thinks = any(item.get("type") == "reasoning" for item in request["input"])
        if says("sealed", words) and "include" in request and (re.search(r"\binclude\b", words) or not thinks):
            self.dialect.left_out.add("include")
            return "include left out"
        return self._forget(request) if thinks and (says("ids", words) or says("sealed", words)) else None

    def _forget(self, request: Json) -> str:
        """No more send back the reasoning that this request does."""
        thoughts = {_known_by(item) for item in request["input"] if item.get("type") == "reasoning"}
        known, self._unread = self._unread, self._unread | thoughts
        return "" if thoughts <= known else "what it thought before is not sent back"


def _renamed(sampling: Mapping[str, Any]) -> Json:
    """The user's parameters under the names that this API has for them."""
    body: Json = {}
    for name, value in sampling.items():
        first, *rest = _ELSEWHERE.get(name, (name,))
        if not rest or value is not False:
            body[first] = merged(body.get(first), {rest[0]: value} if rest else value)
    return body


def _text(content: Any) -> str:
    """The text of a content that is one, or has parts with texts in them (`refusal`: why the model declines)."""
    if isinstance(content, str):
        return content
    texts = (part.get("text") or part.get("refusal") for part in dicts(content))
    return "".join(text for text in texts if isinstance(text, str))


def _thought(reasoning: Json) -> str:
    """The summary of a reasoning item; of an open model, what it thought."""
    parts = dicts(reasoning.get("summary")) or dicts(reasoning.get("content"))
    return "\n\n".join(text for part in parts if isinstance(text := part.get("text"), str))


def _call(item: Json) -> Json:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    return {"id": item.get("call_id") or item.get("id"), "type": "function", "function": function}


def _known_by(reasoning: Json) -> str:
    return str(reasoning.get("encrypted_content") or reasoning.get("id"))


def _without(item: Json, unknown: set[str]) -> Json:
    """An item for a server: servers answer with null fields that some of them refuse to read back."""
    if not unknown and None not in item.values():
        return item
    sent = {k: v for k, v in item.items() if v is not None and k not in unknown}
    if unknown and isinstance(parts := sent.get("content"), list):
        sent["content"] = [_without(part, unknown) if isinstance(part, dict) else part for part in parts]
    return sent


def _one_call_each(items: Sequence[Json]) -> Iterator[Json]:
    """The items with each call's result right behind it."""
    results = {item["call_id"]: item for item in items if item.get("type") == "function_call_output"}
    for item in items:
        if item.get("type") != "function_call_output":
            yield item
        if item.get("type") == "function_call" and item.get("call_id") in results:
            yield results[item["call_id"]]
