"""A warm test run gives what a cold one gives, only sooner; where it could not, the cold one is made."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from harness.records import TestReport
from harness.sandbox.base import Provider, Sandbox
from harness.testing.run import run_tests
from harness.testing.runners.base import Launch
from harness.testing.runners.registry import runner_of
from harness.testing.warm import WarmTests
from tests.real.test_testing import TREE
from tests.support.environments import COMMAND, in_sandbox
from tests.support.repositories import make_repository, make_task

KINDS = "tests/test_kinds.py"
CALC = "def double(n):\n    return n * 2\n"
FILES = {
    **TREE,
    "calc.py": CALC,
    "calcs/test_calc.py": "import calc\n\n\ndef test_double():\n    assert calc.double(4) == 8\n",
    "caches/test_caches.py": """\
import subprocess
import sys

import calc


def test_double():
    subprocess.run([sys.executable, "-c", "import calc"], env={}, check=True)
    assert calc.double(4) == 8
""",
    "options/pytest.ini": "[pytest]\naddopts = --strict-markers -k small\nmarkers = fast\n",
    "options/conftest.py": "pytest_plugins = ['helper']\n",
    "options/test_options.py": """\
import pytest


@pytest.fixture(scope="module", params=[1, 2])
def number(request, helped):
    yield request.param + helped


def test_small(number):
    assert number == 2


def test_large():
    assert False
""",
    "helper.py": "import pytest\n\n\n@pytest.fixture(scope='session')\ndef helped():\n    return 1\n",
    "leaves/test_leaves.py": """\
import subprocess
import time


def test_first():
    pass


def test_leaves():
    subprocess.Popen("setsid sh -c 'setsid sleep 4321 & sleep 4322' & sleep 4323", shell=True)
    time.sleep(60)
""",
    "kills/test_all.py": "import os\n\n\ndef test_first():\n    pass\n\n\ndef test_kills():\n    os.kill(-1, 9)\n",
    "kills/test_parent.py": "import os\n\n\ndef test_kills():\n    os.kill(os.getppid(), 9)\n",
    "where/conftest.py": """\
import json
import os
import signal
import sys
import threading

ENV = {k: v for k, v in os.environ.items() if not k.startswith("TROOP_")}
SEEN = {
    "modules": sorted(sys.modules),
    "path": sys.path,
    "argv": sys.argv,
    "orig_argv": getattr(sys, "orig_argv", None),
    "executable": sys.executable,
    "flags": str(sys.flags),
    "env": dict(sorted(ENV.items())),
    "cwd": os.getcwd(),
    "main": [str(getattr(sys.modules["__main__"], n, None)) for n in ("__name__", "__file__", "__package__")],
    "spec": str(getattr(sys.modules["__main__"].__spec__, "origin", None)),
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],
    "attributes": sorted(vars(sys.modules["__main__"])),
    "streams": [repr(sys.stdout), repr(sys.stderr), sys.stderr.errors, os.readlink("/proc/self/fd/0")],
    "signals": [str(signal.getsignal(n)) for n in (2, 13, 14, 15, 17)],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "umask": os.umask(0o022),
    "hooks": [str(getattr(f, "__name__", type(f))) for f in (sys.excepthook, sys.displayhook)],
    "finders": [getattr(f, "__name__", type(f).__name__) for f in sys.meta_path],
    "threads": threading.active_count(),
    "filters": len(__import__("warnings").filters),
}


def pytest_sessionfinish():
    with open("/tmp/seen.json", "w") as file:
        json.dump(SEEN, file, indent=1)
