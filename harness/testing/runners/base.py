"""What Troop asks of a test framework: the protocol that each module beside this one implements."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.patches.paths import pytest_collects
from harness.records import Exec, TestReport
from harness.testing.report import COMMAND_TEST, outcome_of, read_lines

APPENDED_FILES = 200

# How surely a repository's tests are for a framework to run: it is configured or named there, has a script of its own,
# or files or folders are called as it wants them.
CONFIGURED, OWN_SCRIPT, TEST_FILES, TEST_FOLDERS = 4, 3, 2, 1

_IN_FOLDER = re.compile(r"cd ([\w./-]+) && ")
_SHELL_OPERATORS = re.compile(r"[|;&<>()\n]")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a repository has. `paths` from its root; `settings`: the text of its settings and requirements files;
    `configured`: the frameworks that it has settings for, by name."""

    paths: Sequence[str]
    settings: str
    configured: frozenset[str]


@dataclass(frozen=True, slots=True)
class Launch:
    """A test command that can be waited with. `variables`: its leading assignments, as a shell reads them; `python`:
    the interpreter's name, empty where the command is the framework's own script; `arguments`: the framework's."""

    variables: tuple[str, ...]
    python: str
    arguments: tuple[str, ...]


class Runner(Protocol):
    """A test framework. Most of what it does stands here: a plugin in the sandbox writes the lines that
    `harness.testing.report` reads, selects the ids that are asked for, and stops at the first failure where told to.

    `name`: as people call it. `command`: runs a repository's tests where nobody says how. `by_file`: its commands can
    be limited to files. `always_reports`: a command of its that left no report cannot be believed. `exports`: shell
    lines that let it report whatever command starts it. `packages`: to be installed where it does not work (the first,
    and with the newest release of that the others as well); empty for what comes with Python or the repository.
    `summary`: finds how many tests (group 1) had which outcome (group 2) in what it prints by itself; None: cannot.
    `python`: whether tests are in Python, where a new file that cannot be loaded takes no other one of the run with it.
    """

    name: str
    command: str = ""
    by_file: bool = True
    always_reports: bool = True
    exports: str = ""
    packages: tuple[str, ...] = ()
    summary: re.Pattern[str] | None = None
    python: bool = True

    def recognises(self, command: str) -> bool:
        """Whether the command names this framework."""

    def claims(self, layout: Layout) -> tuple[int, str] | None:
        """How surely the repository's tests are for this framework to run (one of the numbers above), and the command;
        None where nothing speaks for it."""
        return None

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        """The command as it is really run: it loads no more than the files of `ids` (empty: all), as far as it can be
        told so; the plugin does the exact selection, and stops at the first failure where that is asked for."""
        return command

    def read(self, result: Exec, report: bytes) -> TestReport:
        """What a finished command of this framework amounts to; `report` is what the plugin wrote."""
        return read_lines(self.name, result, report, always=self.always_reports)

    def new_file(self, report: TestReport, path: str) -> str:
        """The outcome of a new test file by the report of a run that was limited to it: "passed", "failed", "error" (it
        could not be loaded), "skipped", "missing" (none was collected) or "untold" (all tests are told of together)."""
        untold = COMMAND_TEST in report.outcomes or not (self.by_file or report.outcomes)
        return "untold" if untold else outcome_of(report, path)

    def absent(self, report: TestReport) -> bool:
        """Whether nothing ran because the framework is not there."""
        return f"No module named {self.name}" in report.output

    def probe(self, python: str) -> str:
        """Shell text that succeeds where the framework works on the interpreter `python`; empty: it always does."""
        return ""

    def line_records(self, path: str) -> Mapping[str, str]:
        """The variables that have a run write what lines its tests execute to `path` (see `troop_lines`), if any."""
        return {}

    def launch(self, command: str) -> Launch | None:
        """How to wait with the command's runs; None where each is to be started anew."""
        return None

    def waiting(self, launch: Launch, socket: str) -> str:
        """The shell command that starts what waits at `socket` (harness/inside/warm.py), for one of its launches."""
        raise AssertionError("only a framework with a `launch` is asked")


def has_test_files(layout: Layout) -> bool:
    """Whether files are called as most frameworks want it."""
    return any(map(pytest_collects, layout.paths))


def files_of(ids: Sequence[str]) -> list[str]:
    """The files of the ids, to be named to a framework; none if they are too many for that."""
    files = list(dict.fromkeys(i.partition("::")[0] for i in ids))
    return files if len(files) <= APPENDED_FILES else []


def appended(command: str, arguments: Sequence[str]) -> str:
    """The command with arguments at its end, paths counted from where it is run (`cd FOLDER && …`); as it is where that
    is not the end of the framework's own arguments."""
    prefix = _IN_FOLDER.match(command)
    own = command[prefix.end() :] if prefix else command
    if not arguments or _SHELL_OPERATORS.search(own):
        return command
    below = f"{prefix[1]}/" if prefix else ""
    return f"{command} {shlex.join(argument.removeprefix(below) for argument in arguments)}"
