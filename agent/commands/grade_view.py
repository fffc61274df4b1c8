"""What a person sees of a grading: one line per verdict, a tally on a terminal, and the table at the end."""

import time
from collections import Counter, deque

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.text import Text

from harness.records import Json
from harness.swebench.predictions import PredictionSet
from harness.swebench.summary import Result
from harness.views.live import Screen, View, fitted
from harness.views.picture import table
from harness.views.words import GRADE_WORDS

_NEWS = 8
_ERRORS = ("refused", "timed-out", "unreadable", "failed")


class Tally:
    """How many of `planned` predictions came to what so far."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.outcomes: Counter[str] = Counter()
        self.remembered = 0
        self._began = time.monotonic()

    def add(self, each: PredictionSet, result: Result) -> str:
        """Count a result; says it in a line."""
        self.outcomes[result.outcome] += 1
        graded = result.graded
        self.remembered += graded is not None and graded.remembered
        took = "remembered" if graded is not None and graded.remembered else f"{graded.wall if graded else 0:.1f} s"
        why = f": {result.reason}" if result.reason and result.outcome != "empty" else ""
        done = self.outcomes.total()
        whose = f"{done}/{self.planned} {result.prediction.instance_id} {each.name}"
        return f"{whose}: {GRADE_WORDS[result.outcome]}{why} ({took})"

    def line(self) -> str:
        """All of it in one line."""
        done = self.outcomes.total()
        parts = [f"graded {done} of {self.planned}", f"resolved {self.outcomes['resolved']}"]
        parts += [f"{GRADE_WORDS[kind]} {self.outcomes[kind]}" for kind in _ERRORS if self.outcomes[kind]]
        if self.remembered:
            parts.append(f"remembered {self.remembered}")
        worked = done - self.remembered
        if worked >= 3 and done < self.planned:
            left = (time.monotonic() - self._began) / worked * (self.planned - done)
            parts.append(f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left")
        return ", ".join(parts)


class TallyView(View):
    """The tally and the latest lines, kept up to date at the end of a terminal's screen; plain lines elsewhere."""

    def __init__(self, tally: Tally, console: Console) -> None:
        super().__init__()
        self._tally = tally
        self._news: deque[str] = deque(maxlen=_NEWS)
        self.screen = Screen(console, self._shown, transient=True)
        self.screen.appear()

    def say(self, line: str) -> None:
        if self.screen.drawn:
            with self.screen.lock:
                self._news.append(line)
        self.screen.tell(line)

    def _shown(self, size: ConsoleDimensions) -> Group:
        return Group(*(fitted(line, "dim") for line in self._news), Text(self._tally.line(), style="bold"))


def summary_table(report: Json) -> list[RenderableType]:
    """The sets of a grading, and what a reader should know."""
    kinds = [kind for kind in GRADE_WORDS if any(each["outcomes"].get(kind) for each in report["sets"])]
    shown = table("predictions", ">of", *(f">{GRADE_WORDS[kind]}" for kind in kinds), ">share")
    for each in report["sets"]:
        counts = [str(each["outcomes"].get(kind, 0)) for kind in kinds]
        least, most = each.get("resolved_range", [each["resolved"]] * 2)
        share = " to ".join(f"{number / report['instances']:.1%}" for number in sorted({least, most}))
        shown.add_row(each["name"], str(report["instances"]), *counts, share)
    lines = []
    for row in report["predictions"]:
        whose = f"{row['instance_id']} {row['set']}"
        if row.get("differs"):
            lines.append(
                Text(f"{whose}: {GRADE_WORDS[row['outcome']]} by rules 5, {GRADE_WORDS[row['rules_4.1']]} by 4.1")
            )
        if len(set(row.get("outcomes", ()))) > 1:
            lines.append(Text(f"{whose}: flaky ({', '.join(GRADE_WORDS[each] for each in row['outcomes'])})", "bold"))
    if "untrusted" in report:
        lines.append(Text(f"{len(report['untrusted'])} of {report['instances']} instances cannot be trusted here"))
        lines += [Text(f"  {name}: {why}") for name, why in sorted(report["untrusted"].items())]
    notes = Counter(note for row in report["predictions"] for note in row.get("notes", ()))
    lines += [Text(f"note ({count}): {note}", style="dim") for note, count in notes.most_common()]
    return [shown, *lines]
