"""What candidates did when they were run, the issue's probes and the near tests: as features, zero where nothing was
run; and as rows of what was shown.

A step of a probe counts only where two runs of the base agree on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import log1p

from harness.choosing.agreement import shares
from harness.choosing.evidence_store import Base, Found, InstanceEvidence, Steps, digest
from harness.choosing.probe_facts import Seen
from harness.choosing.probes import WITNESS
from harness.choosing.statement import Statement
from harness.evidence.shown import Shown, splits
from harness.patches.patch import Patch

BEHAVIOUR: dict[str, tuple[str, ...]] = {
    "probes": ("like-base", "error-gone", "told-output", "new-crash", "same-behaviour", "same-steps"),
    "tests": ("breaks-tests", "breaks-tests-alone", "mends-tests"),
}

_WISH = re.compile(
    r"expect|should|instead|correct|ideal|suppose|rather|must\b|would|want|right (?:answer|result|output)|desired", re.I
)
_EMPTY = frozenset({"", "None", "True", "False", "[]", "{}", "()", "0", "1"})


def behaviour_features(evidence: InstanceEvidence, groups: Sequence[str]) -> dict[str, list[float]]:
    """The columns of the kinds "probes" and "tests", one value a sample."""
    samples, base = evidence.samples, evidence.base
    found = [evidence.of(s) for s in samples]
    statement = Statement(base.statement)
    steady = [_steady(f.probes, base) for f in found]
    on_base = _steady(base.probes, base)
    alone = _broken_alone(found, groups)
    wishes = _wishes(statement)
    return {
        # Whether every step behaves exactly as on the base; 0.0 where nothing was run.
        "like-base": [float(bool(steps) and not _changed(steps, on_base)) for steps in steady],
        "error-gone": [_error_gone(steps, on_base, statement) for steps in steady],
        "told-output": [_told(steps, on_base, wishes, statement) for steps in steady],
        "new-crash": [_new_crash(k, on_base, statement, s.patch) for k, s in zip(steady, samples, strict=True)],
        "same-behaviour": shares([_whole(steps, on_base) for steps in steady], samples),
        "same-steps": _same_steps(steady, evidence),
        "breaks-tests": _known([log1p(len(f.tests.broken)) if f.tests else None for f in found]),
        "breaks-tests-alone": _known([None if n is None else log1p(n) for n in alone]),
        "mends-tests": _known([log1p(len(f.tests.mended)) if f.tests else None for f in found]),
    }


def probe_rows(evidence: InstanceEvidence, patches: Mapping[str, str]) -> tuple[Shown, ...]:
    """The steps of the issue's own code of which it says what they should do: a candidate passes that does so, and
    fails where it does exactly what the base does; of one that does something else nothing is known. Only steps that
    tell candidates apart; all of them weigh as much as one test. `patches`: by candidate id."""
    statement, on_base = Statement(evidence.base.statement), _steady(evidence.base.probes, evidence.base)
    wishes, found = _wishes(statement), steps_of_each(evidence, patches)
    rows = {}
    for name, before in on_base.items():
        outcomes = {}
        for candidate, steps in found.items():
            seen = steps.get(name)
            if seen is None or name.startswith(WITNESS):
                continue
            if seen.behaviour == before.behaviour:
                outcomes[candidate] = "failed"
            elif _error_gone(steps, {name: before}, statement) or (
                _told({name: seen}, {name: before}, wishes, statement) == 1.0
            ):
                outcomes[candidate] = "passed"
        if splits(outcomes):
            rows[name] = outcomes
    return tuple(Shown("probe", name, outcomes, (), 1 / len(rows)) for name, outcomes in rows.items())


def steps_of_each(evidence: InstanceEvidence, patches: Mapping[str, str]) -> dict[str, dict[str, Seen]]:
    """What the probes showed of each candidate by step, where the base is steady. `patches`: by candidate id."""
    return {i: _steady(evidence.found[digest(patch)].probes, evidence.base) for i, patch in patches.items()}


def _steady(steps: Steps | None, base: Base) -> dict[str, Seen]:
    """Steps by "probe/number", the unsteady ones left out."""
    named = ((f"{p}/{at}", seen) for p, of_it in (steps or {}).items() for at, seen in enumerate(of_it))
    return {name: seen for name, seen in named if name not in base.unsteady}


def _changed(steps: dict[str, Seen], on_base: dict[str, Seen]) -> list[str]:
    names = steps.keys() | on_base.keys()
    return sorted(n for n in names if _behaviour(steps.get(n)) != _behaviour(on_base.get(n)))


def _behaviour(seen: Seen | None) -> tuple[object, ...]:
    return seen.behaviour if seen is not None else ()


def _complains(name: str, seen: Seen, statement: Statement) -> bool:
    """Whether a step ends by an error that the text names, or a failed assertion; a witness test, whether it fails."""
    if name.startswith(WITNESS):
        return bool(seen.error)
    if seen.error in ("", "NameError", "ImportError", "ModuleNotFoundError", "Died") or seen.error.startswith("exit"):
        return False
    return seen.error in statement.exceptions or seen.error == "AssertionError"


def _error_gone(steps: dict[str, Seen], on_base: dict[str, Seen], statement: Statement) -> float:
    """Of the steps that show the text's error on the base, the share that end without any."""
    shown = [name for name, seen in on_base.items() if _complains(name, seen, statement)]
    if not shown or not steps:
        return 0.0
    return sum(name in steps and not steps[name].error for name in shown) / len(shown)


