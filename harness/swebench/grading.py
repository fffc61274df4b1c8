"""Grading one patch of a SWE-bench instance: the official rules, faster.

A fresh container of the instance's image, the patch applied by the official chain of commands, the official evaluation
script, the official parsers' and rules' verdict on its output. What is saved is time around the tests: a container is
not waited for, and the script's repeated installation of the repository is left out where it cannot change the outcome
(harness/swebench/reinstall.py; `verbatim` leaves it in).

Rules are today's ("5"), those of before ("4.1"), or both: then a patch is run by today's, and its output judged by
both; only one that has to be laid in another way than the first is run twice.

A patch that does not apply, tests that take too long or never run are verdicts. A daemon or a container that fails is
none: it is tried again, and in the end raised.
"""

import asyncio
import itertools
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from harness.cache import cache_root
from harness.records import Json
from harness.room import writing
from harness.swebench import names, official
from harness.swebench.container import APPLY_COMMANDS, LOG_BYTES, Ran
from harness.swebench.images import Here, Source, find_image
from harness.swebench.inside_image import ASK_EDITABLE
from harness.swebench.memo import Memo, key_of
from harness.swebench.names import ImageRef
from harness.swebench.official import Rules
from harness.swebench.reinstall import installs_in_place, why_install
from tasks.errors import InputError, SandboxFailed, words_of
from tasks.say import Say
from tasks.swebench import ENTER, Row

T = TypeVar("T")

GRADER_VERSION = "2"
"""Part of every remembered verdict's key: raised when verdicts could come out otherwise."""
TIMEOUT = 1800.0

Outcome = Literal["resolved", "unresolved", "not-run", "empty", "refused", "timed-out", "unreadable"]
"""`not-run`: there is no test run in the output that can be believed. `refused`: the patch does not apply.
`unreadable`: the patch is no UTF-8 text, the official parser fails on the tests' output, or there is no end of it."""

OFFICIAL_ERRORS: frozenset[Outcome] = frozenset(["refused", "timed-out", "unreadable"])
"""What the official summary counts among the errors; it has no report on them."""

_RETRIES = 3
_BACKOFF_SECONDS = 2.0
_TURN_SECONDS = 0.5
_NETWORK_SIGNS = (
    b"Temporary failure in name resolution",
    b"Name or service not known",
    b"Network is unreachable",
    b"Failed to establish a new connection",
)
_BARE_CHECKOUT = (
    "the test patch only adds files, so the official script checks out the whole base commit: whatever set-up the image"
    " had committed is undone before the tests"
)
_MARKERS = {b">>>>> Start Test Output": 1, b">>>>> End Test Output": 1, b">>>>> Test Exit Code": 2}
"""What the script's own trace and echo say, and how often."""
_FORGED = "the output holds the evaluation script's own markers more often than the script wrote them"
_NO_TEXT = "the tests' output holds bytes that are no UTF-8; they were read as U+FFFD"
_NO_NETWORK = "failing tests may have wanted the network, which they have only with --network"


