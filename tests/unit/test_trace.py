"""The trace: what is written is read back, what is damaged is named, what is torn is dropped, secrets stay out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import secrets
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from agent.secrets import known_masker, masker
from harness import trace
from harness.records import Charge, FileState, TestReport, Tree, Usage
from harness.trace import (
    EVENTS,
    AttemptEnded,
    AttemptStarted,
    Decided,
    Event,
    InfrastructureFailed,
    RunStarted,
    Trace,
    TreeChanged,
    TurnEnded,
    from_json,
    read,
    to_json,
)
from tasks.errors import EnvironmentFailed, InputError

START = RunStarted(run="r1", task={"id": "t"}, settings={})


def sample(hint: Any, depth: int = 0) -> Any:
    """A value of a type that no default equals, so that every field of an event is written and must come back."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return sample(next(a for a in arguments if a is not type(None)), depth)
    if origin is Literal:
        return arguments[-1]
    if origin is tuple:
        return (sample(arguments[0], depth), sample(arguments[0], depth))
    if origin is not None and issubclass(origin, Mapping):
        return {"tests/a.py::b[\udce9 ☃]": sample(arguments[1], depth)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{f.name: sample(hints[f.name], depth + 1) for f in dataclasses.fields(hint)})
    plain = {
        str: 'text\n\t"☃" \udce9 \x00',
        int: 41,
        float: 1.25,
        bool: False,
        bytes: bytes(range(256)),
        Any: ["any", 1, None, {"deep": [True]}],
    }
    return plain[hint]


def full(cls: type[Event]) -> Event:
    hints = get_type_hints(cls)
    values = {f.name: sample(hints[f.name]) for f in dataclasses.fields(cls)}
    return cls(**values)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_kind_of_event_comes_back_as_it_was(kind: str) -> None:
    event = full(EVENTS[kind])
    written = json.dumps(to_json(event))
    assert from_json(json.loads(written)) == event


