"""The model's part in the selection: pairwise comparison of candidates that the tests could not tell apart.

Each pair is asked in both orders, because models favour a position; only agreement of the two orders counts as a full win.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence

from agent.model_policy import prompt
from agent.policy import Ask
from agent.tools import cut_middle
from harness import trace
from harness.records import Candidate, Evidence, Json
from tasks.errors import BudgetExceeded, EndpointFailed

PATCH_CHARS = 12_000
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


async def judge(
    statement: str, candidates: Sequence[Candidate], ask: Ask, write: Callable[[trace.Event], None]
) -> dict[str, float]:
    """Points by candidate id: 0.5 for each order of each pair that was won.

    Every comparison is asked through `ask` (charged) and written as a `Judged` event. An unusable answer is nobody's win. A
    budget that ends or a server that fails leaves the points so far.
    """
    points = dict.fromkeys((c.id for c in candidates), 0.0)
    for one, other in itertools.combinations(candidates, 2):
        for number, (first, second) in enumerate(((one, other), (other, one))):
            try:
                reply = await ask(f"{one.id}-{other.id}/{number}", "judge", [_question(statement, first, second)])
            except (BudgetExceeded, EndpointFailed) as error:
                write(trace.InfrastructureFailed(what="judge", detail=str(error), retried=False))
                return points
            winner, reason = verdict(str(reply.get("content") or ""), first.id, second.id)
            write(trace.Judged(first=first.id, second=second.id, winner=winner, reason=reason))
            if winner is not None:
                points[winner] += 0.5
    return points


def verdict(text: str, first: str, second: str) -> tuple[str | None, str]:
    """The winner's candidate id (None: tie or unusable) and the reason, from the judge's answer."""
    found = _OBJECT.search(text)
    try:
        answer = json.loads(found.group(0)) if found else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.get("winner") not in ("A", "B", "tie"):
        return None, f"unusable answer: {text[:200]}"
    winner = {"A": first, "B": second}.get(answer["winner"])
    return winner, str(answer.get("reason") or "")[:500]


def _question(statement: str, first: Candidate, second: Candidate) -> Json:
    text = prompt("judge").format(
        statement=statement.strip(),
        first=cut_middle(first.patch, PATCH_CHARS),
        first_evidence=_in_words(first),
        second=cut_middle(second.patch, PATCH_CHARS),
        second_evidence=_in_words(second),
    )
    return {"role": "user", "content": text}


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
