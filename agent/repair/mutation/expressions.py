"""Operators that change what is done with operands: relations, arithmetic, logic, conditions, off by one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace

from agent.repair.mutation.scope import ANY, CALLABLE, LIST, MAP, NUMBER, SET, TEXT, TRUTH, likeness
from agent.repair.mutation.site import Site, is_condition, is_value
from agent.repair.mutation.source import Proposal, Source

_COMPARE: dict[type[ast.cmpop], tuple[tuple[str, float], ...]] = {
    ast.Lt: (("<=", 1.0), (">", 0.6), (">=", 0.4), ("!=", 0.3), ("==", 0.2)),
    ast.LtE: (("<", 1.0), (">=", 0.6), (">", 0.4), ("==", 0.3)),
    ast.Gt: ((">=", 1.0), ("<", 0.6), ("<=", 0.4), ("!=", 0.3), ("==", 0.2)),
    ast.GtE: ((">", 1.0), ("<=", 0.6), ("<", 0.4), ("==", 0.3)),
    ast.Eq: (("!=", 0.8), ("<=", 0.6), (">=", 0.6), ("<", 0.3), (">", 0.3), ("in", 0.2), ("is", 0.1)),
    ast.NotEq: (("==", 0.8), ("<", 0.6), (">", 0.6), ("<=", 0.3), (">=", 0.3), ("not in", 0.2)),
    ast.In: (("not in", 1.0), ("==", 0.4)),
    ast.NotIn: (("in", 1.0), ("!=", 0.4)),
    ast.Is: (("is not", 1.0), ("==", 0.5)),
    ast.IsNot: (("is", 1.0), ("!=", 0.5)),
}
SYMBOLS = {"Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "Mod": "%", "Pow": "**"}
SYMBOLS |= {"BitAnd": "&", "BitOr": "|", "BitXor": "^", "LShift": "<<", "RShift": ">>"}
"""By the name of the node's class."""
ARITHMETIC: dict[str, tuple[tuple[str, float], ...]] = {
    "+": (("-", 1.0), ("*", 0.6), ("//", 0.2), ("|", 0.2)),
    "-": (("+", 1.0), ("*", 0.3), ("//", 0.3), ("%", 0.3)),
    "*": (("+", 0.7), ("/", 0.5), ("//", 0.6), ("**", 0.5), ("-", 0.3)),
    "/": (("//", 1.0), ("*", 0.8), ("%", 0.4), ("-", 0.2)),
    "//": (("/", 0.8), ("%", 0.8), ("*", 0.6), ("-", 0.3)),
    "%": (("//", 1.0), ("/", 0.4), ("*", 0.3)),
    "**": (("*", 1.0),),
    "&": (("|", 1.0), ("^", 0.9)),
    "|": (("&", 1.0), ("^", 0.9), ("+", 0.2)),
    "^": (("&", 1.0), ("|", 1.0), ("**", 0.4)),
    "<<": ((">>", 1.0),),
    ">>": (("<<", 1.0),),
}


def comparisons(site: Site) -> Iterator[Proposal]:
    """Other relations, one comparison operator at a time; operands the other way round."""
    node, source = site.node, site.source
    if not isinstance(node, ast.Compare):
        return
    operands = [node.left, *node.comparators]
    for at, op in enumerate(node.ops):
        start, end = source.span(operands[at])[1], source.span(operands[at + 1])[0]
        between = source.text[start:end]
        symbol = _symbol_in(between)
        for other, factor in _COMPARE[type(op)]:
            if symbol:
                yield Proposal(start, end, between.replace(symbol, other, 1), "compare", factor, group=str(at))


def _symbol_in(between: str) -> str:
    for symbol in ("not in", "is not", "<=", ">=", "==", "!=", "<", ">", "in", "is"):
        if symbol in between and "#" not in between:
            return symbol
    return ""


