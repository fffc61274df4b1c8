"""The official SWE-bench package as a source of facts: specifications, evaluation scripts, log parsers, rules.

Two releases of it are asked. Release 5 has today's rules (`Rules` "5"); release 4.1 has yesterday's ("4.1") and, alone,
the specifications of the rows of its time, which say nothing of how they are installed and tested. They cannot be
installed together, so the one that is not installed is fetched once from the package index, without what it depends on,
and kept in the cache; and their modules, which bear the same names, are loaded apart.

The only module that imports `swebench`, and never through a function of it that asks the network: `make_test_spec` of
4.1 fetches requirement files, so the parts that grading needs are put together here. Importing the package as it is
costs 1.4 s and 130 MB, nearly all of it for things that grading has no use for (`datasets`, its own command line, a
cloud client), and reads a `.env` file into this process's environment. So its two package modules are entered without
what they import, and two dependencies are stood in for meanwhile.
"""

import contextlib
import importlib
import importlib.metadata
import json
import shlex
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.cache import cache_root
from harness.swebench import suite_parsers
from tasks.errors import InputError, TroopError, words_of
from tasks.package import unpack
from tasks.places import made_whole
from tasks.swebench import TREE, Row

Rules = Literal["5", "4.1"]

_PACKAGE = "swebench"
_WHAT_TO_TYPE = "SWE-bench's rules need a few packages: pip install requests tqdm unidiff datasets"
_LANGUAGES = ("python", "javascript", "c", "go", "java", "php", "ruby", "rust")
_SCRIPT_HEAD = "#!/bin/bash\nset -uxo pipefail\n"  # as the official harness opens every evaluation script

_loading = threading.RLock()


@dataclass(slots=True)
class _Release:
    """One release of the package and its modules, which are among those of the process only while they are loaded.
    `sha256`: of its source distribution on the package index."""

    version: str
    sha256: str
    modules: dict[str, types.ModuleType] = field(default_factory=dict)

    def module(self, name: str) -> Any:
        """A module of the package, by its name below it. Raises InputError where the package is not to be had."""
        full = f"{_PACKAGE}.{name}"
        with _loading:
            if full not in self.modules:
                if not self.modules:
                    root = self.root()
                    for package, place in ((_PACKAGE, root), (f"{_PACKAGE}.harness", root / "harness")):
                        self.modules[package] = types.ModuleType(package)
                        self.modules[package].__path__ = [str(place)]
                with self._among_the_loaded():
                    try:
                        importlib.import_module(full)
                    except ImportError as error:
                        what = f"the official SWE-bench package {self.version} cannot be imported ({error})"
                        raise InputError(f"{what}: {_WHAT_TO_TYPE}") from error
            return self.modules[full]

    def root(self) -> Path:
        """The package's directory: where it is installed, else in the cache, into which it is fetched."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if importlib.metadata.version(_PACKAGE) == self.version:
                return Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_PACKAGE)))
        kept = cache_root() / _PACKAGE / self.version
        if not kept.is_dir():
            self._fetch(kept)
        return kept / _PACKAGE

    def _fetch(self, kept: Path) -> None:
        with made_whole(kept, kept.parent) as made:
            try:
                said = unpack(f"{_PACKAGE}=={self.version}", made)
                if not said.endswith(self.sha256):
                    raise InputError(f"it is not what was released: {said}")
            except TroopError as error:
                what = f"swebench {self.version}, whose rules and specifications are wanted, cannot be fetched"
                hint = f"see to the package index, or pip install swebench=={self.version}"
                raise InputError(f"{what} ({error}): {hint}") from error

    @contextlib.contextmanager
    def _among_the_loaded(self) -> Iterator[None]:
        """Within: the process's modules of that name are this release's, and what they import at their head, but
        grading never calls, is stood in for. Whatever else is imported already is taken as it is."""
        stand_ins: dict[str, dict[str, Any]] = {
            "datasets": {"Dataset": object, "load_dataset": None, "load_from_disk": None},
            "dotenv": {"load_dotenv": lambda: False},
        }
        others = _taken()
        placed = [name for name in stand_ins if name not in sys.modules]
        for name in placed:
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update(stand_ins[name])
        sys.modules.update(self.modules)
        try:
            yield
        finally:
            for name in placed:
                sys.modules.pop(name, None)
            self.modules.update(_taken())
            sys.modules.update(others)


def _taken() -> dict[str, types.ModuleType]:
    """The modules of any release that the process has, which it has no more."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == _PACKAGE}


