"""One notion of a line, and changes of a text that leave the rest of it as it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.attempt.lines import cut_middle, fitting, lines_of, replaced, shown
from agent.models.wires.texts import encodable

TEXTS = st.text(alphabet="ab \n\r\f\u2028\udce9\ufffd", max_size=30)


@given(TEXTS)
def test_only_newlines_end_lines_and_no_character_is_lost(text: str) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    assert all(line.endswith("\n") for line in lines[:-1]) and all(line.count("\n") <= 1 for line in lines)


@given(TEXTS, TEXTS, st.data())
def test_a_change_leaves_what_is_around_it_to_the_byte(text: str, new: str, data: st.DataObject) -> None:
    seen = shown(text)
    start = data.draw(st.integers(0, len(seen)))
    stop = data.draw(st.integers(start, len(seen)))
    try:
        after = replaced(text, start, seen[start:stop], new)
    except ValueError:
        assert "\udce9" in text and "\ufffd" in shown(new)
        return
    rest = text[::-1], after[::-1]
    assert shown(after[: _offset(text, start)]) == seen[:start] and after.startswith(text[: _offset(text, start)])
    assert rest[1].startswith(rest[0][: len(text) - _offset(text, stop)])


def _offset(text: str, place: int) -> int:
    """Where in the text the character `place` of what is shown stands: shown character by shown character."""
    return len("".join(re.findall("\r\n|.", text, re.DOTALL)[:place]))


@pytest.mark.parametrize(
    ("text", "old", "new", "after"),
    [
        ("a\r\nb\r\n", "a\nb\n", "a\nx\nb\n", "a\r\nx\r\nb\r\n"),
        ("a\r\nb\r\n", "a", "x\ny", "x\r\ny\r\nb\r\n"),
        ("a\r\nb", "b", "x\ny", "a\r\nx\r\ny"),
        ("a\nb\r\nc\nd\r\n", "a\nb\nc\nd\n", "x\nb\nc\ny\n", "x\nb\r\nc\ny\r\n"),
        ("a\r\nb\n", "b\n", "x\ny\n", "a\r\nx\ny\n"),
        ("a\n", "a\n", "x\r\ny\r\n", "x\ny\n"),
        ("# \udce9\na\nb\n", "# \ufffd\na\n", "# \ufffd\nx\n", "# \udce9\nx\nb\n"),
        ("s = '\udce9'\n", "s = '\ufffd'", "t = '\ufffd!'", "t = '\udce9!'\n"),
        ("a\n", "a", "\ufffd", "\ufffd\n"),
    ],
)
def test_new_lines_end_as_those_that_they_replace(text: str, old: str, new: str, after: str) -> None:
    assert replaced(text, shown(text).index(old), old, new) == after


def test_bytes_that_are_not_utf_8_are_not_lost_by_a_change() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        replaced("s = '\udce9\udce8'\n", 0, "s = '\ufffd\ufffd'", "s = '\ufffd'")
    assert replaced("s = '\udce9\udce8'\n", 0, "s = '\ufffd\ufffd'", "s = ''") == "s = ''\n"


def test_what_is_shown_can_be_sent() -> None:
    assert shown("a\r\nb\rc\udce9") == "a\nb\rc\ufffd"
    assert encodable("\ud83d \udce9 é").encode() == "\ufffd \ufffd é".encode()


def test_long_texts_lose_whole_lines_of_their_middle_and_say_how_many() -> None:
    text = "".join(f"line {n}\n" for n in range(1000))
    cut = cut_middle(text, 500)
    assert cut.startswith("line 0\n") and cut.endswith("line 999\n") and len(cut) < 600
    kept = [line for line in cut.split("\n") if line.startswith("line ")]
    assert set(kept) <= set(text.split("\n"))
    assert f"[... {1000 - len(kept)} lines, " in cut
    assert cut_middle("short", 500) == "short"


def test_a_line_that_is_too_long_is_cut_itself() -> None:
    cut = cut_middle("x" * 1000, 100)
    assert cut == "x" * 50 + "\n[... 900 characters left out ...]\n" + "x" * 50


def test_as_many_lines_are_taken_as_fit_and_at_least_one() -> None:
    assert fitting(["aaa", "bb", "c"], 7) == ["aaa", "bb"]
    assert fitting(["aaa", "bb"], 1) == ["aaa"]
    assert fitting([], 1) == []