def arithmetic(site: Site) -> Iterator[Proposal]:
    """Other arithmetic and bit operators; swapped operands; one operand left out."""
    node, source = site.node, site.source
    if not isinstance(node, ast.BinOp):
        return
    left, right = node.left, node.right
    start, end = source.span(left)[1], source.span(right)[0]
    between, symbol = source.text[start:end], SYMBOLS.get(type(node.op).__name__, "@")
    for other, factor in ARITHMETIC.get(symbol, ()):
        if between.count(symbol) == 1:
            yield Proposal(start, end, between.replace(symbol, other), "arithmetic", factor)
    one, two = source.segment(left), source.segment(right)
    first, last = source.span(left)[0], source.span(right)[1]
    if not isinstance(node.op, ast.Mult) and one != two and source.span(node)[0] == first:
        yield Proposal(first, last, two + between + one, "swap-operands", compound=True)
    yield site.swap(node, one, "drop-operand", 1.0, compound=True)
    yield site.swap(node, two, "drop-operand", 0.8, compound=True)


def logic(site: Site) -> Iterator[Proposal]:
    """`and` for `or`, a conjunct or disjunct left out, negations put in and taken out."""
    node, source = site.node, site.source
    if isinstance(node, ast.BoolOp):
        yield from _other_connective(site, node)
        for at, part in enumerate(node.values):
            rest = [v for v in node.values if v is not part]
            if len(node.values) == 2:
                yield site.swap(node, source.segment(rest[0]), "drop-conjunct", compound=True)
            else:
                yield replace(without(source, node.values, at, "drop-conjunct"), group="list")
    elif isinstance(node, ast.UnaryOp):
        operator = "negate" if isinstance(node.op, ast.Not) else "arithmetic"
        yield site.swap(node, source.segment(node.operand), operator, compound=True)
    truth = isinstance(site.parent, (ast.Return, ast.Assign)) and site.scope.kind(node) == TRUTH
    if isinstance(node, ast.expr) and (is_condition(site) or truth) and not isinstance(node, ast.UnaryOp):
        text = source.segment(node)
        text = f"not ({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr)) else f"not {text}"
        yield site.swap(node, text, "negate", compound=True)


def absence(site: Site) -> Iterator[Proposal]:
    """Whether there is a value, and whether the value is true, asked for one another: 0, "" and [] are values."""
    node = site.node
    match node:
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as op], comparators=[ast.Constant(value=None)]):
            text = site.source.segment(left)
            if isinstance(left, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)):
                yield site.swap(node, text if isinstance(op, ast.IsNot) else f"not {text}", "absence", compound=True)
        case ast.UnaryOp(op=ast.Not(), operand=(ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call()) as asked):
            yield site.swap(node, f"{site.source.segment(asked)} is None", "absence", compound=True)
        case ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call() if is_condition(site):
            if not isinstance(site.parent, ast.UnaryOp):
                yield site.swap(node, f"{site.source.segment(node)} is not None", "absence", compound=True)


def without(source: Source, nodes: Sequence[ast.expr], at: int, operator: str) -> Proposal:
    """One of several nodes taken out, with what stands between it and the next."""
    if at + 1 < len(nodes):
        return Proposal(source.span(nodes[at])[0], source.span(nodes[at + 1])[0], "", operator)
    start = source.span(nodes[at - 1])[1] if at > 0 else source.span(nodes[at])[0]
    return Proposal(start, source.span(nodes[at])[1], "", operator)


def _other_connective(site: Site, node: ast.BoolOp) -> Iterator[Proposal]:
    word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for one, two in zip(node.values, node.values[1:], strict=False):
        start, end = site.source.span(one)[1], site.source.span(two)[0]
        between = site.source.text[start:end]
        if between.count(word) == 1:
            yield Proposal(start, end, between.replace(word, other), "boolean")


