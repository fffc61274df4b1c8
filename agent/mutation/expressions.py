"""Operators that change one expression. Each is generic: it knows the language, and what the repository holds, nothing else."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass

from agent.mutation.donors import SAME_FUNCTION, Donor, Pool
from agent.mutation.scope import ANY, CALLABLE, LIST, MAP, NUMBER, SET, TEXT, TRUTH, Scope, likeness
from agent.mutation.source import Proposal, Source


@dataclass(frozen=True, slots=True)
class Site:
    """A place to change. `names`: those usable there, with `inner` ones (of comprehensions) among them."""

    source: Source
    node: ast.AST
    scope: Scope
    pool: Pool
    names: tuple[str, ...]

    @property
    def parent(self) -> ast.AST:
        return self.source.parents[self.node]

    @property
    def place(self) -> str:
        """The parent's field that holds the node."""
        return self.source.fields[self.node]

    def swap(self, node: ast.AST, text: str, operator: str, factor: float = 1.0, *, compound: bool = False) -> Proposal:
        """The proposal that the node's text becomes `text`."""
        start, end = self.source.span(node)
        return Proposal(start, end, text, operator, factor, compound)

    def fits(self, donor: Donor) -> bool:
        """Whether all the names that the donor reads are bound here."""
        return all(n in self.names or n in self.scope.outer or n in BUILTINS for n in donor.names)


BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_"))

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
SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>",
}  # fmt: skip
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
_METHOD_FAMILIES = (
    ("append", "extend", "insert", "appendleft"), ("add", "update", "discard", "remove"), ("pop", "popleft", "remove"),
    ("find", "rfind", "index"), ("strip", "lstrip", "rstrip"), ("lower", "upper", "casefold"), ("get", "setdefault", "pop"),
    ("keys", "values", "items"), ("startswith", "endswith"), ("split", "rsplit", "splitlines", "partition", "rpartition"),
    ("union", "intersection", "difference", "symmetric_difference"), ("issubset", "issuperset", "isdisjoint"),
    ("match", "search", "fullmatch", "findall"), ("isdigit", "isalpha", "isalnum", "isnumeric", "isdecimal"),
    ("encode", "decode"), ("read", "readline", "readlines"), ("error", "warning"), ("ljust", "rjust", "center"),
)  # fmt: skip
_FUNCTION_FAMILIES = (
    ("min", "max", "sum"), ("any", "all"), ("list", "set", "tuple", "sorted", "frozenset"), ("int", "float", "round", "str"),
    ("range", "enumerate"), ("str", "repr"), ("isinstance", "issubclass"), ("dict", "list", "set"), ("floor", "ceil"),
    ("getattr", "hasattr"), ("zip", "enumerate"), ("abs", "int"),
)  # fmt: skip
_WRAPPERS: dict[str, tuple[str, ...]] = {
    NUMBER: ("abs", "int", "str", "range"), TEXT: ("len", "str", "int", "list"),
    LIST: ("len", "list", "sorted", "reversed", "set", "enumerate", "tuple", "sum"),
    SET: ("len", "sorted", "list"), MAP: ("len", "list", "sorted", "dict"), TRUTH: (), CALLABLE: (),
    ANY: ("len", "list", "str", "set", "sorted", "int"),
}  # fmt: skip


def is_condition(site: Site) -> bool:
    """Whether the node's value is only asked for its truth."""
    parent, place = site.parent, site.place
    if place == "test" or (place == "ifs" and isinstance(parent, ast.comprehension)):
        return True
    return isinstance(parent, (ast.BoolOp,)) or (isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not))


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
    between, symbol = source.text[start:end], SYMBOLS.get(type(node.op), "@")
    for other, factor in ARITHMETIC.get(symbol, ()):
        if between.count(symbol) == 1:
            yield Proposal(start, end, between.replace(symbol, other), "arithmetic", factor)
    one, two = source.segment(left), source.segment(right)
    if not isinstance(node.op, ast.Mult) and one != two:
        whole = source.text[source.span(node)[0] : source.span(left)[0]]
        if not whole:
            yield Proposal(
                source.span(left)[0], source.span(right)[1], two + between + one, "swap-operands", compound=True
            )
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
            elif at + 1 < len(node.values):
                start, end = source.span(part)[0], source.span(node.values[at + 1])[0]
                yield Proposal(start, end, "", "drop-conjunct", group="list")
            else:
                start, end = source.span(node.values[at - 1])[1], source.span(part)[1]
                yield Proposal(start, end, "", "drop-conjunct", group="list")
    elif isinstance(node, ast.UnaryOp):
        operator = "negate" if isinstance(node.op, ast.Not) else "arithmetic"
        yield site.swap(node, source.segment(node.operand), operator, compound=True)
    if isinstance(node, ast.expr) and (is_condition(site) or _is_truth(site)) and not isinstance(node, ast.UnaryOp):
        text = source.segment(node)
        text = f"not ({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr)) else f"not {text}"
        yield site.swap(node, text, "negate", compound=True)


