"""The lines of a trace without what nobody reads twice: a candidate's outcomes are mostly those of the candidate before
it, a decision says what the reply before it says, and names of tests fill most of the rest.

`packed` of a line holds what was left out of it, by name: base64 of raw DEFLATE (RFC 1951) of the value's JSON, with a
dictionary of what its writer's earlier lines said, so a line is read after those before it. `gone` names the regression
tests of the last candidate that this one lacks; those that ended as on the last one are left out. `by` tells the lines
of one writer from those of another, who knows nothing of the first's, and counts them, so that none is missed.
"""

import base64
import json
import secrets
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from harness.records import Json

PLAIN = frozenset({"run-started", "run-ended", "replied", "tool-ran", "attempt-ended", "selected"})
"""Kinds of lines that stay readable as they are."""
WORTH = 512
"""Characters of JSON from which a value is packed."""
WINDOW = 1 << 15
"""Bytes that DEFLATE looks back."""
AT_MOST = 1 << 30
"""Bytes that a trace may unpack to: more is made to fill a memory."""


class Packer:
    """What one writer's lines have said, to its writer and, line by line, to a reader."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._lines = 0
        self._said: dict[object, bytes] = {}  # by attempt: its last reply; by kind and name: the value packed last
        self._outcomes: Json = {}
        self._unpacked = 0

    def pack(self, line: Json) -> tuple[bytes, Callable[[], None]]:
        """The text of the line as it is to be written, and what to call when it is."""
        by = {"by": f"{self._name}-{self._lines}"}
        if line["kind"] == "replied":
            return _dumps({**line, **by}), lambda: self._note(line)
        text, outcomes, said = _dumps(line), self._outcomes, dict[object, bytes]()
        if line["kind"] in PLAIN or len(text) < WORTH:
            return text, lambda: self._note(line)
        short, packed = {**line, **by}, {}
        if line["kind"] == "verified" and (found := line["evidence"]["regression"]):
            changed = {test: outcome for test, outcome in found.items() if outcomes.get(test) != outcome}
            short["evidence"] = {**line["evidence"], "regression": changed}
            short["gone"], outcomes = [test for test in outcomes if test not in found], found
        for name in tuple(short):
            plain = _dumps(short[name])
            if len(plain) >= WORTH:
                made = zlib.compressobj(6, zlib.DEFLATED, -15, 9, 0, self._dictionary(line, name))
                packed[name] = base64.b64encode(made.compress(plain) + made.flush()).decode("ascii")
                said[line["kind"], name] = plain[-WINDOW:]
                del short[name]

        def written() -> None:
            self._said |= said
            self._lines, self._outcomes = self._lines + 1, outcomes

        return _dumps({**short, "packed": packed}), written

    def unpack(self, line: Json) -> Json:
        """The line, which is changed, as it was before `pack`. Raises ValueError or LookupError for one that none has
        written, or that unpacks to too much."""
        if "by" in line and line.pop("by").partition("-")[2] != str(self._lines):
            raise ValueError("a line before it is missing")
        self._note(line)
        self._lines += "packed" in line
        for name, text in line.pop("packed", {}).items():
            held = zlib.decompressobj(-15, self._dictionary(line, name))
            try:
                plain = held.decompress(base64.b64decode(text), max(1, AT_MOST - self._unpacked))
            except zlib.error as error:
                raise ValueError(f"`packed`: {error}") from error
            self._unpacked += len(plain)
            if not held.eof:
                raise ValueError("`packed` is cut off, or larger than any run's")
            self._said[line["kind"], name] = plain[-WINDOW:]
            line[name] = json.loads(plain)
        if "gone" in line:
            gone = set(line.pop("gone"))
            kept = {test: outcome for test, outcome in self._outcomes.items() if test not in gone}
            self._outcomes = {**kept, **line["evidence"]["regression"]}
            line["evidence"]["regression"] = self._outcomes
        return line

    def _note(self, line: Json) -> None:
        if line["kind"] == "replied":
            self._said[line.get("attempt")] = _dumps(line["message"])[-WINDOW // 2 :]
            self._lines += 1
        elif line["kind"] == "attempt-ended":
            self._said.pop(line.get("attempt"), None)

    def _dictionary(self, line: Json, name: str) -> bytes:
        return (self._said.get((line["kind"], name), b"") + self._said.get(line.get("attempt"), b""))[-WINDOW:]


class Unpacker:
    """A reader's side: each line by what its own writer said before."""

    def __init__(self) -> None:
        self._writers: dict[str, Packer] = defaultdict(Packer)

    def unpack(self, line: Json) -> Json:
        """See `Packer.unpack`."""
        return self._writers[line.get("by", "").partition("-")[0]].unpack(line)


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
