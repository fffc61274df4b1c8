"""The command line: `troop COMMAND`. Parses, hands to one module per command, and turns errors into exit codes.

Exit codes: 0 a patch was selected (or the command did its work); 1 no acceptable patch; 2 wrong usage or input, nothing
started; 3 a budget of the whole run ended it before any selection; 4 the environment failed; 130 interrupted,
resumable.
"""

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

from agent.commands.options import add_options
from agent.defaults import nearest
from agent.secrets import mask
from agent.version import VERSION
from tasks.errors import InputError, TroopError

COMMANDS: Mapping[str, Any] = tomllib.loads(
    (Path(__file__).parent / "commands" / "commands.toml").read_text(encoding="utf-8")
)
"""By name. The code of each is a module of agent.commands with `execute(arguments) -> exit code`, and with
`configure(parser)` where it has options that no table can say."""

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
    for name, facts in COMMANDS.items():
        raw, summary = argparse.RawDescriptionHelpFormatter, facts["summary"]
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=raw
        )
        if name not in chosen:
            continue
        own = facts.get("as", name)
        module, facts = importlib.import_module(f"agent.commands.{own}_command"), COMMANDS[own]
        sub.epilog = facts["examples"]
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout, all else on stderr")
        if hasattr(module, "configure"):
            module.configure(sub)
        add_options(sub, *facts["options"])
        sub.set_defaults(execute=module.execute, whole=partial(parser, COMMANDS))
        often = facts.get("often")
        sub.add_argument("--help-all", action="help", help="show all options" if often else argparse.SUPPRESS)
        for action in sub._actions if often and not all_options else ():
            if action.dest not in (*often, "help", "help_all"):
                action.help = argparse.SUPPRESS
    return top, commands.choices


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