def _is_truth(site: Site) -> bool:
    node = site.node
    return (
        isinstance(node, ast.expr)
        and isinstance(site.parent, (ast.Return, ast.Assign))
        and site.scope.kind(node) == TRUTH
    )


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
        share = factor if factor >= 0.3 else 0.0
        yield site.swap(node, condition, "replace-condition", share, compound=True)
    if isinstance(node, ast.Constant):
        return
    inner = f"({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr, ast.Lambda)) else text
    whole = text if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else inner
    for condition, factor in _added_conditions(site, text):
        for joined, share in (
            (f"{whole} and {condition}", 1.0), (f"{inner if whole != text else text} or {condition}", 0.8),
            (f"{condition} and {whole}", 0.6), (f"{condition} or {text}", 0.6),
        ):  # fmt: skip
            yield site.swap(node, joined, "add-condition", factor * share, compound=True)
    for constant in ("True", "False"):
        yield site.swap(node, constant, "constant-condition", 1.0 if site.place == "test" else 0.5)


def _added_conditions(site: Site, text: str) -> Iterator[tuple[str, float]]:
    """Conditions of the repository that fit here, then plain ones over the names at hand."""
    seen = {text}
    for donor in site.pool.conditions.values():
        if donor.text not in seen and site.fits(donor) and donor.near == SAME_FUNCTION:
            seen.add(donor.text)
            yield donor.text if donor.shape != "BoolOp" else f"({donor.text})", 1.0
    for condition, factor in plain_conditions(site):
        if condition not in seen:
            seen.add(condition)
            yield condition, factor


def plain_conditions(site: Site) -> Iterator[tuple[str, float]]:
    """Tests of emptiness, absence, membership and equality over local names and what is read from them."""
    things = [(name, site.scope.kinds.get(name, ANY)) for name in site.names]
    things += [
        (d.text, d.kind) for d in site.pool.expressions.values()
        if d.shape == "Attribute" and d.near == SAME_FUNCTION and site.fits(d)
    ]  # fmt: skip
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


def constants(site: Site) -> Iterator[Proposal]:
    """Numbers one off, zero and one, the other truth value, constants that stand elsewhere."""
    node = site.node
    if not isinstance(node, ast.Constant) or isinstance(site.parent, (ast.Expr, ast.JoinedStr, ast.FormattedValue)):
        return
    value, offered = node.value, dict[str, float]()
    if isinstance(value, bool):
        offered[str(not value)] = 1.0
        offered["None"] = 0.2
    elif isinstance(value, int):
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
    for donor in site.pool.expressions.values():
        if donor.near == SAME_FUNCTION and site.fits(donor):
            factor = 0.5 * likeness(kind, donor.kind)
            yield site.swap(node, donor.text, "constant-to-name", factor, compound=donor.shape in _LOOSE)


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
    if not _value(site) or not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        return
    if site.scope.kind(node) not in (ANY,):
        return
    for name, near in site.pool.fields.items():
        if near >= 0.3:
            yield site.swap(node, f"{site.source.segment(node)}.{name}", "add-attribute", near)


def _value(site: Site) -> bool:
    """Whether the node is an expression that is read, and not a called function or a part of syntax."""
    node, parent, place = site.node, site.parent, site.place
    if not isinstance(node, ast.expr) or isinstance(node, (ast.Slice, ast.Starred, ast.JoinedStr, ast.FormattedValue)):
        return False
    if isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
        return False
    if isinstance(parent, (ast.JoinedStr, ast.FormattedValue, ast.Expr)) or place in (
        "decorator_list",
        "annotation",
        "returns",
    ):
        return False
    return not (isinstance(parent, ast.Call) and place == "func") and not isinstance(parent, (ast.arg, ast.Delete))


def off_by_one(site: Site) -> Iterator[Proposal]:
    """One more or less: in indices, bounds, ranges and comparisons first, elsewhere where a number stands."""
    node, parent = site.node, site.parent
    if not _value(site) or isinstance(node, (ast.Constant, ast.Compare, ast.BoolOp, ast.Lambda, ast.IfExp, ast.Tuple)):
        return
    kind = site.scope.kind(node)  # type: ignore[arg-type]
    if kind not in (NUMBER, ANY):
        return
    in_range = isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "range"
    bounds = isinstance(parent, ast.Slice) or (isinstance(parent, ast.Subscript) and site.place == "slice") or in_range
    share = 1.0 if bounds else 0.6 if isinstance(parent, ast.Compare) else 0.4
    share *= 1.0 if kind == NUMBER or bounds else 0.4
    text = site.source.segment(node)
    for change in (" + 1", " - 1"):
        yield site.swap(node, text + change, "off-by-one", share, compound=True)


