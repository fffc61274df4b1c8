"""Mutants of a program: small changes near suspicious lines, the most plausible first.

`mutants` gives them in one order for everybody (weight: suspicion of the line × prior of the operator × how well the
piece fits its place, shared among the alternatives at one place); `agent.repair.policy` deals them out to attempts.
"""

import ast
import math
import random
import textwrap
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from agent.repair.mutation.donors import Larder, Pool
from agent.repair.mutation.expressions import EXPRESSION_OPERATORS
from agent.repair.mutation.scope import LIKELY, Scope, comprehension_names, scope_of
from agent.repair.mutation.site import Site
from agent.repair.mutation.source import Function, Proposal, Source, go_on, hush, meaning
from agent.repair.mutation.statements import STATEMENT_OPERATORS
from agent.repair.mutation.values import PIECE_OPERATORS, VALUE_OPERATORS

PRIORS: Mapping[str, float] = LIKELY["priors"]
"""How likely a fix is of the form that an operator makes."""

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

TABLE_PLACES = 200
"""A statement with more places than this is a table: it is changed as a whole, but nothing in it."""

LONGEST_EDIT = 4_000
"""Characters that an edit may take out, or put in."""

HEADER_SHARE = 0.3
CONSTANT_SHARE = 0.1
JITTER = 0.2

_CHANGED = (ast.stmt, ast.expr, ast.excepthandler)
_SHARED = 0.6  # exponent: how much alternatives at one place take from each other
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
        start = sum(len(line) + 1 for line in text.split("\n")[: self.line - 1])
        if not text.startswith(self.old, start):
            raise ValueError(f"{self.path}, line {self.line}: the text to be changed is not there")
        return text[:start] + self.new + text[start + len(self.old) :]


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
    `agent.repair.mutation.source.Stopped` soon after it is set."""
    hush()
    sources = _all_parsed(texts, stop)
    others = _all_parsed({path: text for path, text in (donors or {}).items() if path not in sources}, stop)
    larder = Larder([*sources.values(), *others.values()], stop)
    places = _places(sources, suspicion)
    frames: dict[ast.AST | None, tuple[Scope, Pool]] = {}
    search = _Search(stop, most=max(ONE_PLACE, ALL_PLACES // max(1, len(places))))
    for score, source, node, beside in places:
        if len(search.found) >= MOST or search.work >= MOST_WORK or search.offered >= MOST_OFFERED:
            break
        function = source.function(node)
        if (frame := function or source.tree) not in frames:
            frames[frame] = (scope_of(source, function), larder.pool_for(source, function))
        scope, pool = frames[frame]
        usable = scope.usable(getattr(node, "lineno", 0), source.loops(node))
        names = sorted({*usable, *comprehension_names(source, node)})
        search.look_at(Site(source, node, scope, pool, tuple(names)), score, beside)
    return sorted(search.found.values(), key=lambda m: (-m.weight, m.path, m.line, m.new))


def _places(
    sources: Mapping[str, Source], suspicion: Mapping[tuple[str, int], float]
) -> list[tuple[float, Source, ast.AST, int]]:
    """(score, file, node, how many nodes its statement has) in suspicious statements, the most suspicious first."""
    places: list[tuple[float, Source, ast.AST, int]] = []
    for path, source in sources.items():
        lines = {line: score for (at, line), score in suspicion.items() if at == path}
        found = [(node, source.statement(node)) for node in ast.walk(source.tree) if isinstance(node, _CHANGED)]
        own = Counter(statement for _, statement in found)
        scores = {statement: _suspicion(source, statement, lines) for statement in own if statement is not None}
        for node, statement in found:
            table = own[statement] > TABLE_PLACES
            if statement is not None and scores[statement] > 0 and (node is statement or not table):
                places.append((scores[statement], source, node, 1 if table else own[statement]))
    return sorted(places, key=lambda place: -place[0])


@dataclass(slots=True)
class _Search:
    """The mutants found so far; what it took: characters parsed, proposals offered. `most`: proposals of a place."""

    stop: threading.Event | None
    most: int
    found: dict[object, Mutant] = field(default_factory=dict)
    original: dict[object, object] = field(default_factory=dict)
    work: int = 0
    offered: int = 0

    def look_at(self, site: Site, score: float, places: int) -> None:
        """Add the mutants of one place of a statement that has so many: the best, as far as its share of work goes."""
        weighed = _weighed(site, self.stop)
        self.offered += len(weighed)
        allowed = STATEMENT_WORK // places
        chosen: list[tuple[int, tuple[int, int]]] = []
        for at in sorted(range(len(weighed)), key=lambda at: -weighed[at][1]):
            start, end = _unit(site, weighed[at][0])
            cost = _PARSED * (end - start) + _EVERY
            allowed -= cost
            if chosen and (allowed < 0 or len(chosen) == self.most):
                break
            self.work += cost
            chosen.append((at, (start, end)))
        for at, unit in sorted(chosen):
            go_on(self.stop)
            self._add(site.source, unit, *weighed[at], score)

    def _add(self, source: Source, unit: tuple[int, int], proposal: Proposal, share: float, score: float) -> None:
        """Add what a proposal comes to, if it says something else than the program and is not known yet. `unit`:
        [start, end) of the text to tell the meaning from."""
        start, end = unit
        place = (source.path, start, end)
        if place not in self.original:
            self.original[place] = _meaning(source.text[start:end])
        text = _fitted(source, start, end, proposal)
        said = _meaning(source.text[start : proposal.start] + text + source.text[proposal.end : end])
        if said is None or said == self.original[place]:
            return
        old, new, line = _whole_lines(source, proposal, text)
        if not old or max(len(old), len(new)) > LONGEST_EDIT:
            return
        indent = text[: len(text) - len(text.lstrip())] if proposal.start == proposal.end else ""
        mutant = Mutant(source.path, line, old, new, proposal.operator, score * share)
        # Of two ways to say the same the shorter, as plausible as the more plausible of them.
        known = self.found.setdefault((*place, indent, said), mutant)
        shorter = min(known, mutant, key=lambda m: len(m.new) - len(m.old))
        self.found[*place, indent, said] = replace(shorter, weight=max(known.weight, mutant.weight))


def _all_parsed(texts: Mapping[str, str], stop: threading.Event | None = None) -> dict[str, Source]:
    """The files that can be parsed, and whose lines the parser and an editor count alike."""
    sources = {}
    for path, text in texts.items():
        go_on(stop)
        with suppress(SyntaxError):
            if "\r" not in text.replace("\r\n", "") and "\f" not in text:
                sources[path] = Source(path, text)
    return sources


def _suspicion(source: Source, statement: ast.stmt | ast.excepthandler, lines: Mapping[int, float]) -> float:
    """The score of a statement: the highest of the lines of its own text."""
    own = source.text[source.span(statement)[0] : source.header_end(statement)].rstrip()
    last = statement.lineno + own.count("\n")
    return max((lines.get(line, 0.0) for line in range(statement.lineno, last + 1)), default=0.0)


def _weighed(site: Site, stop: threading.Event | None) -> list[tuple[Proposal, float]]:
    """What the operators propose at one node, but for what is too long, with its weight: those of one operator share
    what there is to be had."""
    proposals = []
    for operator in (*EXPRESSION_OPERATORS, *VALUE_OPERATORS, *PIECE_OPERATORS, *STATEMENT_OPERATORS):
        for p in operator(site):
            go_on(stop)
            if max(len(p.text), p.end - p.start) <= LONGEST_EDIT:
                proposals.append(p)
    total: defaultdict[tuple[str, str], float] = defaultdict(float)
    for p in proposals:
        total[p.operator, p.group] += p.factor
    return [(p, PRIORS[p.operator] * p.factor / max(1.0, total[p.operator, p.group]) ** _SHARED) for p in proposals]


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


def _unit(site: Site, proposal: Proposal) -> tuple[int, int]:
    """[start, end) of the text that shows what the edit means: its statement without the block, or lines alone."""
    statement = site.source.statement(site.node)
    if statement is not None:
        start, end = site.source.span(statement)[0], site.source.header_end(statement)
        if start <= proposal.start and proposal.end <= end:
            return start, end
    return proposal.start, proposal.end


def _meaning(text: str) -> object | None:
    """The meaning of statements, or of a compound statement's header, cut out of their block."""
    text = textwrap.dedent(text.lstrip("\r\n")) if text[:1].isspace() else text
    text = text[2:] if text.startswith("elif") else text
    stripped = text.rstrip()
    if stripped.startswith("except"):
        return meaning(f"try:\n pass\n{text}pass")
    if stripped.endswith(":") or text != stripped:
        return meaning(text + "pass") or meaning(text)
    return meaning(text)


