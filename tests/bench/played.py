"""How well each way of choosing chose on attempts that were played: a careful reader took the model's place, so that
witness tests and wrong beliefs are as real as the patches.

    python -m tests.bench.played                        every way of choosing, replayed from tests/data/played.json
    python -m tests.bench.played --data tests/data/played_others.json      the same for patches of other systems
    python -m tests.bench.played signs FILE...          each feature's sign where candidates have passed the tests
    python -m tests.bench.played given POOL ROW --rows FILE --mirrors DIR --model NAME --out DIR
    python -m tests.bench.played choose RUN --judge hands --model NAME --out DIR
    python -m tests.bench.played grade RUN --task FILE --out FILE
    python -m tests.bench.played [--data FILE] collect NAME --part first|second --verdicts FILE --choices DIR... --players STYLE...

`given` makes a run whose attempts are the patches that a pool (docs/selection.md) has for a row of SWE-bench, and lets
it choose: where these tie, two more attempts write tests (`--tie-witnesses 2`), which NAME makes. `choose` copies a finished run, cuts its trace back to before the choice and lets it choose again, by another judge; what
the choice was made from is kept in DIR/choice.json. `grade` lets the hidden tests judge every candidate of a run of a
task file; a run of an evaluation holds their word already (RUN's trace). `collect` adds an instance to the data, which
hold no patch and no source (part `hopeless`: chosen to have no right candidate): per candidate its features, each
test's outcome, the judge's points, the hidden verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.choice.order import Findings, Weighed, select
from agent.run_files import RunFiles
from harness import trace
from harness.evidence.shown import Shown
from harness.records import Candidate, Evidence, Json, Selection
from tests.bench.fitting import Choice, Recovery, recovery

DATA = Path(__file__).parents[1] / "data/played.json"
"""Where attempts were played; beside it `played_others.json`, where patches of other systems were handed in and only
tests and judges were played."""
JUDGES = ("none", "quick", "hands", "rubric")
ORDERS = 50
"""In so many orders are candidates given, so that a tie counts as a draw."""
_AFTER = {cls.kind for cls in (*trace.JUDGING, trace.Selected, trace.Graded, trace.RunEnded)}
_PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -0,0 +1,{n} @@\n"


# ---- patches of others


async def given(pool: Path, row: str, rows: Path, mirrors: Path, model: str, out: Path) -> None:
    """The run in `out`, and which of its candidates the pool calls right, in OUT-right.json ("": the pool does not
    know)."""
    from agent.assemble import go, open_pool, start
    from agent.choice.candidates import candidates_of
    from agent.config import Settings
    from harness.records import Budget
    from harness.suites.swebench import SwebenchSuite
    from harness.swebench.images import Source
    from harness.swebench.names import image_name
    from tasks.swebench import choose_rows, load_rows
    from tests.bench.graded import by_instance, read_graded, unlabelled

    suite = SwebenchSuite("", tuple(choose_rows(load_rows("swe-bench-lite", rows), [row])), rows, Source(mirrors))
    samples = by_instance(read_graded(pool))[row]
    settings = Settings(
        models=(model,),
        judge="none",
        judge_model="none",
        tie_witnesses=2,
        budget=Budget(attempts=len(samples)),
        concurrency=2,
        out=out.parent,
    )
    task = suite.task(row, image_name(row))
    files = RunFiles(out.resolve())
    if not (out / "run.json").exists():  # else it is gone on with
        files, _, _ = start(task, settings, directory=out, given=unlabelled(samples))
    async with open_pool(settings, task.environment.image, print) as places:
        await go(files, say=print, pool=places)
    labels = {True: True, False: False, None: ""}
    right = {c.id: labels[samples[c.attempts[0]].right] for c in candidates_of(list(trace.read(files.trace_file)))}
    out.with_name(f"{out.name}-right.json").write_text(json.dumps(right))


# ---- choosing again


async def choose(run: Path, out: Path, judge: str, model: str) -> None:
    """What the run would choose with that judge, and from what, in `out`."""
    from agent.assemble import go, open_pool
    from agent.run import graph

    shutil.copytree(run, out)
    files = RunFiles(out)
    record = json.loads((out / "run.json").read_text())
    record["run"] = out.name
    record["settings"] |= {"judge": judge, "judge_model": model if judge != "none" else "none", "concurrency": 3}
    (out / "run.json").write_text(json.dumps(record))
    lines = [trace.to_json(event) for event in trace.read(files.trace_file)]
    before = [e for e in lines if e["kind"] not in _AFTER and not e.get("key", "").startswith("judge")]
    files.trace_file.write_text("".join(json.dumps(e) + "\n" for e in before), encoding="utf-8")
    made: list[Json] = []

    def noting(
        candidates: Sequence[Candidate], found: Findings, points: Mapping[str, float], threshold: float | str
    ) -> Selection:
        chosen = select(candidates, found, points, threshold)
        made.append(_as_data(candidates, found, points, chosen))
        return chosen

    vars(graph)["select"] = noting
    task, settings, _ = files.read_run()
    async with open_pool(settings, task.environment.image, print) as pool:
        await go(files, say=print, pool=pool)
    events = list(trace.read(files.trace_file))
    asked = [e for e in events if isinstance(e, trace.Replied) and e.key.startswith("judge")]
    charges = [e.charge for e in asked]
    made[-1]["judge"] = {
        "calls": len(asked),
        "tokens": sum(c.usage.total for c in charges),
        "usd": round(sum(c.usd or 0.0 for c in charges), 4),
        "compared": [
            {"first": e.first, "second": e.second, "winner": e.winner} for e in events if isinstance(e, trace.Judged)
        ],
    }
    (out / "choice.json").write_text(json.dumps(made[-1], indent=1))
    print(json.dumps({"selected": made[-1]["selected"], "judge": made[-1]["judge"]}))


def _as_data(candidates: Sequence[Candidate], found: Findings, points: Mapping[str, float], chosen: Selection) -> Json:
    """What a choice was made from, without a patch."""
    from agent.choice.order import objections, why_not
    from harness.patches.patch import Patch

    behaviours: list[Any] = []
    against = objections(candidates)

    def of(candidate: Candidate) -> Json:
        word = (found.weighed or {})[candidate.id]
        if word.behaviour not in behaviours:
            behaviours.append(word.behaviour)
        evidence = candidate.evidence or Evidence(False, False)
        return {
            "id": candidate.id,
            "attempts": candidate.attempts,
            "size": Patch(candidate.patch).changed_lines,
            "why_not": against[candidate.id],
            "why_not_alone": why_not(candidate),
            "clean": evidence.clean,
            "given": evidence.given,
            "regression": len(evidence.regression),
            "probability": word.probability,
            "features": word.parts,
            "behaviour": behaviours.index(word.behaviour),
        }

    return {
        "candidates": [of(c) for c in candidates],
        "tests": [trace.public(row) for row in found.shown or ()],
        "points": points,
        "selected": chosen.candidate,
    }


# ---- the verdicts


async def grade(run: Path, task_file: Path) -> dict[str, bool]:
    """By candidate, whether it passes the hidden tests of the task file."""
    from agent.assemble import open_pool
    from agent.choice.candidates import candidates_of
    from harness.suites.instances import InstanceSuite
    from harness.suites.suite import Means, Submission
    from tasks.instance import Instance
    from tasks.source import resolve

    files = RunFiles(run)
    task, settings, _ = files.read_run()
    hidden = resolve(str(task_file)).grading
    assert hidden is not None, "a task file with [grading]"
    events = list(trace.read(files.trace_file))
    base = next(e.base_commit for e in events if isinstance(e, trace.Prepared))
    verdicts = {}
    async with open_pool(settings, task.environment.image, print) as pool:
        means = Means(pool.provider, settings.limits, settings.test_timeout, 1, lambda line: None)
        async with InstanceSuite("", (Instance(task, hidden),)).at_work(means) as bench:
            for candidate in candidates_of(events):
                verdict = await bench.grade(task.id, Submission(candidate.id, candidate.patch, run.name, base))
                verdicts[candidate.id] = verdict.resolved
    return verdicts


def graded(run: Path) -> dict[str, bool]:
    """By candidate, what the trace of an evaluation's run says."""
    return {e.candidate: e.resolved for e in trace.read(RunFiles(run).trace_file) if isinstance(e, trace.Graded)}