def terms(site: Site) -> Iterator[Proposal]:
    """A term added: the value combined with a name at hand or an expression of the same function."""
    node = site.node
    if (
        not _value(site)
        or isinstance(node, (ast.Compare, ast.BoolOp, ast.Lambda, ast.GeneratorExp))
        or is_condition(site)
    ):
        return
    if isinstance(site.parent, ast.BinOp) and isinstance(node, ast.BinOp):
        return
    kind, text = site.scope.kind(node), site.source.segment(node)  # type: ignore[arg-type]
    if kind == TRUTH or "\n" in text or (isinstance(node, ast.Constant) and kind != NUMBER):
        return
    symbols = {
        NUMBER: ("+", "-", "*", "//", "%"),
        LIST: ("+",),
        TEXT: ("+",),
        SET: ("|", "-", "&"),
        ANY: ("+", "-", "*"),
    }
    operands = {name: likeness(kind, site.scope.kinds.get(name, ANY)) for name in site.names}
    for donor in site.pool.expressions.values():
        if donor.near == SAME_FUNCTION and site.fits(donor) and donor.kind != TRUTH and donor.shape not in _LOOSE:
            operands.setdefault(donor.text, 0.5 * likeness(kind, donor.kind))
    for operand, factor in operands.items():
        if factor >= 0.3 and site.scope.kinds.get(operand) != CALLABLE:
            for at, symbol in enumerate(symbols.get(kind, ())):
                yield site.swap(node, f"{text} {symbol} {operand}", "add-term", factor / (1 + at), compound=True)
                if symbol == "+" and kind != NUMBER:
                    yield site.swap(node, f"{operand} + {text}", "add-term", factor / 2, compound=True)


_LOOSE = (
    "BinOp",
    "BoolOp",
    "Compare",
    "IfExp",
    "UnaryOp",
    "Lambda",
    "GeneratorExp",
    "NamedExpr",
    "Yield",
    "YieldFrom",
    "Await",
)


def donors(site: Site) -> Iterator[Proposal]:
    """Another expression of the repository instead of this one: near ones, of the same kind and shape, first."""
    node = site.node
    if not _value(site) or isinstance(node, ast.Constant):
        return
    kind, shape, text = site.scope.kind(node), type(node).__name__, site.source.segment(node)  # type: ignore[arg-type]
    offered = []
    for donor in (*site.pool.expressions.values(), *site.pool.constants.values()):
        if donor.text != text and site.fits(donor):
            alike = likeness(kind, donor.kind) * (1.0 if donor.shape == shape else 0.6) * donor.near
            offered.append((alike, donor))
    offered.sort(key=lambda pair: -pair[0])
    for alike, donor in offered[:60]:
        yield site.swap(node, donor.text, "donor", alike, compound=donor.shape in _LOOSE)
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
    for donor in site.pool.expressions.values():
        if donor.near == SAME_FUNCTION and donor.text != text and donor.shape in _PLACES and site.fits(donor):
            yield site.swap(node, donor.text, "target", 1.0 if donor.shape == shape else 0.4)
    if not isinstance(node, ast.Name):
        for name in site.names:
            yield site.swap(node, name, "target", 0.3 if site.scope.kinds.get(name) != CALLABLE else 0.0)


_PLACES = ("Subscript", "Attribute")


def parts(site: Site) -> Iterator[Proposal]:
    """A part of the expression instead of the whole: a call's argument, a subscripted value, one arm of a choice."""
    node, source = site.node, site.source
    if not _value(site):
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
    node, text = site.node, ""
    if not _value(site) or isinstance(node, (ast.Compare, ast.BoolOp, ast.Lambda, ast.Constant)):
        return
    text = site.source.segment(node)
    if "\n" in text or is_condition(site):
        return
    kind = site.scope.kind(node)  # type: ignore[arg-type]
    offered = {name: 0.5 * near for name, near in site.pool.wrappers.items()}
    offered.update(dict.fromkeys(_WRAPPERS[kind], 0.4 if kind != ANY else 0.2))
    for name in offered:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name):
            factor = max(offered[name], 0.8 if name in site.pool.wrappers and name in _WRAPPERS[kind] else 0.0)
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


EXPRESSION_OPERATORS = (
    comparisons, arithmetic, logic, conditions, constants, variables, attributes, fields, off_by_one, terms, donors, targets,
    parts, wrappers,
)  # fmt: skip
