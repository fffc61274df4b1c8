"""The three APIs as a strict server speaks them: what is wrong with a request, what it says, how an answer is put.

The words of refusals are those of the real servers; what they mean is their business.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tests.support.dialect_model import Json, Mind, Said, Talk, Turn, digest
from tests.support.model_server import Answer


@dataclass(slots=True)
class Memory:
    """What a server keeps of one dialect. `asked`: requests that the model got or would have got; `refused`: words of
    its refusals; `markers`: the most cache markers that a request held; `tokens_in`, `tokens_out`: what it really
    counted, thinking included; `once`: what it has done that it does only once."""

    mind: Mind
    asked: int = 0
    answered: int = 0
    first_at: float = 0.0
    refused: list[str] = field(default_factory=list)
    markers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    once: set[str] = field(default_factory=set)

    def first(self, what: str) -> bool:
        """Whether `what` happens for the first time."""
        new = what not in self.once
        self.once.add(what)
        return new


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a dialect: the endpoint ("chat", "responses", "messages"), its headers in lower case, its body."""

    endpoint: str
    headers: Mapping[str, str]
    body: Json
    memory: Memory

    @property
    def messages(self) -> list[Json]:
        """The messages of a Chat or Messages request; what is no object is left out."""
        return [message for message in self.body.get("messages") or [] if isinstance(message, dict)]

    @property
    def size(self) -> int:
        """Characters of what the model reads."""
        read = {
            key: self.body[key] for key in ("messages", "input", "system", "instructions", "tools") if key in self.body
        }
        return len(json.dumps(read, ensure_ascii=False))

    @property
    def limit(self) -> int | None:
        """The most output tokens, if the request says so."""
        for key in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
            if isinstance(self.body.get(key), int):
                return int(self.body[key])
        return None


Rule = Callable[[Asked], Answer | None]
"""The refusal of a request, or None."""


def refusal(status: int, body: object, **headers: str) -> Answer:
    """An answer that refuses, with this JSON (or text) as its body."""
    raw = body if isinstance(body, str) else json.dumps(body)
    return Answer(status=status, raw=raw, headers={name.replace("_", "-"): value for name, value in headers.items()})


