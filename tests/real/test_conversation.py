"""A whole solve against servers that refuse what strict ones refuse, with models that write as loosely as some do."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from agent import resume, solve
from agent.assemble import Solution
from harness import trace
from tests.support.calculator import PLAN, RIGHT, SUBMIT, WITNESS, call, settings, task
from tests.support.model_server import Answer, Json, Request, context_too_long, error, serving
from tests.support.runs import events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


def broken_rule(body: Json) -> str:
    """Which rule of a strict template the request breaks; empty: none."""
    messages: list[Json] = body["messages"]
    roles = [m["role"] for m in messages]
    if any({a, b} in ({"user"}, {"assistant"}) or (a, b) == ("tool", "user") for a, b in pairwise(roles)):
        return f"roles must alternate, and no user message follows a tool result: {roles}"
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if not waiting or message["tool_call_id"] != waiting.pop(0):
                return "a result without its call"
            continue
        if waiting:
            return "a call without its result"
        for made in message.get("tool_calls", []):
            waiting.append(made["id"])
            if not isinstance(json.loads(made["function"]["arguments"]), dict):
                return "arguments must be an object"
        if message["role"] == "assistant" and not (message.get("content") or waiting):
            return "an empty message"
        if message["role"] == "assistant" and waiting and not message.get("reasoning_content"):
            return "reasoning_content must be sent back"
    return "" if all(t["function"]["parameters"]["properties"] for t in body.get("tools", [])) else "empty properties"


def strict(
    script: list[Answer], *, refuse: Callable[[Request], Answer | None] = lambda _: None
) -> Callable[..., Answer]:
    """The script, whose answers all come with thoughts, behind a server that takes nothing which breaks a rule."""

    def answer(request: Request) -> Answer:
        if rule := broken_rule(request.body):
            return error(400, rule)
        if refused := refuse(request):
            return refused
        told = script[min(request.turn, len(script) - 1)]
        return Answer(
            told.text,
            told.tool_calls,
            message={"reasoning_content": f"thought {request.turn}", **told.message},
            finish_reason=told.finish_reason,
        )

    return answer


def status(done: Solution) -> str:
    (row,) = done.report["attempts"]
    assert row["status"] in ("submitted", "context-limit"), row
    return str(row["status"])


def decided(done: Solution) -> list[trace.Decided]:
    return [e for e in events(done.directory) if isinstance(e, trace.Decided)]


def test_a_model_that_calls_as_other_agents_do_solves_on_a_strict_server(repository: Path, tmp_path: Path) -> None:
    raw: list[Json] = [
        {"id": None, "function": {"name": "bash", "arguments": {"command": "cat calc.py"}}},
        {"id": "same", "type": "function", "function": {"name": "view", "arguments": '{"path": "calc.py"}'}},
        {
            "id": "same",
            "type": "function",
            "function": {"name": "read<|channel|>json", "arguments": '{"path": "calc.py"'},
        },
    ]
    script = [
        PLAN,
        Answer(message={"tool_calls": raw}),
        Answer(message={"tool_calls": ["x", None]}),
        Answer(text="I think that it is the loop."),
        Answer(
            text="And th", tool_calls=[{"name": "run", "arguments": {"command": "rm calc.py"}}], finish_reason="length"
        ),
        Answer(tool_calls=[{"name": "edit", "arguments": "{not json"}, {"name": "undo", "arguments": {}}]),
        call("str_replace", path="calc.py", old_str="values[1:]", new_str="values"),
        call("finish", message="The first value counts."),
    ]
    with serving(strict(script)) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", malformed_limit=5))
        asked = [r.body for r in server.requests]
    assert status(done) == "submitted" and done.patch is not None and "for value in values:" in done.patch
    turns = decided(done)
    assert [t.thoughts for t in turns] == [f"thought {n}" for n in range(1, 9)]
    assert [c["name"] for t in turns for c in t.calls] == ["run", "read", "read", "edit", "submit", "submit"]
    assert turns[-1].text == "The first value counts."
    last = json.dumps(asked[-1]["messages"])
    assert "(taken as run: command)" in last and "(taken as edit: path, old, new)" in last and "was cut" in last
    assert all(one["messages"] == two["messages"][: len(one["messages"])] for one, two in pairwise(asked[1:]))


def test_a_server_without_tools_is_spoken_to_in_text(repository: Path, tmp_path: Path) -> None:
    notes = "# Notes\n\n```python\ntotal([1])\n```\n"
    script = [
        PLAN,
        Answer(
            text=f'```tool\n{{"name": "create", "arguments": {{"path": "a.md", "content": {json.dumps(notes)}}}}}\n```'
        ),
        Answer(
            text=f'```tool\n{{"name": "create", "arguments": {{"path": "b.md"}}}}\n```\n<content>\n{notes}</content>'
        ),
        Answer(
            text='```tool\n{"name": "edit", "arguments": {"path": "calc.py"}}\n```\n'
            "<old>\nvalues[1:]\n</old>\n<new>\nvalues\n</new>"
        ),
        Answer(text='<think>Done?</think>{"name": "submit", "arguments": {}}'),
    ]

    def refuse(request: Request) -> Answer | None:
        return error(400, "scripted does not support tools") if request.body.get("tools") else None

    with serving(strict(script, refuse=refuse)) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
        assert sum(bool(r.body.get("tools")) for r in server.requests) == 1
    assert status(done) == "submitted" and done.patch is not None and "for value in values:" in done.patch
    assert done.patch.count("+```python\n+total([1])\n+```\n") == 2


def test_a_model_with_a_small_context_goes_on_as_far_as_it_fits(repository: Path, tmp_path: Path) -> None:
    look = [call("run", command=f"seq {n} 2000") for n in range(12)]
    script = [PLAN, *look, call("witness", path="tests/test_w.py", content=WITNESS), RIGHT, SUBMIT]
    seen: list[str] = []

    def answer(request: Request) -> Answer:
        # How many turns there were cannot be counted where some are left out; what was asked last can.
        if request.body.get("tools") and len(request.raw) > 16_000:
            return context_too_long()
        said = json.dumps(request.body["messages"])
        if rule := broken_rule(request.body):
            return error(400, rule)
        step = max((n for n in range(12) if f"seq {n} 2000" in said), default=-1) + 2 if "seq" in said else request.turn
        if "test_w" in said:
            step = 15 if "values[1:]" in said else 14
        seen.append(said)
        told = script[step]
        return Answer(told.text, told.tool_calls, message={"reasoning_content": "hm"})

    with serving(answer) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", turns=20))
    assert status(done) == "submitted" and done.patch is not None and "for value in values:" in done.patch
    assert "turns are left out here" in seen[-1]


def test_a_call_that_the_server_cannot_read_is_the_models_slip(repository: Path, tmp_path: Path) -> None:
    def refuse(request: Request) -> Answer | None:
        said = json.dumps(request.body["messages"])
        if request.turn == 1:
            return error(500, "Failed to parse tool call arguments as JSON: invalid string")
        return None if request.turn == 0 or "could not read the tool call" in said else error(400, "not told")

    with serving(strict([PLAN, PLAN, RIGHT, SUBMIT], refuse=refuse)) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
    assert status(done) == "submitted" and done.patch is not None
    assert [bool(t.error) for t in decided(done)] == [True, False, False, False]


def test_what_does_not_fit_at_all_ends_the_attempt_with_the_servers_words(repository: Path, tmp_path: Path) -> None:
    with serving(strict([PLAN, RIGHT], refuse=lambda r: context_too_long() if r.turn > 1 else None)) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs"))
        assert len(server.requests) < 12
    assert status(done) == "context-limit" and done.patch is not None, "the patch made so far counts"
    (ended,) = [e for e in events(done.directory) if isinstance(e, trace.AttemptEnded)]
    assert "maximum context length is 8192" in ended.detail


def test_a_resumed_attempt_sends_the_same_bytes(repository: Path, tmp_path: Path) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "c2lnbmVk"}}, "index": 0}
    reading = Answer(
        tool_calls=[{"name": "read", "arguments": {"path": "calc.py"}}],
        message={"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "index": 0}]},
    )

    def answer(request: Request) -> Answer:
        told = strict([PLAN, reading, reading, RIGHT, SUBMIT])(request)
        calls = [
            {
                "id": f"c{request.turn}{n}",
                "type": "function",
                **signed,
                "function": {"name": c["name"], "arguments": json.dumps(c["arguments"])},
            }
            for n, c in enumerate(told.tool_calls)
        ]
        return Answer(told.text, message={**told.message, **({"tool_calls": calls} if calls else {})})

    with serving(answer) as server:
        done = solve(task(repository), settings(server.url, tmp_path / "runs", attempts=1))
        before = {request.turn: request.raw for request in server.requests}
        lines = (done.directory / "trace.jsonl").read_bytes().splitlines(keepends=True)
        second = [n for n, line in enumerate(lines) if b'"kind":"turn-ended"' in line][1]
        (done.directory / "trace.jsonl").write_bytes(b"".join(lines[: second + 1]))
        first = len(server.requests)
        again = resume(str(done.directory))
        assert again.exit_code == 0
        sent = server.requests[first:]
    assert [request.turn for request in sent] == [3, 4, 5], "what was answered is not asked again"
    assert all(request.raw == before[request.turn] for request in sent)
    assert b"c2lnbmVk" in sent[-1].raw and b"reasoning.encrypted" in sent[-1].raw


def test_the_rest_of_the_suite_has_the_given_test_in_it_and_what_was_not_run_has_not_failed(
    repository: Path, tmp_path: Path
) -> None:
    first = call("test", ids=["tests/test_calc.py::test_total_of_nothing"], then_all=True)
    wrong = call("edit", path="calc.py", old="return max(values)", new="return None")
    undone = [call("edit", path="calc.py", old="return None", new="return max(values)"), RIGHT, first, SUBMIT]
    with serving([PLAN, first, wrong, first, *undone]) as server:
        done = solve(task(repository, failing_test=True), settings(server.url, tmp_path / "runs"))
    told = [e.result for e in events(done.directory) if isinstance(e, trace.ToolRan) and e.name == "test"]
    given = "tests/test_issue.py::test_first_counts"
    assert "1 passed, 1 failed" in told[0] and f"--- {given}" in told[0]
    assert "stopped at the first failure; 1 further tests were not run" in told[0]
    assert "1 passed, 1 failed" in told[1] and "did not run" not in told[1]
    assert "3 passed, 0 failed" in told[2] and "(1 of those that pass failed before your changes)" in told[2]
