"""Limits on a whole sandbox by control groups, version 1 or 2.

A sandbox gets a group of its own below a place where this process may make groups; its first process moves itself in.
Which limits could be put in force is part of the answer: the others are named, never passed over.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.base import Limits

FOLDER = "troop"
# The sandbox's own first processes (bubblewrap's monitor, the shim, one guardian) come on top of the commands'.
OWN_PROCESSES = 4
PERIOD_US = 100_000
PATIENCE = 2.0
"""Seconds that the last processes of a group have to go."""
_NAME = re.compile(r".+-[0-9a-f]{8}")

CONTROLLERS = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A folder of the cgroup file system below which groups can be made, and the controllers that work there."""

    version: int
    folder: Path
    controllers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A sandbox's groups, one folder per hierarchy. `missing`: controllers that limit nothing, each with the reason."""

    folders: tuple[Path, ...]
    missing: Mapping[str, str]

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in the group for its memory limit."""
        files = (folder / name for folder in self.folders for name in ("memory.events", "memory.oom_control"))
        return any(re.search(r"\boom_kill [1-9]", " ".join(_words(file))) for file in files)


def make_group(name: str, limits: Limits, hierarchies: Iterable[Hierarchy]) -> Group:
    """Make the group `name` with these limits, as far as they can be had."""
    folders: list[Path] = []
    missing = dict.fromkeys(CONTROLLERS, "no control group can be made here")
    for hierarchy in hierarchies:
        folder = hierarchy.folder / name
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            missing.update(dict.fromkeys(hierarchy.controllers, error.strerror or str(error)))
            continue
        folders.append(folder)
        for controller in hierarchy.controllers:
            try:
                for file, value, needed in _settings(hierarchy.version, controller, limits):
                    # Swap accounting is off on many kernels: then there is no such file, and the memory limit alone
                    # holds.
                    if needed or (folder / file).exists():
                        (folder / file).write_text(value)
                missing.pop(controller, None)
            except OSError as error:
                missing[controller] = error.strerror or str(error)
    return Group(tuple(folders), missing)


def remove_group(folders: Iterable[Path]) -> None:
    """Kill what is left in the groups and remove them. Blocks up to PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    for folder in folders:
        while folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                _kill_all(folder)
                if time.monotonic() > until:
                    break
                time.sleep(0.005)


def remove_empty(hierarchy_folders: Iterable[Path]) -> None:
    """Remove the folders that held the groups, where no sandbox is left in them."""
    for folder in hierarchy_folders:
        if folder.name == FOLDER:
            with contextlib.suppress(OSError):
                folder.rmdir()


def remove_stray() -> list[Path]:
    """Remove the groups of sandboxes that hold no process, now and PATIENCE seconds later: where the mark of a sandbox
    is lost nobody else would, and one that is being made has a process by then. Gives those removed. Blocks."""
    named = [folder for _, _, mount, _ in _mounts() for folder in mount.rglob(f"{FOLDER}/*-????????/")]
    stray = [folder for folder in named if _NAME.fullmatch(folder.name) and not _words(folder / "cgroup.procs")]
    time.sleep(PATIENCE if stray else 0)
    for folder in stray:
        with contextlib.suppress(OSError):  # the kernel refuses one that has a process
            folder.rmdir()
    remove_empty({folder.parent for folder in stray})
    return [folder for folder in stray if not folder.exists()]


def hierarchies() -> tuple[Hierarchy, ...]:
    """Where this process may make groups: below its own ones, in version 2 for root also below the top."""
    found: list[Hierarchy] = []
    own = _own_groups()
    for version, mount_root, mount, options in _mounts():
        if version == 1:
            wanted = tuple(c for c in CONTROLLERS if c in options and c in own)
            if wanted:
                folder = _below(mount, mount_root, own[wanted[0]]) / FOLDER
                with contextlib.suppress(OSError):
                    folder.mkdir(exist_ok=True)
                if os.access(folder, os.W_OK):
                    found.append(Hierarchy(1, folder, wanted))
        elif "" in own:
            place = _below(mount, mount_root, own[""])
            found.extend(_version_2(mount, place))
    # One of several for the same controllers is enough.
    known = ({c for before in found[:n] for c in before.controllers} for n in range(len(found)))
    return tuple(h for h, of_others in zip(found, known, strict=True) if not of_others.issuperset(h.controllers))


def _version_2(mount: Path, own: Path) -> list[Hierarchy]:
    """In version 2 a group with processes has no limited children, so one's own group serves only when it was delegated
    and its processes can be moved to a leaf; root also has the top of the tree."""
    at_hand = [c for c in CONTROLLERS if c in _words(own / "cgroup.controllers")]
    places = [own.parent, own] if own != mount else [own]
    if os.geteuid() == 0:
        places.append(mount)
    for place in places:
        controllers = tuple(c for c in at_hand if c in _words(place / "cgroup.controllers"))
        if not controllers or not os.access(place, os.W_OK) or not os.access(place / "cgroup.procs", os.W_OK):
            continue
        folder = place / FOLDER
        try:
            try:
                _enable(place, controllers)
            except OSError:
                if place != own or _words(own / "cgroup.procs") != [str(os.getpid())]:
                    raise
                # This process, alone in its group, moves to a child of it.
                (own / "troop-harness").mkdir(exist_ok=True)
                (own / "troop-harness/cgroup.procs").write_text("0")
                _enable(place, controllers)
            folder.mkdir(exist_ok=True)
            _enable(folder, controllers)
        except OSError:
            continue
        return [Hierarchy(2, folder, controllers)]
    return []


def _enable(folder: Path, controllers: Iterable[str]) -> None:
    missing = set(controllers).difference(_words(folder / "cgroup.subtree_control"))
    if missing:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(missing)))


def _settings(version: int, controller: str, limits: Limits) -> list[tuple[str, str, bool]]:
    """(file, value, whether a sandbox without it counts as unlimited) for one controller."""
    memory = str(limits.memory_mb * 1024 * 1024)
    processes = str(limits.processes + OWN_PROCESSES)
    quota = str(max(1000, int(limits.cpus * PERIOD_US)))
    return {
        ("memory", 1): [("memory.limit_in_bytes", memory, True), ("memory.memsw.limit_in_bytes", memory, False)],
        ("memory", 2): [("memory.max", memory, True), ("memory.swap.max", "0", False)],
        ("pids", version): [("pids.max", processes, True)],
        ("cpu", 1): [("cpu.cfs_period_us", str(PERIOD_US), True), ("cpu.cfs_quota_us", quota, True)],
        ("cpu", 2): [("cpu.max", f"{quota} {PERIOD_US}", True)],
    }[controller, version]


def _kill_all(folder: Path) -> None:
    for pid in _words(folder / "cgroup.procs"):
        if pid != "0":  # a process outside this pid namespace; to kill(2) 0 would mean ourselves
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(pid), signal.SIGKILL)


def _mounts() -> list[tuple[int, Path, Path, set[str]]]:
    """(version, root of the mount within its hierarchy, mount point, super options) of each cgroup mount."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            fields = before.split(" ")
            found.append((1 if kind == "cgroup" else 2, Path(fields[3]), Path(fields[4]), set(options.split(","))))
    return found


def _own_groups() -> dict[str, Path]:
    """This process's group by version 1 controller; "" for version 2."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        own.update({controller: Path(path) for controller in controllers.split(",")})
    return own


def _below(mount: Path, mount_root: Path, group: Path) -> Path:
    """The folder of a group as this mount shows it (a container's mount shows a part of the tree)."""
    try:
        return mount / group.relative_to(mount_root)
    except ValueError:
        return mount


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []
