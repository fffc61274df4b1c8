"""Operators that change whole statements: leave out, exchange, put in, guard, or say in another form."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from agent.attempt.lines import lines_of
from agent.repair.mutation.calls import renamed
from agent.repair.mutation.donors import SAME_FUNCTION, SIMPLE, Donor
from agent.repair.mutation.expressions import ARITHMETIC, SYMBOLS, plain_conditions
from agent.repair.mutation.scope import ANY, LIST, MAP, NUMBER, SET, TEXT, TRUTH, likeness, parameters
from agent.repair.mutation.site import Site
from agent.repair.mutation.source import BLOCKS, Function, Proposal, Source, is_docstring

_SIMPLE = (*SIMPLE, ast.Break, ast.Continue, ast.Pass, ast.Assert)
_EXCEPTIONS = ["Exception", "ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "LookupError"]
_EXCEPTIONS += ["OSError", "StopIteration", "UnicodeError", "ArithmeticError", "NotImplementedError"]
_RETURNED = {"None": ANY, "True": TRUTH, "False": TRUTH, "0": NUMBER, "[]": LIST, "1": NUMBER, "[[]]": LIST}
_RETURNED |= {"''": TEXT, "{}": MAP}
_JUMPS: dict[type[ast.AST], dict[str, float]] = {
    ast.Break: {"continue": 1.0, "return": 0.4, "pass": 0.4},
    ast.Continue: {"break": 1.0, "pass": 0.4},
}


def _lines(source: Source, statement: ast.stmt) -> tuple[int, int]:
    """[start, end) of a statement's whole lines, final line break included."""
    start = source.line_start(source.first_line(statement))
    end = source.text.find("\n", source.span(statement)[1])
    return start, len(source.text) if end < 0 else end + 1


def _break(source: Source) -> str:
    return "\r\n" if "\r\n" in source.text else "\n"


def removals(site: Site) -> Iterator[Proposal]:
    """A statement left out (`pass` where it was alone)."""
    node, source = site.node, site.source
    kept = (ast.Pass, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, Function, ast.ClassDef)
    if not isinstance(node, ast.stmt) or isinstance(node, kept) or not _stands_alone(source, node):
        return
    start, end = _lines(source, node)
    share = 1.0 if isinstance(node, _SIMPLE) else 0.5
    if len(source.block(node)) == 1:
        yield site.swap(node, "pass", "delete", share)
    else:
        yield Proposal(start, end, "", "delete", share)


def _stands_alone(source: Source, node: ast.stmt) -> bool:
    """Whether it has its lines to itself, and is neither a docstring nor part of another statement."""
    return source.own_lines(node) and not source.is_elif(node) and not is_docstring(node)


def exchanges(site: Site) -> Iterator[Proposal]:
    """A statement and its neighbour in each other's place; moved into or out of the block beside it."""
    node, source = site.node, site.source
    if not isinstance(node, ast.stmt) or not _stands_alone(source, node):
        return
    block = source.block(node)
    at = next(i for i, s in enumerate(block) if s is node)
    if at + 1 < len(block) and source.own_lines(block[at + 1]):
        first, second = _lines(source, node), _lines(source, block[at + 1])
        after = source.text[second[0] : second[1]]
        if after.endswith("\n"):
            text = after + source.text[first[1] : second[0]] + source.text[first[0] : first[1]]
            yield Proposal(first[0], second[1], text, "swap-statements")
    yield from _moved_out(site, node, block, at)
    yield from _moved_in(site, node, block, at)


def _moved_out(site: Site, node: ast.stmt, block: list[ast.stmt], at: int) -> Iterator[Proposal]:
    """The last statement of a block, one level further out (only where nothing follows the block in its statement)."""
    source, parent = site.source, site.parent
    if at + 1 != len(block) or at == 0 or not isinstance(parent, BLOCKS):
        return
    if source.span(parent)[1] != source.span(node)[1]:
        return
    start, end = _lines(source, node)
    text = _reindented(source.text[start:end], source.indent(node), source.indent(parent))
    yield Proposal(start, end, text, "move-statement")


def _moved_in(site: Site, node: ast.stmt, block: list[ast.stmt], at: int) -> Iterator[Proposal]:
    """The statement after a block, made the block's last."""
    source = site.source
    if at == 0 or not isinstance(block[at - 1], BLOCKS):
        return
    body = getattr(block[at - 1], "orelse", None) or getattr(block[at - 1], "body", None)
    if not body or not source.own_lines(body[-1]):
        return
    start, end = _lines(source, node)
    text = _reindented(source.text[start:end], source.indent(node), source.indent(body[-1]))
    yield Proposal(start, end, text, "move-statement")


def _reindented(text: str, old: str, new: str) -> str:
    return "".join(new + line[len(old) :] if line.startswith(old) and line.strip() else line for line in lines_of(text))


