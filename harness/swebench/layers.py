"""The layers of an environment image, each made once and shared by all that stand on it.

    base                      an image with the Python version, compilers and git (`ensure_base`)
    └── python                the bare environment at the official place, its activation, its interpreter
        └── environment       one resolved set of dependencies, and wheels of what the repository's build asks for
            └── instance      /testbed at the base commit, installed, with the official "SWE-bench" commit on top

A layer is found again by the fingerprint of what went into it, and appears at once, when it is finished: a build that
was stopped or failed goes on from the last layer that is done.
"""

import asyncio
import contextlib
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.cache import write_json
from harness.lock import turn
from harness.parallel import apart
from harness.repository.workspace import Workspace
from harness.sandbox.base import TROOPDIR, Limits, SandboxSpec
from harness.sandbox.docker.files import archive
from harness.sandbox.docker.image import BASE_SCRIPT, ensure_image, find
from harness.sandbox.docker.provider import DockerProvider
from harness.swebench import inside_image as inside
from harness.swebench import names
from harness.swebench.choose import CHOOSING_VERSION, IN, OUT, PYTHON, UV, ResolvedEnvironment, choose
from harness.swebench.names import CONDA, ENV, WHEELS
from harness.swebench.recipe import RECIPE_VERSION, Recipe, fingerprint, quoted
from harness.swebench.requirements import name_of
from harness.swebench.steps import Log, Steps, failed
from harness.trace import record
from tasks.errors import InputError
from tasks.say import Say

LOCAL_BASE = "troop-base"
"""What harness/sandbox/base_image.sh makes out of Debian packages are its tags, such as troop-base:python3.9."""

DEBIAN_PYTHONS = ("3.7", "3.9", "3.11", "3.13")
ANY = ""

_FUNCTIONS = "/tmp/image.sh"
_WITH = f". {_FUNCTIONS} &&"
_LIBRARY = re.compile(r"library that provides `(?P<library>[^`]+)` for `(?P<package>[^@`]+)@")  # as uv says it
_ENTER = f". {CONDA}/bin/activate && conda activate testbed && cd /testbed"
# An image whose tests cannot start must not be kept. Where pytest is no part of it, other programs run the tests.
_LACKS = "python -c 'import importlib.util as u, sys; sys.exit(u.find_spec(\"pytest\") is not None)'"
_START = f"{{ {_LACKS} || python -m pytest --version; }}"
_LIMITS = Limits(memory_mb=8192, cpus=4, processes=2048)

# pip as an evaluation has it: no index, and the configuration that is in the image.
_OFFLINE = {"PIP_CONFIG_FILE": f"{ENV}/pip.conf", "PIP_NO_INDEX": "1", "PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": ""}


