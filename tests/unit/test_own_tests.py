"""How a repository says itself that its tests are run, and what Troop makes of it: ordinary layouts, kind by kind."""

import json
from collections.abc import Mapping

import pytest

from harness.environments.detect import PINS, UNPINNED, Detected, detect
from harness.environments.needs import absent_plugins, own_projects, wanted
from harness.environments.project import Project, read_project
from harness.records import TestReport

USUAL = "python -m pytest -q"
SETUP = {"setup.py": "from setuptools import setup\nsetup(name='x')\n", "x/__init__.py": "", "tests/test_x.py": ""}
ONE = {"tests/__init__.py": "", "tests/test_x.py": "import unittest\n"}


def found(files: Mapping[str, str]) -> Detected:
    return detect(sorted(files), lambda path: files[path].encode())


def project(files: Mapping[str, str]) -> Project:
    return read_project(sorted(files), lambda path: files[path].encode())


def installs(files: Mapping[str, str]) -> list[str]:
    return [command for step in found(files).steps if step.installs for command in step.commands]


def steps(*runs: str, env: str = "") -> dict[str, str]:
    """A workflow that takes these steps."""
    lines = "".join(f"      - run: {run}\n" for run in runs)
    return {".github/workflows/ci.yml": f"on: push\n{env}jobs:\n  t:\n    steps:\n{lines}"}


@pytest.mark.parametrize(
    ("files", "command"),
    [
        # The command of another framework, from wherever it is named.
        ({**ONE, "tox.ini": "[testenv]\ncommands = python -m unittest -v {posargs:tests.suite}\n"}, "tests.suite"),
        ({**ONE, "Makefile": "test: deps\n\t@$(PYTHON) -m unittest discover -s tests -p '*_t.py'\n"}, "-s tests -p"),
        ({**ONE, "tox.ini": "[testenv]\ncommands = coverage run -m django test\n"}, "python -m django test"),
        ({**ONE, **steps("pip install .", "python tests/runtests.py --fast")}, "python tests/runtests.py --fast"),
        # A framework that has settings keeps the word.
        ({**ONE, "pytest.ini": "[pytest]\n", "Makefile": "test:\n\tpython -m unittest\n"}, USUAL),
        # Options of pytest that decide what is a test, and folders.
        (
            {**SETUP, "Makefile": "check:\n\tpytest --import-mode=importlib tests\n"},
            "--import-mode=importlib -o testpaths=tests",
        ),
        ({"x.py": "", "tox.ini": "[testenv]\ncommands = pytest --doctest-modules\n"}, f"{USUAL} --doctest-modules"),
        (
            {**SETUP, "pyproject.toml": '[tool.hatch.envs.default.scripts]\ntest = "pytest {args:tests}"\n'},
            "testpaths=tests",
        ),
        ({**SETUP, "tests/pytest.ini": "[pytest]\n"}, f"{USUAL} -c tests/pytest.ini --rootdir=."),
        ({**SETUP, "pytest.ini": "[pytest]\n", "tests/pytest.ini": "[pytest]\n"}, USUAL),
        ({"x.py": "", "tests.py": "", "requirements.txt": "pytest\n"}, f"{USUAL} -o python_files=tests.py"),
        # Django's sites.
        (
            {"requirements.txt": "django\n", "site/manage.py": "", "site/shop/tests.py": ""},
            "cd site && python manage.py test",
        ),
        ({"requirements.txt": "django\n", "examples/manage.py": "", "examples/a/tests.py": ""}, "unittest discover"),
        ({"manage.py": "", "a/tests/test_a.py": "", "pytest.ini": "[pytest]\naddopts = --ds=a.settings\n"}, USUAL),
    ],
)
def test_tests_are_run_as_the_repository_says(files: Mapping[str, str], command: str) -> None:
    told = found(files).test_command or ""
    assert told == command if command == USUAL else command in told


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            {"tox.ini": "[testenv]\nsetenv =\n    MODE = {toxinidir}/t\n    OTHER = 1\ncommands = pytest\n"},
            "MODE=/testbed/t",
        ),
        ({"pyproject.toml": "[tool.tox.env_run_base]\nset_env = {MODE = 'a b'}\n"}, "MODE='a b'"),
        ({"pyproject.toml": "[tool.hatch.envs.default.env-vars]\nMODE = '{root}/t'\n"}, "MODE=/testbed/t"),
        ({"Makefile": "export MODE := on\ntest:\n\tpytest\n"}, "MODE=on"),
        ({"Makefile": "test:\n\tMODE=on OTHER=2 python -m pytest\n"}, "MODE=on"),
        (steps("pytest", env="env:\n  MODE: 'on'\n  TOKEN: ${{ secrets.TOKEN }}\n"), "MODE=on"),
        # Unknown values, and what no code asks for, are left out.
        (steps("pytest", env="env:\n  MODE: ${{ matrix.mode }}\n  OTHER: 1\n"), ""),
        (steps("make docs", env="env:\n  MODE: on\n"), ""),
    ],
)
def test_variables_that_the_code_cannot_do_without_are_set_as_the_repository_sets_them(
    where: Mapping[str, str], said: str
) -> None:
    code = {"x/__init__.py": "import os\nmode = os.environ['MODE']\n"}
    assert found({**SETUP, **where, **code}).test_command == f"{said} {USUAL}".strip()
    assert found({**SETUP, **where}).test_command == USUAL, "no code asks for it"


