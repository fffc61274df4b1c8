"""PID 1 of every sandbox: runs the commands that the harness asks for, and gives back what they did.

Python 3.6 or newer, standard library only, started as `python3 -I -S shim.py` with a stream on standard input and
output. It is the init of its pid namespace, so that nothing inside can kill it, and it is not dumpable, so that no
command can trace it or open its file descriptors: what it reports cannot be forged. It ends with its input.

A frame, in both directions: header length and payload length (4 bytes each, big-endian), header (a JSON object),
payload. A request has `op` and `id`; its one reply has the same `id`, and `errno` and `text` where it failed.
Operations:

    ping                                    answered, once all is ready
    exec     argv | shell, cwd, env, timeout, keep, merge, last (payload: standard input)
                                            -> exit, timed_out, truncated, seconds, out
                                               (payload: both streams, `out` first)
    feed     last (payload: more standard input for the exec of that id; no reply)
    kill     ends the exec of that id with everything it started
    quiet                                   ends every other process of the sandbox
    unpack   last (payload: a tar archive, in parts like standard input) -> as exec
    read     path, limit                    -> size (payload: the bytes)
    write    path, mode (payload: the bytes)
    baseline root, skip                     remembers which files there are
    snapshot root, skip, limit, total, entries -> files [[path, mode, link, size | null]], left_out (payload: contents)
    restore  root, skip, limit, total, entries, files, last (payload)

One guardian process per exec is the reaper of everything that the command leaves behind, so that a timed-out command is
killed with all that it started, whatever sessions or double forks it used. The status travels on a pipe between shim
and guardian which the command never holds.
"""

# pathlib would cost every sandbox time and memory at its start.

import binascii
import ctypes
import errno
import json
import os
import resource
import select
import signal
import stat
import struct
import time
import warnings  # noqa: F401  # os.execvpe loads it: once here, and not in each command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING = 1

CHUNK = 1 << 16
# What a process left in the background may still write to a finished command's output before it gets a broken pipe.
SPILL = 64 << 20
# How long a tree of processes is hunted one by one before everything in the sandbox is killed at once.
HUNT_SECONDS = 2.0
# The kernel stamps files from a clock that lags behind time.time() by up to a tick.
TICK_NS = 20000000

# poll takes a C int; to wake up now and then costs nothing.
LONGEST_POLL_MS = 86400000.0
# signalfd_siginfo: signal, code, sender. A process may invent what it queues, but not this code, kill(2)'s alone.
SIGINFO = struct.Struct("=I4xiI112x")
SI_USER = 0

TIMED_OUT = 124
CANNOT_EXECUTE = 126
NOT_FOUND = 127


