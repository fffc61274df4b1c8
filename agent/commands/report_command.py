"""`troop report RUN…`: solve runs one by one; evaluations and imported samples as one study."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from rich.console import RenderableType

from agent.commands.options import run_of
from agent.commands.progress import Progress
from agent.run_files import RunFiles, kept_in, last_worked_on
from agent.secrets import mask
from harness import trace
from harness.records import Json
from harness.scaling.imported import Imported, imported, is_evaluation, of_evaluation
from harness.scaling.samples import told_apart
from harness.scaling.study import Study, study
from harness.scaling.view import study_view
from harness.suites.page import evaluation_page, markdown
from harness.suites.view import eval_view
from harness.views.page import run_markdown, run_page
from harness.views.report import solve_report
from harness.views.report_view import solve_view, verbose_view
from harness.views.words import counted
from tasks.errors import Explained, InputError


class Evaluated(NamedTuple):
    """An evaluation: where it is, its report, its samples, and how a terminal shows it."""

    path: Path
    report: Json
    found: Imported
    view: list[RenderableType]


STUDY_OPTIONS = ("forecast", "budget", "merge")


def execute(known: argparse.Namespace) -> int:
    """Read what is named, and show it; a run may still be going on."""
    if not known.run and not known.imports:
        known.run = [run_of(known, evaluations=True)]
    if known.outputs and known.html is None:
        raise InputError("--outputs go with --html")
    if known.labels and not known.imports:
        raise InputError("--labels go with --import")
    documents: list[Json] = []
    solved: list[Path] = []
    shown: list[RenderableType] = []
    evaluations: list[Evaluated] = []
    refused: list[InputError] = []
    for path in (each for named in known.run for each in _within(named)):
        try:
            report = evaluation_report(path)
            if report is not None:
                evaluations.append(_evaluated(path, report))
                continue
            files = RunFiles(path.resolve())
            events = list(trace.read(files.trace_file))
            documents.append({**solve_report(events), "directory": str(files.directory)})
            shown += (verbose_view if known.verbose else solve_view)(events, files.directory)
            solved.append(path)
        except InputError as error:
            refused.append(error)
    if refused and not (documents or evaluations or known.imports):
        raise InputError("\n".join(map(str, refused)))
    study: Study | None = None
    if evaluations or known.imports:
        study, view = _study(known, evaluations)
        documents.append(study.to_json())
        shown += view
    elif option := next((each for each in STUDY_OPTIONS if getattr(known, each)), None):
        raise InputError(f"--{option} needs graded samples: name an evaluation, or a file with --import")
    progress = Progress(quiet=True, json=known.json)
    if known.html is not None:
        write_pages(known.html, solved, evaluations, study, outputs=known.outputs)
    elif known.markdown and not known.json:
        runs = [run_markdown(list(trace.read(path / "trace.jsonl"))) for path in solved]
        sys.stdout.write("\n".join([*runs, *(markdown(e.report) for e in evaluations if "suite" in e.report)]))
    elif not known.json:
        progress.show(*shown)
    progress.document(documents[0] if len(documents) == 1 else documents)
    sys.stdout.flush()
    for refusal in refused:
        sys.stderr.write(f"troop: left out: {mask(str(refusal))}\n")
    return 0


def _within(path: Path) -> list[Path]:
    """The runs and evaluations in a directory of such; the path itself where it is one, or holds none."""
    return [path] if last_worked_on(path) else sorted(kept_in(path)) or [path]


def evaluation_report(path: Path) -> Json | None:
    """The report of an evaluation, or None for what is a run of `solve`."""
    file = path / "report.json" if path.is_dir() else path
    if (path / "trace.jsonl").exists():
        return None
    if not file.is_file():
        if (path / "eval.json").exists():
            raise InputError(
                f"{path} is an evaluation without a report yet; run its `troop eval` command again to finish it"
            )
        return None
    with Explained(f"{file} is damaged", OSError, ValueError, RecursionError):
        report: Any = json.loads(file.read_text(encoding="utf-8"))
    if not is_evaluation(report):
        raise InputError(f"{file} is not the report of an evaluation")
    return dict(report)


def _evaluated(path: Path, report: Json) -> Evaluated:
    """Raises InputError for a report that is damaged."""
    why = f"the report of {path} is damaged and lacks what a report has"
    with Explained(why, LookupError, TypeError, ValueError, AttributeError):
        view = [*eval_view(report), ""] if "suite" in report else []
        found = of_evaluation(report)
    if not found.models:
        raise InputError(f"there are no graded samples in {path} to report on")
    return Evaluated(path.resolve(), report, found, view)


def _study(known: argparse.Namespace, evaluations: Sequence[Evaluated]) -> tuple[Study, list[RenderableType]]:
    sources = [(each.path.name, each.found.models) for each in evaluations]
    ungraded = sum(each.found.ungraded for each in evaluations)
    shown = [line for each in evaluations for line in each.view]
    if known.imports:
        outside = imported(known.imports, known.labels, label=known.label_field)
        ungraded += outside.ungraded
        sources.append(("imported", outside.models))
    result = study(
        told_apart(sources, merge=known.merge),
        ungraded=ungraded,
        submissions=known.submissions,
        missing=known.missing,
        budgets=sorted(known.budget),
        forecast_to=sorted(set(known.forecast)),
    )
    return result, [*shown, *study_view(result)]


def write_pages(
    file: Path, solved: Sequence[Path], evaluations: Sequence[Evaluated], study: Study | None, *, outputs: bool
) -> None:
    """Write the page of one run, or of evaluations; with `outputs` beside it, in a folder named after it, a page of
    each attempt or instance. Raises InputError where there are several runs, or a file cannot be written."""
    if len(solved) > 1 or (solved and study is not None):
        raise InputError("--html writes the page of one run, or of evaluations; `troop view` shows many runs")
    folder, pages = f"{file.stem}-outputs", {}
    for events in (list(trace.read(path / "trace.jsonl")) for path in solved):
        pages[""] = run_page(events, whole=f"{quote(folder)}/attempt-{{}}.html" if outputs else "")
        begun = [e.attempt for e in events if isinstance(e, trace.AttemptStarted)]
        for number in begun if outputs else ():
            pages[f"attempt-{number}"] = run_page(events, only=number, back=f"../{quote(file.name)}")
    if not solved:
        ids = [(each, task["id"]) for each in evaluations for task in each.report["tasks"]]
        every = {f"{each.path.name}/{id}": each.path / id for each, id in ids}
        kept = {name: place for name, place in every.items() if outputs and (place / "trace.jsonl").exists()}
        links = {name: f"{quote(folder)}/{quote(name)}.html" for name in kept}
        pages[""] = evaluation_page([(each.path.name, each.report) for each in evaluations], study, links)
        pages |= {name: run_page(list(trace.read(place / "trace.jsonl"))) for name, place in kept.items()}
    for name, text in pages.items():
        place = file.parent / folder / f"{name}.html" if name else file
        with Explained(f"cannot write {place}", OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    beside = f" and {counted(len(pages) - 1, 'page')} in {folder}" if outputs else ""
    sys.stderr.write(f"wrote {file}{beside}\n")
