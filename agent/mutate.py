"""Mutants of a program: small changes near suspicious lines, the most plausible first.

`mutants` gives them in one order for everybody (weight: suspicion of the line × prior of the operator × how well the piece
fits its place, shared among the alternatives at one place); `agent.repair` deals them out to attempts.
"""

from __future__ import annotations

import ast
import math
import random
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.mutation.calls import PIECE_OPERATORS
from agent.mutation.donors import Pool, pool_for
from agent.mutation.expressions import EXPRESSION_OPERATORS
from agent.mutation.scope import Scope, comprehension_names, scope_of
from agent.mutation.site import Site
from agent.mutation.source import Function, Proposal, Source, meaning
from agent.mutation.statements import STATEMENT_OPERATORS
from agent.mutation.values import VALUE_OPERATORS

# How likely a fix is of this form, from what is known of small fixes in general (one name, one operator, one bound or one
# missing condition are the common ones; see Karampatsis and Sutton, "How often do single-statement bugs occur?", MSR 2020).
PRIORS: dict[str, float] = {
    "replace-condition": 0.6, "constant-to-name": 0.5, "clamp": 0.35, "target": 0.6,
    "compare": 1.0, "arithmetic": 0.9, "boolean": 0.8, "variable": 1.0, "constant": 0.8, "off-by-one": 0.9,
    "attribute": 0.8, "callee": 0.8, "swap-arguments": 0.9, "swap-operands": 0.6, "drop-operand": 0.6, "negate": 0.6,
    "absence": 0.7,
    "drop-conjunct": 0.6, "add-condition": 0.7, "constant-condition": 0.5, "drop-attribute": 0.5, "add-attribute": 0.4,
    "add-term": 0.55, "donor": 0.8, "unwrap": 0.5, "wrap": 0.4, "drop-argument": 0.4, "insert-argument": 0.6, "slice": 0.7,
    "subscript": 0.5, "drop-element": 0.4, "insert-element": 0.5, "filter": 0.5, "recombined": 0.4, "delete": 0.5,
    "swap-statements": 0.5, "move-statement": 0.5, "augmented": 0.6, "return-form": 0.6, "loop-form": 0.4, "jump": 0.5,
    "return-value": 0.6, "exception": 0.5, "guard": 0.6, "condition-statement": 0.4, "insert-statement": 0.9,
}  # fmt: skip

MOST = 20_000
"""Mutants after which no less suspicious place is looked at."""

HEADER_SHARE = 0.3
CONSTANT_SHARE = 0.1
JITTER = 0.2

_SHARED = 0.6  # exponent: how much alternatives at one place take from each other
_FAINT = 1e-6


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: in `path`, the text `old`, whole lines beginning at the 1-based `line`, becomes `new`."""

    path: str
    line: int
    old: str
    new: str
    operator: str
    weight: float

    def apply(self, text: str) -> str:
        """The file's text with the change made. Raises ValueError where `old` does not stand at `line`."""
        start = 0
        for _ in range(self.line - 1):
            start = text.index("\n", start) + 1
        if not text.startswith(self.old, start):
            raise ValueError(f"{self.path}, line {self.line}: the text to be changed is not there")
        return text[:start] + self.new + text[start + len(self.old) :]


Change = tuple[Mutant, ...]
"""What one turn does to a file: one mutant, or two of them, the one further down first."""


def mutants(
    texts: Mapping[str, str], suspicion: Mapping[tuple[str, int], float], *, donors: Mapping[str, str] | None = None
) -> list[Mutant]:
    """All first-order mutants on the suspicious lines, the most plausible first; equal meanings once.

    `texts`: path -> text of the files to change; `donors`: further files of the package to take pieces from. Files that do
    not parse are left out. `suspicion`: (path, 1-based line) -> score above 0.
    """
    sources = {path: source for path, text in texts.items() if (source := _parsed(path, text)) is not None}
    others = [s for p, t in (donors or {}).items() if p not in sources and (s := _parsed(p, t)) is not None]
    lines = {path: {line: s for (at, line), s in suspicion.items() if at == path} for path in sources}
    places = [
        (score, source, node)
        for path, source in sources.items()
        for node in ast.walk(source.tree)
        if (score := _suspicion(source, node, lines[path])) > 0
    ]
    places.sort(key=lambda place: -place[0])
    found: dict[object, Mutant] = {}
    frames: dict[ast.AST | None, tuple[Scope, Pool]] = {}
    original: dict[object, object] = {}
    for score, source, node in places:
        if len(found) >= MOST:
            break
        function = source.function(node)
        frame = function or source.tree
        if frame not in frames:
            around = [other for p, other in sources.items() if p != source.path] + others
            frames[frame] = (scope_of(source, function), pool_for(source, function, around))
        _mutate(_site(source, node, *frames[frame]), score, found, original)
    return sorted(found.values(), key=lambda m: (-m.weight, m.path, m.line, m.new))


