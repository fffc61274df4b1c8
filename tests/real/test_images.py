"""Environment images, built in a real daemon: what is in them, what is not, and that they stop, rebuild and can be
found."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cache import cache_root
from harness.repository.workspace import open_workspace
from harness.sandbox.docker.daemon import connect
from harness.sandbox.docker.image import DEFAULT_IMAGE
from harness.sandbox.docker.provider import DockerProvider
from harness.swebench import names
from harness.swebench.images import ImageOutcome, Source, ensure_images, find_image
from harness.swebench.layers import Layers
from harness.swebench.official import Spec
from harness.swebench.recipe import recipe_of
from harness.swebench.steps import Log
from harness.swebench.store import kept_images, remove
from tasks.errors import SetupFailed
from tasks.swebench import choose_rows, load_rows
from tasks.task import Repository
from tests.support.repositories import CALC, git, make_repository
from tests.support.rows import bare_row

pytestmark = [pytest.mark.docker, pytest.mark.network, pytest.mark.slow]

SECRET = "TheFixOfTomorrow"
SPEC = Spec(
    python="3.11",
    packages=("iniconfig",),
    pip_packages=("pluggy==1.5.0",),
    pre_install=(
        "sed -i 's/^version = .*/version = \"1.1\"/' pyproject.toml",
        "sed -i 's/setuptools>=61/setuptools==68.0.0/' pyproject.toml",
    ),
    install="python -m pip install -e .[test]",
    requirements_paths=(),
    environment_paths=(),
    replaced_packages=(),
    capabilities=(),
)
ROW = bare_row(instance_id=f"acme__Calc-{os.getpid()}", repo="acme/calc", version="1.0")
PYPROJECT = CALC["pyproject.toml"] + '\n[project.optional-dependencies]\ntest = ["packaging"]\n'

Shell = Callable[..., str]


def at(day: str) -> dict[str, str]:
    """Git's variables for a commit made at noon of that day."""
    return dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{day}T12:00:00+00:00")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    made = connect()
    yield made
    made.close()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository whose base has a tag before it, and after it the fix, as a commit, a branch and a tag."""
    place = make_repository(
        tmp_path_factory.mktemp("origin") / "calc",
        {**CALC, "pyproject.toml": PYPROJECT},
        date="2024-02-01T12:00:00+00:00",
    )
    git(place, "tag", "v0.9")
    (place / "second.py").write_text("x = 1\n")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "base", **at("2024-02-01"))
    base = git(place, "rev-parse", "HEAD")
    (place / "calc/core.py").write_text(f"# {SECRET}\n")
    git(place, "commit", "-qam", SECRET, **at("2024-03-01"))
    git(place, "tag", "v2.0")
    git(place, "branch", f"fix-{SECRET}")
    return place, base


def build(
    client: Any,
    origin: tuple[Path, str],
    cache: Path,
    spec: Spec,
    heard: list[str] | None = None,
    *,
    anew: bool = False,
) -> None:
    place, base = origin
    tree = open_workspace(Repository("path", str(place), base), cache)
    row = replace(ROW, base_commit=base)
    recipe = recipe_of(row, spec, tree, lambda: tree)
    log = Log(
        cache / "images/logs" / f"{row.instance_id}.log", row.instance_id, (heard if heard is not None else []).append
    )

    async def build() -> None:
        provider = DockerProvider()
        try:
            layers = Layers(provider, client, {"3.11": DEFAULT_IMAGE}, cache, "test-images", anew)
            await layers.instance(recipe, tree, log)
        finally:
            await provider.close()

    asyncio.run(build())


@pytest.fixture(scope="module")
def image(client: Any, origin: tuple[Path, str], cache: Path) -> Iterator[str]:
    """The built image's name; it and the layers that only it stands on go at the end."""
    before = {kept.id for kept in kept_images(client)}
    build(client, origin, cache, SPEC)
    name = names.image_name(ROW.instance_id)
    yield name
    by_id = {kept.id: kept for kept in kept_images(client)}
    made = next((kept for kept in by_id.values() if kept.name == name), None)
    while made is not None and made.id not in before:  # others may build at the same time: theirs stay
        remove(client, made)
        made = by_id.get(made.parent)


@pytest.fixture(scope="module")
def inside(client: Any, image: str) -> Iterator[Shell]:
    """Runs a shell line in a container of the image that has no network, as an evaluation does; its output."""
    container = client.containers.create(image, command="tail -f /dev/null", network_mode="none", working_dir="/")
    container.start()

    def shell(line: str, *, fails: bool = False) -> str:
        status, output = container.exec_run(["bash", "-c", line])
        assert (status != 0) is fails, output.decode()
        return str(output.decode().strip())

    yield shell
    container.remove(force=True)


