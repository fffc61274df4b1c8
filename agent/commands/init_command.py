"""`troop init`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.errors import EndpointFailed, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from agent.config import Alias
    from agent.models.client import ModelClient

T = TypeVar("T")

EXAMPLES = """examples:
  troop init                    asks for a model, tries it, and writes ./troop.toml
  troop init < /dev/null        prints an example of troop.toml with every setting in it
"""
SHOWN_MODELS = 20
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_UNSET = {"USD": 5.0, "S": 3600.0, "K": 32, "N": 2_000_000, "T": 0.8, "NAME": "none"}
"""Examples for settings that have no value unless set, by what their option takes."""

EXAMPLE = """\
# Settings of Troop: ./troop.toml, or ~/.config/troop/config.toml for all directories. Take out the # of what you want.

# default_model = "qwen"                  # an alias, provider/name or URL, where --model is not given

# [models.qwen]                           # an alias
# base_url = "http://127.0.0.1:8000/v1"   # with name, any server; or: model = "provider/name"
# name = "Qwen/Qwen3-Coder-30B"           # what the server calls it
# key_env = "EXAMPLE_API_KEY"             # the variable that holds the key, never the key
# wire = "chat"                           # chat, responses or anthropic
# tools = true                            # false: the text protocol is used
# stream = false
# system_role = true                      # false: the system message goes into the user's first
# context = 65536                         # tokens that fit
# concurrency = 32                        # calls at once at most
# requests_per_minute = 500
# tokens_per_minute = 400000
# timeout = 600                           # seconds of one call
# longest_wait = 60                       # seconds that a server may ask to wait
# usd_per_mtok_input = 0.5                # per million tokens; or usd_per_gpu_hour = 2.0 for a GPU of your own,
# usd_per_mtok_cache_read = 0.05          # or price_name = "provider/name" for that entry of the price table
# usd_per_mtok_cache_write = 0.5
# usd_per_mtok_output = 2.0
# [models.qwen.sampling]                  # sent with every call; false: never sent
# max_tokens = 8192
# seed = false

# [defaults]                              # of the options of solve and eval
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Init has no options of its own."""


def execute(known: argparse.Namespace) -> int:
    """Ask, try one call, write; without a terminal print the example."""
    from agent.commands.progress import Progress

    progress = Progress(quiet=False, json=known.json)
    if not sys.stdin.isatty():
        if known.json:
            progress.document({"example": example()})
        else:
            sys.stdout.write(example())
        return 0
    try:
        written = _dialogue(progress.errors())
    except (EOFError, KeyboardInterrupt):
        raise KeyboardInterrupt("stopped; nothing was written") from None
    progress.document({"written": written})
    return 0


def example() -> str:
    """A troop.toml with every setting in it, commented out."""
    from operator import attrgetter

    from agent.config import Settings
    from agent.defaults import SETTINGS
    from agent.toml_lines import as_toml

    lines, built_in = [], Settings()
    for setting in SETTINGS:
        value = attrgetter(setting.place)(built_in)
        if value is None:
            value = setting.choices[0] if setting.choices else _UNSET[setting.metavar or ""]
        line = as_toml({setting.name: str(value) if isinstance(value, Path) else value}).rstrip()
        lines.append(f"# {line:<40}# {setting.help.format(whole='of the whole run')}\n")
    return EXAMPLE + "".join(lines)


def _dialogue(console: Console) -> bool:
    """Whether troop.toml was written."""
    from rich.prompt import Confirm

    from agent.commands.portrait_view import FILE, name_for, price_words
    from agent.config import load_config
    from agent.toml_lines import as_toml, put
    from harness.views.words import clean

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
    from dataclasses import replace

    from rich.prompt import Prompt

    from agent.config import PROVIDERS, Config, resolve_model
    from agent.models.contact import listed
    from harness.views.words import clean

    console.print(f"Providers: {', '.join(PROVIDERS)}\nor the URL of a server, such as http://127.0.0.1:8000/v1")
    likely = next((name for name, each in PROVIDERS.items() if os.environ.get(each.key_env)), None)
    place = Prompt.ask("Provider or URL", console=console, default=likely or "http://127.0.0.1:8000/v1").strip()
    if place in PROVIDERS:
        alias = resolve_model(f"{place}/-", Config())
    elif place.startswith(("http://", "https://")):
        alias = replace(resolve_model(f"{place}#-", Config()), alias=place)
    else:
        raise InputError(f"{place!r} is neither a provider nor a URL.")
    key_env = _variable(console, alias.key_env)
    table = {} if key_env in (None, alias.key_env) else {"key_env": key_env}
    alias = replace(alias, key_env=key_env)
    has_key = key_env is None or bool(os.environ.get(key_env))
    if not has_key:
        console.print(f"{key_env} is not set, so nothing can be tried; before you use the model: export {key_env}=...")
    names = sorted(clean(str(each["id"])) for each in _asked(alias, listed) if each.get("id")) if has_key else []
    name = _model(console, names)
    if place in PROVIDERS:
        alias = replace(resolve_model(f"{place}/{name}", Config()), key_env=key_env)
        table = {"model": f"{place}/{name}", **table}
    else:
        alias = replace(alias, alias=name, name=name)
        table = {"base_url": alias.base_url, "name": name, **table}
    if has_key:
        _try(console, alias)
    return alias, table


def _variable(console: Console, usual: str | None) -> str | None:
    """The name of the variable with the key; None for a server that takes no key."""
    from rich.prompt import Prompt

    while True:
        console.print("The environment variable that holds the key (its name: the key itself is never asked for)")
        name = Prompt.ask("Variable", console=console, default=usual or "none").strip()
        if name == "none" and usual is None:
            return None
        if _VARIABLE.fullmatch(name):
            return name
        console.print("That is no name of a variable (capital letters, digits, _). A key is not to be typed here.")


def _model(console: Console, names: list[str]) -> str:
    from rich.prompt import Prompt

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
    from agent.probe import OUTPUT
    from harness.money.ledger import Line, add_charge, money

    message = [{"role": "user", "content": "Say ok."}]
    with console.status("one call"):
        reply = _asked(
            alias, lambda client: client.complete(message, purpose="contact", attempt=None, key="init", output=OUTPUT)
        )
    charge = reply.charge
    console.print(
        f"It answers in {charge.seconds:.1f} s, {charge.usage.total} tokens, {money(add_charge(Line(), charge))}"
    )


def _asked(alias: Alias, ask: Callable[[ModelClient], Awaitable[T]]) -> T:
    import asyncio

    from agent.models.client import ModelClient, Patience
    from agent.models.connections import Connections

    async def once() -> T:
        connections = Connections()
        try:
            patience = Patience(tries=2, allowance=60.0)
            return await ask(ModelClient(alias, connections, record=lambda event: event, patience=patience))
        finally:
            await connections.close()

    return asyncio.run(once())
