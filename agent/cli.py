"""The command line: `troop COMMAND`. Parses, hands to one module per command, and turns errors into exit codes.

Exit codes: 0 a patch was selected (or the command did its work); 1 no acceptable patch; 2 wrong usage or input, nothing
started; 3 a budget of the whole run ended it before any selection; 4 the environment failed; 130 interrupted, resumable.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tasks.errors import TroopError

COMMANDS = {
    "solve": "solve an issue: N attempts, the best patch, what each cost",
    "eval": "solve and grade many instances of a suite",
    "images": "build, list and remove the environment images of a suite",
    "grade": "grade predictions by the hidden tests, with the official rules",
    "select": "choose among patches that exist already, from any tool",
    "report": "what a run came to: attempts, evidence, selection, cost",
    "replay": "watch an attempt again, turn by turn",
    "resume": "go on with a run after a stop or a crash",
    "doctor": "what works here, what is missing, what to type to get it",
}
"""Each is a module of agent.commands with `configure(parser)` and `execute(arguments) -> exit code`."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that say where help is."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"troop: {message} (see `{self.prog} --help`)\n")
        raise SystemExit(2)

    def near(self, flag: str) -> str:
        """The option most like a mistyped one, as a question; empty where none is."""
        options = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(flag.split("=")[0], options, n=1)
        return f"; did you mean {close[0]}?" if close else ""


def parser() -> Parser:
    """The whole command line. Only the chosen command's module is imported further than its options."""
    top = Parser(prog="troop", description="Solves software issues by trying many times.")
    top.add_argument("--version", action="version", version=_Version())
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"agent.commands.{name}_command")
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout, all else on stderr")
        module.configure(sub)
        sub.set_defaults(execute=module.execute, parser=sub)
    return top


class _Version(str):
    """The version, looked up only when it is printed."""

    def __mod__(self, other: object) -> str:
        from importlib.metadata import version

        return f"troop {version('troop')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `troop` script; returns the exit code."""
    top = parser()
    known, unknown = top.parse_known_args(arguments)
    if unknown:
        known.parser.error(f"unknown argument {unknown[0]}{known.parser.near(unknown[0])}")
    try:
        code: int = known.execute(known)
        sys.stdout.flush()
        return code
    except TroopError as error:
        return _failed(known, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return _failed(known, str(error) or "interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a directory that may not be written: the world's, and told in one sentence
        place = f"{error.filename}: " if error.filename else ""
        return _failed(known, f"the file system refuses: {place}{error.strerror or error}", 4)


def _failed(known: argparse.Namespace, message: str, code: int) -> int:
    sys.stderr.write(f"troop: {message}\n")
    if known.json:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
