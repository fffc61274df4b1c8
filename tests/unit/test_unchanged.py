"""What is known of the unchanged code, and what is not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from harness.environments.base_run import Baseline
from harness.evidence.unchanged import UnchangedCode
from harness.records import TestReport


@pytest.mark.parametrize(
    ("cut_short", "known"), [(False, {"t.py::a": "failed", "t.py::b": "missing"}), (True, {"t.py::a": "failed"})]
)
def test_of_a_run_that_was_cut_short_nothing_is_said_of_tests_that_it_has_not_reached(
    monkeypatch: pytest.MonkeyPatch, cut_short: bool, known: dict[str, str]
) -> None:
    async def of_file(self: UnchangedCode, file: str) -> TestReport:
        return TestReport({"t.py::a": "failed"}, 1, cut_short, True, 1.0)

    monkeypatch.setattr(UnchangedCode, "_of_file", of_file)
    base: Any = SimpleNamespace(files=lambda: ["t.py"])
    room: Any = None
    code = UnchangedCode(room, base, Baseline(report=None), seconds=1.0)
    assert asyncio.run(code.outcomes(["t.py::a", "t.py::b"])) == known
