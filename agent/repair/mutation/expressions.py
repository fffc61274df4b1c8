"""Operators that change what is done with operands: relations, arithmetic, logic, conditions, off by one."""

import ast
from collections.abc import Iterator, Mapping
from itertools import pairwise, permutations

from agent.repair.mutation.scope import ANY, LIKELY, LIST, MAP, NUMBER, SET, TEXT, likeness
from agent.repair.mutation.site import Site, is_condition, is_value
from agent.repair.mutation.source import Proposal

_SIGNS: Mapping[str, str] = LIKELY["signs"]
_ALTERNATIVES: Mapping[str, Mapping[str, float]] = LIKELY["alternatives"]


def exchanged(site: Site, one: ast.expr, op: ast.AST, two: ast.expr, operator: str) -> Iterator[Proposal]:
    """Other signs or words for the one between two nodes."""
    start, end = site.source.span(one)[1], site.source.span(two)[0]
    between, symbol = site.source.text[start:end], _SIGNS.get(type(op).__name__, "@")
    if between.count(symbol) == 1 and "#" not in between:
        for other, factor in _ALTERNATIVES.get(symbol, {}).items():
            yield Proposal(start, end, between.replace(symbol, other), operator, factor, group=str(start))


def swapped(site: Site, one: ast.expr, two: ast.expr, operator: str, *, compound: bool = False) -> Proposal:
    """Two nodes in each other's place."""
    source = site.source
    (start, stop), (begin, end) = source.span(one), source.span(two)
    text = source.segment(two) + source.text[stop:begin] + source.segment(one)
    return Proposal(start, end, text, operator, compound=compound)


def relations(site: Site) -> Iterator[Proposal]:
    """Other relations, arithmetic and bit operators, `and` for `or`; swapped operands; one operand left out."""
    node, source = site.node, site.source
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            for one, op, two in zip((left, *others), ops, others, strict=False):
                yield from exchanged(site, one, op, two, "compare")
        case ast.BinOp(left=left, op=op, right=right):
            yield from exchanged(site, left, op, right, "arithmetic")
            if not isinstance(op, ast.Mult) and source.span(node)[0] == source.span(left)[0]:
                yield swapped(site, left, right, "swap-operands", compound=True)
            yield site.swap(source.segment(left), "drop-operand", 1.0, compound=True)
            yield site.swap(source.segment(right), "drop-operand", 0.8, compound=True)
        case ast.BoolOp(op=op, values=values):
            for one, two in pairwise(values):
                yield from exchanged(site, one, op, two, "boolean")
            for part in values:
                rest = (source.segment(value) for value in values if value is not part)
                yield site.swap(f" {_SIGNS[type(op).__name__]} ".join(rest), "drop-conjunct", compound=True)
        case ast.UnaryOp(op=op, operand=operand):
            operator = "negate" if isinstance(op, ast.Not) else "arithmetic"
            yield site.swap(source.segment(operand), operator, compound=True)


def absence(site: Site) -> Iterator[Proposal]:
    """Whether there is a value, and whether the value is true, asked for one another: 0, "" and [] are values."""
    match site.node:
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as op], comparators=[ast.Constant(value=None)]):
            text = site.source.segment(left)
            yield site.swap(text if isinstance(op, ast.IsNot) else f"not {text}", "absence", compound=True)
        case ast.UnaryOp(op=ast.Not(), operand=(ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call()) as asked):
            yield site.swap(f"{site.source.segment(asked)} is None", "absence", compound=True)
        case ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call():
            if is_condition(site) and not isinstance(site.parent, ast.UnaryOp):
                yield site.swap(f"{site.text} is not None", "absence", compound=True)


def conditions(site: Site) -> Iterator[Proposal]:
    """A condition made narrower or wider by another; replaced by another, by its opposite, or by a constant."""
    node, text = site.node, site.text if site.place in ("test", "ifs") else "\n"
    if "\n" in text:
        return
    loose = isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr, ast.Lambda))
    inner = f"({text})" if loose else text
    whole = text if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else inner
    for condition, factor in _added_conditions(site, text).items():
        if factor >= 0.3:
            yield site.swap(condition, "replace-condition", factor, compound=True)
        if isinstance(node, ast.Constant):
            continue
        for joined, share in (
            (f"{whole} and {condition}", 1.0),
            (f"{inner if whole != text else text} or {condition}", 0.8),
            (f"{condition} and {whole}", 0.6),
            (f"{condition} or {text}", 0.6),
        ):
            yield site.swap(joined, "add-condition", factor * share, compound=True)
    if not isinstance(node, ast.Constant):
        yield site.swap(f"not {inner}", "negate", compound=True)
        for constant in ("True", "False"):
            yield site.swap(constant, "constant-condition", 1.0 if site.place == "test" else 0.5)


def _added_conditions(site: Site, text: str) -> dict[str, float]:
    """Conditions of the repository that fit here, then plain ones over the names at hand; with their weights."""
    donors = [donor for donor in site.own(site.pool.conditions) if donor.text != text]
    found = {donor.text if donor.shape != "BoolOp" else f"({donor.text})": 1.0 for donor in donors}
    for condition, factor in plain_conditions(site):
        if condition != text:
            found.setdefault(condition, factor)
    return found


def plain_conditions(site: Site) -> Iterator[tuple[str, float]]:
    """Tests of emptiness, absence, membership and equality over local names and what is read from them."""
    things = [(name, site.scope.of(name)) for name in site.things]
    things += [(d.text, d.kind) for d in site.own(site.pool.expressions) if d.shape == "Attribute"]
    for thing, kind in things:
        yield from ((plain.format(thing), factor) for plain, factor in LIKELY["asked"][kind].items())
    for (one, kind), (two, other) in permutations(things, 2):
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
    node, parent, kind = site.node, site.parent, site.scope.kind(site.node)
    others = (ast.Constant, ast.Compare, ast.BoolOp, ast.Lambda, ast.IfExp, ast.Tuple)
    if not is_value(site) or isinstance(node, others) or kind not in (NUMBER, ANY):
        return
    in_range = isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "range"
    bounds = isinstance(parent, ast.Slice) or (isinstance(parent, ast.Subscript) and site.place == "slice") or in_range
    share = 1.0 if bounds else 0.6 if isinstance(parent, ast.Compare) else 0.4
    share *= 1.0 if kind == NUMBER or bounds else 0.4
    for change in (" + 1", " - 1"):
        yield site.swap(site.text + change, "off-by-one", share, compound=True)


EXPRESSION_OPERATORS = (relations, absence, conditions, off_by_one)
