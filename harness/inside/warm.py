"""A pytest that waits, started and imported, inside the sandbox: each test run is a fork of it.

Starting Python and importing pytest costs ten times what a small test does. This process pays it once, has nothing of
the repository in it, and lives as long as the harness holds it. Self-contained, Python 3.6 and newer.

    python warm.py SOCKET -m             waits to be `python -m pytest`
    python warm.py SOCKET /bin/pytest    waits to be that script, which is one of this very interpreter

`warm_ask.py` asks for a run and hands over its own standard streams. What it says is PLACE, a folder that the run
makes; on its standard input is the request, a JSON object:

    argv    pytest's arguments                 cwd     where
    env     variables to set on top of those that the waiting process was started with (null: to unset)
    select  content of the file PLACE/select   remove  places of earlier runs, no longer needed

PLACE/report gets a line {"warm": pid} before the run and {"ended": exit code} after it. Without both, nothing happened
that may be believed: the run is to be made in the ordinary way. The waiting process ends rather than be a run that
could differ from an ordinary one: when anything that it has loaded changed on the disk, came from the working tree, or
would come from there now. On a run that must be killed the harness ends the waiting process, with all that it started.
"""

# pathlib is not what a run should find loaded already where pytest does not load it.
# ruff: noqa: PTH100, PTH102, PTH106, PTH108, PTH110, PTH114, PTH116, PTH118, PTH120, PTH123, PTH208

MAIN = dict(globals())

import sys  # noqa: E402 (MAIN is what was there before any import)

BORN = frozenset(sys.modules)  # what every Python has loaded before it looks into the working directory

import os  # noqa: E402 (BORN is what was loaded before it)

WORKDIR = "/testbed"
HERE = os.path.dirname(os.path.abspath(__file__))
DEPTH_OF_BACKLOG = 16
BYTES_OF_PLACE = 4096
BYTES_OF_DESCRIPTOR = 4
SECONDS_TO_ASK = 1.0
REFUSED = 125


class Refusal(Exception):
    """Why a run from here could differ from an ordinary one."""


# ---- waiting


