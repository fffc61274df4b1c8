"""Troop's verdicts on real patches beside the official harness's: those that were recorded, and its own in the same
image.

    python -m tests.bench.official --data DIR --out DIR [--instances PATTERN] [--verbatim] [--official differing|all|N]
        [--rules 5|4.1]

DIR holds `swe-bench-lite.jsonl` and `candidate-patches.jsonl.gz` (instance_id, source, model_patch, outcome: resolved,
unresolved, apply-failed, by the official harness in images made in another way). Instances without an image here are
left out. Where Troop says something else than was recorded (or in all cases, or in N more), the official harness is run
on the patch in the very image that Troop graded in; there the two must agree to the last test's name.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.sandbox.docker.daemon import connect
from harness.swebench.grading import GradedPatch, Grader
from harness.swebench.images import find_image
from harness.swebench.names import NAMESPACE, ImageRef
from harness.swebench.official import Rules, rules_of
from tasks.swebench import Row, choose_rows, load_rows
from tests.support.official_harness import Official, run_official

WORDS = {"resolved": "resolved", "refused": "apply-failed"}
"""All other outcomes are recorded as unresolved."""
OFFICIAL_WORDS = {"resolved": "resolved", "unresolved": "unresolved", "not-run": "unresolved", "empty": "empty"}
"""All other outcomes are the official harness's errors."""


@dataclass(frozen=True)
class Case:
    """One recorded patch."""

    row: Row
    image: ImageRef
    source: str
    patch: str
    recorded: str


@dataclass(frozen=True)
class Compared:
    case: Case
    ours: GradedPatch
    verbatim: GradedPatch | None
    """What Troop says with the script as it is; None where it was not asked."""

    @property
    def word(self) -> str:
        return WORDS.get(self.ours.outcome, "unresolved")

    @property
    def differs(self) -> bool:
        return self.word != self.case.recorded


def cases_of(data: Path, patterns: Sequence[str]) -> tuple[list[Case], list[str]]:
    """The recorded patches of instances that have an image here; the instances that have none."""
    rows = {row.instance_id: row for row in choose_rows(load_rows("", data / "swe-bench-lite.jsonl"), patterns)}
    with gzip.open(data / "candidate-patches.jsonl.gz", "rt", encoding="utf-8") as file:
        recorded = [each for each in map(json.loads, file) if each["outcome"] and each["instance_id"] in rows]
    client = connect()
    images = {name: find_image(client, rows[name]) for name in dict.fromkeys(each["instance_id"] for each in recorded)}
    client.close()
    cases = [
        Case(rows[each["instance_id"]], image, each["source"], each["model_patch"], each["outcome"])
        for each in recorded
        if (image := images[each["instance_id"]]) is not None
    ]
    return cases, [name for name, image in images.items() if image is None]


async def grade_all(cases: Sequence[Case], workers: int, verbatim: bool, rules: tuple[Rules, ...]) -> list[Compared]:
    """Every case's verdict; a line for each."""
    done = 0

    settings: dict[str, Any] = {"workers": workers, "rules": rules, "say": print}
    async with Grader(**settings) as grader, Grader(verbatim=True, **settings) as whole:

        async def one(case: Case) -> Compared:
            nonlocal done
            ours = await grader.grade(case.row, case.image, case.patch)
            as_it_is = await whole.grade(case.row, case.image, case.patch) if verbatim else None
            compared = Compared(case, ours, as_it_is)
            done += 1
            also = f", verbatim {as_it_is.outcome} {as_it_is.wall:.1f} s" if as_it_is else ""
            mark = f"  RECORDED {case.recorded}" if compared.differs else ""
            mark += f"  BY 4.1 {ours.former}" if ours.former not in ("", ours.outcome) else ""
            print(
                f"{done}/{len(cases)} {case.row.instance_id} {case.source}: {ours.outcome} {ours.wall:.1f}"
                f" s{also}{mark}",
                flush=True,
            )
            return compared

        return list(await asyncio.gather(*map(one, cases)))


