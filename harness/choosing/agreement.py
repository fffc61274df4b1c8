"""How much the samples of an instance agree: exactly, in place, in wording, in behaviour.

Agreement among different models counts more than among repeats of one: a model's repeats share its mistakes. A model
with n of its samples in a group adds n ** HALF of a vote, so four repeats count as two models.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from harness.choosing.pool import Sample
from harness.patches.patch import Patch

HALF = 0.5


@dataclass(frozen=True, slots=True)
class Wording:
    """The words that a patch adds and takes away in source files, as multisets (words that only move left out), and the
    lines of the base that it changes."""

    added: Counter[str]
    removed: Counter[str]
    lines: frozenset[tuple[str, int]]


def votes(models: Iterable[str]) -> float:
    """What samples of these models (one entry a sample) count for."""
    return float(sum(n**HALF for n in Counter(models).values()))


def shares(groups: Sequence[Hashable | None], samples: Sequence[Sample]) -> list[float]:
    """For each sample the share of all votes that its group has; 0.0 for a sample of no group (None)."""
    total = votes(s.model for s in samples)
    by_group: dict[Hashable, list[str]] = {}
    for group, sample in zip(groups, samples, strict=True):
        if group is not None:
            by_group.setdefault(group, []).append(sample.model)
    return [votes(by_group[g]) / total if g is not None else 0.0 for g in groups]


def wording(patch_text: str, files: Sequence[str]) -> Wording:
    """The wording of a patch in these files; in all where none is given."""
    patch = Patch(patch_text)
    source = set(files) or set(patch.paths)
    added: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    lines: set[tuple[str, int]] = set()
    for change in patch.changes:
        if change.path not in source:
            continue
        for hunk in change.hunks:
            for at, sign, text in hunk.numbered():
                if sign != " ":
                    (added if sign == "+" else removed).update(_words(text))
                    lines.add((change.path, at))
    return Wording(added - removed, removed - added, frozenset(lines))


def similarity(one: Wording, other: Wording) -> float:
    """0..1: what two patches share of the words they add and take away (weighted Jaccard)."""
    return 0.7 * _overlap(one.added, other.added) + 0.3 * _overlap(one.removed, other.removed)


def nearness(one: Wording, other: Wording, reach: int = 3) -> float:
    """0..1: the share of changed lines that the other changes as well, or lines within `reach`; both ways averaged."""
    return (_near(one, other, reach) + _near(other, one, reach)) / 2


def mean_with_others(matrix: Sequence[Sequence[float]], samples: Sequence[Sample]) -> list[float]:
    """For each sample its mean likeness to the others; each other model counts once, repeats of its own model as one
    more."""
    means = []
    for i, sample in enumerate(samples):
        by_model: dict[str, list[float]] = {}
        for j, other in enumerate(samples):
            if i != j:
                by_model.setdefault(other.model, []).append(matrix[i][j])
        weights = {m: len(found) ** HALF * (0.5 if m == sample.model else 1.0) for m, found in by_model.items()}
        total = sum(weights.values())
        means.append(sum(w * sum(by_model[m]) / len(by_model[m]) for m, w in weights.items()) / total if total else 0.0)
    return means


def _near(one: Wording, other: Wording, reach: int) -> float:
    if not one.lines:
        return 0.0
    there = {(path, at + d) for path, at in other.lines for d in range(-reach, reach + 1)}
    return len(one.lines & there) / len(one.lines)


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    """Of all words of both, the share that both have."""
    both = sum(min(n, other[word]) for word, n in one.items() if word in other)
    either = one.total() + other.total() - both
    return both / either if either else 1.0


_WORD = re.compile(r"""(#.*)|(?:\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|\w+|[^\w\s]""")


def _words(line: str) -> list[str]:
    """The words, strings and signs of a line of code, comments gone."""
    return [match[0] for match in _WORD.finditer(line) if not match[1]]
