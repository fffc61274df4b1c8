"""SWE-bench end to end: real instances, a real HTTP server with a scripted model, four attempts each, graded in docker.

TROOP_DATA names a directory with swebench-lite rows (swe-bench-lite.jsonl), TROOP_MIRRORS clones of their repositories;
images that are not there are built. The model's right edits are made here, by the test, from the rows' right patches.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness import trace
from tasks.swebench import Row, choose_rows, load_rows
from tests.support.command_line import TROOP
from tests.support.model_server import ModelServer, serving
from tests.support.runs import SEEDS, events
from tests.support.swebench_model import KINDS, script

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.timeout(7200)]

INSTANCES = (
    "pallets__flask-4992",
    "pallets__flask-5063",
    "pytest-dev__pytest-7220",
    "sympy__sympy-12171",
    "sympy__sympy-21614",
    "sympy__sympy-24152",
)
ALIAS = """[models.scripted]
base_url = "{url}"
name = "scripted"
usd_per_mtok_input = 2.0
usd_per_mtok_output = 8.0
sampling = {{ max_tokens = 500 }}
"""


@pytest.fixture(scope="module")
def data() -> Path:
    if "TROOP_DATA" not in os.environ or "TROOP_MIRRORS" not in os.environ:
        pytest.skip("TROOP_DATA and TROOP_MIRRORS name no rows and clones here")
    return Path(os.environ["TROOP_DATA"]) / "swe-bench-lite.jsonl"


@pytest.fixture(scope="module")
def rows(data: Path) -> list[Row]:
    return choose_rows(load_rows("swe-bench-lite", data), INSTANCES)


def start(place: Path, data: Path, *more: str) -> subprocess.Popen[str]:
    command = [*TROOP, "eval", "swe-bench-lite", "--dataset", str(data), "--pull", "never"]
    command += ["--mirrors", os.environ["TROOP_MIRRORS"], "--instances", ",".join(INSTANCES), "--model", "scripted"]
    command += ["-n", "4", "--judge-model", "none", "--max-usd", "5", "--concurrency", "8", "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)


def ended(out: Path) -> int:
    return sum(file.read_text().count('"attempt-ended"') for file in out.glob("*/trace.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def containers(run: str) -> list[str]:
    listed = ["docker", "ps", "-a", "--filter", f"label=troop.run={run}", "--format", "{{.Names}}"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def test_six_instances_are_solved_and_graded_and_a_kill_in_between_costs_nothing_twice(
    tmp_path: Path, data: Path, rows: list[Row]
) -> None:
    out = tmp_path / "runs" / "eval-swe-bench-lite"
    with serving(script(rows, SEEDS)) as server:
        (tmp_path / "troop.toml").write_text(ALIAS.format(url=server.url))
        killed = start(tmp_path, data)
        while ended(out) < 6:
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.1)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        said, complained = start(tmp_path, data).communicate(timeout=7000)
        report = json.loads(said)
        _check_results(report, rows, complained)
        _check_accounting(report, out, server)
    _check_predictions(out, rows)
    assert not [name for id in INSTANCES for name in containers(id)]
    assert "| pallets__flask-4992 |" in (out / "report.md").read_text()


def _check_results(report: dict[str, Any], rows: list[Row], complained: str) -> None:
    assert report["failed"] == [], complained
    assert (report["instances"], report["measured"], report["attempts"]) == (6, 6, 4)
    for task in report["tasks"]:
        # Two kinds of attempt change a file and fail, one says nothing usable, one is right.
        assert (task["samples"], task["correct"]) == (4, 1), task["id"]
        attempts = task["report"]["attempts"]
        right = attempts[KINDS.index("right")]["candidate"]
        assert task["verdicts"][right]["resolved"], task["verdicts"]
        assert attempts[KINDS.index("garbage")]["status"] == "malformed"
        assert task["selected"] != attempts[KINDS.index("breaking")]["candidate"]
        assert task["resolved"] is (task["selected"] == right)
    assert report["mean_at_1"] == 0.25 and report["oracle"] == 6
    assert [round(row["pass_at_k"], 6) for row in report["coverage"]] == [0.25, 0.5, 0.75, 1.0]
    assert report["selected"] == sum(task["resolved"] for task in report["tasks"])
    assert report["recovery"] == pytest.approx((report["selected"] / 6 - 0.25) / 0.75)


def _check_accounting(report: dict[str, Any], out: Path, server: ModelServer) -> None:
    charged = []
    for id in INSTANCES:
        found = events(out / id)
        charged += [e.charge for e in found if isinstance(e, (trace.Replied, trace.Charged))]
        keys = collections.Counter(e.key for e in found if isinstance(e, trace.Replied))
        assert set(keys.values()) == {1}, "an answered call was paid twice"
    assert report["usd"] == pytest.approx(sum(charge.usd or 0.0 for charge in charged), abs=1e-6) and report["usd"] > 0
    assert report["calls"] == sum(charge.answered for charge in charged)
    # What was in flight when the process was killed reached the server and never the trace.
    assert len(server.requests) - 8 <= len(charged) <= len(server.requests)
    assert report["usd_per_attempt"] == pytest.approx(report["usd"] / 24)
    assert report["statuses"] == {"submitted": 18, "malformed": 6}


def _check_predictions(out: Path, rows: list[Row]) -> None:
    for name in ("predictions.jsonl", *(f"predictions-{rank:02d}.jsonl" for rank in (1, 2, 3, 4))):
        found = lines(out / name)
        assert [row["instance_id"] for row in found] == [row.instance_id for row in rows]
        assert all(set(row) == {"instance_id", "model_name_or_path", "model_patch"} for row in found)
    assert {row["model_patch"] for row in lines(out / "predictions-03.jsonl")} == {""}
    assert all(row["model_patch"].startswith("diff --git") for row in lines(out / "predictions-02.jsonl"))
    utils = pytest.importorskip("swebench.harness.utils")
    read = utils.get_predictions_from_file(str(out / "predictions-02.jsonl"), "unused", "test")
    assert [row["instance_id"] for row in read] == [row.instance_id for row in rows]
