"""A suite that would take minutes: only the tests near a change are ever run, and they tell what a candidate breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import resume, solve
from agent.assemble import Solution
from harness import trace
from harness.environments.base_run import NEAR_LATER, Baseline, baseline
from harness.environments.environment import CleanRoom
from harness.evidence.near import NO_FILES, NONE_GREEN, NOT_BY_FILE, near_baseline, what_is_touched
from harness.evidence.regression import choose
from harness.evidence.verify import verify
from harness.sandbox.base import Provider
from tasks.errors import SetupFailed
from tasks.task import GivenTest, Repository, Task
from tests.support import calculator
from tests.support.calculator import PLAN, RIGHT, SUBMIT, WRONG, call, settings
from tests.support.environments import COMMAND, freeze, remove_made
from tests.support.model_server import Answer, Request, serving
from tests.support.repositories import make_repository, make_task, opened

SLOW = "import time\n\n\ndef test_slow():\n    time.sleep(100)\n"
FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": "def net(gross):\n    return gross / 2\n\n\ndef rounded(price):\n    return round(price, 2)\n",
    "shop/stock.py": "LEFT = {}\n\n\ndef take(name):\n    return LEFT.get(name, 0)\n",
    "tests/test_prices.py": (
        """\
import pathlib
import time

from shop.prices import net, rounded


def test_net():
    assert net(4) == 2


def test_rounded():
    assert rounded(1.005) == 1.0


def test_red():
    assert net(0) == 1


def test_only_alone():
    assert not pathlib.Path("left-over").exists()
"""
    ),
    "tests/test_basket.py": (
        """\
import pathlib

from shop import prices


def test_basket():
    assert prices.net(10) == 5


def test_leaves_something():
    pathlib.Path("left-over").touch()
"""
    ),
    "tests/test_stock.py": "from shop.stock import take\n\n\ndef test_take():\n    assert take('a') == 0\n",
    "tests/a/test_first.py": SLOW,
    **{f"tests/slow/test_{name}.py": SLOW for name in ("books", "carts", "deals", "forms")},
}
BETTER = """\
diff --git a/shop/prices.py b/shop/prices.py
--- a/shop/prices.py
+++ b/shop/prices.py
@@ -1,5 +1,5 @@
 def net(gross):
-    return gross / 2
+    return gross * 0.5


 def rounded(price):
"""
WORSE = BETTER.replace("gross * 0.5", "gross - 2")
GUARDING = {
    "tests/test_prices.py::test_net",
    "tests/test_prices.py::test_rounded",
    "tests/test_basket.py::test_basket",
    "tests/test_basket.py::test_leaves_something",
}


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    yield
    remove_made()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    place = make_repository(tmp_path_factory.mktemp("shop"), FILES, date="2024-02-02T00:00:00+0000")
    return replace(make_task(place), test_scope="near")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What one test finds out is not kept for the next."""
    import harness.evidence.near

    monkeypatch.setattr(harness.evidence.near, "cache_root", lambda: tmp_path / "cache")


def found(
    provider: Provider,
    task: Task,
    *patches: str,
    seconds: float = 60.0,
    command: str = COMMAND,
    test_seconds: float = 2.0,
) -> Baseline:
    async def scenario() -> Baseline:
        workspace = await opened(task)
        built = replace(await freeze(provider, task), test_command=command)
        room = CleanRoom(provider, built, "tests", test_seconds=test_seconds)
        return await near_baseline(room, workspace, what_is_touched(workspace, patches), seconds=seconds)

    return asyncio.run(scenario())


def test_only_the_files_near_the_change_are_run(provider: Provider, task: Task) -> None:
    began = time.monotonic()
    near = found(provider, task, BETTER)
    assert time.monotonic() - began < 60, "one of the slow files takes longer"
    assert near.report is not None
    assert {test.partition("::")[0] for test in near.report.outcomes} == {
        "tests/test_prices.py",
        "tests/test_basket.py",
    }
    assert near.report.outcomes["tests/test_prices.py::test_red"] == "failed"


def test_what_does_not_pass_in_company_is_left_out(bubblewrap: Provider, task: Task) -> None:
    near = found(bubblewrap, task, BETTER)
    assert near.report is not None
    assert near.flaky == ("tests/test_prices.py::test_only_alone",)
    assert near.report.passed - set(near.flaky) == GUARDING


def test_candidates_are_held_against_the_same_tests_and_what_breaks_is_seen(provider: Provider, task: Task) -> None:
    near = found(provider, task, BETTER, WORSE)
    assert near.report is not None

    async def scenario() -> list[tuple[str, ...]]:
        built = await freeze(provider, task)
        broken = []
        for name, patch in (("better", BETTER), ("worse", WORSE)):
            assert near.report is not None
            ids = choose(near.report, near.flaky, patch, seconds=60.0)
            assert set(ids) == near.report.passed - set(near.flaky)
            evidence = await verify(CleanRoom(provider, built, "tests"), task, name=name, patch=patch, regression=ids)
            assert evidence.valid, evidence.reason
            broken.append(evidence.broken)
        return broken

    better, worse = asyncio.run(scenario())
    assert better == ()
    assert worse == ("tests/test_basket.py::test_basket",)


