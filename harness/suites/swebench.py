"""SWE-bench as a suite: rows, the images they need, and grading by the official rules."""

import asyncio
import contextlib
import posixpath
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from harness.parallel import in_parallel
from harness.records import Json, Verdict
from harness.sandbox.base import ENVDIR
from harness.sandbox.docker.daemon import connect
from harness.suites.suite import Bench, Means, Ready, Submission
from harness.swebench.ahead import Ahead
from harness.swebench.grading import GradedPatch, Grader
from harness.swebench.images import Here, ImageOutcome, Source, ensure_images, find_image
from harness.swebench.names import ENV, ImageRef, image_name
from harness.swebench.official import Rules
from harness.testing.runners.registry import USUAL_COMMAND, runner_of
from tasks.errors import EnvironmentFailed, words_of
from tasks.swebench import TREE, Row, repository_of, task_of
from tasks.task import Environment, Repository, Task

IMAGES_AT_ONCE = 4
"""Images made at a time at most: attempts and gradings want the processors as well."""


@dataclass(frozen=True)
class SwebenchSuite:
    """Chosen rows. `source`: of their images; `verbatim`: grade with the official evaluation script as it is; `rules`:
    to grade by, the verdict's first; `repeat`: times that each patch is graded; `disk`: GB that images made for it may
    take, which then go when they are done with (None: any, and they stay); `nodes`: gives the machines to grade on."""

    name: str
    rows: tuple[Row, ...]
    dataset: Path | None = None
    source: Source = field(default_factory=Source)
    verbatim: bool = False
    rules: tuple[Rules, ...] = ("5",)
    repeat: int = 1
    disk: float | None = None
    nodes: Callable[[], Here] = Here

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.instance_id for row in self.rows)

    @property
    def image(self) -> str | None:
        return image_name(self.rows[0].instance_id)

    def only(self, ids: Container[str]) -> "SwebenchSuite":
        return replace(self, rows=tuple(row for row in self.rows if row.instance_id in ids))

    def described(self) -> Json:
        return {
            "dataset": str(self.dataset.resolve()) if self.dataset else None,
            "mirrors": str(self.source.mirrors.resolve()) if self.source.mirrors else None,
        }

    def row(self, id: str) -> Row:
        """The row of that id; raises KeyError for one that was not chosen."""
        return {row.instance_id: row for row in self.rows}[id]

    def task(self, id: str, image: str = "") -> Task:
        row = self.row(id)
        return task_in_image(row, repository_of(row, self.source.mirrors), image)

    def missing(self) -> Mapping[str, str]:
        try:
            client = connect()
        except EnvironmentFailed as error:
            return dict.fromkeys(self.ids, f"its image (no daemon answers: {error})")
        with contextlib.closing(client):
            return {row.instance_id: "its image" for row in self.rows if find_image(client, row) is None}

    @contextlib.asynccontextmanager
    async def at_work(self, means: Means) -> AsyncIterator[Bench]:
        judging = partial(Grader, verbatim=self.verbatim, rules=self.rules, source=self.source)
        nodes = self.nodes()
        async with judging(workers=nodes.width or means.workers, run="eval", say=means.say, nodes=nodes) as grader:
            for left in await grader.clean():
                means.say(f"removed {left}, which a killed process left")
            ahead = None if self.disk is None else await asyncio.to_thread(Ahead, self.disk * 1e9, means.say)
            bench = _SwebenchBench(self, means, grader, ahead)
            try:
                yield bench
            finally:
                await bench.stop()


