"""Which of the tests that are green on the base a candidate is held against, within a time budget.

All of them where they fit. Else whole test files in order of how near they are to what the patch touches: named after a
touched module, importing it, or lying close by in the tree. The choice is the same every time for the same inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath

from harness.patch import Patch
from harness.records import TestReport

LEAST_SECONDS = 0.005
"""What a test costs that has no known duration, or none to speak of: reporting it takes about that."""
STARTING_SECONDS = 2.0
"""Of the budget, for starting the test command and loading the tests."""


def choose(
    baseline: TestReport,
    flaky: Collection[str],
    patch: str,
    *,
    seconds: float,
    text: Callable[[str], str] | None = None,
) -> tuple[str, ...]:
    """Ids of the regression tests for a patch, sorted; as many as run in about `seconds`, but at least one file's.

    `text` gives the text of a test file of the base, for its imports (None: only names and places count).
    """
    green = sorted(baseline.passed - set(flaky))
    if _cost(baseline, green) <= max(seconds - STARTING_SECONDS, 0.0):
        return tuple(green)
    by_file: dict[str, list[str]] = {}
    for test in green:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    touched = Patch(patch).source_files
    scores = {file: affinity(file, touched, text(file) if text else "") for file in by_file}
    chosen: list[str] = []
    left = seconds - STARTING_SECONDS
    for file in sorted(by_file, key=lambda file: (-scores[file], file)):
        for test in sorted(by_file[file], key=lambda test: (baseline.durations.get(test, 0.0), test)):
            cost = _cost(baseline, [test])
            if cost <= left or not chosen:
                chosen.append(test)
                left -= cost
    return tuple(sorted(chosen))


def affinity(file: str, touched: Sequence[str], text: str = "") -> int:
    """How near a test file is to the touched modules: the nearest counts.

    100 for a test file named after the module, 60 for one that imports it, 30 for one whose name has the module's or its
    package's in it; up to 20 more for a shared place in the tree.
    """
    return max((_affinity(file, path, text) for path in touched), default=0)


def _affinity(file: str, path: str, text: str) -> int:
    test, module = PurePosixPath(file), PurePosixPath(path)
    subject = re.sub(r"^tests?_|_tests?$", "", test.stem)
    name = module.parent.name if module.stem == "__init__" else module.stem
    score = 0
    if subject == name:
        score += 100
    elif name in subject.split("_") or module.parent.name in (subject, *test.parts[:-1]):
        score += 30
    if text and _imports(text, module):
        score += 60
    return score + min(20, 5 * _shared(test.parts[:-1], module.parts[:-1]))


def _imports(text: str, module: PurePosixPath) -> bool:
    """Whether a test file's text imports the module, whatever part of its path is the import path."""
    parts = [*module.parts[:-1], *([] if module.stem == "__init__" else [module.stem])]
    if parts and parts[0] in ("src", "lib"):
        parts = parts[1:]
    if not parts:
        return False
    dotted, package, name = ".".join(parts), ".".join(parts[:-1]), parts[-1]
    patterns = [rf"^\s*(?:import|from)\s+{re.escape(dotted)}\b"]
    if package:
        patterns.append(rf"^\s*from\s+{re.escape(package)}\s+import\b[^\n]*\b{re.escape(name)}\b")
    return any(re.search(pattern, text, re.MULTILINE) for pattern in patterns)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many leading folders two places share, test folders left out."""
    count = 0
    for a, b in zip(
        (p for p in one if p not in ("test", "tests", "src")), (p for p in other if p != "src"), strict=False
    ):
        if a != b:
            break
        count += 1
    return count


def _cost(baseline: TestReport, tests: Collection[str]) -> float:
    durations: Mapping[str, float] = baseline.durations
    return sum(max(durations.get(test, 0.0), LEAST_SECONDS) for test in tests)