# ---- replayed


@dataclass(frozen=True, slots=True)
class Played:
    """One instance: the choices by judge, the verdict by candidate, and how many attempts there were."""

    name: str
    part: str
    choices: Mapping[str, Json]
    right: Mapping[str, bool]
    attempts: int


def read(path: Path) -> list[Played]:
    """The data."""
    return [
        Played(each["name"], each["part"], each["choices"], each["right"], len(each["players"]))
        for each in json.loads(path.read_text())["instances"]
    ]


def findings(
    made: Json, *, ranked: bool = True, without: Sequence[str] = (), weighed: bool = True, against: str = "why_not"
) -> Findings:
    """What was known at a choice; `ranked` False: without the ranker; `without`: kinds of tests that are left out;
    `weighed` False: a test that asserts a guess counts as any other; `against` "why_not_alone": so does a regression
    test that every patch breaks."""
    rows = [trace.record(Shown, row) for row in made["tests"] if row["kind"] not in without]
    if not weighed:
        rows = [Shown(r.kind, r.name, r.outcomes, r.authors, r.weight if r.kind == "judge" else 1.0) for r in rows]
    words = {c["id"]: Weighed(c["probability"], c["features"], c["behaviour"]) for c in made["candidates"]}
    return Findings(words if ranked else None, rows, {c["id"]: c[against] for c in made["candidates"]})


