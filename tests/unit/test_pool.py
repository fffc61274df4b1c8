"""Patches of any tool are read as candidates."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import pytest

from harness import trace
from harness.choosing.pool import by_instance, read_candidates
from harness.records import Charge, Usage, WitnessTest
from tasks.errors import InputError
from tests.bench.fitting import read_labelled
from tests.bench.graded import read_graded, unlabelled

PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"


def prediction(instance: str, model: str, patch: str | None = PATCH) -> str:
    return json.dumps({"instance_id": instance, "model_name_or_path": model, "model_patch": patch}) + "\n"


def test_two_files_of_predictions_are_two_sources_of_one_model(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(prediction("a__b-1", "m") + "\n" + prediction("a__b-2", "m"))
    two.write_text(prediction("a__b-1", "m"))
    found = by_instance(read_candidates([one, two]))
    assert {i: len(s) for i, s in found.items()} == {"a__b-1": 2, "a__b-2": 1}
    assert {s.model for s in found["a__b-1"]} == {"m"}
    assert len({s.source for s in found["a__b-1"]}) == 2


def test_predictions_may_be_one_json_list_or_an_object_by_instance(tmp_path: Path) -> None:
    entry = json.loads(prediction("a__b-1", "m"))
    listed, named = tmp_path / "listed.json", tmp_path / "named.json"
    listed.write_text(json.dumps([entry]))
    named.write_text(json.dumps({"a__b-1": {"model_name_or_path": "m", "model_patch": PATCH}}))
    assert [s.instance for s in read_candidates([listed, named])] == ["a__b-1", "a__b-1"]


def test_a_missing_patch_is_no_candidate(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text(prediction("a__b-1", "m", None) + prediction("a__b-1", "n", "  \n") + prediction("a__b-1", "o"))
    assert [s.model for s in by_instance(read_candidates([file]))["a__b-1"]] == ["o"]


def test_a_directory_holds_a_patch_for_each_instance_or_many_for_the_one_task(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    (folder / "a__b-2").mkdir(parents=True)
    (folder / "a__b-1.patch").write_text(PATCH)
    (folder / "a__b-2/first.diff").write_text(PATCH)
    (folder / "a__b-2/second.diff").write_text(PATCH)
    assert {s.instance: s.model for s in read_candidates([folder])} == {"a__b-1": "tool", "a__b-2": "tool"}
    assert {s.instance for s in read_candidates([folder], "mine")} == {"mine"}


def test_a_patch_that_belongs_to_no_instance_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(PATCH)
    with pytest.raises(InputError, match="which instance"):
        read_candidates([tmp_path / "x.patch"])
    assert [s.source for s in read_candidates([tmp_path / "x.patch"], "mine")] == [str(tmp_path / "x.patch")]


def test_the_attempts_of_a_troop_run_are_candidates_with_their_models(tmp_path: Path) -> None:
    run = tmp_path / "run-1"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with contextlib.closing(trace.Trace(run / "trace.jsonl")) as log:
        log.write(trace.RunStarted(run="run-1", task={"id": "calc"}, settings={}, versions={}))
        for index, status in ((0, "submitted"), (1, "infrastructure")):
            log.write(trace.AttemptStarted(attempt=index, seed=1, model="m"))
            log.write(trace.AttemptEnded(attempt=index, status=status, patch=PATCH))
    assert [(s.instance, s.model) for s in read_candidates([run])] == [("calc", "m")]
    assert [(s.instance, s.model) for s in read_candidates([tmp_path])] == [("calc", "m")]


def test_an_attempt_of_a_troop_run_brings_what_it_did_but_not_what_it_cost(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    charge = Charge(0, "act", "m", Usage(1), 0.5, "alias", 1.0)
    told: list[trace.Event] = [
        trace.Decided(attempt=0, turn=1, text="look", calls=()),
        trace.WitnessRecorded(attempt=0, turn=1, witness=WitnessTest(0, "test_x.py", "assert 0")),
        trace.TurnEnded(attempt=0, turn=1, seconds=1.0),
        trace.AttemptEnded(attempt=0, status="submitted", patch=PATCH),
    ]
    with contextlib.closing(trace.Trace(run / "trace.jsonl")) as log:
        log.write(trace.RunStarted(run="run", task={"id": "a__b-1"}, settings={}))
        log.write(trace.AttemptStarted(attempt=0, seed=1, model="m"))
        log.write(trace.Replied(attempt=0, key="0/1", message={}, charge=charge))
        for event in told:
            log.write(event)
    (sample,) = read_candidates([run])
    assert (sample.source, sample.model) == ("run/0", "m")
    assert all(trace.same(one, other) for one, other in zip(sample.story, told, strict=True))


def test_a_pool_holds_models_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "pool.jsonl.gz"
    lines = [
        {"instance_id": "a__b-1", "source": "tool/run-1", "model_patch": PATCH, "cost_usd": 0.5, "outcome": "resolved"},
        {"instance_id": "a__b-1", "source": "tool/run-2", "model_patch": PATCH, "cost_usd": None, "outcome": None},
        {"instance_id": "a__b-1", "source": "other", "model_patch": PATCH, "cost_usd": None, "outcome": "apply-failed"},
    ]
    file.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    assert [(s.model, s.right) for s in read_graded(file)] == [("tool", True), ("tool", None), ("other", False)]


def test_labels_of_another_file_are_laid_over_the_pool(tmp_path: Path) -> None:
    pool, labels = tmp_path / "pool.jsonl", tmp_path / "labels.jsonl"
    line = {"instance_id": "a__b-1", "source": "tool/run-1", "model_patch": PATCH, "outcome": None}
    pool.write_text(json.dumps(line) + "\n")
    labels.write_text(json.dumps({"instance_id": "a__b-1", "source": "tool/run-1", "outcome": "resolved"}) + "\n")
    assert [s.right for s in read_labelled(pool, [labels])] == [True]


def test_the_report_of_a_grading_gives_labels(tmp_path: Path) -> None:
    pool, graded = tmp_path / "pool.jsonl", tmp_path / "report.json"
    line = {"instance_id": "a__b-1", "source": "tool/run-1", "model_patch": PATCH, "outcome": None}
    other = {**line, "instance_id": "a__b-2"}
    pool.write_text(json.dumps(line) + "\n" + json.dumps(other) + "\n")
    verdict = {"set": "tool__run-1", "instance_id": "a__b-1", "outcome": "resolved", "resolved": True, "image": "i"}
    failed = {"set": "tool__run-1", "instance_id": "a__b-2", "outcome": "failed", "resolved": False}
    sets = [{"name": "tool__run-1", "model": "tool/run-1"}]
    graded.write_text(json.dumps({"sets": sets, "predictions": [verdict, failed]}))
    assert [s.right for s in read_labelled(pool, [graded])] == [True, None]
    graded.write_text("{}")
    with pytest.raises(InputError, match="no report of troop grade"):
        read_labelled(pool, [graded])


def test_what_makes_evidence_sees_no_label(tmp_path: Path) -> None:
    file = tmp_path / "pool.jsonl"
    line = {
        "instance_id": "a__b-1",
        "source": "s",
        "model_patch": PATCH,
        "outcome": "resolved",
        "published_resolved": True,
    }
    file.write_text(json.dumps(line) + "\n")
    (sample,), bare = read_candidates([file]), unlabelled(read_graded(file))
    assert bare == (sample,) and not hasattr(sample, "right")
    assert "resolved" not in repr(sample)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{\n", "line 1: this is not JSON"),
        ('{"instance_id": "a"}\n', "no model_patch"),
        ('{"model_patch": "x"}\n', "the field instance_id is missing"),
        ('{"instance_id": "a", "source": "s", "model_patch": "x", "outcome": "perhaps"}\n', "outcome 'perhaps'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_graded(file)
