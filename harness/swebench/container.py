"""One patch and one script in one fresh container: the leanest way that a grading can take.

No sandbox of an attempt: grading wants the container that the official harness would have made, with root and docker's
ordinary capabilities, so that tests of permissions come out the same; but with no network unless asked for.

The container's first process is a short shell program. It reads the patch and the script from its standard input,
applies the one, runs the other, and ends; with it ends the container, at once, and the daemon removes it. When the
harness dies, its attachment ends, with it the program's input, and a watcher in the container kills everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Literal, TypeVar

from harness.sandbox.docker import owner
from harness.sandbox.docker.containers import (
    NAME_LABEL,
    OWNER_LABEL,
    RUN_LABEL,
    container_name,
    explained,
    obituary,
    remove_container,
    sweep,
)
from harness.sandbox.docker.daemon import Attachment, attach, connect_and_ask
from harness.swebench.official import TESTBED
from tasks.errors import SandboxFailed

APPLY_COMMANDS = ("git apply --verbose", "git apply --verbose --reject", "patch --batch --fuzz=5 -p1 -i")
"""The ways to lay a patch that the official harness tries, in this order, each upon what the one before left."""

_PATCH, _SCRIPT, _SAID = "/tmp/patch.diff", "/eval.sh", "/tmp/.applied"

# Its watcher kills until the first process ends, too: something may just be starting. Arguments: a word that marks the
# program's own lines, and the sizes of patch and script in bytes. What it has to say goes to standard error; the
# script's output, both streams in one, is all there is on standard output.
_PROGRAM = rf"""
exec 3<&0 0</dev/null
head -c "$2" <&3 > {_PATCH}
head -c "$3" <&3 > {_SCRIPT}
{{ cat <&3 > /dev/null; while :; do kill -9 -1; sleep 0.2; done; }} &
exec 3<&-
cd {TESTBED} || exit
n=0 applied=
for command in {" ".join(f"'{command}'" for command in APPLY_COMMANDS)}; do
  n=$((n + 1))
  if $command {_PATCH} > {_SAID} 2>&1; then applied=$n; break; fi
done
tail -c 4000 {_SAID} >&2
rm -f {_SAID}
if [ -n "$applied" ]; then
  printf '\n%s applied %s\n' "$1" "$applied" >&2
else
  printf '\n%s refused\n' "$1" >&2
  exit
fi
began=$(date +%s.%N)
/bin/bash {_SCRIPT} 2>&1
status=$?
printf '%s ended %s %s %s\n' "$1" "$status" "$began" "$(date +%s.%N)" >&2
"""

LOG_BYTES = 256 << 20
"""Of a script's output. Real ones have tens of megabytes at most; this much can still be parsed."""

_CHUNK = 1 << 18
_MEMORY_SHARE = 0.85
_PROCESSES = 16_384

