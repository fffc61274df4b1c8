"""What a repository's own files say of it: interpreter, extras, groups, test requirements. Nothing is executed.

Sources of test dependencies, all that apply together: extras (pyproject, setup.cfg, setup.py), dependency groups (PEP
735), requirements files, and what the lists of tools name for tests: Poetry, PDM, uv, hatch, tox, nox, Pipfile, conda,
`tests_require`, a Makefile; where none of these says anything, GitHub's workflows.
"""

import ast
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from harness.code.facts import FAILS, parsed
from harness.environments.needs import package_of
from harness.environments.own_tests import OwnTests, own_tests
from harness.environments.tables import Ini, Table, ini_of, lines_of, strings_of, table_of, toml_of, words_of
from harness.environments.versions import locked, pythons

Lists = dict[str, list[str]]
"""By the name of a group, session, …: what it installs, as arguments of pip."""

FAMILIES = tuple(
    re.compile(names)
    for names in (
        "test|tests|testing|unittest|unittests|pytest",
        r"tests?-(?!.*(?:lint|docs?|mypy|type|min)).*",
        *("dev|develop|development", "ci", "all|full|default"),
    )
)
"""Names of extras, groups, … that tests need; the first family that a repository has is taken."""
_PYTEST_FILES = {"pytest.ini", ".pytest.ini", "pytest.toml", "conftest.py", "tests/conftest.py"}
PROJECT_FILES = ("setup.py", "manage.py", "Pipfile", "environment.yml", "requirements.txt")