def conditions(site: Site) -> Iterator[Proposal]:
    """A condition made narrower or wider by another; replaced by another, or by a constant."""
    node, source = site.node, site.source
    if not isinstance(node, ast.expr) or site.place not in ("test", "ifs"):
        return
    text = source.segment(node)
    if "\n" in text:
        return
    for condition, factor in _added_conditions(site, text):
        yield site.swap(node, condition, "replace-condition", factor if factor >= 0.3 else 0.0, compound=True)
    if isinstance(node, ast.Constant):
        return
    inner = f"({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr, ast.Lambda)) else text
    whole = text if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else inner
    for condition, factor in _added_conditions(site, text):
        for joined, share in (
            (f"{whole} and {condition}", 1.0),
            (f"{inner if whole != text else text} or {condition}", 0.8),
            (f"{condition} and {whole}", 0.6),
            (f"{condition} or {text}", 0.6),
        ):
            yield site.swap(node, joined, "add-condition", factor * share, compound=True)
    for constant in ("True", "False"):
        yield site.swap(node, constant, "constant-condition", 1.0 if site.place == "test" else 0.5)


def _added_conditions(site: Site, text: str) -> Iterator[tuple[str, float]]:
    """Conditions of the repository that fit here, then plain ones over the names at hand."""
    seen = {text}
    for donor in site.own(site.pool.conditions):
        if donor.text not in seen:
            seen.add(donor.text)
            yield donor.text if donor.shape != "BoolOp" else f"({donor.text})", 1.0
    for condition, factor in plain_conditions(site):
        if condition not in seen:
            seen.add(condition)
            yield condition, factor


def plain_conditions(site: Site) -> Iterator[tuple[str, float]]:
    """Tests of emptiness, absence, membership and equality over local names and what is read from them."""
    things = [(name, site.scope.kinds.get(name, ANY)) for name in site.names]
    things += [(d.text, d.kind) for d in site.own(site.pool.expressions) if d.shape == "Attribute"]
    for thing, kind in things:
        if kind == CALLABLE:
            continue
        asked = 0.8 if kind in (LIST, SET, MAP) else 0.5
        yield f"not {thing}", asked
        yield thing, asked
        if kind in (ANY, MAP):
            yield f"{thing} is None", 0.4
            yield f"{thing} is not None", 0.3
        if kind in (NUMBER, ANY):
            yield f"{thing} == 0", 0.3
            yield f"{thing} > 0", 0.2
        if kind in (LIST, SET):
            yield f"len({thing}) == 1", 0.2
    for one, kind in things:
        for two, other in things:
            if one == two or CALLABLE in (kind, other):
                continue
            if kind in (LIST, SET, MAP, TEXT) and other not in (LIST, SET, MAP):
                yield f"{two} not in {one}", 0.3
                yield f"{two} in {one}", 0.3
            elif likeness(kind, other) >= 0.6 and one < two:
                yield f"{one} == {two}", 0.15
                yield f"{one} != {two}", 0.15
                if NUMBER in (kind, other):
                    yield f"{one} < {two}", 0.1
                    yield f"{two} < {one}", 0.1


def off_by_one(site: Site) -> Iterator[Proposal]:
    """One more or less: in indices, bounds, ranges and comparisons first, elsewhere where a number stands."""
    node, parent = site.node, site.parent
    others = (ast.Constant, ast.Compare, ast.BoolOp, ast.Lambda, ast.IfExp, ast.Tuple)
    if not is_value(site) or isinstance(node, others):
        return
    kind = site.scope.kind(node)
    if kind not in (NUMBER, ANY):
        return
    in_range = isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "range"
    bounds = isinstance(parent, ast.Slice) or (isinstance(parent, ast.Subscript) and site.place == "slice") or in_range
    share = 1.0 if bounds else 0.6 if isinstance(parent, ast.Compare) else 0.4
    share *= 1.0 if kind == NUMBER or bounds else 0.4
    text = site.source.segment(node)
    for change in (" + 1", " - 1"):
        yield site.swap(node, text + change, "off-by-one", share, compound=True)


EXPRESSION_OPERATORS = (comparisons, arithmetic, logic, absence, conditions, off_by_one)
