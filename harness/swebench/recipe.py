"""What an instance's environment is made of, and how its versions are chosen. Nothing is executed here.

Dependencies are as of the instance's date: nothing that was released later is looked at, with four exceptions. What the
official specification pins is wanted in that very version. Build tools may be newer, because old ones do not build what
pip and Python of today ask for. A pytest that the specification names is young enough to know the interpreter, which it
rewrites tests for. And where requirements come from a file of another commit (`environment_setup_commit`), that
commit's date counts, if it is the later one.
"""

import contextlib
import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.environments.detect import BUILD_TOOLS, LATE, PYTHON_RELEASES, SLACK, TODAYS_BUILD_TOOLS
from harness.repository.workspace import Workspace
from harness.swebench.official import Spec
from harness.swebench.requirements import (
    conda_requirement,
    conda_requirements,
    file_requirements,
    is_pin,
    name_of,
    unpinned,
    without,
)
from tasks.errors import InputError
from tasks.swebench import Row

RECIPE_VERSION = "3"
"""Part of every key: images made in another way are not taken for these."""

SPECS_WRITTEN = datetime(2024, 10, 1, tzinfo=UTC)
"""When the official specifications had their present pins: their own dependencies are looked for up to then, and whole
environments for which nothing older can be found."""

_EVER = datetime(2100, 1, 1, tzinfo=UTC)
_RUNTIME_TOOLS = ("setuptools", "wheel")
# What pytest needs to start: releases from before a Python often fail on it (importlib-metadata 0.18 on 3.9).
_OF_PYTEST = ("attrs", "importlib-metadata", "iniconfig", "packaging", "pluggy", "py", "zipp")
_TOOLS = (*BUILD_TOOLS, "flit", "hatchling", "hatch-vcs", "pdm-backend", "poetry")
_SYSTEM_COMMAND = re.compile(r"^\s*(?:\w+=\S+\s+)*(?:apt-get|apt|locale-gen)\b|/etc/|\bapt-get install\b")
_NETWORK_COMMAND = re.compile(r"\b(?:wget|curl|git\s+(?:clone|fetch|submodule)|pip3?\s+install|conda|mamba|npm)\b")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides an instance's image.

    `requirements`: as the specification names them, without the tree's own. `pins`: those of them that are wanted in
    one version whatever their date. `extras`: of the tree. `project`: whether the tree itself is installed.
    `build_requires`: for building it. `system`: shell lines that change the system alone; `pre_install`: the others."""

    instance_id: str
    repo: str
    version: str
    base_commit: str
    python: str
    date: datetime
    requirements: tuple[str, ...]
    pins: tuple[str, ...]
    extras: str
    project: bool
    build_requires: tuple[str, ...]
    build_backend: str
    backend_path: tuple[str, ...]
    system: tuple[str, ...]
    pre_install: tuple[str, ...]
    install: str

    @property
    def needs_network(self) -> bool:
        """Whether what comes before the installation fetches something."""
        return any(_NETWORK_COMMAND.search(command) for command in self.pre_install)

    @property
    def fingerprint(self) -> str:
        """Of the whole recipe; the recipe's version comes first."""
        return f"{RECIPE_VERSION}-{fingerprint(asdict(self))}"


