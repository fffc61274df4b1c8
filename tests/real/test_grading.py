"""Grading one patch in a real container, and beside the official harness in the very same image."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.sandbox.docker.daemon import connect
from harness.swebench import container, grading, official
from harness.swebench.container import APPLY_COMMANDS, Containers
from harness.swebench.grading import GradedPatch, Grader
from harness.swebench.memo import Memo
from harness.swebench.names import ImageRef, image_name
from tasks.errors import SandboxFailed
from tasks.swebench import Row
from tests.support.docker_proxy import proxied
from tests.support.graded_instance import (
    BREAKING,
    FORGER,
    FUZZY,
    GARBAGE,
    GOLD,
    HARMLESS,
    INSTANCE,
    build_instance,
    make_row,
    write_rows,
)
from tests.support.official_harness import run_official
from tests.support.waiting import wait_for

pytestmark = pytest.mark.docker

PID = os.getpid()
NAMESPACE = f"troop-test-{PID}"
NAME = f"{NAMESPACE}/sweb.eval.x86_64.pytest-dev_1776_pytest-1:latest"


@dataclass(frozen=True)
class Made:
    """The image, installed in place by its label, and the row that is graded in it."""

    client: Any
    image: ImageRef
    row: Row


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    client = connect()
    base, image = build_instance(client, tmp_path_factory.mktemp("instance"), NAME, {"troop.editable": "1"})
    yield Made(client, image, make_row(base))
    client.images.remove(NAME, force=True)
    client.close()


def grade(made: Made, patch: str, cache: Path, row: Row | None = None, **settings: Any) -> GradedPatch:
    async def one() -> GradedPatch:
        async with Grader(cache=cache, **settings) as grader:
            return await grader.grade(row or made.row, made.image, patch)

    return asyncio.run(one())


def log_of(graded: GradedPatch, cache: Path) -> str:
    target = cache / "log"
    Memo(cache / "grading", cache / "tmp").copy_log(graded.key, target)
    return target.read_text()


def containers_of(made: Made, run: str) -> list[Any]:
    found: list[Any] = made.client.api.containers(all=True, filters={"label": f"troop.run={run}"})
    return found


def test_the_right_patch_resolves_and_one_that_changes_nothing_does_not(made: Made, tmp_path: Path) -> None:
    gold = grade(made, GOLD, tmp_path)
    assert gold.resolved and gold.report is not None
    assert gold.report["tests_status"]["FAIL_TO_PASS"] == {"success": ["tests/test_calc.py::test_add"], "failure": []}
    harmless = grade(made, HARMLESS, tmp_path)
    assert harmless.outcome == "unresolved"
    assert harmless.reason == "1 of 1 tests that should pass now fail or did not run"
    assert harmless.report is not None
    assert harmless.report["tests_status"]["PASS_TO_PASS"]["success"] == ["tests/test_calc.py::test_double"]


def test_a_broken_test_that_passed_before_is_named(made: Made, tmp_path: Path) -> None:
    graded = grade(made, BREAKING, tmp_path)
    assert graded.outcome == "unresolved"
    assert graded.reason == "1 of 1 tests that passed before fail or did not run"


def test_an_empty_patch_is_not_run(made: Made, tmp_path: Path) -> None:
    graded = grade(made, "", tmp_path)
    assert (graded.outcome, graded.resolved, graded.report) == ("empty", False, None)


def test_a_patch_is_applied_by_the_official_chain_of_commands(made: Made, tmp_path: Path) -> None:
    assert grade(made, GOLD, tmp_path).applied == APPLY_COMMANDS["5"][0]
    fuzzy = grade(made, FUZZY, tmp_path)
    assert fuzzy.resolved and fuzzy.applied == "patch --batch --forward --fuzz=5 -p1 -i"
    refused = grade(made, GARBAGE, tmp_path)
    assert refused.outcome == "refused" and "garbage" in refused.reason


def test_the_repeated_installation_is_left_out_only_where_it_cannot_matter(made: Made, tmp_path: Path) -> None:
    def installs(patch: str, **settings: Any) -> bool:
        graded = grade(made, patch, tmp_path, **settings)
        assert graded.outcome == "unresolved"
        assert graded.installed == ("installed again" in log_of(graded, tmp_path))
        return graded.installed

    assert not installs(HARMLESS)
    assert installs(HARMLESS, verbatim=True)
    assert installs(HARMLESS.replace("NOTES", "setup.cfg"))
    assert installs(HARMLESS.replace("NOTES", "speed.pyx"))


def test_an_image_without_a_label_is_looked_into(made: Made, tmp_path: Path) -> None:
    bare = f"{NAMESPACE}/bare"
    base, image = build_instance(made.client, tmp_path / "bare", bare)
    try:
        graded = grade(replace(made, image=image, row=make_row(base)), HARMLESS, tmp_path)
        assert graded.outcome == "unresolved" and graded.installed, "nothing in it says that it is installed in place"
    finally:
        made.client.images.remove(bare, force=True)


def test_tests_that_take_too_long_are_ended_and_the_verdict_says_so(made: Made, tmp_path: Path) -> None:
    endless = GOLD.replace("+    return a + b", "+    import time; time.sleep(600)")
    began = time.monotonic()
    graded = grade(made, endless, tmp_path, timeout=3, run=f"endless-{PID}")
    assert time.monotonic() - began < 30
    assert (graded.outcome, graded.report) == ("timed-out", None)
    assert graded.reason == "the tests took more than 3 s"
    assert log_of(graded, tmp_path).endswith("\n\nTimeout error: 3 seconds exceeded.")
    assert not containers_of(made, f"endless-{PID}")
    again = grade(made, endless, tmp_path, timeout=2)
    assert again.remembered, "with less patience it would be no other"
    assert not grade(made, endless, tmp_path, timeout=4).remembered, "with more it might"


def test_a_suite_that_never_ran_is_unresolved_with_the_reason(made: Made, tmp_path: Path) -> None:
    row = replace(made.row, eval_script="echo nothing\nexit 3\n", log_parser="parse_log_pytest")
    graded = grade(made, GOLD, tmp_path, row)
    assert graded.outcome == "not-run"
    assert graded.reason == "the tests did not run: the script ended with status 3 and its output has no test run"
    assert graded.report is not None and graded.report["patch_successfully_applied"] is False


def test_output_is_kept_whole_and_in_order(made: Made, tmp_path: Path) -> None:
    script = "seq 1 3000000\necho last >&2\n"
    row = replace(made.row, eval_script=script, log_parser="parse_log_pytest")
    log = log_of(grade(made, HARMLESS, tmp_path, row), tmp_path)
    numbers = log[log.index("\n1\n") + 1 :].splitlines()
    assert numbers[:3_000_000] == [str(number) for number in range(1, 3_000_001)]
    assert numbers[-1] == "last" and len(log) > 20_000_000


def test_output_without_end_is_ended(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "LOG_BYTES", 3_000_000)
    graded = grade(made, HARMLESS, tmp_path, replace(made.row, eval_script="yes\n", log_parser="parse_log_pytest"))
    assert graded.outcome == "unreadable" and "of output" in graded.reason
    assert len(log_of(graded, tmp_path)) == 3_000_000


@pytest.mark.parametrize("rules", ["5", "4.1"])
def test_a_stray_byte_in_the_output_costs_no_verdict_and_is_told(
    made: Made, tmp_path: Path, rules: official.Rules
) -> None:
    script = (
        ": '>>>>> Start Test Output'\nprintf 'PASSED tests/test_calc.py::test_add\\n\\377\\n'\n: '>>>>> End Test"
        " Output'\n"
    )
    row = replace(made.row, eval_script=script, log_parser="parse_log_pytest", pass_to_pass=())
    graded = grade(made, GOLD, tmp_path, row, rules=(rules,))
    assert graded.resolved and any("no UTF-8" in note for note in graded.notes)
    assert grade(made, GOLD + "\udcff", tmp_path).outcome == "unreadable"


@pytest.mark.parametrize(
    ("rules", "parser", "line"),
    [("5", "django/django", "ERROR:"), ("4.1", "django/django", "ERROR:"), ("4.1", "mwaskom/seaborn", "FAILED")],
)
def test_output_on_which_the_official_parser_fails_is_the_patch_s_own_outcome(
    made: Made, tmp_path: Path, rules: official.Rules, parser: str, line: str
) -> None:
    script = f": '>>>>> Start Test Output'\necho {line}\n: '>>>>> End Test Output'\n"
    row = replace(made.row, eval_script=script, log_parser=parser)
    for remembered in (False, True):
        graded = grade(made, HARMLESS, tmp_path, row, rules=(rules,))
        assert (graded.outcome, graded.report, graded.remembered) == ("unreadable", None, remembered)
        assert "the official parser fails on the tests' output: IndexError" in graded.reason


def test_tests_have_root_and_docker_s_capabilities_but_no_network(made: Made, tmp_path: Path) -> None:
    script = (
        "id -u; grep CapEff /proc/self/status; cat /sys/class/net/*/address; getent hosts $(hostname); pwd; echo"
        " $HOME\ngetent hosts github.com || echo 'Temporary failure in name resolution'\n: '>>>>> Start Test Output'\n:"
        " '>>>>> End Test Output'\n"
    )
    row = replace(made.row, eval_script=script, log_parser="parse_log_pytest")
    graded = grade(made, HARMLESS, tmp_path, row)
    log = log_of(graded, tmp_path)
    assert "\n0\n" in log and "00000000a80425fb" in log, "the capabilities of an ordinary container"
    assert "testbed" in log and "\n+ pwd\n/testbed\n" in log and "\n/root\n" in log
    assert len([line for line in log.splitlines() if line.count(":") == 5 and len(line) == 17]) == 1, (
        "only the loopback"
    )
    assert any("--network" in note for note in graded.notes)


def test_each_distinct_patch_is_graded_once_however_often_it_is_asked_for(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[str] = []

    async def many() -> list[GradedPatch]:
        async with Grader(cache=tmp_path, workers=3) as grader:
            run = grader._containers.run

            async def counted(*arguments: Any, **settings: Any) -> Any:
                starts.append(arguments[0].instance_id)
                return await run(*arguments, **settings)

            monkeypatch.setattr(grader._containers, "run", counted)
            return await asyncio.gather(*(grader.grade(made.row, made.image, patch) for patch in (GOLD, HARMLESS) * 5))

    assert [graded.resolved for graded in asyncio.run(many())] == [True, False] * 5
    assert len(starts) == 2
    assert all(graded.remembered for graded in asyncio.run(many())) and len(starts) == 2
    assert not grade(made, GOLD, tmp_path, replace(made.row, fail_to_pass=("other",))).remembered, "other hidden tests"
    assert not grade(made, GOLD, tmp_path, fresh=True).remembered


def test_two_graders_at_a_time_grade_a_patch_once(made: Made, tmp_path: Path) -> None:
    slow = GOLD.replace("+    return a + b", "+    import time; time.sleep(1); return a + b")

    async def both() -> list[GradedPatch]:
        async with Grader(cache=tmp_path) as first, Grader(cache=tmp_path) as second:
            return await asyncio.gather(*(grader.grade(made.row, made.image, slow) for grader in (first, second)))

    graded = asyncio.run(both())
    assert [each.resolved for each in graded] == [True, True]
    assert sorted(each.remembered for each in graded) == [False, True]


def test_a_grader_does_not_wait_for_what_another_has_only_queued(made: Made, tmp_path: Path) -> None:
    endless = GOLD.replace("+    return a + b", "+    import time; time.sleep(600)")

    async def both() -> bool:
        async with Grader(cache=tmp_path, workers=1) as busy, Grader(cache=tmp_path, workers=1) as free:
            queued = [asyncio.create_task(busy.grade(made.row, made.image, patch)) for patch in (endless, GOLD)]
            await asyncio.sleep(0.5)
            graded = await asyncio.wait_for(free.grade(made.row, made.image, GOLD), timeout=60)
            for task in queued:
                task.cancel()
            await asyncio.wait(queued)
            return graded.resolved

    assert asyncio.run(both())


def test_a_container_that_dies_is_no_verdict_and_is_tried_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "_BACKOFF_SECONDS", 0.01)
    slow = GOLD.replace("+    return a + b", "+    import time; time.sleep(3); return a + b")
    killed: list[str] = []

    async def murder(times: int) -> None:
        while len(killed) < times:
            for victim in await asyncio.to_thread(
                made.client.containers.list, filters={"label": f"troop.run=murder-{PID}"}
            ):
                if victim.id not in killed:
                    killed.append(victim.id)
                    await asyncio.to_thread(victim.kill)
            await asyncio.sleep(0.05)

    async def graded(times: int) -> tuple[GradedPatch, int]:
        killed.clear()
        async with Grader(cache=tmp_path, run=f"murder-{PID}") as grader:
            task = asyncio.ensure_future(murder(times))
            try:
                return await grader.grade(made.row, made.image, slow), grader.infrastructure
            finally:
                task.cancel()

    with pytest.raises(SandboxFailed, match="ended before its tests did"):
        asyncio.run(graded(4))
    verdict, failures = asyncio.run(graded(2))
    assert verdict.resolved and failures == 2


def test_a_grading_whose_daemon_dies_fails_at_once_and_the_next_one_begins_anew(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the image's own installation unknown: that it could not be looked at is not remembered either."""
    monkeypatch.setattr(grading, "_BACKOFF_SECONDS", 0.01)
    slow = GOLD.replace("+    return a + b", "+    import time; time.sleep(3); return a + b")
    unknown = replace(made.image, labels={})

    async def whole() -> tuple[float, GradedPatch]:
        async with proxied(tmp_path / "docker.sock") as proxy, Grader(cache=tmp_path, run=f"dying-{PID}") as grader:
            await grader.clean()
            proxy.cut()
            with pytest.raises(SandboxFailed, match="the daemon does not answer"):
                await grader.grade(made.row, unknown, slow)
            await proxy.open()
            task = asyncio.create_task(grader.grade(made.row, unknown, slow))
            # One that was made and never started would be left for `clean` to find.
            running = {"label": f"troop.run=dying-{PID}", "status": "running"}
            await asyncio.to_thread(wait_for, lambda: made.client.api.containers(filters=running))
            began = time.monotonic()
            proxy.cut()
            with pytest.raises(SandboxFailed, match="the daemon does not answer"):
                await task
            took = time.monotonic() - began
            await proxy.open()
            return took, await grader.grade(made.row, unknown, slow)

    took, graded = asyncio.run(whole())
    assert took < 5 and graded.resolved


