"""How an ordinary repository is installed and tested, read off its files. Pure: nothing is executed here.

`detect` looks at pyproject.toml, setup.cfg, setup.py (parsed, never run), requirements files and tox.ini, and answers
with set-up steps for a sandbox that has the network. A step has alternatives, tried in order: an old tree first gets
dependencies of its own time (`--exclude-newer`), and those of today only where that fails.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from harness.environments.languages import foreign
from harness.environments.needs import install_each, own_projects, wanted
from harness.environments.own_tests import assigned
from harness.environments.project import Project, project_folders, read_project
from harness.sandbox.base import ENVDIR, TROOPDIR, WORKDIR
from harness.testing.runners.base import Layout, Runner
from harness.testing.runners.registry import USUAL_COMMAND, command_for, runner_of
from tasks.errors import InputError

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
LATE = {"atomicwrites": datetime(2022, 7, 9, tzinfo=UTC), "pandas": datetime(2019, 7, 19, tzinfo=UTC)}
"""From when there are releases as of a date: all of the first, which pytest 3.6 to 5.2 needs, came back to the index on
that day; no older one of the second states what it needs as today's tools read it."""

_DAYS_FROM_3_6_ON = "2016-12-23 2018-06-27 2019-10-14 2020-10-05 2021-10-04 2022-10-24 2023-10-02 2024-10-07 2025-10-07"
PYTHON_RELEASES = tuple(
    (f"3.{minor}", datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    for minor, day in enumerate(_DAYS_FROM_3_6_ON.split(), 6)
)

MAKING = "making a Python environment"
UNKNOWN = "999.0"
"""The version of a tree that no tag tells of: what depends on it wants it no older than something."""
PINS = "/tmp/troop-locked.txt"
PINNED = f"UV_CONSTRAINT={PINS} "
UNPINNED = "the versions that the repository locks could not be installed, so others were"
_ASIDE = re.compile(r"(?:docs?|tools|scripts|ci|examples?|benchmarks?)/")
_MESON = re.compile(r"meson-python\b")
VERSION_VARIABLES = (
    *("SETUPTOOLS_SCM_PRETEND_VERSION", "PDM_BUILD_SCM_VERSION", "POETRY_DYNAMIC_VERSIONING_BYPASS"),
    "UV_DYNAMIC_VERSIONING_BYPASS",
)
"""The tree in the sandbox has no history for a build backend to tell its version from."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that set-up does: `what`, for people. `commands` are alternatives: the first that succeeds is enough.

    `notes[i]` (none: nothing) is what to tell the user when alternative `i` was the one; a line `troop: …` that a
    command prints is told, too. `optional`: set-up goes on when all fail, and says `failure`; otherwise `failure` opens
    the error. `installs`: it brings what the repository asks for, rather than Troop's own tools."""

    what: str
    commands: tuple[str, ...]
    failure: str
    notes: tuple[str, ...] = ()
    optional: bool = False
    installs: bool = False


@dataclass(frozen=True, slots=True)
class Detected:
    """`test_command` None: no tests were found; it and the steps are for the project in `directory` ("": the root).
    `named`: every requirement that the project names, `wanted` those of them, by module, that its tests import (of
    extras: any of its code), `projects` those within it, by module. `day`: dependencies are of then ("": of today)."""

    steps: tuple[Step, ...]
    test_command: str | None
    directory: str = ""
    named: tuple[str, ...] = ()
    wanted: Mapping[str, str] = field(default_factory=dict)
    projects: Mapping[str, str] = field(default_factory=dict)
    day: str = ""

    @property
    def makes_environment(self) -> bool:
        """Whether there is an environment at `ENVDIR`, rather than an image's own Python."""
        return any(step.what == MAKING for step in self.steps)


PYTHON_NAMED = Step(
    "making sure of python",
    ("command -v python", f"mkdir -p {ENVDIR}/bin && ln -s $(command -v python3) {ENVDIR}/bin/python"),
    "the image has no Python",
    optional=True,
)
"""Debian's own Python is called python3 alone, and test commands say python."""


def given_steps(commands: Iterable[str]) -> tuple[Step, ...]:
    """A task's own set-up commands as steps; those of a suite see to the environment's place, and install nothing."""
    return tuple(Step(f"$ {c}", (c,), "a set-up command failed", installs=ENVDIR not in c) for c in commands)


def given_environment(detected: Detected) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """What comes before and after the user's own set-up commands: an environment with pip in it, and the test tools."""
    make = next(step for step in detected.steps if step.what == MAKING)
    seeded = tuple(command.replace(" venv ", " venv --seed ", 1) for command in make.commands)
    return (replace(make, commands=seeded),), _tools(None, detected.test_command)


def system_packages(names: Sequence[str]) -> tuple[Step, ...]:
    """Debian packages that the user named: there already, or installed where set-up may (a container)."""
    words = shlex.join(names)
    ways = (
        f"dpkg -s {words} > /dev/null 2>&1",
        f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {words}",
    )
    here = f"bubblewrap shows this machine's own: sudo apt-get install {words}  here, or --sandbox docker"
    failure = f"the Debian packages {words} could not be installed ({here})"
    return (Step(f"installing {words}", ways, failure),) if names else ()


def submodules_fetched(paths: Iterable[str]) -> tuple[Step, ...]:
    """Submodules that the user's checkout has not filled, as plain files: their history stays where it is."""
    words = shlex.join(paths)
    command = (
        f"cd {WORKDIR} && export GIT_TERMINAL_PROMPT=0 && timeout 120 git -c safe.directory='*' submodule update --init"
        f" --recursive --depth 1 -- {words}; done=$?; find {words} -name .git -prune -exec rm -rf {{}} +;"
        " rm -rf .git/modules; exit $done"
    )
    failure = f"the submodules {words} are empty and cannot be fetched (git submodule update --init fills your own)"
    return (Step("fetching submodules", (command,), failure, optional=True),) if words else ()


def detect(
    files: Iterable[str],
    read: Callable[[str], bytes],
    *,
    date: datetime | None = None,
    described: str = "",
    now: datetime | None = None,
    python: str | None = None,
    test_command: str | None = None,
    directory: str = "",
) -> Detected:
    """Steps and test command for a tree of `files` (paths from its root), `read` giving a file's bytes.

    `date`: when the tree was committed or released (aware). `described`: its nearest tag, as `git describe --long` has
    it, for build backends that want a version. `python`: the wanted version ("3.9"). `test_command`: the user's.
    `directory`: of the project in the tree; without one it is the root's, or the only one there is. Raises InputError
    where there are several, or it is not there."""
    every = sorted(files)
    if other := foreign(every, read, test_command):
        own = (Step(what, ways, failure, optional=may_fail) for what, ways, failure, may_fail in other[1])
        # Troop's own programs want a Python.
        return Detected((_make_env(python, read_project([], read), None), *own), other[0])
    folder = directory.strip("/") or _only(project_folders(every, read))
    top = f"{folder}/" if folder else ""
    paths = [path.removeprefix(top) for path in every if path.startswith(top)]
    if not paths and top:
        raise InputError(f"the repository has no directory {folder} at its base: check --directory")

    def below(path: str) -> bytes:
        return read(top + path)

    project = read_project(paths, below)
    if date is not None and (now or datetime.now(UTC)) - date < OLD:
        date = None
    command, tests = test_command, project.own
    if command is None:
        stated = tests.command or (USUAL_COMMAND if tests.options else "")
        command = command_for(Layout(paths, project.text, project.configured), stated)
        if command == USUAL_COMMAND:
            looked = [f"-o testpaths={shlex.quote(' '.join(tests.paths))}"] if tests.paths else []
            command = " ".join((command, *map(shlex.quote, tests.options), *looked))
        code = (below(path) for path in paths if path.endswith(".py") and not _ASIDE.match(path))
        command = " ".join((*assigned(tests, code), command)) if command else None
    if command and top and not test_command:
        command = f"cd {shlex.quote(folder)} && {command}"
    version = project.version or version_of(described) or (UNKNOWN if project.tagged else None)
    make, install = _make_env(python, project, date), _install(project, date, version, folder)
    steps = (*_tag(described, project), make, *_locked(project), *install, *_tools(date, command))
    needs = wanted(paths, below, project.named, project.optional, project.text)
    day = _day(date) if date else ""
    return Detected(steps, command, folder, project.named, needs, own_projects(paths), day)


def _only(folders: Sequence[str]) -> str:
    if len(folders) == 1:
        return folders[0]
    shown = ", ".join(folders[:12]) + (", …" if len(folders) > 12 else "")
    raise InputError(
        f"the repository has {len(folders)} projects ({shown}) and none at its root: say which with --directory"
        f" {folders[0]}  (or give that directory's path in place of the repository's)"
    )


def _tag(described: str, project: Project) -> tuple[Step, ...]:
    """Where a build backend reads the version from tags: one on the sandbox's only commit, with the version that the
    nearest tag means for it, so that every such backend finds it, also one that has no variable for it."""
    if not project.tagged or project.version:
        return ()
    version, note = version_of(described), ""
    tag, distance, _ = described.rsplit("-", 2) if version else (UNKNOWN, "0", "")
    if version is None:
        note = f"no tag leads to the base (a shallow clone?): the project's version is taken to be {UNKNOWN}"
    elif distance != "0":
        tag = re.sub(r"\d.*", "", tag) + version
    command = f"git -c safe.directory='*' tag --force {shlex.quote(tag)}"
    return (Step("telling the version", (command,), "the version could not be told", (note,), optional=True),)


def _locked(project: Project) -> tuple[Step, ...]:
    """The versions that the repository locks, and its own constraints, where set-up can name them."""
    if not project.locked and not project.constraints:
        return ()
    lines = f"printf '%s\\n' {' '.join(map(shlex.quote, project.locked))} > {PINS}"
    files = "".join(f" && cat {shlex.quote(path)} >> {PINS}" for path in project.constraints)
    return (
        Step("noting the versions that the repository locks", (lines + files,), "they could not be", optional=True),
    )


def _make_env(python: str | None, project: Project, date: datetime | None) -> Step:
    """The virtual environment. Without a wish: the interpreter that the project chose for itself or the newest that it
    names, of the tree's time; else an interpreter of its time; else any that is admitted."""
    requires = project.requires_python
    wanted = python or requires
    requests: list[str | None] = [wanted]
    if python is None:
        known = [version for version, released in PYTHON_RELEASES if released <= (date or datetime.now(UTC))]
        named = [version for version in project.pythons if version in known][:4]
        # What names none but old versions may be as old at heart as it says, whatever the date of its last commit.
        newest = max((int(version[2:]) for version in project.pythons), default=99)
        later = [version for version in known if int(version[2:]) > max(newest, 7)]
        exact = [f"=={version}.*" if requires else version for version in (*named, *later)]
        ceiling = [f"<3.{int((known[-1] if known else '3.6')[2:]) + 1}"] if date is not None else []
        requests = [*(f"{requires},{wish}" if requires else wish for wish in (*exact, *ceiling)), wanted]
    of_its_time = requests[-2] if python is None and date is not None else None
    newer = f"no Python {of_its_time} is at hand, a newer one is used for this old tree" if of_its_time else ""
    fetched = f"UV_PYTHON_INSTALL_DIR={TROOPDIR}/python {UV} venv --clear"
    asked = [(f"{UV} venv --clear --no-python-downloads", wish) for wish in requests]
    asked += [(fetched, wish) for wish in dict.fromkeys((requests[0], wanted))]
    ways = []
    for venv, wish in asked:
        option = f" --python {shlex.quote(wish)}" if wish else ""
        ways.append((f"{venv}{option} {ENVDIR}", newer if wish is wanted else ""))
    none = f"no Python {wanted}" if wanted else "no Python"
    failure = f"{none} is to be had in this sandbox (another with --image, or python in the task file)"
    return _step(MAKING, ways, failure)


def _step(what: str, ways: Iterable[tuple[str, str]], failure: str, *, installs: bool = False) -> Step:
    """A step of ways that each have a note."""
    commands, notes = zip(*ways, strict=True)
    return Step(what, commands, failure, notes, installs=installs)


def _install(project: Project, date: datetime | None, version: str | None, folder: str) -> tuple[Step, ...]:
    """The project, else what it needs and a path to import it from."""
    tests = _test_arguments(project)
    pip = partial(_pip, date=date, pinned=bool(project.locked or project.constraints))
    needs = [pip(f"the requirements in {path}", f"-r {shlex.quote(path)}") for path in project.requirements]
    if project.installable or project.members:
        own = _install_project(project, date, version, folder)
        return (own,) if project.extras or tests else (own, *needs)
    if project.has_static_metadata:
        needs.append(pip("the dependencies in pyproject.toml", _static(project)))
    if tests:
        needs.append(pip("the test dependencies", " ".join(tests)))
    path = Step("making the tree importable", (_import_path(project, folder),), "no import path could be set")
    return (*needs, path)


def _static(project: Project) -> str:
    return "-r pyproject.toml" + "".join(f" --extra {shlex.quote(extra)}" for extra in project.extras)


def _install_project(project: Project, date: datetime | None, version: str | None, folder: str) -> Step:
    """The project, editable, with what its tests need; else that one by one; else by another way of building."""
    tests, every = _test_arguments(project), f".[{','.join(project.extras)}]" if project.extras else "."
    extras = [f"-e {shlex.quote(f'.[{extra}]')}" for extra in project.extras]
    members = [f"-e {shlex.quote(member)}" for member in project.members]
    itself = [f"-e {shlex.quote(every)}"] if project.installable else []
    settings = "".join(f"{name}={shlex.quote(version)} " for name in VERSION_VARIABLES) if version else ""
    pip = f"{settings}{UV} pip install "
    joined, alone = " ".join((*itself, *members, *tests)), " ".join((*(["-e ."] if itself else []), *members))
    ways = {f"{PINNED}{pip}{joined}": ""} if project.locked or project.constraints else {}
    if any(map(_MESON.match, project.build_requires)):  # builds again at each import, with what it was built with
        tools = f"{UV} pip install {shlex.join(project.build_requires)} meson ninja"
        ways[f"{tools} && {pip}--no-build-isolation {{dated}}{joined}"] = ""
    ways[f"{pip}{{dated}}{joined}"] = UNPINNED if project.locked or project.constraints else ""
    if project.own_sources:
        sources = "dependencies are the index's, not those of the tree's own sources"
        ways[f"{pip}--no-sources {{dated}}{joined}"] = sources
    if extras or tests or members:
        each = install_each(f"{pip}{{dated}}", (*extras, *tests)) or ":"
        ways[f"{pip}{{dated}}{alone} && {{ {each}; }}"] = "the test dependencies were installed one by one"
    if members and itself:
        without = " ".join((*itself, *tests))
        ways[f"{pip}--no-sources {{dated}}{without}"] = "the workspace's other members are the index's releases"
    by_pip = f"{UV} pip install pip && {settings}{ENVDIR}/bin/python -m pip install -q {joined}"
    ways[by_pip] = "installed by pip, which takes what uv refuses" + "; dependencies are today's" * bool(date)
    if project.build_requires:
        build = f"{UV} pip install {shlex.join(project.build_requires)} setuptools"
        ways[f"{build} && {pip}--no-build-isolation {joined}"] = "the project was built without isolation"
    if project.has_static_metadata:  # an application rather than a package
        only = f"{pip}{{dated}}{' '.join((_static(project), *tests))} && {_import_path(project, folder)}"
        ways[only] = "the project itself could not be installed, only its dependencies"
    else:
        # A Python too old for any setuptools that builds editable wheels: pip falls back to `setup.py develop` there.
        old = f"{UV} pip install pip setuptools wheel && {settings}{ENVDIR}/bin/python -m pip install"
        arguments = " ".join(("--no-build-isolation -e .", *tests))
        ways[f"{old} {arguments}"] = "the project was installed in the old way, by setup.py develop"
    datings = [
        (way.replace("{dated}", dating), "; ".join(filter(None, (lacking, note))))
        for way, lacking in ways.items()
        for dating, note in (_datings(date) if "{dated}" in way else [("", "")])
    ]
    what = "installing the project" + (" and what its tests need" if extras or tests else "")
    return _step(what, datings, "the project could not be installed", installs=True)


def _pip(what: str, arguments: str, date: datetime | None, *, pinned: bool) -> Step:
    ways = [(f"{UV} pip install {dated}{arguments}", note) for dated, note in _datings(date)]
    if pinned:
        ways = [(f"{PINNED}{UV} pip install {arguments}", ""), *((way, note or UNPINNED) for way, note in ways)]
    return _step(f"installing {what}", ways, f"{what} could not be installed", installs=True)


def _test_arguments(project: Project) -> list[str]:
    groups = [f"--group {shlex.quote(group)}" for group in project.groups]
    files = [f"-r {shlex.quote(path)}" for path in project.test_requirements]
    return [*groups, *files, *(shlex.quote(package) for package in project.packages)]


def _datings(date: datetime | None) -> list[tuple[str, str]]:
    """(uv's arguments, note) of each way to choose versions: of the tree's time first, of today last."""
    if date is None:
        return [("", "")]
    day = _day(date)
    tools = (max(date + SLACK, time) for time in (TODAYS_BUILD_TOOLS, FORMER_BUILD_TOOLS))
    ways = dict.fromkeys((f"{_dated(day, time)} ", "") for time in tools)
    return [*ways, ("", f"no set of dependencies from before {day} could be installed, so today's were")]


def _day(date: datetime) -> str:
    return (date + SLACK).astimezone(UTC).strftime("%Y-%m-%d")


def runnable_day(day: str, python: str) -> str:
    """`day`, or the end of the first year of a Python such as "3.9.2" that is younger: what is older fails on it."""
    released = dict(PYTHON_RELEASES).get(".".join(python.split(".")[:2]))
    older = day and released and day < released.strftime("%Y-%m-%d")
    return (released + timedelta(days=365)).strftime("%Y-%m-%d") if older and released else day


def _dated(day: str, tools: datetime) -> str:
    newer = tools.astimezone(UTC).strftime("%Y-%m-%d")
    dates = {t: newer for t in BUILD_TOOLS if newer > day} | {n: max(day, f"{first:%F}") for n, first in LATE.items()}
    return " ".join((f"--exclude-newer {day}", *(f"--exclude-newer-package {name}={at}" for name, at in dates.items())))


_TAG = re.compile(
    r"(?:.*?[^0-9.])??(?P<numbers>\d+(?:[._]\d+)*)"
    r"(?:[-_.]?(?P<phase>a|b|c|rc|alpha|beta|pre|preview)[-_.]?(?P<nth>\d*))?(?P<post>[-_.]?post[-_.]?\d*)?"
    r"(?P<dev>[-_.]?dev[-_.]?\d*)?-(?P<distance>\d+)-g[0-9a-f]+",
    re.IGNORECASE,
)
_PHASES = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}


