"""The test frameworks that Troop knows, and which of them a command, a repository or an environment is for."""

from collections.abc import Mapping

from harness.testing.runners.base import OWN_SCRIPT, Layout, Runner
from harness.testing.runners.django import Django, Site
from harness.testing.runners.pytest import Pytest
from harness.testing.runners.sympy import Sympy
from harness.testing.runners.tools import TOOLS
from harness.testing.runners.unittest import Unittest


class Command(Runner):
    """Any command, known by its exit code only, unless a framework that it starts reports; the last that is asked."""

    name = "the test framework"
    by_file = False
    always_reports = False

    def recognises(self, command: str) -> bool:
        return True


RUNNERS: tuple[Runner, ...] = (Pytest(), Unittest(), Site(), Django(), Sympy(), *TOOLS, Command())
"""The first that recognises a command has it."""

USUAL_COMMAND = RUNNERS[0].command


def runner_of(command: str) -> Runner:
    """Who runs the command's tests."""
    return next(runner for runner in RUNNERS if runner.recognises(command))


def command_for(layout: Layout, own: str = "") -> str | None:
    """The command that runs a repository's tests, by what it has, or by what it says itself (`own`) where it has no
    settings of a framework; None where it has neither."""
    claims = [claim for runner in RUNNERS if (claim := runner.claims(layout)) is not None]
    claims += [(OWN_SCRIPT, own)] if own else []
    return max(claims, key=lambda claim: claim[0])[1] if claims else None


def line_records(path: str) -> Mapping[str, str]:
    """The variables that have a run write the lines that its tests execute to `path`, whatever framework it is."""
    return {name: value for runner in RUNNERS for name, value in runner.line_records(path).items()}
