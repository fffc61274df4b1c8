"""Set-up detection: what a tree's own files say about installing and testing it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from harness.environments.detect import Detected, detect, given_environment, runnable_day, system_packages, version_of
from harness.environments.environment import _shown
from harness.environments.project import Project, read_project
from harness.testing.runners.registry import USUAL_COMMAND as PYTEST_COMMAND

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD = datetime(2019, 5, 4, tzinfo=UTC)


def project(files: Mapping[str, str]) -> Project:
    return read_project(sorted(files), lambda path: files[path].encode())


def detected(files: Mapping[str, str], date: datetime | None = None, python: str | None = None) -> Detected:
    return detect(files, lambda path: files[path].encode(), date=date, now=NOW, python=python)


def commands(found: Detected) -> list[str]:
    return [command for step in found.steps for command in step.commands]


def first_install(found: Detected) -> str:
    return next(c for c in commands(found) if " pip install " in c)


def test_a_package_is_installed_editable_with_its_test_extra() -> None:
    files = {
        "pyproject.toml": (
            '[build-system]\nrequires=["hatchling"]\n[project]\nname="x"\nrequires-python=">=3.9"\n'
            '[project.optional-dependencies]\ntest=["pytest"]\ndocs=["sphinx"]\n'
        ),
        "tests/test_x.py": "",
    }
    found = detected(files)
    assert "-e '.[test]'" in first_install(found)
    assert "--python '>=3.9' " in found.steps[0].commands[0]
    assert found.test_command == PYTEST_COMMAND


def test_every_way_of_installing_is_told_as_one_would_type_it() -> None:
    found = detected({"setup.py": "from setuptools import setup\nsetup(name='x')\n"}, date=OLD)
    told = [_shown(way) for step in found.steps if step.installs for way in step.commands]
    assert "pip install pip setuptools wheel && pip install --no-build-isolation -e ." in told
    assert not [way for way in told if "/" in way or "--exclude-newer" in way]


def test_without_a_test_extra_the_dev_extra_counts() -> None:
    assert project({"setup.cfg": "[options.extras_require]\ndev =\n    pytest\ndocs = sphinx\n"}).extras == ("dev",)


def test_test_and_dev_together_mean_test_only() -> None:
    assert project({"setup.py": "setup(extras_require={'dev': [], 'tests': []})"}).extras == ("tests",)


def test_extras_of_a_setup_py_are_read_without_running_it() -> None:
    text = (
        "import os\nraise SystemExit\nextras = {'test': deps()}\nextras['x'] = []\nsetup(extras_require=extras,"
        " python_requires='>= 3.6')"
    )
    found = project({"setup.py": text})
    assert found.extras == ("test",)
    assert found.requires_python == ">=3.6"


def test_a_setup_py_that_does_not_parse_is_no_error() -> None:
    found = project({"setup.py": "print 'python 2'"})
    assert found.installable and found.extras == ()


def test_a_dependency_group_is_installed_as_a_group() -> None:
    text = '[build-system]\nrequires=[]\n[project]\nname="x"\nversion="1"\n[dependency-groups]\ntests=["pytest"]\nlint=["ruff"]\n'
    assert "-e . --group tests" in first_install(detected({"pyproject.toml": text}))


def test_poetry_groups_become_requirements() -> None:
    text = (
        '[build-system]\nrequires=["poetry-core"]\n[tool.poetry.dependencies]\npython="^3.8"\n'
        '[tool.poetry.group.dev.dependencies]\npytest="^7.2"\nrich="~1.4"\nmock="*"\nlocal={path="x"}\ntox="3.1"\n'
    )
    found = project({"pyproject.toml": text})
    assert found.packages == ("pytest>=7.2,<8", "rich>=1.4,<1.5", "mock", "tox==3.1")
    assert found.requires_python == ">=3.8,<4"


def test_a_caret_below_one_keeps_the_first_number_that_is_not_zero() -> None:
    text = '[tool.poetry.dev-dependencies]\na="^0.2.3"\nb="^0.0.3"\nc="^1.2 || ^2.0"\n'
    assert project({"pyproject.toml": text}).packages == ("a>=0.2.3,<0.3", "b>=0.0.3,<0.0.4", "c>=2.0,<3")


@pytest.mark.parametrize(
    "path",
    [
        "requirements-test.txt",
        "test-requirements.txt",
        "requirements/tests.txt",
        "tests/requirements.txt",
        "requirements_testing.txt",
    ],
)
def test_requirements_files_for_tests_are_installed_with_the_project(path: str) -> None:
    found = detected({"setup.py": "setup()", path: "pytest", "requirements-docs.txt": "sphinx"})
    assert f"-e . -r {path}" in first_install(found)


def test_requirements_for_development_count_where_nothing_is_said_of_tests() -> None:
    assert project({"setup.py": "", "requirements-dev.txt": ""}).test_requirements == ("requirements-dev.txt",)
    both = {"setup.py": "setup(extras_require={'test': []})", "requirements-dev.txt": ""}
    assert project(both).test_requirements == ()


def test_what_tox_installs_is_added_to_what_an_extra_names() -> None:
    tox = (
        "[testenv]\ndeps =\n    pytest>=3\n    -r{toxinidir}/reqs.txt\n    django20: Django<2.1\n    -e .\n   "
        " {posargs}\n"
    )
    found = project({"setup.py": "setup()", "tox.ini": tox, "reqs.txt": ""})
    assert found.packages == ("pytest>=3",)
    assert found.test_requirements == ("reqs.txt",)
    named = project({"setup.py": "setup(extras_require={'test': []})", "tox.ini": tox, "reqs.txt": ""})
    assert named.packages == ("pytest>=3",) and named.extras == ("test",)


def test_a_tree_without_packaging_is_put_on_the_import_path() -> None:
    found = detected({"requirements.txt": "attrs", "src/app.py": "", "tests/test_app.py": ""})
    assert any("-r requirements.txt" in c for c in commands(found))
    path = next(c for c in commands(found) if ".pth" in c)
    assert path.startswith("printf '%s\\n' /testbed/src /testbed >")
    assert not any("-e ." in c for c in commands(found))


def test_a_pyproject_that_only_configures_tools_is_no_package() -> None:
    assert not project({"pyproject.toml": "[tool.black]\nline-length = 100\n"}).installable


def test_an_application_that_cannot_be_built_gets_its_dependencies_at_last() -> None:
    text = '[project]\nname="x"\nversion="1"\ndependencies=["attrs"]\n'
    found = detected({"pyproject.toml": text, "one.py": "", "two/__init__.py": ""})
    install = next(step for step in found.steps if any("-e ." in c for c in step.commands))
    assert "-r pyproject.toml && printf" in install.commands[-1]
    assert not any(".pth" in c for c in install.commands[:-1])
    assert "only its dependencies" in install.notes[-1]


def test_an_old_tree_first_gets_dependencies_of_its_time_and_newer_build_tools() -> None:
    found = detected({"setup.py": "setup()"}, date=OLD)
    install = next(step for step in found.steps if any("-e ." in c for c in step.commands))
    assert "--exclude-newer 2019-05-06 --exclude-newer-package setuptools=2024-06-01" in install.commands[0]
    assert "setuptools=2021-08-01" in install.commands[1]
    late = "--exclude-newer-package atomicwrites=2022-07-09 --exclude-newer-package pandas=2019-07-19"
    assert all(late in command for command in install.commands[:2]), "nothing older can be had of them"
    assert "--exclude-newer" not in install.commands[-3]
    assert "today's" in install.notes[-3] and "today's" in install.notes[-2] and install.notes[0] == ""
    assert "setup.py develop" in install.notes[-1], "the last resort, for a Python before editable wheels"


def test_a_young_tree_gets_the_dependencies_of_today() -> None:
    assert not any(
        "--exclude-newer" in c for c in commands(detected({"setup.py": ""}, date=datetime(2025, 12, 20, tzinfo=UTC)))
    )


def test_an_old_tree_prefers_an_interpreter_of_its_time() -> None:
    make = detected({"setup.py": "setup(python_requires='>=3.5')"}, date=OLD).steps[0]
    assert "--python '>=3.5,<3.8'" in make.commands[0]
    assert "--python '>=3.5' " in make.commands[1]
    assert make.notes[0] == "" and "newer one" in make.notes[1]


def test_the_interpreter_that_the_user_names_is_the_only_one() -> None:
    make = detected({"setup.py": "setup(python_requires='>=3.5')"}, date=OLD, python="3.9").steps[0]
    assert all("--python 3.9 " in c for c in make.commands)
    assert "3.9" in make.failure


def test_interpreters_at_hand_come_before_any_download() -> None:
    make = detected({"setup.py": ""}).steps[0]
    assert "--no-python-downloads" in make.commands[0]
    assert "--no-python-downloads" not in make.commands[-1]


def test_a_released_tree_tells_its_version_to_build_backends() -> None:
    found = detected({"setup.py": "", "PKG-INFO": "Metadata-Version: 2.1\nName: x\nVersion: 4.2.0\n"})
    assert first_install(found).startswith("SETUPTOOLS_SCM_PRETEND_VERSION=4.2.0 PDM_BUILD_SCM_VERSION=4.2.0 ")


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("v1.4.2-0-gabc123", "1.4.2"),
        ("1.4.2-7-gabc123", "1.4.3.dev7"),
        ("release-2.0-3-gabc", "2.1.dev3"),
        ("v3.0rc1-0-gabc", "3.0rc1"),
        ("v3.0rc1-5-gabc", "3.0rc2.dev5"),
        ("package@9-0-gabc", "9"),
        ("9.2.0.dev0-228-gabc", "9.2.0.dev228"),
        ("v8.1.0.dev-437-gabc", "8.1.0.dev437"),
        ("v1.2.post1-3-gabc", "1.2.post2.dev3"),
        ("v1.2.post1-0-gabc", "1.2.post1"),
        ("2.0-beta.1-0-gabc", "2.0b1"),
        ("2.0-beta.1-4-gabc", "2.0b2.dev4"),
        ("rel_2_1_0b3-100-gabc", "2.1.0b4.dev100"),
        ("nightly-3-gabc", None),
        ("", None),
    ],
)
def test_a_version_is_told_from_the_nearest_tag(described: str, version: str | None) -> None:
    assert version_of(described) == version


def test_pytest_runs_unittest_tests_too() -> None:
    assert detected({"test_it.py": "import unittest"}).test_command == PYTEST_COMMAND


def test_unittest_discovery_is_for_names_that_pytest_does_not_collect() -> None:
    assert detected({"app/tests.py": "", "app/models.py": ""}).test_command == "python -m unittest discover"


def test_a_runner_script_of_its_own_is_used_where_pytest_is_not_spoken_of() -> None:
    files = {"setup.py": "", "tests/runtests.py": "", "tests/basic/test_a.py": ""}
    assert detected(files).test_command == "python tests/runtests.py"
    assert detected({**files, "tox.ini": "[testenv]\ndeps = pytest\n"}).test_command == PYTEST_COMMAND


def test_no_tests_means_no_test_command_and_pytest_is_then_optional() -> None:
    found = detected({"setup.py": "", "pkg/__init__.py": ""})
    assert found.test_command is None
    assert next(s for s in found.steps if "no pytest works" in s.failure).optional
    assert not next(s for s in detected({"test_x.py": ""}).steps if "no pytest works" in s.failure).optional


def test_the_users_commands_find_an_environment_with_pip() -> None:
    before, after = given_environment(detected({"setup.py": ""}))
    assert all(" venv --seed " in c for step in before for c in step.commands)
    assert any("coverage" in c for step in after for c in step.commands)


def test_names_from_files_are_quoted_for_the_shell() -> None:
    found = detected({"setup.py": "setup(extras_require={'test': []})", "requirements-test.x; rm -rf x.txt": ""})
    assert "'requirements-test.x; rm -rf x.txt'" in first_install(found)


SCM = {"pyproject.toml": '[build-system]\nrequires = ["hatch-vcs"]\n[project]\nname = "x"\ndynamic = ["version"]\n'}


def test_a_tree_without_a_tag_gets_a_high_version_and_a_note_where_its_build_wants_one() -> None:
    found = detected(SCM)
    assert found.steps[0].what == "telling the version" and "999.0" in found.steps[0].notes[0]
    assert "SETUPTOOLS_SCM_PRETEND_VERSION=999.0 " in first_install(found)
    assert "999.0" not in "".join(commands(detected({"setup.py": ""}))), "whose version stands in its files"


def test_the_newest_python_that_the_project_names_is_taken_and_its_own_choice_first() -> None:
    named = "Programming Language :: Python :: "
    files = {"setup.py": f"setup(classifiers=['{named}3.9', '{named}3.12'], python_requires='>=3.8')"}
    make = detected(files).steps[0]
    assert ["==3.12.*" in make.commands[0], "==3.9.*" in make.commands[1]] == [True, True]
    files[".python-version"] = "3.10\n"
    assert "==3.10.*" in detected(files).steps[0].commands[0]


def test_versions_of_a_date_are_never_older_than_the_interpreter() -> None:
    assert runnable_day("2019-05-06", "3.9.2") == "2021-10-05"
    assert runnable_day("2024-05-06", "3.9.2") == "2024-05-06"
    assert runnable_day("", "3.9.2") == ""


def test_other_ways_to_build_come_after_the_plain_one() -> None:
    text = (
        SCM["pyproject.toml"]
        + '[project.optional-dependencies]\ntest = ["pytest"]\n[tool.uv.sources]\ny = {git = "z"}\n'
    )
    install = next(s for s in detected({"pyproject.toml": text}).steps if any("-e ." in c for c in s.commands))
    ways = ["--no-sources", "|| echo", "-m pip install", "--no-build-isolation", "-r pyproject.toml"]
    assert [next(w for w in ways if w in c) for c in install.commands[1:]] == ways


def test_a_workspace_member_that_cannot_be_built_is_had_from_the_index() -> None:
    core = '[project]\nname = "core"\nversion = "1"\n[build-system]\nrequires = ["maturin"]\n'
    text = '[project]\nname = "x"\nversion = "1"\n[build-system]\nrequires = ["hatchling"]\n'
    text += '[tool.uv.workspace]\nmembers = ["core"]\n[tool.uv.sources]\ncore = {workspace = true}\n'
    found = detected({"pyproject.toml": text, "core/pyproject.toml": core, "core/src/core.py": ""})
    install = next(s for s in found.steps if any("-e ./core" in c for c in s.commands))
    without = [command for command in install.commands if "--no-sources" in command and "core" not in command]
    assert len(without) == 1


def test_debian_packages_are_installed_first_where_they_are_not_there() -> None:
    (step,) = system_packages(("libpq-dev",))
    assert step.commands[0].startswith("dpkg -s libpq-dev") and "apt-get install" in step.commands[1]
    assert "sudo apt-get install libpq-dev" in step.failure and system_packages(()) == ()


def test_a_tox_file_that_refers_to_itself_ends() -> None:
    lines = "\n    ".join(["{[testenv]deps}"] * 2000)
    found = project({"setup.py": "", "tox.ini": f"[testenv]\ndeps =\n    pytest\n    {lines}\n"})
    assert found.packages == ("pytest",)


def test_pytest_looks_for_tests_where_tox_has_it_look() -> None:
    tox = "[testenv]\ncommands =\n    pytest {posargs:--cov=x -o a=b \\\n    x tests/ --doctest-modules}\n"
    files = {"setup.py": "", "tox.ini": tox, "x/__init__.py": "", "tests/test_x.py": "", "docs/test_d.py": ""}
    expected = f"{PYTEST_COMMAND} --doctest-modules -o testpaths='x tests'"
    assert detected({**files, "tests/test_y.py": ""}).test_command == expected
    plain = {**files, "tox.ini": tox.replace(" --doctest-modules", "")}
    assert detected({**plain, "other/test_y.py": ""}).test_command == PYTEST_COMMAND, "most of them lie elsewhere"
    configured = {**files, "tests/test_y.py": "", "pytest.ini": "[pytest]\ntestpaths = tests\n"}
    assert detected(configured).test_command == PYTEST_COMMAND