_FIVE = _Release("5.0.2", "faae7b1307b8188e842e78ef5826cf0d64fa78486adc41e3414f9533b9e0d7eb")
_FOUR = _Release("4.1.0", "5aaa6a92c2db1aa64892d28a47483ca46a45a15cf1d2df673d7744f71811dc9a")
RELEASES: Mapping[Rules, _Release] = {"5": _FIVE, "4.1": _FOUR}


@dataclass(frozen=True, slots=True)
class Spec:
    """How one version of a repository is installed and tested, as the official package has it.

    `packages`: requirements of the environment, as given to `conda create`; empty where they come from a file of the
    repository, the first that exists of `requirements_paths` or of `environment_paths`, at the instance's
    `environment_setup_commit`. `pip_packages`: installed with pip after those. `pre_install`: shell lines
    for `/testbed`. `install`: "" where nothing is installed. `capabilities`: added to a container's own."""

    python: str
    packages: tuple[str, ...]
    pip_packages: tuple[str, ...]
    pre_install: tuple[str, ...]
    install: str
    requirements_paths: tuple[str, ...]
    environment_paths: tuple[str, ...]
    replaced_packages: tuple[tuple[str, str], ...]
    capabilities: tuple[str, ...]


def rules_of(said: str) -> tuple[Rules, ...]:
    """What `--rules` says: the verdict's rules first."""
    known: Mapping[str, tuple[Rules, ...]] = {"5": ("5",), "4.1": ("4.1",), "both": ("5", "4.1")}
    return known[said]


def versions(rules: tuple[Rules, ...]) -> str:
    """The releases whose rules these are, for a report. Raises InputError where one of them is not to be had."""
    for each in rules:
        RELEASES[each].root()
    return " and ".join(RELEASES[each].version for each in rules)


def spec_of(row: Row) -> Spec:
    """The specification of the row's repository and version. Raises InputError where the package knows none."""
    raw = _raw_spec(row)
    constants = _FOUR.module("harness.constants")
    python = _FOUR.module("harness.test_spec.python")
    packages = str(raw.get("packages", ""))
    from_requirements, from_environment = packages == "requirements.txt", packages == "environment.yml"
    run_arguments = raw.get("docker_specs", {}).get("run_args", {})
    return Spec(
        python=str(raw.get("python", "")),
        packages=() if from_requirements or from_environment else tuple(shlex.split(packages)),
        pip_packages=tuple(raw.get("pip_packages", ())),
        pre_install=tuple(raw.get("pre_install", ())),
        install=_lines(raw.get("install", "")),
        requirements_paths=tuple(constants.MAP_REPO_TO_REQS_PATHS.get(row.repo, ())) if from_requirements else (),
        environment_paths=tuple(constants.MAP_REPO_TO_ENV_YML_PATHS.get(row.repo, ())) if from_environment else (),
        replaced_packages=tuple((old, new) for old, new in python.REPLACE_REQ_PACKAGES),
        capabilities=tuple(run_arguments.get("cap_add", ())),
    )


