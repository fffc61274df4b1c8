"""The environment of a task: set up once with the network in a sandbox, frozen under a content key, then used offline.

The key is a hash of all that decides what set-up makes: the tree, the given test files, the commands, the interpreter, the
image and the backend. Facts about an environment (seconds, notes) and the base's test run are kept beside it in the cache,
so that the second run of a task starts at once. Processes that want the same environment wait for the one that builds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.cache import cache_root, read_json, write_json
from harness.environments.detect import Detected, Step, detect, given_environment, given_steps
from harness.lock import turn
from harness.parallel import in_parallel
from harness.patches.extract import mark_setup
from harness.records import Json, TestReport
from harness.repository.workspace import Workspace
from harness.sandbox.base import ENVDIR, WORKDIR, Limits, Provider, Sandbox, SandboxSpec
from harness.sandbox.fresh import in_fresh_sandbox
from harness.testing.report import COMMAND_TEST, READING, broke_off, found_none, outcome_of, selects
from harness.testing.run import run_tests
from harness.testing.runners.base import files_of
from harness.trace import public, record
from tasks.errors import SetupFailed
from tasks.say import Say
from tasks.task import Task

FORMAT = "1"
"""Part of every key: environments made by another way of setting up are not found again."""

TEST_SECONDS = 20.0
"""Wall time of one test on the base, unless the caller says otherwise."""

NO_TESTS = "the repository has no tests that Troop finds, so nothing guards what a patch may break"
NEAR_LATER = "the tests near a change are run on the base once there are changes (scope near)"

ERROR_CHARS = 2500
LISTING_BYTES = 50_000_000
_LIST_COMMITTED = "[ ! -e .git ] || git -c safe.directory='*' -c core.fsmonitor=false ls-files -z"
SETUP_ENV = {
    "VIRTUAL_ENV": ENVDIR,
    "PYTHONDONTWRITEBYTECODE": "1",
    "UV_LINK_MODE": "copy",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True, slots=True)
class Built:
    """A frozen environment.

    `python`: the interpreter's version there, "" where none answers. `notes`: what a user should know of how it was made.
    """

    key: str
    image: str | None
    python: str
    test_command: str | None
    missing_limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """The base's test run. `report` None: no tests to run (`note` says so). `flaky`: tests whose outcome differed."""

    report: TestReport | None
    flaky: tuple[str, ...] = ()
    note: str = ""


async def build(
    provider: Provider,
    workspace: Workspace,
    task: Task,
    *,
    run: str,
    limits: Limits | None = None,
    setup_timeout: float = 1200.0,
    setup_override: Sequence[str] | None = None,
    say: Say = lambda line: None,
) -> Built:
    """The task's environment: found in the provider's store by its key, else set up there.

    `setup_timeout` in seconds for all commands together. `setup_override`: commands in place of the task's and of those
    detected. Raises SetupFailed (the command and the end of its output), SandboxFailed, InputError (unknown image).
    """
    plan = await asyncio.to_thread(_plan, workspace, task, setup_override)
    key = _key(provider, workspace, task, plan)
    waiting = partial(say, "waiting for another process that sets up the same environment")
    async with turn(cache_root() / "locks" / f"{key}.lock", waiting):
        if await provider.has(key):
            facts = read_json(_facts_path(key)) or {}
            return _built(key, task, plan, facts)
        say("setting up the environment (once; it is kept for later runs)")
        archive = await asyncio.to_thread(workspace.archive, _given_files(task))
        spec = SandboxSpec(
            run=run,
            name="setup",
            image=task.environment.image,
            python=task.environment.python,
            network=True,
            limits=limits or Limits(),
        )
        sandbox = await provider.create(spec)
        try:
            if task.environment.image is not None:
                await _make_room(sandbox, workspace)
            await sandbox.upload(archive)
            facts = await _set_up(sandbox, plan, setup_timeout, say)
            await provider.freeze(sandbox, key)
        finally:
            await sandbox.close()
        write_json(_facts_path(key), facts, indent=None)
        return _built(key, task, plan, facts)


async def _make_room(sandbox: Sandbox, workspace: Workspace) -> None:
    """An image may bring a tree of its own, whose history can hold what came after the base: that goes, and so does what
    was committed there and is not in the base. What was built in the tree and never committed stays.
    """
    listed = await sandbox.exec(_LIST_COMMITTED, timeout=120, output_bytes=LISTING_BYTES)
    if listed.exit_code != 0 or listed.truncated:
        raise SetupFailed(f"the repository in the image's {WORKDIR} cannot be read: {_end(listed.output)}")
    base = set(workspace.files())
    stale = [path for path in listed.stdout.decode("utf-8", "surrogateescape").split("\0") if path and path not in base]
    removed = await sandbox.exec(
        "rm -rf .git && xargs -0 -r rm -f --",
        stdin="\0".join(stale).encode("utf-8", "surrogateescape"),
        timeout=120,
        merge=True,
    )
    if removed.exit_code != 0:
        raise SetupFailed(f"the image's own tree in {WORKDIR} cannot be cleared: {_end(removed.output)}")


