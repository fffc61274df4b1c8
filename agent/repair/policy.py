"""The policy without a model: localise the fault, then try mutants near it, one a turn.

    plan      which lines are suspicious (`agent.repair.localise`); the same for every attempt, measured once
    turn k    put the last mutant back, make the attempt's k-th mutant, run the failing tests, then the rest
    end       when a mutant passes everything, when there are no more, or with the tree put back on the last turn; one
              of a single turn tries its one mutant. However it ends, what failed its tests is no patch (`only_green`)

All attempts see one order of mutants (`agent.repair.mutate`), which the run's seed perturbs, and each takes its own
share of it, so that N attempts of T turns try N · T different mutants. What an attempt does depends on its index and
seed alone.
"""

import asyncio
import json
import shlex
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from agent.attempt.policy import Decision, ToolCall, View
from agent.repair.localise import failing_tests, localise
from agent.repair.mutate import Mutant, mutants, share_of, surroundings
from agent.repair.mutation.source import compiles, go_on, hush
from harness.patches.paths import is_test
from harness.records import Json
from harness.sandbox.base import TROOPDIR, Sandbox
from harness.trace import Planned
from harness.views.words import counted, listed

NAMED_IN_PLAN = 8
DONOR_FILES = 20
FILE_BYTES = 800_000
SUSPICIOUS_CHARS = 1_000_000
DONOR_CHARS = 500_000
_GIT = f"git --git-dir={TROOPDIR}/base.git"

Made = TypeVar("Made")


@dataclass(slots=True)
class SharedWork:
    """What attempts share because it follows from the base alone: plans and mutants, by what they were made from."""

    known: dict[tuple[str, ...], Any] = field(default_factory=dict)
    locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, ...], asyncio.Lock]] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    async def once(self, key: tuple[str, ...], make: Callable[[], Awaitable[Any]]) -> Any:
        """What `make` gives, made once for a key; the last few are kept."""
        locks = self.locks.setdefault(asyncio.get_running_loop(), {})
        async with locks.setdefault(key, asyncio.Lock()):
            if key not in self.known:
                made = await make()
                while len(self.known) >= KEPT:
                    self.known.pop(next(iter(self.known)))
                self.known[key] = made
            return self.known[key]


KEPT = 32
_SHARED = SharedWork()


class RepairPolicy:
    """`agent.attempt.policy.Policy` without a model. `attempts`: among how many the mutants are shared out; `seed`: the
    run's; `bench`: what is shared with other attempts (by default with all of this process)."""

    only_green = True
    """A mutant whose tests failed is no patch, however the attempt ends."""

    def __init__(self, attempts: int = 32, seed: int = 0, bench: SharedWork | None = None) -> None:
        self._attempts = max(1, attempts)
        self._seed = seed
        self._bench = bench or _SHARED
        self._share: list[Mutant] | None = None

    async def plan(self, view: View) -> Planned:
        """The suspicious lines: `data["lines"]` is [[path, line, suspicion], …]; `data["failing"]`: tests to mend."""
        given, prepared = view.task.failing_test, view.prepared
        failing = failing_tests(given.ids, prepared.baseline) if given is not None else ()
        if given is None or not failing or prepared.test_command is None:
            return Planned(text="There is no failing test to work from.", stop="no-failing-test")
        key = ("plan", prepared.environment, prepared.base_commit, prepared.test_command, *failing)
        data: Json = await self._bench.once(key, lambda: _localised(view, failing))
        if not data["lines"]:
            said = "No line of the repository can be blamed for the failing test."
            return Planned(text=said, data=data, stop="exhausted")
        return Planned(text=_in_words(data), data=data)

    async def decide(self, view: View) -> Decision:
        """The next mutant, or the end."""
        last = view.history[-1] if view.history else None
        if last is not None and last.report is not None and last.report.green:
            return Decision("All tests pass with this change.", stop="tests-passed")
        edited = last is not None and any(r.name == "edit" and r.ok for r in last.results)
        undo = (ToolCall("undo", "undo", {}),) if edited else ()
        if edited and view.turns_left <= 1:
            return Decision("No change made the tests pass; the last one is put back.", undo, stop="turn-limit")
        if self._share is None:
            self._share = await self._dealt(view)
        if len(self._share) <= len(view.history):
            return Decision("There are no more mutants to try.", undo, stop="exhausted")
        mutant = self._share[len(view.history)]
        place = {"path": mutant.path, "old": mutant.old, "new": mutant.new, "line": mutant.line}
        test = ToolCall("test", "test", {"ids": list(view.plan.data["failing"]), "then_all": True})
        said = f"{mutant.operator} at {mutant.path}:{mutant.line}"
        return Decision(said, (*undo, ToolCall("edit", "edit", place), test))

    async def _dealt(self, view: View) -> list[Mutant]:
        """This attempt's share of the mutants, less those that do not compile."""
        data, attempts = view.plan.data, self._attempts
        key = ("mutants", view.prepared.environment, view.prepared.base_commit, json.dumps(data["lines"]))
        texts, ordered = await self._bench.once(key, lambda: mutants_of_base(view.sandbox, data))
        turns = max(1, len(view.history) + view.turns_left - 1)  # the last one puts back, if there is more than one
        own = share_of(ordered, index=view.index, attempts=attempts, turns=turns, common=self._seed, seed=view.seed)
        return await in_thread(lambda stop: compiling(own, texts, stop))


