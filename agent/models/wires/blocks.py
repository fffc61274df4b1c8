"""Conversations in the form of Chat Completions as Anthropic's content blocks, and its answers back in that form."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from agent.models.failures import IN_STREAM, STATUS, Unusable
from agent.models.wires.texts import dicts, encodable, native_of
from harness.records import Json

WIRE = "anthropic"
THINKING = frozenset({"thinking", "redacted_thinking"})
_NOTHING = "(nothing)"
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
_NEEDED: dict[str, dict[str, type]] = {
    "text": {"text": str},
    "thinking": {"thinking": str},
    "tool_use": {"id": str, "name": str, "input": dict},
}
_GROWN_BY = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def as_blocks(messages: Sequence[Json], left_out: Collection[str]) -> tuple[list[Json], list[Json]]:
    """The system blocks and the messages; user and assistant take turns, results of tools come first in theirs.

    What `native` holds is sent back as it was received, but for blocks of the types `left_out` and what the API itself
    never takes back: blank texts, thoughts that nothing follows. All lists are new, so that marks can be set in those
    of the user; the blocks of `native` are the stored ones."""
    system: list[Json] = []
    chat: list[Json] = []
    ids = _Ids()
    for message in messages:
        role = message.get("role")
        if role in ("system", "developer"):
            system += _texts(message)
            continue
        if role == "assistant":
            blocks = _said(message, ids, left_out)
        else:
            role, blocks = "user", [_result(message, ids)] if role == "tool" else _texts(message)
        blocks = blocks or [{"type": "text", "text": _NOTHING}]
        if chat and chat[-1]["role"] == role:
            chat[-1]["content"] += blocks
        else:
            chat.append({"role": role, "content": blocks})
    return system, chat


def as_tool(tool: Json) -> Json:
    """A tool's definition."""
    function = tool["function"]
    schema = {"type": "object", **(function.get("parameters") or {})}
    return {"name": function["name"], "description": function.get("description") or "", "input_schema": schema}


def as_message(response: Any) -> Json:
    """The assistant message of a response, with its blocks under `native`. Raises Unusable where it holds none."""
    response = response if isinstance(response, dict) else {}
    content = response.get("content")
    blocks = dicts(encodable(content))
    if not isinstance(content, list) or (content and not blocks):
        raise Unusable("the answer holds no content", _told(response))
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    text = _joined(blocks, "text")
    if not blocks and response.get("stop_reason") == "refusal":
        text = _refusal(response.get("stop_details"))
    message: Json = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [_as_call(number, block) for number, block in enumerate(calls)]
    if thoughts := _joined(blocks, "thinking"):
        message["reasoning_content"] = thoughts
    if blocks and all(_is_sound(block) for block in blocks):
        message["native"] = {"wire": WIRE, "content": blocks}
    return message


def assembled(events: Sequence[Any]) -> Json:
    """The response that the events of a stream come to. Raises Unusable for an error among them, and where they end too
    early."""
    response: Json = {}
    usage: Json = {}
    blocks: dict[Any, Json] = {}
    for event in dicts(events):
        if event.get("type") == "error":
            raise Unusable(IN_STREAM, event.get("error"))
        index, delta = event.get("index"), event.get("delta")
        if isinstance(message := event.get("message"), dict):
            response |= message
        if isinstance(block := event.get("content_block"), dict):
            blocks[index] = dict(block)
        elif event.get("type") == "content_block_delta" and isinstance(delta, dict) and index in blocks:
            _grow(blocks[index], delta)
        elif isinstance(delta, dict):
            response |= delta
        for part in (event.get("usage"), response.pop("usage", None)):
            usage |= {k: v for k, v in part.items() if v or k not in usage} if isinstance(part, dict) else {}
    if response.get("stop_reason") is None:
        raise Unusable("the stream ended before the answer did")
    for block in blocks.values():
        if block.get("type") == "tool_use":
            block["input"] = as_object(block.get("input"))
    return {**response, "content": [*blocks.values()], "usage": usage}


def as_object(arguments: Any) -> Json:
    """A call's arguments; none where they are no JSON object."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False)
        except (ValueError, RecursionError):
            return {}
    return arguments if isinstance(arguments, dict) else {}


class _Ids:
    """The names of a conversation's calls as the API takes them: of letters, digits, - and _, each once."""

    def __init__(self) -> None:
        self._legal: dict[str, str] = {}
        self._taken: set[str] = set()

    def keep(self, name: str) -> None:
        self._legal[name] = name
        self._taken.add(name)

    def new(self, name: str) -> str:
        stem = legal = _ILLEGAL.sub("_", name) or "call"
        number = 1
        while legal in self._taken:
            number += 1
            legal = f"{stem}_{number}"
        self._taken.add(legal)
        self._legal[name] = legal
        return legal

    def of(self, name: str) -> str:
        return self._legal.get(name) or self.new(name)


def _told(body: Any) -> Any:
    """The error in an answer's body, with its HTTP status as `code`; None where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    return {"code": STATUS.get(str(error.get("type"))), **error} if isinstance(error, dict) else error


def _said(message: Json, ids: _Ids, left_out: Collection[str]) -> list[Json]:
    native = native_of(message, WIRE, "content")
    blank = [b for b in native if b.get("type") == "text" and not str(b.get("text") or "").strip()]
    kept = [b for b in native if b.get("type") not in left_out and b not in blank]
    while kept and kept[-1].get("type") in THINKING:
        kept.pop()
    for block in kept:
        if block.get("type") == "tool_use":
            ids.keep(block["id"])
    if kept:
        return kept
    blocks = _texts(message)
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        name, given = _ILLEGAL.sub("_", str(function.get("name") or "unknown")), as_object(function.get("arguments"))
        blocks.append({"type": "tool_use", "id": ids.new(str(call.get("id"))), "name": name, "input": given})
    return blocks


def _result(message: Json, ids: _Ids) -> Json:
    parts = _texts(message)
    text = parts[0]["text"] if len(parts) == 1 else parts
    return {"type": "tool_result", "tool_use_id": ids.of(str(message.get("tool_call_id"))), "content": text or _NOTHING}


def _texts(message: Json) -> list[Json]:
    """The texts of a message, without blank ones, which the API refuses."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return [{"type": "text", "text": text} for text in texts if isinstance(text, str) and not text.isspace() and text]


def _is_sound(block: Json) -> bool:
    needed = _NEEDED.get(block.get("type", ""), {}) if isinstance(block.get("type"), str) else {"type": str}
    return all(isinstance(block.get(name), kind) for name, kind in needed.items())


def _as_call(number: int, block: Json) -> Json:
    given = block.get("input")
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = {"name": str(block.get("name") or ""), "arguments": arguments}
    return {"id": str(block.get("id") or f"call_{number}"), "type": "function", "function": function}


def _joined(blocks: Sequence[Json], kind: str) -> str:
    texts = (block.get(kind) for block in blocks if block.get("type") == kind)
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _refusal(details: Any) -> str:
    said = details.get("explanation") if isinstance(details, dict) else None
    return f"(The model refused to answer{f': {encodable(said)}' if said else ''})"


def _grow(block: Json, delta: Json) -> None:
    """Take a piece of a block into it; the pieces of a call's input are kept as text until it is whole."""
    if name := _GROWN_BY.get(str(delta.get("type"))):
        block[name] = str(block.get(name) or "") + str(delta.get(name) or "")
    elif delta.get("type") == "input_json_delta":
        had = block.get("input")
        block["input"] = (had if isinstance(had, str) else "") + str(delta.get("partial_json") or "")
