"""Graded samples from elsewhere, and `troop report` over them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from harness.scaling.imported import imported, of_evaluation
from tasks.errors import InputError

DIFF = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-x = {}\n+x = {}\n"


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_are_samples_in_the_order_in_which_they_come(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"instance_id": "a", "model": "m", "resolved": True, "usd": 0.5, "score": 2},
        {"instance_id": "a", "model": "m", "resolved": False, "usd": 1, "score": None},
        {"instance_id": "b", "model": "m", "resolved": None},
    ]
    found = imported([lines(tmp_path / name, rows)], [])
    (model,) = found.models
    assert found.ungraded == 1
    assert [(s.right, s.usd, s.score) for s in model.tasks["a"]] == [(True, 0.5, 2.0), (False, 1.0, None)]
    assert model.ranked and "b" not in model.tasks


def test_a_list_and_an_object_by_id_are_rows_too(tmp_path: Path) -> None:
    listed, by_id = tmp_path / "list.json", tmp_path / "object.json"
    listed.write_text(json.dumps([{"instance_id": "a", "resolved": True}], indent=1))
    by_id.write_text(json.dumps({"a": {"resolved": True}}, indent=1))
    for path in (listed, by_id):
        (model,) = imported([path], []).models
        assert [s.right for s in model.tasks["a"]] == [True]


def test_a_broken_line_of_a_packed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"instance_id": "a"\n'))
    with pytest.raises(InputError, match=r"rows\.jsonl\.gz, line 1: this is not JSON"):
        imported([path], [])


def test_sources_that_end_in_a_run_are_repeats_of_one_model(tmp_path: Path) -> None:
    rows = [
        {"instance_id": "a", "source": f"agent/x{run}", "outcome": outcome, "model_patch": DIFF.format(1, to)}
        for run, outcome, to in [("-run-1", "resolved", 2), ("-run-2", "unresolved", 3), ("/run-3", "apply-failed", 2)]
    ]
    (model,) = imported([lines(tmp_path / "p.jsonl", rows)], [], label="outcome").models
    assert model.name == "agent/x"
    assert [s.right for s in model.tasks["a"]] == [True, False, False]
    first, second, third = (s.candidate for s in model.tasks["a"])
    assert first == third != second, "equal patches are one candidate"


def test_predictions_go_with_the_official_reports_on_them(tmp_path: Path) -> None:
    pairs = []
    for run, resolved in enumerate((["a"], ["a", "b"])):
        rows = [
            {"instance_id": i, "model_name_or_path": f"m-run-{run}", "model_patch": DIFF.format(1, run)} for i in "abc"
        ]
        report = tmp_path / f"report{run}.json"
        report.write_text(json.dumps({"resolved_ids": resolved, "unresolved_ids": ["c"]}))
        pairs.append((lines(tmp_path / f"preds{run}.jsonl", rows), report))
    (model,) = imported([p for p, _ in pairs], [r for _, r in pairs]).models
    assert {i: [s.right for s in drawn] for i, drawn in model.tasks.items()} == {
        "a": [True, True],
        "b": [False, True],
        "c": [False, False],
    }
    assert not model.priced and not model.ranked


BROKEN = [
    ('{"model": "m", "resolved": true}\n', "rows.jsonl, line 1: the field instance_id is missing"),
    ('{"instance_id": "a"}\n', "line 1: the field resolved is missing"),
    (
        '{"instance_id": "a", "resolved": "yes"}\n',
        "line 1: the field resolved is 'yes'; it must be true, false or null",
    ),
    ('{"instance_id": "a", "resolved": true, "usd": "1"}\n', "line 1: the field usd is '1'"),
    ('{"instance_id": "a", "resolved": true}\n[1]\n', "line 2: a row must be an object"),
    ("not json\n", "line 1: this is not JSON"),
    ("", "has no rows"),
]


@pytest.mark.parametrize(("text", "why"), BROKEN)
def test_a_file_that_is_not_what_it_must_be_says_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        imported([path], [])


def attempt(index: int, candidate: str | None, *, status: str = "submitted", usd: float | None = 0.2) -> dict[str, Any]:
    return {"index": index, "model": "m", "status": status, "usd": usd, "candidate": candidate, "seconds": 1.0}


def evaluation(tasks: int = 3) -> dict[str, Any]:
    report = {
        "attempts": [attempt(0, "c1"), attempt(1, "c2"), attempt(2, None), attempt(3, None, status="infrastructure")],
        "candidates": [{"id": "c1"}, {"id": "c2"}],
        "ranking": [
            {"candidate": "c2", "acceptable": True, "why": ""},
            {"candidate": "c1", "acceptable": False, "why": ""},
        ],
    }
    verdicts = {"c1": {"resolved": False, "reason": ""}, "c2": {"resolved": True, "reason": ""}}
    rows = [{"id": f"t{n}", "verdicts": verdicts, "report": report} for n in range(tasks)]
    ungraded = {"id": "ungraded", "verdicts": {}, "report": report}
    return {"schema": 1, "tasks": [*rows, ungraded, {"id": "failed", "verdicts": {}, "report": None}]}


def test_an_evaluation_gives_its_graded_attempts_and_counts_the_others() -> None:
    found = of_evaluation(evaluation())
    (model,) = found.models
    assert sorted(model.tasks) == ["t0", "t1", "t2"]
    assert found.ungraded == 3
    samples = model.tasks["t0"]
    assert [(s.right, s.candidate) for s in samples] == [(False, "c1"), (True, "c2"), (False, "")]
    assert [s.score is None for s in samples] == [True, False, True], "only what is acceptable may be selected"


def test_of_an_adaptive_evaluation_the_first_samples_that_all_tasks_have_are_taken() -> None:
    found = of_evaluation({**evaluation(), "adaptive": {"stopped": {"decisive": 1}, "common_samples": 2}})
    (model,) = found.models
    assert {len(samples) for samples in model.tasks.values()} == {2}


# The command


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["report", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_reports_on_evaluations_and_imports_are_one_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "an-eval"
    directory.mkdir()
    (directory / "report.json").write_text(json.dumps(evaluation()))
    rows = [{"instance_id": f"t{n}", "model": "m", "resolved": n == 1, "usd": 2.0} for n in range(3)]
    other = lines(tmp_path / "rows.jsonl", rows)
    study = told(capsys, str(directory), "--import", str(other))
    assert [s["model"] for s in study["summaries"]] == ["m (an-eval)", "m (imported)"]
    assert study["common"] == 3
    first, *_, last = study["frontier"]
    assert first["purchase"]["model"] == last["purchase"]["model"] == "m (an-eval)"
    assert last["purchase"]["solved"]["value"] == pytest.approx(1.0)
    merged = told(capsys, str(directory), "--import", str(other), "--merge")
    assert [s["depth"] for s in merged["summaries"]] == [4]


def test_what_cannot_be_reported_on_is_told_of_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ungraded = {**evaluation(), "tasks": evaluation()["tasks"][3:]}
    reports = {
        "good": json.dumps(evaluation()),
        "broken": '{"schema": 1, "tasks"',
        "binary": "\udcff",
        "halved": json.dumps({"schema": 1, "tasks": [{"id": "t0", "report": {"attempts": [{}]}}]}),
        "foreign": "[]",
        "ungraded": json.dumps(ungraded),
    }
    for name, text in reports.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "eval.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trace.jsonl").write_text("{}\n")
    (tmp_path / "something-else").mkdir()
    for named in (
        [tmp_path],
        [tmp_path / "good", *(p for p in tmp_path.iterdir() if p.name not in ("good", "something-else"))],
    ):
        assert main(["report", "--json", *map(str, named)]) == 0
        shown = capsys.readouterr()
        assert [s["model"] for s in json.loads(shown.out)["summaries"]] == ["m"]
        said = shown.err.splitlines()
        assert len(said) == 7 and all(line.startswith("troop: left out: ") for line in said)
        for name in ("broken", "binary", "halved", "foreign", "ungraded", "unfinished", "run"):
            assert any(str(tmp_path / name) in line for line in said)
    assert main(["report", str(tmp_path / "broken"), str(tmp_path / "unfinished")]) == 2


MISTAKES = [
    (["--forecast", "9"], "name a run or an evaluation"),
    (["--labels", "x", "nowhere"], "--labels go with --import"),
    (["nowhere", "--forecast", "9"], "trace.jsonl"),
    (["unfinished"], "without a report yet"),
]


@pytest.mark.parametrize(("arguments", "why"), MISTAKES)
def test_a_mistake_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "rows.jsonl", [{"instance_id": "a", "resolved": True}])
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "eval.json").write_text("{}")
    try:
        code = main(["report", *arguments])
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    said = capsys.readouterr().err
    assert code == 2
    assert why in said
    assert len(said.splitlines()) == 1


@pytest.mark.skipif("TROOP_DATA" not in os.environ, reason="TROOP_DATA is not set: the directory of public data")
def test_three_runs_of_a_system_are_too_few_for_a_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Path(os.environ["TROOP_DATA"]) / "candidate-patches.jsonl.gz"
    study = told(
        capsys, "--import", str(pool), "--label-field", "published_resolved", "--missing", "wrong", "--forecast", "20"
    )
    agent = next(s for s in study["summaries"] if s["model"] == "swe-agent-gpt4")
    assert (agent["depth"], agent["tasks"]) == (3, 243)
    assert agent["mean_at_1"]["value"] == pytest.approx((24 + 31 + 25) / 3 / 243)
    for forecasts in study["forecasts"].values():
        assert forecasts and all(each["coverage"] is None and each["refused"] for each in forecasts)
