"""Sandboxes by bubblewrap: no daemon, no image, no root.

    <cache>/bubblewrap/<fingerprint>/   what every sandbox is shown: the modules that run inside, made-up /etc files
    <cache>/environments/<key>/         a frozen environment: testbed, env, troop, interpreter.json
    <cache>/sandboxes/<id>/             a sandbox: owner.json, its writable trees, its first process's complaints

A bare sandbox writes to plain folders, which freezing renames into an environment. A sandbox made from an environment
writes to an overlay over it, mounted in a mount namespace of its own before bubblewrap starts (Debian's 0.8 mounts
none), or to a copy where the kernel allows no overlay. When the harness dies, the kernel ends bubblewrap and all
inside, and the mounts go with their namespace; folders and control groups stay for `clean`.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from harness.cache import cache_root, read_json
from harness.records import Json
from harness.room import ENOUGH, check, lacking, sandbox_failure
from harness.sandbox.base import (
    ENVDIR,
    HOME,
    INSIDE,
    RUST,
    TROOPDIR,
    WORKDIR,
    Finding,
    Limits,
    Sandbox,
    SandboxSpec,
    name_unlike_others,
)
from harness.sandbox.bubblewrap import cgroup, launch
from harness.sandbox.bubblewrap.interpreters import Interpreter, choose, find_interpreters, rust_toolchain
from harness.sandbox.bubblewrap.launch import Copying, Launched, copy_tree, private_folder, remove_tree
from harness.sandbox.bubblewrap.system import CLEAN_ENV, ETC_FILES, USER_ID, system_mounts
from harness.sandbox.client import DISK_UNLIMITED, LAUNCH, ShimSandbox, file_limit, inside_modules, variables
from harness.sandbox.index import IndexSettings, index_settings, uv_binary
from tasks.errors import InputError, SandboxFailed
from tasks.places import made_whole

SETUP_BIN = TROOPDIR + "/bin"
PYTHONS = TROOPDIR + "/pythons"
NPROC_BY_NAMESPACE = (5, 14)
TREES = ("testbed", "env", "troop")

_WALLS = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", "sandbox", "--cap-drop", "ALL"),
    *("--die-with-parent", "--as-pid-1", "--new-session"),
)
_SAFE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# File systems in memory that hold links and mount points only.
LINKS_BYTES = 1 << 20
_IF_FREE = fcntl.LOCK_EX | fcntl.LOCK_NB
# A folder without an owner's mark is one that is being made, or one whose maker died at once.
_UNMARKED_SECONDS = 60.0
# Closed sandboxes whose files are still there, for it takes time to remove many, and more to make others after that:
# for each file ext4 without a journal goes through all that were removed in the last minutes.
KEPT = 4

CACHE = "set TROOP_CACHE to a directory that can be written"
INSTALL = "apt-get install bubblewrap (or your distribution's package of that name)"


@dataclass(frozen=True, slots=True)
class _Ground:
    """What was found out about this machine, once per provider."""

    bwrap: str
    walls: tuple[str, ...]
    sized_tmpfs: bool
    copying: Copying
    interpreters: tuple[Interpreter, ...]
    shown: Path  # the folder with `inside` and `etc`
    shim_python: Interpreter

    def tmpfs(self, path: str, size: int) -> list[str]:
        """bubblewrap's arguments for a file system in memory of at most `size` bytes, where it can limit one."""
        return [*(("--size", str(size)) if self.sized_tmpfs else ()), "--tmpfs", path]


@dataclass(eq=False, kw_only=True)
class BubblewrapSandbox(ShimSandbox):
    """A sandbox that knows its folder, what it was made from, and how to end its processes but keep its files."""

    folder: Path
    environment: str | None
    pythons: tuple[Interpreter, ...]
    halt: Callable[[], Awaitable[None]]


