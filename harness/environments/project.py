"""What a repository's own files say of it: interpreter, extras, groups, test requirements. Nothing is executed.

Sources of test dependencies, all that apply together: extras (pyproject, setup.cfg, setup.py), dependency groups (PEP
735, Poetry, PDM, uv), hatch environments, requirements files, `tests_require`; tox.ini only where these name none.
"""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.code.facts import FAILS, parsed

Table = Mapping[str, Any]
Ini = Mapping[str, Mapping[str, str]]

TEST_NAMES = ("test", "tests", "testing", "unittest", "unittests", "pytest")
DEV_NAMES = ("dev", "develop", "development")

_REQUIREMENTS = re.compile(r"^(?:(?:tests?/)?[^/]*requirements?[^/]*\.txt|requirements?/[^/]*\.txt)$")
_TEST_REQUIREMENTS = re.compile(r"(?:^|[/_.-])(?:tests?|testing|pytest)(?=[/_.-])")
_DEV_REQUIREMENTS = re.compile(r"(?:^|[/_.-])(?:dev|develop|development)(?=[/_.-])")
_TOO_MUCH = re.compile(r"lint|docs?[./_-]|mypy|typing|min|lock|bench|release|publish")


@dataclass(frozen=True, slots=True)
class Project:
    """`requires_python`: a specifier. `extras`, `groups`: those that tests need. `packages`: requirement strings.

    `test_requirements`: requirements files for tests; `requirements`: the plain ones, for trees that say no more.
    `has_static_metadata`: dependencies can be read without building. `version`: of a released tree (PKG-INFO).
    `import_roots`: folders to import an uninstalled tree from ("" = the root). `text`: the files read.
    """

    installable: bool
    has_static_metadata: bool
    requires_python: str | None
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    packages: tuple[str, ...]
    test_requirements: tuple[str, ...]
    requirements: tuple[str, ...]
    version: str | None
    import_roots: tuple[str, ...]
    configured: frozenset[str]
    text: str


