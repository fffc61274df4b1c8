"""Operators that put another value in an expression's place: constants, names, fields, donors, parts and wrappings."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from agent.repair.mutation.scope import ANY, CALLABLE, LIST, MAP, NUMBER, SET, TEXT, TRUTH, likeness
from agent.repair.mutation.site import BUILTINS, LOOSE, Site, is_condition, is_value
from agent.repair.mutation.source import Proposal


def _families(names: str) -> tuple[tuple[str, ...], ...]:
    """Names that stand in for one another, between two bars."""
    return tuple(tuple(family.split()) for family in names.split("|"))


_METHOD_FAMILIES = _families(
    "append extend insert appendleft | add update discard remove | pop popleft remove | find rfind index | "
    "strip lstrip rstrip | lower upper casefold | get setdefault pop | keys values items | startswith endswith | "
    "split rsplit splitlines partition rpartition | union intersection difference symmetric_difference | "
    "issubset issuperset isdisjoint | match search fullmatch findall | isdigit isalpha isalnum isnumeric isdecimal | "
    "encode decode | read readline readlines | error warning | ljust rjust center"
)
_FUNCTION_FAMILIES = _families(
    "min max sum | any all | list set tuple sorted frozenset | int float round str | range enumerate | str repr | "
    "isinstance issubclass | dict list set | floor ceil | getattr hasattr | zip enumerate | abs int"
)
_WRAPPERS = {
    NUMBER: "abs int str range",
    TEXT: "len str int list",
    LIST: "len list sorted reversed set enumerate tuple sum",
    SET: "len sorted list",
    MAP: "len list sorted dict",
    ANY: "len list str set sorted int",
}
_PLACES = ("Subscript", "Attribute")
_TERMS = {NUMBER: "+ - * // %", LIST: "+", TEXT: "+", SET: "| - &", ANY: "+ - *"}


def constants(site: Site) -> Iterator[Proposal]:
    """Numbers one off, zero and one, the other truth value, constants that stand elsewhere."""
    node = site.node
    if not isinstance(node, ast.Constant) or isinstance(site.parent, (ast.Expr, ast.JoinedStr, ast.FormattedValue)):
        return
    value, offered = node.value, dict[str, float]()
    if isinstance(value, bool):
        offered[str(not value)] = 1.0
        offered["None"] = 0.2
    elif isinstance(value, int) and value.bit_length() < 1000:  # one of 5,000 digits cannot be written
        offered.update({str(value + 1): 1.0, str(value - 1): 1.0})
        for other, factor in (("0", 0.8), ("1", 0.8), ("2", 0.4), ("-1", 0.3), ("None", 0.1)):
            offered.setdefault(other, factor)
        offered.setdefault(str(-value), 0.3)
    elif isinstance(value, float):
        offered.update({str(-value): 0.5, "0": 0.4, "1": 0.4})
    elif isinstance(value, str):
        offered.update({"''": 0.4, "None": 0.3})
    elif value is None:
        offered.update({"[]": 0.4, "0": 0.4, "''": 0.3, "False": 0.4, "True": 0.3, "{}": 0.2})
    kind = site.scope.kind(node)
    for donor in site.pool.constants.values():
        offered.setdefault(donor.text, 0.6 * donor.near * likeness(kind, donor.kind))
    offered.pop(site.source.segment(node), None)
    for text, factor in offered.items():
        yield site.swap(node, text, "constant", factor)
    if site.place in ("annotation", "returns", "test"):
        return
    for name in site.names:
        yield site.swap(node, name, "constant-to-name", likeness(kind, site.scope.kinds.get(name, ANY)))
    for donor in site.own(site.pool.expressions):
        factor = 0.5 * likeness(kind, donor.kind)
        yield site.swap(node, donor.text, "constant-to-name", factor, compound=donor.shape in LOOSE)


def variables(site: Site) -> Iterator[Proposal]:
    """Another name in scope instead of this one."""
    node = site.node
    if not isinstance(node, ast.Name) or isinstance(node.ctx, ast.Del):
        return
    called = isinstance(site.parent, ast.Call) and site.place == "func"
    if called:
        yield from _other_functions(site, node.id, site.pool.callees, _FUNCTION_FAMILIES, "callee")
        return
    if node.id in site.scope.outer or node.id in BUILTINS:
        kind = site.scope.kind(node)
        others = [*site.scope.outer, *site.names]
    else:
        kind, others = site.scope.kinds.get(node.id, ANY), list(site.names)
    for other in others:
        if other != node.id:
            kind_there = site.scope.kinds.get(other, site.scope.outer.get(other, ANY))
            yield site.swap(node, other, "variable", likeness(kind, kind_there))


def _other_functions(
    site: Site, name: str, near: dict[str, float], families: tuple[tuple[str, ...], ...], operator: str
) -> Iterator[Proposal]:
    offered: dict[str, float] = {}
    for family in families:
        if name in family:
            offered.update(dict.fromkeys(family, 1.0))
    for other, share in near.items():
        offered.setdefault(other, 0.5 * share)
    if operator == "callee":
        for other in (*site.scope.outer, *site.names):
            kind = site.scope.kinds.get(other, site.scope.outer.get(other, ANY))
            offered.setdefault(other, 0.4 if kind == CALLABLE else 0.05)
    offered.pop(name, None)
    end = site.source.span(site.node)[1]
    for other, factor in offered.items():
        yield Proposal(end - len(name), end, other, operator, factor)


def attributes(site: Site) -> Iterator[Proposal]:
    """Another method or field name; the object itself instead of its field; a field of an object."""
    node = site.node
    if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Del):
        return
    called = isinstance(site.parent, ast.Call) and site.place == "func"
    near = site.pool.methods if called else site.pool.fields
    yield from _other_functions(site, node.attr, near, _METHOD_FAMILIES if called else (), "attribute")
    if not called and isinstance(node.ctx, ast.Load):
        yield site.swap(node, site.source.segment(node.value), "drop-attribute")


def fields(site: Site) -> Iterator[Proposal]:
    """A field of the value instead of the value: fields that the same function reads."""
    node = site.node
    if not is_value(site) or not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        return
    if site.scope.kind(node) != ANY:
        return
    for name, near in site.pool.fields.items():
        if near >= 0.3:
            yield site.swap(node, f"{site.source.segment(node)}.{name}", "add-attribute", near)


def terms(site: Site) -> Iterator[Proposal]:
    """A term added: the value combined with a name at hand or an expression of the same function."""
    node = site.node
    others = (ast.Compare, ast.BoolOp, ast.Lambda, ast.GeneratorExp)
    if not is_value(site) or isinstance(node, others) or is_condition(site):
        return
    if isinstance(site.parent, ast.BinOp) and isinstance(node, ast.BinOp):
        return
    kind, text = site.scope.kind(node), site.source.segment(node)
    if kind == TRUTH or "\n" in text or (isinstance(node, ast.Constant) and kind != NUMBER):
        return
    operands = {name: likeness(kind, site.scope.kinds.get(name, ANY)) for name in site.names}
    for donor in site.own(site.pool.expressions):
        if donor.kind != TRUTH and donor.shape not in LOOSE:
            operands.setdefault(donor.text, 0.5 * likeness(kind, donor.kind))
    for operand, factor in operands.items():
        if factor >= 0.3 and site.scope.kinds.get(operand) != CALLABLE:
            for at, symbol in enumerate(_TERMS.get(kind, "").split()):
                yield site.swap(node, f"{text} {symbol} {operand}", "add-term", factor / (1 + at), compound=True)
                if symbol == "+" and kind != NUMBER:
                    yield site.swap(node, f"{operand} + {text}", "add-term", factor / 2, compound=True)


def donors(site: Site) -> Iterator[Proposal]:
    """Another expression of the repository instead of this one: near ones, of the same kind and shape, first."""
    node = site.node
    if not is_value(site) or isinstance(node, ast.Constant):
        return
    kind, shape, text = site.scope.kind(node), type(node).__name__, site.source.segment(node)
    offered = []
    for donor in (*site.pool.expressions.values(), *site.pool.constants.values()):
        if donor.text != text and site.fits(donor):
            alike = likeness(kind, donor.kind) * (1.0 if donor.shape == shape else 0.6) * donor.near
            offered.append((alike, donor))
    offered.sort(key=lambda pair: -pair[0])
    for alike, donor in offered[:60]:
        yield site.swap(node, donor.text, "donor", alike, compound=donor.shape in LOOSE)
    if not isinstance(node, ast.Name):
        for name in site.names:
            factor = 0.7 * likeness(kind, site.scope.kinds.get(name, ANY))
            yield site.swap(node, name, "donor", factor)


def targets(site: Site) -> Iterator[Proposal]:
    """Another place assigned to: an element, a field or a name that the same function reads or assigns."""
    node = site.node
    if not isinstance(node, (ast.Subscript, ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Store):
        return
    if not isinstance(site.parent, (ast.Assign, ast.AugAssign, ast.Tuple)):
        return
    text, shape = site.source.segment(node), type(node).__name__
    for donor in site.own(site.pool.expressions):
        if donor.text != text and donor.shape in _PLACES:
            yield site.swap(node, donor.text, "target", 1.0 if donor.shape == shape else 0.4)
    if not isinstance(node, ast.Name):
        for name in site.names:
            yield site.swap(node, name, "target", 0.3 if site.scope.kinds.get(name) != CALLABLE else 0.0)


def parts(site: Site) -> Iterator[Proposal]:
    """A part of the expression instead of the whole: a call's argument, a subscripted value, one arm of a choice."""
    node, source = site.node, site.source
    if not is_value(site):
        return
    match node:
        case ast.Call(func=func, args=args):
            for argument in args:
                if not isinstance(argument, ast.Starred):
                    yield site.swap(node, source.segment(argument), "unwrap", compound=True)
            if isinstance(func, ast.Attribute):
                yield site.swap(node, source.segment(func.value), "unwrap", 0.7)
        case ast.Subscript(value=value):
            yield site.swap(node, source.segment(value), "unwrap")
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield site.swap(node, source.segment(body), "unwrap", compound=True)
            yield site.swap(node, source.segment(orelse), "unwrap", compound=True)
            one, two, asked = source.segment(body), source.segment(orelse), source.segment(test)
            yield site.swap(node, f"{two} if {asked} else {one}", "swap-operands", compound=True)


