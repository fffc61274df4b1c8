"""What all clients of models share: connections, wires, limits, and what was found out about each server."""

import asyncio
import os
import ssl
from collections import defaultdict

import httpx2

from agent.config import MODEL_ATTEMPTS, Alias, is_loopback
from agent.models.limiter import Limiter
from agent.models.wires.base import Wire, open_wire
from harness.money.ledger import GpuMeter
from tasks.errors import EndpointFailed, Explained
from tasks.package_index import certificates

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Each names certificates to trust in place of the system's, as for other clients; the first that is set holds."""


class Connections:
    """One pool of connections per base URL, one wire and one limiter per alias, one GPU meter per server.

    `width`: attempts at a time, which is how many calls at once an alias allows that names no number. Belongs to one
    event loop; to be closed at the end (`contextlib.aclosing`)."""

    def __init__(self, width: int = MODEL_ATTEMPTS) -> None:
        self.width = width
        self._pools: dict[str, httpx2.AsyncClient] = {}
        self._wires: dict[str, Wire] = {}
        self._limiters: dict[str, Limiter] = {}
        self.meters = defaultdict[str, GpuMeter](GpuMeter)
        """By base URL."""
        self.greeting = asyncio.Lock()
        self.greeted: dict[str, EndpointFailed | None] = {}
        """By alias: what first contact came to, None where all is well."""

    def wire(self, alias: Alias) -> Wire:
        """How the alias is spoken to. Raises EndpointFailed where its key or a package is missing."""
        if alias.alias not in self._wires:
            self.move(alias, alias.wire or "chat")
        return self._wires[alias.alias]

    def move(self, alias: Alias, wire: str) -> None:
        """From now on the alias is spoken to by the wire of that name. Raises EndpointFailed as `wire` does."""
        self._wires[alias.alias] = open_wire(wire, alias, self._pool(alias.base_url))

    def limiter(self, alias: Alias) -> Limiter:
        calls, requests, tokens = alias.concurrency or self.width, alias.requests_per_minute, alias.tokens_per_minute
        limiter = Limiter(calls, requests_per_minute=requests, tokens_per_minute=tokens)
        return self._limiters.setdefault(alias.alias, limiter)

    def _pool(self, base_url: str) -> httpx2.AsyncClient:
        if base_url not in self._pools:
            # Local servers (uvicorn) close idle connections after 5 s; being first avoids writing into a closing one.
            expiry = 30.0 if base_url.startswith("https:") else 4.0
            why = "A proxy variable (HTTPS_PROXY, ALL_PROXY, NO_PROXY) is unusable"
            with Explained(why, ValueError, ImportError, httpx2.InvalidURL, kind=EndpointFailed):
                self._pools[base_url] = httpx2.AsyncClient(
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=expiry),
                    trust_env=not is_loopback(base_url),
                    verify=_trusted() if base_url.startswith("https:") else True,
                )
        return self._pools[base_url]

    async def aclose(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        self._wires.clear()
        for pool in pools:
            await pool.aclose()


def _trusted() -> ssl.SSLContext:
    """The certificates to trust. Raises EndpointFailed for a variable that names none."""
    name = next((name for name in CA_VARIABLES if os.environ.get(name)), None)
    if name is None:
        return ssl.create_default_context()
    why = f"{name} names {os.environ[name]}, which holds no certificates (correct or unset it)"
    with Explained(why, OSError, kind=EndpointFailed):
        return certificates(os.environ[name])