def _fitted(source: Source, start: int, end: int, proposal: Proposal) -> str:
    """The proposal's text, in parentheses where it would otherwise fall apart at its new place."""
    if not proposal.compound:
        return proposal.text
    before, after = source.text[start : proposal.start], source.text[proposal.end : end]
    bare, held = _meaning(before + proposal.text + after), _meaning(f"{before}({proposal.text}){after}")
    return proposal.text if bare is not None and bare == held else f"({proposal.text})"


def surroundings(texts: Mapping[str, str], suspicion: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """The suspicion with the lines that no test runs itself, but on which suspicious lines rest.

    A function's header (its defaults) gets a share of its most suspicious line; constants of the module or class a
    smaller one. Both run at import, before any test."""
    hush()
    spread = dict(suspicion)
    for path, source in _all_parsed(texts).items():
        lines = {line: score for (at, line), score in suspicion.items() if at == path}
        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                worst = max((lines.get(n, 0.0) for n in range(node.lineno, (node.end_lineno or 0) + 1)), default=0.0)
                spread[path, node.lineno] = max(spread.get((path, node.lineno), 0.0), HEADER_SHARE * worst)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and source.function(node) is None:
                worst = CONSTANT_SHARE * max(lines.values(), default=0.0)
                spread[path, node.lineno] = max(spread.get((path, node.lineno), 0.0), worst)
    return {place: score for place, score in spread.items() if score > 0}


def share_of(
    ordered: Sequence[Mutant], *, index: int, attempts: int, turns: int, common: int, seed: int
) -> list[Mutant]:
    """One attempt's share of the mutants, at most `turns` of them, in the order that its `seed` makes.

    The shares are dealt out of the order that the `common` seed makes, so that each holds mutants about as plausible as
    the others'. The first `attempts` attempts together get the first `attempts` · `turns` mutants; later ones what
    comes then."""
    first = index // attempts * attempts * turns
    order = _jittered(range(min(first + attempts * turns, len(ordered))), random.Random(common))
    own = order[first:][index % attempts :: attempts][:turns]
    return [ordered[rank] for rank in _jittered(own, random.Random(seed))]


def _jittered(ranks: Iterable[int], chance: random.Random) -> list[int]:
    """The ranks in nearly their order: each may move by about a fifth of itself."""
    return sorted(ranks, key=lambda rank: math.log(rank + 3) + JITTER * chance.gauss(0, 1))
