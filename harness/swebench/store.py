"""What images take on the disk, and how they go."""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.records import Json
from harness.sandbox.docker.containers import ENVIRONMENT_LABEL, explained
from harness.swebench import names
from tasks.errors import SandboxFailed, words_of

_EVAL = re.compile(r"(?:^|/)sweb\.eval\.[^.]+\.(?P<id>.+):[^:]+$")
REPLACED = "replaced"
"""The kind of an image whose name a later build has taken."""
SOLVE = "solve"
"""The kind of the environments that `troop solve` keeps."""

BUILD_SECONDS = 3600.0
"""A layer that is younger may be waiting for the image that is being built on it."""

BUSY_SECONDS = 300.0
"""So long a daemon that adds up sizes for somebody else is waited for."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that Troop made, or a published one of an instance.

    `kind`: names.INSTANCE, names.ENVIRONMENT, names.TOOLS, "published", REPLACED, or SOLVE. `instance`: as in the
    image's label, or as its name tells. `adds`: bytes on top of the image that it was made from. `own`: bytes that go
    when it goes, 0 where others stand on it. `size`: with what it shares. `created`: seconds since the epoch."""

    name: str
    id: str
    kind: str
    instance: str
    repo: str
    version: str
    note: str
    adds: int
    own: int
    size: int
    created: float
    parent: str = ""


def kept_images(client: Any, rows: Mapping[str, str] = MappingProxyType({})) -> list[StoredImage]:
    """All, instances first, by name; also those of `rows` (the instance by the image's name), as published ones.
    Blocking: the daemon adds up sizes, which takes seconds where there are many."""
    found: list[StoredImage] = []
    entries = list(_usage(client).get("Images") or ())
    # Of images that have lost their name, too, as long as others stand on them.
    sizes = {str(entry["Id"]): int(entry["Size"]) for entry in client.api.images(all=True)}
    for entry in entries:
        labels = entry.get("Labels") or {}
        tags = [tag for tag in entry.get("RepoTags") or () if not tag.startswith("<none>")]
        for name in tags or [str(entry["Id"])]:
            kind, instance = ("published", rows[name]) if name in rows else _kind(name, labels)
            if not kind:
                continue
            repo, version, note = (labels.get(label, "") for label in (names.REPO, names.VERSION, names.NOTE))
            size, parent = int(entry["Size"]), str(entry.get("ParentId", ""))
            adds, own = size - sizes.get(parent, 0), size - max(0, int(entry.get("SharedSize", 0)))
            about = (name, str(entry["Id"]), kind, instance, repo, version, note)
            created = float(entry.get("Created", 0))
            found.append(StoredImage(*about, adds=adds, own=own, size=size, created=created, parent=parent))
    order = (names.INSTANCE, "published", REPLACED, names.ENVIRONMENT, names.TOOLS, SOLVE)
    return sorted(found, key=lambda kept: (order.index(kept.kind), kept.name))


def _kind(name: str, labels: dict[str, str]) -> tuple[str, str]:
    """(kind, instance) of an image; "" for one that is none of ours."""
    of_instance = _EVAL.search(name)
    if of_instance:
        instance = labels.get(names.ID) or of_instance["id"].replace("_1776_", "__")
        return (names.INSTANCE if labels.get(names.KIND) == names.INSTANCE else "published"), instance
    if ":" not in name.removeprefix("sha256:"):
        return (REPLACED if labels.get(names.KIND) else ""), ""
    for kind in (names.ENVIRONMENT, names.TOOLS):
        if name.startswith(f"{names.layer_name(kind)}:"):
            return kind, ""
    return (SOLVE, "") if labels.get(ENVIRONMENT_LABEL) else ("", "")


def doomed(
    images: Sequence[StoredImage],
    *,
    instances: Collection[str] | None,
    older_than: float | None,
    everything: bool,
    young: float = BUILD_SECONDS,
) -> list[StoredImage]:
    """What a pruning removes, instances before the layers below them.

    `instances`: the images of these (lower case). `older_than`: seconds of age from which an environment of `troop
    solve` goes (None: none does). `everything`: all of Troop's that serve a suite. Layers that no image stands on any
    more go in every case, unless they are so `young` (seconds) that a build may be about to. Published ones go by name
    only."""
    now = time.time()
    gone: list[StoredImage] = []
    for image in images:
        named = instances is not None and image.instance.lower() in instances
        if (
            (image.kind == names.INSTANCE and (named or everything))
            or (image.kind == "published" and named)
            or (image.kind == SOLVE and older_than is not None and now - image.created >= older_than)
        ):
            gone.append(image)
    for kind in (REPLACED, names.ENVIRONMENT, names.TOOLS):
        ids = {image.id for image in gone}
        carrying = {image.parent for image in images if image.id not in ids}
        old = [image for image in images if image.kind == kind and (everything or now - image.created >= young)]
        gone += [image for image in old if image.id not in carrying]
    return gone


def remove(client: Any, image: StoredImage) -> str:
    """Remove one; why it stays, or "". Blocking. An image that a container uses stays."""
    import docker.errors

    try:
        client.api.remove_image(image.name)
    except docker.errors.ImageNotFound:
        return ""
    except Exception as error:  # whatever keeps this one, the others are removed
        return str(getattr(error, "explanation", None) or words_of(error))
    return ""


def bytes_used(client: Any) -> int:
    """Bytes of all layers that the daemon keeps, each counted once."""
    return int(_usage(client).get("LayersSize") or 0)


def _usage(client: Any) -> Json:
    """What the daemon says of its disk; it refuses to add up for two at once, and is asked again then. Raises
    SandboxFailed."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            usage: Json = explained("tell what its images take", client.df)
            return usage
        except SandboxFailed as error:
            if "already running" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.5)
