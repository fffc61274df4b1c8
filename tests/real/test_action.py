"""The shell steps of the GitHub Action, run as the service runs them, with a local server for the API and for git."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.calculator import SOLVING, STATEMENT, make_repository
from tests.support.github_server import GitHub, github
from tests.support.model_server import serving
from tests.support.repositories import git

STEPS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())["runs"]["steps"]


@pytest.fixture
def hub() -> Iterator[GitHub]:
    """The service."""
    with github() as running:
        yield running


class Job:
    """One job of a workflow: a checkout of a repository on a server, and the files that its steps write to."""

    def __init__(self, place: Path, server: GitHub) -> None:
        self.place = place
        self.remote, self.checkout = place / "remote.git", make_repository(place / "checkout")
        git(place, "clone", "-q", "--bare", str(self.checkout), str(self.remote))
        server.add_repository("octo/calculator", self.remote)
        server.add_issue("octo/calculator", 7, title=STATEMENT.strip(), body="It should not.")
        git(self.checkout, "remote", "add", "origin", f"{server.url}/octo/calculator")
        # As actions/checkout leaves it: a token of its own for whoever pushes from there.
        git(self.checkout, "config", f"http.{server.url}/.extraheader", "AUTHORIZATION: basic eDp5")
        (place / "bin").mkdir()
        (place / "bin/troop").write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
        (place / "bin/troop").chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RUNNER_TEMP": str(place),
            "GITHUB_API_URL": server.api,
            "GITHUB_REPOSITORY": "octo/calculator",
            **{name: str(place / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")},
            **{"GITHUB_TOKEN": server.token, "ISSUE": "7", "ATTEMPTS": "1", "MAX_USD": "1", "MODEL": "repair"},
        }

    def run(self, name: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A step by its name, as the service starts it."""
        (script,) = (step["run"] for step in STEPS if step["name"] == name)
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(shell, cwd=self.checkout, env={**self.env, **env}, capture_output=True, text=True)

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.place / "GITHUB_OUTPUT").read_text().splitlines())


@pytest.mark.network
@pytest.mark.bubblewrap
def test_an_issue_becomes_a_draft_pull_request(tmp_path: Path, hub: GitHub) -> None:
    job = Job(tmp_path, hub)
    with serving(SOLVING) as server:
        options = "--sandbox bubblewrap --allow-unknown-price --test-command 'python -m pytest -q'"
        done = job.run("Solve", MODEL=f"{server.url}#scripted", OPTIONS=options)
    assert done.returncode == 0, done.stderr
    outputs = job.outputs()
    assert outputs["exit-code"] == "0" and outputs["branch"].startswith("troop/")
    assert "gives 2 where 3 is expected" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert "<html" in (tmp_path / "troop-report.html").read_text()
    done = job.run("Open a draft pull request")
    assert done.returncode == 0, done.stderr
    assert "for value in values:" in git(job.remote, "show", f"{outputs['branch']}:calc.py")
    (pull,) = hub.pulls
    assert pull["draft"] and pull["head"] == f"octo:{outputs['branch']}" and pull["html_url"] in done.stdout
    assert pull["body"].endswith("Fixes #7\n") and hub.token not in done.stdout + done.stderr
    assert git(job.checkout, "status", "--porcelain") == "", "the checkout is as it was"


@pytest.mark.network
@pytest.mark.bubblewrap
def test_where_nothing_is_selected_the_job_warns_and_pushes_nothing(tmp_path: Path, hub: GitHub) -> None:
    job = Job(tmp_path, hub)
    with serving([*SOLVING[:1], *SOLVING[-1:] * 2]) as server:
        options = "--sandbox bubblewrap --allow-unknown-price"
        done = job.run("Solve", MODEL=f"{server.url}#scripted", OPTIONS=options)
    assert done.returncode == 0, done.stderr
    assert "::warning::" in done.stdout and job.outputs() == {"exit-code": "1", "branch": ""}


def test_what_is_no_number_of_an_issue_reaches_no_command(tmp_path: Path, hub: GitHub) -> None:
    job = Job(tmp_path, hub)
    done = job.run("Solve", ISSUE="7; touch harm", OPTIONS="")
    assert done.returncode == 2 and "::error::" in done.stdout
    assert hub.requests == [] and sorted(p.name for p in job.checkout.glob("*.py")) == ["calc.py"]
