"""What a reporter of tests is told and what it writes: the one thing that the plugins and programs beside this share.

Runs inside the sandbox, self-contained, Python 3.6 and newer (hence the quoted annotations). What is read from the
environment is removed from there, so that what a test starts does not write into the same report:

TROOP_REPORT         file to append to, one JSON object a line, unbuffered: a killed run leaves what it had
TROOP_ROOT           directory that test ids are relative to, whatever the framework takes for its root
TROOP_SELECT         file with a JSON list of ids (tests, classes, files, directories) to keep
TROOP_TEST_SECONDS   wall time that a test may take; then it fails and the run goes on
TROOP_FIRST_FAILURE  set: the tests after the first that fails need not run
TROOP_SPREAD         a number: a file of each directory in turn, so that a run that is cut short has seen something of
                     all, and by so many processes where the project has pytest-xdist and does not say itself

Lines: {"begin": pid}, {"start": id}, {"test": id, "outcome": …, "seconds": …, "message": …}, {"finish": pid, "exit":
status}. A run without its finish line was cut short. The same test twice: the worse outcome counts.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

HERE = str(Path(__file__).resolve().parent)
if HERE in sys.path:  # the repository's own modules come first
    sys.path.remove(HERE)
    sys.path.append(HERE)


class Report:
    """What is asked for (`select` empty: all; `seconds` 0: no limit), and the report, which nobody wants where there is
    no `place` for it."""

    def __init__(self) -> None:
        self.place = _told("REPORT")
        self.root = os.path.realpath(_told("ROOT") or str(Path.cwd()))
        select = _told("SELECT")
        self.select = json.loads(Path(select).read_text(encoding="ascii")) if select else []  # type: list[str]
        self.seconds = float(_told("TEST_SECONDS") or 0)
        self.first, self.spread = bool(_told("FIRST_FAILURE")), int(_told("SPREAD") or 0)
        self.fd = os.open(self.place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if self.place else -1
        self.write({"begin": os.getpid()})

    def write(self, line: "dict[str, Any]") -> None:
        if self.fd >= 0:
            os.write(self.fd, json.dumps(line).encode("ascii") + b"\n")

    def tell(self, test: str, outcome: str, message: str = "", seconds: float = 0.0) -> None:
        line = {"test": test, "outcome": outcome, "seconds": round(seconds, 4)}
        self.write({**line, "message": message} if message else line)

    def finish(self, status: int) -> None:
        self.write({"finish": os.getpid(), "exit": status})


def _told(name: str) -> str:
    return os.environ.pop("TROOP_" + name, "")
