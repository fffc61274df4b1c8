"""A pytest plugin inside the sandbox: reports every test as a JSON line, selects tests by id, limits their time.

Loaded by `PYTEST_ADDOPTS="-p troop_pytest"` and PYTHONPATH; Python 3.6 and newer (hence the quoted annotations). Told
what to do, and reporting, as `troop_report` says; inert without TROOP_REPORT. Beside what stands there:

TROOP_TEST_SECONDS   of each phase of a test (other cases of a parametrised test that timed out get a fifth of it)
TROOP_SELECT         tests that are not on the list are deselected
TROOP_ADDOPTS_BEFORE the user's own PYTEST_ADDOPTS, to be put back
"""

import ctypes
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import troop_report  # type: ignore[import-not-found]  # beside it, in the sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MESSAGE_LINES = 12
MESSAGE_CHARS = 1200
REFIRE_SECONDS = 1.0
LEAST_SECONDS = 2.0
SEVERITY = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}


class Phases:
    """One test's phases so far. `called`: its body ran (set up and never called is not a pass)."""

    def __init__(self) -> None:
        self.outcome = "passed"
        self.seconds = 0.0
        self.message = ""
        self.called = False


class Report(troop_report.Report):  # type: ignore[misc]  # known in the sandbox
    """What this pytest process reports and how (an xdist worker has no place for it: its controller writes)."""

    def __init__(self) -> None:
        super().__init__()
        self.rootdir = self.root
        self.plugins = ""
        self.timed_out = set()  # type: set[str]
        self.pending = {}  # type: dict[str, Phases]

    def name(self, nodeid: str) -> str:
        """The id relative to TROOP_ROOT: where an ini file deeper in the tree moved pytest's own root, they differ."""
        if self.rootdir == self.root or not nodeid:
            return nodeid
        path, colons, rest = nodeid.partition("::")
        return os.path.relpath(str(Path(self.rootdir, path)), self.root).replace(os.sep, "/") + colons + rest

    def add(self, nodeid: str, outcome: str, seconds: float, message: str, called: bool = False) -> None:
        """One phase of a test: the worst phase gives the outcome and the message."""
        phases = self.pending.setdefault(nodeid, Phases())
        phases.seconds += seconds
        phases.called = phases.called or called
        if SEVERITY[outcome] > SEVERITY[phases.outcome]:
            phases.outcome = outcome
            phases.message = message

    def end(self, nodeid: str) -> None:
        phases = self.pending.pop(nodeid, None)
        if phases is None:
            return
        self.tell(self.name(nodeid), phases.outcome, phases.message, phases.seconds)

    def end_all(self) -> None:
        for nodeid, phases in list(self.pending.items()):
            if phases.called or phases.outcome != "passed":
                self.end(nodeid)


_report = None  # type: Report | None


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: "Any", args: "list[str]") -> "Iterator[None]":
    # Before any conftest runs, so that a conftest that cannot be imported leaves a begun, unfinished report.
    global _report
    if os.environ.get("TROOP_REPORT"):
        _set("PYTEST_ADDOPTS", os.environ.pop("TROOP_ADDOPTS_BEFORE", ""))  # for what tests start
        _report = Report()
        _no_coverage(early_config.known_args_namespace)
        if _report.spread > 1 and _shares_out(early_config.known_args_namespace):
            args[:0] = ["-n", str(_report.spread), "--dist", "loadfile"]
    yield


def _shares_out(known: "Any") -> bool:
    """Whether pytest-xdist is there, can keep a file's tests together, and nobody has said how it is to be used."""
    try:
        __import__("xdist.scheduler.loadfile")
    except ImportError:
        return False
    return getattr(known, "numprocesses", 0) is None and known.dist == "no" and not known.usepdb


def pytest_configure(config: "Any") -> None:
    global _report
    worker = getattr(config, "workerinput", None) or getattr(config, "slaveinput", None)
    if worker and "troop" in worker:
        given = worker["troop"]
        _set("PYTEST_PLUGINS", given["plugins"])
        _report = Report()
        _report.__dict__.update(given)
    if _report is not None:
        _report.rootdir = os.path.realpath(str(getattr(config, "rootpath", None) or config.rootdir))
        _no_coverage(config.option)
        if _report.first:
            config.option.maxfail = 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    # xdist's workers do not read PYTEST_ADDOPTS, so this variable brings the plugin into them.
    if _report is not None:
        _report.plugins = os.environ.get("PYTEST_PLUGINS", "")
        os.environ["PYTEST_PLUGINS"] = ",".join(filter(None, (_report.plugins, "troop_pytest")))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "Any") -> None:
    # xdist's controller hands the settings to its workers.
    if _report is not None:
        given = node.workerinput if hasattr(node, "workerinput") else node.slaveinput
        given["troop"] = {name: getattr(_report, name) for name in ("root", "select", "seconds", "spread", "plugins")}


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: "Any", items: "list[Any]") -> "Iterator[None]":
    yield
    if _report is not None and _report.spread:
        _in_turn(items)
    if _report is None or not _report.select:
        return
    wanted = set(_report.select)
    kept = [item for item in items if _wanted(_report.name(item.nodeid), wanted)]
    if len(kept) < len(items):
        keep = {id(item) for item in kept}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in keep])
        items[:] = kept


def _in_turn(items: "list[Any]") -> None:
    folders = {}  # type: dict[str, dict[str, int]]

    def place(item: "Any") -> int:
        folder, _, file = item.nodeid.partition("::")[0].rpartition("/")
        files = folders.setdefault(folder, {})
        return files.setdefault(file, len(files))

    items.sort(key=place)


