"""What a model's reply says, and how it is sent back.

A reply is an assistant message in the form of Chat Completions and untrusted: any JSON. `said` tells what was thought
from what was said, `read` finds the calls, however loosely they were written: what is unambiguous is taken as meant,
and the result says so. `sent_back` is the message as the next request holds it.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from agent.attempt.policy import ToolCall
from agent.attempt.tools import TOOLS, Tool, argument_problem, tool_named
from agent.models.wires.texts import encodable
from harness.records import Json

NO_ANSWER = "(no answer)"
DEEPEST = 6
"""How far texts within a message are looked for."""

_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thoughts")
_TEXTS = ("text", "summary", "thinking", "reasoning", "content", "refusal")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input")
_NAMES = ("name", "tool", "tool_name", "function", "action")
_IDLE = frozenset({"description", "explanation", "thought", "security_risk", "is_input"})
"""Arguments that other agents' tools have beside those that say what to do."""

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BARE_NAME = re.compile(r"(?:<\|[^|]*\|>)*\s*(?:(?:functions?|tools?|default_api)[.:])?([\w.-]*)")
_THINK = re.compile(r"\s*<(think|thinking|thought)>")
_RECIPIENT = re.compile(r"\bto=([\w.-]+)")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_CALL = re.compile(
    r"^[ \t]*`{3,}[ \t]*tool\w*[ \t]*(?:json)?\s*|<tool_call>\s*(?=[\[{])|<function=(?P<function>[^>\s]+)>",
    re.MULTILINE,
)
_OBJECT = re.compile(r"^[ \t]*```(?:json)?[ \t]*\n\s*(?=[\[{])|\A\s*(?=[\[{])", re.MULTILINE)
"""Where a call may begin that nothing marks as one."""
_CALL_END = re.compile(r"^[ \t]*`{3,}[ \t]*$|</tool_call>", re.MULTILINE)
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\')
_SWITCHED = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0", ""), False)
_LOOSE = json.JSONDecoder(strict=False, parse_constant=lambda _: None)


