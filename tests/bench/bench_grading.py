"""Seconds per prediction of `troop grade` beside the official harness, in one run: same predictions, same images, same
workers.

    python -m tests.bench.bench_grading --data DIR [--instance ID] [--edits 20] [--workers 2] [--mixed PATTERN …]
        [--former]

One instance with a short test, and distinct generated edits of it. The official harness takes one prediction for an
instance and run, so every edit is an instance of its own to it, with the same image under another name; `troop grade`
gets the same rows. Three contestants: Troop; the official harness with the image as it is (it stops at once); and with
the image as images are shipped, whose first process ignores SIGTERM and is waited for. The harness is today's release, whose rules
Troop grades by as well, and with `--former` the one before it, too, on images that stop at once. With `--mixed`, also the right
patches of other instances, measured less the tests' own time, which is taken in containers of its own before.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import difflib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.sandbox.docker.daemon import connect
from harness.swebench import official
from harness.swebench.container import Containers
from harness.swebench.images import find_image
from harness.swebench.names import ImageRef, image_name
from harness.swebench.predictions import baseline
from tasks.swebench import Row, choose_rows, load_rows
from tests.support.graded_instance import write_rows
from tests.support.official_harness import run_official

AT_ONCE = f"troop-bench-{os.getpid()}-sigkill"
AS_SHIPPED = f"troop-bench-{os.getpid()}-sigterm"


@dataclass(frozen=True)
class Timed:
    """One contestant: wall seconds and peak memory (MB, of its own process) of the whole command, and its verdicts."""

    name: str
    seconds: float
    memory: float
    resolved: frozenset[str]


@dataclass(frozen=True)
class Contest:
    """Rows with their predictions. Each row's image is tagged in both namespaces."""

    rows: Sequence[Row]
    patches: Mapping[str, str]


def generated_edits(client: Any, row: Row, image: ImageRef, count: int) -> list[str]:
    """Distinct patches that each add a line at the end of a module that the right patch changes."""
    path = next(line[6:] for line in row.patch.splitlines() if line.startswith("+++ b/"))
    old = client.containers.run(image.id, ["cat", f"/testbed/{path}"], remove=True, network_mode="none").decode()
    edits = []
    for number in range(count):
        new = f"{old}\n\n_EDIT = {number}\n"
        lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{path}", f"b/{path}")
        edits.append(f"diff --git a/{path} b/{path}\n" + "".join(lines))
    return edits


@contextmanager
def tagged(client: Any, images: Mapping[str, ImageRef]) -> Iterator[None]:
    """Every instance's image under its name in both namespaces."""
    names = []
    try:
        for image in {ref.id for ref in images.values()}:
            slow, _ = client.images.build(fileobj=io.BytesIO(f"FROM {image}\nSTOPSIGNAL SIGTERM\n".encode()), rm=True)
            fast = client.images.get(image)
            for name, ref in images.items():
                if ref.id == image:
                    for namespace, made in ((AT_ONCE, fast), (AS_SHIPPED, slow)):
                        made.tag(image_name(name, namespace))
                        names.append(image_name(name, namespace))
        yield
    finally:
        for name in names:
            client.images.remove(name, force=True)


