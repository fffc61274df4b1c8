"""The environment of a task: set up once with the network in a sandbox, frozen under a content key, then used offline.

The key is a hash of all that decides what set-up makes: the tree, the given test files, the commands, the interpreter,
the image and the backend. Facts about an environment (seconds, notes) and the base's test run are kept beside it in the
cache, so that a second run starts at once. Processes that want the same environment wait for the one that builds it.
"""

import asyncio
import hashlib
import json
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TypeVar

from harness.cache import cache_root, read_json, write_json
from harness.environments.detect import (
    MAKING,
    PYTHON_NAMED,
    UV,
    Detected,
    Step,
    detect,
    given_environment,
    given_steps,
    runnable_day,
    submodules_fetched,
    system_packages,
)
from harness.environments.needs import absent_modules, absent_plugins, by_module, debian_packages, install_each
from harness.lock import turn
from harness.patches.extract import mark_setup
from harness.records import Exec, FileState, Json, TestReport
from harness.repository.workspace import Workspace
from harness.sandbox.base import ENVDIR, RUST, TROOPDIR, WORKDIR, Limits, Provider, Sandbox, SandboxSpec
from harness.sandbox.client import variables
from harness.sandbox.fresh import in_one_opened, probe
from harness.testing.report import found_none
from harness.testing.run import run_tests
from harness.testing.runners.registry import RUNNERS, USUAL_COMMAND, runner_of
from tasks.errors import InputError, SandboxFailed, SetupFailed
from tasks.say import Say
from tasks.task import Task

FORMAT = "4"
"""Part of every key: environments made by another way of setting up are not found again."""

ERROR_CHARS = 2500
_LOOKED_AT = re.compile(r"\.py$|requirements[^/]*\.txt$|^\.github/workflows/")
LISTING_BYTES = 50_000_000
_LIST_COMMITTED = "[ ! -e .git ] || git -c safe.directory='*' -c core.fsmonitor=false ls-files -z"
_LISTING = f"""find {WORKDIR} {ENVDIR} {TROOPDIR}/base.git -xdev '(' -type l -o -type f -size +0 ')' \\
    ! -path '*/__pycache__/*' -print | LC_ALL=C sort | cksum"""
_TOOLS = f'export PATH="$PATH:{TROOPDIR}/bin:{RUST}/bin"\n'
_NOTE = re.compile(r"^troop: (.{1,300})", re.MULTILINE)
_MOST_NOTES = 20
_FROZEN = "/tmp/troop-frozen"
COLLECT_SECONDS = 240.0
TEST_SECONDS = 20.0
"""Wall time of one test, unless something is known of the repository's tests."""
T = TypeVar("T")
HELP = "what helps: --setup COMMAND (repeatable), --python X.Y, --image IMAGE"


@dataclass(frozen=True, slots=True)
class Built:
    """A frozen environment.

    `python`: the interpreter's version there, "" where none answers. `install`: how the project was installed, as one
    would type it; `fell_back_from`: the way that was tried first, "" where that one worked. `notes`: what a user should
    know."""

    key: str
    image: str | None
    python: str
    test_command: str | None
    missing_limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    install: str = ""
    fell_back_from: str = ""


