"""Environments are built in sandboxes, kept by content, and the base's tests tell what is true of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness.environments.base_run import Baseline, baseline
from harness.environments.environment import Built, CleanRoom, build
from harness.patches.extract import take_patch
from harness.patches.patch import Patch
from harness.sandbox.base import Provider, SandboxSpec
from harness.sandbox.docker.image import DEFAULT_IMAGE
from harness.testing.report import COMMAND_TEST
from harness.testing.run import run_tests
from tasks.errors import InputError, SetupFailed
from tasks.task import Environment, GivenTest, Task
from tests.support.environments import freeze
from tests.support.repositories import CALC, FAILING, git, make_repository, make_task, opened


def repository(tmp_path: Path, changes: Mapping[str, str] | None = None, base: Mapping[str, str] = CALC) -> Path:
    return make_repository(tmp_path / "repository", {**base, **(changes or {})})


async def _build(provider: Provider, task: Task, said: list[str] | None = None, timeout: float = 300.0) -> Built:
    return await build(
        provider,
        await opened(task),
        task,
        run="tests",
        setup_timeout=timeout,
        say=(said if said is not None else []).append,
    )


async def _inside(provider: Provider, built: Built, command: str) -> str:
    sandbox = await provider.create(SandboxSpec(run="tests", name="look", environment=built.key))
    try:
        return (await sandbox.exec(command, merge=True)).output
    finally:
        await sandbox.close()


def set_ups(said: list[str]) -> int:
    """How often set-up was begun."""
    return sum(line.startswith("setting up the environment") for line in said)


@pytest.mark.network
def test_a_package_is_installed_with_its_test_dependencies_and_runs_offline(provider: Provider, tmp_path: Path) -> None:
    changes = {
        "pyproject.toml": (
            CALC["pyproject.toml"].replace(
                "[tool.setuptools]",
                '[project.optional-dependencies]\ntest = ["pytest", "pytest-mock",'
                ' "pytest-xdist"]\n\n[tool.setuptools]',
            )
        ),
        "tests/test_mock.py": "def test_mock(mocker):\n    assert mocker.Mock()\n",
    }
    task = make_task(repository(tmp_path, changes), failing=FAILING)

    async def scenario() -> None:
        said: list[str] = []
        built = await _build(provider, task, said)
        assert built.python.startswith("3.")
        assert any("installing the project" in line for line in said)
        versions = await _inside(
            provider, built, "python -c 'import coverage, calc; print(coverage.version_info[0], calc.__file__)'"
        )
        assert versions.split()[1] == "/testbed/calc/__init__.py"

        repeated: list[str] = []
        assert await _build(provider, task, repeated) == built and not set_ups(repeated)

        for command in (None, "python -m pytest -q -n 2"):
            kept = replace(built, test_command=command or built.test_command)
            found = await baseline(CleanRoom(provider, kept, "tests"), task)
            assert found.report is not None and found.report.valid and found.flaky == ()
            assert dict(found.report.outcomes) == {
                "tests/test_core.py::test_add": "passed",
                "tests/test_core.py::test_mean_of_nothing": "passed",
                "tests/test_mock.py::test_mock": "passed",
                "tests/test_issue.py::test_mean": "failed",
            }

        loop = (
            b"import pytest\n\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_loop(n):\n    while n == 1:\n       "
            b" pass\n"
        )
        sandbox = await provider.create(SandboxSpec(run="tests", name="workers", environment=built.key))
        try:
            await sandbox.write("tests/test_loop.py", loop)
            ids = ["tests/test_loop.py", "tests/test_core.py::test_add"]
            report = await run_tests(sandbox, "python -m pytest -q -n 2 tests", ids, timeout=60, test_seconds=1)
            await sandbox.write(
                "tests/test_worker.py", b"import os\ndef test_worker():\n    os.environ['PYTEST_XDIST_WORKER']"
            )
            by_worker = {
                (options, spread): (
                    await run_tests(
                        sandbox, f"python -m pytest -q{options} tests/test_worker.py", timeout=60, spread=spread
                    )
                ).green
                for options in ("", " -n 0", " -p no:xdist")
                for spread in (0, 1, 2)
            }
        finally:
            await sandbox.close()
        asked = {run for run, green in by_worker.items() if green}
        assert asked == {("", 2)}, "processes share the tests where the project has xdist and does not say otherwise"
        assert report.valid, "workers of xdist select tests and limit their time as well"
        assert dict(report.outcomes) == {
            "tests/test_core.py::test_add": "passed",
            "tests/test_loop.py::test_loop[1]": "failed",
            "tests/test_loop.py::test_loop[2]": "passed",
        }

    asyncio.run(scenario())


@pytest.mark.network
def test_an_old_tree_gets_dependencies_of_its_time(bubblewrap: Provider, tmp_path: Path) -> None:
    place = tmp_path / "old"
    files = {
        "requirements.txt": "attrs\n",
        "app.py": "import attr\n",
        "test_app.py": "def test_app():\n    import app\n",
    }
    task = make_task(make_repository(place, files, date="2023-03-01T00:00:00+0000"))

    async def scenario() -> None:
        built = await _build(bubblewrap, task)
        version = await _inside(
            bubblewrap, built, "python -c 'import importlib.metadata as m; print(m.version(\"attrs\"))'"
        )
        assert version.strip() == "22.2.0", "the newest that was out on that day"
        found = await baseline(CleanRoom(bubblewrap, built, "tests"), task, runs=1)
        assert found.report is not None and found.report.green

    asyncio.run(scenario())


@pytest.mark.network
def test_the_users_own_commands_find_pip(bubblewrap: Provider, tmp_path: Path) -> None:
    task = make_task(repository(tmp_path), setup=("python -m pip install -q -e .", "echo made > made-by-setup"))

    async def scenario() -> None:
        built = await _build(bubblewrap, task)
        out = await _inside(bubblewrap, built, "cat made-by-setup; python -c 'import calc; print(calc.__file__)'")
        assert out.split() == ["made", "/testbed/calc/__init__.py"]

    asyncio.run(scenario())


SETUP_PY = "from setuptools import setup\nsetup()\n"


def with_image(task: Task, *setup: str) -> Task:
    """Set-up in an image that is ready: the commands are all that is done, and nothing needs the network."""
    return replace(task, environment=Environment(image=DEFAULT_IMAGE, setup=setup))


def test_a_failing_command_is_named_with_the_end_of_its_output(docker: Provider, tmp_path: Path) -> None:
    task = with_image(make_task(repository(tmp_path)), "true", "echo first; echo 'no compiler' >&2; false")

    async def scenario() -> None:
        with pytest.raises(SetupFailed, match=r"(?s)a set-up command failed; the command was: echo first.*no compiler"):
            await _build(docker, task)

    asyncio.run(scenario())


def test_what_set_up_installs_into_an_image_with_debians_python_is_what_an_attempt_sees(
    docker: Provider, tmp_path: Path
) -> None:
    made = "python3 -m pip install -q --no-index --no-build-isolation --no-deps . && echo ${VIRTUAL_ENV-none} > seen"
    task = with_image(make_task(repository(tmp_path, {"setup.py": SETUP_PY})), made)

    async def scenario() -> None:
        built = await _build(docker, task)
        said = await _inside(docker, built, "cat seen; cd /; python -c 'import calc; print(calc.__file__)'")
        assert said.split()[0] == "none" and "/calc/__init__.py" in said.split()[1]

    asyncio.run(scenario())


def test_set_up_that_takes_too_long_is_stopped_and_named(docker: Provider, tmp_path: Path) -> None:
    task = with_image(make_task(repository(tmp_path)), "sleep 50")

    async def scenario() -> None:
        with pytest.raises(SetupFailed, match="set-up was stopped after 2 s in the command: sleep 50"):
            await _build(docker, task, timeout=2.0)

    asyncio.run(scenario())


def test_of_two_that_want_the_same_environment_one_builds_it(docker: Provider, tmp_path: Path) -> None:
    task = with_image(make_task(repository(tmp_path)), "sleep 1; echo made > made-by-setup")

    async def scenario() -> None:
        said: list[str] = []
        one, other = await asyncio.gather(_build(docker, task, said), _build(docker, task, said))
        assert one.key == other.key and set_ups(said) == 1
        assert any("waiting for another" in line for line in said)
        assert await _inside(docker, one, "cat made-by-setup") == "made\n"

    asyncio.run(scenario())


def test_whatever_decides_what_set_up_makes_is_in_the_key(docker: Provider, tmp_path: Path) -> None:
    task = with_image(make_task(repository(tmp_path)), "true")
    edited = make_task(make_repository(tmp_path / "other", {**CALC, "calc/extra.py": ""}))
    others = (
        with_image(task, "true", "true"),
        replace(task, failing_test=FAILING),
        with_image(edited, "true"),
        replace(task, environment=replace(task.environment, python="3.11")),
    )

    async def scenario() -> None:
        keys = {(await _build(docker, each)).key for each in (task, *others)}
        assert len(keys) == 5
        said: list[str] = []
        await _build(docker, replace(task, statement="Other words.", id="other"), said)
        assert not set_ups(said)

    asyncio.run(scenario())


def test_given_files_are_laid_over_the_tree_whatever_is_in_their_way(docker: Provider, tmp_path: Path) -> None:
    base = repository(tmp_path, {"docs/page.md": "text\n", "below": "a file\n"})
    (base / "link").symlink_to("calc/__init__.py")
    git(base, "add", "link")
    git(base, "commit", "-qm", "link")
    given = {"link": "no link\n", "docs": "no folder\n", "below/tests/test_new.py": "new\n", "calc/ops.py": "over\n"}
    task = replace(with_image(make_task(base), "true"), failing_test=replace(FAILING, files=tuple(given.items())))

    async def scenario() -> None:
        built = await _build(docker, task)
        said = await _inside(
            docker, built, f"cat {' '.join(given)}; test ! -L link && git diff --quiet calc/__init__.py"
        )
        assert said == "".join(given.values())

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", ".git/config", "a/../../b", ""])
def test_given_files_stay_within_the_repository(bubblewrap: Provider, tmp_path: Path, path: str) -> None:
    task = replace(make_task(repository(tmp_path)), failing_test=replace(FAILING, files=((path, "x"),)))
    with pytest.raises(InputError, match="not a path within the repository"):
        asyncio.run(_build(bubblewrap, task))


def test_what_set_up_made_is_in_no_patch(docker: Provider, tmp_path: Path) -> None:
    task = with_image(make_task(repository(tmp_path)), "echo 1 > calc/_version.py; echo '# built' >> calc/__init__.py")

    async def scenario() -> None:
        built = await _build(docker, replace(task, failing_test=FAILING))
        sandbox = await docker.create(SandboxSpec(run="tests", name="take", environment=built.key))
        try:
            assert await take_patch(sandbox) == ""
            await sandbox.write("calc/new.py", b"x = 1\n")
            assert Patch(await take_patch(sandbox)).paths == ("calc/new.py",)
        finally:
            await sandbox.close()

    asyncio.run(scenario())


def _baseline(
    provider: Provider, task: Task, command: str = "python -m pytest -q", *, runs: int = 2, **seconds: Any
) -> Baseline:
    async def scenario() -> Baseline:
        built = replace(await freeze(provider, task), test_command=command)
        return await baseline(replace(CleanRoom(provider, built, "tests"), **seconds), task, runs=runs)

    return asyncio.run(scenario())


def test_the_given_test_must_fail_on_the_base(bubblewrap: Provider, tmp_path: Path) -> None:
    passing = GivenTest(ids=("tests/test_core.py::test_add",))
    place = repository(tmp_path)
    with pytest.raises(SetupFailed, match=r"test_add does not fail on the base \(passed\)"):
        _baseline(bubblewrap, make_task(place, failing=passing))
    found = _baseline(bubblewrap, make_task(place, failing=replace(passing, certain=False)))
    assert found.report is not None and "no test that is at hand fails" in found.note
    with pytest.raises(SetupFailed, match="test_nowhere is not found"):
        _baseline(bubblewrap, make_task(place, failing=GivenTest(ids=("tests/test_core.py::test_nowhere",))))


def test_a_given_test_that_the_command_leaves_out_is_run_as_well(bubblewrap: Provider, tmp_path: Path) -> None:
    found = _baseline(
        bubblewrap, make_task(repository(tmp_path), failing=FAILING), "python -m pytest -q tests/test_core.py"
    )
    assert found.report is not None
    assert found.report.outcomes["tests/test_issue.py::test_mean"] == "failed"
    assert "tests/test_core.py::test_add" in found.report.passed


def test_flaky_tests_are_found_by_running_twice(bubblewrap: Provider, tmp_path: Path) -> None:
    coins = (
        "import os\n\nimport pytest\n\n\n@pytest.mark.parametrize('coin', range(16))\ndef test_coin(coin):\n"
        "    assert os.urandom(1)[0] % 2\n\n\ndef test_sure():\n    pass\n"
    )
    found = _baseline(bubblewrap, make_task(repository(tmp_path, {"tests/test_coin.py": coins})), runs=2)
    assert found.flaky and all(test.startswith("tests/test_coin.py::test_coin[") for test in found.flaky)
    assert f"{len(found.flaky)} flaky test" in found.note


def test_a_base_whose_tests_cannot_be_loaded_is_an_error_with_the_reason(bubblewrap: Provider, tmp_path: Path) -> None:
    broken = {"setup.py": "", "tests/test_x.py": "import nothing_like_that\n"}
    task = make_task(repository(tmp_path, base=broken))
    with pytest.raises(SetupFailed, match=r"(?s)no test of the base can be loaded.*nothing_like_that"):
        _baseline(bubblewrap, task)
    with pytest.raises(SetupFailed, match="the tests of the base cannot be run: the test command could not be started"):
        _baseline(bubblewrap, task, "no-such-runner")


def test_a_given_test_may_fail_by_not_loading(bubblewrap: Provider, tmp_path: Path) -> None:
    only = GivenTest(
        ids=("test_new.py::test_it",),
        files=(("test_new.py", "from calc import median\n\n\ndef test_it():\n    pass\n"),),
    )
    base = {k: v for k, v in CALC.items() if not k.startswith("tests/")}
    found = _baseline(bubblewrap, make_task(repository(tmp_path, base=base), failing=only))
    assert found.report is not None and found.report.outcomes == {"test_new.py": "error"}


def test_a_repository_without_tests_has_no_baseline_and_says_so(bubblewrap: Provider, tmp_path: Path) -> None:
    base = {k: v for k, v in CALC.items() if not k.startswith("tests/")}
    found = _baseline(bubblewrap, make_task(repository(tmp_path, base=base)))
    assert found.report is None and "no tests" in found.note
    with pytest.raises(SetupFailed, match="pytest found no tests"):
        _baseline(bubblewrap, make_task(tmp_path / "repository", command="python -m pytest -q"))


def test_a_suite_that_is_stopped_counts_as_far_as_it_got(bubblewrap: Provider, tmp_path: Path) -> None:
    slow = {"tests/test_z.py": "import time\n\n\ndef test_z():\n    time.sleep(99)\n"}
    found = _baseline(bubblewrap, make_task(repository(tmp_path, slow)), runs=1, timeout=5.0)
    assert found.report is not None
    assert found.report.passed == {"tests/test_core.py::test_add", "tests/test_core.py::test_mean_of_nothing"}
    assert "only the 2 tests" in found.note


def test_a_test_that_takes_the_interpreter_down_does_not_take_the_baseline_along(
    bubblewrap: Provider, tmp_path: Path
) -> None:
    deadly = {"tests/test_z.py": "import os\n\n\ndef test_z():\n    os.abort()\n"}
    found = _baseline(bubblewrap, make_task(repository(tmp_path, deadly)), runs=1)
    assert found.report is not None and len(found.report.passed) == 2
    assert found.report.outcomes["tests/test_z.py::test_z"] == "error"


def test_a_command_without_a_framework_has_a_baseline_of_one_test(bubblewrap: Provider, tmp_path: Path) -> None:
    found = _baseline(bubblewrap, make_task(repository(tmp_path)), "python tests/test_core.py")
    assert found.report is not None and set(found.report.outcomes) == {COMMAND_TEST}


def test_a_baseline_is_found_once_and_then_kept(bubblewrap: Provider, tmp_path: Path) -> None:
    task = make_task(repository(tmp_path))
    first = _baseline(bubblewrap, task)

    class Unusable:
        name = bubblewrap.name

        async def create(self, spec: SandboxSpec) -> None:
            raise AssertionError("nothing needs to run again")

    async def again() -> Baseline:
        built = await freeze(bubblewrap, task)
        return await baseline(CleanRoom(cast("Provider", Unusable()), built, "tests"), task)

    assert asyncio.run(again()) == first
