"""Settings of a run, and what a model's name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.records import Budget
from harness.sandbox.base import Limits


@dataclass(frozen=True, slots=True)
class Alias:
    """A model as the client uses it. `name` is what the server calls it, `alias` what the user typed.

    Prices in USD per million tokens (None: ask genai-prices under `price_name`, else unknown); `usd_per_gpu_hour` for a
    local GPU: a call costs its share of the GPU's time. `context` in tokens. `concurrency`: calls at once at most.
    `requests_per_minute`, `tokens_per_minute`: rate limits (None: none). `tools` False: the text protocol is used.
    `sampling`: parameters sent with every call (temperature, top_p, max_tokens, extra ones as the server knows them).
    `key_env`: the environment variable that holds the key (None: no key is sent).
    """

    alias: str
    base_url: str
    name: str
    key_env: str | None = None
    price_name: str | None = None
    usd_per_mtok_input: float | None = None
    usd_per_mtok_cache_read: float | None = None
    usd_per_mtok_cache_write: float | None = None
    usd_per_mtok_output: float | None = None
    usd_per_gpu_hour: float | None = None
    context: int = 128_000
    concurrency: int = 32
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 600.0
    tools: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is done. Times in seconds.

    `models`: as the user named them; attempts rotate over them; empty: the configured default, else `repair`.
    `judge_model`: None means the first model that is not `repair`; "none" means no judge.
    `concurrency`: attempts at a time (None: 2 × CPUs for `repair`, 32 for models). `out`: the directory that gets the run
    directory. `verify_seconds`: time for the regression tests of one candidate. `base_runs`: how often the base's tests
    run to find flaky ones. `infrastructure_retries`: per attempt, apart from its turns.
    """

    budget: Budget = field(default_factory=Budget)
    models: tuple[str, ...] = ()
    judge_model: str | None = None
    sandbox: Literal["auto", "docker", "bubblewrap"] = "auto"
    concurrency: int | None = None
    seed: int = 0
    out: Path = Path("runs")
    limits: Limits = field(default_factory=Limits)
    command_timeout: float = 120.0
    test_timeout: float = 600.0
    setup_timeout: float = 1200.0
    verify_seconds: float = 300.0
    base_runs: int = 2
    infrastructure_retries: int = 3
    malformed_limit: int = 3
    allow_unknown_price: bool = False
    temperature: float | None = None
