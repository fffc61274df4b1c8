"""A grading that is killed at any moment goes on with the same command: nothing twice, nothing left, no name taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.sandbox.docker.containers import remove_container
from harness.sandbox.docker.daemon import connect
from tests.support.command_line import TROOP
from tests.support.graded_instance import GOLD, INSTANCE, build_instance, make_row, write_rows
from tests.support.waiting import wait_for

pytestmark = pytest.mark.docker

PATCHES = 6


@dataclass(frozen=True)
class Work:
    """Predictions for an image of this test's own, and the command that grades them."""

    client: Any
    image: str
    out: Path
    cache: Path
    command: tuple[str, ...]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "TROOP_CACHE": str(self.cache)}
        return subprocess.Popen(
            self.command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def remembered(self) -> int:
        return len(list((self.cache / "grading").glob("*/*/verdict.json")))

    def is_grading(self, after: int) -> bool:
        """Whether a container is there, and `after` verdicts or more."""
        return self.remembered() >= after and bool(self.containers())

    def containers(self) -> list[Any]:
        found: list[Any] = self.client.api.containers(all=True, filters={"ancestor": self.image})
        return found

    def started(self, process: subprocess.Popen[str], since: float) -> int:
        """How many containers that process started; one that the daemon was just starting for a killed process is not
        its."""
        filters = {"event": ["start"], "type": ["container"]}
        events = self.client.api.events(since=since, until=f"{time.time():.6f}", filters=filters, decode=True)
        owners = [event["Actor"]["Attributes"].get("troop.owner", "") for event in events]
        return sum(f"/{process.pid}/" in owner for owner in owners)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    client = connect()
    name = f"troop-test-killed-{os.getpid()}/image:latest"
    base, image = build_instance(client, tmp_path / "instance", name, {"troop.editable": "1"})
    rows = write_rows(tmp_path / "rows.jsonl", make_row(base, image=name))
    predictions = tmp_path / "predictions.jsonl"
    with predictions.open("w") as file:
        for number in range(PATCHES):
            slow = GOLD.replace("+    return a + b", f"+    import time; time.sleep(1.5); return a + b  # {number}")
            fields = {"instance_id": INSTANCE, "model_name_or_path": "slow", "model_patch": slow}
            file.write(json.dumps(fields) + "\n")
    command = (
        *(*TROOP, "grade", "swe-bench", "--dataset", str(rows), "--no-build"),
        *("--predictions", str(predictions), "--workers", "2", "--out", str(tmp_path / "out"), "--json", "--quiet"),
    )
    yield Work(client, image.id, tmp_path / "out", tmp_path / "cache", command)
    for left in client.api.containers(all=True, filters={"ancestor": image.id}):
        remove_container(client, left["Id"])  # the daemon may be removing it already
    client.images.remove(name, force=True)
    client.close()


def test_the_same_command_goes_on_after_kill_9(work: Work) -> None:
    for stage in (0, 2):  # at its first container, whatever state that is in; and in the middle
        process = work.start()
        wait_for(partial(work.is_grading, stage))
        process.send_signal(signal.SIGKILL)
        process.wait()
    before, since = work.remembered(), time.time()
    process = work.start()
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    report = json.loads(said)
    assert [row["outcome"] for row in report["predictions"]] == ["resolved"] * PATCHES
    assert sum(row["remembered"] for row in report["predictions"]) == before >= 2
    assert work.started(process, since) == PATCHES - before, "only what had no verdict yet was graded"
    wait_for(lambda: not work.containers(), 20)  # the daemon may still be removing one of a killed process
    assert not list((work.cache / "tmp").glob(f"grading-{process.pid}-*"))
    since = time.time()
    again = work.start()
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert all(row["remembered"] for row in json.loads(said)["predictions"])
    assert work.started(again, since) == 0
    summary = json.loads((work.out / f"slow.rank-{PATCHES}.out.json").read_text())
    assert summary["resolved_ids"] == [INSTANCE] and summary["schema_version"] == 2


def test_an_interrupted_grading_says_how_to_go_on_and_leaves_nothing(work: Work) -> None:
    process = work.start()
    wait_for(work.containers)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on where it stopped" in errors
    assert not work.containers()
