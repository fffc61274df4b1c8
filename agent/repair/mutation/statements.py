"""Operators that change whole statements: leave out, put in, guard, or say in another form."""

import ast
import re
from collections.abc import Iterator

from agent.repair.mutation.donors import SAME_FUNCTION, Donor
from agent.repair.mutation.expressions import exchanged, plain_conditions
from agent.repair.mutation.scope import ANY, LIKELY, LIST, MAP, NUMBER, SET, likeness, parameters
from agent.repair.mutation.site import Site
from agent.repair.mutation.source import Function, Proposal, Source, is_docstring
from agent.repair.mutation.values import renamed

_KEPT = (ast.Pass, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, Function, ast.ClassDef)


def _lines(source: Source, statement: ast.stmt) -> tuple[int, int]:
    """[start, end) of a statement's whole lines, final line break included."""
    start = source.line_start(source.first_line(statement))
    end = source.text.find("\n", source.span(statement)[1])
    return start, len(source.text) if end < 0 else end + 1


def _stands_alone(source: Source, node: ast.stmt) -> bool:
    """Whether it has its lines to itself (nothing before it, and only a comment after it), and is neither a docstring
    nor part of another statement."""
    start, end = source.span(node)
    before = source.lines[node.lineno - 1][: node.col_offset].strip()
    after = source.text[end : source.line_start(source.line_of(end) + 1)].strip()
    is_elif = isinstance(node, ast.If) and source.text.startswith("elif", start)
    return not (before or after.partition("#")[0] or is_elif or is_docstring(node))


def removals(site: Site) -> Iterator[Proposal]:
    """A statement left out (`pass` where it was alone)."""
    node, source = site.node, site.source
    if not isinstance(node, ast.stmt) or isinstance(node, _KEPT) or not _stands_alone(source, node):
        return
    share = 0.5 if hasattr(node, "body") else 1.0
    if len(source.block(node)) == 1:
        yield site.swap("pass", "delete", share)
    else:
        yield Proposal(*_lines(source, node), "", "delete", share)


def assignments(site: Site) -> Iterator[Proposal]:
    """`=` for `+=` and the like; another operator."""
    node, source = site.node, site.source
    if isinstance(node, ast.AugAssign):
        yield from exchanged(site, node.target, node.op, node.value, "augmented")
        signs = {"=": 0.8}
    elif isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Tuple, ast.List)):
        signs = {"+=": 1.0, "-=": 0.6, "|=": 0.2, "*=": 0.2}
    else:
        return
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[-1]
    start, end = source.span(target)[1], source.span(node.value)[0]
    for sign, factor in signs.items():
        changed, count = re.subn(r"[^\s=()]*=", sign, source.text[start:end])
        if count == 1:
            yield Proposal(start, end, changed, "augmented", factor)


def returns(site: Site) -> Iterator[Proposal]:
    """Another value returned: one that the function returns elsewhere, or holds."""
    node = site.node
    if isinstance(node, ast.Return) and node.value is not None:
        for text, factor in _returnable(site, site.scope.kind(node.value)).items():
            if text != site.source.segment(node.value):
                yield site.swap(f"return {text}", "return-value", factor)


def _returnable(site: Site, kind: str) -> dict[str, float]:
    """Values that fit to be returned here, with their weights."""
    offered = {donor.text: 1.0 for donor in site.own(site.pool.returned)}
    for name in site.things:
        offered.setdefault(name, 0.5 * likeness(kind, site.scope.of(name)))
        offered.setdefault(f"[{name}]", 0.4 * likeness(kind, LIST))
    for constant, its in LIKELY["returned"].items():
        offered.setdefault(constant, 0.5 * likeness(kind, its))
    return offered


