"""One attempt at a task: the inner graph.

    plan ──> act ──> test ──┐
      │       │ ^────────────┤        act:    one decision of the policy and its tool calls
      │       │  (next turn) │        test:   the turn's test run, if it asked for one
      └───────┴──────────────┴──> finish      the harness takes the patch

A turn is `act` and the `test` that may follow. Everything that a turn says or does is written to the trace as it
happens; the graph's own state is a turn number and a status, and needs no checkpoint: on resume it is set from the
trace, the tree is put back to the last finished turn, and the graph goes on from there.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from agent.attempt.audit import leak_tries
from agent.attempt.notebook import Notebook, gist
from agent.attempt.policy import Ask, Decision, Policy, TurnRecord, View
from agent.attempt.telling import NEW, WITNESS, describe_report, failures
from agent.attempt.tools import Toolbox, kind_of, nearest, place_of, stat, use_tool
from agent.config import CONTEXT
from harness import trace
from harness.evidence.unchanged import UnchangedCode
from harness.patches.extract import take_patch
from harness.patches.patch import Patch
from harness.patches.paths import holds_tests, is_test
from harness.records import AttemptStatus, TestReport
from harness.sandbox.base import Sandbox
from harness.testing.report import COMMAND_TEST, outcome_of
from harness.testing.runners.base import files_of
from harness.testing.runners.registry import runner_of
from harness.testing.warm import WarmTests
from tasks.errors import BudgetExceeded, ContextTooLong, EndpointFailed, PatchNotTaken
from tasks.task import Task

STUCK_REPEATS = 3
MIN_TEST_SECONDS = 2.0
STEPS = 10_000
"""Nodes that LangGraph may go through in one attempt: more than any budget of turns comes to."""
NEAR_SECONDS = 180.0
"""For the tests near to an attempt's changes, where the whole suite takes too long."""
NOTHING_NEAR = "nothing is changed and no file was read so far: name the files to run"


class State(TypedDict):
    """The graph's state: finished turns (-1 before the plan), whether a test run is due, and the status (empty while
    going on)."""

    turn: int
    test_due: bool
    status: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of an attempt. `deadline`: on time.monotonic()'s clock, None for none. Times in seconds."""

    turns: int
    command_timeout: float
    test_timeout: float
    malformed: int
    deadline: float | None = None


