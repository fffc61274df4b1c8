"""What of an attempt the model is told, turn by turn, and what becomes of its replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from agent.attempt.model_policy import GONE, NOTES, SHORT, STEPS, TIGHT, WHOLE, ModelPolicy, reduced
from agent.attempt.policy import Decision, ToolCall, TurnRecord, View
from agent.attempt.reading import read
from agent.attempt.tools import TOOLS
from harness.records import Json
from harness.trace import Planned, Prepared, Replied
from tasks.errors import ContextTooLong, ReplyUnreadable, ToolsRefused
from tasks.task import Repository, Task
from tests.support.replies import ran, replied


def messages(policy: ModelPolicy, seen: View) -> list[Any]:
    """The whole chat for the next turn."""
    return policy._fitting(seen)[0]


def reply(*calls: tuple[str, str], text: str = "") -> Json:
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": made}


def block(name: str, **arguments: object) -> Json:
    said = json.dumps({"name": name, "arguments": arguments})
    return {"role": "assistant", "content": f"So:\n```tool\n{said}\n```"}


def decide(message: Json, *, tools: bool = True, cut: bool = False) -> Decision:
    return ModelPolicy(tools=tools)._decision(replied(message, cut), read(message, 1))


def test_calls_become_a_decision_in_their_order() -> None:
    made = decide(reply(("read", '{"path": "a.py"}'), ("search", '{"pattern": "x"}'), text="<think>hm</think>look"))
    assert [c.name for c in made.calls] == ["read", "search"] and not made.error
    assert (made.text, made.thoughts) == ("look", "hm")


def test_a_test_call_ends_the_turn_and_submit_ends_the_attempt() -> None:
    made = decide(reply(("test", "{}"), ("read", '{"path": "a.py"}')))
    assert [c.name for c in made.calls] == ["test"]
    made = decide(reply(("read", '{"path": "a.py"}'), ("submit", '{"summary": "The loop is right now."}')))
    assert made.stop == "submitted" and [c.name for c in made.calls] == ["read", "submit"]
    assert made.text == "The loop is right now."


def test_the_kind_of_a_tool_says_what_ends_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOOLS, "check", replace(TOOLS["test"], name="check"))
    monkeypatch.setitem(TOOLS, "done", replace(TOOLS["submit"], name="done"))
    assert [c.name for c in decide(reply(("check", "{}"), ("read", '{"path": "a.py"}'))).calls] == ["check"]
    assert decide(reply(("done", "{}"))).stop == "submitted"


def test_calls_before_one_that_is_none_are_carried_out_and_it_is_answered() -> None:
    message = reply(("read", '{"path": "a.py"}'), ("test", "{not json"), ("undo", "{}"))
    made = decide(message)
    assert [c.name for c in made.calls] == ["read", "test"] and not made.error and "not JSON" in made.calls[1].problem
    results = (ran("c0", "read", "x = 1"), ran("c1", "test", made.calls[1].problem, ok=False))
    seen = replace(view([TurnRecord(1, made, results)]), replies={"1": replied(message)})
    told = [m["content"] for m in messages(ModelPolicy(tools=True), seen) if m["role"] == "tool"]
    assert told[0] == "x = 1" and told[1].startswith("Refused: The arguments of test are not JSON")
    assert told[2] == "Not carried out, since the call before it was refused."


def test_the_same_turn_twice_is_warned_of_in_its_result() -> None:
    seen = spoken((reply(("undo", "{}")), ["x"]), (reply(("undo", "{}")), ["x"]), (reply(("diff", "{}")), ["x"]))
    told = [m["content"] for m in messages(ModelPolicy(tools=True), seen) if m["role"] == "tool"]
    assert [NOTES["again"] in text for text in told] == [False, True, False]


def test_a_reply_without_a_call_says_what_is_missing() -> None:
    assert "no tool call" in decide(reply()).error
    assert "no tool block" in decide(reply(), tools=False).error
    assert "There is no tool 'reed'" in decide(reply(("reed", "{}"))).error


@pytest.mark.parametrize("tools", [True, False])
def test_calls_of_a_cut_reply_are_never_carried_out(tools: bool) -> None:
    message = reply(("run", '{"command": "rm a"}'), text="Then")
    for cut in (message, block("run", command="rm a")):
        made = decide(cut, tools=tools, cut=True)
        assert not made.calls and made.error == NOTES["cut"]
    record = TurnRecord(1, decide(message, cut=True), ())
    chat = messages(
        ModelPolicy(tools=tools),
        replace(view([record]), replies={"1": replied({**message, "native": 1, "reasoning_details": []}, cut=True)}),
    )
    assert chat[-2] == {"role": "assistant", "content": "Then"} and "was cut" in chat[-1]["content"]


def turn(number: int, size: int, more: str = "") -> TurnRecord:
    call = ToolCall(f"c{number}", "run", {"command": f"echo {number}{more}"})
    return TurnRecord(number, Decision("", (call,)), (ran(call.id, "run", "x" * size),))


def view(history: Sequence[TurnRecord], context: int = 8000, ask: Any = None) -> View:
    nothing: Any = None
    prepared = Prepared(base_commit="0", environment="e", backend="bubblewrap", test_command="pytest")
    return View(
        task=Task("t", Repository("path", "/r"), "It is wrong."),
        prepared=prepared,
        index=0,
        seed=0,
        sandbox=nothing,
        ask=ask,
        plan=Planned(text="I plan."),
        history=history,
        turns_left=20,
        context=context,
    )


def spoken(*turns: tuple[Json, Sequence[str]]) -> View:
    """A view after turns of a model's messages and what came of their calls."""
    history, replies = [], {}
    for number, (message, results) in enumerate(turns, 1):
        made = ModelPolicy(tools=True)._decision(replied(message), read(message, number))
        told = [ran(c.id, c.name, text) for c, text in zip(made.calls, results, strict=False)]
        history.append(TurnRecord(number, made, tuple(told)))
        replies[str(number)] = replied(message)
    return replace(view(history, context=100_000), replies=replies)


