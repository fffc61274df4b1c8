"""Which names a place in a program may use, and roughly what they hold.

The kinds are guesses from how names are assigned and used within one function. They never rule a mutant out; they only
order the mutants: a number is replaced by a number first.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from agent.repair.mutation.source import Function, Source

NUMBER, TEXT, LIST, MAP, SET, TRUTH, CALLABLE, ANY = "number", "text", "list", "map", "set", "truth", "callable", "any"


def _by_name(names: dict[str, str]) -> dict[str, str]:
    """The kind of each name, from the names of each kind."""
    return {name: kind for kind, each in names.items() for name in each.split()}


_CALLS = _by_name(
    {
        NUMBER: "len sum int float abs ord round hash id",
        TEXT: "str repr chr format input",
        LIST: "list sorted range tuple zip map filter enumerate reversed deque",
        MAP: "dict defaultdict Counter OrderedDict",
        SET: "set frozenset",
        TRUTH: "isinstance any all bool hasattr callable",
    }
)

_METHODS = _by_name(
    {
        LIST: "split rsplit splitlines keys values items",
        TEXT: "join strip lstrip rstrip lower upper replace format title encode decode",
        NUMBER: "find rfind index count",
        TRUTH: "startswith endswith isdigit isalpha issubset issuperset isdisjoint",
        SET: "union intersection difference",
    }
)

# What a method's receiver is, where the method's name tells.
_RECEIVERS = _by_name(
    {
        LIST: "append extend insert popleft appendleft sort reverse",
        SET: "add discard issubset issuperset union",
        MAP: "items keys values setdefault",
        TEXT: "split strip lstrip rstrip lower upper startswith endswith join rfind find",
    }
)

_COLLECTIONS = (TEXT, LIST, MAP, SET)


def likeness(one: str, other: str) -> float:
    """How well something of kind `other` stands in for something of kind `one`: 0..1."""
    if one == other:
        return 1.0 if one != ANY else 0.7
    if ANY in (one, other):
        return 0.6
    if one in _COLLECTIONS and other in _COLLECTIONS:
        return 0.35
    return 0.15


@dataclass(slots=True)
class Scope:
    """The names that a function may use. `local`: name -> first line where it is bound (0: a parameter or outer name).

    `outer`: names of the module (functions, classes, constants, imports). `kinds`: name -> kind.
    """

    local: dict[str, int] = field(default_factory=dict)
    outer: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def kind(self, node: ast.AST) -> str:
        """The guessed kind of an expression's value."""
        match node:
            case ast.Constant(value=bool()):
                return TRUTH
            case ast.Constant(value=int() | float() | complex()):
                return NUMBER
            case ast.Constant(value=str() | bytes()) | ast.JoinedStr():
                return TEXT
            case ast.List() | ast.ListComp() | ast.Tuple() | ast.GeneratorExp():
                return LIST
            case ast.Dict() | ast.DictComp():
                return MAP
            case ast.Set() | ast.SetComp():
                return SET
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return TRUTH
            case ast.UnaryOp():
                return NUMBER
            case ast.BoolOp(values=values):
                kinds = {self.kind(v) for v in values}
                return kinds.pop() if len(kinds) == 1 else TRUTH if TRUTH in kinds else ANY
            case ast.BinOp(left=left, op=op, right=right):
                kinds = {self.kind(left), self.kind(right)}
                for collection in _COLLECTIONS:
                    if collection in kinds:
                        return collection
                return NUMBER if NUMBER in kinds or not isinstance(op, (ast.Add, ast.Mult)) else ANY
            case ast.IfExp(body=body, orelse=orelse):
                kinds = {self.kind(body), self.kind(orelse)}
                return kinds.pop() if len(kinds) == 1 else ANY
            case ast.Call(func=ast.Name(id=name)):
                return _CALLS.get(name, ANY)
            case ast.Call(func=ast.Attribute(attr=name)):
                return _METHODS.get(name, ANY)
            case ast.Name(id=name):
                return self.kinds.get(name, CALLABLE if self.outer.get(name) == CALLABLE else ANY)
            case ast.Subscript(slice=ast.Slice(), value=value):
                return self.kind(value)
            case ast.Lambda():
                return CALLABLE
        return ANY

    def usable(self, line: int, loops: tuple[tuple[int, int], ...]) -> Iterator[str]:
        """Local names bound before `line`, or anywhere within a loop that encloses it."""
        for name, bound in self.local.items():
            if bound < line or any(first <= bound <= last for first, last in loops):
                yield name