def _plan(workspace: Workspace, task: Task, override: Sequence[str] | None) -> Detected:
    files = sorted({*workspace.files(), *(path for path, _ in _given_files(task))})
    given = dict(_given_files(task))
    detected = detect(
        files,
        lambda path: given[path] if path in given else workspace.read(path),
        date=workspace.date,
        described=workspace.described,
        python=task.environment.python,
        test_command=task.test_command,
    )
    commands = task.environment.setup if override is None else tuple(override)
    if override is not None or commands:
        # An image brought by the user has its Python; elsewhere the commands find an environment with pip.
        steps = given_steps(commands)
        if task.environment.image is None:
            before, after = given_environment(detected)
            steps = (*before, *steps, *after)
        detected = replace(detected, steps=steps)
    return detected


def _given_files(task: Task) -> list[tuple[str, bytes]]:
    return [(path, text.encode("utf-8")) for path, text in (task.failing_test.files if task.failing_test else ())]


def _key(provider: Provider, workspace: Workspace, task: Task, plan: Detected) -> str:
    parts: Json = {
        "format": FORMAT,
        "backend": provider.name,
        "image": task.environment.image,
        "python": task.environment.python,
        "commit": workspace.base_commit,
        "tree": workspace.tree,
        "given": [[path, hashlib.sha256(content).hexdigest()] for path, content in _given_files(task)],
        "steps": [step.commands for step in plan.steps],
    }
    if task.environment.image is not None:
        parts["room"] = True  # the image's own repository was left in place by earlier releases
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _built(key: str, task: Task, plan: Detected, facts: Json) -> Built:
    return Built(
        key=key,
        image=task.environment.image,
        python=str(facts.get("python", "")),
        test_command=plan.test_command,
        missing_limits=tuple(facts.get("missing_limits", ())),
        notes=tuple(facts.get("notes", ())),
    )


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
        if result.exit_code == 0 and not result.timed_out:
            return note
        output = result.output
        if result.timed_out:
            raise SetupFailed(
                f"set-up was stopped after {result.seconds:.0f} s in the command: {command}\n{_end(output)}"
            )
    if step.optional:
        return step.failure
    raise SetupFailed(f"{step.failure}; the command was: {command}\n{_end(output)}")


async def baseline(
    provider: Provider,
    built: Built,
    task: Task,
    *,
    run: str,
    runs: int = 2,
    timeout: float = 600.0,
    test_seconds: float = TEST_SECONDS,
    limits: Limits | None = None,
    retries: int = 3,
    say: Say = lambda line: None,
) -> Baseline:
    """Run the base's tests `runs` times, each in a fresh sandbox without the network, and check the given failing test.

    `timeout` in seconds for one run; tests that did not finish by then are not part of the baseline, which the note says.
    Of a task whose scope is "near" only the given test's file is run. Raises SetupFailed when tests are there but none can be run,
    or a given failing test passes or is not found, and SandboxFailed when `retries` replacements of a sandbox died as well.
    """
    if built.test_command is None:
        return Baseline(None, note=NO_TESTS)
    near = task.test_scope == "near"
    if near and task.failing_test is None:
        return Baseline(None, note=NEAR_LATER)
    path = _baseline_path(built, task, runs, timeout, test_seconds)
    kept = read_json(path)
    if kept is not None:
        return _checked(record(Baseline, kept), task)
    given = task.failing_test.ids if task.failing_test else ()
    files = files_of(given) if near else []
    say(f"running the tests of the base{' in ' * near}{', '.join(files)}: {built.test_command}")

    async def in_sandbox(sandbox: Sandbox) -> TestReport:
        return await _base_run(sandbox, built.test_command or "", files, given, timeout, test_seconds)

    specs = [
        SandboxSpec(run=run, name=f"base-{number}", environment=built.key, limits=limits or Limits())
        for number in range(max(1, runs))
    ]
    # A run that fails ends the others: none may go on in a provider that is being closed.
    reports = await in_parallel(in_fresh_sandbox(provider, spec, in_sandbox, retries) for spec in specs)
    found = _merge(reports, built.test_command, task)
    found = _checked(found, task)
    write_json(path, public(found), indent=None)
    return found