class Layers:
    """Makes layers with one provider. `bases`: see `ensure_base`. `cache`: locks, logs, sets (`anew`: not read)."""

    def __init__(
        self, provider: DockerProvider, client: Any, bases: Mapping[str, str], cache: Path, run: str, anew: bool = False
    ) -> None:
        self._provider, self._client, self._bases, self._cache, self._run = provider, client, bases, cache, run
        self._anew = anew

    async def instance(self, recipe: Recipe, tree: Workspace, log: Log) -> None:
        """Build an instance's image, with what is missing below it. Raises SetupFailed, SandboxFailed, InputError."""
        bare = await self._python(recipe, log)
        chosen = await self._chosen(recipe, tree, bare, log)
        environment = await self._environment(recipe, bare, chosen, log)
        log.say("installing the repository")
        async with self._open(recipe, environment, "instance", log, network=recipe.needs_network) as steps:
            await _place(steps, recipe, tree)
            if recipe.install:
                await steps.take("installing the repository", f"{_ENTER} && {{ {recipe.install}\n}}", env=_OFFLINE)
            # Used where it lies, so that a change to its Python files needs no new installation.
            editable = await steps.attempt("looking how the repository is installed", f"{_WITH} is_editable")
            await steps.take("committing what set-up changed", _commit(tree))
            await steps.take("starting pytest", f"{_ENTER} && {_START}")
            await steps.take("compiling", f"rm -rf {TROOPDIR}/base.git; {_WITH} compile_tree")
            labels = {
                names.KIND: names.INSTANCE,
                names.ID: recipe.instance_id,
                names.REPO: recipe.repo,
                names.VERSION: recipe.version,
                names.RECIPE: recipe.fingerprint,
                names.EDITABLE: str(int(editable.exit_code == 0)),
                names.NOTE: chosen.note,
            }
            log.say("keeping the image")
            name = names.repository_name(recipe.instance_id)
            await self._provider.keep(steps.sandbox, name, "latest", labels, inside.CHANGES)

    # ---- below instances

    async def _python(self, recipe: Recipe, log: Log) -> str:
        base = await apart(ensure_base, self._client, recipe.python, self._bases, log.say)
        found = await asyncio.to_thread(find, self._client, base)
        identity = found.id if found is not None else base
        key = fingerprint(RECIPE_VERSION, identity, recipe.python, inside.INTERPRETER, inside.FILES, inside.CHANGES)
        name = f"{names.layer_name(names.TOOLS)}:{recipe.python}-{key}"
        async with self.turn(key, log):
            if await asyncio.to_thread(find, self._client, name) is not None:
                return name
            log.say(f"making the bare environment of Python {recipe.python} on {base}")
            async with self._open(recipe, base, "python", log) as steps:
                for tool in inside.NEEDED:
                    await steps.take(f"looking for {tool} in the base image {base}", f"command -v {tool}")
                what = f"looking for Python {recipe.python} in the base image {base}"
                found_python = await steps.take(what, f"{_WITH} find_python {recipe.python}")
                files = {path: (text.encode(), 0o644) for path, text in inside.FILES.items()}
                files["/tmp/interpreter.c"] = (inside.INTERPRETER.encode(), 0o644)
                await steps.sandbox.upload(archive(files))
                interpreter = found_python.strip().splitlines()[-1]
                await steps.take("making the environment", f"{_WITH} make_environment {UV} {interpreter}")
                await self._keep(steps, names.TOOLS, name.rpartition(":")[2])
        return name

    async def _chosen(self, recipe: Recipe, tree: Workspace, bare: str, log: Log) -> ResolvedEnvironment:
        """The versions of everything: kept in the cache, so that images that were removed come back the same."""
        key = fingerprint(CHOOSING_VERSION, recipe.fingerprint, bare)
        place = self._cache / "images" / "chosen" / f"{key}.json"
        if place.is_file() and not self._anew:
            return record(ResolvedEnvironment, json.loads(place.read_bytes()))
        log.say(f"choosing versions as of {recipe.date:%Y-%m-%d}")
        async with self._open(recipe, bare, "resolve", log) as steps:
            await _place(steps, recipe, tree)
            chosen = await choose(steps, recipe)
        if chosen.note:
            log.say(chosen.note)
        await asyncio.to_thread(write_json, place, asdict(chosen))
        return chosen

    async def _environment(self, recipe: Recipe, bare: str, chosen: ResolvedEnvironment, log: Log) -> str:
        packages = (sorted(chosen.pins), sorted(chosen.build))
        key = fingerprint(RECIPE_VERSION, bare, *packages, recipe.system, inside.PIP_CONFIGURATION)
        name = f"{names.layer_name(names.ENVIRONMENT)}:{key}"
        async with self.turn(key, log):
            if await asyncio.to_thread(find, self._client, name) is not None:
                return name
            log.say(f"installing {len(chosen.pins)} packages")
            async with self._open(recipe, bare, "environment", log) as steps:
                await _install_system(steps, recipe)
                await _install_packages(steps, chosen)
                await self._keep(steps, names.ENVIRONMENT, key)
        return name

    async def _keep(self, steps: Steps, kind: str, tag: str) -> None:
        await self._provider.keep(steps.sandbox, names.layer_name(kind), tag, {names.KIND: kind}, inside.CHANGES)

    @contextlib.asynccontextmanager
    async def _open(
        self, recipe: Recipe, image: str, name: str, log: Log, *, network: bool = True
    ) -> AsyncIterator[Steps]:
        """Steps in a sandbox of the image, which is closed at the end."""
        spec = SandboxSpec(self._run, f"{recipe.instance_id}-{name}", image=image, network=network, limits=_LIMITS)
        sandbox = await self._provider.create(spec)
        try:
            await sandbox.write(_FUNCTIONS, inside.FUNCTIONS.encode())
            yield Steps(sandbox, log)
        finally:
            await sandbox.close()

    def turn(self, key: str, log: Log) -> AbstractAsyncContextManager[None]:
        """The one who makes what `key` names, over all processes of this user."""
        lock = self._cache / "locks" / f"image-{key}.lock"
        return turn(lock, lambda: log.say("waiting for the same layer to be made"))


# ---- the base


def parse_bases(given: Iterable[str]) -> dict[str, str]:
    """`--base 3.9=IMAGE` or `--base IMAGE` as a mapping from Python version (ANY: every other) to image."""
    bases: dict[str, str] = {}
    for text in given:
        python, equals, image = text.partition("=")
        if not equals:
            python, image = ANY, text
        if not image or (python and not python.replace(".", "").isdigit()):
            raise InputError(f"--base {text}: give an image, or one for a Python version, such as 3.9=python:3.9")
        if python in bases:
            raise InputError(f"--base is given twice for {f'Python {python}' if python else 'every Python'}")
        bases[python] = image
    return bases


