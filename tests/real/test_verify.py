"""The clean room: what a candidate is worth is found out in a fresh sandbox, by tests that it cannot change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent.choice.order import select, why_not
from harness.choosing.found import InstanceEvidence, digest
from harness.choosing.gather import gather_probes, gather_static, in_sandbox
from harness.choosing.pool import Sample
from harness.choosing.statement import Statement
from harness.choosing.static_evidence import look
from harness.environments.environment import CleanRoom
from harness.evidence.told import tell
from harness.evidence.verify import verification_key, verify, witness_name, witness_on_base
from harness.records import Candidate, Evidence, Told, WitnessTest
from harness.repository.base_tree import open_tree
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from harness.testing.report import COMMAND_TEST
from tasks.errors import SandboxFailed
from tasks.task import GivenTest, Task
from tests.bench.evidence import NearEvidence, gather_tests
from tests.support.environments import freeze
from tests.support.repositories import CALC, FAILING, FIX, git

REGRESSION = ("tests/test_core.py::test_add", "tests/test_core.py::test_mean_of_nothing")
GIVEN = "tests/test_issue.py::test_mean"


def added(path: str, text: str) -> str:
    """The diff that adds a file."""
    lines = text.splitlines()
    body = "".join(f"+{line}\n" for line in lines)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)}"
        f" @@\n{body}"
    )


def mean_returning(expression: str) -> str:
    return FIX.replace("+    return sum(values) / len(values)", f"+    return {expression}")


def witness(text: str, path: str = "tests/test_witness.py", attempt: int = 0) -> WitnessTest:
    return WitnessTest(attempt, path, f"from calc import mean\n\n\ndef test_witness():\n    {text}\n")


def evidence(
    provider: Provider,
    task: Task,
    patch: str,
    regression: Sequence[str] = REGRESSION,
    witnesses: Sequence[WitnessTest] = (),
    command: str = "python -m pytest -q",
    timeout: float = 60.0,
    test_seconds: float = 2.0,
) -> Evidence:
    async def scenario() -> Evidence:
        built = replace(await freeze(provider, task), test_command=command)
        room = CleanRoom(provider, built, "tests", timeout, test_seconds)
        return await verify(room, task, name="verify-c1", patch=patch, regression=regression, witnesses=witnesses)

    return asyncio.run(scenario())


def test_a_right_patch_is_clean_and_passes_given_and_witness_tests(provider: Provider, task: Task) -> None:
    tests = (witness("assert mean([3]) == 3"), witness("assert mean([1, 5]) == 3", attempt=1))
    found = evidence(provider, task, FIX, witnesses=tests)
    assert found.clean and found.reason == ""
    assert found.given == {GIVEN: "passed"}
    assert found.witness == {"0:tests/test_witness.py": "passed", "1:tests/test_witness.py": "passed"}
    assert found.regression == dict.fromkeys(REGRESSION, "passed")


def test_a_patch_that_breaks_what_worked_is_not_clean(bubblewrap: Provider, task: Task) -> None:
    found = evidence(bubblewrap, task, mean_returning("3"))
    assert found.valid and not found.clean
    assert found.broken == ("tests/test_core.py::test_mean_of_nothing",)
    assert found.given == {GIVEN: "passed"}
    assert found.said is not None and list(found.said) == [*found.broken] and found.said[found.broken[0]]


def test_a_patch_that_does_not_apply_says_so(bubblewrap: Provider, task: Task) -> None:
    found = evidence(bubblewrap, task, FIX.replace("len(values) + 1", "len(values) + 2"))
    assert not found.applies and not found.clean
    assert found.reason.startswith("the patch does not apply: patch failed: calc/core.py")


def test_a_patch_cannot_change_the_tests_that_measure_it(provider: Provider, task: Task) -> None:
    cheats = (
        added(
            "tests/conftest.py",
            "import pytest\n\n\n@pytest.fixture(autouse=True)\ndef easy(request):\n    pytest.skip('easy')",
        ),
        added("conftest.py", "collect_ignore_glob = ['*']"),
        added("pytest.ini", "[pytest]\naddopts = --collect-only"),
        "diff --git a/tests/test_core.py b/tests/test_core.py\ndeleted file mode 100644\n--- a/tests/test_core.py\n+++"
        f" /dev/null\n@@ -1,{len(CALC['tests/test_core.py'].splitlines())} +0,0 @@\n"
        + "".join(f"-{line}\n" for line in CALC["tests/test_core.py"].splitlines()),
    )
    found = evidence(provider, task, mean_returning("7") + "".join(cheats))
    assert found.applies and found.valid
    assert found.regression == {REGRESSION[0]: "passed", REGRESSION[1]: "failed"}
    assert found.given == {GIVEN: "failed"}


@pytest.mark.parametrize("path", ["pytest.py", "_pytest/__init__.py", "json.py", "sitecustomize.py", "site.pth"])
def test_a_patch_that_hides_what_runs_the_tests_is_not_acceptable(bubblewrap: Provider, task: Task, path: str) -> None:
    forged = mean_returning("7") + added(path, "import os; os._exit(0)\n")
    found = evidence(bubblewrap, task, forged)
    reason = f"it brings {path}, which Python loads in place of what runs the tests"
    assert found.applies and found.reason == reason
    assert why_not(Candidate("c1", forged, (0,), evidence=found)) == reason
    beside = evidence(bubblewrap, task, FIX + added(f"calc/{path}", "import os; os._exit(0)\n"))
    assert beside.clean or path == "site.pth", "a package may have modules of any name"


def test_the_given_test_is_put_back_when_a_patch_overwrites_it(bubblewrap: Provider, task: Task) -> None:
    path, text = FAILING.files[0]
    lines = text.splitlines()
    patch = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1,{len(lines)} +1,2 @@\n"
    patch += "".join(f"-{line}\n" for line in lines) + "+def test_mean():\n+    pass\n"
    found = evidence(bubblewrap, task, patch)
    assert found.applies and found.given == {GIVEN: "failed"}


def test_a_patch_that_never_ends_fails_the_tests_and_not_the_verification(bubblewrap: Provider, task: Task) -> None:
    endless = mean_returning("1 if [iter(int, 1) for _ in iter(int, 1)] else 0")
    found = evidence(bubblewrap, task, endless)
    assert found.valid and found.given == {GIVEN: "failed"}
    assert found.broken == ("tests/test_core.py::test_mean_of_nothing",)


def test_a_patch_that_ends_python_with_exit_code_0_proves_nothing(bubblewrap: Provider, task: Task) -> None:
    found = evidence(
        bubblewrap, task, mean_returning("__import__('os')._exit(0)"), witnesses=[witness("assert mean([3]) == 3")]
    )
    assert not found.valid and not found.clean
    assert found.given[GIVEN] == "error" and found.witness == {"0:tests/test_witness.py": "error"}
    assert found.regression["tests/test_core.py::test_mean_of_nothing"] == "error"


def test_a_patch_that_cannot_be_imported_breaks_everything(bubblewrap: Provider, task: Task) -> None:
    found = evidence(bubblewrap, task, FIX.replace("+    return", "+    return return"))
    assert found.valid and found.broken == REGRESSION
    assert found.given == {GIVEN: "error"}


def test_a_command_without_pytest_is_judged_as_a_whole(bubblewrap: Provider, task: Task) -> None:
    command = "python -c 'from calc import mean; assert mean([4]) == 4'"
    found = evidence(bubblewrap, task, FIX, regression=(COMMAND_TEST,), command=command)
    assert found.clean and found.regression == {COMMAND_TEST: "passed"}
    assert evidence(bubblewrap, task, "", regression=(COMMAND_TEST,), command=command).broken == (COMMAND_TEST,)


def test_a_witness_that_patches_the_package_decides_about_no_other(provider: Provider, task: Task) -> None:
    """In one process it made the wrong patch pass, and the right one fail, what others wrote."""
    sly = "import calc, calc.core\n\nright = calc.core.mean\n"
    sly += "calc.mean = calc.core.mean = lambda values: 4 if right([4]) == 3 else 0\n\n\n"
    sly += "def test_a():\n    assert calc.mean([4]) == 4\n"
    tests = (
        WitnessTest(0, "tests/test_a.py", sly),
        witness("assert mean([4]) == 4", "tests/test_b.py", 1),
        witness("assert mean([4]) == 4", "tests/test_c.py", 2),
    )
    patches = {"wrong": mean_returning("0 if values == [0, 0] else 3"), "right": FIX}
    found = {name: evidence(provider, task, patch, witnesses=tests) for name, patch in patches.items()}
    assert list(found["wrong"].witness.values()) == ["passed", "failed", "failed"]
    assert list(found["right"].witness.values()) == ["failed", "passed", "passed"]
    given = {name: replace(each, given={}) for name, each in found.items()}
    chosen = select([Candidate(name, patch, (0,), evidence=given[name]) for name, patch in patches.items()])
    assert (chosen.candidate, chosen.method) == ("right", "witness")


LEAVING = """\
import pathlib, subprocess, sys

