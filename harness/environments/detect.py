"""How an ordinary repository is installed and tested, read off its files. Pure: nothing is executed here.

`detect` looks at pyproject.toml, setup.cfg, setup.py (parsed, never run), requirements files and tox.ini, and answers
with set-up steps for a sandbox that has the network. A step has alternatives, tried in order: an old tree first gets
dependencies of its own time (`--exclude-newer`), and those of today only where that fails.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from harness.environments.languages import foreign
from harness.environments.project import Project, read_project
from harness.sandbox.base import ENVDIR, TROOPDIR, WORKDIR
from harness.testing.runners.base import Layout, Runner
from harness.testing.runners.registry import USUAL_COMMAND, command_for, runner_of

UV = f"{TROOPDIR}/bin/uv"
OLD = timedelta(days=60)
"""A tree younger than this gets today's dependencies."""
SLACK = timedelta(days=2)
"""A release and the sister packages that it needs come out within days of each other."""

TODAYS_BUILD_TOOLS = datetime(2024, 6, 1, tzinfo=UTC)
"""Build tools for trees older than this: they know every Python to 3.13 and still ship pkg_resources."""
FORMER_BUILD_TOOLS = datetime(2021, 8, 1, tzinfo=UTC)
"""The last setuptools with use_2to3 and other things that old setup.py files ask for."""
BUILD_TOOLS = ("setuptools", "wheel", "setuptools-scm", "pip", "flit-core", "poetry-core")

