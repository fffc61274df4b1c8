"""What an environment image is made of: requirements read, dates chosen, names given, images pruned."""

from __future__ import annotations

import asyncio
import importlib
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from harness.records import Exec
from harness.repository.workspace import Workspace, open_workspace
from harness.swebench import names
from harness.swebench.choose import IN, ResolvedEnvironment, _ask
from harness.swebench.layers import ANY, _install_packages, parse_bases
from harness.swebench.official import Spec
from harness.swebench.recipe import SPECS_WRITTEN, Recipe, ladder, recipe_of, wanted_lines
from harness.swebench.requirements import conda_requirement, conda_requirements, file_requirements, is_pin, without
from harness.swebench.steps import Log, Steps
from harness.swebench.store import SOLVE, StoredImage, doomed
from tasks.errors import InputError, SetupFailed
from tasks.task import Repository
from tests.support.repositories import CALC, make_repository
from tests.support.rows import bare_row

SPEC = Spec(
    python="3.9",
    packages=(),
    pip_packages=(),
    pre_install=(),
    install="python -m pip install -e .",
    requirements_paths=(),
    environment_paths=(),
    replaced_packages=(),
    capabilities=(),
)


ROW = bare_row(instance_id="acme__calc-1", repo="acme/calc", version="1.0")


@pytest.fixture
def tree(tmp_path: Path) -> Workspace:
    files = {**CALC, "requirements/dev.txt": "-r tests.txt\nclick==8.0\n-e .\n", "requirements/tests.txt": "pytest\n"}
    place = make_repository(tmp_path / "calc", files, date="2020-05-05T12:00:00+00:00")
    return open_workspace(Repository("path", str(place)), tmp_path / "cache")


def never() -> Workspace:
    raise AssertionError("no requirements come from a file here")


def recipe(tree: Workspace, spec: Spec = SPEC, created: datetime | None = None) -> Recipe:
    return recipe_of(replace(ROW, created_at=created), spec, tree, never)


# ---- requirements


def test_requirement_files_include_others_and_leave_out_the_tree_itself() -> None:
    files = {
        "requirements/dev.txt": (
            "# all\n-r tests.txt\n-r gone.txt\n-c constraints.txt\n-e .[test]\nclick==8.0  # pinned\n."
        ),
        "requirements/tests.txt": (
            "pytest \\\n  --hash=sha256:0a1b\nold_package>=1\n-r dev.txt\n--index-url https://example.org\n"
        ),
    }

    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    found = file_requirements("requirements/dev.txt", read, {"old-package": "new-package"})
    assert found == ["pytest", "new-package", "click==8.0"]


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("numpy=1.19", "numpy==1.19.*"),
        ("numpy=1.19.2=py39_0", "numpy==1.19.2.*"),
        ("numpy==1.19.2", "numpy==1.19.2"),
        ("numpy>=1.19,<2", "numpy>=1.19,<2"),
        ("numpy 1.19.*", "numpy==1.19.*"),
        ("conda-forge::numpy", "numpy"),
        ("numpy", "numpy"),
    ],
)
def test_conda_says_versions_in_its_own_way(conda: str, pip: str) -> None:
    assert conda_requirement(conda) == pip


def test_a_conda_environment_is_its_dependencies_and_those_of_pip() -> None:
    text = (
        "name: x\nchannels:\n  - conda-forge\ndependencies:\n  # a comment\n  - python=3.9\n  - numpy=1.19\n"
        "  - pip\n  - pip:\n    - types-pkg_resources==0.1\n    - sphinx~=4.0\n  - cycler\nother:\n  - nothing\n"
    )
    found = conda_requirements(text, {"types-pkg-resources": "types-setuptools"})
    assert found == ["numpy==1.19.*", "types-setuptools", "sphinx~=4.0", "cycler"]


@pytest.mark.parametrize(
    ("requirement", "pinned"),
    [
        ("a==1.2", True),
        ("a[x]==1.0; python_version < '3'", True),
        ("a==1.*", False),
        ("a>=1,==1.2", True),
        ("a", False),
        ("a~=1.2", False),
    ],
)
def test_a_pin_admits_one_version(requirement: str, pinned: bool) -> None:
    assert is_pin(requirement) is pinned


def test_what_is_pinned_later_outranks_what_a_file_says() -> None:
    assert without(["Werkzeug==2.2", "click"], ["werkzeug==2.3.7", "click"]) == ["click"]


# ---- recipes


def test_dependencies_are_as_of_the_instance_or_its_base_whichever_is_later(tree: Workspace) -> None:
    assert recipe(tree).date.date().isoformat() == "2020-05-07"
    assert recipe(tree, created=datetime(2020, 6, 1, tzinfo=UTC)).date.date().isoformat() == "2020-06-03"


