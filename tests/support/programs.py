"""A small checkout of QuixBugs's layout with two programs of our own, and scripts of a model that mends them or does
not.

The same files every time, so their environments are set up once per test session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.calculator import call
from tests.support.model_server import Answer, Request

PROGRAMS = {
    "largest": "def largest(numbers):\n    numbers.sort()\n    return numbers[0]\n",
    "pairs": "def pairs(items):\n    return [(a, a) for a in items]\n",
}
RIGHT = {
    "largest": call("edit", path="largest.py", old="numbers[0]", new="numbers[-1]"),
    "pairs": call("edit", path="pairs.py", old="[(a, a) for a in items]", new="list(zip(items, items[1:]))"),
}
WRONG = {
    "largest": call("edit", path="largest.py", old="numbers[0]", new="numbers[1]"),
    "pairs": call("edit", path="pairs.py", old="(a, a)", new="(a, None)"),
}
OTHER_WRONG = {
    "largest": call("edit", path="largest.py", old="numbers[0]", new="len(numbers)"),
    "pairs": call("edit", path="pairs.py", old="(a, a)", new="(None, a)"),
}
CASES: dict[str, list[object]] = {
    "largest": [[[[3, 1, 2]], 3], [[[1, 4]], 4], [[[2, 5]], 5], [[[7, 8, 9]], 9]],
    "pairs": [[[[1, 2, 3]], [[1, 2], [2, 3]]], [[[1]], []]],
}


def make_checkout(root: Path) -> Path:
    """The checkout, to be given as --source."""
    for folder in ("python_programs", "correct_python_programs", "python_testcases", "json_testcases"):
        (root / folder).mkdir(parents=True)
    for name, text in PROGRAMS.items():
        (root / "python_programs" / f"{name}.py").write_text(text)
        (root / "correct_python_programs" / f"{name}.py").write_text(text)
        lines = "\n".join(json.dumps(case) for case in CASES[name])
        (root / "json_testcases" / f"{name}.json").write_text(lines + "\n")
    return root


Say = Callable[[str, int], list[Answer]]
"""What the model says in an attempt: (program, number of the attempt) -> its answers, turn by turn."""


def script(seeds: Mapping[int, int], say: Say) -> Callable[[Request], Answer]:
    """A model that looks up what to say by program and attempt (told by its seed)."""

    def answer(request: Request) -> Answer:
        program = next(name for name in PROGRAMS if f"{name}.py" in request.raw.decode())
        answers = say(program, seeds[int(request.body["seed"])])
        return answers[min(request.turn, len(answers) - 1)]

    return answer
