"""The official SWE-bench package as a source of facts: specifications, evaluation scripts, log parsers, rules.

The only module that imports `swebench` (extra `eval`), and never through a function of it that asks the network:
`make_test_spec` fetches requirement files from GitHub, so the parts that grading needs are put together here.

Importing the package as it is costs 1.4 s and 130 MB, nearly all of it for things that grading has no use for
(`datasets`, its own command line, a cloud client), and reads a `.env` file into this process's environment. So its two
package modules are entered without what they import, and two dependencies are stood in for meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import shlex
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError, words_of
from tasks.swebench import Row

TESTBED = "/testbed"
ENV_NAME = "testbed"

_PACKAGE = "swebench"
_WHAT_TO_TYPE = "SWE-bench needs the official package: pip install 'troop[eval]'"
_LANGUAGES = ("python", "javascript", "c", "go", "java", "php", "ruby", "rust")
_SCRIPT_HEAD = "#!/bin/bash\nset -uxo pipefail\n"  # as the official harness opens every evaluation script

_loading = threading.RLock()


@dataclass(frozen=True, slots=True)
class Spec:
    """How one version of a repository is installed and tested, as the official package has it.

    `packages`: requirements of the environment, as given to `conda create`; empty where they come from a file of the
    repository, the first that exists of `requirements_paths` or of `environment_paths`, at the instance's
    `environment_setup_commit`. `pip_packages`: installed with pip after those. `pre_install`: shell lines
    for `/testbed`. `install`: "" where nothing is installed. `capabilities`: added to a container's own.
    """

    python: str
    packages: tuple[str, ...]
    pip_packages: tuple[str, ...]
    pre_install: tuple[str, ...]
    install: str
    requirements_paths: tuple[str, ...]
    environment_paths: tuple[str, ...]
    replaced_packages: tuple[tuple[str, str], ...]
    capabilities: tuple[str, ...]


def version() -> str:
    """The official package's version. Raises InputError where it is not installed."""
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(_WHAT_TO_TYPE) from None


def spec_of(row: Row) -> Spec:
    """The specification of the row's repository and version. Raises InputError where the package knows none."""
    raw = _raw_spec(row)
    constants = _official("harness.constants")
    python = _official("harness.test_spec.python")
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


def eval_script(row: Row, *, install: bool = True) -> str:
    """The official evaluation script of a row, to be run with bash in its image; `install` False leaves out the
    repeated installation of the repository. Raises InputError for an unknown repository or version."""
    if row.eval_script:
        script = row.eval_script if row.eval_script.startswith("#!") else _SCRIPT_HEAD + row.eval_script
        return script if install else _without_install(row, script)
    specs = dict(_raw_spec(row))
    if not install:
        specs.pop("install", None)
    make = _official("harness.test_spec.create_scripts").make_eval_script_list
    instance = {"instance_id": row.instance_id, "repo": row.repo, "version": row.version, "test_patch": row.test_patch}
    try:
        lines = make(instance, specs, ENV_NAME, TESTBED, row.base_commit, row.test_patch)
    except Exception as error:  # whatever the package makes of the row, such as a test patch that is no diff
        what = f"{row.instance_id}: no evaluation script can be made of the row"
        raise InputError(f"{what}: {words_of(error)}") from error
    return _SCRIPT_HEAD + "\n".join(lines) + "\n"


def check(row: Row) -> None:
    """Raises InputError where the package cannot grade the row: unknown repository, version, parser or kind."""
    eval_script(row)
    _parser(row)
    _eval_type(row)


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
    return not _official("harness.utils").get_modified_files(row.test_patch)


def report_of(row: Row, log: Path) -> dict[str, Any]:
    """The official report on one instance: `{patch_is_None, patch_exists, patch_successfully_applied, resolved,
    tests_status: {FAIL_TO_PASS: {success, failure}, ...}}`. `log`: a file with the evaluation script's output.

    It is what the official `get_eval_report` says, but by the row's own parser and kind of evaluation where it names
    them. Raises InputError where no log parser is known for the row.
    """
    grading, constants = _official("harness.grading"), _official("harness.constants")
    report = {"patch_is_None": False, "patch_exists": True}
    # Universal newlines, as the official function reads its log.
    statuses = _statuses(row, log.read_text("utf-8"))
    if statuses is None:
        return {**report, "patch_successfully_applied": False, "resolved": False}
    wanted = {"FAIL_TO_PASS": list(row.fail_to_pass), "PASS_TO_PASS": list(row.pass_to_pass)}
    tests = grading.get_eval_tests_report(statuses, wanted, eval_type=_eval_type(row))
    resolved = grading.get_resolution_status(tests) == constants.ResolvedStatus.FULL.value
    return {**report, "patch_successfully_applied": True, "resolved": resolved, "tests_status": tests}


