"""Ordinary layouts are set up right without a word from the user: the one test of each needs all that they say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.environments.base_run import baseline
from harness.environments.environment import Built, CleanRoom, build
from harness.patches.extract import take_patch
from harness.sandbox.base import Provider, SandboxSpec
from tasks.errors import SetupFailed
from tests.support.layouts import LAYOUTS, USES, Laid, lay, project, with_submodule
from tests.support.repositories import make_repository, make_task, opened

pytestmark = pytest.mark.network


async def set_up(provider: Provider, place: Path) -> tuple[Built, dict[str, str]]:
    task = make_task(place)
    built = await build(provider, await opened(task), task, run="tests", setup_timeout=300)
    found = await baseline(CleanRoom(provider, built, "tests"), task, runs=1)
    assert found.report is not None and found.report.valid, found
    return built, dict(found.report.outcomes)


@pytest.mark.parametrize("laid", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_set_up_without_a_flag_and_its_test_can_be_named(
    laid: Laid, bubblewrap: Provider, tmp_path: Path
) -> None:
    async def scenario() -> None:
        built, outcomes = await set_up(bubblewrap, lay(laid, tmp_path / "repository"))
        assert outcomes == {laid.test: "passed"}
        room = CleanRoom(bubblewrap, built, "tests")
        by_name = await room.fresh("one", lambda sandbox: room.tests(sandbox, [laid.test]))
        assert dict(by_name.outcomes) == outcomes, by_name

    asyncio.run(scenario())


def test_what_tests_import_is_installed_from_the_projects_own_lists(bubblewrap: Provider, tmp_path: Path) -> None:
    more = '[project.optional-dependencies]\ntest = ["pytest"]\nspeed = ["toolz"]\ndocs = ["colorama"]\n'
    files = {"pyproject.toml": project(more=more), "thing.py": "", "test_it.py": USES.format("thing, toolz")}
    built, outcomes = asyncio.run(set_up(bubblewrap, make_repository(tmp_path / "repository", files)))
    assert outcomes == {"test_it.py::test_it": "passed"}
    assert [note for note in built.notes if "import" in note] == ["installing what tests import or use as well: toolz"]


def test_a_conftest_that_todays_pytest_cannot_load_gets_an_older_one(bubblewrap: Provider, tmp_path: Path) -> None:
    old = "import pytest\n\nassert int(pytest.__version__.split('.')[0]) < 8, 'too new'\n"
    files = {"conftest.py": old, "test_it.py": "def test_it():\n    pass\n"}
    built, outcomes = asyncio.run(set_up(bubblewrap, make_repository(tmp_path / "repository", files)))
    assert outcomes == {"test_it.py::test_it": "passed"}
    assert any("trying pytest<8" in note for note in built.notes)


def test_a_set_up_that_fails_shows_the_first_way_and_the_flags_that_help(bubblewrap: Provider, tmp_path: Path) -> None:
    files = {"pyproject.toml": project(more='dependencies = ["troop-has-no-such-package"]\n'), "thing.py": ""}
    place = make_repository(tmp_path / "repository", files)
    shown = (
        r"(?s)the project could not be installed; the command was: pip install -e \.\n.*troop-has-no-such-package"
        r".*other ways were tried and failed too\nwhat helps: --setup COMMAND .*--python X.Y, --image IMAGE"
    )
    with pytest.raises(SetupFailed, match=shown):
        asyncio.run(set_up(bubblewrap, place))


def test_a_filled_submodule_is_there_and_part_of_no_patch(provider: Provider, tmp_path: Path) -> None:
    async def scenario() -> None:
        built, outcomes = await set_up(provider, with_submodule(tmp_path, filled=True))
        assert outcomes == {"test_it.py::test_it": "passed"}
        sandbox = await provider.create(SandboxSpec(run="tests", name="look", environment=built.key))
        try:
            assert await take_patch(sandbox) == ""
            await sandbox.write("data/spec/answer.txt", b"43")
            await sandbox.write("new.py", b"x = 1\n")
            assert [line for line in (await take_patch(sandbox)).splitlines() if line.startswith("+++")] == [
                "+++ b/new.py"
            ]
        finally:
            await sandbox.close()

    asyncio.run(scenario())


def test_an_empty_submodule_that_cannot_be_fetched_is_named(bubblewrap: Provider, tmp_path: Path) -> None:
    built, outcomes = asyncio.run(set_up(bubblewrap, with_submodule(tmp_path, filled=False)))
    assert outcomes == {"test_it.py::test_it": "failed"}
    assert any("data/spec" in note and "git submodule update --init" in note for note in built.notes)
