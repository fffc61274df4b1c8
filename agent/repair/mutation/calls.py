"""Operators on the pieces of calls and subscripts, and pieces of the function with one name exchanged."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations

from agent.repair.mutation.expressions import swapped
from agent.repair.mutation.scope import ANY, LIST, NUMBER, TEXT, likeness
from agent.repair.mutation.site import LOOSE, Site
from agent.repair.mutation.source import Proposal, parsed

_PARTS = {"[0]": 0.5, "[-1]": 0.5, "[1:]": 0.6, "[:-1]": 0.5, "[::-1]": 0.4, "[:]": 0.4}


def arguments(site: Site) -> Iterator[Proposal]:
    """Two arguments, or two indices, swapped."""
    match site.node:
        case ast.Call(args=nodes) | ast.Subscript(slice=ast.Tuple(elts=nodes)):
            if not any(isinstance(node, ast.Starred) for node in nodes):
                for one, two in combinations(nodes, 2):
                    yield swapped(site, one, two, "swap-arguments")


def subscripts(site: Site) -> Iterator[Proposal]:
    """A value indexed or sliced."""
    if not _is_read(site) or site.place in ("func", "test") or isinstance(site.parent, ast.Attribute):
        return
    kind, text = site.scope.kind(site.node), site.text
    if "\n" in text or kind not in (LIST, TEXT, ANY):
        return
    share = 1.0 if kind != ANY else 0.4
    for suffix, factor in _PARTS.items():
        yield site.swap(text + suffix, "subscript", share * factor)
    for name in site.things:
        factor = 0.5 if site.scope.of(name) == NUMBER else 0.15
        if name != text:
            yield site.swap(f"{text}[{name}]", "subscript", share * factor)
            yield site.swap(f"{text}[{name}:]", "subscript", share * factor * 0.8)
            yield site.swap(f"{text}[:{name}]", "subscript", share * factor * 0.8)


def recombined(site: Site) -> Iterator[Proposal]:
    """A call or subscript of the same function with one of its names exchanged, instead of this one."""
    if not _is_read(site) or site.place == "func":
        return
    kind = site.scope.kind(site.node)
    for donor in site.own(site.pool.expressions):
        alike = likeness(kind, donor.kind)
        if alike >= 0.6 and donor.shape in ("Call", "Subscript", "BinOp") and len(donor.text) <= 30:
            for changed in renamed(donor.text, site):
                yield site.swap(changed, "recombined", alike, compound=donor.shape in LOOSE)


def _is_read(site: Site) -> bool:
    """Whether the node is a name, a field, an element or a call that is read."""
    node = site.node
    if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)) or site.place == "annotation":
        return False
    return isinstance(getattr(node, "ctx", ast.Load()), ast.Load) and not isinstance(site.parent, ast.Expr)


def renamed(text: str, site: Site) -> Iterator[str]:
    """The expression or statement with one local name exchanged for another of like kind, at one occurrence."""
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Name) and node.id in site.names and text.isascii():
            kind = site.scope.of(node.id)
            for other in site.names:
                if other != node.id and likeness(kind, site.scope.of(other)) >= 0.6:
                    yield text[: node.col_offset] + other + text[node.col_offset + len(node.id) :]


PIECE_OPERATORS = (arguments, subscripts, recombined)
