"""A finished run that goes on: more attempts, what the world broke; the trace stays one log that every reader
understands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent import assemble, resume
from agent.assemble import Part, go, open_pool, start
from agent.choice.candidates import candidates_of
from agent.run_files import RunFiles
from harness import trace
from harness.money.budget import SharedBudget
from harness.views.replay_frames import default_attempt, frames
from harness.views.report import run_status, solve_report
from harness.views.report_view import solve_view
from tests.support.calculator import PLAN, RIGHT, SUBMIT, WRONG, make_repository, settings, task
from tests.support.model_server import Answer, Request, error, serving
from tests.support.runs import SEEDS, events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


async def again(
    directory: Path, attempts: int, why: str, *, listen: trace.Listener = lambda event: None
) -> assemble.Solution:
    """Go on with a finished run, as an evaluation does."""
    files = RunFiles(directory)
    _, kept, _ = files.read_run()
    budget = replace(kept.budget, attempts=attempts)
    async with open_pool(kept, None) as pool:
        share = SharedBudget(budget, [files.name]).share(files.name)
        return await go(
            files, pool=pool, listeners=[listen], part=Part(pool.slots.lane(0, attempts), share, budget, why)
        )


def test_later_attempts_are_selected_from_where_the_first_gave_nothing(tmp_path: Path) -> None:
    """Attempt 0 is wrong and alone; 1 is interrupted once; 1 and 2 are right."""
    slow = True

    def answer(request: Request) -> Answer:
        index = SEEDS[int(request.body["seed"])]
        said = [PLAN, WRONG if index == 0 else RIGHT, SUBMIT][min(request.turn, 2)]
        return replace(said, delay=30.0) if slow and index and request.turn else said

    repository = make_repository(tmp_path / "calculator")
    with serving(answer) as server:
        files, _, _ = start(task(repository), settings(server.url, tmp_path / "runs", judge_model="none"))
        first = asyncio.run(go(files))
        assert first.status == "none" and first.patch is None, "it breaks a test"
        before = (files.directory / "trace.jsonl").read_bytes()

        async def interrupted() -> None:
            planned = asyncio.Event()

            def listen(event: trace.Event) -> None:
                if isinstance(event, trace.Planned):
                    planned.set()

            work = asyncio.create_task(again(files.directory, 3, "3 attempts instead of 1", listen=listen))
            await planned.wait()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

        asyncio.run(interrupted())
        assert run_status(events(files.directory)) == "interrupted"
        slow = False
        done = resume(str(files.directory))
    assert (done.status, len(done.report["attempts"])) == ("selected", 3)
    found = events(files.directory)
    assert (files.directory / "trace.jsonl").read_bytes().startswith(before), "the trace only grows"
    candidates = {c.id: c.attempts for c in candidates_of(found)}
    assert candidates == {"c1": (0,), "c2": (1, 2)}
    assert done.selection is not None and done.selection.candidate == "c2"
    assert done.report["selected"]["attempt"] == 1 and "+    for value in values:" in (done.patch or "")
    assert [row["candidate"] for row in done.report["attempts"]] == ["c1", "c2", "c2"]
    assert all(row["seconds"] < 25 for row in done.report["attempts"]), "the time it lay still is none of it"
    assert done.report == solve_report(found) and default_attempt(found) == 1
    assert frames(found, 2) and solve_view(found, files.directory)


def test_what_the_world_ended_goes_on_where_it_stood(tmp_path: Path) -> None:
    broken = True

    def answer(request: Request) -> Answer:
        if broken and SEEDS[int(request.body["seed"])] == 1 and request.turn == 2:
            return error(401, "the key has expired")
        return [PLAN, RIGHT, SUBMIT][min(request.turn, 2)]

    repository = make_repository(tmp_path / "calculator")
    with serving(answer) as server:
        given = settings(server.url, tmp_path / "runs", attempts=2, judge_model="none", concurrency=1)
        files, _, _ = start(task(repository), given)
        first = asyncio.run(go(files))
        assert [row["status"] for row in first.report["attempts"]] == ["submitted", "infrastructure"]
        # It had made its edit, so its patch counts for the candidate, but not as a sample.
        assert first.report["attempts"][1]["candidate"] == "c1"
        broken = False
        asked = len(server.requests)
        done = asyncio.run(again(files.directory, 2, "what the world broke is done again"))
        assert [r.turn for r in server.requests[asked:]] == [2, 3], "not what was answered"
    assert [row["status"] for row in done.report["attempts"]] == ["submitted", "submitted"]
    assert [(c["id"], c["attempts"]) for c in done.report["candidates"]] == [("c1", [0, 1])]
    verified = [e for e in events(files.directory) if isinstance(e, trace.Verified)]
    assert len({e.key for e in verified}) == 1, "the same patch is not verified again"
    assert done.status == "selected"