@dataclass(slots=True)
class Desk:
    """What the nodes of one attempt work with: the graph's runtime context.

    `write` appends an event to the trace; `ask` is the charged, budgeted model call, already bound to this attempt.
    `fresh`: does something in another sandbox of the environment. `near`: the test files nearest to a patch, or to
    files where there is none, for a task whose whole suite takes too long (None: it does not). `with_tests`: witness
    tests are part of the patch. `context`: tokens that the model bears, as known by now."""

    task: Task
    prepared: trace.Prepared
    policy: Policy
    sandbox: Sandbox
    notebook: Notebook
    rules: Rules
    seed: int
    ask: Ask
    write: Callable[[trace.Event], trace.Event]
    fresh: Callable[[Callable[[Sandbox], Awaitable[str]]], Awaitable[str]]
    unchanged: UnchangedCode
    near: Callable[[str, Sequence[str]], Sequence[str]] | None = None
    with_tests: bool = False
    context: Callable[[], int] = lambda: CONTEXT
    box: Toolbox = field(init=False)
    tests: WarmTests = field(init=False)
    turn_started: float = 0.0
    model_seconds: float = 0.0
    pending: list[trace.ToolRan] = field(default_factory=list)
    over: str = ""
    decision: Decision = field(default_factory=lambda: Decision(""))

    def __post_init__(self) -> None:
        box = self.sandbox, self.notebook.index, self.rules.command_timeout, self.new_test, self.patch, self.unchanged
        given = files_of(self.task.failing_test.ids) if self.task.failing_test else []
        self.box = Toolbox(*box, self.task.statement, lambda: self.notebook.recorded, given)
        self.tests = WarmTests(self.sandbox)

    def record(self, event: trace.Event) -> None:
        """Write the event of the attempt to the trace, then take it into the notebook."""
        event = replace(event, attempt=self.notebook.index)
        self.write(event)
        self.notebook.add(event)

    def view(self) -> View:
        """What the policy may see now."""
        return View(
            task=self.task,
            prepared=self.prepared,
            index=self.notebook.index,
            seed=self.seed,
            sandbox=self.sandbox,
            ask=self.ask,
            plan=self.notebook.plan or trace.Planned(text=""),
            history=self.notebook.history,
            turns_left=self.rules.turns - len(self.notebook.history),
            replies=self.notebook.replies,
            context=self.context(),
        )

    async def run_tests(
        self, ids: Sequence[str] = (), *, timeout: float | None = None, to_first_failure: bool = False
    ) -> TestReport:
        """Run the task's tests in the attempt's sandbox: `ids` (test ids or files; empty: the whole suite).

        `to_first_failure`: later tests say nothing more to whoever asks, so they need not run."""
        command = self.prepared.test_command
        if command is None:
            return TestReport({}, 0, False, False, 0.0, reason="no test command is known for this repository")
        timeout, seconds = timeout or self.rules.test_timeout, test_seconds(self.prepared.baseline)
        report = await self.tests.run(
            command, ids, timeout=timeout, test_seconds=seconds, to_first_failure=to_first_failure
        )
        self.box.command_seconds += report.seconds
        return report

    async def absent(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Those of the tests whose file is not in the tree."""
        files = [test.partition("::")[0] for test in ids]
        there = (await self.sandbox.exec(["ls", "-d", "--", *files], timeout=30.0)).output.splitlines()
        return tuple(test for test, file in zip(ids, files, strict=True) if file not in there)

    async def new_test(self, path: str) -> tuple[TestReport, str]:
        """Run a new test file as the task's own tests are run: the report, and the file's outcome by it (see
        `harness.testing.runners.base.Runner.new_file`)."""
        report = await self.run_tests([path], timeout=self.rules.command_timeout)
        command = self.prepared.test_command
        return report, runner_of(command).new_file(report, path) if command is not None else "untold"

    async def patch(self, without: Sequence[str] = ()) -> str:
        """The patch as it would be taken now, without these paths either. Raises PatchNotTaken."""
        return await take_patch(self.sandbox, exclude=[*self.apart, *without])

    async def near_tests(self) -> tuple[str, ...]:
        """The test files that stand for the whole suite: those of the given test, those changed, and those near to the
        changes, or to what was read before there are any; else those of the last run."""
        assert self.near is not None
        patch = ""
        with contextlib.suppress(PatchNotTaken):
            patch = await self.patch()
        calls = [call for record in self.notebook.history for call in record.decision.calls]
        seen = [place_of(str(call.arguments.get("path"))) for call in calls if call.name == "read"]
        near = await asyncio.to_thread(self.near, patch, seen) if patch or seen else ()
        last = self.notebook.last_report.outcomes if self.notebook.last_report else ()
        own = (*self.box.given, *filter(holds_tests, Patch(patch).paths))
        return tuple(dict.fromkeys((*own, *near))) or tuple(files_of([*last]))

    async def before(self, report: TestReport) -> Mapping[str, str]:
        """What the failing tests of a run say on the unchanged code, witness tests apart."""
        own = [witness.path for witness in self.notebook.recorded]
        failed = sorted(test for test in report.failed - {COMMAND_TEST} if test.partition("::")[0] not in own)
        with contextlib.suppress(ValueError):
            return await self.unchanged.outcomes(failed) if failed else {}
        return {}

    async def witnessed(self, report: TestReport | None = None) -> list[tuple[str, TestReport, str]]:
        """(path, report, what it says) of each witness test in the present tree; `report`: of a run that may tell."""
        found = []
        for witness in self.notebook.recorded:
            own, outcome = report, outcome_of(report, witness.path) if report else "missing"
            if own is None or outcome == "missing":
                with contextlib.suppress(OSError):
                    await self.sandbox.write(witness.path, witness.text.encode("utf-8", "surrogateescape"))
                own, outcome = await self.new_test(witness.path)
            found.append((witness.path, own, WITNESS.get(outcome, "could not run")))
        return found

    @property
    def apart(self) -> list[str]:
        """Files that belong to no patch: those of the given test, and the attempt's witness tests."""
        given = self.task.failing_test.files if self.task.failing_test else ()
        return [path for path, _ in given] + ([] if self.with_tests else [w.path for w in self.notebook.recorded])


def test_seconds(baseline: TestReport | None) -> float:
    """The time that one test gets: ten times the slowest passing test of the base, 2 to 120 seconds."""
    if baseline is None:
        return 60.0
    slowest = max((baseline.durations.get(t, 0.0) for t in baseline.passed), default=0.0)
    return min(120.0, max(MIN_TEST_SECONDS, 10 * slowest))


def build() -> CompiledStateGraph[State, Desk, State, State]:
    """The inner graph, compiled: the drawing above in code."""
    graph: StateGraph[State, Desk, State, State] = StateGraph(State, context_schema=Desk)
    graph.add_conditional_edges(START, next_node, ["plan", "act", "finish"])
    ways = ("plan", plan, ("act", "finish")), ("act", act, ("act", "test", "finish")), ("test", test, ("act", "finish"))
    for name, node, to in ways:
        graph.add_node(name, partial(_going_on, node), destinations=to)
    graph.add_node("finish", finish)
    graph.add_edge("finish", END)
    return graph.compile()


async def _going_on(
    node: Callable[[State, Runtime[Desk]], Awaitable[State]], state: State, runtime: Runtime[Desk]
) -> Command[str]:
    """A node, and where it goes: a conditional edge costs every turn half a millisecond more."""
    state = await node(state, runtime)
    return Command(update=state, goto=next_node(state))


def next_node(state: State) -> str:
    """Where the graph goes: to the plan where the trace has none, to a due test, to the end when a status is set, else
    to the next turn."""
    if state["turn"] < 0 or state["test_due"]:
        return "test" if state["test_due"] else "plan"
    return "finish" if state["status"] else "act"


async def plan(state: State, runtime: Runtime[Desk]) -> State:
    """Ask the policy for its plan (once; a resumed attempt has it in the trace)."""
    desk = runtime.context
    began = time.monotonic()
    try:
        made = await desk.policy.plan(desk.view())
    except (BudgetExceeded, ContextTooLong) as error:
        return _over(desk, error)
    desk.record(replace(made, seconds=time.monotonic() - began))
    return {"turn": 0, "test_due": False, "status": made.stop}


async def act(state: State, runtime: Runtime[Desk]) -> State:
    """One decision of the policy, and its tool calls up to a test run."""
    desk = runtime.context
    desk.turn_started = time.monotonic()
    desk.box.begin_turn()
    try:
        decision = await desk.policy.decide(desk.view())
    except (BudgetExceeded, ContextTooLong) as error:
        return _over(desk, error)
    desk.model_seconds = time.monotonic() - desk.turn_started
    turn = state["turn"] + 1
    desk.decision, desk.pending = decision, []
    desk.record(decision.event(desk.notebook.index, turn))
    for call in decision.calls:
        kind = "" if call.problem else kind_of(call.name)
        if kind == "tests":
            return {"turn": state["turn"], "test_due": True, "status": ""}
        if kind != "ends":
            _note(desk, replace(await use_tool(desk.box, call), turn=turn))
        elif why := await _doubts(desk, turn):
            _note(desk, trace.ToolRan(turn=turn, call=call.id, name=call.name, result=why, ok=False))
    return await _end_turn(desk, turn)


async def _doubts(desk: Desk, turn: int) -> str:
    """Why a submit is asked back, once in an attempt and not on its last turn; empty: it is taken.

    By what the trace holds of the tree: the patch is not taken for a submit that nothing is wrong with."""
    if turn >= desk.rules.turns or any(map(_asked_back, desk.notebook.history)):
        return ""
    if desk.notebook.writes_tests:
        none = "Not submitted yet: no witness test is recorded. Submit again if there is none to write."
        return "" if desk.notebook.recorded else none
    why, patch = [], ""
    tests = [r.result for record in desk.notebook.history for r in record.results if kind_of(r.name) == "tests"]
    paths = [path for path in desk.notebook.tree if path not in desk.apart]
    if all(map(is_test, paths)) and all(kind_of(result.name) == "reads" for result in desk.pending):
        why.append("the patch touches only tests" if paths else "the patch is empty")
    elif desk.prepared.test_command and not _tested(desk):
        why.append("no test has run since your last edit")
    elif tests and f"({NEW})\n" in tests[-1]:
        why.append("tests fail that passed before your changes")
    for path, _, here in await desk.witnessed():
        why += [f"the witness {path} {here}"] if here not in (WITNESS["passed"], WITNESS["untold"]) else []
    with contextlib.suppress(PatchNotTaken):
        patch = await desk.patch() if why and paths else ""
    told = f" The patch: {stat(patch)}." if patch else ""
    return f"Not submitted yet: {'; '.join(why)}.{told} Submit again if it is what you want." if why else ""


def _tested(desk: Desk) -> bool:
    """Whether the last turn with an edit, or a later one, ran something like a test."""
    turns = [*((r.decision.calls, r.results) for r in desk.notebook.history), (desk.decision.calls, desk.pending)]
    last = {"edits": -1, "tests": -1}
    for at, (calls, results) in enumerate(turns):
        for call, result in zip(calls, results, strict=False):
            kind = "tests" if kind_of(call.name) == "runs" and "test" in str(call.arguments) else kind_of(call.name)
            last[kind if result.ok else ""] = at
    return last["tests"] >= last["edits"]


async def test(state: State, runtime: Runtime[Desk]) -> State:
    """The turn's test run: what the `test` call named, then the rest of the suite if it asked for that."""
    desk = runtime.context
    turn = state["turn"] + 1
    call = desk.decision.calls[-1]
    ids = tuple(str(i) for i in call.arguments.get("ids") or ())
    named, then_all = bool(ids), bool(ids and call.arguments.get("then_all"))
    absent: tuple[str, ...] = ()
    if named or desk.near is None:
        report = await desk.run_tests(ids, to_first_failure=then_all)
        if named and not report.outcomes and (absent := await desk.absent(ids)) and len(absent) < len(ids):
            ids = tuple(test for test in ids if test not in absent)
            report = await desk.run_tests(ids, to_first_failure=then_all)
    elif ids := await desk.near_tests():
        report = await desk.run_tests(ids, timeout=min(NEAR_SECONDS, desk.rules.test_timeout))
    else:
        report = TestReport({}, 0, False, False, 0.0, reason=NOTHING_NEAR)
    left = 0
    if then_all and report.green and (rest := _others(desk, report)):
        report = _together(report, await desk.run_tests(rest, to_first_failure=True), rest)
        left = len(set(rest) - report.outcomes.keys())
    desk.record(trace.TestsRan(turn=turn, report=report, selection=ids))
    said = describe_report(report, await desk.before(report))
    base = desk.prepared.baseline
    if base and (mended := len(base.failed & report.passed)):
        said += f"\n({mended} of those that pass failed before your changes)"
    said += f"\n(stopped at the first failure; {left} further tests were not run)" if left else ""
    said += f"\n(run were {', '.join(ids)})" if ids and not named else ""
    said += f"\n(there is no {', '.join(absent)})" if absent else ""
    if not report.outcomes:
        said += "".join([await nearest(desk.box, file) for file in files_of(ids)])
    for path, own, here in await desk.witnessed(report):
        said += f"\nwitness {path}: {here}"
        said += f"\n{failures(own)}" if own is not report and here != WITNESS["passed"] else ""
    ok, seconds = bool(report.outcomes), report.seconds
    _note(desk, trace.ToolRan(turn=turn, call=call.id, name=call.name, result=said, ok=ok, seconds=seconds))
    return await _end_turn(desk, turn)


async def finish(state: State, runtime: Runtime[Desk]) -> State:
    """Take the patch and close the attempt's part of the trace."""
    await end(runtime.context, state["status"], runtime.context.over)
    return state


async def end(desk: Desk, status: str, detail: str = "") -> None:
    """Take whatever patch exists and write the attempt's end with its status. What the attempt left running is ended
    first; where the sandbox is exhausted all the same, the patch is that of the last turn's tree.

    Of a policy that tries changes blindly (`only_green`) a tree counts only when its last test run was green."""
    notebook = desk.notebook
    patch, said = "", [detail] if detail else []
    green = not desk.policy.only_green or (notebook.last_report is not None and notebook.last_report.green)
    if green and not notebook.writes_tests:
        try:
            await desk.sandbox.quiet()
            patch = await take_patch(desk.sandbox, exclude=desk.apart, say=said.append)
        except (PatchNotTaken, OSError) as error:
            said.append(f"{error}: the patch was taken in a fresh sandbox, from the tree of the last turn")
            patch = await desk.fresh(lambda sandbox: _last_tree(desk, sandbox, said))
    flags = await asyncio.to_thread(lambda: Patch(patch).flags)
    desk.record(_ended(status, notebook, "; ".join(said), patch, (*flags, *leak_tries(notebook.history))))


async def _last_tree(desk: Desk, sandbox: Sandbox, said: list[str]) -> str:
    """The patch of what the trace holds of the last turn's tree, laid into a fresh sandbox."""
    await sandbox.restore(list(desk.notebook.tree.values()))
    try:
        return await take_patch(sandbox, exclude=desk.apart, say=said.append)
    except PatchNotTaken as error:
        said.append(f"none could be taken there either: {error}")
        return ""


async def restore(desk: Desk) -> State:
    """Put tree, tools and state of a fresh sandbox to the last finished turn of the trace; the state to go on from."""
    notebook = desk.notebook
    for path, content in notebook.undo().items():
        desk.box.undo[path] = None if isinstance(content, str) else content
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if isinstance(content, str):  # nothing is restored yet: the base's, with what set-up made
                desk.box.undo[path] = await desk.sandbox.read(path)
    if notebook.tree:
        await desk.sandbox.restore(list(notebook.tree.values()))
    turn, stop = len(notebook.history), notebook.plan.stop if notebook.plan else ""
    return {"turn": turn, "test_due": False, "status": status_now(desk) if turn else stop}


def _asked_back(record: TurnRecord) -> bool:
    """Whether the turn's submit was not taken."""
    return any(kind_of(result.name) == "ends" and not result.ok for result in record.results)


def status_now(desk: Desk) -> str:
    """How the attempt stands after its finished turns: a status if it is over, else empty."""
    history, rules = desk.notebook.history, desk.rules
    stop = history[-1].decision.stop
    if stop and not _asked_back(history[-1]):
        return stop
    last = history[-rules.malformed :]
    ends = {
        "malformed": len(last) == rules.malformed and all(record.decision.error for record in last),
        "stuck": _stuck(desk.notebook),
        "turn-limit": len(history) >= rules.turns,
        "budget": rules.deadline is not None and time.monotonic() > rules.deadline,
    }
    return next((status for status, holds in ends.items() if holds), "")


def _stuck(notebook: Notebook) -> bool:
    """Same calls with the same results three turns in a row, or a tree that swings between two states."""
    last = notebook.history[-STUCK_REPEATS:]
    if len(last) == STUCK_REPEATS and last[0].decision.calls and len({gist(record) for record in last}) == 1:
        return True
    marks = [m for m, before in zip(notebook.marks, [None, *notebook.marks], strict=False) if m != before][-6:]
    return len(marks) == 6 and len(set(marks)) == 2


def _over(desk: Desk, error: BudgetExceeded | ContextTooLong) -> State:
    status, desk.over = "budget" if isinstance(error, BudgetExceeded) else "context-limit", str(error)
    return {"turn": len(desk.notebook.history), "test_due": False, "status": status}


def _note(desk: Desk, result: trace.ToolRan) -> None:
    desk.pending.append(result)
    desk.record(result)
    for witness in desk.box.witnesses:
        desk.record(trace.WitnessRecorded(turn=result.turn, witness=witness))
    desk.box.witnesses.clear()


async def _end_turn(desk: Desk, turn: int) -> State:
    if any(kind_of(call.name) != "reads" for call in desk.decision.calls):
        changed = await desk.sandbox.snapshot()
        if changed.files or changed.left_out:
            desk.record(trace.TreeChanged(turn=turn, tree=changed))
    seconds, model, commands = time.monotonic() - desk.turn_started, desk.model_seconds, desk.box.command_seconds
    desk.record(trace.TurnEnded(turn=turn, seconds=seconds, model_seconds=model, command_seconds=commands))
    return {"turn": turn, "test_due": False, "status": status_now(desk) or await _destroyed(desk)}


async def _destroyed(desk: Desk) -> str:
    """The status of an attempt in whose sandbox no command can be started any more, looked at where one failed so."""
    record = desk.notebook.history[-1]
    started = all(r.ok and not r.result.endswith(("(exit code 126)", "(exit code 127)")) for r in record.results)
    if started and (record.report is None or record.report.outcomes):
        return ""
    for _ in range(2):
        done = await desk.sandbox.exec(["/bin/sh", "-c", "exit 0"], timeout=30.0)
        if done.exit_code == 0:
            return ""
        await desk.sandbox.quiet()  # what its commands left running may be all that stands in the way
    desk.over = f"no command can be started in its sandbox any more: {done.output.strip()[:200]}"
    return "destroyed"


def _others(desk: Desk, report: TestReport) -> tuple[str, ...]:
    """The tests that are not in the report yet: the given ones, and those that are green and steady on the base."""
    prepared = desk.prepared
    green = prepared.baseline.passed if prepared.baseline else frozenset()
    given = desk.task.failing_test.ids if desk.task.failing_test else ()
    rest = green - set(prepared.flaky) - set(report.outcomes)
    return (*(test for test in given if outcome_of(report, test) == "missing"), *sorted(rest))


def _together(first: TestReport, rest: TestReport, wanted: Sequence[str]) -> TestReport:
    """Both runs as one report. A wanted test that did not run counts as an error, not as a pass; after a failure, at
    which the run was stopped, it is simply not in the report."""
    missing = () if rest.failed else [test for test in wanted if outcome_of(rest, test) == "missing"]
    return replace(
        rest,
        outcomes={**dict.fromkeys(missing, "error"), **rest.outcomes, **first.outcomes},
        valid=first.valid and rest.valid,
        seconds=first.seconds + rest.seconds,
        failures={**rest.failures, **dict.fromkeys(missing, "did not run")},
        durations={**rest.durations, **first.durations},
    )


async def drive(graph: CompiledStateGraph[State, Desk, State, State], desk: Desk) -> None:
    """Drive the attempt to its end, from its beginning or from the last finished turn in its notebook.

    Raises SandboxFailed when the sandbox died (the caller may go on in a new one), EndpointFailed when the model cannot
    be had; all else ends as a status in the trace."""
    new: State = {"turn": -1, "test_due": False, "status": ""}
    begin = new if desk.notebook.plan is None else await restore(desk)
    await graph.ainvoke(begin, {"recursion_limit": STEPS}, context=desk)


def failed(status: AttemptStatus, notebook: Notebook, error: Exception) -> trace.AttemptEnded:
    """The end of an attempt whose sandbox or model could not be had any more: no patch can be taken."""
    what = "the model" if isinstance(error, EndpointFailed) else "the sandbox"
    return _ended(status, notebook, f"{what}: {error}")


def _ended(
    status: str, notebook: Notebook, detail: str, patch: str = "", flags: tuple[str, ...] = ()
) -> trace.AttemptEnded:
    now, index, turns = time.time(), notebook.index, len(notebook.history)
    seconds = now - ((notebook.started.at if notebook.started else 0) or now) - notebook.idle
    return trace.AttemptEnded(
        attempt=index, status=status, patch=patch, flags=flags, turns=turns, seconds=seconds, detail=detail
    )
