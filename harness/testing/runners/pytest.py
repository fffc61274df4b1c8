"""pytest: wherever a command starts it, it loads `harness/inside/troop_pytest.py`; runs fork from one that waits."""

import re
import shlex
from collections.abc import Mapping, Sequence

from harness.sandbox.base import INSIDE
from harness.testing.runners import base
from harness.testing.runners.base import Launch, Layout, Runner, appended, files_of

WAIT = f"{INSIDE}/warm.py"

_NAMED = re.compile(r"(?:^|[\s/;&|(])(?:pytest|py\.test)(?=$|[\s;&|)])")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_PYTHON = re.compile(r"(?:/[\w./-]*/)?python[0-9.]*")
_QUOTED = re.compile(r"""'[^']*'|"[^"$`\\!]*\"""")
_SHELL = re.compile(r"""[|;&<>()$`\\*?\[\]{}~!#\n'"]""")
_DECISIVE = frozenset({"PATH", "BASH_ENV", "ENV", "SHELLOPTS"})


class Pytest(Runner):
    """A command may hide pytest (a `make` target): the plugin is loaded and selects there as well."""

    name = "pytest"
    command = "python -m pytest -q"
    exports = (
        'export TROOP_ADDOPTS_BEFORE="${PYTEST_ADDOPTS-}"\n'
        'export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:+$PYTEST_ADDOPTS }-p troop_pytest'
        ' -o cache_dir=/tmp/troop-pytest-cache --continue-on-collection-errors --maxfail=0 --color=no"\n'
    )
    packages = ("pytest", "py")
    summary = re.compile(r"\b(\d+) (passed|xpassed|failed|error)s?\b(?=.* in \d+\.\d+s)")

    def recognises(self, command: str) -> bool:
        return _NAMED.search(command) is not None

    def claims(self, layout: Layout) -> tuple[int, str] | None:
        tests = base.has_test_files(layout)
        plain = not tests and any(path.rpartition("/")[2] == "tests.py" for path in layout.paths)
        if plain and self.name in layout.settings and "python_files" not in layout.settings:
            return base.CONFIGURED, f"{self.command} -o python_files=tests.py"
        if self.name in layout.configured or (tests and self.name in layout.settings):
            return base.CONFIGURED, self.command
        return (base.TEST_FILES, self.command) if tests else None

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        """With the files appended, so that the rest need not be collected."""
        return appended(command, files_of(ids))

    def probe(self, python: str) -> str:
        return (
            'd=$(mktemp -d) && printf "def test_it():\\n    assert len([1]) == 1\\n" > $d/test_it.py'
            f" && (cd $d && {python} -m pytest -q -p no:cacheprovider --rootdir=$d test_it.py) > /dev/null 2>&1"
        )

    def line_records(self, path: str) -> Mapping[str, str]:
        return {"TROOP_LINES": path, "PYTEST_ADDOPTS": "-p troop_lines"}

    def launch(self, command: str) -> Launch | None:
        """None where only a shell knows what the command means, or it is not plainly pytest.

        Plain are `python -m pytest ARGUMENTS` (any name or path of a Python, no option before -m) and
        `pytest ARGUMENTS`, both also after assignments such as `PYTHONPATH=src`."""
        if _SHELL.search(_QUOTED.sub("", command)):
            return None
        try:
            words = shlex.split(command)
        except ValueError:
            return None
        start = next((at for at, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
        variables, rest = tuple(words[:start]), words[start:]
        if any(word.partition("=")[0] in _DECISIVE for word in variables):
            return None
        if rest[:1] == ["pytest"]:
            return Launch(variables, "", tuple(rest[1:]))
        if len(rest) >= 3 and _PYTHON.fullmatch(rest[0]) and rest[1:3] == ["-m", "pytest"]:
            return Launch(variables, rest[0], tuple(rest[3:]))
        return None

    def waiting(self, launch: Launch, socket: str) -> str:
        if launch.python:
            start = shlex.join([launch.python, WAIT, socket, "-m"])
        else:
            script = '"$(command -v pytest)"'
            start = f'"$(sed -n "1s/^#!//p" {script})" {shlex.join([WAIT, socket])} {script}'
        for variable in reversed(launch.variables):
            name, _, value = variable.partition("=")
            start = f"{name}={shlex.quote(value)} {start}"
        return start
