"""Which of the tests that are green on the base a candidate is held against, within a time budget.

All of them where they fit. Else whole test files in order of how near they are to what the patch touches: named after a
touched module, importing it, or lying close by in the tree. The choice is the same every time for the same inputs.
What many test files have in common (they import the package's core, they mention `run`) says little of any of them.

Where a suite takes too long to be run on the base, `near_files` picks the files that are worth running there at all.
"""

import ast
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath

from harness.code.facts import SCOPES, parsed
from harness.code.import_graph import NO_IMPORTS, ImportGraph
from harness.patches.patch import Patch
from harness.records import TestReport

LEAST_SECONDS = 0.005
"""What a test costs that has no known duration, or none to speak of: reporting it takes about that."""
STARTING_SECONDS = 2.0
"""Of the budget, for starting the test command and loading the tests."""

NEAR = 30
"""The score from which a test file counts as near: more than a shared place in the tree."""
IMPORTED, IMPORTED_INDIRECTLY = 60, 30
"""The score of the only test file that imports a touched module; of the only one that imports what imports it."""
PACKAGE = 45
"""The score of the only test file that has the package's name as a word of its own."""
NAMED = 50
"""The score of the only test file that mentions a touched function or class."""
THREE_WORDS = re.compile(r"\b[^\W\d]\w*(?: [^\W\d]\w*){2}\b")
MOST_QUOTED = 30
"""What a test quotes of a message in which other parts are filled in; so many of a file, the longest."""
MOST_FILES = 300
"""Files of one patch that are held against every test file."""
FEW = 3
"""So many test files that have something in common are as good as one."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What of the base some patches touch: `paths` of source files; `names` of the functions, methods and classes
    around the touched lines, as far as the file can be parsed, and of the texts in such a function each three words."""

    paths: tuple[str, ...]
    names: tuple[str, ...] = ()


def touched_by(patches: Iterable[str], read: Callable[[str], bytes | None]) -> Touched:
    """What the patches touch, taken together: of the base, unless they only add files; `read` gives a file of the base,
    None where there is none."""
    lines: dict[str, set[int]] = {}
    for diff in patches:
        patch = Patch(diff)
        for path in _telling_files(patch):
            lines.setdefault(path, set()).update(patch.touched_lines.get(path, ()))
    lines = {path: at for path, at in lines.items() if read(path) is not None} or lines
    names = {name for path in lines if path.endswith(".py") for name in _around(read(path), lines[path])}
    return Touched(tuple(sorted(lines)), tuple(sorted(names)))


def _telling_files(patch: Patch) -> list[str]:
    """The patch's source files that the base has, `MOST_FILES` at most; where it has none of them, the new ones."""
    new = {change.path for change in patch.changes if change.kind == "added"}
    return sorted(set(patch.source_files) - new or patch.source_files)[:MOST_FILES]


def _around(source: bytes | None, lines: Collection[int]) -> set[str]:
    """The names of what is defined around the lines (but for `__init__` and its like); what functions' messages say."""
    tree = parsed(source)
    found = [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, SCOPES)]
    around = [n for n in found if any(n.lineno <= line <= (n.end_lineno or 0) for line in lines)]
    quoted = {words for node in around if not isinstance(node, ast.ClassDef) for words in _quoted(node)}
    longest = sorted(quoted, key=lambda words: (len(words), words))[-MOST_QUOTED:]
    return {*longest, *(n.name for n in around if not n.name.startswith("__"))}


def _quoted(function: ast.AST) -> Iterator[str]:
    """Each three words of its texts; its docstring is none of them."""
    for node in ast.walk(function):
        for text in ast.iter_child_nodes(node) if not isinstance(node, ast.Expr) else ():
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield from THREE_WORDS.findall(text.value)


