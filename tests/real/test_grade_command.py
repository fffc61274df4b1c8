"""`troop grade` from its command line to its files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.sandbox.docker.daemon import connect
from tasks.swebench import Row
from tests.support.command_line import TROOP
from tests.support.graded_instance import (
    FORGER,
    GARBAGE,
    GOLD,
    HARMLESS,
    INSTANCE,
    build_instance,
    make_row,
    write_rows,
)

pytestmark = pytest.mark.docker

MISSING = f"{INSTANCE}1"


@dataclass(frozen=True)
class Place:
    """A data set of two instances, one with an image and one without."""

    folder: Path
    row: Row

    @property
    def dataset(self) -> Path:
        return self.folder / "rows.jsonl"

    def predictions(self, name: str, *lines: dict[str, Any]) -> str:
        file = self.folder / name
        file.write_text("".join(json.dumps({"model_name_or_path": "m", **line}) + "\n" for line in lines))
        return str(file)

    def run(self, *arguments: str, out: str = "out") -> subprocess.CompletedProcess[str]:
        command = [
            *(*TROOP, "grade", "swe-bench-lite", "--dataset", str(self.dataset), "--no-build"),
            *("--out", str(self.folder / out), *arguments),
        ]
        environment = {**os.environ, "TROOP_CACHE": str(self.folder / "cache")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=self.folder)

    def read(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    client = connect()
    name = f"troop-test-command-{os.getpid()}/image:latest"
    folder = tmp_path_factory.mktemp("place")
    base, _ = build_instance(client, folder / "instance", name, {"troop.editable": "1"})
    row = make_row(base, image=name)
    place = Place(folder, row)
    write_rows(place.dataset, row, replace(row, instance_id=MISSING, image="troop-test-nowhere/none:latest"))
    yield place
    client.images.remove(name, force=True)
    client.close()


def test_gold_empty_and_noop(place: Place) -> None:
    done = place.run("--predictions", "gold", "empty", "noop", "--instances", INSTANCE, "--json", out="baselines")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == place.read("baselines/report.json")
    assert {row["set"]: row["outcome"] for row in report["predictions"]} == {
        "gold": "resolved",
        "empty": "empty",
        "noop": "unresolved",
    }
    assert "1/3" in done.stderr and "gold: resolved (" in done.stderr, "progress in plain lines"
    assert place.read("baselines/gold.baselines.json")["resolved_ids"] == [INSTANCE]
    assert place.read("baselines/empty.baselines.json")["empty_patch_ids"] == [INSTANCE]
    assert place.read("baselines/noop.baselines.json")["unresolved_ids"] == [INSTANCE]


def test_every_prediction_has_its_files_and_every_set_its_summary(place: Place) -> None:
    first = place.predictions(
        "first.jsonl",
        {"instance_id": INSTANCE, "model_patch": GOLD},
        {"instance_id": INSTANCE, "model_patch": GARBAGE},
        {"instance_id": INSTANCE, "model_patch": GOLD},
    )
    second = place.predictions(
        "second.jsonl", {"instance_id": INSTANCE, "model_patch": HARMLESS, "model_name_or_path": "a/b"}
    )
    done = place.run("--predictions", first, second, out="files")
    assert done.returncode == 0, done.stderr
    report = place.read("files/report.json")
    assert [(each["name"], each["resolved"]) for each in report["sets"]] == [
        ("m", 1),
        ("m.rank-2", 0),
        ("m.rank-3", 1),
        ("a__b", 0),
    ]
    folder = place.folder / "files"
    assert sorted(file.name for file in (folder / "m" / INSTANCE).iterdir()) == [
        "eval.sh",
        "patch.diff",
        "report.json",
        "test_output.txt",
        "verdict.json",
    ]
    assert (folder / "m" / INSTANCE / "patch.diff").read_text() == GOLD
    assert "PASSED tests/test_calc.py::test_add" in (folder / "m" / INSTANCE / "test_output.txt").read_text()
    official = place.read(f"files/m/{INSTANCE}/report.json")[INSTANCE]
    assert official["resolved"] and official["tests_status"]["FAIL_TO_PASS"]["success"]
    assert sorted(file.name for file in (folder / "m.rank-2" / INSTANCE).iterdir()) == [
        "eval.sh",
        "patch.diff",
        "verdict.json",
    ]
    refused = place.read(f"files/m.rank-2/{INSTANCE}/verdict.json")
    assert refused["outcome"] == "refused" and "garbage" in refused["reason"]
    assert place.read("files/m.rank-2.files.json")["error_ids"] == [INSTANCE]
    assert place.read("files/m.files.json")["incomplete_ids"] == [MISSING]
    again = place.run("--predictions", first, second, out="files")
    assert again.returncode == 0
    assert all(row["remembered"] for row in place.read("files/report.json")["predictions"] if row["outcome"] != "empty")


def test_a_log_that_the_official_parser_cannot_take_is_one_prediction_s_error(place: Place) -> None:
    script = ": '>>>>> Start Test Output'\necho ERROR:\n: '>>>>> End Test Output'\n"
    bad = replace(place.row, instance_id=f"{INSTANCE}2", eval_script=script, log_parser="django/django")
    dataset = str(write_rows(place.folder / "bad.jsonl", bad, place.row))
    done = place.run("--dataset", dataset, "--predictions", "gold", out="unparsed")
    assert done.returncode == 0, done.stderr
    assert place.read("unparsed/gold.unparsed.json")["error_ids"] == [bad.instance_id]
    assert place.read("unparsed/gold.unparsed.json")["resolved_ids"] == [INSTANCE]
    verdict = place.read(f"unparsed/gold/{bad.instance_id}/verdict.json")
    assert verdict["outcome"] == "unreadable" and "official parser fails" in verdict["reason"]
    assert "ERROR:" in (place.folder / f"unparsed/gold/{bad.instance_id}/test_output.txt").read_text()


def test_files_that_cannot_be_written_cost_one_prediction(place: Place) -> None:
    blocked = place.folder / "blocked" / "gold" / INSTANCE
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where its folder should be")
    done = place.run("--predictions", "gold", "noop", "--instances", INSTANCE, out="blocked")
    assert done.returncode == 4, done.stderr
    outcomes = {row["set"]: row for row in place.read("blocked/report.json")["predictions"]}
    assert outcomes["noop"]["outcome"] == "unresolved", "the others are graded all the same"
    assert outcomes["gold"]["outcome"] == "failed"
    assert outcomes["gold"]["reason"] == f"the file system refuses: {blocked}: File exists"


def test_both_rules_in_one_run_and_where_they_differ(place: Place) -> None:
    predictions = place.predictions("forged.jsonl", {"instance_id": INSTANCE, "model_patch": FORGER})
    done = place.run("--predictions", "gold", predictions, "--instances", INSTANCE, "--rules", "both", out="both")
    assert done.returncode == 0, done.stderr
    report = place.read("both/report.json")
    assert report["swebench"] == "5.0.2 and 4.1.0"
    rows = {row["set"]: row for row in report["predictions"]}
    assert (rows["gold"]["outcome"], rows["gold"]["rules_4.1"], rows["gold"]["differs"]) == (
        "resolved",
        "resolved",
        False,
    )
    assert (rows["m"]["outcome"], rows["m"]["rules_4.1"], rows["m"]["differs"]) == ("not-run", "resolved", True)
    assert "exit code 1" in rows["m"]["reason"]
    assert f"{INSTANCE} m: not resolved, the tests did not run by rules 5, resolved by 4.1" in done.stdout
    assert "Test Exit Code" in (place.folder / "both" / "gold" / INSTANCE / "eval.sh").read_text()


def test_a_verdict_that_differs_between_repetitions_is_flaky_and_its_instance_not_trusted(place: Place) -> None:
    script = (
        ": '>>>>> Start Test Output'\nif [ $(($(od -An -N1 -tu1 /dev/urandom) % 2)) = 0 ]; then echo PASSED t; fi\n"
        "echo PASSED u\n: '>>>>> End Test Output'\n"
    )
    parsed: dict[str, Any] = {"log_parser": "parse_log_pytest", "fail_to_pass": ("t",), "pass_to_pass": ("u",)}
    row = replace(place.row, instance_id=f"{INSTANCE}3", eval_script=script, **parsed)
    dataset = str(write_rows(place.folder / "coin.jsonl", row, place.row))
    done = place.run("--dataset", dataset, "--check", "--repeat", "12", out="check")
    assert done.returncode == 0, done.stderr
    report = place.read("check/report.json")
    gold = next(each for each in report["sets"] if each["name"] == "gold")
    assert (gold["resolved_range"], gold["flaky"], gold["flaky_ids"]) == ([1, 2], 1, [row.instance_id])
    assert "50.0% to 100.0%" in done.stdout
    assert report["untrusted"] == {row.instance_id: report["untrusted"][row.instance_id]}
    assert report["untrusted"][row.instance_id].endswith("by chance")
    assert "1 of 2 instances cannot be trusted here" in done.stdout and "flaky" in done.stdout


def test_images_can_be_checked_as_soon_as_they_are_there(place: Place) -> None:
    words = ["images", "build", "--dataset", str(place.dataset), "--instances", INSTANCE, "--pull", "never", "--check"]
    environment = {**os.environ, "TROOP_CACHE": str(place.folder / "cache")}
    done = subprocess.run(
        [*TROOP, *words, "--json"], env=environment, capture_output=True, text=True, check=False, cwd=place.folder
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == place.read("runs/grade-swe-bench/report.json") and report["untrusted"] == {}
    assert {row["set"]: row["outcome"] for row in report["predictions"]} == {"gold": "resolved", "noop": "unresolved"}


def test_predictions_or_a_check_must_be_asked_for(place: Place) -> None:
    done = place.run()
    assert done.returncode == 2 and "give --predictions FILE" in done.stderr


def test_an_instance_without_an_image_has_no_verdict(place: Place) -> None:
    done = place.run("--predictions", "gold", out="missing")
    assert done.returncode == 4
    report = place.read("missing/report.json")
    outcomes = {row["instance_id"]: row for row in report["predictions"]}
    assert outcomes[INSTANCE]["outcome"] == "resolved", "the others are graded all the same"
    assert outcomes[MISSING]["outcome"] == "failed" and "troop images build" in outcomes[MISSING]["reason"]
    assert report["infrastructure"]["failures"] == 1
    assert place.read("missing/gold.missing.json")["error_ids"] == [MISSING]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"instance_id": "pytest-dev__pytest-2", "model_patch": ""}, "which the data set does not have"),
        ({"instance_id": INSTANCE}, "line 1: the field model_patch is missing"),
    ],
)
def test_wrong_input_starts_nothing(place: Place, line: dict[str, Any], said: str) -> None:
    done = place.run("--predictions", place.predictions("wrong.jsonl", line), out="wrong")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (place.folder / "wrong").exists()


def test_one_command_at_a_time_writes_to_a_directory(place: Place) -> None:
    from harness.lock import run_lock

    with run_lock(place.folder / "taken"):
        done = place.run("--predictions", "gold", out="taken")
    assert done.returncode == 2 and "is being worked on by process" in done.stderr
