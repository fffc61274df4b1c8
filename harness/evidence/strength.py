"""How far a choice is shown to be right, in the four words that a person gets for it.

proved   a failing test that came with the issue passes, and nothing that was green before breaks
strong   tests that attempts, or the judge, wrote for the issue pass, none fails, and more than one attempt came to it
likely   one of the two: such tests pass and none fails, or attempts agree on it and there are no such tests
guess    nothing speaks for it but that nothing breaks, or only what every other candidate breaks
"""

from collections.abc import Collection
from typing import Literal, get_args

from harness.records import Evidence

Strength = Literal["proved", "strong", "likely", "guess"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
"""The strongest first."""


def strength_of(evidence: Evidence, attempts: Collection[int], tests: Collection[str] | None = None) -> Strength:
    """The word for a candidate that these attempts came to. `tests`: how the tests that were written for the issue end
    on it (None: the witness tests)."""
    written = evidence.witness.values() if tests is None else tests
    if not evidence.clean:
        return "guess"
    if evidence.given:
        return "proved" if all(outcome == "passed" for outcome in evidence.given.values()) else "guess"
    shown = bool(written) and all(outcome == "passed" for outcome in written)
    agreed = len(attempts) > 1
    if shown:
        return "strong" if agreed else "likely"
    return "likely" if agreed and not written else "guess"
