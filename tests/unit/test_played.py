"""The played attempts' data: replayed offline they give what the runs chose, and they hold no patch and no source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.choice.order import select
from tests.bench.played import DATA, WAYS, as_candidates, findings, outcome, read

SETS = pytest.mark.parametrize("file", [DATA, DATA.with_name("played_others.json")], ids=lambda file: file.stem)


@SETS
def test_a_replayed_choice_is_what_the_run_chose(file: Path) -> None:
    for item in read(file):
        for judge, made in item.choices.items():
            replayed = select(as_candidates(made), findings(made), made["points"])
            assert replayed.candidate == made["selected"], (item.name, judge)


@SETS
def test_what_was_shown_chooses_better_than_what_was_not(file: Path) -> None:
    names = ("tests, then ranker (--judge none)", "rules (no test counts)")
    shown, alone = (outcome(read(file), WAYS[name]) for name in names)
    assert shown.selected > shown.mean_at_1 and shown.selected > alone.selected and shown.oracle == alone.oracle


@SETS
def test_the_data_hold_names_and_numbers_only(file: Path) -> None:
    text = file.read_text()
    assert len(read(file)) >= 12 and not re.search(r"diff --git|^[+-] |def test_|import ", text, re.MULTILINE)
