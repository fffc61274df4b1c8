"""What `troop select` does: evidence on patches that exist already, and the order among them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from agent.choice.hearing import NO_WORD
from agent.choice.order import check_threshold
from agent.choice.pool import Lookout, Place, Pool, PoolChoice, gather
from agent.choice.pool_judge import Judging, judge_all, said_on
from agent.commands.progress import Progress
from agent.commands.signals import interruptible
from agent.config import Alias, key_of, load_config, prices_of, resolve_model
from harness.cache import cache_root, write_json, write_text
from harness.choosing.evidence_store import InstanceEvidence, evidence_of
from harness.choosing.pool import (
    Sample,
    by_instance,
    read_candidates,
    read_pool,
    read_witnesses,
    unlabelled,
    write_pool,
)
from harness.choosing.ranker import SHIPPED, Weights, read_weights
from harness.evidence.near import AT_ONCE
from harness.lock import RunLock
from harness.money.ledger import Ledger, check_priced
from harness.outputs import make_output
from harness.records import Json
from harness.repository.workspace import open_workspace
from harness.sandbox.base import Limits
from harness.sandbox.docker.daemon import connect
from harness.suites.report import prediction_line
from harness.suites.swebench import task_in_image
from harness.swebench.images import ImageRef, find_image
from harness.views.report import judge_report
from tasks.choose import bare, choose
from tasks.errors import EnvironmentFailed, InputError, SandboxFailed
from tasks.source import resolve
from tasks.swebench import SUITES, Row, choose_rows, load_rows, repository_of

GOES_ON = "the same command goes on where it stopped"

Places = dict[str, Callable[[], Place | None]]
Gathered = tuple[Path, dict[str, tuple[Sample, ...]], Places]


def select(known: argparse.Namespace) -> int:
    """Do what the options of `select_command` say; the exit code."""
    with Progress(quiet=known.quiet, json=known.json) as progress:
        check_threshold(known.threshold, known.ranker)
        judge = _judge(known)
        weights = read_weights(known.weights or SHIPPED)
        directory, samples, places = _gathered(known, weights, progress)
        every, without = _known(directory, samples)
        pools = {i: Pool(of_it, weights, known.ranker, known.threshold) for i, of_it in every.items()}
        words = {}
        if judge is not None:
            lookout = _lookout(directory, places, known, progress)
            judging = Judging(lookout, judge, known.judge, known.max_judge_usd, known.max_usd, known.at_once)
            with RunLock(directory):
                words = interruptible(judge_all(judging, pools), GOES_ON)
        chosen = [each.choose(words.get(instance, NO_WORD)) for instance, each in pools.items()]
        chosen = sorted([*chosen, *(PoolChoice(i, (), None, why) for i, why in without)], key=lambda c: c.instance)
        out = known.out.resolve() if known.out else directory
        report = _report(chosen, known, weights)
        if judge is not None:
            report = _with_judge(directory, report)
        _write(out, chosen, report)
        progress.stop()
        progress.show(*_lines(chosen), f"predictions: {out / 'predictions.jsonl'}")
        progress.document(report)
    return 1 if len(chosen) == 1 and chosen[0].selected is None else 0


def _known(
    directory: Path, samples: Mapping[str, tuple[Sample, ...]]
) -> tuple[dict[str, InstanceEvidence], list[tuple[str, str]]]:
    """(the evidence on each instance, why there is none on others). Raises InputError where there is none at all."""
    every, without = {}, []
    for instance, of_it in samples.items():
        try:
            every[instance] = evidence_of(directory, instance, of_it)
        except InputError as error:
            without.append((instance, str(error)))
    if without and not every:
        raise InputError(without[0][1])
    return every, without


def _gathered(known: argparse.Namespace, weights: Weights, progress: Progress) -> Gathered:
    """The run directory with the evidence in it, the samples by instance, without labels, and where their code is (of a
    run that is ranked again: nowhere)."""
    if known.kept is None:
        return _gather(known, weights, progress)
    if known.candidates:
        raise InputError(
            "--from ranks what that run has gathered: leave out --candidates, or gather anew without --from"
        )
    file = known.kept / "samples.jsonl.gz"
    if not file.exists():
        raise InputError(f"{known.kept} is no run of troop select: it has no samples.jsonl.gz")
    samples = by_instance(unlabelled(read_pool(file)))
    chosen = choose({id: bare(id) for id in samples}, known.instances)
    return known.kept.resolve(), {id: samples[id] for id in chosen}, {}


def _gather(known: argparse.Namespace, weights: Weights, progress: Progress) -> Gathered:
    if known.source is None or not known.candidates:
        raise InputError(
            "say what to choose for and among what: troop select SUITE|TASK --candidates FILE…, or --from RUN"
        )
    suite = known.source in SUITES
    task = None if suite else _task(known, progress)
    every = read_candidates(known.candidates, None if task is None else task[0])
    empty = sum(not sample.patch.strip() for sample in every)
    if empty:
        progress.say(f"{empty} of {len(every)} candidates are left out: they have no patch")
    samples = by_instance(unlabelled(every))
    places: Places = _suite_places(known, samples, progress) if task is None else {task[0]: lambda: task[1]}
    wanted = {i: of_it for i, of_it in samples.items() if i in places}
    name = known.source if task is None else task[0]
    if not wanted:
        raise InputError(f"none of the candidates is for {name}: they are for {', '.join(sorted(samples)[:3])}")
    directory = (known.out or Path("runs") / f"select-{name}").resolve()
    make_output(directory)
    work = gather(
        _lookout(directory, places, known, progress),
        wanted,
        witnesses=read_witnesses(known.candidates),
        weights=weights,
        near_seconds=known.near_seconds,
        at_once=known.at_once,
    )
    with RunLock(directory):
        write_pool(directory / "samples.jsonl.gz", (s for of_it in wanted.values() for s in of_it))
        interruptible(work, GOES_ON)
    return directory, wanted, {} if known.static else places


def _lookout(directory: Path, places: Places, known: argparse.Namespace, progress: Progress) -> Lookout:
    """How the instances' code is got at and run."""
    return Lookout(
        directory=directory,
        place_of=lambda instance: places[instance]() if instance in places else None,
        execute=not known.static,
        limits=Limits(memory_mb=known.memory, cpus=known.cpus),
        sandbox=known.sandbox,
        checks=asyncio.Semaphore(AT_ONCE),
        say=progress.say,
    )


