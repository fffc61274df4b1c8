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

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from harness.cache import cache_root
from harness.records import Json
from harness.room import writing
from harness.swebench import names, official
from harness.swebench.container import APPLY_COMMANDS, LOG_BYTES, Containers, Ran
from harness.swebench.images import ImageRef, find_image
from harness.swebench.inside_image import ASK_EDITABLE
from harness.swebench.memo import Memo, key_of
from harness.swebench.official import Rules
from harness.swebench.reinstall import installs_in_place, why_install
from tasks.errors import InputError, SandboxFailed, words_of
from tasks.say import Say
from tasks.swebench import Row

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
    repository again. `notes`: for a reader. `remembered`: reached before. `key`: in the memo, or "".
    """

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


class Grader:
    """Grades patches, `workers` at a time; the same patch of an instance once. A context: at its end nothing is left.

    `timeout`: seconds of the evaluation script (official: 1800). `verbatim`: the script as it is. `network`: tests have
    one. `fresh`: forget verdicts that were reached before this grader was made. `run`: whose its containers are.
    `rules`: those to judge by, the verdict's first.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        timeout: float = TIMEOUT,
        verbatim: bool = False,
        network: bool = False,
        fresh: bool = False,
        run: str = "grade",
        rules: tuple[Rules, ...] = ("5",),
        cache: Path | None = None,
        say: Say = lambda _line: None,
    ) -> None:
        root = cache or cache_root()
        self.memo = Memo(root / "grading", root / "tmp")
        self.infrastructure = 0
        self._containers = Containers(run, network=network)
        self._places = asyncio.Semaphore(workers)
        self._timeout = timeout
        self._verbatim = verbatim
        self._network = network
        self._fresh = fresh
        self.rules = rules
        self._say = say
        self._under_way: dict[str, asyncio.Task[GradedPatch]] = {}
        self._editable: dict[str, asyncio.Task[bool]] = {}

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop what is under way, and wait until every container is gone."""
        tasks = [*self._under_way.values(), *self._editable.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
        installs = self._verbatim or await self._must_install(row, image, patch)
        script = official.eval_script(row, install=installs, rules=self.rules[0])
        key = self._key(row, image, data, script, again)
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(self._graded(key, row, image, data, script, installs))
        try:
            with writing(self.memo.root):
                return await asyncio.shield(self._under_way[key])
        except Exception:
            self._under_way.pop(key, None)  # no verdict: whoever asks again may have one
            raise

    async def _graded(
        self, key: str, row: Row, image: ImageRef, patch: bytes, script: str, installed: bool
    ) -> GradedPatch:
        # The place comes first: whoever has a turn is at work, so another process waits for no patch that waits itself.
        while True:
            if not self._fresh and (known := self._remembered(key)):
                return known
            async with self._places:
                with self.memo.turn(key) as ours:
                    if ours:
                        known = None if self._fresh else self._remembered(key)
                        return known or await self._anew(key, row, image, patch, script, installed)
            # The lock is the kernel's, which can only be asked.
            await asyncio.sleep(_TURN_SECONDS)

    async def _anew(
        self, key: str, row: Row, image: ImageRef, patch: bytes, script: str, installed: bool
    ) -> GradedPatch:
        began = time.monotonic()
        log = await asyncio.to_thread(self.memo.scratch) / "test_output.txt"
        try:
            ran = await self._run(row, image, patch, script, log)
            graded = await asyncio.to_thread(_judge, row, ran, log, self._timeout, self._network, self.rules[0])
            if len(self.rules) > 1:
                former = await self._by_former_rules(row, image, patch, script, ran, log)
                graded = replace(graded, former=former.outcome, former_reason=former.reason)
        except BaseException:
            shutil.rmtree(log.parent, ignore_errors=True)
            raise
        graded = replace(
            graded,
            seconds=round(ran.seconds, 3),
            wall=round(time.monotonic() - began, 3),
            installed=installed and bool(official.install_command(row)),
            applied=ran.applied,
            image=image.name,
            key=key,
        )
        verdict = {**asdict(graded), "timeout": self._timeout, "said": ran.said, "image_id": image.id}
        await asyncio.to_thread(self.memo.keep, key, verdict, log, again=self._fresh)
        return graded

    async def _by_former_rules(
        self, row: Row, image: ImageRef, patch: bytes, script: str, ran: Ran, log: Path
    ) -> GradedPatch:
        rules = self.rules[1]
        if ran.applied == APPLY_COMMANDS[rules][0]:
            return await asyncio.to_thread(_judge, row, ran, log, self._timeout, self._network, rules)
        other = log.with_name("former_output.txt")
        ran = await self._run(row, image, patch, script, other, rules)
        former = await asyncio.to_thread(_judge, row, ran, other, self._timeout, self._network, rules)
        other.unlink()
        return former

    async def _run(
        self, row: Row, image: ImageRef, patch: bytes, script: str, log: Path, rules: Rules | None = None
    ) -> Ran:
        """Raises SandboxFailed when it failed once more often than is tried again."""
        own = () if row.eval_script else official.spec_of(row).capabilities
        for tries in range(_RETRIES + 1):
            try:
                with log.open("wb") as file:
                    data = script.encode("utf-8", "surrogateescape")
                    return await self._containers.run(
                        image.id,
                        patch,
                        data,
                        file,
                        name=row.instance_id,
                        timeout=self._timeout,
                        rules=rules or self.rules[0],
                        capabilities=own,
                    )
            except SandboxFailed as error:
                self.infrastructure += 1
                if tries == _RETRIES:
                    raise
                wait = _BACKOFF_SECONDS * 2**tries
                self._say(f"{row.instance_id}: {error}; tried again in {wait:g} s")
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _key(self, row: Row, image: ImageRef, patch: bytes, script: str, again: int) -> str:
        tests = repr((row.fail_to_pass, row.pass_to_pass, row.log_parser, row.eval_type))
        rules = f"{GRADER_VERSION} {official.versions(self.rules)} {self._network}" + f" {again}" * bool(again)
        return key_of(row.instance_id, image.id, patch, script, tests, rules)

    def _remembered(self, key: str) -> GradedPatch | None:
        """A verdict from before; not one that a shorter or longer patience would have made another."""
        known = self.memo.look_up(key)
        if known is None:
            return None
        try:
            late = known["outcome"] == "timed-out"
            too_short = known["timeout"] < self._timeout if late else known["seconds"] > self._timeout
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
        if image.id not in self._editable:
            self._editable[image.id] = asyncio.ensure_future(self._look(row, image))
        try:
            return await asyncio.shield(self._editable[image.id])
        except Exception:
            self._editable.pop(image.id, None)
            raise

    async def _look(self, row: Row, image: ImageRef) -> bool:
        key = key_of("editable", GRADER_VERSION, image.id)
        if known := self.memo.look_up(key):
            return bool(known.get("editable"))
        log = self.memo.scratch() / "test_output.txt"
        async with self._places:
            ran = await self._run(row, image, _HARMLESS, ASK_EDITABLE, log)
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
    told: Path | str = log
    if not _is_text(log):
        notes.append(_NO_TEXT)
        told = log.read_text("utf-8", "replace")
    try:
        report = official.report_of(row, told, rules)
    except (InputError, OSError):
        raise
    except Exception as error:  # of the package's parsers: it writes no report then, and counts it among the errors
        reason = f"the official parser fails on the tests' output: {words_of(error)}"
        return GradedPatch(name, "unreadable", reason, None)
    offline, forged, code = _signs(log)
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


def _is_text(log: Path) -> bool:
    try:
        with log.open(encoding="utf-8") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _signs(log: Path) -> tuple[bool, bool, int]:
    """Whether any line tells of a network that is not there; whether a marker of the script's stands there more often
    than the script says it; and the tests' exit code, 0 where none is told."""
    offline, code, seen = False, 0, dict.fromkeys(_MARKERS, 0)
    with log.open("rb") as file:
        for line in file:
            offline = offline or any(sign in line for sign in _NETWORK_SIGNS)
            if b">>>>> " in line:
                for marker in _MARKERS:
                    seen[marker] += marker in line
                code = code or official.exit_code(line.decode("utf-8", "replace")) or 0
    return offline, any(seen[marker] > most for marker, most in _MARKERS.items()), code


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no command says why"