class BubblewrapProvider:
    """The bubblewrap backend. `cache`: where sandboxes and environments live (None: Troop's cache).

    The folder must lie on a file system that can carry an overlay's upper layer (not on another overlay), else trees
    are copied. Nothing is asked of the machine before the first call."""

    name = "bubblewrap"

    def __init__(self, cache: Path | None = None) -> None:
        self.storage = cache if cache is not None else cache_root()
        self.registry: str | None = None
        self._sandboxes = self.storage / "sandboxes"
        self._environments = self.storage / "environments"
        self._ground: _Ground | None = None
        self._finding_out = asyncio.Lock()
        self._hierarchies: tuple[cgroup.Hierarchy, ...] | None = None
        self._open: set[BubblewrapSandbox] = set()
        self._ended: deque[tuple[Path, contextlib.ExitStack]] = deque()

    # ---- sandboxes

    async def create(self, spec: SandboxSpec) -> Sandbox:
        if spec.image is not None:
            raise InputError(
                f"the task asks for the image {spec.image}, and bubblewrap has no images: use --sandbox docker"
            )
        if spec.environment is not None and not await self.has(spec.environment):
            raise SandboxFailed(f"there is no environment {spec.environment} in {self._environments}")
        ground = await self._known_ground()
        folder = self._sandboxes / name_unlike_others(spec.run, spec.name)
        owner = contextlib.ExitStack()
        preparing = asyncio.ensure_future(asyncio.to_thread(self._prepare, ground, folder, spec, owner))
        try:
            group = await asyncio.shield(preparing)
            sandbox = await self._launch(ground, folder, group, spec, owner)
        except BaseException as error:
            await asyncio.shield(_give_up(preparing, folder, owner))
            if isinstance(error, OSError):
                raise sandbox_failure(f"sandbox {spec.name} cannot be made in {folder}: {error}") from error
            raise
        await sandbox.start()
        return sandbox

    def _discard_ended(self, kept: int = 0) -> None:
        """Blocking: remove what closed sandboxes left, but for the last `kept` of them."""
        with contextlib.suppress(IndexError):  # another thread was first
            while len(self._ended) > kept:
                _discard(*self._ended.popleft())

    def _prepare(self, ground: _Ground, folder: Path, spec: SandboxSpec, owner: contextlib.ExitStack) -> cgroup.Group:
        """Blocking: the folder with its owner's mark, the trees to be written, the control group. `owner` gets the lock
        on the mark, which ends with this process: so a living owner is known, in any container, after any reboot."""
        private_folder(folder.parent)
        if lacking(folder.parent, ENOUGH):
            self._discard_ended()
        check(folder.parent)
        private_folder(self._environments)
        hierarchies = self._known_hierarchies()
        folder.mkdir()
        mark: Json = {"run": spec.run, "name": spec.name}
        # Marked before it is made: killed in between, `clean` still knows of it.
        mark["groups"] = [str(hierarchy.folder / folder.name) for hierarchy in hierarchies]
        file = owner.enter_context((folder / "owner.json").open("w", encoding="utf-8"))
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(mark))
        file.flush()
        if spec.environment is not None and ground.copying.options is None:
            for name in ("testbed", "env"):
                copy_tree(self._environments / spec.environment / name, folder / name)
        else:
            for name in TREES if spec.environment is None else ("upper", "work", "tree"):
                (folder / name).mkdir(mode=0o755)
        return cgroup.make_group(folder.name, spec.limits, hierarchies)

    async def _launch(
        self, ground: _Ground, folder: Path, group: cgroup.Group, spec: SandboxSpec, owner: contextlib.ExitStack
    ) -> BubblewrapSandbox:
        pythons = self._pythons(ground, spec)
        index = await asyncio.to_thread(index_settings) if spec.network else None
        for python in {ground.shim_python, *pythons[:1]}:
            await asyncio.to_thread(_compile, ground.shown / "inside", python)
        overlay = "" if spec.environment is None else _overlay(ground, folder, spec.environment)
        missing, rlimits = _without_group(group, spec.limits)
        rlimits["FSIZE"] = file_limit(network=spec.network)
        program = self._bwrap(ground, spec, folder / "tree" if overlay else folder, pythons, index)
        namespace = ground.copying.namespace if overlay else ()
        command = launch.chain(program, namespace, overlay, f"sandboxes/{folder.name}/tree", group.folders)
        launched = Launched(command, cwd=self.storage, complaints=folder / "complaints")
        reader, writer = await launched.streams()

        async def halt() -> None:
            writer.transport.abort()
            await launched.end()

        async def release() -> None:
            await halt()
            self._open.discard(sandbox)
            self._ended.append((folder, owner))
            await asyncio.to_thread(cgroup.remove_group, group.folders)
            await asyncio.to_thread(self._discard_ended, KEPT if overlay else 0)

        async def diagnose() -> str:
            words = await launched.last_words()
            return f"it ran out of memory ({words})" if group.out_of_memory() else words

        sandbox = BubblewrapSandbox(
            name=spec.name,
            reader=reader,
            writer=writer,
            limits=spec.limits,
            env=self._env(spec, index),
            release=release,
            diagnose=diagnose,
            missing_limits=missing,
            rlimits=rlimits,
            storage=self.storage,
            folder=folder,
            environment=spec.environment,
            pythons=pythons,
            halt=halt,
        )
        self._open.add(sandbox)
        return sandbox

    def _bwrap(
        self, ground: _Ground, spec: SandboxSpec, trees: Path, shown: Sequence[Interpreter], index: IndexSettings | None
    ) -> list[str]:
        """The whole bubblewrap command, up to the shim. `trees`: where what may be written lies."""
        arguments = [ground.bwrap, *ground.walls, *(["--unshare-net"] if index is None else [])]
        arguments += system_mounts(ground.shown / "etc", network=spec.network)
        memory = spec.limits.memory_mb << 20
        arguments += [*ground.tmpfs("/dev/shm", memory), "--remount-ro", "/dev"]
        arguments += [*ground.tmpfs("/tmp", memory), "--dir", HOME]
        arguments += ["--bind", str(trees / "testbed"), WORKDIR, "--bind", str(trees / "env"), ENVDIR]
        if spec.environment is None:
            arguments += ["--bind", str(trees / "troop"), TROOPDIR]
        else:
            arguments += ["--ro-bind", str(self._environments / spec.environment / "troop"), TROOPDIR]
        arguments += ["--ro-bind", str(ground.shown / "inside"), INSIDE]
        arguments += _show_pythons(ground, shown)
        if index is not None:
            arguments += [*ground.tmpfs(SETUP_BIN, LINKS_BYTES), "--ro-bind", str(uv_binary()), f"{SETUP_BIN}/uv"]
            if rust := rust_toolchain():
                arguments += ["--ro-bind", str(rust), RUST]
            for path in (*index.folders, *index.files):
                arguments += [] if path.is_relative_to("/usr") else ["--ro-bind", str(path), str(path)]
        arguments += ["--remount-ro", "/", "--chdir", WORKDIR, "--", str(ground.shim_python.path), *LAUNCH]
        return arguments

    def _env(self, spec: SandboxSpec, index: IndexSettings | None) -> dict[str, str]:
        env = variables("always")
        head, _, rest = env["PATH"].partition(":")
        # An interpreter that was asked for comes before the system's; others are there to be found by version.
        env["PATH"] = f"{head}:{PYTHONS}:{rest}" if spec.python is not None else f"{head}:{rest}:{PYTHONS}"
        if spec.environment is not None and (self._environments / spec.environment / "env/pyvenv.cfg").is_file():
            env["VIRTUAL_ENV"] = ENVDIR
        if index is not None:
            env |= index.env
        return env

    def _pythons(self, ground: _Ground, spec: SandboxSpec) -> tuple[Interpreter, ...]:
        """The interpreters that a sandbox shows, the wished one first."""
        if spec.environment is not None:
            wanted = set(_recorded_pythons(self._environments / spec.environment))
            return tuple(i for i in ground.interpreters if str(i.path) in wanted)
        # Where there is no such one uv may still bring it: a network sandbox is where that happens.
        wished = choose(ground.interpreters, spec.python)
        return tuple(sorted(ground.interpreters, key=lambda i: i is not wished))

    # ---- environments

    async def has(self, environment: str) -> bool:
        """Also False where the interpreter that the environment was made with is gone from this machine."""
        folder = self._environments / _checked(environment)
        return folder.is_dir() and all(os.access(path, os.X_OK) for path in _recorded_pythons(folder))

    async def freeze(self, sandbox: Sandbox, environment: str) -> None:
        if not isinstance(sandbox, BubblewrapSandbox) or sandbox not in self._open:
            raise SandboxFailed(f"the environment {environment} cannot be kept: its sandbox is closed")
        target = self._environments / _checked(environment)
        frozen = sandbox.folder / "frozen"
        ground = await self._known_ground()
        try:
            await sandbox.halt()
            if sandbox.environment is None:
                await asyncio.to_thread(_gather, sandbox.folder, frozen)
            else:
                await asyncio.to_thread(self._flatten, ground, sandbox.folder, sandbox.environment, frozen)
            await asyncio.to_thread(_settle, frozen, target, sandbox.pythons)
        except OSError as error:
            raise sandbox_failure(f"the environment {environment} cannot be kept in {target}: {error}") from error
        finally:
            await sandbox.close()

    def _flatten(self, ground: _Ground, folder: Path, environment: str, frozen: Path) -> None:
        """Blocking: what an ended sandbox over an environment saw, as an environment of its own."""
        frozen.mkdir()
        copy_tree(self._environments / environment / "troop", frozen / "troop")
        overlay, tree = _overlay(ground, folder, environment), f"sandboxes/{folder.name}/tree"
        if not overlay:
            for name in ("testbed", "env"):
                (folder / name).rename(frozen / name)
            return
        remove_tree(folder / "work")  # a volatile overlay is mounted but once; nothing crashed, so its files are whole
        (folder / "work").mkdir()
        program = [*launch.COPY, f"{tree}/testbed", f"{tree}/env", str(frozen)]
        command = launch.chain(program, ground.copying.namespace, overlay, tree)
        if complaint := launch.complaint_of(command, self.storage, seconds=None):
            raise OSError(complaint)

    async def remove(self, environment: str) -> None:
        target = self._environments / _checked(environment)
        if target.is_dir():
            await asyncio.to_thread(_drop, target, self._sandboxes)

    # ---- doctor

    async def findings(self) -> list[Finding]:
        try:
            ground = await self._known_ground()
        except SandboxFailed as error:
            fix = CACHE if str(error).endswith(CACHE) else INSTALL
            return [Finding("bubblewrap", False, str(error).removesuffix(f": {fix}"), fix)]
        found = [Finding("bubblewrap", True, f"{ground.bwrap} makes sandboxes in {self._sandboxes}")]
        if ground.copying.options is None:
            fix = f"put the cache on an ordinary file system (TROOP_CACHE), not on an overlay; {self.storage} now"
            found.append(Finding("copy-on-write", False, f"trees are copied: {ground.copying.why}", fix))
        else:
            found.append(Finding("copy-on-write", True, "trees are overlays"))
        found += await asyncio.to_thread(self._limit_findings)
        found.append(Finding("interpreters", True, ", ".join(dict.fromkeys(i.name for i in ground.interpreters))))
        notes, fix = (await asyncio.to_thread(index_settings)).notes, "give an index without a password to set-up"
        return found + [Finding("package index", False, note, fix) for note in notes]

    def _limit_findings(self) -> list[Finding]:
        group = cgroup.make_group(f"doctor-{os.getpid()}-{secrets.token_hex(3)}", Limits(), self._known_hierarchies())
        try:
            missing, _ = _without_group(group, Limits())
        finally:
            cgroup.remove_group(group.folders)
        fix = "start Troop as root, or by: systemd-run --user --scope -p Delegate=yes troop …"
        return [Finding("limits", False, sentence, fix) for sentence in missing] or [
            Finding("limits", True, f"memory, processes and CPU time are limited for each sandbox; {DISK_UNLIMITED}")
        ]

    async def clean(self, run: str | None = None) -> list[str]:
        """A folder that cannot be removed is named as such, and does not keep others from being removed."""
        try:
            return await asyncio.to_thread(self._clean, run)
        except OSError as error:
            raise SandboxFailed(f"{self._sandboxes} cannot be cleaned: {error}; {CACHE}") from error

    def _clean(self, run: str | None) -> list[str]:
        removed = []
        for folder in sorted(self._sandboxes.iterdir()) if self._sandboxes.is_dir() else ():
            mark = _mark_of(folder)
            if mark is None or (run is not None and mark.get("run") != run):
                continue
            with contextlib.ExitStack() as owner:
                try:  # its lock is ours where its owner is dead
                    if mark:
                        fcntl.flock(owner.enter_context((folder / "owner.json").open("rb")), _IF_FREE)
                except OSError:
                    continue
                left = _discard(folder, owner)
            what = f"bubblewrap sandbox {mark.get('name', folder.name)} of run {mark.get('run', '?')} ({folder})"
            removed.append(f"{what}, but for what is left there: {left}" if left else what)
        cgroup.remove_empty(h.folder for h in self._known_hierarchies())
        if run is None:
            removed += [f"control group {folder}, whose sandbox is gone" for folder in cgroup.remove_stray()]
        return removed

    async def close(self) -> None:
        await asyncio.gather(*(sandbox.close() for sandbox in list(self._open)))
        await asyncio.to_thread(self._discard_ended)
        await asyncio.to_thread(cgroup.remove_empty, [h.folder for h in self._hierarchies or ()])

    # ---- what is known of the machine

    async def _known_ground(self) -> _Ground:
        async with self._finding_out:
            if self._ground is None:
                try:
                    ground = await asyncio.to_thread(_find_out, self.storage, os.environ.get("PATH", ""))
                    self._ground = replace(ground, shown=await asyncio.to_thread(_shown, self.storage))
                except OSError as error:
                    raise SandboxFailed(f"Troop's cache {self.storage} cannot be written ({error}): {CACHE}") from error
        return self._ground

    def _known_hierarchies(self) -> tuple[cgroup.Hierarchy, ...]:
        if self._hierarchies is None or not all(h.folder.is_dir() for h in self._hierarchies):
            self._hierarchies = cgroup.hierarchies()
        return self._hierarchies