_REQUIREMENTS = re.compile(r"^(?:(?:(?:tests?|ci|\.ci|dev)/)?[^/]*requirements?[^/]*\.txt|requirements?/[^/]*\.txt)$")
_TEST_REQUIREMENTS = re.compile(r"(?:^|[/_.-])(?:tests?|testing|pytest)(?=[/_.-])")
_JUST_TESTS = re.compile(r"(?:^|/)(?:requirements?[-_])?tests?(?:[-_]requirements?)?\.txt$")
_DEV_REQUIREMENTS = re.compile(r"(?:^|[/_.-])(?:dev|develop|development)(?=[/_.-])")
_TOO_MUCH = re.compile(r"lint|docs?[./_-]|mypy|typing|min|lock|bench|release|publish")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(?:\[[\w,\s.-]+\])?\s*(?:\(?[<>=!~].*)?(?:;.*)?")
_KEYS = {
    **{"dependencies": "", "extra-dependencies": "", "deps": "", "features": "--extra=", "extras": "--extra="},
    **{"dependency-groups": "--group=", "dependency_groups": "--group="},
}
_REFERENCE = re.compile(r"\{\[([^\]]+)\](\w+)\}")
MOST_CHARS = 100_000
"""Of a value in tox.ini with all that it refers to, which could refer to itself."""
_OPTIONS = {
    **{"-r": "file", "--requirement": "file", "-c": "constraint", "--constraint": "constraint"},
    **{"--extra": "extra", "--group": "group", "-e": "local", "--editable": "local"},
}
_NO_NEED = re.compile(
    r"(?:pip|uv|setuptools|wheel|build|twine|tox|nox|hatch|poetry|pdm|pre-commit|codecov|coveralls|ruff|black|flake8|mypy"
    r"|isort|pylint|sphinx|mkdocs|cibuildwheel|check-manifest)(?![a-z])"
)
"""Tools that workflows install beside what tests need."""
_OWN_EXTRAS = re.compile(r"(?:-e\s*)?\.?/?\.?\[([\w,\s.-]+)\]")
_CONDA = re.compile(
    r"^\s*-\s+(?!(?:python|pip|conda-forge|defaults|nodefaults)(?![\w-]))"
    r"['\"]?([A-Za-z][\w.-]*(?:\[[\w,]+\])?)\s*([<>=!~][^#'\"\s]*)?['\"]?\s*(?:#.*)?$",
    re.MULTILINE,
)
_ELSEWHERE = re.compile(r"(?:^|/)(?:tests?|testing|docs?|examples?|fixtures?|templates?|_?vendor|benchmarks?|\..*)/")
_TAG_READERS = re.compile(r"scm|vcs|versioneer|dynamic-versioning|git-versioning|pbr|dunamai")


@dataclass(frozen=True, slots=True)
class Project:
    """`requires_python`: a specifier; `pythons`: versions that it names, the best first. `extras`, `groups`: those that
    tests need. `packages`: requirement strings.

    `test_requirements`: requirements files for tests; `requirements`: the plain ones, for trees that say no more.
    `has_static_metadata`: dependencies can be read without building. `version`: of a released tree (PKG-INFO);
    `tagged`: a build backend wants it from a tag. `import_roots`: folders to import an uninstalled tree from ("" = the
    root). `members`: a workspace's other projects, with their extras. `build_requires`: of the build backend.
    `own_sources`: dependencies come from places that the tree names. `named`: every requirement that any list names,
    `optional`: those of extras. `constraints`: files of them, `locked`: the versions of a lock file, as requirements.
    `own`: how its tests are run. `text`: the files read."""

    installable: bool
    has_static_metadata: bool
    requires_python: str | None
    pythons: tuple[str, ...]
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    packages: tuple[str, ...]
    test_requirements: tuple[str, ...]
    requirements: tuple[str, ...]
    version: str | None
    tagged: bool
    import_roots: tuple[str, ...]
    members: tuple[str, ...]
    build_requires: tuple[str, ...]
    own_sources: bool
    configured: frozenset[str]
    named: tuple[str, ...]
    optional: tuple[str, ...]
    constraints: tuple[str, ...]
    locked: tuple[str, ...]
    own: OwnTests
    text: str


def read_project(paths: list[str], read: Callable[[str], bytes]) -> Project:
    """Read the tree of `paths`. Files that do not parse count as absent: set-up will say what is wrong with them."""
    there = set(paths)

    def text(path: str) -> str:
        return read(path).decode("utf-8", "replace") if path in there else ""

    pyproject, cfg, tox = toml_of(text("pyproject.toml")), ini_of(text("setup.cfg")), ini_of(text("tox.ini"))
    setup, pipfile = _setup_arguments(text("setup.py")), toml_of(text("Pipfile"))
    meta, tool = table_of(pyproject, "project"), table_of(pyproject, "tool")
    legacy = table_of(tool, "tox").get("legacy_tox_ini", "")
    ini = tox or ini_of(legacy if isinstance(legacy, str) else "") or cfg
    native = toml_of(text("tox.toml")) or table_of(tool, "tox")
    sources = table_of(tool, "uv.sources")
    application = table_of(tool, "poetry").get("package-mode") is False or table_of(tool, "uv").get("package") is False
    main = table_of(tool, "poetry.dependencies") if application and not meta else {}
    own = own_tests(paths, text, ini, native, tool, _nox_runs(text("noxfile.py")))
    lists: list[Lists] = [
        {"test": [*_installed(own.make)]},
        {"test": _poetry_requirements({**main, **table_of(pipfile, "packages"), **table_of(pipfile, "dev-packages")})},
        {"test": _tests_require(cfg, setup)},
        *_tables_of_tools(tool),
        _tox(ini, native),
        _nox(text("noxfile.py")),
    ]
    extras, groups = _extras(meta, tool, cfg, setup), table_of(pyproject, "dependency-groups")
    of_conda = _CONDA.findall(text("environment.yml"))
    conda = [name + re.sub(r"^=(?!=)([^=]*).*", r"==\1.*", wish) for name, wish in of_conda]
    split = (path.rpartition("/") for path in paths)
    folders = {folder for folder, _, name in split if folder and name in ("pyproject.toml", "setup.py", "setup.cfg")}
    stated, every = _Stated(extra=extras, group=groups, local=folders), _Stated()
    stated.pip((*(f"--extra={name}" for name in _chosen(extras)), *(f"--group={name}" for name in _chosen(groups))))
    for names in lists:
        for name, words in names.items():
            (stated if name in _chosen(names) else every).pip(words)
    every.pip(word for table in (extras, groups) for words in table.values() for word in strings_of(words))
    every.pip(line for p in paths if _REQUIREMENTS.match(p) for line in lines_of(text(p)) if line[0] != "-")
    paths_of = {_plain(name): str(at.get("path")) for name, at in sources.items() if isinstance(at, dict)}
    stated.pip(f"-e{paths_of[_plain(name)]}" for name in [*stated.said["package"]] if _plain(name) in paths_of)
    own_places = [f"--editable=./{folder}" for folder in stated.said["local"]]
    by_workflow = _Stated(extra=extras, group=groups, local=folders)
    by_workflow.pip(_installed(own.steps))
    lately = {name: None for name in by_workflow.said["package"] if not _NO_NEED.match(name.lower())}
    every.said["package"] |= lately
    requirements = [p for p in paths if _REQUIREMENTS.match(p) and not _TOO_MUCH.search(p.lower())]
    in_tests = [p for p in requirements if _TEST_REQUIREMENTS.search(p.lower())]
    in_tests.sort(key=lambda path: not _JUST_TESTS.search(path.lower()))
    named = [path for path in stated.said["file"] if path in there]
    in_dev = [p for p in requirements if _DEV_REQUIREMENTS.search(p.lower())]
    in_dev = in_dev or [p for p in requirements if re.search(r"^pytest\b", text(p), re.MULTILINE)]
    enough = in_tests or named or any(stated.said[kind] for kind in ("extra", "group", "package"))
    if not enough and not in_dev:
        named = [path for path in by_workflow.said["file"] if path in there]
        stated.said |= {"extra": by_workflow.said["extra"], "group": by_workflow.said["group"], "package": lately}
    (every if enough or "requirements.txt" in there else stated).pip(conda)
    test_files = dict.fromkeys((*in_tests, *([] if enough else in_dev), *named))
    plain = ("requirements.txt",) if "requirements.txt" in there else ()
    needs = (meta.get("dependencies"), cfg.get("options", {}).get("install_requires"), "install_requires" in setup)
    bare = not any((*needs, table_of(tool, "poetry.dependencies"), "dependencies" in strings_of(meta.get("dynamic"))))
    built = "setup.py" in there or "build-system" in pyproject or bool(meta or cfg.get("metadata"))
    installable = built and not application
    by_system = strings_of(table_of(pyproject, "build-system").get("requires"))
    imported = (m for m in setup.get("imports", ()) if not {f"{m}.py", f"{m}/__init__.py"} & there)
    build_requires = tuple(by_system) or tuple(map(package_of, imported))
    nested = [] if installable or application else sorted(f for f in folders if not _ELSEWHERE.search(f"{f}/"))
    inner = next((p for p in ("tests/pytest.ini", "test/pytest.ini") if p in there and not there & _PYTEST_FILES), "")
    own = replace(own, options=("-c", inner, "--rootdir=.", *own.options)) if inner else own
    plain_options = tuple(word for word in own.options if "doctest" not in word)
    by_pytest = inner or there & _PYTEST_FILES or "pytest" in tool or "tool:pytest" in cfg or "pytest" in tox
    read_files = ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "pytest.ini", inner, *requirements)
    settings = "\n".join(text(path) for path in read_files)
    workflows = [text(path) for path in paths if path.startswith(".github/workflows/")]
    constraints = dict.fromkeys((*stated.said["constraint"], *by_workflow.said["constraint"], "constraints.txt"))
    released = re.search(r"^Version:\s*([0-9][\w.+!-]*)\s*$", text("PKG-INFO"), re.MULTILINE)
    by_tag = _TAG_READERS.search(f"{build_requires}") or "use_scm_version" in settings or "versioneer.py" in there
    return Project(
        installable=installable,
        has_static_metadata=bool(meta) and not {"dependencies"} & {*strings_of(meta.get("dynamic"))},
        requires_python=_requires_python(meta, tool, cfg, setup),
        pythons=pythons(text, settings, workflows),
        extras=tuple(stated.said["extra"]),
        groups=tuple(stated.said["group"]),
        packages=(*_of_the_index(stated.said["package"], sources), *own_places),
        test_requirements=tuple(dict.fromkeys((*(plain if bare else ()), *test_files))) if installable else (),
        requirements=plain if installable else tuple(dict.fromkeys((*plain, *test_files))),
        version=released[1] if released else None,
        tagged=bool(by_tag) or table_of(tool, "pdm.version").get("source") == "scm",
        import_roots=("src", "") if any(p.startswith("src/") and p.endswith(".py") for p in paths) else ("",),
        members=_members(paths, strings_of(table_of(tool, "uv.workspace").get("members")) or nested, text),
        build_requires=build_requires,
        own_sources=bool(sources),
        configured=frozenset({"pytest"} if by_pytest else ()),
        named=tuple(_of_the_index({**stated.said["package"], **every.said["package"]}, sources)),
        optional=tuple(word for words in extras.values() for word in strings_of(words)),
        constraints=tuple(path for path in constraints if path in there),
        locked=locked(text),
        own=replace(own, paths=(), options=plain_options) if "testpaths" in settings else own,
        text=settings,
    )