def openai_error(
    status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: object = None
) -> Answer:
    """A refusal in OpenAI's form."""
    return refusal(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def anthropic_error(status: int, message: str, kind: str = "invalid_request_error") -> Answer:
    """A refusal in Anthropic's form."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CX"}
    return refusal(status, error, request_id="req_011CX")


class Wire(Protocol):
    """One API. `strict`: what every server that speaks it refuses; `talk`: the request as the model sees it; `answer`:
    the model's reply as a response."""

    def strict(self, asked: Asked) -> Answer | None: ...

    def talk(self, asked: Asked) -> Talk: ...

    def answer(self, said: Said, asked: Asked) -> Answer: ...


def text_of(content: object) -> str:
    """The text of a message's content, whether a text or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict)]
    return "\n".join(str(part.get("text") or text_of(part.get("content")) or "") for part in parts)


def tokens(text: str | int) -> int:
    """Tokens of a text or of that many characters, roughly."""
    return (text if isinstance(text, int) else len(text)) // 4 + 1


# --- Chat Completions

CHAT_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "annotations", "audio"})
CHAT_FIELDS |= {"function_call"}
_CHAT_PARAMETERS = (
    "model messages tools tool_choice parallel_tool_calls temperature top_p seed max_tokens "
    "max_completion_tokens stop stream stream_options n user metadata store reasoning_effort verbosity "
    "response_format frequency_penalty presence_penalty logit_bias logprobs top_logprobs prompt_cache_key "
    "service_tier safety_identifier prompt_cache_retention prediction modalities"
)
CHAT_PARAMETERS = frozenset(_CHAT_PARAMETERS.split())

Thoughts = Literal["", "reasoning_content", "reasoning", "reasoning_details", "think", "open-think", "harmony", "parts"]
"""Where a server puts what the model thought: fields of the message, or within its content."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Chat Completions. `thoughts`: where it puts them. `ids`: of calls, from a text that stands for the call.
    `call`, `message`, `usage`, `response`: what it does to these before they are sent. `signed`: calls carry a thought
    signature."""

    thoughts: Thoughts = ""
    ids: Callable[[str], str | None] = lambda text: f"call_{digest(text, 24)}"
    call: Callable[[Json], Json] = lambda call: call
    message: Callable[[Json], Json] = lambda message: message
    usage: Callable[[Json], object] = lambda usage: usage
    response: Callable[[Json], object] = lambda response: response
    signed: bool = False

    def strict(self, asked: Asked) -> Answer | None:
        return _chat_order(asked) or _chat_tools(asked)

    def talk(self, asked: Asked) -> Talk:
        roles = {"tool": "result", "developer": "system", "assistant": "assistant", "system": "system"}
        turns = [Turn(roles.get(m.get("role", ""), "user"), text_of(m.get("content"))) for m in asked.messages]  # type: ignore[arg-type]  # JSON of any kind
        names = [tool["function"]["name"] for tool in asked.body.get("tools") or []]
        return Talk(tuple(turns), frozenset(names), asked.body.get("tool_choice") == "none", asked.limit)

    def answer(self, said: Said, asked: Asked) -> Answer:
        message: Json = {"role": "assistant", "content": said.text}
        calls = [self.call(self._call(said, number, asked)) for number in range(len(said.calls))]
        if calls:
            message["tool_calls"] = calls
        message = self.message(self._thinking(message, said))
        finish = "length" if said.cut else "tool_calls" if message.get("tool_calls") else "stop"
        thought = tokens(said.thoughts) if self.thoughts else 0
        out = tokens(said.text + json.dumps(calls)) + thought
        usage = self.usage(self._usage(asked, out, thought))
        if asked.body.get("stream"):
            return self._streamed(message, finish, usage, asked)
        body = {
            "id": f"chatcmpl-{asked.memory.answered}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked.body.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": usage,
        }
        return Answer(raw=json.dumps(self.response(body)))

    def _call(self, said: Said, number: int, asked: Asked) -> Json:
        call = said.calls[number]
        identity = self.ids(f"{said.step} {number} {len(asked.messages)}")
        made: Json = {"id": identity} if identity is not None else {}
        made |= {"type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        if self.signed and number == 0:
            made["extra_content"] = {"google": {"thought_signature": signature(said.step)}}
        return made

    def _thinking(self, message: Json, said: Said) -> Json:
        match self.thoughts:
            case "reasoning_content" | "reasoning":
                return {**message, self.thoughts: said.thoughts}
            case "reasoning_details":
                detail = {
                    "type": "reasoning.text",
                    "text": said.thoughts,
                    "signature": signature(said.step),
                    "format": "anthropic-claude-v1",
                    "index": 0,
                }
                return {**message, "reasoning": said.thoughts, "reasoning_details": [detail]}
            case "think":
                return {**message, "content": f"<think>\n{said.thoughts}\n</think>\n\n{said.text}"}
            case "open-think":  # the template has opened the block already
                return {**message, "content": f"{said.thoughts}\n</think>\n\n{said.text}"}
            case "harmony":
                channel = "commentary" if message.get("tool_calls") else "final"
                return {
                    **message,
                    "content": f"<|channel|>analysis<|message|>{said.thoughts}<|end|><|start|>assistant"
                    f"<|channel|>{channel}<|message|>{said.text}",
                }
            case "parts":
                thinking = {"type": "thinking", "thinking": [{"type": "text", "text": said.thoughts}]}
                return {**message, "content": [thinking, {"type": "text", "text": said.text}]}
        return message

    def _usage(self, asked: Asked, out: int, thought: int) -> Json:
        prompt = tokens(asked.size)
        asked.memory.tokens_in += prompt
        asked.memory.tokens_out += out
        return {
            "prompt_tokens": prompt,
            "completion_tokens": out,
            "total_tokens": prompt + out,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }

    def _streamed(self, message: Json, finish: str, usage: object, asked: Asked) -> Answer:
        base = {
            "id": "chatcmpl-streamed",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": asked.body.get("model"),
        }
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        for name in ("reasoning_content", "reasoning", "content"):
            if isinstance(message.get(name), str):
                deltas += [{name: piece} for piece in pieces(message[name])]
        for index, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            opened = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
            deltas.append({"tool_calls": [opened]})
            for piece in pieces(function["arguments"]):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            chunks.append({**base, "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return Answer(raw="".join([*lines, "data: [DONE]\n\n"]), headers={"Content-Type": "text/event-stream"})


def pieces(text: str, size: int = 7) -> list[str]:
    """The text cut into pieces of at most `size` characters."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def signature(step: int) -> str:
    """What a server signs the thoughts of a step with."""
    return "Ev" + digest(f"signed {step}", 40) + "=="


def step_in(text: str) -> int | None:
    """The step that an assistant message says."""
    found = re.search(r"Step (\d+):", text)
    return int(found[1]) if found else None


def _chat_order(asked: Asked) -> Answer | None:
    """Roles, contents, and results that belong to the calls of the message before."""
    messages = asked.body.get("messages")
    if not isinstance(messages, list) or not messages:
        return openai_error(
            400, "Invalid 'messages': empty array. Expected an array with minimum length 1.", param="messages"
        )
    waiting: list[str] = []
    for at, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        where = f"messages[{at}]"
        if role not in ("system", "developer", "user", "assistant", "tool"):
            values = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'"
            said = f"Invalid value: '{role}'. Supported values are: {values}."
            return openai_error(400, said, param=f"{where}.role", code="invalid_value")
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                said = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                return openai_error(400, f"Invalid parameter: {said}", param=f"messages.[{at}].role")
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return _unanswered(at, waiting)
        if role == "assistant":
            wrong, waiting = _assistant_calls(where, message)
            if wrong:
                return wrong
        if content is None and not (role == "assistant" and message.get("tool_calls")):
            said = f"Invalid value for 'content': expected a string, got null. ({where})"
            return openai_error(400, said, param=f"messages.[{at}].content")
        if content is not None and not isinstance(content, (str, list)):
            said = f"Invalid type for '{where}.content': expected one of a string or array of objects."
            return openai_error(400, said, param=f"{where}.content", code="invalid_type")
    return _unanswered(len(messages), waiting) if waiting else None


def _unanswered(at: int, waiting: Sequence[str]) -> Answer:
    return openai_error(
        400,
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(waiting)}",
        param=f"messages.[{at}].role",
    )