def debian_mirror() -> str:
    """The Debian archive in this machine's own apt settings; "" where it has none. Blocking."""
    try:
        done = subprocess.run([BASE_SCRIPT, "--mirror"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def ensure_base(client: Any, python: str, bases: Mapping[str, str], say: Say) -> str:
    """The name of the base image for a Python version, which is here now: the given one, else Troop's own, else the one
    that a registry has. Blocking. Raises InputError with what to give."""
    given = bases.get(python) or bases.get(ANY)
    if given:
        ensure_image(client, given, say)
        return given
    own, published = f"{LOCAL_BASE}:python{python}", f"python:{python}"
    for name in (own, published):
        if find(client, name) is not None:
            return name
    try:
        ensure_image(client, published, say)
    except InputError as error:
        made = f"make {own} out of Debian packages (harness/sandbox/base_image.sh {own}, as root) or "
        made = made if python in DEBIAN_PYTHONS else ""
        raise InputError(
            f"no base image with Python {python} is here, and {published} cannot be pulled: {made}"
            f"name one with --base {python}=IMAGE (with that Python, gcc, g++, make, git and patch in it)"
        ) from error
    return published


# ---- steps


async def _place(steps: Steps, recipe: Recipe, tree: Workspace) -> None:
    """The repository at its base, its nearest tag on the base, and what the specification changes in it."""
    await steps.sandbox.upload(await asyncio.to_thread(tree.archive))
    tag = tree.described.rsplit("-", 2)[0]
    commands = ["printf '%s\\n' __pycache__/ '*.pyc' '*.egg-info/' >> .git/info/exclude"]
    if tag:
        commands.append(f"git tag {quoted([tag])} {tree.base_commit}")
    await steps.take("placing the repository", " && ".join(commands), cwd="/testbed")
    if recipe.pre_install:
        lines = "\n".join(recipe.pre_install)
        await steps.take("changing the repository as the specification says", f"set -e\n{_ENTER}\n{lines}")


async def _install_system(steps: Steps, recipe: Recipe) -> None:
    """A base that base_image.sh made names no archive: this machine's own serves for the moment."""
    if not recipe.system:
        return
    lines = "\n".join(recipe.system)
    if sources := await asyncio.to_thread(debian_mirror):
        lines = f"bring_sources {sources}\n{lines}\ntake_sources_away"
    await steps.take(
        "installing what the specification wants of the system",
        f"set -e; export DEBIAN_FRONTEND=noninteractive; . {_FUNCTIONS}\n{lines}\n"
        "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin",
    )


async def _install_packages(steps: Steps, chosen: ResolvedEnvironment) -> None:
    """What there is only as source, for a library that the system lacks, is left out, and said."""
    pins, what = list(chosen.pins), "installing packages"
    install = f"{UV} pip install --quiet --no-deps --python {PYTHON} {quoted(chosen.arguments)} -r {IN}"
    while True:
        await steps.sandbox.write(IN, "".join(f"{line}\n" for line in pins).encode())
        done = await steps.attempt(what, install)
        wanting = _LIBRARY.search(done.output) if done.exit_code != 0 else None
        left_out = [pin for pin in pins if wanting and name_of(pin) == name_of(wanting["package"])]
        if wanting is None or not left_out:
            break
        steps.log.say(f"left out, for it is built here and {wanting['library']} is not: {left_out[0]}")
        pins.remove(left_out[0])
    if done.exit_code != 0:
        raise failed(steps.log, what, done)
    # uv itself compiles for no Python before 3.7.
    await steps.attempt("compiling them", f"{PYTHON} -m compileall -q -j 0 {ENV}/lib > /dev/null")
    await steps.sandbox.write(OUT, "".join(f"{line}\n" for line in chosen.build).encode())
    if chosen.build:
        fetch = f"{PYTHON} -m pip wheel --quiet --no-deps --wheel-dir {WHEELS} -r {OUT}"
        await steps.take("fetching what the repository's build asks for", fetch)
    await steps.take("making the wheel folder", f"mkdir -p {WHEELS}")
    await steps.sandbox.write(f"{ENV}/pip.conf", inside.PIP_CONFIGURATION.encode())


def _commit(tree: Workspace) -> str:
    """The official commit on top of the base, with the base's date: the same image gives the same commit."""
    date = tree.date.isoformat()
    identity = "-c user.name=SWE-bench -c user.email=setup@swebench.config"
    return (
        f"cd /testbed && export GIT_AUTHOR_DATE={date} GIT_COMMITTER_DATE={date}"
        f" && git {identity} commit --quiet --allow-empty -am SWE-bench && rm -rf .git/logs"
        " && git config --unset user.name; git config --unset user.email; git status --porcelain | head -n 20"
    )
