"""The harness's end of a sandbox: speaks to the shim (harness/inside/shim.py) over any pair of byte streams.

Both backends start the shim as the first process of their sandbox with `LAUNCH` and hand the two ends of its stream to
`ShimSandbox`. Frames are described in the shim. Calls are plain awaits on one connection: no thread, no process, no
polling; any number may be under way at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import posixpath
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

from harness.records import Exec, FileState, Json, Tree
from harness.sandbox.base import ENVDIR, TROOPDIR, WORKDIR, Limits
from tasks.errors import SandboxFailed, TroopError

INSIDE = TROOPDIR + "/inside"
LAUNCH = ("-I", "-S", "-B", "-c", f"import sys; sys.path.insert(0, '{INSIDE}'); import shim; shim.main()")
"""Arguments for a Python 3.6 or newer that make it the shim; `INSIDE` must hold the files of harness/inside."""

HOME = "/tmp/home"
PATH = f"{ENVDIR}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SKIPPED = (
    *(".git", ".hg", ".svn", ".tox", ".nox", ".venv", ".eggs", "node_modules", "__pycache__", ".cache"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"),
)
"""Names that a snapshot leaves out, at any depth (besides byte code and virtual environments)."""

FILE_LIMIT = 4_000_000
SNAPSHOT_LIMIT = 64_000_000
SNAPSHOT_ENTRIES = 20_000
RESTORE_BYTES = 16_000_000
RESTORE_ENTRIES = 5_000
PART = 256 * 1024
FRAME_LIMIT = 1 << 30
LOOK: Json = {
    "root": WORKDIR,
    "skip": SKIPPED,
    "limit": FILE_LIMIT,
    "total": SNAPSHOT_LIMIT,
    "entries": SNAPSHOT_ENTRIES,
}
FILE_BYTES = 2 << 30
SETUP_FILE_BYTES = 16 << 30
"""The largest file that a command may write; what set-up downloads may be larger."""

DISK_UNLIMITED = "the disk space that a sandbox may fill is not limited as a whole, only the size of each file"

START_SECONDS = 30.0
"""For a shim to answer for the first time."""
ANSWER_SECONDS = 120.0
"""A shim that says nothing for so long, beyond a command's own timeout, is taken for dead."""


DIAGNOSIS_SECONDS = 10.0
"""For whoever knows why a sandbox ended to say so; all who wait for an answer wait for this as well."""


class Reader(Protocol):
    """Where the shim's standard output arrives; `asyncio.StreamReader` is one."""

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end."""


class Writer(Protocol):
    """Where the shim's standard input goes; `asyncio.StreamWriter` is one."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


