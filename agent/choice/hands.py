"""The judge with hands: it reads and runs things on the base and with every finalist's patch, tries tests on all of
them, and then says its order.

Every call of a tool begins in a fresh sandbox of the tree that it names, so that no candidate is changed, nothing that
is tried decides about what is tried next, and a resume goes on from the trace alone: what was asked is not asked, and
what was run is not run, again.
"""

from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, Never

from agent.attempt.model_policy import NOTES, Chat
from agent.attempt.notebook import gist
from agent.attempt.policy import Talk, ToolCall, TurnRecord
from agent.attempt.tools import TOOLS, Change, Tool, Toolbox, ToolRefused, use_tool
from agent.choice.case import Ground
from agent.choice.hearing import Hearing, written_test
from agent.choice.questions import alike, fenced, in_words, material, patch_of, told_in_words
from harness import trace
from harness.choosing.gather import in_sandbox
from harness.evidence.shown import of_judge
from harness.records import Json
from harness.sandbox.base import Sandbox
from tasks.errors import SandboxFailed, words_of

TURNS = 20
TESTS = 3
COMMAND_SECONDS = 120.0
IDLE_TURNS = 3
"""So many turns in a row that could not be read, or that say the same, end it."""
SAID = ("covers", "misses", "shown_by")


async def hands(hearing: Hearing, ground: Ground) -> None:
    """Let the judge work until it has said its order; its points are by that. Raises BudgetExceeded, EndpointFailed."""
    bench, history = _Bench(hearing, ground), list[TurnRecord]()
    ask, replies = hearing.asks(f"judge/{bench.name}")
    while len(history) < TURNS:
        last = history[-IDLE_TURNS:]
        if len(last) == IDLE_TURNS and (all(r.decision.error for r in last) or len({gist(r) for r in last}) == 1):
            break
        turn = len(history) + 1
        hearing.before, context = f"its turn {turn}", hearing.client.context
        talk = Talk(ask=ask, history=history, turns_left=TURNS - turn + 1, replies=replies, context=context)
        decision = await bench.decide(talk)
        hearing.case.write_once(decision.event(None, turn, f"{bench.name}/{turn}/"))
        results = [await bench.use(turn, call) for call in decision.calls]
        history.append(TurnRecord(turn, decision, tuple(results)))
        if decision.stop and results[-1].ok:
            hearing.neither = bool(decision.calls[-1].arguments.get("none"))
            for name, why, place in bench.order(decision.calls[-1].arguments):
                hearing.say(bench.finalists[name], float(len(bench.finalists) + 1 - place), why)
            return
    why = f"{TURNS} turns are over" if len(history) >= TURNS else f"{IDLE_TURNS} turns in a row came to nothing"
    hearing.case.write_once(trace.JudgeStopped(before="its order", reason=why))