""",
    "where/test_where.py": "def test_here():\n    print('said')\n",
}
T = TypeVar("T")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("tree"), FILES, date="2024-01-01T00:00:00+0000")


def inside(provider: Provider, tree: Path, work: Callable[[Sandbox, WarmTests], Awaitable[T]]) -> T:
    async def scenario(sandbox: Sandbox) -> T:
        return await work(sandbox, WarmTests(sandbox))

    return in_sandbox(provider, make_task(tree), scenario)


async def forked(sandbox: Sandbox, warm: WarmTests, *arguments: Any, **options: Any) -> TestReport:
    """A run that must have been a fork of the waiting process."""
    count = "cat /tmp/troop-tests-*/report 2>/dev/null | grep -c '^{\"warm\"'"
    await sandbox.exec("rm -rf /tmp/troop-tests-*")
    report = await warm.run(*arguments, **options)
    assert (await sandbox.exec(count)).output == "1\n", "the run was not made warm"
    return report


async def cold(sandbox: Sandbox, warm: WarmTests, *arguments: Any, **options: Any) -> TestReport:
    """A run that must have been an ordinary one."""
    await sandbox.exec("rm -rf /tmp/troop-tests-*")
    report = await warm.run(*arguments, **options)
    left = await sandbox.exec("cat /tmp/troop-tests-*/report 2>/dev/null | grep -c '^{\"ended\"'")
    assert left.output == "0\n", "the run was made warm"
    return report


def comparable(report: TestReport) -> TestReport:
    """Without times and process numbers."""
    output = re.sub(r"in [0-9.]+s|0x[0-9a-f]+|pytest-[0-9]+|troop-tests-[0-9a-f]+", "", report.output)
    return replace(report, seconds=0.0, durations=dict.fromkeys(sorted(report.durations), 0.0), output=output)


def same_twice(
    provider: Provider, tree: Path, ids: Sequence[str], files: Mapping[str, str] | None = None, **options: Any
) -> TestReport:
    """Make the run in the ordinary way and warm, twice; what all three reports say."""

    async def work(sandbox: Sandbox, warm: WarmTests) -> TestReport:
        for path, text in (files or {}).items():
            await sandbox.write(path, text.encode(), mode=0o755)
        given = {"command": COMMAND, "timeout": 60.0, **options}
        expected = comparable(await run_tests(sandbox, ids=ids, **given))
        for _ in range(2):
            assert comparable(await forked(sandbox, warm, ids=ids, **given)) == expected
        return expected

    return inside(provider, tree, work)


SELECTIONS: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "everything": ([], {"test_seconds": 2.0}),
    "kinds": ([KINDS], {}),
    "cases": ([f"{KINDS}::test_odd[c[1]::d]", f"{KINDS}::OldStyle"], {}),
    "cannot be loaded": (["broken", f"{KINDS}::test_passes"], {}),
    "its own root": (["inner"], {}),
    "options": (["options"], {}),
    "runs pytest": (["nested"], {}),
    "a broken conftest": (["conf"], {}),
    "dies": (["dies"], {}),
    "not there": (["tests/test_gone.py::test_x"], {}),
    "stops": ([], {"command": f"{COMMAND} -x tests"}),
    "wrong usage": ([], {"command": f"{COMMAND} --no-such-option"}),
    "selected by words": ([], {"command": f"{COMMAND} -k 'passes or skipped' -m 'not slow' tests"}),
    "endless": (["loops"], {"test_seconds": 2.0}),
}
SELECTIONS["everything"] = (["tests", "broken", "calcs", "inner", "options"], {})


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_warm_report_is_the_cold_one(bubblewrap: Provider, tree: Path, selection: str) -> None:
    ids, options = SELECTIONS[selection]
    report = same_twice(bubblewrap, tree, ids, **options)
    if selection in ("everything", "kinds"):
        assert report.valid and {"passed", "failed", "error", "skipped"} == set(report.outcomes.values())


def test_a_warm_report_is_the_cold_one_in_docker(docker: Provider, tree: Path) -> None:
    report = same_twice(docker, tree, [KINDS])
    assert report.valid and len(report.outcomes) == 16


SCRIPT = "#!/opt/env/bin/python\nimport sys\nfrom pytest import console_main\nsys.exit(console_main())\n"
COMMANDS = (
    COMMAND,
    "python3 -m pytest -q",
    "/opt/env/bin/python -m pytest -q",
    "pytest -q",
    "FIRST='a b' SECOND=2 python -m pytest -q -p no:randomly",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_finds_itself_in_the_process_that_it_would_have_been(
    bubblewrap: Provider, tree: Path, command: str
) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        await sandbox.write("/opt/env/bin/pytest", SCRIPT.encode(), mode=0o755)
        report = await run_tests(sandbox, command, ["where"], timeout=60)
        assert report.green, report
        ordinary = json.loads(await sandbox.read("/tmp/seen.json"))
        report = await forked(sandbox, warm, command, ["where"], timeout=60)
        assert report.green
        assert json.loads(await sandbox.read("/tmp/seen.json")) == ordinary

    inside(bubblewrap, tree, work)


PLUGIN = {
    "troop_example.py": "import pytest\n\n\n@pytest.fixture\ndef exampled():\n    assert [1] == [2]\n",
    "troop_example-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: troop-example\nVersion: 1\n",
    "troop_example-1.dist-info/entry_points.txt": "[pytest11]\nexample = troop_example\n",
    "troop_example-1.dist-info/RECORD": "troop_example.py,,\ntroop_example-1.dist-info/METADATA,,\n",
}
USES_PLUGIN = {"uses/test_uses.py": "def test_uses(exampled):\n    pass\n"}


def test_installed_plugins_are_loaded_and_rewritten_as_ever(bubblewrap: Provider, tree: Path) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)
        where = (await sandbox.exec("ls -d /opt/env/lib/python3*/site-packages")).output.strip()
        for path, text in PLUGIN.items():
            await sandbox.write(f"{where}/{path}", text.encode())
        for path, text in USES_PLUGIN.items():
            await sandbox.write(path, text.encode())
        expected = comparable(await run_tests(sandbox, COMMAND, ["uses"], timeout=60))
        assert "assert [1] == [2]" in expected.failures["uses/test_uses.py::test_uses"]
        after = comparable(await cold(sandbox, warm, COMMAND, ["uses"], timeout=60))
        assert after == expected, "what was installed since is seen"
        assert comparable(await forked(sandbox, warm, COMMAND, ["uses"], timeout=60)) == expected

    inside(bubblewrap, tree, work)


def test_every_change_of_the_tree_is_seen(bubblewrap: Provider, tree: Path) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        async def outcome(ids: Sequence[str] = ("calcs",)) -> str:
            report = await forked(sandbox, warm, COMMAND, ids, timeout=60)
            return next(iter(report.outcomes.values()))

        assert await outcome() == "passed"
        for factor, expected in ((3, "failed"), (2, "passed"), (5, "failed"), (2, "passed")):
            await sandbox.write("calc.py", CALC.replace("2", str(factor)).encode())
            assert await outcome() == expected
        await sandbox.write("calcs/conftest.py", b"raise OSError('not today')\n")
        assert not (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).valid
        await sandbox.exec("rm calcs/conftest.py; mkdir calc; mv calc.py calc/__init__.py")
        assert await outcome() == "passed"
        await sandbox.exec("sed -i s/2/7/ calc/__init__.py")
        assert await outcome() == "failed"
        await sandbox.write("setup.cfg", b"[tool:pytest]\naddopts = -k nothing\n")
        assert not (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).valid

    inside(bubblewrap, tree, work)


@pytest.mark.parametrize("way", ["cold", "warm"])
def test_byte_code_that_a_test_left_is_never_taken_for_a_later_edit_of_the_same_second(
    bubblewrap: Provider, tree: Path, way: str
) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        run: Any = warm.run if way == "warm" else functools.partial(run_tests, sandbox)
        for factor in (2, 3, 2, 3, 2):
            await sandbox.write("calc.py", CALC.replace("2", str(factor)).encode())
            # Whatever the speed of this machine: all edits happen in one second.
            await sandbox.exec(["touch", "-d", "@1700000000", "calc.py"])
            report = await run(COMMAND, ["caches"], timeout=60)
            caches = await sandbox.exec("ls __pycache__")
            assert "calc." in caches.output, "the test writes byte code"
            assert report.outcomes == {"caches/test_caches.py::test_double": "passed" if factor == 2 else "failed"}

    inside(bubblewrap, tree, work)


def test_a_run_that_is_stopped_is_gone_with_all_that_it_started(provider: Provider, tree: Path) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        assert (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green
        report = await warm.run(COMMAND, ["leaves"], timeout=6)
        assert report.timed_out and not report.valid and report.exit_code == 124
        assert report.outcomes == {"leaves/test_leaves.py::test_first": "passed"}
        assert report.reason.endswith("while running leaves/test_leaves.py::test_leaves")
        assert await running(sandbox) == [], "nothing lives on"
        assert (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green

    inside(provider, tree, work)


def test_a_run_that_is_cancelled_is_gone_with_all_that_it_started(bubblewrap: Provider, tree: Path) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        asked = asyncio.ensure_future(warm.run(COMMAND, ["leaves"], timeout=60))
        await sandbox.exec("until grep -qs 4323 /proc/[0-9]*/cmdline; do sleep 0.02; done", timeout=60)
        asked.cancel()
        await asyncio.wait({asked})
        assert await running(sandbox) == []
        assert (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green

    inside(bubblewrap, tree, work)


async def running(sandbox: Sandbox) -> list[str]:
    """Command lines of what runs inside besides the shim and this look."""
    done = await sandbox.exec(
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -ao 'sleep 43[0-9][0-9]\\|warm.py [/][/]*'"
    )
    return sorted(done.output.splitlines())


def test_runs_at_one_time_do_not_meet(bubblewrap: Provider, tree: Path) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        selections = [["calcs"], [KINDS], ["inner"], ["options"]]
        expected = [comparable(await run_tests(sandbox, COMMAND, ids, timeout=60)) for ids in selections]
        for _ in range(2):
            reports = await asyncio.gather(*(warm.run(COMMAND, ids, timeout=60) for ids in selections))
            assert [comparable(report) for report in reports] == expected
        made = await sandbox.exec("cat /tmp/troop-tests-*/report | grep -c '^{\"ended\"'")
        assert int(made.output) >= 4

    inside(bubblewrap, tree, work)


@pytest.mark.parametrize("killer", ["all", "parent"])
def test_a_test_that_kills_what_waits_is_run_again_in_the_ordinary_way(
    bubblewrap: Provider, tree: Path, killer: str
) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        ids = [f"kills/test_{killer}.py"]
        expected = comparable(await run_tests(sandbox, COMMAND, ids, timeout=60))
        assert comparable(await cold(sandbox, warm, COMMAND, ids, timeout=60)) == expected
        assert await running(sandbox) == []
        assert (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green, "a new one waits"
        for _ in range(4):
            assert comparable(await warm.run(COMMAND, ids, timeout=60)) == expected
        assert (await cold(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green, "it is given up in the end"

    inside(bubblewrap, tree, work)


@pytest.mark.parametrize("harm", ["pkill -9 -f 'inside/warm[.]py'", "rm -rf /tmp/*"])
def test_who_waits_may_go_between_two_runs(bubblewrap: Provider, tree: Path, harm: str) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        assert (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green
        await sandbox.exec(harm)
        for _ in range(2):
            assert (await warm.run(COMMAND, ["calcs"], timeout=60)).green
        assert (await forked(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green

    inside(bubblewrap, tree, work)


OWN: dict[str, tuple[str, dict[str, str]]] = {
    "beside the tests": (COMMAND, {"pluggy.py": "raise ImportError('no plugins')\n"}),
    "a package": (COMMAND, {"iniconfig/__init__.py": "raise ImportError('no settings')\n"}),
    "of the standard library": (COMMAND, {"textwrap.py": "raise ImportError('no text')\n"}),
}


@pytest.mark.parametrize("own", OWN)
def test_a_repository_that_pytest_would_load_from_is_tested_in_the_ordinary_way(
    bubblewrap: Provider, tree: Path, own: str
) -> None:
    command, files = OWN[own]

    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        for path, text in files.items():
            await sandbox.write(path, text.encode())
        for _ in range(2):
            assert not (await cold(sandbox, warm, command, ["calcs"], timeout=60)).valid
        for path in files:
            await sandbox.exec(["rm", "-r", path.partition("/")[0]])
        assert (await warm.run(command, ["calcs"], timeout=60)).green

    inside(bubblewrap, tree, work)


def test_an_editable_installation_of_what_pytest_needs_is_never_kept(bubblewrap: Provider, tree: Path) -> None:
    async def work(sandbox: Sandbox, warm: WarmTests) -> None:
        moved = "cd /opt/env/lib/python3*/site-packages && mkdir /testbed/lib && mv pluggy /testbed/lib/"
        done = await sandbox.exec(moved + " && echo /testbed/lib > editable.pth")
        assert done.exit_code == 0, done.output
        assert (await cold(sandbox, warm, COMMAND, ["calcs"], timeout=60)).green
        await sandbox.write("lib/pluggy/__init__.py", b"raise ImportError('no plugins')\n")
        assert not (await cold(sandbox, warm, COMMAND, ["calcs"], timeout=60)).valid

    inside(bubblewrap, tree, work)


# Which commands


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pytest", Launch((), "", ())),
        ("pytest -q tests", Launch((), "", ("-q", "tests"))),
        ("python -m pytest", Launch((), "python", ())),
        ("/opt/env/bin/python3.11 -m pytest -x", Launch((), "/opt/env/bin/python3.11", ("-x",))),
        ("A=1 B='x y' python3 -m pytest", Launch(("A=1", "B=x y"), "python3", ())),
        ("pytest -k 'a and (b or c)'", Launch((), "", ("-k", "a and (b or c)"))),
        ('pytest -k "a or b"', Launch((), "", ("-k", "a or b"))),
    ],
)
def test_a_command_that_is_nothing_but_pytest_can_be_warm(command: str, expected: Launch) -> None:
    assert runner_of(command).launch(command) == expected


@pytest.mark.parametrize(
    "command",
    [
        "",
        "tox -e py311",
        "make test",
        "python -m unittest",
        "python runtests.py",
        "python -W error -m pytest",
        "coverage run -m pytest",
        "cd src && pytest",
        "pytest; true",
        "pytest | tail",
        "pytest > log",
        "pytest $OPTIONS",
        'pytest "$OPTIONS"',
        "pytest `cat options`",
        "pytest tests/test_*.py",
        "pytest tests/{a,b}.py",
        "pytest ~/tests",
        "pytest 'unclosed",
        "pytest 'a'\n'b'",
        "env A=1 pytest",
        "bin/pytest",
        "py.test",
        "PATH=/elsewhere pytest",
        "pytest -q  # all",
        "nice pytest",
        "pypy -m pytest",
    ],
)
def test_any_other_command_is_left_to_the_shell(command: str) -> None:
    assert runner_of(command).launch(command) is None