@dataclass(frozen=True, slots=True)
class GradedPatch:
    """The verdict on one patch.

    `reason`: why it is not resolved, "" where it is. `report`: the official one, None where the official harness has
    none. `former`: the outcome by the rules of before, where both were asked for, and `former_reason`.
    `seconds`: of the evaluation script; `wall`: of everything. `installed`: whether the script installed the
    repository again. `notes`: for a reader. `remembered`: reached before. `key`: in the memo, or ""."""

    instance_id: str
    outcome: Outcome
    reason: str
    report: Json | None
    seconds: float = 0.0
    wall: float = 0.0
    installed: bool = False
    applied: str = ""
    image: str = ""
    notes: tuple[str, ...] = ()
    remembered: bool = False
    key: str = ""
    former: str = ""
    former_reason: str = ""

    @property
    def resolved(self) -> bool:
        return self.outcome == "resolved"


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be run. `installed`: whether the script installs the repository again."""

    row: Row
    image: ImageRef
    patch: bytes
    script: str
    installed: bool = False


@dataclass(kw_only=True, eq=False)
class Grader:
    """Grades patches, `workers` at a time; the same patch of an instance once. A context: at its end nothing is left.

    `timeout`: seconds of the evaluation script (official: 1800). `verbatim`: the script as it is. `network`: tests have
    one. `fresh`: forget verdicts that were reached before this grader was made. `run`: whose its containers are.
    `rules`: those to judge by, the verdict's first. `nodes`: where that is; `source`: of images that one of
    them lacks (None: it makes none)."""

    workers: int = 2
    timeout: float = TIMEOUT
    verbatim: bool = False
    network: bool = False
    fresh: bool = False
    run: str = "grade"
    rules: tuple[Rules, ...] = ("5",)
    cache: Path | None = None
    say: Say = lambda _line: None
    nodes: Here = field(default_factory=Here)
    source: Source | None = None

    def __post_init__(self) -> None:
        root = self.cache or cache_root()
        self.memo = Memo(root / "grading", root / "tmp")
        self.infrastructure = 0
        self._containers = self.nodes.containers(self.source, self.run, self.network)
        self._places = asyncio.Semaphore(self.workers)
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop what is under way, and wait until every container is gone."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._containers.close()

    async def clean(self) -> list[str]:
        """Remove containers that killed processes left; names them."""
        return await self._containers.clean()

    async def find(self, row: Row) -> ImageRef | None:
        """The row's image, if the daemon has one."""
        return await asyncio.to_thread(find_image, await self._containers.daemon.connected(), row)

    async def grade(self, row: Row, image: ImageRef | None, patch: str, again: int = 0) -> GradedPatch:
        """The verdict on one patch; "" is empty, and never run, so that it needs no image. `again`: which repetition it
        is, each with a verdict of its own.

        Raises SandboxFailed where containers kept failing, DiskFull, InputError for a repository that swebench does not
        know."""
        if not patch:
            return GradedPatch(row.instance_id, "empty", "the patch is empty", None)
        if image is None:
            raise SandboxFailed(f"{row.instance_id} has no image to grade in: troop images build")
        try:
            data = patch.encode("utf-8")
        except UnicodeEncodeError:
            return GradedPatch(row.instance_id, "unreadable", "the patch is no UTF-8 text", None)
        installs = self.verbatim or await self._must_install(row, image, patch)
        script = official.eval_script(row, install=installs, rules=self.rules[0])
        job = _Job(row, image, data, script, installs)
        key = self._key(job, again)
        with writing(self.memo.root):
            return await self._once(key, lambda: self._graded(key, job))

    async def _once(self, key: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of work that is begun once for all who ask for it."""
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(begin())
        task: asyncio.Task[T] = self._under_way[key]
        try:
            return await asyncio.shield(task)
        except Exception:
            self._under_way.pop(key, None)  # whoever asks again may have a result
            raise

    async def _graded(self, key: str, job: _Job) -> GradedPatch:
        # The place comes first: whoever has a turn is at work, so another process waits for no patch that waits itself.
        while True:
            if known := self._remembered(key):
                return known
            async with self._places:
                with self.memo.turn(key) as ours:
                    if ours:
                        return self._remembered(key) or await self._anew(key, job)
            # The lock is the kernel's, which can only be asked.
            await asyncio.sleep(_TURN_SECONDS)

    async def _anew(self, key: str, job: _Job) -> GradedPatch:
        began = time.monotonic()
        log = await asyncio.to_thread(self.memo.scratch) / "test_output.txt"
        try:
            ran = await self._run(job, log, self.rules[0])
            graded = await self._judged(job, ran, log, self.rules[0])
            for rules in self.rules[1:]:
                same, other = ran.applied == APPLY_COMMANDS[rules][0], log.with_name("former_output.txt")
                again = ran if same else await self._run(job, other, rules)
                former = await self._judged(job, again, log if same else other, rules)
                graded = replace(graded, former=former.outcome, former_reason=former.reason)
        except BaseException:
            shutil.rmtree(log.parent, ignore_errors=True)
            raise
        graded = replace(
            graded,
            seconds=round(ran.seconds, 3),
            wall=round(time.monotonic() - began, 3),
            installed=job.installed and bool(official.install_command(job.row)),
            applied=ran.applied,
            image=job.image.name,
            key=key,
        )
        verdict = {**asdict(graded), "timeout": self.timeout, "said": ran.said, "image_id": job.image.id}
        await asyncio.to_thread(self.memo.keep, key, verdict, log, again=self.fresh)
        return graded

    async def _judged(self, job: _Job, ran: Ran, log: Path, rules: Rules) -> GradedPatch:
        return await asyncio.to_thread(_judge, job.row, ran, log, self.timeout, self.network, rules)

    async def _run(self, job: _Job, log: Path, rules: Rules) -> Ran:
        """Raises SandboxFailed when it failed once more often than is tried again."""
        row, script = job.row, job.script.encode("utf-8", "surrogateescape")
        for tries in itertools.count():
            try:
                with log.open("wb") as file:
                    return await self._containers.run(row, job.image, job.patch, script, file, self.timeout, rules)
            except SandboxFailed as error:
                self.infrastructure += 1
                if tries == _RETRIES:
                    raise
                wait = _BACKOFF_SECONDS * 2**tries
                self.say(f"{row.instance_id}: {error}; tried again in {wait:g} s")
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _key(self, job: _Job, again: int) -> str:
        row = job.row
        enter = () if row.enter == ENTER else (row.enter,)
        tests = repr((row.fail_to_pass, row.pass_to_pass, row.log_parser, row.eval_type, *enter))
        rules = f"{GRADER_VERSION} {official.versions(self.rules)} {self.network}" + f" {again}" * bool(again)
        return key_of(row.instance_id, job.image.id, job.patch, job.script, tests, rules)

    def _remembered(self, key: str) -> GradedPatch | None:
        """A verdict from before, unless those are to be forgotten; not one that a shorter or longer patience would have
        made another."""
        known = None if self.fresh else self.memo.look_up(key)
        if known is None:
            return None
        try:
            late = known["outcome"] == "timed-out"
            too_short = known["timeout"] < self.timeout if late else known["seconds"] > self.timeout
            fields = {name: known[name] for name in GradedPatch.__dataclass_fields__}
        except (KeyError, TypeError):
            return None
        return None if too_short else GradedPatch(**{**fields, "notes": tuple(fields["notes"]), "remembered": True})

    # ---- the image

    async def _must_install(self, row: Row, image: ImageRef, patch: str) -> bool:
        """Whether the script's repeated installation could change the outcome."""
        command = official.install_command(row)
        if not command or why_install(patch) or not installs_in_place(command):
            return True
        return not await self._is_editable(row, image)

    async def _is_editable(self, row: Row, image: ImageRef) -> bool:
        """Whether the image has the repository installed in place: its label says so, or a look into it."""
        if names.EDITABLE in image.labels:
            return image.labels[names.EDITABLE] == "1"
        return await self._once(image.id, lambda: self._look(_Job(row, image, _HARMLESS, ASK_EDITABLE)))

    async def _look(self, job: _Job) -> bool:
        key = key_of("editable", GRADER_VERSION, job.image.id)
        if known := self.memo.look_up(key):
            return bool(known.get("editable"))
        log = self.memo.scratch() / "test_output.txt"
        async with self._places:
            ran = await self._run(job, log, self.rules[0])
        editable = ran.status == 0
        await asyncio.to_thread(self.memo.keep, key, {"editable": editable}, log)
        return editable


_HARMLESS = b"--- /dev/null\n+++ b/.troop-look\n@@ -0,0 +1 @@\n+\n"


def _judge(row: Row, ran: Ran, log: Path, timeout: float, network: bool, rules: Rules) -> GradedPatch:
    """Blocking: what the container's end and the script's output amount to."""
    name = row.instance_id
    if not ran.applied:
        return GradedPatch(name, "refused", f"the patch does not apply: {_last_line(ran.said)}", None)
    if ran.timed_out:
        with log.open("ab") as file:
            file.write(f"\n\nTimeout error: {timeout:g} seconds exceeded.".encode())
        return GradedPatch(name, "timed-out", f"the tests took more than {timeout:g} s", None)
    if ran.flooded:
        return GradedPatch(name, "unreadable", f"the tests wrote more than {LOG_BYTES >> 20} MiB of output", None)
    notes = [_BARE_CHECKOUT] if official.checks_out_all(row) else []
    is_text, offline, forged, code = _signs(log)
    told: Path | str = log
    if not is_text:
        notes.append(_NO_TEXT)
        told = log.read_text("utf-8", "replace")
    try:
        report = official.report_of(row, told, rules)
    except (InputError, OSError):
        raise
    except Exception as error:  # of the package's parsers: it writes no report then, and counts it among the errors
        reason = f"the official parser fails on the tests' output: {words_of(error)}"
        return GradedPatch(name, "unreadable", reason, None)
    if forged:
        notes.append(_FORGED)
    if report["resolved"]:
        return GradedPatch(name, "resolved", "", report, notes=tuple(notes))
    if not network and offline:
        notes.append(_NO_NETWORK)
    if why := report.get("infra_failure_reason"):
        notes.append(f"the official rules suspect the environment: {why}")
    if not report["patch_successfully_applied"]:
        reason = f"the tests did not run: the script ended with status {ran.status} and its output has no test run"
        if code:
            reason = f"the tests ended with exit code {code}, but their output tells of no failure: it is not believed"
        return GradedPatch(name, "not-run", reason, report, notes=tuple(notes))
    return GradedPatch(name, "unresolved", _failing(report["tests_status"]), report, notes=tuple(notes))


def _failing(tests: Json) -> str:
    parts = []
    for kind, what in (("FAIL_TO_PASS", "that should pass now"), ("PASS_TO_PASS", "that passed before")):
        if failed := len(tests[kind]["failure"]):
            parts.append(f"{failed} of {failed + len(tests[kind]['success'])} tests {what} fail or did not run")
    return ", ".join(parts)


def _signs(log: Path) -> tuple[bool, bool, bool, int]:
    """Whether it is UTF-8; whether any line tells of a network that is not there; whether a marker of the script's
    stands there more often than the script says it; and the tests' exit code, 0 where none is told."""
    is_text, offline, code, seen = True, False, 0, dict.fromkeys(_MARKERS, 0)
    with log.open("rb") as file:
        for line in file:
            text = line.decode("utf-8", "replace")
            is_text = is_text and text.encode() == line
            offline = offline or any(sign in line for sign in _NETWORK_SIGNS)
            if b">>>>> " in line:
                for marker in _MARKERS:
                    seen[marker] += marker in line
                code = code or official.exit_code(text) or 0
    return is_text, offline, any(seen[marker] > most for marker, most in _MARKERS.items()), code


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no command says why"
