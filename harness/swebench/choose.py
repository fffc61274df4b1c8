"""Exact versions of everything in an environment, chosen once by uv and then kept.

What the repository itself asks for is read off its metadata first, which its build backend tells, with build tools that
work today. Then nothing is left to build, and the dates hold for dependencies alone.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.records import Exec, Json
from harness.sandbox.docker.files import SETUP_BIN
from harness.swebench.inside_image import ASK_BACKEND
from harness.swebench.names import ENV
from harness.swebench.recipe import Recipe, build_dates, how_built, ladder, pins_as_of_date, quoted, wanted_lines
from harness.swebench.requirements import name_of, pinned_version
from harness.swebench.steps import Steps, failed

CHOOSING_VERSION = "5"
"""Sets that were chosen in another way are not read."""
UV = f"{SETUP_BIN}/uv"
PYTHON = f"{ENV}/bin/python"
IN, OUT = "/tmp/wanted.txt", "/tmp/chosen.txt"
_BACKEND = "/tmp/backend"
_STAND_IN = "/tmp/stand-in"
_ABSENT = "was not found in the package registry"
"""What uv says where no date will help."""


@dataclass(frozen=True, slots=True)
class ResolvedEnvironment:
    """A resolved environment: `pins` and what the repository's build asks for (`build`), each `name==version` or a URL.

    `arguments`: how uv was told to choose, for what is built on the way. `note`: what a person should know of it."""

    pins: tuple[str, ...]
    build: tuple[str, ...]
    arguments: tuple[str, ...]
    note: str


async def choose(steps: Steps, recipe: Recipe) -> ResolvedEnvironment:
    """In a sandbox with the network, the bare environment, and the repository in its place."""
    build: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    if recipe.project:
        with contextlib.suppress(FileNotFoundError):  # the specification may have changed what the build asks for
            recipe = replace(recipe, **how_built(await steps.sandbox.read("/testbed/pyproject.toml")))
        build, project = await _project(steps, recipe)
        # A stand-in, so that what depends on the repository's package in turn is chosen to fit it.
        await steps.sandbox.write(f"{_STAND_IN}/pyproject.toml", stand_in(project).encode())
        own = (_STAND_IN,)
    found = await _by_ladder(steps, recipe, own)
    lacking: list[str] = []
    if isinstance(found, Exec):  # conda has packages that the index lacks, or has only as source that wants a library
        lacking = [line for line in recipe.requirements if (await _compile(steps, [line], ())).exit_code != 0]
        if lacking:
            had = tuple(line for line in recipe.requirements if line not in lacking)
            found = await _by_ladder(steps, replace(recipe, requirements=had), own)
    if isinstance(found, Exec):
        raise failed(steps.log, "choosing versions", found)
    arguments, pins, note = found
    left_out = f"left out, for the package index cannot give it: {', '.join(lacking)}" if lacking else ""
    notes = (note, left_out, _given_up(recipe.pins, pins))
    return ResolvedEnvironment(pins, build, arguments, "; ".join(filter(None, notes)))


async def _by_ladder(
    steps: Steps, recipe: Recipe, own: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], str] | Exec:
    """By the first way that gives versions, its (arguments of uv, versions, note); else how the first way failed."""
    failures: list[Exec] = []
    too_young = bool(recipe.pins) and (await _compile(steps, recipe.pins, pins_as_of_date(recipe))).exit_code != 0
    for way in ladder(recipe, too_young=too_young):
        lines = wanted_lines(recipe, own, yielding=way.yielding)
        done = await _compile(steps, lines, way.arguments, preferred=recipe.pins if way.yielding else ())
        if done.exit_code == 0:
            return way.arguments, await _read(steps), way.note
        failures.append(done)
        if _ABSENT in done.output:
            break
    return failures[0]


def _given_up(wanted: Sequence[str], chosen: Sequence[str]) -> str:
    found = set(map(pinned_version, chosen))
    lost = [pin for pin in wanted if ";" not in pin and pinned_version(pin) not in found]
    return f"the repository does not admit {', '.join(lost)}, which its specification has" if lost else ""


def stand_in(project: Json) -> str:
    """A pyproject.toml with nothing but name, version and requirements, for which uv needs no build."""
    lines = [f"{field} = {json.dumps(project[field])}" for field in ("name", "version", "dependencies")]
    return "\n".join(["[project]", *lines, ""])


async def _project(steps: Steps, recipe: Recipe) -> tuple[tuple[str, ...], Json]:
    """(what building the repository asks for, in exact versions; its name, version and own requirements)."""
    wanted = list(dict.fromkeys((*recipe.build_requires, "setuptools", "wheel")))
    build = await _build_versions(steps, recipe, wanted)
    await steps.sandbox.write("/tmp/ask.py", ASK_BACKEND.encode())
    await steps.take("making a build environment", f"{UV} venv --quiet --no-project --python {PYTHON} {_BACKEND}")
    more, own = await _ask(steps, recipe, build)
    if more:
        build = await _build_versions(steps, recipe, [*wanted, *more])
        more, own = await _ask(steps, recipe, build, missing=False)
    return build, own


async def _build_versions(steps: Steps, recipe: Recipe, wanted: Sequence[str]) -> tuple[str, ...]:
    for arguments in build_dates(recipe):
        done = await _compile(steps, wanted, arguments)
        if done.exit_code == 0:
            return await _read(steps)
    raise failed(steps.log, "choosing the versions of the build tools", done)


async def _ask(steps: Steps, recipe: Recipe, build: Sequence[str], *, missing: bool = True) -> tuple[list[str], Json]:
    """Ask the build backend: (what else it needs to build, what the repository is). `missing` False: it has all."""
    done = await _asked(steps, recipe, build, missing)
    # Trees from before build isolation import what their environment has: in the versions that it has, or in any.
    for unpinned in dict.fromkeys(((), recipe.requirements)):
        if done.exit_code != 0:
            there = (*recipe.pins, *unpinned)
            others = [each for each in build if name_of(each) not in map(name_of, there)]
            done = await _asked(steps, recipe, (*others, *there), missing)
    if done.exit_code != 0:
        raise failed(steps.log, "asking the repository's build backend what it needs", done)
    lines = [line for line in done.output.splitlines() if line.startswith("answer: ")]
    more, own = json.loads(lines[-1].removeprefix("answer: "))
    return list(dict.fromkeys(more)), own


async def _asked(steps: Steps, recipe: Recipe, packages: Sequence[str], missing: bool) -> Exec:
    known = ",".join(map(name_of, packages)) if missing else "*"
    arguments = quoted([known, recipe.build_backend, recipe.extras.strip("[]"), *recipe.backend_path])
    return await steps.attempt(
        "asking the repository's build backend what it needs",
        f"{UV} pip install --quiet --python {_BACKEND}/bin/python packaging {quoted(packages)}"
        f" && {_BACKEND}/bin/python /tmp/ask.py {arguments}",
        cwd="/testbed",
    )


async def _compile(steps: Steps, lines: Sequence[str], arguments: Sequence[str], preferred: Sequence[str] = ()) -> Exec:
    """Ask uv for exact versions. `preferred`: those to be kept where they fit, as if found by an earlier call."""
    await steps.sandbox.write(IN, "".join(f"{line}\n" for line in lines).encode())
    await steps.sandbox.write(OUT, "".join(f"{line}\n" for line in preferred).encode())
    steps.log.write("\n".join(lines))
    return await steps.attempt(
        "choosing versions",
        f"{UV} pip compile --quiet --no-header --no-annotate --no-config --python {PYTHON} {quoted(arguments)}"
        f" -o {OUT} {IN}",
    )


async def _read(steps: Steps) -> tuple[str, ...]:
    lines = (await steps.sandbox.read(OUT)).decode().splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#") and _STAND_IN not in line)
