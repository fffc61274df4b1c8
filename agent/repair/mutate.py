"""Mutants of a program: small changes near suspicious lines, the most plausible first.

`mutants` gives them in one order for everybody (weight: suspicion of the line × prior of the operator × how well the
piece fits its place, shared among the alternatives at one place); `agent.repair.policy` deals them out to attempts.
"""

from __future__ import annotations

import ast
import math
import random
import textwrap
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from agent.repair.mutation.calls import PIECE_OPERATORS
from agent.repair.mutation.donors import Larder, Pool
from agent.repair.mutation.expressions import EXPRESSION_OPERATORS
from agent.repair.mutation.scope import Scope, comprehension_names, scope_of
from agent.repair.mutation.site import Site
from agent.repair.mutation.source import Function, Proposal, Source, go_on, hush, meaning
from agent.repair.mutation.statements import STATEMENT_OPERATORS
from agent.repair.mutation.values import VALUE_OPERATORS

# How likely a fix is of this form, from what is known of small fixes in general (one name, one operator, one bound or
# one missing condition are the common ones; see Karampatsis and Sutton, "How often do single-statement bugs occur?",
# MSR 2020).
_BY_PRIOR = {
    1.0: "compare variable",
    0.9: "arithmetic off-by-one swap-arguments insert-statement",
    0.8: "boolean constant attribute callee donor",
    0.7: "absence add-condition",
    0.6: "replace-condition target swap-operands drop-operand negate drop-conjunct augmented return-value guard",
    0.55: "add-term",
    0.5: "constant-to-name constant-condition subscript delete",
    0.4: "recombined",
    0.35: "clamp",
}
PRIORS = {operator: prior for prior, operators in _BY_PRIOR.items() for operator in operators.split()}

# Bounds on the search. They count work and never look at a clock, so that every machine makes the same mutants.
MOST = 20_000
"""Mutants after which no less suspicious place is looked at."""

ALL_PLACES = 60_000
"""Proposals worked out, shared among the places, so that long functions are looked at to their end."""

ONE_PLACE = 40
"""Proposals that a place may have worked out at least."""

MOST_WORK = 12_000_000
"""Characters parsed, over all places; one million take about half a second."""

STATEMENT_WORK = 2_500_000
"""Characters parsed for the places of one statement, shared among them."""

MOST_OFFERED = 500_000
"""Proposals of the operators, over all places, before the best of each place are worked out."""

ONE_OPERATOR = 4_000
"""Proposals of one operator at one place."""

TABLE_PLACES = 200
"""A statement with more places than this is a table: it is changed as a whole, but nothing in it."""

LONGEST_EDIT = 4_000
"""Characters that an edit may take out, or put in."""

PAIRS_LOOKED_AT = 100_000

HEADER_SHARE = 0.3
CONSTANT_SHARE = 0.1
JITTER = 0.2

