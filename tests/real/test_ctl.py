"""`troop ctl`: caps and concurrency of what is running, changed from another process; and what bounds calls at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.assemble import open_pool
from agent.config import load_config, resolve_model
from agent.run import control
from harness import trace
from harness.cache import write_json
from harness.lock import run_lock
from harness.money.budget import BudgetKeeper
from harness.money.ledger import charges
from tests.real.test_eval import CHEAP, evaluating
from tests.support.calculator import PLAN, call, make_repository, settings
from tests.support.command_line import TROOP, troop
from tests.support.model_server import Answer, Request, serving
from tests.support.programs import make_checkout

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


class Crowd:
    """A model's part in which each call lasts; knows how many are under way."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.came: list[float] = []

    @property
    def now(self) -> int:
        return sum(time.monotonic() - at < self.seconds for at in self.came)

    def __call__(self, request: Request) -> Answer:
        self.came.append(time.monotonic())
        turns = sum(message["role"] == "assistant" for message in request.body["messages"])
        return replace(PLAN if turns == 0 else call("run", command=f"true {turns}"), delay=self.seconds)


def running(directory: Path) -> Path:
    """The run (or evaluation) in a directory once its first attempt has begun."""
    for _ in range(1800):
        for found in directory.rglob("trace.jsonl"):
            if b'"attempt-started"' in found.read_bytes():
                return found.parent
        time.sleep(0.1)
    raise AssertionError("no attempt has begun")


def test_as_many_calls_are_made_at_once_as_attempts_go_on_unless_the_alias_says_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "troop.toml").write_text(
        '[models.few]\nbase_url = "http://127.0.0.1:9/v1"\nname = "n"\nconcurrency = 8'
    )
    said: list[str] = []
    any, few = "http://127.0.0.1:9/v1#any", "few"

    async def limits() -> list[int]:
        wanted = settings("http://127.0.0.1:9/v1", tmp_path, models=(any, few), concurrency=64)
        async with open_pool(wanted, None, said.append) as pool:
            at_first = [pool.connections.limiter(resolve_model(name, load_config())).limit for name in (any, few)]
            changed = pool.heed(trace.CapsChanged(concurrency=128), wanted, BudgetKeeper(wanted.budget))
            assert changed.concurrency == 128
            return [*at_first, pool.connections.limiter(resolve_model(any, load_config())).limit, pool.slots.places]

    assert asyncio.run(limits()) == [64, 8, 128, 128]
    assert said == ["few takes 8 calls at once, as its alias says, of 64 attempts"]


@pytest.mark.slow
def test_attempts_at_a_time_and_the_cap_of_a_run_change_while_it_goes_on(tmp_path: Path) -> None:
    crowd = Crowd(3.0)  # longer than a busy machine takes between two calls
    with serving(crowd) as server:
        (tmp_path / "troop.toml").write_text(CHEAP.format(url=server.url))
        make_repository(tmp_path / "calc")
        command = [*TROOP, "solve", str(tmp_path / "calc"), "--issue-text", "total is wrong", "-n", "6"]
        command += [
            "--model",
            "priced",
            "--sandbox",
            "bubblewrap",
            "--concurrency",
            "1",
            "--out",
            str(tmp_path / "runs"),
        ]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            run = running(tmp_path / "runs")
            done = troop("ctl", run, "--concurrency", 4, "--max-usd", 50, "--json", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {"directory": str(run), "usd": 50.0, "concurrency": 4}
            wait_for(lambda: crowd.now > 2)
            refused = troop("ctl", run, "--max-usd", "0.000001", "--concurrency", 9, cwd=tmp_path)
            assert refused.returncode == 2 and "is below what is spent and held for calls under way" in refused.stderr
            cap = lowered(run, [run])
            process.wait(60)
    changed = [e for e in trace.read(run / "trace.jsonl") if isinstance(e, trace.CapsChanged)]
    assert [(e.usd, e.concurrency) for e in changed] == [(50.0, 4), (cap, None)]
    assert any(isinstance(e, trace.BudgetReached) for e in trace.read(run / "trace.jsonl"))
    assert spent([run]) <= cap
    assert not (run / "ctl.json").exists()
    refused = troop("ctl", run, "--concurrency", 2, cwd=tmp_path)
    assert refused.returncode == 2 and "is not being worked on" in refused.stderr


@pytest.mark.slow
def test_those_of_an_evaluation_change_for_all_its_instances(tmp_path: Path) -> None:
    crowd = Crowd()
    with serving(crowd) as server:
        (tmp_path / "troop.toml").write_text(CHEAP.format(url=server.url))
        make_checkout(tmp_path / "checkout")
        command = evaluating(
            tmp_path, server.url, "--model", "priced", "-n", "4", "--concurrency", "1", "--max-usd", "90"
        )
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            running(tmp_path / "runs")
            out = tmp_path / "runs" / "eval-quixbugs"
            assert troop("ctl", out, "--concurrency", 5, cwd=tmp_path).returncode == 0
            wait_for(lambda: crowd.now > 2)
            refused = troop("ctl", out, "--max-usd", "0.000001", cwd=tmp_path)
            assert refused.returncode == 2 and "is below what is spent and held for calls under way" in refused.stderr
            runs = [place.parent for place in out.glob("*/trace.jsonl")]
            refused = troop("ctl", runs[0], "--max-usd", 9, cwd=tmp_path)
            assert refused.returncode == 2 and f"an instance of the evaluation {out}" in refused.stderr
            cap = lowered(out, runs)
            process.wait(180)
    kept = json.loads((out / "eval.json").read_text())["settings"]
    assert (kept["concurrency"], kept["budget"]["usd"]) == (5, cap)
    report = json.loads((out / "report.json").read_text())
    assert report["budget"]["usd"] == cap and report["statuses"]["budget"] > 0
    assert 0 < report["usd"] <= cap


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere", "--concurrency", "2"], "is neither a run nor an evaluation"),
        (["nowhere"], "say what is to change: --max-usd, --max-tokens or --concurrency"),
        (["nowhere", "--max-usd", "-5"], "-5 is not more than 0"),
        (["nowhere", "--concurrency", "0"], "0 is not 1 or more"),
        (["--concurrency", "2"], "there is no run in"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(tmp_path: Path, words: list[str], why: str) -> None:
    refused = troop("ctl", *words, cwd=tmp_path)
    assert refused.returncode == 2 and why in refused.stderr
    assert not list(tmp_path.iterdir())


def spent(runs: Iterable[Path]) -> float:
    """USD by the traces of the runs."""
    charged = [charge for run in runs for charge in charges(trace.read(run / "trace.jsonl"))]
    return sum(charge.usd or 0.0 for charge in charged)


def lowered(directory: Path, runs: Iterable[Path]) -> float:
    """The cap that holds from now on: not far above what is spent, so that it is reached soon."""
    while True:
        cap = round(2 * spent(runs) + 0.01, 6)
        done = troop("ctl", directory, "--max-usd", cap, cwd=directory.parents[1])
        if done.returncode == 0:
            return cap
        assert "is below what is spent and held for calls under way" in done.stderr  # calls were made meanwhile


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_answer_of_a_process_that_ended_right_after_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = run_lock

    @contextlib.contextmanager
    def ended(directory: Path) -> Iterator[None]:
        write_json(directory / "ctl.json", {"refusal": ""})
        with free(directory):
            yield

    monkeypatch.setattr(control, "run_lock", ended)
    control.ask(tmp_path, trace.CapsChanged(usd=1.0))
    assert not (tmp_path / "ctl.json").exists()
