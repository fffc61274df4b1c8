"""What environment images are called, where things are in them, and what their labels say."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.swebench import Row

CONDA = "/opt/miniconda3"
ENV = f"{CONDA}/envs/testbed"
"""The Python environment, where the official evaluation scripts look for it."""
WHEELS = f"{ENV}/wheels"
"""What a repeated installation of the repository builds with: it has no index to ask."""

NAMESPACE = "troop"
PUBLISHED_NAMESPACE = "swebench"
INSTANCE, ENVIRONMENT, TOOLS = "instance", "environment", "python"
"""The kinds of image: of one instance; the dependencies under it; the bare Python environment under those."""

KIND = "troop.image"
ID = "troop.instance"
REPO = "troop.repo"
VERSION = "troop.version"
RECIPE = "troop.recipe"
EDITABLE = "troop.editable"
NOTE = "troop.note"

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
"""A machine's architecture, and what image names call it."""
ARCH = ARCHITECTURES.get(platform.machine().lower(), platform.machine())

_EVAL = f"sweb.eval.{ARCH}."


def repository_name(instance_id: str, namespace: str = NAMESPACE) -> str:
    """The image name, without its tag, that the official harness asks for with `--namespace`."""
    return f"{namespace}/{_EVAL}{instance_id.lower().replace('__', '_1776_')}"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that a daemon has. `origin`: "row" (the row names it), "built" (here, by Troop), "published", or
    "official" (built here by the official harness). `labels`: those below, and others'."""

    name: str
    id: str
    origin: str
    labels: Mapping[str, str]


def image_name(instance_id: str, namespace: str = NAMESPACE) -> str:
    """The image name, with the tag `latest`, that the official harness asks for with `--namespace`."""
    return f"{repository_name(instance_id, namespace)}:latest"


def as_listed(name: str) -> str:
    """An image's name as the daemon lists it."""
    name = name.removeprefix("docker.io/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def layer_name(kind: str) -> str:
    """The image name, without its tag, of the layers below instances."""
    return f"{NAMESPACE}/sweb.{kind}.{ARCH}"


def names_of(row: Row) -> list[tuple[str, str]]:
    """(image name, where it comes from) of all that a row can be graded in, the most particular first: the one that the
    row names, the one built here, the published one, one that the official harness built here."""
    return [
        *([(row.image, "row")] if row.image else []),
        (image_name(row.instance_id), "built"),
        (image_name(row.instance_id, PUBLISHED_NAMESPACE), "published"),
        (f"{_EVAL}{row.instance_id.lower()}:latest", "official"),
    ]
