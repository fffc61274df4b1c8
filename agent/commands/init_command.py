"""`troop init`."""

import argparse
import sys
from operator import attrgetter
from pathlib import Path

from agent.commands.dialogue import dialogue
from agent.commands.progress import Progress
from agent.config import Settings
from agent.defaults import SETTINGS
from agent.toml_file import as_toml

_UNSET = {
    "USD": 5.0,
    "S": 3600.0,
    "K": 32,
    "N": 2_000_000,
    "T": 0.8,
    "NAME": "none",
    "HOST/PREFIX": "localhost:5000/me",
}
"""Examples for settings that have no value unless set, by what their option takes."""


def execute(known: argparse.Namespace) -> int:
    """Ask, try one call, write; without a terminal print the example."""
    progress = Progress(quiet=False, json=known.json)
    if not sys.stdin.isatty():
        progress.document({"example": example()})
        if not known.json:
            sys.stdout.write(example())
        return 0
    try:
        written = dialogue(progress.errors())
    except (EOFError, KeyboardInterrupt):
        raise KeyboardInterrupt("stopped; nothing was written") from None
    progress.document({"written": written})
    return 0


def example() -> str:
    """A troop.toml with every setting in it, commented out."""
    lines, built_in = [Path(__file__).with_name("example.toml").read_text(encoding="utf-8")], Settings()
    for setting in SETTINGS:
        value = attrgetter(setting.place)(built_in)
        if value is None:
            value = setting.choices[0] if setting.choices else _UNSET[setting.metavar or ""]
        line = as_toml({setting.name: str(value) if isinstance(value, Path) else value}).rstrip()
        lines.append(f"# {line:<40}# {setting.help.format(whole='of the whole run')}\n")
    return "".join(lines)
