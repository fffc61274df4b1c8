"""Which names a place in a program may use, and roughly what they hold.

The kinds are guesses from how names are assigned and used within one function. They never rule a mutant out; they only
order the mutants: a number is replaced by a number first.
"""

import ast
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.repair.mutation.source import Function, Source

NUMBER, TEXT, LIST, MAP, SET, TRUTH, CALLABLE, ANY = "number", "text", "list", "map", "set", "truth", "callable", "any"
COLLECTIONS = (TEXT, LIST, MAP, SET)

LIKELY: dict[str, Any] = tomllib.loads(Path(__file__).with_name("likely.toml").read_text(encoding="utf-8"))
"""What is likely in small fixes, for whoever makes them."""

_KINDS: Mapping[str, Mapping[str, str]] = {
    what: {name: kind for kind, names in kinds.items() for name in names.split()}
    for what, kinds in LIKELY["kinds"].items()
}
"""The kind of what functions and methods give, and of what forms are, by their names."""


def likeness(one: str, other: str) -> float:
    """How well something of kind `other` stands in for something of kind `one`: 0..1."""
    if one == other:
        return 1.0 if one != ANY else 0.7
    if ANY in (one, other):
        return 0.6
    return 0.35 if one in COLLECTIONS and other in COLLECTIONS else 0.15


@dataclass(slots=True)
class Scope:
    """The names that a function may use. `local`: name -> first line where it is bound (0: a parameter or outer name).

    `outer`: names of the module (functions, classes, constants, imports). `kinds`: name -> kind."""

    local: dict[str, int] = field(default_factory=dict)
    outer: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The guessed kind of what a name holds."""
        return self.kinds.get(name, self.outer.get(name, ANY))

    def kind(self, node: ast.AST) -> str:
        """The guessed kind of an expression's value."""
        match node:
            case ast.Constant(value=value):
                return _KINDS["forms"].get(type(value).__name__, ANY)
            case ast.UnaryOp(op=ast.Not()):
                return TRUTH
            case ast.BoolOp(values=values):
                return self._common(values, TRUTH)
            case ast.IfExp(body=body, orelse=orelse):
                return self._common((body, orelse), ANY)
            case ast.BinOp(left=left, op=op, right=right):
                kinds = {self.kind(left), self.kind(right)}
                added = ANY if isinstance(op, (ast.Add, ast.Mult)) and NUMBER not in kinds else NUMBER
                return next((kind for kind in COLLECTIONS if kind in kinds), added)
            case ast.Call(func=ast.Name(id=name)):
                return _KINDS["functions"].get(name, ANY)
            case ast.Call(func=ast.Attribute(attr=name)):
                return _KINDS["methods"].get(name, ANY)
            case ast.Name(id=name):
                return self.of(name)
            case ast.Subscript(slice=ast.Slice(), value=value):
                return self.kind(value)
        return _KINDS["forms"].get(type(node).__name__, ANY)

    def _common(self, values: Iterable[ast.expr], preferred: str) -> str:
        """The kind of all the values, else the preferred one if it is among theirs."""
        kinds = {self.kind(value) for value in values}
        return kinds.pop() if len(kinds) == 1 else preferred if preferred in kinds else ANY

    def usable(self, line: int, loops: Iterable[ast.stmt]) -> Iterator[str]:
        """Local names bound before `line`, or anywhere within a loop that encloses it."""
        for name, bound in self.local.items():
            if bound < line or any(loop.lineno <= bound <= (loop.end_lineno or 0) for loop in loops):
                yield name


def parameters(function: Function | ast.Lambda) -> Iterator[ast.arg]:
    args = function.args
    yield from (*args.posonlyargs, *args.args, *args.kwonlyargs)
    yield from filter(None, (args.vararg, args.kwarg))


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a function except those inside functions and classes nested in it (their headers are included)."""
    pending = list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (Function, ast.ClassDef)):
            pending.extend(ast.iter_child_nodes(node))


def _bindings(source: Source, tree: ast.AST) -> Iterator[tuple[str, int, str]]:
    """(name, line, CALLABLE or ANY) of what a function, or the module, binds by statements of its own; of imports
    only the module's."""
    for node in own_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno, CALLABLE
            case ast.Name(id=name, ctx=ast.Store()) if not _in_comprehension(source, node):
                yield name, node.lineno, ANY
            case ast.alias(name=name, asname=short) if tree is source.tree:
                yield (short or name).split(".")[0], node.lineno, ANY
            case ast.ExceptHandler(name=str(name)):
                yield name, node.lineno, ANY