def _new_crash(steps: dict[str, Seen], on_base: dict[str, Seen], statement: Statement, patch: str) -> float:
    """Whether a step ends by an error that neither the base shows, nor the text names, nor the patch raises."""
    added = (line for change in Patch(patch).changes for hunk in change.hunks for line in hunk.lines if line[0] == "+")
    raised = {word for _, text in added for word in re.findall(r"\braise\s+(\w+)", text)}
    for name, seen in steps.items():
        before = on_base.get(name)
        if name.startswith(WITNESS) or before is None:
            continue
        if seen.error not in {"", before.error} | raised | statement.exceptions:
            return 1.0
    return 0.0


def _wishes(statement: Statement) -> str:
    """What the text says should be: the sentences that say so, and a block that follows such a line."""
    found = []
    carry = 0
    for line in statement.plain.split("\n"):
        if _WISH.search(line):
            found.append(line)
            carry = 12
        elif carry and line.strip():
            found.append(line)
            carry -= 1
            if line.startswith("#"):
                carry = 0
    return _squeezed("\n".join(found))


def _told(steps: dict[str, Seen], on_base: dict[str, Seen], wishes: str, statement: Statement) -> float:
    """Whether a step, unlike the base's, prints what the text says should be (1.0), or shows anywhere (0.4)."""
    everywhere = _squeezed(statement.plain)
    best = 0.0
    for name in _changed(steps, on_base):
        if name not in steps or name not in on_base:
            continue
        before = set(_texts(on_base[name]))
        for text in _texts(steps[name]):
            if text in before or text in _EMPTY:
                continue
            shown = 0.4 if len(text) > 3 and _occurs(text, everywhere) else 0.0
            best = max(best, 1.0 if _occurs(text, wishes) else shown)
    return best


def _texts(seen: Seen) -> list[str]:
    shown = [seen.out, *(text for name, text in seen.views if name not in ("type", "sympy.srepr"))]
    return [_squeezed(text).strip("'\"") for text in shown if not seen.error]


def _occurs(text: str, where: str) -> bool:
    pattern = re.escape(text)
    if text[:1].isalnum() and text[-1:].isalnum():
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.search(pattern, where) is not None


def _squeezed(text: str) -> str:
    """Without spaces within brackets and operators: how the same value may be written."""
    return re.sub(r"\s*([^\w\s])\s*", r"\1", re.sub(r"\s+", " ", text)).strip()


def _whole(steps: dict[str, Seen], on_base: dict[str, Seen]) -> tuple[object, ...] | None:
    """How all steps behaved; None where nothing was run or all is as on the base."""
    if not steps or not _changed(steps, on_base):
        return None
    return tuple((name, _behaviour(steps[name])) for name in sorted(steps))


def _same_steps(steady: Sequence[dict[str, Seen]], evidence: InstanceEvidence) -> list[float]:
    """Over the steps on which candidates differ: the mean share of votes that behave alike; 0.0 without such a step."""
    names = sorted({name for steps in steady for name in steps})
    ran = [steps for steps in steady if steps]
    contested = [n for n in names if len({_behaviour(steps.get(n)) for steps in ran}) > 1]
    if not contested:
        return [0.0] * len(steady)
    behaved = [[_behaviour(steps.get(n)) if steps else None for steps in steady] for n in contested]
    columns = [shares(each, evidence.samples) for each in behaved]
    return [sum(row) / len(row) for row in zip(*columns, strict=True)]


def _known(values: Sequence[float | None]) -> list[float]:
    """Candidates that were not held against the tests count as the mean of those that were: neither for nor against."""
    there = [value for value in values if value is not None]
    mean = sum(there) / len(there) if there else 0.0
    return [mean if value is None else value for value in values]


def _broken_alone(found: Sequence[Found], groups: Sequence[str]) -> list[int | None]:
    """For each candidate how many tests it breaks that at most a third of the distinct candidates break."""
    broken = {g: set(f.tests.broken) for f, g in zip(found, groups, strict=True) if f.tests is not None}
    often = max(1.0, len(broken) / 3)
    return [
        sum(sum(test in other for other in broken.values()) <= often for test in f.tests.broken) if f.tests else None
        for f in found
    ]
