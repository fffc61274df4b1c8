"""The model behind the servers of `tests.support.dialects`: mends a one-line bug in a few steps, whoever asks.

It keeps nothing between requests: what it has done it reads from its own messages in the conversation, each of which
says "Step N". A step whose result says that it was refused, or lacks what it must show, is done again, as models do.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.support import repositories
from tests.support.calculator import FILES, STATEMENT

Json = dict[str, Any]

HISTORY = 3
"""How many long files the repository has."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of the conversation, whatever the wire: who speaks, and its text. "result": of a tool."""

    role: Literal["system", "user", "assistant", "result"]
    text: str


@dataclass(frozen=True, slots=True)
class Talk:
    """A request as the model sees it. `limit`: the most output tokens, if the request says so; `plain`: it may not
    call tools."""

    turns: tuple[Turn, ...]
    tools: frozenset[str] = frozenset()
    plain: bool = False
    limit: int | None = None

    @property
    def mini(self) -> bool:
        """Whether mini-swe-agent asks."""
        return "bash" in self.tools or "mswea_bash_command" in "".join(turn.text for turn in self.turns[:2])

    @property
    def marked(self) -> tuple[int, str]:
        """The last step said, and what came back for it; (-1, "") where none was."""
        said = [at for at, turn in enumerate(self.turns) if turn.role == "assistant"]
        for at in reversed(said):
            found = _STEP.search(self.turns[at].text)
            # A message without a text is a call alone: then only counting tells which step it was.
            if found or not self.turns[at].text:
                step = int(found[1]) if found else said.index(at) + self.mini
                back = itertools.takewhile(lambda turn: turn.role != "assistant", self.turns[at + 1 :])
                return step, "\n".join(turn.text for turn in back)
        return -1, ""


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Said:
    """A reply of the model. `step` -1: none of its steps (a judgement). `cut`: it ran into the limit."""

    text: str
    step: int = -1
    calls: tuple[Call, ...] = ()
    cut: bool = False

    @property
    def thoughts(self) -> str:
        """What it thought before, the same every time."""
        return f"For step {self.step} I weigh what could go wrong. {digest(self.text)}"


@dataclass(frozen=True, slots=True)
class Step:
    """`ours`: the call for Troop; `bash`: the command for mini-swe-agent. `shows`: what its result must hold."""

    why: str
    ours: Call
    bash: str
    shows: str = ""


READ = Step(
    "I read the module.", Call("read", {"path": "calc.py", "start": 1, "end": 20}), "sed -n 1,20p calc.py", "def total"
)
EDIT = Step(
    "The loop must not skip the first value.",
    Call("edit", {"path": "calc.py", "old": "values[1:]", "new": "values"}),
    "sed -i 's/values\\[1:\\]/values/' calc.py",
)
EDIT_LINES = Step(
    "The loop must not skip the first value.",
    Call(
        "edit",
        {
            "path": "calc.py",
            "old": "    result = 0\n    for value in values[1:]:\n",
            "new": "    result = 0\n    for value in values:\n",
        },
    ),
    "sed -i 's/values\\[1:\\]/values/' calc.py\ntrue",
)
OTHER_EDIT = Step(
    "The loop must run over all values.",
    Call("edit", {"path": "calc.py", "old": "values[1:]", "new": "list(values)"}),
    "sed -i 's/values\\[1:\\]/list(values)/' calc.py",
)
TEST = Step(
    "I run the tests.",
    Call("test", {"ids": ["tests/test_calc.py"]}),
    'python3 -c \'from calc import total; print("passed" if total([1, 2]) == 3 else "wrong")\'',
    "passed",
)
SUBMIT = Step("That was it.", Call("submit", {}), "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")
USUAL = (READ, EDIT, TEST, SUBMIT)
LONG = (
    *(
        Step(
            f"I look at the history, part {n}.",
            Call("read", {"path": f"docs/history_{n}.txt"}),
            f"cat docs/history_{n}.txt",
            "Entry",
        )
        for n in range(HISTORY)
    ),
    *USUAL,
)
LATIN = (Step("I look who wrote this.", Call("read", {"path": "docs/names.txt"}), "cat docs/names.txt", "Ren"), *USUAL)
MARKDOWN = (
    READ,
    Step(
        "I say how it is used.",
        Call("create", {"path": "docs/usage.md", "content": "# Use\n\n```python\ntotal([1, 2])\n```\n"}),
        "printf '# Use\\n\\n```python\\ntotal([1, 2])\\n```\\n' > docs/usage.md",
    ),
    EDIT,
    TEST,
    SUBMIT,
)
LINES = (READ, EDIT_LINES, TEST, SUBMIT)
OTHER_NAMES = (
    Step(READ.why, Call("view", {"path": "calc.py"}), READ.bash, "def total"),
    Step("I look around.", Call("bash", {"command": "ls docs"}), "ls docs", "names.txt"),
    Step(EDIT.why, Call("str_replace", {"path": "calc.py", "old_str": "values[1:]", "new_str": "values"}), EDIT.bash),
    TEST,
    Step(SUBMIT.why, Call("finish", {}), SUBMIT.bash),
)

