"""The harness's end of a sandbox: speaks to the shim (harness/inside/shim.py) over any pair of byte streams.

Both backends start the shim as the first process of their sandbox with `LAUNCH` and hand the two ends of its stream to
`ShimSandbox`. Frames are described in the shim. Calls are plain awaits on one connection: no thread, no process, no
polling; any number may be under way at once.
"""

import asyncio
import contextlib
import itertools
import json
import posixpath
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.records import Exec, FileState, Json, Tree
from harness.room import lacking
from harness.sandbox.base import ENVDIR, HOME, INSIDE, WORKDIR, Limits
from tasks.errors import SandboxFailed, TroopError

LAUNCH = ("-I", "-S", "-B", "-c", f"import sys; sys.path.insert(0, '{INSIDE}'); import shim; shim.main()")
"""Arguments for a Python 3.6 or newer that make it the shim; `INSIDE` must hold the files of harness/inside."""

SKIPPED = (
    *(".git", ".hg", ".svn", ".tox", ".nox", ".venv", ".eggs", "node_modules", "__pycache__", ".cache"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"),
)
"""Names that a snapshot leaves out, at any depth (besides byte code and virtual environments)."""

RESTORE_BYTES = 16_000_000
RESTORE_ENTRIES = 5_000
PART = 256 * 1024
FRAME_LIMIT = 1 << 30
SNAPSHOT_ENTRIES = 20_000
LOOK: Json = {"root": WORKDIR, "skip": SKIPPED, "limit": 4_000_000, "total": 64_000_000, "entries": SNAPSHOT_ENTRIES}
"""What a snapshot holds: `limit` bytes of one file, `total` of all, `entries` one by one; of others, how many."""

DISK_UNLIMITED = "the disk space that a sandbox may fill is not limited as a whole, only the size of each file"

START_SECONDS = 30.0
"""For a shim to answer for the first time."""
ANSWER_SECONDS = 120.0
"""A shim that says nothing for so long, beyond a command's own timeout, is taken for dead."""
DIAGNOSIS_SECONDS = 10.0
"""For whoever knows why a sandbox ended to say so; all who wait for an answer wait for this as well."""


def file_limit(*, network: bool) -> int:
    """The largest file that a command may write, in bytes; what set-up downloads (with the network) may be larger."""
    return (16 if network else 2) << 30


@cache
def inside_modules() -> Mapping[str, bytes]:
    """The files of harness/inside/ by name: what `INSIDE` is to hold."""
    from harness import inside

    return {path.name: path.read_bytes() for path in sorted(Path(str(inside.__file__)).parent.glob("[!.]*.*"))}


def variables(*layers: str) -> dict[str, str]:
    """The variables of these layers of variables.toml, the later ones over the earlier."""
    known = tomllib.loads((Path(__file__).parent / "variables.toml").read_text("utf-8"))
    return {name: text.format(env=ENVDIR, home=HOME) for layer in layers for name, text in known[layer].items()}


@dataclass(eq=False, kw_only=True)
class ShimSandbox:
    """One running sandbox.

    `env`: the environment of every command. `missing_limits`: see `Sandbox`; that of the disk is added here. `rlimits`:
    resource limits of each command by name ({"NPROC": 512}). `diagnose` is awaited once when the stream ends unasked
    and says why; `release` removes all that the backend gave the sandbox, and is awaited once, by `close`. `storage`:
    where its files lie on this machine (None: not known); what it answers with no room there is not believed."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    limits: Limits
    env: Mapping[str, str]
    release: Callable[[], Awaitable[None]]
    diagnose: Callable[[], Awaitable[str]]
    missing_limits: tuple[str, ...]
    rlimits: Mapping[str, int]
    storage: Path | None = None

    def __post_init__(self) -> None:
        self.missing_limits += (DISK_UNLIMITED,)
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[tuple[Json, bytes]]] = {}
        self._lost: str | None = None
        self._closing: asyncio.Future[None] | None = None
        self._listening = asyncio.ensure_future(self._listen())

    async def start(self) -> None:
        """Wait until the shim answers and notes which files there are; else it is closed. Raises SandboxFailed."""
        try:
            await self._ask({"op": "ping"}, timeout=START_SECONDS)
            self._send({"op": "baseline", "id": next(self._ids), **LOOK})
        except BaseException:
            await self.close()
            raise

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
        request: Json = {"op": "exec", "cwd": absolute(cwd), "env": {**self.env, **(env or {})}, "timeout": timeout}
        request["keep"] = self.limits.output_bytes if output_bytes is None else output_bytes
        request |= {"shell": command} if isinstance(command, str) else {"argv": list(command)}
        return await self._execute({**request, "merge": merge, "rlimits": self.rlimits}, stdin)

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

    async def quiet(self) -> None:
        await self._ask({"op": "quiet"})

    async def snapshot(self) -> Tree:
        header, payload = await self._ask({"op": "snapshot", **LOOK})
        files = []
        at = 0
        for path, mode, link, size in header["files"]:
            gone = size is None
            files.append(FileState(path, None) if gone else FileState(path, payload[at : at + size], mode, link))
            at += size or 0
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
            self.writer.close()
        await self.release()

    async def _execute(self, request: Json, stdin: bytes) -> Exec:
        request["last"] = len(stdin) <= PART
        timeout = request["timeout"] + ANSWER_SECONDS
        header, payload = await self._ask(request, stdin[:PART], rest=stdin[PART:], timeout=timeout, killable=True)
        out, told = header["out"], {name: header[name] for name in ("timed_out", "seconds", "truncated")}
        return Exec(payload[:out], payload[out:], header["exit"], **told)

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
        if why := lacking(self.storage):
            raise SandboxFailed(f"sandbox {self.name} has no room to work in: {why}")
        if "errno" in header:
            raise OSError(header["errno"], header["text"], request.get("path"))
        return header, body

    def _send(self, header: Json, payload: bytes = b"") -> None:
        if self._lost is not None:
            raise self._failure()
        head = json.dumps(header, separators=(",", ":")).encode("ascii")
        self.writer.write(b"%b%b%b%b" % (len(head).to_bytes(4, "big"), len(payload).to_bytes(4, "big"), head, payload))

    async def _drain(self) -> None:
        try:
            await self.writer.drain()
        except OSError:  # the listener finds out why
            await asyncio.wait({self._listening})
            raise self._failure() from None

    async def _listen(self) -> None:
        """Hand each reply to who waits for it, until the stream ends."""
        inbox = bytearray()
        why = "its connection ended, and nobody says why"
        try:
            with contextlib.suppress(ConnectionError):  # its end, too; why, only the backend knows
                while piece := await self.reader.read(1 << 18):
                    inbox += piece
                    self._deliver(inbox)
            async with asyncio.timeout(DIAGNOSIS_SECONDS):
                why = await self.diagnose()
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
