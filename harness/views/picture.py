"""How tables look."""

from collections.abc import Sequence
from itertools import zip_longest

from rich.table import Table


def table(*headings: str, gap: int = 2, widths: Sequence[int] = ()) -> Table:
    """A table without rules. Below a heading that begins with ">" all goes right; below one with "…", into a line.
    `widths`: of the columns, in characters, for what is drawn again and again; else as what is in them needs."""
    shown = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for heading, width in zip_longest(headings, widths):
        name, cut = heading.removeprefix(">").removesuffix("…"), heading.endswith("…")
        shown.add_column(name, no_wrap=cut, overflow="ellipsis" if cut else "fold", width=width)
        shown.columns[-1].justify = "right" if heading.startswith(">") else "left"
    return shown