def test_folders_to_import_from_are_taken_over_but_for_those_that_are_anyway() -> None:
    make = {"Makefile": "test:\n\tPYTHONPATH=lib:src:.:$(PYTHONPATH) pytest\n"}
    assert found({**SETUP, **make}).test_command == f"PYTHONPATH=/testbed/lib {USUAL}"
    tox = {"tox.ini": "[testenv]\nsetenv = PYTHONPATH = {toxinidir}:{toxinidir}/src\ncommands = pytest\n"}
    assert found({**SETUP, **tox}).test_command == USUAL


def test_what_workflows_install_counts_where_nothing_else_says_what_tests_need() -> None:
    ci = steps("python -m pip install --upgrade pip tox", "pip install -e '.[qa]' responses -r ci/needs.txt", "pytest")
    extras = {"setup.cfg": "[options.extras_require]\nqa = pytest-mock\n", "ci/needs.txt": "toolz\n"}
    told = project({**SETUP, **extras, **ci})
    assert (told.extras, told.packages, told.test_requirements[-1:]) == (("qa",), ("responses",), ("ci/needs.txt",))
    own = project({**SETUP, **extras, **ci, "requirements-test.txt": "pytest\n"})
    assert (own.extras, own.packages, own.test_requirements[-1:]) == ((), (), ("requirements-test.txt",))
    assert "responses" in own.named, "and is found where a test imports it"
    made = project({**SETUP, "Makefile": "setup:\n\tpip install -r dev.txt\ntest:\n\tpytest\n", "dev.txt": "toolz\n"})
    assert made.test_requirements[-1:] == ("dev.txt",)


def test_the_requirements_that_name_pytest_are_those_for_tests() -> None:
    files = {"manage.py": "", "requirements/base.txt": "django\n", "requirements/local.txt": "-r base.txt\npytest\n"}
    assert project({**files, "requirements/production.txt": "-r base.txt\ngunicorn\n"}).requirements == (
        "requirements/local.txt",
    )


def test_a_setup_without_dependencies_has_those_of_its_requirements() -> None:
    files = {**SETUP, "requirements.txt": "toolz\n", "requirements-dev.txt": "pytest\n"}
    assert project(files).test_requirements == ("requirements.txt", "requirements-dev.txt")
    stated = {"setup.py": "from setuptools import setup\nsetup(install_requires=['toolz'])\n"}
    assert project({**files, **stated}).test_requirements == ("requirements-dev.txt",)


UV_LOCK = """
[[package]]
name = "marshmallow"
version = "3.21.0"
source = { registry = "x" }
[[package]]
name = "numpy"
version = "1.0"
source = { registry = "x" }
[[package]]
name = "numpy"
version = "2.0"
source = { registry = "x" }
[[package]]
name = "own"
version = "1.0"
source = { editable = "." }
"""


@pytest.mark.parametrize(
    "lock",
    [
        {"uv.lock": UV_LOCK},
        {"poetry.lock": '[[package]]\nname = "marshmallow"\nversion = "3.21.0"\n'},
        {"Pipfile.lock": json.dumps({"default": {"marshmallow": {"version": "==3.21.0"}, "x": {"git": "y"}}})},
    ],
)
def test_locked_versions_are_tried_first(lock: Mapping[str, str]) -> None:
    files = {**SETUP, **lock}
    assert project(files).locked == ("marshmallow==3.21.0",)
    ways = installs(files)
    assert ways[0].startswith(f"UV_CONSTRAINT={PINS} ") and "UV_CONSTRAINT" not in ways[1]
    step = next(step for step in found(files).steps if step.installs)
    assert step.notes[:2] == ("", UNPINNED)


def test_a_damaged_lock_says_nothing_and_constraints_are_named() -> None:
    damaged = {
        "uv.lock": "[[package]",
        "poetry.lock": "package = 3\n",
        "Pipfile.lock": "[1]",
        "pdm.lock": "[[package]]\n",
    }
    assert project({**SETUP, **damaged}).locked == ()
    files = {**SETUP, "tox.ini": "[testenv]\ndeps =\n    -c limits.txt\n    pytest\n", "limits.txt": "toolz<1\n"}
    assert project(files).constraints == ("limits.txt",) and installs(files)[0].startswith(f"UV_CONSTRAINT={PINS} ")