def as_candidates(made: Json) -> list[Candidate]:
    def of(row: Json) -> Candidate:
        ran = {f"t{n}": "passed" if row["clean"] else "failed" for n in range(row["regression"])}
        evidence = Evidence(row["clean"], True, regression=ran, given=row["given"])
        patch = _PATCH.format(n=row["size"]) + "+x\n" * row["size"]
        return Candidate(row["id"], patch, tuple(row["attempts"]), (), evidence)

    return [of(row) for row in made["candidates"]]


def _by_tests(**how: Any) -> Callable[[Played], tuple[Json, Findings]]:
    return lambda item: (item.choices["none"], findings(item.choices["none"], **how))


def _by_judge(judge: str) -> Callable[[Played], tuple[Json, Findings]]:
    def of(item: Played) -> tuple[Json, Findings]:
        made = item.choices.get(judge, item.choices["none"])  # it was not asked where tests had decided
        return made, findings(made)

    return of


_TESTS = ("given", "witness", "probe")
WAYS: dict[str, Callable[[Played], tuple[Json, Findings]]] = {
    "rules (no test counts)": _by_tests(ranked=False, without=_TESTS),
    "ranker (no test counts)": _by_tests(without=_TESTS),
    "tests, then rules": _by_tests(ranked=False),
    "tests, then ranker (--judge none)": _by_tests(),
    "  without witness tests": _by_tests(without=("witness",)),
    "  without the issue's own code": _by_tests(without=("probe",)),
    "  guesses weigh as much": _by_tests(weighed=False),
    "  what every patch breaks counts": _by_tests(against="why_not_alone"),
    **{f"--judge {judge}": _by_judge(judge) for judge in JUDGES[1:]},
}


def chosen(item: Played, way: Callable[[Played], tuple[Json, Findings]], threshold: float | str = 0.0) -> list[str]:
    """The candidates that are chosen in `ORDERS` orders of them ("": none is)."""
    made, found = way(item)
    candidates, drawn = as_candidates(made), random.Random(0)
    ids = []
    for _ in range(ORDERS):
        drawn.shuffle(candidates)
        ids.append(select(candidates, found, made["points"], threshold).candidate or "")
    return ids


def outcome(items: Sequence[Played], way: Callable[[Played], tuple[Json, Findings]]) -> Recovery:
    """How often the way chooses right."""

    def of(item: Played) -> Choice:
        sampled = [i for c in item.choices["none"]["candidates"] for i in [c["id"]] * len(c["attempts"])]
        right = sum(item.right[i] for i in sampled) / item.attempts
        picked = [item.right.get(i, False) for i in chosen(item, way)]
        return Choice(item.name, sum(picked) / len(picked), right, any(item.right.values()))

    return recovery([of(item) for item in items])


def refused(items: Sequence[Played], way: Callable[[Played], tuple[Json, Findings]], threshold: str) -> str:
    """At a threshold: how many instances are answered, how many of these wrongly, and what becomes of those that have
    no right candidate."""
    picks = {item.name: chosen(item, way, threshold)[0] for item in items}
    answered = [item for item in items if picks[item.name]]
    wrong = [item.name for item in answered if not item.right[picks[item.name]]]
    hopeless = [item for item in items if not any(item.right.values())]
    kept = sum(not picks[item.name] for item in hopeless)
    return f"{len(answered)} answered, {len(wrong)} of them wrong; of {len(hopeless)} without a right candidate {kept} unanswered"


