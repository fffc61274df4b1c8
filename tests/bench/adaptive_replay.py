"""Adaptive sampling against a fixed number of samples, replayed on pools of attempts that exist: solved tasks for the
dollars spent.

    python tests/bench/adaptive_replay.py synthetic [--plot FILE.png]
    python tests/bench/adaptive_replay.py eval REPORT.json [--seconds]       an evaluation; --seconds: an hour costs a dollar
    python tests/bench/adaptive_replay.py pool FILE.jsonl.gz --source PREFIX  rows with cost_usd, outcome, published_resolved

Each replay draws every task's attempts in a random order, without putting back, and lets both policies spend: fixed
goes round after round over all tasks, in a random order; adaptive always takes the task with the largest
`rate`. Both select by the same rule, the group most likely to be right. At each budget the
solved tasks of both, the mean over replays, and the paired difference with its 95 % interval by bootstrap over tasks.
Beliefs about evidence and agreement are learnt from labelled attempts of other tasks (five folds; of another pool for
synthetic ones), or are those of the product (`--shipped`); the prior, and how often wrong attempts give nothing, from
what the tasks of the replay show so far, without labels.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from agent.run.worth import beliefs_for
from harness.patches.patch import Patch
from harness.scaling.adaptive import Beliefs, Group, TaskState, chances, fit_prior, gain, kinds_of, price, standing
from harness.scaling.curves import Draws
from tasks.task import GivenTest, Repository
from tasks.task import Task as TroopTask

BUDGETS = 12
FOLDS = 5
SCATTERS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0)


@dataclass(frozen=True)
class Attempt:
    """`candidate`: which acceptable patch, "" for none; `level` of its evidence."""

    candidate: str
    level: int
    right: bool
    usd: float


Pool = Mapping[str, Sequence[Attempt]]


class Task:
    """What a policy knows of a task in a replay, and, for the score alone, which candidates are right."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self._left = list(attempts)
        self._groups: dict[str, Group] = {}
        self._right: dict[str, bool] = {}
        self._failed, self._usd = 0, 0.0

    @property
    def left(self) -> int:
        return len(self._left)

    @property
    def state(self) -> TaskState:
        return TaskState(tuple(self._groups.values()), self._failed, self._usd)

    def sample(self) -> float:
        """Take the next attempt; what it cost."""
        attempt = self._left.pop(0)
        self._usd += attempt.usd
        if attempt.candidate:
            before = self._groups.get(attempt.candidate, Group(0, attempt.level))
            self._groups[attempt.candidate] = Group(before.attempts + 1, before.level)
            self._right.setdefault(attempt.candidate, attempt.right)
        else:
            self._failed += 1
        return attempt.usd

    def solved(self, beliefs: Beliefs) -> float:
        """Whether the group most likely to be right is; the earlier of equals."""
        found = chances(kinds_of(self._groups.values()), self._failed, beliefs)
        best = max(self._groups, key=lambda candidate: found[self._groups[candidate]], default=None)
        return float(best is not None and self._right[best])


@dataclass
class Spending:
    """One policy's course: what was spent, and each task's score after each sample, in order."""

    spent: list[float]
    changes: list[tuple[str, float]]

    def at(self, budget: float, tasks: Sequence[str]) -> dict[str, float]:
        scores = dict.fromkeys(tasks, 0.0)
        for spent, (task, score) in zip(self.spent, self.changes, strict=True):
            if spent > budget * (1 + 1e-9):
                break
            scores[task] = score
        return scores


class Learner:
    """Beliefs by task, and their prior fitted again whenever twice as many attempts are known."""

    def __init__(self, beliefs: Mapping[str, Beliefs]) -> None:
        self.beliefs = dict(beliefs)
        self._next = 2 * len(beliefs)
        self._seen = 0

    def saw(self, tasks: Mapping[str, Task]) -> bool:
        """Count an attempt; True where the prior changed."""
        self._seen += 1
        if self._seen < self._next:
            return False
        self._next = 2 * self._seen
        states = [task.state for task in tasks.values()]
        fitted = {old: fit_prior(states, old) for old in set(self.beliefs.values())}
        changed = any(new != old for old, new in fitted.items())
        self.beliefs = {task: fitted[old] for task, old in self.beliefs.items()}
        return changed


def fixed(pool: Mapping[str, Sequence[Attempt]], beliefs: Mapping[str, Beliefs], order: Sequence[str]) -> Spending:
    """Round after round, each task once."""
    tasks = {name: Task(attempts) for name, attempts in pool.items()}
    learner, total, course = Learner(beliefs), 0.0, Spending([], [])
    while any(task.left for task in tasks.values()):
        for name in order:
            if tasks[name].left:
                total += tasks[name].sample()
                learner.saw(tasks)
                course.spent.append(total)
                course.changes.append((name, tasks[name].solved(learner.beliefs[name])))
    return course


