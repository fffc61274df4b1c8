"""Line charts in the terminal: braille lines, marks for points, intervals as bars; told apart without colour too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

MARKS = "●▲■◆○△□◇✚✖"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which the colour-blind can tell apart."""
WIDTH, HEIGHT = 78, 16
"""Columns of a chart with its axis, and rows of its canvas."""
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLANK = 0x2800
_LABEL = 5
"""Columns of the labels of the y axis."""


@dataclass(frozen=True, slots=True)
class Line:
    """`points`: (x, y, low, high), y in 0..1, x > 0; low and high are equal to y where there is no interval."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]
    colour: int
    mark: str


def chart(lines: Sequence[Line], *, x_label: str) -> Text:
    """The lines over a logarithmic x axis, with ticks and a legend, in WIDTH columns. Some line must have a point."""
    canvas = _Canvas(lines, WIDTH - _LABEL - 1, HEIGHT)
    for line in lines:
        canvas.draw(line)
    for line in lines:
        canvas.mark(line)
    text = Text(no_wrap=True)
    for row in range(HEIGHT):
        text.append(canvas.y_tick(row).rjust(_LABEL), "dim")
        text.append("┤" if canvas.y_tick(row) else "│", "dim")
        for glyph, style in canvas.row(row):
            text.append(glyph, style)
        text.append("\n")
    text.append(" " * _LABEL + "└" + "─" * canvas.columns + "\n", "dim")
    text.append(" " * (_LABEL + 1) + canvas.x_ticks() + "\n", "dim")
    text.append(x_label.center(WIDTH).rstrip() + "\n")
    text.append(_legend(lines))
    return text


class _Canvas:
    def __init__(self, lines: Sequence[Line], columns: int, rows: int) -> None:
        xs = [x for line in lines for x, _, _, _ in line.points]
        self.columns, self.rows = columns, rows
        self.left, self.right = math.log(min(xs)), math.log(max(xs))
        if self.right - self.left < 1e-9:
            self.left, self.right = self.left - 0.5, self.right + 0.5
        top = max(high for line in lines for _, _, _, high in line.points)
        self.top = next(t for t in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if t >= min(top, 1.0) - 1e-9)
        self._dots = [[0] * columns for _ in range(rows)]
        self._ink: list[list[str]] = [[""] * columns for _ in range(rows)]
        self._glyphs: list[list[str]] = [[""] * columns for _ in range(rows)]

    def draw(self, line: Line) -> None:
        """The line between its points."""
        style = COLOURS[line.colour % len(COLOURS)]
        placed = [(self._x(x) * 2, self._y(y) * 4) for x, y, _, _ in line.points]
        for (x0, y0), (x1, y1) in itertools.pairwise(placed):
            steps = max(1, math.ceil(max(abs(x1 - x0), abs(y1 - y0))))
            for step in range(steps + 1):
                self._dot(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps, style)

    def mark(self, line: Line) -> None:
        """The marks of the points, and their intervals where nothing else is drawn."""
        style = COLOURS[line.colour % len(COLOURS)]
        for x, y, low, high in line.points:
            column, row = self._cell(x, y)
            for each in range(self._cell(x, high)[1], self._cell(x, low)[1] + 1):
                if high - low > 1e-9 and not self._glyphs[each][column] and not self._dots[each][column]:
                    self._glyphs[each][column], self._ink[each][column] = "┊", f"dim {style}"
            self._glyphs[row][column], self._ink[row][column] = line.mark, style

    def row(self, row: int) -> list[tuple[str, str]]:
        """The glyphs of a row with their styles."""
        return [
            (glyph or chr(_BLANK + dots) if glyph or dots else " ", ink)
            for glyph, dots, ink in zip(self._glyphs[row], self._dots[row], self._ink[row], strict=True)
        ]

    def y_tick(self, row: int) -> str:
        """The label of the row, where it has one: five of them, evenly."""
        wanted = {round(i * (self.rows - 1) / 4): self.top * (4 - i) / 4 for i in range(5)}
        value = wanted.get(row)
        return "" if value is None else f"{100 * value:.{0 if self.top >= 0.4 or value in (0, self.top) else 1}f}%"

    def x_ticks(self) -> str:
        """Round numbers of the axis, as many as fit."""
        labels = [" "] * self.columns
        taken = -2
        for value in _round_numbers(math.exp(self.left), math.exp(self.right)):
            label = f"{value:.3g}"
            start = min(self.columns - len(label), max(0, round(self._x(value)) - len(label) // 2))
            if start > taken + 1:
                labels[start : start + len(label)] = label
                taken = start + len(label)
        return "".join(labels).rstrip()

    def _x(self, x: float) -> float:
        return (math.log(x) - self.left) / (self.right - self.left) * (self.columns - 1)

    def _y(self, y: float) -> float:
        return (1 - min(1.0, max(0.0, y / self.top))) * (self.rows - 1)

    def _cell(self, x: float, y: float) -> tuple[int, int]:
        return round(self._x(x)), round(self._y(y))

    def _dot(self, x: float, y: float, style: str) -> None:
        x, y = min(2 * self.columns - 1, round(x + 0.5)), min(4 * self.rows - 1, round(y + 1.5))
        column, row = int(x) // 2, int(y) // 4
        self._dots[row][column] |= _DOTS[int(x) % 2][int(y) % 4]
        self._ink[row][column] = style


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten within the range; only powers of ten over more than three decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 4 else (1,)
    found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    inside = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else [low, high]


def _legend(lines: Sequence[Line]) -> Text:
    text, column = Text(), 0
    for line in lines:
        entry = f"  {line.mark} {line.name}"
        if column and column + len(entry) > WIDTH:
            text.append("\n")
            column = 0
        text.append(entry, COLOURS[line.colour % len(COLOURS)])
        column += len(entry)
    return text
