"""Ordinary ways to lay a repository out, each as a small one whose single test needs all that the layout says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.repositories import git, make_repository

BUILD = '[build-system]\nrequires = ["setuptools>=61"]\nbuild-backend = "setuptools.build_meta"\n'
MODULES = "[tool.setuptools]\npy-modules = [{}]\n"
USES = "def test_it():\n    import {}\n"


@dataclass(frozen=True)
class Laid:
    """`files` of the repository; `installs`: what set-up's commands must hold; `command`: that tests are run by; `test`:
    the id of the one test. `tag`: on the commit before the last."""

    files: Mapping[str, str]
    installs: tuple[str, ...]
    test: str
    command: str = "python -m pytest -q"
    tag: str = ""


def project(name: str = "thing", more: str = "", *, module: str = "thing") -> str:
    return f'{BUILD}[project]\nname = "{name}"\nversion = "1.0"\n{more}{MODULES.format(repr(module))}'


LAYOUTS = {
    "django site": Laid(
        {
            "requirements.txt": "django<6\n",
            "manage.py": (
                "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_.settings')\n"
                "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
            ),
            "site_/__init__.py": "",
            "site_/settings.py": (
                "SECRET_KEY = 'x'\nINSTALLED_APPS = ['shop']\nUSE_TZ = True\n"
                "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
            ),
            "shop/__init__.py": "",
            "shop/tests.py": (
                "from django.conf import settings\nfrom django.test import TestCase\n\n\nclass Shop(TestCase):\n"
                "    def test_it(self):\n        assert settings.INSTALLED_APPS == ['shop']\n"
            ),
        },
        ("-r requirements.txt",),
        "shop/tests.py::Shop::test_it",
        "python manage.py test",
    ),
    "django package with a script of its own": Laid(
        {
            "requirements.txt": "django<6\n",
            "runtests.py": (
                "import os, sys\nos.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\nimport django\n"
                "from django.conf import settings\nfrom django.test.utils import get_runner\ndjango.setup()\n"
                "sys.exit(bool(get_runner(settings)().run_tests(sys.argv[1:] or ['tests'])))\n"
            ),
            "tests/__init__.py": "",
            "tests/settings.py": "SECRET_KEY = 'x'\nINSTALLED_APPS = ['tests']\nUSE_TZ = True\n",
            "tests/test_it.py": (
                "from django.conf import settings\nfrom django.test import SimpleTestCase\n\n\n"
                "class Shop(SimpleTestCase):\n    def test_it(self):\n        assert settings.USE_TZ\n"
            ),
        },
        ("-r requirements.txt",),
        "tests/test_it.py::Shop::test_it",
        "python runtests.py",
    ),
    "deps of another section in tox": Laid(
        {
            "setup.py": "from setuptools import setup\nsetup(name='thing', py_modules=['thing'])\n",
            "thing.py": "",
            "tox.ini": "[base]\ndeps =\n    pytest\n    toolz\n[testenv]\ndeps = {[base]deps}\ncommands = pytest\n",
            "test_it.py": USES.format("thing, toolz"),
        },
        ("toolz",),
        "test_it.py::test_it",
    ),
    "tox extras beside a group": Laid(
        {
            "pyproject.toml": project(
                more='[project.optional-dependencies]\nfast = ["toolz"]\n[dependency-groups]\ntest = ["pytest"]\n'
            ),
            "thing.py": "",
            "tox.ini": "[testenv]\nextras = fast\ncommands = pytest\n",
            "tests/test_it.py": USES.format("thing, toolz"),
        },
        ("-e '.[fast]'", "--group test"),
        "tests/test_it.py::test_it",
    ),
    "project in a subdirectory": Laid(
        {
            "README.md": "",
            "backend/pyproject.toml": project(more='dependencies = ["toolz"]\n'),
            "backend/thing.py": "",
            "backend/data.txt": "here",
            "backend/tests/test_it.py": USES.format("thing, toolz") + "    assert open('data.txt').read() == 'here'\n",
        },
        ("-e .",),
        "backend/tests/test_it.py::test_it",
        "cd backend && python -m pytest -q",
    ),
    "uv workspace": Laid(
        {
            "pyproject.toml": (
                '[project]\nname = "whole"\nversion = "1"\ndependencies = ["core"]\n[tool.uv]\npackage = false\n'
                '[tool.uv.workspace]\nmembers = ["packages/*"]\n[tool.uv.sources]\ncore = { workspace = true }\n'
            ),
            "packages/core/pyproject.toml": project("core", module="core"),
            "packages/core/core.py": "",
            "packages/more/pyproject.toml": project(
                "more", '[project.optional-dependencies]\ntest = ["toolz"]\n', module="more"
            ),
            "packages/more/more.py": "",
            "packages/more/tests/test_it.py": USES.format("core, more, toolz"),
        },
        ("-e ./packages/core", "-e './packages/more[test]'"),
        "packages/more/tests/test_it.py::test_it",
    ),
    "version from a dev tag": Laid(
        {
            "pyproject.toml": (
                '[build-system]\nrequires = ["setuptools>=61", "setuptools-scm>=8"]\n'
                'build-backend = "setuptools.build_meta"\n[project]\nname = "thing"\ndynamic = ["version"]\n'
                f"[tool.setuptools_scm]\n{MODULES.format(repr('thing'))}"
            ),
            "thing.py": "",
            "test_it.py": (
                "from importlib.metadata import version\nimport subprocess\n\n\ndef test_it():\n"
                "    assert version('thing') == '9.2.0.dev1'\n"
                "    told = subprocess.run(['git', 'describe', '--tags'], capture_output=True, text=True)\n"
                "    assert told.stdout.strip() == 'v9.2.0.dev1'\n"
            ),
        },
        ("SETUPTOOLS_SCM_PRETEND_VERSION=9.2.0.dev1", "tag --force v9.2.0.dev1"),
        "test_it.py::test_it",
        tag="v9.2.0.dev0",
    ),
    "Pipfile": Laid(
        {
            "Pipfile": '[packages]\ntoolz = "*"\n[dev-packages]\npytest-mock = {version = ">=3", extras = []}\n',
            "app.py": "",
            "test_it.py": "def test_it(mocker):\n    import app, toolz\n",
        },
        ("toolz", "'pytest-mock>=3'"),
        "test_it.py::test_it",
    ),
    "poetry application": Laid(
        {
            "pyproject.toml": (
                '[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = ">=3.9"\ntoolz = "^1.0"\n'
                '[tool.poetry.group.dev.dependencies]\npytest-mock = "*"\n'
            ),
            "app/__init__.py": "",
            "tests/test_it.py": "def test_it(mocker):\n    import app, toolz\n",
        },
        ("pytest-mock", "'toolz>=1.0,<2'"),
        "tests/test_it.py::test_it",
    ),
    "nox": Laid(
        {
            "pyproject.toml": project(),
            "thing.py": "",
            "noxfile.py": (
                "import nox\n\n\n@nox.session\ndef lint(session):\n    session.install('ruff')\n\n\n"
                "@nox.session(python=['3.11'])\ndef tests(session):\n    session.install('pytest-mock', 'toolz')\n"
                "    session.install('-e', '.')\n    session.run('pytest')\n"
            ),
            "test_it.py": "def test_it(mocker):\n    import thing, toolz\n",
        },
        ("pytest-mock toolz",),
        "test_it.py::test_it",
    ),
    "versions of a lock file": Laid(
        {
            "pyproject.toml": project(more="dependencies = ['toolz']\n"),
            "uv.lock": "[[package]]\nname = 'toolz'\nversion = '0.11.2'\nsource = { registry = 'x' }\n",
            "thing.py": "",
            "test_it.py": "import toolz\n\n\ndef test_it():\n    assert toolz.__version__ == '0.11.2'\n",
        },
        ("toolz==0.11.2",),
        "test_it.py::test_it",
    ),
    "variables of tox, settings beside the tests": Laid(
        {
            "pyproject.toml": project(),
            "thing.py": "import os\n\nMODE = os.environ['MODE']\n",
            "tox.ini": "[testenv]\nsetenv =\n    MODE = {toxinidir}/on\ncommands = pytest\n",
            "tests/pytest.ini": "[pytest]\npython_files = check_*.py\nasyncio_mode = auto\n",
            "tests/check_it.py": "import thing\n\n\nasync def test_it():\n    assert thing.MODE == '/testbed/on'\n",
        },
        (),
        "tests/check_it.py::test_it",
        "MODE=/testbed/on python -m pytest -q -c tests/pytest.ini --rootdir=.",
    ),
    "plugins, and a project of the tests' own": Laid(
        {
            "pyproject.toml": project(),
            "thing.py": "",
            "tests/helpers/setup.py": "from setuptools import setup\nsetup(name='far', py_modules=['far_helpers'])\n",
            "tests/helpers/far_helpers.py": "GREETING = 'hello'\n",
            "tests/test_it.py": (
                "import pytest\nfrom far_helpers import GREETING\n\n\n@pytest.mark.asyncio\n"
                "async def test_it(mocker):\n    assert mocker.Mock() and GREETING\n"
            ),
        },
        (),
        "tests/test_it.py::test_it",
    ),
    "a command of a Makefile, what workflows install": Laid(
        {
            "setup.cfg": "[metadata]\nname = thing\nversion = 1\n[options]\npy_modules = thing\n",
            "pyproject.toml": "[tool.black]\nline-length = 88\n",
            "thing.py": "",
            "Makefile": "test:\n\tpython3 -m unittest discover -v -s test -p '*_checks.py'\n",
            ".github/workflows/ci.yml": "jobs:\n  t:\n    steps:\n      - run: pip install . toolz\n      - run: make test\n",
            "test/it_checks.py": (
                "import unittest\n\n\nclass It(unittest.TestCase):\n    def test_it(self):\n        import thing, toolz\n"
            ),
        },
        ("toolz",),
        "test/it_checks.py::It::test_it",
        "python -m unittest discover -s test -p '*_checks.py'",
    ),
}


def lay(laid: Laid, place: Path) -> Path:
    """The repository, with a second commit after the tag."""
    make_repository(place, laid.files)
    if laid.tag:
        git(place, "tag", laid.tag)
        git(place, "commit", "-q", "--allow-empty", "-m", "after it")
    return place


def with_submodule(place: Path, *, filled: bool) -> Path:
    """A repository whose one test reads a file of a submodule."""
    sub = make_repository(place / "sub", {"answer.txt": "42"})
    files = {"test_it.py": "def test_it():\n    assert open('data/spec/answer.txt').read() == '42'\n"}
    whole = make_repository(place / "whole", files)
    git(whole, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(sub), "data/spec")
    git(whole, "commit", "-q", "-m", "with a submodule")
    if not filled:
        git(whole, "submodule", "deinit", "-q", "--all", "--force")
    return whole