def _parsed(path: str, text: str) -> Source | None:
    if "\r" in text.replace("\r\n", "") or "\f" in text:
        return None  # the parser and an editor count such lines differently
    try:
        return Source(path, text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _mutate(site: Site, score: float, found: dict[object, Mutant], original: dict[object, object]) -> None:
    """Add the mutants of one place to those found."""
    source = site.source
    for proposal, share in _weighed(site):
        made = _made(source, site.node, proposal, original)
        if made is not None:
            key, old, new, line = made
            mutant = Mutant(source.path, line, old, new, proposal.operator, score * PRIORS[proposal.operator] * share)
            found[key] = _plainer(found[key], mutant) if key in found else mutant


def _plainer(one: Mutant, other: Mutant) -> Mutant:
    """The shorter way to say the same, as plausible as the more plausible of the two."""
    shorter = min(one, other, key=lambda m: len(m.new) - len(m.old))
    return replace(shorter, weight=max(one.weight, other.weight))


def _suspicion(source: Source, node: ast.AST, lines: Mapping[int, float]) -> float:
    """The score of the statement that a node belongs to: the highest of the lines of its own text."""
    if not isinstance(node, (ast.stmt, ast.expr, ast.excepthandler)):
        return 0.0
    statement = source.statement(node)
    if statement is None:
        return 0.0
    last = source.line_of(max(source.header_end(statement) - 1, source.span(statement)[0]))
    body = getattr(statement, "body", None)
    if isinstance(body, list) and body and source.line_of(source.header_end(statement)) > statement.lineno:
        last = max(statement.lineno, source.line_of(source.header_end(statement)) - 1)
    scores = [lines.get(line, 0.0) for line in range(statement.lineno, last + 1)]
    return max(scores, default=0.0)


def _site(source: Source, node: ast.AST, scope: Scope, pool: Pool) -> Site:
    loops = []
    at = source.parents.get(node)
    while at is not None and not isinstance(at, Function):
        if isinstance(at, (ast.For, ast.AsyncFor, ast.While)):
            loops.append((at.lineno, at.end_lineno or at.lineno))
        at = source.parents.get(at)
    line = getattr(node, "lineno", 0)
    names = sorted({*scope.usable(line, tuple(loops)), *comprehension_names(source, node)})
    return Site(source, node, scope, pool, tuple(names))


def _weighed(site: Site) -> list[tuple[Proposal, float]]:
    """The proposals at one node; those of one operator share what there is to be had."""
    operators = (*EXPRESSION_OPERATORS, *VALUE_OPERATORS, *PIECE_OPERATORS, *STATEMENT_OPERATORS)
    proposals = [p for operator in operators for p in operator(site) if p.factor > _FAINT]
    total: dict[tuple[str, str], float] = {}
    for p in proposals:
        total[p.operator, p.group] = total.get((p.operator, p.group), 0.0) + p.factor
    return [(p, p.factor / max(1.0, total[p.operator, p.group]) ** _SHARED) for p in proposals]


def _made(
    source: Source, node: ast.AST, proposal: Proposal, original: dict[object, object]
) -> tuple[object, str, str, int] | None:
    """(key of the meaning, old lines, new lines, first line), or None where nothing sensible comes of the proposal."""
    start, end = _unit(source, node, proposal)
    place = (source.path, start, end)
    if place not in original:
        original[place] = _meaning(source.text[start:end])
    text = _fitted(source, start, end, proposal)
    if text is None:
        return None
    said = _meaning(source.text[start : proposal.start] + text + source.text[proposal.end : end])
    if said is None or said == original[place]:
        return None
    old, new, line = _whole_lines(source, proposal, text)
    indent = text[: len(text) - len(text.lstrip())] if proposal.start == proposal.end else ""
    return ((*place, indent, said), old, new, line) if old else None


def _whole_lines(source: Source, proposal: Proposal, text: str) -> tuple[str, str, int]:
    """(old, new, first line): the edit as one of whole lines, the last line's end left out where it stays."""
    first = source.line_of(proposal.start)
    begin = source.line_start(first)
    last = proposal.end if proposal.end == begin else max(proposal.end - 1, proposal.start)
    stop = source.text.find("\n", last)
    stop = max(len(source.text) if stop < 0 else stop, proposal.end)
    if begin == stop and first > 1:  # before an empty line, which an edit cannot name: after the line above it
        first -= 1
        begin = source.line_start(first)
    new = source.text[begin : proposal.start] + text + source.text[proposal.end : stop]
    return source.text[begin:stop], new, first


def _unit(source: Source, node: ast.AST, proposal: Proposal) -> tuple[int, int]:
    """[start, end) of the smallest piece of text that parses alone and shows what the edit means."""
    statement = source.statement(node)
    if statement is not None and not isinstance(statement, ast.Match):
        start, end = source.span(statement)[0], source.header_end(statement)
        if start <= proposal.start and proposal.end <= end and not (node is statement and _is_elif(source, statement)):
            return start, end
        whole = proposal.start == source.line_start(source.line_of(proposal.start))
        if whole and node is statement and proposal.operator != "move-statement":
            return proposal.start, proposal.end
    at: ast.AST | None = node
    while at is not None and not isinstance(source.parents.get(at), ast.Module):
        if isinstance(at, Function) and source.span(at)[0] < proposal.start and proposal.end < source.span(at)[1]:
            break
        at = source.parents.get(at)
    if isinstance(at, ast.stmt):
        start = source.line_start(source.first_line(at)) + at.col_offset
        return start, max(source.span(at)[1], proposal.end)
    return 0, len(source.text)


def _is_elif(source: Source, statement: ast.stmt | ast.excepthandler) -> bool:
    return isinstance(statement, ast.If) and source.text.startswith("elif", source.span(statement)[0])


def _meaning(text: str) -> object | None:
    """The meaning of statements, or of a compound statement's header, cut out of their block."""
    if text[:1] in (" ", "\t"):
        text = textwrap.dedent(text)
    if text.startswith("elif"):
        text = text[2:]
    stripped = text.rstrip()
    if stripped.startswith("except"):
        return meaning(f"try:\n pass\n{text}pass")
    if stripped.endswith(":") or text != stripped:
        return meaning(text + "pass") or meaning(text)
    return meaning(text)


def _fitted(source: Source, start: int, end: int, proposal: Proposal) -> str | None:
    """The proposal's text, in parentheses where it would otherwise fall apart at its new place."""
    if not proposal.compound:
        return proposal.text
    before, after = source.text[start : proposal.start], source.text[proposal.end : end]
    bare, held = _meaning(before + proposal.text + after), _meaning(f"{before}({proposal.text}){after}")
    if bare is not None and bare == held:
        return proposal.text
    return f"({proposal.text})" if held is not None else None


def surroundings(texts: Mapping[str, str], suspicion: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """The suspicion with the lines that no test runs itself, but on which suspicious lines rest.

    A function's header (its defaults) gets a share of its most suspicious line; constants of the module or class a
    smaller one. Both run at import, before any test.
    """
    spread = dict(suspicion)
    for path, text in texts.items():
        source = _parsed(path, text)
        lines = {line: score for (at, line), score in suspicion.items() if at == path}
        if source is None or not lines:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                worst = max((lines.get(n, 0.0) for n in range(node.lineno, (node.end_lineno or 0) + 1)), default=0.0)
                spread[path, node.lineno] = max(spread.get((path, node.lineno), 0.0), HEADER_SHARE * worst)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and source.function(node) is None:
                worst = CONSTANT_SHARE * max(lines.values())
                spread[path, node.lineno] = max(spread.get((path, node.lineno), 0.0), worst)
    return {place: score for place, score in spread.items() if score > 0}


def dealt(
    ordered: Sequence[Mutant], *, index: int, attempts: int, turns: int, seed: int, common_seed: int
) -> list[Change]:
    """The changes that the attempt `index` makes, at most `turns`: its share of the common order, in an order of its own.

    `common_seed` perturbs the common order, `seed` the attempt's. The first `attempts` attempts together get the first
    `attempts` · `turns` mutants, each about as plausible ones as the others; later attempts get what comes then. Where
    single mutants run out, pairs follow.
    """
    wanted = (index // attempts + 1) * attempts * turns
    changes: list[Change] = [(mutant,) for mutant in ordered[:wanted]]
    if len(changes) < wanted:
        changes.extend(pairs(ordered, wanted - len(changes)))
    common = _jittered(range(len(changes)), random.Random(common_seed))
    block = common[(index // attempts) * attempts * turns :]
    own = _jittered(block[index % attempts :: attempts][:turns], random.Random(seed))
    return [changes[rank] for rank in own]


def _jittered(ranks: Iterable[int], chance: random.Random) -> list[int]:
    """The ranks in nearly their order: each may move by about a fifth of itself."""
    return sorted(ranks, key=lambda rank: math.log(rank + 3) + JITTER * chance.gauss(0, 1))


def pairs(ordered: Sequence[Mutant], count: int) -> list[Change]:
    """Two mutants of one file on different lines, the later first (so that the earlier's line stays where it was);
    pairs of plausible mutants first."""
    found: list[Change] = []
    for total in range(1, 2 * len(ordered)):
        for first in range(max(0, total - len(ordered) + 1), (total + 1) // 2):
            one, two = sorted((ordered[first], ordered[total - first]), key=lambda m: m.line)
            if one.path == two.path and one.line + one.old.count("\n") < two.line:
                found.append((two, one))
                if len(found) == count:
                    return found
    return found
