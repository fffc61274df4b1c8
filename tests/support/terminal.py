"""A program on a real (pseudo) terminal: what it shows, keys pressed, and whether the terminal is given back."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Terminal:
    """A pseudo terminal of 80 by 24, unless said otherwise, with a program running on it."""

    def __init__(self, command: Sequence[str], *, rows: int = 24, columns: int = 80, **env: str) -> None:
        self.ours, self._theirs = pty.openpty()
        self.settings = termios.tcgetattr(self._theirs)
        termios.tcsetwinsize(self._theirs, (rows, columns))
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **env}
        kept = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE")}
        self.process = subprocess.Popen(
            command,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=kept,
            start_new_session=True,
            # A background job of a shell ignores Ctrl-C, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.seen = ""
        self.all = ""

    def expect(self, wanted: str, seconds: float = 30.0) -> None:
        """Read until the text is on what came since the last expectation; it and all before it are then forgotten."""
        end = time.monotonic() + seconds
        while wanted not in self._plain():
            left = end - time.monotonic()
            ready, _, _ = select.select([self.ours], [], [], max(0.0, left))
            assert ready and left > 0, f"{wanted!r} did not come; there was:\n{self._plain()}"
            self._read()
        self.seen = ""

    def _read(self) -> None:
        read = os.read(self.ours, 65536).decode("utf-8", "replace")
        self.seen, self.all = self.seen + read, self.all + read

    def _plain(self) -> str:
        return re.sub(r"\x1b\[[0-?]*[a-zA-Z]", "", self.seen)

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def signal(self, number: int) -> None:
        """Send the program a signal, once it has nothing to do but to wait."""
        time.sleep(0.3)
        self.process.send_signal(number)

    def finished(self, seconds: float = 30.0) -> int:
        """The exit code, once the program has ended; what it shows meanwhile is read, or it could not go on."""
        end = time.monotonic() + seconds
        while self.process.poll() is None or select.select([self.ours], [], [], 0)[0]:
            assert time.monotonic() < end, f"it did not end; there was:\n{self._plain()}"
            if select.select([self.ours], [], [], 0.1)[0]:
                self._read()
        return self.process.returncode

    def restored(self) -> bool:
        """Whether the terminal is set as it was before, with a cursor."""
        hidden, shown = self.all.rfind("\x1b[?25l"), self.all.rfind("\x1b[?25h")
        return termios.tcgetattr(self._theirs) == self.settings and shown >= hidden

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)
