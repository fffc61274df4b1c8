"""Repetitions of a grading run side by side."""

from __future__ import annotations

import asyncio
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from agent.commands.grade_command import _Work
from agent.commands.grade_view import Tally, TallyView
from harness.swebench.grading import GradedPatch, Outcome
from harness.swebench.images import Here, ImageOutcome
from harness.swebench.names import ImageRef
from harness.swebench.predictions import Prediction, sets_of
from tests.support.rows import bare_row

OUTCOMES: tuple[Outcome, ...] = ("resolved", "unresolved", "resolved")


class Together:
    """A grader that gives its verdicts when all that is asked of it is under way."""

    memo: Any = None
    rules = ("5",)

    def __init__(self) -> None:
        self.begun = 0
        self.all = asyncio.Event()

    async def grade(self, row: Any, image: Any, patch: str, again: int = 0) -> GradedPatch:
        self.begun += 1
        if self.begun == len(OUTCOMES):
            self.all.set()
        await asyncio.wait_for(self.all.wait(), 10)
        return GradedPatch(row.instance_id, OUTCOMES[again], "", None)


class Quiet:
    def say(self, line: str) -> None:
        return


def test_a_patch_is_graded_many_times_at_once_and_each_outcome_is_kept_in_order(tmp_path: Path) -> None:
    row = bare_row()
    sets = sets_of([Prediction(row.instance_id, "m", "diff")])
    quiet: Any = Quiet()
    work = _Work(Namespace(repeat=len(OUTCOMES)), tmp_path, [row], sets, Tally(1), quiet, Here())

    async def graded() -> None:
        grader: Any = Together()
        await work._one(grader, ImageOutcome(row, ImageRef("i", "i", "built", {})), sets[0])

    asyncio.run(graded())
    (result,) = work.results.values()
    assert result.outcomes == OUTCOMES and result.outcome == "resolved", result.failure


def test_what_was_said_already_is_not_in_what_lines_say_now_and_then() -> None:
    out = io.StringIO()
    view = TallyView(Tally(3), Console(file=out, width=80))
    view.say("1/3 x gold: resolved")
    drawn = [str(part) for part in view.screen.__rich__().renderables]
    view.stop()
    assert "1/3 x gold: resolved" in out.getvalue() and len(drawn) == 1 and drawn[0].startswith("graded 0 of 3")