class KeptOutput:
    """The beginning and the end of a stream, `limit` bytes together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.head = bytearray()
        self.tail = bytearray()
        self.total = 0

    def add(self, piece: bytes) -> None:
        self.total += len(piece)
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += piece[:room]
            piece = piece[room:]
        self.tail += piece
        if len(self.tail) > self.limit + CHUNK:
            del self.tail[: len(self.tail) - self.limit]

    @property
    def cut(self) -> int:
        """Bytes left out."""
        return max(0, self.total - self.limit)

    def whole(self) -> bytes:
        if not self.cut:
            return bytes(self.head + self.tail)
        end = self.tail[len(self.tail) - (self.limit - len(self.head)) :]
        return bytes(self.head + b"\n[... %d bytes cut ...]\n" % self.cut + end)


class Command:
    """One exec in progress: its guardian, its pipes, its deadline."""

    def __init__(self, request: "dict[str, Any]") -> None:
        self.id = request["id"]
        self.guardian = 0
        self.main = 0  # pid of the command itself, once the guardian has told
        self.status_fd = -1
        self.status = bytearray()
        keep = request.get("keep", 200000)
        self.streams: dict[int, KeptOutput] = {}
        self.out = KeptOutput(keep)
        self.err = KeptOutput(keep)
        self.stdin_fd = -1
        self.stdin = bytearray()
        self.stdin_last = False
        self.began = time.monotonic()
        timeout = request.get("timeout")
        self.deadline = None if timeout is None else self.began + float(timeout)


class Shim:
    """The loop: one thread, every descriptor watched in one place."""

    def __init__(self, control_in: int, control_out: int, signals: int, oom_fd: int) -> None:
        self.control_in = control_in
        self.control_out = control_out
        self.signals = signals
        self.oom_fd = oom_fd
        self.oom_score = int(os.pread(oom_fd, 16, 0)) if oom_fd >= 0 else 0
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.poll = select.poll()
        self.watched: dict[int, Callable[[int, int], None]] = {}
        self.commands: dict[object, Command] = {}  # running, by request id
        self.guardians: dict[int, Command] = {}  # not reaped yet, by pid
        self.spill: dict[int, int] = {}  # output of finished commands still held open: bytes that may yet come
        self.known: dict[str, bytes] | None = None  # stat of each file at the last snapshot
        self.names: set[str] = set()  # the files of the baseline
        self.since_ns = 0
        self.racy: dict[str, bytes] = {}
        self.watch(control_in, select.POLLIN, self.on_control)
        self.watch(signals, select.POLLIN, self.on_signals)

    # ---- descriptors

    def watch(self, fd: int, events: int, callback: "Callable[[int, int], None]") -> None:
        os.set_blocking(fd, False)
        self.watched[fd] = callback
        self.poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        if self.watched.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def close_fd(self, fd: int) -> None:
        self.unwatch(fd)
        os.close(fd)

    def serve(self) -> None:
        while True:
            for fd, events in self.poll.poll(self.patience()):
                callback = self.watched.get(fd)
                if callback is not None:
                    callback(fd, events)
            self.end_overdue()

    def patience(self) -> "float | None":
        """Milliseconds until the next deadline."""
        deadlines = [c.deadline for c in self.commands.values() if c.deadline is not None]
        if not deadlines:
            return None
        return min(max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1, LONGEST_POLL_MS)

    # ---- frames

    def on_control(self, fd: int, _events: int) -> None:
        if fd == self.control_out:
            self.flush()
            return
        piece = read_some(fd, 1 << 20)
        if piece is None:
            return
        if not piece:
            os._exit(0)
        self.inbox += piece
        while len(self.inbox) >= 8:
            head = int.from_bytes(self.inbox[:4], "big")
            body = int.from_bytes(self.inbox[4:8], "big")
            if len(self.inbox) < 8 + head + body:
                return
            request = json.loads(self.inbox[8 : 8 + head].decode("ascii"))
            payload = bytes(self.inbox[8 + head : 8 + head + body])
            del self.inbox[: 8 + head + body]
            self.answer(request, payload)

    def reply(self, header: "dict[str, Any]", payload: bytes = b"") -> None:
        head = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        waiting = bool(self.outbox)
        self.outbox += len(head).to_bytes(4, "big") + len(payload).to_bytes(4, "big") + head
        self.outbox += payload
        if not waiting:
            self.flush()

    def flush(self) -> None:
        try:
            write_some(self.control_out, self.outbox)
        except BlockingIOError:
            if self.control_out not in self.watched:
                self.watch(self.control_out, select.POLLOUT, self.on_control)
            return
        except OSError:
            os._exit(0)  # nobody listens any more
        self.unwatch(self.control_out)

    def answer(self, request: "dict[str, Any]", payload: bytes) -> None:
        operation = getattr(self, "do_" + str(request["op"]))
        try:
            operation(request, payload)
        except OSError as error:
            self.reply({"id": request["id"], "errno": error.errno or errno.EIO, "text": error.strerror or str(error)})
        except (ValueError, MemoryError) as error:  # a path with a zero byte; too much at once
            number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EINVAL
            self.reply({"id": request["id"], "errno": number, "text": str(error) or os.strerror(number)})

    def do_ping(self, request: "dict[str, Any]", _payload: bytes) -> None:
        self.reply({"id": request["id"]})

    # ---- commands

    def do_exec(self, request: "dict[str, Any]", payload: bytes) -> None:
        argv = [shell_path(), "-c", request["shell"]] if "shell" in request else request["argv"]

        def become() -> None:
            os.chdir(request["cwd"])
            for name, value in (request.get("rlimits") or {}).items():
                lower_limit(getattr(resource, "RLIMIT_" + name), value)
            execute(argv, request["env"])

        self.start(request, payload, become)

    def do_unpack(self, request: "dict[str, Any]", payload: bytes) -> None:
        self.start(request, payload, unpack)

    def start(self, request: "dict[str, Any]", payload: bytes, become: "Callable[[], None]") -> None:
        command = Command(request)
        pipes: list[int] = []
        try:
            status_r, status_w = pipe(pipes)
            out_r, out_w = pipe(pipes)
            err_r, err_w = (-1, out_w) if request.get("merge") else pipe(pipes)
            stdin_w = -1
            if payload or not request.get("last", True):
                stdin_r, stdin_w = pipe(pipes)
            else:
                stdin_r = os.open(os.devnull, os.O_RDONLY)
                pipes.append(stdin_r)
            ours = [fd for fd in (status_r, out_r, err_r, stdin_w) if fd >= 0]
            command.guardian = self.fork_marked()
        except OSError as error:
            for fd in pipes:
                os.close(fd)
            why = f"cannot start a process: {error.strerror} (the sandbox may be at its limit of processes or memory)"
            command.err.add(b"troop: " + os.fsencode(why) + b"\n")
            self.reply_ended(command, CANNOT_EXECUTE)
            return
        if command.guardian == 0:
            guard([*ours, *self.descriptors()], status_w, (stdin_r, out_w, err_w), become)
        for fd in pipes:
            if fd not in ours:
                os.close(fd)
        command.status_fd = status_r
        command.streams[out_r] = command.out
        if err_r >= 0:
            command.streams[err_r] = command.err
        self.commands[command.id] = command
        self.guardians[command.guardian] = command
        self.watch(status_r, select.POLLIN, lambda _fd, _events: self.on_status(command))
        for fd in command.streams:
            self.watch(fd, select.POLLIN, lambda fd, _events: self.on_output(command, fd))
        if stdin_w >= 0:
            command.stdin_fd = stdin_w
            os.set_blocking(stdin_w, False)
            self.feed(command, payload, request.get("last", True))

    def fork_marked(self) -> int:
        """Fork a child that the kernel prefers to this process when memory is short."""
        if self.oom_fd < 0:
            return os.fork()
        os.pwrite(self.oom_fd, b"%d" % min(1000, self.oom_score + 500), 0)
        pid = -1
        try:
            pid = os.fork()
            return pid
        finally:
            if pid != 0:
                os.pwrite(self.oom_fd, b"%d" % self.oom_score, 0)

    def descriptors(self) -> "list[int]":
        """Everything open here that a guardian must not hold."""
        fds = {self.control_in, self.control_out, self.signals, self.oom_fd, *self.watched}
        fds.update(c.stdin_fd for c in self.commands.values())
        fds.discard(-1)
        return list(fds)

    def do_feed(self, request: "dict[str, Any]", payload: bytes) -> None:
        command = self.commands.get(request["id"])
        if command is not None and command.stdin_fd >= 0:
            self.feed(command, payload, request["last"])

    def feed(self, command: Command, payload: bytes, last: bool) -> None:
        command.stdin += payload
        command.stdin_last = command.stdin_last or last
        self.on_stdin(command)

    def on_stdin(self, command: Command) -> None:
        fd = command.stdin_fd
        try:
            write_some(fd, command.stdin)
        except BlockingIOError:
            if fd not in self.watched:
                self.watch(fd, select.POLLOUT, lambda _fd, _events: self.on_stdin(command))
            return
        except OSError:  # the command reads no more
            command.stdin.clear()
            command.stdin_last = True
        if command.stdin_last:
            command.stdin_fd = -1
            self.close_fd(fd)
        else:
            self.unwatch(fd)

    def on_output(self, command: Command, fd: int) -> None:
        piece = read_some(fd)
        if piece:
            command.streams[fd].add(piece)
        elif piece is not None:
            del command.streams[fd]
            self.close_fd(fd)

    def on_status(self, command: Command) -> None:
        """The guardian says: which pid, that it could not be started, or how it ended."""
        if command.status_fd < 0:
            return
        piece = read_some(command.status_fd)
        if piece is None:
            return
        if not piece:  # the guardian is gone without a word: the command is ours to reap now
            fd, command.status_fd = command.status_fd, -1
            self.close_fd(fd)
            return
        command.status += piece
        refusal = None
        for line in bytes(command.status).split(b"\n")[:-1]:
            word, _, rest = line.partition(b" ")
            if word == b"main":
                command.main = int(rest)
            elif word == b"refused":
                refusal = rest
            elif word == b"ended":
                self.finish(command, int(rest), refusal)
                return

    def finish(self, command: Command, exit_code: int, refusal: "bytes | None" = None, timed_out: bool = False) -> None:
        """Answer with what the command has written by now; what it left in the background lives on."""
        seconds = time.monotonic() - command.began
        del self.commands[command.id]
        for fd in list(command.streams):
            self.drain(command, fd)
        for fd in command.streams:
            self.spill[fd] = SPILL
            self.watched[fd] = self.on_spill
        for fd in (command.status_fd, command.stdin_fd):
            if fd >= 0:
                self.close_fd(fd)
        if refusal is not None:
            command.err.add(b"troop: " + refusal + b"\n")
        self.reply_ended(command, exit_code, timed_out, seconds)

    def reply_ended(self, command: Command, exit_code: int, timed_out: bool = False, seconds: float = 0.0) -> None:
        out, err = command.out.whole(), command.err.whole()
        header = {"id": command.id, "exit": exit_code, "timed_out": timed_out, "seconds": seconds, "out": len(out)}
        self.reply({**header, "truncated": bool(command.out.cut or command.err.cut)}, out + err)

    def drain(self, command: Command, fd: int) -> None:
        budget = 16 * CHUNK  # as much as a pipe can hold: more was written after the command's end
        while budget > 0 and fd in command.streams:
            stream = command.streams[fd]
            before = stream.total
            self.on_output(command, fd)
            if stream.total == before:
                return
            budget -= stream.total - before

    def on_spill(self, fd: int, _events: int) -> None:
        piece = read_some(fd)
        if piece is None:
            return
        self.spill[fd] -= len(piece)
        if not piece or self.spill[fd] <= 0:
            del self.spill[fd]
            self.close_fd(fd)

    # ---- ends

    def on_signals(self, fd: int, _events: int) -> None:
        infos = read_some(fd, SIGINFO.size * 32) or b""
        for number, code, sender in SIGINFO.iter_unpack(infos):
            # A sender outside the pid namespace has no pid here; one inside may not end the sandbox.
            if number == signal.SIGTERM and code == SI_USER and (sender == 0 or os.getpid() != 1):
                os._exit(0)
        self.reap()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            command = self.guardians.pop(pid, None)
            if command is not None:
                self.guardian_gone(command)
                continue
            for command in list(self.commands.values()):  # one whose guardian was killed
                self.on_status(command)
                if command.main == pid and command.id in self.commands:
                    self.finish(command, exit_code_of(status))

    def guardian_gone(self, command: Command) -> None:
        if command.id in self.commands:
            self.on_status(command)
        command.guardian = 0
        if command.id in self.commands and not is_child(command.main):
            self.finish(command, 128 + signal.SIGKILL)

    def end_overdue(self) -> None:
        now = time.monotonic()
        for command in [c for c in self.commands.values() if c.deadline is not None and c.deadline <= now]:
            self.end(command, timed_out=True)

    def do_kill(self, request: "dict[str, Any]", _payload: bytes) -> None:
        command = self.commands.get(request["id"])
        if command is not None:
            self.end(command)

    def end(self, command: Command, timed_out: bool = False) -> None:
        """Kill the command with everything it started, then answer for it."""
        if command.id not in self.commands:
            return
        gone = self.hunt(command)
        if command.guardian:
            os.kill(command.guardian, signal.SIGKILL)
        if not gone:  # it breeds faster than it can be counted
            send(-1, signal.SIGKILL)
        self.finish(command, TIMED_OUT if timed_out else 128 + signal.SIGKILL, timed_out=timed_out)

    def do_quiet(self, request: "dict[str, Any]", _payload: bytes) -> None:
        """The kernel signals all at once, and nobody forks with a signal pending: no breeding outruns it."""
        until = time.monotonic() + HUNT_SECONDS
        send(-1, signal.SIGKILL)
        while {1, os.getpid()} < {1, os.getpid(), *processes()[0]} and time.monotonic() < until:
            time.sleep(0.002)
            self.reap()
        self.reply({"id": request["id"]})

    def hunt(self, command: Command) -> bool:
        """Stop every descendant, and when a look at all processes shows no new one, kill them. True: none is left."""
        frozen: set[int] = set()
        until = time.monotonic() + HUNT_SECONDS
        while time.monotonic() < until:
            living, complete = self.tree(command)
            if not living and complete:
                return True
            fresh = [pid for pid in living if pid not in frozen]
            for pid in fresh:
                send(pid, signal.SIGSTOP)
            frozen.update(fresh)
            if not fresh and complete:
                for pid in living:
                    send(pid, signal.SIGKILL)
                time.sleep(0.001)
                self.reap_strays()
        return False

    def reap_strays(self) -> None:
        """Reap what has no guardian (any more), so that a hunt sees it gone; guardians are left to the loop."""
        kept = {*self.guardians, *(c.main for c in self.commands.values())}
        for pid, (parent, state) in processes()[0].items():
            if parent == os.getpid() and state == "Z" and pid not in kept:
                os.waitpid(pid, os.WNOHANG)

    def tree(self, command: Command) -> "tuple[list[int], bool]":
        """The living descendants of a command, and whether the look at the processes missed none."""
        table, complete = processes()
        me = os.getpid()
        if command.guardian:
            roots = {command.guardian}
        else:  # its guardian was killed: whatever no living guardian holds may be its own
            roots = {pid for pid, (parent, _) in table.items() if parent == me and pid not in self.guardians}
            if command.main:
                roots.add(command.main)
        living = []
        for pid, (_, state) in table.items():
            at, steps = pid, 0
            while at not in roots and at in table and steps < len(table):
                at, steps = table[at][0], steps + 1
            if at in roots and pid != command.guardian and state not in "ZX":
                living.append(pid)
        return living, complete

    # ---- files

    def do_read(self, request: "dict[str, Any]", _payload: bytes) -> None:
        limit = request["limit"]
        with open(os.open(request["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            if stat.S_ISDIR(info.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "Not a regular file")
            content = b"" if info.st_size > limit else file.read(limit + 1)
        size = max(info.st_size, len(content))
        large = size > limit
        self.reply({"id": request["id"], "size": size, "too_large": large}, b"" if large else content)

    def do_write(self, request: "dict[str, Any]", payload: bytes) -> None:
        path, mode = request["path"], request["mode"]
        os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
        # A new file is made beside and put in place: a full disk leaves no half of it.
        made = path if os.path.lexists(path) else os.path.join(os.path.dirname(path), f".troop-{request['id']}")
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb", buffering=0):
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, "Not a regular file")
                os.ftruncate(fd, 0)
                write_all(fd, payload)
                if mode is not None:
                    os.fchmod(fd, mode)
            os.rename(made, path)
        except OSError:
            if made != path:
                remove(made)
            raise
        forget_byte_code(path)
        self.reply({"id": request["id"]})

    def do_baseline(self, request: "dict[str, Any]", _payload: bytes) -> None:
        """Only names: a file that changes from now on shows it by its ctime, so that nothing need be looked at yet."""
        self.since_ns = int(time.time() * 1e9) - TICK_NS
        self.known = None
        self.names = {path for path, _ in walk(request["root"], set(request["skip"]))}
        self.reply({"id": request["id"]})

    def do_snapshot(self, request: "dict[str, Any]", _payload: bytes) -> None:
        files, left_out, contents = self.changes(request)
        self.reply({"id": request["id"], "files": files, "left_out": left_out}, b"".join(contents))

    def changes(self, request: "dict[str, Any]") -> "tuple[list[object], list[str], list[bytes]]":
        """What changed since the last look, which this one replaces."""
        limit, total, room = request["limit"], request["total"], request["entries"]
        beyond = 0
        files: list[object] = []
        left_out: list[str] = []
        contents: list[bytes] = []
        began = int(time.time() * 1e9)
        known = self.known
        now: dict[str, bytes] = {}
        racy: dict[str, bytes] = {}
        for path, entry in walk(request["root"], set(request["skip"])):
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            link = stat.S_ISLNK(info.st_mode)
            if not link and not stat.S_ISREG(info.st_mode):
                continue
            now[path] = mark = fingerprint(info)
            fresh = info.st_ctime_ns >= began - TICK_NS
            if known is None:
                unchanged = path in self.names and info.st_ctime_ns < self.since_ns
            else:
                # A change within the tick of the last look leaves the same stamp: the content decides then.
                unchanged = known.get(path) == mark and path not in self.racy
            if unchanged and not fresh:
                continue
            if len(files) + len(left_out) >= room:
                beyond += not unchanged
                continue
            if not link and info.st_size > limit:
                if not unchanged and (known is None or known.get(path) != mark):
                    left_out.append(f"{path}: {info.st_size} bytes, more than {limit}")
                continue
            try:
                content = os.fsencode(os.readlink(entry.path)) if link else read_whole(entry.path, limit)
            except OSError as error:
                left_out.append(f"{path}: {error.strerror}")
                continue
            digest = content_mark(info.st_mode, content)
            if fresh:
                racy[path] = digest
            if unchanged or (known is not None and self.racy.get(path) == digest):
                continue
            if len(content) > total:
                left_out.append(f"{path}: {len(content)} bytes, beyond what one snapshot holds")
                continue
            total -= len(content)
            contents.append(content)
            files.append([path, stat.S_IMODE(info.st_mode), link, len(content)])
        before = self.names if known is None else known
        gone = sorted(path for path in before if path not in now)
        room = max(0, room - len(files) - len(left_out))
        files.extend([path, 0, False, None] for path in gone[:room])
        beyond += len(gone[room:])
        if beyond:
            left_out.append(f"{beyond} more changed files, beyond what one snapshot holds")
        self.known, self.racy, self.names = now, racy, set()
        return files, left_out, contents

    def do_restore(self, request: "dict[str, Any]", payload: bytes) -> None:
        """One part of a restoration; with the last the tree counts as seen."""
        root, files = request["root"], request["files"]
        for path, _, _, size in files:
            if size is None:
                remove(os.path.join(root, path))
        at = 0
        for path, mode, link, size in files:
            if size is not None:
                put(root, path, payload[at : at + size], mode, link)
                at += size
        if request["last"]:
            self.changes(request)
        self.reply({"id": request["id"]})


# ---- processes


def guard(foreign: "list[int]", status_fd: int, stdio: "tuple[int, int, int]", become: "Callable[[], None]") -> None:
    """The life of a guardian; never returns. All that the command leaves behind becomes its child, until it ends."""
    try:
        for fd in foreign:
            os.close(fd)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            main = os.fork()
        except OSError as error:
            tell(status_fd, f"refused cannot start a process: {error.strerror}\nended {CANNOT_EXECUTE}\n")
            os._exit(0)
        if main == 0:
            live(status_fd, stdio, become)
        for fd in set(stdio):
            os.close(fd)
        while True:
            # Look first and reap after telling: killed in between, the status is still there for the shim to reap.
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert info is not None
            if info.si_pid == main:
                ended = info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status
                tell(status_fd, f"ended {ended}\n")
            os.waitpid(info.si_pid, 0)
            if info.si_pid == main:
                os._exit(0)
    finally:
        os._exit(1)


def live(status_fd: int, stdio: "tuple[int, int, int]", become: "Callable[[], None]") -> None:
    """The command's own process, up to its exec; never returns."""
    code = CANNOT_EXECUTE
    try:
        tell(status_fd, f"main {os.getpid()}\n")  # before anything of the command's can kill its guardian
        os.setsid()
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        become()
        code = 0
    except OSError as error:
        tell(status_fd, f"refused {os.fsdecode(error.filename or '')}: {error.strerror}".replace("\n", " ") + "\n")
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE
    except BaseException as error:
        tell(status_fd, f"refused {type(error).__name__}: {error}".replace("\n", " ") + "\n")
    finally:
        os._exit(code)


