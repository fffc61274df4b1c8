"""An attempt as a sequence of frames, read from its trace; `content` says in words what a frame shows, `render` how
that looks in a terminal.

What attempts printed is shown as text and never obeyed: escape sequences and control characters are taken out first.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, get_args

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from harness import trace
from harness.money.ledger import Line, add_charge, money
from harness.records import ENDED_WELL, Json, Outcome, Selection, TestReport
from harness.views.report import last_selection
from harness.views.words import LOST_WORDS, clean, counted, end_words, evidence_words, judge_words, printable

FOLD = 24
"""Lines of a long output that are kept, two thirds from its beginning and one third from its end."""
FOLD_PATCH = 400
TESTS_NAMED = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One thing that happened. `clock`: seconds since the attempt began, waits between two processes left out; `wait`:
    of these, the seconds since the frame before.

    `call`: the tool call that a result belongs to. `baseline`: the base's test report. `task`: the public task (first
    frame). `cost`: charged so far. `verified`: the evidence on the attempt's patch (the selection's frame)."""

    event: trace.Event
    clock: float = 0.0
    wait: float = 0.0
    call: Json | None = None
    baseline: TestReport | None = None
    task: Json | None = None
    cost: Line = field(default_factory=Line)
    verified: trace.Verified | None = None


Step = tuple[tuple[Frame, ...], ...]
"""What is seen at once: of each attempt that is watched its frames, at least one of them all."""


def default_attempt(events: Sequence[trace.Event]) -> int:
    """The attempt that produced the selected patch first; without a selection the first attempt."""
    selection = last_selection(events)
    verified = [e for e in events if isinstance(e, trace.Verified) and selection and e.candidate == selection.candidate]
    begun = [e.attempt for e in events if isinstance(e, trace.AttemptStarted) and e.attempt is not None]
    return verified[-1].attempts[0] if verified else min(begun, default=0)


def frames(events: Sequence[trace.Event], attempt: int) -> list[Frame]:
    """The frames of one attempt in order, then what verification and selection said of its patch."""
    return [*_own(events, attempt), *_verdicts(events, attempt)]


def steps(events: Sequence[trace.Event], attempt: int, beside: int | None = None) -> list[Step]:
    """The attempt's frames one by one; with another one `beside` it turn by turn, then the end of both."""
    if beside is None:
        return [((frame,),) for frame in frames(events, attempt)]
    sides: tuple[dict[float, list[Frame]], ...] = {}, {}
    for each, side in zip((attempt, beside), sides, strict=True):
        turn = 0.0
        for frame in frames(events, each):
            over = isinstance(frame.event, trace.AttemptEnded)
            turn = max(turn, math.inf if over else getattr(frame.event, "turn", 0.0))
            side.setdefault(turn, []).append(frame)
    return [tuple(tuple(side.get(turn, ())) for side in sides) for turn in sorted(set().union(*sides))]


MARKS: Mapping[str, Callable[[Frame], bool]] = {
    "e": lambda frame: bool(getattr(frame.event, "diff", "")),
    "t": lambda frame: isinstance(frame.event, trace.TestsRan),
    "x": lambda frame: "red" in content(frame)[0].style,
}
"""By key, what can be jumped to: edits, test runs, failures."""


_SHOWN = (
    trace.AttemptStarted,
    trace.Planned,
    trace.Decided,
    trace.ToolRan,
    trace.TestsRan,
    trace.TurnEnded,
    trace.InfrastructureFailed,
    trace.AttemptEnded,
)


def _own(events: Sequence[trace.Event], attempt: int) -> Iterator[Frame]:
    seen = Frame(events[0])
    calls: dict[str, Json] = {}
    previous: float | None = None
    before: trace.Event | None = None
    for event in events:
        if isinstance(event, trace.RunStarted):
            seen = replace(seen, task=event.task)
        elif isinstance(event, trace.Prepared):
            seen = replace(seen, baseline=event.baseline)
        elif isinstance(event, (trace.RunResumed, trace.RunReopened)) and previous is not None:
            previous = event.at  # the time in which no process worked on the run
        elif event.attempt != attempt:
            continue
        elif isinstance(event, (trace.Replied, trace.Charged)):
            seen = replace(seen, cost=add_charge(seen.cost, event.charge))
        elif isinstance(event, _SHOWN):
            if isinstance(event, trace.Decided):
                calls = {str(call.get("id")): call for call in event.calls}
            if not _told_elsewhere(event, before):
                wait = 0.0 if previous is None else max(0.0, event.at - previous)
                previous = event.at
                call = calls.get(event.call) if isinstance(event, trace.ToolRan) else None
                seen = replace(seen, event=event, clock=seen.clock + wait, wait=wait, call=call)
                yield seen
            before = event