def assignments(site: Site) -> Iterator[Proposal]:
    """`=` for `+=` and the like; another operator; a value returned or assigned that was only computed."""
    node, source = site.node, site.source
    if isinstance(node, ast.AugAssign):
        start, end = source.span(node.target)[1], source.span(node.value)[0]
        between, symbol = source.text[start:end], SYMBOLS.get(type(node.op).__name__, "@")
        if between.count(symbol + "=") == 1:
            for other, factor in ARITHMETIC.get(symbol, ()):
                yield Proposal(start, end, between.replace(symbol, other), "augmented", factor)
            yield Proposal(start, end, between.replace(symbol, ""), "augmented", 0.8)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], node.value
        start, end = source.span(target)[1], source.span(value)[0]
        between = source.text[start:end]
        if between.count("=") == 1 and not isinstance(target, (ast.Tuple, ast.List)):
            for symbol, factor in (("+", 1.0), ("-", 0.6), ("|", 0.2), ("*", 0.2)):
                yield Proposal(start, end, between.replace("=", symbol + "="), "augmented", factor)
            yield site.swap(node, f"return {source.segment(value)}", "return-form", 0.3)


def forms(site: Site) -> Iterator[Proposal]:
    """`if` and `while`, `yield`, `yield from` and `return`, `break` and `continue`, a plain call and a returned one."""
    node, source = site.node, site.source
    start = source.span(node)[0] if hasattr(node, "lineno") else 0
    match node:
        case ast.If(orelse=[]) if not source.is_elif(node):
            yield Proposal(start, start + len("if"), "while", "loop-form")
        case ast.While(orelse=[]):
            yield Proposal(start, start + len("while"), "if", "loop-form")
        case ast.If() if source.is_elif(node):
            yield Proposal(start, start + len("elif"), "if", "loop-form")
        case ast.Break() | ast.Continue():
            yield from _formed(site, "jump", _JUMPS[type(node)])
        case ast.Return(value=value) if value is not None and source.function(node) is not None:
            yield from _formed(site, "return-form", {"yield …": 0.3, "…": 0.2}, value)
        case ast.Expr(value=ast.Yield(value=value)) if value is not None:
            yield from _formed(site, "return-form", {"yield from …": 1.0, "return …": 0.5, "…": 0.3}, value)
        case ast.Expr(value=ast.YieldFrom(value=value)):
            yield from _formed(site, "return-form", {"yield …": 1.0, "return …": 0.5}, value)
        case ast.Expr(value=ast.Call() as call) if source.function(node) is not None:
            yield from _formed(site, "return-form", {"return …": 0.6, "yield from …": 0.3}, call)
            if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
                yield from _formed(site, "return-form", {f"{call.func.value.id} = …": 0.6}, call)
            yield from _formed(site, "return-form", dict.fromkeys((f"{name} = …" for name in site.things), 0.2), call)


def _formed(site: Site, operator: str, forms: Mapping[str, float], value: ast.expr | None = None) -> Iterator[Proposal]:
    """The statement in other forms, with their weights; in each "…" stands for the value."""
    text = "" if value is None else site.source.segment(value)
    for form, factor in forms.items():
        yield site.swap(site.node, form.replace("…", text), operator, factor)


def returns(site: Site) -> Iterator[Proposal]:
    """Another value returned: one that the function returns elsewhere, or holds."""
    node, source = site.node, site.source
    if not isinstance(node, ast.Return) or node.value is None:
        return
    kind = site.scope.kind(node.value)
    for text, factor in _returnable(site, kind).items():
        if text != source.segment(node.value):
            yield site.swap(node, f"return {text}", "return-value", factor)


def _returnable(site: Site, kind: str) -> dict[str, float]:
    """Values that fit to be returned here, with their weights."""
    offered = {donor.text: 1.0 for donor in site.own(site.pool.returned)}
    for name in site.things:
        offered.setdefault(name, 0.5 * likeness(kind, site.scope.kinds.get(name, ANY)))
        offered.setdefault(f"[{name}]", 0.3 * likeness(kind, LIST))
    for constant, its in _RETURNED.items():
        offered.setdefault(constant, 0.4 * likeness(kind, its))
    return offered


def exceptions(site: Site) -> Iterator[Proposal]:
    """Another exception caught or raised."""
    node = site.node
    caught = node.type if isinstance(node, ast.ExceptHandler) else None
    raised = node.exc if isinstance(node, ast.Raise) else None
    if isinstance(raised, ast.Call):
        raised = raised.func
    for place in (caught, raised):
        if place is None:
            continue
        offered = dict.fromkeys(_EXCEPTIONS, 0.5)
        offered.update({name: max(0.5, near) for name, near in site.pool.exceptions.items()})
        present = site.source.segment(place)
        for name, factor in offered.items():
            if name != present:
                yield site.swap(place, name, "exception", factor)
                if place is caught and not isinstance(place, ast.Tuple):
                    yield site.swap(place, f"({present}, {name})", "exception", factor)


def _may_precede(site: Site) -> bool:
    source, node = site.source, site.node
    return isinstance(node, ast.stmt) and source.function(node) is not None and _stands_alone(source, node)