def near_files(
    texts: Mapping[str, str], touched: Touched, imports: ImportGraph = NO_IMPORTS, least: float = NEAR
) -> list[str]:
    """Of the test files `texts` (text by path) those near to what is touched, the nearest first; `least`: their score.

    By `nearness`, and by what they mention: a touched function or class counts the more, the fewer of the files mention
    it."""
    scores = nearness(texts, touched.paths, imports)
    mentions = dict.fromkeys(texts, 0.0)
    for name in touched.names:
        word = re.compile(rf"\b{re.escape(name)}\b")
        files = [path for path, text in texts.items() if name in text and word.search(text)]
        for path in files:
            mentions[path] = max(mentions[path], NAMED * telling(len(files), len(texts)))
    scores = {path: scores[path] + mentions[path] for path in texts}
    return sorted((path for path in texts if scores[path] >= least), key=lambda path: (-scores[path], path))


def nearness(tests: Collection[str], touched: Sequence[str], imports: ImportGraph) -> dict[str, float]:
    """How near each test file is to the touched modules, the nearest of which counts: by `affinity`, by the package's
    name in its own, and by what it imports; both count the more, the fewer of the test files have the same (import the
    module directly, or through one other)."""
    scores = dict.fromkeys(tests, 0.0)
    for path in touched:
        direct, indirect = imports.reaching(path, tests)
        strong = IMPORTED * telling(len(direct), len(tests))
        weak = IMPORTED_INDIRECTLY * telling(len(direct) + len(indirect), len(tests))
        kin = {test for test in tests if PurePosixPath(path).parent.name in PurePosixPath(test).stem.split("_")}
        related = PACKAGE * telling(len(kin), len(tests))
        for test in tests:
            reached = strong if test in direct else weak if test in indirect else 0.0
            scores[test] = max(scores[test], affinity(test, path) + reached + (related if test in kin else 0.0))
    return scores


def telling(files: int, of: int) -> float:
    """How much it says of a test file that it is one of so many: 1 for one of a few, 0 where all are."""
    return 1.0 if files <= FEW else 1.0 - math.log(files / FEW) / math.log(of / FEW)


def choose(
    baseline: TestReport,
    flaky: Collection[str],
    patch: str,
    *,
    seconds: float,
    imports: Callable[[], ImportGraph] = lambda: NO_IMPORTS,
) -> tuple[str, ...]:
    """Ids of the regression tests for a patch, sorted; as many as run in about `seconds`, but at least one file's.

    `imports` gives those of the base, and is asked only where not all tests fit; without them only names and places
    count."""
    green = sorted(baseline.passed - set(flaky))
    if cost(baseline, green) <= max(seconds - STARTING_SECONDS, 0.0):
        return tuple(green)
    by_file: dict[str, list[str]] = {}
    for test in green:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    scores = nearness(by_file, _telling_files(Patch(patch)), imports())
    chosen: list[str] = []
    left = seconds - STARTING_SECONDS
    for file in sorted(by_file, key=lambda file: (-scores[file], file)):
        for test in sorted(by_file[file], key=lambda test: (baseline.durations.get(test, 0.0), test)):
            price = cost(baseline, [test])
            if price <= left or not chosen:
                chosen.append(test)
                left -= price
    return tuple(sorted(chosen))


def affinity(file: str, touched: str) -> int:
    """How near a test file is to a touched module by their names.

    100 for a test file named after the module, 30 for one whose path has the module's name as a word or its package's;
    up to 20 more for a shared place in the tree."""
    test, module = PurePosixPath(file), PurePosixPath(touched)
    subject = re.sub(r"^tests?_|_tests?$|\.(test|spec)$", "", test.stem)
    name = module.parent.name if module.stem == "__init__" else module.stem
    score = 0
    if subject == name:
        score += 100
    elif name in "_".join((*test.parts[:-1], subject)).split("_") or module.parent.name in (subject, *test.parts[:-1]):
        score += 30
    folders = [part for part in test.parts[:-1] if part not in ("test", "tests", "src")]
    return score + min(20, 5 * shared(folders, [part for part in module.parts[:-1] if part != "src"]))


def shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many leading parts two paths share."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def cost(baseline: TestReport, tests: Collection[str]) -> float:
    """Seconds that running the tests will take, by their durations on the base."""
    return sum(max(baseline.durations.get(test, 0.0), LEAST_SECONDS) for test in tests)