def read_project(paths: list[str], read: Callable[[str], bytes]) -> Project:
    """Read the tree of `paths`. Files that do not parse count as absent: set-up will say what is wrong with them."""
    there = set(paths)

    def text(path: str) -> str:
        return read(path).decode("utf-8", "replace") if path in there else ""

    pyproject, cfg, tox = _toml(text("pyproject.toml")), _ini(text("setup.cfg")), _ini(text("tox.ini"))
    setup = _setup_arguments(text("setup.py"))
    meta, tool = _table(pyproject, "project"), _table(pyproject, "tool")
    extras = _chosen(_extra_names(meta, tool, cfg, setup))
    groups = _chosen(_table(pyproject, "dependency-groups"))
    requirements = [p for p in paths if _REQUIREMENTS.match(p) and not _TOO_MUCH.search(p.lower())]
    in_tests = [p for p in requirements if _TEST_REQUIREMENTS.search(p.lower())]
    in_dev = [p for p in requirements if _DEV_REQUIREMENTS.search(p.lower())]
    packages = _tool_packages(tool) + _tests_require(cfg, setup)
    named = bool(extras or groups or packages)
    test_files = in_tests or ([] if named else in_dev)
    if not named and not test_files:
        legacy = _table(tool, "tox").get("legacy_tox_ini", "")
        files, packages = _tox(tox or _ini(legacy if isinstance(legacy, str) else ""))
        test_files = [f for f in files if f in there]
    plain = ["requirements.txt"] if "requirements.txt" in there else []
    installable = "setup.py" in there or ("pyproject.toml" in there and ("build-system" in pyproject or bool(meta)))
    return Project(
        installable=installable,
        has_static_metadata=bool(meta) and not meta.get("dynamic"),
        requires_python=_requires_python(meta, tool, cfg, setup),
        extras=extras,
        groups=groups,
        packages=tuple(dict.fromkeys(packages)),
        test_requirements=tuple(test_files) if installable else (),
        requirements=tuple(plain) if installable else tuple(dict.fromkeys((*plain, *test_files))),
        version=_released_version(text("PKG-INFO")),
        import_roots=("src", "") if any(p.startswith("src/") and p.endswith(".py") for p in paths) else ("",),
        configured=frozenset({"pytest"} if _pytest_configured(there, tool, cfg, tox) else ()),
        text="\n".join(text(p) for p in ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", *requirements)),
    )


def _chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Of extras or groups: those for tests, else those for development."""
    by_name = {re.sub(r"[-_.]+", "-", name).lower(): name for name in names}
    tests, dev = (tuple(by_name[name] for name in family if name in by_name) for family in (TEST_NAMES, DEV_NAMES))
    return tests or dev


def _extra_names(meta: Table, tool: Table, cfg: Ini, setup: Table) -> list[str]:
    in_setup = setup.get("extras_require")
    return [
        *_table(meta, "optional-dependencies"),
        *_table(_table(tool, "poetry"), "extras"),
        *_table(_table(_table(tool, "flit"), "metadata"), "requires-extra"),
        *cfg.get("options.extras_require", {}),
        *(in_setup if isinstance(in_setup, dict) else ()),
    ]


def _requires_python(meta: Table, tool: Table, cfg: Ini, setup: Table) -> str | None:
    poetry = _table(_table(tool, "poetry"), "dependencies").get("python")
    candidates = (
        meta.get("requires-python"),
        ",".join(_poetry_specifier(poetry)) if isinstance(poetry, str) else None,
        _table(_table(tool, "flit"), "metadata").get("requires-python"),
        cfg.get("options", {}).get("python_requires"),
        setup.get("python_requires"),
    )
    given = next((c for c in candidates if isinstance(c, str) and c.strip()), None)
    return None if given is None else re.sub(r"\s+", "", given).strip(",")


def _tool_packages(tool: Table) -> list[str]:
    """Test requirements of tools that keep them in their own tables."""
    poetry = _table(tool, "poetry")
    poetry_groups = {name: _table(group, "dependencies") for name, group in _table(poetry, "group").items()}
    if "dev-dependencies" in poetry:
        poetry_groups.setdefault("dev", _table(poetry, "dev-dependencies"))
    found: list[str] = []
    for name in _chosen(poetry_groups):
        found += _poetry_requirements(poetry_groups[name])
    pdm = _table(_table(tool, "pdm"), "dev-dependencies")
    for name in _chosen(pdm):
        found += _strings(pdm[name])
    found += _strings(_table(tool, "uv").get("dev-dependencies"))
    environments = _table(_table(tool, "hatch"), "envs")
    for name in ("hatch-test", *(_chosen(environments) or ("default",))):
        environment = _table(environments, name)
        found += _strings(environment.get("dependencies")) + _strings(environment.get("extra-dependencies"))
    return [requirement for requirement in found if "{" not in requirement and not requirement.startswith("-")]


def _poetry_requirements(table: Table) -> list[str]:
    found = []
    for name, wish in table.items():
        details = wish if isinstance(wish, dict) else {"version": wish}
        version = details.get("version")
        if name.lower() == "python" or not isinstance(version, str):
            continue  # a git or path dependency, or several: not for a sandbox to guess
        extras = _strings(details.get("extras"))
        marker = details.get("markers")
        named = f"{name}[{','.join(extras)}]" if extras else name
        condition = f" ; {marker}" if isinstance(marker, str) else ""
        found.append(named + ",".join(_poetry_specifier(version)) + condition)
    return found


def _poetry_specifier(version: str) -> Iterator[str]:
    """Poetry's version constraint in the standard form; of alternatives (||) the last, which is the newest by habit."""
    for raw in version.split("||")[-1].split(","):
        part = raw.strip()
        numbers = re.findall(r"\d+", part)
        if not part or part == "*":
            continue
        if numbers and (part[0] == "^" or (part[0] == "~" and not part.startswith("~="))):
            last = len(numbers) - 1
            place = next((i for i, n in enumerate(numbers) if n != "0"), last) if part[0] == "^" else min(1, last)
            yield f">={part[1:].strip()}"
            yield "<" + ".".join([*numbers[:place], str(int(numbers[place]) + 1)])
        elif part[0].isdigit():
            yield f"=={part}"
        else:
            yield re.sub(r"\s+", "", part)


def _tests_require(cfg: Ini, setup: Table) -> list[str]:
    in_cfg = cfg.get("options", {}).get("tests_require", "")
    in_setup = setup.get("tests_require")
    listed = [in_setup] if isinstance(in_setup, str) else _strings(in_setup)
    return [r for r in (*_lines(in_cfg.replace(";\n", "\n")), *listed) if re.match(r"[A-Za-z0-9]", r)]


def _tox(ini: Ini) -> tuple[list[str], list[str]]:
    """(requirements files, packages) that every environment of tox installs."""
    files, packages = [], []
    for line in _lines(ini.get("testenv", {}).get("deps", "")):
        file = re.match(r"-r\s*(?:\{toxinidir\}/)?(\S+)$", line)
        if file:
            files.append(file.group(1))
        elif "{" not in line and re.match(r"[A-Za-z0-9][\w.-]*(?:\[[\w,-]+\])?\s*(?:[<>=!~;].*)?$", line):
            packages.append(line)
    return files, packages


def _pytest_configured(there: set[str], tool: Table, cfg: Ini, tox: Ini) -> bool:
    files = {"pytest.ini", ".pytest.ini", "pytest.toml", "conftest.py", "tests/conftest.py"}
    return not there.isdisjoint(files) or "pytest" in tool or "tool:pytest" in cfg or "pytest" in tox


def _setup_arguments(text: str) -> dict[str, Any]:
    """The arguments of `setup(...)` that can be read: literals, names bound to literals, `extras[...] = …`."""
    tree = parsed(text)
    if tree is None:
        return {}
    names: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            _assign(node.targets[0], node.value, names)
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node.func) == "setup")
    for keyword in (keyword for call in calls for keyword in call.keywords):
        if keyword.arg in ("extras_require", "python_requires", "tests_require"):
            arguments[keyword.arg] = _value(keyword.value, names)
    return arguments


def _assign(target: ast.expr, value: ast.expr, names: dict[str, Any]) -> None:
    if isinstance(target, ast.Name):
        names[target.id] = _value(value, names)
    elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        table = names.get(target.value.id)
        if isinstance(table, dict) and isinstance(target.slice, ast.Constant):
            table[target.slice.value] = _value(value, names)


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _value(node: ast.expr, names: Table) -> Any:
    """The value as far as it is a literal: a dictionary keeps its keys even where its values are computed."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Dict):
        keys = [k.value for k in node.keys if isinstance(k, ast.Constant)]
        return dict.fromkeys(k for k in keys if isinstance(k, str))
    try:
        return ast.literal_eval(node)
    except (TypeError, *FAILS):
        return None


def _released_version(pkg_info: str) -> str | None:
    match = re.search(r"^Version:\s*([0-9][\w.+!-]*)\s*$", pkg_info, re.MULTILINE)
    return match.group(1) if match else None


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {section: dict(parser[section]) for section in parser.sections()}


def _table(table: Table, name: str) -> dict[str, Any]:
    value = table.get(name) if isinstance(table, Mapping) else None
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, (list, tuple)) else []


def _lines(text: str) -> list[str]:
    stripped = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line]
