"""`troop report RUN…`."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  troop report runs/humanize-intcomma-zero-digits-20260101-120000-ab12
  troop report runs/* --json
  troop report runs/humanize-intcomma-zero-digits-20260101-120000-ab12 --export report.svg
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of report."""
    parser.add_argument("run", metavar="RUN", type=Path, nargs="+", help="run directories")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write it as .svg or .html instead")


def execute(known: argparse.Namespace) -> int:
    """Fold each trace and show it; the run may still be going on."""
    from agent.commands.progress import Progress
    from agent.run_files import RunFiles
    from harness import trace
    from harness.picture import draw
    from harness.report import solve_report
    from harness.report_view import solve_view

    progress = Progress(quiet=True, json=known.json)
    reports, shown = [], []
    for directory in known.run:
        files = RunFiles(directory.resolve())
        events = list(trace.read(files.trace_file))
        reports.append({**solve_report(events), "directory": str(files.directory)})
        shown += solve_view(events, files.directory)
    if known.export is not None:
        draw(shown, known.export, title="troop report")
    elif not known.json:
        progress.show(*shown)
    progress.document(reports[0] if len(reports) == 1 else reports)
    return 0
