"""Graded samples as data: what every measure of repeated sampling is computed from, wherever they came from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

COMPLETE = 0.8
"""The share of a model's tasks that must have k samples for k to be looked at; the others are left out and counted."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One attempt's outcome. `usd`: its cost, None where unknown. `candidate`: equal for samples that gave the same
    patch, "" for none. `score`: its place in the selection's order (higher is better), None where it may not be
    selected; `ranked` of the model says whether there is such an order at all."""

    right: bool
    usd: float | None = None
    candidate: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """All samples of one model: for each task (by id), in the order in which they were drawn. `ranked`: scores are
    known. `submissions`: a selection is right if any of so many best candidates is.

    `settled`: the depth, where the tasks that lack samples have been left out already."""

    name: str
    tasks: dict[str, tuple[Sample, ...]]
    ranked: bool = False
    settled: int | None = None
    submissions: int = 1

    @property
    def most(self) -> int:
        """The largest number of samples of a task."""
        return max((len(samples) for samples in self.tasks.values()), default=0)

    @property
    def depth(self) -> int:
        """The largest k that at least COMPLETE of the tasks have."""
        if self.settled is not None:
            return self.settled
        sizes = sorted((len(samples) for samples in self.tasks.values()), reverse=True)
        needed = max(1, -(-len(sizes) * COMPLETE // 1))
        return sizes[int(needed) - 1] if sizes else 0

    @property
    def priced(self) -> bool:
        """Whether what the samples cost is known: of all of them."""
        return self.most > 0 and all(s.usd is not None for samples in self.tasks.values() for s in samples)

    @property
    def named(self) -> bool:
        """Whether equal patches can be told, which the majority needs."""
        return any(s.candidate for samples in self.tasks.values() for s in samples)

    def whole(self) -> "Model":
        """Only the tasks that have the model's depth of samples, with all their samples."""
        depth = self.depth
        return replace(self, tasks={i: s for i, s in self.tasks.items() if len(s) >= depth}, settled=depth)

    def padded(self, tasks: Iterable[str]) -> "Model":
        """Every task with the largest number of samples: what is missing gave no patch and is wrong.

        Such a sample costs the task's mean (the model's where the task has none), for it was paid for as well."""
        known = [s.usd for samples in self.tasks.values() for s in samples if s.usd is not None]
        mean = sum(known) / len(known) if self.priced else None
        most, padded = self.most, {}
        for task in sorted({*tasks, *self.tasks}):
            there = self.tasks.get(task, ())
            own = [s.usd for s in there if s.usd is not None]
            usd = sum(own) / len(own) if mean is not None and own else mean
            padded[task] = (*there, *[Sample(False, usd)] * (most - len(there)))
        return replace(self, tasks=padded, settled=None)


def ranking(samples: Sequence[Sample]) -> tuple[list[tuple[int, bool]], int]:
    """The distinct candidates that may be selected, best first, each with its number of samples and whether it is
    right; and how many samples gave none.

    A candidate has the best score of its samples, and is right if most of them are; equal scores keep the order in
    which they were drawn. Samples without a name are candidates of their own."""
    found: dict[str, list[tuple[float, int, bool]]] = {}
    for place, sample in enumerate(samples):
        if sample.score is not None:
            found.setdefault(sample.candidate or f"\0{place}", []).append((sample.score, -place, sample.right))
    order = sorted(found.values(), key=max, reverse=True)
    ranked = [(len(each), 2 * sum(right for _, _, right in each) > len(each)) for each in order]
    return ranked, len(samples) - sum(count for count, _ in ranked)


def clusters(samples: Sequence[Sample]) -> tuple[list[tuple[int, float]], int]:
    """The distinct candidates, each with its number of samples and the share of them that is right; and how many
    samples have no patch. (Equal patches can have unequal labels: tests that are not steady, or published outcomes.)"""
    found: dict[str, list[bool]] = {}
    for sample in samples:
        if sample.candidate:
            found.setdefault(sample.candidate, []).append(sample.right)
    grouped = [(len(right), sum(right) / len(right)) for right in found.values()]
    return grouped, len(samples) - sum(count for count, _ in grouped)


def told_apart(sources: Sequence[tuple[str, Sequence[Model]]], *, merge: bool) -> list[Model]:
    """The models of several sources (name, models); one that is in several gets the source's name added, or with
    `merge` the samples of all of them, in order. Scores of different sources have no common order, so a merged model is
    not ranked."""
    every = [(source, model) for source, models in sources for model in models]
    names = [model.name for _, model in every]
    if not merge:
        return [m if names.count(m.name) == 1 else replace(m, name=f"{m.name} ({source})") for source, m in every]
    found = []
    for name in dict.fromkeys(names):
        first, *more = same = [model for _, model in every if model.name == name]
        ids = sorted({id for model in same for id in model.tasks})
        tasks = {id: tuple(sample for model in same for sample in model.tasks.get(id, ())) for id in ids}
        found.append(Model(name, tasks) if more else first)
    return found