def pytest_collectreport(report: "Any") -> None:
    if _report is None or not report.nodeid or report.passed:
        return
    _report.add(report.nodeid, "skipped" if report.skipped else "error", 0.0, _message(report))
    _report.end(report.nodeid)


def pytest_runtest_logstart(nodeid: str) -> None:
    if _report is not None:
        _report.write({"start": _report.name(nodeid)})


def pytest_runtest_logreport(report: "Any") -> None:
    if _report is None:
        return
    if report.outcome == "rerun":  # pytest-rerunfailures: only the last try counts
        _report.pending.pop(report.nodeid, None)
        return
    outcome = "error" if report.failed and report.when in ("setup", "teardown") else report.outcome
    part = type(report).__name__.lower() == "subtestreport"
    if not (part and outcome == "skipped"):  # a skipped part does not make the whole test skipped
        message = "" if outcome == "passed" else _message(report)
        seconds = getattr(report, "duration", 0.0) or 0.0
        _report.add(report.nodeid, outcome, seconds, message, called=report.when == "call")
    if report.when not in ("setup", "call"):  # the teardown, or xdist's report of a worker that died
        _report.end(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: "Any", exitstatus: int) -> None:
    if _report is not None:
        _report.end_all()
        _report.finish(int(getattr(session, "exitstatus", exitstatus)))


@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_runtest_setup(item: "Any") -> "Iterator[None]":
    disarm = _arm(item)
    yield
    disarm()


pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup


def _arm(item: "Any") -> "Callable[[], None]":
    """Start the clock of one phase; returns what stops it. It fires again, for code that swallows the first exception.

    Where one case of a parametrised test timed out, the patience for its other cases is a fifth."""
    report = _report
    if report is None or not report.seconds:
        return lambda: None
    function = item.nodeid.partition("[")[0]
    seconds = report.seconds
    if function in report.timed_out:
        seconds = min(seconds, max(LEAST_SECONDS, seconds / 5))

    def ring(signum: int, frame: "Any") -> None:
        report.timed_out.add(function)
        __tracebackhide__ = True  # the failure is where the test was, not here
        pytest.fail(f"timed out after {seconds:g} s")

    if threading.current_thread() is not threading.main_thread():
        return _arm_thread(seconds, lambda: report.timed_out.add(function))
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, REFIRE_SECONDS)

    def disarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    return disarm


def _arm_thread(seconds: float, note: "Callable[[], None]") -> "Callable[[], None]":
    """Ends a phase of a test after `seconds` in a thread that gets no signals (workers of older xdist): another thread
    calls `note` and puts an exception into it, again and again. Gives what disarms it."""

    class TimedOut(BaseException):
        def __init__(self) -> None:
            super().__init__(f"timed out after {seconds:g} s")

    victim = ctypes.c_ulong(threading.get_ident())
    ended = threading.Event()

    def watch() -> None:
        wait = seconds
        while not ended.wait(wait):
            note()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(victim, ctypes.py_object(TimedOut))
            wait = REFIRE_SECONDS

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()

    def disarm() -> None:
        ended.set()
        watcher.join()

    return disarm


def _wanted(nodeid: str, wanted: "set[str]") -> bool:
    if nodeid in wanted:
        return True
    path, _, rest = nodeid.partition("[")[0].partition("::")
    name = path
    for part in rest.split("::"):
        name += "::" + part
        if name in wanted:
            return True
    while path:
        if path in wanted or path + "/" in wanted:
            return True
        path = path.rpartition("/")[0]
    return "." in wanted


def _message(report: "Any") -> str:
    """The failure in a few lines: where, and the exception's message (or the end of a longer text); where that was in
    other code, the last frame of the repository's own."""
    long = getattr(report, "longrepr", None)
    crash = getattr(long, "reprcrash", None)
    if crash is not None:
        lines = f"{crash.path}:{crash.lineno}: {crash.message}".splitlines()[:MESSAGE_LINES]
        root = Path(_report.root if _report else "")
        elsewhere = root not in (root / str(crash.path)).parents
        for entry in reversed(getattr(getattr(long, "reprtraceback", None), "reprentries", ()) if elsewhere else ()):
            place = getattr(entry, "reprfileloc", None)
            if place and root in Path(os.path.realpath(str(root / str(place.path)))).parents:
                source = [line[1:].strip() for line in entry.lines if line.startswith(">")]
                lines.append(f"from {place.path}:{place.lineno}: {' '.join(source[-1:])}")
                break
        first = getattr(long, "chain", [(None, crash)])[0][1]  # an exception's cause, where it has one
        if first is not None and first is not crash and first.message != crash.message:
            lines.append("caused by " + "".join(first.message.splitlines()[:1]))
        if "CalledProcessError" in crash.message:  # why, only the command itself has said
            said = getattr(report, "capstderr", "") or ""
            lines += ["it said: " + line for line in said.strip().splitlines()[-1:]]
    elif isinstance(long, tuple):
        lines = [str(long[-1])]
    else:
        lines = str(long or "").strip().splitlines()[-MESSAGE_LINES:]
    return "\n".join(lines)[:MESSAGE_CHARS]


def _set(name: str, value: str) -> None:
    os.environ.pop(name, None)
    if value:
        os.environ[name] = value


def _no_coverage(options: "Any") -> None:
    """pytest-cov off: it slows tests, writes into the tree, and `--cov-fail-under` fails a run of a few tests."""
    if getattr(options, "cov_source", None):
        options.cov_source = []
