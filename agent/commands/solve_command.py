"""`troop solve SOURCE`."""

import argparse

from agent.commands.options import settings_of, task_of
from tasks.errors import InputError


def execute(known: argparse.Namespace) -> int:
    """Solve, print the result, grade and apply where asked."""
    from agent.commands.conclude import check_wishes, once_more, solved
    from agent.commands.progress import Progress

    instance, earlier = None, None
    if known.again is not None:
        known.source, instance, earlier = once_more(known)
    elif known.source is None or known.note or known.show:
        said = "--note and --show go with --again" if known.source else "SOURCE is missing: say what to solve"
        raise InputError(f"{said} (see `troop solve --help`)")
    settings = settings_of(known, earlier)
    with Progress(quiet=known.quiet, json=known.json, log=known.log) as progress:
        instance = task_of(known, known.source, progress.say, instance)
        if known.dry_run:
            from agent.commands.pricing import solve_forecast, solve_forecast_view

            check_wishes(instance, known)
            expected = solve_forecast(instance.task, settings, progress.say)
            progress.show(*([] if known.json else solve_forecast_view(expected)))
            progress.document(expected)
            return 0
        return solved(known, known.source, instance, settings, progress)
