"""The model's part in the selection: candidates that the tests could not tell apart are compared in pairs.

First the judge may write one test on which the finalists are likely to differ; it is run on the base and on each of
them, and if they do differ the outcomes go with every comparison. Each pair is asked in both orders, because models
favour a position; only agreement of the two orders counts as a full win.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from agent.attempt.lines import cut_middle
from agent.attempt.model_policy import prompt
from agent.attempt.policy import Answer, Ask
from agent.attempt.reading import said
from agent.choice.case import Case, Ground
from agent.models.wires.texts import encodable
from harness import trace
from harness.choosing.gather import in_sandbox
from harness.code.facts import parsed
from harness.evidence.told import tell, useless
from harness.patches.paths import place_of_new_test
from harness.records import Candidate, Evidence, Json, Told
from harness.testing.runners.registry import USUAL_COMMAND, runner_of
from tasks.errors import BudgetExceeded, EndpointFailed, SandboxFailed, words_of

if TYPE_CHECKING:
    from agent.models.client import ModelClient

PATCH_CHARS = 12_000
TEST_CHARS = 20_000
PLACE = "test_told_apart.py"
"""Where the judge's test goes if it names no place that a test can have."""

_OBJECT = re.compile(r"\{.*\}", re.DOTALL)
_FENCE = re.compile(r"^```[ \t]*(?:python|py)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"\A\s*#\s*path:\s*(\S+)")


def asking(client: ModelClient, events: Sequence[trace.Event], seed: int, end: Callable[[BudgetExceeded], None]) -> Ask:
    """The judge's charged calls: what the trace holds is not asked again. `end` is told of a cap that is reached."""
    known = {e.key: Answer(e.message, e.cut) for e in events if isinstance(e, trace.Replied)}

    async def ask(
        key: str, purpose: str, messages: Sequence[Json], tools: Sequence[Json] = (), *, longer: int = 0
    ) -> Answer:
        full = f"judge/{key}"
        if full in known:
            return known[full]
        try:
            reply = await client.complete(
                messages, tools, purpose="judge", attempt=None, key=full, seed=seed, temperature=0.0, longer=longer
            )
        except BudgetExceeded as error:
            end(error)
            raise
        return Answer(reply.message, reply.cut)

    return ask


async def judge(case: Case, ask: Ask, *, tests: bool = True) -> dict[str, float]:
    """Points by candidate id, for the candidates of `case`: 0.5 for each order of each pair that was won.

    `tests`: whether a test may be asked for, where there is ground to run it on. Every comparison is charged and
    written as a `Judged` event, the test as `JudgeTested`. An unusable answer is nobody's win, a useless test no
    evidence. A budget that ends or a server that fails leaves the points so far.
    """
    points = dict.fromkeys((c.id for c in case.candidates), 0.0)
    asked = ""
    try:
        ground = case.ground if tests else None
        speaks = ground is not None and runner_of(ground.command or USUAL_COMMAND).python  # as its test will
        shown = await _test(case, ground, ask) if ground is not None and speaks else None
        for one, other in itertools.combinations(case.candidates, 2):
            for number, (first, second) in enumerate(((one, other), (other, one))):
                asked = f"{first.id} and {second.id}"
                question = _question(case.statement, first, second, shown)
                answer = await _whole(ask, f"{one.id}-{other.id}/{number}", question)
                winner, reason = verdict(answer, first.id, second.id)
                case.write_once(trace.Judged(first=first.id, second=second.id, winner=winner, reason=reason))
                if winner is not None:
                    points[winner] += 0.5
    except BudgetExceeded as error:
        case.write_once(trace.JudgeStopped(before=asked or "the test", reason=str(error)))
    except EndpointFailed as error:
        case.write(trace.InfrastructureFailed(what="judge", detail=str(error), retried=False))
    return points


async def _whole(ask: Ask, key: str, question: Json) -> str:
    """What the judge says; asked once more, with more room, where its answer was cut. Empty: it was cut again."""
    answer = await ask(key, "judge", [question])
    if answer.cut:
        answer = await ask(f"{key}/longer", "judge", [question], longer=1)
    return "" if answer.cut else said(answer.message)[1]


def verdict(text: str, first: str, second: str) -> tuple[str | None, str]:
    """The winner's candidate id (None: tie or unusable) and the reason, from the judge's answer."""
    found = _OBJECT.search(text)
    try:
        answer = json.loads(found.group(0), strict=False) if found else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("winner") not in ("A", "B", "tie"):
        return None, f"unusable answer: {text[:200] or 'none, or one that was cut'}"
    winner = {"A": first, "B": second}.get(answer["winner"])
    return winner, str(answer.get("reason") or "")[:500]


def written_test(answer: str) -> tuple[str, str, str]:
    """(path, text, why it cannot be used) of the test in the judge's answer; the first two are empty where there is
    none."""
    found = _FENCE.search(answer)
    if found is None:
        return "", "", "the judge wrote no test"
    text = found[1]
    if len(text) > TEST_CHARS:
        return "", "", f"the judge's test is longer than {TEST_CHARS} characters"
    if parsed(text) is None:
        return "", "", "the judge's test is no Python"
    named = _PATH.match(text)
    return (place_of_new_test(named[1]) if named else "") or PLACE, text, ""


async def _test(case: Case, ground: Ground, ask: Ask) -> trace.JudgeTested | None:
    """The judge's test and what it showed; None where it says nothing. Asked for and run once."""
    finalists = tuple(c.id for c in case.candidates)
    done = next((e for e in case.events if isinstance(e, trace.JudgeTested) and e.finalists == finalists), None)
    if done is None:
        path, text, why = written_test(await _whole(ask, f"test/{'-'.join(finalists)}", _test_question(case)))
        began = time.monotonic()
        told: Sequence[Told] = ()
        if not why:
            try:
                told = await _told_of_all(case, ground, path, text)
                why = useless(told)
            except SandboxFailed as error:
                why = f"it takes the sandbox down: {error}"
        written = case.write(
            trace.JudgeTested(
                finalists=finalists,
                path=path,
                text=text,
                told=tuple(told),
                useless=why,
                seconds=round(time.monotonic() - began, 3),
            )
        )
        assert isinstance(written, trace.JudgeTested), "an event stays what it is"
        done = written
    return None if done.useless else done


async def _told_of_all(case: Case, ground: Ground, path: str, text: str) -> list[Told]:
    """What the test shows on the base and on every candidate. Raises SandboxFailed."""
    free = path if ground.tree.read(path) is None else PLACE
    told = []
    for on, patch in (("base", ""), *((c.id, c.patch) for c in case.candidates)):
        work = partial(tell, on=on, path=free, text=text, command=ground.command)
        async with ground.slots:
            try:
                told.append(await in_sandbox(ground.opened, f"judge-{on}", ground.tree, patch, work))
            except (OSError, ValueError) as error:  # one candidate that cannot be laid out ends no other's test
                told.append(Told(on, "error", tail=words_of(error)))
    return told


def _test_question(case: Case) -> Json:
    patches = "\n\n".join(
        f'<patch name="{c.id}">\n{cut_middle(c.patch, PATCH_CHARS)}\n</patch>' for c in case.candidates
    )
    text = prompt("judge_test").format(statement=case.statement.strip(), patches=patches)
    return {"role": "user", "content": encodable(text)}


def _question(statement: str, first: Candidate, second: Candidate, shown: trace.JudgeTested | None) -> Json:
    text = prompt("judge").format(
        statement=statement.strip(),
        test=_shown_on(shown, "base"),
        first=cut_middle(first.patch, PATCH_CHARS),
        first_evidence=_in_words(first) + _shown_on(shown, first.id),
        second=cut_middle(second.patch, PATCH_CHARS),
        second_evidence=_in_words(second) + _shown_on(shown, second.id),
    )
    return {"role": "user", "content": encodable(text)}


def _shown_on(shown: trace.JudgeTested | None, name: str) -> str:
    """What the judge's test showed on one tree; on the base, with its text."""
    told = next((t for t in shown.told if t.on == name), None) if shown else None
    if shown is None or told is None:
        return ""
    words = {"passed": "passes", "failed": "fails", "error": "cannot be loaded"}[told.outcome]
    passing = sum(outcome == "passed" for outcome in told.tests.values())
    counted = f" ({passing} of {len(told.tests)} pass)" if told.tests else ""
    tail = f":\n{told.tail}" if told.tail else ""
    if name != "base":
        return f"\nthe discriminating test {words}{counted}{tail}"
    return (
        "\n\nThis test was written to tell such patches apart; it may itself be wrong about what the issue asks for."
        f" Without any patch it {words}{counted}.\n<test>\n{shown.text.strip()}\n</test>"
    )


def _in_words(candidate: Candidate) -> str:
    evidence = candidate.evidence or Evidence(applies=False, valid=False)
    witness = [f"{name}: {outcome}" for name, outcome in sorted(evidence.witness.items())]
    return "\n".join(
        [
            f"regression tests: {len(evidence.regression) - len(evidence.broken)} of {len(evidence.regression)} pass",
            f"attempts that arrived at it: {len(candidate.attempts)}",
            f"flags: {', '.join(candidate.flags) or 'none'}",
            *(f"witness test {line}" for line in witness[:10]),
        ]
    )