def test_what_the_model_said_goes_back_as_it_came() -> None:
    first = {**reply(("read", '{ "path":"a.py"}')), "reasoning_content": "hm", "native": ["x"]}
    second = {"role": "assistant", "content": "It is the loop.", "reasoning": "hm"}
    seen = spoken((first, ["text"]), (second, []))
    plan = {"role": "assistant", "content": "I plan.", "reasoning_details": [{"data": "x"}]}
    seen = replace(seen, replies={**seen.replies, "plan": replied(plan)})
    for policy in (ModelPolicy(tools=True), ModelPolicy(tools=True)):
        chat = messages(policy, seen)
        assert [m for m in chat if m["role"] == "assistant"] == [plan, first, second]


@pytest.mark.parametrize("tools", [True, False])
def test_roles_alternate_and_every_call_has_one_result(tools: bool) -> None:
    seen = spoken(
        (reply(("read", '{"path": "a"}'), ("read", '{"path": "b"}')), ["a", "b"]),
        (reply(("test", "{}"), ("read", '{"path": "a"}')), ["1 passed"]),
        (reply(("read", "{not json"), ("undo", "{}")), []),
        (reply(), []),
        ({"content": None, "tool_calls": ["x", None]}, []),
        ({"content": None, "tool_calls": [None, *reply(("undo", "{}"))["tool_calls"]]}, []),
        (block("read", path="a"), ["a"]),
        (reply(("undo", "{}"), ("undo", '{"reason": "x"}')), ["a", "b"]),
    )
    for left in range(4):
        policy = ModelPolicy(tools=tools)
        chat = messages(policy, replace(seen, turns_left=left))
        waiting: list[str] = []
        for before, message in pairwise(chat):
            if before["role"] == "assistant":
                waiting = [call["id"] for call in before.get("tool_calls", [])]
                assert message["role"] == ("tool" if waiting else "user")
            if message["role"] == "tool":
                assert message["tool_call_id"] == waiting.pop(0)
            else:
                assert not waiting and {before["role"], message["role"]} != {"user"}
                assert message["role"] == "assistant" or before["role"] in ("assistant", "system")
            assert message["content"] or message.get("tool_calls")
        assert ("tool" in {m["role"] for m in chat}) == tools
        json.dumps(chat, ensure_ascii=False).encode()


def test_corrections_notes_and_reminders_stand_in_the_result() -> None:
    seen = spoken((reply(("bash", '{"command": "ls"}')), ["a.py"]), (reply(("reed", "{}"), ("undo", "{}")), []))
    chat = messages(ModelPolicy(tools=True), replace(seen, turns_left=2))
    assert chat[5]["content"].startswith("(taken as run: command)\na.py") and "Turns left: 3" in chat[5]["content"]
    assert chat[-2]["content"] == "Not carried out."
    assert "There is no tool 'reed'" in chat[-1]["content"] and "Turns left: 2" in chat[-1]["content"]
    later = messages(ModelPolicy(tools=True), replace(spoken(*[(reply(("undo", "{}")), ["x"])] * 3), turns_left=1))
    assert ["Turns left" in m["content"] for m in later if m["role"] == "tool"] == [True] * 3, "once said, it stays"
    assert "Turns left: 3" in messages(ModelPolicy(tools=True), replace(view([]), turns_left=3))[-1]["content"]