def test_requirements_of_a_later_commit_bring_its_date_along(tree: Workspace) -> None:
    later = replace(tree, date=datetime(2021, 1, 1, tzinfo=UTC))
    spec = replace(SPEC, requirements_paths=("gone.txt", "requirements/dev.txt"), pip_packages=("click==8.1.3",))
    found = recipe_of(ROW, spec, tree, lambda: later)
    assert found.date.date().isoformat() == "2021-01-03"
    assert found.requirements == ("pytest",)
    assert found.pins == ("click==8.1.3",)


def test_a_pinned_package_may_be_younger_than_the_instance_and_build_tools_too(tree: Workspace) -> None:
    made = recipe(tree, replace(SPEC, pip_packages=("attrs==23.1.0", "tox")))
    arguments = ladder(made, too_young=False)[0].arguments
    assert "--exclude-newer=2020-05-07" in arguments
    assert "--exclude-newer-package=attrs=2100-01-01" in arguments
    assert "--exclude-newer-package=atomicwrites=2022-07-09" in arguments  # or pytest would be 3.5 until 2020
    assert "--exclude-newer-package=pandas=2020-05-07" in arguments
    assert "--exclude-newer-package=setuptools-scm=2024-06-01" in arguments
    assert not any(argument.startswith("--exclude-newer-package=tox=") for argument in arguments)


@pytest.mark.parametrize("package", ["setuptools", "pytest"])
def test_what_deals_with_the_interpreter_is_as_old_as_that_allows(tree: Workspace, package: str) -> None:
    arguments = ladder(recipe(tree, replace(SPEC, packages=("pytest",))), too_young=False)[0].arguments
    assert f"--exclude-newer-package={package}=2020-12-04" in arguments


def test_what_pytest_needs_to_start_is_not_older_than_the_interpreter_s_first_year(tree: Workspace) -> None:
    (first, *_) = ladder(recipe_of(ROW, SPEC, tree, lambda: tree), too_young=False)
    assert "--exclude-newer-package=importlib-metadata=2021-10-05" in first.arguments


def test_pins_from_another_time_take_the_whole_environment_there(tree: Workspace) -> None:
    made = recipe(tree, replace(SPEC, pip_packages=("tox==4.16.0",)))
    first = ladder(made, too_young=True)[0]
    assert f"--exclude-newer={SPECS_WRITTEN:%Y-%m-%d}" in first.arguments
    assert "younger" in first.note


def test_the_repository_s_own_requirements_outrank_the_pins_only_where_both_cannot_be_had(tree: Workspace) -> None:
    made = recipe(tree, replace(SPEC, pip_packages=("astroid==3.0.0a6",)))
    strict, yielding = ladder(made, too_young=False)[:2]
    assert (strict.yielding, yielding.yielding) == (False, True)
    assert "astroid==3.0.0a6" in wanted_lines(made, ["astroid<3"])
    assert "astroid" in wanted_lines(made, ["astroid<3"], yielding=True)


def test_lines_that_change_the_system_are_told_from_those_that_change_the_tree(tree: Workspace) -> None:
    lines = ("sed -i s/a/b/ tox.ini", "apt-get update && apt-get install -y graphviz", "echo x > /etc/locale.gen")
    made = recipe(tree, replace(SPEC, pre_install=lines))
    assert made.pre_install == lines[:1]
    assert made.system == lines[1:]
    assert not made.needs_network


def test_extras_of_the_installation_belong_to_the_environment(tree: Workspace) -> None:
    assert recipe(tree, replace(SPEC, install="python -m pip install -e .[test,docs]")).extras == "[test,docs]"
    assert recipe(tree, replace(SPEC, install="")).project is False


def test_other_languages_and_missing_files_need_the_published_image(tree: Workspace) -> None:
    with pytest.raises(InputError, match="only those are built here"):
        recipe(tree, replace(SPEC, python=""))
    with pytest.raises(InputError, match=r"acme/calc has no gone\.txt"):
        recipe_of(ROW, replace(SPEC, requirements_paths=("gone.txt",)), tree, lambda: tree)


def test_every_part_of_a_recipe_is_part_of_its_fingerprint(tree: Workspace) -> None:
    made = recipe(tree)
    changed = [replace(made, pins=("a==1",)), replace(made, install="x"), replace(made, base_commit="1" * 40)]
    assert len({each.fingerprint for each in (made, *changed)}) == 4


# ---- bases and names


def test_bases_are_given_for_one_python_or_for_all() -> None:
    assert parse_bases(["3.9=python:3.9", "mine"]) == {"3.9": "python:3.9", ANY: "mine"}
    for wrong in (["3.9="], ["x=y"], ["a", "b"], [""]):
        with pytest.raises(InputError, match="--base"):
            parse_bases(wrong)


def test_images_of_another_architecture_have_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    try:
        assert importlib.reload(names).image_name("a__b-1") == "troop/sweb.eval.arm64.a_1776_b-1:latest"
        assert names.layer_name("python") == "troop/sweb.python.arm64"
    finally:
        monkeypatch.undo()
        importlib.reload(names)


