"""What an environment lacks: modules that tests import, pytest's plugins by their options, headers and programs that a
build wants; and which requirement of the repository's own, or which Debian package, brings it."""

import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from harness.records import TestReport

_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))|importorskip\w*\(\s*['\"](\w+)", re.MULTILINE
)
_ABSENT = re.compile(
    r"No module named '?([A-Za-z_]\w*)|could not import '([A-Za-z_]\w*)|importing plugin \"([A-Za-z_]\w*)"
    r"|unknown hook '(pytest_[a-z]+)"
)
_TEST_CODE = re.compile(r"(?:^|/)(?:tests?/.*|test_[^/]*|conftest|[^/]*_test|tests)\.py$")
_SAMPLES = re.compile(r"(?:^|/)(?:fixtures?|data|samples?|examples?|templates?|docs?)/")
_TEST_ARGUMENTS = re.compile(r"def (?:test_?\w*|\w+_fixture|setup\w*)\(([^)]*)\)")
_UNKNOWN_OPTIONS = re.compile(r"unrecognized arguments: (.*)|no such option: (\S+)")


@cache
def _tables() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def by_module(named: Iterable[str]) -> dict[str, str]:
    """The requirement that brings each module, of those that a repository names (the first of several)."""
    found: dict[str, str] = {}
    modules = {package: module for module, package in _tables()["modules"].items()}
    for requirement in named:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
        plain = re.sub(r"^python-|-python$|-py$", "", name)
        for module in (modules.get(name, plain), name.replace("-", "_").replace(".", "_"), plain.replace("-", "_")):
            found.setdefault(module.lower(), requirement)
    return found


def package_of(module: str) -> str:
    """The package that brings a module, as it is usually called."""
    return _tables()["modules"].get(module, module)


def plugins_used(tests: str, settings: str, named: Iterable[str]) -> dict[str, str]:
    """By module: the plugins of pytest that its settings or the tests' text make use of, as the repository names them
    where it does."""
    tables, said = _tables(), {re.split(r"[^\w.-]", name, maxsplit=1)[0].lower(): name for name in named}
    given = {name for arguments in _TEST_ARGUMENTS.findall(tests) for name in re.findall(r"\w+", arguments)}
    used = [plugin for way, plugin in tables["settings"].items() if re.search(rf"^{way}\s*=", settings, re.MULTILINE)]
    used += [plugin for way, plugin in tables["marks"].items() if re.search(rf"\bmark\.{way}\b", tests)]
    used += [plugin for way, plugin in tables["fixtures"].items() if way in given and f"def {way}(" not in tests]
    required = re.findall(r"^required_plugins\s*=(.*(?:\n[ \t]+.*)*)", settings, re.MULTILINE)
    used += [name for text in required for name in re.findall(r"pytest-[a-z-]+", text)]
    return {plugin.replace("-", "_"): said.get(plugin, plugin) for plugin in used}


def own_projects(paths: Iterable[str]) -> dict[str, str]:
    """By module: the folder below the root that has a project of that module, as pip takes it."""
    there = set(paths)
    folders = {p.rpartition("/")[0] for p in there if re.fullmatch(r".+/(?:pyproject\.toml|setup\.(?:py|cfg))", p)}
    folders = {f for f in folders if f"{f}/__init__.py" not in there and not _SAMPLES.search(f"{f}/")}
    places = (re.fullmatch(r"(.+?)/(?:src/)?(\w+)(?:/__init__)?\.py", path) for path in there)
    return {p[2]: f"--editable=./{p[1]}" for p in places if p and p[1] in folders and p[2] != "setup"}


def wanted(
    paths: Sequence[str],
    read: Callable[[str], bytes],
    named: Sequence[str],
    optional: Iterable[str],
    settings: str = "",
) -> Mapping[str, str]:
    """By module: the repository's own requirement that brings it, where its tests import it somewhere, or any code of
    its does and it is `optional` (of an extra). Of plugins of pytest, which change a run by being there, those that it
    uses."""
    known = by_module(n for n in named if not n.lower().startswith("pytest"))
    code, known_to_extras = [path for path in paths if path.endswith(".py")], by_module(optional)
    tests = b"\n".join(read(path) for path in code if _TEST_CODE.search(path))
    found = plugins_used(tests.decode("utf-8", "replace"), settings, named)
    for path in code:
        brought = known if _TEST_CODE.search(path) else known_to_extras
        lists = (b",".join(groups).decode() for groups in _IMPORT.findall(read(path))) if brought else ()
        names = {re.split(r"\W", name.strip())[0] for listed in lists for name in listed.split(",")}
        found |= {name: brought[name.lower()] for name in names if name.lower() in brought}
    return dict(sorted(found.items()))


def absent_modules(report: TestReport) -> list[str]:
    """The modules for want of which files could not be loaded or were skipped, the most often missed first."""
    texts = [*report.failures.values(), *([] if report.valid else [report.output])]
    found = [next(filter(None, groups)) for text in texts for groups in set(_ABSENT.findall(text))]
    return sorted(dict.fromkeys(found), key=lambda name: -found.count(name))


def absent_plugins(report: TestReport) -> list[str]:
    """The plugins that pytest was told to load, or whose options it was called with, and does not know."""
    words = [word for pair in _UNKNOWN_OPTIONS.findall(report.output) for text in pair for word in text.split()]
    plugins = [name for word in words for option, name in _tables()["options"].items() if word.startswith(option)]
    plugins += [package_of(name) for name in re.findall(r'importing plugin "([A-Za-z_]\w*)', report.output)]
    return list(dict.fromkeys(plugins))


def debian_packages(output: str) -> str:
    """The line to type for what a build asked of the system and did not find; empty where it is nothing of that."""
    lacking = (names for names, pattern in _tables()["debian"].items() if re.search(pattern, output))
    listed = ", ".join(dict.fromkeys(f'"{name}"' for names in lacking for name in names.split()))
    return f"it lacks something of the system: apt = [{listed}] in troop.toml or a task file" if listed else ""


def install_each(install: str, arguments: Iterable[str]) -> str:
    """A shell command that installs what can be of these (quoted), and says what cannot."""
    failed = "troop: {} could not be installed"
    return "; ".join(f"{install} {each} || echo {shlex.quote(failed.format(each))}" for each in arguments)