def execute(argv: "list[str]", env: "dict[str, str]") -> None:
    """Become the program, looked for in `env`'s PATH. Raises OSError."""
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        error.filename = argv[0]
        raise


def tell(fd: int, text: str) -> None:
    write_all(fd, os.fsencode(text))


def exit_code_of(status: int) -> int:
    """The status as a shell tells it: 128 + n for who was ended by signal n."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def is_child(pid: int) -> bool:
    """Whether `pid` is a child of this process, dead or alive, that was not reaped yet."""
    table, _ = processes()
    return pid in table and table[pid][0] == os.getpid()


def processes() -> "tuple[dict[int, tuple[int, str]], bool]":
    """Parent and state of each process of the sandbox by pid; False: some vanished during the look."""
    table = {}
    complete = True
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                fields = file.read(1024).rpartition(b")")[2].split()
        except OSError:
            complete = False
            continue
        table[int(name)] = (int(fields[1]), fields[0].decode("ascii"))
    return table, complete


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def lower_limit(name: int, value: int) -> None:
    """What was limited more tightly before stays so: nobody here may raise it."""
    _, most = resource.getrlimit(name)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(name, (value, value))


def shell_path() -> str:
    for path in ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"):
        if os.access(path, os.X_OK):
            return path
    return "/bin/sh"


def pipe(opened: "list[int]") -> "tuple[int, int]":
    ends = os.pipe()
    opened.extend(ends)
    return ends


# ---- trees


def walk(root: str, skip: "set[str]") -> "list[tuple[str, os.DirEntry[str]]]":
    """Each file and link below `root` by relative path, but for names in `skip`, virtual environments and byte code."""
    found: list[tuple[str, os.DirEntry[str]]] = []
    waiting = [("", root)]
    while waiting:
        prefix, directory = waiting.pop()
        try:
            if not os.access(directory, os.R_OK | os.X_OK):  # closed by a command: what is in there is not gone
                os.chmod(directory, 0o700)
            with os.scandir(directory) as entries:
                inside = list(entries)
        except OSError:
            continue
        if prefix and any(entry.name == "pyvenv.cfg" for entry in inside):
            continue
        for entry in inside:
            if entry.name in skip:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((prefix + entry.name + "/", entry.path))
            elif not entry.name.endswith((".pyc", ".pyo")):
                found.append((prefix + entry.name, entry))
    return found


def fingerprint(info: os.stat_result) -> bytes:
    """What changes with a file. No inode: on an overlay it may change by itself."""
    return b"%d %d %d %d" % (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_mode)


def content_mark(mode: int, content: bytes) -> bytes:
    return b"%d %d %d" % (mode, len(content), binascii.crc32(content))


def read_whole(path: str, limit: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except PermissionError:
        os.chmod(path, 0o600)
        fd = os.open(path, flags)
    with open(fd, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def read_some(fd: int, size: int = CHUNK) -> "bytes | None":
    """What can be read now; b"" at the end, None where there is nothing yet."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None