class _Bench(Chat[Talk]):
    """The conversation with the judge, and what it works on. `name`: of this hearing among those of a run."""

    purpose = "judge"

    def __init__(self, hearing: Hearing, ground: Ground) -> None:
        self.hearing, self.ground, case = hearing, ground, hearing.case
        self.finalists = {group[0].id: group[0] for group in alike(case, case.finalists(()))}
        self.trees = {"base": "", **{name: each.patch for name, each in self.finalists.items()}}
        self.name = f"hands/{'-'.join(self.finalists)}"
        shown = list(self.finalists.values())
        each = [f"{patch_of(c)}\n{fenced('evidence', in_words(case, c), c.id)}" for c in shown]
        self._opening = "\n\n".join([material(case, shown), *each])
        super().__init__(tools=hearing.client.takes_tools, offered=self._own(), at_last="Say your order.")

    def _head(self, talk: Talk, longest: int) -> tuple[list[Json], str]:
        return [self._system("judge_hands")], self._opening

    async def use(self, turn: int, call: ToolCall) -> trace.ToolRan:
        """Carry out a call, unless the trace has its result."""
        under, case = f"{self.name}/{turn}/", self.hearing.case
        nowhere: Any = None
        known = (e for e in case.events if isinstance(e, trace.ToolRan) and e.call == under + call.id)
        ran: trace.Event | None = next(known, None)
        if ran is None:
            ran = case.write(replace(await use_tool(nowhere, call, self._offered), turn=turn, call=under + call.id))
        assert isinstance(ran, trace.ToolRan), "an event stays what it is"
        return replace(ran, call=call.id)

    def order(self, arguments: Json) -> list[tuple[str, str, int]]:
        """(candidate, what is said of it, place), the best first. Raises ToolRefused where not each is named once."""
        entries = [each if isinstance(each, dict) else {"candidate": each} for each in arguments["candidates"]]
        named = [str(each.get("candidate")).strip() for each in entries]
        if sorted(named) != sorted(self.finalists):
            raise ToolRefused(f"candidates must name each of {', '.join(self.finalists)} once, the best first.")
        said = ["; ".join(f"{key.replace('_', ' ')}: {e[key]}" for key in SAID if e.get(key)) for e in entries]
        return list(zip(named, said, accumulate(each.get("equal") is not True for each in entries), strict=True))

    async def _look(self, box: Toolbox, arguments: Json, *, name: str) -> Change:
        """A tool of attempts, on one of the trees."""
        on = arguments.get("on") or "base"
        if on not in self.trees:
            raise ToolRefused(f"on must be one of {', '.join(self.trees)}.")
        rest = {key: value for key, value in arguments.items() if key != "on"}

        async def work(sandbox: Sandbox) -> trace.ToolRan:
            there = Toolbox(sandbox, -1, COMMAND_SECONDS, _nothing, _nothing, None, "", tuple)
            return await use_tool(there, ToolCall("", name, rest))

        try:
            async with self.ground.slots:
                done = await in_sandbox(self.ground.opened, f"judge-{on}", self.ground.tree, self.trees[on], work)
        except (SandboxFailed, OSError, ValueError) as error:
            raise ToolRefused(f"It cannot be done on {on}: {words_of(error)}") from error
        if not done.ok:
            raise ToolRefused(done.result)
        return Change(done.result)

    async def _try(self, box: Toolbox, arguments: Json) -> Change:
        place, why = written_test(arguments["path"], arguments["content"], self.ground.tree.read)
        there = self.hearing.tests
        if not why and place not in there and len(there) >= TESTS:
            why = f"{TESTS} tests are written: correct one of them, under its path ({', '.join(there)})"
        if why:
            raise ToolRefused(f"{why}.")
        tested = await self.hearing.tried(self.ground, arguments["path"], arguments["content"])
        why = tested.useless or "it does not fail on the base where it tells candidates apart"
        counts = "it counts" if of_judge(tested.path, tested.told) else f"it does not count: {why}"
        shown, others = [f"{tested.path}: {counts}"], list[str]()
        for told in tested.told:
            where = told.on in self.trees
            words = told_in_words(told if where else replace(told, tail=""))
            (shown if where else others).append(f"{told.on}: {words}")
        if others:
            shown.append(f"(candidates that are not yours to order: {', '.join(others)})")
        return Change("\n".join(shown))

    async def _say(self, box: Toolbox, arguments: Json) -> Change:
        self.order(arguments)
        return Change("That is your order.")

    def _own(self) -> dict[str, Tool]:
        """The judge's tools: those of attempts that look, on a tree of its choice, and two of its own."""
        on = {"type": "string", "description": f"on which tree: {', '.join(self.trees)} (base)"}
        found = []
        for tool in (TOOLS["read"], TOOLS["search"], TOOLS["run"]):
            own = {name: schema for name, schema in tool.parameters.items() if name != "compare"}
            found.append(replace(tool, parameters={**own, "on": on}, use=partial(self._look, name=tool.name)))
        words = NOTES["judge_tools"]
        found.append(replace(TOOLS["witness"], name="try", use=self._try, **words["try"]))
        found.append(Tool(name="order", use=self._say, **words["order"]))
        return {tool.name: tool for tool in found}


async def _nothing(_: object) -> Never:
    raise ToolRefused("A judge only looks.")
