"""Reading a model's reply, and keeping the chat within the context without moving its beginning."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.attempt.model_policy import KEEP_TURNS, ModelPolicy, _content, _from_text, shortened_before
from agent.attempt.policy import Decision, Plan, Result, ToolCall, TurnRecord, View
from agent.attempt.tools import TOOLS
from harness.trace import Prepared
from tasks.task import Repository, Task


def reply(*calls: tuple[str, str], text: str = "") -> dict[str, Any]:
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": made}


def decide(message: dict[str, Any]) -> Decision:
    return ModelPolicy(tools=True)._from_tools(message)


def test_calls_become_a_decision_in_their_order() -> None:
    made = decide(reply(("read", '{"path": "a.py"}'), ("search", '{"pattern": "x"}'), text="look"))
    assert [c.name for c in made.calls] == ["read", "search"] and made.text == "look" and not made.error


def test_a_test_call_ends_the_turn_and_submit_ends_the_attempt() -> None:
    made = decide(reply(("test", "{}"), ("read", '{"path": "a.py"}')))
    assert [c.name for c in made.calls] == ["test"]
    made = decide(reply(("read", '{"path": "a.py"}'), ("submit", "{}")))
    assert made.stop == "submitted" and [c.name for c in made.calls] == ["read"]


def test_the_kind_of_a_tool_says_what_ends_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOOLS, "check", replace(TOOLS["test"], name="check"))
    monkeypatch.setitem(TOOLS, "done", replace(TOOLS["submit"], name="done"))
    assert [c.name for c in decide(reply(("check", "{}"), ("read", '{"path": "a.py"}'))).calls] == ["check"]
    assert decide(reply(("done", "{}"))).stop == "submitted"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (reply(), "no tool call"),
        (reply(("read", "{not json")), "not JSON"),
        (reply(("read", "[]")), "must be a JSON object"),
        (reply(("reed", "{}")), "There is no tool 'reed'"),
        (reply(("read", "{}")), "read needs path"),
        (reply(("read", '{"path": 3}')), "path must be of type string"),
        (reply(("read", '{"path": "a", "colour": 1}')), "takes no 'colour'"),
        ({"role": "assistant", "content": None}, "no tool call"),
    ],
)
def test_a_malformed_reply_says_what_is_wrong(message: dict[str, Any], said: str) -> None:
    assert said in decide(message).error


def test_the_text_protocol_takes_exactly_one_block() -> None:
    block = '```tool\n{"name": "read", "arguments": {"path": "a.py"}}\n```'
    assert [c.name for c in _from_text(f"Reading.\n{block}").calls] == ["read"]
    assert "2 tool blocks" in _from_text(block + "\n" + block).error
    assert "no tool block" in _from_text("read a.py").error
    assert "not JSON" in _from_text("```tool\n{x}\n```").error


def turn(number: int, size: int) -> TurnRecord:
    call = ToolCall(f"c{number}", "run", {"command": f"echo {number}"})
    return TurnRecord(number, Decision("", (call,)), (Result(call.id, "run", "x" * size),))


def view(history: list[TurnRecord], context: int = 8000) -> View:
    nothing: Any = None
    prepared = Prepared(base_commit="0", environment="e", backend="bubblewrap", test_command="pytest")
    return View(
        task=Task("t", Repository("path", "/r"), "It is wrong."),
        prepared=prepared,
        index=0,
        seed=0,
        sandbox=nothing,
        ask=nothing,
        run_tests=nothing,
        plan=Plan("I plan."),
        history=history,
        turns_left=20,
        context=context,
    )


def test_a_short_history_is_kept_whole() -> None:
    assert shortened_before([], [turn(n, 10) for n in range(1, 30)], 100_000) == 0


def test_the_chat_stays_below_the_context_and_its_beginning_rarely_moves() -> None:
    policy = ModelPolicy(tools=True)
    history: list[TurnRecord] = []
    before = json.dumps(policy.messages(view(history, context=24_000)))
    moved = 0
    for number in range(1, 60):
        history.append(turn(number, 2000))
        chat = policy.messages(view(history, context=24_000))
        now = json.dumps(chat)
        assert len(now) < 24_000 * 3.5
        moved += not now.startswith(before[:-1])
        before = now
    assert 1 <= moved <= 6, "many turns are shortened at once, so that a prompt cache keeps hitting"
    assert chat[-1]["role"] == "tool" and len(chat[-1]["content"]) >= 2000


def test_the_latest_turns_are_never_shortened() -> None:
    history = [turn(n, 50_000) for n in range(1, 11)]
    assert shortened_before([], history, 1000) == len(history) - KEEP_TURNS


def test_every_tool_call_is_answered_in_the_chat() -> None:
    calls = tuple(ToolCall(f"c{n}", "read", {"path": "a.py"}) for n in range(3))
    record = TurnRecord(1, Decision("", calls), (Result("c0", "read", "text"),))
    chat = ModelPolicy(tools=True).messages(view([record]))
    asked = {c["id"] for m in chat for c in m.get("tool_calls", [])}
    assert asked == {m["tool_call_id"] for m in chat if m["role"] == "tool"}


def test_every_tool_has_a_schema_that_names_its_required_arguments() -> None:
    for tool in TOOLS.values():
        parameters = tool.schema()["function"]["parameters"]
        assert set(parameters["required"]) <= set(parameters["properties"])
        assert all(p["type"] for p in parameters["properties"].values())


def test_arguments_that_come_as_an_object_are_taken_as_they_are() -> None:
    message = {"content": "", "tool_calls": [{"id": "c", "function": {"name": "read", "arguments": {"path": "a.py"}}}]}
    assert [c.arguments for c in decide(message).calls] == [{"path": "a.py"}]


def test_null_for_a_required_argument_is_a_missing_one() -> None:
    assert "read needs path" in decide(reply(("read", '{"path": null}'))).error


def test_what_is_no_utf_8_can_be_sent_all_the_same() -> None:
    call = ToolCall("c", "read", {"path": "\udce9"})
    seen = TurnRecord(1, Decision("\ud83d", (call,)), (Result("c", "read", "caf\udce9"),))
    for tools in (True, False):
        record = replace(seen, decision=replace(seen.decision, text=_content({"content": "\ud83d"})))
        json.dumps(ModelPolicy(tools=tools)._turn(record, short=False), ensure_ascii=False).encode()
