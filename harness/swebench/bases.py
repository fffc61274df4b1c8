"""Which base image a Python version is had from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from harness.sandbox.docker.image import BASE_SCRIPT, ensure_image, find
from tasks.errors import InputError
from tasks.say import Say

LOCAL_BASE = "troop-base"
"""What harness/sandbox/base_image.sh makes out of Debian packages are its tags, such as troop-base:python3.9."""

DEBIAN_PYTHONS = ("3.7", "3.9", "3.11", "3.13")
ANY = ""


def parse_bases(given: Iterable[str]) -> dict[str, str]:
    """`--base 3.9=IMAGE` or `--base IMAGE` as a mapping from Python version (ANY: every other) to image."""
    bases: dict[str, str] = {}
    for text in given:
        python, equals, image = text.partition("=")
        if not equals:
            python, image = ANY, text
        if not image or (python and not python.replace(".", "").isdigit()):
            raise InputError(f"--base {text}: give an image, or one for a Python version, such as 3.9=python:3.9")
        if python in bases:
            raise InputError(f"--base is given twice for {f'Python {python}' if python else 'every Python'}")
        bases[python] = image
    return bases


def debian_mirror() -> str:
    """The Debian archive in this machine's own apt settings; "" where it has none. Blocking."""
    try:
        done = subprocess.run([BASE_SCRIPT, "--mirror"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def ensure_base(client: Any, python: str, bases: Mapping[str, str], say: Say) -> str:
    """The name of the base image for a Python version, which is here now: the given one, else Troop's own, else the one
    that a registry has. Blocking. Raises InputError with what to give."""
    given = bases.get(python) or bases.get(ANY)
    if given:
        ensure_image(client, given, say)
        return given
    own, published = f"{LOCAL_BASE}:python{python}", f"python:{python}"
    for name in (own, published):
        if find(client, name) is not None:
            return name
    try:
        ensure_image(client, published, say)
    except InputError as error:
        made = f"make {own} out of Debian packages (harness/sandbox/base_image.sh {own}, as root) or "
        made = made if python in DEBIAN_PYTHONS else ""
        raise InputError(
            f"no base image with Python {python} is here, and {published} cannot be pulled: {made}"
            f"name one with --base {python}=IMAGE (with that Python, gcc, g++, make, git and patch in it)"
        ) from error
    return published
