"""Watching an attempt again, or two side by side: on a terminal with keys and timing, elsewhere as plain output."""

import select
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.table import Column, Table
from rich.text import Text

from harness.views.keyboard import keyboard
from harness.views.replay_frames import MARKS, Frame, Step, content, render
from harness.views.words import KEY_WORDS

LONGEST_WAIT = 3.0
"""Seconds that a pause between two steps lasts at most, at speed 1."""
SCROLL = 5
"""Lines that one press of an arrow scrolls."""
BACK = 20
"""Steps before the newest that can be scrolled back to; a long attempt must not be rendered anew at each key."""


Load = Callable[[int], Sequence[Step]]


def play(console: Console, load: Load, attempts: Sequence[int], attempt: int, *, speed: float, step: bool) -> None:
    """Show the steps of the attempt, which `load` gives, one after the other: at `speed` times their real pace (waits
    are capped), or a key each (`step`). The keys are named on the screen.

    Without a terminal all steps are printed at once. The terminal is given back however this ends."""
    shown = load(attempt)
    if not (console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty()):
        for each in shown:
            console.print(_drawn(each))
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with keyboard(sys.stdin.fileno()) as pressed, console.screen(hide_cursor=True) as screen:
        watched = _Watched(shown, attempt, paused=step, step=step)
        while not watched.over:
            screen.update(_page(console, watched))
            ready = select.select([sys.stdin], [], [], watched.patience(speed))[0]
            for key in pressed() if ready else [None]:
                watched.press(key, console.height)
                if watched.others:
                    place = (attempts.index(watched.attempt) + watched.others) % len(attempts)
                    watched = _Watched(load(attempts[place]), attempts[place], paused=True, step=step)
    console.print(_drawn(watched.shown[watched.at]))


@dataclass(slots=True)
class _Watched:
    """Where a person stands in the replay of an attempt. `at`: the newest step on the screen; `shift`: lines scrolled
    down; `others`: another attempt is wished for, so many further; `finding`: what is typed to be found, None while
    nothing is; `found`: what was found last."""

    shown: Sequence[Step]
    attempt: int
    paused: bool
    step: bool
    at: int = 0
    shift: int = 0
    over: bool = False
    others: int = 0
    unfolded: bool = False
    finding: str | None = None
    found: str = ""

    def top(self, start: int, total: int, height: int) -> int:
        """The first line on the screen, of `total` lines up to the newest step, which begins at line `start`: the
        step at the screen's foot below what went before, or from its beginning where it is longer than the screen."""
        rest = min(start, max(0, total - height))
        top = max(0, min(rest + self.shift, total - height))
        self.shift = top - rest
        return top

    def patience(self, speed: float) -> float | None:
        """Seconds to wait for a key before the next step; None: until there is one."""
        if self.paused or self.at + 1 == len(self.shown):
            return None
        return min(max(frame.wait for frame in chain(*self.shown[self.at + 1])), LONGEST_WAIT) / speed

    def press(self, key: str | None, height: int) -> None:
        """A key was pressed, on a screen of that height; None: the time was up."""
        scrolls = {"up": -SCROLL, "down": SCROLL, "page up": 2 - height, "page down": height - 2}
        goes = {"left": self.at - 1, "home": 0, "end": len(self.shown) - 1}
        if self.finding is not None:
            self._find(self.finding, key)
            return
        if key in (None, "right") or (key == " " and self.step):
            self._go(self.at + 1)
            return
        self.over |= key in ("q", "Q", "gone")
        self.paused = not self.paused if key == " " else True
        self.shift += scrolls.get(key, 0)
        self.unfolded ^= key == "enter"
        self.others = {"n": 1, "p": -1}.get(key, 0)
        self.finding = "" if key == "/" else None
        if key in goes:
            self._go(goes[key])
        elif mark := MARKS.get(key.lower()):
            self._seek(mark, back=key.isupper())

    def _find(self, typed: str, key: str | None) -> None:
        """A key of what is to be found; without a word the last one once more."""
        if key == "enter":
            self.finding, self.found = None, typed.lower() or self.found
            self._seek(lambda frame: self.found in str(content(frame)).lower())
        elif key in ("escape", "gone"):
            self.finding = None
        else:
            self.finding = typed[:-1] if key == "backspace" else typed + (key or "") * (len(key or "") == 1)

    def _seek(self, wanted: Callable[[Frame], bool], back: bool = False) -> None:
        """To the next step with a frame that is wanted, or the one before; at the end from the beginning again."""
        count, way = len(self.shown), -1 if back else 1
        places = ((self.at + way * far) % count for far in range(1, count))
        self._go(next((place for place in places if any(map(wanted, chain(*self.shown[place])))), self.at))

    def _go(self, place: int) -> None:
        self.at = min(len(self.shown) - 1, max(0, place))
        self.shift, self.unfolded = 0, False


def _drawn(step: Step, *, unfolded: bool = False) -> RenderableType:
    """A step: its frames, those of two attempts side by side."""
    sides = [Group(*(render(frame, unfolded=unfolded) for frame in side)) for side in step]
    if len(sides) == 1:
        return sides[0]
    grid = Table.grid(*(Column(ratio=1) for _ in sides), expand=True, padding=(0, 1))
    grid.add_row(*sides)
    return grid


def _page(console: Console, watched: _Watched) -> RenderableType:
    """One screen: the steps so far, as much as there is room for, and below them the state and the keys."""
    keys = textwrap.wrap(KEY_WORDS["replay"], console.width)
    height = max(1, console.height - 1 - len(keys))
    lines: list[list[Segment]] = []
    start = 0
    for place in range(max(0, watched.at - BACK), watched.at + 1):
        start = len(lines)
        drawn = _drawn(watched.shown[place], unfolded=watched.unfolded and place == watched.at)
        lines += console.render_lines(drawn, console.options.update(height=None), pad=False)
    top = watched.top(start, len(lines), height)
    seen = lines[top : top + height]
    seen += [[]] * (height - len(seen))
    hidden = max(0, len(lines) - height - top)
    state = "paused" if watched.paused else "end" if watched.at + 1 == len(watched.shown) else "playing"
    more = f"  … {hidden} lines below" if hidden else ""
    line = f" {watched.at + 1}/{len(watched.shown)}  {state}  attempt {watched.attempt}{more}"
    if watched.finding is not None:
        line = KEY_WORDS["find"].format(typed=watched.finding)
    footer = Text(f"{line:<{console.width}}", "reverse", no_wrap=True, overflow="crop")
    flat = [segment for line in seen for segment in (*line, Segment.line())]
    return Group(Segments(flat), footer, Text("\n".join(keys), "dim", no_wrap=True, overflow="crop", end=""))