PYTHON_RELEASES = tuple(
    (version, datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    for version, day in (
        *(("3.6", "2016-12-23"), ("3.7", "2018-06-27"), ("3.8", "2019-10-14"), ("3.9", "2020-10-05")),
        *(("3.10", "2021-10-04"), ("3.11", "2022-10-24"), ("3.12", "2023-10-02"), ("3.13", "2024-10-07")),
        ("3.14", "2025-10-07"),
    )
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that set-up does: `what`, for people. `commands` are alternatives: the first that succeeds is enough.

    `notes[i]` is what to tell the user when alternative `i` was the one. `optional`: set-up goes on when all fail, and
    says `failure`; otherwise `failure` opens the error.
    """

    what: str
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    failure: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Detected:
    """`python`: the interpreter as uv is asked for it (None: any). `test_command` None: no tests were found."""

    steps: tuple[Step, ...]
    python: str | None
    test_command: str | None


def given_steps(commands: Iterable[str]) -> tuple[Step, ...]:
    """The user's own set-up commands as steps."""
    return tuple(Step(f"$ {c}", (c,), ("",), "a set-up command failed") for c in commands)


def given_environment(detected: Detected) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """What comes before and after the user's own set-up commands: an environment with pip in it, and the test tools."""
    make = detected.steps[0]
    seeded = tuple(command.replace(" venv ", " venv --seed ", 1) for command in make.commands)
    return (replace(make, commands=seeded),), _tools(None, detected.test_command)


def detect(
    files: Iterable[str],
    read: Callable[[str], bytes],
    *,
    date: datetime | None = None,
    described: str = "",
    now: datetime | None = None,
    python: str | None = None,
    test_command: str | None = None,
) -> Detected:
    """Steps and test command for a tree of `files` (paths from its root), `read` giving a file's bytes.

    `date`: when the tree was committed or released (aware). `described`: its nearest tag, as `git describe --long` has
    it, for build backends that want a version. `python`: the wanted version ("3.9"). `test_command`: the user's.
    """
    paths = sorted(files)
    if other := foreign(paths, read, test_command):
        own = (Step(what, ways, ("",) * len(ways), failure, may_fail) for what, ways, failure, may_fail in other[1])
        return Detected((_make_env(python, None, None), *own), python, other[0])  # Troop's own programs want a Python
    project = read_project(paths, read)
    if date is not None and (now or datetime.now(UTC)) - date < OLD:
        date = None
    command = test_command or command_for(Layout(paths, project.text, project.configured))
    request = python or project.requires_python
    steps = (
        _make_env(python, project.requires_python, date),
        *_install(project, date, project.version or version_of(described)),
        *_tools(date, command),
    )
    return Detected(steps, request, command)


def _make_env(python: str | None, requires: str | None, date: datetime | None) -> Step:
    """The virtual environment. Without a wish: an interpreter of the tree's time, else any that is admitted."""
    requests: list[str | None] = [python or requires]
    if python is None and date is not None:
        known = [version for version, released in PYTHON_RELEASES if released <= date]
        ceiling = f"<{_next_minor(known[-1] if known else '3.6')}"
        requests.insert(0, f"{requires},{ceiling}" if requires else ceiling)
    commands, notes = [], []
    for download in (False, True):
        for wish in requests:
            flag = "" if download else " --no-python-downloads"
            named = f" --python {shlex.quote(wish)}" if wish else ""
            prefix = f"UV_PYTHON_INSTALL_DIR={TROOPDIR}/python " if download else ""
            commands.append(f"{prefix}{UV} venv --clear{flag}{named} {ENVDIR}")
            old = wish is not requests[0]
            notes.append(f"no Python {requests[0]} is at hand, a newer one is used for this old tree" if old else "")
    wanted = python or requires
    what = f"no Python {wanted} is to be had" if wanted else "no Python is to be had"
    failure = f"{what} in this sandbox (another with --image, or python in the task file)"
    return Step("making a Python environment", tuple(commands), tuple(notes), failure)


def _install(project: Project, date: datetime | None, version: str | None) -> tuple[Step, ...]:
    tests = _test_arguments(project)
    steps: list[Step] = []
    if project.installable:
        steps.append(_install_project(project, tests, date, version))
    if not project.installable or not (project.extras or tests):
        for path in project.requirements:
            steps.append(_pip(f"the requirements in {path}", f"-r {shlex.quote(path)}", date))
    if not project.installable and tests:
        steps.append(_pip("the test dependencies", tests.strip(), date))
    if not project.installable:
        steps.append(Step("making the tree importable", (_import_path(project),), ("",), "no import path could be set"))
    return tuple(steps)


def _install_project(project: Project, tests: str, date: datetime | None, version: str | None) -> Step:
    """The project, editable, with what its tests need; else without that; else its dependencies, or in the old way."""
    extras = f"[{','.join(project.extras)}]" if project.extras else ""
    ways = [(f"-e {shlex.quote('.' + extras)}{tests}", "")]
    if extras or tests:
        ways.append(("-e .", "the test dependencies could not be installed with the project"))
    pip = f"{_version_settings(version)}{UV} pip install"
    commands, notes = [], []
    for arguments, lacking in ways:
        for dated, note in _datings(date):
            commands.append(f"{pip} {dated}{arguments}")
            notes.append("; ".join(part for part in (lacking, note) if part))
    if project.has_static_metadata:  # an application rather than a package
        named = "".join(f" --extra {shlex.quote(extra)}" for extra in project.extras)
        for dated, note in _datings(date):
            commands.append(f"{pip} {dated}-r pyproject.toml{named}{tests} && {_import_path(project)}")
            lacking = "the project itself could not be installed, only its dependencies"
            notes.append("; ".join(part for part in (lacking, note) if part))
    else:
        # A Python too old for any setuptools that builds editable wheels: pip falls back to `setup.py develop` there.
        old = f"{UV} pip install pip setuptools wheel && {_version_settings(version)}{ENVDIR}/bin/python -m pip install"
        commands.append(f"{old} --no-build-isolation -e .{tests}")
        notes.append("the project was installed in the old way, by setup.py develop")
    what = "installing the project" + (" and what its tests need" if extras or tests else "")
    return Step(what, tuple(commands), tuple(notes), "the project could not be installed")


def _pip(what: str, arguments: str, date: datetime | None) -> Step:
    ways, notes = zip(*_datings(date), strict=True)
    commands = tuple(f"{UV} pip install {dated}{arguments}" for dated in ways)
    return Step(f"installing {what}", commands, notes, f"{what} could not be installed")


def _test_arguments(project: Project) -> str:
    groups = [f"--group {shlex.quote(group)}" for group in project.groups]
    files = [f"-r {shlex.quote(path)}" for path in project.test_requirements]
    packages = [shlex.quote(package) for package in project.packages]
    return "".join(f" {argument}" for argument in (*groups, *files, *packages))


def _datings(date: datetime | None) -> list[tuple[str, str]]:
    """(uv's arguments, note) of each way to choose versions: of the tree's time first, of today last."""
    if date is None:
        return [("", "")]
    day = (date + SLACK).astimezone(UTC).strftime("%Y-%m-%d")
    tools = (max(date + SLACK, time) for time in (TODAYS_BUILD_TOOLS, FORMER_BUILD_TOOLS))
    ways = dict.fromkeys((f"{_dated(day, time)} ", "") for time in tools)
    return [*ways, ("", f"no set of dependencies from before {day} could be installed, so today's were")]


def _dated(day: str, tools: datetime) -> str:
    newer = tools.astimezone(UTC).strftime("%Y-%m-%d")
    exceptions = [f"--exclude-newer-package {tool}={newer}" for tool in BUILD_TOOLS] if newer > day else []
    return " ".join((f"--exclude-newer {day}", *exceptions))


def version_of(described: str) -> str | None:
    """A version from `git describe --tags --long`: "v1.4.2-7-gabc" is the seventh commit on the way to 1.4.3."""
    match = re.match(r"^(?:.*?[^0-9.])?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|rc)(\d+))?-(\d+)-g[0-9a-f]+$", described)
    if match is None:
        return None
    numbers, phase, phase_number, distance = match.groups()
    if distance == "0":
        return numbers + (f"{phase}{phase_number}" if phase else "")
    if phase:
        return f"{numbers}{phase}{int(phase_number) + 1}.dev{distance}"
    head, _, last = numbers.rpartition(".")
    return f"{head + '.' if head else ''}{int(last) + 1}.dev{distance}"


def _version_settings(version: str | None) -> str:
    """The tree in the sandbox has no tags for a build backend to tell its version from."""
    if not version:
        return ""
    quoted = shlex.quote(version)
    return f"SETUPTOOLS_SCM_PRETEND_VERSION={quoted} PDM_BUILD_SCM_VERSION={quoted} "


def _import_path(project: Project) -> str:
    """The command that lets a tree that is not installed be imported from where it lies."""
    folders = " ".join(shlex.quote(f"{WORKDIR}/{folder}" if folder else WORKDIR) for folder in project.import_roots)
    return (
        f"printf '%s\\n' {folders} > "
        f'"$({ENVDIR}/bin/python -c \'import sysconfig; print(sysconfig.get_paths()["purelib"])\')/troop_testbed.pth"'
    )


def _tools(date: datetime | None, test_command: str | None) -> tuple[Step, ...]:
    """The usual test framework and the command's, and coverage with contexts.

    uv's environments have no setuptools, which old trees import (pkg_resources) without saying that they need it.
    """
    python = f"{ENVDIR}/bin/python"
    install = f"{UV} pip install"
    used = dict.fromkeys(runner_of(command) for command in (USUAL_COMMAND, test_command) if command)
    probe = f"{python} -c 'import coverage; assert coverage.version_info >= (5,)' 2> /dev/null"
    # No test run writes byte code, so it is made here; by Python itself, for uv does it for new Pythons only.
    compile_all = f"{python} -m compileall -q -j 0 {ENVDIR}/lib > /dev/null 2>&1 || true"
    without = "coverage could not be installed: faults are localised without it"
    steps = [
        *(_framework(runner, python, install, date, test_command) for runner in used if runner.packages),
        Step("making sure of coverage", (probe, f"{install} 'coverage>=5'"), ("", ""), without, optional=True),
        Step("compiling", (compile_all,), ("",), "nothing could be compiled"),
    ]
    if date is not None:
        capped = _dated(TODAYS_BUILD_TOOLS.strftime("%Y-%m-%d"), TODAYS_BUILD_TOOLS)
        ways = (f"{python} -c 'import pkg_resources' 2> /dev/null", f"{install} {capped} setuptools")
        failure = "setuptools could not be installed"
        steps.insert(0, Step("making sure of setuptools", ways, ("", ""), failure, optional=True))
    return tuple(steps)


def _framework(runner: Runner, python: str, install: str, date: datetime | None, test_command: str | None) -> Step:
    """A test framework that works on this interpreter (of the tree's time if it does), asked for or not."""
    probe, name = runner.probe(python), runner.name
    dated = [f"{install} {way}{runner.packages[0]} && {probe}" for way, _ in _datings(date)]
    return Step(
        f"making sure of {name}",
        (probe, *dated, f"{install} --upgrade {' '.join(runner.packages)} && {probe}"),
        ("", *[""] * len(dated), f"the tree's own {name} does not work on this Python, so a newer one is used"),
        f"no {name} works in the environment",
        optional=test_command is None or runner_of(test_command) is not runner,
    )


def _next_minor(version: str) -> str:
    major, _, minor = version.partition(".")
    return f"{major}.{int(minor) + 1}"