def test_the_chat_only_grows_while_there_is_room() -> None:
    policy, before = ModelPolicy(tools=True), ""
    for number in range(12):
        seen = replace(view([turn(n, 300) for n in range(1, number + 1)], context=100_000), turns_left=12 - number)
        now = json.dumps(messages(policy, seen))[:-1]
        assert now.startswith(before), "a prompt cache goes on hitting"
        before = now


def size(at: int, level: int) -> int:
    return {WHOLE: 1000, SHORT: 300, TIGHT: 100, GONE: 0}[level]


def test_turns_are_reduced_no_more_than_they_must_be() -> None:
    assert reduced(size, 10, 10_000) == [WHOLE] * 10
    assert reduced(size, 10, 9_999) == [SHORT] * 4 + [WHOLE] * 6, "the last turns are spared as long as that will do"
    assert reduced(size, 10, 6_500) == [TIGHT] * 4 + [WHOLE] * 6
    assert reduced(size, 10, 3_200) == [TIGHT] * 8 + [WHOLE] * 2
    assert reduced(size, 10, 1_950)[-1] == WHOLE
    assert reduced(size, 10, 1_050) == [GONE] * 9 + [WHOLE]
    assert reduced(size, 10, -1) == [GONE] * 9 + [TIGHT]
    assert [spared for _, spared in STEPS] == sorted((spared for _, spared in STEPS), reverse=True)


def test_the_chat_stays_below_the_context_and_its_beginning_rarely_moves() -> None:
    policy = ModelPolicy(tools=True)
    history: list[TurnRecord] = []
    before = json.dumps(messages(policy, view(history, context=24_000)))
    moved = 0
    for number in range(1, 60):
        history.append(turn(number, 2000))
        chat = messages(policy, view(history, context=24_000))
        now = json.dumps(chat)
        assert len(now) < 24_000 * 3.5
        moved += not now.startswith(before[:-1])
        before = now
    assert 1 <= moved <= 6, "many turns are shortened at once, so that a prompt cache keeps hitting"
    assert chat[-1]["role"] == "tool" and len(chat[-1]["content"]) >= 2000


@pytest.mark.parametrize("tools", [True, False])
def test_a_small_context_is_kept_to_from_the_start(tools: bool) -> None:
    policy = ModelPolicy(tools=tools)
    seen = replace(view([], context=4096), plan=Planned(text="I plan. " * 1000))
    for number in range(1, 30):
        seen = replace(seen, history=[*seen.history, turn(number, 9000, "x" * 900)])
        chat = messages(policy, seen)
        length = len(json.dumps(chat)) + (len(json.dumps([t.schema() for t in TOOLS.values()])) if tools else 0)
        assert length < 4096 * 3
        assert [m["role"] for m in chat[:4]] == ["system", "user", "assistant", "user"]
    assert "turns are left out here" in chat[3]["content"]
    assert "left out ...]" in chat[-1]["content"]


class Server:
    """Asked instead of a model: refuses what is longer than `fits` characters, tools where it takes none, and answers
    with `message`."""

    def __init__(self, message: Json, *, fits: int = 10**9, takes_tools: bool = True, readable: bool = True) -> None:
        self.message, self.fits, self.takes_tools, self.readable = message, fits, takes_tools, readable
        self.asked: list[tuple[str, str, bool, int]] = []

    async def __call__(
        self, key: str, purpose: str, messages: Sequence[Json], tools: Sequence[Json] = (), *, longer: int = 0
    ) -> Replied:
        said = json.dumps([*messages, *tools])
        self.asked.append((key, said, bool(tools), longer))
        if tools and not self.takes_tools:
            raise ToolsRefused("no tools here")
        if len(said) > self.fits:
            raise ContextTooLong("too long")
        if not self.readable:
            raise ReplyUnreadable("cannot parse")
        return replied(self.message)


def test_a_server_that_takes_no_tools_is_asked_in_text_from_then_on() -> None:
    server = Server(block("read", path="a.py"), takes_tools=False)
    policy = ModelPolicy(tools=True)
    for history in ([], [turn(1, 10)]):
        made = asyncio.run(policy.decide(view(history, ask=server)))
        assert [c.name for c in made.calls] == ["read"]
    assert [(key, tools) for key, _, tools, _ in server.asked] == [("1", True), ("1", False), ("2", False)]
    assert "```tool" in server.asked[1][1] and "tool_calls" not in server.asked[2][1]