def guards(site: Site) -> Iterator[Proposal]:
    """An early return, or a skipped round of a loop, before a statement; a statement made conditional."""
    node, source = site.node, site.source
    if not _may_precede(site) or not isinstance(node, ast.stmt):
        return
    start, end = _lines(source, node)
    indent, newline = source.indent(node), _break(source)
    step = "\t" if indent.startswith("\t") else "    "
    function = source.function(node)
    block = source.block(node)
    first = block[0] is node or (is_docstring(block[0]) and len(block) > 1 and block[1] is node)
    outermost = function is not None and site.parent is function
    kinds = {d.kind for d in site.pool.returned.values() if d.near == SAME_FUNCTION}
    kind = kinds.pop() if len(kinds) == 1 else ANY
    tests = [(t, f) for t, f in _tests(site, function if outermost and first else None) if f >= 0.3]
    for test, factor in tests:
        if (outermost and first) or factor >= 0.5:
            for value, share in _returnable(site, kind).items():
                if share >= 0.2:
                    text = f"{indent}if {test}:{newline}{indent}{step}return {value}{newline}"
                    yield Proposal(start, start, text, "guard", factor * share * (1.0 if outermost and first else 0.3))
        if source.loops(node):
            for word in ("continue", "break"):
                text = f"{indent}if {test}:{newline}{indent}{step}{word}{newline}"
                yield Proposal(start, start, text, "guard", 0.3 * factor)
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr, ast.Return, ast.Raise, ast.Delete)):
            body = _reindented(source.text[start:end], indent, indent + step)
            yield Proposal(start, end, f"{indent}if {test}:{newline}{body}", "condition-statement", factor)


def _tests(site: Site, function: Function | None) -> Iterator[tuple[str, float]]:
    """Conditions to guard with: of the parameters at a function's start, else those the function asks already."""
    for donor in site.own(site.pool.conditions):
        yield donor.text, 0.6
    if function is not None:
        for parameter in parameters(function):
            name, kind = parameter.arg, site.scope.kinds.get(parameter.arg, ANY)
            if name not in ("self", "cls"):
                yield f"not {name}", 1.0
                yield f"{name} is None", 0.6
                yield from ((f"{name} == {n}", 0.6) for n in ("0", "1") if kind in (NUMBER, ANY))
                if kind in (LIST, TEXT):
                    yield f"len({name}) <= 1", 0.5
    yield from plain_conditions(site)


def insertions(site: Site) -> Iterator[Proposal]:
    """A statement put in before this one, or after the last of a block: copies, copies with a name exchanged, and the
    plain steps that the local collections and counters allow."""
    if not _may_precede(site) or not isinstance(site.node, ast.stmt):
        return
    source, node = site.source, site.node
    start, end = _lines(source, node)
    indent, newline = source.indent(node), _break(source)
    present = source.segment(node)
    places = [(start, f"{indent}", newline)]
    if source.block(node)[-1] is node and not isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
        whole = source.text[:end].endswith("\n")
        places.append((end, indent if whole else newline + indent, newline if whole else ""))
    for text, factor in _steps(site).items():
        if text != present:
            for at, before, after in places:
                yield Proposal(at, at, before + text + after, "insert-statement", factor)


def _steps(site: Site) -> dict[str, float]:
    """Statements that may be put in here, with their weights."""
    near = [d for d in site.pool.statements.values() if d.near == SAME_FUNCTION and not d.text.startswith("return")]
    offered = {donor.text: 1.0 for donor in near if site.fits(donor)}
    for text, factor in _plain_steps(site):
        offered.setdefault(text, factor)
    for donor in near:
        for changed in _exchanged(site, donor):
            offered.setdefault(changed, 0.3)
    return offered


def _plain_steps(site: Site) -> Iterator[tuple[str, float]]:
    """An element added to a local collection, a counter moved, a name bound to what another name or expression says."""
    kinds = site.scope.kinds
    things = site.things
    for name in things:
        for other in things:
            if kinds.get(name) == LIST and other != name:
                yield f"{name}.append({other})", 0.8 if kinds.get(other) not in (LIST, MAP) else 0.4
            elif kinds.get(name) == SET and other != name:
                yield f"{name}.add({other})", 0.8
            if other != name and kinds.get(name, ANY) == kinds.get(other, ANY):
                yield f"{name} = {other}", 0.4
        if kinds.get(name) == NUMBER:
            yield f"{name} += 1", 0.5
            yield f"{name} -= 1", 0.4
    for donor in site.own(site.pool.expressions):
        if donor.shape in ("Call", "Subscript", "Attribute"):
            for name in things:
                if likeness(kinds.get(name, ANY), donor.kind) >= 0.6:
                    yield f"{name} = {donor.text}", 0.2


def _exchanged(site: Site, donor: Donor) -> Iterator[str]:
    """The statement with one name exchanged throughout, where that makes its names fit here."""
    match = re.fullmatch(r"(?P<target>[\w.\[\]]+)(?P<sign> ?[-+*/|&^%]?= ?)(?P<value>.+)", donor.text)
    if match is None:
        if donor.shape == "Expr" and site.fits(donor):
            yield from renamed(donor.text, site)
        return
    for value in renamed(match["value"], site):
        yield match["target"] + match["sign"] + value


STATEMENT_OPERATORS = (removals, exchanges, assignments, forms, returns, exceptions, guards, insertions)