class _Stated:
    """What lists ask for: `said` by kind (extra, group, file, package), each in the order in which it is stated."""

    def __init__(self, **known: Iterable[str]) -> None:
        """`known`: the extras and groups that there are; others are passed over."""
        self._known = {kind: {_plain(name): name for name in names} for kind, names in known.items()}
        self._known.setdefault("local", {})
        self.said: dict[str, dict[str, None]] = {kind: {} for kind in (*_OPTIONS.values(), "package")}

    def pip(self, words: Iterable[str]) -> None:
        """Arguments of pip, or of `uv sync`."""
        rest = iter(words)
        for raw in rest:
            word = re.sub(r"\{(?:toxinidir|tox_root)\}/", "", raw).strip()
            if word in ("-e", "--editable"):
                word = f"-e {next(rest, '')}"
            option, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
            if extras := _OWN_EXTRAS.fullmatch(word):
                kind, names = "extra", re.split(r"[,\s]+", extras[1].strip())
            elif option in _OPTIONS:
                kind, names = _OPTIONS[option], [(value or next(rest, "")).strip().removeprefix("./").rstrip("/")]
            elif word.startswith("./"):
                kind, names = "local", [word.removeprefix("./").rstrip("/")]
            else:
                fit = not word.startswith("-") and "{" not in word and _REQUIREMENT.fullmatch(word)
                kind, names = "package", [word] if fit else []
            if kind in self._known:
                names = [self._known[kind].get(_plain(name), "") for name in names]
            self.said[kind] |= dict.fromkeys(filter(None, names))