def write_some(fd: int, waiting: bytearray) -> None:
    """Write what waits, and take away what was written. Raises BlockingIOError where the rest has to wait on."""
    while waiting:
        with memoryview(waiting) as rest:
            sent = os.write(fd, rest[: 1 << 20])
        del waiting[:sent]


def write_all(fd: int, content: bytes) -> None:
    with memoryview(content) as rest:
        at = 0
        while at < len(content):
            at += os.write(fd, rest[at : at + (1 << 24)])


def remove(path: str) -> None:
    """Delete a file, a link or a whole directory; fine if it is not there."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (IsADirectoryError, PermissionError):
        if os.path.islink(path) or not os.path.isdir(path):
            raise
        empty(path)


def empty(path: str) -> None:
    """Remove a directory by going down into it and up: no path and no stack is long enough for every tree."""
    home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    above: list[str] = []
    folder: str | None = path
    try:
        while folder or above:
            if folder is not None:
                above.append(folder)
                if os.lstat(folder).st_mode & 0o700 != 0o700:  # it keeps everybody out
                    os.chmod(folder, 0o700)
                os.chdir(folder)
            else:
                os.chdir("..")
                os.rmdir(above.pop())
            folder = a_folder_left() if above else None
    finally:
        os.fchdir(home)
        os.close(home)


def a_folder_left() -> "str | None":
    """Unlink what is in the working directory; the first directory that is not empty, if there is one."""
    with os.scandir(".") as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.name)
                else:
                    os.unlink(entry.name)
            except OSError:
                if not entry.is_dir(follow_symlinks=False):
                    raise
                return entry.name
    return None


def put(root: str, path: str, content: bytes, mode: int, link: bool) -> None:
    """Make `path` below `root` exactly this file or link, whatever is in the way."""
    at = root
    parts = path.split("/")
    for part in parts[:-1]:
        at = os.path.join(at, part)
        if os.path.islink(at) or not os.path.isdir(at):
            remove(at)
            os.mkdir(at, 0o755)
    at = os.path.join(at, parts[-1])
    if link:
        remove(at)
        os.symlink(os.fsdecode(content), at)
        return
    if os.path.islink(at) or not os.path.isfile(at):
        remove(at)
    fd = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "wb", buffering=0):
        write_all(fd, content)
        os.fchmod(fd, mode)
    forget_byte_code(at)


def forget_byte_code(path: str) -> None:
    """Remove a source file's byte code: Python would take it for that of a later text of the same second and size."""
    folder, name = os.path.split(path)
    if not name.endswith(".py"):
        return
    caches = os.path.join(folder, "__pycache__")
    try:
        for cached in os.listdir(caches):
            if cached.startswith(name[:-2]):
                os.unlink(os.path.join(caches, cached))
    except OSError:  # there is none, or none that may be touched
        return