def measure(items: Sequence[Played]) -> None:
    """Print the table."""
    parts = {"first": [i for i in items if i.part == "first"], "second": [i for i in items if i.part == "second"]}
    print(
        f"{len(items)} instances, {sum(i.attempts for i in items)} attempts; right of all, of the first and second part"
    )
    for name, way in WAYS.items():
        cells = []
        for part in (items, parts["first"], parts["second"]):
            got = outcome(part, way) if part else None
            share = "-" if got is None or got.recovery is None else f"{got.recovery:.2f}"
            cells.append("-" if got is None else f"{got.selected:5.2f} of {len(part)} (recovery {share})")
        print(f"{name:<36} {'  '.join(cells)}")
    for label, part in (("all", items), *parts.items()):
        if part:
            base = outcome(part, WAYS["rules (no test counts)"])
            print(f"{label}: mean@1 {base.mean_at_1:.2f}, oracle {base.oracle} of {len(part)}")
    for name in ("tests, then ranker (--judge none)", *(f"--judge {judge}" for judge in JUDGES[1:])):
        print(f"--threshold likely, {name}: {refused(items, WAYS[name], 'likely')}")
    for judge in JUDGES[1:]:
        asked = [i.choices[judge]["judge"] for i in items if judge in i.choices and i.choices[judge]["judge"]["calls"]]
        if asked:
            calls, tokens, usd = (sum(each[what] for each in asked) / len(asked) for what in ("calls", "tokens", "usd"))
            print(f"--judge {judge}: asked on {len(asked)}; {calls:.1f} calls, {tokens:,.0f} tokens, ${usd:.3f} each")


def signs(items: Sequence[Played]) -> None:
    """Print for each feature of the ranker, where right and wrong candidates passed all tests (as in `solve`), on how
    many instances it spoke for the right ones, on how many against them, and the mean difference of its part of P."""
    found: dict[str, list[float]] = {}
    for item in items:
        sides: tuple[list[Json], list[Json]] = ([], [])
        for row in item.choices["none"]["candidates"]:
            if not row["why_not"]:
                sides[item.right.get(row["id"], False)].append(row["features"])
        for name in {name for side in sides for features in side for name in features} if all(sides) else ():
            wrong, right = (sum(features.get(name, 0.0) for features in side) / len(side) for side in sides)
            found.setdefault(name, []).append(right - wrong)
    for name, values in sorted(found.items(), key=lambda each: sum(each[1]) / len(each[1])):
        pro, con = sum(v > 1e-9 for v in values), sum(v < -1e-9 for v in values)
        print(f"{name:<20} for {pro}, against {con}, {sum(values) / len(values):+.3f}")


def collect(known: argparse.Namespace) -> None:
    """Add an instance to the data, or put it in the place of its last account."""
    file: Path = known.data
    data = json.loads(file.read_text()) if file.exists() else {"instances": []}
    choices = {d.name.rpartition("-")[2]: json.loads((d / "choice.json").read_text()) for d in known.choices}
    entry = {
        "name": known.name,
        "part": known.part,
        "players": known.players,
        "right": json.loads(known.verdicts.read_text()),
        "choices": choices,
    }
    kept = [each for each in data["instances"] if each["name"] != known.name]
    data["instances"] = sorted([*kept, entry], key=lambda each: (each["part"], each["name"]))
    file.write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("signs").add_argument("files", type=Path, nargs="+")
    making = commands.add_parser("given")
    making.add_argument("pool", type=Path)
    making.add_argument("row")
    for name in ("--rows", "--mirrors", "--out"):
        making.add_argument(name, type=Path, required=True)
    making.add_argument("--model", required=True)
    again = commands.add_parser("choose")
    again.add_argument("run", type=Path)
    again.add_argument("--judge", choices=JUDGES, required=True)
    again.add_argument("--model", default="none")
    again.add_argument("--out", type=Path, required=True, help="NAME-JUDGE")
    verdicts = commands.add_parser("grade")
    verdicts.add_argument("run", type=Path)
    verdicts.add_argument("--task", type=Path, help="the task file; without one the trace holds the verdicts")
    verdicts.add_argument("--out", type=Path, required=True)
    adding = commands.add_parser("collect")
    adding.add_argument("name")
    adding.add_argument("--part", choices=("first", "second", "hopeless"), required=True)
    adding.add_argument("--verdicts", type=Path, required=True)
    adding.add_argument("--choices", type=Path, nargs="+", required=True)
    adding.add_argument("--players", nargs="+", required=True, help="how each attempt was played")
    known = parser.parse_args()
    if known.command == "given":
        asyncio.run(given(known.pool, known.row, known.rows, known.mirrors, known.model, known.out))
    elif known.command == "choose":
        asyncio.run(choose(known.run, known.out, known.judge, known.model))
    elif known.command == "grade":
        found = asyncio.run(grade(known.run, known.task)) if known.task else graded(known.run)
        known.out.write_text(json.dumps(found))
        print(found)
    elif known.command == "signs":
        signs([item for file in known.files for item in read(file)])
    elif known.command == "collect":
        collect(known)
    else:
        measure(read(known.data))


if __name__ == "__main__":
    main()
