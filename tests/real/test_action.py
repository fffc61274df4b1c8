"""The shell steps of the GitHub Action, run as the service runs them: `gh` is played, everything else is real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.calculator import SOLVING, STATEMENT, make_repository
from tests.support.model_server import serving
from tests.support.repositories import git

STEPS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())["runs"]["steps"]

GH = """#!/bin/sh
printf '%s\\n' "$@" >> "$CALLS"
[ "$1" = issue ] && cat "$STATEMENT"
[ "$1" = pr ] && while [ $# -gt 0 ]; do [ "$1" = --body-file ] && cat "$2" > "$CALLS.body"; shift; done
exit 0
"""


class Job:
    """One job of a workflow: a checkout with a remote, and the files that its steps write to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.remote, self.checkout = place / "remote.git", make_repository(place / "checkout")
        git(place, "init", "-q", "--bare", str(self.remote))
        git(self.checkout, "remote", "add", "origin", str(self.remote))
        (place / "bin").mkdir()
        (place / "statement").write_text(STATEMENT)
        for name, text in {"gh": GH, "troop": f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n'}.items():
            (place / "bin" / name).write_text(text)
            (place / "bin" / name).chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RUNNER_TEMP": str(place),
            "CALLS": str(place / "calls"),
            "STATEMENT": str(place / "statement"),
            **{name: str(place / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")},
            **{"GH_TOKEN": "gho_secret", "ISSUE": "7", "ATTEMPTS": "1", "MAX_USD": "1", "MODEL": "repair"},
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
def test_an_issue_becomes_a_draft_pull_request(tmp_path: Path) -> None:
    job = Job(tmp_path)
    with serving(SOLVING) as server:
        options = "--sandbox bubblewrap --allow-unknown-price --test-command 'python -m pytest -q'"
        done = job.run("Solve", MODEL=f"{server.url}#scripted", OPTIONS=options)
    assert done.returncode == 0, done.stderr
    outputs = job.outputs()
    assert outputs["exit-code"] == "0" and outputs["branch"].startswith("troop/")
    assert "gives 2 where 3 is expected" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert "<html" in (tmp_path / "troop-report.html").read_text()
    done = job.run("Open a draft pull request", BRANCH=outputs["branch"])
    assert done.returncode == 0, done.stderr
    assert "for value in values:" in git(job.remote, "show", f"{outputs['branch']}:calc.py")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "--draft" in calls and calls[calls.index("--head") + 1] == outputs["branch"]
    assert (tmp_path / "calls.body").read_text().endswith("Fixes #7\n")
    assert git(job.checkout, "status", "--porcelain") == "", "the checkout is as it was"


@pytest.mark.network
@pytest.mark.bubblewrap
def test_where_nothing_is_selected_the_job_warns_and_pushes_nothing(tmp_path: Path) -> None:
    job = Job(tmp_path)
    with serving([*SOLVING[:1], *SOLVING[-1:] * 2]) as server:
        options = "--sandbox bubblewrap --allow-unknown-price"
        done = job.run("Solve", MODEL=f"{server.url}#scripted", OPTIONS=options)
    assert done.returncode == 0, done.stderr
    assert "::warning::" in done.stdout and job.outputs() == {"exit-code": "1", "branch": ""}


def test_what_is_no_number_of_an_issue_reaches_no_command(tmp_path: Path) -> None:
    job = Job(tmp_path)
    done = job.run("Solve", ISSUE="7; touch harm", OPTIONS="")
    assert done.returncode == 2 and "::error::" in done.stdout
    assert not (tmp_path / "calls").exists() and sorted(p.name for p in job.checkout.glob("*.py")) == ["calc.py"]