ENTER = ". /opt/miniconda3/bin/activate && conda activate testbed && cd /testbed && "


def test_it_is_found_by_its_row_and_says_how_the_repository_is_installed(client: Any, image: str) -> None:
    found = find_image(client, ROW)
    assert found is not None
    assert (found.name, found.origin, found.labels["troop.editable"]) == (image, "built", "1")
    assert find_image(client, replace(ROW, instance_id="acme__calc-0")) is None


def test_the_official_evaluation_finds_what_it_looks_for(inside: Shell) -> None:
    assert inside(ENTER + "which python && python -c 'import sys; print(sys.prefix)'").splitlines() == [
        "/opt/miniconda3/envs/testbed/bin/python",
        "/opt/miniconda3/envs/testbed",
    ]
    assert inside("set -u; " + ENTER + "echo $CONDA_DEFAULT_ENV") == "testbed"
    assert inside("/opt/env/bin/python -c 'import calc; print(calc.__file__)'") == "/testbed/calc/__init__.py"


def test_versions_are_of_the_instance_s_time_and_pins_hold(inside: Shell) -> None:
    listed = inside(ENTER + "python -m pip list --format=freeze").splitlines()
    assert "pluggy==1.5.0" in listed  # pinned, and younger than the base
    assert "packaging==23.2" in listed  # of an extra: 24.0 came a month after the base
    assert "calc==1.1" in listed  # after the specification's change to the tree


def test_the_installation_can_be_repeated_without_a_network(inside: Shell) -> None:
    said = inside(ENTER + "python -m pip install -e .[test]")
    assert "Installing build dependencies: finished" in said
    assert "Successfully installed calc-1.1" in said


def test_the_tree_is_the_base_with_one_commit_on_top_and_the_tag_before_it(
    inside: Shell, origin: tuple[Path, str]
) -> None:
    _, base = origin
    assert inside("cd /testbed && git log --format='%s %ae'") == "SWE-bench setup@swebench.config\nbase a@example.org"
    assert inside("cd /testbed && git rev-parse HEAD~1") == base
    assert inside("cd /testbed && git tag --points-at HEAD~1") == "v0.9"
    assert inside("cd /testbed && git diff --name-only HEAD~1 HEAD") == "pyproject.toml"
    assert inside("cd /testbed && git status --porcelain") == ""


def test_there_is_no_future_in_it(inside: Shell) -> None:
    assert inside("cd /testbed && git tag") == "v0.9"
    assert inside("cd /testbed && git branch --all --format='%(refname)'") == "refs/heads/main"
    objects = inside(
        "cd /testbed && git cat-file --batch-all-objects --batch-check='%(objectname)'"
        " | git cat-file --batch --buffer | strings"
    )
    assert "divides" not in objects
    assert SECRET not in objects
    assert inside(f"grep -rlI {SECRET} /testbed /opt /root /etc /tmp 2>/dev/null", fails=True) == ""
    assert inside("ls /testbed/.git/logs /opt/troop/base.git 2>/dev/null", fails=True) == ""


def test_nothing_of_this_machine_s_settings_is_in_it(client: Any, image: str, inside: Shell) -> None:
    from harness.sandbox.index import index_settings

    settings = index_settings()
    for value in {value for value in settings.env.values() if "://" in value}:
        for url in value.replace(",", " ").split():
            assert (
                inside(f"grep -rlF '{url}' /etc /opt /root /home /testbed /usr/local /var 2>/dev/null", fails=True)
                == ""
            )
    variables = client.images.get(image).attrs["Config"]["Env"]
    assert [name.partition("=")[0] for name in variables if name.startswith(("PIP", "UV", "SSL", "http", "HTTP"))] == []
    assert inside("ls /opt/troop/bin /opt/troop/certificates.pem 2>/dev/null", fails=True) == ""
    configured = inside(ENTER + "python -m pip config list").splitlines()
    assert sorted(line.partition("=")[0] for line in configured) == [
        "global.disable-pip-version-check",
        "global.find-links",
        "global.no-cache-dir",
        "global.no-index",
        "global.root-user-action",
        "install.compile",
    ]
    assert (
        inside(
            "cat /opt/miniconda3/envs/testbed/lib/python3*/site-packages/*.dist-info/direct_url.json 2>/dev/null | grep"
            " -v file:///testbed",
            fails=True,
        )
        == ""
    )


def test_a_container_of_it_stops_at_once(client: Any, image: str) -> None:
    container = client.containers.create(image, command="tail -f /dev/null", network_mode="none")
    try:
        container.start()
        began = time.monotonic()
        container.stop(timeout=15)
        assert time.monotonic() - began < 5
    finally:
        container.remove(force=True)


