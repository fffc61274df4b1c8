"""What others wrote ends nobody: source that breaks the parser, and damaged files of every kind that Troop reads."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import cli
from agent.choice.candidates import candidates_of
from agent.choice.hearing import written_test
from agent.choice.questions import fenced_test
from agent.config import load_config
from agent.repair.mutate import mutants
from agent.run_files import RunFiles
from harness import trace
from harness.cache import read_json
from harness.choosing.features import rows
from harness.choosing.found import InstanceEvidence
from harness.choosing.gather import gather_static
from harness.choosing.pool import Sample, read_candidates
from harness.choosing.probes import probes_of, steps_of
from harness.choosing.ranker import SHIPPED, read_weights
from harness.choosing.statement import Statement
from harness.code.facts import MOST_BYTES, parsed, undefined_names
from harness.environments.project import read_project
from harness.evidence.regression import touched_by
from harness.patches.patch import Patch
from harness.repository.base_tree import BaseTree, Patched, open_tree
from harness.swebench.predictions import read_predictions
from harness.views.replay_frames import frames
from harness.views.report import solve_report
from tasks.errors import InputError
from tasks.taskfile import load_task_file
from tests.bench.evidence import evidence_so_far, write_found
from tests.support.calculator import FILES, STATEMENT, make_repository

RUN = Path(__file__).parents[1] / "data/run-schema-1"

HOSTILE = {
    "latin-1": b'x = "caf\xe9"\n',
    "unknown coding": b"# coding: klingon\nx = 1\n",
    "no text coding": b"# coding: hex\nx = 1\n",
    "minus signs": b"x = " + b"-" * 50_000 + b"1\n",
    "nots": b"x = " + b"not " * 50_000 + b"1\n",
    "brackets": b"x = " + b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "attributes": b"x = a" + b".b" * 50_000 + b"\n",
    "elifs": b"if 1: pass\n" + b"elif 1: pass\n" * 20_000,
    "just shallow enough": b"x = " + b"-" * 200 + b"1\ny = 1" + b" + y" * 200 + b"\n",
    "zero bytes": b"x = 1\0\n",
    "a long number": b"x = " + b"9" * 100_000 + b"\n",
    "a huge number": b"x = 0x" + b"f" * 100_000 + b"\n",
    "too much": b"x = 1\n" * (MOST_BYTES // 6 + 1),
}
UNREADABLE = HOSTILE.keys() - {"just shallow enough", "a huge number"}


def rewriting(path: str, content: bytes) -> str:
    """The diff that makes the calculator's file, or a new one, hold this."""
    before = FILES.get(path, "").splitlines()
    after = content.decode("utf-8", "surrogateescape").split("\n")[:-1]
    head = f"diff --git a/{path} b/{path}\n" + ("" if before else "new file mode 100644\n")
    head += f"--- {f'a/{path}' if before else '/dev/null'}\n+++ b/{path}\n"
    at = f"@@ -{bool(before):d},{len(before)} +1,{len(after)} @@\n"
    return head + at + "".join(f"-{line}\n" for line in before) + "".join(f"+{line}\n" for line in after)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseTree]:
    repository = make_repository(tmp_path_factory.mktemp("hostile"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    with open_tree(repository, head.stdout.strip()) as opened:
        yield opened


@pytest.mark.parametrize("name", HOSTILE)
def test_no_source_ends_who_parses_it(name: str, tree: BaseTree) -> None:
    source = HOSTILE[name]
    text = source.decode("utf-8", "surrogateescape")
    assert (parsed(source) is None) == (name in UNREADABLE)
    assert name not in UNREADABLE or undefined_names(source) == frozenset()
    assert len(written_test(*fenced_test(f"```python\n{text}```\n"))) == 2
    assert isinstance(mutants({"calc.py": text}, {("calc.py", 1): 1.0}), list)
    assert read_project(["setup.py", "pyproject.toml"], lambda path: source).packages == ()
    assert touched_by([rewriting("calc.py", source)], lambda path: source).paths == ("calc.py",)
    assert isinstance(steps_of(text), list)
    call = text.strip().partition("= ")[2] or text.strip()
    assert isinstance(probes_of(Statement(f"f({call})\n\nIt says `f({call})`.\n\n```python\n{text}```\n")), tuple)


def test_a_source_that_crashes_the_compiler_has_no_mutants() -> None:
    script = (
        "from agent.repair.mutate import mutants\nfrom agent.repair.mutation.source import compiles\n"
        "text = 'y = 1\\nx = [z ' + 'for z in y ' * 60_000 + ']\\n'\n"
        "found = mutants({'a.py': text}, {('a.py', 1): 1.0})\n"
        "print(sum(compiles(each.apply(text)) for each in found))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr[-500:]


@pytest.mark.parametrize("place", ["calc.py", "new.py"])
def test_one_hostile_candidate_ends_no_choice_among_the_others(place: str, tree: BaseTree) -> None:
    names = [name for name in HOSTILE if name not in ("too much",)]
    right = FILES["calc.py"].replace("values[1:]", "values").encode()
    patches = {name: rewriting(place, HOSTILE[name]) for name in names} | {"right": rewriting("calc.py", right)}
    patches["odd name"] = rewriting("x.py", b"x = 1\n").replace("b/x.py", '"b/\\777\\000x.py"')
    samples = tuple(Sample("i", name, name, patch) for name, patch in patches.items())
    evidence = gather_static(InstanceEvidence("i", samples), STATEMENT, tree)
    facts = {sample.source: evidence.of(sample).static for sample in samples}
    assert facts["right"].applies == "clean" and facts["right"].unparsed == ()
    assert {name for name in names if facts[name].unparsed == (place,)} == {*UNREADABLE} - {"too much"}
    assert len(rows(evidence)) >= 2


def test_a_candidate_that_cannot_even_be_looked_at_is_said_not_to_apply(tree: BaseTree) -> None:
    odd, right = (Sample("i", name, name, rewriting("calc.py", f"{name} = 1\n".encode())) for name in ("odd", "right"))

    class Faulty(BaseTree):
        """A tree that fails on one patch, as a fault of Troop's own would."""

        def __init__(self) -> None:
            """Nothing of its own."""

        def files(self) -> list[str]:
            return tree.files()

        def patched(self, patch: str, *, contents: bool = True) -> Patched:
            if patch == odd.patch:
                raise RecursionError("much too deep")
            return tree.patched(patch, contents=contents)

    evidence = gather_static(InstanceEvidence("i", (odd, right)), STATEMENT, Faulty())
    assert evidence.of(right).static.applies == "clean"
    assert evidence.of(odd).static.applies == "no"
    assert evidence.of(odd).static.reason.startswith("it cannot be looked at: RecursionError: much too deep")


def test_names_in_a_patch_are_read_as_git_reads_them() -> None:
    def named(name: str) -> tuple[str, ...]:
        return Patch(f"diff --git {name} {name}\n--- {name}\n+++ {name}\n@@ -1 +1 @@\n-a\n+b\n").paths

    assert named('"b/caf\\303\\251.py"') == ("café.py",)
    assert named('"b/a\\000b.py"') == ("a",) and named("b/a\0b.py") == ("a",)
    assert named('"b/\\777.py"') == ("777.py",)
    assert named('"b/open\\') == ("open",)
    assert Patch(f"--- a/x\n+++ b/x\n@@ -{'9' * 5000} +1 @@\n").changes[0].hunks == ()


# Damaged files

DEEP = b"[" * 100_000
ODD: list[Any] = [None, True, -1, 1e400, "\ud800", "a\0b", "x" * 20, [], {}, [[1]], {"b64": "!"}, {"kind": 5}]


def damages(content: bytes, seed: int) -> Iterator[bytes]:
    """A file with one or two things wrong: cut, spliced, of odd bytes; in JSON, one value or key of another kind."""
    at = random.Random(seed)
    here, there = sorted((at.randrange(len(content)), at.randrange(len(content))))
    yield content[:here]
    yield content[:here] + content[there:]
    yield content[:here] + at.choice([b"\xff", b"\0", b'"', b"\n", b"{}", DEEP, b"9" * 5000]) + content[here:]
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    for number in at.sample(range(len(lines)), min(3, len(lines))):
        with contextlib.suppress(ValueError):
            row = json.loads(lines[number])
            places = list(_places(row))
            holder, key = at.choice(places)
            if at.random() < 0.3:
                del holder[key]
            else:
                holder[key] = at.choice(ODD)
            yield b"\n".join([*lines[:number], json.dumps(row).encode(), *lines[number + 1 :]])
    if len(lines) > 1:
        gone = at.randrange(len(lines))
        yield b"\n".join(lines[:gone] + lines[gone + 1 :])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(inner)


def folded(path: Path) -> None:
    """All that is made of a trace: the report, the replay, the candidates."""
    events = list(trace.read(path))
    json.dumps(solve_report(events))
    candidates_of(events)
    for attempt in {e.attempt for e in events if e.attempt is not None}:
        frames(events, attempt)


TASK = f"""statement = "{STATEMENT.strip()}"
id = "calculator"
[repository]
path = "."
[environment]
python = "3.11"
setup = ["true"]
[tests]
command = "python -m pytest"
[failing_test]
ids = ["tests/test_issue.py::test_a"]
files = {{ "tests/test_issue.py" = "def test_a(): assert 0" }}
"""
CONFIG = '[models.local]\nname = "m"\nbase_url = "http://127.0.0.1:1/v1"\nsampling = { temperature = 0.5 }\n'
CHANGE = rewriting("calc.py", b"x = 1\n")
PREDICTIONS = [{"instance_id": "i", "model_name_or_path": "m", "model_patch": CHANGE, "rank": 1}]


def evidence_file(place: Path) -> bytes:
    sample = (Sample("i", "s", "m", CHANGE),)
    write_found(place, gather_static(InstanceEvidence("i", sample), STATEMENT, None))
    return (place / "evidence/i.json").read_bytes()


READERS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "trace": ("trace.jsonl", lambda at: (RUN / "trace.jsonl").read_bytes(), lambda at: folded(at / "trace.jsonl")),
    "run": ("run.json", lambda at: (RUN / "run.json").read_bytes(), lambda at: RunFiles(at).read_run()),
    "predictions": (
        "p.jsonl",
        lambda at: json.dumps(PREDICTIONS[0]).encode() + b"\n",
        lambda at: [Patch(p.patch).flags for p in read_predictions(at / "p.jsonl", {"i"})],
    ),
    "pool": (
        "p.json",
        lambda at: json.dumps(PREDICTIONS).encode(),
        lambda at: gather_static(InstanceEvidence("i", tuple(read_candidates([at / "p.json"], "i"))), STATEMENT, None),
    ),
    "patch": (
        "i.patch",
        lambda at: CHANGE.replace("b/calc", '"b/\\303\\251').encode(),
        lambda at: [Patch(s.patch).flags for s in read_candidates([at / "i.patch"], "i")],
    ),
    "task file": ("t.toml", lambda at: TASK.encode(), lambda at: load_task_file(at / "t.toml")),
    "configuration": ("troop.toml", lambda at: CONFIG.encode(), lambda at: load_config()),
    "evidence": ("evidence/i.json", evidence_file, lambda at: evidence_so_far(at, "i")),
    "weights": ("w.json", lambda at: SHIPPED.read_bytes(), lambda at: read_weights(at / "w.json")),
    "cache": ("c.json", lambda at: b'{"a": [1, {"b": 2}]}', lambda at: read_json(at / "c.json")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("name", READERS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(name: str, seed: int, place: Path) -> None:
    file, make, read = READERS[name]
    directory = place / name
    directory.mkdir(exist_ok=True)
    whole = make(directory)
    (directory / file).write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("HOME", str(directory))
        read(directory)
        for damaged in damages(whole, seed):
            (directory / file).write_bytes(damaged)
            try:
                read(directory)
            except InputError as error:
                assert "\n" not in str(error).strip() and str(error)
            except OSError:
                assert name == "task file"  # a directory's name is too long: the command line says so in a sentence


def spoilt(trace_lines: list[bytes], what: str) -> list[bytes]:
    """The recorded trace with one thing wrong."""
    if what == "no end of an attempt":
        first = next(n for n, line in enumerate(trace_lines) if b'"kind":"attempt-ended"' in line)
        return trace_lines[:first] + trace_lines[first + 1 :]
    kind, wrong = {"schema": (b'"schema":1', b'"schema":"one"'), "deep": (b'"schema":1', b'"schema":' + DEEP)}[what]
    return [line.replace(kind, wrong) for line in trace_lines]


@pytest.mark.parametrize("command", ["report", "replay", "resume"])
@pytest.mark.parametrize(
    "what", ["no end of an attempt", "schema", "deep", "run.json deep", "run.json types", "folder"]
)
def test_a_damaged_run_is_refused_in_one_sentence_and_stays_as_it_is(
    what: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    if what == "folder":
        (run / "trace.jsonl").unlink()
        (run / "trace.jsonl").mkdir()
    elif what.startswith("run.json"):
        wrong = DEEP if what.endswith("deep") else b'{"task": {"id": 5}, "settings": {"budget": 5}, "source": ""}'
        (run / "run.json").write_bytes(wrong)
    else:
        lines = (RUN / "trace.jsonl").read_bytes().splitlines(keepends=True)
        (run / "trace.jsonl").write_bytes(b"".join(spoilt(lines, what)))
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file() and path.suffix != ".lock"}
    code = cli.main([command, str(run), *(["--json"] if command == "replay" else [])])
    said = capsys.readouterr().err.strip()
    if what.startswith("run.json") and command != "resume":
        assert code == 0  # the trace is the record
        return
    assert code in (2, 4) and said.startswith("troop: ") and "\n" not in said
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("content", [None, DEEP, b"\xff", b"{}", b'{"schema": 1, "instances": 5}'])
def test_a_report_that_cannot_be_read_is_told_in_one_sentence(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval.json").write_text("{}")
    place = tmp_path / "report.json"
    place.mkdir() if content is None else place.write_bytes(content)
    code = cli.main(["report", str(tmp_path)])
    said = capsys.readouterr().err.strip()
    assert code in (2, 4) and said.startswith("troop: ") and "\n" not in said
