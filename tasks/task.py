"""What is to be solved: `Task` is all that a solver may see. Nothing in it derives from hidden tests."""

import re
from dataclasses import dataclass, field
from typing import Literal

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,159}")
"""What may be the id of a task: files and directories are named after it."""
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.:-]*")
"""What Debian calls a package, with or without an architecture."""


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the code comes from.

    kind "path": `location` is a local git repository (never written to); "url": anything that git clones;
    "package": `name==version`, a released source distribution from the package index, unpacked and committed.
    `base` is a git ref or commit; None means HEAD (path) or the default branch (url)."""

    kind: Literal["path", "url", "package"]
    location: str
    base: str | None = None
    include_uncommitted: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    """How the code is made to run. All empty: found out from the repository (pyproject, setup, requirements).

    `image`: a Docker image to start from. `python`: "3.9"; None means the newest at hand that the project admits.
    `setup`: shell commands run once, in order, in the repository's root, in a sandbox with the network;
    empty means detected. `directory`: of the project in the repository; "" means the root, or the only one there is.
    `apt`: Debian packages that set-up needs."""

    image: str | None = None
    python: str | None = None
    setup: tuple[str, ...] = ()
    directory: str = ""
    apt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenTest:
    """A failing test that came with the issue: visible to the solver, never part of its patch.

    `ids`: test ids as the runner names them (pytest node ids), all of which fail on the base; or test files, for which
    the base run tells which of their tests fail (all must pass in the end). `files`: (path in the repository, text)
    pairs to be written before the first run; empty if the tests are in the base. `certain` False (a suite that was made
    without running anything): where none of them fails on the base, the task is one without a failing test, rather than
    a mistake."""

    ids: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be solved.

    `id`: a short name fit for a file name. `statement`: the issue in Markdown. `test_command`: a shell command that
    runs the whole test-suite in the repository's root; test files or ids can be appended to it; None means detected.
    `test_scope`: "whole": the suite is run on the base first, and guards a patch as far as time admits; "near": it
    takes too long for that, and only the test files near to what patches touch are ever run on the base, when there are
    patches. `earlier`: patches of an earlier run that attempts are to see."""

    id: str
    repository: Repository
    statement: str
    environment: Environment = field(default_factory=Environment)
    test_command: str | None = None
    failing_test: GivenTest | None = None
    test_scope: Literal["whole", "near"] = "whole"
    earlier: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The statement's first line that says something; else the id."""
        return title_of(self.statement) or self.id

    @property
    def number(self) -> str:
        """The issue's number, where the id is made of one (owner__name-12); else empty."""
        found = re.search(r"__.+-(\d+)$", self.id)
        return found[1] if found else ""

    def is_of(self, repository: str) -> bool:
        """Whether the id is made of an issue of this repository (owner/name)."""
        return self.id.lower() == f"{repository.replace('/', '__')}-{self.number}".lower()


def title_of(statement: str) -> str:
    """The first line that says something, without the marks of a heading in Markdown; "" where none does."""
    lines = (re.sub(r"^\s*#+\s+|\s+#+\s*$", "", line).strip() for line in statement.splitlines())
    return next((line for line in lines if re.search(r"\w", line) and not line.startswith("<!--")), "")