def additions(site: Site) -> Iterator[Proposal]:
    """What is put in before a statement that has its lines to itself, or after the last of a block: an early return
    under a condition; copies of statements, copies with a name exchanged, and the plain steps that the local
    collections and counters allow."""
    node, source = site.node, site.source
    function = source.function(node)
    if not isinstance(node, ast.stmt) or function is None or not _stands_alone(source, node):
        return
    (start, end), block = _lines(source, node), source.block(node)
    line = source.lines[node.lineno - 1]
    indent = line[: len(line) - len(line.lstrip())]
    newline = "\r\n" if "\r\n" in source.text else "\n"
    step = "\t" if indent.startswith("\t") else "    "
    first = site.parent is function and (block[0] is node or (is_docstring(block[0]) and block[1] is node))
    for test, value, factor in _guards(site, function if first else None):
        guard = f"{indent}if {test}:{newline}{indent}{step}return {value}{newline}"
        yield Proposal(start, start, guard, "guard", factor)
    places = [(start, indent, newline)]
    if block[-1] is node and not isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
        whole = source.text[:end].endswith("\n")
        places.append((end, indent if whole else newline + indent, newline if whole else ""))
    for text, factor in _steps(site).items():
        for at, before, after in places:
            yield Proposal(at, at, before + text + after, "insert-statement", factor)


def _guards(site: Site, function: Function | None) -> Iterator[tuple[str, str, float]]:
    """(condition, value returned under it, weight); at the start of the function likelier than elsewhere."""
    kinds = {donor.kind for donor in site.pool.returned.values() if donor.near == SAME_FUNCTION}
    values = _returnable(site, kinds.pop() if len(kinds) == 1 else ANY)
    for test, factor in _tests(site, function):
        for value, share in values.items():
            if share >= 0.2 and factor >= (0.3 if function is not None else 0.5):
                yield test, value, factor * share * (1.0 if function is not None else 0.3)


def _tests(site: Site, function: Function | None) -> Iterator[tuple[str, float]]:
    """Conditions to guard with: of the parameters at a function's start, else those the function asks already."""
    for donor in site.own(site.pool.conditions):
        yield donor.text, 0.6
    for name in () if function is None else (parameter.arg for parameter in parameters(function)):
        if name not in ("self", "cls"):
            yield from (
                (plain.format(name), factor) for plain, factor in LIKELY["guarded"][site.scope.of(name)].items()
            )
    yield from plain_conditions(site)


def _steps(site: Site) -> dict[str, float]:
    """Statements that may be put in here, with their weights."""
    near = [d for d in site.pool.statements.values() if d.near == SAME_FUNCTION and not d.text.startswith("return")]
    offered = {donor.text: 1.0 for donor in near if site.fits(donor)}
    for text, factor in _plain_steps(site):
        offered.setdefault(text, factor)
    for donor in near:
        for changed in _with_another_name(site, donor):
            offered.setdefault(changed, 0.3)
    offered.pop(site.text, None)
    return offered


def _plain_steps(site: Site) -> Iterator[tuple[str, float]]:
    """An element added to a local collection, a counter moved, a name bound to what another name or expression says."""
    kinds = {name: site.scope.of(name) for name in site.things}
    for name, kind in kinds.items():
        for other, its in kinds.items():
            if other == name:
                continue
            if kind == LIST:
                yield f"{name}.append({other})", 0.8 if its not in (LIST, MAP) else 0.4
            elif kind == SET:
                yield f"{name}.add({other})", 0.8
            if kind == its:
                yield f"{name} = {other}", 0.4
        if kind == NUMBER:
            yield f"{name} += 1", 0.5
            yield f"{name} -= 1", 0.4
    for donor in site.own(site.pool.expressions):
        if donor.shape in ("Call", "Subscript", "Attribute"):
            for name, kind in kinds.items():
                if likeness(kind, donor.kind) >= 0.6:
                    yield f"{name} = {donor.text}", 0.2


def _with_another_name(site: Site, donor: Donor) -> Iterator[str]:
    """The statement with one name exchanged throughout, where that makes its names fit here."""
    match = re.fullmatch(r"(?P<target>[\w.\[\]]+ ?[-+*/|&^%]?= ?)(?P<value>.+)", donor.text)
    if match is not None:
        yield from (match["target"] + value for value in renamed(match["value"], site))
    elif donor.shape == "Expr" and site.fits(donor):
        yield from renamed(donor.text, site)


STATEMENT_OPERATORS = (removals, assignments, returns, additions)
