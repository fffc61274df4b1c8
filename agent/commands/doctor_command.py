"""`troop doctor`."""

import argparse
import asyncio
import dataclasses

from agent.commands.portrait_view import FILE, as_json, portrait_view, tables
from agent.commands.progress import Progress
from agent.config import REPAIR, load_config, resolve_model
from agent.diagnosis import examine, findings_table, sweep
from agent.probe import portray
from agent.toml_file import put
from harness.sandbox.choice import BACKENDS
from harness.views.words import clean
from tasks.errors import InputError


def execute(known: argparse.Namespace) -> int:
    """Look at sandboxes, git, settings, models and the cache; exit 0 where at least one sandbox works, else 4. With
    --model: try that out; exit 0 where it can be used, else 4."""
    if known.write and not known.model:
        raise InputError("--write keeps what was found out about a model: say which, by --model NAME")
    if known.clean and known.model:
        raise InputError("--clean and --model are two things: one at a time")
    progress = Progress(quiet=False, json=known.json)
    return asyncio.run(_try_out(known, progress) if known.model else _examine(known, progress))


async def _examine(known: argparse.Namespace, progress: Progress) -> int:
    removed = await sweep() if known.clean else []
    groups = await examine()
    if not known.json:
        told = [f"removed {line}" for line in removed] or ["nothing was left behind"]
        progress.show(findings_table(groups), *(told if known.clean else ()))
    findings = {name: [dataclasses.asdict(each) for each in found] for name, found in groups.items()}
    progress.document({"findings": findings, "removed": removed})
    return 0 if any(groups[name][0].ok for name in BACKENDS) else 4


async def _try_out(known: argparse.Namespace, progress: Progress) -> int:
    if REPAIR in known.model:
        raise InputError("--model repair: it needs no server, so there is nothing to try out")
    told, code = [], 0
    for name in known.model:
        config = load_config()  # each time, for what was written for the one before
        alias = resolve_model(name, config)
        with progress.errors().status(f"trying {alias.alias}") as status:
            portrait = await portray(alias, status.update)
        written = known.write and not portrait.error
        values = tables(name, portrait, config)
        if written and values:
            put(FILE, values)
        progress.show(*portrait_view(portrait, values, written=written))
        if portrait.error:
            progress.errors().print(f"troop: {clean(portrait.error)}", markup=False, soft_wrap=True)
            code = 4
        told.append(as_json(portrait, values, written=written))
    progress.document({"models": told})
    return code
