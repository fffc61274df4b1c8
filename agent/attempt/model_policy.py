"""The policy that asks a model: renders what the attempt knows as a chat, and reads the reply as a decision.

What the model said is sent back as it came, each call with its one result. The chat's beginning never changes within an
attempt, so a provider's prompt cache keeps hitting: old turns are reduced only when the chat nears the model's context,
many at once, and then stay as they are (`reduced`).
"""

import functools
import json
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.attempt.lines import cut_middle
from agent.attempt.notebook import gist
from agent.attempt.policy import Decision, Talk, ToolCall, TurnRecord, View
from agent.attempt.reading import NO_ANSWER, Call, Reading, as_text, read, said, sent_back
from agent.attempt.tools import TOOLS, Tool
from agent.models.wires.texts import encodable
from harness.records import Json, Purpose
from harness.trace import Planned, Replied, ToolRan
from tasks.errors import ContextTooLong, ReplyUnreadable, ToolsRefused

CHARS_PER_TOKEN = 3.5
"""Characters of code and English per token, on the low side; only for keeping the chat within the context."""

STUB_CHARS = 200
CALL_CHARS = 200
"""What a tool call and its answer take beside their own text."""

WHOLE, SHORT, TIGHT, GONE = range(4)
"""How far a turn is reduced: not; its results are stubs; what the model said and asked is cut as well; left out."""
STEPS = ((SHORT, 6), (TIGHT, 6), (SHORT, 2), (TIGHT, 2), (SHORT, 1), (TIGHT, 1), (GONE, 1), (TIGHT, 0))
"""To what turns are reduced, and how many of the last are spared: each step only where the ones before it do not do."""
HIGH_WATER = 0.7
"""Of the context: more than this the chat does not take; the rest is for the answer, and for what a token may hold."""
LOW_WATER = {SHORT: 0.4, TIGHT: 0.4, GONE: 0.75}
"""Of the room that turns have: to this they are reduced, by how far a step goes."""
RESULT_SHARE = 0.5
PLAN_SHARE = 0.1
"""Of the room that turns have, what one turn's results take; of the context, what the plan takes."""
SMALLER = 0.6
"""Of a chat that did not fit: the size of the next."""

_PROMPTS = Path(__file__).parent / "prompts"
NOTES = tomllib.loads((_PROMPTS / "notes.toml").read_text(encoding="utf-8"))


T = TypeVar("T", bound=Talk)


@functools.cache
def prompt(name: str) -> str:
    """A prompt file of agent/prompts by name."""
    return (_PROMPTS / f"{name}.md").read_text(encoding="utf-8").strip()