def base_env(extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a command in a sandbox: nothing of the harness's own."""
    return {
        "PATH": PATH,
        "HOME": HOME,
        "USER": "troop",
        "LOGNAME": "troop",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
        **extra,
    }


class ShimSandbox:
    """One running sandbox.

    `env`: the environment of every command. `rlimits`: resource limits of each command by name ({"NPROC": 512}).
    `diagnose` is awaited once when the stream ends unasked and says why, in a few words; `release` removes all that the
    backend gave the sandbox, and is awaited once, by `close`.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        writer: Writer,
        *,
        limits: Limits,
        env: Mapping[str, str],
        release: Callable[[], Awaitable[None]],
        diagnose: Callable[[], Awaitable[str]],
        missing_limits: Sequence[str] = (),
        rlimits: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.hello: Json = {}
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._env = dict(env)
        self._release = release
        self._diagnose = diagnose
        self._missing = tuple(missing_limits)
        self._rlimits = dict(rlimits or {})
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[tuple[Json, bytes]]] = {}
        self._lost: str | None = None
        self._closing: asyncio.Future[None] | None = None
        self._listening = asyncio.ensure_future(self._listen())

    @property
    def missing_limits(self) -> tuple[str, ...]:
        return self._missing

    async def start(self) -> None:
        """Wait until the shim answers and has noted which files there are. Raises SandboxFailed."""
        self.hello, _ = await self._ask({"op": "ping"}, timeout=START_SECONDS)
        self._send({"op": "baseline", "id": next(self._ids), **LOOK})

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        cwd: str = WORKDIR,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 120.0,
        output_bytes: int | None = None,
        merge: bool = False,
    ) -> Exec:
        request: Json = {"op": "exec", "cwd": absolute(cwd), "env": {**self._env, **(env or {})}, "timeout": timeout}
        request["keep"] = self._limits.output_bytes if output_bytes is None else output_bytes
        if isinstance(command, str):
            request["shell"] = command
        else:
            request["argv"] = list(command)
        if merge:
            request["merge"] = True
        if self._rlimits:
            request["rlimits"] = self._rlimits
        return await self._execute(request, stdin)

    async def read(self, path: str, *, limit: int = 50_000_000) -> bytes:
        header, payload = await self._ask({"op": "read", "path": absolute(path), "limit": limit})
        if header.get("too_large"):
            raise ValueError(f"{path} holds {header['size']} bytes or more, beyond the limit of {limit}")
        return payload

    async def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        await self._ask({"op": "write", "path": absolute(path), "mode": mode}, data)

    async def upload(self, archive: bytes) -> None:
        request = {"op": "unpack", "timeout": 600.0, "keep": 4000}
        done = await self._execute(request, archive)
        if done.exit_code != 0:
            raise SandboxFailed(f"sandbox {self.name}: cannot unpack an archive: {done.output.strip()}")

    async def snapshot(self) -> Tree:
        header, payload = await self._ask({"op": "snapshot", **LOOK})
        files = []
        at = 0
        for path, mode, link, size in header["files"]:
            if size is None:
                files.append(FileState(path, None))
            else:
                files.append(FileState(path, payload[at : at + size], mode, link))
                at += size
        return Tree(tuple(files), tuple(header["left_out"]))

    async def restore(self, files: Sequence[FileState]) -> None:
        parts = list(_parts(files)) or [[]]
        for number, part in enumerate(parts, 1):
            rows = [[f.path, f.mode, f.link, None if f.data is None else len(f.data)] for f in part]
            contents = b"".join(f.data for f in part if f.data is not None)
            await self._ask({"op": "restore", "files": rows, "last": number == len(parts), **LOOK}, contents)

    async def close(self) -> None:
        """Raises nothing, may be called again and by several tasks at once: all wait for the one removal."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._shut())
        await asyncio.shield(self._closing)

    # ---- the connection

    async def _shut(self) -> None:
        self._lose("it was closed")
        self._listening.cancel()
        with contextlib.suppress(OSError):
            self._writer.close()
        await self._release()

    async def _execute(self, request: Json, stdin: bytes) -> Exec:
        request["last"] = len(stdin) <= PART
        timeout = request["timeout"] + ANSWER_SECONDS
        header, payload = await self._ask(request, stdin[:PART], rest=stdin[PART:], timeout=timeout, killable=True)
        out = header["out"]
        return Exec(
            stdout=payload[:out],
            stderr=payload[out:],
            exit_code=header["exit"],
            timed_out=header["timed_out"],
            seconds=header["seconds"],
            truncated=header["truncated"],
        )

    async def _ask(
        self,
        request: Json,
        payload: bytes = b"",
        *,
        rest: bytes = b"",
        timeout: float = ANSWER_SECONDS,
        killable: bool = False,
    ) -> tuple[Json, bytes]:
        """Send a request (`rest`: more of its payload, in parts) and wait for its reply. Raises OSError where the
        system inside refused, SandboxFailed where the sandbox is gone."""
        number = next(self._ids)
        reply: asyncio.Future[tuple[Json, bytes]] = asyncio.get_running_loop().create_future()
        self._send({**request, "id": number}, payload)
        self._pending[number] = reply
        try:
            async with asyncio.timeout(timeout):
                await self._drain()
                for at in range(0, len(rest), PART):
                    self._send({"op": "feed", "id": number, "last": at + PART >= len(rest)}, rest[at : at + PART])
                    await self._drain()
                header, body = await reply
        except TimeoutError:
            self._lose(f"it gave no answer for {timeout:.0f} s")
            raise self._failure() from None
        except asyncio.CancelledError:
            if killable and self._lost is None:
                self._send({"op": "kill", "id": number})
            raise
        finally:
            self._pending.pop(number, None)
            if reply.done() and not reply.cancelled():
                reply.exception()  # heard of, also where another way of ending came first
        if "errno" in header:
            raise OSError(header["errno"], header["text"], request.get("path"))
        return header, body

    def _send(self, header: Json, payload: bytes = b"") -> None:
        if self._lost is not None:
            raise self._failure()
        head = json.dumps(header, separators=(",", ":")).encode("ascii")
        self._writer.write(b"%b%b%b%b" % (len(head).to_bytes(4, "big"), len(payload).to_bytes(4, "big"), head, payload))

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:  # the listener finds out why
            await asyncio.wait({self._listening})
            raise self._failure() from None

    async def _listen(self) -> None:
        """Hand each reply to who waits for it, until the stream ends."""
        inbox = bytearray()
        why = "its connection ended, and nobody says why"
        try:
            while piece := await self._reader.read(1 << 18):
                inbox += piece
                self._deliver(inbox)
            async with asyncio.timeout(DIAGNOSIS_SECONDS):
                why = await self._diagnose()
        except TimeoutError:
            pass
        except TroopError as error:
            why = str(error)
        except Exception as error:
            why = f"its connection broke ({type(error).__name__}: {error})"
        self._lose(why)

    def _deliver(self, inbox: bytearray) -> None:
        while len(inbox) >= 8:
            head = int.from_bytes(inbox[:4], "big")
            body = int.from_bytes(inbox[4:8], "big")
            if head + body > FRAME_LIMIT:
                raise ValueError(f"a frame of {head + body} bytes")
            if len(inbox) < 8 + head + body:
                return
            header = json.loads(inbox[8 : 8 + head])
            payload = bytes(memoryview(inbox)[8 + head : 8 + head + body])
            del inbox[: 8 + head + body]
            reply = self._pending.get(header["id"])
            if reply is not None and not reply.done():
                reply.set_result((header, payload))

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(self._failure())

    def _failure(self) -> SandboxFailed:
        return SandboxFailed(f"sandbox {self.name} is gone: {self._lost}")


def _parts(files: Sequence[FileState]) -> Iterator[list[FileState]]:
    """A restoration in frames of bounded size, all deletions first."""
    part: list[FileState] = []
    size = 0
    for file in sorted(files, key=lambda f: f.data is not None):
        length = len(file.data or b"")
        if part and (len(part) >= RESTORE_ENTRIES or size + length > RESTORE_BYTES):
            yield part
            part, size = [], 0
        part.append(file)
        size += length
    if part:
        yield part


def absolute(path: str) -> str:
    """A path inside the sandbox, relative ones from WORKDIR."""
    return posixpath.join(WORKDIR, path)