def test_images_are_called_what_the_official_harness_asks_for() -> None:
    assert names.image_name("Acme__Calc-1") == f"troop/sweb.eval.{names.ARCH}.acme_1776_calc-1:latest"
    assert [origin for _, origin in names.names_of(replace(ROW, image="x/y"))] == [
        "row",
        "built",
        "published",
        "official",
    ]


# ---- pruning


def kept(name: str, kind: str, parent: str = "", created: float = 0.0) -> StoredImage:
    instance = name if kind in (names.INSTANCE, "published") else ""
    return StoredImage(name, f"id-{name}", kind, instance, "", "", "", 1, 1, 1, created, parent)


IMAGES = [
    kept("a__a-1", names.INSTANCE, "id-env1"),
    kept("b__b-2", names.INSTANCE, "id-env2"),
    kept("a__a-1", "published"),
    kept("env1", names.ENVIRONMENT, "id-py"),
    kept("env2", names.ENVIRONMENT, "id-py"),
    kept("env3", names.ENVIRONMENT, "id-py"),
    kept("py", names.TOOLS),
    kept("solved", SOLVE),
]


def pruned(**wanted: Any) -> list[str]:
    arguments: dict[str, Any] = {"instances": None, "older_than": None, "everything": False, **wanted}
    return [f"{image.kind}:{image.name}" for image in doomed(IMAGES, **arguments)]


def test_pruning_takes_layers_that_nothing_stands_on() -> None:
    assert pruned() == ["environment:env3"]


def test_a_young_layer_may_be_about_to_be_built_upon() -> None:
    young = [replace(image, created=time.time()) for image in IMAGES]
    assert doomed(young, instances=None, older_than=None, everything=False) == []


def test_pruning_an_instance_takes_the_layers_that_only_it_stood_on() -> None:
    assert pruned(instances={"a__a-1"}) == [
        "instance:a__a-1",
        "published:a__a-1",
        "environment:env1",
        "environment:env3",
    ]


def test_pruning_all_leaves_published_images_and_those_of_solve() -> None:
    gone = pruned(everything=True)
    assert gone[-1] == "python:py"
    assert not {"published:a__a-1", "solve:solved"} & set(gone)


def test_environments_of_solve_go_by_age() -> None:
    assert "solve:solved" in pruned(older_than=3600.0)
    assert "solve:solved" not in pruned(older_than=1e12)


def test_a_package_that_wants_a_library_of_the_system_is_left_out_and_said(tmp_path: Path) -> None:
    hint = (
        "hint: This error likely indicates that you need to install a library that provides `lib/m.h` for `py_lib@1.6`"
    )
    written: list[str] = []

    class Sandbox:
        async def write(self, path: str, content: bytes) -> None:
            if path == IN:
                written.append(content.decode())

        async def exec(self, command: str, **_: Any) -> Exec:
            fails = "pip install" in command and "py-lib" in written[-1]
            return Exec(hint.encode() if fails else b"", b"", int(fails), False, 0.1)

    heard: list[str] = []
    steps = Steps(cast("Any", Sandbox()), Log(tmp_path / "log", "acme__calc-1", heard.append))
    asyncio.run(_install_packages(steps, ResolvedEnvironment(("a==1", "py-lib==1.6"), (), (), "")))
    assert written == ["a==1\npy-lib==1.6\n", "a==1\n"]
    assert heard == ["acme__calc-1: left out, for it is built here and lib/m.h is not: py-lib==1.6"]
    only = ResolvedEnvironment(("py-lib==1.6", "py-lib-two==1"), (), (), "")
    hint = "error: no such thing"
    with pytest.raises(SetupFailed, match=r"installing packages failed: see \S+log\nerror: no such thing"):
        asyncio.run(_install_packages(steps, only))


def test_a_setup_script_that_imports_what_the_environment_has_is_asked_among_that(
    tree: Workspace, tmp_path: Path
) -> None:
    """scikit-learn's of 2019: numpy, which is pinned, then Cython, which is not."""
    asked: list[str] = []

    class Sandbox:
        async def exec(self, command: str, **_: Any) -> Exec:
            asked.append(command)
            has = "numpy==1.19.2" in command and "cython" in command.replace(",", " ").split()
            told = b'answer: [[], {"name": "calc"}]' if has else b"ModuleNotFoundError: No module named 'Cython'"
            return Exec(told, b"", int(not has), False, 0.1)

    wanted = recipe(tree, replace(SPEC, pip_packages=("cython", "numpy==1.19.2", "setuptools")))
    steps = Steps(cast("Any", Sandbox()), Log(tmp_path / "log", "acme__calc-1", lambda line: None))
    assert asyncio.run(_ask(steps, wanted, ["setuptools==59.6.0", "wheel==0.37.1"])) == ([], {"name": "calc"})
    assert len(asked) == 3 and "wheel==0.37.1 numpy==1.19.2 cython setuptools " in asked[2]
