"""The conformance suite of an executor, on this process and on a real Ray cluster of two nodes; and what a cluster has to
bear besides: a node that is killed, one that stands still, a driver that is killed.

Each node has a cache of its own; the first sets the environment up itself, later ones get a copy of it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import resume, solve
from agent.assemble import Solution, go
from agent.assemble import start as begun
from agent.run.places import Places
from agent.run.worker import AttemptJob, Terms
from harness import trace
from harness.cache import cache_root
from harness.environments.environment import Built
from harness.records import Budget
from harness.repository.workspace import open_workspace, packed, unpacked
from tasks.errors import BudgetExceeded, EndpointFailed
from tests.faults.test_resume import STEPS, run_directory, slow_script, start, turns
from tests.support.calculator import PLAN, RIGHT, SOLVING, call, make_repository, settings, task
from tests.support.cluster import Machines, workers_of
from tests.support.model_server import Answer, Request, error, serving
from tests.support.runs import SEEDS, events
from tests.support.waiting import wait_for

needs = [pytest.mark.network, pytest.mark.bubblewrap]
Solve = Callable[..., Solution]


@pytest.fixture(params=["local", "ray"])
def solved(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> Solve:
    """Solves the calculator's task by one executor, against a server at a URL."""
    if request.param == "ray":
        request.getfixturevalue("cluster")

    def by(url: str, **more: Any) -> Solution:
        given, person = task(repository, failing_test=bool(more.pop("failing_test", False))), more.pop("person", None)
        files, _, _ = begun(given, settings(url, tmp_path / "runs", executor=request.param, **more))
        return asyncio.run(go(files, listeners=[person.see] if person else [], view=person))

    return by


def add_ready(cluster: Machines, name: str) -> None:
    """A node whose cache holds the environments that this machine has by now."""
    if (cache_root() / "environments").is_dir():
        shutil.copytree(cache_root() / "environments", cluster.root / name / "environments", symlinks=True)
    cluster.add(name)


def of_kind(done: Solution, kind: type[trace.Event]) -> list[trace.Event]:
    return [event for event in events(done.directory) if isinstance(event, kind)]


def each_once(directory: Path) -> None:
    """No key was asked or answered twice."""
    for kind in (trace.Asked, trace.Replied):
        keys = collections.Counter(e.key for e in events(directory) if isinstance(e, kind))
        assert keys and max(keys.values()) == 1, (kind, keys)


class TestConformance:
    pytestmark = needs

    def test_attempts_are_made_charged_and_verified(self, solved: Solve) -> None:
        with serving(SOLVING) as server:
            done = solved(server.url, attempts=3, concurrency=3)
            asked = {(SEEDS[r.body["seed"]], r.turn) for r in server.requests if "seed" in r.body}
        assert done.exit_code == 0 and done.patch is not None and "-    for value in values[1:]" in done.patch
        assert asked == {(index, turn) for index in range(3) for turn in range(6)}
        each_once(done.directory)
        attempts = done.report["attempts"]
        assert [(a["index"], a["status"], a["turns"]) for a in attempts] == [(i, "submitted", 5) for i in range(3)]
        (candidate,) = done.report["candidates"]
        assert candidate["attempts"] == [0, 1, 2] and list(candidate["evidence"]["witness"].values()) == ["passed"]
        ordered = [e.turn for e in of_kind(done, trace.TurnEnded) if isinstance(e, trace.TurnEnded) and e.attempt == 1]
        assert ordered == [1, 2, 3, 4, 5]

    def test_repair_needs_no_model(self, solved: Solve) -> None:
        done = solved("", models=("repair",), failing_test=True, attempts=2, turns=60, concurrency=2)
        assert done.exit_code == 0 and done.report["cost"]["calls"] == 0

    def test_a_cap_of_the_run_is_told_once_and_holds(self, solved: Solve) -> None:
        usage = {"prompt_tokens": 4000, "completion_tokens": 100, "total_tokens": 4100}

        def script(request: Request) -> Answer:
            said = [PLAN, RIGHT][request.turn] if request.turn < 2 else call("run", command=f"echo {request.turn}")
            return replace(said, usage=usage)

        with serving(script) as server:
            done = solved(server.url, budget=Budget(attempts=3, turns=50, tokens=60_000), concurrency=3)
            asked = len(server.requests)
        assert {a["status"] for a in done.report["attempts"]} == {"budget"}
        assert len(of_kind(done, trace.BudgetReached)) == 1
        assert asked * 4100 <= 60_000 and done.exit_code == 0, "the patches were made before the budget ended"

    def test_the_time_of_an_attempt_is_up(self, solved: Solve) -> None:
        def slow(request: Request) -> Answer:
            return replace(PLAN if request.turn == 0 else call("run", command=f"sleep 0.3{request.turn}"), delay=0.2)

        with serving(slow) as server:
            done = solved(server.url, budget=Budget(attempts=1, turns=500, attempt_seconds=6.0))
        (ended,) = done.report["attempts"]
        assert ended["status"] == "budget" and 1 <= ended["turns"] <= 15

    def test_a_server_that_refuses_ends_attempts_as_the_worlds_failure(self, solved: Solve) -> None:
        def script(request: Request) -> Answer:
            return SOLVING[request.turn] if request.turn < 2 else error(401, "no such key")

        with serving(script) as server, pytest.raises(EndpointFailed, match="401"):
            solved(server.url, attempts=2, concurrency=1)

    def test_what_is_under_way_is_broken_off_when_a_candidate_is_good_enough(self, solved: Solve) -> None:
        began = time.monotonic()
        with serving(second_waits(after=1)) as server:
            done = solved(server.url, attempts=2, concurrency=2, until="likely", failing_test=True)
        assert [a["status"] for a in done.report["attempts"]] == ["submitted", "interrupted"]
        assert done.exit_code == 0 and time.monotonic() - began < 90

    def test_what_a_person_stops_ends_as_it_stands(self, solved: Solve) -> None:
        began = time.monotonic()
        with serving(second_waits(after=3)) as server:
            done = solved(server.url, attempts=2, concurrency=2, person=Person())
        first, second = done.report["attempts"]
        assert (first["status"], second["status"], second["turns"]) == ("submitted", "interrupted", 3)
        assert second["candidate"] is not None and done.exit_code == 0 and time.monotonic() - began < 90
        each_once(done.directory)