def _assistant_calls(where: str, message: Json) -> tuple[Answer | None, list[str]]:
    calls = message.get("tool_calls")
    if calls is None:
        return None, []
    if not isinstance(calls, list) or not calls:
        said = f"Invalid '{where}.tool_calls': empty array. Expected an array with minimum length 1, but got an empty array instead."
        return openai_error(400, said, param=f"{where}.tool_calls", code="empty_array"), []
    seen: list[str] = []
    for number, call in enumerate(calls):
        place = f"{where}.tool_calls[{number}]"
        if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
            return openai_error(400, f"Invalid type for '{place}': expected an object.", param=place), []
        identity = call.get("id")
        if not isinstance(identity, str) or identity in seen:
            return openai_error(400, f"Missing required parameter: '{place}.id'.", param=f"{place}.id"), []
        if call.get("type") != "function":
            return openai_error(400, f"Missing required parameter: '{place}.type'.", param=f"{place}.type"), []
        seen.append(identity)
    return None, seen


def _chat_tools(asked: Asked) -> Answer | None:
    for number, tool in enumerate(asked.body.get("tools") or []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not function.get("name"):
            place = f"tools[{number}].function"
            return openai_error(400, f"Missing required parameter: '{place}'.", param=place)
    return None


# --- Responses

_RESPONSES_PARAMETERS = (
    "model input instructions tools tool_choice parallel_tool_calls temperature top_p max_output_tokens "
    "max_tool_calls stream stream_options store include reasoning text truncation metadata previous_response_id "
    "user service_tier prompt_cache_key prompt_cache_retention safety_identifier background conversation"
)
RESPONSES_PARAMETERS = frozenset(_RESPONSES_PARAMETERS.split())


@dataclass(frozen=True, slots=True)
class Responses:
    """The Responses API of a reasoning model."""

    def strict(self, asked: Asked) -> Answer | None:
        moved = {"messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
        for name in asked.body:
            if name in moved:
                said = f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to '{moved[name]}'."
                return openai_error(400, said, param=name, code="unsupported_parameter")
            if name not in RESPONSES_PARAMETERS:
                return openai_error(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        limit = asked.body.get("max_output_tokens")
        if isinstance(limit, int) and limit < 16:
            said = f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got {limit} instead."
            return openai_error(400, said, param="max_output_tokens", code="integer_below_min_value")
        for number, tool in enumerate(asked.body.get("tools") or []):
            if not tool.get("name"):
                place = f"tools[{number}].name"
                said = f"Missing required parameter: '{place}'."
                return openai_error(400, said, param=place, code="missing_required_parameter")
        if asked.body.get("stream"):
            return openai_error(400, "This server plays no streams.", param="stream")
        return self._items(asked)

    def _items(self, asked: Asked) -> Answer | None:
        waiting: list[str] = []
        reasoned = False
        items = items_of(asked)
        for at, item in enumerate(items):
            kind = item.get("type") or "message"
            if kind == "reasoning":
                if wrong := self._reasoning(at, item, items, stored=asked.body.get("store") is not False):
                    return wrong
                reasoned = True
                continue
            if kind == "function_call":
                if not isinstance(item.get("arguments"), str) or not item.get("call_id") or not item.get("name"):
                    place = f"input[{at}]"
                    said = f"Missing required parameter: '{place}.call_id'."
                    return openai_error(400, said, param=place, code="missing_required_parameter")
                step = _step_of_call(item["call_id"])
                if not reasoned:
                    if item.get("id"):
                        said = f"Item '{item['id']}' of type 'function_call' was provided without its required 'reasoning' item: 'rs_{step}'."
                        return openai_error(400, said, param="input")
                    asked.memory.mind.bad.append(f"the reasoning before call {item['call_id']} was not sent back")
                waiting.append(item["call_id"])
            elif kind == "function_call_output":
                if item.get("call_id") not in waiting:
                    said = f"No tool call found for function call output with call_id {item.get('call_id')}."
                    return openai_error(400, said, param="input")
                waiting.remove(item["call_id"])
            elif kind == "message":
                if wrong := _responses_message(at, item):
                    return wrong
                if waiting:
                    break
            else:
                said = f"Invalid value: '{kind}'. Supported values are: 'function_call', 'message', 'reasoning', …"
                return openai_error(400, said, param=f"input[{at}]", code="invalid_value")
            reasoned = reasoned and kind == "message" and item.get("role") == "assistant"
        if waiting:
            return openai_error(400, f"No tool output found for function call {waiting[0]}.", param="input")
        return None

    def _reasoning(self, at: int, item: Json, items: Sequence[Json], *, stored: bool) -> Answer | None:
        identity = str(item.get("id"))
        follows = items[at + 1] if at + 1 < len(items) else {}
        if follows.get("type") not in ("function_call", "message") or follows.get("role") == "user":
            said = f"Item '{identity}' of type 'reasoning' was provided without its required following item."
            return openai_error(400, said, param="input")
        given = item.get("encrypted_content")
        if given is None and not stored:
            said = (
                f"Item with id '{identity}' not found. Items are not persisted when `store` is set to false. Try again"
                " with `store` set to true, or remove this item from your input."
            )
            return openai_error(404, said, param="input")
        if given is not None and given not in {sealed(step) for step in range(-1, 20)}:
            said = (
                f"The encrypted content for item {identity} could not be verified. Reason: Encrypted content could not"
                " be decrypted or parsed."
            )
            return openai_error(400, said, code="invalid_encrypted_content")
        if not isinstance(item.get("summary"), list):
            place = f"input[{at}].summary"
            said = f"Missing required parameter: '{place}'."
            return openai_error(400, said, param=place, code="missing_required_parameter")
        return None

    def talk(self, asked: Asked) -> Talk:
        turns = [Turn("system", str(asked.body["instructions"]))] if asked.body.get("instructions") else []
        for item in items_of(asked):
            kind = item.get("type") or "message"
            if kind == "function_call_output":
                turns.append(Turn("result", text_of(item.get("output"))))
            elif kind == "message":
                role = item.get("role", "user")
                known: Literal["system", "user", "assistant"] = "user"
                known = "assistant" if role == "assistant" else "system" if role in ("system", "developer") else known
                turns.append(Turn(known, text_of(item.get("content"))))
        names = frozenset(str(tool["name"]) for tool in asked.body.get("tools") or [])
        return Talk(tuple(turns), names, asked.body.get("tool_choice") == "none", asked.limit)

    def answer(self, said: Said, asked: Asked) -> Answer:
        if asked.body.get("store") is not False:
            asked.memory.mind.bad.append("the answer was stored: `store` was not false")
        reasoning: Json = {"type": "reasoning", "id": f"rs_{said.step}", "summary": []}
        if (asked.body.get("reasoning") or {}).get("summary"):
            reasoning["summary"] = [{"type": "summary_text", "text": said.thoughts}]
        if "reasoning.encrypted_content" in (asked.body.get("include") or []):
            reasoning["encrypted_content"] = sealed(said.step)
        output: list[Json] = [
            reasoning,
            {
                "type": "message",
                "id": f"msg_{said.step}",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}],
            },
        ]
        for number, call in enumerate(said.calls):
            identity = f"{said.step}_{number}_{digest(str(len(items_of(asked))), 8)}"
            output.append(
                {
                    "type": "function_call",
                    "id": f"fc_{identity}",
                    "call_id": f"call_{identity}",
                    "name": call.name,
                    "arguments": json.dumps(call.arguments),
                    "status": "completed",
                }
            )
        # The model thinks before each of its items; so the call has reasoning of its own.
        if said.calls:
            output.insert(2, {**reasoning, "id": f"rs_{said.step}b"})
        prompt, thought = tokens(asked.size), tokens(said.thoughts)
        out = tokens(said.text + json.dumps([call.arguments for call in said.calls])) + thought
        asked.memory.tokens_in += prompt
        asked.memory.tokens_out += out
        body = {
            "id": f"resp_{asked.memory.answered}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "incomplete" if said.cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if said.cut else None,
            "error": None,
            "instructions": asked.body.get("instructions"),
            "metadata": {},
            "model": asked.body.get("model"),
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "top_p": 1.0,
            "tool_choice": "auto",
            "tools": asked.body.get("tools") or [],
            "store": asked.body.get("store", True),
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": prompt // 2},
                "output_tokens": out,
                "output_tokens_details": {"reasoning_tokens": thought},
                "total_tokens": prompt + out,
            },
        }
        return Answer(raw=json.dumps(body))


