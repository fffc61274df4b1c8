"""The versions that a repository names: of Python, and of what it locks."""

import re
from collections.abc import Callable, Iterable

from harness.environments.tables import json_of, table_of, toml_of


def locked(text: Callable[[str], str]) -> tuple[str, ...]:
    """The versions that a lock file of uv, Poetry, PDM or Pipenv has, but for packages of which it has several."""
    found: dict[str, set[str]] = {}
    for name in ("uv.lock", "poetry.lock", "pdm.lock"):
        packages = toml_of(text(name)).get("package")
        for package in (p for p in (packages if isinstance(packages, list) else ()) if isinstance(p, dict)):
            source = package.get("source")
            of_index = not source or (isinstance(source, dict) and "registry" in source)
            found.setdefault(str(package.get("name")), set()).add(str(package.get("version")) if of_index else "")
    pipenv = json_of(text("Pipfile.lock"))
    for name, facts in {**table_of(pipenv, "default"), **table_of(pipenv, "develop")}.items():
        found.setdefault(name, set()).add(str(facts.get("version")).lstrip("=") if isinstance(facts, dict) else "")
    words = ((name, *versions) for name, versions in found.items() if len(versions) == 1)
    return tuple(f"{name}=={version}" for name, version in words if re.fullmatch(r"\d[\w.+!-]*", version))


def pythons(text: Callable[[str], str], settings: str, workflows: Iterable[str]) -> tuple[str, ...]:
    """The version that the repository chose for its developers, then those that it names, the newest first; where it
    does neither, that of its deployment."""
    chosen, deployed = re.findall(r"\A\s*(3\.\d+)", text(".python-version")), list[str]()
    for name in (".tool-versions", "runtime.txt", "Pipfile", "environment.yml", "Dockerfile"):
        deployed += re.findall(
            r"(?im)^(?:\W*|from\s+(?:--\S+\s+)?\S*)python(?:_version)?[\s:=\"-]+(3\.\d+)", text(name)
        )[:1]
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", settings)
    for workflow in (each for each in workflows if "python" in each):
        lines = re.findall(r"python[\w-]*:(.*)", workflow)
        named += re.findall(r"['\"](3\.\d+)(?:\.\d+)?['\"]", workflow)
        named += [version for line in lines for version in re.findall(r"(?<![\d.])3\.\d+", line)]
    newest = sorted(set(named), key=lambda version: -int(version[2:]))
    return tuple(dict.fromkeys((*chosen, *newest) or deployed))
