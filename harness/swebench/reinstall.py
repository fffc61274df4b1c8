"""Whether a patch could make a repeated installation of the repository matter.

The official evaluation script installs the repository again after the patch, for seconds. Where it is installed in
place (editable), that changes nothing unless the patch touches what an installation reads. Rather too many patches are
taken for such than too few: the price of an unneeded installation is its time.
"""

import re
from pathlib import PurePosixPath

_BUILD_FILES = (
    *("setup.py", "setup.cfg", "pyproject.toml", "manifest.in", "manifest", "meson.build", "cmakelists.txt"),
    *("configure", "configure.ac", "makefile", "build.py", "hatch_build.py", "environment.yml", "environment.yaml"),
    *("pkg-info", "entry_points.txt", ".git_archival.txt", ".gitattributes", ".gitmodules"),
)
_COMPILED = (
    *(".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".pyx", ".pxd", ".pxi", ".f", ".f77", ".f90", ".pyf"),
    *(".s", ".asm", ".rs", ".go", ".swg", ".i", ".in", ".src", ".so", ".pth", ".l", ".y", ".lex"),
)
_VERSIONED = re.compile(r"version|release", re.IGNORECASE)
_REQUIREMENTS = re.compile(r"(^|/)(requirements|constraints)[^/]*(/|\.txt$|\.in$)", re.IGNORECASE)
_HEADER = re.compile(
    r"^(?:diff --git (?:\"?a/)?(.+?)\"? \"?b/(.+?)\"?|(?:---|\+\+\+|\*\*\*) ([^\t\n]+).*|(?:rename|copy) (?:from|to)"
    r" (.+)|Index: (.+))$"
)
_NEW_FILE = re.compile(r"^(?:new file mode|--- /dev/null|rename to|copy to)")
_PACKAGE_DEPTH = 3
_MODULE_PLACES = (".", "src", "lib")
_IN_PLACE = re.compile(r"\s(-e|--editable)[\s=]|setup\.py\s+develop\b")


def installs_in_place(command: str) -> bool:
    """Whether an installation command leaves the repository where it is (editable)."""
    return bool(_IN_PLACE.search(command))


def why_install(patch: str) -> str:
    """What in the patch an installation might read, in a few words; "" where it can be skipped."""
    # Whatever looks like a path in headers, also where git would not read them: `patch` is more patient.
    for path in sorted({path for line in patch.splitlines() for path in _paths_of(line)}):
        name, suffix = PurePosixPath(path).name.lower(), PurePosixPath(path).suffix.lower()
        if name in _BUILD_FILES or _REQUIREMENTS.search(path):
            return f"{path} says how to build or install"
        if suffix in _COMPILED:
            return f"{path} may have to be compiled or generated"
        if _VERSIONED.search(name):
            return f"{path} may hold the version"
    return _new_import(patch) or _new_version(patch)


def _paths_of(line: str) -> list[str]:
    """The paths in a line of a patch, where it is a header."""
    match = _HEADER.match(line)
    return [re.sub(r'^"?[ab]/', "", p.strip().strip('"')) for p in match.groups() if p] if match else []


def _new_import(patch: str) -> str:
    """A new package, or a new top-level module that something imports: an installation that lists them by name would
    have to list it. (Scripts that nothing imports are common: agents leave what they reproduced the issue with.)"""
    new = False
    paths: list[str] = []
    for line in patch.splitlines():
        if line.startswith("diff --git"):
            new = False
        new = new or bool(_NEW_FILE.match(line))
        paths = _paths_of(line) or paths
        for path in map(PurePosixPath, paths if new else ()):
            if path.suffix != ".py":
                continue
            if path.name == "__init__.py" and len(path.parts) <= _PACKAGE_DEPTH:
                return f"{path} may be a new package"
            used = rf"^\+.*\b(import|from|import_module)\b.*\b{re.escape(path.stem)}\b"
            if str(path.parent) in _MODULE_PLACES and re.search(used, patch, re.MULTILINE):
                return f"{path} may be a new top-level module"
    return ""


def _new_version(patch: str) -> str:
    """A changed line that may be the version, in a file at the top of a package, where set-up scripts look for it."""
    path: PurePosixPath | None = None
    for line in patch.splitlines():
        if line.startswith("+++ ") and (match := _HEADER.match(line)):
            path = PurePosixPath(re.sub(r'^"?[ab]/', "", (match[3] or "").strip()))
        elif line[:1] in "+-" and path is not None and _VERSIONED.search(line) and _is_package_top(path):
            return f"{path} has a changed line about a version or release"
    return ""


def _is_package_top(path: PurePosixPath) -> bool:
    in_tests = {"test", "tests", "testing"} & set(path.parts[:-1])
    return path.suffix == ".py" and len(path.parts) <= _PACKAGE_DEPTH and not in_tests
