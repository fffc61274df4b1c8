"""Fixtures shared by all tests: a private cache, and a ready Provider of each backend.

A test that uses `docker`, `bubblewrap` or `provider`, or carries a marker of that name (or `network`, `browser`), is skipped where
the thing is not to be had, with the reason in pytest's summary. TROOP_REQUIRE_DOCKER=1, TROOP_REQUIRE_BUBBLEWRAP=1,
TROOP_REQUIRE_NETWORK=1 and TROOP_REQUIRE_BROWSER=1 make it fail instead: continuous integration must not pass by skipping.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox.base import Provider
from harness.sandbox.choice import BACKENDS
from tasks.errors import TroopError
from tests.support.browser import CHROMIUM

NEEDS = (*BACKENDS, "network", "browser")
KILLED = "killed             kills  runs seconds  at (the last line of the trace)"
"""The property of a test's report that is a row of the table of kills: its head."""


def pytest_configure() -> None:
    """Where several processes share the tests, each is told the width of the terminal; what tests start has none."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop("COLUMNS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A fixture's need is its test's need: `-m "not docker"` leaves out whatever would use docker."""
    for item in items:
        for backend in BACKENDS:
            if backend in getattr(item, "fixturenames", ()):
                item.add_marker(backend)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        r for of_kind in terminalreporter.stats.values() for r in of_kind if getattr(r, "when", "") == "teardown"
    ]
    rows = [value for report in reports for name, value in report.user_properties if name == KILLED]
    if rows:
        terminalreporter.section("killed at random moments")
        terminalreporter.write("".join(f"{row}\n" for row in (KILLED, *rows)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for need in NEEDS:
        if item.get_closest_marker(need) is None:
            continue
        missing = _missing(need)
        if not missing:
            continue
        variable = f"TROOP_REQUIRE_{need.upper()}"
        if os.environ.get(variable) == "1":
            pytest.fail(f"{variable}=1, but {missing}", pytrace=False)
        pytest.skip(missing)


@functools.cache
def _missing(need: str) -> str:
    """Why `need` is not to be had here; empty where it is. Found out once."""
    special = {"docker": _docker_missing, "network": _network_missing, "browser": _browser_missing}.get(need)
    return special() if special is not None else _backend_missing(need)


def _docker_missing() -> str:
    from harness.sandbox.docker.daemon import connect
    from harness.sandbox.docker.image import DEFAULT_IMAGE, build_default_image, find, is_current

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        client = connect()
        try:
            image = find(client, DEFAULT_IMAGE)
            if image is None or not is_current(image):
                build_default_image(client, say=say, may_bootstrap=True)
        finally:
            client.close()
    except TroopError as error:
        return f"docker cannot be used: {error}"
    return ""


def _backend_missing(name: str) -> str:
    async def check(cache: Path) -> str:
        provider = BACKENDS[name].open(cache, None)
        first = (await provider.findings())[0]
        await provider.close()
        return "" if first.ok else f"{name} cannot be used: {first.detail}"

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(check(Path(folder)))


def _network_missing() -> str:
    """Whether the package index answers, by the machine's own pip settings."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
            "-d",
            folder,
            "iniconfig",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            return "the package index does not answer within two minutes"
    return "" if done.returncode == 0 else f"the package index is not reached: {done.stderr.strip()[-200:]}"


def _browser_missing() -> str:
    return "" if CHROMIUM else "there is no Chromium here: apt-get install -y chromium"


def _provider(backend: str, cache: Path) -> Iterator[Provider]:
    provider = BACKENDS[backend].open(cache, None)
    yield provider
    asyncio.run(provider.close())


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of this test session, and its name for docker's environments: no test reads or writes the user's
    own."""
    path = tmp_path_factory.mktemp("cache")
    environments = f"troop-test-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TROOP_CACHE", str(path))
        patch.setenv("TROOP_DOCKER_ENVIRONMENTS", environments)
        yield path
    _remove_images(environments)


def _remove_images(name: str) -> None:
    from harness.sandbox.docker.daemon import connect

    try:
        client = connect()
    except TroopError:
        return  # then no test made one
    for row in client.api.images(name=name):
        client.api.remove_image(row["Id"], force=True)
    client.close()


@pytest.fixture
def bubblewrap(cache: Path) -> Iterator[Provider]:
    """A ready bubblewrap provider."""
    yield from _provider("bubblewrap", cache)


@pytest.fixture
def docker(cache: Path) -> Iterator[Provider]:
    """A ready docker provider; the sandbox image is there."""
    yield from _provider("docker", cache)


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in BACKENDS])
def provider(request: pytest.FixtureRequest, cache: Path) -> Iterator[Provider]:
    """A ready provider of each backend in turn."""
    yield from _provider(request.param, cache)