def test_own_projects_are_installed_and_never_asked_of_the_index() -> None:
    """A name that the repository has a source of its own for may be a stranger's on the index."""
    helper = {"tests/helpers/setup.py": "", "tests/helpers/plug_helpers/__init__.py": ""}
    tox = {"tox.ini": "[testenv]\ndeps =\n    pytest\n    -e tests/helpers\n    -e ../elsewhere\n    -e .[d]\n"}
    assert project({**SETUP, **helper, **tox}).packages == ("pytest", "--editable=./tests/helpers")
    toml = (
        "[project]\nname = 'x'\n[tool.uv]\ndev-dependencies = ['pytest', 'slugger', 'far']\n"
        "[tool.uv.sources]\nslugger = {path = 'libs/slugger'}\nfar = {git = 'https://g/far'}\n"
    )
    shared = {"pyproject.toml": toml, "libs/slugger/pyproject.toml": "", "libs/slugger/slugger.py": ""}
    told = project(shared)
    assert told.packages == ("pytest", "--editable=./libs/slugger") and told.named == ("pytest",)
    poetry = "[tool.poetry.group.dev.dependencies]\nslugger = {path = 'libs/slugger', develop = true}\n"
    assert project({**shared, "pyproject.toml": poetry}).packages == ("--editable=./libs/slugger",)
    others = [
        "a.py",
        "docs/setup.py",
        "docs/conf.py",
        "x/__init__.py",
        "x/setup.py",
        "x/y.py",
        "tests/data/setup.py",
        "tests/data/z.py",
    ]
    assert own_projects([*helper, *others]) == {"plug_helpers": "--editable=./tests/helpers"}
    assert found({**SETUP, **helper}).projects["plug_helpers"] == "--editable=./tests/helpers"


def test_plugins_that_tests_or_settings_make_use_of_are_wanted() -> None:
    tests = {
        "tests/test_a.py": b"@pytest.mark.asyncio\nasync def test_a(mocker, tmp_path):\n    pass\n",
        "tests/conftest.py": b"@pytest.fixture\ndef fs(benchmark): ...\ndef test_b(fs): ...\n",
    }
    settings = 'timeout = 30\nrequired_plugins = ["pytest-order>=1"]\n'
    told = wanted(list(tests), lambda path: tests[path], ["pytest-mock>=3"], (), settings)
    assert told == {
        "pytest_asyncio": "pytest-asyncio",
        "pytest_mock": "pytest-mock>=3",
        "pytest_order": "pytest-order",
        "pytest_timeout": "pytest-timeout",
    }, "`fs` is the repository's own"
    output = "ERROR: Error importing plugin \"xdist\": No module named 'xdist'"
    assert absent_plugins(TestReport({}, 4, False, False, 1.0, output=output)) == ["pytest-xdist"]


def test_what_is_built_against_the_environment_is_built_in_it() -> None:
    meson = '[build-system]\nrequires = ["meson-python>=0.15"]\nbuild-backend = "mesonpy"\n[project]\nname = "x"\n'
    assert "meson ninja && " in installs({"pyproject.toml": meson})[0]
    cython = "import os\nimport numpy\nimport helper\nfrom Cython.Build import cythonize\nfrom setuptools import setup\nsetup()\n"
    ways = installs({**SETUP, "setup.py": cython, "helper.py": ""})
    assert any("pip install numpy cython setuptools && " in way and "--no-build-isolation" in way for way in ways)


@pytest.mark.parametrize(
    ("files", "pythons"),
    [
        (steps("pytest", env="x:\n  python-version: 3.9\n"), ("3.9",)),
        (steps("pytest", env="x:\n  python-version: [3.8, '3.10.13', 3.9]\n"), ("3.10", "3.9", "3.8")),
        ({"runtime.txt": "python-3.8.19\n"}, ("3.8",)),
        ({"Dockerfile": "FROM --platform=x python:3.7-slim\n"}, ("3.7",)),
        ({".tool-versions": "nodejs 20.1\npython 3.9.1\n"}, ("3.9",)),
        ({"Pipfile": '[requires]\npython_version = "3.9"\n'}, ("3.9",)),
        ({"environment.yml": "dependencies:\n  - python=3.9\n  - numpy=1.2\n"}, ("3.9",)),
        ({"Dockerfile": "FROM python:3.7\n", ".python-version": "3.12\n"}, ("3.12",)),
    ],
)
def test_the_python_that_a_repository_names(files: Mapping[str, str], pythons: tuple[str, ...]) -> None:
    assert project({**SETUP, **files}).pythons == pythons


def test_more_than_one_file_makes_a_package() -> None:
    cfg = {"setup.cfg": "[metadata]\nname = x\n[options.extras_require]\ntesting = pytest\n"}
    told = project({**cfg, "pyproject.toml": "[tool.black]\nline-length = 88\n"})
    assert told.installable and told.extras == ("testing",)
    dynamic = '[project]\nname = "x"\n[tool.setuptools.dynamic.optional-dependencies]\ntest = {file = ["t.txt"]}\n'
    assert project({"pyproject.toml": dynamic}).extras == ("test",)
    tools = {"requirements-dev.txt": "pytest\n", "packages/a/pyproject.toml": "", "packages/b/setup.py": ""}
    assert project(tools).members == ("./packages/a", "./packages/b")
