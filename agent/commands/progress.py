"""What a person sees while a run goes on, and where lines of text go."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from harness.trace import Event


class Progress:
    """A context in which progress is shown on stderr: a live view on a terminal, plain lines elsewhere, or nothing.

    Results go to stdout, or with `json` to stderr, so that stdout holds the one JSON document.
    """

    def __init__(self, *, quiet: bool, json: bool) -> None:
        self.quiet = quiet
        self.json = json

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def say(self, line: str) -> None:
        """One line of progress."""
        if not self.quiet:
            sys.stderr.write(line + "\n")

    def see(self, event: Event) -> None:
        """A listener of the trace."""
        if not self.quiet:
            sys.stderr.write(f"{event.kind} {event.attempt}\n")

    def stop(self) -> None:
        """End the live view; what it last showed stays on the screen."""

    def show(self, *renderables: RenderableType) -> None:
        """Print results for a person."""
        console = self.errors() if self.json else _console(sys.stdout)
        for each in renderables:
            console.print(each)

    def document(self, data: Any) -> None:
        """Print the one JSON document, if that was asked for."""
        if self.json:
            import json

            sys.stdout.write(json.dumps(data, indent=1) + "\n")

    def errors(self) -> Console:
        """The console on stderr."""
        return _console(sys.stderr)


def _console(file: Any) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, soft_wrap=not file.isatty())
