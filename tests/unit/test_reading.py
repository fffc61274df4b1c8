"""What a model's reply says, however it is written, and how it goes back to the server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agent.attempt.model_policy import ModelPolicy
from agent.attempt.reading import as_text, read, said, sent_back
from harness.records import Json
from tests.support.replies import replied


def calling(*calls: Any, **rest: Any) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **rest}


def call(name: object, arguments: object, **rest: Any) -> Json:
    return {"id": "c0", "type": "function", "function": {"name": name, "arguments": arguments}, **rest}


def taken(message: Json) -> tuple[str, Json]:
    """Name and arguments of the one call in a message that can be carried out."""
    reading = read(message, 1)
    assert not reading.error, reading.error
    (made,) = reading.calls
    return made.name, made.arguments


def problem(message: Json) -> str:
    return read(message, 1).error


def text(content: object) -> Json:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("message", "thoughts", "answer"),
    [
        (text("Yes."), "", "Yes."),
        (text(None), "", ""),
        (text(7), "", ""),
        (text({"text": "odd"}), "", "odd"),
        (text([{"type": "text", "text": "a"}, "b", None, {"type": "output_text", "text": "c"}]), "", "abc"),
        (text([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "a"}]), "hm", "a"),
        (text("<think>hm</think>\n\nYes."), "hm", "Yes."),
        (text("\n<thinking>a</thinking><think>b</think>Yes."), "a\nb", "Yes."),
        (text("<think>hm, and then"), "hm, and then", ""),
        (text("hm\n</think>\nYes."), "hm", "Yes."),
        (text("It writes <think>x</think>."), "", "It writes <think>x</think>."),
        (
            text("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes."),
            "hm",
            "Yes.",
        ),
        ({**text("Yes."), "reasoning_content": "hm"}, "hm", "Yes."),
        ({**text("Yes."), "reasoning": "a b", "reasoning_details": [{"text": "a "}, {"text": "b"}]}, "a b", "Yes."),
        ({**text("Yes."), "reasoning_details": [{"summary": "s"}, {"data": "x"}], "thoughts": "t"}, "s\n\nt", "Yes."),
        ({**text(None), "refusal": "No."}, "", "No."),
        (text("\ud83d"), "", "\ufffd"),
    ],
)
def test_thoughts_are_told_from_the_answer(message: Json, thoughts: str, answer: str) -> None:
    assert said(message) == (thoughts, answer)


@pytest.mark.parametrize(
    ("given", "name", "arguments"),
    [
        (call("read", {"path": "a"}), "read", {"path": "a"}),
        (call("read", json.dumps(json.dumps({"path": "a"}))), "read", {"path": "a"}),
        (call("undo", None), "undo", {}),
        (call("undo", ""), "undo", {}),
        (call("run", '{"command": "a\nb"}'), "run", {"command": "a\nb"}),
        (call("search", r'{"pattern": "\d+\\."}'), "search", {"pattern": "\\d+\\."}),
        (call("run", '{"command": "ls"'), "run", {"command": "ls"}),
        (call("test", '{"ids": "[\\"a.py\\"]"}'), "test", {"ids": ["a.py"]}),
        (call("test", '{"ids": "a.py", "then_all": "True"}'), "test", {"ids": ["a.py"], "then_all": True}),
        (call("test", '{"ids": "a.py", "then_all": "yes"}'), "test", {"ids": ["a.py"], "then_all": True}),
        (call("read", '{"path": "a", "start": "3", "end": 10.0}'), "read", {"path": "a", "start": 3, "end": 10}),
        (call("read", '{"path": "a", "start": "null"}'), "read", {"path": "a", "start": None}),
        (call("read<|channel|>commentary", '{"path": "a"}'), "read", {"path": "a"}),
        (call("functions.read", '{"path": "a"}'), "read", {"path": "a"}),
        (call("functions.read:0", '{"path": "a"}'), "read", {"path": "a"}),
        (call(" Read ", '{"file_path": "a"}'), "read", {"path": "a"}),
        (call("bash", '{"command": "ls"}'), "run", {"command": "ls"}),
        (call("shell", '{"command": ["bash", "-lc", "ls -l"]}'), "run", {"command": "ls -l"}),
        (call("execute_bash", '{"cmd": "ls", "is_input": "false", "security_risk": "LOW"}'), "run", {"command": "ls"}),
        (call("grep", '{"pattern": "x", "path": "a"}'), "search", {"pattern": "x", "path": "a"}),
        (call("cat", '{"filename": "a"}'), "read", {"path": "a"}),
        (call("view", '{"path": "a", "view_range": [3, 9]}'), "read", {"path": "a", "start": 3, "end": 9}),
        (call("view", '{"path": "a", "view_range": [3, -1]}'), "read", {"path": "a", "start": 3}),
        (
            call("str_replace_editor", '{"command": "view", "path": "a", "old_str": null, "new_str": ""}'),
            "read",
            {"path": "a"},
        ),
        (
            call("str_replace", '{"path": "a", "old_str": "x", "new_str": "y"}'),
            "edit",
            {"path": "a", "old": "x", "new": "y"},
        ),
        (
            call(
                "str_replace_based_edit_tool",
                '{"command": "str_replace", "path": "a", "old_str": "x", "new_str": "y", "view_range": null}',
            ),
            "edit",
            {"path": "a", "old": "x", "new": "y"},
        ),
        (
            call("str_replace_editor", '{"command": "create", "path": "a", "file_text": "x\\n"}'),
            "create",
            {"path": "a", "content": "x\n"},
        ),
        (
            call("str_replace_editor", '{"command": "insert", "path": "a", "insert_line": "2", "new_str": "x"}'),
            "insert",
            {"path": "a", "line": 2, "text": "x"},
        ),
        (call("str_replace_editor", '{"command": "undo_edit", "path": ""}'), "undo", {}),
        (call("finish", '{"message": "all done", "task_completed": "true"}'), "submit", {"summary": "all done"}),
        ({"id": "c", "name": "read", "arguments": {"path": "a"}}, "read", {"path": "a"}),
        (call("create", '{"path": "a", "content": "\\ud83d"}'), "create", {"path": "a", "content": "\ufffd"}),
    ],
)
def test_a_loose_call_is_taken_as_it_is_meant(given: Json, name: str, arguments: Json) -> None:
    assert taken(calling(given)) == (name, arguments)


def test_the_result_says_how_a_call_was_taken() -> None:
    def note(given: Json) -> str:
        return read(calling(given), 1).calls[0].note

    assert note(call("bash", '{"cmd": "ls"}')) == "(taken as run: command)"
    assert note(call("edit", '{"path": "a", "old_str": "x", "new": "y"}')) == "(taken as edit: path, old, new)"
    assert note(call("read", '{"path": "a", "start": "1"}')) == "(taken in the right type: start)"
    assert note(call("read", '{"path": "a", "start": 1}')) == ""


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (calling("x"), "tool_calls must be a list of calls"),
        (calling(None), "tool_calls must be a list of calls"),
        (calling([call("read", "{}")]), "tool_calls must be a list of calls"),
        (calling(call("read", '{"path": "a"}'), None), "tool_calls must be a list of calls"),
        ({"content": None, "tool_calls": "read"}, "tool_calls must be a list of calls"),
        ({"content": None, "tool_calls": {"name": "read"}}, "tool_calls must be a list of calls"),
        (calling({"id": "c"}), "tool_calls must be a list of calls"),
        (calling(call(None, "{}")), "tool_calls must be a list of calls"),
        (calling(call("read", "{not json")), "The arguments of read are not JSON"),
        (calling(call("read", "[" * 100_000)), "The arguments of read are not JSON"),
        (calling(call("read", [1])), "must be a JSON object"),
        (calling(call("read", '"\\"[]\\""')), "must be a JSON object"),
        (calling(call("reed", "{}")), "There is no tool 'reed'"),
        (calling(call("<|x|>", "{}")), "There is no tool ''"),
        (calling(call("read", "{}")), "read needs path"),
        (calling(call("read", '{"path": null}')), "read needs path"),
        (calling(call("read", '{"path": 3}')), "path must be of type string"),
        (calling(call("read", '{"path": ["a"]}')), "path must be of type string"),
        (calling(call("read", '{"path": "a", "start": "soon"}')), "start must be of type integer"),
        (calling(call("read", '{"path": "a", "start": 1e999}')), "start must be of type integer"),
        (calling(call("read", '{"path": "a", "colour": 1}')), "takes no 'colour'"),
        (calling(call("str_replace_editor", '{"command": "view"}')), "read needs path"),
    ],
)
def test_what_is_ambiguous_is_malformed_and_said(message: Json, why: str) -> None:
    assert why in problem(message)


BLOCK = '```tool\n{"name": "read", "arguments": {"path": "a.py"}}\n```'
MARKDOWN = "# A\n\n```python\nx = 1\n```\n\nand\n```tool\n{}\n```\n"


@pytest.mark.parametrize(
    ("content", "name", "arguments"),
    [
        (f"Reading.\n{BLOCK}", "read", {"path": "a.py"}),
        (f"<think>{BLOCK}</think>\n{BLOCK}", "read", {"path": "a.py"}),
        ('```tool\n{"name": "read", "path": "a.py"}\n```', "read", {"path": "a.py"}),
        ('```tool\n{"tool": "bash", "args": {"command": "ls"}}', "run", {"command": "ls"}),
        ('```tool_call\n{"name": "undo", "arguments": {}}\n```', "undo", {}),
        (
            "```tool\n" + json.dumps({"name": "create", "arguments": {"path": "a.md", "content": MARKDOWN}}) + "\n```",
            "create",
            {"path": "a.md", "content": MARKDOWN},
        ),
        (
            f'```tool\n{{"name": "create", "arguments": {{"path": "a.md", "content": "{MARKDOWN}"}}}}\n```',
            "create",
            {"path": "a.md", "content": MARKDOWN},
        ),
        ('```tool\n{"name": "search", "arguments": {"pattern": "\\d"}\n```', "search", {"pattern": "\\d"}),
        (
            f'```tool\n{{"name": "create", "arguments": {{"path": "a.md"}}}}\n```\n<content>\n{MARKDOWN}</content>\n',
            "create",
            {"path": "a.md", "content": MARKDOWN},
        ),
        (
            '```tool\n{"name": "create", "arguments": {"path": "a.py"}}\n```\n```content\nx = "\\n"\n```',
            "create",
            {"path": "a.py", "content": 'x = "\\n"\n'},
        ),
        (
            '```tool\n{"name": "edit", "arguments": {"path": "a.py"}}\n```\n<old>\n    x\n</old>\n<new>    y</new>\nDone.',
            "edit",
            {"path": "a.py", "old": "    x", "new": "    y"},
        ),
        (
            '```tool\n{"name": "edit", "arguments": {"path": "a.py"}}\n<old>\nx\ny\n</old>\n<new>\n</new>\n```',
            "edit",
            {"path": "a.py", "old": "x\ny", "new": ""},
        ),
        (
            '```tool\n{"name": "run", "arguments": {}}\n```\n<command>\ncat <<E\na\nE\n</command>',
            "run",
            {"command": "cat <<E\na\nE"},
        ),
        ('Look:\n```json\n{"name": "read", "arguments": {"path": "a"}}\n```', "read", {"path": "a"}),
        ('{"name": "read", "arguments": {"path": "a"}}', "read", {"path": "a"}),
        ('<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call>', "read", {"path": "a"}),
        (
            "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n<parameter=start>\n3\n</parameter>\n"
            "</function>\n</tool_call>",
            "read",
            {"path": "a", "start": 3},
        ),
        (
            '<|channel|>commentary to=functions.read <|constrain|>json<|message|>{"path": "a"}<|call|>',
            "read",
            {"path": "a"},
        ),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.read<|channel|>commentary json"
            '<|message|>{"path": "a"}<|call|>',
            "read",
            {"path": "a"},
        ),
    ],
)
def test_a_call_in_the_text_is_found(content: str, name: str, arguments: Json) -> None:
    assert taken(text(content)) == (name, arguments)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("```tool\n{x}\n```", "The tool block is not JSON"),
        ("```tool\nread a.py\n```", "The tool block is not JSON"),
        ("```tool\n[]\n```", "must hold one JSON object"),
        ('```tool\n{"name": "reed", "arguments": {}}\n```', "no tool 'reed'"),
        ('```tool\n{"name": "read", "arguments": "soon"}\n```', "not JSON"),
    ],
)
def test_a_block_that_cannot_be_read_says_why(content: str, why: str) -> None:
    assert why in problem(text(content))


def test_of_several_blocks_the_first_is_carried_out_and_the_rest_named() -> None:
    other = BLOCK.replace("read", "undo").replace('"path": "a.py"', "")
    (made,) = read(text(f"{BLOCK}\nand\n{other}\n{other}"), 1).calls
    assert made.name == "read"
    assert made.note == "(only the first of 3 calls in the message was carried out, not: undo, undo)"


def test_prose_and_other_code_are_no_call() -> None:
    for content in (
        "read a.py",
        '```json\n{"name": "troop", "version": 1}\n```',
        "```python\nx\n```",
        '{"a": 1}',
        "[1]",
    ):
        assert read(text(content), 1).calls == () and not problem(text(content))


def test_a_message_goes_back_as_it_came() -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "a"}],
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
        "tool_calls": [
            call("bash", '{ "command":"ls"}', extra_content={"google": {"thought_signature": "s"}}, index=0)
        ],
        "native": [{"type": "thinking"}],
    }
    back = sent_back(message, read(message, 1))
    assert json.dumps(back, sort_keys=True) == json.dumps(message, sort_keys=True)
    written = text("<think>hm</think>" + BLOCK)
    assert sent_back(written, read(written, 1)) == written


@pytest.mark.parametrize(
    ("given", "function"),
    [
        (call("read", {"path": "a"}), {"name": "read", "arguments": '{"path": "a"}'}),
        (call("read", '{"path": "a"'), {"name": "read", "arguments": '{"path": "a"}'}),
        (call("read", "{not json"), {"name": "read", "arguments": "{}"}),
        (call("read", '{"path": NaN}'), {"name": "read", "arguments": '{"path": NaN}'.replace("NaN", "null")}),
        (call("read<|channel|>json", '{"path": "a"}'), {"name": "read", "arguments": '{"path": "a"}'}),
        (call("über", "{}"), {"name": "unknown", "arguments": "{}"}),
        (call("read", '{"path": "\\ud83d"}'), {"name": "read", "arguments": '{"path": "\\ufffd"}'}),
        (call("bash", '{"command": "ls"}'), {"name": "bash", "arguments": '{"command": "ls"}'}),
    ],
)
def test_a_call_that_servers_do_not_take_back_is_mended(given: Json, function: Json) -> None:
    message = calling(given, native=["as it was"])
    back = sent_back(message, read(message, 1))
    assert back["tool_calls"][0]["function"] == function
    assert ("native" in back) == (function == given["function"]), "what the API's own form says no longer holds"
    assert back["tool_calls"][0]["id"] == "c0"


def test_ids_are_made_where_there_are_none_or_twice_the_same() -> None:
    calls = [call("undo", "{}"), call("undo", "{}"), call("undo", "{}", id=None), call("undo", "{}", id=7)]
    message = calling(*calls)
    reading = read(message, 12)
    assert [c.id for c in reading.calls] == ["c0", "t0012c001", "t0012c002", "t0012c003"]
    assert [c["id"] for c in sent_back(message, reading)["tool_calls"]] == [c.id for c in reading.calls]


def test_what_is_no_call_is_left_out_and_an_empty_message_says_so() -> None:
    for message in (
        calling("x", None),
        calling(),
        {"content": "", "tool_calls": None},
        {"content": [], "tool_calls": 1},
    ):
        assert sent_back({**message, "native": 1}, read(message, 1)) == {"role": "assistant", "content": "(no answer)"}
    kept = sent_back(message := calling(None, call("undo", "{}")), read(message, 1))
    assert [c["id"] for c in kept["tool_calls"]] == ["c0"]


def test_tokens_of_a_template_and_half_characters_do_not_go_back() -> None:
    message = text("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.")
    assert sent_back(message, read(message, 1))["content"] == "Yes."
    message = {**text("\ud83d"), "reasoning_content": "\udce9", "odd": [{"\udce9": 1}]}
    json.dumps(sent_back(message, read(message, 1)), ensure_ascii=False).encode()


def test_in_the_text_protocol_calls_go_back_as_text() -> None:
    message = calling(call("read", '{"path": "a"}'), reasoning_content="hm", native=1)
    back = as_text(message, read(message, 1))
    assert back.keys() == {"role", "content", "reasoning_content"}
    assert taken(back) == ("read", {"path": "a"}), "which is how the model should have written it"


def test_a_long_reply_made_to_be_slow_is_read_in_time() -> None:
    size = 200_000
    pieces: tuple[str, ...] = (
        "```tool\n",
        "<old>\n",
        "<tool_call>{",
        "<function=read>",
        "<|channel|>",
        "<think></think>",
        "```tool\n{}\n",
    )
    pieces = (*pieces, "<old></old>\n", '```tool\n{"a": "', "</think>", "```\n[", "<parameter=path>", "[" * 10)
    began = time.monotonic()
    for piece in pieces:
        for content in (piece * (size // len(piece)), BLOCK + "\n" + piece * (size // len(piece))):
            message = text(content)
            sent_back(message, read(message, 1))
    assert time.monotonic() - began < 10


def test_a_model_that_says_anything_at_all_does_not_crash_the_policy() -> None:
    odd: list[Any] = [None, 0, 1.5, True, "", "x", [], [None], {}, {"name": 1}, {"function": "read"}, [[1]]]
    names: list[Any] = ["read", None, []]
    odd += [{"function": {"name": name, "arguments": given}} for name in names for given in (*odd[:5], "1", "[]")]
    policy = ModelPolicy(tools=True)
    for content in odd:
        for calls in (*odd, *([each] for each in odd)):
            message = {"content": content, "tool_calls": calls, "reasoning_details": content}
            reading = read(message, 1)
            made = policy._decision(replied(message), reading)
            assert made.error, "none of these says what to do"
            json.dumps([sent_back(message, reading), as_text(message, reading)], ensure_ascii=False).encode()