def version_of(described: str) -> str | None:
    """A version from `git describe --tags --long`, its tag read as PEP 440 has it: "v1.4.2-7-gabc" is the seventh
    commit on the way to 1.4.3, "9.2.0.dev0-228-gabc" the 228th on the way to 9.2.0."""
    match = _TAG.fullmatch(described)
    if match is None:
        return None
    numbers, distance = match["numbers"].replace("_", "."), int(match["distance"])
    phase, nth = match["phase"], int(match["nth"] or 0)
    ahead = distance and not match["dev"]
    if match["post"] is not None:
        numbers += f".post{int(re.sub('[^0-9]', '', match['post']) or 0) + bool(ahead)}"
    elif phase:
        numbers += f"{_PHASES.get(phase.lower(), phase.lower())}{nth + bool(ahead)}"
    elif ahead:
        head, _, last = numbers.rpartition(".")
        numbers = f"{head + '.' if head else ''}{int(last) + 1}"
    return f"{numbers}.dev{distance}" if distance or match["dev"] else numbers


def _import_path(project: Project, folder: str) -> str:
    """The command that lets a tree that is not installed be imported from where it lies."""
    roots = ("/".join(filter(None, (WORKDIR, folder, root))) for root in project.import_roots)
    folders = " ".join(map(shlex.quote, roots))
    return (
        f"printf '%s\\n' {folders} > "
        f'"$({ENVDIR}/bin/python -c \'import sysconfig; print(sysconfig.get_paths()["purelib"])\')/troop_testbed.pth"'
    )