def adaptive(pool: Mapping[str, Sequence[Attempt]], beliefs: Mapping[str, Beliefs], order: Sequence[str]) -> Spending:
    """Always the task whose next sample gains most for a dollar; ends when none gains anything."""
    tasks = {name: Task(attempts) for name, attempts in pool.items()}
    learner, total, course = Learner(beliefs), 0.0, Spending([], [])
    rates = dict.fromkeys(order, math.inf)
    while True:
        open_ = [name for name in order if tasks[name].left and rates[name] > 1e-9]
        if not open_:
            return course
        name = max(open_, key=lambda each: rates[each])
        total += tasks[name].sample()
        course.spent.append(total)
        mean = total / len(course.spent)
        stale = order if learner.saw(tasks) else [name]
        for each in stale:
            state = tasks[each].state
            rates[each] = rate(state, learner.beliefs[each], mean) if state.attempts else math.inf
        course.changes.append((name, tasks[name].solved(learner.beliefs[name])))


def rate(state: TaskState, beliefs: Beliefs, mean_usd: float) -> float:
    """The expected gain for a dollar; 0 where the task is to be left."""
    if standing(state, beliefs) != "open":
        return 0.0
    return gain(state, beliefs) / max(price(state, mean_usd), 1e-9)


def replayed(pool: Pool, beliefs: Mapping[str, Beliefs], replays: int) -> dict[str, Any]:
    """The curves of both policies and their paired difference."""
    names = sorted(pool)
    draws = Draws(names)
    round_usd = math.fsum(fmean(a.usd for a in attempts) for attempts in pool.values())
    deepest = max(len(attempts) for attempts in pool.values())
    rounds = [deepest ** (i / (BUDGETS - 1)) for i in range(BUDGETS)]
    scores: dict[str, list[dict[str, float]]] = {}
    spent, samples = [], []
    for seed in range(replays):
        rng = random.Random(seed)
        shuffled = {name: rng.sample(list(pool[name]), len(pool[name])) for name in names}
        order = rng.sample(names, len(names))
        for policy in (fixed, adaptive):
            course = policy(shuffled, beliefs, order)
            found = [course.at(r * round_usd, names) for r in rounds]
            kept = scores.setdefault(policy.__name__, [dict.fromkeys(names, 0.0) for _ in rounds])
            for total, each in zip(kept, found, strict=True):
                for name in names:
                    total[name] += each[name] / replays
            if policy is adaptive:
                spent.append(course.spent[-1] / round_usd)
                samples.append(len(course.spent) / len(names))
    rows = []
    for place, many in enumerate(rounds):
        one, other = scores["adaptive"][place], scores["fixed"][place]
        gap = draws.plain({name: one[name] - other[name] for name in names})
        rows.append(
            {
                "samples' worth": round(many, 2),
                "usd a task": many * round_usd / len(names),
                "fixed": fmean(other.values()),
                "adaptive": fmean(one.values()),
                "difference": gap.value,
                "low": gap.low,
                "high": gap.high,
            }
        )
    return {
        "tasks": len(names),
        "attempts": sum(map(len, pool.values())),
        "replays": replays,
        "oracle": fmean(any(a.right and a.candidate for a in attempts) for attempts in pool.values()),
        "adaptive ends after": {"samples' worth": fmean(spent), "samples a task": fmean(samples)},
        "budgets": rows,
    }


def cross_fitted(pool: Pool, levels: int) -> dict[str, Beliefs]:
    """For each task, beliefs learnt from the tasks of the other folds."""
    names = sorted(pool)
    random.Random(0).shuffle(names)
    folds = [names[i::FOLDS] for i in range(FOLDS)]
    found = {}
    for fold in folds:
        beliefs = learnt({name: pool[name] for name in names if name not in fold}, levels)
        found.update(dict.fromkeys(fold, beliefs))
    return found


def learnt(pool: Pool, levels: int) -> Beliefs:
    tasks, failed = [], 0
    for attempts in pool.values():
        groups: dict[str, tuple[Group, bool]] = {}
        for attempt in attempts:
            if attempt.candidate:
                before = groups.get(attempt.candidate, (Group(0, attempt.level), attempt.right))[0]
                groups[attempt.candidate] = (Group(before.attempts + 1, attempt.level), attempt.right)
            else:
                failed += 1
        tasks.append(list(groups.values()))
    return learn(tasks, failed, levels)


