"""Attempts in the forms of other tools: written as these read them, read as these write them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import atif
import pytest

from agent import cli
from agent.attempt.notebook import notebooks
from harness import trace
from harness.choosing.pool import read_candidates
from harness.records import Charge, Evidence, Usage
from harness.trajectories import ENDINGS, Trajectory, of_run, read, written
from tasks.errors import InputError

PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"
CALLS = (
    {"id": "1", "name": "run", "arguments": {"command": "ls"}},
    {"id": "2", "name": "read", "arguments": {"path": "x.py"}},
)


def events(usd: float | None = 0.25) -> list[trace.Event]:
    charge = Charge(0, "act", "m", Usage(100, 20, 0, 30, 5), usd, "alias", 1.0)
    return [
        trace.RunStarted(run="r", task={"id": "a__b-1", "statement": "It fails"}, settings={}, versions={"troop": "9"}),
        trace.AttemptStarted(attempt=0, seed=0, model="m"),
        trace.AttemptStarted(attempt=1, seed=0, model="m"),
        trace.Charged(attempt=0, key="0/1", charge=charge),
        trace.Replied(attempt=0, key="0/1", message={}, charge=charge),
        trace.Decided(attempt=0, turn=1, text="I look", calls=CALLS, thoughts="hm"),
        trace.ToolRan(attempt=0, turn=1, call="1", name="run", result="x.py"),
        trace.ToolRan(attempt=0, turn=1, call="2", name="read", result="a"),
        trace.TurnEnded(attempt=0, turn=1, seconds=1.0),
        trace.Replied(attempt=0, key="0/2", message={}, charge=charge),
        trace.Decided(attempt=0, turn=2, text="done"),
        trace.AttemptEnded(attempt=0, status="submitted", patch=PATCH),
        trace.Verified(candidate="c1", attempts=(0,), key="k", evidence=Evidence(True, True)),
        trace.Graded(candidate="c1", resolved=True),
    ]


def only(usd: float | None = 0.25) -> Trajectory:
    ((index, found),) = of_run(events(usd))
    assert index == 0, "the other attempt has not ended"
    return found


def test_atif_is_what_its_published_models_take() -> None:
    for usd in (0.25, None):
        made = atif.Trajectory.model_validate_json(written(only(usd), "atif"))
        assert made.agent.version == "9"
        assert [step.source for step in made.steps] == ["user", "agent", "agent"]
        assert made.final_metrics is not None and made.final_metrics.total_prompt_tokens == 360
        assert made.final_metrics.total_cost_usd == (None if usd is None else 0.75)
    assert made.steps[1].tool_calls is not None and made.steps[1].tool_calls[1].arguments == {"path": "x.py"}
    bare = of_run([e for e in events() if not isinstance(e, (trace.Charged, trace.Replied))])[0][1]
    atif.Trajectory.model_validate_json(written(bare, "atif"))


def test_a_chat_for_training_has_outcome_and_the_cost_of_each_step() -> None:
    line = json.loads(written(only(), "openai"))
    assert [message["role"] for message in line["messages"]] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [step["cost_usd"] for step in line["steps"]] == [0.5, 0.25]
    assert (line["outcome"], line["patch"], line["status"]) == ("resolved", PATCH, "submitted")
    assert "\n" not in written(only(), "openai")[:-1]
    ungraded = of_run([e for e in events() if not isinstance(e, trace.Graded)])[0][1]
    assert json.loads(written(ungraded, "openai"))["outcome"] is None


@pytest.mark.parametrize("form", ["atif", "traj", "mini"])
def test_what_is_written_is_read_again_and_becomes_an_attempt(form: str, tmp_path: Path) -> None:
    file = tmp_path / f"a__b-1{ENDINGS[form]}"
    file.write_text(written(only(), form))
    found = read(file)
    assert (found.instance, found.statement, found.patch) == ("a__b-1", "It fails", PATCH)
    commands = [call["arguments"].get("command") for step in found.steps for call in step.calls]
    assert commands[0] == "ls"
    assert [call["result"] for step in found.steps for call in step.calls] == ["x.py", "a"]
    (sample,) = read_candidates([file])
    assert (sample.instance, sample.source, sample.patch) == ("a__b-1", str(file), PATCH)
    began = trace.AttemptStarted(attempt=0, seed=0, model="m")
    (notebook,) = notebooks([began, *(replace(event, attempt=0) for event in sample.story)])
    assert notebook.attempt().patch == PATCH and notebook.history[0].results[0].result == "x.py"


def test_mini_of_its_first_form_and_swe_agents_own_files_are_read(tmp_path: Path) -> None:
    old = {
        "info": {"exit_status": "Submitted", "submission": PATCH, "config": {"model": {"model_name": "gpt"}}},
        "messages": [
            {"role": "system", "content": "You are"},
            {"role": "user", "content": [{"type": "text", "text": "It fails"}]},
            {"role": "assistant", "content": "I look\n```bash\nls -a\n```", "extra": {"cost": 0.1}},
            {"role": "user", "content": "<output>x.py</output>"},
        ],
        "trajectory_format": "mini-swe-agent-1",
    }
    (tmp_path / "a__b-2.traj.json").write_text(json.dumps(old))
    found = read(tmp_path / "a__b-2.traj.json")
    assert (found.instance, found.model, found.statement) == ("a__b-2", "gpt", "It fails")
    (call,) = found.steps[0].calls
    assert (call["arguments"], call["result"]) == ({"command": "ls -a"}, "<output>x.py</output>")
    item = {
        "action": "open x.py\n",
        "observation": "a",
        "response": "Let me look",
        "thought": "Let me look",
        "state": {},
    }
    own = {"trajectory": [item], "history": [], "info": {"submission": None, "exit_status": "exit_cost"}}
    (tmp_path / "a__b-3.traj").write_text(json.dumps(own))
    found = read(tmp_path / "a__b-3.traj")
    assert (found.patch, found.steps[0].text, found.steps[0].calls[0]["result"]) == ("", "Let me look", "a")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"messages": [{}]}', '{"trajectory": {}, "info": 5}', '{"steps": []}']
)
def test_what_is_no_trajectory_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.traj").write_text(text)
    with pytest.raises(InputError, match="is no trajectory of"):
        read(tmp_path / "t.traj")


def test_the_name_of_an_instance_leads_nowhere_else(tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "/tmp/x", "..", "a/b"):
        (tmp_path / "t.traj.json").write_text(json.dumps({"messages": [], "instance_id": name}))
        instance = read(tmp_path / "t.traj.json").instance
        assert (tmp_path / f"{instance}-1").parent == tmp_path and not instance.startswith(".")


def test_an_imported_run_is_replayed_reported_and_exported_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.traj.json").write_text(written(replace(only(), name=str(number)), "mini"))
    files = [str(tmp_path / f"{number}.traj.json") for number in (1, 2)]
    assert cli.main(["import", *files, "--out", str(tmp_path / "runs")]) == 0
    run = Path(capsys.readouterr().out.strip().replace("\n", ""))
    assert cli.main(["replay", str(run), "--attempt", "1"]) == 0
    said = capsys.readouterr().out
    assert "I look" in said and "ls" in said
    assert cli.main(["report", str(run), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["attempts"]] == files and report["cost"]["calls"] == 0
    assert cli.main(["export", str(run), "--format", "openai", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["files"]
    assert [json.loads(line)["patch"] for line in Path(made).read_text().splitlines()] == [PATCH, PATCH]
    assert len(read_candidates([run])) == 2
    assert cli.main(["export", str(run), "--format", "events", "--json"]) == 0
    (whole,) = json.loads(capsys.readouterr().out)["files"]
    events = [trace.from_json(json.loads(line)) for line in Path(whole).read_text().splitlines()]
    assert events == list(trace.read(run / "trace.jsonl"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "--format", "openai"]) == 0, "of the latest run"
    assert Path(capsys.readouterr().out.replace("\n", "")) == Path(made)
