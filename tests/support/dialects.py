"""A strict server that plays the dialects of today's model servers, one row of `DIALECTS` each.

A row refuses what the real server refuses, with its status and in its words, and answers as it answers; the model
behind it (`tests.support.dialect_model`) mends the same one-line bug each time. In a test:

    with on_thread(DialectServer()) as server:
        server.base("gemini-3")        # http://127.0.0.1:PORT/gemini-3/v1, the alias's base_url
        server.memory["gemini-3"]      # what it refused, what the client should not have done

On its own: `python -m tests.support.dialects` prints every row's URL and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.dialect_model import (
    LATIN,
    LINES,
    LONG,
    MARKDOWN,
    OTHER_NAMES,
    USUAL,
    Call,
    Json,
    Mind,
    Said,
    Step,
    Talk,
    digest,
)
from tests.support.dialect_wires import (
    CHAT_FIELDS,
    CHAT_PARAMETERS,
    Asked,
    Chat,
    Memory,
    Messages,
    Responses,
    Rule,
    Wire,
    anthropic_error,
    markers_in,
    openai_error,
    refusal,
    signature,
    step_in,
    text_of,
    tokens,
)
from tests.support.model_server import Answer, ModelServer, Request

SMALL = 26_000
"""Characters that a small context holds: the fixed beginning and two of the three long files."""
TINY = 900
"""Characters that hold no beginning."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a run on a row should end. `solved` False: by `exit_codes`, and a sentence that matches `says`; `or_says`: a
    sentence that will do in place of a solution, with exit code 4. `seconds`: the longest it may take. `checks`: what
    else must hold of the server's memory and of report.json (None where there is none), as complaints."""

    solved: bool = True
    exit_codes: tuple[int, ...] = (0,)
    says: str = ""
    or_says: str = ""
    seconds: float = 60.0
    checks: tuple[Callable[[Memory, Json | None], str], ...] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """One row. `rules`: what it refuses beyond the API's own; `tampered`: what becomes of the model's reply on its way;
    `models`: the answer to GET /models (None: a list of the one model). `alias`: more of the alias in troop.toml.
    `litellm`: the provider's name there. `attempts`: where one is too few to show it; `turns`: where many
    would leave the client nothing to remind of."""

    name: str
    like: str
    wire: Wire = field(default_factory=Chat)
    rules: tuple[Rule, ...] = ()
    tampered: Callable[[Said, Asked, Talk], Said | Answer] = lambda said, asked, talk: said
    steps: tuple[Step, ...] = USUAL
    two: bool = False
    text: bool = False
    models: Answer | None = None
    model: str = "stand-in"
    alias: Mapping[str, Any] = field(default_factory=dict)
    litellm: str = "openai"
    attempts: int = 1
    turns: int = 14
    listening: bool = True
    wanted: Wanted = Wanted()

    @property
    def endpoint(self) -> str:
        return {Chat: "chat", Responses: "responses", Messages: "messages"}[type(self.wire)]


# --- rules


def parameter(name: str, refusing: Answer, *, only: Callable[[Any], bool] = lambda value: True) -> Rule:
    """Refuses a request that has the parameter, with a value of which `only` is true."""
    return lambda asked: refusing if name in asked.body and only(asked.body[name]) else None


def wherever(endpoint: str, refusing: Answer) -> Rule:
    """Refuses whatever comes to that endpoint."""
    return lambda asked: refusing if asked.endpoint == endpoint else None


def always(refusing: Answer) -> Rule:
    return lambda asked: refusing


def at_first(times: int, refusing: Answer) -> Rule:
    """Refuses the first requests."""
    return lambda asked: refusing if asked.memory.asked <= times else None


def for_seconds(seconds: float, refusing: Answer) -> Rule:
    """Refuses until that long after the first request."""

    def rule(asked: Asked) -> Answer | None:
        asked.memory.first_at = asked.memory.first_at or time.monotonic()
        return refusing if time.monotonic() - asked.memory.first_at < seconds else None

    return rule


def one_conversation(refusing: Answer) -> Rule:
    """Refuses the second turn and all later ones of the conversation whose plan came first."""

    def rule(asked: Asked) -> Answer | None:
        talk = Chat().talk(asked)
        if any(turn.role == "assistant" and "(exploit)" in turn.text for turn in talk.turns):
            return refusing
        return None

    return rule


def mark_first(said: Said, asked: Asked, talk: Talk) -> Said:
    """The first conversation gets a word that the filter of `one_conversation` finds."""
    first = said.step == (1 if talk.mini else 0) and asked.memory.first("marked")
    return Said(f"{said.text} (exploit)", said.step, said.calls) if first else said


def too_long(characters: int, words: Callable[[int, int], Answer], *, and_output: bool = False) -> Rule:
    """Refuses what is longer than that many characters; `words` of the tokens there are and those that fit.
    `and_output`: what the request asks for must fit beside."""

    def rule(asked: Asked) -> Answer | None:
        there, fit = tokens(asked.size), tokens(characters)
        output = (asked.limit or 0) if and_output else 0
        return words(there, fit) if asked.size > characters or there + output > fit else None

    return rule


def alternating(words: str) -> Rule:
    """A strict chat template: after a system message, users (results count as such) and assistants by turns."""

    def rule(asked: Asked) -> Answer | None:
        roles = [m["role"] for m in asked.messages if m["role"] not in ("system", "developer")]
        kinds = ["user" if role == "tool" else role for role in roles]
        results = [role == "tool" for role in roles]
        for at in range(1, len(kinds)):
            if kinds[at] == kinds[at - 1] and not (results[at] and results[at - 1]):
                return llama_error(500, words)
        return llama_error(500, words) if kinds and kinds[0] != "user" else None

    return rule


def no_system(refusing: Answer) -> Rule:
    """Refuses a system message."""
    return lambda asked: refusing if any(m["role"] in ("system", "developer") for m in asked.messages) else None


def no_tools(refusing: Answer) -> Rule:
    """Refuses a request with tools."""
    return lambda asked: refusing if asked.body.get("tools") else None


def json_arguments(refusing: Callable[[str], Answer]) -> Rule:
    """Refuses calls sent back whose arguments are no JSON object; `refusing` of the parser's words."""

    def rule(asked: Asked) -> Answer | None:
        for message in asked.messages:
            for call in message.get("tool_calls") or []:
                try:
                    if not isinstance(json.loads(call["function"]["arguments"]), dict):
                        return refusing("arguments are no object")
                except (ValueError, TypeError) as error:
                    return refusing(str(error))
        return None

    return rule


def text_arguments(asked: Asked) -> Answer | None:
    """Arguments sent back are text."""
    for at, message in enumerate(asked.messages):
        for number, call in enumerate(message.get("tool_calls") or []):
            if not isinstance(call["function"].get("arguments"), str):
                place = f"messages[{at}].tool_calls[{number}].function.arguments"
                said = f"Invalid type for '{place}': expected a string, but got an object instead."
                return openai_error(400, said, param=place, code="invalid_type")
    return None


