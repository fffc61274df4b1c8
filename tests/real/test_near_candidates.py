"""Near tests as evidence for the ranker: run on the base, held against candidates; what hangs, dies or tells nothing costs
little."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from harness.environments.environment import CleanRoom
from harness.evidence.near import near_tests
from harness.sandbox.base import WORKDIR, Provider, Sandbox
from tests.bench.evidence import NOTHING_RAN, TestFacts, held_against
from tests.support.environments import COMMAND, freeze
from tests.support.repositories import make_repository, make_task

CODE = "def net(gross):\n    return gross / 2\n\n\ndef total(prices):\n    return sum(prices)\n"
TESTS = """\
import itertools
import pathlib
import time

import pytest

from shop import net, total

LEFT = pathlib.Path("left")


def test_net():
    assert net(4) == 2


def test_total():
    assert total([1, 2]) == 3


def test_red():
    assert net(1) == 0


def test_only_alone():
    assert not LEFT.exists()


def test_never_ends():
    for _ in itertools.count():
        time.sleep(0.1)


@pytest.mark.skip
def test_off(): ...
"""
FILES = {
    "shop.py": CODE,
    "tests/test_shop.py": TESTS,
    "tests/test_other.py": "from tests.test_shop import LEFT\n\n\ndef test_leaves_something():\n    LEFT.touch()\n",
    "tests/test_broken.py": "import nothing_of_that_name\n",
    "tests/__init__.py": "",
}
NEAREST = ["tests/test_shop.py", "tests/test_other.py", "tests/test_broken.py"]
GREEN = ("tests/test_other.py::test_leaves_something", "tests/test_shop.py::test_net", "tests/test_shop.py::test_total")

T = TypeVar("T")


SECONDS = 6.0
"""Of near tests."""


def on_bench(provider: Provider, place: Path, work: Callable[[CleanRoom], Awaitable[T]]) -> T:
    """Do `work` with the environment of a repository made of FILES."""

    async def scenario() -> T:
        built = await freeze(provider, make_task(place))
        assert built.test_command == COMMAND
        return await work(CleanRoom(provider, built, "tests", test_seconds=2.0, slots=asyncio.Semaphore(2)))

    return asyncio.run(scenario())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("shop"), FILES, date="2024-03-03T00:00:00+0000")


def held(provider: Provider, place: Path, code: str) -> TestFacts:
    """The facts about a candidate that leaves shop.py like that."""

    async def lay(sandbox: Sandbox) -> None:
        await sandbox.write(f"{WORKDIR}/shop.py", code.encode())

    return on_bench(provider, place, lambda room: held_against(room, GREEN, "candidate", lay, SECONDS))


def test_the_base_tells_what_passes_every_time(provider: Provider, place: Path) -> None:
    began = time.monotonic()
    found = on_bench(provider, place, lambda room: near_tests(room, NEAREST, SECONDS))
    assert found.green == GREEN and found.flaky == ("tests/test_shop.py::test_only_alone",)
    assert time.monotonic() - began < 60, "the test that never ends is not waited for"


def test_what_a_candidate_breaks_is_told(provider: Provider, place: Path) -> None:
    assert held(provider, place, CODE) == TestFacts(3, ())
    assert held(provider, place, CODE.replace("gross / 2", "0")) == TestFacts(3, ("tests/test_shop.py::test_net",))


@pytest.mark.slow
def test_a_candidate_that_hangs_in_one_test_fails_that_one(bubblewrap: Provider, place: Path) -> None:
    began = time.monotonic()
    facts = held(bubblewrap, place, CODE.replace("return gross / 2", "while True: gross += 1"))
    assert facts.broken == ("tests/test_shop.py::test_net",)
    assert time.monotonic() - began < 120


@pytest.mark.slow
def test_a_candidate_that_hangs_at_its_import_is_told_by_nothing_having_run(bubblewrap: Provider, place: Path) -> None:
    facts = held(bubblewrap, place, "while True:\n    pass\n")
    assert facts.broken == (NOTHING_RAN,) and "stopped after" in facts.reason


def test_a_candidate_that_cannot_be_imported_breaks_everything(bubblewrap: Provider, place: Path) -> None:
    assert held(bubblewrap, place, "import nothing_of_that_name\n").broken == GREEN


def test_what_fails_only_now_and_then_is_not_broken(bubblewrap: Provider, place: Path) -> None:
    """The first of the two sandboxes finds a test failing, the second does not."""
    laid: list[None] = []

    async def lay(sandbox: Sandbox) -> None:
        laid.append(None)
        await sandbox.write(f"{WORKDIR}/shop.py", CODE.replace("/ 2", "/ 3" if len(laid) == 1 else "/ 2").encode())

    facts = on_bench(bubblewrap, place, lambda room: held_against(room, GREEN, "candidate", lay, SECONDS))
    assert facts == TestFacts(3, ()) and len(laid) == 2


SYMPY_TESTS = """\
from sympy.testing.pytest import XFAIL, skip, slow
from sympy import Symbol, expand

x = Symbol("x")


def test_expand():
    assert expand((x + 1)**2) == x**2 + 2*x + 1


def test_wrong():
    assert x == 1


def test_raises():
    raise ValueError("why")


def test_never_ends():
    while True:
        pass


@XFAIL
def test_known():
    assert x == 2


@slow
def test_slow():
    assert True


def test_needs_more():
    skip("no display")
"""


@pytest.mark.network
def test_sympys_own_runner_reports_test_by_test(sympy: Path, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(SYMPY_TESTS)
    (tmp_path / "test_b.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "test_c.py").write_text("def test_one():\n    pass\n\n\ndef test_two():\n    pass\n")

    def outcomes(*wanted: str) -> tuple[int, dict[str, str], int]:
        (tmp_path / "select").write_text(json.dumps(wanted))
        report = tmp_path / "report"
        report.unlink(missing_ok=True)
        told = {"TROOP_REPORT": str(report), "TROOP_SELECT": str(tmp_path / "select"), "TROOP_TEST_SECONDS": "2"}
        runner = Path(__file__).parents[2] / "harness/inside/troop_sympy.py"
        environment = {**told, "PYTHONPATH": str(sympy), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, str(runner)], cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=120
        )
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        assert "begin" in lines[0] and "finish" in lines[-1]
        return done.returncode, {x["test"]: x["outcome"] for x in lines if "test" in x}, lines[-1]["exit"]

    assert outcomes("test_a.py", "test_b.py", "test_c.py::test_two") == (
        1,
        {
            "test_a.py::test_expand": "passed",
            "test_a.py::test_wrong": "failed",
            "test_a.py::test_raises": "failed",
            "test_a.py::test_never_ends": "failed",
            "test_a.py::test_known": "skipped",
            "test_a.py::test_slow": "skipped",
            "test_a.py::test_needs_more": "skipped",
            "test_b.py": "error",
            "test_c.py::test_two": "passed",
        },
        1,
    )
    assert outcomes("test_c.py") == (0, {"test_c.py::test_one": "passed", "test_c.py::test_two": "passed"}, 0)