def learn(tasks: Iterable[Sequence[tuple[Group, bool]]], failed: int, levels: int) -> Beliefs:
    """The beliefs, but for the prior, from labelled attempts: of each task the groups and whether each is right.

    `failed`: how many attempts of all these tasks gave nothing acceptable. Levels have one pseudo-count each; the
    concentrations are the likeliest of a grid.
    """
    labelled = [list(groups) for groups in tasks]
    counts = {truth: [1.0] * levels for truth in (True, False)}
    for groups in labelled:
        for group, truth in groups:
            counts[truth][group.level] += 1
    wrong = sum(group.attempts for groups in labelled for group, truth in groups if not truth)
    sizes = {
        truth: [[group.attempts for group, right in groups if right == truth] for groups in labelled]
        for truth in (True, False)
    }
    return Beliefs(
        fails=(failed + 1) / (failed + wrong + 2),
        scatter_right=likeliest_scatter(sizes[True]),
        scatter_wrong=likeliest_scatter(sizes[False]),
        right=tuple(count / sum(counts[True]) for count in counts[True]),
        wrong=tuple(count / sum(counts[False]) for count in counts[False]),
    )


def likeliest_scatter(tasks: Sequence[Sequence[int]]) -> float:
    """The likeliest concentration of SCATTERS, from the sizes of each task's groups."""

    def height(scatter: float) -> float:
        return sum(
            len(sizes) * math.log(scatter) - (math.lgamma(scatter + sum(sizes)) - math.lgamma(scatter))
            for sizes in tasks
        )

    return max(SCATTERS, key=height)


# Pools


KINDS = {
    "tests prove": Beliefs(fails=0.97, right=(1.0,), wrong=(1.0,)),
    "tests and agreement": Beliefs(fails=0.3, right=(0.2, 0.8), wrong=(0.7, 0.3)),
    "agreement only": Beliefs(fails=0.3, right=(1.0,), wrong=(1.0,)),
}


def synthetic(truth: Beliefs, tasks: int, attempts: int, seed: int) -> dict[str, list[Attempt]]:
    """A pool drawn from the model, with costs that differ between tasks and between attempts."""
    rng = random.Random(seed)
    pool = {}
    for task in range(tasks):
        p = rng.betavariate(0.4, 1.6)
        dear = 0.4 * rng.lognormvariate(0, 0.5)
        groups: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
        rows = []
        for _ in range(attempts):
            right = rng.random() < p
            usd = dear * rng.lognormvariate(0, 0.4)
            if not right and rng.random() < truth.fails:
                rows.append(Attempt("", 0, False, usd))
                continue
            members, scatter = groups[right], truth.scatter_right if right else truth.scatter_wrong
            if rng.random() < scatter / (scatter + len(members)):
                chance = truth.right if right else truth.wrong
                members.append((f"{right}{len(members)}", rng.choices(range(len(chance)), chance)[0]))
            else:
                members.append(rng.choice(members))
            rows.append(Attempt(members[-1][0], members[-1][1], right, usd))
        pool[f"t{task}"] = rows
    return pool


def of_evaluation(path: Path, seconds: bool) -> dict[str, list[Attempt]]:
    """The graded attempts of an evaluation; level 1: tests that show the issue pass, 0: only that nothing breaks."""
    pool = {}
    for task in json.loads(path.read_text(encoding="utf-8"))["tasks"]:
        report = task["report"]
        if not report or any(c["id"] not in task["verdicts"] for c in report["candidates"]):
            continue
        acceptable = {each["candidate"] for each in report["ranking"] if each["acceptable"]}
        level = {}
        for candidate in report["candidates"]:
            shown = [*candidate["evidence"]["given"].values(), *candidate["evidence"]["witness"].values()]
            level[candidate["id"]] = int(bool(shown) and all(each == "passed" for each in shown))
        rows = []
        for attempt in report["attempts"]:
            if attempt["status"] in ("infrastructure", "running"):
                continue
            name = attempt["candidate"] if attempt["candidate"] in acceptable else ""
            right = bool(name) and task["verdicts"][name]["resolved"]
            usd = attempt["seconds"] / 3600 if seconds else attempt["usd"]
            rows.append(Attempt(name, level.get(name, 0), right, usd))
        if rows:
            pool[task["id"]] = rows
    return pool