@pytest.mark.parametrize("kind", EVENTS)
def test_fields_left_at_their_defaults_come_back_too(kind: str) -> None:
    cls = EVENTS[kind]
    hints = get_type_hints(cls)
    needed = {
        f.name: sample(hints[f.name])
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    event = cls(**needed)
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_events_come_back_in_order_with_their_time_and_to_every_listener(tmp_path: Path) -> None:
    path = tmp_path / "deep/trace.jsonl"
    heard: list[Event] = []
    log = Trace(path)
    log.listen(lambda event: heard.append(event))
    log.write(START)
    for turn in range(3):
        log.write(TurnEnded(attempt=1, turn=turn, seconds=0.5))
    log.close()
    found = list(read(path))
    assert found == heard
    assert [type(event) for event in found] == [RunStarted] + [TurnEnded] * 3
    assert all(event.at > 1.7e9 for event in found)


def test_a_line_is_there_before_anything_acts_on_it(tmp_path: Path) -> None:
    """Listeners are told after the line has reached the operating system; nothing waits in a buffer."""
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    seen: list[int] = []
    log.listen(lambda event: seen.append(len(lines(path))))
    log.write(START)
    log.write(TurnEnded(turn=1, seconds=0.5))
    log.close()
    assert seen == [1, 2]


def test_the_first_line_carries_the_schema(tmp_path: Path) -> None:
    log = Trace(tmp_path / "t")
    log.write(START)
    log.close()
    assert json.loads(lines(tmp_path / "t")[0])["schema"] == trace.SCHEMA


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_is_skipped_and_written_over(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(START)
    log.write(TurnEnded(turn=1, seconds=0.5))
    log.write(TurnEnded(turn=2, seconds=0.5))
    log.close()
    path.write_bytes(path.read_bytes()[:-cut])
    assert [getattr(e, "turn", 0) for e in read(path)] == [0, 1]
    again = Trace(path)
    again.write(TurnEnded(turn=3, seconds=0.5))
    again.close()
    assert [getattr(e, "turn", 0) for e in read(path)] == [0, 1, 3]


def test_a_torn_line_longer_than_a_block_is_dropped_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(START)
    log.close()
    kept = path.read_bytes()
    path.write_bytes(kept + b"x" * 200_000)
    Trace(path).close()
    assert path.read_bytes() == kept


def test_a_trace_torn_in_its_only_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b'{"kind":"run-st')
    assert list(read(path, may_be_empty=True)) == []
    with pytest.raises(InputError, match="is empty"):
        list(read(path))
    Trace(path).close()
    assert path.read_bytes() == b""
    with pytest.raises(InputError, match="is empty"):
        list(read(path))


BUSY = """
import contextlib, sys
from pathlib import Path
from harness.trace import InfrastructureFailed, Trace
for number in range(40):
    with contextlib.closing(Trace(Path(sys.argv[1]))) as log:
        log.write(InfrastructureFailed(what=f"{sys.argv[2]}-{number}", detail="x" * 2_000_000, retried=True))
"""


def test_several_processes_that_write_lose_and_tear_no_line(tmp_path: Path) -> None:
    """A resumed run, and an evaluation that notes its verdicts: each opens the trace, which drops what looks torn."""
    path = tmp_path / "trace.jsonl"
    with contextlib.closing(Trace(path)) as log:
        log.write(START)
    writers = [subprocess.Popen([sys.executable, "-c", BUSY, str(path), str(number)]) for number in range(2)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = [event.what for event in read(path) if isinstance(event, InfrastructureFailed)]
    assert sorted(found) == sorted(f"{writer}-{number}" for writer in range(2) for number in range(40))


def test_what_a_writer_that_died_left_of_a_line_does_not_spoil_another_s(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(START)
    with path.open("ab") as other:
        other.write(b'{"kind":"turn-end')
    assert [type(event) for event in read(path)] == [RunStarted]
    log.write(TurnEnded(turn=1, seconds=0.5))
    log.close()
    assert [type(event) for event in read(path)] == [RunStarted, TurnEnded]


def test_a_disk_that_is_full_leaves_no_torn_line_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(START)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel takes the first part of the line and refuses the rest, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, hard))
    try:
        with pytest.raises(EnvironmentFailed, match=r"cannot write the trace .*make room"):
            log.write(InfrastructureFailed(what="sandbox", detail=secrets.token_hex(50_000), retried=True))
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(TurnEnded(turn=1, seconds=0.5))
    log.close()
    assert [type(e) for e in read(path)] == [RunStarted, TurnEnded]


DAMAGED = [
    b"not json",
    b"{",
    b"5",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"kind":"no-such-event"}',
    b'{"kind":["run-ended"]}',
    b'{"kind":"turn-ended"}',
    b'{"kind":"tests-ran","turn":1,"report":5}',
    b'{"kind":"tree-changed","turn":1,"tree":{"files":[{"path":"a","data":"text"}]}}',
    b'{"kind":"tree-changed","turn":1,"tree":{"files":3}}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("line", DAMAGED, ids=[str(n) for n in range(len(DAMAGED))])
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(START)
    log.write(TurnEnded(turn=1, seconds=0.5))
    log.close()
    path.write_bytes(path.read_bytes() + line + b"\n" + lines(path)[1])
    events = read(path)
    assert isinstance(next(events), RunStarted)
    assert isinstance(next(events), TurnEnded)
    with pytest.raises(InputError, match=r"trace\.jsonl, line 3: not an event of a Troop trace") as caught:
        next(events)
    assert "\n" not in str(caught.value)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(dataclasses.replace(START, schema=trace.SCHEMA + 1))
    log.close()
    with pytest.raises(
        InputError, match=rf"schema {trace.SCHEMA + 1}, this Troop reads up to {trace.SCHEMA}: update Troop"
    ):
        list(read(path))


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(TurnEnded(turn=1, seconds=0.5))
    log.close()
    with pytest.raises(InputError, match="line 1: a trace begins with a run-started event, found turn-ended"):
        list(read(path))
    with pytest.raises(InputError, match="cannot read the trace"):
        list(read(tmp_path / "absent"))


def test_fields_that_a_newer_troop_added_are_passed_over() -> None:
    assert from_json({"kind": "turn-ended", "turn": 1, "seconds": 2.0, "novelty": {"x": 1}}) == TurnEnded(
        turn=1, seconds=2.0
    )


def test_secrets_are_masked_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    heard: list[Event] = []
    log = Trace(path, mask=lambda line: line.replace("sk-secret", "***"))
    log.listen(heard.append)
    log.write(dataclasses.replace(START, settings={"key": "sk-secret", "list": ["x sk-secret y"]}))
    log.close()
    assert b"sk-secret" not in path.read_bytes()
    (event,) = read(path)
    assert isinstance(event, RunStarted)
    assert event.settings == {"key": "***", "list": ["x *** y"]}
    assert heard == [event], "a listener hears what was written"


TOKEN = "ghp_" + "a1B2c3D4e5" * 4
PASSWORD = "hunter2-and-more"


@pytest.fixture
def masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)
    log = Trace(tmp_path / "trace.jsonl", mask=masker(), mask_known=known_masker())
    log.write(START)
    return log


