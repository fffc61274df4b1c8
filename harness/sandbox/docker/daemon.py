"""The way to the Docker daemon (or Podman's Docker-compatible one): the API client, and a container's attached streams.

`docker` (the package) makes the ordinary calls. The attached stream is opened here on asyncio's own transports, because
the package only has blocking sockets, different for each kind of address: one process drives hundreds.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from harness.sandbox.docker.containers import explained, remove_container
from tasks.errors import SandboxFailed

START_DAEMON = "start it (systemctl start docker), point DOCKER_HOST to one that runs, or use --sandbox bubblewrap"
_SOCKET = "unix:///var/run/docker.sock"
_STDERR_KEPT = 8_000

ANSWER_SECONDS = 10.0
"""For a daemon to say that it is there."""
CALL_SECONDS = 120.0
COMMIT_SECONDS = 3600.0
ATTACH_SECONDS = 60.0

T = TypeVar("T")


def connect(*, connections: int = 32, timeout: float = CALL_SECONDS) -> Any:
    """A `docker.DockerClient` of the daemon that DOCKER_HOST (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH) names; it answered.

    `timeout` in seconds for each call after the first, which gets ANSWER_SECONDS. Raises SandboxFailed with what to do.
    """
    import docker
    import docker.errors
    import docker.utils

    address = docker.utils.kwargs_from_env()
    if str(address.get("base_url", "")).startswith("ssh:"):
        raise SandboxFailed("DOCKER_HOST=ssh://… is not supported: forward the daemon's socket (ssh -L) and name that")
    try:
        client = docker.DockerClient(**address, max_pool_size=connections, timeout=ANSWER_SECONDS)
    except docker.errors.DockerException as error:
        raise SandboxFailed(
            f"no Docker daemon answers at {address.get('base_url', _SOCKET)} ({_short(error)}): {START_DAEMON}"
        ) from error
    client.api.timeout = timeout
    return client


class Daemon:
    """The docker daemon, asked in threads of its own. Nothing is asked of it before the first call. `info`: what it
    says of itself (`docker info`), once connected; `storage`: where it keeps images and containers, on this machine."""

    def __init__(self) -> None:
        self.info: Mapping[str, Any] = {}
        self.storage: Path | None = None
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="docker")

    async def connected(self) -> Any:
        """The client (see `connect`). Raises SandboxFailed where no daemon answers."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self.call("connect", self._connect)
        return self._client

    def _connect(self) -> Any:
        """No client is left open where the daemon says nothing of itself."""
        client = connect()
        try:
            self.info = client.info()
        except BaseException:
            client.close()
            raise
        root = Path(self.info.get("DockerRootDir") or "/nonexistent")
        self.storage = root if "unix" in os.environ.get("DOCKER_HOST", _SOCKET) and root.is_dir() else None
        return client

    async def call(self, what: str, function: Callable[..., T], *args: Any) -> T:
        """Call what blocks. Raises SandboxFailed for whatever the daemon or the way to it refuses."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(explained, what, function, *args))

    async def ask(self, what: str, function: Callable[..., T], *args: Any) -> T:
        """The same for a function whose first argument is the client."""
        return await self.call(what, function, await self.connected(), *args)

    async def remove(self, container: str) -> None:
        """Kill and remove a container; a daemon that is gone took it along."""
        with contextlib.suppress(SandboxFailed):
            await self.ask("remove a container", remove_container, container)

    async def started(self, label: str, make: Callable[..., str], *args: Any) -> "tuple[str, Attachment]":
        """The id of a container called `label`, which `make` made with the client, and its streams; it runs. After a
        failure or a cancellation it is removed."""
        client = await self.connected()
        making = asyncio.ensure_future(self.call("make a container", make, client, label, *args))
        attachment = None
        try:
            container = await asyncio.shield(making)
            attachment = await attach(client, container)
            await self.call("start a container", client.api.start, container)
            return container, attachment
        except BaseException:
            if attachment is not None:
                attachment.stdin.transport.abort()
            await asyncio.shield(self._discard(label, making))
            raise

    async def _discard(self, label: str, making: asyncio.Future[str]) -> None:
        await asyncio.wait([making])
        if not making.cancelled() and making.exception() is None:
            await self.remove(label)

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        await asyncio.to_thread(self._threads.shutdown)


def _short(error: Exception) -> str:
    """The cause at the end of docker's, requests' and urllib3's nested messages."""
    text = str(error)
    for cause in ("Permission denied", "No such file or directory", "Connection refused", "timed out"):
        if cause in text:
            return cause.lower()
    return text[-200:]


