"""`troop images build|list|prune SUITE`."""

import argparse
import contextlib
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.filesize import decimal

from agent.commands.options import WORKERS, add_options, nodes_of
from agent.commands.progress import Progress
from agent.commands.signals import interruptible
from harness.sandbox.docker.daemon import connect
from harness.swebench.images import ImageOutcome, Source
from harness.swebench.layers import parse_bases
from harness.swebench.store import StoredImage, bytes_used, doomed, kept_images, remove
from harness.views.picture import table
from tasks.choose import bare, matching, split
from tasks.errors import InputError
from tasks.swebench import SUITES, Row, choose_rows, load_rows

DAY = 86_400.0


def execute(known: argparse.Namespace) -> int:
    """Build: exit 0 where every instance has its image, else 4. List and prune: 0."""
    with Progress(quiet=known.quiet, json=known.json) as progress:
        return {"build": _build, "list": _list, "prune": _prune}[known.action](known, progress)


# ---- build


def _rows(known: argparse.Namespace) -> list[Row]:
    suite = known.suite or ""
    if known.dataset is None and suite not in SUITES:
        raise InputError(f"name a suite, one of {', '.join(sorted(SUITES))}, or give its rows with --dataset FILE")
    return choose_rows(load_rows(suite, known.dataset), known.instances)


def _build(known: argparse.Namespace, progress: Progress) -> int:
    rows, bases, nodes = _rows(known), parse_bases(known.base), nodes_of(known)()
    finished: list[ImageOutcome] = []

    def tell(prepared: ImageOutcome) -> None:
        finished.append(prepared)
        progress.say(f"[{len(finished)}/{len(rows)}] {_line(prepared)}")

    source = Source(known.mirrors, known.pull, bases, known.rebuild)
    work = nodes.images(
        rows, source=source, workers=known.workers or nodes.width or WORKERS, say=progress.say, tell=tell
    )
    done = interruptible(work, "the same command goes on from the layers that are done")
    progress.stop()
    made = [prepared for prepared in done if prepared.image and prepared.seconds]
    failed = [prepared for prepared in done if prepared.image is None]
    here = f"{len(done) - len(failed)} of {len(done)} images are here, {len(made)} of them new"
    progress.show(here, *(f"\n{prepared.failure}" for prepared in failed))
    if known.check:
        return _check(known)
    progress.document({"instances": [_as_json(prepared) for prepared in done], "failed": len(failed)})
    return 4 if failed else 0


def _check(known: argparse.Namespace) -> int:
    """`troop grade --check` on the same instances; its exit code, 4 where one has no image or was not graded."""
    from agent.commands import grade_command

    parser = argparse.ArgumentParser()
    grade_command.configure(parser)
    add_options(parser, "grade", "grading")
    suite = known.suite or "swe-bench"
    asked = vars(parser.parse_args([suite, "--no-build"])) | vars(known) | {"suite": suite}
    return grade_command.execute(argparse.Namespace(**asked))


def _line(prepared: ImageOutcome) -> str:
    if prepared.image is None:
        return f"{prepared.row.instance_id}: failed: {prepared.failure.splitlines()[0]}"
    made = f" in {prepared.seconds:.0f} s" if prepared.seconds else ""
    return f"{prepared.row.instance_id}: {prepared.image.name} ({prepared.image.origin}){made}"


def _as_json(prepared: ImageOutcome) -> dict[str, Any]:
    name, id, origin = (getattr(prepared.image, part, None) for part in ("name", "id", "origin"))
    image = {"image": name, "id": id, "origin": origin}
    return {"instance_id": prepared.row.instance_id, **image, "seconds": prepared.seconds, "failure": prepared.failure}


# ---- list


def _list(known: argparse.Namespace, progress: Progress) -> int:
    images, wanted = _kept(), _named(known)
    if wanted is not None:
        images = [image for image in images if image.instance.lower() in wanted]
    progress.stop()
    adds = sum(image.adds for image in images)
    progress.show(_table(images), f"{len(images)} images, which add {decimal(adds)} to the images they were made from")
    progress.document({"images": [asdict(image) for image in images], "adds_bytes": adds})
    return 0


def _kept() -> list[StoredImage]:
    with contextlib.closing(connect(timeout=600)) as client:
        return kept_images(client)


def _named(known: argparse.Namespace) -> set[str] | None:
    """The instances that the command line names, in lower case; None without any: then it is about all there are."""
    if known.suite or known.dataset:
        return {row.instance_id.lower() for row in _rows(known)}
    if not known.instances:
        return None
    patterns = [pattern.lower() for pattern in split(known.instances)]
    if any(pattern.startswith(("repo:", "sample:")) for pattern in patterns):
        raise InputError("--instances repo:… and sample:… need a SUITE, whose rows say what they mean")
    names = {id: bare(id) for image in _kept() for id in [image.instance.lower()]}
    return {id for pattern in patterns for id in matching(names, pattern)}


def _table(images: list[StoredImage]) -> Any:
    shown = table("image…", "made", ">adds", ">in all", "")
    for image in images:
        made = datetime.fromtimestamp(image.created).strftime("%Y-%m-%d %H:%M")
        shown.add_row(image.name, made, decimal(image.adds), decimal(image.size), image.note)
    return shown


# ---- prune


def _prune(known: argparse.Namespace, progress: Progress) -> int:
    wanted = _named(known)
    older = None if known.older_than is None else known.older_than * DAY
    with contextlib.closing(connect(timeout=600)) as client:
        gone = doomed(kept_images(client), instances=wanted, older_than=older, everything=known.all)
        progress.stop()
        if known.dry_run:
            progress.show(
                _table(gone), f"would remove {len(gone)} images: at least {decimal(sum(i.own for i in gone))}"
            )
            progress.document({"would_remove": [asdict(image) for image in gone]})
            return 0
        before = bytes_used(client)
        stayed = {image.name: why for image in gone if (why := remove(client, image))}
        freed = before - bytes_used(client)
    removed = [image.name for image in gone if image.name not in stayed]
    told = [f"{name} stays: {why}" for name, why in stayed.items()]
    progress.show(*told, f"removed {len(removed)} images; {decimal(freed)} freed")
    progress.document({"removed": removed, "stayed": stayed, "freed_bytes": freed})
    return 0
