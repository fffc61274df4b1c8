"""`troop eval --disk`: images of a real daemon are made as far ahead as they fit, and go when they are graded.

What stands in for a build, which would take the network and minutes, is a commit of a small image: with the name, labels
and lineage of a built one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from harness.sandbox.docker.daemon import connect
from harness.sandbox.docker.image import find
from harness.swebench import images, names
from harness.swebench.images import _Work, find_image
from harness.swebench.names import ImageRef
from harness.swebench.recipe import RECIPE_VERSION
from tasks.swebench import Row
from tests.support.calculator import PLAN, SUBMIT, call
from tests.support.graded_instance import build_instance, make_row, write_rows
from tests.support.model_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.network]

IMAGE_MB = 20
IDS = [f"pytest-dev__pytest-{os.getpid()}{n}" for n in range(5)]
SMALL = f"troop-test/eval-disk-{os.getpid()}:latest"
RIGHT = call("edit", path="calc.py", old="a - b", new="a + b")


@pytest.fixture
def client() -> Iterator[Any]:
    made = connect()
    yield made
    for image in of_instances(made, *IDS):
        made.images.remove(image, force=True)
    for id in there(made):
        made.images.remove(named(id), force=True)
    if find(made, SMALL) is not None:
        made.images.remove(SMALL, force=True)
    made.close()


def build(client: Any, row: Row) -> ImageRef | None:
    """An image of the row, with so many bytes of its own; where the row names one, it is nobody's by its labels."""
    container = client.containers.create(SMALL, ["sh", "-c", f"head -c {IMAGE_MB}000000 /dev/urandom > /opt/bulk"])
    try:
        container.start()
        container.wait()
        kind = {names.KIND: names.INSTANCE, names.ID: row.instance_id, names.RECIPE: f"{RECIPE_VERSION}-x"}
        conf = {"Labels": {**kind, names.EDITABLE: "1"}, "Cmd": ["sleep", "infinity"]}
        if row.image:
            container.commit(row.image, "latest", conf={"Cmd": ["sleep", "infinity"], "Labels": {names.EDITABLE: "1"}})
        else:
            container.commit(names.repository_name(row.instance_id), "latest", conf=conf)
    finally:
        container.remove(force=True)
    return find_image(client, row)


def of_instances(client: Any, *ids: str) -> list[str]:
    """The instances' images and, before them, what was made of these."""
    found = [image for id in ids for image in client.images.list(filters={"label": f"{names.ID}={id}"})]
    return [image.id for image in sorted(found, key=lambda image: -len(image.attrs["RootFS"]["Layers"]))]


def named(id: str) -> str:
    return f"troop-test-disk/{id}"


def there(client: Any) -> set[str]:
    return {id for id in IDS if find(client, names.image_name(id)) or find(client, named(id))}


@pytest.mark.parametrize("by_rows", [False, True], ids=["built", "named by rows"])
def test_images_are_made_as_far_ahead_as_they_fit_and_go_when_they_are_graded(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by_rows: bool
) -> None:
    base, _ = build_instance(client, tmp_path / "small", SMALL)
    (tmp_path / "mirrors").mkdir()
    (tmp_path / "small" / "testbed").rename(tmp_path / "mirrors" / "pytest-dev__pytest")
    rows = [make_row(base, instance_id=id, image=named(id) if by_rows else "") for id in IDS]
    write_rows(tmp_path / "rows.jsonl", *rows)
    build(client, rows[0])  # there before
    built: list[str] = []
    most: list[int] = []

    async def instead(work: _Work, row: Row) -> ImageRef | None:
        built.append(row.instance_id)
        return build(client, row)

    def pull(client: Any, name: str) -> str:
        (row,) = (row for row in rows if row.image == name)
        built.append(row.instance_id)
        return "" if build(client, row) else "it cannot be had"

    monkeypatch.setattr(_Work, "_built", instead)
    monkeypatch.setattr(images, "_pull", pull)
    monkeypatch.chdir(tmp_path)
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            most.append(len(there(client) - {IDS[0]}))
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    with serving([PLAN, RIGHT, SUBMIT]) as server:
        command = ["eval", "swe-bench-lite", "--dataset", "rows.jsonl", "--mirrors", "mirrors", "--pull", "never"]
        command += [
            "--model",
            f"{server.url}#scripted",
            "-n",
            "1",
            "--judge-model",
            "none",
            "--disk",
            "0.055",
            "--json",
        ]
        assert main([*command, "--dry-run"]) == 0
        expected = json.loads(capsys.readouterr().out)
        assert expected["gb"] == 0.055 and "at most 0.055 at a time, as --disk says" in " ".join(expected["notes"])
        watching.start()
        try:
            code = main(command)
        finally:
            over.set()
            watching.join()
    report = json.loads(capsys.readouterr().out)
    assert code == 0 and report["failed"] == [] and report["oracle"] == len(IDS)
    assert sorted(built) == IDS[1:]
    assert 1 <= max(most) <= 2, "more were made ahead than fit"
    assert there(client) == {IDS[0]}, "what was there before stays, and nothing else"
    assert not of_instances(client, *IDS[1:]), "what was set up on them went as well"