def project_folders(paths: Iterable[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The folders of the tree's projects: "" alone where the root is one (or nothing is), else the topmost ones."""
    there = set(paths)
    pyproject = toml_of(read("pyproject.toml").decode("utf-8", "replace")) if "pyproject.toml" in there else {}
    says = {*pyproject, *table_of(pyproject, "tool"), *table_of(pyproject, "tool.uv")}
    by_file = not there.isdisjoint(PROJECT_FILES) or any(map(_REQUIREMENTS.match, there))
    if by_file or says & {"project", "build-system", "poetry", "workspace"}:
        return ("",)
    split = (path.rpartition("/") for path in there if not _ELSEWHERE.search(path))
    found = {folder for folder, _, name in split if folder and name in (*PROJECT_FILES, "pyproject.toml")}
    return tuple(sorted(f for f in found if not any(f.startswith(f"{other}/") for other in found))) or ("",)


def _chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Of extras, groups, …: those of the first family that there is."""
    by_name = {_plain(name): name for name in names}
    families = (tuple(by_name[n] for n in by_name if family.fullmatch(n)) for family in FAMILIES)
    return next((family for family in families if family), ())


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _extras(meta: Table, tool: Table, cfg: Ini, setup: Table) -> dict[str, Any]:
    in_cfg = {name: lines_of(value) for name, value in cfg.get("options.extras_require", {}).items()}
    flit = table_of(tool, "flit.metadata.requires-extra")
    flit |= dict.fromkeys(table_of(tool, "setuptools.dynamic.optional-dependencies"))
    tables = (table_of(tool, "poetry.extras"), flit, in_cfg, table_of(setup, "extras_require"))
    return {
        name: words for table in (*tables, table_of(meta, "optional-dependencies")) for name, words in table.items()
    }


def _requires_python(meta: Table, tool: Table, cfg: Ini, setup: Table) -> str | None:
    poetry = table_of(tool, "poetry.dependencies").get("python")
    candidates = (
        meta.get("requires-python"),
        ",".join(_poetry_specifier(poetry)) if isinstance(poetry, str) else None,
        table_of(tool, "flit.metadata").get("requires-python"),
        cfg.get("options", {}).get("python_requires"),
        setup.get("python_requires"),
    )
    given = next((c for c in candidates if isinstance(c, str) and c.strip()), None)
    return None if given is None else re.sub(r"\s+", "", given).strip(",")


def _tables_of_tools(tool: Table) -> Iterator[Lists]:
    """The groups of Poetry, PDM, uv and hatch; of hatch, its own environment for tests and what others extend count."""
    poetry = table_of(tool, "poetry")
    groups = {name: table_of(table, "dependencies") for name, table in table_of(poetry, "group").items()}
    groups |= {"dev": poetry["dev-dependencies"]} if isinstance(poetry.get("dev-dependencies"), dict) else {}
    yield {name: _poetry_requirements(table) for name, table in groups.items()}
    yield {name: strings_of(words) for name, words in table_of(tool, "pdm.dev-dependencies").items()}
    yield {"dev": strings_of(table_of(tool, "uv").get("dev-dependencies"))}
    environments = table_of(tool, "hatch.envs")
    yield {"test" if name == "hatch-test" else name: _words(environments[name]) for name in environments}


def _words(environment: Any) -> list[str]:
    """What an environment of hatch or tox installs, by whichever name they call it."""
    known = environment if isinstance(environment, Mapping) else {}
    return [option + word for key, option in _KEYS.items() for word in strings_of(known.get(key))]


def _poetry_requirements(table: Table) -> list[str]:
    found = []
    for name, wish in table.items():
        details = wish if isinstance(wish, dict) else {"version": wish}
        version, marker, extras = (details.get(key) for key in ("version", "markers", "extras"))
        # A git or path dependency, or several, is not for a sandbox to guess.
        if isinstance(details.get("path"), str):
            found.append(f"--editable=./{details['path'].removeprefix('./')}")
        if name.lower() != "python" and isinstance(version, str):
            listed = ",".join(strings_of(extras))
            condition = f" ; {marker}" if isinstance(marker, str) else ""
            found.append(name + (f"[{listed}]" if listed else "") + ",".join(_poetry_specifier(version)) + condition)
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
    listed = [in_setup] if isinstance(in_setup, str) else strings_of(in_setup)
    return [r for r in (*lines_of(in_cfg.replace(";\n", "\n")), *listed) if re.match(r"[A-Za-z0-9]", r)]


def _tox(ini: Ini, native: Table) -> Lists:
    """What tox's environments install; the one without a name, on which others rest, is for tests."""
    lists: Lists = {"test": []}
    for section in ini:
        if section.partition(":")[0] == "testenv":
            name = re.sub(r"^testenv:?(?:py[\d{},.]*)?$|^testenv:", "", section) or "test"
            lists.setdefault(name, []).extend(_tox_section(ini, section))
    for name, table in (("test", native.get("env_run_base")), *table_of(native, "env").items()):
        lists.setdefault(re.sub(r"^py[\d.]*$", "test", name), []).extend(_words(table))
    return lists


def _tox_section(ini: Ini, section: str) -> Iterator[str]:
    """A line under a condition counts where the condition is about tests, or excludes something."""

    def value(key: str) -> Iterator[str]:
        text = ini[section].get(key, "")
        for _ in range(3):  # a reference may lead to another one
            text = _REFERENCE.sub(lambda to: ini.get(to[1], {}).get(to[2], ""), text, count=50)[:MOST_CHARS]
        for line in lines_of(text):
            condition, _, rest = line.partition(": ")
            if not rest or not re.fullmatch(r"[\w!.,{}-]+", condition):
                yield line
            elif re.search(r"(?<![\w-])(?:tests?|py)(?![\w-])|^!", condition):
                yield rest

    for line in value("deps"):
        yield from words_of(line) if line.startswith("-") else [line]
    for key, option in (("extras", "--extra="), ("dependency_groups", "--group=")):
        yield from (option + name for line in value(key) for name in re.split(r"[,\s]+", line) if name)
    yield from _installed([*value("commands_pre"), *value("commands")])


def _installed(commands: Iterable[str]) -> Iterator[str]:
    """What shell commands install."""
    for command in commands:
        if found := re.search(r"\b(?:pip3? install|uv sync)\s+([^&;|]*)", command):
            yield from words_of(found[1])


def _nox(text: str) -> Lists:
    """What sessions, and the functions that help them, install, as far as it is literal."""
    tree, lists = parsed(text), Lists()
    for function in (node for node in (tree.body if tree else ()) if isinstance(node, ast.FunctionDef)):
        into = lists.setdefault("test" if re.match("_|install", function.name) else function.name, [])
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            words = [w.value for w in call.args if isinstance(w, ast.Constant) and isinstance(w.value, str)]
            if _called(call.func) in ("install", "run_install", "run_always"):
                into += words
            elif _called(call.func) == "dependency_groups":
                into += [f"--group={word}" for word in words]
    return lists


def _nox_runs(text: str) -> str:
    """What its sessions run, as far as it is literal, a command a line."""
    calls = (node for node in ast.walk(parsed(text) or ast.Module([], [])) if isinstance(node, ast.Call))
    runs = (call.args for call in calls if _called(call.func) == "run")
    return "\n".join(shlex.join(str(w.value) for w in words if isinstance(w, ast.Constant)) for words in runs)


def _of_the_index(requirements: Iterable[str], sources: Table) -> list[str]:
    """Without those that the tree has from elsewhere (`tool.uv.sources`): the index may have strangers of that name."""
    elsewhere = {_plain(name) for name in sources}
    return [r for r in requirements if _plain(re.split(r"[^\w.-]", r, maxsplit=1)[0]) not in elsewhere]


def _members(paths: list[str], globs: list[str], text: Callable[[str], str]) -> tuple[str, ...]:
    """The other projects of a workspace as pip takes them: "./libs/core[test]"."""
    found = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name in ("pyproject.toml", "setup.py") and any(fnmatchcase(folder, g.strip("./")) for g in globs if folder):
            toml = toml_of(text(path))
            extras = _chosen(table_of(toml, "project.optional-dependencies"))
            if table_of(toml, "tool.uv").get("package") is not False:
                found.append(f"./{folder}" + (f"[{','.join(extras)}]" if extras else ""))
    return tuple(dict.fromkeys(found))


def _setup_arguments(text: str) -> dict[str, Any]:
    """The arguments of `setup(...)` that can be read: literals, names bound to literals, `extras[...] = …`."""
    names: dict[str, Any] = {}
    given: list[ast.keyword] = []
    imported: dict[str, None] = {}
    for node in ast.walk(parsed(text) or ast.Module([], [])):
        match node:
            case ast.Import(names=modules):
                imported |= dict.fromkeys(module.name.partition(".")[0] for module in modules)
            case ast.ImportFrom(module=str(module), level=0):
                imported[module.partition(".")[0]] = None
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _value(value, names)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key))]):
                if isinstance(table := names.get(name), dict):
                    table[key] = _value(node.value, names)
            case ast.Call() if _called(node.func) == "setup":
                given += node.keywords
    read = ("extras_require", "python_requires", "tests_require", "install_requires")
    others = [name for name in imported if name not in {*sys.stdlib_module_names, "setuptools", "pkg_resources"}]
    return {"imports": others, **{word.arg: _value(word.value, names) for word in given if word.arg in read}}


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _value(node: ast.expr, names: Table) -> Any:
    """The value as far as it is a literal: a dictionary keeps its keys even where its values are computed."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Dict):
        pairs = ((k.value, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant))
        return {key: _value(value, names) for key, value in pairs if isinstance(key, str)}
    try:
        return ast.literal_eval(node)
    except (TypeError, *FAILS):
        return None
