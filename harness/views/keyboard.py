"""Keys as they are pressed on a terminal."""

import contextlib
import os
import re
import termios
import tty
from collections.abc import Callable, Iterator

_NAMED = {b"\r": "enter", b"\n": "enter", b"\x1b": "escape", b"\x7f": "backspace", b"\x08": "backspace"}
_MOVES = {b"A": "up", b"B": "down", b"C": "right", b"D": "left", b"H": "home", b"F": "end"}
_MOVES |= {b"1~": "home", b"4~": "end", b"5~": "page up", b"6~": "page down"}
_NAMED |= {start + letter: name for letter, name in _MOVES.items() for start in (b"\x1b[", b"\x1bO")}
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|[\xc0-\xff][\x80-\xbf]+|.", re.DOTALL)


@contextlib.contextmanager
def keyboard(terminal: int) -> Iterator[Callable[[], list[str]]]:
    """While the context is open the terminal (a descriptor) gives keys without waiting for Enter and shows none; Ctrl-C
    and the like are signals as ever. Yields what reads the keys that were pressed: names such as "enter" or "page up",
    or what they write; "gone" where the terminal is. Nothing is read or set while another process has the terminal."""

    def pressed() -> list[str]:
        if not is_ours(terminal):
            return []
        read = b""
        with contextlib.suppress(OSError):
            read = os.read(terminal, 256)
        return [_NAMED.get(key) or key.decode("utf-8", "replace") for key in _KEY.findall(read)] or ["gone"]

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield pressed
    finally:
        with contextlib.suppress(termios.error):  # where it is gone
            if is_ours(terminal):
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def is_ours(terminal: int) -> bool:
    """Whether no other process has the terminal: this one is in its foreground, or knows of none."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True
