"""A way to the Docker daemon that can be cut: to Troop, its end is the daemon's death."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

_SOCKET = "unix:///var/run/docker.sock"


class Proxy:
    """Passes bytes between a socket of its own (`address`, for DOCKER_HOST) and the daemon's. Lives in the running event loop."""

    def __init__(self, place: Path) -> None:
        self.address = f"unix://{place}"
        self._place = place
        self._daemon = os.environ.get("DOCKER_HOST", _SOCKET).removeprefix("unix://")
        self._ends: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Take connections, from now or again."""
        self._server = await asyncio.start_unix_server(self._pass_on, self._place)

    def cut(self) -> None:
        """Take no connection any more, and break off those that there are."""
        if self._server is not None:
            self._server.close()
            self._place.unlink()
            self._server = None
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, daemon = await asyncio.open_unix_connection(self._daemon)
        ends = [writer, daemon]
        self._ends += ends
        try:
            await asyncio.gather(_copy(reader, daemon), _copy(there, writer))
        finally:
            for end in ends:
                end.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(1 << 16):
            target.write(piece)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


@contextlib.asynccontextmanager
async def proxied(place: Path) -> AsyncIterator[Proxy]:
    """Within: DOCKER_HOST names a proxy whose socket is at `place`."""
    proxy = Proxy(place)
    await proxy.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", proxy.address)
        try:
            yield proxy
        finally:
            proxy.cut()