def _tools(date: datetime | None, test_command: str | None) -> tuple[Step, ...]:
    """The usual test framework and the command's, and coverage with contexts.

    uv's environments have no setuptools, which old trees import (pkg_resources) without saying that they need it."""
    python = f"{ENVDIR}/bin/python"
    install = f"{UV} pip install"
    used = dict.fromkeys(runner_of(command) for command in (USUAL_COMMAND, test_command) if command)
    probe = f"{python} -c 'import coverage; assert coverage.version_info >= (5,)' 2> /dev/null"
    # No test run writes byte code, so it is made here; by Python itself, for uv does it for new Pythons only.
    compile_all = f"{python} -m compileall -q -j 0 {ENVDIR}/lib > /dev/null 2>&1 || true"
    without = "coverage could not be installed: faults are localised without it"
    steps = [
        *(_framework(runner, python, install, date, test_command) for runner in used if runner.packages),
        Step("making sure of coverage", (probe, f"{install} 'coverage>=5'"), without, optional=True),
        Step("compiling", (compile_all,), "nothing could be compiled"),
    ]
    if date is not None:
        capped = _dated(TODAYS_BUILD_TOOLS.strftime("%Y-%m-%d"), TODAYS_BUILD_TOOLS)
        ways = (f"{python} -c 'import pkg_resources' 2> /dev/null", f"{install} {capped} setuptools")
        steps.insert(0, Step("making sure of setuptools", ways, "setuptools could not be installed", optional=True))
    return tuple(steps)


def _framework(runner: Runner, python: str, install: str, date: datetime | None, test_command: str | None) -> Step:
    """A test framework that works on this interpreter (of the tree's time if it does), asked for or not."""
    probe, name = runner.probe(python), runner.name
    dated = [f"{install} {way}{runner.packages[0]} && {probe}" for way, _ in _datings(date)]
    return Step(
        f"making sure of {name}",
        (probe, *dated, f"{install} --upgrade {' '.join(runner.packages)} && {probe}"),
        f"no {name} works in the environment",
        ("", *[""] * len(dated), f"the tree's own {name} does not work on this Python, so a newer one is used"),
        optional=test_command is None or runner_of(test_command) is not runner,
    )