_End = Literal["over", "late", "flooded"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ran:
    """How it went. `applied`: the command that applied the patch, "" if none did; `said`: the end of its output, or of
    the last one's. `status`: the script's exit status, None if it did not come to an end. `seconds`: of the script
    alone. `flooded`: it wrote more than LOG_BYTES, and was ended."""

    applied: str
    said: str
    status: int | None
    seconds: float
    timed_out: bool = False
    flooded: bool = False


class Containers:
    """The docker daemon, as a place to grade in. Nothing is asked of it before the first call; `close` when done.

    `run`: whose the containers are (a label). `network`: whether they have one.
    """

    def __init__(self, run: str, *, network: bool = False, threads: int = 16) -> None:
        self._run = run
        self._network = network
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="grading")
        self._client: Any = None
        self._memory = 0
        self._connecting = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()

    async def clean(self) -> list[str]:
        """Remove the containers that dead processes left; names them."""
        client = await self.connected()
        return await self._call("look for containers", sweep, client, None)

    async def run(
        self,
        image: str,
        patch: bytes,
        script: bytes,
        log: IO[bytes],
        *,
        name: str,
        timeout: float,
        capabilities: tuple[str, ...] = (),
    ) -> Ran:
        """Apply the patch and run the script in a fresh container of `image`; the script's output goes to `log`.

        `timeout` in seconds: then everything in it is killed. Raises SandboxFailed when the daemon or the container
        fails.
        """
        client = await self.connected()
        label = container_name(self._run, name)
        mark = f"troop-{secrets.token_hex(8)}"
        command = [mark, str(len(patch)), str(len(script))]
        began = time.time()
        make = partial(self._make, client, label, name, image, command, capabilities)
        making = asyncio.ensure_future(self._call("make a container", make))
        gone = False
        try:
            container = await asyncio.shield(making)
            attachment = await attach(client, container)
            try:
                await self._call("start a container", client.api.start, container)
                end = await _talk(attachment, patch + script, log, timeout)
                gone = end == "over"
                return await self._told(client, container, attachment, mark, end, began)
            finally:
                attachment.stdin.transport.abort()
        finally:
            if not gone:
                self._later(self._discard(client, label, making))

    async def labels(self, image: str) -> Mapping[str, str]:
        """An image's labels. Raises SandboxFailed where there is no such image."""
        client = await self.connected()
        told = await self._call("look at an image", client.api.inspect_image, image)
        return dict((told.get("Config") or {}).get("Labels") or {})

    async def connected(self) -> Any:
        """The daemon's client. Raises SandboxFailed where none answers."""
        async with self._connecting:
            if self._client is None:
                self._client, info = await self._call("connect", connect_and_ask)
                self._memory = int(info.get("MemTotal") or 0)
        return self._client

    async def close(self) -> None:
        """Wait until every container is gone."""
        while self._endings:
            await asyncio.gather(*self._endings)
        if self._client is not None:
            self._client.close()
        self._pool.shutdown(wait=False)

    def _make(
        self, client: Any, label: str, name: str, image: str, command: list[str], capabilities: tuple[str, ...]
    ) -> str:
        """Blocking: a container that is ready to be started; its id."""
        api = client.api
        limit = math.floor(self._memory * _MEMORY_SHARE) or None
        made = api.create_container(
            image,
            entrypoint=["/bin/bash", "--norc", "-c", _PROGRAM, "troop", *command],
            name=label,
            hostname="testbed",
            user="0:0",
            working_dir="/",
            stdin_open=True,
            # The user's docker configuration may name a proxy with a password in it.
            use_config_proxy=False,
            labels={RUN_LABEL: self._run, NAME_LABEL: name, OWNER_LABEL: owner.me()},
            healthcheck={"test": ["NONE"]},
            host_config=api.create_host_config(
                network_mode=None if self._network else "none",
                # Without a network docker names no address for the container's own name; with one it does.
                extra_hosts=None if self._network else {"testbed": "127.0.0.1"},
                cap_add=list(capabilities),
                # The machine's own protection, not a limit on tests: what is left would be the kernel's choice of a
                # victim.
                mem_limit=limit,
                memswap_limit=limit,
                pids_limit=_PROCESSES,
                oom_score_adj=500,
                log_config={"Type": "none", "Config": {}},
                auto_remove=True,
            ),
        )
        return str(made["Id"])

    async def _told(
        self, client: Any, container: str, attachment: Attachment, mark: str, end: _End, since: float
    ) -> Ran:
        """What the program said of itself. Raises SandboxFailed where it did not come to its end."""
        said, _, own = attachment.stderr.partition(f"{mark} ")
        if own.startswith("refused"):
            return Ran("", said.strip(), None, 0.0)
        number = re.match(r"applied (\d)", own)
        applied = APPLY_COMMANDS[int(number[1]) - 1] if number else ""
        if ended := re.search(rf"^{mark} ended (\d+) ([\d.]+) ([\d.]+)$", own, re.MULTILINE):
            return Ran(applied, said.strip(), int(ended[1]), float(ended[3]) - float(ended[2]))
        if end != "over":
            return Ran(applied, said.strip(), None, time.time() - since, end == "late", end == "flooded")
        why = await self._call("say why", obituary, client, container, since)
        raise SandboxFailed(f"a container ended before its tests did: {said.strip()[-300:] or why}")

    def _later(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _discard(self, client: Any, label: str, making: asyncio.Future[str]) -> None:
        """After a time-out, a failure or a cancellation: wait for the container that is being made, and remove it."""
        await asyncio.wait([making])
        if not making.cancelled() and making.exception() is None:
            with contextlib.suppress(SandboxFailed):  # a daemon that is gone took the container with it
                await self._call("remove a container", remove_container, client, label)

    async def _call(self, what: str, function: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(explained, what, function, *args))


async def _talk(attachment: Attachment, sent: bytes, log: IO[bytes], timeout: float) -> _End:
    """Send what the program reads and write what the script says to `log`, until the container's end, or a limit."""

    async def listen() -> _End:
        left = LOG_BYTES
        while chunk := await attachment.stdout.read(_CHUNK):
            log.write(chunk[:left])
            left -= len(chunk)
            if left < 0:
                return "flooded"
        return "over"

    async def send() -> None:
        attachment.stdin.write(sent)
        await attachment.stdin.drain()

    listening = asyncio.ensure_future(listen())
    try:
        async with asyncio.timeout(timeout):
            with contextlib.suppress(ConnectionError):  # it has ended before it read everything: its output tells why
                await send()
            return await listening
    except TimeoutError:
        return "late"
    except ConnectionError:
        return "over"
    finally:
        listening.cancel()