@dataclass(frozen=True, slots=True)
class CleanRoom:
    """Fresh sandboxes of one environment. `run`: whose they are; `timeout`: seconds of one run of tests, `test_seconds`
    of one test. A sandbox that dies is replaced `retries` times; `slots` bounds them at a time (None: nothing does)."""

    provider: Provider
    built: Built
    run: str
    timeout: float = 600.0
    test_seconds: float = TEST_SECONDS
    limits: Limits = field(default_factory=Limits)
    retries: int = 3
    slots: asyncio.Semaphore | None = None

    def spec(self, name: str) -> SandboxSpec:
        """A sandbox of the environment, by its name."""
        return SandboxSpec(run=self.run, name=name, environment=self.built.key, limits=self.limits)

    async def fresh(self, name: str, work: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Do `work` in a new sandbox. Raises SandboxFailed where all replacements died, which says nothing of it."""
        async with self.slots or nullcontext():
            return await in_one_opened(lambda: self.provider.create(self.spec(name)), work, self.retries)

    async def tests(
        self, sandbox: Sandbox, ids: Sequence[str] = (), *, command: str | None = None, spread: int = 0
    ) -> TestReport:
        """Run the environment's tests (or by `command`) in a sandbox, limited to `ids`, or directory by directory in
        turn, by `spread` processes. Raises SandboxFailed."""
        command, seconds = command or self.built.test_command or USUAL_COMMAND, self.test_seconds
        return await run_tests(sandbox, command, ids, timeout=self.timeout, test_seconds=seconds, spread=spread)


async def build(
    provider: Provider,
    workspace: Workspace,
    task: Task,
    *,
    run: str,
    limits: Limits | None = None,
    setup_timeout: float = 1200.0,
    say: Say = lambda line: None,
) -> Built:
    """The task's environment: found in the provider's store by its key, else set up there.

    `setup_timeout` in seconds for all commands together. `setup_override`: commands in place of the task's and of those
    detected. Raises SetupFailed (the command and the end of its output), SandboxFailed, InputError (unknown image)."""
    plan = await asyncio.to_thread(_plan, workspace, task)
    key = _key(provider, workspace, task, plan)
    kept = cache_root() / "environments" / f"{key}.json"
    waiting = partial(say, "waiting for another process that sets up the same environment")
    async with turn(cache_root() / "locks" / f"{key}.lock", waiting):
        if await provider.has(key):
            facts = read_json(kept) or {}
            damage = await _damage(provider, SandboxSpec(run, "look", key), task.environment.image, facts)
            if not damage:
                return _built(key, task, plan, facts)
            say(f"the environment that is kept for this is damaged ({damage})")
            await provider.remove(key)
        say("setting up the environment (once; it is kept for later runs)")
        archive = await asyncio.to_thread(workspace.archive)
        limits, image, python = limits or Limits(), task.environment.image, task.environment.python
        spec = SandboxSpec(run, "setup", image=image, python=python, network=True, limits=limits)
        sandbox = await provider.create(spec)
        try:
            if task.environment.image is not None:
                await _make_room(sandbox, workspace)
            await sandbox.upload(archive)
            if given := _given_files(task):
                await sandbox.restore([FileState(path, content) for path, content in given.items()])
            deadline = time.monotonic() + setup_timeout
            facts = await _SetUp(sandbox, plan, lambda: deadline - time.monotonic(), say).whole()
            await provider.freeze(sandbox, key)
        finally:
            await sandbox.close()
        write_json(kept, facts, indent=None)
        return _built(key, task, plan, facts)


def foreseen(workspace: Workspace, task: Task) -> Json:
    """How the task's environment would be set up and tested, without a step of it, as one would type it: what is tried
    first for `python` and `install`; `test_command`."""
    plan = _plan(workspace, task)
    python = [found[1] for step in plan.steps if (found := re.search(r"--python '?([^\s']+)", step.commands[0]))]
    installs = [_shown(step.commands[0]) for step in plan.steps if step.installs]
    return {"python": "".join(python), "install": installs, "test_command": plan.test_command}


async def _damage(provider: Provider, spec: SandboxSpec, image: str | None, facts: Json) -> str:
    """Why a kept environment is not what was made; empty where it is. Raises SandboxFailed where no sandbox works."""
    try:
        listing = await in_one_opened(lambda: provider.create(spec), _listing, 0)
    except SandboxFailed as error:
        await probe(provider, replace(spec, environment=None, image=image))
        return str(error)
    return "" if facts.get("listing") in (None, listing) else "files are gone"


async def _listing(sandbox: Sandbox) -> str:
    """A sum over the names of all files that hold something."""
    return (await sandbox.exec(_LISTING, cwd="/", timeout=120)).stdout.decode("ascii", "replace")


async def _make_room(sandbox: Sandbox, workspace: Workspace) -> None:
    """An image may bring a tree of its own, whose history can hold what came after the base: that goes, and so does
    what was committed there and is not in the base. What was built in the tree and never committed stays."""
    listed = await sandbox.exec(_LIST_COMMITTED, timeout=120, output_bytes=LISTING_BYTES)
    if listed.exit_code != 0 or listed.truncated:
        raise SetupFailed(f"the repository in the image's {WORKDIR} cannot be read: {end_of(listed.output)}")
    base = {path.encode("utf-8", "surrogateescape") for path in ("", *workspace.files())}
    names = b"\0".join(path for path in listed.stdout.split(b"\0") if path not in base)
    removed = await sandbox.exec("rm -rf .git && xargs -0 -r rm -f --", stdin=names, timeout=120, merge=True)
    if removed.exit_code != 0:
        raise SetupFailed(f"the image's own tree in {WORKDIR} cannot be cleared: {end_of(removed.output)}")


def _plan(workspace: Workspace, task: Task) -> Detected:
    given, files = _given_files(task), workspace.files()
    known = {**workspace.read_all(path for path in files if _LOOKED_AT.search(path)), **given}
    detected = detect(
        {*files, *given},
        lambda path: known[path] if path in known else workspace.read(path),
        date=workspace.date,
        described=workspace.described,
        python=task.environment.python,
        test_command=task.test_command,
        directory=task.environment.directory,
    )
    if task.environment.setup:
        # An image brought by the user has its Python; elsewhere the commands find an environment with pip.
        own = task.environment.image is not None
        before, after = ((), (PYTHON_NAMED,)) if own else given_environment(detected)
        steps = (*before, *given_steps(task.environment.setup), *after)
        detected = replace(detected, steps=steps, directory="")
    fetched = submodules_fetched(path for path, there in workspace.submodules().items() if there is None)
    return replace(detected, steps=(*system_packages(task.environment.apt), *fetched, *detected.steps))


def _given_files(task: Task) -> dict[str, bytes]:
    """What the task lays over its tree. Raises InputError for a path that leads out of the repository or into .git."""
    files = {}
    for path, text in task.failing_test.files if task.failing_test else ():
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or parts[0].lower() == ".git":
            raise InputError(f"{path!r} is not a path within the repository")
        files["/".join(parts)] = text.encode("utf-8")
    return files


def _key(provider: Provider, workspace: Workspace, task: Task, plan: Detected) -> str:
    parts: Json = {
        "format": FORMAT,
        "backend": provider.name,
        "image": task.environment.image,
        "python": task.environment.python,
        "commit": workspace.base_commit,
        "tree": workspace.tree,
        "given": [[path, hashlib.sha256(content).hexdigest()] for path, content in _given_files(task).items()],
        "steps": [step.commands for step in plan.steps],
        "wanted": sorted(plan.wanted.values()),
    }
    if filled := [path for path, there in workspace.submodules().items() if there is not None]:
        parts["submodules"] = filled
    if task.environment.image is not None:
        parts["room"] = True  # the image's own repository was left in place by earlier releases
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _built(key: str, task: Task, plan: Detected, facts: Json) -> Built:
    python, install, former = (str(facts.get(name, "")) for name in ("python", "install", "fell_back_from"))
    missing, notes = (tuple(facts.get(name, ())) for name in ("missing_limits", "notes"))
    install = install or (f"image {task.environment.image}" if task.environment.image else "")
    return Built(key, task.environment.image, python, plan.test_command, missing, notes, install, former)


@dataclass
class _SetUp:
    """A set-up under way. `left`: gives the seconds that it still has; `notes`: what there is to say of it."""

    sandbox: Sandbox
    plan: Detected
    left: Callable[[], float]
    say: Say
    python: str = ""
    notes: list[str] = field(default_factory=list)
    installs: list[tuple[str, str]] = field(default_factory=list)

    async def whole(self) -> Json:
        """All steps, and a look whether tests can be loaded then; the facts that are kept."""
        for step in self.plan.steps:
            await self._take(step)
            self.python = await self._version() if step.what == MAKING else self.python
        if self.plan.test_command is not None and self.plan.makes_environment:
            await self._start(self.plan.test_command)
        await mark_setup(self.sandbox)
        return {
            "python": await self._version(),
            "notes": self.notes,
            "missing_limits": list(self.sandbox.missing_limits),
            "listing": await _listing(self.sandbox),
            "install": " && ".join(dict.fromkeys(way for way, _ in self.installs)),
            "fell_back_from": " && ".join(first for _, first in self.installs if first),
        }

    async def _version(self) -> str:
        told = await self.sandbox.exec("python -V || python3 -V", timeout=60, merge=True)
        return told.output.strip().splitlines()[-1].removeprefix("Python ") if told.exit_code == 0 else ""

    async def _run(self, command: str) -> Exec:
        """A command of set-up; what it says after "troop: " is noted."""
        if self.left() <= 0:
            raise SetupFailed(f"set-up took too long; the command that was next: {command}\n{HELP}")
        day, runnable = self.plan.day, runnable_day(self.plan.day, self.python)
        told = _TOOLS + command.replace(f"--exclude-newer {day}", f"--exclude-newer {runnable}")
        env = variables("setup", "made" if self.plan.makes_environment else "image")
        place = f"{WORKDIR}/{self.plan.directory}"
        done = await self.sandbox.exec(told, cwd=place, env=env, timeout=self.left(), merge=True)
        if done.timed_out:
            stopped = f"set-up was stopped after {done.seconds:.0f} s in the command: {command}"
            raise SetupFailed(f"{stopped}\n{end_of(done.output)}\n{HELP}")
        self._note(*_NOTE.findall(done.output)[:_MOST_NOTES])
        return done

    def _note(self, *notes: str) -> None:
        for note in filter(None, notes):
            self.say(note)
            self.notes.append(note)

    async def _take(self, step: Step) -> None:
        """Do one step by the first alternative that works. Raises SetupFailed when none does, with the first one's
        output, since what comes after it is only tried because that failed."""
        self.say(step.what)
        first = ""
        for command, note in zip_longest(step.commands, step.notes, fillvalue=""):
            done = await self._run(command)
            first = first or end_of(done.output) or "it printed nothing"
            if done.exit_code == 0:
                former = "" if command == step.commands[0] else _shown(step.commands[0])
                self.installs += [(_shown(command), former)] if step.installs else []
                return self._note(note)
        if step.optional:
            return self._note(step.failure)
        others = len(step.commands) - 1
        more = (first, f"{others} other ways were tried and failed too" if others else "", debian_packages(first), HELP)
        failure = f"{step.failure}; the command was: {_shown(step.commands[0])}"
        raise SetupFailed("\n".join((failure, *filter(None, more))))

    async def _start(self, command: str) -> None:
        """Install what the repository's own lists bring of what its tests lack, and another pytest where the tests
        cannot be loaded with this one."""
        wanted, day = self.plan.wanted, f" --exclude-newer {self.plan.day}" if self.plan.day else ""
        install = f"{UV} pip install{day}"
        ask = "import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if not u.find_spec(n)))"
        asked = await self.sandbox.exec([f"{ENVDIR}/bin/python", "-c", ask, *wanted], timeout=60, merge=True)
        lacked = [name for name in asked.output.split() if name in wanted and asked.exit_code == 0]
        await self._bring(install, [wanted[name] for name in lacked])
        if runner_of(command) is not RUNNERS[0]:
            return
        known, tried = by_module(self.plan.named) | dict(self.plan.projects), set(lacked)
        of_pytest = f"$(sed -n 's/^\\(pytest-[a-z0-9-]*\\)==.*/\\1/p' {_FROZEN})"
        others = ["pytest", "pytest<8", "pytest<7", "pytest<6"]
        while self.left() > 0:
            self.say("looking whether the tests can be loaded")
            seconds = min(self.left(), COLLECT_SECONDS)
            report = await run_tests(self.sandbox, f"{command} --collect-only -q", timeout=seconds)
            absent, plugins = absent_modules(report), absent_plugins(report)
            modules = [name for name in absent if name not in tried]
            found = [known[name.lower()] for name in modules if name.lower() in known]
            found += [name for name in plugins if name not in tried]
            tried.update(modules, found)
            if found:
                await self._bring(install, found)
            elif report.valid or report.timed_out or found_none(report):
                return
            elif lacking := [name for name in (*absent, *plugins) if not re.match("_?pytest$|py$", name)]:
                return self._note(f"the tests cannot be loaded without {', '.join(dict.fromkeys(lacking))}")
            elif not others:
                await self._run(f"{UV} pip install -r {_FROZEN}")
                return self._note(f"the tests cannot be loaded with any pytest: {report.reason}")
            else:
                await self._run(f"[ -e {_FROZEN} ] || {UV} pip freeze | grep == > {_FROZEN}")
                last = report.output.rstrip().rpartition("\n")[2]
                self._note(f"the tests cannot be loaded ({report.reason}: {last}); trying {others[0]}")
                await self._run(f"{install} --upgrade '{others.pop(0)}' {of_pytest}")

    async def _bring(self, install: str, found: Sequence[str]) -> None:
        if wanted := list(dict.fromkeys(found)):
            self._note(f"installing what tests import or use as well: {', '.join(wanted)}")
            await self._run(install_each(install, map(shlex.quote, wanted)))


def _shown(command: str) -> str:
    """A set-up command as one would type it: without where Troop keeps uv and Python, no versions told, no dates."""
    plain = re.sub(r"--(?:exclude-newer|exclude-newer-package) \S+ |\b[A-Z_]+=\S+ ", "", command)
    plain = plain.replace(f"{UV} ", "").replace(f"{ENVDIR}/bin/python -m ", "").partition(" && printf")[0]
    return plain.partition(" && { ")[0].strip()


def end_of(output: str) -> str:
    """The end of what a command printed, as much of it as an error shows."""
    text = output.strip()
    return text if len(text) <= ERROR_CHARS else "…" + text[-ERROR_CHARS:]
