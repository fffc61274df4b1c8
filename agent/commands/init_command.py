"""`troop init`."""

from __future__ import annotations

import argparse
import sys
from operator import attrgetter
from pathlib import Path

from agent.commands.dialogue import dialogue
from agent.commands.progress import Progress
from agent.config import Settings
from agent.defaults import SETTINGS
from agent.toml_file import as_toml

EXAMPLES = """examples:
  troop init                    asks for a model, tries it, and writes ./troop.toml
  troop init < /dev/null        prints an example of troop.toml with every setting in it
"""
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
    progress = Progress(quiet=False, json=known.json)
    if not sys.stdin.isatty():
        if known.json:
            progress.document({"example": example()})
        else:
            sys.stdout.write(example())
        return 0
    try:
        written = dialogue(progress.errors())
    except (EOFError, KeyboardInterrupt):
        raise KeyboardInterrupt("stopped; nothing was written") from None
    progress.document({"written": written})
    return 0


def example() -> str:
    """A troop.toml with every setting in it, commented out."""
    lines, built_in = [], Settings()
    for setting in SETTINGS:
        value = attrgetter(setting.place)(built_in)
        if value is None:
            value = setting.choices[0] if setting.choices else _UNSET[setting.metavar or ""]
        line = as_toml({setting.name: str(value) if isinstance(value, Path) else value}).rstrip()
        lines.append(f"# {line:<40}# {setting.help.format(whole='of the whole run')}\n")
    return EXAMPLE + "".join(lines)
