"""Every dialect of `tests.support.dialects`, met by `troop solve`: solved, or refused in a sentence, as its row says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main
from tests.support.dialect_model import make_repository
from tests.support.dialect_runs import complaints, outcome, words, write_alias
from tests.support.dialects import BY_NAME, DIALECTS, Dialect, DialectServer
from tests.support.model_server import on_thread

pytestmark = [pytest.mark.network, pytest.mark.bubblewrap]


@pytest.fixture(scope="module")
def server() -> Iterator[DialectServer]:
    with on_thread(DialectServer()) as listening:
        yield listening


@pytest.fixture(scope="module")
def bugged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of all rows, its environment set up: the same commit, so one is enough."""
    place = tmp_path_factory.mktemp("dialects")
    repository = make_repository(place / "calculator")
    row = BY_NAME["plain"]
    with on_thread(DialectServer()) as server, pytest.MonkeyPatch.context() as patch:
        meet(row, server.base(row.name), repository, place, patch)
    return repository


def meet(row: Dialect, base: str, repository: Path, place: Path, patch: pytest.MonkeyPatch) -> tuple[int, float]:
    """`troop solve` on the row, begun in `place`: exit code, and seconds."""
    patch.chdir(place)
    patch.setenv("XDG_CONFIG_HOME", str(place / "nowhere"))
    for name, value in write_alias(row, base, place).items():
        patch.setenv(name, value)
    began = time.perf_counter()
    code = main(words(row, repository, row.attempts))
    return code, time.perf_counter() - began


@pytest.mark.parametrize("row", DIALECTS, ids=lambda row: row.name)
def test_a_dialect_is_met(
    row: Dialect,
    server: DialectServer,
    bugged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, seconds = meet(row, server.base(row.name), bugged, tmp_path, monkeypatch)
    said = capsys.readouterr()
    ended = outcome(code, said.out, said.err, seconds)
    memory = server.memory[row.name]
    found = complaints(row, ended, memory)
    assert not found, "\n".join([*found, *memory.refused[:2], ended.text[-1500:]])
