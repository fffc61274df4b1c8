"""What a person sees while a run goes on, and where lines of text go."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from rich.console import Console, RenderableType

from harness.views.live import View

PIPED_COLUMNS = 160


class Progress:
    """A context in which progress is shown on stderr: a live view on a terminal, plain lines elsewhere, or nothing.

    Results go to stdout, or with `json` to stderr, so that stdout holds the one JSON document."""

    def __init__(self, *, quiet: bool, json: bool, log: str = "", view: Callable[[Console], View] = View) -> None:
        """`log`: "json" for lines of JSON. `view` makes another view than that of a run's attempts."""
        self.quiet = quiet
        self.json = json
        self._view_on = partial(View, json=True) if log == "json" else view
        self.view = View()

    def __enter__(self) -> Self:
        if not self.quiet:
            self.view = self._view_on(self.errors())
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def say(self, line: str) -> None:
        """One line of progress."""
        self.view.say(line)

    def stop(self) -> None:
        """End the live view; what it last showed stays on the screen."""
        self.view.stop()
        self.view = View()

    def show(self, *renderables: RenderableType) -> None:
        """Print results for a person; what goes to a file or a pipe has no spaces at the ends of its lines."""
        console = self.errors() if self.json else _console(sys.stdout)
        with contextlib.nullcontext() if console.is_terminal else console.capture() as kept:
            for each in renderables:
                console.print(each)
        if kept is not None:
            console.file.write(re.sub(r" +$", "", kept.get(), flags=re.M))

    def document(self, data: Any) -> None:
        """Print the one JSON document, if that was asked for."""
        if self.json:
            sys.stdout.write(json.dumps(data, indent=1) + "\n")

    def errors(self) -> Console:
        """The console on stderr."""
        return _console(sys.stderr)


def _console(file: Any) -> Console:
    # A file or a pipe has no width of its own; a wide one keeps the commands at the end in one piece.
    width = None if file.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS
    return Console(file=file, highlight=False, width=width)
