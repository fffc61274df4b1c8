"""What works here and what is missing: the findings behind `troop doctor`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from agent.config import PROVIDERS, load_config
from harness.cache import cache_root
from harness.repository.workspace import sweep_scratch
from harness.sandbox.base import Finding, Provider
from harness.sandbox.choice import BACKENDS
from tasks.errors import EnvironmentFailed, InputError

if TYPE_CHECKING:
    from rich.table import Table

ENOUGH_GB = 5.0


async def examine() -> dict[str, list[Finding]]:
    """Findings by subject: docker, bubblewrap, tools, models, cache."""
    found: dict[str, list[Finding]] = {}
    for provider in _providers():
        try:
            found[provider.name] = await provider.findings()
        finally:
            await provider.close()
    return {**found, "tools": [_git()], "models": _models(), "cache": [_cache()]}


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


def _models() -> list[Finding]:
    try:
        config = load_config()
    except InputError as error:
        return [Finding("configuration", False, str(error), "correct the file")]
    keys = [provider.key_env for provider in PROVIDERS.values() if os.environ.get(provider.key_env)]
    aliases = ", ".join(sorted(config.aliases)) or "none"
    detail = f"aliases: {aliases}; default: {config.default_model or 'none'}; keys set: {', '.join(keys) or 'none'}"
    usable = bool(config.aliases or keys)
    fix = "" if usable else "set OPENAI_API_KEY, or use --model http://127.0.0.1:8000/v1#NAME; `repair` needs no model"
    return [Finding("models", True, detail, fix)]


def _cache() -> Finding:
    root = cache_root()
    place = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(place).free / 1e9
    writable = place.is_dir() and os.access(place, os.W_OK)
    enough = free > ENOUGH_GB and writable
    fix = "" if enough else f"set TROOP_CACHE to a directory that is writable and has {ENOUGH_GB:g} GB free"
    return Finding("cache", enough, f"{root}, {free:.0f} GB free{'' if writable else ', not writable'}", fix)


def table(groups: dict[str, list[Finding]]) -> Table:
    """The findings for a person."""
    from rich.table import Table

    shown = Table(box=None, padding=(0, 1), show_header=False)
    for column in ("subject", "ok", "finding"):
        shown.add_column(column, no_wrap=column != "finding")
    for subject, findings in groups.items():
        for number, finding in enumerate(findings):
            mark = "[green]yes[/]" if finding.ok else "[red]no[/]"
            fix = f"\n[yellow]→ {finding.fix}[/]" if finding.fix else ""
            shown.add_row(subject if number == 0 else "", mark, f"{finding.name}: {finding.detail}{fix}")
    return shown