def items_of(asked: Asked) -> list[Json]:
    """The items of a Responses request."""
    given = asked.body.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return [item for item in given or [] if isinstance(item, dict)]


def sealed(step: int) -> str:
    """What the thoughts of a step look like to whoever must not read them."""
    return "gAAAAA" + digest(f"sealed {step}", 60)


def _step_of_call(call: str) -> str:
    return call.removeprefix("call_").partition("_")[0]


def _responses_message(at: int, item: Json) -> Answer | None:
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        said = f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
        return openai_error(400, said, param=f"input[{at}].role", code="invalid_value")
    if isinstance(content, str):
        return None
    wanted = "output_text" if role == "assistant" else "input_text"
    for number, part in enumerate(content or []):
        if part.get("type") != wanted:
            place = f"input[{at}].content[{number}]"
            said = f"Invalid value: '{part.get('type')}'. Supported values are: '{wanted}'."
            return openai_error(400, said, param=place, code="invalid_value")
    return None


# --- Anthropic Messages

_MESSAGES_PARAMETERS = (
    "model messages system max_tokens tools tool_choice temperature top_p top_k stop_sequences stream thinking "
    "metadata service_tier container context_management mcp_servers output_config cache_control"
)
MESSAGES_PARAMETERS = frozenset(_MESSAGES_PARAMETERS.split())


