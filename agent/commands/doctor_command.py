"""`troop doctor`."""

from __future__ import annotations

import argparse

from harness.sandbox.choice import BACKENDS

EXAMPLES = """examples:
  troop doctor
  troop doctor --clean      remove what killed processes left behind
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of doctor."""
    parser.add_argument("--clean", action="store_true", help="remove containers, mounts and trees of dead processes")


def execute(known: argparse.Namespace) -> int:
    """Look at sandboxes, git, models and the cache; exit 0 where at least one sandbox works, else 4."""
    import asyncio

    return asyncio.run(_examine(known))


async def _examine(known: argparse.Namespace) -> int:
    import dataclasses

    from agent.commands.progress import Progress
    from agent.diagnosis import examine, sweep, table

    progress = Progress(quiet=False, json=known.json)
    removed = await sweep() if known.clean else []
    groups = await examine()
    if not known.json:
        progress.show(table(groups))
        for line in removed:
            progress.show(f"removed {line}")
        if known.clean and not removed:
            progress.show("nothing was left behind")
    progress.document(
        {
            "findings": {name: [dataclasses.asdict(f) for f in found] for name, found in groups.items()},
            "removed": removed,
        }
    )
    return 0 if any(groups[name][0].ok for name in BACKENDS) else 4