@dataclass(frozen=True, slots=True)
class Call(ToolCall):
    """A call as it was taken: `name` and `arguments` are ours. `note`: what the result should say of how it was taken.
    `raw`: the entry of `tool_calls`; None where it stood in the text."""

    note: str = ""
    raw: Json | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply says: `thoughts`, `text` without them, and calls, of which those before the first with a problem are
    carried out. `error`: why none of them is."""

    thoughts: str
    text: str
    calls: tuple[Call, ...] = ()
    error: str = ""


def read(message: Json, turn: int, tools: Mapping[str, Tool] = TOOLS) -> Reading:
    """What an assistant message says. `turn` goes into the ids of calls that have none; `tools`: those there are."""
    thoughts, text = said(message)
    given = message.get("tool_calls")
    try:
        calls, error = _given_calls(given, turn, tools) if given else _written_calls(text, turn, tools)
    except RecursionError:
        return Reading(thoughts, text, (), "The arguments are nested too deep.")
    return Reading(thoughts, text, tuple(calls), error or (calls[0].problem if calls else ""))


def said(message: Json) -> tuple[str, str]:
    """(what was thought, what was said) of an assistant message: fields of thoughts, `<think>` blocks and Harmony
    channels are told apart from the answer. Both can be sent."""
    content = message.get("content") or message.get("refusal")
    parts = content if isinstance(content, list) else [content]
    thinking = [p for p in parts if _is_thought(p)]
    inline, text = _unwrapped("".join(t for p in parts if not _is_thought(p) for t in _texts(p)))
    kept: list[str] = []
    for pieces in (*(_texts(message.get(name)) for name in _THOUGHTS), _texts(thinking), [inline]):
        if not any("".join(pieces).strip() in other for other in ["", *kept]):  # providers tell the same twice
            kept.append("\n".join(pieces).strip())
    return encodable("\n\n".join(kept)), encodable(text.strip())


def sent_back(message: Json, reading: Reading) -> Json:
    """The assistant message as it came, but for what servers do not take back: calls that are none or that nobody could
    read, calls without an id, no content at all, template tokens in the content, half characters."""
    out = {**message, "role": "assistant"}
    calls = [_call_sent(call, call.raw) for call in reading.calls if call.raw is not None]
    given = out.pop("tool_calls", None) or []
    if calls:
        out["tool_calls"] = calls
    content = out.get("content")
    if (not calls and not "".join(_texts(content)).strip()) or not _is_content(content):
        out["content"] = reading.text or ("" if calls else NO_ANSWER)
    if out.get("content") is not content or calls != given:
        out.pop("native", None)
    sent: Json = encodable(out)
    return sent


def as_text(message: Json, reading: Reading) -> Json:
    """The assistant message for a conversation in the text protocol: its calls stand in its text."""
    if all(call.raw is None for call in reading.calls):
        return sent_back(message, replace(reading, calls=()))
    calls = ({"name": call.name, "arguments": call.arguments} for call in reading.calls)
    blocks = (f"```tool\n{json.dumps(call, ensure_ascii=False)}\n```" for call in calls)
    text = "\n\n".join([*filter(None, [reading.text]), *blocks])
    sent: Json = encodable({k: v for k, v in message.items() if k not in ("tool_calls", "native")})
    return {**sent, "role": "assistant", "content": text}


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _is_content(content: Any) -> bool:
    """Whether servers read it back: a text without tokens of the template, a list of parts, or nothing."""
    if isinstance(content, list):
        return all(isinstance(part, dict) for part in content)
    return content is None or (isinstance(content, str) and "<|channel|>" not in content)


def _call_sent(call: Call, raw: Json) -> Json:
    function = raw.get("function")
    function = function if isinstance(function, dict) else {}
    name, arguments = function.get("name"), function.get("arguments")
    legal = isinstance(name, str) and bool(_LEGAL_NAME.fullmatch(name))
    if not legal or not _is_object(arguments):
        name = call.name if _LEGAL_NAME.fullmatch(call.name) else "unknown"
        function = {**function, "name": name, "arguments": json.dumps(call.arguments)}
    elif raw.get("id") == call.id and raw.get("type") == "function":
        return raw
    rest = {k: v for k, v in raw.items() if k not in (*_NAMES, *_ARGUMENTS)}
    return {**rest, "id": call.id, "type": "function", "function": function}


def _is_object(text: Any) -> bool:
    """Whether it is a JSON object as text, to the letter of the standard and sendable."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _texts(value: Any, deep: int = DEEPEST) -> list[str]:
    """The texts in a content, a part of one, or a field of thoughts."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        value = next((value[key] for key in _TEXTS if value.get(key)), None)
        return _texts(value, deep - 1) if deep else []
    return [text for part in value for text in _texts(part, deep - 1)] if deep and isinstance(value, list) else []


def _unwrapped(text: str) -> tuple[str, str]:
    """(thoughts, answer) of a content that holds both."""
    if "<|channel|>" in text:
        return _of_channels(text)
    thoughts: list[str] = []
    while opened := _THINK.match(text):
        inner, _, text = text[opened.end() :].partition(f"</{opened[1]}>")
        thoughts.append(inner)
    for tag in () if thoughts else ("</think>", "</thinking>"):
        before, closed, after = text.partition(tag)
        if closed and f"<{tag[2:]}" not in before and not _CALL.search(before):
            return before, after  # some templates write the opening tag themselves
    return "\n".join(thoughts), text


def _of_channels(text: str) -> tuple[str, str]:
    """The same for Harmony, whose channels are analysis (thoughts), commentary (calls, and words before them) and
    final."""
    first, *channels = text.split("<|channel|>")
    thoughts: list[str] = []
    answer = [_CHANNEL_END.split(first)[0]]
    before = first
    for channel in channels:
        header, _, rest = channel.partition("<|message|>")
        body = _CHANNEL_END.split(rest)[0]
        if recipient := _RECIPIENT.search(f"{before.rpartition('<|start|>')[2]} {header}"):
            call = json.dumps({"name": recipient[1], "arguments": body}, ensure_ascii=False)
            answer.append(f"\n<tool_call>\n{call}\n</tool_call>")
        else:
            (thoughts if header.strip().startswith("analysis") else answer).append(body)
        before = rest
    return "\n".join(thoughts), "".join(answer)


def _given_calls(given: Any, turn: int, tools: Mapping[str, Tool]) -> tuple[list[Call], str]:
    """The calls in `tool_calls`, and what is wrong with it as a whole."""
    calls: list[Call] = []
    seen: set[str] = set()
    entries = given if isinstance(given, list) else []
    for raw in entries:
        if (named := _named(raw) if isinstance(raw, dict) else None) is None:
            continue
        id = raw.get("id")
        if not isinstance(id, str) or not id or id in seen:
            id = _made_id(turn, len(calls))
        seen.add(id)
        calls.append(_taken(Call(id, named[0], {}, raw=raw), named[1], tools))
    if calls and len(calls) == len(entries):
        return calls, ""
    return calls, "tool_calls must be a list of calls, each with a function that has a name and arguments."


def _made_id(turn: int, number: int) -> str:
    """Nine letters and digits, as the strictest servers want them."""
    return f"t{turn:04}c{number:03}"


def _written_calls(text: str, turn: int, tools: Mapping[str, Tool]) -> tuple[list[Call], str]:
    """The call in a text (the first of several; its note names the rest), and why it cannot be read."""
    blocks = list(_blocks(text, _CALL, tools))
    if not blocks:
        found = ((block, _named(block[0])) for block in _blocks(text, _OBJECT, tools))
        blocks = [block for block, named in found if named and tool_named(_bare(named[0], tools), tools)]
    if not blocks:
        return [], ""
    block, long, error = blocks[0]
    named = _named(block)
    if named is None:
        return [], error or "The tool block must hold one JSON object with name and arguments."
    call = _taken(Call(_made_id(turn, 0), named[0], {}), named[1], tools, long)
    if rest := [(_named(other) or ("?",))[0] for other, _, _ in blocks[1:]]:
        only = f"(only the first of {len(blocks)} calls in the message was carried out, not: {', '.join(rest)})"
        call = replace(call, note=f"{call.note}\n{only}".strip())
    return [call], ""


def _blocks(
    text: str, opening: re.Pattern[str], tools: Mapping[str, Tool]
) -> Iterator[tuple[Any, Mapping[str, str], str]]:
    """(JSON value, long texts after it, why it is no JSON) of each block of a text."""
    at, block_from, long_from = 0, _ahead(opening, text), _ahead(_long_text(tools), text)
    while opened := block_from(at):
        at, error = opened.end(), ""
        if function := opened.groupdict().get("function"):
            block: Any = {"name": function, "arguments": {}}
        else:
            block, at, error = _json_at(text, at)
        long: dict[str, str] = {}
        while begun := long_from(at):
            if (following := block_from(at)) and following.start() < begun.start():
                break
            name = begun["tag"] or begun["parameter"] or begun["fence"]
            closing = r"^`{3,}[ \t]*$" if begun["fence"] else f"</{name if begun['tag'] else 'parameter'}>[ \t]*$"
            closed = re.compile(closing, re.MULTILINE).search(text, begun.end())
            long[name] = re.sub(r"\n[ \t]*\Z", "", text[begun.end() : closed.start() if closed else None])
            at = closed.end() if closed else len(text)
        yield block, long, error


def _ahead(pattern: re.Pattern[str], text: str) -> Callable[[int], re.Match[str] | None]:
    """The first match from an offset on, for offsets that grow: what lies ahead is not looked for again."""
    found = pattern.search(text)

    def first(at: int) -> re.Match[str] | None:
        nonlocal found
        if found and found.start() < at:
            found = pattern.search(text, at)
        return found

    return first


def _long_text(tools: Mapping[str, Tool]) -> re.Pattern[str]:
    """Where a long text begins that an argument is given as: `<old>`, `<parameter=old>` or a fence with its name."""
    names = "|".join(sorted({name for tool in tools.values() for name in (*tool.parameters, *tool.words)}))
    begun = rf"^<(?P<tag>{names})>|<parameter=(?P<parameter>\w+)>|^`{{3,}}(?P<fence>{names})(?=[ \t]*\n)"
    return re.compile(rf"(?:{begun})(?:[ \t]*\n)?", re.MULTILINE)


def _json_at(text: str, at: int) -> tuple[Any, int, str]:
    """The JSON value that stands at an offset, where it ends, and why there is none."""
    try:
        return *_LOOSE.raw_decode(text, at), ""
    except (ValueError, RecursionError):
        closed = _CALL_END.search(text, at)
        value, error = _loaded(text[at : closed.start() if closed else None])
        if error:
            error = f"The tool block is not JSON ({error}). Long texts may follow it instead: <new> … </new>."
        return value, closed.end() if closed else len(text), error


def _loaded(text: str) -> tuple[Any, str]:
    """A JSON text's value, with line breaks in strings, escapes that are none, or a bracket or two too few at its end;
    or why it has none."""
    error = ""
    mended = _ESCAPE.sub(lambda found: found[0] if len(found[0]) > 1 else r"\\", text.strip())
    for form in (text, mended, mended + "}", mended + "}}"):
        try:
            return _LOOSE.decode(form), ""
        except (ValueError, RecursionError) as failed:
            error = error or str(failed)
    return None, error


def _named(block: Any) -> tuple[str, Any] | None:
    """(name, arguments as given) of a call in whatever form; None for what is no call."""
    block = block[0] if isinstance(block, list) and block else block
    if isinstance(block, dict) and isinstance(block.get("function"), dict):
        block = block["function"]
    if not isinstance(block, dict):
        return None
    for key in (k for k in _NAMES if isinstance(block.get(k), str) and block[k].strip()):
        rest = {k: v for k, v in block.items() if k not in (key, "id", "type", "index")}
        return block[key], next((block[k] for k in _ARGUMENTS if k in block), rest)
    return None


def _bare(name: str, tools: Mapping[str, Tool]) -> str:
    """A tool's name without tokens of a template, without a namespace."""
    found = _BARE_NAME.match(name.strip())
    bare = found[1] if found else ""
    return bare if tool_named(bare, tools) or not tool_named(bare.lower(), tools) else bare.lower()


