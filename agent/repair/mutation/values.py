"""Operators that put another value in an expression's place: constants, names, fields, donors, and combinations; the
pieces of calls and subscripts; pieces of the function with one name exchanged."""

import ast
from collections.abc import Iterator, Mapping
from itertools import combinations

from agent.repair.mutation.expressions import swapped
from agent.repair.mutation.scope import ANY, CALLABLE, LIKELY, LIST, NUMBER, TEXT, TRUTH, likeness
from agent.repair.mutation.site import BUILTINS, LOOSE, Site, is_condition, is_value
from agent.repair.mutation.source import Proposal, parsed

_FAMILIES = [family.split() for family in LIKELY["families"]]
"""Methods and functions that stand in for one another."""


def constants(site: Site) -> Iterator[Proposal]:
    """Numbers one off, zero and one, the other truth value, constants that stand elsewhere; a name or an expression."""
    node = site.node
    if not isinstance(node, ast.Constant) or isinstance(site.parent, (ast.Expr, ast.JoinedStr, ast.FormattedValue)):
        return
    value, offered = node.value, dict[str, float]()
    if isinstance(value, bool):
        offered[str(not value)] = 1.0
    elif isinstance(value, int) and value.bit_length() < 1000:  # one of 5,000 digits cannot be written
        offered.update({str(value + 1): 1.0, str(value - 1): 1.0})
    for other, factor in LIKELY["constants"].get(type(value).__name__, {}).items():
        offered.setdefault(other, factor)
    kind = site.scope.kind(node)
    for donor in site.pool.constants.values():
        offered.setdefault(donor.text, 0.6 * donor.near * likeness(kind, donor.kind))
    offered.pop(site.text, None)
    for text, factor in offered.items():
        yield site.swap(text, "constant", factor)
    if site.place in ("annotation", "returns", "test"):
        return
    for name in site.names:
        yield site.swap(name, "constant-to-name", likeness(kind, site.scope.of(name)))
    for donor in site.own(site.pool.expressions):
        yield site.take(donor, "constant-to-name", 0.5 * likeness(kind, donor.kind))


def variables(site: Site) -> Iterator[Proposal]:
    """Another name in scope instead of this one."""
    node, scope = site.node, site.scope
    if not isinstance(node, ast.Name) or isinstance(node.ctx, ast.Del):
        return
    foreign = node.id in scope.outer or node.id in BUILTINS
    others = [*(scope.outer if foreign or site.called else ()), *site.names]
    if site.called:
        offered = {name: 0.4 if scope.of(name) == CALLABLE else 0.05 for name in others}
        yield from _other_names(site, node.id, "callee", offered | _near(node.id, site.pool.callees))
        return
    for other in others:
        if other != node.id:
            yield site.swap(other, "variable", likeness(scope.kind(node), scope.of(other)))


def attributes(site: Site) -> Iterator[Proposal]:
    """Another method or field name."""
    node = site.node
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Del):
        near = site.pool.methods if site.called else site.pool.fields
        yield from _other_names(site, node.attr, "attribute", _near(node.attr, near))


def _near(name: str, near: Mapping[str, float]) -> dict[str, float]:
    """Names that the program uses in this way, and those of the name's families, with their weights."""
    family = {other: 1.0 for family in _FAMILIES if name in family for other in sorted(family)}
    return {other: 0.5 * share for other, share in near.items()} | family


def _other_names(site: Site, name: str, operator: str, offered: Mapping[str, float]) -> Iterator[Proposal]:
    """Names in place of the one at the node's end."""
    end = site.source.span(site.node)[1]
    for other, factor in offered.items():
        if other != name:
            yield Proposal(end - len(name), end, other, operator, factor)


