"""A Ray cluster that is not there is said soon, with its address and what to type."""

from __future__ import annotations

import socket
import time

import pytest

from agent.run.cluster import joined
from tasks.errors import EnvironmentFailed


def test_an_address_where_nothing_listens_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    ray.shutdown()
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        began = time.monotonic()
        with pytest.raises(EnvironmentFailed, match=f"no Ray cluster answers at {address} .*: `ray start --head"):
            joined()
        assert time.monotonic() - began < 15
