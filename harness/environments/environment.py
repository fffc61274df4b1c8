"""The environment of a task: set up once with the network in a sandbox, frozen under a content key, then used offline.

The key is a hash of all that decides what set-up makes: the tree, the given test files, the commands, the interpreter,
the image and the backend. Facts about an environment (seconds, notes) and the base's test run are kept beside it in the
cache, so that a second run starts at once. Processes that want the same environment wait for the one that builds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from harness.cache import cache_root, read_json, write_json
from harness.environments.detect import Detected, Step, detect, given_environment, given_steps
from harness.lock import turn
from harness.patches.extract import mark_setup
from harness.records import FileState, Json
from harness.repository.workspace import Workspace
from harness.sandbox.base import ENVDIR, WORKDIR, Limits, Provider, Sandbox, SandboxSpec
from tasks.errors import InputError, SetupFailed
from tasks.say import Say
from tasks.task import Task

FORMAT = "1"
"""Part of every key: environments made by another way of setting up are not found again."""

ERROR_CHARS = 2500
LISTING_BYTES = 50_000_000
_LIST_COMMITTED = "[ ! -e .git ] || git -c safe.directory='*' -c core.fsmonitor=false ls-files -z"
SETUP_ENV = {
    **{"VIRTUAL_ENV": ENVDIR, "UV_LINK_MODE": "copy", "DEBIAN_FRONTEND": "noninteractive"},
    **{"GOPROXY": "", "GOFLAGS": "-modcacherw", "CARGO_NET_OFFLINE": "false"},
}


@dataclass(frozen=True, slots=True)
class Built:
    """A frozen environment.

    `python`: the interpreter's version there, "" where none answers. `notes`: what a user should know.
    """

    key: str
    image: str | None
    python: str
    test_command: str | None
    missing_limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    detected. Raises SetupFailed (the command and the end of its output), SandboxFailed, InputError (unknown image).
    """
    plan = await asyncio.to_thread(_plan, workspace, task)
    key = _key(provider, workspace, task, plan)
    waiting = partial(say, "waiting for another process that sets up the same environment")
    async with turn(cache_root() / "locks" / f"{key}.lock", waiting):
        if await provider.has(key):
            facts = read_json(_facts_path(key)) or {}
            return _built(key, task, plan, facts)
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
            facts = await _set_up(sandbox, plan, setup_timeout, say)
            await provider.freeze(sandbox, key)
        finally:
            await sandbox.close()
        write_json(_facts_path(key), facts, indent=None)
        return _built(key, task, plan, facts)


async def _make_room(sandbox: Sandbox, workspace: Workspace) -> None:
    """An image may bring a tree of its own, whose history can hold what came after the base: that goes, and so does
    what was committed there and is not in the base. What was built in the tree and never committed stays.
    """
    listed = await sandbox.exec(_LIST_COMMITTED, timeout=120, output_bytes=LISTING_BYTES)
    if listed.exit_code != 0 or listed.truncated:
        raise SetupFailed(f"the repository in the image's {WORKDIR} cannot be read: {end_of(listed.output)}")
    base = set(workspace.files())
    stale = [path for path in listed.stdout.decode("utf-8", "surrogateescape").split("\0") if path and path not in base]
    names = "\0".join(stale).encode("utf-8", "surrogateescape")
    removed = await sandbox.exec("rm -rf .git && xargs -0 -r rm -f --", stdin=names, timeout=120, merge=True)
    if removed.exit_code != 0:
        raise SetupFailed(f"the image's own tree in {WORKDIR} cannot be cleared: {end_of(removed.output)}")


def _plan(workspace: Workspace, task: Task) -> Detected:
    given = _given_files(task)
    detected = detect(
        {*workspace.files(), *given},
        lambda path: given[path] if path in given else workspace.read(path),
        date=workspace.date,
        described=workspace.described,
        python=task.environment.python,
        test_command=task.test_command,
    )
    if task.environment.setup:
        # An image brought by the user has its Python; elsewhere the commands find an environment with pip.
        steps = given_steps(task.environment.setup)
        if task.environment.image is None:
            before, after = given_environment(detected)
            steps = (*before, *steps, *after)
        detected = replace(detected, steps=steps)
    return detected


def _given_files(task: Task) -> dict[str, bytes]:
    """What the task lays over its tree. Raises InputError for a path that leads out of the repository or into .git."""
    given = task.failing_test.files if task.failing_test else ()
    return {_inside(path): text.encode("utf-8") for path, text in given}


def _inside(path: str) -> str:
    """A path in the repository, normalised. Raises InputError for one that leads out of it or into .git."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].lower() == ".git":
        raise InputError(f"{path!r} is not a path within the repository")
    return "/".join(parts)


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
    }
    if task.environment.image is not None:
        parts["room"] = True  # the image's own repository was left in place by earlier releases
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _built(key: str, task: Task, plan: Detected, facts: Json) -> Built:
    told = {name: tuple(facts.get(name, ())) for name in ("missing_limits", "notes")}
    return Built(key, task.environment.image, str(facts.get("python", "")), plan.test_command, **told)


async def _set_up(sandbox: Sandbox, plan: Detected, timeout: float, say: Say) -> Json:
    began = time.monotonic()
    notes: list[str] = []
    for step in plan.steps:
        note = await _take(sandbox, step, began + timeout, say)
        if note:
            say(note)
            notes.append(note)
    await mark_setup(sandbox)
    version = await sandbox.exec("python -V || python3 -V", timeout=60, merge=True)
    return {
        "python": version.output.strip().splitlines()[-1].removeprefix("Python ") if version.exit_code == 0 else "",
        "notes": notes,
        "missing_limits": list(sandbox.missing_limits),
    }


async def _take(sandbox: Sandbox, step: Step, deadline: float, say: Say) -> str:
    """Do one step by the first alternative that works; its note. Raises SetupFailed when none does."""
    say(step.what)
    command = output = ""
    for command, note in zip(step.commands, step.notes, strict=True):
        left = deadline - time.monotonic()
        if left <= 0:
            raise SetupFailed(f"set-up took too long; the command that was next: {command}")
        result = await sandbox.exec(command, env=SETUP_ENV, timeout=left, merge=True)
        output = end_of(result.output)
        if result.timed_out:
            raise SetupFailed(f"set-up was stopped after {result.seconds:.0f} s in the command: {command}\n{output}")
        if result.exit_code == 0:
            return note
    if step.optional:
        return step.failure
    raise SetupFailed(f"{step.failure}; the command was: {command}\n{output}")


def end_of(output: str) -> str:
    """The end of what a command printed, as much of it as an error shows."""
    text = output.strip()
    return text if len(text) <= ERROR_CHARS else "…" + text[-ERROR_CHARS:]


def _facts_path(key: str) -> Path:
    return cache_root() / "environments" / f"{key}.json"
