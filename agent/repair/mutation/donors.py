"""What a repository offers to repair itself with: expressions, conditions, names, constants and statements already in
it.

The redundancy assumption (Martinez, Weimer, Monperrus, ICSE 2014 NIER; Barr et al., FSE 2014): a fix is mostly made of
pieces that the program holds already, most often in the same file.
"""

import ast
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from agent.repair.mutation.scope import TRUTH, own_nodes, scope_of
from agent.repair.mutation.source import Function, Source, go_on, is_docstring

SAME_FUNCTION, SAME_FILE, SAME_PACKAGE = 1.0, 0.3, 0.1

MOST_DONORS = 500
"""Donors of one use that a pool takes: the nearest."""

_LONGEST = 80
_NO_DONORS = (ast.Name, ast.Starred, ast.Slice, ast.JoinedStr, ast.FormattedValue, ast.Lambda)
_SIMPLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return, ast.Raise, ast.Delete)


@dataclass(frozen=True, slots=True)
class Donor:
    """A piece of code found somewhere. `near`: SAME_FUNCTION, SAME_FILE or SAME_PACKAGE. `names`: those it reads."""

    text: str
    kind: str
    shape: str
    names: frozenset[str]
    near: float


@dataclass(slots=True)
class Pool:
    """Donors by use, each in order of nearness and first appearance, without repetition."""

    expressions: dict[str, Donor] = field(default_factory=dict)
    conditions: dict[str, Donor] = field(default_factory=dict)
    returned: dict[str, Donor] = field(default_factory=dict)
    statements: dict[str, Donor] = field(default_factory=dict)
    constants: dict[str, Donor] = field(default_factory=dict)
    fields: dict[str, float] = field(default_factory=dict)
    methods: dict[str, float] = field(default_factory=dict)
    callees: dict[str, float] = field(default_factory=dict)

    def take(self, other: Self) -> None:
        """Add the other's donors behind these."""
        for use in fields(self):
            mine: dict[str, Any] = getattr(self, use.name)
            theirs: dict[str, Any] = getattr(other, use.name)
            for text, donor in theirs.items():
                if len(mine) >= MOST_DONORS:
                    break
                mine.setdefault(text, donor)


def gather(pool: Pool, source: Source, function: Function | None, near: float) -> None:
    """Add what a function (None: the module) holds to the pool; pieces that are there already keep their place."""
    scope, nodes = scope_of(source, function), own_nodes(function or source.tree)
    for node in sorted(nodes, key=lambda n: (getattr(n, "lineno", 0), getattr(n, "col_offset", 0), type(n).__name__)):
        parent = source.parents.get(node)
        called = isinstance(parent, ast.Call) and parent.func is node
        if isinstance(node, ast.Attribute):
            (pool.methods if called else pool.fields).setdefault(node.attr, near)
        elif isinstance(node, ast.Name) and called:
            pool.callees.setdefault(node.id, near)
        for where, piece in _pieces(pool, node, parent, called):
            text = source.segment(piece)
            if "\n" not in text and len(text) <= _LONGEST and text not in where and len(where) < MOST_DONORS:
                kind = scope.kind(piece) if isinstance(piece, ast.expr) else TRUTH
                where[text] = Donor(text, kind, type(piece).__name__, names_read(piece), near)


def _pieces(
    pool: Pool, node: ast.AST, parent: ast.AST | None, called: bool
) -> Iterator[tuple[dict[str, Donor], ast.expr | ast.stmt]]:
    """What a node is good for: where it goes in the pool, and the piece of code."""
    match node:
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            yield pool.conditions, node
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
            parts = test.values if isinstance(test, ast.BoolOp) else ()
            yield from ((pool.conditions, condition) for condition in (test, *parts))
        case ast.comprehension(ifs=conditions):
            yield from ((pool.conditions, condition) for condition in conditions)
        case ast.Return(value=ast.expr() as value):
            yield pool.returned, value
    if isinstance(node, _SIMPLE) and not is_docstring(node):
        yield pool.statements, node
    if isinstance(node, ast.Constant):
        if not isinstance(parent, (ast.JoinedStr, ast.FormattedValue, ast.Expr)):
            yield pool.constants, node
    elif called or isinstance(parent, ast.Expr) or not isinstance(node, ast.expr) or isinstance(node, _NO_DONORS):
        return  # of an ast.Expr: done for its effect, as a value it is mostly None
    elif isinstance(node, (ast.Subscript, ast.Attribute)) or isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        yield pool.expressions, node


def names_read(node: ast.AST) -> frozenset[str]:
    """Names that must be bound where the piece goes: those read, less those that it binds itself in comprehensions."""
    loops = (part for part in ast.walk(node) if isinstance(part, ast.comprehension))
    inner = {name.id for loop in loops for name in ast.walk(loop.target) if isinstance(name, ast.Name)}
    read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        read.add(node.target.id)
    return frozenset(read - inner)


@dataclass(slots=True)
class Larder:
    """The pools of some files; what they share is gathered once. `stop`: raises Stopped when it is set."""

    sources: Sequence[Source]
    stop: threading.Event | None = None
    of_file: dict[tuple[str, float], Pool] = field(default_factory=dict)

    def pool_for(self, source: Source, function: Function | None) -> Pool:
        """All donors for one function (None: module level): its own, its file's, then those of the other files."""
        pool = Pool()
        if function is not None:
            gather(pool, source, function, SAME_FUNCTION)
        pool.take(self._file(source, SAME_FILE))
        for other in self.sources:
            if other is not source:
                pool.take(self._file(other, SAME_PACKAGE))
        return pool

    def _file(self, source: Source, near: float) -> Pool:
        """The donors of a file, those of its functions first."""
        if (source.path, near) not in self.of_file:
            pool = Pool()
            for inner in (*(node for node in ast.walk(source.tree) if isinstance(node, Function)), None):
                go_on(self.stop)
                gather(pool, source, inner, near)
            self.of_file[source.path, near] = pool
        return self.of_file[source.path, near]