async def _base_run(
    sandbox: Sandbox, command: str, files: Sequence[str], given: Sequence[str], timeout: float, test_seconds: float
) -> TestReport:
    """The whole suite (or these files of it), and the given tests as well where the command leaves them out."""
    report = await run_tests(sandbox, command, files, timeout=timeout, test_seconds=test_seconds)
    absent = [test for test in given if outcome_of(report, test) == "missing"]
    if not absent or _pseudo(report):
        return report
    alone = await run_tests(sandbox, command, absent, timeout=timeout, test_seconds=test_seconds)
    if not report.outcomes:
        return alone
    return replace(
        report,
        outcomes={**report.outcomes, **alone.outcomes},
        failures={**report.failures, **alone.failures},
        durations={**report.durations, **alone.durations},
    )


def _merge(reports: Sequence[TestReport], command: str, task: Task) -> Baseline:
    """One baseline of several runs: the first run's report, and whatever differed in another as flaky."""
    usable = [_usable(report) for report in reports]
    if task.test_command is None and task.failing_test is None and all(found_none(report) for report in usable):
        return Baseline(None, note=NO_TESTS)
    for report in usable:
        if not report.valid:
            raise SetupFailed(
                f"the tests of the base cannot be run: {report.reason}; the command was: {command}\n{_end(report.output)}"
            )
    first = usable[0]
    if _nothing_loads(first, task):
        message = next(iter(first.failures.values()), "") or first.output
        raise SetupFailed(f"no test of the base can be loaded; the command was: {command}\n{_end(message)}")
    ids = {test for report in usable for test in report.outcomes}
    flaky = sorted(t for t in ids if len({report.outcomes.get(t) for report in usable}) > 1)
    notes = [first.reason] if first.reason else []
    if flaky:
        notes.append(f"{len(flaky)} flaky test{'s are' if len(flaky) > 1 else ' is'} left out of the evidence")
    return Baseline(first, tuple(flaky), "; ".join(notes))


def _usable(report: TestReport) -> TestReport:
    """A run that broke off (stopped, or ended by a test that took the interpreter down), but not before tests had
    finished, counts for those."""
    if report.valid or not report.passed or not (report.timed_out or broke_off(report)):
        return report
    reason = f"{report.reason}; only the {len(report.outcomes)} tests that had run by then count"
    return replace(report, valid=True, reason=reason)


def _nothing_loads(report: TestReport, task: Task) -> bool:
    """Only files that cannot be loaded, and not just those of the given test (whose failing may be just that)."""
    given = {test.partition("::")[0] for test in (task.failing_test.ids if task.failing_test else ())}
    return (
        not report.passed
        and not _pseudo(report)
        and bool(report.failed - given)
        and all("::" not in test for test in report.failed)
    )


def _pseudo(report: TestReport) -> bool:
    return COMMAND_TEST in report.outcomes


def _checked(found: Baseline, task: Task) -> Baseline:
    """The baseline, once every given failing test is seen to fail, every time. Raises SetupFailed for one that does not,
    if it was certain to; else the note says that no failing test is at hand."""
    report, given = found.report, task.failing_test
    if report is None or given is None or _pseudo(report):
        return found
    wrong = [objection for test in given.ids if (objection := _not_failing(report, found.flaky, test))]
    if not wrong:
        return found
    if given.certain:
        raise SetupFailed(wrong[0])
    if len(wrong) < len(given.ids):
        return found
    return replace(
        found, note="; ".join(part for part in (found.note, "no test that is at hand fails on the base") if part)
    )


def _not_failing(report: TestReport, flaky: Sequence[str], test: str) -> str:
    """Why a given test (or file) does not show the bug; empty if it does."""
    outcome = outcome_of(report, test)
    if outcome == "missing":
        return f"the failing test {test} is not found by the test command, or never ran: check its id"
    if outcome not in ("failed", "error"):
        return f"the failing test {test} does not fail on the base ({outcome}), so it does not show the bug"
    failing = [t for t in report.failed if selects(test, t) or t == test.partition("::")[0]]
    if all(t in flaky for t in failing):
        return f"the failing test {test} does not fail every time on the base, so it cannot show a fix"
    return ""


def _end(output: str) -> str:
    text = output.strip()
    return text if len(text) <= ERROR_CHARS else "…" + text[-ERROR_CHARS:]


def _facts_path(key: str) -> Path:
    return cache_root() / "environments" / f"{key}.json"


def _baseline_path(built: Built, task: Task, runs: int, timeout: float, test_seconds: float) -> Path:
    given = task.failing_test.ids if task.failing_test else ()
    scope = [] if task.test_scope == "whole" else [task.test_scope]
    settings = [built.test_command, task.test_command is None, given, runs, timeout, test_seconds, *scope]
    parts = json.dumps([FORMAT, READING, *settings])
    return cache_root() / "baselines" / f"{built.key}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.json"
