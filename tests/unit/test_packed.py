"""What a trace leaves out of its lines comes back when it is read, whoever wrote them and whatever became of a line."""

import base64
import json
import random
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import packed, trace
from harness.records import Charge, Evidence, FileState, Tree, Usage
from tasks.errors import DiskFull, InputError

START = trace.RunStarted(run="r", task={"id": "t", "issue": "x" * 2000}, settings={"models": ["m"]}, at=1.0)
TESTS = [f"tests/test_module_{n // 40}.py::TestCase::test_case_number_{n}" for n in range(1500)]


def charge() -> Charge:
    return Charge(attempt=1, model="m", purpose="act", usage=Usage(1, 1), usd=0.1, price_source="user", seconds=1.0)


def an_attempt(number: int, at: random.Random) -> Iterator[trace.Event]:
    """A reply that edits, as it is decided and carried out, and the evidence on what came of it."""
    yield trace.AttemptStarted(attempt=number, seed=number, model="m")
    content = "".join(f"def function_{at.random()}():\n    return {at.random()!r}\n" for _ in range(30))
    for turn in range(3):
        arguments = {"path": "a.py", "content": content + f"\n# turn {turn} of {number} \N{SNOWMAN}\n"}
        call = {"id": f"c{turn}", "name": "write", "arguments": arguments}
        function = {"name": "write", "arguments": json.dumps(arguments)}
        message = {"role": "assistant", "content": "So it goes.", "tool_calls": [{"id": "c", "function": function}]}
        key = f"{number}-{turn}"
        yield trace.Replied(attempt=number, key=key, message=message, charge=charge())
        yield trace.Decided(attempt=number, turn=turn, text="", calls=(call,))
        yield trace.ToolRan(attempt=number, turn=turn, call="c", name="write", result="written", seconds=0.1)
        gone = FileState("c.py", None if turn == 1 else content.encode())
        files = (FileState("a.py", arguments["content"].encode()), FileState("b.bin", bytes(range(256)) * 4), gone)
        yield trace.TreeChanged(attempt=number, turn=turn, tree=Tree(files))
        yield trace.TurnEnded(attempt=number, turn=turn, seconds=0.5)
    yield trace.AttemptEnded(attempt=number, status="submitted", patch=content, turns=3, seconds=2.0)
    chosen = [test for test in TESTS if at.random() < 0.95]
    regression = {test: at.choice(["failed", "missing"]) if at.random() < 0.01 else "passed" for test in chosen}
    evidence = Evidence(applies=True, valid=True, regression=regression, witness={"w": "passed"})
    yield trace.Verified(candidate=f"c{number}", attempts=(number,), key=f"k{number}", evidence=evidence)


def a_run(log: trace.Trace, seed: int) -> list[trace.Event]:
    """Five attempts, their events in turn, as they were written."""
    at = random.Random(seed)
    written, going = [log.write(START)], [an_attempt(number, at) for number in range(5)]
    while going:
        one = at.choice(going)
        try:
            written.append(log.write(next(one)))
        except StopIteration:
            going.remove(one)
    return written


@pytest.mark.parametrize("seed", range(5))
def test_a_run_is_read_as_it_was_written_and_takes_little_room(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "trace.jsonl"
    log = trace.Trace(path)
    written = a_run(log, seed)
    log.close()
    assert list(trace.read(path)) == written
    plain = sum(len(json.dumps(trace.to_json(event))) for event in written)
    assert path.stat().st_size < 0.25 * plain


def test_several_writers_and_a_later_one_do_not_need_each_other(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    written: list[trace.Event] = []
    first, other = trace.Trace(path), trace.Trace(path)
    written.append(first.write(START))
    for number in range(4):
        for event in an_attempt(number, random.Random(number)):
            written.append(first.write(event))
        hidden = dict.fromkeys(TESTS[:300], "passed")
        written.append(other.write(trace.Graded(candidate=f"c{number}", resolved=True, pass_to_pass=hidden)))
    first.close()
    other.close()
    later = trace.Trace(path)
    written.append(later.write(trace.RunResumed()))
    for event in an_attempt(9, random.Random(9)):
        written.append(later.write(event))
    later.close()
    assert list(trace.read(path)) == written


def test_a_line_that_found_no_room_is_not_counted_on_later(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = trace.Trace(path)
    written = [log.write(START)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(3):
        for place, event in enumerate(an_attempt(number, random.Random(number))):
            if place in (1, 2, 4, 17):
                resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
                try:
                    with pytest.raises(DiskFull):
                        log.write(event)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            written.append(log.write(event))
    log.close()
    assert list(trace.read(path)) == written


def test_a_trace_that_lacks_a_line_is_refused_where_the_line_was_needed(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    log = trace.Trace(path)
    a_run(log, 1)
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    needed = [n for n, line in enumerate(lines) if b'"packed"' in line or b'"kind":"replied"' in line]
    for gone in (needed[0], needed[7], needed[-2]):
        path.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
        with pytest.raises(
            InputError, match=r"line \d+: not an event of a Troop trace \(a line before it is missing\)"
        ):
            list(trace.read(path))


def bomb(size: int) -> str:
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(made.compress(b" " * size) + made.flush()).decode()


@pytest.mark.parametrize("kind", ["tree-changed", "verified"])
def test_lines_that_say_little_and_unpack_to_much_are_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each repeats what the one before it unpacked to."""
    monkeypatch.setattr(packed, "AT_MOST", 3_000_000)
    path = tmp_path / "trace.jsonl"
    log = trace.Trace(path)
    log.write(trace.RunStarted(run="r", task={"id": "t"}, settings={"models": ["m"]}))
    log.write(trace.AttemptStarted(attempt=0, seed=0, model="m"))
    log.write(trace.AttemptEnded(attempt=0, status="submitted", patch="", turns=1, seconds=1.0))
    tree = Tree((FileState("a", b"x" * 100_000),))
    evidence = Evidence(applies=True, valid=True, regression=dict.fromkeys(TESTS, "passed"))
    for number in range(100):
        if kind == "verified":
            log.write(trace.Verified(candidate="c1", attempts=(0,), key=str(number), evidence=evidence))
        else:
            log.write(trace.TreeChanged(attempt=0, turn=number, tree=tree))
    log.close()
    assert path.stat().st_size < 60_000
    with pytest.raises(InputError, match="unpacks to more than any run's"):
        list(trace.read(path))


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ({"tree": "!"}, "cut off"),
        ({"tree": bomb(3000)[:-8]}, "cut off"),
        ({"tree": base64.b64encode(b"\xff" * 100).decode()}, "packed"),
        ({"tree": bomb(3000)}, "Expecting value"),
        ({"tree": bomb(5000)}, "larger than any run's"),
        ({"tree": 5}, ""),
        (["tree"], ""),
    ],
)
def test_what_cannot_be_unpacked_is_refused(
    tmp_path: Path, left_out: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "AT_MOST", 4000)
    path = tmp_path / "trace.jsonl"
    log = trace.Trace(path)
    log.write(trace.RunStarted(run="r", task={"id": "t"}, settings={"models": ["m"]}))
    log.close()
    line = {"kind": "tree-changed", "turn": 1, "attempt": 1, "by": "ab-0", "packed": left_out}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=f"line 2: not an event of a Troop trace .*{said}"):
        list(trace.read(path))