def to_be_run(compared: Sequence[Compared], which: str) -> list[Compared]:
    """The cases on which the official harness is asked."""
    differing = [each for each in compared if each.differs]
    if which == "all":
        return list(compared)
    more = 0 if which == "differing" else int(which)
    agreeing = [each for each in compared if not each.differs]
    step = max(1, len(agreeing) // more) if more else 1
    return differing + agreeing[::step][:more]


def run_beside(
    chosen: Sequence[Compared], data: Path, out: Path, workers: int, rules: Rules
) -> list[tuple[Compared, Official]]:
    """The official harness's word on each case, in runs of one prediction for an instance."""
    by_source: dict[str, list[Compared]] = defaultdict(list)
    for each in chosen:
        by_source[each.case.source].append(each)
    rows = data / "swe-bench-lite.jsonl"
    answered = []
    for source, group in by_source.items():
        print(f"official harness: {len(group)} of {source}", flush=True)
        predictions = {each.case.row.instance_id: each.case.patch for each in group}
        folder = out / f"{source.replace('/', '__')}-{int(time.time())}"
        official = run_official(
            rows, predictions, folder, namespace=NAMESPACE, workers=workers, niceness=10, rules=rules
        )
        answered += [(each, official) for each in group]
    return answered


def agreement(each: Compared, official: Official) -> str:
    """ "" where the official harness says the same, to the last name; else what differs."""
    name = each.case.row.instance_id
    expected = OFFICIAL_WORDS.get(each.ours.outcome, "error")
    if official.outcome(name) != expected:
        return f"official: {official.outcome(name)}, Troop: {each.ours.outcome}"
    if official.reports.get(name) != each.ours.report:
        return f"both {expected}, but other tests: {_other_tests(official.reports.get(name), each.ours.report)}"
    return ""


def _other_tests(theirs: dict[str, object] | None, ours: dict[str, object] | None) -> str:
    def failing(report: dict[str, object] | None) -> set[str]:
        tests = (report or {}).get("tests_status") or {}
        assert isinstance(tests, dict)
        return {name for kind in tests.values() for name in kind["failure"]}

    left, right = failing(theirs), failing(ours)
    return f"fail only there: {sorted(left - right)[:5]}, only here: {sorted(right - left)[:5]}"


def show(compared: Sequence[Compared], answered: Sequence[tuple[Compared, Official]]) -> bool:
    """Print the tables; whether all agree with the official harness in the same image."""
    print("\nrecorded (in other images) x Troop:")
    table = Counter((each.case.recorded, each.word) for each in compared)
    for recorded in ("resolved", "unresolved", "apply-failed"):
        counts = {word: table[recorded, word] for word in ("resolved", "unresolved", "apply-failed")}
        print(f"  {recorded:13}", *(f"{word} {count:4}" for word, count in counts.items()))
    same = sum(not each.differs for each in compared)
    print(f"  {same} of {len(compared)} the same")
    whole = [each for each in compared if each.verbatim is not None]
    if whole:
        equal = [each for each in whole if each.verbatim and each.verbatim.outcome == each.ours.outcome]
        exact = [each for each in equal if each.verbatim and each.verbatim.report == each.ours.report]
        print(f"default and --verbatim: {len(equal)} of {len(whole)} the same verdict, {len(exact)} to the last test")
        for each in whole:
            if each not in exact and each.verbatim:
                tests = _other_tests(each.verbatim.report, each.ours.report)
                print(
                    f"  {each.case.row.instance_id} {each.case.source}: {each.verbatim.outcome}/{each.ours.outcome}"
                    f" {tests}"
                )
    print(f"official harness in the same image: {len(answered)} asked")
    complaints = [(each, what) for each, official in answered if (what := agreement(each, official))]
    differing = [each for each, _ in answered if each.differs]
    print(f"  {len(answered) - len(complaints)} of {len(answered)} agree to the last test")
    for each in differing:
        print(
            f"  recorded {each.case.recorded}, here {each.ours.outcome}: {each.case.row.instance_id}"
            f" {each.case.source}: {each.ours.reason}"
        )
    for each, what in complaints:
        print(f"  DISAGREES {each.case.row.instance_id} {each.case.source}: {what}")
    return not complaints


def main() -> int:
    """Grade, compare, ask the official harness, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--instances", action="append", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--verbatim", action="store_true")
    parser.add_argument("--official", default="differing", metavar="differing|all|none|N")
    parser.add_argument("--rules", choices=("5", "4.1", "both"), default="both")
    known = parser.parse_args()
    rules = rules_of(known.rules)
    cases, without = cases_of(known.data, known.instances)
    print(f"{len(cases)} recorded patches; no image here of {len(without)} instances: {' '.join(without)}", flush=True)
    compared = asyncio.run(grade_all(cases, known.workers, known.verbatim, rules))
    chosen = [] if known.official == "none" else to_be_run(compared, known.official)
    differ = sum(each.ours.former not in ("", each.ours.outcome) for each in compared)
    print(f"{differ} of {len(compared)} differ between the rules" if len(rules) > 1 else f"rules {rules[0]}")
    return 0 if show(compared, run_beside(chosen, known.data, known.out, known.workers, rules[0])) else 1


if __name__ == "__main__":
    raise SystemExit(main())
