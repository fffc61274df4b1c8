"""The model's part in the selection: it tells apart candidates that stand first and too close together.

quick    it writes one test, which is run on the base and on every candidate; what that leaves equal it compares in
         pairs, in both orders, because models favour a position: only what both orders say counts
hands    it works like an attempt does, with tools on the base and on every finalist (`agent.choice.hands`)
rubric   it says what a right fix must do before it sees any, then holds every candidate against that

Its tests count like those of attempts: no comparison overrules one.
"""

import itertools
from typing import Any

from agent.choice.case import Case
from agent.choice.hands import hands
from agent.choice.hearing import Hearing
from agent.choice.questions import (
    alike,
    fenced,
    fenced_test,
    in_words,
    last_object,
    material,
    patch_of,
    question,
    told_in_words,
)
from harness import trace
from harness.records import Candidate, Json
from harness.testing.runners.registry import USUAL_COMMAND, runner_of
from tasks.errors import BudgetExceeded, EndpointFailed

ITEMS = range(3, 9)
"""How many things a rubric may ask for."""
MET = {"yes": 1.0, "unclear": 0.5}
"""What one of them counts, by whether a candidate does it."""
NEITHER = "none of these"


async def judge(hearing: Hearing, how: str) -> None:
    """Hear the case in one of the ways above. What is asked is charged, and what is run and said is written to the
    trace. An unusable answer is nobody's win. A budget that ends or a server that fails leaves the points so far."""
    case = hearing.case
    groups = alike(case, case.candidates)
    try:
        if how == "rubric" and len(groups) > 1:
            await _rubric(hearing, [group[0] for group in groups])
        elif len(alike(case, case.finalists(()))) > 1:
            await (hands(hearing, case.ground) if how == "hands" and case.ground is not None else _quick(hearing))
    except BudgetExceeded as error:
        case.write_once(trace.JudgeStopped(before=hearing.before, reason=str(error)))
    except EndpointFailed as error:
        case.write(trace.InfrastructureFailed(what="judge", detail=str(error), retried=False))
    for group in groups:
        most = max(hearing.points.get(each.id, 0.0) for each in group)
        hearing.points |= dict.fromkeys((each.id for each in group), most)


async def _quick(hearing: Hearing) -> None:
    case = hearing.case
    tested = await _tested(hearing)
    pairs = list(itertools.combinations((group[0] for group in alike(case, case.finalists(hearing.shown))), 2))
    neither = 0
    for one, other in pairs:
        words = []
        for number, (first, second) in enumerate(((one, other), (other, one))):
            hearing.before = f"{first.id} and {second.id}"
            asked = _comparison(case, first, second, tested)
            answer = await hearing.whole(f"{one.id}-{other.id}/{number}", asked)
            winner, reason, none = verdict(answer, first.id, second.id)
            case.write_once(trace.Judged(first=first.id, second=second.id, winner=winner, reason=reason, neither=none))
            words.append(winner or NEITHER * none)
        if words[0] == words[1] in (one.id, other.id):
            hearing.points[words[0]] = hearing.points.get(words[0], 0.0) + 1.0
        neither += words == [NEITHER, NEITHER]
    hearing.neither = bool(pairs) and neither == len(pairs)


async def _tested(hearing: Hearing) -> trace.JudgeTested | None:
    """The judge's test and what it showed; None where there is none, or where it says nothing of any candidate."""
    case = hearing.case
    if case.ground is None or not runner_of(case.ground.command or USUAL_COMMAND).python:  # as its test will be
        return None
    hearing.before, finalists = "the test", case.finalists(())
    patches = "\n\n".join(map(patch_of, finalists))
    asked = question("judge_test", material=material(case, finalists), patches=patches)
    answer = await hearing.whole(f"test/{'-'.join(hearing.ids)}", asked)
    tested = await hearing.tried(case.ground, *fenced_test(answer))
    outcomes = {told.outcome for told in tested.told if told.on != "base"}
    return tested if not tested.useless or outcomes == {"failed"} else None


def verdict(text: str, first: str, second: str) -> tuple[str | None, str, bool]:
    """(the winner's candidate id, the reason, whether none of the two solves the issue) from the judge's answer; no
    winner where it is a tie, none of the two, or unusable."""
    answer = last_object(text, "winner")
    said = str(answer.get("winner")).strip().lower()
    if said not in ("a", "b", "tie", NEITHER):
        return None, f"unusable answer: {text[:200] or 'none, or one that was cut'}", False
    return {"a": first, "b": second}.get(said), str(answer.get("reason") or "")[:500], said == NEITHER


def _comparison(case: Case, first: Candidate, second: Candidate, tested: trace.JudgeTested | None) -> Json:
    about, told = material(case, [first, second]), dict[str, str]()
    if tested is not None:
        told = {each.on: told_in_words(each) for each in tested.told}
        about += (
            "\n\nThis test was written to tell such patches apart; it may itself be wrong about what the issue asks"
            f" for. Without any patch it {told['base']}\n{fenced('test', tested.text)}"
        )
    sides = []
    for side, each in (("A", first), ("B", second)):
        words = in_words(case, each) + (f"\nthe discriminating test {told[each.id]}" if told else "")
        sides.append(f"{patch_of(each, side)}\n{fenced('evidence', words, side)}")
    return question("judge", material=about, first=sides[0], second=sides[1])


async def _rubric(hearing: Hearing, candidates: list[Candidate]) -> None:
    """What a right fix must do, by the issue and the base alone; then a call for each candidate, whose points are the
    share of it that it does."""
    case, hearing.before = hearing.case, "the rubric"
    asked = question("judge_rubric", material=material(case, candidates, blind=True))
    items = [str(each["must"]) for each in _listed(await hearing.whole("rubric", asked)) if each.get("must")]
    items = items[: ITEMS.stop - 1]
    if len(items) < ITEMS.start:
        case.write_once(trace.JudgeStopped(before="the candidates", reason="its rubric cannot be used"))
        return
    must = fenced("items", "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1)))
    for each in candidates:
        hearing.before, evidence = each.id, fenced("evidence", in_words(case, each))
        about = {"material": material(case, [each]), "patch": patch_of(each), "evidence": evidence}
        answer = await hearing.whole(f"held/{each.id}", question("judge_held", items=must, **about))
        found = [*_listed(answer), *({} for _ in items)][: len(items)]
        words = [str(held.get("met") or "unclear").strip().lower() for held in found]
        why = [f"{i}: {w}, {held.get('why') or '-'}" for i, w, held in zip(items, words, found, strict=True)]
        hearing.say(each, round(sum(MET.get(word, 0.0) for word in words) / len(items), 3), "\n".join(why))


def _listed(answer: str) -> list[dict[str, Any]]:
    """The entries of the answer's `items`."""
    items = last_object(answer, "items").get("items")
    return [each if isinstance(each, dict) else {} for each in items] if isinstance(items, list) else []
