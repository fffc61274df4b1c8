"""A place in a program where operators work: a node, with the names and donors that are to be had there."""

import ast
import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.repair.mutation.donors import SAME_FUNCTION, Donor, Pool
from agent.repair.mutation.scope import CALLABLE, Scope
from agent.repair.mutation.source import Proposal, Source

BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_"))

LOOSE = {"BinOp", "BoolOp", "Compare", "IfExp", "UnaryOp", "Lambda", "GeneratorExp", "NamedExpr"}
LOOSE |= {"Yield", "YieldFrom", "Await"}
"""Shapes of expressions that may need parentheses where they go."""


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

    @property
    def text(self) -> str:
        """The node's text."""
        return self.source.segment(self.node)

    @property
    def called(self) -> bool:
        """Whether the node is what a call calls."""
        return self.place == "func" and isinstance(self.parent, ast.Call)

    def swap(self, text: str, operator: str, factor: float = 1.0, *, compound: bool = False) -> Proposal:
        """The proposal that the node's text becomes `text`."""
        start, end = self.source.span(self.node)
        return Proposal(start, end, text, operator, factor, compound)

    def take(self, donor: Donor, operator: str, factor: float) -> Proposal:
        """The proposal that the donor stands in the node's place."""
        return self.swap(donor.text, operator, factor, compound=donor.shape in LOOSE)

    @property
    def things(self) -> list[str]:
        """The names usable here that are no functions or classes."""
        return [name for name in self.names if self.scope.of(name) != CALLABLE]

    def own(self, donors: Mapping[str, Donor]) -> Iterator[Donor]:
        """Those from the same function whose names are all bound here."""
        return (donor for donor in donors.values() if donor.near == SAME_FUNCTION and self.fits(donor))

    def fits(self, donor: Donor) -> bool:
        """Whether all the names that the donor reads are bound here."""
        return all(n in self.names or n in self.scope.outer or n in BUILTINS for n in donor.names)


def is_condition(site: Site) -> bool:
    """Whether the node's value is only asked for its truth."""
    match site.parent:
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return True
    return site.place in ("test", "ifs")


def is_value(site: Site) -> bool:
    """Whether the node is an expression that is read, and not a called function or a part of syntax."""
    node, parent = site.node, site.parent
    if not isinstance(node, ast.expr) or isinstance(node, (ast.Slice, ast.Starred, ast.JoinedStr, ast.FormattedValue)):
        return False
    if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        return False
    if site.called or site.place in ("decorator_list", "annotation", "returns"):
        return False
    return not isinstance(parent, (ast.JoinedStr, ast.FormattedValue, ast.Expr, ast.arg, ast.Delete))