def _statuses(row: Row, text: str) -> Mapping[str, str] | None:
    """Test name -> status; None where the log holds no test run."""
    constants = _official("harness.constants")
    parse, spec = _parser(row), _test_spec(row)
    spoilt = (constants.APPLY_PATCH_FAIL, constants.RESET_FAILED, constants.TESTS_ERROR, constants.TESTS_TIMEOUT)
    start, end = constants.START_TEST_OUTPUT, constants.END_TEST_OUTPUT
    if any(code in text for code in spoilt) or start not in text or end not in text:
        return None
    found: Mapping[str, str] = parse(text.split(start)[1].split(end)[0], spec) or parse(text, spec)
    return found


def _parser(row: Row) -> Any:
    """The parser that the row names (a function of the package, or a repository), else its repository's."""
    name = row.log_parser or row.repo
    known = _official("harness.log_parsers").MAP_REPO_TO_PARSER
    if name in known:
        return known[name]
    for language in _LANGUAGES:
        module = _official(f"harness.log_parsers.{language}")
        if name.startswith("parse_log_") and hasattr(module, name):
            return getattr(module, name)
    raise InputError(f"{row.instance_id}: swebench {version()} has no log parser '{name}'")


def _eval_type(row: Row) -> Any:
    constants = _official("harness.constants")
    if not row.eval_type:
        fail_only = row.repo in constants.FAIL_ONLY_REPOS
        return constants.EvalType.FAIL_ONLY if fail_only else constants.EvalType.PASS_AND_FAIL
    try:
        return constants.EvalType(row.eval_type)
    except ValueError:
        known = ", ".join(kind.value for kind in constants.EvalType)
        raise InputError(f"{row.instance_id}: eval_type is '{row.eval_type}', not one of {known}") from None


def _raw_spec(row: Row) -> Mapping[str, Any]:
    versions = _official("harness.constants").MAP_REPO_VERSION_TO_SPECS.get(row.repo)
    if versions is None:
        raise InputError(f"{row.instance_id}: swebench {version()} has no specification for the repository {row.repo}")
    if row.version not in versions:
        raise InputError(f"{row.instance_id}: swebench {version()} does not know version '{row.version}' of {row.repo}")
    spec: Mapping[str, Any] = versions[row.version]
    return spec


def _test_spec(row: Row) -> Any:
    """What the official parsers read of a row; nothing in it that would have to be fetched."""
    constants = _official("harness.constants")
    return _official("harness.test_spec.test_spec").TestSpec(
        instance_id=row.instance_id,
        repo=row.repo,
        version=row.version,
        **{f"{name}_script_list": [] for name in ("repo", "eval", "env")},
        arch="x86_64",
        FAIL_TO_PASS=list(row.fail_to_pass),
        PASS_TO_PASS=list(row.pass_to_pass),
        language=constants.MAP_REPO_TO_EXT.get(row.repo, "py"),
        docker_specs={},
        namespace=None,
    )


def _without_install(row: Row, script: str) -> str:
    command = install_command(row)
    if not command:
        return script
    lines = script.split("\n")
    lines.remove(command)
    return "\n".join(lines)


def _lines(commands: str | list[str]) -> str:
    return commands if isinstance(commands, str) else "\n".join(commands)


# ---- import


def _official(name: str) -> Any:
    """A module of the official package, by its name below it. Raises InputError where the package is missing."""
    full = f"{_PACKAGE}.{name}"
    with _loading:  # also for what is loaded already: another thread may be half-way through it
        if full in sys.modules:
            return sys.modules[full]
        found = importlib.util.find_spec(_PACKAGE) if _PACKAGE not in sys.modules else None
        if _PACKAGE not in sys.modules and (found is None or not found.submodule_search_locations):
            raise InputError(_WHAT_TO_TYPE)
        try:
            with _lightly(found):
                return importlib.import_module(full)
        except ImportError as error:
            raise InputError(f"the official SWE-bench package cannot be imported ({error}): {_WHAT_TO_TYPE}") from error


@contextlib.contextmanager
def _lightly(found: Any) -> Iterator[None]:
    """Within: `swebench` and `swebench.harness` are packages without contents of their own, and what its modules import
    at their head, but grading never calls, is stood in for. Whatever is imported already is taken as it is."""
    if found is not None:
        root = found.submodule_search_locations[0]
        for name, place in ((_PACKAGE, root), (f"{_PACKAGE}.harness", f"{root}/harness")):
            package = types.ModuleType(name)
            package.__path__ = [place]
            sys.modules[name] = package
    stand_ins: dict[str, dict[str, Any]] = {
        "datasets": {"Dataset": object, "load_dataset": None, "load_from_disk": None},
        "dotenv": {"load_dotenv": lambda: False},
    }
    placed = [name for name in stand_ins if name not in sys.modules]
    for name in placed:
        module = types.ModuleType(name)
        vars(module).update(stand_ins[name])
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in placed:
            sys.modules.pop(name, None)
