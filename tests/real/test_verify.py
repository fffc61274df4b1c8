"""The clean room: what a candidate is worth is found out in a fresh sandbox, by tests that it cannot change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.choosing.evidence_store import InstanceEvidence
from harness.choosing.gather import gather_probes, gather_static, gather_tests
from harness.choosing.pool import Sample
from harness.environments.clean_room import CleanRoom
from harness.evidence.told import tell
from harness.evidence.verify import verification_key, verify, witness_name, witness_on_base
from harness.records import Evidence, Told, WitnessTest
from harness.repository.base_tree import open_tree
from harness.sandbox.base import Provider, Sandbox, SandboxSpec
from harness.testing.report import COMMAND_TEST
from tasks.errors import SandboxFailed
from tasks.task import Task
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
        added("sitecustomize.py", "import os\nos._exit(0)"),
        "diff --git a/tests/test_core.py b/tests/test_core.py\ndeleted file mode 100644\n--- a/tests/test_core.py\n+++"
        f" /dev/null\n@@ -1,{len(CALC['tests/test_core.py'].splitlines())} +0,0 @@\n"
        + "".join(f"-{line}\n" for line in CALC["tests/test_core.py"].splitlines()),
    )
    found = evidence(provider, task, mean_returning("7") + "".join(cheats))
    assert found.applies and found.valid
    assert found.regression == {REGRESSION[0]: "passed", REGRESSION[1]: "failed"}
    assert found.given == {GIVEN: "failed"}


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
        WitnessTest(5, "tests/test_core.py", "def test_it():\n    assert False\n"),
    )

    async def scenario() -> tuple[WitnessTest, ...]:
        built = await freeze(bubblewrap, task)
        return await witness_on_base(CleanRoom(bubblewrap, built, "tests"), recorded)

    assert asyncio.run(scenario()) == (fails, missing_name)


class Mortal:
    """A provider whose first sandboxes die in the first command."""

    def __init__(self, provider: Provider, deaths: int) -> None:
        self._provider, self.deaths = provider, deaths

    async def create(self, spec: SandboxSpec) -> Sandbox:
        sandbox = await self._provider.create(spec)
        if self.deaths > 0:
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

    async def scenario() -> InstanceEvidence:
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
    assert right.tests is not None and not right.tests.broken
    assert odd.tests is not None and odd.tests.reason.startswith("it cannot be laid out")


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
