"""Operators on the pieces of calls, subscripts, displays and comprehensions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from agent.repair.mutation.donors import SAME_FUNCTION
from agent.repair.mutation.expressions import plain_conditions, without
from agent.repair.mutation.scope import ANY, LIST, NUMBER, TEXT, likeness
from agent.repair.mutation.site import Site
from agent.repair.mutation.source import Proposal, Source, parsed

_PARTS = {"[0]": 0.5, "[-1]": 0.5, "[1:]": 0.6, "[:-1]": 0.5, "[::-1]": 0.4, "[:]": 0.4}


def arguments(site: Site) -> Iterator[Proposal]:
    """Two arguments swapped, one left out, one put in."""
    node = site.node
    if not isinstance(node, ast.Call):
        return
    plain = [a for a in node.args if not isinstance(a, ast.Starred)]
    if len(plain) == len(node.args):
        yield from _swapped(site.source, plain, "swap-arguments")
        for at in range(len(plain)):
            yield without(site.source, plain, at, "drop-argument")
        yield from _inserted(site, node, plain)
    for keyword in node.keywords:
        others = [a for a in (*node.args, *(k.value for k in node.keywords)) if a is not keyword.value]
        if not others and keyword.arg:
            start, end = site.source.span(keyword)
            yield Proposal(start, end, "", "drop-argument")


def _swapped(source: Source, nodes: Sequence[ast.expr], operator: str) -> Iterator[Proposal]:
    for at, one in enumerate(nodes):
        for two in nodes[at + 1 :]:
            first, last = source.span(one), source.span(two)
            between = source.text[first[1] : last[0]]
            text = source.segment(two) + between + source.segment(one)
            if source.segment(one) != source.segment(two):
                yield Proposal(first[0], last[1], text, operator)


def _inserted(site: Site, node: ast.Call, plain: Sequence[ast.expr]) -> Iterator[Proposal]:
    present = {site.source.segment(a) for a in plain}
    offered = dict.fromkeys(site.things, 0.6)
    offered.update({d.text: 0.4 * d.near for d in site.pool.constants.values()})
    for constant in ("0", "1", "None"):
        offered.setdefault(constant, 0.2)
    if isinstance(node.func, ast.Name) and node.func.id == "range":
        offered = {n: f for n, f in offered.items() if site.scope.kinds.get(n, NUMBER) == NUMBER or n.isdigit()}
        offered.update({"1": 0.8, "0": 0.4})
    for text, factor in offered.items():
        if text in present:
            factor *= 0.5
        for at in range(len(plain) + 1):
            if at < len(plain):
                start = site.source.span(plain[at])[0]
                yield Proposal(start, start, f"{text}, ", "insert-argument", factor * 0.7)
            elif plain:
                end = site.source.span(plain[-1])[1]
                yield Proposal(end, end, f", {text}", "insert-argument", factor)
            elif not node.keywords:
                end = site.source.span(node)[1] - 1
                yield Proposal(end, end, text, "insert-argument", factor)


def subscripts(site: Site) -> Iterator[Proposal]:
    """Bounds left out, put in or moved to the other side; nested indices swapped; a value indexed or sliced."""
    node, source = site.node, site.source
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield from _bounds(site, node.slice)
    elif isinstance(node, ast.Subscript):
        if isinstance(node.value, ast.Subscript) and not isinstance(node.value.slice, ast.Slice):
            outer, inner = source.segment(node.slice), source.segment(node.value.slice)
            start, end = source.span(node.value.slice)[0], source.span(node.slice)[1]
            between = source.text[source.span(node.value.slice)[1] : source.span(node.slice)[0]]
            yield Proposal(start, end, f"{outer}{between}{inner}", "swap-arguments")
        if isinstance(node.slice, ast.Tuple):
            yield from _swapped(source, node.slice.elts, "swap-arguments")
        if not isinstance(node.slice, ast.Constant) and isinstance(node.ctx, ast.Load):
            start, end = source.span(node.slice)
            index = source.segment(node.slice)
            if "\n" not in index and not isinstance(node.slice, ast.Tuple):
                yield Proposal(start, end, f"{index}:", "slice", 0.4)
                yield Proposal(start, end, f":{index}", "slice", 0.4)
    if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)):
        return
    if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load) or site.place in ("func", "test", "annotation"):
        return
    kind = site.scope.kind(node)
    if kind not in (LIST, TEXT, ANY) or isinstance(site.parent, (ast.Attribute, ast.Expr)):
        return
    text, share = source.segment(node), 1.0 if kind != ANY else 0.4
    if "\n" not in text:
        for suffix, factor in _PARTS.items():
            yield site.swap(node, text + suffix, "subscript", share * factor)
        for name in site.things:
            factor = 0.5 if site.scope.kinds.get(name) == NUMBER else 0.15
            if name != text:
                yield site.swap(node, f"{text}[{name}]", "subscript", share * factor)
                yield site.swap(node, f"{text}[{name}:]", "subscript", share * factor * 0.8)
                yield site.swap(node, f"{text}[:{name}]", "subscript", share * factor * 0.8)


def _bounds(site: Site, bounds: ast.Slice) -> Iterator[Proposal]:
    start, end = site.source.span(bounds)
    if bounds.step is not None:
        return
    lower = site.source.segment(bounds.lower) if bounds.lower else ""
    upper = site.source.segment(bounds.upper) if bounds.upper else ""
    offered: dict[str, float] = {}
    if lower and upper:
        offered.update({f"{lower}:": 0.7, f":{upper}": 0.7, f"{upper}:{lower}": 0.2})
    elif lower or upper:
        bound = lower or upper
        offered[f":{bound}" if lower else f"{bound}:"] = 1.0
        offered[":"] = 0.3
    for name in (*site.names, "1", "-1"):
        if site.scope.kinds.get(name, NUMBER) == NUMBER:
            if not lower:
                offered.setdefault(f"{name}:{upper}", 0.5)
            if not upper:
                offered.setdefault(f"{lower}:{name}", 0.5)
    for text, factor in offered.items():
        yield Proposal(start, end, text, "slice", factor)


def displays(site: Site) -> Iterator[Proposal]:
    """Elements of lists, tuples and sets swapped, left out, put in; empty displays given a first element."""
    node = site.node
    if not isinstance(node, (ast.List, ast.Tuple, ast.Set)) or isinstance(getattr(node, "ctx", None), ast.Del):
        return
    elements = node.elts
    yield from _swapped(site.source, elements, "swap-operands")
    if isinstance(node, ast.Tuple) or isinstance(getattr(node, "ctx", None), ast.Store):
        return
    start = site.source.span(node)[0]
    for at in range(len(elements)):
        yield without(site.source, elements, at, "drop-element")
    offered = dict.fromkeys(site.things, 0.5)
    offered.update({"0": 0.4, "1": 0.3, "[]": 0.5, "''": 0.3, "None": 0.3, "True": 0.2})
    for text, factor in offered.items():
        if not elements:
            yield Proposal(start + 1, start + 1, text, "insert-element", factor)
        else:
            yield Proposal(start + 1, start + 1, f"{text}, ", "insert-element", 0.5 * factor)
            last = site.source.span(elements[-1])[1]
            yield Proposal(last, last, f", {text}", "insert-element", 0.5 * factor)


def comprehensions(site: Site) -> Iterator[Proposal]:
    """A filter taken out of a comprehension, or put in."""
    node, source = site.node, site.source
    if not isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        return
    for generator in node.generators:
        text, first, end = source.text, source.span(node)[0] + 1, source.span(generator.iter)[1]
        while text[end : end + 1] == ")" and text.count("(", first, end) > text.count(")", first, end):
            end += 1
        for condition in generator.ifs:
            start, stop = source.span(condition)
            word = source.text.rfind("if", end, start)
            if word > 0:
                yield Proposal(word, stop, "", "filter")
        if generator is node.generators[-1] and not generator.ifs:
            yield from _filters(site, node, end)


def _filters(site: Site, node: ast.expr, end: int) -> Iterator[Proposal]:
    inner = {n.id for g in getattr(node, "generators", []) for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    within = Site(site.source, site.node, site.scope, site.pool, (*site.names, *sorted(inner - set(site.names))))
    seen: set[str] = set()
    for donor in within.own(site.pool.conditions):
        seen.add(donor.text)
        yield Proposal(end, end, f" if {donor.text}", "filter", 0.7)
    for condition, factor in plain_conditions(within):
        if condition not in seen and any(name in condition for name in inner):
            yield Proposal(end, end, f" if {condition}", "filter", factor)


def recombined(site: Site) -> Iterator[Proposal]:
    """A call or subscript of the same function with one of its names exchanged, instead of this one."""
    node = site.node
    if not isinstance(node, (ast.Name, ast.Call, ast.Subscript, ast.Attribute)) or site.place in ("func", "annotation"):
        return
    if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load) or isinstance(site.parent, ast.Expr):
        return
    kind, text = site.scope.kind(node), site.source.segment(node)
    for donor in site.pool.expressions.values():
        if donor.near != SAME_FUNCTION or donor.shape not in ("Call", "Subscript", "BinOp") or len(donor.text) > 30:
            continue
        alike = likeness(kind, donor.kind)
        for changed in renamed(donor.text, site):
            if alike >= 0.6 and changed != text:
                yield site.swap(node, changed, "recombined", alike, compound=donor.shape == "BinOp")


def renamed(text: str, site: Site) -> Iterator[str]:
    """The expression or statement with one local name exchanged for another of like kind, at one occurrence."""
    tree = parsed(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in site.names and text.isascii():
            kind = site.scope.kinds.get(node.id, ANY)
            for other in site.names:
                if other != node.id and likeness(kind, site.scope.kinds.get(other, ANY)) >= 0.6:
                    yield text[: node.col_offset] + other + text[node.col_offset + len(node.id) :]


PIECE_OPERATORS = (arguments, subscripts, displays, comprehensions, recombined)
