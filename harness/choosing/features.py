"""Evidence as numbers: one row a distinct candidate, and the instance's own circumstances beside it.

A candidate is what is the same code in normal form, or, where no tree is at hand, the same fingerprint. Its features
are relative to the other candidates of the instance (the mean is taken away): only that can order them, and what is
missing for a whole instance then counts for nothing. The circumstances are the same for all candidates of an instance;
they order nothing, and let the probability tell an easy instance from a hard one.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log1p
from statistics import fmean

from harness.choosing.agreement import Wording, mean_with_others, nearness, shares, similarity, votes, wording
from harness.choosing.behaviour import behaviour_features
from harness.choosing.found import Found, InstanceEvidence

KINDS: dict[str, tuple[str, ...]] = {
    "usable": ("unusable",),
    "names": ("undefined-names", "unseen-names"),
    "hygiene": ("edits-tests", "adds-tests", "debugging", "stray-files", "build-config"),
    "statement": ("names-file", "traceback-place"),
    "agreement": ("same-code", "same-places", "likeness", "nearness"),
    "probes": ("like-base", "error-gone", "new-crash", "same-behaviour", "same-steps"),
}
"""The features by kind of evidence; an ablation takes whole kinds away."""

NAMES = tuple(name for names in KINDS.values() for name in names)


@dataclass(frozen=True, slots=True)
class CandidateFeatures:
    """One distinct candidate of an instance. `patch`: the text that stands for it, of the member with the fewest flags.
    `sources`: of all its members. `relative`: by feature name, the instance's mean taken away; `absolute`: as found."""

    patch: str
    sources: tuple[str, ...]
    relative: Mapping[str, float]
    absolute: Mapping[str, float]
    circumstances: Mapping[str, float]


def rows(evidence: InstanceEvidence) -> list[CandidateFeatures]:
    """The distinct candidates of an instance in order of first appearance, with their features."""
    # What makes two samples one candidate.
    groups = [evidence.of(s).static.code or s.patch for s in evidence.samples]
    table = _table(evidence, groups)
    members: dict[Hashable, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(group, []).append(at)
    flags = [len(evidence.of(sample).static.flags) for sample in evidence.samples]
    chosen = [min(of_it, key=lambda at: (flags[at], at)) for of_it in members.values()]
    means = {name: fmean(table[at][name] for at in chosen) for name in NAMES}
    around = {
        "agreement-of-all": fmean(row["likeness"] for row in table),
        "best-agreement": max(row["same-code"] for row in table),
        "place-agreement": max(row["same-places"] for row in table),
        "distinct-share": len(chosen) / max(1.0, votes(s.model for s in evidence.samples)),
    }
    return [
        CandidateFeatures(
            patch=evidence.samples[at].patch,
            sources=tuple(evidence.samples[m].source for m in of_it),
            relative={name: table[at][name] - means[name] for name in NAMES},
            absolute=table[at],
            circumstances=around,
        )
        for at, of_it in zip(chosen, members.values(), strict=True)
    ]


def _table(evidence: InstanceEvidence, groups: Sequence[str]) -> list[dict[str, float]]:
    samples = evidence.samples
    found = [evidence.of(s) for s in samples]
    words = [wording(s.patch, f.static.files) for s, f in zip(samples, found, strict=True)]
    alike, near = _matrix(words, groups, similarity), _matrix(words, groups, nearness)
    columns: dict[str, Sequence[float]] = {
        **{name: [measure(f) for f in found] for name, measure in _STATIC.items()},
        **{flag: [flag in f.static.flags for f in found] for flag in _FLAGS},
        "same-code": shares(groups, samples),
        "same-places": shares([f.static.places or None for f in found], samples),
        "likeness": mean_with_others(alike, samples),
        "nearness": mean_with_others(near, samples),
        **behaviour_features(evidence),
    }
    return [{name: float(columns[name][at]) for name in NAMES} for at in range(len(samples))]


def _matrix(
    words: Sequence[Wording], groups: Sequence[str], like: Callable[[Wording, Wording], float]
) -> list[list[float]]:
    """A symmetric measure of every pair, 1.0 for the same candidate; the diagonal is not used."""
    matrix = [[0.0] * len(words) for _ in words]
    for i, j in combinations(range(len(words)), 2):
        matrix[i][j] = matrix[j][i] = 1.0 if groups[i] == groups[j] else like(words[i], words[j])
    return matrix


_FLAGS = ("edits-tests", "adds-tests", "debugging", "build-config")
_STATIC: dict[str, Callable[[Found], float]] = {
    "unusable": lambda f: f.static.applies == "no" or f.static.no_code or bool(f.static.unparsed),
    "undefined-names": lambda f: bool(f.static.undefined),
    "unseen-names": lambda f: log1p(len(f.static.unseen)),
    "stray-files": lambda f: bool(f.static.strays),
    "names-file": lambda f: f.static.named_files,
    "traceback-place": lambda f: f.static.frame_places,
}
