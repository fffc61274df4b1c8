"""The played attempts' data: replayed offline they give what the runs chose, and they hold no patch and no source."""

from __future__ import annotations

import re

from agent.choice.order import select
from tests.bench.played import DATA, WAYS, as_candidates, findings, outcome, read

ITEMS = read(DATA)


def test_a_replayed_choice_is_what_the_run_chose() -> None:
    for item in ITEMS:
        for judge, made in item.choices.items():
            replayed = select(as_candidates(made), findings(made), made["points"])
            assert replayed.candidate == made["selected"], (item.name, judge)


def test_what_was_shown_chooses_better_than_what_was_not() -> None:
    shown, alone = (
        outcome(ITEMS, WAYS[name]) for name in ("tests, then ranker (--judge none)", "rules (no test counts)")
    )
    assert shown.selected > shown.mean_at_1 > alone.selected and shown.oracle == alone.oracle


def test_the_data_hold_names_and_numbers_only() -> None:
    text = DATA.read_text()
    assert len(ITEMS) >= 12 and not re.search(r"diff --git|^[+-] |def test_|import ", text, re.MULTILINE)
