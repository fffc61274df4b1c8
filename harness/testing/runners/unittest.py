"""unittest: `-m unittest` is run as `-m troop_unittest` (harness/inside), which does the same and reports every test.

Ids are as pytest has them: `tests/test_a.py::ATests::test_x`.
"""

import re
from collections.abc import Sequence

from harness.testing.runners.base import TEST_FOLDERS, Layout, Runner

_NAMED = re.compile(r"(\s-m\s+)unittest(?=$|[\s;&|)])")
_TEST_FILE = re.compile(r"(?:^|/)tests?(?:/[^/]*)?\.py$")


class Unittest(Runner):
    """Hidden in another command (a `make` target) it is known by that command's exit code only."""

    name = "unittest"
    command = "python -m unittest discover"

    def recognises(self, command: str) -> bool:
        return _NAMED.search(command) is not None

    def claims(self, layout: Layout) -> tuple[int, str] | None:
        return (TEST_FOLDERS, self.command) if any(map(_TEST_FILE.search, layout.paths)) else None

    def limited(self, command: str, ids: Sequence[str], to_first_failure: bool = False) -> str:
        """The plugin loads no more than the files of the ids; it is told which by its variables."""
        return _NAMED.sub(r"\1troop_unittest", command)
