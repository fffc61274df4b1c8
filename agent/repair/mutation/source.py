"""A Python file as text and tree at once: where each node stands, and what a change of its text would mean.

Mutants are made as text edits on exact ranges, so that comments, quotes and layout stay as they were and a one-line fix
is a one-line diff. The tree only says where to cut.
"""

import ast
import hashlib
import re
import threading
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, takewhile
from operator import attrgetter

from harness.code.facts import FAILS, parse

Function = ast.FunctionDef | ast.AsyncFunctionDef

_NAME = "<mutant>"
"""The file name under which texts are parsed, so that their warnings can be told from others."""
_POSITION = attrgetter("lineno", "col_offset", "end_lineno", "end_col_offset")


class Stopped(Exception):
    """The search for mutants was given up because nobody waits for it any more."""


def go_on(stop: threading.Event | None) -> None:
    """Raises Stopped once the event is set. Called in every long loop: a thread cannot be ended otherwise."""
    if stop is not None and stop.is_set():
        raise Stopped


def hush() -> None:
    """Keep Python's remarks on the code of mutants ("invalid decimal literal") from the terminal, in every thread.

    `warnings.catch_warnings` would swap the filters of all threads; this one only speaks of texts parsed here."""
    warnings.filterwarnings("ignore", module=re.escape(_NAME))


parsed = partial(parse, name=_NAME)  # the tree of a text; raises SyntaxError where there is none


def compiles(text: str) -> bool:
    """Whether the text is a whole program, which says more than that it parses: no `return` outside of a function."""
    try:
        compile(text, _NAME, "exec", dont_inherit=True)
    except FAILS:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Proposal:
    """One possible edit: the characters [start, end) of the file become `text`.

    `factor` weighs it against the others that the same operator makes at the same place (1.0: as likely as any).
    `compound`: the new text is an expression that may need parentheses where it goes. `group` tells apart places within
    one node, for operators that make several independent choices there."""

    start: int
    end: int
    text: str
    operator: str
    factor: float = 1.0
    compound: bool = False
    group: str = ""


class Source:
    """One parsed file. Raises SyntaxError where the text is not Python of the version that runs Troop, or its mutants
    could not be compiled: each further `for` of a comprehension takes of the compiler's stack, which nothing bounds.

    Positions are character offsets into `text`; the tree's UTF-8 columns are converted once per line."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = parsed(text)
        self.lines = text.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self.lines)]
        self.parents: dict[ast.AST, ast.AST] = {}
        self.fields: dict[ast.AST, str] = {}
        for parent in ast.walk(self.tree):
            if len(getattr(parent, "generators", ())) > 200:
                raise SyntaxError(f"{path} has a comprehension of more than 200 parts")
            for name, value in ast.iter_fields(parent):
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, ast.AST):
                        self.parents[child] = parent
                        self.fields[child] = name

    def offset(self, line: int, column: int) -> int:
        """The character offset of a 1-based line and a UTF-8 column, as the tree gives them."""
        text = self.lines[line - 1]
        if not text.isascii():
            column = len(text.encode("utf-8")[:column].decode("utf-8", "ignore"))
        return self._starts[line - 1] + column

    def line_start(self, line: int) -> int:
        """Offset of the first character of a 1-based line."""
        return self._starts[line - 1]

    def line_of(self, offset: int) -> int:
        """The 1-based line that holds the offset."""
        return min(bisect_right(self._starts, offset), len(self.lines))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """[start, end) of a node that has a position."""
        line, column, end_line, end_column = _POSITION(node)
        return self.offset(line, column), self.offset(end_line, end_column)

    def segment(self, node: ast.AST) -> str:
        """The node's text, as written."""
        start, end = self.span(node)
        return self.text[start:end]

    def around(self, node: ast.AST | None) -> Iterator[ast.AST]:
        """The node, and what it stands in, the innermost first."""
        while node is not None:
            yield node
            node = self.parents.get(node)

    def statement(self, node: ast.AST) -> ast.stmt | ast.excepthandler | None:
        """The innermost statement (or `except` clause) around a node, the node itself included."""
        return next((at for at in self.around(node) if isinstance(at, (ast.stmt, ast.excepthandler))), None)

    def function(self, node: ast.AST) -> Function | None:
        """The innermost function around a node, not the node itself."""
        return next((at for at in self.around(self.parents.get(node)) if isinstance(at, Function)), None)

    def loops(self, node: ast.AST) -> list[ast.For | ast.AsyncFor | ast.While]:
        """The loops around a node within its function, not the node itself."""
        within = takewhile(lambda at: not isinstance(at, Function), self.around(self.parents.get(node)))
        return [at for at in within if isinstance(at, (ast.For, ast.AsyncFor, ast.While))]

    def first_line(self, statement: ast.stmt) -> int:
        """A statement's first line, decorators included."""
        decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
        return min([statement.lineno, *(d.lineno for d in decorators)])

    def header_end(self, statement: ast.stmt | ast.excepthandler) -> int:
        """Where a compound statement's first body statement starts; a simple statement's end."""
        body = getattr(statement, "body", None)
        if isinstance(body, list) and isinstance(body[0], ast.stmt):
            return self.offset(self.first_line(body[0]), body[0].col_offset)
        return self.span(statement)[1]

    def block(self, statement: ast.stmt) -> list[ast.stmt]:
        """The list of statements that this one stands in."""
        return list(getattr(self.parents[statement], self.fields[statement]))


def is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def meaning(text: str) -> bytes | None:
    """What a piece of a program says, for telling whether two say the same, as a digest: None if it does not parse.

    Comparisons are turned to one direction and negated comparisons resolved, so `not a < b`, `a >= b` and `b <= a`
    agree."""
    try:
        said = repr(_said(parsed(text)))
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    except FAILS:
        return None


_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_OPPOSITES = ((ast.Lt, ast.GtE), (ast.Gt, ast.LtE), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn), (ast.Is, ast.IsNot))
_NEGATED: dict[type, type[ast.cmpop]] = {a: b for one, two in _OPPOSITES for a, b in ((one, two), (two, one))}
_SILENT = ("ctx", "kind", "type_comment", "type_ignores")
_TELLING: dict[type, tuple[str, ...]] = {
    kind: tuple(name for name in kind._fields if name not in _SILENT)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}


def _said(value: object) -> object:
    """A tree as nested tuples (several times as fast to make as `ast.dump`'s text)."""
    kind = type(value)
    if isinstance(value, list):
        return tuple([_said(item) for item in value])
    if kind not in _TELLING:
        return (kind.__name__, repr(value))
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Compare) and len(value.ops) == 1:
        return _compared(type(value.ops[0]), value)
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
        inner = value.operand
        if isinstance(inner, ast.Compare) and len(inner.ops) == 1:
            return _compared(_NEGATED[type(inner.ops[0])], inner)
    return (kind.__name__, *[_said(getattr(value, name, None)) for name in _TELLING[kind]])


def _compared(op: type[ast.cmpop], comparison: ast.Compare) -> object:
    left, right = _said(comparison.left), _said(comparison.comparators[0])
    if op in _MIRRORED or (op in (ast.Eq, ast.NotEq) and repr(left) > repr(right)):
        return (_MIRRORED.get(op, op).__name__, right, left)
    return (op.__name__, left, right)