def compiling(made: Sequence[Mutant], texts: Mapping[str, str], stop: threading.Event) -> list[Mutant]:
    """Those whose texts are programs. Raises Stopped soon after `stop` is set."""
    hush()
    kept = []
    for mutant in made:
        go_on(stop)
        if compiles(mutant.apply(texts[mutant.path])):
            kept.append(mutant)
    return kept


async def in_thread(work: Callable[[threading.Event], Made]) -> Made:
    """What `work` gives, made in a thread. Its event is set when nobody waits any more: `work` looks at it and raises
    Stopped, for a thread cannot be ended from outside and the interpreter waits for it."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


async def _localised(view: View, failing: Sequence[str]) -> Json:
    given, command, baseline = view.task.failing_test, view.prepared.test_command, view.prepared.baseline
    assert given is not None and command is not None  # plan() asked
    timeout = min(600.0, max(60.0, 10 * baseline.seconds if baseline else 0.0))
    apart = [path for path, _ in given.files]
    lines, how = await localise(view.sandbox, command, failing, baseline, timeout=timeout, apart=apart)
    return {"failing": list(failing), "lines": list(map(list, lines)), "how": how}


def _in_words(data: Json) -> str:
    worst = listed([f"{path}:{line} ({score:.2f})" for path, line, score in data["lines"]], NAMED_IN_PLAN)
    failing = counted(len(data["failing"]), "failing test")
    return f"{failing} to mend. Suspicious lines ({data['how']}): {worst}."


async def mutants_of_base(sandbox: Sandbox, data: Json) -> tuple[Mapping[str, str], list[Mutant]]:
    """The base's texts of the suspicious files, and the mutants on the suspicious lines in their common order."""
    suspicion = {(path, line): score for path, line, score in data["lines"]}
    paths = list(dict.fromkeys(path for path, _ in suspicion))
    texts = await _base_texts(sandbox, paths, SUSPICIOUS_CHARS)
    donors = await _base_texts(sandbox, await _neighbours(sandbox, paths), DONOR_CHARS)
    made = await in_thread(lambda stop: mutants(texts, surroundings(texts, suspicion), donors=donors, stop=stop))
    return texts, made


async def _base_texts(sandbox: Sandbox, paths: Sequence[str], most: int) -> dict[str, str]:
    """The files as the base commit has them, in all about `most` characters of them; those that are not in it, too
    large, or no UTF-8 are left out."""
    texts: dict[str, str] = {}
    for path in paths:
        if sum(map(len, texts.values())) >= most:
            break
        shown = await sandbox.exec(f"{_GIT} show HEAD:{shlex.quote(path)}", output_bytes=FILE_BYTES)
        if shown.exit_code == 0 and not shown.truncated:
            with suppress(UnicodeDecodeError):
                texts[path] = shown.stdout.decode("utf-8")
    return texts


async def _neighbours(sandbox: Sandbox, paths: Sequence[str]) -> list[str]:
    """Other source files in the directories of the suspicious ones, the directory of the most suspicious first."""
    listed = await sandbox.exec(f"{_GIT} ls-tree -r -z --name-only HEAD", output_bytes=4_000_000)
    files = [f for f in listed.stdout.decode("utf-8", "replace").split("\0") if f.endswith(".py") and not is_test(f)]
    folders = {PurePosixPath(path).parent: at for at, path in reversed(list(enumerate(paths)))}
    near = [f for f in files if PurePosixPath(f).parent in folders and f not in paths]
    return sorted(near, key=lambda f: (folders[PurePosixPath(f).parent], f))[:DONOR_FILES]
