"""The questions of `troop init`, and the call that tries the answers."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.prompt import Confirm, Prompt

from agent.commands.portrait_view import FILE, name_for, price_words
from agent.config import PROVIDERS, Alias, Config, load_config, resolve_model
from agent.models.client import ModelClient
from agent.models.connections import Connections
from agent.models.contact import listed
from agent.probe import OUTPUT, PATIENCE
from agent.toml_file import as_toml, put
from harness.money.ledger import Line, add_charge, money
from harness.views.words import clean
from tasks.errors import EndpointFailed, InputError

T = TypeVar("T")

LOCAL = "http://127.0.0.1:8000/v1"
SHOWN_MODELS = 20
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


def dialogue(console: Console) -> bool:
    """Whether troop.toml was written."""
    config = load_config()
    while True:
        try:
            alias, table = _chosen(console)
            break
        except (EndpointFailed, InputError) as error:
            console.print(f"{clean(str(error))}\nOnce more (Ctrl-C ends this):\n", markup=False, style="red")
    console.print(f"price: {price_words(alias)}")
    name = name_for(alias, config)
    values: dict[str, Any] = {"models": {name: table}}
    before = config.default_model
    if before is None or Confirm.ask(f"Take it where --model is not given, in place of {before}?", console=console):
        values = {"default_model": name, **values}
    console.print("\n" + as_toml(values), markup=False)
    what = f"Put this into ./{FILE}, which is there already?" if FILE.exists() else f"Write this to ./{FILE}?"
    if not Confirm.ask(what, console=console, default=True):
        console.print("nothing was written")
        return False
    put(FILE, values)
    console.print(f"written; `troop doctor --model {name} --write` finds out the rest", markup=False)
    return True


def _chosen(console: Console) -> tuple[Alias, dict[str, Any]]:
    """The model that is wanted, tried with one call where its key is there, and its table in troop.toml. Raises
    EndpointFailed and InputError for one that cannot be."""
    place = _place(console)
    usual = PROVIDERS[place].key_env if place in PROVIDERS else None
    key_env = _variable(console, usual)
    has_key = key_env is None or bool(os.environ.get(key_env))
    if not has_key:
        console.print(f"{key_env} is not set, so nothing can be tried; before you use the model: export {key_env}=...")

    def named(model: str) -> Alias:
        said = f"{place}/{model}" if place in PROVIDERS else f"{place}#{model}"
        return replace(resolve_model(said, Config()), key_env=key_env)

    listing = _asked(named("-"), listed) if has_key else ()
    name = _model(console, sorted(clean(str(each["id"])) for each in listing if each.get("id")))
    alias = named(name)
    if has_key:
        _try(console, alias)
    table = {"model": alias.alias} if place in PROVIDERS else {"base_url": alias.base_url, "name": name}
    return alias, table if key_env == usual else {**table, "key_env": key_env}


def _place(console: Console) -> str:
    """A provider's name, or a URL."""
    console.print(f"Providers: {', '.join(PROVIDERS)}\nor the URL of a server, such as {LOCAL}")
    likely = next((name for name, each in PROVIDERS.items() if os.environ.get(each.key_env)), LOCAL)
    place = Prompt.ask("Provider or URL", console=console, default=likely).strip()
    if place not in PROVIDERS and not place.startswith(("http://", "https://")):
        raise InputError(f"{place!r} is neither a provider nor a URL.")
    return place.partition("#")[0]


def _variable(console: Console, usual: str | None) -> str | None:
    """The name of the variable with the key; None for a server that takes no key."""
    while True:
        console.print("The environment variable that holds the key (its name: the key itself is never asked for)")
        name = Prompt.ask("Variable", console=console, default=usual or "none").strip()
        if name == "none" and usual is None:
            return None
        if _VARIABLE.fullmatch(name):
            return name
        console.print("That is no name of a variable (capital letters, digits, _). A key is not to be typed here.")


def _model(console: Console, names: list[str]) -> str:
    for number, name in enumerate(names[:SHOWN_MODELS], 1):
        console.print(f"  {number:>2} {name}", markup=False)
    if len(names) > SHOWN_MODELS:
        console.print(f"  and {len(names) - SHOWN_MODELS} more")
    while True:
        what = "Model (its number, or any name)" if names else "Model"
        ask = partial(Prompt.ask, what, console=console)
        said = str(ask(default=names[0]) if len(names) == 1 else ask()).strip()
        if said.isdigit() and 1 <= int(said) <= len(names):
            return names[int(said) - 1]
        if said:
            return said


def _try(console: Console, alias: Alias) -> None:
    """One call, shown."""
    message = [{"role": "user", "content": "Say ok."}]
    with console.status("one call"):
        reply = _asked(
            alias, lambda client: client.complete(message, purpose="contact", attempt=None, key="init", output=OUTPUT)
        )
    charge, cost = reply.charge, money(add_charge(Line(), reply.charge))
    console.print(f"It answers in {charge.seconds:.1f} s, {charge.usage.total} tokens, {cost}")


def _asked(alias: Alias, ask: Callable[[ModelClient], Awaitable[T]]) -> T:
    async def once() -> T:
        async with aclosing(Connections()) as connections:
            return await ask(ModelClient(alias, connections, record=lambda event: event, patience=PATIENCE))

    return asyncio.run(once())
