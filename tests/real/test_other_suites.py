"""Rows of other suites through `images`, `grade` and `eval`: small images in their layouts, pulled from a registry here."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.sandbox.docker.daemon import connect
from harness.sandbox.docker.image import DEFAULT_IMAGE
from harness.swebench import official
from tests.support import suite_rows
from tests.support.calculator import PLAN, SUBMIT, call
from tests.support.command_line import TROOP
from tests.support.graded_instance import CALC, GOLD, HARMLESS, OLD_TESTS, build_instance, make_row
from tests.support.model_server import Answer, Request, serving
from tests.support.repositories import git
from tests.support.runs import SEEDS

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ALIAS = (
    '[models.scripted]\nbase_url = "{url}"\nname = "scripted"\nusd_per_mtok_input = 1.0\nusd_per_mtok_output = 1.0\n'
)
LOOK = "cat /home/*.patch; ls -d /home/*/.git; git log --all --format=%s; readlink /app /home/jq; cat built"

# What stands in for Multi-SWE-bench's package, whose readers are too many for a test: one repository's.
READER = """
class Found: pass
class Reader:
    def __init__(self, change, config): pass
    def parse_log(self, text):
        found = Found()
        lines = [line.split(" ", 1) for line in text.splitlines() if line[:6] in ("PASSED", "FAILED")]
        found.passed_tests = {name for word, name in lines if word == "PASSED"}
        found.failed_tests = {name for word, name in lines if word == "FAILED"}
        return found
class Instance: _registry = {"jqlang/jq": Reader}
"""
FIX_RUN = """\
#!/bin/bash
set -e
cd /home/jq
git apply --whitespace=nowarn /home/test.patch /home/fix.patch
python3 -c '
import sys
sys.path.insert(0, ".")
from tests import test_calc
for name in ("test_add", "test_double"):
    try:
        getattr(test_calc, name)()
        print("PASSED", name)
    except Exception:
        print("FAILED", name)