def test_what_was_found_is_kept_by_file(bubblewrap: Provider, task: Task, tmp_path: Path) -> None:
    first = found(bubblewrap, task, BETTER)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "near").iterdir()}
    assert len(files) == 2
    assert found(bubblewrap, task, BETTER) == first
    other = BETTER.replace("prices.py", "stock.py").replace("def net(gross):", "LEFT = {}").replace("gross / 2", "")
    both = found(bubblewrap, task, BETTER, other)
    assert both.report is not None and "tests/test_stock.py::test_take" in both.report.outcomes
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "near").iterdir()}
    assert len(now) == 3 and files.items() <= now.items(), "only the new file was run"


def test_a_file_that_takes_too_long_counts_with_what_ran_in_time(bubblewrap: Provider, tmp_path: Path) -> None:
    slow = {**FILES, "tests/test_prices.py": FILES["tests/test_prices.py"] + "\n\n" + SLOW.partition("\n\n\n")[2]}
    task = make_task(make_repository(tmp_path / "shop", slow, date="2024-02-02T00:00:00+0000"))
    near = found(bubblewrap, task, BETTER, seconds=8.0, test_seconds=50.0)
    assert near.report is not None
    assert near.report.passed >= GUARDING
    assert "tests/test_prices.py::test_slow" not in near.report.outcomes


def test_there_may_be_nothing_near(bubblewrap: Provider, task: Task) -> None:
    far = (
        "diff --git a/setup.cfg b/setup.cfg\nnew file mode 100644\n--- /dev/null\n+++ b/setup.cfg\n@@ -0,0 +1"
        " @@\n+[x]\n"
    )
    assert found(bubblewrap, task, far) == Baseline(None, note=NO_FILES)
    assert found(bubblewrap, task, BETTER, command="make check") == Baseline(None, note=NOT_BY_FILE)


def test_there_may_be_nothing_green(bubblewrap: Provider, tmp_path: Path) -> None:
    red = {"shop/prices.py": FILES["shop/prices.py"], "tests/test_prices.py": "import nothing_of_that_name\n"}
    task = make_task(make_repository(tmp_path / "shop", red, date="2024-02-02T00:00:00+0000"))
    assert found(bubblewrap, task, BETTER) == Baseline(None, note=NONE_GREEN)


RUNTESTS = """\
import sys
import unittest

labels = [word for word in sys.argv[1:] if not word.startswith("-")]
suite = unittest.defaultTestLoader.loadTestsFromNames(labels) if labels else unittest.TestSuite()
result = unittest.TextTestRunner(verbosity=2).run(suite)
sys.exit(not labels or not result.wasSuccessful())
"""
CASE = (
    "import unittest\n\nfrom shop.prices import net\n\n\nclass T(unittest.TestCase):\n    def test_it(self):\n        "
)


def test_djangos_runner_tells_of_files_by_its_labels(bubblewrap: Provider, tmp_path: Path) -> None:
    files = {
        "shop/__init__.py": "",
        "shop/prices.py": FILES["shop/prices.py"],
        "tests/runtests.py": RUNTESTS,
        "tests/prices/__init__.py": "",
        "tests/prices/tests.py": CASE + "self.assertEqual(net(4), 2)\n",
        "tests/prices/test_more.py": CASE + "self.assertEqual(net(10), 5)\n",
        "tests/prices/test_red.py": CASE + "self.assertEqual(net(10), 6)\n",
    }
    task = make_task(make_repository(tmp_path / "shop", files, date="2024-02-02T00:00:00+0000"))
    command = "PYTHONPATH=. python tests/runtests.py --verbosity=2"
    near = found(bubblewrap, task, BETTER, WORSE, command=command)
    assert near.report is not None
    assert near.report.passed == {"tests/prices/tests.py", "tests/prices/test_more.py"} and not near.flaky
    assert near.report.failed == {"tests/prices/test_red.py"}

    async def scenario(patch: str) -> tuple[str, ...]:
        built = replace(await freeze(bubblewrap, task), test_command=command)
        ids = tuple(sorted(near.report.passed if near.report else ()))
        evidence = await verify(CleanRoom(bubblewrap, built, "tests"), task, name="c", patch=patch, regression=ids)
        assert evidence.valid, evidence.reason
        return evidence.broken

    assert asyncio.run(scenario(BETTER)) == ()
    assert asyncio.run(scenario(WORSE)) == ("tests/prices/test_more.py", "tests/prices/tests.py"), "told of the whole"


def base_run(provider: Provider, task: Task) -> Baseline:
    async def scenario() -> Baseline:
        return await baseline(CleanRoom(provider, await freeze(provider, task), "tests", test_seconds=2.0), task)

    return asyncio.run(scenario())


