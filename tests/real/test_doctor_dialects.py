"""`troop doctor --model --write` on the strict stand-ins of today's servers: each can be used, and with what was written
an alias is refused nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands.portrait_view import tables
from agent.config import load_config
from agent.probe import Portrait, portray
from agent.toml_file import put
from tests.support.dialect_runs import write_alias
from tests.support.dialects import BY_NAME, DialectServer
from tests.support.model_server import on_thread

REFUSED = {
    "plain": {},
    "openai-reasoning": {"sampling": {"temperature": False}},
    "temperature-deprecated": {"sampling": {"temperature": False}},
    "seed-unknown": {"sampling": {"seed": False}},
    "both-refused": {"sampling": {"seed": False, "temperature": False}},
    "stream-only": {"stream": True},
    "responses-400": {"wire": "responses", "sampling": {"temperature": False}},
    "responses-404": {"wire": "responses", "sampling": {"temperature": False}},
    "anthropic": {},
    "anthropic-thinks-always": {"sampling": {"temperature": False}},
    "openrouter-claude": {},
    "deepseek-v4": {},
    "gemini-3": {},
    "mistral": {"sampling": {"seed": False}},
    "magistral": {"sampling": {"seed": False}},
    "llamacpp-roles": {},
    "llamacpp-no-system": {"system_role": False},
    "ollama-no-tools": {"tools": False},
    "vllm-no-tools": {"tools": False},
    "overflow-vllm-new": {"context": 6501},
    "loose-in-content": {},
    "loose-calls-of-text": {},
    "harmony": {},
}
"""By row: the settings that are found to work."""

ASKED_AGAIN = ("user after a result", "two user turns", "streaming", "context", "limit on answers", "tools")
"""What is asked although a refusal is expected."""


@pytest.fixture(scope="module")
def server() -> Iterator[DialectServer]:
    with on_thread(DialectServer()) as server:
        yield server


def portrait() -> Portrait:
    return asyncio.run(portray(load_config().aliases["m"], lambda line: None))


@pytest.mark.parametrize("name", REFUSED)
def test_the_settings_that_work_are_found(
    name: str, server: DialectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    for variable, value in write_alias(BY_NAME[name], server.base(name), tmp_path).items():
        monkeypatch.setenv(variable, value)
    found = portrait()
    assert found.error == "" and found.settings == REFUSED[name]
    assert found.cost.calls <= 12 and "next turn" in " ".join(trial.tried for trial in found.trials)
    put(Path("troop.toml"), tables("m", found, load_config()))
    again = portrait()
    assert again.error == "" and again.settings == {}
    left = [
        trial
        for trial in again.trials
        if ("refused (" in trial.found or "after " in trial.found) and "max_completion_tokens" not in trial.does
    ]
    assert {trial.tried for trial in left} <= {*ASKED_AGAIN}, left


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("401", "refused the key in DIALECT_API_KEY"),
        ("403", "refused"),
        ("404-path", "knows no model"),
        ("quota", "refused the call"),
        ("retry-after-inf", "longer than the 60 s"),
        ("overflow-beginning", "does not fit m"),
        ("refused", "cannot be reached"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    name: str, said: str, server: DialectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    for variable, value in write_alias(BY_NAME[name], server.base(name), tmp_path).items():
        monkeypatch.setenv(variable, value)
    found = portrait()
    assert said in found.error and "\n" not in found.error and found.settings == {}