def terms(site: Site) -> Iterator[Proposal]:
    """A term added: the value combined with a name at hand or an expression of the same function."""
    node = site.node
    others = (ast.Compare, ast.BoolOp, ast.Lambda, ast.GeneratorExp)
    if not is_value(site) or isinstance(node, others) or is_condition(site):
        return
    kind, text = site.scope.kind(node), site.text
    whole = isinstance(site.parent, ast.BinOp) and isinstance(node, ast.BinOp)
    if whole or kind == TRUTH or "\n" in text or (isinstance(node, ast.Constant) and kind != NUMBER):
        return
    operands = {name: likeness(kind, site.scope.of(name)) for name in site.things}
    for donor in site.own(site.pool.expressions):
        if donor.kind != TRUTH and donor.shape not in LOOSE:
            operands.setdefault(donor.text, 0.5 * likeness(kind, donor.kind))
    for operand, factor in operands.items():
        if factor >= 0.3:
            for at, symbol in enumerate(LIKELY["terms"].get(kind, "").split()):
                yield site.swap(f"{text} {symbol} {operand}", "add-term", factor / (1 + at), compound=True)
            if kind in (LIST, TEXT, ANY):
                yield site.swap(f"{operand} + {text}", "add-term", factor / 2, compound=True)


def donors(site: Site) -> Iterator[Proposal]:
    """Another expression of the repository instead of this one: near ones, of the same kind and shape, first."""
    node = site.node
    if not is_value(site) or isinstance(node, ast.Constant):
        return
    kind, shape, text = site.scope.kind(node), type(node).__name__, site.text
    offered = []
    for donor in (*site.pool.expressions.values(), *site.pool.constants.values()):
        if donor.text != text and site.fits(donor):
            alike = likeness(kind, donor.kind) * (1.0 if donor.shape == shape else 0.6) * donor.near
            offered.append((alike, donor))
    offered.sort(key=lambda pair: -pair[0])
    for alike, donor in offered[:60]:
        yield site.take(donor, "donor", alike)
    if not isinstance(node, ast.Name):
        for name in site.names:
            yield site.swap(name, "donor", 0.7 * likeness(kind, site.scope.of(name)))


def parts(site: Site) -> Iterator[Proposal]:
    """A call's argument instead of the call."""
    if isinstance(site.node, ast.Call) and is_value(site):
        for argument in site.node.args:
            yield site.swap(site.source.segment(argument), "unwrap", compound=True)


def targets(site: Site) -> Iterator[Proposal]:
    """Another place assigned to: an element or a field that the same function reads or assigns."""
    node = site.node
    if not isinstance(node, (ast.Subscript, ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Store):
        return
    if not isinstance(site.parent, (ast.Assign, ast.AugAssign, ast.Tuple)):
        return
    text, shape = site.text, type(node).__name__
    for donor in site.own(site.pool.expressions):
        if donor.text != text and donor.shape in ("Subscript", "Attribute"):
            yield site.swap(donor.text, "target", 1.0 if donor.shape == shape else 0.4)


def limits(site: Site) -> Iterator[Proposal]:
    """The value held by a bound: zero, one or a number at hand."""
    node, text = site.node, site.text if is_value(site) else ""
    if not text or isinstance(node, (ast.Compare, ast.BoolOp, ast.Lambda, ast.Constant)) or is_condition(site):
        return
    if "\n" in text or site.scope.kind(node) not in (NUMBER, ANY):
        return
    share = 1.0 if isinstance(site.parent, (ast.Assign, ast.Return, ast.AugAssign)) else 0.3
    for limit, factor in {"0": 0.8, "1": 0.4, **{n: likeness(NUMBER, site.scope.of(n)) for n in site.things}}.items():
        if limit != text and factor >= 0.4:
            for function in ("max", "min"):
                yield site.swap(f"{function}({limit}, {text})", "clamp", factor * share)


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
    for suffix, factor in LIKELY["parts"].items():
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


VALUE_OPERATORS = (constants, variables, attributes, terms, donors, parts, targets, limits)
PIECE_OPERATORS = (arguments, subscripts, recombined)
