"""The Python interpreters of this machine, as bubblewrap sandboxes may use them.

A sandbox sees the system paths and, of an interpreter elsewhere (in a home directory, say), its prefix alone. Wrapper
scripts such as pyenv's are not interpreters: what they would start is looked up directly.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_ASK = """\
import sys, os, json
try:
    import ctypes, _posixsubprocess
    whole = True
except ImportError:
    whole = False
base = getattr(sys, "base_prefix", sys.prefix)
print(json.dumps([list(sys.version_info[:2]), base, whole]))
"""
_NAME = re.compile(r"python3(\.\d+)?")
SYSTEM = Path("/usr")
# No sandbox gets more than an installation: a "prefix" that is one of these is left alone.
_TOO_WIDE = ("/", "/home", "/root", "/opt", "/srv", "/mnt", "/var", "/etc", "/tmp")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`version`: (major, minor). `path`: the real executable, below `prefix`. `whole`: has what the shim needs."""

    version: tuple[int, int]
    path: Path
    prefix: Path
    whole: bool

    @property
    def in_system(self) -> bool:
        """Visible in every sandbox without more."""
        return self.prefix.is_relative_to(SYSTEM)

    @property
    def name(self) -> str:
        return f"python{self.version[0]}.{self.version[1]}"


def find_interpreters() -> tuple[Interpreter, ...]:
    """All of Python 3.6 or newer, one for each prefix and version, the system's own first, newer ones before older."""
    candidates = sorted(set(_candidates()))
    with ThreadPoolExecutor(4) as pool:
        asked = [found for found in pool.map(_ask, candidates) if found is not None]
    unique = {(i.prefix, i.version): i for i in reversed(asked)}
    return tuple(sorted(unique.values(), key=lambda i: (not i.in_system, [-n for n in i.version], str(i.path))))


def rust_toolchain() -> Path | None:
    """The user's Rust, for what set-up builds: a toolchain itself, not the wrappers in the home directory around it."""
    home = Path(os.environ.get("RUSTUP_HOME", Path(os.environ.get("HOME", "/nonexistent"), ".rustup")))
    found = _below(home, "toolchains/*/bin/cargo")
    return found[-1].parents[1] if found else None  # "stable" comes last


def choose(interpreters: Iterable[Interpreter], python: str | None) -> Interpreter | None:
    """The interpreter for a wish such as "3.9" (None: any): the system's own where it fits."""
    wanted = None if python is None else python.split(".")[:2]
    return next((each for each in interpreters if wanted in (None, [*map(str, each.version)])), None)


def _candidates() -> Iterator[Path]:
    folders = [Path("/usr/bin"), *(Path(p) for p in os.environ.get("PATH", "").split(os.pathsep) if p.startswith("/"))]
    home = Path(os.environ.get("HOME", "/nonexistent"))
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    folders += _below(pyenv, "versions/*/bin")
    data = Path(os.environ.get("XDG_DATA_HOME", home / ".local/share"))
    folders += _below(Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data / "uv/python")), "*/bin")
    for folder in folders:
        for named in _below(folder, "python3*"):
            path = named.resolve()
            if _NAME.fullmatch(named.name) and os.access(path, os.X_OK) and not _is_script(path):
                yield named if os.access(folder.parent / "pyvenv.cfg", os.R_OK) else path


def _below(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # somebody else's, and closed to us
        return []


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True


def _ask(path: Path) -> Interpreter | None:
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK], capture_output=True, timeout=20, check=True, env={"PATH": "/usr/bin:/bin"}
        )
        (major, minor), base, whole = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None  # not an interpreter that works
    prefix = Path(base).resolve()
    executable = (prefix / "bin" / f"python{major}.{minor}").resolve()
    fit = (major, minor) >= (3, 6) and str(prefix) not in _TOO_WIDE and prefix != Path.home()
    there = fit and executable.is_file() and executable.is_relative_to(prefix)
    return Interpreter((major, minor), executable, prefix, whole) if there else None