def _taken(call: Call, given: Any, tools: Mapping[str, Tool], long: Mapping[str, str] | None = None) -> Call:
    """The call with the name and arguments that are ours. `long`: arguments that came as plain texts."""
    name = _bare(call.name, tools)
    arguments, error = given, ""
    for _ in range(3):  # encoded twice, and once more
        if isinstance(arguments, str):
            arguments, error = _loaded(arguments) if arguments.strip() else ({}, "")
    if error:
        return replace(call, name=name, problem=f"The arguments of {name} are not JSON ({error}).")
    if not isinstance(arguments, dict) and arguments is not None:
        return replace(call, name=name, problem=f"The arguments of {name} must be a JSON object.")
    arguments = {**(arguments or {}), **(long or {})}
    tool = tool_named(name, tools)
    if tool is None:
        problem = argument_problem(name, arguments, tools)
        return replace(call, name=name, arguments=encodable(arguments), problem=problem)
    verb = arguments.get("command")
    if "command" not in tool.parameters and isinstance(verb, str) and (meant := tool_named(verb, tools)):
        tool = meant
        del arguments["command"]
    renamed = {name: value for key, value in arguments.items() for name, value in _renamed(tool, key, value)}
    fitted = {k: _fitted(k, v, tool.parameters.get(k, {}).get("type")) for k, v in renamed.items()}
    for key in {"content", "text"} & {tool.words.get(key, key) for key in long or ()} & fitted.keys():
        fitted[key] += "" if not fitted[key] or fitted[key].endswith("\n") else "\n"
    changed = [k for k, v in renamed.items() if fitted[k] is not v and k not in (long or ())]
    note = f"(taken in the right type: {', '.join(changed)})" if changed else ""
    if tool.name != call.name or not arguments.keys() - _IDLE <= tool.parameters.keys():
        note = f"(taken as {tool.name}{': ' if fitted else ''}{', '.join(fitted)})"
    made: Json = encodable(fitted)
    problem = argument_problem(tool.name, made, tools)
    return replace(call, name=tool.name, arguments=made, note=note, problem=problem)


def _renamed(tool: Tool, key: str, value: Any) -> Sequence[tuple[str, Any]]:
    """The argument under our name for it: none for one that says nothing, two for a range."""
    names = [key] if key in tool.parameters else tool.words.get(key, key).split(" ")
    if len(names) > 1 and isinstance(value, list):
        return [(name, each) for name, each in zip(names, value, strict=False) if each not in (None, -1)]
    name = names[0]
    if name not in tool.parameters and (value in (None, "") or name in _IDLE or tool.kind == "ends"):
        return []
    return [(name, value)]


def _fitted(name: str, value: Any, wanted: str | None) -> Any:
    """The value in the type that the schema wants, where only one can be meant; else as it is."""
    if wanted == "integer" and isinstance(value, (str, float)):
        if isinstance(value, str) and value.strip().lower() in ("", "null", "none"):
            return None
        with suppress(ValueError):
            number = float(value)
            return int(number) if number.is_integer() else value
    if wanted == "boolean" and isinstance(value, (str, int)):
        return _SWITCHED.get(str(value).strip().lower(), value)
    if wanted == "array" and isinstance(value, str):
        items = _loaded(value)[0] if value.strip().startswith("[") else None
        return items if isinstance(items, list) else [value] if value.strip() else []
    if name == "command" and isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return value[2] if len(value) == 3 and value[1] in ("-c", "-lc") else shlex.join(value)
    return value
