"""python3 and git for images that lack one of them: this machine's own, with the libraries and the loader that they are
linked to, so that they run whatever C library an image has."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from shutil import which

from harness.sandbox.base import TROOPDIR
from harness.sandbox.docker.files import Files, archive
from tasks.errors import SandboxFailed

HOST = f"{TROOPDIR}/host"
LACKING = "which a sandbox needs"
"""In what `find_python.sh` says of an image that lacks one of them."""

_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_LEFT_OUT = frozenset({"test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages", "lib2to3"})
_ASK = (
    "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sys.version_info[1]); "
    "print(sysconfig.get_path('stdlib'))"
)
_START = '#!/bin/sh\n{settings}exec {host}/lib/loader --library-path {host}/lib --argv0 {path} {path}.real "$@"\n'


@cache
def bundle() -> bytes:
    """A tar archive of `HOST`, about 40 MB, to be unpacked at "/". Raises SandboxFailed where this machine has none to
    give: no git, or programs that are linked in another way."""
    git = which("git")
    if git is None:
        raise SandboxFailed("the image has no git, and this machine has none to lend: apt-get install git")
    executable, minor, stdlib = _said([which("python3") or sys.executable, "-I", "-S", "-c", _ASK]).splitlines()
    python, library, modules = Path(executable), Path(stdlib), f"{HOST}/lib/python3.{minor}"
    files: Files = {}
    linked = [python, Path(git)]
    for module in sorted(library.rglob("*")):
        inside = module.relative_to(library)
        if module.is_file() and _LEFT_OUT.isdisjoint(inside.parts) and not inside.parts[0].startswith("config-"):
            files[f"{modules}/{inside}"] = (module.read_bytes(), 0o644)
            linked += [module] if module.suffix == ".so" else []
    for needed in map(Path, sorted(set(_LIBRARY.findall(_said(["ldd", *map(str, linked)]))))):
        name = "loader" if needed.name.startswith("ld-") else needed.name
        files[f"{HOST}/lib/{name}"] = (needed.read_bytes(), 0o755)
    if f"{HOST}/lib/loader" not in files:
        raise SandboxFailed("the image lacks python3 or git, and this machine's cannot be lent: choose another image")
    settings = f"export GIT_EXEC_PATH={HOST}/bin GIT_TEMPLATE_DIR=\n"
    for name, program, own in (("python3", python, ""), ("git", Path(git), settings)):
        path = f"{HOST}/bin/{name}"
        files[f"{path}.real"] = (program.read_bytes(), 0o755)
        files[path] = (_START.format(settings=own, host=HOST, path=path).encode(), 0o755)
    return archive(files)


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SandboxFailed(f"the image lacks python3 or git, and this machine's cannot be lent: {error}") from error