def known_fields(asked: Asked) -> Answer | None:
    """OpenAI: no unknown parameter, no unknown field of a message, names of calls as they may be."""
    for name in asked.body:
        if name not in CHAT_PARAMETERS:
            return openai_error(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    for at, message in enumerate(asked.messages):
        for name in message:
            if name not in CHAT_FIELDS:
                place = f"messages[{at}].{name}"
                return openai_error(400, f"Unknown parameter: '{place}'.", param=place, code="unknown_parameter")
        for number, call in enumerate(message.get("tool_calls") or []):
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", str(call["function"].get("name"))):
                place = f"messages[{at}].tool_calls[{number}].function.name"
                said = f"Invalid '{place}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
                return openai_error(400, said, param=place, code="invalid_value")
    return None


def thoughts_back(field_name: str, refusing: Callable[[int], Answer], *, with_calls: bool) -> Rule:
    """Refuses assistant messages without what the model thought; `with_calls`: only where they have calls. Changed
    thoughts are noted, as no server looks."""

    def rule(asked: Asked) -> Answer | None:
        for at, message in enumerate(asked.messages):
            if message["role"] != "assistant" or (with_calls and not message.get("tool_calls")):
                continue
            if field_name not in message:
                return refusing(at)
            text = text_of(message.get("content"))
            step = step_in(text)
            if step is not None and message[field_name] != Said(text, step).thoughts:
                asked.memory.mind.bad.append(f"{field_name} of step {step} was changed")
        return None

    return rule


def details_back(asked: Asked) -> Answer | None:
    """Claude by OpenRouter: the signed thoughts come back before calls, and no more than four cache markers."""
    asked.memory.markers = max(asked.memory.markers, markers_in(asked.body))
    if markers_in(asked.body) > 4:
        return open_router(f"A maximum of 4 blocks with cache_control may be provided. Found {markers_in(asked.body)}.")
    for at, message in enumerate(asked.messages):
        if message["role"] != "assistant" or not message.get("tool_calls"):
            continue
        details = message.get("reasoning_details") or []
        step = step_in(text_of(message.get("content")))
        if not details:
            return open_router(
                f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`. When"
                " `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the"
                " lastmost set of `tool_use` and `tool_result` blocks). We recommend you include thinking blocks from"
                " previous turns. To avoid this requirement, disable `thinking`."
            )
        if step is not None and details[0].get("signature") != signature(step):
            return open_router(f"messages.{at}.content.0: Invalid `signature` in `thinking` block")
    return None


def signed_calls(asked: Asked) -> Answer | None:
    """Gemini 3: the first call of each message has the signature it came with."""
    for at, message in enumerate(asked.messages):
        for call in (message.get("tool_calls") or [])[:1]:
            given = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
            step = step_in(text_of(message.get("content")))
            if given is None:
                return google_error(
                    400,
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools to"
                    " work correctly, and missing thought_signature may lead to degraded model performance. Additional"
                    f" data, function call `default_api:{call['function']['name']}` , position {at}. Please refer to"
                    " https://ai.google.dev/gemini-api/docs/thought-signatures for more details.",
                )
            if step is not None and given != signature(step):
                return google_error(400, "Corrupted thought signature.")
    return None


def full_properties(asked: Asked) -> Answer | None:
    """Gemini: no object schema without properties."""
    for number, tool in enumerate(asked.body.get("tools") or []):
        parameters = tool["function"].get("parameters")
        if isinstance(parameters, dict) and parameters.get("type") == "object" and not parameters.get("properties"):
            place = f"GenerateContentRequest.tools[0].function_declarations[{number}].parameters.properties"
            return google_error(400, f"* {place}: should be non-empty for OBJECT type\n")
    return None


def mistral(asked: Asked) -> Answer | None:
    """Mistral: no unknown fields, no user after a result, ids of nine letters and digits."""
    fields = {
        "system": {"role", "content"},
        "user": {"role", "content"},
        "tool": {"role", "content", "tool_call_id", "name"},
        "assistant": {"role", "content", "tool_calls", "prefix"},
    }
    known = CHAT_PARAMETERS - {"seed", "max_completion_tokens", "user", "store", "logit_bias"} | {"random_seed"}
    extra: list[tuple[list[str | int], Any]] = [(["body", n], v) for n, v in asked.body.items() if n not in known]
    for at, message in enumerate(asked.messages):
        role = message["role"]
        if role not in fields:
            continue
        place: list[str | int] = ["body", "messages", at, role]
        extra += [([*place, n], v) for n, v in message.items() if n not in fields[role]]
        for number, call in enumerate(message.get("tool_calls") or []):
            odd = call.keys() - {"id", "type", "function", "index"}
            extra += [([*place, "tool_calls", number, n], call[n]) for n in odd]
    if extra:
        detail = [
            {"type": "extra_forbidden", "loc": loc, "msg": "Extra inputs are not permitted", "input": given}
            for loc, given in extra
        ]
        body = {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}
        return refusal(422, {**body, "param": None, "code": None})
    roles = [message["role"] for message in asked.messages]
    for before, role in itertools.pairwise(roles):
        if (before, role) in (("tool", "user"), ("assistant", "system"), ("tool", "system")):
            return mistral_error(f"Unexpected role '{role}' after role '{before}'", "3230")
    if roles[-1] == "assistant":
        said = "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
        return mistral_error(said, "3230")
    for message in asked.messages:
        for call in message.get("tool_calls") or []:
            if not re.fullmatch(r"[a-zA-Z0-9]{9}", call["id"]):
                said = f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
                return mistral_error(said, "3280", "invalid_function_call")
    return None


def no_nulls(asked: Asked) -> Answer | None:
    """Servers whose schemas know no null but that of the content."""
    for at, message in enumerate(asked.messages):
        for name, value in message.items():
            if value is None and name != "content":
                said = f"Input should be a valid value, got null: body.messages.{at}.{name}"
                return refusal(
                    422, {"detail": [{"loc": ["body", "messages", at, name], "msg": said, "type": "value_error"}]}
                )
    return None


def no_big_answer(asked: Asked) -> Answer | None:
    """vLLM, new: what is asked for must fit beside the prompt."""
    there, fit = tokens(asked.size), tokens(SMALL)
    limit = asked.limit
    if limit is None or there > fit or there + limit <= fit:
        return None
    name = "max_completion_tokens" if "max_completion_tokens" in asked.body else "max_tokens"
    said = (
        f"'max_tokens' or 'max_completion_tokens' is too large: {limit}. This model's maximum context length is {fit}"
        f" tokens and your request has {there} input tokens ({limit} > {fit} - {there}). (parameter={name}, value={limit})"
    )
    return vllm_error(said, param=name)


# --- the words of each server


def llama_error(status: int, words: str, kind: str = "server_error", **more: object) -> Answer:
    return refusal(status, {"error": {"code": status, "message": words, "type": kind, **more}})


def ollama_error(status: int, words: str) -> Answer:
    return refusal(status, {"error": {"message": words, "type": "api_error", "param": None, "code": None}})


def vllm_error(words: str, *, old: bool = False, param: str | None = None) -> Answer:
    told = {"message": words, "type": "BadRequestError", "param": param, "code": 400}
    return refusal(400, {"object": "error", **told} if old else {"error": told})


def google_error(status: int, words: str) -> Answer:
    return refusal(status, [{"error": {"code": status, "message": words, "status": "INVALID_ARGUMENT"}}])


def mistral_error(words: str, code: str, kind: str = "invalid_request_message_order") -> Answer:
    return refusal(400, {"object": "error", "message": words, "type": kind, "param": None, "code": code})


def kimi_error(words: str) -> Answer:
    return refusal(400, {"error": {"message": words, "type": "invalid_request_error"}})


def xai_error(words: str) -> Answer:
    return refusal(400, {"code": "Client specified an invalid argument", "error": words})


def open_router(words: str) -> Answer:
    raw = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": words}})
    error = {
        "message": "Provider returned error",
        "code": 400,
        "metadata": {"raw": raw, "provider_name": "Anthropic", "is_byok": False},
    }
    return refusal(400, {"error": error, "user_id": "user_2x"})


def too_many(retry_after: str) -> Answer:
    said = "Rate limit reached for requests"
    body = {"error": {"message": said, "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    return refusal(429, body, Retry_After=retry_after)


def listing(name: str = "stand-in", **more: object) -> Answer:
    """What GET /models says of the one model."""
    return Answer(raw=json.dumps({"object": "list", "data": [{"id": name, "object": "model", "created": 1, **more}]}))


# --- what becomes of replies


def once_at(step: int, make: Callable[[Said, Asked], Said | Answer]) -> Callable[[Said, Asked, Talk], Said | Answer]:
    """The first reply of that step is another; each later one is as it should be."""

    def tamper(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
        return make(said, asked) if said.step == step and asked.memory.first("tampered") else said

    return tamper


def odd_answer(change: Callable[[Json], object]) -> Callable[[Said, Asked, Talk], Said | Answer]:
    """The first reply of the edit is an answer changed in that way."""

    def make(said: Said, asked: Asked) -> Answer:
        whole = json.loads(Chat().answer(said, asked).raw or "{}")
        return Answer(raw=json.dumps(change(whole)))

    return once_at(2, make)


def odd_message(change: Callable[[Json], object]) -> Callable[[Said, Asked, Talk], Said | Answer]:
    """The first reply of the edit is a message changed in that way."""

    def changed(whole: Json) -> Json:
        choice = {**whole["choices"][0], "message": change(whole["choices"][0]["message"])}
        return {**whole, "choices": [choice]}

    return odd_answer(changed)


NEEDS = 3000
"""Output tokens that the edit takes where a row says so."""
DEFAULT_LIMIT = 1000
"""Output tokens where a request does not say how many."""

HALF = '"""Sums."""\n\n\ndef total(values):\n    result = 0\n'
"""A file cut off in its midst."""


def cut_by_limit(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
    """The edit takes NEEDS output tokens; with fewer it is cut in the midst of the call's arguments."""
    if said.step != 2 or (asked.limit or DEFAULT_LIMIT) >= NEEDS:
        return said
    part = Chat(call=_half_arguments).answer(Said("I will now edit the", -1, said.calls, cut=True), asked)
    return part


def cut_above(needs: int) -> Callable[[Said, Asked, Talk], Said | Answer]:
    """The edit takes that many output tokens, thinking included; with fewer it ends before it has come to the call."""

    def tamper(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
        cut = said.step == 2 and asked.limit is not None and asked.limit < needs
        return Said("I will now edit the", -1, cut=True) if cut else said

    return tamper


def _half_arguments(call: Json) -> Json:
    half = call["function"]["arguments"][:25]
    return {**call, "function": {**call["function"], "arguments": half}}


def cut_whole_call(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
    """The edit begins with a call that would leave half a file, whole as JSON; cut wherever the limit is too small."""
    if said.step != 2 or (asked.limit or DEFAULT_LIMIT) >= NEEDS:
        return said
    ours = Call("create", {"path": "calc.py", "content": HALF})
    bash = Call("bash", {"command": f"printf '{HALF}' > calc.py".replace("\n", "\\n")})
    return Chat().answer(Said("I write the file anew", -1, (bash if talk.mini else ours,), cut=True), asked)


def unparsed(words: Answer) -> Callable[[Said, Asked, Talk], Said | Answer]:
    """The model's call at the edit cannot be parsed by its server, whenever the seed is that of the first try."""

    def tamper(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
        if said.step != 2:
            return said
        key = f"{asked.body.get('seed')} {asked.size}"
        if asked.memory.first("unparsed"):
            asked.memory.once.add(f"bad {key}")
        if f"bad {key}" in asked.memory.once:
            return words
        return said

    return tamper


def in_content(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
    """The call stands in the content, as the model was trained to write it."""
    if not said.calls:
        return said
    call = said.calls[0]
    written = json.dumps({"name": call.name, "arguments": call.arguments})
    return Said(f"{said.text}\n<tool_call>\n{written}\n</tool_call>", said.step)


def fence_in_lines(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
    """Text protocol: line breaks in the JSON's strings are raw."""
    return said if talk.mini else Said(said.text.replace("\\n", "\n"), said.step)


def two_blocks(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
    """Text protocol: a second block follows, which must not be carried out."""
    if talk.mini or said.step < 1:
        return said
    second = json.dumps({"name": "run", "arguments": {"command": "rm calc.py"}})
    return Said(f"{said.text}\n\nAnd then:\n\n```tool\n{second}\n```", said.step)


def lone_surrogate(said: Said, asked: Asked, talk: Talk) -> Said | Answer:
    """Half an emoji in the text, as servers that cut tokens write it."""
    return Said(f"{said.text} \ud83d", said.step, said.calls)


def gemini_usage(usage: Json) -> Json:
    """Gemini: what was thought counts in the total only."""
    kept = {k: v for k, v in usage.items() if not k.endswith("_details")}
    return {**kept, "total_tokens": usage["total_tokens"] + HIDDEN}


def thinks_hidden(said: Said, asked: Asked, talk: Talk) -> Said:
    """HIDDEN tokens are thought and billed with each answer."""
    asked.memory.tokens_out += HIDDEN
    return said


HIDDEN = 500


def arguments(change: Callable[[Json], object]) -> Callable[[Json], Json]:
    """A call whose arguments are changed in that way."""

    def changed(call: Json) -> Json:
        given = json.loads(call["function"]["arguments"])
        return {**call, "function": {**call["function"], "arguments": change(given)}}

    return changed


def _loose_numbers(as_: Callable[[int], object]) -> Callable[[Json], Json]:
    def loose(given: Json) -> str:
        return json.dumps({k: as_(v) if isinstance(v, int) else v for k, v in given.items()})

    return arguments(loose)


def _listed(as_: Callable[[list[str]], object]) -> Callable[[Json], Json]:
    return arguments(lambda given: json.dumps({k: as_(v) if isinstance(v, list) else v for k, v in given.items()}))


def _named(name: Callable[[str], str]) -> Callable[[Json], Json]:
    return lambda call: {**call, "function": {**call["function"], "name": name(call["function"]["name"])}}


# --- what else must hold


def cached(memory: Memory, report: Json | None) -> str:
    """Cache markers were sent."""
    return "" if memory.markers else "no cache_control was sent"


def all_output(memory: Memory, report: Json | None) -> str:
    """All output is charged, thinking included."""
    if report is None:
        return "there is no report"
    usage = report["cost"]["usage"] if "usage" in report["cost"] else _summed(report)
    told = usage["output"] + usage["reasoning"]
    return "" if told >= 0.9 * memory.tokens_out else f"{told} output tokens are charged of {memory.tokens_out}"


def _summed(report: Json) -> Json:
    parts = [part["usage"] for part in report["cost"]["by_purpose"].values()]
    return {key: sum(part[key] for part in parts) for key in ("output", "reasoning")}


def not_free(memory: Memory, report: Json | None) -> str:
    """Nothing is called free that was not."""
    cost = (report or {}).get("cost") or {}
    return "the cost is told as exactly 0" if cost.get("exact") and not cost.get("usd") else ""


def few_refusals(memory: Memory, report: Json | None) -> str:
    """The server was not stormed."""
    return "" if len(memory.refused) <= 24 else f"{len(memory.refused)} requests were sent to a server that said no"


def judged(memory: Memory, report: Json | None) -> str:
    """The judge was heard."""
    asked = ((report or {}).get("cost") or {}).get("by_purpose") or {}
    return "" if asked.get("judge", {}).get("calls") else "the judge was not asked"


# --- the table

BAD_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support {} with this model. Only the default (1) value is supported."
)
USE_COMPLETION = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)


def openai_temperature(asked: Asked) -> Answer | None:
    given = asked.body.get("temperature", 1)
    said = BAD_TEMPERATURE.format(given)
    return openai_error(400, said, param="temperature", code="unsupported_value") if given != 1 else None


MAX_TOKENS = parameter(
    "max_tokens", openai_error(400, USE_COMPLETION, param="max_tokens", code="unsupported_parameter")
)


def responses_only(asked: Asked) -> Answer | None:
    """OpenAI's reasoning models: tools on Chat Completions only without reasoning."""
    if asked.endpoint != "chat" or not asked.body.get("tools") or asked.body.get("reasoning_effort") == "none":
        return None
    said = (
        "Function tools with reasoning_effort are not supported for gpt-5.6-terra in /v1/chat/completions. To use"
        " function tools, use /v1/responses or set reasoning_effort to 'none'."
    )
    return openai_error(400, said, param="reasoning_effort")


NO_TEMPERATURE = parameter(
    "temperature",
    openai_error(
        400,
        "Unsupported parameter: 'temperature' is not supported with this model.",
        param="temperature",
        code="unsupported_parameter",
    ),
)


def _sampled(name: str, like: str, rule: Rule, *more: Rule) -> Dialect:
    return Dialect(name, like, rules=(rule, *more))


PARAMETERS = [
    Dialect(
        "openai-reasoning",
        "OpenAI's reasoning models on Chat Completions: temperature 1 only, max_completion_tokens, strict fields",
        rules=(known_fields, text_arguments, MAX_TOKENS, openai_temperature),
    ),
    _sampled(
        "temperature-deprecated",
        "Claude Opus through OpenAI-compatible gateways, param null",
        parameter("temperature", openai_error(400, "`temperature` is deprecated for this model.")),
    ),
    _sampled(
        "seed-unknown",
        "servers that know no seed",
        parameter("seed", openai_error(400, "Unknown parameter: 'seed'.", param="seed", code="unknown_parameter")),
    ),
    _sampled(
        "seed-in-words",
        "the same with param null, in words only",
        parameter("seed", openai_error(400, "This model does not accept the argument seed")),
    ),
    _sampled(
        "seed-extra-422",
        "FastAPI servers that forbid extra fields",
        parameter(
            "seed",
            refusal(
                422,
                {
                    "detail": [
                        {
                            "type": "extra_forbidden",
                            "loc": ["body", "seed"],
                            "msg": "Extra inputs are not permitted",
                            "input": 1,
                        }
                    ]
                },
            ),
        ),
    ),
    _sampled(
        "both-refused",
        "a model that takes neither temperature nor seed, told of one at a time",
        parameter(
            "temperature", openai_error(400, "temperature: this parameter cannot be changed for reasoning models")
        ),
        parameter("seed", openai_error(400, "seed is not supported by this model")),
        parameter("parallel_tool_calls", openai_error(400, "parallel_tool_calls is not supported by this model")),
        parameter("tool_choice", openai_error(400, "deepseek-reasoner does not support this tool_choice")),
        parameter("max_tokens", openai_error(400, "max_tokens is not allowed; use max_completion_tokens")),
    ),
    Dialect(
        "kimi",
        "Kimi K2: temperature 1 only, param not there",
        rules=(
            parameter(
                "temperature",
                kimi_error("invalid temperature: only 1 is allowed for this model"),
                only=lambda value: value != 1,
            ),
            thoughts_back(
                "reasoning_content",
                lambda at: kimi_error(
                    f"thinking is enabled but reasoning_content is missing in assistant tool call message at index {at}"
                ),
                with_calls=True,
            ),
        ),
        wire=Chat("reasoning_content", ids=lambda text: f"functions.call:{digest(text, 6)}"),
        litellm="moonshot",
    ),
    Dialect(
        "kimi-judge",
        "the judge's temperature 0 is refused as any other",
        rules=(
            parameter(
                "temperature",
                kimi_error("invalid temperature: only 1 is allowed for this model"),
                only=lambda value: value != 1,
            ),
        ),
        two=True,
        attempts=2,
        wanted=Wanted(checks=(judged,)),
        litellm="moonshot",
    ),
    Dialect(
        "stream-demanded",
        "DashScope's Qwen3: thinking only in streams",
        wire=Chat("reasoning_content"),
        rules=(
            lambda asked: (
                None
                if asked.body.get("stream") or asked.body.get("enable_thinking") is False
                else openai_error(
                    400,
                    "parameter.enable_thinking must be set to false for non-streaming calls",
                    code="invalid_parameter_error",
                )
            ),
        ),
        litellm="dashscope",
        wanted=Wanted(checks=(all_output,)),
    ),
    Dialect(
        "stream-only",
        "DashScope's QwQ: streams only",
        wire=Chat("reasoning_content"),
        rules=(
            lambda asked: (
                None
                if asked.body.get("stream")
                else openai_error(
                    400,
                    "This model only support stream mode, please enable the stream parameter to access the model. ",
                    code="invalid_parameter_error",
                )
            ),
        ),
        litellm="dashscope",
        wanted=Wanted(checks=(all_output,)),
    ),
]

HOSTED = [
    Dialect(
        "responses-400",
        "an OpenAI reasoning model that takes tools on Responses only",
        wire=Responses(),
        rules=(responses_only, NO_TEMPERATURE, wherever("messages", refusal(404, "Not Found"))),
        model="gpt-5.6-terra",
        wanted=Wanted(checks=(all_output,)),
    ),
    Dialect(
        "responses-404",
        "an OpenAI model that is on Responses only",
        wire=Responses(),
        rules=(
            wherever(
                "chat",
                openai_error(
                    404, "This model is only supported in v1/responses and not in v1/chat/completions.", param="model"
                ),
            ),
            NO_TEMPERATURE,
        ),
        model="gpt-5.6-pro",
        wanted=Wanted(checks=(all_output,)),
    ),
    Dialect(
        "overflow-responses",
        "overflow on Responses",
        wire=Responses(),
        rules=(
            responses_only,
            NO_TEMPERATURE,
            too_long(
                SMALL,
                lambda there, fit: openai_error(
                    400,
                    "Your input exceeds the context window of this model. Please adjust your input and try again.",
                    param="input",
                    code="context_length_exceeded",
                ),
            ),
        ),
        steps=LONG,
        model="gpt-5.6-terra",
    ),
    Dialect(
        "responses-not-chat-404",
        "the same in older words",
        wire=Responses(),
        rules=(
            wherever(
                "chat",
                openai_error(
                    404,
                    "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean"
                    " to use v1/completions?",
                    param="model",
                ),
            ),
            NO_TEMPERATURE,
        ),
        model="gpt-5.2-codex",
    ),
    *(
        Dialect(
            name,
            like,
            wire=Messages(always=thinks),
            rules=rules,
            model="claude-3-haiku-20240307" if name == "anthropic-max-tokens" else "claude-sonnet-4-5",
            steps=steps,
            litellm="anthropic",
            alias=alias,
            wanted=Wanted(checks=(cached, all_output)),
        )
        for name, like, thinks, rules, steps, alias in [
            ("anthropic", "Claude without thinking", False, (), USUAL, {}),
            (
                "anthropic-thinking",
                "Claude with thinking asked for by the alias",
                False,
                (),
                USUAL,
                {"sampling": {"thinking": {"type": "enabled", "budget_tokens": 2048}}},
            ),
            (
                "anthropic-thinks-always",
                "a Claude that thinks unasked, and whose temperature is deprecated",
                True,
                (parameter("temperature", anthropic_error(400, "`temperature` is deprecated for this model.")),),
                USUAL,
                {},
            ),
            (
                "anthropic-overloaded",
                "Claude when it is busy",
                False,
                (at_first(2, anthropic_error(529, "Overloaded", "overloaded_error")),),
                USUAL,
                {},
            ),
            (
                "anthropic-too-long",
                "Claude's overflow",
                False,
                (
                    too_long(
                        SMALL,
                        lambda there, fit: anthropic_error(400, f"prompt is too long: {there} tokens > {fit} maximum"),
                    ),
                ),
                LONG,
                {},
            ),
            (
                "anthropic-413",
                "Claude's overflow of bytes",
                False,
                (
                    too_long(
                        SMALL,
                        lambda there, fit: anthropic_error(
                            413, "Request exceeds the maximum size", "request_too_large"
                        ),
                    ),
                ),
                LONG,
                {},
            ),
            (
                "anthropic-max-tokens",
                "a Claude with a small output: more cannot be asked for",
                False,
                (
                    lambda asked: (
                        anthropic_error(
                            400,
                            f"max_tokens: {asked.limit} > 4096, which is the maximum allowed number of output tokens for"
                            " claude-3-haiku",
                        )
                        if (asked.limit or 0) > 4096
                        else None
                    ),
                ),
                USUAL,
                {},
            ),
        ]
    ),
    Dialect(
        "openrouter-claude",
        "Claude through OpenRouter: signed reasoning_details come back, cache_control is taken",
        wire=Chat("reasoning_details"),
        rules=(details_back,),
        model="anthropic/claude-sonnet-4.5",
        litellm="openrouter",
        wanted=Wanted(checks=(cached,)),
    ),
    Dialect(
        "deepseek-thinking",
        "DeepSeek's thinking mode: reasoning_content comes back with calls",
        wire=Chat("reasoning_content"),
        rules=(
            thoughts_back(
                "reasoning_content",
                lambda at: openai_error(
                    400,
                    f"Missing `reasoning_content` field in the assistant message at message index {at}. For more"
                    " information, please refer to https://api-docs.deepseek.com/guides/thinking_mode#tool-calls",
                ),
                with_calls=True,
            ),
        ),
        litellm="deepseek",
        model="deepseek-reasoner",
    ),
    Dialect(
        "deepseek-v4",
        "DeepSeek V4: it comes back in every message",
        wire=Chat("reasoning_content"),
        rules=(
            thoughts_back(
                "reasoning_content",
                lambda at: openai_error(
                    400,
                    "The `reasoning_content` in the thinking mode must be passed back to the API.",
                    code="invalid_request_error",
                ),
                with_calls=False,
            ),
        ),
        litellm="deepseek",
        model="deepseek-v4-flash",
    ),
    Dialect(
        "vllm-reasoning",
        "vLLM's reasoning field, sent back as it came",
        wire=Chat("reasoning"),
        rules=(
            thoughts_back("reasoning", lambda at: vllm_error(f"messages[{at}]: reasoning is missing"), with_calls=True),
        ),
        litellm="hosted_vllm",
    ),
    Dialect(
        "gemini-3",
        "Gemini 3's OpenAI endpoint: signatures on calls, no empty properties, no ids, thinking outside the output",
        wire=Chat(signed=True, ids=lambda text: None, usage=gemini_usage),
        rules=(full_properties, signed_calls),
        tampered=thinks_hidden,
        model="gemini-3-pro-preview",
        wanted=Wanted(checks=(all_output,)),
    ),
    Dialect(
        "gemini-2.5",
        "Gemini 2.5's OpenAI endpoint: no empty properties, ids that are empty, thinking outside the output",
        wire=Chat(ids=lambda text: "", usage=gemini_usage),
        rules=(full_properties,),
        tampered=thinks_hidden,
        model="gemini-2.5-pro",
        wanted=Wanted(checks=(all_output,)),
    ),
    Dialect(
        "mistral",
        "Mistral: no user after a result, no fields it does not know, ids of nine",
        wire=Chat(ids=lambda text: digest(text, 9)),
        rules=(mistral,),
        turns=5,
        litellm="mistral",
        model="mistral-large-latest",
    ),
    Dialect(
        "mistral-malformed",
        "the same after a turn that has to be corrected",
        wire=Chat(ids=lambda text: digest(text, 9)),
        rules=(mistral,),
        turns=6,
        tampered=once_at(2, lambda said, asked: Said("I think that it is done.")),
        litellm="mistral",
        model="mistral-large-latest",
    ),
    Dialect(
        "magistral",
        "Mistral's reasoning models: content as a list of parts",
        wire=Chat("parts", ids=lambda text: digest(text, 9)),
        rules=(mistral,),
        litellm="mistral",
        model="magistral-medium-latest",
    ),
]


LOCAL = [
    Dialect(
        "llamacpp-roles",
        "llama.cpp with a strict template",
        turns=5,
        rules=(
            alternating("Conversation roles must alternate user/assistant/user/assistant/..."),
            json_arguments(lambda words: llama_error(500, f"Failed to parse tool call arguments as JSON: {words}")),
        ),
    ),
    Dialect(
        "llamacpp-roles-malformed",
        "the same after a turn that has to be corrected",
        rules=(alternating("Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/..."),),
        tampered=once_at(2, lambda said, asked: Said("I think that it is done.")),
        turns=6,
    ),
    Dialect(
        "llamacpp-no-system",
        "llama.cpp with a template without a system role",
        rules=(
            no_system(llama_error(500, "System role not supported")),
            alternating("Conversation roles must alternate user/assistant/user/assistant/..."),
        ),
    ),
    Dialect(
        "no-system-400",
        "servers that refuse `system`",
        rules=(no_system(openai_error(400, "Developer instruction is not enabled for models/gemma-3-27b-it")),),
    ),
    Dialect(
        "llamacpp-unparsed",
        "llama.cpp that cannot parse its model's call",
        tampered=unparsed(
            llama_error(500, "Failed to parse input at pos 52: <tool_call>\n<function=edit>\n<parameter")
        ),
    ),
    Dialect(
        "ollama-unparsed",
        "Ollama that cannot parse its model's call",
        tampered=unparsed(
            ollama_error(
                500,
                'error parsing tool call: raw=\'{"path":"calc.py","old":"values[1:]","new":"values"}]\', err=invalid'
                " character ']' after top-level value",
            )
        ),
    ),
    Dialect(
        "ollama-no-tools",
        "Ollama with a model without tools",
        rules=(no_tools(ollama_error(400, "registry.ollama.ai/library/gemma2:latest does not support tools")),),
        text=True,
        wanted=Wanted(or_says=r"tools = false|without tools|text protocol"),
    ),
    Dialect(
        "vllm-no-tools",
        "vLLM started without its flags for tools",
        rules=(
            no_tools(
                vllm_error('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
            ),
        ),
        text=True,
        wanted=Wanted(or_says=r"tools = false|without tools|text protocol|--enable-auto-tool-choice"),
        litellm="hosted_vllm",
    ),
    Dialect(
        "vllm-harmony-name",
        "vLLM with gpt-oss: template tokens in the call's name",
        wire=Chat("reasoning", call=_named(lambda name: f"{name}<|channel|>commentary")),
        rules=(json_arguments(lambda words: vllm_error(words)),),
        litellm="hosted_vllm",
    ),
]

OVERFLOW = [
    Dialect(
        name,
        like,
        rules=(*more, too_long(SMALL, words, and_output=and_output)),
        steps=LONG,
        litellm=litellm,
        models=models,
        wanted=Wanted(seconds=90),
    )
    for name, like, words, and_output, more, litellm, models in [
        (
            "overflow-openai",
            "OpenAI",
            lambda there, fit: openai_error(
                400,
                f"This model's maximum context length is {fit} tokens. However, your messages resulted in {there} tokens."
                " Please reduce the length of the messages.",
                param="messages",
                code="context_length_exceeded",
            ),
            False,
            (),
            "openai",
            None,
        ),
        (
            "overflow-llamacpp",
            "llama.cpp",
            lambda there, fit: llama_error(500, "Context size has been exceeded."),
            False,
            (),
            "openai",
            None,
        ),
        (
            "overflow-llamacpp-new",
            "llama.cpp of today",
            lambda there, fit: llama_error(
                400,
                "the request exceeds the available context size, try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens=there,
                n_ctx=fit,
            ),
            False,
            (),
            "openai",
            None,
        ),
        (
            "overflow-vllm-old",
            "vLLM of old",
            lambda there, fit: vllm_error(
                f"This model's maximum context length is {fit} tokens. However, you requested {there} tokens ({there} in"
                " the messages, 0 in the completion). Please reduce the length of the messages or completion.",
                old=True,
            ),
            True,
            (),
            "hosted_vllm",
            listing(max_model_len=tokens(SMALL), owned_by="vllm"),
        ),
        (
            "overflow-vllm-new",
            "vLLM of today",
            lambda there, fit: vllm_error(
                f"You passed {there} input tokens and requested 0 output tokens. However, the model's context length is"
                f" only {fit} tokens, resulting in a maximum input length of {fit} tokens. Please reduce the length of"
                f" the input prompt. (parameter=input_tokens, value={there})",
                param="input_tokens",
            ),
            False,
            (no_big_answer,),
            "hosted_vllm",
            None,
        ),
        (
            "overflow-ollama",
            "Ollama",
            lambda there, fit: ollama_error(
                400, f"prompt too long; exceeded max context length by {there - fit} tokens"
            ),
            False,
            (),
            "openai",
            None,
        ),
        (
            "overflow-gemini",
            "Gemini",
            lambda there, fit: google_error(
                400, f"The input token count ({there}) exceeds the maximum number of tokens allowed ({fit})."
            ),
            False,
            (),
            "openai",
            None,
        ),
        (
            "overflow-xai",
            "xAI",
            lambda there, fit: xai_error(
                f"This model's maximum prompt length is {fit} but the request contains {there} tokens."
            ),
            False,
            (),
            "xai",
            None,
        ),
        (
            "overflow-kimi",
            "Kimi",
            lambda there, fit: kimi_error(
                f"Invalid request: Your request exceeded model token limit: {fit} (requested: {there})"
            ),
            False,
            (),
            "moonshot",
            None,
        ),
        (
            "overflow-413-html",
            "a proxy before any server",
            lambda there, fit: refusal(
                413,
                "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>413 Request"
                " Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
                Content_Type="text/html",
            ),
            False,
            (),
            "openai",
            None,
        ),
        (
            "overflow-groq-413",
            "Groq",
            lambda there, fit: openai_error(
                413,
                f"Request too large for model `stand-in` in organization `org_1` service tier `on_demand` on tokens per"
                f" minute (TPM): Limit {fit}, Requested {there}, please reduce your message size and try again.",
                kind="tokens",
                code="rate_limit_exceeded",
            ),
            False,
            (),
            "openai",
            None,
        ),
    ]
] + [
    Dialect(
        "overflow-beginning",
        "a context into which not even the beginning fits",
        rules=(
            too_long(
                TINY,
                lambda there, fit: openai_error(
                    400,
                    f"This model's maximum context length is {fit} tokens. However, your messages resulted in {there}"
                    " tokens.",
                    param="messages",
                    code="context_length_exceeded",
                ),
            ),
        ),
        wanted=Wanted(solved=False, exit_codes=(1, 4), says=r"fit|context", seconds=30),
    )
]

LOOSE = [
    Dialect(name, like, wire=Chat(call=call, ids=lambda text: f"call_{digest(text, 8)}"), rules=rules, steps=steps)
    for name, like, call, rules, steps in [
        ("loose-list-as-text", "an array given as JSON text", _listed(json.dumps), (text_arguments,), USUAL),
        (
            "loose-list-as-item",
            "one text in place of an array",
            _listed(lambda each: each[0]),
            (text_arguments,),
            USUAL,
        ),
        ("loose-numbers-as-text", "numbers as texts", _loose_numbers(str), (text_arguments,), USUAL),
        ("loose-floats", "whole numbers as floats", _loose_numbers(float), (text_arguments,), USUAL),
        ("loose-twice", "arguments encoded twice", arguments(lambda a: json.dumps(json.dumps(a))), (), USUAL),
        ("loose-object", "arguments as an object", arguments(lambda a: a), (), USUAL),
        (
            "loose-raw-newline",
            "a raw line break within a string; sent back it is refused",
            arguments(lambda a: json.dumps(a).replace("\\n", "\n")),
            (json_arguments(lambda words: vllm_error(words)),),
            LINES,
        ),
        (
            "loose-other-names",
            "well-known other names of tools",
            _named(lambda n: "shell" if n == "bash" else n),
            (),
            OTHER_NAMES,
        ),
    ]
] + [
    Dialect("loose-in-content", "a <tool_call> block in the content", tampered=in_content),
    Dialect(
        "loose-calls-of-text",
        'tool_calls: ["x"]',
        tampered=odd_message(lambda message: {**message, "tool_calls": ["x"], "content": "I edit."}),
    ),
    Dialect(
        "loose-calls-of-null",
        "tool_calls: [null]",
        tampered=odd_message(lambda message: {**message, "tool_calls": [None], "content": "I edit."}),
    ),
]

CONTENT = [
    Dialect("content-parts", "content as a list of parts", wire=Chat("parts")),
    Dialect("think-block", "<think>…</think> before the answer", wire=Chat("think")),
    Dialect("think-unopened", "</think> whose beginning the template has written", wire=Chat("open-think")),
    Dialect(
        "think-unterminated",
        "<think> without an end, before a call",
        wire=Chat(
            message=lambda m: {**m, "content": f"<think>\nI go on. {m['content']}"} if m.get("tool_calls") else m
        ),
    ),
    Dialect("harmony", "Harmony channels in the content", wire=Chat("harmony")),
    Dialect(
        "null-content",
        "content and other fields null beside calls, which must not come back as they are",
        wire=Chat(
            message=lambda m: {
                **m,
                "refusal": None,
                "audio": None,
                "content": None if m.get("tool_calls") else m["content"],
            }
        ),
        rules=(no_nulls,),
    ),
    Dialect("latin-1", "a file with bytes that are no UTF-8", steps=LATIN),
    Dialect("lone-surrogate", "half an emoji in the answer", tampered=lone_surrogate),
]

TEXT = [
    Dialect(name, like, text=True, alias={"tools": False}, rules=rules, steps=steps, tampered=tampered, wire=wire)
    for name, like, rules, steps, tampered, wire in [
        ("text-protocol", "a model without tools", (), USUAL, lambda said, asked, talk: said, Chat()),
        ("text-markdown", "a fence inside the JSON", (), MARKDOWN, lambda said, asked, talk: said, Chat()),
        ("text-raw-lines", "raw line breaks inside the JSON", (), LINES, fence_in_lines, Chat()),
        ("text-two-blocks", "two blocks in a message", (), USUAL, two_blocks, Chat()),
        ("text-think", "<think> before the block", (), USUAL, lambda said, asked, talk: said, Chat("think")),
        (
            "text-no-system",
            "without a system role, by turns",
            (
                no_system(llama_error(500, "System role not supported")),
                alternating("Conversation roles must alternate user/assistant/user/assistant/..."),
            ),
            USUAL,
            lambda said, asked, talk: said,
            Chat(),
        ),
    ]
]

LENGTH = [
    Dialect("length-half-call", "a reply cut in the midst of a call; a higher limit mends it", tampered=cut_by_limit),
    Dialect(
        "length-anthropic",
        "Claude's reply is cut: stop_reason max_tokens",
        wire=Messages(),
        tampered=cut_above(12_000),
        model="claude-sonnet-4-5",
        litellm="anthropic",
    ),
    Dialect(
        "length-responses",
        "a response that is incomplete: max_output_tokens",
        wire=Responses(),
        rules=(responses_only, NO_TEMPERATURE),
        tampered=cut_above(12_000),
        model="gpt-5.6-terra",
    ),
    Dialect("length-whole-call", "a cut reply with a call that must not be carried out", tampered=cut_whole_call),
]

USAGE = [
    Dialect("usage-null", "no usage", wire=Chat(usage=lambda usage: None), wanted=Wanted(checks=(not_free,))),
    Dialect(
        "usage-nulls",
        "nulls in the usage",
        wire=Chat(
            usage=lambda usage: {
                **usage,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            }
        ),
        wanted=Wanted(checks=(not_free, all_output)),
    ),
    Dialect(
        "usage-all-null",
        "counts that are null",
        wire=Chat(usage=lambda usage: dict.fromkeys(usage)),
        wanted=Wanted(checks=(not_free,)),
    ),
    Dialect(
        "usage-floats",
        "counts as floats",
        wire=Chat(usage=lambda usage: {k: float(v) if isinstance(v, int) else v for k, v in usage.items()}),
        wanted=Wanted(checks=(not_free, all_output)),
    ),
    Dialect(
        "usage-texts",
        "counts as texts",
        wire=Chat(usage=lambda usage: {k: str(v) if isinstance(v, int) else v for k, v in usage.items()}),
        wanted=Wanted(checks=(not_free,)),
    ),
    Dialect(
        "usage-cost",
        "the provider tells the cost",
        wire=Chat(usage=lambda usage: {**usage, "cost": 0.000123, "cost_details": {"upstream_inference_cost": None}}),
        wanted=Wanted(checks=(not_free,)),
    ),
    Dialect("usage-text", "a text as usage", wire=Chat(usage=lambda usage: "12"), wanted=Wanted(checks=(not_free,))),
    Dialect("usage-list", "a list as usage", wire=Chat(usage=lambda usage: [12]), wanted=Wanted(checks=(not_free,))),
]

ODD = [
    Dialect(name, like, tampered=tampered, wanted=Wanted(checks=(not_free,)))
    for name, like, tampered in [
        ("odd-choices-object", "choices is an object", odd_answer(lambda a: {**a, "choices": {"0": a["choices"][0]}})),
        ("odd-choices-null", "choices is null", odd_answer(lambda a: {**a, "choices": None})),
        ("odd-choices-texts", "choices holds a text", odd_answer(lambda a: {**a, "choices": ["edit it"]})),
        ("odd-message-text", "message is a text", odd_message(lambda m: "I edit it.")),
        ("odd-message-list", "message is a list", odd_message(lambda m: [m])),
        ("odd-content-number", "content is a number", odd_message(lambda m: {"role": "assistant", "content": 7})),
        ("odd-list", "the answer is a list", odd_answer(lambda a: [a])),
        (
            "odd-error-200",
            "an error with status 200",
            odd_answer(lambda a: {"error": {"message": "Internal error", "code": 502}}),
        ),
    ]
]

ONE_CONVERSATION = [
    Dialect(name, like, rules=(one_conversation(refusing),), tampered=mark_first, attempts=2, wanted=Wanted(seconds=60))
    for name, like, refusing in [
        (
            "content-filter",
            "Azure's content filter finds one conversation bad",
            refusal(
                400,
                {
                    "error": {
                        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content"
                        " management policy. Please modify your prompt and retry. To learn more about our content"
                        " filtering policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
                        "type": None,
                        "param": "prompt",
                        "code": "content_filter",
                        "status": 400,
                        "innererror": {
                            "code": "ResponsibleAIPolicyViolation",
                            "content_filter_result": {"jailbreak": {"detected": True, "filtered": True}},
                        },
                    }
                },
            ),
        ),
        ("one-413", "one conversation is too large", openai_error(413, "Payload too large", kind="request_too_large")),
        ("one-retry-after", "one conversation is told to wait for a day", too_many("100000")),
    ]
]

WAITS = [
    Dialect(
        f"retry-after-{name}",
        f"Retry-After: {value}, for ever",
        rules=(always(too_many(value)),),
        wanted=Wanted(solved=False, exit_codes=(4,), says=r"429|wait|Retry-After", seconds=45, checks=(few_refusals,)),
    )
    for name, value in [
        ("100000", "100000"),
        ("inf", "inf"),
        ("1e300", "1e300"),
        ("9999", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ]
] + [
    Dialect(
        f"retry-after-{name}",
        f"Retry-After: {value}, for two seconds",
        rules=(for_seconds(2.0, too_many(value)),),
        wanted=Wanted(checks=(few_refusals,)),
    )
    for name, value in [("0", "0"), ("minus-5", "-5"), ("nan", "nan"), ("past", "Wed, 21 Oct 2015 07:28:00 GMT")]
]

NO_KEY = openai_error(
    401,
    "Incorrect API key provided: key-of-t**-test. You can find your API key at https://platform.openai.com/account/api-keys.",
    code="invalid_api_key",
)
REFUSING = [
    Dialect(
        name,
        like,
        rules=(always(refusing),),
        models=models,
        wanted=Wanted(solved=False, exit_codes=(4,), says=says, seconds=12),
    )
    for name, like, refusing, models, says in [
        ("401", "a wrong key", NO_KEY, NO_KEY, r"401"),
        ("401-models-open", "a wrong key, where the list of models is open to all", NO_KEY, None, r"401"),
        (
            "403",
            "a country that is not served",
            openai_error(
                403,
                "Country, region, or territory not supported",
                kind="request_forbidden",
                code="unsupported_country_region_territory",
            ),
            openai_error(403, "Country, region, or territory not supported", kind="request_forbidden"),
            r"403",
        ),
        (
            "404-model",
            "a model that there is not",
            openai_error(
                404, "The model `stand-in` does not exist or you do not have access to it.", code="model_not_found"
            ),
            listing("another"),
            r"404|knows no model|no model",
        ),
        (
            "404-path",
            "a URL that is not the API's",
            refusal(404, "404 page not found", Content_Type="text/plain"),
            refusal(404, "404 page not found", Content_Type="text/plain"),
            r"404",
        ),
        (
            "quota",
            "no money left",
            openai_error(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                kind="insufficient_quota",
                code="insufficient_quota",
            ),
            None,
            r"quota",
        ),
    ]
] + [
    Dialect(
        "refused",
        "no server there",
        listening=False,
        wanted=Wanted(solved=False, exit_codes=(4,), says=r"cannot be reached.*is it up", seconds=12),
    )
]

DIALECTS: tuple[Dialect, ...] = (
    Dialect("plain", "Chat Completions as everybody speaks it", rules=(known_fields, text_arguments)),
    *PARAMETERS,
    *HOSTED,
    *LOCAL,
    *OVERFLOW,
    *LOOSE,
    *CONTENT,
    *TEXT,
    *LENGTH,
    *USAGE,
    *ODD,
    *ONE_CONVERSATION,
    *WAITS,
    *REFUSING,
)
BY_NAME: Mapping[str, Dialect] = {row.name: row for row in DIALECTS}

_SURROGATE = re.compile("[\ud800-\udfff]")


class DialectServer(ModelServer):
    """All dialects on one port, each below its own path. `memory`: what it keeps of each."""

    ROUTES = ("/chat/completions", "/responses", "/messages")

    def __init__(self, *, latency: float = 0.0) -> None:
        super().__init__(self._answer_to, latency=latency, keep=False)
        self.memory = {row.name: Memory(Mind(row.steps, row.two, row.text)) for row in DIALECTS}
        self._closed = _free_port()

    def base(self, name: str) -> str:
        """The base URL of a dialect, as its clients want it: Anthropic's without the /v1."""
        row = BY_NAME[name]
        root = self.url.removesuffix("/v1") if row.listening else f"http://127.0.0.1:{self._closed}"
        return f"{root}/{name}" if row.endpoint == "messages" else f"{root}/{name}/v1"

    def models(self, path: str, headers: Mapping[str, str]) -> Answer:
        row = BY_NAME.get(path.split("/")[1])
        if row is None or not path.startswith(f"/{row.name}/v1/"):
            return refusal(404, "404 page not found", Content_Type="text/plain")
        return row.models or listing(row.model)

    def _answer_to(self, request: Request) -> Answer:
        _, name, *rest = request.path.split("/")
        row = BY_NAME.get(name)
        endpoint = {"v1/chat/completions": "chat", "v1/responses": "responses", "v1/messages": "messages"}
        found = endpoint.get("/".join(rest).partition("?")[0])
        if row is None or found is None:
            return refusal(404, "404 page not found", Content_Type="text/plain")
        answer = self._of_row(row, found, request)
        if answer.status != 200:
            self.memory[name].refused.append(f"{answer.status} {str(answer.raw)[:300]}")
        return answer

    def _of_row(self, row: Dialect, endpoint: str, request: Request) -> Answer:
        memory = self.memory[row.name]
        memory.asked += 1
        body = readable(request.raw)
        if body is None:
            memory.mind.bad.append("a request was no JSON in UTF-8, or held half a surrogate pair")
            return openai_error(
                400,
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP"
                " library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
            )
        asked = Asked(endpoint, request.headers, body, memory)
        wire = row.wire if endpoint == row.endpoint else Chat() if endpoint == "chat" else None
        if wire is None:
            return refusal(404, {"detail": "Not Found"})
        for rule in (wire.strict, *row.rules):
            if (refused := rule(asked)) is not None:
                return refused
        memory.answered += 1
        talk = wire.talk(asked)
        said = row.tampered(memory.mind.reply(talk), asked, talk)
        return said if isinstance(said, Answer) else wire.answer(said, asked)


def readable(raw: bytes) -> Json | None:
    """The body of a request; None for what a strict parser refuses."""
    try:
        body = json.loads(raw.decode("utf-8"))
    except ValueError:
        return None
    if not isinstance(body, dict) or _SURROGATE.search(json.dumps(body, ensure_ascii=False)):
        return None
    return body


def _free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


async def _serve() -> None:
    server = DialectServer()
    async with server.listening():
        for row in DIALECTS:
            print(f"{server.base(row.name)}  {row.like}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
