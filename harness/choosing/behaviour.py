"""What candidates did when the issue's probes were run on them: as features, zero where nothing was run; and as rows of
what was shown.

A step of a probe counts only where two runs of the base agree on it.
"""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

from harness.choosing.agreement import shares
from harness.choosing.found import Base, InstanceEvidence, Steps, digest
from harness.choosing.probing import Seen
from harness.choosing.statement import Statement
from harness.evidence.shown import Shown, splits
from harness.patches.patch import Patch

_WISH = re.compile(
    r"expect|should|instead|correct|ideal|suppose|rather|must\b|would|want|right (?:answer|result|output)|desired", re.I
)
_EMPTY = frozenset({"", "None", "True", "False", "[]", "{}", "()", "0", "1"})


def behaviour_features(evidence: InstanceEvidence) -> dict[str, list[float]]:
    """The columns of the kind "probes", one value a sample."""
    samples, base = evidence.samples, evidence.base
    statement = Statement(base.statement)
    steady, on_base = [_steady(evidence.of(s).probes, base) for s in samples], _steady(base.probes, base)
    whole = [tuple(sorted(steps.items())) if steps and steps != on_base else None for steps in steady]
    return {
        # Whether every step behaves exactly as on the base; 0.0 where nothing was run.
        "like-base": [float(bool(steps) and steps == on_base) for steps in steady],
        "error-gone": [_error_gone(steps, on_base, statement) for steps in steady],
        "new-crash": [_new_crash(k, on_base, statement, s.patch) for k, s in zip(steady, samples, strict=True)],
        "same-behaviour": shares(whole, samples),
        "same-steps": _same_steps(steady, evidence),
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
        for candidate, seen in ((i, steps[name]) for i, steps in found.items() if name in steps):
            if seen == before:
                outcomes[candidate] = "failed"
            elif (_complains(before, statement) and not seen.error) or _as_wished(seen, before, wishes):
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


def _complains(seen: Seen, statement: Statement) -> bool:
    """Whether a step ends by an error that the text names, or a failed assertion."""
    if seen.error in ("", "NameError", "ImportError", "ModuleNotFoundError", "Died") or seen.error.startswith("exit"):
        return False
    return seen.error in statement.exceptions or seen.error == "AssertionError"


def _error_gone(steps: dict[str, Seen], on_base: dict[str, Seen], statement: Statement) -> float:
    """Of the steps that show the text's error on the base, the share that end without any."""
    shown = [name for name, seen in on_base.items() if _complains(seen, statement)]
    if not shown or not steps:
        return 0.0
    return sum(name in steps and not steps[name].error for name in shown) / len(shown)


def _new_crash(steps: dict[str, Seen], on_base: dict[str, Seen], statement: Statement, patch: str) -> float:
    """Whether a step ends by an error that neither the base shows, nor the text names, nor the patch raises."""
    added = (line for change in Patch(patch).changes for hunk in change.hunks for line in hunk.lines if line[0] == "+")
    raised = {word for _, text in added for word in re.findall(r"\braise\s+(\w+)", text)}
    known = {""} | raised | statement.exceptions
    both = steps.keys() & on_base.keys()
    return float(any(steps[name].error not in known | {on_base[name].error} for name in both))


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
            carry = 0 if line.startswith("#") else carry - 1
    return _squeezed("\n".join(found))


def _as_wished(seen: Seen, before: Seen, wishes: str) -> bool:
    """Whether a step, unlike the base's, shows what the text says should be."""
    return any(_occurs(text, wishes) for text in set(_texts(seen)) - set(_texts(before)) - _EMPTY)


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


def _same_steps(steady: Sequence[dict[str, Seen]], evidence: InstanceEvidence) -> list[float]:
    """Over the steps on which candidates differ: the mean share of votes that behave alike; 0.0 without such a step."""
    ran = [steps for steps in steady if steps]
    contested = sorted(n for n in {n for steps in ran for n in steps} if len({steps.get(n) for steps in ran}) > 1)
    columns = [shares([steps.get(n, ()) if steps else None for steps in steady], evidence.samples) for n in contested]
    return [fmean(row) for row in zip(*columns, strict=True)] if columns else [0.0] * len(steady)
