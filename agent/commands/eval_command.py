"""`troop eval SUITE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_solving, positive, settings_of
from tasks.errors import InputError

if TYPE_CHECKING:
    from agent.assemble import Pool
    from agent.commands.progress import Progress
    from agent.config import Settings
    from harness.evaluate import Outcome, Solved
    from tasks.task import Instance, Task

EXAMPLES = """examples:
  troop eval quixbugs --source ~/QuixBugs --model repair -n 32
  troop eval quixbugs --source ~/QuixBugs --instances 'quixbugs-b*' --model openai/gpt-5-mini --max-usd 1
Running the same command again goes on where it stopped.
"""

SUITES = ("quixbugs",)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of eval."""
    parser.add_argument("suite", metavar="SUITE", choices=SUITES, help=f"one of: {', '.join(SUITES)}")
    parser.add_argument("--source", type=Path, metavar="DIR", help="quixbugs: a checkout of jkoppel/QuixBugs")
    parser.add_argument("--instances", action="append", default=[], metavar="GLOB", help="only these ids (repeatable)")
    parser.add_argument("--at-once", type=positive, default=4, metavar="K", help="instances in work at a time (4)")
    parser.add_argument("--no-grade", action="store_true", help="solve only")
    add_solving(parser, whole="of each instance")


def execute(known: argparse.Namespace) -> int:
    """Solve and grade the suite's instances; the directory of --out holds one run per instance and report.json."""
    from agent.commands.conclude import interruptible
    from agent.commands.progress import Progress
    from agent.run_files import write_json
    from harness.evaluate import suite_report

    out: Path = known.out / f"eval-{known.suite}"
    instances = _instances(known, out)
    settings = settings_of(known)
    with Progress(quiet=known.quiet, json=known.json) as progress:
        work = _evaluate(instances, settings, out.resolve(), known, progress)
        outcomes = interruptible(work, "the same command goes on where it stopped")
        report = suite_report(outcomes)
        write_json(out / "report.json", report)
        progress.stop()
        progress.show(summary(report), f"report: {out / 'report.json'}")
        progress.document(report)
    return 0


def _instances(known: argparse.Namespace, out: Path) -> list[Instance]:
    import fnmatch

    from tasks.quixbugs import load_quixbugs

    if known.source is None:
        raise InputError("quixbugs needs --source DIR, a checkout of jkoppel/QuixBugs")
    found = load_quixbugs(known.source, out / "trees")
    if not known.instances:
        return found
    chosen = [i for i in found if any(fnmatch.fnmatch(i.task.id, glob) for glob in known.instances)]
    if not chosen:
        raise InputError(f"no instance of {known.suite} matches {', '.join(known.instances)}")
    return chosen


async def _evaluate(
    instances: list[Instance], settings: Settings, out: Path, known: argparse.Namespace, progress: Progress
) -> list[Outcome]:
    from dataclasses import replace

    from agent.assemble import open_pool, settle
    from agent.config import load_config
    from harness.evaluate import evaluate

    settings = settle(replace(settings, out=out), load_config(), instances[0].task, progress.say)
    _check_kept(instances, settings, out)
    if settings.budget.usd is not None:
        most = len(instances) * settings.budget.usd
        progress.say(f"--max-usd holds for each of the {len(instances)} instances: ${most:g} at most in all")
    async with open_pool(settings, instances[0].task.environment.image, progress.say) as pool:
        return await evaluate(
            instances,
            lambda task: _solve(task, settings, out, pool),
            at_once=known.at_once,
            grade=not known.no_grade,
            tell=lambda outcome: progress.say(_line(outcome)),
        )


def _check_kept(instances: list[Instance], settings: Settings, out: Path) -> None:
    """Refuse to mix: a run that is there already must have been made with the settings that are asked for now."""
    from agent.run_files import RunFiles

    for instance in instances:
        files = RunFiles(out / instance.task.id)
        if not (files.directory / "run.json").exists():
            continue
        _, kept, _ = files.read_run()
        differing = [
            f"{name} {was} there, {now} now"
            for name, was, now in (
                ("--model", "+".join(kept.models), "+".join(settings.models)),
                ("--judge-model", kept.judge_model or "first", settings.judge_model or "first"),
                ("--attempts", kept.budget.attempts, settings.budget.attempts),
                ("--max-turns", kept.budget.turns, settings.budget.turns),
                ("--seed", kept.seed, settings.seed),
                ("--temperature", kept.temperature, settings.temperature),
            )
            if was != now
        ]
        if differing:
            raise InputError(
                f"{files.directory} was made with other settings ({'; '.join(differing)}): give another --out, or the "
                "same settings to go on with it"
            )


async def _solve(task: Task, settings: Settings, out: Path, pool: Pool) -> Solved:
    """The solver that `harness.evaluate` takes: one run per task, resumed where it exists."""
    from agent.assemble import go, start
    from agent.commands.conclude import grade_candidate
    from agent.run_files import RunFiles
    from harness import trace
    from harness.evaluate import Solved

    files = RunFiles(out / task.id)
    if not (files.directory / "run.json").exists():
        files, _, _ = start(task, settings, directory=files.directory)
    done = await go(files, pool=pool)
    events = list(trace.read(files.trace_file))
    rows = [row for row in done.report["attempts"] if row["status"] != "infrastructure"]
    candidates = {row["id"]: row["attempts"] for row in done.report["candidates"]}
    patches = {e.attempt: e.patch for e in events if isinstance(e, trace.AttemptEnded)}
    return Solved(
        report=done.report,
        candidates={name: patches[attempts[0]] for name, attempts in candidates.items()},
        samples=tuple(row["candidate"] for row in rows),
        selected=done.selection.candidate if done.selection else None,
        grade=lambda candidate, grading: grade_candidate(
            files, candidate, patches[candidates[candidate][0]], grading, pool
        ),
    )


def _line(outcome: Outcome) -> str:
    if outcome.solved is None:
        return f"{outcome.id}: failed: {outcome.failure.splitlines()[0]}"
    sampled = outcome.sampled
    word = "resolved" if sampled.selected else "not resolved" if outcome.solved.selected else "nothing selected"
    return f"{outcome.id}: {word} ({sampled.correct} of {sampled.n} attempts right)"


def summary(report: dict[str, object]) -> str:
    """The suite's result in a few lines."""
    lines = [
        f"instances {report['instances']}, selected patch right {report['selected']}, oracle {report['oracle']}, "
        f"recovery {_number(report['recovery'])}, mean@1 {_number(report['mean_at_1'])}"
    ]
    coverage = report["coverage"]
    assert isinstance(coverage, list)
    shown = [row for row in coverage if row["k"] in (1, 2, 4, 8, 16, 32, 64, 128, 256)]
    lines += [f"  pass@{row['k']:<4} {row['pass_at_k']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]" for row in shown]
    return "\n".join(lines)


def _number(value: object) -> str:
    return "undefined" if value is None else f"{value:.3f}"