@dataclass(frozen=True, slots=True)
class Messages:
    """Anthropic Messages. `always`: the model thinks unasked."""

    always: bool = False

    def thinking(self, asked: Asked) -> bool:
        """Whether the model thinks before it answers this request."""
        kind = (asked.body.get("thinking") or {}).get("type")
        return kind in ("enabled", "adaptive") or (self.always and kind != "disabled")

    def strict(self, asked: Asked) -> Answer | None:
        if "x-api-key" not in asked.headers and "authorization" not in asked.headers:
            return anthropic_error(401, "x-api-key header is required", "authentication_error")
        if "anthropic-version" not in asked.headers:
            return anthropic_error(400, "anthropic-version: header is required")
        for name in asked.body:
            if name not in MESSAGES_PARAMETERS:
                return anthropic_error(400, f"{name}: Extra inputs are not permitted")
        if not isinstance(asked.body.get("max_tokens"), int):
            return anthropic_error(400, "max_tokens: Field required")
        if asked.body.get("stream"):
            return anthropic_error(400, "stream: This server plays no streams.")
        budget = (asked.body.get("thinking") or {}).get("budget_tokens", 0)
        if asked.body["max_tokens"] <= budget:
            return anthropic_error(
                400,
                "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at "
                "https://docs.claude.com/en/docs/build-with-claude/extended-thinking#max-tokens-and-context-window-size",
            )
        if (asked.body.get("thinking") or {}).get("type") == "enabled" and asked.body.get("temperature", 1) != 1:
            return anthropic_error(
                400,
                "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation at "
                "https://docs.claude.com/en/docs/build-with-claude/extended-thinking#important-considerations-when-using-extended-thinking",
            )
        return self._tools(asked) or self._order(asked) or self._cache(asked)

    def _tools(self, asked: Asked) -> Answer | None:
        for number, tool in enumerate(asked.body.get("tools") or []):
            if not isinstance(tool.get("input_schema"), dict):
                return anthropic_error(400, f"tools.{number}.custom.input_schema: Field required")
            for name in tool:
                if name not in ("name", "description", "input_schema", "cache_control", "type", "strict"):
                    return anthropic_error(400, f"tools.{number}.custom.{name}: Extra inputs are not permitted")
        return None

    def _cache(self, asked: Asked) -> Answer | None:
        found = markers_in(asked.body)
        asked.memory.markers = max(asked.memory.markers, found)
        if found > 4:
            return anthropic_error(400, f"A maximum of 4 blocks with cache_control may be provided. Found {found}.")
        return None

    def _order(self, asked: Asked) -> Answer | None:
        messages = asked.messages
        if not messages:
            return anthropic_error(400, "messages: at least one message is required")
        waiting: list[str] = []
        for at, message in enumerate(messages):
            role = message.get("role")
            if role == "system":
                return anthropic_error(
                    400,
                    'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not '
                    '"system" as an input message role.',
                )
            if role not in ("user", "assistant"):
                return anthropic_error(400, f"messages.{at}.role: Input should be 'user' or 'assistant'")
            blocks = blocks_of(message)
            if wrong := _blocks(at, blocks, message):
                return wrong
            answered = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
            missing = [one for one in waiting if one not in answered]
            if missing:
                return anthropic_error(
                    400,
                    f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                    f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the"
                    " next message.",
                )
            for number, block in enumerate(blocks):
                if block.get("type") == "tool_result" and block.get("tool_use_id") not in waiting:
                    return anthropic_error(
                        400,
                        f"messages.{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                        f"{block.get('tool_use_id')}. Each `tool_result` block must have a corresponding `tool_use`"
                        " block in the previous message.",
                    )
            waiting = [str(b.get("id")) for b in blocks if b.get("type") == "tool_use"] if role == "assistant" else []
            if role == "assistant" and (wrong := self._thought(at, blocks, asked)):
                return wrong
        if messages[0]["role"] != "user":
            return anthropic_error(400, 'messages: first message must use the "user" role')
        if messages[-1]["role"] != "user":
            return anthropic_error(
                400,
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            )
        return None

    def _thought(self, at: int, blocks: Sequence[Json], asked: Asked) -> Answer | None:
        """Thinking blocks unchanged, and before anything else where a call follows."""
        calls = any(block.get("type") == "tool_use" for block in blocks)
        if self.thinking(asked) and calls and blocks[0].get("type") not in ("thinking", "redacted_thinking"):
            return anthropic_error(
                400,
                f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                f"`{blocks[0].get('type')}`. When `thinking` is enabled, a final `assistant` message must start with a"
                " thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks). We recommend you"
                " include thinking blocks from previous turns. To avoid this requirement, disable `thinking`. Please"
                " consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking",
            )
        said = "".join(str(block.get("text")) for block in blocks if block.get("type") == "text")
        for number, block in enumerate(blocks):
            if block.get("type") != "thinking":
                continue
            if not block.get("signature"):
                return anthropic_error(400, f"messages.{at}.content.{number}.thinking.signature: Field required")
            step = step_in(said)
            if step is None or block["signature"] != signature(step):
                return anthropic_error(400, f"messages.{at}.content.{number}: Invalid `signature` in `thinking` block")
            if block.get("thinking") != Said(said, step).thoughts:
                return anthropic_error(
                    400,
                    f"messages.{at}.content.{number}: `thinking` or `redacted_thinking` blocks in the latest assistant"
                    " message cannot be modified. These blocks must remain as they were in the original response.",
                )
        return None

    def talk(self, asked: Asked) -> Talk:
        turns = [Turn("system", text_of(asked.body.get("system")))] if asked.body.get("system") else []
        for message in asked.messages:
            role: Literal["assistant", "user"] = "assistant" if message["role"] == "assistant" else "user"
            for block in blocks_of(message):
                if block.get("type") == "tool_result":
                    turns.append(Turn("result", text_of(block.get("content"))))
                elif block.get("type") == "text":
                    turns.append(Turn(role, str(block.get("text"))))
        names = frozenset(str(tool["name"]) for tool in asked.body.get("tools") or [])
        return Talk(tuple(turns), names, (asked.body.get("tool_choice") or {}).get("type") == "none", asked.limit)

    def answer(self, said: Said, asked: Asked) -> Answer:
        content: list[Json] = []
        thought = 0
        if self.thinking(asked):
            content.append({"type": "thinking", "thinking": said.thoughts, "signature": signature(said.step)})
            thought = tokens(said.thoughts)
        content.append({"type": "text", "text": said.text})
        for number, call in enumerate(said.calls):
            identity = f"toolu_{digest(f'{said.step} {number} {len(asked.messages)}', 24)}"
            content.append({"type": "tool_use", "id": identity, "name": call.name, "input": call.arguments})
        out = tokens(json.dumps(content)) + thought
        prompt = tokens(asked.size)
        asked.memory.tokens_in += prompt
        asked.memory.tokens_out += out
        marked = prompt if markers_in(asked.body) else 0
        seen = any(message["role"] == "assistant" for message in asked.messages)
        read, written = (marked * 8 // 10, marked // 10) if seen else (0, marked * 9 // 10)
        body = {
            "id": f"msg_{asked.memory.answered}",
            "type": "message",
            "role": "assistant",
            "model": asked.body.get("model"),
            "content": content,
            "stop_reason": "max_tokens" if said.cut else "tool_use" if said.calls else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": prompt - read - written,
                "cache_creation_input_tokens": written,
                "cache_read_input_tokens": read,
                "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
                "output_tokens": out,
                "service_tier": "standard",
            },
        }
        return Answer(raw=json.dumps(body), headers={"request-id": "req_011CX"})