@dataclass(slots=True)
class _SwebenchBench:
    suite: SwebenchSuite
    means: Means
    grader: Grader
    ahead: Ahead | None = None
    images: dict[str, ImageRef] = field(default_factory=dict)
    _making: asyncio.Task[None] | None = None

    async def ready(self, ids: Sequence[str]) -> AsyncIterator[Ready]:
        """Images are made in the background, further ones while those that are there are worked with."""
        finished: asyncio.Queue[ImageOutcome | None] = asyncio.Queue()

        async def make() -> None:
            try:
                await ensure_images(
                    [self.suite.row(id) for id in ids],
                    source=self.suite.source,
                    workers=min(IMAGES_AT_ONCE, self.means.workers),
                    say=self.means.say,
                    tell=finished.put_nowait,
                    making=self.ahead.making if self.ahead else contextlib.nullcontext,
                )
            finally:
                finished.put_nowait(None)

        self._making = asyncio.create_task(make())
        while (prepared := await finished.get()) is not None:
            yield await asyncio.to_thread(self._ready, prepared)
        await self._making

    def _ready(self, prepared: ImageOutcome) -> Ready:
        id = prepared.row.instance_id
        if prepared.image is None:
            return Ready(id, None, f"its image: {prepared.failure}")
        self.images[id] = prepared.image
        try:
            return Ready(id, self.suite.task(id, prepared.image.name))
        except Exception as error:  # whatever is the matter with one row, the others are worked on
            return Ready(id, None, words_of(error))

    async def grade(self, id: str, submission: Submission) -> Verdict:
        row, times = self.suite.row(id), range(self.suite.repeat if submission.patch else 1)
        one = partial(self.grader.grade, row, self.images[id], submission.patch)
        return verdict_of(row, *await in_parallel(map(one, times)))

    async def leave(self, id: str) -> None:
        if self.ahead is not None:
            await self.ahead.leave(id)

    async def stop(self) -> None:
        """End the making of images, if it is still going on."""
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        if self.ahead is not None:
            await self.ahead.end()


def verdict_of(row: Row, graded: GradedPatch, *again: GradedPatch) -> Verdict:
    """The verdict as a trace keeps it: every test of FAIL_TO_PASS, and of PASS_TO_PASS those that do not pass."""
    status = (graded.report or {}).get("tests_status", {})
    to_pass = dict.fromkeys(row.fail_to_pass, "missing")
    to_pass |= dict.fromkeys(status.get("FAIL_TO_PASS", {}).get("success", ()), "passed")
    to_pass |= dict.fromkeys(status.get("FAIL_TO_PASS", {}).get("failure", ()), "failed")
    to_keep = dict.fromkeys(status.get("PASS_TO_PASS", {}).get("failure", ()), "failed")
    differs = graded.former not in ("", graded.outcome)
    reason = f"{graded.reason} (by the rules of 4.1: {graded.former})".strip() if differs else graded.reason
    return Verdict(graded.resolved, to_pass, to_keep, reason, any(a.resolved != graded.resolved for a in again))


def task_in_image(row: Row, repository: Repository, image: str) -> Task:
    """The row's task in its image; see `tasks.swebench.task_of`."""
    task = task_of(row, repository)
    return replace(task, environment=Environment(image=image, setup=_setup(task.test_command, row.tree)))


def _setup(command: str | None, tree: str) -> tuple[str, ...]:
    """Published images have their environment at another place than a sandbox, some the repository (and beside it the
    hidden tests and the right patch); and not every project tests with pytest.

    What is installed here stays in the sandboxes of attempts: grading has the image as it is."""
    python = f"{ENVDIR}/bin/python"
    # What was built in the image's tree stays; its history goes.
    brought = f"rm -rf {tree}/.git {posixpath.dirname(tree).rstrip('/')}/*.patch && cp -an {tree}/. {TREE}"
    moved = "" if tree == TREE else f"{brought} && rm -rf {tree} && ln -s {TREE} {tree} && "
    link = f"{moved}{{ test -x {python} || ! test -e {ENV} || {{ rm -rf {ENVDIR} && ln -s {ENV} {ENVDIR}; }}; }}"
    runner = runner_of(command or USUAL_COMMAND)
    # Old trees import from `py` what newer pytests no longer bring along.
    there = f"! test -x {python} || {python} -m {runner.name} --version > /dev/null 2>&1"
    install = f"{there} || {python} -m pip install --quiet {' '.join(runner.packages)}"
    # The tree was laid anew, and no later run writes byte code.
    compiled = f"{python} -m compileall -q . > /dev/null 2>&1 || true"
    return (link, install, compiled) if runner.packages else (link, compiled)
