"""Lines of a file as every tool counts them, and a change of a text that leaves the rest of it as it is.

A line ends with "\\n" or "\\r\\n" and with nothing else: a form feed or U+2028 is a character like any other. Texts of
files are decoded with "surrogateescape", so that they hold every byte; `shown` is what a model sees of them.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import chain, repeat

from agent.models.wires.texts import NO_UTF8, encodable

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_UNKNOWN = re.compile("[\ud800-\udfff\ufffd]")


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends; only the last may have none."""
    return _LINE.findall(text)


def shown(text: str) -> str:
    """A file's text for a model: each line ends with "\\n", each byte that is not UTF-8 is U+FFFD."""
    return encodable(text.replace("\r\n", "\n"))


def cut_line(line: str, limit: int) -> str:
    """The line; of a longer one than `limit` characters its beginning, and how much is missing."""
    return line if len(line) <= limit else f"{line[:limit]} [... {len(line) - limit} more characters in this line]"


def fitting(lines: Sequence[str], limit: int) -> Sequence[str]:
    """The first of the lines (without ends), as many as `limit` characters hold, at least one."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line) + 1
        if size > limit and count:
            return lines[:count]
    return lines


def cut_middle(text: str, limit: int) -> str:
    """The text; of a longer one than `limit` characters whole lines at both ends, and between them how much is missing.
    A line that is too long for that is cut itself."""
    if len(text) <= limit:
        return text
    half = limit // 2
    head, tail = text[:half], text[-half:]
    head = head[: head.rfind("\n", half // 2) + 1] or head
    tail = tail[tail.find("\n", 0, half // 2) + 1 :]
    left = text[len(head) : len(text) - len(tail)]
    lines = left.count("\n")
    what = f"{lines} line{'s' if lines > 1 else ''}, {len(left)} characters" if lines else f"{len(left)} characters"
    between = "" if head.endswith("\n") else "\n"
    return f"{head}{between}[... {what} left out ...]\n{tail}"


def replaced(text: str, at: int, old: str, new: str) -> str:
    """The text with `new` for the `old` that stands at offset `at` of `shown(text)`.

    Lines that both have stay as they are to the byte. Others end as the lines that they replace, or as the line does
    where the change begins. Raises ValueError where bytes that are not UTF-8 would be lost."""
    start, stop = _offset(text, at), _offset(text, at + len(old))
    kept, was, now = lines_of(text[start:stop]), lines_of(old), lines_of(shown(new))
    end = _end(text, start)
    pieces: list[str] = []
    for what, i, j, k, m in SequenceMatcher(None, was, now).get_opcodes():
        pieces += kept[i:j] if what == "equal" else [_alike(kept[i:j], now[k:m], end)]
    return text[:start] + "".join(pieces) + text[stop:]


def _offset(text: str, place: int) -> int:
    """Where in the text the character stands that has the offset `place` in `shown(text)`."""
    at = text.find("\r\n")
    while 0 <= at < place:
        place += 1
        at = text.find("\r\n", at + 2)
    return place


def _end(text: str, at: int) -> str:
    """How the line ends that holds the offset; the one before it, if it has no end."""
    end = text.find("\n", at)
    end = text.rfind("\n") if end < 0 else end
    return "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"


def _alike(kept: Sequence[str], now: Sequence[str], end: str) -> str:
    """The new lines with the ends of those that they replace (further ones: `end`) and with their bytes for U+FFFD."""
    ends = chain((_end(line, 0) if line.endswith("\n") else end for line in kept), repeat(end))
    text = "".join(line[:-1] + end if line.endswith("\n") else line for line, end in zip(now, ends, strict=False))
    before = "".join(kept)
    if not NO_UTF8.search(before) or "\ufffd" not in text:
        return text
    unknown = _UNKNOWN.findall(before)
    if len(unknown) != text.count("\ufffd"):
        raise ValueError("These lines hold bytes that are not UTF-8 (shown as U+FFFD); change them with a command.")
    return re.sub("\ufffd", lambda _: unknown.pop(0), text)