def test_a_stopped_grading_leaves_no_container(made: Made, tmp_path: Path) -> None:
    slow = GOLD.replace("+    return a + b", "+    import time; time.sleep(60); return a + b")

    async def interrupted() -> None:
        async with Grader(cache=tmp_path, run=f"stopped-{PID}") as grader:
            task = asyncio.ensure_future(grader.grade(made.row, made.image, slow))
            await asyncio.to_thread(wait_for, lambda: containers_of(made, f"stopped-{PID}"))
            task.cancel()

    asyncio.run(interrupted())
    assert not containers_of(made, f"stopped-{PID}")


def test_the_container_ends_when_its_harness_is_gone(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attachment ends with the process; here it is cut."""

    async def cut() -> None:
        containers = Containers(f"cut-{PID}")
        with (tmp_path / "log").open("wb") as log:
            running = containers.run(made.row, made.image, HARMLESS.encode(), b"sleep 60\n", log, 60)
            task = asyncio.ensure_future(running)
            # One that was made and never started is for `clean` to find.
            running_now = {"label": f"troop.run=cut-{PID}", "status": "running"}
            await asyncio.to_thread(wait_for, lambda: made.client.api.containers(filters=running_now))
            monkeypatch.setattr(containers.daemon, "remove", _leave)
            task.cancel()
            await asyncio.to_thread(wait_for, lambda: not containers_of(made, f"cut-{PID}"))

    async def _leave(*_: object) -> None:
        """Nobody is left to remove it."""

    asyncio.run(cut())


def test_results_that_the_exit_code_contradicts_are_believed_by_former_rules_only(made: Made, tmp_path: Path) -> None:
    graded = grade(made, FORGER, tmp_path, rules=("5", "4.1"))
    assert (
        graded.outcome == "not-run" and "ended with exit code 1, but their output tells of no failure" in graded.reason
    )
    assert graded.former == "resolved"
    again = grade(made, FORGER, tmp_path, rules=("5", "4.1"))
    assert again.remembered and again.former == "resolved"
    right = grade(made, GOLD, tmp_path, rules=("5", "4.1"))
    assert (right.outcome, right.former, right.former_reason) == ("resolved", "resolved", "")
    fuzzy = grade(made, FUZZY, tmp_path, rules=("5", "4.1"))
    assert (fuzzy.outcome, fuzzy.former) == ("resolved", "resolved"), "laid in another way, so run for each"


def test_markers_that_the_tests_print_are_named(made: Made, tmp_path: Path) -> None:
    patch = GOLD.replace("+    return a + b", "+    print('>>>>> Test Exit Code: 0'); return a + b")
    graded = grade(made, patch, tmp_path)
    assert any("markers more often" in note for note in graded.notes)
    assert not grade(made, GOLD, tmp_path).notes


def test_each_repetition_has_a_verdict_of_its_own(made: Made, tmp_path: Path) -> None:
    async def twice() -> list[str]:
        async with Grader(cache=tmp_path) as grader:
            return [(await grader.grade(made.row, made.image, GOLD, number)).key for number in (0, 1, 1)]

    first, second, again = asyncio.run(twice())
    assert first != second == again


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["5", "4.1"])
def test_the_official_harness_says_the_same_in_the_same_image(
    made: Made, tmp_path: Path, rules: official.Rules
) -> None:
    patches: Mapping[str, str] = {
        "gold": GOLD,
        "breaking": BREAKING,
        "harmless": HARMLESS,
        "fuzzy": FUZZY,
        "garbage": GARBAGE,
        "set-up": HARMLESS.replace("NOTES", "setup.cfg"),
        "no-text": GOLD.replace(
            "+    return a + b", "+    import sys; sys.stdout.buffer.write(b'\\377'); return a + b"
        ),
        "liar": GOLD.replace(
            "+    return a + b", "+    print('SKIPPED tests/test_calc.py::test_add'); raise SystemExit"
        ),
        "empty": "",
        "forger": FORGER,
        "bare-word": GOLD.replace("+    return a + b", "+    print('FAILED'); return a + b"),
    }
    rows = {name: replace(made.row, instance_id=f"{INSTANCE}{number}") for number, name in enumerate(patches)}
    # 4.1's parser of its logs raises an IndexError on a line that says FAILED and no more.
    rows["bare-word"] = replace(rows["bare-word"], repo="mwaskom/seaborn", version="0.12")
    image = made.client.images.get(NAME)
    for row in rows.values():
        image.tag(image_name(row.instance_id, NAMESPACE))
    try:
        theirs = run_official(
            write_rows(tmp_path / "rows.jsonl", *rows.values()),
            {rows[name].instance_id: patch for name, patch in patches.items()},
            tmp_path / "official",
            namespace=NAMESPACE,
            workers=2,
            rules=rules,
        )
    finally:
        for row in rows.values():
            made.client.images.remove(image_name(row.instance_id, NAMESPACE))
    words = {"resolved": "resolved", "unresolved": "unresolved", "not-run": "unresolved", "empty": "empty"}
    outcomes = set()
    for name, patch in patches.items():
        row = rows[name]
        for verbatim in (False, True):
            ours = grade(made, patch, tmp_path / "cache", row, verbatim=verbatim, rules=(rules,))
            if name == "no-text" and rules == "4.1":
                assert ours.report and theirs.outcome(row.instance_id) == "error", "a byte costs the verdict there"
                continue
            assert words.get(ours.outcome, "error") == theirs.outcome(row.instance_id), (
                f"{name}: Troop says {ours.outcome} ({ours.reason}); the official log: {theirs.log_end(row.instance_id)}"
            )
            assert ours.report == theirs.reports.get(row.instance_id), name
            outcomes.add(ours.outcome)
    here = {"5": "not-run", "4.1": "unreadable"}[rules]  # the forger's, and the bare word's
    assert outcomes == {"resolved", "unresolved", "refused", "empty", here}


def test_a_test_patch_of_new_files_only_is_graded_as_the_official_script_does_and_named(
    made: Made, tmp_path: Path
) -> None:
    added = HARMLESS.replace("NOTES", "tests/test_new.py").replace("+x", "+def test_new(): open('set_up')")
    row = replace(made.row, test_patch=added, fail_to_pass=("tests/test_new.py::test_new",), pass_to_pass=())
    graded = grade(made, HARMLESS, tmp_path, row)
    assert graded.outcome == "unresolved", "the official checkout of the base has taken the image's set-up away"
    assert any("checks out the whole base commit" in note for note in graded.notes)
    assert "set-up" not in json.dumps(grade(made, HARMLESS, tmp_path).notes)