def _told_elsewhere(event: trace.Event, before: trace.Event | None) -> bool:
    """The text of a test run repeats the report, which has a frame of its own; a decision without text is its calls."""
    if isinstance(event, trace.ToolRan):
        return isinstance(before, trace.TestsRan) and event.ok
    return isinstance(event, trace.Decided) and not event.text.strip() and not event.error


def _verdicts(events: Sequence[trace.Event], attempt: int) -> Iterator[Frame]:
    mine: set[str] = set()
    last = {e.candidate: e for e in events if isinstance(e, trace.Verified)}
    judging = {id(frame.event): frame for frame in judge_frames(events)}
    for event in events:
        if isinstance(event, trace.Verified) and attempt in event.attempts:
            mine.add(event.candidate)
            if not event.early or event is last[event.candidate]:
                yield Frame(event, wait=1.0)
        elif isinstance(event, trace.Selected):
            yield Frame(event, wait=1.0, verified=next((e for e in last.values() if attempt in e.attempts), None))
        elif isinstance(event, trace.SamplingStopped) or (isinstance(event, trace.Graded) and event.candidate in mine):
            yield Frame(event, wait=1.0)
        elif mine and id(event) in judging:
            yield judging[id(event)]


def judge_frames(events: Iterable[trace.Event]) -> Iterator[Frame]:
    """The frames of what the judge did, of whichever candidates."""
    calls: dict[str, Json] = {}
    for event in events:
        if isinstance(event, trace.Decided):
            calls = {str(call.get("id")): call for call in event.calls}
        if event.attempt is None and isinstance(event, (trace.Decided, trace.ToolRan, *trace.JUDGING)):
            call = calls.get(event.call) if isinstance(event, trace.ToolRan) else None
            if not _told_elsewhere(event, None):
                yield Frame(event, wait=1.0, call=call)


# What a frame shows


class Heading(NamedTuple):
    """A frame's title: its first word, which may be in colour, and what goes with it."""

    first: str
    more: tuple[str, ...] = ()
    style: str = "bold"


class Part(NamedTuple):
    """A text below a heading, as it came. `style`: its colour, if any. `lexer`: the language that it is written in, ""
    for prose. `fold`: lines beyond which a terminal gets no more of it."""

    text: str
    style: str = ""
    lexer: str = ""
    fold: int = FOLD


Content = tuple[Heading, list[Part]]


def content(frame: Frame) -> Content:
    """What the frame says, in words that may be anybody's."""
    event = frame.event
    if isinstance(event, trace.AttemptStarted):
        return _started(frame, event)
    if isinstance(event, trace.Planned):
        stop = [Part(f"ends here: {event.stop}", "yellow")] if event.stop else []
        return Heading("plan", (f"{event.seconds:.1f} s",)), [Part(event.text), *stop]
    if isinstance(event, trace.Decided):
        error = [Part(f"malformed reply: {event.error}", "red")] if event.error else []
        who = "the judge's turn" if event.attempt is None else "turn"
        return Heading(f"{who} {event.turn}"), [Part(event.text), *error] if event.text.strip() else [*error]
    if isinstance(event, trace.ToolRan):
        return _tool(frame, event)
    if isinstance(event, trace.TestsRan):
        return _tests(frame, event)
    if isinstance(event, trace.TurnEnded):
        return _turn(frame, event), []
    if isinstance(event, trace.InfrastructureFailed):
        again = "tried again" if event.retried else "given up"
        return Heading(f"the {event.what} failed", (again,), "bold yellow"), [Part(event.detail)]
    if isinstance(event, trace.AttemptEnded):
        return _ended(event)
    if isinstance(event, trace.Selected):
        return _selected(event.selection, frame.verified)
    return _verdict(event)


