"""The settings of solving that can be chosen for good: one table for the options of the command line, the `[defaults]`
of configuration files, the `TROOP_…` variables, and what `troop doctor` and `troop init` show of them."""

import argparse
import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evidence.strength import STRENGTHS
from harness.sandbox.choice import sandbox_names
from tasks.errors import InputError
from tasks.places import expanded


def positive(text: str) -> int:
    """An argparse type: a whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def amount(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def least(text: str) -> float | str:
    """An argparse type: the least probability, 0 to 1, or how far a choice has to be shown to be right."""
    if text in STRENGTHS[:-1]:
        return text
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def switch(text: str) -> bool:
    """What a variable says of something that is on or off. Raises ValueError for neither."""
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


positive.__name__, amount.__name__, least.__name__ = (
    "whole number",
    "number",
    "number, likely, strong or proved",
)  # argparse names the type in its message

KINDS: Mapping[Callable[[str], Any], tuple[str, tuple[type, ...]]] = {
    positive: ("a whole number, 1 or more", (int,)),
    amount: ("a number above 0", (int, float)),
    least: ("a number from 0 to 1, or one of: likely, strong, proved", (int, float, str)),
    switch: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("a text", (str,)),
    expanded: ("a path", (str,)),
}
"""By what reads a setting from text: what it must be, in words, and in TOML."""

READS: Mapping[str, Callable[[str], Any]] = {"str": str, "int": positive, "float": amount, "bool": switch}
"""By the type of a field: what reads it, unless a setting says otherwise."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `name`: its key in `[defaults]`, and the option's with dashes; `place`: where it stands in
    `agent.config.Settings`, where its built-in value is, too; `read`: makes it from text. `group`: the option's, "" for
    a setting that is no option. `{whole}` in `help` is what the caps hold for."""

    name: str
    read: Callable[[str], Any]
    place: str
    help: str
    group: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"TROOP_{self.name.upper()}"

    def parsed(self, where: str, value: Any, *, toml: bool = False) -> Any:
        """What a variable's text, or a value of a TOML file, says. Raises InputError naming `where` it stands."""
        types = KINDS[self.read][1] if toml else (str,)
        try:
            if isinstance(value, types) and isinstance(value, bool) is (types == (bool,)):
                read = self.read(str(value))
                if not self.choices or read in self.choices:
                    return read
        except (ValueError, argparse.ArgumentTypeError):
            pass
        words = f"one of: {', '.join(self.choices)}" if self.choices else KINDS[self.read][0]
        raise InputError(f"{where} must be {words}, not {value!r}")


def _setting(name: str, facts: dict[str, Any]) -> Setting:
    """A setting by its table in settings.toml."""
    choices = tuple(facts.pop("choices", sandbox_names() if name == "sandbox" else ()))
    return Setting(name, READERS[facts.pop("read")], choices=choices, **facts)


READERS: Mapping[str, Callable[[str], Any]] = {
    **{"count": positive, "amount": amount, "least": least, "switch": switch},
    **{"int": int, "float": float, "str": str, "path": expanded},
}
_FACTS = (Path(__file__).parent / "settings.toml").read_text(encoding="utf-8")
SETTINGS = tuple(_setting(name, facts) for name, facts in tomllib.loads(_FACTS).items())
BY_NAME = {setting.name: setting for setting in SETTINGS}
MODEL_VARIABLE = "TROOP_MODEL"
"""Stands for `default_model`."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """What was probably meant by a mistyped word, as a question; empty where nothing is like it."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def from_table(path: object, table: Any) -> dict[str, Any]:
    """What `[defaults]` of a file says. Raises InputError naming file and key."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: defaults must be a table")
    for key in table.keys() - BY_NAME.keys():
        meant = "; say default_model = above [defaults]" if "model" in key else nearest(key, BY_NAME)
        raise InputError(f"{path}: unknown key defaults.{key}{meant or '; known: ' + ', '.join(BY_NAME)}")
    return {key: BY_NAME[key].parsed(f"{path}: defaults.{key}", value, toml=True) for key, value in table.items()}


def from_variables() -> dict[str, Any]:
    """What the `TROOP_…` variables say. Raises InputError naming the variable, also for one that is nearly one of
    these; `TROOP_…` variables of other kinds are left alone."""
    known = [*(setting.variable for setting in SETTINGS), MODEL_VARIABLE]
    for name in os.environ:
        if name.startswith("TROOP_") and name not in known and (meant := nearest(name, known, 0.9)):
            raise InputError(f"there is no variable {name}{meant}")
    given = {setting: os.environ.get(setting.variable, "").strip() for setting in SETTINGS}
    return {each.name: each.parsed(f"the variable {each.variable}", text) for each, text in given.items() if text}
