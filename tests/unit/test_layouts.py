"""Ordinary layouts: what set-up would do for each, told by its files alone."""

from __future__ import annotations

import pytest

from harness.environments.detect import detect
from tasks.errors import InputError
from tests.support.layouts import LAYOUTS, Laid, project


@pytest.mark.parametrize("laid", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_installed_and_tested_as_it_asks(laid: Laid) -> None:
    described = f"{laid.tag}-1-gabc" if laid.tag else ""
    found = detect(laid.files, lambda path: laid.files[path].encode(), described=described)
    commands = "\n".join(step.commands[0] for step in found.steps)
    assert all(part in commands for part in laid.installs), commands
    assert "ruff" not in commands, "a session that lints is no session that tests"
    assert found.test_command == laid.command


def test_several_projects_are_listed_with_what_to_type() -> None:
    files = {f"libs/{name}/pyproject.toml": project(name) for name in ("core", "web")}
    with pytest.raises(InputError, match=r"2 projects \(libs/core, libs/web\).*--directory libs/core"):
        detect(files, lambda path: files[path].encode())
    found = detect(files, lambda path: files[path].encode(), directory="libs/web")
    assert found.directory == "libs/web"
    with pytest.raises(InputError, match="no directory libs/none"):
        detect(files, lambda path: files[path].encode(), directory="libs/none")