def of_pool(path: Path, prefix: str) -> dict[str, list[Attempt]]:
    """Rows of one system with their cost; right as the official harness said where it ran, else as was published.

    A run without a row for a task gave no patch there: a failure, at the mean cost of the task's others.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["source"].startswith(prefix)]
    runs = {row["source"] for row in rows}
    pool: dict[str, list[Attempt]] = {}
    for row in rows:
        right = row["published_resolved"] if row["outcome"] is None else row["outcome"] == "resolved"
        attempt = Attempt(Patch(row["model_patch"]).fingerprint, 0, bool(right), float(row["cost_usd"]))
        pool.setdefault(row["instance_id"], []).append(attempt)
    return {
        task: [*attempts, *[Attempt("", 0, False, fmean(a.usd for a in attempts))] * (len(runs) - len(attempts))]
        for task, attempts in pool.items()
    }


def plot(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Solved over dollars for both policies, and the difference with its interval below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

    figure = Figure(figsize=(5.2 * len(results), 5.6), layout="constrained")
    axes = figure.subplots(2, len(results), sharex="col", squeeze=False, height_ratios=(2, 1))
    for column, (name, result) in enumerate(results.items()):
        rows, (top, below) = result["budgets"], axes[:, column]
        usd = [row["usd a task"] for row in rows]
        top.plot(usd, [100 * row["fixed"] for row in rows], "--s", color="#D55E00", markersize=4, label="fixed N")
        top.plot(usd, [100 * row["adaptive"] for row in rows], "-o", color="#0072B2", markersize=4, label="adaptive")
        top.axhline(100 * result["oracle"], color="#555555", linewidth=0.8, linestyle=":", label="oracle, all samples")
        top.set_title(name)
        top.set_ylabel("selected and right (%)")
        top.set_ylim(bottom=0)
        top.legend(frameon=False, fontsize=8, loc="lower right")
        below.fill_between(
            usd, [100 * row["low"] for row in rows], [100 * row["high"] for row in rows], color="#0072B2", alpha=0.2
        )
        below.plot(usd, [100 * row["difference"] for row in rows], color="#0072B2")
        below.axhline(0, color="#555555", linewidth=0.8)
        below.set_xscale("log")
        below.xaxis.set_major_locator(FixedLocator(ticks(usd[0], usd[-1])))
        below.xaxis.set_minor_locator(NullLocator())
        below.xaxis.set_major_formatter(FormatStrFormatter("$%g"))
        below.set_xlabel("USD a task")
        below.set_ylabel("difference (points)")
        for each in (top, below):
            each.grid(True, color="#DDDDDD", linewidth=0.6)
    figure.savefig(path, dpi=150)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis, three to ten of them where there are as many."""
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [step * 10.0**power for power in powers for step in steps]
        found = [x for x in every if low <= x <= high]
        if len(found) >= 4:
            break
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=("synthetic", "eval", "pool"))
    options.add_argument("file", type=Path, nargs="?")
    options.add_argument("--source", default="", help="pool: only rows whose source begins so")
    options.add_argument("--seconds", action="store_true", help="eval: an hour costs a dollar (for what has no price)")
    options.add_argument(
        "--shipped", action="store_true", help="eval of `repair`: the beliefs that --adaptive starts with"
    )
    options.add_argument("--replays", type=int, default=20)
    options.add_argument("--tasks", type=int, default=100, help="synthetic")
    options.add_argument("--attempts", type=int, default=32, help="synthetic")
    options.add_argument("--plot", type=Path)
    known = options.parse_args()
    os.nice(10)
    makers: dict[str, Callable[[], tuple[Pool, Mapping[str, Beliefs]]]] = {}
    if known.kind == "synthetic":
        for seed, (name, truth) in enumerate(KINDS.items()):

            def make(truth: Beliefs = truth, seed: int = seed) -> tuple[Pool, Mapping[str, Beliefs]]:
                other = learnt(synthetic(truth, 40, known.attempts, 100 + seed), len(truth.right))
                pool = synthetic(truth, known.tasks, known.attempts, seed)
                return pool, dict.fromkeys(pool, other)

            makers[name] = make
    elif known.kind == "eval":
        pool = of_evaluation(known.file, known.seconds)
        makers[known.file.parent.name] = lambda: _as_shipped(pool) if known.shipped else _with_beliefs(pool, 2)
    else:
        makers[known.source or known.file.name] = lambda: _with_beliefs(of_pool(known.file, known.source), 1)
    results = {}
    for name, make_pool in makers.items():
        results[name] = replayed(*make_pool(), known.replays)
        sys.stderr.write(f"{name}: {json.dumps(results[name])}\n")
    print(json.dumps(results, indent=1))
    if known.plot:
        plot(results, known.plot)


def _as_shipped(pool: Pool) -> tuple[Pool, Mapping[str, Beliefs]]:
    """No labels: what is believed of `repair` on tasks that come with a failing test."""
    given = TroopTask("", Repository("path", ""), "", failing_test=GivenTest(()))
    return pool, dict.fromkeys(pool, beliefs_for(given, ["repair"]))


def _with_beliefs(pool: Pool, levels: int) -> tuple[Pool, Mapping[str, Beliefs]]:
    return pool, cross_fitted(pool, levels)


if __name__ == "__main__":
    main()