def _started(frame: Frame, event: trace.AttemptStarted) -> Content:
    task = frame.task or {}
    statement = str(task.get("statement", "")).strip().splitlines()
    about = [Part(str(task.get("id", "")), "bold"), *[Part(line.lstrip("# ")) for line in statement[:1]]]
    sampling = ", ".join(f"{key} {value}" for key, value in event.sampling.items())
    made = (event.name, event.model) if event.name else (event.model, f"seed {event.seed}", sampling)
    return Heading(f"attempt {event.attempt}", made), about


def _tool(frame: Frame, event: trace.ToolRan) -> Content:
    arguments: Mapping[str, Any] = (frame.call or {}).get("arguments") or {}
    path = clean(str(arguments.get("path") or ""))
    where = path if "pattern" not in arguments else f"in {path}" if path else ""
    parts: list[Part] = []
    lexer = _lexer(path)
    if "command" in arguments:
        parts.append(Part(str(arguments["command"]), lexer="bash"))
    elif "pattern" in arguments:
        parts.append(Part(str(arguments["pattern"]), "magenta"))
    elif "content" in arguments and not event.diff:
        parts.append(Part(str(arguments["content"]), lexer=lexer))
    if event.diff:
        parts.append(Part(event.diff, lexer="diff"))
    elif path and event.ok and not parts:
        parts.append(Part(event.result, lexer=lexer))
    elif event.result.strip():
        parts.append(Part(event.result, "" if event.ok else "red"))
    return Heading(event.name, (where, f"{event.seconds:.1f} s"), "bold cyan" if event.ok else "bold red"), parts


_lexer = lru_cache(maxsize=1024)(Syntax.guess_lexer)


def _tests(frame: Frame, event: trace.TestsRan) -> Content:
    report = event.report
    asked = ", ".join(event.selection) if event.selection else "the whole suite"
    counts = Counter(report.outcomes.values())
    line = "   ".join(f"{counts[kind]} {kind}" for kind in get_args(Outcome) if counts[kind])
    parts = [Part(line, "green" if report.green else "red")] if line else []
    if report.timed_out:
        parts.append(Part("stopped by the time limit", "red"))
    if not report.valid:
        parts.append(Part(f"says nothing: {report.reason}", "yellow"))
    before = frame.baseline
    fixed = sorted(report.passed & before.failed) if before else []
    broken = sorted(report.failed & before.passed) if before else []
    parts += _named("fixed", fixed, "green", report) + _named("broken", broken, "red", report)
    parts += _named("failing", sorted(report.failed - set(broken)), "red" if before is None else "yellow", report)
    style = "bold green" if report.green else "bold red"
    return Heading("tests", (asked, f"{report.seconds:.1f} s"), style), parts


def _named(word: str, tests: Sequence[str], style: str, report: TestReport) -> list[Part]:
    parts: list[Part] = []
    for test in tests[:TESTS_NAMED]:
        parts.append(Part(f"{word:8}{test}", style))
        if message := report.failures.get(test, "").strip():
            parts.append(Part(f"{'':8}{message.splitlines()[0]}", "dim"))
    if len(tests) > TESTS_NAMED:
        parts.append(Part(f"{word:8}… {len(tests) - TESTS_NAMED} more tests", style))
    return parts


def _turn(frame: Frame, event: trace.TurnEnded) -> Heading:
    parts = f"model {event.model_seconds:.1f}, commands {event.command_seconds:.1f}"
    said = f"turn {event.turn}: {event.seconds:.1f} s ({parts})"
    if frame.cost.usage.total or not frame.cost.exact:
        said += f"; so far {frame.cost.usage.total:,} tokens, {money(frame.cost)}"
    return Heading(said, style="dim")


def _ended(event: trace.AttemptEnded) -> Content:
    style = "bold green" if event.status in ENDED_WELL else "bold yellow"
    parts = [Part(event.detail, "yellow")] if event.detail else []
    if event.flags:
        parts.append(Part(f"flags: {', '.join(event.flags)}", "yellow"))
    patch = Part(event.patch, lexer="diff", fold=FOLD_PATCH) if event.patch.strip() else Part("no change", "dim")
    took = (counted(event.turns, "turn"), f"{event.seconds:.1f} s")
    return Heading(end_words(event.status), took, style), [*parts, patch]


