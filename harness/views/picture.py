"""How tables look, and renderables as a picture file: SVG or HTML."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table

from tasks.errors import InputError

COLUMNS = 80


def table(*headings: str, gap: int = 2, widths: Sequence[int] = ()) -> Table:
    """A table without rules. Below a heading that begins with ">" all goes right; below one with "…", into a line.
    `widths`: of the columns, in characters, for what is drawn again and again; else as what is in them needs."""
    shown = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for heading, width in zip_longest(headings, widths):
        name, cut = heading.removeprefix(">").removesuffix("…"), heading.endswith("…")
        shown.add_column(name, no_wrap=cut, overflow="ellipsis" if cut else "fold", width=width)
        shown.columns[-1].justify = "right" if heading.startswith(">") else "left"
    return shown


def draw(renderables: Iterable[RenderableType], path: Path, *, title: str) -> None:
    """Write the renderables, one below the other, as an .svg or .html file of 80 columns.

    Raises InputError for another ending, or where the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in (".svg", ".html"):
        raise InputError(f"--export {path}: the file's name must end in .svg or .html")
    console = Console(
        file=io.StringIO(),
        record=True,
        width=COLUMNS,
        color_system="truecolor",
        force_terminal=True,
        legacy_windows=False,
        highlight=False,
    )
    for each in renderables:
        console.print(each)
    text = console.export_svg(title=title) if kind == ".svg" else console.export_html(inline_styles=True)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