def eval_script(row: Row, *, install: bool = True, rules: Rules = "5") -> str:
    """The official evaluation script of a row, to be run with bash in its image; `install` False leaves out the
    repeated installation of the repository. By today's rules it tells the tests' exit code after its end marker, that
    of an old row too. Raises InputError for an unknown repository or version."""
    if row.eval_script:
        script = row.eval_script if row.eval_script.startswith("#!") else _SCRIPT_HEAD + row.eval_script
        command = "" if install else install_command(row)
        script = script.replace(f"\n{command}\n", "\n", 1) if command else script
    else:
        script = _script_of_spec(row, install)
    if rules == "4.1" or _FIVE.module("harness.constants").TEST_EXIT_CODE in script:
        return script
    return "\n".join(_FIVE.module("harness.utils").record_test_exit_code(script.split("\n")))


def _script_of_spec(row: Row, install: bool) -> str:
    specs = dict(_raw_spec(row))
    if not install:
        specs.pop("install", None)
    make = _FOUR.module("harness.test_spec.create_scripts").make_eval_script_list
    repo = f"{row.repo} of {row.instance_id}" if row.spec else row.repo
    if row.spec:
        constants = _FOUR.module("harness.constants")
        constants.MAP_REPO_TO_EXT[repo], constants.MAP_REPO_VERSION_TO_SPECS[repo] = "py", {row.version: specs}
    instance = {"instance_id": row.instance_id, "repo": repo, "version": row.version, "test_patch": row.test_patch}
    try:
        lines = make(instance, specs, "testbed", TREE, row.base_commit, row.test_patch)
    except Exception as error:  # whatever the package makes of the row, such as a test patch that is no diff
        what = f"{row.instance_id}: no evaluation script can be made of the row"
        raise InputError(f"{what}: {words_of(error)}") from error
    return _SCRIPT_HEAD + "\n".join(lines) + "\n"


def check(row: Row, rules: Rules = "5") -> None:
    """Raises InputError where the package cannot grade the row: unknown repository, version, parser or kind."""
    eval_script(row, rules=rules)
    _parser(row, rules)
    _eval_type(row, rules)


def install_command(row: Row) -> str:
    """The installation that the evaluation script repeats; "" where it holds none that is known."""
    try:
        command = _lines(_raw_spec(row).get("install", ""))
    except InputError:
        if not row.eval_script:
            raise
        return ""
    return command if not row.eval_script or command in row.eval_script.splitlines() else ""


def checks_out_all(row: Row) -> bool:
    """Whether the evaluation script's `git checkout <base>` names no files, and so takes the whole tree back: it does
    where a test patch changes no file that exists."""
    if row.eval_script:
        return any(line.split() == ["git", "checkout", row.base_commit] for line in row.eval_script.splitlines())
    return not _FOUR.module("harness.utils").get_modified_files(row.test_patch)


def report_of(row: Row, log: Path | str, rules: Rules = "5") -> dict[str, Any]:
    """The official report on one instance: `{patch_is_None, patch_exists, patch_successfully_applied, resolved,
    tests_status: {FAIL_TO_PASS: {success, failure}, ...}}`; by today's rules also `infra_failure` and its reason.
    `log`: the script's output, as a file of UTF-8 or as text. Raises InputError where no log parser is known."""
    if isinstance(log, str):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".log") as file:
            file.write(log)
            file.flush()
            return report_of(row, Path(file.name), rules)
    tests = {"FAIL_TO_PASS": list(row.fail_to_pass), "PASS_TO_PASS": list(row.pass_to_pass)}
    if rules == "4.1":
        return _former_report(row, log, tests)
    place = {"instance_id": row.instance_id, "repo": row.repo, "version": row.version, "image": ""}
    spec = _FIVE.module("types").TestSpec(**place, **tests, **parsing_of(row), eval_script_list=[])
    prediction = {"instance_id": row.instance_id, "model_patch": ""}
    report = _FIVE.module("harness.grading").get_eval_report(spec, prediction, str(log), include_tests_status=True)
    return dict(report[row.instance_id])


def parsing_of(row: Row) -> dict[str, str]:
    """`log_parser` and `eval_type` of a row, as release 5 names them; an old row's are those of its repository."""
    return {"log_parser": _parser(row, "5").__name__, "eval_type": _eval_type(row, "5").value}


