"""A case before the judge: what it is asked, which is charged and never asked twice, and the tests that it writes, run
on the base and on every candidate."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent.attempt.policy import Ask, asking
from agent.attempt.reading import said
from agent.choice.case import Case, Ground
from harness import trace
from harness.choosing.gather import in_sandbox
from harness.code.facts import parsed
from harness.evidence.shown import Shown, of_judge
from harness.evidence.told import tell, useless
from harness.parallel import in_parallel
from harness.patches.paths import place_of_new_test
from harness.records import Candidate, Json, Told
from tasks.errors import BudgetExceeded, SandboxFailed, words_of

if TYPE_CHECKING:
    from agent.models.client import ModelClient

PLACE = "test_told_apart.py"
"""Where the judge's test goes if it names no place that a test can have."""
TEST_CHARS = 20_000


@dataclass(slots=True)
class Hearing:
    """A case before the judge `client`. `end` is told of a cap that is reached. So far, `points`: the judge's opinion,
    by candidate id; `neither`: it found that no candidate solves the issue. `before`: what is done next, in words."""

    case: Case
    client: "ModelClient"
    seed: int
    end: Callable[[BudgetExceeded], None]
    points: dict[str, float] = field(default_factory=dict)
    neither: bool = False
    before: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(c.id for c in self.case.candidates)

    @property
    def tests(self) -> dict[str, trace.JudgeTested]:
        """The tests that could be run on these candidates, by path: the last of each, which corrects the others."""
        found = (e for e in self.case.events if isinstance(e, trace.JudgeTested) and e.finalists == self.ids)
        return {test.path: test for test in found if test.path}

    @property
    def shown(self) -> tuple[Shown, ...]:
        """The rows of its tests, which count before any opinion."""
        return tuple(row for path, test in self.tests.items() for row in of_judge(path, test.told))

    @property
    def warning(self) -> str:
        """What a person has to be told of it beside the choice."""
        return " The judge found that no candidate solves the issue." * self.neither

    def asks(self, name: str = "judge") -> tuple[Ask, dict[str, trace.Replied]]:
        """The charged call, and what the trace has of it; `name`: what its keys begin with there."""
        replied = [e for e in self.case.events if isinstance(e, trace.Replied) and e.key.startswith(f"{name}/")]
        known = {e.key.removeprefix(f"{name}/"): e for e in replied}
        complete = partial(self.client.complete, attempt=None, seed=self.seed, temperature=0.0)
        return asking(complete, known, name, self.end), known

    async def whole(self, key: str, asked: Json) -> str:
        """What the judge says; asked once more, with more room, where its answer was cut. Empty: it was cut again."""
        ask, _ = self.asks()
        answer = await ask(key, "judge", [asked])
        if answer.cut:
            answer = await ask(f"{key}/longer", "judge", [asked], longer=1)
        return "" if answer.cut else said(answer.message)[1]

    def say(self, candidate: Candidate, points: float, reason: str) -> None:
        """What the judge holds of one candidate."""
        self.points[candidate.id] = points
        self.case.write_once(
            trace.JudgeSaid(candidate=candidate.id, points=points, reason=reason, neither=self.neither)
        )

    async def tried(self, ground: Ground, path: str, text: str) -> trace.JudgeTested:
        """A test of the judge's, run twice on the base and on every candidate, in fresh sandboxes; once in a run."""
        place, why = written_test(path, text, ground.tree.read)
        text = "" if why else text
        for event in self.case.events:
            if isinstance(event, trace.JudgeTested) and (event.finalists, event.text) == (self.ids, text):
                return event
        began, told = time.monotonic(), list[Told]()
        try:
            trees = () if why else (("base", ""), *((c.id, c.patch) for c in self.case.candidates))
            told = await in_parallel(_told_on(ground, on, patch, place, text) for on, patch in trees)
            why = why or useless(told)
        except SandboxFailed as error:
            why = f"it takes the sandbox down: {error}"
        tested = self.case.write(
            trace.JudgeTested(
                finalists=self.ids,
                path=place,
                text=text,
                told=tuple(told),
                useless=why,
                seconds=round(time.monotonic() - began, 3),
            )
        )
        assert isinstance(tested, trace.JudgeTested), "an event stays what it is"
        return tested


def written_test(path: str, text: str, read: Callable[[str], object] = lambda path: None) -> tuple[str, str]:
    """(where a test of the judge goes, why it cannot be used). `read`: a file of the base, None where there is none."""
    if not text:
        return "", "the judge wrote no test"
    if len(text) > TEST_CHARS:
        return "", f"the judge's test is longer than {TEST_CHARS} characters"
    if parsed(text) is None:
        return "", "the judge's test is no Python"
    place = place_of_new_test(path) if path else ""
    return (place if place and read(place) is None else PLACE), ""


async def _told_on(ground: Ground, on: str, patch: str, path: str, text: str) -> Told:
    """What the test shows on the base or a candidate. Raises SandboxFailed."""
    work = partial(tell, on=on, path=path, text=text, command=ground.command)
    async with ground.slots:
        try:
            return await in_sandbox(ground.opened, f"judge-{on}", ground.tree, patch, work)
        except (OSError, ValueError) as error:  # one candidate that cannot be laid out ends no other's test
            return Told(on, "error", tail=words_of(error))
