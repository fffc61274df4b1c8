"""The policy that asks a model: renders what the attempt knows as a chat, and reads the reply as a decision.

The chat's beginning never changes within an attempt, so a provider's prompt cache keeps hitting: old observations are
shortened only when the chat nears the model's context, many turns at once, and then stay as they are
(`shortened_before`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from agent.attempt.lines import cut_middle, sendable
from agent.attempt.policy import Decision, Plan, Result, ToolCall, TurnRecord, View
from agent.attempt.tools import TOOLS, argument_problem, kind_of
from harness.records import Json, TestReport
from harness.testing.report import COMMAND_TEST

CHARS_PER_TOKEN = 3.5
"""Characters of code and English per token, on the low side; only for keeping the chat within the context."""

STUB_CHARS = 200
CALL_CHARS = 200
"""What a tool call and its answer take beside their own text."""

KEEP_TURNS = 6
HIGH_WATER = 0.7
LOW_WATER = 0.3

_FENCE = re.compile(r"```tool\s*\n(.*?)```", re.DOTALL)


@functools.cache
def prompt(name: str) -> str:
    """A prompt file of agent/prompts by name."""
    return (Path(__file__).parent / "prompts" / f"{name}.md").read_text(encoding="utf-8").strip()


class ModelPolicy:
    """A policy over `View.ask`. `tools` False: the text protocol, for servers without tool calls."""

    only_green = False

    def __init__(self, *, tools: bool) -> None:
        self._tools = tools
        self._schemas = [tool.schema() for tool in TOOLS.values()] if tools else []

    async def plan(self, view: View) -> Plan:
        answer = await view.ask("plan", "plan", [*self._opening(view), _user(prompt("plan"))])
        return Plan(text=_content(answer.message).strip())

    async def decide(self, view: View) -> Decision:
        answer = await view.ask(str(len(view.history) + 1), "act", self.messages(view), self._schemas)
        return self._from_tools(answer.message) if self._tools else _from_text(_content(answer.message))

    def messages(self, view: View) -> list[Json]:
        """The whole chat for the next turn."""
        head = [
            *self._opening(view),
            _user(prompt("plan")),
            {"role": "assistant", "content": view.plan.text or "(no plan)"},
            _user("Good. Now carry it out, one step at a time, with the tools."),
        ]
        cut = shortened_before(head, view.history, view.context * CHARS_PER_TOKEN)
        chat = head
        for record in view.history:
            chat += self._turn(record, short=record.turn <= cut)
        if view.turns_left <= 3:
            chat.append(_user(f"Turns left: {view.turns_left}. Finish the fix and submit."))
        return chat

    def _opening(self, view: View) -> list[Json]:
        system = prompt("system")
        if not self._tools:
            listing = "\n".join(_in_words(tool.schema()["function"]) for tool in TOOLS.values())
            system += "\n\n" + prompt("text_protocol") + "\n" + listing
        body = prompt("task").format(statement=view.task.statement.strip(), tests=_about_tests(view))
        return [{"role": "system", "content": system}, _user(body)]

    def _turn(self, record: TurnRecord, *, short: bool) -> list[Json]:
        decision = record.decision
        if not self._tools:
            said = decision.text or "(no answer)"
            return [{"role": "assistant", "content": said}, _user(_observation(record, short=short))]
        assistant: Json = {"role": "assistant", "content": decision.text or None}
        if not decision.calls:
            assistant["content"] = decision.text or "(no answer)"
            return [assistant, _user(_correction(decision.error))]
        assistant["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in decision.calls
        ]
        answers: list[Json] = [
            {"role": "tool", "tool_call_id": result.call, "content": _result_text(result, short=short)}
            for result in record.results
        ]
        answered = {result.call for result in record.results}
        answers += [
            {"role": "tool", "tool_call_id": call.id, "content": "Not carried out."}
            for call in decision.calls
            if call.id not in answered
        ]
        if decision.error:
            answers.append(_user(_correction(decision.error)))
        return [assistant, *answers]

    def _from_tools(self, reply: Json) -> Decision:
        text = _content(reply)
        calls: list[ToolCall] = []
        for number, raw in enumerate(reply.get("tool_calls") or []):
            function = raw.get("function") or {}
            name = str(function.get("name") or "")
            given = function.get("arguments") or "{}"
            try:
                arguments = given if isinstance(given, dict) else json.loads(given)
            except (ValueError, TypeError, RecursionError) as error:
                return Decision(text=text, error=f"The arguments of {name} are not JSON ({error}).")
            problem = _malformed(name, arguments)
            if problem:
                return Decision(text=text, error=problem)
            calls.append(ToolCall(str(raw.get("id") or f"call-{number}"), name, arguments))
        if not calls:
            return Decision(text=text, error="There was no tool call. Call a tool, or submit when you are done.")
        return _ending(text, calls)


def _from_text(text: str) -> Decision:
    blocks = _FENCE.findall(text)
    if len(blocks) != 1:
        many = "no tool block" if not blocks else f"{len(blocks)} tool blocks"
        return Decision(text=text, error=f"There was {many} in the message; give exactly one.")
    try:
        call = json.loads(blocks[0])
    except (ValueError, RecursionError) as error:
        return Decision(text=text, error=f"The tool block is not JSON ({error}).")
    if not isinstance(call, dict):
        return Decision(text=text, error="The tool block must hold one JSON object with name and arguments.")
    name, arguments = str(call.get("name") or ""), call.get("arguments") or {}
    problem = _malformed(name, arguments)
    if problem:
        return Decision(text=text, error=problem)
    return _ending(text, [ToolCall("text", name, arguments)])


def _malformed(name: str, arguments: object) -> str:
    if not isinstance(arguments, dict):
        return f"The arguments of {name} must be a JSON object."
    return argument_problem(name, arguments)


def _ending(text: str, calls: list[ToolCall]) -> Decision:
    """Calls after one that runs the tests or ends the attempt are dropped: both end a turn."""
    kept: list[ToolCall] = []
    for call in calls:
        if kind_of(call.name) == "ends":
            return Decision(text=text, calls=tuple(kept), stop="submitted")
        kept.append(call)
        if kind_of(call.name) == "tests":
            break
    return Decision(text=text, calls=tuple(kept))


def shortened_before(head: Sequence[Json], history: Sequence[TurnRecord], limit: float) -> int:
    """The last turn whose observations are shortened (0: none), so that the chat keeps below `limit` characters.

    A function of the history alone, and steady: it moves only when the chat would pass HIGH_WATER x limit, and then so
    far that the chat falls below LOW_WATER x limit (but never past the last KEEP_TURNS turns).
    """
    fixed = sum(len(_content(message)) for message in head)
    full = [_size(record, short=False) for record in history]
    short = [_size(record, short=True) for record in history]
    cut, total = 0, float(fixed)
    for at in range(len(history)):
        total += full[at]
        while total > HIGH_WATER * limit and cut < at + 1 - KEEP_TURNS:
            while total > LOW_WATER * limit and cut < at + 1 - KEEP_TURNS:
                total += short[cut] - full[cut]
                cut += 1
            break
    return cut


def _size(record: TurnRecord, *, short: bool) -> int:
    calls = sum(len(json.dumps(call.arguments)) + CALL_CHARS for call in record.decision.calls)
    said = len(record.decision.text) + calls
    return said + sum(len(_result_text(result, short=short)) for result in record.results)


def _result_text(result: Result, *, short: bool) -> str:
    text = sendable(result.text if result.ok else f"Refused: {result.text}")
    if short and len(text) > STUB_CHARS:
        return f"{text[:STUB_CHARS]}\n[... the rest of this old result was left out ...]"
    return text or "(no output)"


def _observation(record: TurnRecord, *, short: bool) -> str:
    parts = [f"Result of {result.name}:\n{_result_text(result, short=short)}" for result in record.results]
    if record.decision.error:
        parts.append(_correction(record.decision.error))
    return "\n\n".join(parts) or "(nothing was done)"


def _correction(error: str) -> str:
    return f"That message could not be carried out. {error}"


def _about_tests(view: View) -> str:
    command = view.prepared.test_command
    parts = [f"The tests run with `{command}` (use the test tool)." if command else "No test command is known."]
    baseline = view.prepared.baseline
    if view.task.test_scope == "near":
        parts.append(
            "The whole suite takes too long: name test files or ids, or name none to have the test files run that are"
            " near to your changes (some of their tests may fail without your changes, too)."
        )
    elif baseline is not None:
        failing = sorted(baseline.failed)
        parts.append(f"Before any change {len(baseline.passed)} tests pass and {len(failing)} fail.")
    given = view.task.failing_test
    if given is not None:
        parts.append(f"These tests show the issue and must pass: {', '.join(given.ids)}")
    return " ".join(parts)


def describe_report(report: TestReport, baseline: TestReport | None) -> str:
    """A test run in words for the policy: counts, what broke since the base, the failures' messages."""
    if not report.outcomes:
        reason = report.reason or f"exit code {report.exit_code}"
        return f"No test ran ({reason}).\n{cut_middle(report.output, 4000)}"
    counts = f"{len(report.passed)} passed, {len(report.failed)} failed"
    lines = [counts + (", timed out" if report.timed_out else "") + f", in {report.seconds:.1f} s."]
    if not report.valid:
        lines.append(f"The run is not conclusive: {report.reason}.")
    if baseline is not None:
        broken = sorted(report.failed & baseline.passed)
        if broken:
            more = f" and {len(broken) - 20} more" if len(broken) > 20 else ""
            lines.append(f"Passed before your changes, now failing: {', '.join(broken[:20])}{more}")
    if COMMAND_TEST in report.failed:
        return "\n".join([*lines, f"--- end of the output\n{cut_middle(report.output, 4000)}"])
    for test in sorted(report.failed)[:10]:
        lines.append(f"--- {test}\n{cut_middle(report.failures.get(test, ''), 1200)}")
    if len(report.failed) > 10:
        lines.append(f"(and {len(report.failed) - 10} more failures)")
    return "\n".join(lines)


def _in_words(function: Json) -> str:
    parameters = function["parameters"]
    names = [
        f"{name}{'' if name in parameters['required'] else ' (optional)'}: {schema.get('description', schema['type'])}"
        for name, schema in parameters["properties"].items()
    ]
    return f"- {function['name']}: {function['description']} Arguments: {'; '.join(names) or 'none'}."


def _user(text: str) -> Json:
    return {"role": "user", "content": sendable(text)}


def _content(message: Json) -> str:
    content = message.get("content")
    return sendable(content) if isinstance(content, str) else ""
