"""Many attempts at once on a model server with a GPU: its cache is hit, and the run costs the GPU's time.

Where such a server can be had:

    vllm serve NAME --enable-prefix-caching --enable-prompt-tokens-details --enable-auto-tool-choice --tool-call-parser PARSER
    TROOP_GPU_SERVER=http://127.0.0.1:8000/v1#NAME python -m pytest tests/real/test_gpu_server.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.command_line import troop

pytestmark = [pytest.mark.gpu, pytest.mark.bubblewrap, pytest.mark.slow]

ATTEMPTS = 32
USD_PER_GPU_HOUR = 2.5


def test_attempts_share_the_server_its_cache_and_its_price(repository: Path, tmp_path: Path) -> None:
    server = os.environ.get("TROOP_GPU_SERVER", "")
    if not server:
        pytest.skip("TROOP_GPU_SERVER does not name a model server with a GPU (http://HOST:PORT/v1#NAME)")
    url, _, name = server.partition("#")
    alias = f'base_url = "{url}"\nname = "{name}"\nconcurrency = {ATTEMPTS}\nusd_per_gpu_hour = {USD_PER_GPU_HOUR}\n'
    (tmp_path / "troop.toml").write_text(f"[models.gpu]\n{alias}sampling.max_tokens = 256\n")
    asked = (
        "solve",
        repository,
        "--issue-text",
        "total([1, 2]) in calc.py gives 2 where 3 is expected",
        "--model",
        "gpu",
    )
    limits = ("-n", ATTEMPTS, "--concurrency", ATTEMPTS, "--max-turns", 6, "--sandbox", "bubblewrap")
    done = troop(*asked, *limits, "--judge-model", "none", "--json", cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert len(report["attempts"]) == ATTEMPTS
    assert not {"infrastructure", "crashed"} & {row["status"] for row in report["attempts"]}
    cost = report["cost"]
    assert cost["exact"] and set(cost["price_sources"]) == {"gpu-hour"}
    assert 0 < cost["usd"] <= USD_PER_GPU_HOUR * report["seconds"] / 3600, "no more than the GPU's time"
    assert cost["usage"]["cache_read"] > 0.5 * cost["usage"]["input"], "attempts have their beginning in common"
