"""Test output that the official harness recorded, with the report that it made of it: ours is the same, to the last
name.

The recordings are not part of the project: TROOP_DATA names their directory. Its `official-logs.jsonl.gz` holds
`instance_id`, `test_output` and `report` of each, its `swe-bench-lite.jsonl` the rows.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.swebench import official
from tasks.swebench import Row, load_rows

DATA = os.environ.get("TROOP_DATA", "")

needs_data = pytest.mark.skipif(not DATA, reason="TROOP_DATA names no directory with recorded logs")


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.instance_id: row for row in load_rows("swe-bench-lite", Path(DATA) / "swe-bench-lite.jsonl")}


def recordings() -> Iterator[dict[str, Any]]:
    with gzip.open(Path(DATA) / "official-logs.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


@needs_data
def test_every_recorded_log_gives_the_recorded_report_by_the_rules_of_its_time(rows: dict[str, Row]) -> None:
    differing = []
    count = 0
    for recorded in recordings():
        count += 1
        if official.report_of(rows[recorded["instance_id"]], recorded["test_output"], "4.1") != recorded["report"]:
            differing.append((recorded["instance_id"], recorded["source"]))
    assert not differing
    assert count > 50


TODAYS = """
import json, sys
from swebench.harness.grading import get_eval_report
from swebench.harness.utils import make_test_spec
for line in sys.stdin:
    row, log = json.loads(line)
    open(sys.argv[1], "w").write(log)
    name = row["instance_id"]
    report = get_eval_report(make_test_spec(row), {"instance_id": name, "model_patch": "x"}, sys.argv[1], True)
    print(json.dumps(report[name]))
"""


@needs_data
def test_every_recorded_log_gives_what_release_5_itself_says(rows: dict[str, Row], tmp_path: Path) -> None:
    """Its own functions, imported in the ordinary way in a process of its own."""
    asked, ours, resolved_then = [], [], 0
    for recorded in recordings():
        row = rows[recorded["instance_id"]]
        fields = {"instance_id": row.instance_id, "repo": row.repo, "version": row.version, "image": "none"}
        fields |= {"eval_script": official.eval_script(row), **official.parsing_of(row)}
        tests = {"FAIL_TO_PASS": row.fail_to_pass, "PASS_TO_PASS": row.pass_to_pass}
        asked.append(json.dumps([{**fields, **tests}, recorded["test_output"]]))
        ours.append(official.report_of(row, recorded["test_output"]))
        resolved_then += recorded["report"]["resolved"]
    command = [sys.executable, "-c", TODAYS, str(tmp_path / "log")]
    done = subprocess.run(command, input="\n".join(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")] == ours
    assert sum(report["resolved"] for report in ours) == resolved_then, "these logs are alike to both rules"


@needs_data
def test_recorded_scripts_hold_the_same_commands_as_ours(rows: dict[str, Row]) -> None:
    """The log begins with the script's own trace: each command of ours is in it, in its order."""
    for recorded in recordings():
        row = rows[recorded["instance_id"]]
        traced = [line[2:].replace("'", "") for line in recorded["test_output"].splitlines() if line.startswith("+ ")]
        at = 0
        for wanted in (f"git -c core.fileMode=false diff {row.base_commit}", official.install_command(row)):
            assert wanted in traced[at:], recorded["instance_id"]
            at = traced.index(wanted, at)


@needs_data
def test_what_a_row_itself_says_of_its_parser_gives_the_same_report(rows: dict[str, Row]) -> None:
    from dataclasses import replace

    for number, recorded in enumerate(recordings()):
        if number % 9:
            continue
        row = replace(
            rows[recorded["instance_id"]], log_parser=rows[recorded["instance_id"]].repo, eval_type="pass_and_fail"
        )
        assert official.report_of(row, recorded["test_output"], "4.1") == recorded["report"]


@needs_data
def test_all_rows_have_a_specification_and_a_script_without_any_network(rows: dict[str, Row]) -> None:
    """In a process of its own, where opening a connection is an error."""
    program = """
import socket, sys
from pathlib import Path
def refuse(*_, **__): raise AssertionError("asked for the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from harness.swebench import official
from tasks.swebench import load_rows
for row in load_rows("swe-bench-lite", Path(sys.argv[1])):
    spec = official.spec_of(row)
    assert spec.python
    official.check(row)
    whole, less = official.eval_script(row), official.eval_script(row, install=False)
    assert row.base_commit in whole and row.test_patch in whole
    assert less == "".join(line for line in whole.splitlines(keepends=True) if line.strip() != official.install_command(row))
assert "datasets" not in sys.modules and "pandas" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"{DATA}/swe-bench-lite.jsonl"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