def wrappers(site: Site) -> Iterator[Proposal]:
    """The value passed through a call that the repository or the language offers for its kind; made an element."""
    node = site.node
    if not is_value(site) or isinstance(node, (ast.Compare, ast.BoolOp, ast.Lambda, ast.Constant)):
        return
    text = site.source.segment(node)
    if "\n" in text or is_condition(site):
        return
    kind = site.scope.kind(node)
    usual = _WRAPPERS.get(kind, "").split()
    offered = {name: 0.5 * near for name, near in site.pool.wrappers.items()}
    offered.update(dict.fromkeys(usual, 0.4 if kind != ANY else 0.2))
    for name in offered:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name):
            factor = max(offered[name], 0.8 if name in site.pool.wrappers and name in usual else 0.0)
            yield site.swap(node, f"{name}({text})", "wrap", factor)
    yield site.swap(node, f"[{text}]", "wrap", 0.3)
    if kind in (NUMBER, ANY):
        limits = {name: likeness(NUMBER, site.scope.kinds.get(name, ANY)) for name in site.names}
        for limit, factor in {"0": 0.8, "1": 0.4, **limits}.items():
            if limit != text and factor >= 0.4 and site.scope.kinds.get(limit) != CALLABLE:
                share = 1.0 if isinstance(site.parent, (ast.Assign, ast.Return, ast.AugAssign)) else 0.3
                for function in ("max", "min"):
                    yield site.swap(node, f"{function}({limit}, {text})", "clamp", factor * share)
    if kind in (TEXT, ANY):
        for method in ("lower", "strip", "copy"):
            yield site.swap(node, f"{text}.{method}()", "wrap", 0.5 if method in site.pool.methods else 0.1)


VALUE_OPERATORS = (constants, variables, attributes, fields, terms, donors, targets, parts, wrappers)