def scope_of(source: Source, function: Function | None) -> Scope:
    """The scope of a function (None: of the module), with the enclosing functions' names in it."""
    scope = Scope(outer={name: kind for name, _, kind in _bindings(source, source.tree)})
    if function is None:
        _guess_kinds(scope, source.tree)
        return scope
    enclosing = source.function(function)
    if enclosing is not None:
        around = scope_of(source, enclosing)
        scope.local.update(dict.fromkeys(around.local, 0))
        scope.kinds.update(around.kinds)
    for parameter in parameters(function):
        scope.local[parameter.arg] = 0
        scope.kinds.pop(parameter.arg, None)
    for name, line, kind in _bindings(source, function):
        scope.local[name] = min(scope.local.get(name, line), line)
        if kind == CALLABLE:
            scope.kinds[name] = kind
    _guess_kinds(scope, function)
    return scope


def _in_comprehension(source: Source, node: ast.AST) -> bool:
    around = next(at for at in source.around(node) if isinstance(at, (ast.comprehension, ast.stmt)))
    return isinstance(around, ast.comprehension)


def comprehension_names(source: Source, node: ast.AST) -> set[str]:
    """Names bound by the comprehensions and lambdas around a node (usable there and nowhere else)."""
    names: set[str] = set()
    for child, at in pairwise(source.around(node)):
        if isinstance(child, ast.stmt):
            break
        if isinstance(at, ast.Lambda):
            names.update(p.arg for p in parameters(at))
        generators: list[ast.comprehension] = getattr(at, "generators", [])
        if generators and not (child is generators[0] and node in ast.walk(generators[0].iter)):
            inside = [each for generator in generators for each in ast.walk(generator.target)]
            names.update(n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return names


def _guess_kinds(scope: Scope, function: ast.AST) -> None:
    """Two rounds of counting hints: the second sees the kinds that the first found."""
    for _ in range(2):
        hints: dict[str, Counter[str]] = {}
        for node in own_nodes(function):
            for held, kind in _hints(scope, node):
                if kind != ANY and isinstance(held, ast.Name):
                    hints.setdefault(held.id, Counter())[kind] += 1
        for name, counted in hints.items():
            scope.kinds[name] = counted.most_common(1)[0][0]


def _hints(scope: Scope, node: ast.AST) -> Iterator[tuple[ast.expr | None, str]]:
    """(expression, kind) of what a node tells; only names are of use."""
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            yield from ((target, scope.kind(value)) for target, value in zip(targets, values, strict=False))
        case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
            yield target, scope.kind(value)
            yield target, scope.kind(value)
        case ast.AugAssign(target=target, value=value):
            yield target, scope.kind(value)
        case ast.For(target=target, iter=iterated) | ast.comprehension(target=target, iter=iterated):
            yield iterated, LIST
            match target, iterated:
                case (_, ast.Call(func=ast.Name(id="range"))):
                    yield target, NUMBER
                case ast.Tuple(elts=[first, *_]), ast.Call(func=ast.Name(id="enumerate")):
                    yield first, NUMBER
        case ast.Call(func=ast.Name(id="len" | "sorted" | "enumerate" | "reversed" | "sum"), args=[first, *_]):
            yield first, LIST
        case ast.Call(func=ast.Attribute(value=value, attr="append" | "extend" | "insert" | "popleft" | "sort")):
            yield value, LIST
        case ast.Call(func=ast.Attribute(value=value, attr="add" | "discard")):
            yield value, SET
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper)):
            yield from ((value, LIST), (lower, NUMBER), (upper, NUMBER))
        case ast.Subscript(value=value, slice=index):
            yield value, {NUMBER: LIST, TEXT: MAP}.get(scope.kind(index), ANY)
            yield index, NUMBER if scope.kind(value) in (LIST, TEXT) else ANY
        case (
            ast.BinOp(left=left, right=right)
            | ast.Compare(
                left=left,
                ops=[ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE() | ast.Eq() | ast.NotEq()],
                comparators=[right],
            )
        ):
            yield from ((left, scope.kind(right)), (right, scope.kind(left)))