def bound_names(target: ast.AST) -> Iterator[str]:
    """The names that an assignment target binds."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


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


def module_names(source: Source) -> dict[str, str]:
    """Names bound at the top of the module: name -> `CALLABLE` for functions and classes, else `ANY`."""
    names: dict[str, str] = {}
    for statement in source.tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] = CALLABLE
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    names[(alias.asname or alias.name).split(".")[0]] = ANY
            case ast.Assign(targets=targets):
                for target in targets:
                    names.update(dict.fromkeys(bound_names(target), ANY))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = ANY
    return names


def scope_of(source: Source, function: Function | None) -> Scope:
    """The scope of a function (None: of the module), with the enclosing functions' names in it."""
    scope = Scope(outer=module_names(source))
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
    for node in own_nodes(function):
        if isinstance(node, (Function, ast.ClassDef)):
            scope.local.setdefault(node.name, node.lineno)
            scope.kinds[node.name] = CALLABLE
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and not _in_comprehension(source, node):
            scope.local[node.id] = min(scope.local.get(node.id, node.lineno), node.lineno)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            scope.local.setdefault(node.name, node.lineno)
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
        if isinstance(at, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            first = at.generators[0]
            if not (child is first and node in ast.walk(first.iter)):
                for generator in at.generators:
                    names.update(bound_names(generator.target))
        elif isinstance(at, ast.Lambda):
            names.update(p.arg for p in parameters(at))
    return names


def _guess_kinds(scope: Scope, function: ast.AST) -> None:
    """Two rounds of counting hints: the second sees the kinds that the first found."""
    for _ in range(2):
        hints: dict[str, Counter[str]] = {}
        for node in own_nodes(function):
            for name, kind in _hints(scope, node):
                if kind != ANY:
                    hints.setdefault(name, Counter())[kind] += 1
        for name, counted in hints.items():
            scope.kinds[name] = counted.most_common(1)[0][0]


def _hints(scope: Scope, node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            if value is not None:
                yield name, scope.kind(value)
                yield name, scope.kind(value)
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)) if len(targets) == len(values):
            for target, value in zip(targets, values, strict=True):
                if isinstance(target, ast.Name):
                    yield target.id, scope.kind(value)
        case ast.AugAssign(target=ast.Name(id=name), value=value):
            yield name, scope.kind(value)
        case ast.For(target=target, iter=iterated) | ast.comprehension(target=target, iter=iterated):
            yield from _loop_hints(target, iterated)
        case ast.Call(
            func=ast.Name(id="len" | "sorted" | "enumerate" | "reversed" | "sum"), args=[ast.Name(id=name), *_]
        ):
            yield name, LIST
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if attr in _RECEIVERS:
            yield name, _RECEIVERS[attr]
        case ast.Subscript(value=value, slice=bounds):
            yield from _subscript_hints(scope, value, bounds)
        case ast.BinOp(left=left, right=right):
            for one, other in ((left, right), (right, left)):
                if isinstance(one, ast.Name):
                    yield one.id, scope.kind(other)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            if isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)):
                for one, other in ((left, right), (right, left)):
                    if isinstance(one, ast.Name):
                        yield one.id, scope.kind(other)


def _loop_hints(target: ast.expr, iterated: ast.expr) -> Iterator[tuple[str, str]]:
    match target, iterated:
        case ast.Name(id=name), ast.Call(func=ast.Name(id="range")):
            yield name, NUMBER
        case ast.Tuple(elts=[ast.Name(id=name), *_]), ast.Call(func=ast.Name(id="enumerate")):
            yield name, NUMBER
    if isinstance(iterated, ast.Name):
        yield iterated.id, LIST


def _subscript_hints(scope: Scope, value: ast.expr, bounds: ast.expr) -> Iterator[tuple[str, str]]:
    if isinstance(bounds, ast.Slice):
        if isinstance(value, ast.Name):
            yield value.id, LIST
        for bound in (bounds.lower, bounds.upper):
            if isinstance(bound, ast.Name):
                yield bound.id, NUMBER
    elif isinstance(value, ast.Name):
        kind = scope.kind(bounds)
        if kind == NUMBER:
            yield value.id, LIST
        elif kind == TEXT:
            yield value.id, MAP
        if isinstance(bounds, ast.Name) and scope.kinds.get(value.id) in (LIST, TEXT):
            yield bounds.id, NUMBER