def test_a_call_that_the_server_could_not_read_is_a_malformed_turn() -> None:
    made = asyncio.run(ModelPolicy(tools=True).decide(view([], ask=Server({}, readable=False))))
    assert made == Decision("", error=NOTES["not_read"])
    chat = messages(ModelPolicy(tools=True), view([TurnRecord(1, made, ())]))
    assert chat[-2]["content"] == "(no answer)" and "could not read" in chat[-1]["content"]


def test_a_conversation_that_does_not_fit_is_asked_again_shorter_and_stays_so() -> None:
    history = [turn(n, 5000) for n in range(1, 40)]
    server = Server(reply(("read", '{"path": "a.py"}')), fits=30_000)
    policy = ModelPolicy(tools=True)
    made = asyncio.run(policy.decide(view(history, context=128_000, ask=server)))
    lengths = [len(said) for _, said, _, _ in server.asked]
    assert made.calls and lengths == sorted(lengths, reverse=True) and 15_000 < lengths[-1] <= 30_000
    server.asked.clear()
    asyncio.run(policy.decide(view([*history, turn(40, 5000)], context=128_000, ask=server)))
    assert len(server.asked) == 1, "what one refusal taught holds for the next turn"


def test_only_what_can_be_reduced_no_more_is_too_long() -> None:
    server = Server({}, fits=100)
    with pytest.raises(ContextTooLong):
        asyncio.run(ModelPolicy(tools=True).decide(view([turn(n, 5000) for n in range(1, 9)], ask=server)))
    assert 2 <= len(server.asked) <= 6
    assert "It is wrong." in server.asked[-1][1] and "echo 8" in server.asked[-1][1]
    assert "echo 7" not in server.asked[-1][1]


def test_how_many_answers_were_cut_goes_with_the_next_question() -> None:
    server = Server(reply(("undo", "{}")))
    cut = {"plan": replied({"content": "I pl"}, cut=True), "1": replied({"content": "I"}, cut=True), "2": replied({})}
    asyncio.run(ModelPolicy(tools=True).decide(replace(view([turn(1, 1), turn(2, 1)], ask=server), replies=cut)))
    assert server.asked[0][3] == 2


def test_the_plan_is_asked_for_in_one_message() -> None:
    server = Server({"content": "<think>hm</think> I plan."})
    plan = asyncio.run(ModelPolicy(tools=True).plan(view([], ask=server)))
    assert plan.text == "I plan."
    assert [m["role"] for m in json.loads(server.asked[0][1])] == ["system", "user"]


def test_a_plan_with_calls_that_nobody_answered_goes_back_as_its_text() -> None:
    seen = replace(view([]), replies={"plan": replied(reply(("read", "{}"), text="I plan."))})
    assert messages(ModelPolicy(tools=True), seen)[2] == {"role": "assistant", "content": "I plan."}


def test_every_tool_has_a_schema_that_strict_servers_take() -> None:
    for tool in TOOLS.values():
        parameters = tool.schema()["function"]["parameters"]
        assert parameters["properties"] and parameters.get("required") != []
        assert set(parameters.get("required", [])) <= set(parameters["properties"])
        assert all(p["type"] and p["description"] for p in parameters["properties"].values())


def test_other_names_of_tools_and_arguments_are_of_one_tool_and_none_of_ours() -> None:
    names = [name for tool in TOOLS.values() for name in (tool.name, *tool.also)]
    assert len(names) == len(set(names))
    for tool in TOOLS.values():
        assert {name for word in tool.words.values() for name in word.split()} <= set(tool.parameters)
        assert not set(tool.words) & set(tool.parameters)


def test_the_text_protocol_speaks_of_what_it_allows() -> None:
    system = messages(ModelPolicy(tools=False), view([]))[0]["content"]
    assert all(f"- {name}: " in system for name in TOOLS) and "last call of a turn" not in system
    assert "last call of a turn" in json.dumps(TOOLS["test"].schema())
    example = system[system.rindex("```tool") : system.index("The tools:")]
    (made,) = read({"content": example}, 1).calls
    assert made.name == "edit" and made.arguments["new"] == '    version="1.1",'


def test_what_is_no_utf_8_can_be_sent_all_the_same() -> None:
    odd = reply(("read", '{"path": "\\udce9"}'), text="\ud83d")
    seen = spoken((odd, ["caf\udce9"]), (block("read", path="\udce9"), ["\udce9"]), (reply(text="\udce9"), []))
    seen = replace(seen, task=replace(seen.task, statement="\udce9"), plan=Planned(text="\ud83d"))
    seen = replace(seen, history=[*seen.history, TurnRecord(4, Decision("\ud83d"), (), None)])
    for tools in (True, False):
        json.dumps(messages(ModelPolicy(tools=tools), seen), ensure_ascii=False).encode()
