"""One patch and one script in one fresh container: the leanest way that a grading can take.

No sandbox of an attempt: grading wants the container that the official harness would have made, with root and docker's
ordinary capabilities, so that tests of permissions come out the same; but with no network unless asked for.

The container's first process is a short shell program. It reads the patch and the script from its standard input,
applies the one, runs the other, and ends; with it ends the container, at once, and the daemon removes it. When the
harness dies, its attachment ends, with it the program's input, and a watcher in the container kills everything.
"""

import asyncio
import contextlib
import math
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from harness.room import check, lacking
from harness.sandbox.base import name_unlike_others
from harness.sandbox.docker.containers import make_container, obituary, sweep
from harness.sandbox.docker.daemon import Attachment, Daemon
from harness.swebench import official
from harness.swebench.names import ImageRef
from harness.swebench.official import Rules
from tasks.errors import SandboxFailed
from tasks.swebench import Row

_ANEW = "git checkout -- . ; git clean -fd ; "
APPLY_COMMANDS: Mapping[Rules, tuple[str, ...]] = {
    "5": (
        "git apply --verbose",
        f"{_ANEW}git apply --verbose --3way",
        f"{_ANEW}git apply --verbose --reject",
        f"{_ANEW}patch --batch --forward --fuzz=5 -p1 -i",
        "2> /dev/null git apply --check --reverse",
    ),
    "4.1": ("git apply --verbose", "git apply --verbose --reject", "patch --batch --fuzz=5 -p1 -i"),
}
"""The ways to lay a patch that the official harness tries, in this order, each upon what the one before left. (The last
of today's asks whether it lies there already.)"""

_PROGRAM = Path(__file__).with_name("container.sh").read_text("utf-8")

LOG_BYTES = 256 << 20
"""Of a script's output. Real ones have tens of megabytes at most; this much can still be parsed."""

_CHUNK = 1 << 18
_MEMORY_SHARE = 0.85
_PROCESSES = 16_384

_End = Literal["over", "late", "flooded"]


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

    `run`: whose the containers are (a label). `network`: whether they have one."""

    def __init__(self, run: str, *, network: bool = False) -> None:
        self.daemon = Daemon()
        self._run = run
        self._network = network
        self._endings: set[asyncio.Task[None]] = set()

    async def clean(self) -> list[str]:
        """Remove the containers that dead processes left; names them."""
        return await self.daemon.ask("look for containers", sweep, None)

    async def run(
        self, row: Row, image: ImageRef, patch: bytes, script: bytes, log: IO[bytes], timeout: float, rules: Rules = "5"
    ) -> Ran:
        """Apply the patch and run the script in a fresh container of the row's `image`; the script's output goes
        to `log`. `timeout` in seconds: then everything in it is killed. Raises SandboxFailed
        where daemon or container fail."""
        await self.daemon.connected()
        check(self.daemon.storage)
        mark = f"troop-{secrets.token_hex(8)}"
        command = [mark, str(len(patch)), str(len(script)), row.enter, *APPLY_COMMANDS[rules]]
        began = time.time()
        own, name = () if row.eval_script else official.spec_of(row).capabilities, row.instance_id
        label = f"troop-{name_unlike_others(self._run, name)}"
        container, attachment = await self.daemon.started(label, self._make, name, image.id, command, own)
        gone = False
        try:
            end = await _talk(attachment, patch + script, log, timeout)
            gone = end == "over"
            if why := lacking(self.daemon.storage):
                raise SandboxFailed(f"a container has no room to work in: {why}")
            return await self._told(container, attachment, mark, end, began, rules)
        finally:
            attachment.stdin.transport.abort()
            if not gone:
                ending = asyncio.ensure_future(self.daemon.remove(container))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

    async def close(self) -> None:
        """Wait until every container is gone."""
        while self._endings:
            await asyncio.gather(*self._endings)
        await self.daemon.close()

    def _make(
        self, client: Any, label: str, name: str, image: str, command: list[str], capabilities: tuple[str, ...]
    ) -> str:
        """Blocking: a container that is ready to be started; its id."""
        limit = math.floor(int(self.daemon.info.get("MemTotal") or 0) * _MEMORY_SHARE) or None
        host = {
            "network_mode": None if self._network else "none",
            # Without a network docker names no address for the container's own name; with one it does.
            "extra_hosts": None if self._network else {"testbed": "127.0.0.1"},
            "cap_add": list(capabilities),
            # The machine's own protection, no limit on tests: what is left is the kernel's choice of a victim.
            **{"mem_limit": limit, "memswap_limit": limit, "pids_limit": _PROCESSES, "oom_score_adj": 500},
        }
        entry = ["/bin/bash", "--norc", "-c", _PROGRAM, "troop", *command]
        place = {"hostname": "testbed", "working_dir": "/"}
        return make_container(client, image, label, self._run, name, host, entrypoint=entry, **place)

    async def _told(
        self, container: str, attachment: Attachment, mark: str, end: _End, since: float, rules: Rules
    ) -> Ran:
        """What the program said of itself. Raises SandboxFailed where it did not come to its end."""
        said, _, own = attachment.stderr.partition(f"{mark} ")
        if own.startswith("refused"):
            return Ran("", said.strip(), None, 0.0)
        number = re.match(r"applied (\d)", own)
        applied = APPLY_COMMANDS[rules][int(number[1]) - 1].removeprefix(_ANEW) if number else ""
        if ended := re.search(rf"^{mark} ended (\d+) ([\d.]+) ([\d.]+)$", own, re.MULTILINE):
            return Ran(applied, said.strip(), int(ended[1]), float(ended[3]) - float(ended[2]))
        if end != "over":
            return Ran(applied, said.strip(), None, time.time() - since, end == "late", end == "flooded")
        why = await self.daemon.ask("say why", obituary, container, since)
        raise SandboxFailed(f"a container ended before its tests did: {said.strip()[-300:] or why}")


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

    listening = asyncio.ensure_future(listen())
    try:
        async with asyncio.timeout(timeout):
            with contextlib.suppress(ConnectionError):  # it has ended before it read everything: its output tells why
                attachment.stdin.write(sent)
                await attachment.stdin.drain()
            return await listening
    except TimeoutError:
        return "late"
    except ConnectionError:
        return "over"
    finally:
        listening.cancel()
