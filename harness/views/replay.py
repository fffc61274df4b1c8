"""Watching an attempt again: on a terminal with keys and timing, elsewhere as plain output."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.text import Text

from harness.views.replay_frames import Frame, render

LONGEST_WAIT = 3.0
"""Seconds that a pause between two frames lasts at most, at speed 1."""
SCROLL = 5
"""Lines that one press of an arrow scrolls."""
BACK = 20
"""Frames before the newest that can be scrolled back to; a long attempt must not be rendered anew at each key."""

_ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}
_KEYS = {b" ": "space", b"\r": "space", b"\n": "space", b"q": "q", b"Q": "q"}
_KEYS |= {start + letter: name for letter, name in _ARROWS.items() for start in (b"\x1b[", b"\x1bO")}
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


def play(console: Console, shown: Sequence[Frame], *, speed: float = 1.0, step: bool = False) -> None:
    """Show the frames one after the other, at `speed` times their real pace (waits are capped), or a key each (`step`).

    Keys: space pauses and goes on, right and left go a frame forth and back, up and down scroll, q quits. Without a
    terminal all frames are printed at once. The terminal's settings are put back however this ends.
    """
    if not (console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty()):
        for frame in shown:
            console.print(render(frame))
        return
    if not shown:
        return
    with _Keyboard(sys.stdin.fileno()) as keyboard, console.screen(hide_cursor=True) as screen:
        watched = _Watched(len(shown), paused=step, step=step)
        while not watched.over:
            screen.update(_page(console, shown, watched))
            watched.press(keyboard.wait(watched.patience(shown, speed)))
    console.print(render(shown[watched.at]))


@dataclass(slots=True)
class _Watched:
    """Where a person stands in the replay. `at`: the newest frame on the screen; `shift`: lines scrolled down."""

    count: int
    paused: bool
    step: bool
    at: int = 0
    shift: int = 0
    over: bool = False

    @property
    def last(self) -> bool:
        return self.at == self.count - 1

    def top(self, start: int, total: int, height: int) -> int:
        """The first line on the screen, of `total` lines up to the newest frame, which begins at line `start`: the
        frame at the screen's foot below what went before, or from its beginning where it is longer than the screen."""
        rest = min(start, max(0, total - height))
        top = max(0, min(rest + self.shift, total - height))
        self.shift = top - rest
        return top

    def patience(self, shown: Sequence[Frame], speed: float) -> float | None:
        """Seconds to wait for a key before the next frame; None: until there is one."""
        if self.paused or self.last:
            return None
        return min(shown[self.at + 1].wait, LONGEST_WAIT) / speed

    def press(self, key: str | None) -> None:
        """A key was pressed; None: the time was up."""
        if key == "q":
            self.over = True
        elif key in (None, "right") or (key == "space" and self.step):
            self._go(1)
        elif key == "space":
            self.paused = not self.paused
        elif key == "left":
            self.paused = True
            self._go(-1)
        elif key in ("up", "down"):
            self.paused = True
            self.shift += SCROLL if key == "down" else -SCROLL

    def _go(self, by: int) -> None:
        self.at = min(self.count - 1, max(0, self.at + by))
        self.shift = 0


def _page(console: Console, shown: Sequence[Frame], watched: _Watched) -> RenderableType:
    """One screen: the frames so far, as much as there is room for, and the line of state and keys below them."""
    height = max(1, console.height - 1)
    lines: list[list[Segment]] = []
    start = 0
    for frame in shown[max(0, watched.at - BACK) : watched.at + 1]:
        start = len(lines)
        lines += console.render_lines(render(frame), console.options.update(height=None), pad=False)
    top = watched.top(start, len(lines), height)
    seen = lines[top : top + height]
    seen += [[]] * (height - len(seen))
    hidden = max(0, len(lines) - height - top)
    state = "paused" if watched.paused else "end" if watched.last else "playing"
    more = f"… {hidden} lines below" if hidden else ""
    keys = "space  ← →  ↑ ↓  q "
    left = f" {watched.at + 1}/{watched.count}  {state}  {more}"
    line = f"{left:<{max(0, console.width - len(keys))}}{keys}"
    footer = Text(line, "reverse", no_wrap=True, overflow="crop", end="")
    flat = [segment for line in seen for segment in (*line, Segment.line())]
    return Group(Segments(flat), footer)


class _Keyboard:
    """Keys as they are pressed. The terminal gives them without waiting for Enter while the context is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: list[str] = []

    def __enter__(self) -> _Keyboard:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, *error: object) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float | None) -> str | None:
        """The next key, or None after `seconds` without one. The end of the input counts as q."""
        while not self._waiting:
            ready, _, _ = select.select([self._descriptor], [], [], seconds)
            if not ready:
                return None
            read = os.read(self._descriptor, 256)
            self._waiting = [_KEYS[key] for key in _KEY.findall(read) if key in _KEYS] if read else ["q"]
        return self._waiting.pop(0)