_STEP = re.compile(r"Step (\d+):")
_UNDONE = re.compile(
    r"Refused:|could not be carried out|[Nn]ot carried out|Tool call error|Unknown tool|There is no tool|not JSON"
    r"|[Nn]o tool call|[Nn]o tool block"
)


@dataclass(slots=True)
class Mind:
    """The model of one server. `steps`: what it does. `two`: every other conversation mends the bug in another way.
    `text`: it writes its calls into its text, in the form that the client's prompt asks for. `bad`: from what it must
    not be sent, such as a result without what the step shows."""

    steps: tuple[Step, ...] = USUAL
    two: bool = False
    text: bool = False
    bad: list[str] = field(default_factory=list)
    plans: int = 0

    def reply(self, talk: Talk) -> Said:
        """What the model says to that."""
        whole = "".join(turn.text for turn in talk.turns if turn.role != "assistant")
        if "Two patches, A and B" in whole:
            return Said(json.dumps({"reason": "both mend it", "winner": "A"}))
        if "Several patches try" in whole:
            return Said("NONE")
        step, back = talk.marked
        if step < 0 and not talk.mini and (talk.plain or not talk.tools) and not self._past_plan(talk):
            self.plans += 1
            mind = " (mind B)" if self.two and self.plans % 2 == 0 else ""
            return Said(f"Step 0: total skips the first value; I look at its loop{mind}.", 0)
        if step < 0:
            step = max(0, sum(turn.role == "assistant" for turn in talk.turns) - (not talk.mini))
        elif step > 0 and self._undone(step, back):
            step -= 1
        step = min(step + 1, len(self.steps))
        return self.say(step, talk)

    def say(self, step: int, talk: Talk) -> Said:
        """The step as a reply."""
        this = self.steps[step - 1]
        if self.two and this is EDIT and any("(mind B)" in turn.text for turn in talk.turns):
            this = OTHER_EDIT
        call = Call("bash", {"command": this.bash}) if talk.mini else this.ours
        text = f"Step {step}: {this.why}"
        if self.text:
            return Said(f"{text}\n\n{block(call, mini=talk.mini)}", step)
        return Said(text, step, (call,))

    def _past_plan(self, talk: Talk) -> bool:
        return any(turn.role == "assistant" for turn in talk.turns)

    def _undone(self, step: int, back: str) -> bool:
        this = self.steps[min(step, len(self.steps)) - 1]
        if _UNDONE.search(back):
            self.bad.append(f"step {step} ({this.ours.name}) was not carried out: {back[:160]!r}")
            return True
        if this.shows and this.shows not in back:
            self.bad.append(f"the result of step {step} lacks {this.shows!r}: {back[:160]!r}")
            return True
        return False


def block(call: Call, *, mini: bool) -> str:
    """A call in the text protocol of Troop or of mini-swe-agent."""
    if mini:
        return f"```mswea_bash_command\n{call.arguments['command']}\n```"
    return "```tool\n" + json.dumps({"name": call.name, "arguments": call.arguments}) + "\n```"


def digest(text: str, length: int = 12) -> str:
    """Letters and digits that stand for the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def make_repository(directory: Path) -> Path:
    """The calculator with three files of 9,000 characters and one in Latin-1; one commit, whose id never changes."""
    line = "Entry {}: on that day the values were added up once more, from the first to the last, and nothing was left out."
    history = {
        f"docs/history_{n}.txt": "".join(line.format(f"{n}{k:03}") + "\n" for k in range(78)) for n in range(HISTORY)
    }
    (directory / "docs").mkdir(parents=True)
    (directory / "docs/names.txt").write_bytes("René, Zoë, Łukasz\n".replace("Ł", "L").encode("latin-1"))
    return repositories.make_repository(directory, {**FILES, **history}, date="2026-01-01T00:00:00Z")


ISSUE = STATEMENT
