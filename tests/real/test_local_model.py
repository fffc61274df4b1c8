"""A whole attempt with a real model on this machine, by each protocol.

The model is too small to mend anything, so what is looked at is all the rest: a real server's template, its parsing of
calls, its counts. With llama.cpp's own server everywhere; with that of llama-cpp-python, which is compiled for some
minutes, where this has been typed before:

    python -m tests.support.local_model llama-cpp-python
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import trace
from tests.support.command_line import troop
from tests.support.local_model import CONTEXT, KINDS, LLAMA_CPP, NAME, Serving, install, is_installed, serving
from tests.support.runs import events

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap, pytest.mark.slow]

MAX_TOKENS = 64
TURNS = 6
GRAMMAR = r"""
root ::= "```tool\n{\"name\": \"" ( "read\", \"arguments\": {\"path" | "run\", \"arguments\": {\"command" ) "\": \"" [a-z_./]{1,24} "\"}}\n```"
"""
"""llama.cpp's form of the text protocol's block with one of two calls, for a model that would not write it else."""
USD_PER_TOKEN = {"input": 2e-6, "cache_read": 1e-6, "output": 5e-6}


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    kind = KINDS[request.param]
    if kind is LLAMA_CPP:
        install(kind)
    elif not is_installed(kind):
        pytest.skip(f"not installed here: python -m tests.support.local_model {kind.name} (some minutes)")
    with serving(kind, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


def solve(server: Serving, repository: Path, place: Path, models: dict[str, str]) -> dict[str, Any]:
    """The report of a run on the calculator, an attempt for each alias. `models`: by alias, what else it says."""
    prices = "".join(f"usd_per_mtok_{name} = {usd * 1e6}\n" for name, usd in USD_PER_TOKEN.items())
    shared = f'base_url = "{server.url}"\nname = "{NAME}"\ncontext = {CONTEXT}\nconcurrency = 1\n{prices}'
    sampling = f"sampling.max_tokens = {MAX_TOKENS}\nsampling.temperature = 0.2\n"
    tables = (f"[models.{alias}]\n{shared}{sampling}{more}\n" for alias, more in models.items())
    (place / "troop.toml").write_text("".join(tables))
    command = ("solve", repository, "--issue-text", "total([1, 2]) in calc.py gives 2 where 3 is expected")
    named = (word for alias in models for word in ("--model", alias))
    limits = ("-n", len(models), "--max-turns", TURNS, "--sandbox", "bubblewrap", "--judge-model", "none")
    done = troop(*command, *named, *limits, "--json", cwd=place)
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(server: Serving, before: tuple[int, int, int] | None, report: dict[str, Any]) -> list[trace.Event]:
    """What holds for every run; gives its events."""
    said = events(Path(report["directory"]))
    ended = [e.status for e in said if isinstance(e, trace.AttemptEnded)]
    assert len(ended) == len(report["attempts"]) and not {"infrastructure", "crashed"} & set(ended), ended
    assert not [e for e in said if isinstance(e, trace.Charged)], "each call was answered"
    failed = [e.detail for e in said if isinstance(e, trace.InfrastructureFailed)]
    assert all("from now on" in detail for detail in failed), "what a server refuses is done otherwise"
    charges = [e.charge for e in said if isinstance(e, trace.Replied)]
    for charge in charges:
        usage = charge.usage
        assert usage.input + usage.cache_read > 0 and 0 < usage.output <= MAX_TOKENS
        usd = sum(getattr(usage, part) * price for part, price in USD_PER_TOKEN.items())
        assert charge.price_source == "alias" and charge.usd == pytest.approx(usd)
    assert report["cost"]["exact"] and report["cost"]["usd"] == pytest.approx(sum(c.usd or 0.0 for c in charges))
    if before is not None:
        after = server.counted()
        assert after is not None
        charged = [sum(getattr(c.usage, part) for c in charges) for part in ("input", "cache_read", "output")]
        assert charged == [a - b for a, b in zip(after, before, strict=True)], "the server's own counters agree"
    return said


def reads(report: dict[str, Any], said: list[trace.Event]) -> None:
    """Each attempt can be played again, and the run reported."""
    for row in report["attempts"]:
        played = troop("replay", report["directory"], "--attempt", row["index"])
        (plan,) = (e.text for e in said if isinstance(e, trace.Planned) and e.attempt == row["index"])
        assert played.returncode == 0 and plan.split()[0] in played.stdout
        assert f"turn {row['turns']}" in played.stdout
    again = troop("report", report["directory"], "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["attempts"] == report["attempts"]


def test_the_text_protocol(served: Serving, repository: Path, tmp_path: Path) -> None:
    before = served.counted()
    models = {"free": "tools = false", "held": f"tools = false\nsampling.grammar = {json.dumps(GRAMMAR)}"}
    said = check(served, before, report := solve(served, repository, tmp_path, models))
    reads(report, said)
    assert {e.attempt for e in said if isinstance(e, trace.ToolRan)} >= {1}, (
        "what the grammar holds it to is carried out"
    )


def test_tools(served: Serving, repository: Path, tmp_path: Path) -> None:
    before = served.counted()
    models = {"free": "", "held": 'sampling.tool_choice = { type = "function", function = { name = "read" } }'}
    said = check(served, before, report := solve(served, repository, tmp_path, models))
    reads(report, said)
    assert {e.attempt for e in said if isinstance(e, trace.ToolRan)} >= {1}, "what it is told to call is carried out"
