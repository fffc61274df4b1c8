"""How failures of files, parsers and packages become sentences for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.errors import EndpointFailed, Explained, InputError


def test_a_failure_says_what_cannot_be_done_and_then_why_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no plan: No such file or directory$"), Explained("no plan", OSError):
        (tmp_path / "plan").read_text()
    with pytest.raises(InputError, match=r"^no plan: byte 1 is not UTF-8 text$"), Explained("no plan", ValueError):
        b"a\xff".decode("utf-8")
    with pytest.raises(InputError, match=r"^no plan: Expecting value") as refused, Explained("no plan", ValueError):
        json.loads("")
    assert isinstance(refused.value.__cause__, json.JSONDecodeError)


def test_of_many_lines_the_first_is_told_and_of_no_words_the_kind() -> None:
    with pytest.raises(EndpointFailed, match=r"^down: a$"), Explained("down", RuntimeError, kind=EndpointFailed):
        raise RuntimeError("a\nb")
    with pytest.raises(InputError, match=r"^down: TimeoutError$"), Explained("down", TimeoutError):
        raise TimeoutError


def test_what_nobody_asked_to_have_explained_stays_what_it_is() -> None:
    with pytest.raises(KeyError), Explained("no plan", ValueError):
        raise KeyError("x")
