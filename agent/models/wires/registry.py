"""The wires by the name that `wire` in an alias gives them; each is imported where it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from agent.config import WIRES, Alias
from agent.models.wires.base import Wire

if TYPE_CHECKING:
    import httpx2


def open_wire(name: str, alias: Alias, pool: httpx2.AsyncClient) -> Wire:
    """The wire for the alias, by the connections of `pool`. Raises EndpointFailed where its key, or a package that the
    wire needs, is missing."""
    module, _, kind = WIRES[name].partition(":")
    return cast("Wire", getattr(import_module(module), kind)(alias, pool))
