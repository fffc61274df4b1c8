"""What works here and what is missing: the findings behind `troop doctor`."""

import asyncio
import contextlib
import os
import shutil

from rich.markup import escape
from rich.table import Table

from agent.config import PROVIDERS, REPAIR, load_config, resolve_model
from agent.models.connections import Connections
from agent.probe import look
from harness.cache import cache_root
from harness.repository.workspace import sweep_scratch
from harness.sandbox.base import Finding, Provider
from harness.sandbox.choice import BACKENDS
from harness.views.picture import table
from harness.views.words import clean
from tasks.errors import EndpointFailed, EnvironmentFailed, InputError

ENOUGH_GB = 5.0


async def examine() -> dict[str, list[Finding]]:
    """Findings by subject: docker, bubblewrap, tools, settings (that are not built in), models, cache."""
    found: dict[str, list[Finding]] = {}
    for provider in _providers():
        try:
            found[provider.name] = await provider.findings()
        finally:
            await provider.close()
    return {**found, "tools": [_git()], **await _configuration(), "cache": [_cache()]}


async def sweep() -> list[str]:
    """Remove what dead processes left, in the cache and in every backend that answers; what was removed."""
    removed = sweep_scratch(cache_root())
    for provider in _providers():
        try:
            removed += await provider.clean()
        except EnvironmentFailed:
            continue  # a backend that is not here has nothing to clean; `examine` says that it is missing
        finally:
            await provider.close()
    return removed


def _providers() -> list[Provider]:
    return [backend.open(cache_root(), None) for backend in BACKENDS.values()]


def _git() -> Finding:
    there = shutil.which("git")
    return Finding("git", there is not None, there or "not found", "" if there else "apt-get install git")


async def _configuration() -> dict[str, list[Finding]]:
    """What is set, and by what; then the default model and every alias: key and endpoint, free of charge."""
    try:
        config = load_config()
        default = config.default_model
        asked = {**config.aliases}
        if default and default not in (*asked, REPAIR):
            asked[default] = resolve_model(default, config)
    except (InputError, EndpointFailed) as error:
        return {"settings": [], "models": [Finding("configuration", False, str(error), "correct that")]}
    settings = [Finding(name, True, f"{value}, from {source}") for name, (value, source) in config.defaults.items()]
    keys = [provider.key_env for provider in PROVIDERS.values() if os.environ.get(provider.key_env)]
    files = ", ".join(map(str, config.files)) or "none"
    said = f"files: {files}; default model: {default or 'none'}; keys set: {', '.join(keys) or 'none'}"
    fix = "" if asked or keys else "troop init sets up a model; `repair` needs none"
    async with contextlib.aclosing(Connections()) as connections:
        order = sorted(asked, key=lambda name: (name != default, name))
        found = await asyncio.gather(*(look(asked[name], connections) for name in order))
    return {"settings": settings, "models": [Finding("configuration", True, said, fix), *found]}


def _cache() -> Finding:
    root = cache_root()
    place = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(place).free / 1e9
    writable = place.is_dir() and os.access(place, os.W_OK)
    enough = free > ENOUGH_GB and writable
    fix = "" if enough else f"set TROOP_CACHE to a directory that is writable and has {ENOUGH_GB:g} GB free"
    return Finding("cache", enough, f"{root}, {free:.0f} GB free{'' if writable else ', not writable'}", fix)


def findings_table(groups: dict[str, list[Finding]]) -> Table:
    """The findings for a person."""
    shown = table("…", "…", "")
    shown.show_header = False
    for subject, findings in groups.items():
        for number, finding in enumerate(findings):
            mark = "[green]yes[/]" if finding.ok else "[red]no[/]"
            fix = f"\n[yellow]→ {escape(finding.fix)}[/]" if finding.fix else ""
            said = escape(clean(f"{finding.name}: {finding.detail}"))
            shown.add_row(subject if number == 0 else "", mark, said + fix)
    return shown