def test_the_interpreter_is_the_environment_s_own_by_whatever_link_it_is_started(inside: Shell) -> None:
    prefix = "-c 'import sys; print(sys.prefix)'"
    inside("mkdir -p /tmp/other/bin && ln -sf /opt/miniconda3/envs/testbed/bin/python /tmp/other/bin/python")
    assert inside(f"/tmp/other/bin/python {prefix}") == "/opt/miniconda3/envs/testbed"
    assert inside(f"PATH=/tmp/other/bin:$PATH python {prefix}") == "/opt/miniconda3/envs/testbed"
    inside("/opt/miniconda3/envs/testbed/bin/python -m venv --without-pip /tmp/nested")
    assert inside(f"/tmp/nested/bin/python {prefix}") == "/tmp/nested"
    assert inside(f"PATH=/tmp/nested/bin:$PATH python {prefix}") == "/tmp/nested"


def test_a_second_build_makes_the_same_tree_on_the_layers_that_are_there(
    client: Any, origin: tuple[Path, str], cache: Path, image: str, inside: Shell
) -> None:
    commit = inside("git -C /testbed rev-parse HEAD")
    heard: list[str] = []
    build(client, origin, cache, SPEC, heard)
    assert [line.partition(": ")[2] for line in heard] == ["installing the repository", "keeping the image"]
    (place,) = (cache / "images/chosen").glob("*.json")
    chosen = place.read_bytes()
    place.write_bytes(chosen.replace(b"pluggy==1.5.0", b"pluggy==1.4.0"))
    build(client, origin, cache, SPEC, heard, anew=True)
    assert "choosing versions as of 2024-02" in heard[2] and place.read_bytes() == chosen
    again = client.containers.run(
        image, ["git", "-C", "/testbed", "rev-parse", "HEAD"], remove=True, network_mode="none"
    )
    assert again.decode().strip() == commit


def test_a_build_that_fails_names_the_step_and_goes_on_from_there(
    client: Any, origin: tuple[Path, str], cache: Path, image: str
) -> None:
    kept = client.images.get(image).id
    with pytest.raises(
        SetupFailed, match=r"(?s)installing the repository failed: see \S+logs/acme__Calc.*no-such-file"
    ):
        build(client, origin, cache, replace(SPEC, install="python -m pip install -e .[test] && cat no-such-file"))
    assert client.images.get(image).id == kept, "the image that was there stays until another is finished"
    rows = client.api.containers(all=True, filters={"label": ["troop.run=test-images"]})
    assert rows == []


def test_sizes_tell_what_an_image_adds(client: Any, image: str) -> None:
    by_name = {kept.name: kept for kept in kept_images(client)}
    mine = by_name[image]
    assert mine.kind == names.INSTANCE
    assert mine.instance == ROW.instance_id
    assert 0 < mine.adds < 20_000_000 < mine.size
    assert mine.own == mine.adds


def test_what_is_the_matter_with_one_instance_keeps_no_other_from_its_image(tmp_path: Path) -> None:
    """One's base is damaged in the cache, the other's version is unknown."""
    clone = make_repository(tmp_path / "mirrors/pytest-dev__pytest", CALC)
    base = git(clone, "rev-parse", "HEAD")
    damaged = bare_row(instance_id="a__damaged-1", repo="pytest-dev/pytest", version="7.0", base_commit=base)
    damaged = replace(damaged, environment_setup_commit=base)
    facts = open_workspace(Repository("path", str(clone), base), cache_root()).git_dir.parent / "facts.json"
    kept = facts.read_text()
    facts.write_text("{")
    try:
        rows = [damaged, replace(damaged, instance_id="a__unknown-1", version="0.0")]
        done = asyncio.run(ensure_images(rows, source=Source(tmp_path / "mirrors", "never")))
    finally:
        facts.write_text(kept)
    assert done[0].failure.startswith("JSONDecodeError: Expecting property name")
    assert "does not know version '0.0'" in done[1].failure


def test_real_instances_are_built_once_and_announced(client: Any) -> None:
    if "TROOP_DATA" not in os.environ or "TROOP_MIRRORS" not in os.environ:
        pytest.skip("TROOP_DATA and TROOP_MIRRORS name no rows and clones here")
    rows = choose_rows(
        load_rows("swe-bench-lite", Path(os.environ["TROOP_DATA"]) / "swe-bench-lite.jsonl"),
        ["sympy__sympy-24152,pytest-dev__pytest-9359"],
    )
    told: list[ImageOutcome] = []
    with contextlib.closing(client):
        done = asyncio.run(
            ensure_images(rows, source=Source(Path(os.environ["TROOP_MIRRORS"]), "never"), tell=told.append)
        )
    assert [prepared.failure for prepared in done] == ["", ""]
    assert {prepared.row.instance_id for prepared in told} == {row.instance_id for row in rows}
    assert [prepared.row for prepared in done] == rows
