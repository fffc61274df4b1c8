"""How many calls a model's server gets at once, as a pool of attempts has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.assemble import open_pool
from agent.config import load_config, resolve_model
from tests.support.calculator import settings

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


def test_as_many_as_attempts_go_on_unless_the_alias_says_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = "http://127.0.0.1:9/v1"
    (tmp_path / "troop.toml").write_text(f'[models.few]\nbase_url = "{url}"\nname = "n"\nconcurrency = 8')
    said: list[str] = []
    names = (f"{url}#any", "few")

    async def limits() -> list[int]:
        async with open_pool(settings(url, tmp_path, models=names, concurrency=64), None, said.append) as pool:
            return [pool.connections.limiter(resolve_model(name, load_config())).limit for name in names]

    assert asyncio.run(limits()) == [64, 8]
    assert said == ["few takes 8 calls at once, as its alias says, of 64 attempts"]
