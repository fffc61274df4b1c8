"""What is put into environment images: files, and the commands that make them. Pure."""

from __future__ import annotations

from pathlib import Path

from harness.sandbox.base import ENVDIR
from harness.swebench.names import CONDA, ENV, WHEELS

ACTIVATE = f"""\
# The official evaluation scripts activate an environment the way conda does. There is one: {ENV}.
conda() {{
  [ "${{1-}}" = activate ] || return 0
  export CONDA_DEFAULT_ENV=testbed VIRTUAL_ENV={ENV}
  case ":$PATH:" in
    *":{ENV}/bin:"*) ;;
    *) export PATH={ENV}/bin:$PATH ;;
  esac
}}
"""

# A virtual environment is known by the file beside the path that the interpreter was started by. tox-current-env starts
# it through a link elsewhere, and then a plain link to the system's interpreter would be the system's. This program is
# the environment's interpreter by whatever link it is reached, unless it is a link of an environment made from it.
INTERPRETER = Path(__file__).with_name("interpreter.c").read_text("utf-8")

PIP_CONFIGURATION = f"""\
[global]
no-index = true
find-links = {WHEELS}
disable-pip-version-check = true
no-cache-dir = true
root-user-action = ignore

[install]
compile = no
"""

FILES = {
    f"{CONDA}/bin/activate": ACTIVATE,
    f"{CONDA}/etc/profile.d/conda.sh": ACTIVATE,
    "/root/.bashrc": f". {CONDA}/etc/profile.d/conda.sh && conda activate testbed\n",
    "/root/.gitconfig": "[user]\n\temail = setup@swebench.config\n\tname = SWE-bench\n",
}

_SOURCES, _APT = "/etc/apt/sources.list.d/troop.list", "/etc/apt/apt.conf.d/99troop"
TAKE_SOURCES_AWAY = f"rm -f {_SOURCES} {_APT}"


def bring_sources(mirror: str) -> str:
    """A shell line that has apt ask a Debian mirror, unless the image names archives of its own."""
    return (
        "if ! grep -qsr '^deb\\|^URIs' /etc/apt/sources.list /etc/apt/sources.list.d; then"
        f' . /etc/os-release; echo "deb {mirror} $VERSION_CODENAME main" > {_SOURCES};'
        f' [ -z "${{SSL_CERT_FILE-}}" ] || echo "Acquire::https::CAInfo \\"$SSL_CERT_FILE\\";" > {_APT}; fi'
    )


NEEDED = ("bash", "git", "gcc", "g++", "make", "patch", "ps", "sed")

CHANGES = (
    # A commit cannot take away the entrypoint that the sandbox had; this one starts whatever it is given.
    'ENTRYPOINT ["/usr/bin/env"]',
    'CMD ["/bin/bash"]',
    "WORKDIR /testbed",
    "ENV LANG=C.UTF-8 TZ=Etc/UTC",
)
"""Of an image's configuration, as Dockerfile lines."""


def find_python(python: str) -> str:
    """A command that prints the path of the base's interpreter of that version; it fails where there is none."""
    return (
        f"for p in $(command -v python{python}) /usr/bin/python{python} /usr/local/bin/python{python} $(command -v"
        " python3); do "
        f'"$p" -c \'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "{python}")\' && readlink -f "$p" && exit; '
        "done; exit 1"
    )


def make_environment(uv: str, base_python: str) -> str:
    """The command that makes the bare environment on top of the base's interpreter."""
    return (
        f"{uv} venv --quiet --no-project --python {base_python} {ENV}"
        f" && rm {ENV}/bin/python*"
        f" && gcc -O2 -DBASE='\"{base_python}\"' -DENVIRONMENT='\"{ENV}\"' -o {ENV}/bin/python -x c /tmp/interpreter.c"
        f" && ln -s python {ENV}/bin/python3 && ln -s python {ENV}/bin/python$({base_python} -c"
        " 'import sys; print(\"%d.%d\" % sys.version_info[:2])')"
        f" && rm -rf {ENVDIR} && ln -s {ENV} {ENVDIR}"
        f" && {ENV}/bin/python -c 'import sys; assert sys.prefix == \"{ENV}\", sys.prefix'"
    )


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

# Exits with 0 where what is installed is the tree where it lies: pip notes it (PEP 610), or setuptools leaves a link;
# meson-python's loader builds again on import. conda has a link python3.1 beside python3.10.
ASK_EDITABLE = (
    f'cd "$(ls -d {ENV}/lib/python3*/site-packages | tail -n 1)" && ! ls _*_editable_loader.py 2> /dev/null && {{'
    " grep -lsE '\"editable\": *true' *.dist-info/direct_url.json | xargs -r grep -ls 'file:///testbed';"
    " grep -ls '^/testbed' *.egg-link; } | grep -q ."
)

# Not below tests: what they look for may be counted.
COMPILE_TREE = (
    f"{ENV}/bin/python -m compileall -q -x '(^|/)(tests?|testing|roots|\\.git|\\.tox|build)(/|$)' /testbed > /dev/null"
    " 2>&1 || true"
)
