"""What was found out about a model, for a person and for a program."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape

from agent.config import RESERVED, Alias, Config
from agent.probe import Portrait, price_of, table_of
from agent.toml_file import as_toml
from harness.money.ledger import money
from harness.records import Json
from harness.views.picture import table
from harness.views.words import clean

FILE = Path("troop.toml")


def portrait_view(portrait: Portrait, values: Json, *, written: bool) -> Iterator[RenderableType]:
    """The table, the price, what the calls cost, and the lines for troop.toml."""
    alias = portrait.alias
    yield escape(f"{alias.name} at {alias.base_url}, spoken to by {portrait.wire}")
    if portrait.trials:
        shown = table("tried…", "what came of it", "Troop")
        for trial in portrait.trials:
            shown.add_row(*(escape(clean(text)) for text in (trial.tried, trial.found, trial.does)))
        yield shown
    if not portrait.cost.calls and portrait.error:
        return
    yield f"price: {price_words(alias)}"
    calls, usage = portrait.cost.calls + portrait.cost.unanswered, portrait.cost.usage
    out = usage.output + usage.reasoning
    yield f"these {calls} calls: {money(portrait.cost)}, {usage.total - out:,} tokens in, {out:,} out"
    if portrait.error:
        return
    if values:
        yield f"written to {FILE}:\n" if written else "for troop.toml (--write puts it there):\n"
        yield escape(as_toml(values))
    else:
        yield "troop.toml says all that is needed"


def price_words(alias: Alias) -> str:
    """The price that is used and where it is from."""
    price = price_of(alias)
    if price["gpu_hour"] is not None:
        return f"${price['gpu_hour']:g} per hour of the GPU, from the alias"
    if price["input"] is None:
        return "unknown; give usd_per_mtok_input and usd_per_mtok_output in the alias, or --max-usd cannot hold"
    cached = "" if price["cache_read"] in (None, price["input"]) else f", ${price['cache_read']:g} cached"
    source = "the alias" if price["source"] == "alias" else price["source"]
    return f"${price['input']:g} in{cached}, ${price['output']:g} out per million tokens, from {source}"


def tables(said: str, portrait: Portrait, config: Config) -> Json:
    """What ./troop.toml should say for the model that somebody called `said`; nothing where it says it already."""
    name = said if said in config.aliases else name_for(portrait.alias, config)
    known = config.aliases.get(name)
    if known is not None and not portrait.settings:
        return {}
    # An alias of the user's own file comes here whole, for the nearer file's holds.
    near = tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    own = {} if name in near.get("models", {}) else table_of(name if known else said, known or portrait.alias)
    sampling = {**own.get("sampling", {}), **portrait.settings.get("sampling", {})}
    return {"models": {name: {**own, **portrait.settings, **({"sampling": sampling} if sampling else {})}}}


def name_for(alias: Alias, config: Config) -> str:
    """The name of an alias for this model: of one that there is, else a new one after the model's own."""
    same = {n for n, a in config.aliases.items() if (a.base_url, a.name) == (alias.base_url, alias.name)}
    plain = re.sub(r"[^a-z0-9_-]+", "-", alias.name.rpartition("/")[2].lower()).strip("-") or "model"
    taken = {*config.aliases, *RESERVED}
    new = (n for n in (plain, *(f"{plain}-{k}" for k in range(2, len(taken) + 3))) if n not in taken)
    return min(same, default=None) or next(new)


def as_json(portrait: Portrait, values: Json, *, written: bool) -> Json:
    """The same as data."""
    return {
        "model": portrait.alias.alias,
        "name": portrait.alias.name,
        "base_url": portrait.alias.base_url,
        "wire": portrait.wire,
        "usable": not portrait.error,
        "error": portrait.error or None,
        "trials": [dataclasses.asdict(trial) for trial in portrait.trials],
        "price": price_of(portrait.alias),
        "cost": portrait.cost.to_json(),
        "settings": portrait.settings,
        "troop_toml": as_toml(values) if values else "",
        "written": written,
    }
