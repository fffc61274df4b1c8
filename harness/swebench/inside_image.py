"""What is put into environment images: files, and the commands that make them. Pure."""

from __future__ import annotations

from pathlib import Path

from harness.sandbox.base import ENVDIR
from harness.swebench.names import CONDA, ENV, WHEELS


def _read(name: str) -> str:
    """A file beside this one, with the places in images in it."""
    text = Path(__file__).with_name(name).read_text("utf-8")
    return text.replace("@ENVDIR@", ENVDIR).replace("@ENV@", ENV).replace("@WHEELS@", WHEELS)


# A virtual environment is known by the file beside the path that the interpreter was started by. tox-current-env starts
# it through a link elsewhere, and then a plain link to the system's interpreter would be the system's. This program is
# the environment's interpreter by whatever link it is reached, unless it is a link of an environment made from it.
INTERPRETER = _read("interpreter.c")

PIP_CONFIGURATION = _read("pip.conf")

FILES = {
    f"{CONDA}/bin/activate": _read("activate.sh"),
    f"{CONDA}/etc/profile.d/conda.sh": _read("activate.sh"),
    "/root/.bashrc": f". {CONDA}/etc/profile.d/conda.sh && conda activate testbed\n",
    "/root/.gitconfig": "[user]\n\temail = setup@swebench.config\n\tname = SWE-bench\n",
}

FUNCTIONS = _read("image.sh")
"""A shell function for each step that needs more than a line."""
ASK_EDITABLE = f"{FUNCTIONS}\nis_editable\n"

NEEDED = ("bash", "git", "gcc", "g++", "make", "patch", "ps", "sed")

CHANGES = (
    # A commit cannot take away the entrypoint that the sandbox had; this one starts whatever it is given.
    'ENTRYPOINT ["/usr/bin/env"]',
    'CMD ["/bin/bash"]',
    "WORKDIR /testbed",
    "ENV LANG=C.UTF-8 TZ=Etc/UTC",
)
"""Of an image's configuration, as Dockerfile lines."""

# Asks a build backend (PEP 517, PEP 660) about the tree in the working directory. Arguments: the packages that are
# there, the backend, the extras, the backend's path entries. Answers with what else building takes, or where that is
# nothing, with the tree's name, version and requirements, those of the extras included.
ASK_BACKEND = """\
import email, importlib, json, os, sys, tempfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

known, name, extras = sys.argv[1:4]
sys.path[:0] = sys.argv[4:] + ([os.getcwd()] if "__legacy__" in name else [])
sys.argv[1:] = []
module, _, attribute = name.partition(":")
backend = importlib.import_module(module)
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)


def needs():
    hooks = ("get_requires_for_build_editable", "get_requires_for_build_wheel")
    return [line for hook in hooks if hasattr(backend, hook) for line in getattr(backend, hook)({})]


def wanted(requires, own, extras):
    found, waiting, seen = [], [""] + [e.strip() for e in extras.split(",") if e.strip()], set()
    while waiting:
        extra = waiting.pop()
        seen.add(extra)
        for each in map(Requirement, requires):
            if each.marker and not each.marker.evaluate({"extra": extra}):
                continue
            each.marker = None
            if canonicalize_name(each.name) == own:
                waiting += sorted(each.extras - seen)
            else:
                found.append(str(each))
    return list(dict.fromkeys(found))


def metadata():
    place = tempfile.mkdtemp()
    folder = backend.prepare_metadata_for_build_wheel(place, {})
    with open(os.path.join(place, folder, "METADATA"), encoding="utf-8") as file:
        message = email.message_from_file(file)
    own = wanted(message.get_all("Requires-Dist") or [], canonicalize_name(message["Name"]), extras)
    return {"name": message["Name"], "version": message["Version"], "dependencies": own}


missing = [line for line in needs() if canonicalize_name(Requirement(line).name) not in known.split(",")]
missing = [] if known == "*" else missing
print("\\nanswer: " + json.dumps([missing, {} if missing else metadata()]))
"""
