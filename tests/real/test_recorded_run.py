"""Runs recorded by earlier releases still open: report, replay and resume read trace schema 1
(tests/data/run-schema-1)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import resume
from harness import trace
from tests.support.calculator import RIGHT, SUBMIT, WITNESS, WRONG, call, make_repository
from tests.support.command_line import troop
from tests.support.model_server import Answer, Request, serving
from tests.support.runs import events

RECORDED = Path(__file__).parents[1] / "data/run-schema-1"


def laid(place: Path, url: str = "http://127.0.0.1:9/v1", *, lines: int | None = None) -> Path:
    """The recorded run in a directory of its own, on a repository that is as it was; its trace up to a line."""
    repository, directory = make_repository(place / "calculator"), place / "runs" / "recorded"
    directory.mkdir(parents=True)
    marks = {"@REPOSITORY@": str(repository), "@OUT@": str(directory.parent), "http://127.0.0.1:1/v1": url}
    for name in ("run.json", "trace.jsonl"):
        text = (RECORDED / name).read_text()
        for mark, what in marks.items():
            text = text.replace(mark, what)
        kept = text.splitlines(keepends=True)[: lines if name == "trace.jsonl" else None]
        (directory / name).write_text("".join(kept))
    return directory


def recorded() -> list[dict[str, object]]:
    return [json.loads(line) for line in (RECORDED / "trace.jsonl").read_text().splitlines()]


def test_a_recorded_run_is_reported_and_replayed(tmp_path: Path) -> None:
    directory = laid(tmp_path)
    told = troop("report", str(directory), "--json")
    assert told.returncode == 0, told.stderr
    shown = troop("replay", str(directory), "--speed", "1000")
    assert shown.returncode == 0, shown.stderr
    assert "values[1:]" in shown.stdout and "selected" in shown.stdout


def test_every_line_of_it_is_read_and_written_again_as_what_it_was() -> None:
    """But for the files that changed, which were written as base64: they stand as text now."""
    lines, events = recorded(), list(trace.read(RECORDED / "trace.jsonl"))
    again = [trace.to_json(event) for event in events]
    assert [trace.from_json(json.loads(json.dumps(line))) for line in again] == events
    without = [{k: v for k, v in line.items() if k not in ("schema", "tree")} for line in lines]
    assert without == [{k: v for k, v in line.items() if k not in ("schema", "tree")} for line in again]


def test_the_same_run_as_a_later_release_packed_it_says_the_same() -> None:
    """`trace-schema-2.jsonl` was written once, from the events of the other: what is packed must stay readable."""
    (_, *earlier), (started, *later) = (
        list(trace.read(path)) for path in (RECORDED / "trace.jsonl", RECORDED.parent / "trace-schema-2.jsonl")
    )
    assert later == earlier and isinstance(started, trace.RunStarted) and started.schema == 2
    assert '"packed"' in (RECORDED.parent / "trace-schema-2.jsonl").read_text()


@pytest.mark.network
@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    "last", ["planned", "decided", "tool-ran", "witness-recorded", "attempt-ended", "verified", "judged"]
)
def test_a_run_begun_by_an_earlier_release_goes_on(tmp_path: Path, last: str) -> None:
    lines = recorded()
    stop = next(n for n, line in reversed(list(enumerate(lines, 1))) if line["kind"] == last)
    steps = [
        Answer(text="total skips the first value."),
        call("read", path="calc.py"),
        call("witness", path="tests/test_w.py", content=WITNESS),
        RIGHT,
        call("test"),
        SUBMIT,
    ]

    def answer(request: Request) -> Answer:
        if "winner" in json.dumps(request.body["messages"]):
            return Answer(text='{"winner": "A", "reason": "so it seems"}')
        return steps[min(request.turn, 5)] if request.body["seed"] == 0 else WRONG if request.turn < 4 else SUBMIT

    with serving(answer) as server:
        directory = laid(tmp_path, server.url, lines=stop)
        answered = {str(line["key"]) for line in lines[:stop] if line["kind"] == "replied"}
        done = resume(str(directory))
    assert done.exit_code == 0 and done.patch is not None and "values[1:]" in done.patch
    replied = [e.key for e in events(directory) if isinstance(e, trace.Replied)]
    assert len(replied) == len(set(replied)), "an answered call was asked again"
    assert answered <= set(replied)
