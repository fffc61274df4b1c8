"""A server program of others on this machine, as long as a test needs it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


@contextlib.contextmanager
def running(
    command: Callable[[int], Sequence[str]],
    *,
    log: Path,
    ready: str,
    env: Mapping[str, str] | None = None,
    seconds: float = 300.0,
) -> Iterator[str]:
    """Start `command(port)` on a free port, and yield `http://127.0.0.1:PORT` once the path `ready` answers there.

    What the server prints goes to the file `log`. Raises RuntimeError with its end where the server does not answer
    within `seconds`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        server = subprocess.Popen(command(port), env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + seconds
        while fetched(url + ready) is None:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def fetched(url: str) -> str | None:
    """The text at a URL of this machine; None where it is not answered with success."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None
