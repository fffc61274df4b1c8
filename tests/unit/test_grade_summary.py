"""The official summary: every outcome stands where the official harness puts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

from harness.swebench.grading import GradedPatch, Outcome
from harness.swebench.memo import Memo, key_of
from harness.swebench.predictions import Prediction
from harness.swebench.summary import Result, official_summary


def result(name: str, outcome: Outcome | None) -> Result:
    graded = None if outcome is None else GradedPatch(name, outcome, "", None)
    return Result(Prediction(name, "m", "diff"), graded, "no container" if outcome is None else "")


def test_each_outcome_stands_where_the_official_harness_puts_it() -> None:
    outcomes: dict[str, Outcome | None] = {str(outcome): outcome for outcome in get_args(Outcome)}
    outcomes["no-verdict"] = None
    results = {name: result(name, outcome) for name, outcome in outcomes.items()}
    summary = official_summary([*results, "not-predicted"], results)
    assert summary["resolved_ids"] == ["resolved"]
    assert summary["unresolved_ids"] == ["not-run", "unresolved"]
    assert summary["empty_patch_ids"] == ["empty"]
    assert summary["error_ids"] == ["no-verdict", "refused", "timed-out", "unreadable"]
    assert summary["completed_ids"] == ["not-run", "resolved", "unresolved"]
    assert summary["incomplete_ids"] == ["not-predicted"]
    assert summary["submitted_ids"] == sorted(results)
    counts = {name: value for name, value in summary.items() if name.endswith("_instances")}
    assert counts == {
        "total_instances": 9,
        "submitted_instances": 8,
        "completed_instances": 3,
        "resolved_instances": 1,
        "unresolved_instances": 2,
        "empty_patch_instances": 1,
        "error_instances": 4,
    }
    assert summary["schema_version"] == 2


def test_a_key_tells_its_parts_apart() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a", b"b") == key_of("a", "b")


def test_a_key_has_one_turn_at_a_time_and_it_ends_with_its_holder(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "grading", tmp_path / "tmp")
    with memo.turn("a") as ours, memo.turn("a") as again, memo.turn("b") as other:
        assert (ours, again, other) == (True, False, True)
    assert not list((tmp_path / "tmp").glob("grading-a*"))
    holder = f"""
import os, signal
from pathlib import Path
from harness.swebench.memo import Memo
with Memo(Path({str(tmp_path)!r}) / "grading", Path({str(tmp_path)!r}) / "tmp").turn("a") as ours:
    assert ours
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", holder], check=False).returncode == -9
    with memo.turn("a") as ours:
        assert ours


def test_an_entry_is_there_whole_or_not_at_all_and_the_first_stays(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "grading", tmp_path / "tmp")
    key = key_of("x")

    def keep(outcome: str, *, again: bool = False) -> None:
        log = memo.scratch() / "log"
        log.write_text(f"the log of {outcome}")
        memo.keep(key, {"outcome": outcome}, log, again=again)

    def kept() -> tuple[object, str]:
        memo.copy_log(key, tmp_path / "log")
        return memo.look_up(key), (tmp_path / "log").read_text()

    assert memo.look_up(key) is None
    keep("first")
    keep("second")
    assert kept() == ({"outcome": "first"}, "the log of first")
    keep("third", again=True)
    assert kept() == ({"outcome": "third"}, "the log of third")
    (tmp_path / "grading" / key[:2] / key / "verdict.json").write_text("damaged")
    assert memo.look_up(key) is None
    keep("fourth")
    assert kept() == ({"outcome": "fourth"}, "the log of fourth")
    assert not list((tmp_path / "tmp").iterdir())