def test_what_looks_like_a_token_stays_in_what_is_carried_out_and_nowhere_else(masked: Trace) -> None:
    patch = f"+TOKEN = '{TOKEN}'\n"
    tree = Tree((FileState("a.py", patch.encode()),))
    call = {"id": "1", "name": "create", "arguments": {"path": "a.py", "content": patch}}
    heard: list[Event] = []
    masked.listen(heard.append)
    masked.write(AttemptStarted(attempt=0, seed=1, model="m"))
    masked.write(Decided(attempt=0, turn=1, text=f"I use {TOKEN}", calls=(call,)))
    masked.write(TreeChanged(attempt=0, turn=1, tree=tree))
    masked.write(AttemptEnded(attempt=0, status="submitted", patch=patch))
    assert list(read(masked.path))[1:] == heard
    _, decided, changed, ended = heard
    assert isinstance(decided, Decided) and decided.text == "I use ***" and decided.calls == (call,)
    assert isinstance(changed, TreeChanged) and changed.tree == tree
    assert isinstance(ended, AttemptEnded) and ended.patch == patch and not ended.masked


def test_the_name_of_a_test_is_kept_though_it_holds_a_password_in_a_url(masked: Trace) -> None:
    id = f"tests/test_urls.py::test_auth[http://user:{'a1' * 8}@host/-auth0]"
    report = TestReport({id: "passed"}, 0, False, True, 1.0, durations={id: 0.1}, output=f"ran {id}")
    masked.write(trace.NearTested(paths=("a.py",), report=report, flaky=(id,)))
    masked.write(AttemptStarted(attempt=0, seed=1, model="m"))
    masked.write(trace.TestsRan(attempt=0, turn=1, report=report, selection=(id,)))
    _, near, _, ran = read(masked.path)
    assert isinstance(near, trace.NearTested) and isinstance(ran, trace.TestsRan) and near.report is not None
    assert (set(near.report.outcomes), near.flaky, set(ran.report.durations), ran.selection) == (
        {id},
        (id,),
        {id},
        (id,),
    )
    assert "a1a1" not in near.report.output, "elsewhere it is masked as ever"


def test_a_secret_of_the_environment_is_masked_everywhere_and_its_patch_is_flagged(masked: Trace) -> None:
    heard: list[Event] = []
    masked.listen(heard.append)
    content = b"\xff\x00" + PASSWORD.encode() + b"\n"
    masked.write(AttemptStarted(attempt=0, seed=1, model="m"))
    masked.write(TreeChanged(attempt=0, turn=1, tree=Tree((FileState("a.bin", content),))))
    masked.write(AttemptEnded(attempt=0, status="submitted", patch=f"+x = '{PASSWORD}'\n"))
    assert list(read(masked.path))[1:] == heard
    _, changed, ended = heard
    assert isinstance(changed, TreeChanged) and changed.tree.files[0].data == b"\xff\x00***\n"
    assert isinstance(ended, AttemptEnded) and ended.patch == "+x = '***'\n" and ended.masked and changed.masked


def test_bytes_and_nested_records_survive(tmp_path: Path) -> None:
    tree = Tree(
        (FileState("caf\udce9", b"\x00\xff\r\n", 0o755), FileState("gone", None), FileState("l", b"t", link=True)),
        ("big: too large",),
    )
    path = tmp_path / "trace.jsonl"
    log = Trace(path)
    log.write(START)
    log.write(TreeChanged(attempt=0, turn=4, tree=tree))
    log.close()
    event = list(read(path))[1]
    assert isinstance(event, TreeChanged)
    assert event.tree == tree


def test_an_unknown_price_stays_unknown() -> None:
    charge = Charge(None, "judge", "m", Usage(1, 2, 3, 4, 5), None, "unknown", 0.5)
    assert trace.record(Charge, json.loads(json.dumps(trace.public(charge)))) == charge


def test_what_has_no_form_in_a_trace_is_refused(tmp_path: Path) -> None:
    log = Trace(tmp_path / "t")
    with pytest.raises(TypeError, match="cannot be written to a trace: object"):
        log.write(dataclasses.replace(START, settings={"x": object()}))
    log.close()
    assert (tmp_path / "t").read_bytes() == b""