def _task(known: argparse.Namespace, progress: Progress) -> tuple[str, Place]:
    """The one task that SOURCE names, and where it is."""
    task = resolve(known.source, issue=known.issue, issue_text=known.issue_text, base=known.base, say=progress.say).task
    workspace = open_workspace(task.repository, cache_root(), say=progress.say)
    return task.id, Place(workspace, task.statement, task=task)


def _suite_places(known: argparse.Namespace, samples: dict[str, tuple[Sample, ...]], progress: Progress) -> Places:
    """By instance, how to get at its code; opened one at a time."""
    chosen = choose_rows(load_rows(known.source, known.dataset), known.instances)
    return {row.instance_id: partial(_place_of, row, known, progress) for row in chosen if row.instance_id in samples}


def _place_of(row: Row, known: argparse.Namespace, progress: Progress) -> Place | None:
    repository = repository_of(row, known.mirrors)
    try:
        workspace = open_workspace(repository, cache_root(), say=progress.say)
    except EnvironmentFailed as error:
        progress.say(f"{row.instance_id}: its repository is not at hand ({error}); only the diffs are looked at")
        return None
    image = None if known.static else _image(row)
    if image is None:
        if not known.static:
            progress.say(f"{row.instance_id}: no image here, so nothing is run (troop images build makes it)")
        return Place(workspace, row.problem_statement)
    if image.origin == "built":
        return Place(workspace, row.problem_statement, image=image.name)
    # A published image keeps its Python elsewhere; the task's set-up sees to that.
    return Place(workspace, row.problem_statement, task=task_in_image(row, repository, image.name))


def _image(row: Row) -> ImageRef | None:
    try:
        with contextlib.closing(connect(connections=1)) as client:
            return find_image(client, row)
    except SandboxFailed:
        return None


def _judge(known: argparse.Namespace) -> Alias | None:
    """The judge's model, None for none. Raises InputError for an unknown name or a cap without a price, EndpointFailed
    for a missing key."""
    if known.judge_model in (None, "none") or known.judge == "none":
        return None
    alias = resolve_model(known.judge_model, load_config())
    key_of(alias)
    for cap, option in ((known.max_judge_usd, "--max-judge-usd"), (known.max_usd, "--max-usd")):
        check_priced([prices_of(alias)], cap, allow_unknown=known.allow_unknown_price, cap=option)
    return alias


def _with_judge(directory: Path, report: Json) -> Json:
    """The report with what the judge said of each instance, and what all of it cost."""
    said = {each["instance"]: said_on(directory, each["instance"]) for each in report["choices"]}
    choices = [{**each, "judge": judge_report(said[each["instance"]])} for each in report["choices"]]
    cost = Ledger.of(event for events in said.values() for event in events).to_json()
    return {**report, "choices": choices, "cost": cost}


def _write(out: Path, chosen: Sequence[PoolChoice], report: Json) -> None:
    make_output(out)
    patches = {each.instance: each.selected.patch if each.selected else "" for each in chosen}
    lines = (prediction_line(instance, "troop-select", patch) for instance, patch in patches.items())
    write_text(out / "predictions.jsonl", "".join(lines))
    if len(chosen) == 1 and chosen[0].selected is not None:
        write_text(out / "selected.patch", chosen[0].selected.patch)
    else:
        (out / "selected.patch").unlink(missing_ok=True)
    write_json(out / "report.json", report)


def _report(chosen: Sequence[PoolChoice], known: argparse.Namespace, weights: Weights) -> Json:
    return {
        "schema": 1,
        "ranker": known.ranker,
        "threshold": known.threshold,
        "weights": {"fitted_on": weights.fitted_on, **weights.weights} if known.ranker == "evidence" else None,
        "instances": len(chosen),
        "selected": sum(each.selected is not None for each in chosen),
        "choices": [each.as_json() for each in chosen],
    }


def _lines(chosen: Sequence[PoolChoice]) -> list[str]:
    """A line for each instance; for a single one the whole order."""
    if len(chosen) > 1:
        named = [(c, c.selected.sources[0] if c.selected else "nothing selected") for c in chosen]
        return [f"{choice.instance}: {name}: {choice.rationale}" for choice, name in named]
    only = chosen[0]
    found = [f"{only.instance}: {only.rationale}"]
    for number, each in enumerate(only.order, 1):
        told = "" if each.probability is None else f" {each.probability:.2f}"
        found.append(f"  {number}.{told} {', '.join(each.sources)}: {each.why}")
    return found
