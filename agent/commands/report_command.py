"""`troop report RUN…`: solve runs one by one; evaluations and imported samples as one study."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from agent.commands.options import add_choice, add_repeatable
from agent.commands.progress import Progress
from agent.defaults import amount, positive
from agent.run_files import RunFiles
from agent.secrets import mask
from harness import trace
from harness.records import Json
from harness.scaling.imported import Imported, imported, is_evaluation, of_evaluation
from harness.scaling.samples import told_apart
from harness.scaling.study import Study, study
from harness.scaling.view import study_view
from harness.suites.view import eval_view
from harness.views.picture import draw
from harness.views.report import solve_report
from harness.views.report_view import solve_view, verbose_view
from tasks.errors import InputError

EXAMPLES = """examples:
  troop report runs/humanize-intcomma-zero-digits-20260101-120000-ab12
  troop report runs/* --json
  troop report runs/humanize-intcomma-zero-digits-20260101-120000-ab12 --export report.svg
  troop report evals/lite-small evals/lite-large --forecast 100
  troop report evals/lite --versus small@5 large@1 --budget 0.5 --budget 2
  troop report --import outcomes.jsonl --submissions 3 --json
  troop report --import run1.jsonl --labels run1.report.json --import run2.jsonl --labels run2.report.json

Rows of --import are JSON lines: {"instance_id": ..., "model": ..., "resolved": true, "usd": 0.12, "score": 0.9}, one
for each sample in the order drawn; usd, score (order of the selection) and candidate (which patch) may be left out.
"""

STUDY_OPTIONS = ("forecast", "budget", "versus", "merge")


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of report."""
    parser.add_argument(
        "run",
        metavar="RUN",
        type=Path,
        nargs="*",
        help="directories of runs or evaluations, one that holds several, or an evaluation's report.json",
    )
    parser.add_argument("--verbose", action="store_true", help="attempts, evidence on every candidate, ledger as well")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write it as .svg or .html instead")
    given = parser.add_argument_group("samples from elsewhere")
    told = "rows of outcomes (JSON lines), or predictions with --labels (repeatable)"
    add_repeatable(given, "--import", "FILE", told, Path, dest="imports")
    add_repeatable(given, "--labels", "FILE", "the official harness's report on each --import, in order", Path)
    given.add_argument(
        "--label-field", default="resolved", metavar="NAME", help="the rows' field that says right (resolved)"
    )
    study = parser.add_argument_group("evaluations and imported samples")
    add_repeatable(study, "--forecast", "K", "coverage at K samples (repeatable)", positive)
    study.add_argument(
        "--submissions", type=positive, default=1, metavar="M", help="solved if any of the M best ranked is right (1)"
    )
    add_repeatable(study, "--budget", "USD", "what to buy for USD a task (repeatable)", amount)
    told = "N samples of one model against N of another (repeatable)"
    add_repeatable(study, "--versus", "MODEL@N", told, purchase, nargs=2)
    told = "tasks with fewer samples than the others: left out, or what is missing is wrong (leave-out)"
    add_choice(study, "--missing", ("leave-out", "wrong"), told)
    study.add_argument(
        "--merge", action="store_true", help="samples of one model from several RUNs are samples of one experiment"
    )


def purchase(text: str) -> tuple[str, int]:
    """An argparse type: MODEL@N."""
    name, at, count = text.rpartition("@")
    if not at or not name or not count.isdecimal() or not int(count):
        raise argparse.ArgumentTypeError(f"{text} is not MODEL@N, as in small@5")
    return name, int(count)


def execute(known: argparse.Namespace) -> int:
    """Read what is named, and show it; a run may still be going on."""
    if not known.run and not known.imports:
        raise InputError("name a run or an evaluation to report on, or a file with --import")
    if known.labels and not known.imports:
        raise InputError("--labels go with --import")
    documents: list[Json] = []
    shown: list[RenderableType] = []
    evaluations: list[tuple[str, Imported, list[RenderableType]]] = []
    refused: list[InputError] = []
    for path in (each for named in known.run for each in _within(named)):
        try:
            report = _evaluation(path)
            if report is not None:
                evaluations.append(_evaluated(path, report))
                continue
            document, view = _solved(path, verbose=known.verbose)
            documents.append(document)
            shown += view
        except InputError as error:
            refused.append(error)
    if refused and not (documents or evaluations or known.imports):
        raise InputError("\n".join(map(str, refused)))
    if evaluations or known.imports:
        study, view = _study(known, evaluations)
        documents.append(study.to_json())
        shown += view
    elif option := next((each for each in STUDY_OPTIONS if getattr(known, each)), None):
        raise InputError(f"--{option} needs graded samples: name an evaluation, or a file with --import")
    progress = Progress(quiet=True, json=known.json)
    if known.export is not None:
        draw(shown, known.export, title="troop report")
    elif not known.json:
        progress.show(*shown)
    progress.document(documents[0] if len(documents) == 1 else documents)
    sys.stdout.flush()
    for refusal in refused:
        sys.stderr.write(f"troop: left out: {mask(str(refusal))}\n")
    return 0


def _solved(directory: Path, *, verbose: bool) -> tuple[Json, list[RenderableType]]:
    """The report of a run of `solve`, and how it is shown."""
    files = RunFiles(directory.resolve())
    events = list(trace.read(files.trace_file))
    return {**solve_report(events), "directory": str(files.directory)}, (verbose_view if verbose else solve_view)(
        events, files.directory
    )


def _within(path: Path) -> list[Path]:
    """The runs and evaluations in a directory of such; the path itself where it is one, or holds none."""
    signs = ("trace.jsonl", "eval.json", "report.json")

    def is_one(place: Path) -> bool:
        return any((place / sign).exists() for sign in signs)

    if not path.is_dir() or is_one(path):
        return [path]
    return [child for child in sorted(path.iterdir()) if is_one(child)] or [path]


def _evaluation(path: Path) -> Json | None:
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
    try:
        report: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}") from error
    if not is_evaluation(report):
        raise InputError(f"{file} is not the report of an evaluation")
    return dict(report)


def _evaluated(path: Path, report: Json) -> tuple[str, Imported, list[RenderableType]]:
    """An evaluation's name, its samples, and how it is shown. Raises InputError for a report that is damaged."""
    try:
        view = [*eval_view(report), ""] if "suite" in report else []
        found = of_evaluation(report)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the report of {path} is damaged: it lacks what a report has ({error!r})") from error
    if not found.models:
        raise InputError(f"there are no graded samples in {path} to report on")
    return path.resolve().name, found, view


def _study(
    known: argparse.Namespace, evaluations: Sequence[tuple[str, Imported, list[RenderableType]]]
) -> tuple[Study, list[RenderableType]]:
    sources = [(name, found.models) for name, found, _ in evaluations]
    ungraded = sum(found.ungraded for _, found, _ in evaluations)
    shown = [each for _, _, view in evaluations for each in view]
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
        duels=[(one, other) for one, other in known.versus],
        forecast_to=sorted(set(known.forecast)),
    )
    return result, [*shown, *study_view(result)]