def fingerprint(*parts: object) -> str:
    """A short content key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def recipe_of(row: Row, spec: Spec, tree: Workspace, setup: Callable[[], Workspace]) -> Recipe:
    """The recipe of a row. `tree`: its base; `setup` opens the tree of its `environment_setup_commit`, and is only
    called where requirements come from a file.

    Raises InputError for what cannot be built here, saying that it needs the published image."""
    if not spec.python:
        raise InputError(f"{row.instance_id} ({row.repo}) is no Python project, and only those are built here: {_PULL}")
    listed, dates = [conda_requirement(line) for line in spec.packages], [row.created_at, tree.date]
    if spec.requirements_paths or spec.environment_paths:
        at_setup = setup()
        listed += _from_files(row, spec, at_setup)
        dates.append(at_setup.date)
    requirements = [*without(listed, spec.pip_packages), *spec.pip_packages]
    extras = re.search(r"(?:^|[\s'\"=])\.\[([^\]]+)\]", spec.install)
    system = tuple(line for line in spec.pre_install if _SYSTEM_COMMAND.search(line))
    return Recipe(
        instance_id=row.instance_id,
        repo=row.repo,
        version=row.version,
        base_commit=row.base_commit,
        python=spec.python,
        date=max(date.astimezone(UTC) for date in dates if date) + SLACK,
        requirements=tuple(line for line in requirements if not is_pin(line)),
        pins=tuple(line for line in requirements if is_pin(line)),
        extras=f"[{extras[1]}]" if extras else "",
        project=bool(re.search(r"(?:^|[\s'\"])\.(?:\[|[\s'\"]|$)|setup\.py", spec.install)),
        **how_built(tree.read_all(["pyproject.toml"]).get("pyproject.toml", b"")),
        system=system,
        pre_install=tuple(line for line in spec.pre_install if line not in system),
        install=spec.install,
    )


_PULL = "it needs the published image (docker pull, or --pull always)"


def _from_files(row: Row, spec: Spec, tree: Workspace) -> list[str]:
    replaced = {name_of(old): new for old, new in spec.replaced_packages}

    def read(path: str) -> str:
        return tree.read(path).decode("utf-8", "replace")

    for path in (*spec.requirements_paths, *spec.environment_paths):
        with contextlib.suppress(FileNotFoundError):
            if path in spec.requirements_paths:
                return file_requirements(path, read, replaced)
            return conda_requirements(read(path), replaced)
    wanted = " or ".join((*spec.requirements_paths, *spec.environment_paths))
    raise InputError(f"{row.instance_id}: {row.repo} has no {wanted} at {tree.base_commit[:12]}: {_PULL}")


def how_built(pyproject: bytes) -> dict[str, Any]:
    """What a recipe says of the build, by its fields; of a file that cannot be read as of none."""
    try:
        table = tomllib.loads(pyproject.decode("utf-8", "replace")).get("build-system")
    except (ValueError, RecursionError):
        table = None
    build = table if isinstance(table, dict) else {}
    return {
        "build_requires": tuple(map(str, build.get("requires") or ("setuptools", "wheel"))),
        "build_backend": str(build.get("build-backend") or "setuptools.build_meta:__legacy__"),
        "backend_path": tuple(map(str, build.get("backend-path") or ())),
    }


# ---- choosing versions


@dataclass(frozen=True, slots=True)
class Way:
    """One way to choose versions: `arguments` for uv. `yielding`: the repository's own requirements outrank the pins,
    which hold where they can, as when pip installs the one after the other. `note`: what a person should know of it."""

    arguments: tuple[str, ...]
    yielding: bool = False
    note: str = ""


def ladder(recipe: Recipe, *, too_young: bool) -> list[Way]:
    """Ways to choose versions, the most faithful first. `too_young`: what the specification pins needs packages that
    are younger than the instance. Then all is as of the specification's time, for two times mixed never were."""
    pinned = [name_of(pin) for pin in recipe.pins]
    written = max(recipe.date, SPECS_WRITTEN)
    why = "what the specification pins is younger than the instance" if too_young else "no older versions fit together"
    choices = [] if too_young else [(_dated(recipe, recipe.date, pinned), "")]
    choices.append((_dated(recipe, written, pinned), f"versions are as of {written:%Y-%m-%d}: {why}"))
    choices.append(((), f"versions are today's: {why}"))
    yields = (False, True) if recipe.pins and recipe.project else (False,)
    return [Way(arguments, yielding, note) for arguments, note in choices for yielding in yields]


def pins_as_of_date(recipe: Recipe) -> tuple[str, ...]:
    """uv's arguments to see whether the pinned packages can stand among others of the instance's time."""
    return _dated(recipe, recipe.date, map(name_of, recipe.pins))


def _dated(recipe: Recipe, date: datetime, younger: Iterable[str] = ()) -> tuple[str, ...]:
    """uv's arguments for versions as of a date; whatever their date, for the packages `younger`."""
    # setuptools is imported by what runs, too, where a younger one warns: no newer than the interpreter needs.
    tools = (*_RUNTIME_TOOLS, *(name for name in recipe.requirements if name == "pytest"))
    released = dict(PYTHON_RELEASES).get(recipe.python, PYTHON_RELEASES[0][1])
    starts = dict.fromkeys(_OF_PYTEST, max(date, released + timedelta(days=365)))
    runtime = starts | dict.fromkeys(tools, max(date, released + timedelta(days=60)))  # when tools knew that Python
    dates = {name: max(date, first) for name, first in LATE.items()}
    dates |= dict.fromkeys(_TOOLS, max(date, TODAYS_BUILD_TOOLS)) | runtime | dict.fromkeys(younger, _EVER)
    exceptions = [f"--exclude-newer-package={name}={_day(when)}" for name, when in sorted(dates.items())]
    return (f"--exclude-newer={_day(date)}", *exceptions)


def _day(date: datetime) -> str:
    return date.astimezone(UTC).strftime("%Y-%m-%d")


def build_dates(recipe: Recipe) -> list[tuple[str, ...]]:
    """uv's arguments to choose what a build asks for: tools of a time when they knew both old trees and new Pythons."""
    return [_dated(recipe, max(recipe.date, TODAYS_BUILD_TOOLS)), ()]


def wanted_lines(recipe: Recipe, own: Sequence[str], *, yielding: bool = False) -> list[str]:
    """What an environment has to have, as lines of a requirements file. `own`: what the repository itself asks for.
    `yielding`: the pins in any version."""
    tools = [tool for tool in ("pip", "setuptools", "wheel") if tool not in map(name_of, recipe.pins)]
    pins = map(unpinned, recipe.pins) if yielding else recipe.pins
    return [*pins, *recipe.requirements, *tools, *own]


def quoted(arguments: Sequence[str]) -> str:
    """The arguments as a piece of a shell line."""
    return " ".join(map(shlex.quote, arguments))
