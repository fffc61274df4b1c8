"""Requirements as data: lines of requirement files, of conda environment files and of specifications. Pure."""

import contextlib
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_PIN = re.compile(r"^[^;]*===?\s*[^;*,\s]+\s*(?:;.*)?$")
_CONDA = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)$")
# The tree itself, which is installed in its own way, and what pip's options say about other places.
_SKIPPED = (
    *("-e .", "-e file:", ".[", "./", "--index-url", "-i ", "--extra-index-url", "--find-links", "-f ", "--no-index"),
    *("-c", "--constraint"),
)
# What conda calls otherwise than the package index.
_NAMES = {"matplotlib-base": "matplotlib", "iris": "scitools-iris"}
_NOT_PACKAGES = ("python", "pip", "conda", "nodefaults")


def name_of(requirement: str) -> str:
    """The normalised name (PEP 503) of a requirement; "" for a line that begins with none."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else ""


def is_pin(requirement: str) -> bool:
    """Whether it admits one version only."""
    return bool(name_of(requirement)) and bool(_PIN.match(requirement))


def pinned_version(requirement: str) -> tuple[str, str]:
    """(normalised name, version) of a pin."""
    return name_of(requirement), requirement.partition(";")[0].rpartition("=")[2].strip()


def unpinned(requirement: str) -> str:
    """The requirement (a line such as "name==1.0; marker") without its pin, so that any version will do."""
    return re.sub(r",?\s*===?\s*[^;,\s]+", "", requirement, count=1)


def file_requirements(
    path: str, read: Callable[[str], str], replaced: Mapping[str, str], within: Sequence[str] = ()
) -> list[str]:
    """The requirements of a file and, recursively, of those it includes (`-r`). `replaced`: packages that are not to be
    had any more, and what takes their place, in whatever version. Constraints (`-c`) and the tree itself are left out.

    `read` raises FileNotFoundError; a file that is included but not there is passed over, as the official harness does.
    `within`: the files that include this one."""
    found: list[str] = []
    for line in _joined(read(path)):
        included = re.match(r"(?:-r|--requirement)[\s=]*(\S+)", line)
        if included:
            other = posixpath.normpath(posixpath.join(posixpath.dirname(path), included[1]))
            if other not in (path, *within):
                with contextlib.suppress(FileNotFoundError):
                    found += file_requirements(other, read, replaced, (path, *within))
        elif line != "." and not line.startswith(_SKIPPED):
            found.append(replaced.get(name_of(line), line))
    return list(dict.fromkeys(found))


def _joined(text: str) -> list[str]:
    """Lines without comments, hashes and continuations."""
    lines = text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines()
    bare = (re.sub(r"\s--hash[=\s]\S+", "", re.sub(r"(?:^|\s)#.*$", "", line)).strip() for line in lines)
    return [line for line in bare if line]


def conda_requirements(text: str, replaced: Mapping[str, str]) -> list[str]:
    """The `dependencies` of a conda environment file as requirements."""
    found: list[str] = []
    within = with_pip = False
    pip_indent = 0
    for line in text.splitlines():
        bare = re.sub(r"(?:^|\s)#.*$", "", line).rstrip()
        entry = re.match(r"(\s*)-\s*(.+)$", bare)
        if entry is None:
            within = bare.startswith("dependencies:") if bare and not bare[0].isspace() else within
        elif within:
            indent, item = len(entry[1]), entry[2].strip().strip("'\"")
            if item == "pip:":
                with_pip, pip_indent = True, indent
                continue
            with_pip = with_pip and indent > pip_indent
            requirement = item if with_pip else conda_requirement(item)
            if name_of(requirement) and (with_pip or name_of(requirement) not in _NOT_PACKAGES):
                found.append(replaced.get(name_of(requirement), requirement))
    return found


def conda_requirement(text: str) -> str:
    """`numpy=1.19` (conda: any 1.19) as `numpy==1.19.*`, by its name on the package index; channels and builds are left
    out."""
    found = _CONDA.match(text.rpartition("::")[2].strip())
    if found is None:
        return text
    name, version = _NAMES.get(found[1], found[1]), found[2]
    one = re.fullmatch(r"=\s*([^=\s]+)(?:=\S+)?", version)
    if one:
        wild = one[1] if one[1].endswith("*") else f"{one[1]}.*"
        return f"{name}=={wild}"
    bare = re.fullmatch(r"([\d*][^\s<>=!]*)(?:\s+\S+)?", version)
    return f"{name}=={bare[1]}" if bare else f"{name}{version}"


def without(requirements: Sequence[str], others: Sequence[str]) -> list[str]:
    """`requirements` less those of packages that `others` pin: what is installed later has the last word."""
    decided = {name_of(line) for line in others if is_pin(line)}
    return [line for line in requirements if name_of(line) not in decided]
