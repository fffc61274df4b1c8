"""`troop completion SHELL`."""

import argparse
import sys

_PATHS = ("FILE", "DIR", "RUN", "SOURCE", "RUN|DIR", "SUITE|TASK")


def execute(known: argparse.Namespace) -> int:
    """Print the functions for the shell; to complete with them starts no process."""
    import shtab

    top, commands = known.whole()
    for action in (action for command in commands.values() for action in command._actions):
        if action.metavar in _PATHS:
            vars(action)["complete"] = shtab.FILE
    sys.stdout.write(shtab.complete(top, known.shell))
    return 0
