"""How a repository runs its tests itself, read off where it says so: tox, hatch, PDM, Poe, nox, a Makefile or justfile,
GitHub's workflows. Nothing is executed."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.environments.tables import Ini, Table, lines_of, strings_of, table_of, words_of
from harness.patches.paths import pytest_collects
from harness.sandbox.base import WORKDIR

_RUNS = re.compile(r"(?<![\w-])(?:py\.?test|-m unittest|manage\.py test|django(?:-admin)? test|runtests\.py)(?![\w-])")
_DEFAULTS = re.compile(r"\{(?:posargs|args):?([^{}]*)\}")
_ARGUMENTS = re.compile(r"\$\{?@\}?|\$[({]\w*(?:ARGS|OPTS|args)[)}]")
_PYTHON = re.compile(r"\$[({](?:PYTHON|PY|python|VENV_PYTHON)[)}]|\$\{?PYTHON\}?")
_ROOT = re.compile(r"\{(?:toxinidir|tox_root|root)(?::uri)?\}|\$\(pwd\)|\$\((?:PWD|CURDIR)\)|\$\{?PWD\}?|`pwd`")
_ASSIGNED = re.compile(r"(?<![\w-])([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&|]*)")
_PASSED_ON = r"(?:\$[({]?PYTHONPATH[)}]?|\{env:PYTHONPATH:?\})"
_RULE = re.compile(r"^([\w-]+)[^:\n=]*:([^=\n]*)\n((?:[ \t]+.*\n?)*)", re.MULTILINE)
_FOR_TESTS = re.compile(r"tests?|check|unittests?")
_BEFORE = re.compile(
    r"(?:set-?up|install|dev|develop|deps|dependencies|init|bootstrap|requirements|env|venv)(?:[-_].*)?"
)
_NO_NEED = re.compile(r"PYTHON|PYTEST|COVERAGE|PIP_|UV_|TOX_|VIRTUALENV|CI$|GITHUB_|.*COLOR")
_EXPORT = re.compile(r"^(?:tests?:\s*)?export\s+(\w+)\s*[:?]?=\s*(\S+)", re.MULTILINE)
_ENV = re.compile(r"^( *)env:\s*\n((?:\1 +[A-Za-z_]\w*:.*\n)+)", re.MULTILINE)
_OTHER = re.compile(r"-m (unittest\b.*|django test\b.*)|([\w./-]*(?:manage\.py test|runtests\.py)(?![\w-]).*)")
_STEP = re.compile(r"^\s*(?:-\s+)?(?:run:\s*)?[|>]?\s*")
_KEPT = re.compile(r"--(?:doctest-(?:modules|glob|plus)|import-mode|asyncio-mode|ds)(?:=.*)?")


@dataclass(frozen=True, slots=True)
class OwnTests:
    """`options`: pytest's that decide what is a test. `paths`: the folders that pytest is told to look into. `command`:
    another framework's ("": none is named). `make`, `steps`: the shell commands of a Makefile's or justfile's rules for
    tests, and those of workflows and of rules that prepare for work. `by_workflow`, `variables`: set for the tests
    by workflows, and by the other tools, by name."""

    options: tuple[str, ...]
    paths: tuple[str, ...]
    command: str
    make: tuple[str, ...]
    steps: tuple[str, ...]
    by_workflow: Mapping[str, str]
    variables: Mapping[str, str]


def own_tests(paths: list[str], text: Callable[[str], str], ini: Ini, native: Table, tool: Table, nox: str) -> OwnTests:
    """Read it. `text` gives a file ("" where there is none), `ini` and `native` tox's settings, `nox` commands of its
    sessions."""
    make, early = (
        [r for name in ("Makefile", "justfile") for r in _recipes(text(name), of)] for of in (_FOR_TESTS, _BEFORE)
    )
    workflows = [text(path) for path in paths if path.startswith(".github/workflows/")]
    told = [w for w in workflows if _RUNS.search(w) or re.search(r"\b(?:make|just|tox|nox|hatch)\b.*\btest|\btox\b", w)]
    steps = [_STEP.sub("", line) for workflow in told for line in workflow.splitlines()]
    own = [_clean(line) for line in (*_tox(ini, native), *_scripts(tool), *nox.splitlines(), *make)]
    lines = (*own, *map(_clean, steps))
    parts = (command for line in lines for command in re.split(r"\s*(?:&&|\|\|?|;)\s*", line))
    runs = [
        command for command in parts if _RUNS.search(command) and not re.search(r"\b(?:install|add|sync) ", command)
    ]
    by_pytest = next((command for command in runs if re.search(r"(?<![\w-])py\.?test\b(?!-)", command)), "")
    options, folders = _pytest(by_pytest, paths)
    others = filter(None, map(_other, runs))
    tools = {**_set(ini, native, tool), **dict(_EXPORT.findall(text("Makefile"))), **_before_runs(own)}
    rows = (row for workflow in told for _, block in _ENV.findall(workflow) for row in block.splitlines())
    by_workflow = {name.strip(): value for name, _, value in (row.partition(":") for row in rows)} | _before_runs(steps)
    by_make, by_steps = (tuple(map(_clean, lines)) for lines in (make, (*steps, *early)))
    return OwnTests(options, folders, next(others, ""), by_make, by_steps, _plain(by_workflow), _plain(tools))


def assigned(tests: OwnTests, sources: Iterable[bytes]) -> list[str]:
    """The assignments of those variables that the code cannot do without (`environ["NAME"]`), of those that tools set
    and it mentions, and of what Django and Python read: of PYTHONPATH what is no import root anyway."""
    texts, found = list(sources), dict[str, str]()
    for name, value in {**tests.by_workflow, **tests.variables}.items():
        word = re.escape(name.encode())
        asked = rb"environ\[\s*['\"]%s['\"]\s*\](?!\s*=[^=])" % word
        if name in tests.variables:
            asked += rb"|environ.{0,20}['\"]%s['\"]|getenv\(\s*['\"]%s['\"]" % (word, word)
        if name == "DJANGO_SETTINGS_MODULE" or (not _NO_NEED.match(name) and any(re.search(asked, t) for t in texts)):
            found[name] = value
    folders = {**tests.by_workflow, **tests.variables}.get("PYTHONPATH", "").removeprefix(WORKDIR).split(":")
    plain = [folder.removeprefix(WORKDIR).strip("./") for folder in folders]
    places = ":".join(f"{WORKDIR}/{folder}" for folder in plain if folder not in ("", "src"))
    return [
        f"{name}={shlex.quote(value)}" for name, value in (({"PYTHONPATH": places} if places else {}) | found).items()
    ]


def _before_runs(lines: Iterable[str]) -> dict[str, str]:
    """What stands before the commands that run tests."""
    found = ((line, _RUNS.search(line)) for line in lines)
    return {name: value for line, run in found if run for name, value in _ASSIGNED.findall(line[: run.start()])}


def _plain(variables: Mapping[str, str]) -> dict[str, str]:
    """Those whose value is known."""
    values = {name: _ROOT.sub(WORKDIR, value.strip().strip("\"'")) for name, value in variables.items()}
    values = {name: re.sub(rf":{_PASSED_ON}|{_PASSED_ON}:", "", value) for name, value in values.items()}
    return {name: value for name, value in values.items() if value and not re.search(r"[${}`\n]", value)}


def _clean(line: str) -> str:
    return _PYTHON.sub("python", _ARGUMENTS.sub("", _DEFAULTS.sub(r" \1 ", line))).strip().lstrip("@-").strip()


def _tox(ini: Ini, native: Table) -> Iterator[str]:
    yield from lines_of(re.sub(r"\\\n", " ", ini.get("testenv", {}).get("commands", "")))
    for words in table_of(native, "env_run_base").get("commands", ()):
        yield " ".join(strings_of(words))


def _scripts(tool: Table) -> Iterator[str]:
    """The scripts of hatch, PDM and Poe that are called after tests."""
    tables = [table_of(env, "scripts") for env in table_of(tool, "hatch.envs").values() if isinstance(env, dict)]
    for table in (*tables, table_of(tool, "pdm.scripts"), table_of(tool, "poe.tasks")):
        for name, script in table.items():
            said: Any = script.get("cmd") or script.get("shell") if isinstance(script, dict) else script
            if re.match(r"_?(?:unit)?tests?\b", name):
                yield from (line for line in ([said] if isinstance(said, str) else said or ()) if isinstance(line, str))


def _recipes(text: str, called: re.Pattern[str]) -> Iterator[str]:
    """What the rules that are called so, and those that these need, run."""
    rules = [(name, needs.split(), body) for name, needs, body in _RULE.findall(re.sub(r"\\\n", " ", text))]
    needed = {n for name, needs, _ in rules if called.fullmatch(name) for n in (name, *needs)}
    return (line.strip() for name, _, body in rules if name in needed for line in body.splitlines())


def _set(ini: Ini, native: Table, tool: Table) -> dict[str, str]:
    """What tox and hatch set for tests."""
    section = ini.get("testenv", {})
    rows = lines_of(f"{section.get('setenv', '')}\n{section.get('set_env', '')}")
    found: dict[str, Any] = {name.strip(): value for name, _, value in (row.partition("=") for row in rows)}
    named = (env for name, env in table_of(native, "env").items() if re.fullmatch(r"py[\d.]*|tests?", name))
    for env in (table_of(native, "env_run_base"), *named):
        found |= table_of(env, "set_env")
    for name in ("default", "test", "hatch-test"):
        found |= table_of(tool, f"hatch.envs.{name}.env-vars")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _pytest(command: str, paths: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options that decide what is a test, and the folders that are named, if most test files lie there or modules
    are tests: the value of an option may be one, too."""
    words = words_of(re.sub(r".*?(?<![\w-])py\.?test\b", "", command, count=1))
    options = tuple(word for word in words if _KEPT.fullmatch(word))
    folders = [word.strip("./") + "/" for word in words if word[:1] not in ("-", "")]
    found = tuple(dict.fromkeys(f for f in folders if len(f) > 1 and any(path.startswith(f) for path in paths)))
    tests = [path for path in paths if pytest_collects(path)]
    modules = "--doctest-modules" in options and (found or not tests)
    if modules or 2 * sum(path.startswith(found) for path in tests) > len(tests):
        return options, tuple(folder.rstrip("/") for folder in found)
    return tuple(word for word in options if "doctest" not in word), ()


def _other(command: str) -> str:
    """A command of another framework as it is run here: without what starts it (uv run, coverage run); "" for none."""
    found = _OTHER.search(command)
    if found is None or re.search(r"[|;&<>$`{}]", found[0]):
        return ""
    plain = re.sub(r" (?:-v+|--verbose|-W \S+|--verbosity[= ]\d)(?= |$)", "", found[1] or found[2]).strip()
    return f"python -m {plain}" if found[1] else f"python {plain.removeprefix('./')}"