class Waiting:
    """The process that waits: what it has loaded, and from where."""

    def __init__(self, socket_path: str, become: str) -> None:
        import _socket

        self.socket = _socket
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.listener.bind(socket_path)
        self.listener.listen(DEPTH_OF_BACKLOG)
        sys.modules.pop("_socket", None)
        self.become = become
        self.closed = False
        self.path = path_of_a_run()
        self.runs = {}  # type: dict[int, tuple[_socket.socket, str]]
        load(become)
        self.kept = frozenset(sys.modules)
        self.check_interpreter()
        self.names = {name.partition(".")[0] for name in sys.modules} - BORN - set(sys.builtin_module_names)
        self.names -= {name for name in self.names if is_frozen(name)}
        loaded = loaded_files()
        self.refuse_own(loaded)
        self.files = sorted({*loaded, *site_files(self.path), sys.executable})
        self.stamps = stamps(self.files)

    def check_interpreter(self) -> None:
        if self.become != "-m":
            with open(self.become, "rb") as script:
                first = script.readline(4096)
            if os.path.islink(self.become) or os.fsdecode(first[2:]).strip() != sys.executable:
                raise Refusal(self.become + " belongs to another interpreter")
        if getattr(sys.flags, "safe_path", False):
            raise Refusal("PYTHONSAFEPATH is set")

    def refuse_own(self, files: "list[str]") -> None:
        """The working tree may be the home of pytest, or of what it is made of."""
        below = os.path.realpath(WORKDIR) + os.sep
        for path in files:
            if os.path.realpath(path).startswith(below):
                raise Refusal(path + " was loaded from the working tree")

    def check(self) -> None:
        """Refuse if a Python started now would load anything else."""
        if stamps(self.files) != self.stamps:
            raise Refusal("what was loaded has changed")
        below = (WORKDIR + os.sep, os.path.realpath(WORKDIR) + os.sep)
        for folder in {WORKDIR, *(path for path in self.path if (path + os.sep).startswith(below))}:
            name = shadowing(folder, self.names)
            if name:
                raise Refusal(f"{folder} has a module {name} of its own")

    def serve(self) -> "tuple[str, list[int]]":
        """Fork for everyone who asks. Returns in the children only: the place, and the standard streams of the run."""
        import gc
        import select
        import signal

        awake, waker = os.pipe()
        os.set_blocking(awake, False)
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(waker)
        poll = select.poll()
        poll.register(self.listener.fileno(), select.POLLIN)
        poll.register(awake, select.POLLIN)
        gc.collect()
        if hasattr(gc, "freeze"):
            gc.freeze()  # a collection in a run need not copy what it shares with this process
        while True:
            asked = None
            ready = {fd for fd, _ in poll.poll()}
            if awake in ready:
                os.read(awake, 4096)
                self.reap()
            if not self.closed and self.listener.fileno() in ready:
                try:
                    asked = self.accept()
                except Refusal as refusal:
                    print("troop: " + str(refusal), file=sys.stderr)
                    poll.unregister(self.listener.fileno())
                    self.listener.close()
                    self.closed = True
            if self.closed and not self.runs:
                os._exit(0)
            if asked is not None:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return asked

    def accept(self) -> "tuple[str, list[int]] | None":
        """One more run; None in the parent."""
        fd, _ = self.listener._accept()  # type: ignore[attr-defined]  # in C, and not in the stubs
        client = self.socket.socket(fileno=fd)
        client.settimeout(SECONDS_TO_ASK)
        space = self.socket.CMSG_SPACE(3 * BYTES_OF_DESCRIPTOR)
        try:
            place, rights, _, _ = client.recvmsg(BYTES_OF_PLACE, space)
        except OSError:  # it says nothing, and others wait
            client.close()
            return None
        streams = [
            int.from_bytes(found[at : at + BYTES_OF_DESCRIPTOR], sys.byteorder)
            for _, _, found in rights
            for at in range(0, len(found), BYTES_OF_DESCRIPTOR)
        ]
        if len(streams) == 3:
            self.check()
            pid = os.fork()
            if pid == 0:
                os.setsid()
                return os.fsdecode(place), streams
            self.runs[pid] = client, os.fsdecode(place)
        else:
            client.close()
        for fd in streams:
            os.close(fd)
        return None

    def reap(self) -> None:
        """Tell those who wait how their runs ended."""
        while self.runs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            client, place = self.runs.pop(pid, (None, ""))
            if client is None:
                continue
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            try:
                tell(place, b'{"ended": %d}\n' % code)
                client.send(b"%d" % code)
            except OSError:
                continue  # it asks no more
            finally:
                client.close()


def path_of_a_run() -> "list[str]":
    """The module search path after its first entry, as pytest and its plugin leave it."""
    path = sys.path[1:]
    if HERE in path:
        path.remove(HERE)
        path.append(HERE)
    return path


def load(become: str) -> None:
    """What an ordinary run has loaded when it looks at the repository for the first time, and not more than that."""
    import importlib

    if become == "-m":
        importlib.import_module("runpy")
    sys.path[:] = path_of_a_run()
    import _pytest.config

    importlib.import_module("pytest")
    for name in _pytest.config.default_plugins:
        importlib.import_module("_pytest." + name)
    plugin = importlib.import_module("troop_pytest")
    # pytest warns of plugins loaded before it could look into their assertions, but of those that say this.
    plugin.__doc__ = f"{plugin.__doc__}\nPYTEST_DONT_REWRITE"


def loaded_files() -> "list[str]":
    found = set()
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path != __file__:
            found.add(path)
    return sorted(found)