def second_waits(after: int) -> Callable[[Request], Answer]:
    """The model's part: what solves it; the second attempt waits for its answers after that turn."""

    def script(request: Request) -> Answer:
        late = SEEDS.get(request.body.get("seed", -1)) == 1 and request.turn > after
        return replace(SOLVING[min(request.turn, 5)], delay=120.0 if late else 0.0)

    return script


class Person:
    """Stops the second attempt when it has done three turns."""

    busy = staticmethod(contextlib.nullcontext)

    def attend(self, stop: Callable[[int | None], None]) -> None:
        self.stop = stop

    def see(self, event: trace.Event) -> None:
        if isinstance(event, trace.TurnEnded) and (event.attempt, event.turn) == (1, 3):
            asyncio.get_running_loop().call_later(1.0, self.stop, 1)


@pytest.mark.slow
class TestCluster:
    pytestmark = needs

    def test_a_killed_node_costs_at_most_the_turns_under_way(self, cluster: Machines, tmp_path: Path) -> None:
        repository = make_repository(tmp_path / "calculator")
        add_ready(cluster, "two")
        ended: set[int | None] = set()

        def watch(event: trace.Event) -> None:
            if isinstance(event, trace.TurnEnded) and len(ended) < 4:
                ended.add(event.attempt)
                if len(ended) == 4:  # two of them are on the second node, then
                    threading.Thread(target=cluster.kill, args=("two",)).start()

        with serving(slow_script) as server:
            given = settings(server.url, tmp_path / "runs", attempts=4, concurrency=4, executor="ray")
            done = solve(task(repository), given, listener=watch)
            asked = collections.Counter((SEEDS[r.body["seed"]], r.turn) for r in server.requests if "seed" in r.body)
        assert "two" not in cluster.nodes and done.exit_code == 0
        lost = [e for e in events(done.directory) if isinstance(e, trace.InfrastructureFailed)]
        assert [(e.what, e.retried) for e in lost] == [("node", True)] * 2
        assert [a["status"] for a in done.report["attempts"]] == ["submitted"] * 4
        # The submit is asked back once, for the steps ran after the last test.
        assert set(asked) == {(index, turn) for index in range(4) for turn in range(STEPS + 2)}
        assert max(asked.values()) == 1, "a call was paid twice"
        each_once(done.directory)
        # Every step left its line exactly once: the tree was put back to the last finished turn before going on.
        log = "".join(f"+{turn}\n" for turn in range(2, STEPS))
        assert all(log in e.patch for e in of_kind(done, trace.AttemptEnded) if isinstance(e, trace.AttemptEnded))

    def test_a_killed_driver_leaves_nothing_behind_and_is_resumed(
        self, cluster: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import ray

        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        repository, out = make_repository(tmp_path / "calculator"), tmp_path / "runs"
        with serving(slow_script) as server:
            driver = start(repository, out, server.url, 2, "--executor", "ray", "--concurrency", "2")
            wait_for(lambda: turns(out) >= 5)
            driver.send_signal(signal.SIGKILL)
            driver.communicate()
            directory = run_directory(out)
            answered = {e.key for e in events(directory) if isinstance(e, trace.Replied)}
            before = len(server.requests)
            wait_for(lambda: ray.available_resources().get("sandbox") == ray.cluster_resources()["sandbox"])
            wait_for(lambda: not workers_of(cluster, "one"), otherwise="a worker outlived its driver")
            done = resume(str(directory))
            again = {(SEEDS[r.body["seed"]], r.turn) for r in server.requests[before:]}
        assert done.exit_code == 0
        names = {f"{index}/{turn or 'plan'}" for index, turn in again}
        assert names and not names & answered, "an answered call was asked again"
        replied = collections.Counter(e.key for e in events(directory) if isinstance(e, trace.Replied))
        assert max(replied.values()) == 1
        log = "".join(f"+{turn}\n" for turn in range(2, STEPS))
        patches = [e.patch for e in of_kind(done, trace.AttemptEnded) if isinstance(e, trace.AttemptEnded)]
        assert len(patches) == 2 and all(log in patch for patch in patches)

    def test_a_node_that_stands_still_holds_up_only_its_own(self, cluster: Machines, tmp_path: Path) -> None:
        repository = make_repository(tmp_path / "calculator")
        add_ready(cluster, "slow")
        stopped: list[int] = []
        order: list[int | None] = []

        def watch(event: trace.Event) -> None:
            if isinstance(event, trace.TurnEnded) and not stopped and (found := workers_of(cluster, "slow")):
                stopped.extend(found)
                for pid in found:
                    os.kill(pid, signal.SIGSTOP)
            if isinstance(event, trace.AttemptEnded):
                order.append(event.attempt)
                if len(order) == 6:  # all that the other node can do is done
                    for pid in stopped:
                        os.kill(pid, signal.SIGCONT)

        with serving(SOLVING) as server:
            given = settings(server.url, tmp_path / "runs", attempts=8, concurrency=4, executor="ray")
            done = solve(task(repository), given, listener=watch)
            asked = collections.Counter((SEEDS[r.body["seed"]], r.turn) for r in server.requests if "seed" in r.body)
        cluster.kill("slow")
        assert stopped and done.exit_code == 0 and max(asked.values()) == 1
        assert not of_kind(done, trace.InfrastructureFailed)
        assert sorted(filter(None, order)) == list(range(1, 8)) and done.report["attempts"][7]["status"] == "submitted"


class TestRecords:
    def test_a_job_travels(self, tmp_path: Path) -> None:
        """What a job is made of survives the way to another process as it was."""
        prepared = trace.Prepared(base_commit="a" * 40, environment="key", backend="bubblewrap")
        given = settings("http://127.0.0.1:1/v1", tmp_path)
        built = Built("key", None, "3.11", "pytest")
        terms = Terms("run", task(make_repository(tmp_path / "calculator")), given, built, prepared, "")
        started = trace.AttemptStarted(attempt=3, seed=5, model="m")
        job = AttemptJob(3, "m", (started,), 12.5, 1000, True)
        assert pickle.loads(pickle.dumps((terms, job))) == (terms, job)
        refusal = BudgetExceeded("all is spent", limit="usd", scope="run")
        back = pickle.loads(pickle.dumps(refusal))
        assert (str(back), back.limit, back.scope) == ("all is spent", "usd", "run")

    def test_a_workspace_travels(self, tmp_path: Path) -> None:
        here = open_workspace(task(make_repository(tmp_path / "calculator")).repository, tmp_path / "here")
        assert unpacked(None, here.base_commit, here.described, tmp_path / "there") is None
        there = unpacked(packed(here), here.base_commit, here.described, tmp_path / "there")
        assert there is not None and there.git_dir != here.git_dir and there.archive() == here.archive()
        assert unpacked(None, here.base_commit, here.described, tmp_path / "there") == there


class TestPlaces:
    def test_a_job_goes_where_its_environment_is_and_else_where_most_is_free(self) -> None:
        async def whole() -> list[str]:
            places = Places[str]()
            places.add("a", 2)
            places.add("b", 3)
            return [await places.take(key) for key in ("x", "x", "y", "x", "y")]

        assert asyncio.run(whole()) == ["b", "b", "a", "b", "a"]

    def test_none_waits_behind_one_that_no_free_worker_can_do(self) -> None:
        async def whole() -> None:
            places = Places[str]()
            places.add("a", 1)
            places.add("b", 1)
            assert places.refuse("a", "x")
            assert await places.take("x") == "b"
            first = asyncio.ensure_future(places.take("x"))
            await asyncio.sleep(0)
            assert await places.take("y") == "a"
            places.leave("a")
            await asyncio.sleep(0)
            assert not first.done()
            places.leave("b")
            assert await first == "b"
            assert not places.refuse("b", "x"), "none is left that may have it"

        asyncio.run(whole())

    def test_who_stops_waiting_takes_no_place(self) -> None:
        async def whole() -> None:
            places = Places[str]()
            places.add("a", 1)
            assert await places.take("x") == "a"
            gone = asyncio.ensure_future(places.take("x"))
            await asyncio.sleep(0)
            places.leave("a")  # granted, and cancelled before it is taken up
            gone.cancel()
            await asyncio.wait([gone])
            async with asyncio.timeout(1):
                assert await places.take("x") == "a"

        asyncio.run(whole())