def _overlay(ground: _Ground, folder: Path, environment: str) -> str:
    """The mount's options for a sandbox's folder, relative to the cache; empty where trees are copied."""
    inside, options = f"sandboxes/{folder.name}", ground.copying.options
    names = (f"environments/{environment}", f"{inside}/upper", f"{inside}/work")
    return "" if options is None else launch.overlay_options(*names, options)


@lru_cache
def _find_out(cache: Path, path: str) -> _Ground:
    """Blocking, some tenths of a second; once per process. Raises SandboxFailed where bubblewrap cannot work."""
    bwrap = shutil.which("bwrap", path=f"{path}:{CLEAN_ENV['PATH']}")
    if bwrap is None:
        raise SandboxFailed(f"bubblewrap is not installed: {INSTALL}")
    private_folder(cache / "sandboxes")
    # On ext4 each sandbox is then laid out apart from where others have just been removed; see KEPT.
    launch.complaint_of(("chattr", "+T", str(cache / "sandboxes")))
    for walls in ((*_WALLS, "--disable-userns"), _WALLS):
        if not (complaint := _try(bwrap, walls)):
            break
    else:
        raise SandboxFailed(
            f"bubblewrap does not work here: {complaint}; unprivileged user namespaces may be switched off "
            "(sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    interpreters = find_interpreters()
    shim_python = next((i for i in interpreters if i.whole), None)
    if shim_python is None:
        raise SandboxFailed("no Python 3.6 or newer with ctypes was found on this machine: install python3")
    sized = not _try(bwrap, (*walls, "--size", "1048576", "--tmpfs", "/tmp"))
    return _Ground(bwrap, walls, sized, Copying(cache), interpreters, _shown(cache), shim_python)


def _try(bwrap: str, walls: Sequence[str]) -> str:
    """Why an empty sandbox with these walls cannot be had; empty where it can."""
    programs = [a for name in ("bin", "lib", "lib64") for a in ("--ro-bind-try", f"/{name}", f"/{name}")]
    mounts = ["--unshare-net", "--ro-bind", "/usr", "/usr", *programs, "--proc", "/proc", "--dev", "/dev"]
    return launch.complaint_of([bwrap, *walls, *mounts, "/bin/sh", "-c", ":"])


def _shown(cache: Path) -> Path:
    """The folder with what every sandbox is shown, made where this version's is not there yet."""
    files = {f"inside/{name}": content for name, content in inside_modules().items()}
    files |= {f"etc/{name}": text.encode() for name, text in ETC_FILES.items()}
    fingerprint = sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    place = cache / "bubblewrap" / fingerprint
    if place.is_dir():
        return place
    with made_whole(place, place.parent) as made:
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        for path in (made, *made.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return place


def _compile(folder: Path, python: Interpreter) -> None:
    """Byte code for the modules shown: the shim starts in half the time. Without it they only start slower."""
    tag = f"cpython-{python.version[0]}{python.version[1]}"
    if not (folder / f"__pycache__/shim.{tag}.pyc").exists():
        command = [str(python.path), "-I", "-S", "-m", "compileall", "-q", str(folder)]
        subprocess.run(command, env=CLEAN_ENV, capture_output=True, timeout=60, check=False)


def _show_pythons(ground: _Ground, pythons: Sequence[Interpreter]) -> list[str]:
    """The prefixes outside the system paths, and a folder with the interpreters' names for PATH."""
    arguments: list[str] = []
    for prefix in sorted({i.prefix for i in (ground.shim_python, *pythons) if not i.in_system}):
        arguments += ["--ro-bind", str(prefix), str(prefix)]
    names: dict[str, Path] = {}
    for python in pythons:
        for name in ("python3", "python", python.name):
            names.setdefault(name, python.path)
    arguments += ground.tmpfs(PYTHONS, LINKS_BYTES)
    for name, path in names.items():
        arguments += ["--symlink", str(path), f"{PYTHONS}/{name}"]
    return arguments


def _without_group(group: cgroup.Group, limits: Limits) -> tuple[tuple[str, ...], dict[str, int]]:
    """What the group does not limit, a sentence each, and the limits per process or user that stand in for it."""
    sentences: list[str] = []
    rlimits: dict[str, int] = {}
    if why := group.missing.get("memory"):
        rlimits["DATA"] = limits.memory_mb << 20
        sentences.append(f"memory is limited for each process only, not for the sandbox together: {why}")
    if why := group.missing.get("pids"):
        # Kernels count root's processes, but never refuse one; older ones count all of a user's, also outside.
        if os.geteuid() != 0 and tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= NPROC_BY_NAMESPACE:
            rlimits["NPROC"] = limits.processes + cgroup.OWN_PROCESSES
        else:
            sentences.append(f"the number of processes is not limited: {why}")
    if why := group.missing.get("cpu"):
        sentences.append(f"CPU time is not limited: {why}")
    return tuple(sentences), rlimits


def _checked(environment: str) -> str:
    if not _SAFE_KEY.fullmatch(environment):
        raise InputError(f"'{environment}' cannot be the key of an environment: letters, digits, dot, dash only")
    return environment


def _mark_of(folder: Path) -> Json | None:
    """The owner's mark of a sandbox's folder; {} for one that never got one; None for one that is just being made."""
    mark = read_json(folder / "owner.json")
    with contextlib.suppress(OSError):
        if mark is None and time.time() - folder.stat().st_mtime > _UNMARKED_SECONDS:
            return {}
    return mark


async def _give_up(preparing: asyncio.Future[cgroup.Group], folder: Path, owner: contextlib.ExitStack) -> None:
    """Remove a sandbox that was not to be, once nothing is being put into it any more."""
    await asyncio.wait([preparing])
    if not preparing.cancelled():
        preparing.exception()  # heard of, also where a cancellation came first
    await asyncio.to_thread(_discard, folder, owner)


def _discard(folder: Path, owner: contextlib.ExitStack) -> str:
    """Blocking: remove a sandbox whose processes have ended (or end here, with their group), files and groups. Why some
    of it is left, for `clean` to try again; empty where nothing is."""
    with owner:
        mark = _mark_of(folder)
        groups = [Path(path) for path in (mark or {}).get("groups", ())]
        cgroup.remove_group(groups)
        cgroup.remove_empty(group.parent for group in groups)
        try:
            remove_tree(folder)
        except OSError as error:
            return str(error)
    return ""


def _gather(folder: Path, frozen: Path) -> None:
    frozen.mkdir(mode=0o755)
    for name in TREES:
        (folder / name).rename(frozen / name)
    for name in ("inside", "bin", "pythons"):
        # Mount points: whatever set-up made of them, they are empty folders in an environment.
        remove_tree(frozen / "troop" / name)
        (frozen / "troop" / name).mkdir(mode=0o755)


def _settle(frozen: Path, target: Path, pythons: Sequence[Interpreter]) -> None:
    """Note the interpreters that the environment needs, then put it in place at once."""
    used = _used_pythons(frozen / "env", pythons)
    (frozen / "interpreter.json").write_text(json.dumps([str(i.path) for i in used]), encoding="utf-8")
    private_folder(target.parent)
    try:
        frozen.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        remove_tree(frozen)  # the same environment was made meanwhile by another process


def _used_pythons(env: Path, pythons: Sequence[Interpreter]) -> list[Interpreter]:
    """The interpreters that a virtual environment's links lead to; without one, what PATH gave to the set-up."""
    if not (env / "bin/python").is_symlink():
        return list(pythons[:1])
    link = env / "bin/python"
    for _ in range(10):
        if not link.is_symlink():
            break
        aim = link.readlink()
        if aim.is_absolute() and not aim.is_relative_to(ENVDIR):
            named = [i for i in pythons if aim == i.path or (aim.is_relative_to(i.prefix) and i.prefix != Path("/usr"))]
            linked = [i for i in pythons if aim.parent == Path(PYTHONS) and aim.name in (i.name, "python", "python3")]
            return (named or linked)[:1]
        link = env / aim.relative_to(ENVDIR) if aim.is_absolute() else Path(os.path.normpath(link.parent / aim))
    return []


def _recorded_pythons(environment: Path) -> list[str]:
    try:
        recorded: list[str] = json.loads((environment / "interpreter.json").read_text(encoding="utf-8"))
        return recorded
    except (OSError, ValueError):
        return []


def _drop(target: Path, sandboxes: Path) -> None:
    """Out of sight first, so that an interrupted removal leaves nothing that looks whole."""
    private_folder(sandboxes)
    out = sandboxes / f"removed-{target.name}-{secrets.token_hex(4)}"
    target.rename(out)
    remove_tree(out)