class Chat(ABC, Generic[T]):
    """A conversation in which a model works with tools, over `Talk.ask`. `tools` False: the text protocol, for servers
    without tool calls; taken up, too, where the server refuses tools. `offered`: the tools that the model has;
    `at_last`: what it is to do when few turns are left."""

    purpose: Purpose = "act"

    def __init__(
        self, *, tools: bool, offered: Mapping[str, Tool] = TOOLS, at_last: str = "Finish the fix and submit."
    ) -> None:
        self._tools = tools
        self._offered = offered
        self._at_last = at_last
        self._schemas = [tool.schema() for tool in offered.values()]
        self._limit = float("inf")
        """Characters that the context holds, as refusals have taught."""
        self._made_for: tuple[object, ...] = ()
        self._begun: tuple[list[Json], str, int] = ([], "", 0)
        self._rendered: dict[tuple[int, int], tuple[list[Json], int]] = {}

    @abstractmethod
    def _head(self, view: T, longest: int) -> tuple[list[Json], str]:
        """(what stands first for good, the model's own words cut to `longest` characters; what asks for turn one)."""

    async def decide(self, view: T) -> Decision:
        turn, refused = len(view.history) + 1, float("inf")
        longer = sum(answer.cut for answer in view.replies.values())
        while True:
            chat, size = self._fitting(view)
            try:
                answer = await view.ask(
                    str(turn), self.purpose, chat, self._schemas if self._tools else (), longer=longer
                )
            except ToolsRefused:
                if not self._tools:
                    raise
                self._tools = False
            except ContextTooLong:
                if size >= refused:
                    raise
                refused, self._limit = size, SMALLER * size / HIGH_WATER
            except ReplyUnreadable:
                return Decision("", error=NOTES["not_read"])
            else:
                return self._decision(answer, read(answer.message, turn, self._offered))

    def _decision(self, answer: Replied, reading: Reading) -> Decision:
        none = NOTES["no_call" if self._tools else "no_block"]
        error = NOTES["cut"] if answer.cut else reading.error or ("" if reading.calls else none)
        return Decision(reading.text, error=error, thoughts=reading.thoughts) if error else self._ending(reading)

    def _fitting(self, view: T) -> tuple[list[Json], int]:
        """The chat, reduced to what the model bears, and its length in characters, nearly."""
        limit = min(view.context * CHARS_PER_TOKEN, self._limit)
        turns = view.turns_left + len(view.history)
        if self._made_for != (limit, turns, self._tools):
            self._made_for = (limit, turns, self._tools)
            head, first = self._head(view, int(PLAN_SHARE * limit))
            fixed = sum(map(_size, [*head, first])) + (len(json.dumps(self._schemas)) if self._tools else 0)
            self._begun = head, first, fixed
            self._rendered.clear()
        head, first, fixed = self._begun
        room = HIGH_WATER * limit - fixed

        def rendered(at: int, level: int) -> tuple[list[Json], int]:
            if (at, level) not in self._rendered:
                record = view.history[at]
                messages = self._turn(record, view.replies.get(str(record.turn)), level, room, turns)
                if at > 0 and record.decision.calls and gist(record) == gist(view.history[at - 1]):
                    messages[-1]["content"] += f"\n\n{NOTES['again']}"
                self._rendered[at, level] = messages, sum(map(_size, messages))
            return self._rendered[at, level]

        levels = reduced(lambda at, level: 0 if level == GONE else rendered(at, level)[1], len(view.history), room)
        gone = levels.count(GONE)
        begin = [first]
        if self._tools:
            begin[0] += f" {NOTES['several']}"
        if gone:
            begin.append(f"(Your first {gone} turns are left out here; what they changed is in the tree.)")
        if not view.history:
            begin += self._reminder(turns)
        shown = [rendered(at, level) for at, level in enumerate(levels) if level != GONE]
        chat = [*head, _user("\n".join(begin)), *(message for messages, _ in shown for message in messages)]
        return chat, fixed + sum(size for _, size in shown)

    def _system(self, name: str) -> Json:
        """The system message of that name; with the tools, where they are called in text."""
        text = prompt(name)
        if not self._tools:
            text += "\n\n" + "\n".join([prompt("text_protocol"), *(t.in_words() for t in self._offered.values())])
        return {"role": "system", "content": text}

    def _turn(self, record: TurnRecord, answer: Replied | None, level: int, room: float, turns: int) -> list[Json]:
        """A finished turn: what the model said, and what came of it."""
        message = answer.message if answer else _as_message(record.decision)
        reading = read(message, record.turn, self._offered)
        if answer and answer.cut:
            message, reading = {"content": reading.text}, Reading("", reading.text)
        natively = self._tools and any(call.raw is not None for call in reading.calls)
        spoken = sent_back(message, reading) if self._tools else as_text(message, reading)
        results = _results(record, reading.calls, len(reading.calls) if natively else len(record.results), level, room)
        more = [f"That message could not be carried out. {record.decision.error}"] if record.decision.error else []
        more += self._reminder(turns - record.turn)
        if level == TIGHT:
            spoken = _tight(spoken)
        if not natively:
            shown = [f"Result of {result.name}:\n{text}" for result, text in zip(record.results, results, strict=True)]
            return [spoken, _user("\n\n".join([*shown, *more]) or "(nothing was done)")]
        results[-1] = "\n\n".join([results[-1], *more])
        calls = zip(spoken["tool_calls"], results, strict=True)
        return [spoken, *({"role": "tool", "tool_call_id": c["id"], "content": encodable(text)} for c, text in calls)]

    def _reminder(self, left: int) -> list[str]:
        return [f"Turns left: {left}. {self._at_last}"] if 0 < left <= 3 else []

    def _ending(self, reading: Reading) -> Decision:
        """Calls after one that runs the tests or ends the attempt are dropped, since both end a turn; and those after
        one that can only be refused, since they may rest on it."""
        kept: list[ToolCall] = []
        for call in reading.calls:
            kept.append(call)
            kind = "" if call.problem else self._offered[call.name].kind
            if kind == "ends":
                text = reading.text or str(call.arguments.get("summary") or "")
                return Decision(text, tuple(kept), stop="submitted", thoughts=reading.thoughts)
            if kind in ("", "tests"):
                break
        return Decision(reading.text, tuple(kept), thoughts=reading.thoughts)


class ModelPolicy(Chat[View]):
    """The policy of an attempt that a model makes. `writes_tests`: it writes tests and changes nothing."""

    only_green = False

    def __init__(self, *, tools: bool, writes_tests: bool = False) -> None:
        self._role = "witness" if writes_tests else "system"
        if writes_tests:
            offered = {name: TOOLS[name] for name in ("read", "search", "run", "witness")}
            offered["submit"] = replace(
                TOOLS["submit"], description="End the attempt: the recorded tests are its result."
            )
            super().__init__(tools=tools, offered=offered, at_last="Record your tests and submit.")
        else:
            super().__init__(tools=tools)

    async def plan(self, view: View) -> Planned:
        try:
            answer = await view.ask("plan", "plan", self._opening(view))
        except ReplyUnreadable:
            return Planned(text="")
        return Planned(text=said(answer.message)[1])

    def _head(self, view: View, longest: int) -> tuple[list[Json], str]:
        return [*self._opening(view), _plan_sent(view, longest)], NOTES["carry_on"]

    def _opening(self, view: View) -> list[Json]:
        about = "\n\n".join(filter(None, (view.prepared.about, _about_tests(view))))
        if self._role == "witness":  # it has no patch, and no tool for the project's tests
            for said in (NOTES["no_tests"], NOTES["with_tests"], " (use the test tool)"):
                about = about.replace(said, "")
        body = prompt("task").format(statement=view.task.statement.strip(), about=about)
        return [self._system(self._role), _user(f"{body}\n\n{prompt('plan')}")]


