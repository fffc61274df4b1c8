"""Gradings and images on the nodes of a real Ray cluster: the same verdicts, a node that is killed, one that is stopped, and
images that go through a real registry."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from harness.swebench import grading, names
from harness.swebench.container import Containers
from harness.swebench.grading import GradedPatch, Grader
from harness.swebench.images import Source
from tasks.errors import SandboxFailed
from tests.real.test_grade_command import Place, place
from tests.real.test_grading import NAME, Made, containers_of, grade, made
from tests.real.test_registry import registry
from tests.support.cluster import Machines
from tests.support.graded_instance import BREAKING, GARBAGE, GOLD, HARMLESS, INSTANCE
from tests.support.waiting import wait_for

__all__ = ["made", "place", "registry"]
pytestmark = [pytest.mark.docker, pytest.mark.slow]

RUN = f"nodes-{os.getpid()}"


@pytest.fixture
def only_nodes(cluster: Machines, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """The process of the test makes no container."""

    def refuse(*_: Any) -> None:
        raise AssertionError("this is not a node")

    monkeypatch.setattr(Containers, "_make", refuse)
    return cluster


def nodes(registry: str | None = None) -> Any:
    from agent.nodes import Nodes

    return Nodes(registry)


def test_verdicts_are_those_of_one_machine(only_nodes: Machines, made: Made, tmp_path: Path) -> None:
    there = [grade(made, patch, tmp_path, nodes=nodes()) for patch in (GOLD, HARMLESS, BREAKING, GARBAGE)]
    assert [graded.outcome for graded in there] == ["resolved", "unresolved", "unresolved", "refused"]
    assert there[0].report and there[0].seconds > 0
    again = grade(made, GOLD, tmp_path, nodes=nodes())
    assert again.remembered, "what is remembered is the driver's"
    late = grade(made, slow(20), tmp_path, nodes=nodes(), timeout=1.0)
    assert late.outcome == "timed-out"


def slow(seconds: int) -> str:
    """The right patch, whose tests take so long."""
    return GOLD.replace("+    return", f"+    __import__('time').sleep({seconds})\n+    return").replace(
        "-1,5 +1,5", "-1,5 +1,6"
    )


def running(made: Made) -> list[Any]:
    found: list[Any] = made.client.api.containers(filters={"label": f"troop.run={RUN}"})
    return found


def test_a_killed_node_costs_no_verdict(only_nodes: Machines, made: Made, tmp_path: Path) -> None:
    async def whole() -> GradedPatch:
        async with Grader(cache=tmp_path, nodes=nodes(), run=RUN) as grader:
            grading = asyncio.ensure_future(grader.grade(made.row, made.image, slow(12)))
            await asyncio.to_thread(wait_for, lambda: running(made))
            only_nodes.add("two")  # in this thread, where signals belong
            assert not grading.done(), "the other node came too late"
            only_nodes.kill("one")
            return await grading

    graded = asyncio.run(whole())
    assert graded.resolved and graded.seconds > 12
    wait_for(lambda: not containers_of(made, RUN), 30, "the dead node's container is left")


def test_what_is_broken_off_leaves_no_container(only_nodes: Machines, made: Made, tmp_path: Path) -> None:
    async def whole() -> None:
        async with Grader(cache=tmp_path, nodes=nodes(), run=RUN) as grader:
            task = asyncio.ensure_future(grader.grade(made.row, made.image, slow(60)))
            await asyncio.to_thread(wait_for, lambda: running(made))
            task.cancel()

    asyncio.run(whole())
    wait_for(lambda: not containers_of(made, RUN), 20, "a container is left")


def test_a_node_that_lacks_the_image_takes_it_from_the_registry(
    only_nodes: Machines, made: Made, registry: str, tmp_path: Path
) -> None:
    from agent.nodes import _offer

    prefix, name = f"{registry}/troop", names.image_name(INSTANCE)
    _offer(made.row, made.image, prefix)
    made.client.images.remove(made.image.id, force=True)
    try:
        assert grade(made, GOLD, tmp_path, nodes=nodes(prefix)).resolved
        assert made.client.images.get(name).id == made.image.id
    finally:
        made.client.images.get(name).tag(NAME)
        made.client.images.remove(name)


def test_what_a_node_cannot_have_is_said(
    only_nodes: Machines, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "_BACKOFF_SECONDS", 0.01)
    gone = replace(made, image=replace(made.image, id="sha256:" + "0" * 64, labels={"troop.editable": "1"}))
    for source, why in ((None, "is not there"), (Source(), "cannot reach")):  # the clone that it would be built from
        with pytest.raises(SandboxFailed, match=why):
            grade(gone, GOLD, tmp_path, nodes=nodes(), source=source)


def test_the_command_grades_on_the_cluster(
    cluster: Machines, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TROOP_CACHE", str(place.folder / "cache-of-driver"))
    monkeypatch.chdir(place.folder)
    command = ["grade", "swe-bench-lite", "--dataset", str(place.dataset), "--instances", INSTANCE, "--json"]
    command += ["--predictions", "gold", "noop", "--executor", "ray", "--out", "of-nodes"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["set"]: row["outcome"] for row in report["predictions"]} == {"gold": "resolved", "noop": "unresolved"}
    assert main(["images", "build", "--dataset", str(place.dataset), "--executor", "ray", "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    (here, missing) = sorted(told["instances"], key=lambda row: len(row["instance_id"]))
    assert here["image"] == place.row.image and told["failed"] == 1
    assert "is neither here nor to be pulled" in missing["failure"]
