"""A SWE-bench instance small enough for a test, and a real image of it, laid out as the official ones are.

Its repository passes for a version of pytest, so that the official harness grades it, too. Its `pytest` is a few lines
that call the test functions of a file and print what pytest would print of them; its `pip` says that it was called.
"""

from __future__ import annotations

import difflib
import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.sandbox.docker.image import DEFAULT_IMAGE
from harness.swebench.names import ImageRef
from tasks.swebench import Row
from tests.support.repositories import git
from tests.support.rows import bare_row

INSTANCE = "pytest-dev__pytest-1"
CALC = "def add(a, b):\n    return a - b\n\n\ndef double(x):\n    return 2 * x\n"
OLD_TESTS = "from calc import double\n\n\ndef test_double():\n    assert double(2) == 4\n"


def _diff(path: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


GOLD = _diff("calc.py", CALC, CALC.replace("a - b", "a + b"))
"""Makes the hidden test pass."""
BREAKING = _diff("calc.py", CALC, CALC.replace("a - b", "a + b").replace("2 * x", "3 * x"))
"""Makes it pass, and one that passed before fail."""
HARMLESS = "diff --git a/NOTES b/NOTES\nnew file mode 100644\n--- /dev/null\n+++ b/NOTES\n@@ -0,0 +1 @@\n+x\n"
FUZZY = GOLD.replace(" def add(a, b):\n", " def add(a, b):  # as before\n")
"""Its context is not the file's: `git apply` refuses it, `patch` does not."""
FORGER = GOLD.replace(
    "+    return a + b",
    "+    return a + b\n+print('PASSED tests/test_calc.py::test_add\\nPASSED tests/test_calc.py::test_double')\n+exit(1)",
).replace("@@ -1,5 +1,5 @@", "@@ -1,5 +1,7 @@")
"""Says that all tests pass, and ends the run."""
GARBAGE = "I would change the sign in calc.py.\n"

_NEW_TESTS = (
    OLD_TESTS.replace("import double", "import add, double") + "\n\ndef test_add():\n    assert add(2, 2) == 4\n"
)
_TEST_PATCH = _diff("tests/test_calc.py", OLD_TESTS, _NEW_TESTS)

_PYTEST = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, ".")
for path in sys.argv[1:]:
    if path.startswith("-"):
        continue
    scope = {}
    exec(compile(open(path).read(), path, "exec"), scope)
    for name in [name for name in scope if name.startswith("test_")]:
        try:
            scope[name]()
            print(f"PASSED {path}::{name}", flush=True)
        except Exception as error:
            print(f"FAILED {path}::{name} - {type(error).__name__}", flush=True)
"""

_PYTHON = """\
#!/bin/sh
case "$*" in *"pip install"*) echo "installed again"; exit 0 ;; esac
exec /usr/bin/python3 "$@"
"""

_ACTIVATE = "conda() { export PATH=/opt/tools:$PATH; }\n"

_DOCKERFILE = f"""\
FROM {DEFAULT_IMAGE}
COPY testbed /testbed
COPY tools /opt/tools
COPY conda /opt/miniconda3/bin
WORKDIR /testbed
STOPSIGNAL SIGKILL
"""


def make_row(base: str, **fields: Any) -> Row:
    """The instance as a row; `fields` in place of its own."""
    row: dict[str, Any] = {
        "instance_id": INSTANCE,
        "repo": "pytest-dev/pytest",
        "base_commit": base,
        "version": "7.0",
        "problem_statement": "add() subtracts",
        "patch": GOLD,
        "test_patch": _TEST_PATCH,
        "fail_to_pass": ("tests/test_calc.py::test_add",),
        "pass_to_pass": ("tests/test_calc.py::test_double",),
        "environment_setup_commit": base,
    }
    return bare_row(**{**row, **fields})


def write_rows(file: Path, *rows: Row) -> Path:
    """A data set of these rows, in the official fields."""
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            fields = asdict(row)
            fields["created_at"] = "2024-01-01T00:00:00Z"
            fields["FAIL_TO_PASS"] = json.dumps(fields.pop("fail_to_pass"))
            fields["PASS_TO_PASS"] = json.dumps(fields.pop("pass_to_pass"))
            out.write(json.dumps({name: value for name, value in fields.items() if value != ""}) + "\n")
    return file


def build_instance(client: Any, folder: Path, name: str, labels: dict[str, str] | None = None) -> tuple[str, ImageRef]:
    """Build the image, with labels, under `name`; (base commit, image)."""
    tree = folder / "testbed"
    (tree / "tests").mkdir(parents=True)
    (tree / "calc.py").write_text(CALC)
    (tree / "tests" / "test_calc.py").write_text(OLD_TESTS)
    git(tree, "init", "-q")
    base = _commit(tree, "base")
    (tree / "set_up").write_text("by the image\n")
    _commit(tree, "SWE-bench")
    files = {"tools/pytest": _PYTEST, "tools/python": _PYTHON, "conda/activate": _ACTIVATE, "Dockerfile": _DOCKERFILE}
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        archive.add(tree, "testbed")
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    image, _ = client.images.build(
        fileobj=context, custom_context=True, tag=name, labels=labels or {}, network_mode="none", rm=True
    )
    return base, ImageRef(name, image.id, "built", labels or {})


def _commit(tree: Path, message: str) -> str:
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", message)
    return git(tree, "rev-parse", "HEAD")
