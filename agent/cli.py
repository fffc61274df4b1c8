"""The command line: `troop COMMAND`. Parses, hands to one module per command, and turns errors into exit codes.

Exit codes: 0 a patch was selected (or the command did its work); 1 no acceptable patch; 2 wrong usage or input, nothing
started; 3 a budget of the whole run ended it before any selection; 4 the environment failed; 130 interrupted,
resumable.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from agent.defaults import nearest
from agent.secrets import mask
from agent.version import VERSION
from tasks.errors import InputError, TroopError

COMMANDS = {
    "solve": "solve an issue: N attempts, the best patch, what each cost",
    "demo": "solve a bundled task, a real bug, without any model: `solve` with the options of solve",
    "eval": "solve and grade many instances of a suite",
    "images": "build, list and remove the environment images of a suite",
    "grade": "grade predictions by the hidden tests, with the official rules",
    "select": "choose among patches that exist already, from any tool",
    "report": "what a run came to: attempts, evidence, selection, cost",
    "runs": "the runs that there are: issue, verdict, cost, age",
    "show": "print or apply the patch of any candidate of a run",
    "diff": "two candidates side by side, and what differs when tests run",
    "view": "all runs in the browser, the running ones live",
    "replay": "watch an attempt again, turn by turn",
    "export": "the attempts of a run in the forms of other tools, or for training",
    "import": "what other tools wrote of their attempts, as runs to replay and choose among",
    "ctl": "other caps, more or fewer attempts at a time, for what is running",
    "resume": "go on with a run after a stop or a crash",
    "completion": "what makes a shell complete commands and options by TAB",
    "init": "set up a model: asks, tests one call, writes troop.toml",
    "doctor": "what works here, what is missing, what to type to get it",
}
"""Each but `demo` is a module of agent.commands with `configure(parser)` and `execute(arguments) -> exit code`, and a
text in agent/commands/examples.toml."""

DEMO = Path(__file__).parents[1] / "tasks/examples/boltons-bits-length.toml"


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that say where help is."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Raise InputError for the first word that looks like an option and begins none, with the option most like
        it."""
        options = [option for action in self._actions for option in action.option_strings]
        for word in words:
            flag = word.partition("=")[0]
            if word == "--":
                return
            if flag.startswith("--") and " " not in word and not any(option.startswith(flag) for option in options):
                self.error(f"unknown argument {word}{nearest(flag, options)}")


def parser(chosen: Collection[str], *, all_options: bool = True) -> tuple[Parser, Mapping[str, Parser]]:
    """The whole command line, and the part of each command; only the chosen ones' modules are imported. Without
    `all_options` help shows, of a command that has many, those that people use."""
    top = Parser(
        prog="troop",
        description="Solves software issues by trying many times.",
        epilog="`troop help COMMAND` tells of one command, with examples.",
    )
    top.add_argument("-V", "--version", action="version", version=f"troop {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, summary in COMMANDS.items():
        raw = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=raw
        )
        if name not in chosen:
            continue
        own = "solve" if name == "demo" else name
        module = importlib.import_module(f"agent.commands.{own}_command")
        sub.epilog = _table("examples")[own]
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout, all else on stderr")
        module.configure(sub)
        sub.set_defaults(execute=module.execute, whole=partial(parser, COMMANDS))
        often = _table("options")["often"].get(own)
        sub.add_argument("--help-all", action="help", help="show all options" if often else argparse.SUPPRESS)
        for action in sub._actions if often and not all_options else ():
            if action.dest not in (*often, "help", "help_all"):
                action.help = argparse.SUPPRESS
    return top, commands.choices


def _table(name: str) -> Any:
    """A table of agent/commands: of examples, of options."""
    return tomllib.loads((Path(__file__).parent / "commands" / f"{name}.toml").read_text(encoding="utf-8"))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What the words of a command line ask for. Raises InputError for what cannot be, SystemExit (0) after help that
    was asked for and (2) after that of a bare `troop`."""
    if words[:1] == ["help"]:
        words = [*[word for word in words if word != "help"][:1], "--help"]
    if words[:1] == ["demo"]:
        words = ["solve", str(DEMO), "--model", "repair", "--grade", *words[1:]]
    command = next((word for word in words if not word.startswith("-")), None)
    top, commands = parser([command or ""], all_options="--help-all" in words)
    if not words:
        top.print_help(sys.stderr)
        raise SystemExit(2)
    if command is None:
        top.refuse_unknown(words)
    elif command not in commands:
        top.error(f"there is no command {command!r}{nearest(command, [*commands, 'help'])}")
    elif words[0] != command:
        top.error(f"options stand after the command: troop {command} {words[0]}")
    else:
        commands[command].refuse_unknown(words[1:])
    known, unknown = top.parse_known_args(words)
    if unknown:
        commands[known.command].error(f"unknown argument {unknown[0]}")
    return known


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `troop` script; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        known = parse(words)
        code: int = known.execute(known)
        sys.stdout.flush()
        return code
    except TroopError as error:
        return _failed(words, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return _failed(words, str(error) or "interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a directory that may not be written: the world's, and told in one sentence
        place = f"{error.filename}: " if error.filename else ""
        return _failed(words, f"the file system refuses: {place}{error.strerror or error}", 4)


def _failed(words: Sequence[str], message: str, code: int) -> int:
    """Say what went wrong, without the value of any secret, which words of others may quote."""
    message = mask(message)
    sys.stderr.write(f"troop: {message}\n")
    if "--json" in words:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