def reduced(size: Callable[[int, int], int], turns: int, room: float) -> list[int]:
    """How far each turn is reduced (WHOLE, SHORT, TIGHT, GONE), so that all of them keep within `room` characters, if
    that can be. `size`: of a turn (from 0) at a level.

    A function of the history alone, and steady: it moves only when the turns would pass `room`, and then so far that
    they take LOW_WATER of it, if the last turns that a step spares allow it."""
    levels = [WHOLE] * turns
    reached = {level: 0 for level, _ in STEPS}
    total = 0
    for last in range(turns):
        total += size(last, WHOLE)
        for level, spared in STEPS:
            if total <= room:
                break
            while total > LOW_WATER[level] * room and reached[level] <= last - spared:
                at = reached[level]
                if levels[at] < level:
                    total += size(at, level) - size(at, levels[at])
                    levels[at] = level
                reached[level] += 1
    return levels


def _results(record: TurnRecord, calls: Sequence[Call], count: int, level: int, room: float) -> list[str]:
    """The texts of `count` results, in the order of the calls: those that were carried out are the first."""
    cap = max(STUB_CHARS, int(RESULT_SHARE * room / max(1, len(record.results))))
    refused = record.results and not record.results[-1].ok
    why = "" if record.decision.error else f", since the call before it {'was refused' if refused else 'ends a turn'}"
    texts = [_result_text(result, short=level != WHOLE, cap=cap) for result in record.results[:count]]
    noted = zip_longest([call.note for call in calls[: len(texts)]], texts, fillvalue="")
    return ["\n".join(filter(None, pair)) for pair in noted] + [f"Not carried out{why}."] * (count - len(texts))


def _result_text(result: ToolRan, *, short: bool, cap: int) -> str:
    text = result.result if result.ok else f"Refused: {result.result}"
    if short and len(text) > STUB_CHARS:
        return f"{text[:STUB_CHARS]}\n[... the rest of this old result was left out ...]"
    return cut_middle(text, cap) or "(no output)"


def _plan_sent(view: View, longest: int) -> Json:
    """The plan as the model sent it; one that is too long, or holds calls that nobody answered, as its text."""
    answer = view.replies.get("plan")
    if answer is None or answer.cut or answer.message.get("tool_calls") or _size(answer.message) > longest:
        return {"role": "assistant", "content": encodable(cut_middle(view.plan.text, longest)) or NO_ANSWER}
    return sent_back(answer.message, read(answer.message, 0))


def _as_message(decision: Decision) -> Json:
    """What the model said, where only the decision is known."""
    asked = [(call.id, {"name": call.name, "arguments": json.dumps(call.arguments)}) for call in decision.calls]
    calls = [{"id": id, "type": "function", "function": function} for id, function in asked]
    return {"role": "assistant", "content": decision.text, "tool_calls": calls}


def _tight(message: Json) -> Json:
    """An old message of the model with its long texts cut: what it said, thought in words, and asked."""
    out = {k: _brief(v) if k in ("content", "reasoning_content", "reasoning") else v for k, v in message.items()}
    if "tool_calls" in out:
        out["tool_calls"] = [_tight_call(call) for call in out["tool_calls"]]
    if out != message:
        out.pop("native", None)
    return out


def _tight_call(call: Json) -> Json:
    given = call["function"]["arguments"]
    if len(given) <= 2 * STUB_CHARS:
        return call
    arguments = {name: _brief(value) for name, value in json.loads(given).items()}
    return {**call, "function": {**call["function"], "arguments": json.dumps(arguments)}}


def _brief(value: Any) -> Any:
    text = value if isinstance(value, str) else ""
    return f"{text[:STUB_CHARS]} [... left out ...]" if len(text) > 2 * STUB_CHARS else value


def _size(value: Any) -> int:
    """Characters that a message takes, nearly."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(_size(each) for each in value)
    if isinstance(value, dict):
        native = _size(value["native"]) if "native" in value else 0
        return max(native, sum(_size(each) for key, each in value.items() if key != "native")) + CALL_CHARS // 4
    return 4


def _about_tests(view: View) -> str:
    command, baseline, given = view.prepared.test_command, view.prepared.baseline, view.task.failing_test
    parts = [f"The tests run with `{command}` (use the test tool)." if command else "No test command is known."]
    parts += [f"Python is {view.prepared.python}."] if view.prepared.python else []
    if view.task.test_scope == "near":
        parts.append(NOTES["near"])
    elif baseline is not None:
        parts.append(f"Before any change {len(baseline.passed)} tests pass and {len(baseline.failed)} fail.")
    if given is not None:
        parts.append(f"These tests show the issue and must pass: {', '.join(given.ids)}")
    return " ".join(parts)


def _user(text: str) -> Json:
    return {"role": "user", "content": encodable(text)}