'
"""


@dataclass(frozen=True)
class Place:
    """A registry at `address` that has the images, and a data set of one row each by suite."""

    folder: Path
    address: str
    rows: dict[str, dict[str, Any]]

    def dataset(self, suite: str) -> Path:
        return self.folder / suite / "rows.jsonl"

    def run(
        self, command: str, suite: str, *arguments: str, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        whole = [*TROOP, command, *(("build",) if command == "images" else ())]
        whole += ["swe-bench", "--dataset", str(self.dataset(suite)), *arguments]
        own = {"TROOP_CACHE": str(self.folder / "cache"), "PYTHONPATH": f"{self.folder}:{Path(__file__).parents[2]}"}
        done = subprocess.run(whole, env={**os.environ, **own}, capture_output=True, text=True, check=False, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("there is no docker-registry to pull from (apt-get install docker-registry)")
    place = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(place / "kept")}}
    (place / "config.yml").write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with (place / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(place / "config.yml")], stdout=log, stderr=log)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/v2/"):
                break
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Place]:
    client, folder = connect(), tmp_path_factory.mktemp("suites")
    names = {suite: f"{registry}/troop-test/{suite}:latest" for suite in ("newer", "rebench", "pro", "multi")}
    base, built = build_instance(client, folder / "testbed", names["newer"])
    built_image = client.images.get(built.id)
    built_image.tag(names["rebench"])
    made = make_row(base, image=names["newer"])
    newer: dict[str, Any] = {"FAIL_TO_PASS": made.fail_to_pass, "PASS_TO_PASS": made.pass_to_pass}
    newer |= {name: value for name, value in asdict(made).items() if isinstance(value, str)}
    newer |= {"eval_script": official.eval_script(made, rules="4.1"), **official.parsing_of(made)}
    app_base, fixed = build_elsewhere(client, folder / "pro", names["pro"], "app", {})
    files = {"home/fix-run.sh": FIX_RUN, "home/test.patch": made.test_patch, "home/fix.patch": GOLD}
    jq_base, _ = build_elsewhere(client, folder / "multi", names["multi"], "home/jq", files)
    rows = {
        "newer": newer,
        "rebench": suite_rows.rebench(base, image=names["rebench"]),
        "pro": suite_rows.pro(app_base, fixed, image=names["pro"]),
        "multi": suite_rows.multi(jq_base, image=names["multi"], n2p_tests={}),
    }
    for suite, row in rows.items():
        suite_rows.write(folder / suite / "rows.jsonl", row)
    suite_rows.write_scripts(folder / "pro", rows["pro"])
    package = folder / "multi_swe_bench" / "harness"
    package.mkdir(parents=True)
    for file, text in (("../__init__.py", ""), ("__init__.py", ""), ("repos.py", ""), ("instance.py", READER)):
        (package / file).write_text(text)
    try:
        for name in names.values():
            client.images.push(name)
            client.images.remove(name, force=True)
        yield Place(folder, registry, rows)
    finally:
        for name in names.values():
            with contextlib.suppress(Exception):
                client.images.remove(name, force=True)
        client.close()


def build_elsewhere(client: Any, folder: Path, name: str, tree: str, files: dict[str, str]) -> tuple[str, str]:
    """An image that has the repository at `tree`, its future in the history, and something that was built there and is
    not committed; (base, the commit with the hidden tests)."""
    place = folder / "tree"
    (place / "tests").mkdir(parents=True)
    (place / "calc.py").write_text(CALC)
    (place / "tests" / "test_calc.py").write_text(OLD_TESTS)
    (place / ".gitignore").write_text("built\n")
    git(place, "init", "-q")
    commits = []
    for message, patch in (("base", ""), ("The repair", make_row("0" * 40).test_patch)):
        if patch:
            subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=place, check=True)
        git(place, "add", "-A")
        git(place, "commit", "-q", "-m", message)
        commits.append(git(place, "rev-parse", "HEAD"))
    git(place, "checkout", "-q", commits[0])
    (place / "built").write_text("built in the image\n")
    dockerfile = (
        f"FROM {DEFAULT_IMAGE}\nCOPY context/ /\nRUN ln -sf /usr/bin/python3 /usr/bin/python\nWORKDIR /{tree}\n"
    )
    texts = {"Dockerfile": dockerfile, **{f"context/{path}": text for path, text in files.items()}}
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        archive.add(place, f"context/{tree}")
        for path, text in texts.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=name, network_mode="none", rm=True)
    return commits[0], commits[1]


@pytest.mark.parametrize("suite", ["newer", "rebench", "pro", "multi"])
def test_images_are_pulled_and_patches_graded(place: Place, suite: str) -> None:
    built = json.loads(place.run("images", suite, "--json").stdout)
    (image,) = built["instances"]
    assert (image["image"], image["origin"]) == (place.rows[suite]["image"], "row")
    out = place.folder / f"graded-{suite}"
    done = place.run("grade", suite, "--predictions", "gold", "noop", "--rules", "both", "--out", str(out), "--json")
    graded = {row["set"]: row for row in json.loads(done.stdout)["predictions"]}
    assert (graded["gold"]["outcome"], graded["noop"]["outcome"]) == ("resolved", "unresolved"), done.stdout
    assert not any(row["differs"] for row in graded.values())
    (verdict,) = json.loads(next(out.glob("noop/*/report.json")).read_text()).values()
    assert len(verdict["tests_status"]["PASS_TO_PASS"]["success"]) == 1, "the tests ran"


def answer_with(patches: dict[int, str], said: list[str]) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        patch = patches[SEEDS[int(request.body["seed"])]]
        laid = f"echo {base64.b64encode(patch.encode()).decode()} | base64 -d | git apply"
        said.append(json.dumps(request.body["messages"][-1]))
        turns = [PLAN, call("run", command=LOOK), call("run", command=laid), SUBMIT]
        return turns[min(request.turn, len(turns) - 1)]

    return answer


@pytest.mark.parametrize("suite", ["pro", "multi"])
def test_attempts_have_the_base_at_its_usual_place_and_nothing_that_the_image_hides(
    place: Place, suite: str, tmp_path: Path
) -> None:
    row, said = place.rows[suite], list[str]()
    mirror = tmp_path / "mirrors" / ("acme__lines" if suite == "pro" else "jqlang__jq")
    shutil.copytree(place.folder / suite / "tree", mirror)
    with serving(answer_with({0: GOLD, 1: HARMLESS}, said)) as server:
        (tmp_path / "troop.toml").write_text(ALIAS.format(url=server.url))
        asked = ("--mirrors", str(mirror.parent), "--model", "scripted", "-n", "2", "--judge-model", "none")
        done = place.run("eval", suite, *asked, "--repeat", "2", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (report["oracle"], report["mean_at_1"], report["flaky"]) == (1, 0.5, []), done.stderr
    (looked, *_) = [line for line in said if "built in the image" in line]
    assert "/testbed" in looked and "base" in looked
    assert "The repair" not in looked and "+    return a + b" not in looked and "diff --git" not in looked
    assert "test_add" not in row["problem_statement" if suite == "pro" else "body"]