import calc.core


def test_it():
    pathlib.Path(calc.core.__file__).write_text({text!r})
    for place in ("conftest.py", "tests/conftest.py", "sitecustomize.py"):
        pathlib.Path(place).write_text("import os; os._exit(0)")
    for folder in sys.path:
        if folder.endswith("site-packages"):
            pathlib.Path(folder, "left.pth").write_text("import os; os._exit(0)")
    subprocess.Popen(["sleep", "60"], start_new_session=True)
    assert False
"""


def test_what_a_test_leaves_behind_reaches_no_other(provider: Provider, task: Task) -> None:
    """Files of the tree, of the environment and of Python's start, and processes: left by the given test, by a witness
    test on a candidate, and by one on the base."""
    breaking = LEAVING.format(text="def add(a, b):\n    return a + b\n\n\ndef mean(values):\n    return 0\n")
    mending = LEAVING.format(text="def add(a, b):\n    return a + b\n\n\ndef mean(values):\n    return values[0]\n")
    given = GivenTest(("tests/test_given.py",), (("tests/test_given.py", breaking),))
    honest = witness("assert mean([4]) == 4", "tests/test_z.py", 1)
    found = evidence(
        provider,
        replace(task, failing_test=given),
        FIX,
        witnesses=[WitnessTest(0, "tests/test_a.py", breaking), honest],
    )
    assert found.clean and found.given == {"tests/test_given.py": "failed"}
    assert list(found.witness.values()) == ["failed", "passed"]
    assert found.said is not None and found.said.keys() == {"tests/test_given.py", "0:tests/test_a.py"}

    async def on_base() -> tuple[WitnessTest, ...]:
        built = await freeze(provider, task)
        return await witness_on_base(
            CleanRoom(provider, built, "tests"), "", [WitnessTest(0, "a/test_a.py", mending), honest]
        )

    assert honest in asyncio.run(on_base())


def test_one_deadly_witness_test_does_not_silence_the_others(bubblewrap: Provider, task: Task) -> None:
    tests = (
        witness("__import__('os')._exit(1)", "tests/test_a.py", 0),
        witness("assert mean([3]) == 3", "tests/test_b.py", 1),
        witness("assert mean([3]) == 4", "tests/test_c.py", 2),
    )
    found = evidence(bubblewrap, task, FIX, (), tests)
    assert found.witness == {"0:tests/test_a.py": "error", "1:tests/test_b.py": "passed", "2:tests/test_c.py": "failed"}


def test_only_witness_tests_that_fail_on_the_base_are_kept(bubblewrap: Provider, task: Task) -> None:
    fails = witness("assert mean([3]) == 3", "tests/test_fails.py")
    missing_name = WitnessTest(
        1, "tests/test_name.py", "from calc import median\n\n\ndef test_it():\n    assert median([1]) == 1\n"
    )
    recorded = (
        fails,
        replace(fails, attempt=2),
        missing_name,
        witness("assert mean([0]) == 0", "tests/test_passes.py"),
        witness("import pytest; pytest.skip()", "tests/test_skips.py"),
        WitnessTest(3, "tests/test_empty.py", "from calc import mean\n"),
        WitnessTest(4, "tests/test_syntax.py", "def test_it(:\n"),
        WitnessTest(4, "tests/test_own_name.py", missing_name.text.replace("median", "middle")),
        WitnessTest(4, "tests/test_within.py", "def test_it():\n    from calc import middle\n"),
        WitnessTest(4, "tests/test_elsewhere.py", "import numpy_of_my_own\n\n\ndef test_it():\n    assert False\n"),
        WitnessTest(4, "tests/test_no_test.py", "assert False\n"),
        WitnessTest(5, "tests/test_core.py", "def test_it():\n    assert False\n"),
    )

    async def scenario() -> tuple[WitnessTest, ...]:
        built = await freeze(bubblewrap, task)
        return await witness_on_base(CleanRoom(bubblewrap, built, "tests"), "It has no median.", recorded)

    assert asyncio.run(scenario()) == (fails, missing_name), "a name that the issue asks for may be missing"


def test_without_a_runner_there_is_no_witness(bubblewrap: Provider, task: Task) -> None:
    async def scenario(command: str) -> tuple[WitnessTest, ...]:
        built = replace(await freeze(bubblewrap, task), test_command=command)
        return await witness_on_base(CleanRoom(bubblewrap, built, "tests"), "", [witness("assert mean([3]) == 3")])

    assert len(asyncio.run(scenario("python -m pytest -q"))) == 1
    assert asyncio.run(scenario("no-such-runner")) == asyncio.run(scenario("python -m no_such_runner")) == ()


@pytest.mark.parametrize("path", ["conftest.py", "tests/sitecustomize.py", "pytest.ini", "tests/../test_a.py"])
def test_a_witness_of_an_old_trace_that_pytest_loads_by_itself_is_left_out_with_a_sentence(
    bubblewrap: Provider, task: Task, path: str
) -> None:
    fails = witness("assert mean([3]) == 3")
    said: list[str] = []

    async def scenario() -> tuple[WitnessTest, ...]:
        room = CleanRoom(bubblewrap, await freeze(bubblewrap, task), "tests")
        return await witness_on_base(
            room, "", [WitnessTest(3, path, "def test_it(): assert False\n"), fails], said.append
        )

    assert asyncio.run(scenario()) == (fails,)
    (sentence,) = said
    assert sentence.startswith(f"a witness test of attempt 3 is left out: {path!r} is no name for one")


class Mortal:
    """A provider whose first sandboxes (those with a name that ends by `name`) die in the first command."""

    def __init__(self, provider: Provider, deaths: int, name: str = "") -> None:
        self._provider, self.deaths, self._name = provider, deaths, name

    async def create(self, spec: SandboxSpec) -> Sandbox:
        sandbox = await self._provider.create(spec)
        if self.deaths > 0 and spec.name.endswith(self._name):
            self.deaths -= 1
            await sandbox.close()
        return sandbox


def test_a_sandbox_that_dies_says_nothing_about_the_candidate(bubblewrap: Provider, task: Task) -> None:
    async def scenario(deaths: int) -> Evidence:
        built = await freeze(bubblewrap, task)
        # It has no more of a provider than what is asked of one here.
        room = CleanRoom(cast("Provider", Mortal(bubblewrap, deaths)), built, "tests", retries=2)
        return await verify(room, task, name="v", patch=FIX, regression=REGRESSION)

    assert asyncio.run(scenario(2)).clean
    with pytest.raises(SandboxFailed):
        asyncio.run(scenario(3))


def test_a_witness_under_which_sandboxes_die_is_no_fault_of_the_candidate_or_of_others(
    bubblewrap: Provider, task: Task
) -> None:
    tests = (witness("assert mean([3]) == 3", "tests/test_a.py"), witness("assert mean([3]) == 3", "tests/test_b.py"))
    said: list[str] = []

    async def scenario() -> tuple[Evidence, tuple[WitnessTest, ...]]:
        built = await freeze(bubblewrap, task)
        rooms = [
            CleanRoom(cast("Provider", Mortal(bubblewrap, 9, name)), built, "tests", retries=1)
            for name in ("-w0", "-0")
        ]
        found = await verify(rooms[0], task, name="v", patch=FIX, regression=REGRESSION, witnesses=tests)
        return found, await witness_on_base(rooms[1], "", tests, said.append)

    found, kept = asyncio.run(scenario())
    assert found.clean and list(found.witness.values()) == ["error", "passed"]
    assert kept == tests[1:] and said[0].startswith("a witness test of attempt 0 is left out: sandbox")


# A candidate that has a file where a test's folder should be, or a name that no file can have

SHOWN = "```\n>>> from calc import mean\n>>> mean([3])\n```\n"
BLOCKING = FIX + added("witnesses", "here\n")


def test_a_witness_that_a_candidate_leaves_no_room_for_did_not_run_and_the_others_did(
    bubblewrap: Provider, task: Task
) -> None:
    tests = (witness("assert mean([3]) == 3", "witnesses/test_w.py"), witness("assert mean([3]) == 3"))
    found = evidence(bubblewrap, task, BLOCKING, witnesses=tests)
    assert found.clean
    assert found.witness == {"0:witnesses/test_w.py": "missing", "0:tests/test_witness.py": "passed"}


def test_a_test_that_cannot_be_written_is_told_as_an_error(bubblewrap: Provider, task: Task) -> None:
    async def scenario() -> Told:
        built = await freeze(bubblewrap, task)
        sandbox = await bubblewrap.create(SandboxSpec(run="tests", name="tell", environment=built.key))
        try:
            await sandbox.write("witnesses", b"a file")
            return await tell(sandbox, "c1", "witnesses/test_w.py", "def test_a(): pass", None)
        finally:
            await sandbox.close()

    told = asyncio.run(scenario())
    assert told.outcome == "error" and told.tail.startswith("witnesses/test_w.py cannot be written")


def test_a_candidate_that_cannot_be_laid_out_ends_no_evidence_on_the_others(bubblewrap: Provider, task: Task) -> None:
    head = git(Path(task.repository.location), "rev-parse", "HEAD")
    odd_patch = FIX + added(f"calc/{'x' * 300}.py", "too long a name for a file\n")
    samples = tuple(Sample("i", name, name, patch) for name, patch in (("odd", odd_patch), ("right", FIX)))

    async def scenario() -> NearEvidence:
        built = await freeze(bubblewrap, task)

        async def opened(name: str) -> Sandbox:
            return await bubblewrap.create(SandboxSpec(run="tests", name=name, environment=built.key))

        with open_tree(Path(task.repository.location), head) as tree:
            known = gather_static(InstanceEvidence("i", samples), SHOWN, tree)
            known = await gather_probes(known, tree, opened)
            return await gather_tests(known, tree, opened, seconds=5.0)

    known = asyncio.run(scenario())
    odd, right = (known.of(sample) for sample in samples)
    assert odd.probes == {} and odd.static.reason.startswith("the probes cannot be run on it")
    assert right.probes and not right.static.reason
    told_odd, told_right = (known.tests[digest(sample.patch)] for sample in samples)
    assert not told_right.broken
    assert told_odd.reason.startswith("it cannot be laid out")


def test_what_guards_tests_is_not_laid_for_probes(bubblewrap: Provider, task: Task) -> None:
    head = git(Path(task.repository.location), "rev-parse", "HEAD")

    async def listed() -> str:
        built = await freeze(bubblewrap, task)

        async def opened(name: str) -> Sandbox:
            return await bubblewrap.create(SandboxSpec(run="tests", name=name, environment=built.key))

        with open_tree(Path(task.repository.location), head) as tree:
            patch = FIX + added("pytest.ini", "[pytest]")
            return (await in_sandbox(opened, "laid", tree, patch, lambda s: s.exec(["ls"], timeout=60))).output

    names = asyncio.run(listed())
    assert "calc" in names and "pytest.ini" not in names


def test_a_patch_that_hides_what_runs_the_tests_counts_as_none_that_applies_among_patches_of_any_tool(
    task: Task,
) -> None:
    head = git(Path(task.repository.location), "rev-parse", "HEAD")
    with open_tree(Path(task.repository.location), head) as tree:
        facts = [
            look(FIX + added(path, "x = 1\n"), Statement(""), tree)
            for path in ("pluggy.py", "calc/pluggy.py", "new/json/__init__.py")
        ]
    assert [each.applies for each in facts] == ["no", "clean", "clean"]
    assert facts[0].reason == "pluggy.py would be loaded in place of what runs the tests"


# Without a sandbox


def test_the_key_of_a_verification_tells_what_differs() -> None:
    one = witness("assert True")
    key = verification_key("e", FIX, ["b", "a"], [one])
    assert key == verification_key("e", FIX, ["a", "b"], [one])
    others = {
        verification_key("f", FIX, ["a", "b"], [one]),
        verification_key("e", FIX + " ", ["a", "b"], [one]),
        verification_key("e", FIX, ["a"], [one]),
        verification_key("e", FIX, ["a", "b"], []),
        verification_key("e", FIX, ["a", "b"], [replace(one, text="other")]),
        verification_key("e", FIX, ["a", "b"], [one], FAILING),
        verification_key("e", FIX, ["a", "b"], [one], command="make test"),
    }
    assert len(others | {key}) == 8
    assert verification_key("e", "\udcff", [], []), "a patch may hold any bytes"
    assert witness_name(one) == "0:tests/test_witness.py"
