"""The pictures in docs/, of a run that is there: `python -m tests.support.pictures runs/RUN docs`.

report.svg and report-120.svg show what a terminal of 80 and of 120 columns does, page-390.png and page-1440.png the page.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from harness import trace
from harness.views.page import run_page
from harness.views.report_view import solve_view
from tests.support.browser import Browser


def main(run: Path, folder: Path) -> None:
    """Draw the run into the folder."""
    events = list(trace.read(run / "trace.jsonl"))
    for columns in (80, 120):
        console = Console(
            file=io.StringIO(),
            record=True,
            width=columns,
            color_system="truecolor",
            force_terminal=True,
            highlight=False,
        )
        for each in solve_view(events, run):
            console.print(each)
        name = "report.svg" if columns == 80 else f"report-{columns}.svg"
        (folder / name).write_text(console.export_svg(title="troop report"), encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "run.html"
        page.write_text(run_page(events), encoding="utf-8")
        with Browser(Path(scratch) / "profile") as browser:
            for width in (390, 1440):
                browser.open(f"file://{page}", width=width)
                browser.picture(folder / f"page-{width}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