class Attachment(asyncio.StreamReaderProtocol):
    """Both ends of a container's first process: `stdout` to read from, `stdin` to write to, `stderr` the end of it.

    The daemon sends both output streams over one connection in frames (8 bytes: stream number, three zeros, length as a
    big-endian 32-bit number; then the payload): see "Stream format" in the Docker Engine API, ContainerAttach."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stdout = asyncio.StreamReader(limit=1 << 20, loop=loop)
        super().__init__(self.stdout, loop=loop)
        self._loop = loop
        self._opened: asyncio.Future[None] = loop.create_future()
        self._inbox = bytearray()
        self._stderr = bytearray()
        self.stdin: asyncio.StreamWriter

    @property
    def stderr(self) -> str:
        """The end of what the container wrote to its standard error."""
        return self._stderr.decode("utf-8", "replace").strip()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.stdin = asyncio.StreamWriter(transport, self, None, self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc or ConnectionResetError("the daemon closed the connection"))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        if not self._opened.done():
            self._read_answer()
        while self._opened.done() and len(self._inbox) >= 8:
            end = 8 + int.from_bytes(self._inbox[4:8], "big")
            if len(self._inbox) < end:
                return
            stream, payload = self._inbox[0], bytes(self._inbox[8:end])
            del self._inbox[:end]
            if stream == 2:
                self._stderr += payload
                del self._stderr[:-_STDERR_KEPT]
            else:
                super().data_received(payload)

    def _read_answer(self) -> None:
        """The daemon's answer to the request for the stream, if it is all there."""
        head, ended, rest = bytes(self._inbox).partition(b"\r\n\r\n")
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        if ended and status.split(" ")[1:2] in (["101"], ["200"]):
            self._opened.set_result(None)
            self._inbox[:] = rest
        elif ended:
            self._opened.set_exception(ConnectionRefusedError(f"{status} {rest.decode('utf-8', 'replace')[:300]}"))

    async def open(self, path: str) -> None:
        """Ask the daemon for the stream and wait for it. Where it is refused, raises OSError and is closed."""
        headers = ("Host: docker", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0")
        self.stdin.write("\r\n".join((f"POST {path} HTTP/1.1", *headers, "", "")).encode("ascii"))
        try:
            await self._opened
        except BaseException:
            self.stdin.transport.abort()
            raise


async def attach(client: Any, container: str) -> Attachment:
    """Attach to a container that was made but not started yet, so that nothing it says is missed.

    Raises SandboxFailed when the daemon cannot be reached or refuses."""
    path = f"/v{client.api.api_version}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    try:
        async with asyncio.timeout(ATTACH_SECONDS):
            attachment = await _connection()
            await attachment.open(path)
    except OSError as error:
        late = f"the daemon does not answer within {ATTACH_SECONDS:g} s"
        why = late if isinstance(error, TimeoutError) else error
        raise SandboxFailed(f"cannot attach to the container {container[:12]}: {why}") from error
    return attachment


async def _connection() -> Attachment:
    import docker.utils

    loop = asyncio.get_running_loop()
    settings = docker.utils.kwargs_from_env()
    address = urlsplit(str(settings.get("base_url") or _SOCKET))
    if address.scheme in ("unix", "http+unix"):
        # "unix:///run/x.sock" and docker's own "http+unix://%2Frun…" and "unix://run/x.sock" all mean an absolute path.
        path = "/" + (address.netloc + address.path).lstrip("/")
        _, attachment = await loop.create_unix_connection(lambda: Attachment(loop), path)
        return attachment
    tls = settings.get("tls")
    _, attachment = await loop.create_connection(
        lambda: Attachment(loop),
        address.hostname or "localhost",
        address.port or (2376 if tls else 2375),
        ssl=_tls(tls) if tls else None,
    )
    return attachment


def _tls(settings: Any) -> ssl.SSLContext:
    """What docker-py would do with DOCKER_CERT_PATH and DOCKER_TLS_VERIFY."""
    context = ssl.create_default_context(cafile=settings.ca_cert if settings.verify else None)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert:
        context.load_cert_chain(*settings.cert)
    return context
