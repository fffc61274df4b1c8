"""The lines of a trace without what nobody reads twice: a candidate's outcomes are mostly those of the candidate before
it, a changed file is mostly what it was, a decision says what the reply before it says.

`packed` of a line holds what was left out of it, by name: base64 of raw DEFLATE (RFC 1951) of the value's JSON, with a
dictionary of what its writer's earlier lines said, so a line is read after those before it. `gone` names the regression
tests of the last candidate that this one lacks; those that ended as on the last one are left out. `around` tells how
many characters at the beginning and at the end of a changed file are as they were written last. `by` tells the lines of
one writer from those of another, who knows nothing of the first's, and counts them, so that none is missed.
"""

import base64
import json
import secrets
import zlib
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

from harness.records import Json

PLAIN = frozenset({"run-started", "run-ended", "attempt-ended", "selected"})
"""Kinds of lines that stay readable as they are; so do replies."""
WORTH, WORTH_OF_RESULT = 512, 2048
"""Characters of JSON from which a value is packed, and what a tool gave back."""
WINDOW = 1 << 15
"""Bytes that DEFLATE looks back."""
FILES = 16
"""Changed files whose text is kept, to tell the next change by."""
FILE = 1 << 18
"""Characters of a text that is kept."""
AT_MOST = 1 << 30
"""Bytes that a trace may unpack to: more is made to fill a memory."""


class Packer:
    """What one writer's lines have said, to its writer and, line by line, to a reader."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._lines = 0
        self._said: dict[object, bytes] = {}  # by attempt: its last reply; by kind and name: the value packed last
        self._outcomes: Json = {}
        self._files: dict[str, str] = {}  # by path: its text as it was written last, the oldest first

    def pack(self, line: Json) -> tuple[bytes, Callable[[], None]]:
        """The text of the line as it is to be written, and what to call when it is."""
        by = {"by": f"{self._name}-{self._lines}"}
        if line["kind"] == "replied":
            return _dumps({**line, **by}), lambda: self._keep(line, {})
        text, worth = _dumps(line), WORTH_OF_RESULT if line["kind"] == "tool-ran" else WORTH
        if line["kind"] in PLAIN or len(text) < worth:
            return text, lambda: self._forget(line)
        short = {**line, **by}
        if line["kind"] == "verified":
            found, last = line["evidence"]["regression"], self._outcomes
            changed = {test: outcome for test, outcome in found.items() if last.get(test) != outcome}
            short["evidence"] = {**line["evidence"], "regression": changed}
            short["gone"] = [test for test in last if test not in found]
        elif line["kind"] == "tree-changed":
            short["tree"] = {**line["tree"], "files": [self._differing(file) for file in line["tree"]["files"]]}
        said, packed = dict[object, bytes](), dict[str, str]()
        for name in tuple(short):
            plain = _dumps(short[name])
            if len(plain) >= worth:
                made = zlib.compressobj(6, zlib.DEFLATED, -15, 9, 0, self._dictionary(line, name))
                packed[name] = base64.b64encode(made.compress(plain) + made.flush()).decode("ascii")
                said[line["kind"], name] = plain[-WINDOW:]
                del short[name]
        return _dumps({**short, "packed": packed}), lambda: self._keep(line, said)

    def unpack(self, line: Json, room: int) -> tuple[Json, int]:
        """The line, which is changed, as it was before `pack`, and what is left of `room` (bytes). Raises ValueError or
        LookupError for one that none has written, or that unpacks to more."""
        self._forget(line)
        if "by" not in line:
            return line, room
        if line.pop("by").partition("-")[2] != str(self._lines):
            raise ValueError("a line before it is missing")
        said = dict[object, bytes]()
        for name, text in line.pop("packed", {}).items():
            held = zlib.decompressobj(-15, self._dictionary(line, name))
            try:
                plain = held.decompress(base64.b64decode(text), max(1, room))
            except zlib.error as error:
                raise ValueError(f"`packed`: {error}") from error
            if not held.eof:
                raise ValueError("`packed` is cut off, or larger than any run's")
            said[line["kind"], name] = plain[-WINDOW:]
            line[name] = json.loads(plain)
        if line["kind"] == "verified":
            gone = set(line.pop("gone"))
            kept = {test: outcome for test, outcome in self._outcomes.items() if test not in gone}
            line["evidence"]["regression"] = kept | line["evidence"]["regression"]
        elif line["kind"] == "tree-changed":
            line["tree"]["files"] = [self._whole(file) for file in line["tree"]["files"]]
        self._keep(line, said)
        if (left := room - len(_dumps(line))) < 0:
            raise ValueError("it unpacks to more than any run's")
        return line, left

    def _keep(self, line: Json, said: dict[object, bytes]) -> None:
        """Note what later lines may leave out."""
        self._lines += 1
        self._said |= said
        if line["kind"] == "replied":
            self._said[line.get("attempt")] = _dumps(line["message"])[-WINDOW // 2 :]
        elif line["kind"] == "verified":
            self._outcomes = line["evidence"]["regression"]
        elif line["kind"] == "tree-changed":
            for file in line["tree"]["files"]:
                self._files.pop(file["path"], None)
                if len(text := _text(file)) <= FILE:
                    self._files[file["path"]] = text
            for path in tuple(islice(self._files, max(0, len(self._files) - FILES))):
                del self._files[path]

    def _forget(self, line: Json) -> None:
        if line["kind"] == "attempt-ended":
            self._said.pop(line.get("attempt"), None)

    def _dictionary(self, line: Json, name: str) -> bytes:
        return (self._said.get((line["kind"], name), b"") + self._said.get(line.get("attempt"), b""))[-WINDOW:]

    def _differing(self, file: Json) -> Json:
        text, last = _text(file), self._files.get(file["path"], "")
        start = _shared(text, last)
        end = _shared(text[start:][::-1], last[start:][::-1])
        if start + end == 0:
            return file
        return {**file, "data": {"text": text[start : len(text) - end], "around": [start, end]}}

    def _whole(self, file: Json) -> Json:
        if not file["data"] or "around" not in file["data"]:
            return file
        (start, end), last = file["data"]["around"], self._files[file["path"]]
        return {**file, "data": {"text": last[:start] + file["data"]["text"] + last[len(last) - end :]}}


class Unpacker:
    """A reader's side: each line by what its own writer said before."""

    def __init__(self) -> None:
        self._writers: dict[str, Packer] = defaultdict(Packer)
        self._room = AT_MOST

    def unpack(self, line: Json) -> Json:
        """See `Packer.unpack`."""
        line, self._room = self._writers[line.get("by", "").partition("-")[0]].unpack(line, self._room)
        return line


def _text(file: Json) -> str:
    """A changed file's text; "" where it is gone, or none."""
    text: str = (file["data"] or {}).get("text", "")
    return text


def _shared(one: str, other: str) -> int:
    """How many characters at their beginning are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
