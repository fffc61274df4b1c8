"""A scripted model for SWE-bench rows: edits made here from a row's right patch, wrong ones, and garbage.

Attempt 0 changes nothing that matters, 1 makes the right edits, 2 says nothing usable, 3 breaks the file; then again
from 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.patches.patch import Patch
from tasks.swebench import Row
from tests.support.calculator import PLAN, SUBMIT, call
from tests.support.model_server import Answer, Request

KINDS = ("harmless", "right", "garbage", "breaking")


@dataclass(frozen=True)
class Hunk:
    path: str
    old: str
    new: str


def hunks(diff: str) -> list[Hunk]:
    """The hunks of a diff that changes existing files, as replacements of text."""
    found: list[Hunk] = []
    path, old, new = "", list[str](), list[str]()

    def close() -> None:
        if old or new:
            found.append(Hunk(path, "\n".join(old), "\n".join(new)))
        old.clear()
        new.clear()

    for line in diff.splitlines():
        if line.startswith(("diff ", "--- ", "index ")):
            close()
        elif line.startswith("+++ b/"):
            close()
            path = line.removeprefix("+++ b/")
        elif line.startswith("@@"):
            close()
        elif line[:1] in (" ", "-", "+"):
            if line[0] != "+":
                old.append(line[1:])
            if line[0] != "-":
                new.append(line[1:])
    close()
    return found


def edits(row: Row, kind: str) -> Answer:
    """What the model does in its one working turn."""
    made = hunks(row.patch)
    assert Patch(row.patch).files and made
    if kind == "garbage":
        return Answer(text="<think>The function looks right to me.")
    if kind == "right":
        calls = [{"name": "edit", "arguments": {"path": h.path, "old": h.old, "new": h.new}} for h in made]
        return Answer(tool_calls=calls)
    added = "# Looked at." if kind == "harmless" else "raise RuntimeError"
    return call("run", command=f"printf '\\n\\n{added}\\n' >> {made[0].path}")


def script(rows: Sequence[Row], seeds: Mapping[int, int]) -> Callable[[Request], Answer]:
    """The model: knows the row by its statement and the attempt by its seed."""
    marks = {row.instance_id: json.dumps(row.problem_statement.strip()[:200])[1:-1].encode() for row in rows}

    def answer(request: Request) -> Answer:
        row = next(row for row in rows if marks[row.instance_id] in request.raw)
        kind = KINDS[seeds[int(request.body["seed"])] % len(KINDS)]
        said = [PLAN, edits(row, kind), edits(row, kind) if kind == "garbage" else SUBMIT]
        return said[min(request.turn, len(said) - 1)]

    return answer