def site_files(path: "list[str]") -> "list[str]":
    """What decides where modules are found: the folders, and the path files in them."""
    found = []
    for folder in path:
        if (folder + os.sep).startswith(WORKDIR + os.sep):
            continue
        found.append(folder)
        try:
            found.extend(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pth"))
        except OSError:
            continue
    found.append(os.path.join(sys.prefix, "pyvenv.cfg"))
    return found


def stamps(files: "list[str]") -> "list[object]":
    marks = []  # type: list[object]
    for path in files:
        try:
            info = os.stat(path)
            marks.append((info.st_mtime_ns, info.st_ctime_ns, info.st_size))
        except OSError:
            marks.append(None)
    return marks


def shadowing(folder: str, names: "set[str]") -> str:
    """A module or package in `folder` that is called as one of `names`; empty if there is none."""
    from importlib.machinery import all_suffixes

    endings = all_suffixes()
    try:
        entries = os.listdir(folder)
    except OSError:
        return ""
    for entry in entries:
        name, dot, rest = entry.partition(".")
        if name not in names:
            continue
        if dot:
            if dot + rest in endings:
                return name
        elif any(os.path.exists(os.path.join(folder, entry, "__init__" + ending)) for ending in endings):
            return name
    return ""


def is_frozen(name: str) -> bool:
    import _imp

    return bool(_imp.is_frozen(name))


def tell(place: str, line: bytes) -> None:
    fd = os.open(os.path.join(place, "report"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line)
    os.close(fd)


# ---- being the run


def enter(waiting: "Waiting", place: str, streams: "list[int]") -> None:
    """Make this process what an ordinary Python would be at the start of the run."""
    import importlib
    import json
    import types

    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    with open(0, "rb", closefd=False) as stream:
        request = json.loads(stream.read().decode())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                continue  # the one that listed them
    for earlier in request["remove"]:
        clear(earlier)
    os.mkdir(place, 0o700)
    with open(os.path.join(place, "select"), "wb") as file:
        file.write(request["select"].encode())
    tell(place, b'{"warm": %d}\n' % os.getpid())
    os.chdir(request["cwd"])
    for name, value in request["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if waiting.become != "-m":
        os.environ["_"] = waiting.become
    first = request["cwd"] if waiting.become == "-m" else os.path.dirname(waiting.become)
    sys.path[:] = [first, *waiting.path]
    sys.argv[:] = [waiting.become, *request["argv"]]
    if hasattr(sys, "orig_argv"):
        start = ["-m", "pytest"] if waiting.become == "-m" else [waiting.become]
        sys.orig_argv[:] = [sys.orig_argv[0], *start, *request["argv"]]
    for name in set(sys.modules) - waiting.kept:
        del sys.modules[name]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__.update(MAIN, __doc__=None)
    if waiting.become == "-m":  # runpy says the rest
        del main.__dict__["__file__"], main.__dict__["__cached__"]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    restart_clocks()


def restart_clocks() -> None:
    """What modules note of their process when they are loaded."""
    import logging
    import random
    import time

    random.seed()
    noted = vars(logging)
    if noted.get("_startTime") is not None:
        noted["_startTime"] = time.time_ns() if isinstance(noted["_startTime"], int) else time.time()


def clear(place: str) -> None:
    try:
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        os.rmdir(place)
    except OSError:
        return


def run(become: str) -> None:
    """pytest, as the interpreter itself would have begun it."""
    if become == "-m":
        import runpy

        runpy._run_module_as_main("pytest")  # type: ignore[attr-defined]  # what `python -m` calls; not in the stubs
        return
    from importlib.machinery import SourceFileLoader

    main = sys.modules["__main__"]
    main.__file__ = become
    main.__loader__ = SourceFileLoader("__main__", become)
    with open(become, "rb") as script:
        text = script.read()
    exec(compile(text, become, "exec"), main.__dict__)


def end(status: int) -> None:
    """End as an interpreter does, but for taking everything apart."""
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls at its end; not in the stubs
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    for stream, failed in ((sys.stdout, 120), (sys.stderr, status)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = failed
    os._exit(status)


def exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def main() -> None:
    try:
        waiting = Waiting(sys.argv[1], sys.argv[2])
        place, streams = waiting.serve()
    except Refusal as refusal:
        print("troop: " + str(refusal), file=sys.stderr)
        sys.exit(REFUSED)
    try:
        try:
            enter(waiting, place, streams)
        except BaseException:
            os._exit(REFUSED)
        run(waiting.become)
        status = 0
    except SystemExit as stop:
        status = exit_status(stop.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    end(status)


if __name__ == "__main__":
    main()
