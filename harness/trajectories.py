"""Attempts in the forms of other tools.

atif     the Agent Trajectory Interchange Format, ATIF-v1.7: one JSON document for each attempt
traj     SWE-agent's `.traj`
mini     mini-swe-agent's `.traj.json` (mini-swe-agent-1.1; 1 is read as well)
openai   chat messages for training, with outcome and cost of each step: JSON lines; written only

What these have no place for (trees, test reports, witness tests) is left out, and where they are read what it cost.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import trace
from harness.records import Charge, Json, Usage
from tasks.entries import read_text
from tasks.errors import Explained

ENDINGS = {"atif": ".atif.json", "traj": ".traj", "mini": ".traj.json", "openai": ".jsonl"}
"""How the files of each form are called, after the attempt."""

_BASH = re.compile(r"```(?:mswea_bash_command|bash|sh)\s*\n(.*?)\n?```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One turn. `calls`: `{id, name, arguments}`, and `result` where there is one. `spent`: on the model's calls."""

    text: str
    calls: Sequence[Json] = ()
    thoughts: str = ""
    spent: Sequence[Charge] = ()


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt. `name`: run and attempt, or the file. `outcome`: the hidden tests' word, None where nobody asked.
    `version`: of Troop."""

    instance: str
    name: str
    model: str
    statement: str
    steps: list[Step] = field(default_factory=list)
    patch: str = ""
    status: str = "given"
    outcome: str | None = None
    version: str = ""


def of_run(events: Sequence[trace.Event]) -> list[tuple[int, Trajectory]]:
    """The attempts of a run that have ended, by index."""
    started = events[0]
    assert isinstance(started, trace.RunStarted), "trace.read checks it"
    of_attempt = {n: e.candidate for e in events if isinstance(e, trace.Verified) for n in e.attempts}
    outcomes = {e.candidate: "resolved" if e.resolved else "unresolved" for e in events if isinstance(e, trace.Graded)}
    id, about, version = str(started.task["id"]), started.task.get("statement", ""), started.versions.get("troop", "?")
    found, spent = dict[int, Trajectory](), list[Charge]()
    for event in sorted((e for e in events if e.attempt is not None), key=lambda e: e.attempt or 0):
        index = event.attempt or 0
        if isinstance(event, trace.AttemptStarted):
            name, spent = event.name or f"{started.run}/{index}", []
            found[index] = Trajectory(id, name, event.model, about, [], status="", version=version)
        elif isinstance(event, (trace.Replied, trace.Charged)):
            spent.append(event.charge)
        elif isinstance(event, (trace.Planned, trace.Decided)):
            calls = [_call(**each) for each in getattr(event, "calls", ())]
            found[index].steps.append(Step(event.text, calls, getattr(event, "thoughts", ""), spent))
            spent = []
        elif isinstance(event, trace.ToolRan) and found[index].steps:
            asked = (call for call in found[index].steps[-1].calls if call["id"] == event.call)
            next(asked, {})["result"] = event.result
        elif isinstance(event, trace.AttemptEnded):
            outcome = outcomes.get(of_attempt.get(index, ""))
            found[index] = replace(found[index], patch=event.patch, status=event.status, outcome=outcome)
    return [(index, each) for index, each in found.items() if each.status]


def events_of(trajectory: Trajectory) -> list[trace.Event]:
    """The trajectory as what an attempt writes between its beginning and its end, that included."""
    events: list[trace.Event] = []
    for turn, step in enumerate(trajectory.steps, 1):
        calls = tuple({key: call[key] for key in ("id", "name", "arguments")} for call in step.calls)
        events.append(trace.Decided(turn=turn, text=step.text, calls=calls, thoughts=step.thoughts))
        for call in (call for call in step.calls if "result" in call):
            told = {"call": call["id"], "name": call["name"], "result": call["result"]}
            events.append(trace.ToolRan(turn=turn, **told))
        events.append(trace.TurnEnded(turn=turn, seconds=0.0))
    turns = len(trajectory.steps)
    return [*events, trace.AttemptEnded(status="given", patch=trajectory.patch, turns=turns)]


def written(trajectory: Trajectory, form: str) -> str:
    """The text of the file in this form."""
    forms = {"atif": _atif, "traj": _traj, "mini": _mini, "openai": _openai}
    return json.dumps(forms[form](trajectory), indent=None if form == "openai" else 1) + "\n"


def read(path: Path) -> Trajectory:
    """The trajectory of a file in one of the forms that are read. Raises InputError for any other."""
    text = read_text(path, "the trajectory", errors="surrogateescape")
    what = f"{path} is no trajectory of SWE-agent, mini-swe-agent or ATIF"
    with Explained(what, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        data = json.loads(text)
        way = _read_traj if "trajectory" in data else _read_mini if "messages" in data else _read_atif
        ending = next((e for e in (*ENDINGS.values(), ".json") if path.name.endswith(e)), "")
        found = way(data, path.name.removesuffix(ending))
        instance = re.sub(r"[^\w.-]+|^\W+", "-", _text(found.instance))[:200] or "imported"  # a directory's name
        return replace(found, name=str(path), instance=instance, model=_text(found.model), patch=_text(found.patch))


def _atif(it: Trajectory) -> Json:
    steps: list[Json] = [{"step_id": 1, "source": "user", "message": it.statement}]
    for number, step in enumerate(it.steps, 2):
        made: Json = {"step_id": number, "source": "agent", "message": step.text, "llm_call_count": len(step.spent)}
        if step.calls:
            told = [(call["id"], call["name"], call["arguments"]) for call in step.calls]
            asked = [{"tool_call_id": id, "function_name": name, "arguments": given} for id, name, given in told]
            results = [{"source_call_id": call["id"], "content": call.get("result")} for call in step.calls]
            made |= {"tool_calls": asked, "observation": {"results": results}}
        if step.spent:
            made |= {"metrics": _metrics([step]), "reasoning_content": step.thoughts or None}
        steps.append(made)
    total = {f"total_{name}": value for name, value in _metrics(it.steps).items()}
    return {
        "schema_version": "ATIF-v1.7",
        "session_id": it.name,
        "agent": {"name": "troop", "version": it.version, "model_name": it.model},
        "steps": steps,
        "final_metrics": {**total, "total_steps": len(steps)},
        "extra": {"instance_id": it.instance, "status": it.status, "outcome": it.outcome, "patch": it.patch},
    }


def _traj(it: Trajectory) -> Json:
    items = []
    for step in it.steps:
        for number, call in enumerate(step.calls or [{}]):
            text, action = step.text * (not number), _command(call) if call else ""
            made = {"action": action, "observation": call.get("result", ""), "response": text, "thought": text}
            items.append({**made, "state": {}, "execution_time": 0.0, "query": [], "extra_info": {}})
    return {"trajectory": items, "history": _chat(it), "info": _info(it), "environment": it.instance}


def _mini(it: Trajectory) -> Json:
    messages = _chat(it)
    for message, step in zip((each for each in messages if each["role"] == "assistant"), it.steps, strict=True):
        actions = [{"command": _command(call), "tool_call_id": call["id"]} for call in step.calls]
        message["extra"] = {"actions": actions, "cost": _metrics([step])["cost_usd"]}
    messages.append({"role": "exit", "content": it.patch, "extra": _info(it)})
    about = {"instance_id": it.instance, "trajectory_format": "mini-swe-agent-1.1"}
    return {"info": {**_info(it), "config": {"model": {"model_name": it.model}}}, "messages": messages, **about}


def _openai(it: Trajectory) -> Json:
    about = {"instance_id": it.instance, "attempt": it.name, "model": it.model, "status": it.status, "patch": it.patch}
    costs = {"cost": _metrics(it.steps), "steps": [_metrics([step]) for step in it.steps]}
    return {"messages": _chat(it), **about, "outcome": it.outcome, **costs}


def _chat(it: Trajectory) -> list[Json]:
    """The attempt as chat messages: the issue, then what was said, called and answered."""
    messages: list[Json] = [{"role": "user", "content": it.statement}]
    for step in it.steps:
        told = [(c["id"], {"name": c["name"], "arguments": json.dumps(c["arguments"])}) for c in step.calls]
        calls = [{"id": id, "type": "function", "function": function} for id, function in told]
        messages.append({"role": "assistant", "content": step.text, **({"tool_calls": calls} if calls else {})})
        answered = (call for call in step.calls if "result" in call)
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": call["result"]} for call in answered]
    return messages


def _metrics(steps: Sequence[Step]) -> Json:
    """Tokens and USD of steps; None where a price is unknown."""
    charges = [charge for step in steps for charge in step.spent]
    usage, prices = sum((charge.usage for charge in charges), Usage()), [charge.usd for charge in charges]
    return {
        "prompt_tokens": usage.input + usage.cache_read + usage.cache_write,
        "completion_tokens": usage.output + usage.reasoning,
        "cached_tokens": usage.cache_read,
        "cost_usd": None if None in prices else sum(price or 0.0 for price in prices),
    }


def _info(it: Trajectory) -> Json:
    """How it ended, with which patch, and what it cost, as both of the SWE-agents say it."""
    told, calls = _metrics(it.steps), sum(len(step.spent) for step in it.steps)
    tokens = {"tokens_sent": told["prompt_tokens"], "tokens_received": told["completion_tokens"]}
    stats = {"instance_cost": told["cost_usd"] or 0.0, "api_calls": calls, **tokens}
    return {"exit_status": it.status, "submission": it.patch, "model_stats": stats}


def _command(call: Json) -> str:
    """A call as a line to type."""
    typed = call["arguments"].get("command") if call["name"] in ("bash", "run") else None
    return str(typed) if typed else f"{call['name']} {json.dumps(call['arguments'])}"


def _read_atif(data: Json, instance: str) -> Trajectory:
    if not str(data["schema_version"]).startswith("ATIF"):
        raise ValueError(f"its schema_version is {data['schema_version']}")
    extra, steps = data.get("extra") or {}, []
    for each in (each for each in data["steps"] if each["source"] == "agent"):
        told = (each.get("observation") or {}).get("results", ())
        seen = {result.get("source_call_id"): _text(result.get("content")) for result in told}
        asked = [(c["tool_call_id"], c["function_name"], c["arguments"]) for c in each.get("tool_calls") or ()]
        calls = [_call(*call, seen.get(call[0], "")) for call in asked]
        steps.append(Step(_text(each["message"]), calls, _text(each.get("reasoning_content"))))
    first = next((_text(each["message"]) for each in data["steps"] if each["source"] == "user"), "")
    model = data["agent"].get("model_name") or data["agent"]["name"]
    return Trajectory(extra.get("instance_id") or instance, "", model, first, steps, extra.get("patch") or "")


def _read_traj(data: Json, instance: str) -> Trajectory:
    steps, info = [], data["info"]
    for number, item in enumerate(data["trajectory"]):
        call = _call(str(number), "bash", {"command": _text(item["action"])}, _text(item["observation"]))
        steps.append(Step(_text(item.get("thought") or item["response"]), [call] if item["action"] else []))
    asked = (_text(each["content"]) for each in data.get("history", ()) if each["role"] == "user")
    return Trajectory(instance, "", "swe-agent", next(asked, ""), steps, info.get("submission") or "")


def _read_mini(data: Json, instance: str) -> Trajectory:
    steps, info, waiting = list[Step](), data.get("info") or {}, list[Json]()
    for each in data["messages"]:
        text, extra = _text(each.get("content")), each.get("extra") or {}
        if each["role"] == "assistant":
            named = [(c["id"], c["function"]) for c in each.get("tool_calls") or ()]
            typed = [a["command"] for a in extra.get("actions") or ()] or _BASH.findall(text)
            calls = [_call(id, f["name"], json.loads(f["arguments"])) for id, f in named]
            calls = calls or [_call(f"{len(steps)}-{n}", "bash", {"command": c}) for n, c in enumerate(typed)]
            waiting = list(calls)
            steps.append(Step(text, calls))
        elif each["role"] in ("user", "tool") and waiting:
            waiting.pop(0)["result"] = text
    first = next((_text(each["content"]) for each in data["messages"] if each["role"] == "user"), "")
    model = ((info.get("config") or {}).get("model") or {}).get("model_name") or "mini-swe-agent"
    return Trajectory(data.get("instance_id") or instance, "", model, first, steps, info.get("submission") or "")


def _call(id: str, name: str, arguments: Any, result: str | None = None) -> Json:
    known = arguments if isinstance(arguments, dict) else {"raw": arguments}
    return {"id": str(id), "name": str(name), "arguments": known, **({} if result is None else {"result": result})}


def _text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    parts = [part.get("text") for part in content] if isinstance(content, list) else [content]
    return "\n".join(str(part or "") for part in parts)