def test_preparing_runs_no_more_than_the_given_tests_file(bubblewrap: Provider, task: Task) -> None:
    assert base_run(bubblewrap, task) == Baseline(None, note=NEAR_LATER)
    began = time.monotonic()
    given = replace(task, failing_test=GivenTest(("tests/test_prices.py::test_red",)))
    prepared = base_run(bubblewrap, given)
    assert time.monotonic() - began < 60
    assert prepared.report is not None
    assert {test.partition("::")[0] for test in prepared.report.outcomes} == {"tests/test_prices.py"}
    with pytest.raises(SetupFailed, match="does not fail on the base"):
        base_run(bubblewrap, replace(task, failing_test=GivenTest(("tests/test_prices.py::test_net",))))


@pytest.fixture
def long_calculator(tmp_path: Path) -> Task:
    """The calculator with tests that take minutes beside those near to it."""
    for name in ("one", "two", "three"):
        path = tmp_path / "repository" / "tests" / "slow" / f"test_{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SLOW)
    place = calculator.make_repository(tmp_path / "repository")
    return Task("calculator", Repository("path", str(place)), calculator.STATEMENT, test_scope="near")


def of_kind(solution: Solution, kind: type[trace.Event]) -> list[trace.Event]:
    return [e for e in trace.read(solution.directory / "trace.jsonl") if isinstance(e, kind)]


def cut_after(done: Solution, kind: type[trace.Event]) -> Path:
    """The run's directory as if it had been killed right after its first event of that kind."""
    path = done.directory / "trace.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if f'"kind":"{kind.kind}"' in line)
    path.write_text("".join(lines[: place + 1]))
    return done.directory


@pytest.mark.network
@pytest.mark.bubblewrap
def test_a_solve_runs_near_tests_for_attempts_and_candidates_alike(long_calculator: Task, tmp_path: Path) -> None:
    said: list[str] = []

    def script(request: Request) -> Answer:
        said.append(str(request.body["messages"][-1]["content"]))
        # The temperature differs by attempt: the first attempt gets the wrong edit, the second the right one.
        edit = WRONG if request.body["temperature"] == 0.6 else RIGHT
        return [PLAN, call("test"), edit, call("test"), SUBMIT, SUBMIT][request.turn]

    with serving(script) as server:
        done = solve(long_calculator, settings(server.url, tmp_path / "runs", attempts=2))
        asked = len(server.requests)
        first = of_kind(done, trace.Event)
        again = resume(str(cut_after(done, trace.NearTested)))
        assert len(server.requests) == asked, "a resume asks nothing again"
    assert len(of_kind(again, trace.NearTested)) == 1, "nor does it run the base's tests again"
    assert again.selection == done.selection
    assert len(of_kind(again, trace.Verified)) == sum(isinstance(e, trace.Verified) for e in first) == 2
    assert done.report["seconds"] < 100, "each slow file takes longer"
    assert done.report["selected"]["attempt"] == 1 and done.report["selected"]["method"] == "regression"
    assert any("nothing is changed and no file was read so far" in text for text in said), "before the edit"
    assert any("2 passed, 0 failed" in text for text in said), "after it, by name"
    (near,) = of_kind(again, trace.NearTested)
    assert isinstance(near, trace.NearTested) and near.report is not None
    assert near.report.passed == {"tests/test_calc.py::test_largest", "tests/test_calc.py::test_total_of_nothing"}
    (prepared,) = of_kind(again, trace.Prepared)
    assert isinstance(prepared, trace.Prepared) and prepared.baseline is None and NEAR_LATER in prepared.note


@pytest.mark.network
@pytest.mark.bubblewrap
def test_adaptive_sampling_holds_each_candidate_against_near_tests_as_it_comes(
    long_calculator: Task, tmp_path: Path
) -> None:
    wide = call("edit", path="calc.py", old="return max(values)", new="return sorted(values)[-1]")

    def script(request: Request) -> Answer:
        # By the seed: the first attempt is wrong, the second right, the third touches another function as well.
        turns = {0: [PLAN, WRONG, SUBMIT], 7919: [PLAN, RIGHT, SUBMIT], 15838: [PLAN, RIGHT, wide, SUBMIT]}
        said = turns[request.body["seed"]]
        return said[min(request.turn, len(said) - 1)]

    with serving(script) as server:
        done = solve(long_calculator, settings(server.url, tmp_path / "runs", attempts=3, adaptive=True, concurrency=1))
    near = of_kind(done, trace.NearTested)
    verified = [e for e in of_kind(done, trace.Verified) if isinstance(e, trace.Verified)]
    assert [(e.candidate, e.early) for e in verified[:3]] == [("c1", True), ("c2", True), ("c3", True)]
    assert len(near) == 2, "once for the first two, which touch the same, and once more for what the third touches"
    last = {e.candidate: e for e in verified if not e.early}
    assert set(last) == {"c1", "c2", "c3"}
    assert all(set(e.evidence.regression) == set(last["c1"].evidence.regression) for e in last.values())
    assert last["c1"].evidence.broken and last["c2"].evidence.clean and last["c3"].evidence.clean
    assert done.report["selected"]["candidate"] == "c2", "the smaller change"