def unpack() -> None:
    """Lay the tar archive on standard input over "/": what is in a file's way is replaced, nobody's owner is set."""
    import tarfile

    class Archive(tarfile.TarFile):
        extraction_filter = staticmethod(lambda member, _path: member)

        def chown(self, *_args: object, **_kwargs: object) -> None:
            return

    def cleared(archive: tarfile.TarFile) -> "Iterator[tarfile.TarInfo]":
        for member in archive:
            target = os.path.join("/", member.name)
            if os.path.islink(target) or (os.path.lexists(target) and not (member.isdir() and os.path.isdir(target))):
                remove(target)
            yield member

    with open(0, "rb", closefd=False) as stream:
        with Archive.open(mode="r|", fileobj=stream) as archive:
            archive.extractall("/", members=cleared(archive))
        while stream.read(CHUNK):  # the padding that follows an archive
            pass


# ---- start

LIBC = ctypes.CDLL(None, use_errno=True)


def open_signals() -> int:
    """A descriptor that tells of ended children and of a termination asked for, with its sender."""
    # All are blocked here, and so in the guardians, rather than ignored: what a command needs is then one call away, in
    # a fresh child, where every call costs page faults.
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    mask = ctypes.create_string_buffer(128)
    LIBC.sigemptyset(mask)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        LIBC.sigaddset(mask, int(number))
    fd = int(LIBC.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "signalfd: " + os.strerror(ctypes.get_errno()))
    return fd


def open_oom_score() -> int:
    """Its own score, opened while the kernel still lets this process write it. -1: not to be had here."""
    try:
        return os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1


def main() -> None:
    os.umask(0o022)
    oom_fd = open_oom_score()
    if LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl: " + os.strerror(ctypes.get_errno()))
    if os.getpid() != 1:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keyctl = KEYCTL.get(os.uname().machine)
    if keyctl is not None:  # leave the keys of whoever started the harness behind; refused in some containers, no harm
        LIBC.syscall(keyctl, KEYCTL_JOIN_SESSION_KEYRING, None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control_in, control_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    os.set_blocking(control_out, False)
    Shim(control_in, control_out, open_signals(), oom_fd).serve()


if __name__ == "__main__":
    main()
