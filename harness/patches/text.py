"""The text of a diff, parsed: git's extended form and plain unified diffs. Hunks are read by their counts, so content
is never taken for a header; lines end at \\n only, so carriage returns and form feeds stay content."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["added", "deleted", "modified", "renamed", "mode"]

LOOSELY = ("--recount", "-C1", "--ignore-whitespace")
"""Options of `git apply` by which a diff may lack context around its hunks, as `patch --fuzz` would let pass."""

_NUMBER = r"([0-9]{1,9})"
_HUNK = re.compile(rf"@@ -{_NUMBER}(?:,{_NUMBER})? \+{_NUMBER}(?:,{_NUMBER})? @@(.*)", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Hunk:
    """`start`: the first line on the base that it covers (for a pure insertion without context: the line it follows,
    plus one). `lines`: (" ", "-" or "+", text without its end). `section`: what stands after the second @@."""

    start: int
    lines: tuple[tuple[str, str], ...]
    section: str = ""

    def numbered(self) -> Iterator[tuple[int, str, str]]:
        """(line on the base, sign, text); an added line has the number of the base's line that comes after it."""
        at = self.start
        for sign, text in self.lines:
            yield at, sign, text
            if sign != "+":
                at += 1

    def around(self) -> Iterator[str]:
        """All that can be seen of the place: the section heading and every line."""
        yield self.section
        yield from (text for _, text in self.lines)


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a patch does to one file. `old_path`: where it was, for a renamed file. `mode`: only the mode changes.

    Modes are git's ("100644"), None where the diff does not say. Blobs are full object ids, None where it does not say.
    """

    path: str
    kind: Kind
    binary: bool = False
    old_path: str | None = None
    mode_before: str | None = None
    mode_after: str | None = None
    blob_before: str | None = None
    blob_after: str | None = None
    hunks: tuple[Hunk, ...] = ()
    binary_text: str = ""

    @property
    def added(self) -> int:
        return sum(sign == "+" for hunk in self.hunks for sign, _ in hunk.lines)

    @property
    def removed(self) -> int:
        return sum(sign == "-" for hunk in self.hunks for sign, _ in hunk.lines)


@lru_cache(maxsize=2)
def parse(diff: str) -> tuple[FileChange, ...]:
    """The files of a diff in its order; text around them is passed over."""
    return tuple(_Reader(diff.split("\n")).files())


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def _peek(self) -> str | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def files(self) -> Iterator[FileChange]:
        while (line := self._peek()) is not None:
            if line.startswith("diff --git "):
                yield self._git_file(line)
            elif line.startswith("--- ") and "".join(self._lines[self._at + 1 : self._at + 2]).startswith("+++ "):
                yield self._plain_file()
            else:
                self._at += 1

    def _git_file(self, first: str) -> FileChange:
        self._at += 1
        header = _header_paths(first.removeprefix("diff --git "))
        facts: dict[str, str] = {}
        while (match := _FACT.match(self._peek() or "")) is not None:
            facts[match[1]] = match[2]
            self._at += 1
        binary_text = self._binary()
        hunks = self._hunks()
        before, after = _path(facts.get("---")), _path(facts.get("+++"))
        old, new = facts.get("rename from"), facts.get("rename to") or facts.get("copy to")
        path = (unquoted(new) if new else None) or after or before or header
        kind = _kind(facts, bool(hunks) or binary_text is not None)
        blobs = re.match(r"([0-9a-f]+)\.\.([0-9a-f]+)(?: (\d+))?", facts.get("index", ""))
        same_mode = blobs[3] if blobs else None
        return FileChange(
            path=path,
            kind=kind,
            binary=binary_text is not None,
            old_path=unquoted(old) if old else None,
            mode_before=facts.get("old mode") or facts.get("deleted file mode") or same_mode,
            mode_after=facts.get("new mode") or facts.get("new file mode") or same_mode,
            blob_before=_full(blobs[1]) if blobs else None,
            blob_after=_full(blobs[2]) if blobs else None,
            hunks=hunks,
            binary_text=binary_text or "",
        )

    def _plain_file(self) -> FileChange:
        before = _path(self._lines[self._at].removeprefix("--- "))
        after = _path(self._lines[self._at + 1].removeprefix("+++ "))
        self._at += 2
        hunks = self._hunks()
        kind: Kind = "added" if before is None else "deleted" if after is None else "modified"
        return FileChange(path=after or before or "", kind=kind, hunks=hunks)

    def _binary(self) -> str | None:
        line = self._peek() or ""
        if line.startswith("Binary files "):
            self._at += 1
            return line
        if not line.startswith("GIT binary patch"):
            return None
        start = self._at
        while (following := self._peek()) is not None and not following.startswith("diff --git "):
            self._at += 1
        return "\n".join(self._lines[start : self._at]).rstrip("\n")

    def _hunks(self) -> tuple[Hunk, ...]:
        found: list[Hunk] = []
        while (match := _HUNK.match(self._peek() or "")) is not None:
            self._at += 1
            found.append(self._hunk(match))
        return tuple(found)

    def _hunk(self, match: re.Match[str]) -> Hunk:
        start, before, after = int(match[1]), int(match[2] or "1"), int(match[4] or "1")
        # "-5,0" means: after line 5.
        first = start + 1 if before == 0 else start
        lines: list[tuple[str, str]] = []
        while (line := self._peek()) is not None:
            if line.startswith("\\"):  # no line end at the end of the file
                self._at += 1
                continue
            if before <= 0 and after <= 0:
                break
            sign, text = (line[0], line[1:]) if line else (" ", "")
            if sign not in " +-":
                break
            before -= sign != "+"
            after -= sign != "-"
            lines.append((sign, text))
            self._at += 1
        return Hunk(first, tuple(lines), match[5].strip())


_MODES = "(?:old|new|deleted file|new file) mode"
_FACT = re.compile(rf"({_MODES}|(?:rename|copy) (?:from|to)|(?:dis)?similarity index|index|---|\+\+\+) (.*)", re.DOTALL)


def _kind(facts: dict[str, str], has_content: bool) -> Kind:
    if "new file mode" in facts or "copy to" in facts or facts.get("---", "").strip() == "/dev/null":
        return "added"
    if "deleted file mode" in facts or facts.get("+++", "").strip() == "/dev/null":
        return "deleted"
    if "rename to" in facts:
        return "renamed"
    return "mode" if "new mode" in facts and not has_content else "modified"


def _full(oid: str) -> str | None:
    return oid if len(oid) in (40, 64) and set(oid) != {"0"} else None


def _path(text: str | None) -> str | None:
    """A path from a ---/+++ line, without its a/ or b/; None for /dev/null."""
    if text is None:
        return None
    # git ends a name that has a space in it with a tab; other tools put a time after one.
    name = unquoted(text.partition("\t")[0].rstrip("\r")) if not text.startswith('"') else unquoted(text)
    return None if name == "/dev/null" else name[2:] if name.startswith(("a/", "b/")) else name


def _header_paths(text: str) -> str:
    """The path in "a/X b/X", where both name the same file (git says otherwise in lines of their own)."""
    if text.startswith('"'):
        end = _end_of_quoted(text)
        return unquoted(text[:end])[2:]
    text = text.partition("\0")[0]
    half = (len(text) - 1) // 2
    return text[2:half] if text[half : half + 1] == " " else text.partition(" b/")[2]


def _end_of_quoted(text: str) -> int:
    at = 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return at + 1


def unquoted(name: str) -> str:
    """A name as git writes it, its C-style quotes and octal bytes undone ("surrogateescape" for what is no UTF-8). A
    zero byte ends it, as it does for git."""
    if not name.startswith('"'):
        return name.partition("\0")[0]
    inner = name[1 : _end_of_quoted(name) - 1]
    out = bytearray()
    for match in re.finditer(r"\\([0-3][0-7]{2})|\\(.)|([^\\]+)", inner, re.DOTALL):
        if match[1]:
            out.append(int(match[1], 8))
        else:
            out += (_ESCAPES.get(match[2], match[2]) if match[2] else match[3]).encode("utf-8", "surrogateescape")
    return out.partition(b"\0")[0].decode("utf-8", "surrogateescape")
