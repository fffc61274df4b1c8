"""What others wrote ends nobody: source that breaks the parser, and damaged files of every kind that Troop reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.choice.judge import written_test
from agent.repair.mutate import mutants
from harness.choosing.evidence_store import InstanceEvidence
from harness.choosing.features import rows
from harness.choosing.gather import gather_static
from harness.choosing.pool import Sample
from harness.choosing.probes import probes_of, steps_of
from harness.choosing.statement import Statement
from harness.code.facts import MOST_BYTES, parsed, undefined_names
from harness.environments.project import read_project
from harness.evidence.regression import touched_by
from harness.patches.patch import Patch
from harness.repository.base_tree import BaseTree, Patched, open_tree
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
    "just shallow enough": b"x = " + b"-" * 400 + b"1\ny = 1" + b" + y" * 400 + b"\n",
    "zero bytes": b"x = 1\0\n",
    "a long number": b"x = " + b"9" * 100_000 + b"\n",
    "a huge number": b"x = 0x" + b"f" * 100_000 + b"\n",
    "too much": b"x = 1\n" * (MOST_BYTES // 5),
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
    assert len(written_test(f"```python\n{text}```\n")) == 3
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

        def paths(self) -> list[str]:
            return tree.paths()

        def patched(self, patch: str) -> Patched:
            if patch == odd.patch:
                raise RecursionError("much too deep")
            return tree.patched(patch)

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
