"""Starting a bubblewrap sandbox: into its control groups, its own mount namespace, its copy-on-write tree, then bwrap.

All of it is one chain of exec calls with one process id, so that bwrap, once there, dies with the harness, and the
mounts go with the namespace: there is never anything to unmount.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.sandbox.bubblewrap.system import CLEAN_ENV

# Arguments: how many control groups, their folders, the overlay's options (or ""), where to mount it, the program.
_CHAIN = """\
n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 > "$1/cgroup.procs"; shift; n=$((n-1)); done
if [ -n "$1" ]; then mount -t overlay troop -o "$1" "$2"; fi
shift 2
exec "$@"
"""
_SHELL = ("sh", "-ec", _CHAIN, "troop")

# `volatile`: what an attempt wrote need not reach the disk. `userxattr`: without the rights of root, since Linux 5.11.
_OVERLAY_CHOICES = ("volatile", "", "volatile,userxattr", "userxattr")

COPY = ("cp", "-a", "--reflink=auto", "--")
ENDING_SECONDS = 5.0


class Copying:
    """How a tree is given to a sandbox so that what it writes stays its own: by an overlay mount, or as a copy."""

    def __init__(self, folder: Path) -> None:
        """Find out, below `folder`, what the kernel allows. Blocks for some milliseconds."""
        folder.mkdir(parents=True, exist_ok=True)
        as_user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        self.namespace: tuple[str, ...] = ("unshare", *as_user, "--mount", "--propagation", "private", "--")
        self.options: str | None = None
        for options in _OVERLAY_CHOICES:
            self.why = self._try(folder, options)
            if not self.why:
                self.options = options
                return

    def _try(self, folder: Path, options: str) -> str:
        """Why an overlay with these options cannot be had; empty where it can."""
        place = Path(tempfile.mkdtemp(dir=folder, prefix=".overlay-"))
        try:
            for name in ("lower", "upper", "work", "tree"):
                (place / name).mkdir()
            (place / "lower/file").write_text("old")
            mounted = overlay_options("lower", "upper", "work", options)
            test = 'echo new > tree/file && mv tree/file tree/moved && test "$(cat lower/file)" = old'
            command = [*self.namespace, *_SHELL, "0", mounted, "tree", "sh", "-ec", test]
            return complaint_of(command, place)
        except OSError as error:
            return str(error)
        finally:
            remove_tree(place)


def overlay_options(lower: str, upper: str, work: str, options: str) -> str:
    """Paths relative to the directory of the mount: an absolute one might hold a comma or a colon."""
    return ",".join(filter(None, (f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", options)))


def chain(
    program: Sequence[str], namespace: Sequence[str], overlay: str, tree: str, groups: Sequence[Path] = ()
) -> list[str]:
    """The command that goes through all the stages to `program`: in the `namespace`, `overlay` (options, "" for none)
    mounted at `tree`, in the control groups with the folders `groups`."""
    if not groups and not overlay:
        return list(program)
    return [*namespace, *_SHELL, str(len(groups)), *map(str, groups), overlay, tree, *program]


class Launched:
    """A started chain with a socket as its standard input and output, and a file for what it complains of."""

    def __init__(self, command: Sequence[str], *, cwd: Path, complaints: Path) -> None:
        """Blocks for the fork; to be called in the thread that lives as long as the sandbox (the kernel ties them)."""
        self._complaints = complaints
        ours, theirs = socket.socketpair()
        try:
            with theirs, complaints.open("wb") as stderr:
                end = theirs.fileno()
                self._popen = subprocess.Popen(
                    command, cwd=cwd, env=CLEAN_ENV, stdin=end, stdout=end, stderr=stderr, start_new_session=True
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self.socket = ours

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Its output and its input. On failure, and when cancelled meanwhile, it is ended."""
        try:
            return await asyncio.open_unix_connection(sock=self.socket)
        except BaseException:
            self.socket.close()
            await asyncio.shield(self.end())
            raise

    async def ended(self, seconds: float) -> int | None:
        """The exit status, or None where it still runs after `seconds`."""
        if self._popen.poll() is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._popen.wait), seconds)
        return self._popen.poll()

    async def end(self) -> None:
        """Wait for it to end, its input being closed; kill it if it does not."""
        if await self.ended(ENDING_SECONDS) is None:
            self._popen.send_signal(signal.SIGKILL)
            await self.ended(ENDING_SECONDS)

    async def last_words(self) -> str:
        """Why it ended, for a message: what it complained of, else its status."""
        status = await self.ended(2.0)
        said = self._complaints.read_bytes()[-2000:] if self._complaints.exists() else b""
        if text := said.decode("utf-8", "replace").strip():
            return text.splitlines()[-1]
        return f"its first process {'closed the connection' if status is None else f'ended with status {status}'}"


def complaint_of(command: Sequence[str], folder: Path | None = None, *, seconds: float | None = 20) -> str:
    """Why a command does not work, in `folder`; empty where it does, within `seconds`. Ctrl-C is not for it."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=CLEAN_ENV,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode("utf-8", "replace").strip()[-300:]
    return "" if done.returncode == 0 else said or f"status {done.returncode}"


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree as fast as the file system can, with modes, times and links. Raises OSError."""
    if complaint := complaint_of([*COPY, str(source), str(target)], seconds=None):
        raise OSError(f"cannot copy {source}: {complaint}")


def remove_tree(path: Path) -> None:
    """Remove a tree, folders included that forbid it by their mode. Follows no link. Raises OSError if some is left.

    By programs that go down into a tree of any depth with few descriptors; Python's own way down is neither."""
    if not os.path.lexists(path):
        return
    remove = ("rm", "-rf", "--one-file-system", "--", str(path))
    if complaint_of(remove, seconds=None):
        complaint_of(("chmod", "-R", "u+rwX", "--", str(path)), seconds=None)
        if complaint := complaint_of(remove, seconds=None):
            raise OSError(f"cannot remove {path}: {complaint}")


def private_folder(path: Path) -> None:
    """Make a folder that no other user of this machine gets through: below it are programs that attempts made, and
    those that say to run as their owner would run as the user of the harness. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