def _verdict(event: trace.Event) -> Content:
    if isinstance(event, trace.Verified):
        parts = [Part(evidence_words(event.evidence))]
        parts += [Part(f"broken  {test}", "red") for test in event.evidence.broken[:TESTS_NAMED]]
        style = "bold green" if event.evidence.clean else "bold red"
        return Heading(f"verified as {event.candidate}", style=style), parts
    if isinstance(event, trace.JudgeTested):
        return _judge_tested(event)
    if isinstance(event, (trace.Judged, trace.JudgeSaid, trace.JudgeStopped)):
        return Heading(judge_words(event)), [] if isinstance(event, trace.JudgeStopped) else [Part(event.reason)]
    if isinstance(event, trace.SamplingStopped):
        return Heading("no further attempts", (event.why,)), [Part(event.words)]
    assert isinstance(event, trace.Graded), f"no frame is made of {event.kind}"
    word, style = ("passes", "bold green") if event.resolved else ("fails", "bold red")
    return Heading(f"{word} the hidden tests", style=style), [Part(event.reason)] if event.reason else []


def _selected(selection: Selection, own: trace.Verified | None) -> Content:
    """Why the attempt won or lost: the choice, what speaks against its own patch, and what the failing tests said."""
    about = f"selected {selection.candidate}" if selection.candidate else "nothing selected"
    if own is not None and own.candidate == selection.candidate:
        return Heading(f"it won: {about}", style="bold green"), [Part(selection.rationale)]
    parts = [Part("it made no patch that could be verified", "yellow"), Part(selection.rationale)]
    if own is not None:
        against = (each.why for each in selection.ranking if each.candidate == own.candidate and not each.acceptable)
        why = next(against, LOST_WORDS.get(selection.method, "less speaks for it"))
        parts[0] = Part(f"{own.candidate}: {why}", "yellow")
        for test, words in list((own.evidence.said or {}).items())[:TESTS_NAMED]:
            parts += [Part(test, "red"), Part(words, "dim")]
    return Heading(f"it lost: {about}", style="bold red"), parts


def _judge_tested(event: trace.JudgeTested) -> Content:
    parts = [Part(event.text, lexer="python")] if event.text else []
    for told in event.told:
        passing = sum(outcome == "passed" for outcome in told.tests.values())
        of = f", {passing} of {len(told.tests)} pass" if told.tests else ""
        parts.append(Part(f"{told.on}: {told.outcome}{of}", "green" if told.outcome == "passed" else "red"))
        parts += [Part(told.tail, "dim")] if told.tail else []
    parts += [Part(f"no evidence: {event.useless}", "yellow")] if event.useless else []
    return Heading("the judge's test", (event.path,)), parts


# In a terminal


def render(frame: Frame, *, unfolded: bool = False) -> RenderableType:
    """The frame for any console: a titled rule and what belongs below it, all of it where `unfolded`."""
    heading, parts = content(frame)
    title = Text(printable(heading.first), heading.style)
    for each in filter(None, heading.more):
        title.append(f"  {printable(each)}", "not bold default")
    if isinstance(frame.event, trace.TurnEnded):
        return Padding(title, (0, 0, 1, 2), expand=False)
    clock = f"{int(frame.clock) // 60}:{int(frame.clock) % 60:02d} " if frame.clock or frame.call else ""
    body = [Padding(_drawn(part, unfolded), (0, 0, 0, 2), expand=False) for part in parts]
    return Group(Rule(Text.assemble((clock, "bright_black"), title), align="left", style="bright_black"), *body)


def _drawn(part: Part, unfolded: bool) -> RenderableType:
    """The cleaned text, with the middle of a long one folded away."""
    look = partial(Syntax, lexer=part.lexer, theme="ansi_dark", background_color="default", word_wrap=True)
    show = look if part.lexer else partial(Text, style=part.style)
    lines = clean(part.text).strip("\n").split("\n")
    if unfolded or len(lines) <= part.fold + 1:  # a fold that hides one line saves nothing
        return show("\n".join(lines))
    first = 2 * part.fold // 3
    hidden = Text(f"… {len(lines) - part.fold} lines", "dim italic")
    return Group(show("\n".join(lines[:first])), hidden, show("\n".join(lines[first - part.fold :])))