def blocks_of(message: Json) -> list[Json]:
    """The blocks of a message, of which a text is one."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or [] if isinstance(block, dict)]


def markers_in(body: object) -> int:
    """How many cache markers a request holds, wherever they stand."""
    if isinstance(body, dict):
        own = isinstance(body.get("cache_control"), dict)
        return own + sum(markers_in(value) for key, value in body.items() if key != "cache_control")
    return sum(markers_in(each) for each in body) if isinstance(body, list) else 0


_BLOCK_FIELDS = {
    "text": {"text", "citations"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "tool_use": {"id", "name", "input", "caller"},
    "tool_result": {"tool_use_id", "content", "is_error"},
}


def _blocks(at: int, blocks: Sequence[Json], message: Json) -> Answer | None:
    if not blocks:
        said = (
            f"messages.{at}: all messages must have non-empty content except for the optional final assistant message"
        )
        return anthropic_error(400, said)
    for name in message:
        if name not in ("role", "content"):
            return anthropic_error(400, f"messages.{at}.{name}: Extra inputs are not permitted")
    results_over = False
    for number, block in enumerate(blocks):
        place, kind = f"messages.{at}.content.{number}", block.get("type")
        if kind not in _BLOCK_FIELDS:
            return anthropic_error(
                400, f"{place}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            )
        for name in block:
            if name not in _BLOCK_FIELDS[kind] | {"type", "cache_control"}:
                return anthropic_error(400, f"{place}.{kind}.{name}: Extra inputs are not permitted")
        if kind == "text" and not str(block.get("text") or "").strip():
            return anthropic_error(400, "messages: text content blocks must be non-empty")
        if kind == "tool_use":
            if not isinstance(block.get("input"), dict):
                return anthropic_error(400, f"{place}.tool_use.input: Input should be a valid dictionary")
            if not re.fullmatch(r"[a-zA-Z0-9_-]+", str(block.get("id"))):
                return anthropic_error(400, f"{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,200}", str(block.get("name"))):
                return anthropic_error(
                    400, f"{place}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,200}}$'"
                )
        if kind == "tool_result" and results_over:
            return anthropic_error(400, f"messages.{at}: `tool_result` blocks must come before other content")
        results_over = results_over or kind != "tool_result"
    return None