_SHARED = 0.6  # exponent: how much alternatives at one place take from each other
_FAINT = 1e-6
_PARSED = 2  # times that a proposal's text is parsed, on the average
_EVERY = 20  # characters' worth of work that every proposal takes besides


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
    texts: Mapping[str, str],
    suspicion: Mapping[tuple[str, int], float],
    *,
    donors: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> list[Mutant]:
    """All first-order mutants on the suspicious lines, the most plausible first; equal meanings once.

    `texts`: path -> text of the files to change; `donors`: further files of the package to take pieces from. Files that
    do not parse are left out. `suspicion`: (path, 1-based line) -> score above 0. `stop`: raises
    `agent.repair.mutation.source.Stopped` soon after it is set.
    """
    hush()
    sources = _all_parsed(texts, stop)
    others = _all_parsed({path: text for path, text in (donors or {}).items() if path not in sources}, stop)
    larder = Larder([*sources.values(), *others.values()], stop)
    places = _places(sources, suspicion)
    shared = Counter(statement for _, _, _, statement in places)
    frames: dict[ast.AST | None, tuple[Scope, Pool]] = {}
    search = _Search(stop, most=max(ONE_PLACE, ALL_PLACES // max(1, len(places))))
    for score, source, node, statement in places:
        if search.over:
            break
        function = source.function(node)
        frame = function or source.tree
        if frame not in frames:
            frames[frame] = (scope_of(source, function), larder.pool_for(source, function))
        search.look_at(_site(source, node, *frames[frame]), score, shared[statement])
    return sorted(search.found.values(), key=lambda m: (-m.weight, m.path, m.line, m.new))


def _places(
    sources: Mapping[str, Source], suspicion: Mapping[tuple[str, int], float]
) -> list[tuple[float, Source, ast.AST, ast.AST]]:
    """(score, file, node, its statement) of the nodes of suspicious statements, the most suspicious first."""
    places = []
    for path, source in sources.items():
        lines = {line: score for (at, line), score in suspicion.items() if at == path}
        scores: dict[ast.AST, float] = {}
        for node in ast.walk(source.tree):
            if not isinstance(node, (ast.stmt, ast.expr, ast.excepthandler)):
                continue
            statement = source.statement(node)
            if statement is None:
                continue
            if statement not in scores:
                scores[statement] = _suspicion(source, statement, lines)
            if scores[statement] > 0:
                places.append((scores[statement], source, node, statement))
    held = Counter(statement for _, _, _, statement in places)
    kept = [place for place in places if held[place[3]] <= TABLE_PLACES or place[2] is place[3]]
    return sorted(kept, key=lambda place: -place[0])


@dataclass(slots=True)
class _Search:
    """The mutants found so far; what it took: characters parsed, proposals offered. `most`: proposals of a place."""

    stop: threading.Event | None
    most: int
    found: dict[object, Mutant] = field(default_factory=dict)
    original: dict[object, object] = field(default_factory=dict)
    work: int = 0
    offered: int = 0

    @property
    def over(self) -> bool:
        return len(self.found) >= MOST or self.work >= MOST_WORK or self.offered >= MOST_OFFERED

    def look_at(self, site: Site, score: float, places: int) -> None:
        """Add the mutants of one place of a statement that has so many: the best, as far as its share of work goes."""
        source = site.source
        for proposal, share, unit in self._best(site, STATEMENT_WORK // places):
            go_on(self.stop)
            made = _made(source, unit, proposal, self.original)
            if made is not None:
                key, old, new, line = made
                weight = score * PRIORS[proposal.operator] * share
                mutant = Mutant(source.path, line, old, new, proposal.operator, weight)
                self.found[key] = _plainer(self.found[key], mutant) if key in self.found else mutant

    def _best(self, site: Site, allowed: int) -> list[tuple[Proposal, float, tuple[int, int]]]:
        """The most plausible proposals for the allowed work, with the texts to parse, in the operators' order."""
        weighed = _weighed(site, self.stop)
        self.offered += len(weighed)
        chosen: dict[int, tuple[Proposal, float, tuple[int, int]]] = {}
        for at in sorted(range(len(weighed)), key=lambda at: -weighed[at][1] * PRIORS[weighed[at][0].operator]):
            proposal, share = weighed[at]
            start, end = _unit(site.source, site.node, proposal)
            cost = _PARSED * (end - start) + _EVERY
            allowed -= cost
            if chosen and (allowed < 0 or len(chosen) == self.most):
                break
            self.work += cost
            chosen[at] = (proposal, share, (start, end))
        return [chosen[at] for at in sorted(chosen)]


def _all_parsed(texts: Mapping[str, str], stop: threading.Event | None) -> dict[str, Source]:
    """The files that can be parsed."""
    sources = {}
    for path, text in texts.items():
        go_on(stop)
        source = _parsed(path, text)
        if source is not None:
            sources[path] = source
    return sources


def _parsed(path: str, text: str) -> Source | None:
    if "\r" in text.replace("\r\n", "") or "\f" in text:
        return None  # the parser and an editor count such lines differently
    try:
        return Source(path, text)
    except SyntaxError:
        return None


def _plainer(one: Mutant, other: Mutant) -> Mutant:
    """The shorter way to say the same, as plausible as the more plausible of the two."""
    shorter = min(one, other, key=lambda m: len(m.new) - len(m.old))
    return replace(shorter, weight=max(one.weight, other.weight))


def _suspicion(source: Source, statement: ast.stmt | ast.excepthandler, lines: Mapping[int, float]) -> float:
    """The score of a statement: the highest of the lines of its own text."""
    end = source.header_end(statement)
    last = source.line_of(max(end - 1, source.span(statement)[0]))
    if getattr(statement, "body", None) and source.line_of(end) > statement.lineno:
        last = max(statement.lineno, source.line_of(end) - 1)
    return max((lines.get(line, 0.0) for line in range(statement.lineno, last + 1)), default=0.0)


def _site(source: Source, node: ast.AST, scope: Scope, pool: Pool) -> Site:
    usable = scope.usable(getattr(node, "lineno", 0), source.loops(node))
    names = sorted({*usable, *comprehension_names(source, node)})
    return Site(source, node, scope, pool, tuple(names))


def _weighed(site: Site, stop: threading.Event | None) -> list[tuple[Proposal, float]]:
    """The proposals at one node; those of one operator share what there is to be had."""
    proposals = list(_offered(site, stop))
    total: dict[tuple[str, str], float] = {}
    for p in proposals:
        total[p.operator, p.group] = total.get((p.operator, p.group), 0.0) + p.factor
    return [(p, p.factor / max(1.0, total[p.operator, p.group]) ** _SHARED) for p in proposals]


def _offered(site: Site, stop: threading.Event | None) -> Iterator[Proposal]:
    """What the operators propose at one node, but for what is too long."""
    for operator in (*EXPRESSION_OPERATORS, *VALUE_OPERATORS, *PIECE_OPERATORS, *STATEMENT_OPERATORS):
        for p in islice(operator(site), ONE_OPERATOR):
            go_on(stop)
            if p.factor > _FAINT and max(len(p.text), p.end - p.start) <= LONGEST_EDIT:
                yield p


def _made(
    source: Source, unit: tuple[int, int], proposal: Proposal, original: dict[object, object]
) -> tuple[object, str, str, int] | None:
    """(key of the meaning, old lines, new lines, first line), or None where nothing sensible comes of the proposal.

    `unit`: [start, end) of the text to tell the meaning from.
    """
    start, end = unit
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
    if not old or max(len(old), len(new)) > LONGEST_EDIT:
        return None
    return (*place, indent, said), old, new, line


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
        if start <= proposal.start and proposal.end <= end and not (node is statement and source.is_elif(statement)):
            return start, end
        whole = proposal.start == source.line_start(source.line_of(proposal.start))
        if whole and node is statement:
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
    hush()
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


def needed(index: int, attempts: int, turns: int) -> int:
    """How many changes there must be for the attempt to have its share; the same for `attempts` attempts in a row.

    The first `attempts` attempts together get the first `attempts` · `turns` changes; later ones what comes then.
    """
    return (index // attempts + 1) * attempts * turns


def in_common_order(ordered: Sequence[Mutant], count: int, seed: int) -> list[tuple[int, Change]]:
    """The first `count` changes (single mutants, then pairs) with their ranks, in the order that the seed makes."""
    changes: list[Change] = [(mutant,) for mutant in ordered[:count]]
    if len(changes) < count:
        changes.extend(pairs(ordered, count - len(changes)))
    return [(rank, changes[rank]) for rank in _jittered(range(len(changes)), random.Random(seed))]


def share_of(common: Sequence[tuple[int, Change]], *, index: int, attempts: int, turns: int, seed: int) -> list[Change]:
    """One attempt's share of a common order, at most `turns` changes, in the order that the seed makes of it.

    Each attempt's changes are about as plausible as the others'.
    """
    block = common[(index // attempts) * attempts * turns :]
    own = dict(block[index % attempts :: attempts][:turns])
    return [own[rank] for rank in _jittered(own, random.Random(seed))]


def _jittered(ranks: Iterable[int], chance: random.Random) -> list[int]:
    """The ranks in nearly their order: each may move by about a fifth of itself."""
    return sorted(ranks, key=lambda rank: math.log(rank + 3) + JITTER * chance.gauss(0, 1))


def pairs(ordered: Sequence[Mutant], count: int) -> list[Change]:
    """Two mutants of one file on different lines, the later first (so that the earlier's line stays where it was);
    pairs of plausible mutants first. Gives up after so many pairs that few are to be had."""
    found: list[Change] = []
    looked_at = 0
    for total in range(1, 2 * len(ordered)):
        for first in range(max(0, total - len(ordered) + 1), (total + 1) // 2):
            looked_at += 1
            if looked_at > PAIRS_LOOKED_AT:
                return found
            one, two = sorted((ordered[first], ordered[total - first]), key=lambda m: m.line)
            if one.path == two.path and one.line + one.old.count("\n") < two.line:
                found.append((two, one))
                if len(found) == count:
                    return found
    return found