def exit_code(log: str) -> int | None:
    """What the evaluation script says of its tests' exit code; None where it says nothing."""
    found: int | None = _FIVE.module("harness.grading").parse_test_exit_code(log)
    return found


def _former_report(row: Row, log: Path, wanted: Mapping[str, list[str]]) -> dict[str, Any]:
    """What `get_eval_report` of 4.1 says of one instance, which knows no parser and kind of the row's own."""
    grading, constants = _FOUR.module("harness.grading"), _FOUR.module("harness.constants")
    report = {"patch_is_None": False, "patch_exists": True}
    parse = _parser(row, "4.1")
    text = log.read_text("utf-8")  # universal newlines, as there
    spoilt = (constants.APPLY_PATCH_FAIL, constants.RESET_FAILED, constants.TESTS_ERROR, constants.TESTS_TIMEOUT)
    start, end = constants.START_TEST_OUTPUT, constants.END_TEST_OUTPUT
    if any(code in text for code in spoilt) or start not in text or end not in text:
        return {**report, "patch_successfully_applied": False, "resolved": False}
    spec = types.SimpleNamespace(repo=row.repo, version=row.version, instance_id=row.instance_id)
    statuses = parse(text.split(start)[1].split(end)[0], spec) or parse(text, spec)
    tests = grading.get_eval_tests_report(statuses, wanted, eval_type=_eval_type(row, "4.1"))
    resolved = grading.get_resolution_status(tests) == constants.ResolvedStatus.FULL.value
    return {**report, "patch_successfully_applied": True, "resolved": resolved, "tests_status": tests}


def _parser(row: Row, rules: Rules) -> Any:
    """The parser that the row names (a function of the package, or a repository), else its repository's."""
    name = row.log_parser or row.repo
    if name == suite_parsers.RESULTS or name.startswith(suite_parsers.MULTI):
        return _FIVE.module("harness.log_parsers").PARSER_REGISTRY.setdefault(name, suite_parsers.parser_of(name))
    if not name.startswith("parse_log_"):
        by_repository = _FOUR.module("harness.log_parsers").MAP_REPO_TO_PARSER
        name = by_repository[name].__name__ if name in by_repository else name
    if rules == "5":
        found = _FIVE.module("harness.log_parsers").PARSER_REGISTRY.get(name)
    else:
        modules = (_FOUR.module(f"harness.log_parsers.{language}") for language in _LANGUAGES)
        found = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
    if found is None:
        raise InputError(f"{row.instance_id}: swebench {RELEASES[rules].version} has no log parser '{name}'")
    return found


def _eval_type(row: Row, rules: Rules) -> Any:
    constants = RELEASES[rules].module("harness.constants")
    if not row.eval_type:
        fail_only = row.repo in constants.FAIL_ONLY_REPOS
        return constants.EvalType.FAIL_ONLY if fail_only else constants.EvalType.PASS_AND_FAIL
    try:
        return constants.EvalType(row.eval_type)
    except ValueError:
        known = ", ".join(kind.value for kind in constants.EvalType)
        raise InputError(f"{row.instance_id}: eval_type is '{row.eval_type}', not one of {known}") from None


def _raw_spec(row: Row) -> Mapping[str, Any]:
    if row.spec:
        return dict(json.loads(row.spec))
    versions = _FOUR.module("harness.constants").MAP_REPO_VERSION_TO_SPECS.get(row.repo)
    release = f"{row.instance_id}: swebench {_FOUR.version}"
    if versions is None:
        raise InputError(f"{release} has no specification for the repository {row.repo}")
    if row.version not in versions:
        raise InputError(f"{release} does not know version '{row.version}' of {row.repo}")
    spec: Mapping[str, Any] = versions[row.version]
    return spec


def _lines(commands: str | list[str]) -> str:
    return commands if isinstance(commands, str) else "\n".join(commands)