def run_troop(contest: Contest, folder: Path, workers: int) -> Timed:
    """`troop grade` with an empty memory."""
    rows = [dataclasses.replace(row, image=image_name(row.instance_id, AT_ONCE)) for row in contest.rows]
    data = write_rows(folder / "rows.jsonl", *rows)
    predictions = folder / "predictions.jsonl"
    fields = ("instance_id", "model_name_or_path", "model_patch")
    lines = [
        json.dumps(dict(zip(fields, (name, "model", patch), strict=True))) for name, patch in contest.patches.items()
    ]
    predictions.write_text("\n".join(lines) + "\n", "utf-8")
    command = [
        *(sys.executable, "-m", "agent", "grade", "swe-bench", "--dataset", str(data), "--no-build"),
        *("--predictions", str(predictions), "--workers", str(workers), "--out", str(folder / "out"), "--quiet"),
    ]
    environment = {**os.environ, "TROOP_CACHE": str(folder / "cache")}
    seconds, memory = measured(lambda: subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    summary = json.loads((folder / "out" / "model.out.json").read_text("utf-8"))
    return Timed("troop grade", seconds, memory, frozenset(summary["resolved_ids"]))


def run_theirs(contest: Contest, folder: Path, namespace: str, workers: int, rules: official.Rules = "5") -> Timed:
    """The official harness as it is."""
    data = write_rows(folder / "rows.jsonl", *contest.rows)
    place = folder / f"{namespace}-{rules}"
    done = run_official(data, contest.patches, place, namespace=namespace, workers=workers, rules=rules)
    how = "images that stop at once" if namespace == AT_ONCE else "images as shipped"
    name = f"official {official.RELEASES[rules].version}, {how}"
    return Timed(name, done.seconds, done.memory, frozenset(done.summary["resolved_ids"]))


def measured(start: Any) -> tuple[float, float]:
    """(wall seconds, peak memory in MB) of a process."""
    began = time.monotonic()
    process = start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_maxrss / 1024


async def own_seconds(contest: Contest, images: Mapping[str, ImageRef]) -> dict[str, float]:
    """What the test command itself takes with each patch, one after the other, in containers of its own."""
    containers = Containers(f"bench-{os.getpid()}")
    taken = {}
    for row in contest.rows:
        script = official.eval_script(row, install=False)
        for mark in ("Start", "End"):
            script = script.replace(f": '>>>>> {mark} Test Output'", f'echo ">>>{mark} $(date +%s.%N)"')
        log = io.BytesIO()
        patch = contest.patches[row.instance_id].encode()
        await containers.run(row, images[row.instance_id], patch, script.encode(), log, 1800)
        lines = [line.split() for line in log.getvalue().decode("utf-8", "replace").splitlines()]
        at = {words[0]: float(words[1]) for words in lines if words and words[0] in (">>>Start", ">>>End")}
        taken[row.instance_id] = at[">>>End"] - at[">>>Start"]
    await containers.close()
    return taken


def show(timed: Sequence[Timed], count: int, workers: int, own: float) -> None:
    """`own`: seconds of the tests themselves, all together."""
    troop = timed[0]
    print(f"{'':36} {'s/prediction':>12} {'ratio':>7} {'less tests':>11} {'ratio':>7} {'peak MB':>8}")
    for each in timed:
        less, troop_less = each.seconds * workers - own, troop.seconds * workers - own
        ratio = f"{each.seconds / troop.seconds:.1f}"
        print(
            f"{each.name:36} {each.seconds / count:12.2f} {ratio:>7} {less / count:11.2f} {less / troop_less:7.1f}"
            f" {each.memory:8.0f}"
        )
    if any(each.resolved != troop.resolved for each in timed):
        print("THE VERDICTS DIFFER:", *(f"{each.name}: {sorted(each.resolved)}" for each in timed), sep="\n  ")


def contest_in(client: Any, contest: Contest, images: Mapping[str, ImageRef], workers: int, *, former: bool) -> None:
    """Run the contestants one after the other and print."""
    own = asyncio.run(own_seconds(contest, images))
    print(
        f"{len(contest.rows)} predictions, {workers} workers; the tests' own time is {sum(own.values()):.1f} s together"
    )
    with tempfile.TemporaryDirectory() as scratch, tagged(client, images):
        folder = Path(scratch)
        timed = [run_troop(contest, folder, workers), run_theirs(contest, folder, AT_ONCE, workers)]
        timed.append(run_theirs(contest, folder, AS_SHIPPED, workers))
        if former:
            timed.append(run_theirs(contest, folder, AT_ONCE, workers, "4.1"))
    show(timed, len(contest.rows), workers, sum(own.values()))


def import_times() -> None:
    """What importing takes, each in three processes of its own, the best of them."""
    programs = {
        "troop grade": (
            "import agent.cli, harness.swebench.grading as g; from harness.swebench import official; "
            "official.RELEASES[\"5\"].module('harness.grading'); import docker"
        ),
        "official": "import swebench.harness.run_evaluation",
    }
    for name, program in programs.items():
        runs = [measured(partial(subprocess.Popen, [sys.executable, "-c", program])) for _ in range(3)]
        print(f"importing {name}: {min(s for s, _ in runs):.2f} s, {min(m for _, m in runs):.0f} MB")


def main() -> None:
    """Run the contests that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--instance", default="sympy__sympy-24152")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mixed", action="append", default=[])
    parser.add_argument("--former", action="store_true")
    known = parser.parse_args()
    rows = load_rows("", known.data / "swe-bench-lite.jsonl")
    client = connect()
    print(f"load: {os.getloadavg()[0]:.1f}")
    import_times()
    (row,) = choose_rows(rows, [known.instance])
    image = find_image(client, row)
    if image is None:
        raise SystemExit(f"there is no image of {known.instance} here")
    edits = generated_edits(client, row, image, known.edits)
    copies = [dataclasses.replace(row, instance_id=f"{row.instance_id}{number:03}") for number in range(known.edits)]
    contest = Contest(copies, {copy.instance_id: edit for copy, edit in zip(copies, edits, strict=True)})
    print(f"\n{known.instance}, distinct edits:")
    contest_in(client, contest, {copy.instance_id: image for copy in copies}, known.workers, former=known.former)
    if known.mixed:
        chosen = [(row, ref) for row in choose_rows(rows, known.mixed) if (ref := find_image(client, row)) is not None]
        patches = {each.instance_id: each.patch for each in baseline("gold", [row for row, _ in chosen])}
        mixed = Contest([row for row, _ in chosen], patches)
        print("\nmixed, the right patches:")
        contest_in(client, mixed, {row.instance_id: ref for row, ref in chosen}, known.workers, former=known.former)


if __name__ == "__main__":
    main()
